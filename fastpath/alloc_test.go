package fastpath

import (
	"net"
	"testing"
	"time"
)

// allocations holds f to none. Under the race detector, which allocates on its own, there is nothing to measure.
func allocations(t *testing.T, what string, f func()) {
	t.Helper()
	if raceDetector {
		t.Skip("the race detector allocates: run without -race")
	}
	for range 100 { // warm
		f()
	}
	if n := testing.AllocsPerRun(2000, f); n != 0 {
		t.Errorf("%s: %v allocations", what, n)
	}
}

// rawPeer is a peer's descriptor: its calls do not allocate either.
func rawPeer(t testing.TB, peer *net.TCPConn) int32 {
	t.Helper()
	f, err := peer.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int32(f.Fd())
}

func TestAllocEchoRound(t *testing.T) {
	for _, size := range []int{100, 4000, 20_000} {
		l := steppedLoop(t)
		l.poison = false
		fd, peer := tcpPair(t)
		raw := rawPeer(t, peer)
		c := mustAdopt(t, l, fd, &echo{})
		want, got := payload(0, size), make([]byte, size)
		allocations(t, "reading, staging, sending", func() {
			_, _ = send(raw, want, 0)
			for n := 0; n < size; {
				l.round(10)
				if k, e := recv(raw, got[n:], 0); e == 0 {
					n += k
				}
			}
			c.SetDeadline(l.now + int64(time.Minute))
		})
		same(t, "echo", got, want)
	}
}

// TestAllocStash: input that stays unread between turns takes and gives buffers without allocating.
func TestAllocStash(t *testing.T) {
	l := steppedLoop(t)
	l.poison = false
	fd, peer := tcpPair(t)
	raw := rawPeer(t, peer)
	c := mustAdopt(t, l, fd, &hooks{readable: func(c *Conn) {
		for c.Fill(16<<10) == nil {
		}
		if len(c.Buffered()) == 2000 {
			c.Discard(2000)
		}
	}})
	half := payload(0, 1000)
	allocations(t, "stashing", func() {
		for range 2 {
			want := c.Received() + 1000
			_, _ = send(raw, half, 0)
			for c.Received() < want {
				l.round(10)
			}
		}
	})
}

func TestAllocSetDeadline(t *testing.T) {
	k := newClock()
	c := k.conn(1000 * tick)
	i := int64(0)
	allocations(t, "SetDeadline", func() {
		i++
		c.SetDeadline(k.l.now + 1000*tick + i)
		c.SetDeadline(k.l.now + i%1000*tick)
		c.SetDeadline(0)
	})
	fire := func(*Conn) {}
	allocations(t, "SetDeadline and its coming", func() {
		c.SetDeadline(k.l.now + tick)
		k.l.now += 3 * tick
		k.l.wheel.advance(k.l.now, fire)
	})
}

func TestAllocTicket(t *testing.T) {
	l := steppedLoop(t)
	p := &parked{}
	allocations(t, "Park and Cancel", func() {
		a, b := l.Park(p), l.Park(p)
		a.Cancel()
		b.Cancel()
	})
}

func TestAllocSplice(t *testing.T) {
	l := steppedLoop(t)
	m := &mover{}
	fdFrom, in := tcpPair(t)
	fdTo, out := tcpPair(t)
	rawIn, rawOut := rawPeer(t, in), rawPeer(t, out)
	from, to := mustAdopt(t, l, fdFrom, m), mustAdopt(t, l, fdTo, m)
	m.s.Start(from, to, -1)
	b := payload(0, 10_000)
	allocations(t, "splicing", func() {
		_, _ = send(rawIn, b, 0)
		for n := 0; n < len(b); {
			l.round(10)
			if k, e := recv(rawOut, b, 0); e == 0 {
				n += k
			}
		}
	})
}

// TestAllocReuseOfConns: a connection's value, once warm, costs nothing; what is left is the owner's.
func TestAllocReuseOfConns(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates: run without -race")
	}
	l := steppedLoop(t)
	l.poison = false
	var fds [2101]int
	for i := range fds { // before counting: making sockets allocates in package net
		fd, peer := tcpPair(t)
		fds[i] = fd
		peer.Close()
	}
	h := &hooks{}
	next := 0
	allocations(t, "Adopt and Close", func() {
		c := mustAdopt(t, l, fds[next], h)
		next++
		c.Close()
		l.round(0)
	})
	for ; next < len(fds); next++ {
		closeFD(int32(fds[next]))
	}
}

// TestIdleConnsHoldNoBuffers: after traffic an idle connection is its value and nothing else.
func TestIdleConnsHoldNoBuffers(t *testing.T) {
	l := startLoop(t)
	const n = 200
	for range n {
		_, peer := adopt(t, l, &echo{})
		echoOnce(t, peer, 30_000)
	}
	on(t, l, func() {
		held := 0
		for _, c := range l.conns {
			if c != nil {
				held += cap(c.own) + cap(c.out)
			}
		}
		if held != 0 {
			t.Errorf("%d idle connections hold %d bytes", n, held)
		}
	})
}
