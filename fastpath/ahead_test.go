package fastpath

import (
	"bytes"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// aheadPair is two connections of a stepped loop that allow input to be received ahead, with handlers h, and their peers.
func aheadPair(t *testing.T, l *Loop, h [2]Handler) (conns [2]*Conn, peers [2]*net.TCPConn) {
	t.Helper()
	for i := range conns {
		fd, peer := tcpPair(t)
		conns[i], peers[i] = mustAdopt(t, l, fd, h[i]), peer
		conns[i].ReadAhead(true)
	}
	return conns, peers
}

func say(t *testing.T, peers [2]*net.TCPConn, text string) {
	t.Helper()
	for _, p := range peers {
		if _, err := p.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReceivesInARow: what has come for two connections is in before either has its turn.
func TestReceivesInARow(t *testing.T) {
	l := steppedLoop(t)
	sinks := [2]*sink{{}, {}}
	var conns [2]*Conn
	most := 0
	watch := func(i int) *hooks {
		return &hooks{readable: func(c *Conn) {
			most = max(most, int(conns[0].aheadLeft+conns[1].aheadLeft))
			sinks[i].OnReadable(c)
		}}
	}
	conns, peers := aheadPair(t, l, [2]Handler{watch(0), watch(1)})
	say(t, peers, "hello")
	rounds(t, l, "both read", func() bool { return len(sinks[0].got)+len(sinks[1].got) == 10 })
	if most != 10 {
		t.Errorf("at the first turn %d bytes had been received ahead, want 10", most)
	}
	if conns[0].Readable() || conns[1].Readable() {
		t.Error("a short read shows an empty socket: no second one is needed")
	}
}

// TestAheadIsKept: an owner that asks for nothing in its turn finds all of it later, in order.
func TestAheadIsKept(t *testing.T) {
	l := steppedLoop(t)
	turns := 0
	idle := &hooks{readable: func(*Conn) { turns++ }}
	conns, peers := aheadPair(t, l, [2]Handler{idle, idle})
	for n, text := range []string{"one ", "two ", "three"} {
		say(t, peers, text)
		rounds(t, l, "both told", func() bool { return turns == 2*(n+1) })
	}
	for _, c := range conns {
		s := &sink{}
		s.OnReadable(c)
		if string(s.got) != "one two three" || s.err != nil {
			t.Errorf("got %q, %v", s.got, s.err)
		}
	}
}

// TestAheadEnds: a FIN and a reset behind input that was received ahead are told after it.
func TestAheadEnds(t *testing.T) {
	for _, reset := range []bool{false, true} {
		l := steppedLoop(t)
		sinks := [2]*sink{{}, {}}
		conns, peers := aheadPair(t, l, [2]Handler{sinks[0], sinks[1]})
		say(t, peers, "last words")
		l.readAhead(waiting(t, l, 2))
		want := ErrEOF
		for _, p := range peers {
			if reset {
				want = ErrReset
				_ = p.SetLinger(0)
			}
			_ = p.Close()
		}
		for i, c := range conns {
			sinks[i].OnReadable(c)
			rounds(t, l, "an end", func() bool { return sinks[i].err != nil })
			if string(sinks[i].got) != "last words" || sinks[i].err != want {
				t.Errorf("got %q and %v, want %v", sinks[i].got, sinks[i].err, want)
			}
		}
	}
}

// TestAheadOfTheClosed: a turn that closes another connection of the batch drops what was received for that one.
func TestAheadOfTheClosed(t *testing.T) {
	l := steppedLoop(t)
	var conns [2]*Conn
	turns := 0
	killer := &hooks{readable: func(c *Conn) {
		turns++
		for _, other := range conns {
			if other != c {
				other.Close()
			}
		}
		_ = c.Fill(100)
	}}
	conns, peers := aheadPair(t, l, [2]Handler{killer, killer})
	say(t, peers, "hello")
	l.readAhead(waiting(t, l, 2))
	rounds(t, l, "a turn", func() bool { return turns > 0 })
	if turns != 1 || l.Stats.Conns.Load() != 1 {
		t.Errorf("%d turns, %d connections are open", turns, l.Stats.Conns.Load())
	}
}

// waiting takes n events of the loop's epoll instance, and leaves them to be told again by a change of interest.
func waiting(t *testing.T, l *Loop, n int) (events []unix.EpollEvent) {
	t.Helper()
	rounds := 0
	for len(events) < n {
		got := epollWait(l.ep, l.events, 1000)
		events = append(events, l.events[:got]...)
		if rounds++; rounds > 60 {
			t.Fatalf("in vain: %d events", n)
		}
	}
	l.announce(events)
	for _, e := range events {
		l.conns[e.Fd].Again()
	}
	return events
}

// TestAheadTLS: records that were received ahead and not asked for wait for their owner, in order.
func TestAheadTLS(t *testing.T) {
	for _, version := range tlsVersions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			l := startLoop(t)
			turns := 0
			var conns [2]*Conn
			var peers [2]*tls.Conn
			shaken := make(chan *Error, 2)
			for i := range conns {
				fd, nc := tcpPair(t)
				h := &hooks{readable: func(*Conn) { turns++ }, handshake: func(_ *Conn, err *Error) { shaken <- err }}
				conns[i] = startTLS(t, l, fd, h, serverConfig(version), true, NewWork(1))
				peers[i] = tls.Client(nc, clientConfig(version))
				if err := peers[i].Handshake(); err != nil {
					t.Fatal(err)
				}
				if err := receive(t, "a handshake", shaken); err != nil {
					t.Fatal(err)
				}
			}
			on(t, l, func() {
				for _, c := range conns {
					c.ReadAhead(true)
				}
			})
			for _, text := range []string{"one ", "two ", "three"} {
				hold := make(chan struct{})
				l.Post(func() { <-hold }) // both have come when the loop looks
				for _, p := range peers {
					if _, err := p.Write([]byte(text)); err != nil {
						t.Fatal(err)
					}
				}
				close(hold)
			}
			for _, c := range conns {
				s := &sink{}
				onEventually(t, l, "all of it", func() bool {
					s.OnReadable(c)
					return string(s.got) == "one two three"
				})
			}
		})
	}
}

// TestAheadIsBounded: an owner that takes nothing, or leaves something each time, holds little, whatever is sent: the rest waits in
// the socket.
func TestAheadIsBounded(t *testing.T) {
	for _, version := range append([]uint16{0}, tlsVersions...) {
		name := "plain"
		if version != 0 {
			name = tls.VersionName(version)
		}
		t.Run(name+", takes nothing", func(t *testing.T) { aheadIsBounded(t, version, 1<<30) })
		t.Run(name+", leaves something", func(t *testing.T) { aheadIsBounded(t, version, 100) })
	}
}

// aheadIsBounded has two owners leave so many bytes each time; version 0: without TLS.
func aheadIsBounded(t *testing.T, version uint16, leave int) {
	const total, piece = 2 << 20, 8 << 10
	l := startLoop(t)
	var conns [2]*Conn
	var peers [2]net.Conn
	var got [2][]byte
	for i := range conns {
		h := &hooks{readable: func(c *Conn) {
			if len(c.Buffered()) == 0 && leave < total {
				_ = c.Fill(aheadBytes)
			}
			if n := len(c.Buffered()) - leave; n > 0 {
				got[i] = append(got[i], c.Buffered()[:n]...)
				c.Discard(n)
			}
		}}
		if version == 0 {
			conns[i], peers[i] = adopt(t, l, h)
		} else {
			conns[i], peers[i] = secured(t, l, side{true, version}, h, 0)
		}
	}
	on(t, l, func() {
		for _, c := range conns {
			c.ReadAhead(true)
		}
	})
	for _, p := range peers {
		go func() {
			for at := 0; at < total; at += piece {
				if _, err := p.Write(payload(at, piece)); err != nil {
					return
				}
				time.Sleep(time.Millisecond / 2) // or all of it comes at once, and no more events
			}
		}()
	}
	most := 0
	for range 300 { // both have said something whenever the loop looks
		on(t, l, func() {
			time.Sleep(time.Millisecond)
			for _, c := range conns {
				most = max(most, cap(c.own))
				if c.tls != nil {
					most = max(most, cap(c.tls.own))
				}
			}
		})
	}
	// a record that is not whole and what was received ahead, or what was left and a record: either has a buffer of the third class
	if most > 4*aheadBytes {
		t.Errorf("a buffer of %d bytes is held", most)
	}
	on(t, l, func() { leave = 1 << 30 })
	for i, c := range conns {
		s := &sink{}
		onEventually(t, l, "all of it", func() bool {
			s.OnReadable(c)
			return len(got[i])+len(s.got) >= total || s.err != nil
		})
		if s.err != nil || !bytes.Equal(append(got[i], s.got...), payload(0, total)) {
			t.Errorf("read %d and %d bytes, %v", len(got[i]), len(s.got), s.err)
		}
	}
}

// TestDialledReceivesInARow: epoll tells of a dialled connection's room with each of its events, and what has come for it is
// received ahead all the same.
func TestDialledReceivesInARow(t *testing.T) {
	ln, to := listen(t, "tcp4", "127.0.0.1:0")
	l := steppedLoop(t)
	var conns [2]*Conn
	var peers [2]*net.TCPConn
	var sinks [2]sink
	connected := 0
	for i := range conns {
		h := &hooks{connect: func(*Conn, *Error) { connected++ }, readable: sinks[i].OnReadable}
		c, err := l.Dial(to, patience, h)
		if err != nil {
			t.Fatal(err)
		}
		peer, failed := ln.Accept()
		if failed != nil {
			t.Fatal(failed)
		}
		defer peer.Close()
		conns[i], peers[i] = c, peer.(*net.TCPConn)
	}
	rounds(t, l, "both connected", func() bool { return connected == 2 })
	for _, c := range conns {
		c.ReadAhead(true)
	}
	say(t, peers, "hello")
	l.readAhead(waiting(t, l, 2))
	if a, b := conns[0].aheadLeft, conns[1].aheadLeft; a != 5 || b != 5 {
		t.Errorf("%d and %d bytes were received ahead, want 5 and 5", a, b)
	}
	rounds(t, l, "all read", func() bool { return string(sinks[0].got)+string(sinks[1].got) == "hellohello" })
}
