package fastpath

import (
	"io"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAbortIsAReset(t *testing.T) {
	l := startLoop(t)
	c, peer := adopt(t, l, &hooks{})
	on(t, l, func() {
		c.Write([]byte("lost"))
		c.Abort()
		c.Abort()
		c.Close()
	})
	if _, err := io.ReadAll(peer); !isReset(err) {
		t.Errorf("the peer saw %v, not a reset", err)
	}
}

// TestCloseLingerSavesTheAnswer: the peer still sends when it is answered; a plain close would reset the connection and
// take the answer out of the peer's buffer.
func TestCloseLingerSavesTheAnswer(t *testing.T) {
	l := startLoop(t)
	c, peer := adopt(t, l, &hooks{})
	answer := payload(3, 20_000)
	_, _ = peer.Write(payload(0, 10_000))
	on(t, l, func() {
		c.Write(answer)
		c.CloseLinger()
		c.CloseLinger()
	})
	for i := range 5 { // it goes on sending, seeing nothing of the answer yet
		if _, err := peer.Write(payload(i, 10_000)); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	got, err := io.ReadAll(peer)
	if err != nil {
		t.Fatalf("the peer lost the answer: %v", err)
	}
	same(t, "answer", got, answer)
	peer.Close()
	onEventually(t, l, "the close", func() bool { return l.Stats.Conns.Load() == 0 })
}

func TestCloseLingerIsBoundedInBytes(t *testing.T) {
	l := startLoop(t)
	c, peer := adopt(t, l, &hooks{})
	on(t, l, c.CloseLinger)
	var err error
	sent := 0
	for err == nil && sent < 64<<20 {
		var n int
		n, err = peer.Write(block[:32<<10])
		sent += n
	}
	if !isReset(err) {
		t.Errorf("after %d bytes: %v, want a reset", sent, err)
	}
	onEventually(t, l, "the close", func() bool { return l.Stats.Conns.Load() == 0 })
}

func TestCloseLingerIsBoundedInTime(t *testing.T) {
	l := startLoop(t)
	c, peer := adopt(t, l, &hooks{})
	begin := time.Now()
	on(t, l, c.CloseLinger)
	if n, err := peer.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the peer read %d, %v", n, err)
	}
	eventually(t, "the close", func() bool { return l.Stats.Conns.Load() == 0 })
	if d := time.Since(begin); d < lingerTimeout {
		t.Errorf("closed after %v already", d)
	}
}

// TestCloseLingerWaitsForASlowReader: the bound is for a peer that sends, not for one that has not yet read its answer.
func TestCloseLingerWaitsForASlowReader(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPairBuffers(t, 16<<10)
	c := adoptFD(t, l, fd, &hooks{})
	answer := payload(9, 400_000)
	on(t, l, func() {
		c.Write(answer)
		c.CloseLinger()
		if left := c.Deadline() - l.now; left <= int64(lingerTimeout) || left > int64(lingerSendTimeout) {
			t.Errorf("with output that waits, the deadline is in %v", time.Duration(left))
		}
	})
	got, err := io.ReadAll(peer)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "answer", got, answer)
	onEventually(t, l, "the short limit once all has left", func() bool { return c.Deadline()-l.now <= int64(lingerTimeout) })
	peer.Close()
	onEventually(t, l, "the close", func() bool { return l.Stats.Conns.Load() == 0 })
}

// TestCloseLingerOfASlowReaderIsBounded: while the peer takes something it has more time, then no more.
func TestCloseLingerOfASlowReaderIsBounded(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPairBuffers(t, 16<<10)
	c := adoptFD(t, l, fd, &hooks{})
	var before uint64
	on(t, l, func() {
		c.Write(payload(0, 400_000))
		c.CloseLinger()
		before = c.handler.(*lingerer).acknowledged
	})
	if _, err := io.ReadFull(peer, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	onEventually(t, l, "the peer's acknowledgement", func() bool { return c.acknowledged() >= before+lingerSendBytes })
	on(t, l, func() {
		c.handler.OnDeadline(c)
		if c.Closed() || c.Deadline() != l.now+int64(lingerSendTimeout) {
			t.Error("a peer that takes its answer was cut")
		}
	})
	onEventually(t, l, "standstill", func() bool {
		g := c.handler.(*lingerer)
		still := g.acknowledged == c.acknowledged()
		g.acknowledged = c.acknowledged()
		return still && c.Blocked()
	})
	on(t, l, func() {
		c.handler.OnDeadline(c)
		if !c.Closed() {
			t.Error("a peer that takes nothing is waited for")
		}
	})
}

func TestCloseLingerOfABrokenConn(t *testing.T) {
	l := startLoop(t)
	c, peer := adopt(t, l, &hooks{})
	reset(peer)
	onEventually(t, l, "the reset", c.Broken)
	on(t, l, c.CloseLinger)
	onEventually(t, l, "the close", func() bool { return l.Stats.Conns.Load() == 0 })
}

// renumber gives the descriptor fd the number of one that was closed just now.
func renumber(t *testing.T, fd, number int) {
	if err := unix.Dup3(fd, number, unix.O_CLOEXEC); err != nil {
		t.Errorf("dup3: %v", err)
	}
	_ = unix.Close(fd)
}

// TestClosedConnDoesNothing: a handler may hold a connection that another one closed in the same turn. No call on it
// reaches the descriptor, whose number may be another connection's already.
func TestClosedConnDoesNothing(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	other, otherPeer := tcpPair(t)
	var calls int
	h := &hooks{readable: func(*Conn) { calls++ }, writable: func(*Conn) { calls++ }, deadline: func(*Conn) { calls++ }}
	c := mustAdopt(t, l, fd, h)
	_, _ = peer.Write([]byte("for nobody"))
	rounds(t, l, "input", func() bool { return calls == 1 })
	c.Close()
	renumber(t, other, fd)
	s := &sink{}
	mustAdopt(t, l, fd, s)
	_, _ = otherPeer.Write([]byte("for the new one"))

	if err := c.Fill(100); err != ErrClosed {
		t.Errorf("Fill: %v", err)
	}
	if _, err := c.Peek(); err == nil {
		t.Error("Peek read another's bytes")
	}
	c.Write([]byte("x"))
	c.Write(make([]byte, directWriteBytes))
	c.Flush()
	c.SetLowWater(100)
	c.SetDeadline(l.now)
	c.Again()
	c.CloseWrite()
	c.CloseLinger()
	c.Abort()
	c.Discard(len(c.Buffered()))
	if !c.Closed() || c.FD() != -1 || c.Deadline() != 0 {
		t.Errorf("closed %v, descriptor %d, deadline %d", c.Closed(), c.FD(), c.Deadline())
	}
	rounds(t, l, "the new one's input", func() bool { return string(s.got) == "for the new one" })
	if calls != 1 {
		t.Errorf("the handler of the closed connection was called %d times more", calls-1)
	}
	_ = otherPeer.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := otherPeer.Read(make([]byte, 10)); n != 0 || err == io.EOF {
		t.Errorf("the new connection's peer read %d, %v", n, err)
	}
}

// TestCloseInTheSameBatch: two connections have events in one batch; the first handler closes the other and gives its
// number and its value's place to a new connection. The stale event reaches neither.
func TestCloseInTheSameBatch(t *testing.T) {
	l := steppedLoop(t)
	fdA, peerA := tcpPair(t)
	fdB, peerB := tcpPair(t)
	fdNew, _ := tcpPair(t)
	var pair [2]*Conn
	closer := func(c *Conn) {
		victim := pair[0]
		if c == victim {
			victim = pair[1]
		}
		if victim == nil {
			t.Error("the victim of this batch was called")
			return
		}
		pair = [2]*Conn{}
		number := victim.FD()
		victim.Close()
		renumber(t, fdNew, number)
		n := mustAdopt(t, l, number, &hooks{readable: func(*Conn) { t.Error("the new connection was told of the old one's input") }})
		if n == victim {
			t.Error("the value was used again within the batch")
		}
	}
	pair[0] = mustAdopt(t, l, fdA, &hooks{readable: closer})
	pair[1] = mustAdopt(t, l, fdB, &hooks{readable: closer})
	l.round(0)
	_, _ = peerA.Write([]byte("1"))
	_, _ = peerB.Write([]byte("2"))
	rounds(t, l, "the batch", func() bool { return pair[0] == nil })
	for range 3 {
		l.round(0)
	}
}

// TestBatchIsAnnounced: whoever looks at another connection of the batch sees that something has come for it, also when
// that one's turn is still to be. A pool must not hand out such a connection.
func TestBatchIsAnnounced(t *testing.T) {
	l := steppedLoop(t)
	fdA, peerA := tcpPair(t)
	fdB, peerB := tcpPair(t)
	var conns [2]*Conn
	var seen []bool
	look := func(*Conn) { seen = append(seen, conns[0].Readable(), conns[1].Readable()) }
	conns[0], conns[1] = mustAdopt(t, l, fdA, &hooks{readable: look}), mustAdopt(t, l, fdB, &hooks{readable: look})
	l.round(0)
	_, _ = peerA.Write([]byte("1"))
	_, _ = peerB.Write([]byte("2"))
	rounds(t, l, "both", func() bool { return len(seen) == 4 })
	for _, ok := range seen {
		if !ok {
			t.Errorf("seen: %v", seen)
		}
	}
}

// TestReuseOfValues: a closed value is another connection's in a later round, with nothing left of the first.
func TestReuseOfValues(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	c := mustAdopt(t, l, fd, &hooks{})
	_, _ = peer.Write(payload(0, 1000))
	rounds(t, l, "input", c.Readable)
	_ = c.Fill(500)
	c.SetDeadline(l.now + int64(time.Minute))
	c.Write([]byte("staged"))
	c.Again()
	c.Close()
	l.round(0)
	fd, _ = tcpPair(t)
	calls := 0
	n := mustAdopt(t, l, fd, &hooks{readable: func(*Conn) { calls++ }, deadline: func(*Conn) { calls++ }})
	if n != c {
		t.Fatal("the value was not used again")
	}
	l.round(0)
	l.round(0)
	if calls != 0 || len(n.Buffered()) != 0 || n.Pending() || n.Deadline() != 0 || n.armed != 0 || l.wheel.count != 0 || n.Sent() != 0 {
		t.Errorf("the second connection inherited: %d calls, %d bytes, pending %v, deadline %d", calls, len(n.Buffered()), n.Pending(), n.Deadline())
	}
}

// TestPanicEndsItsConnectionOnly runs a panic in every kind of callback.
func TestPanicEndsItsConnectionOnly(t *testing.T) {
	quietly(t)
	l := startLoop(t)
	_, bystander := adopt(t, l, &echo{})
	boom := func(*Conn) { panic("a handler's defect") }
	cases := map[string]struct {
		h       hooks
		trigger func(c *Conn)
	}{
		"OnReadable": {hooks{readable: boom}, func(c *Conn) { c.Again() }},
		"OnDeadline": {hooks{deadline: boom}, func(c *Conn) { c.SetDeadline(l.now) }},
		"OnWritable": {hooks{writable: boom}, func(c *Conn) {
			for c.Room() > 0 {
				c.Write(block[:50_000])
			}
		}},
	}
	for name, k := range cases {
		t.Run(name, func(t *testing.T) {
			fd, peer := tcpPairBuffers(t, 16<<10)
			c := adoptFD(t, l, fd, &k.h)
			before := l.Stats.Panics.Load()
			on(t, l, func() { k.trigger(c) })
			if _, err := io.Copy(io.Discard, peer); !isReset(err) {
				t.Errorf("the peer saw %v, not a reset", err)
			}
			if n := l.Stats.Panics.Load() - before; n != 1 {
				t.Errorf("%d panics counted", n)
			}
			on(t, l, func() {
				for _, f := range l.free {
					if f == c {
						t.Error("the value will be used again, though its owner may still write to it")
					}
				}
			})
		})
	}
	t.Run("Post", func(t *testing.T) {
		before := l.Stats.Panics.Load()
		l.Post(func() { panic("a posted function's defect") })
		on(t, l, func() {})
		if n := l.Stats.Panics.Load() - before; n != 1 {
			t.Errorf("%d panics counted", n)
		}
	})
	l.Stats.Panics.Store(0)
	echoed(t, bystander, 100_000)
}

// TestPanicWhileAdopting: a connection that is handed over by another goroutine is closed when its adoption panics, at
// whatever point: nobody else knows of it.
func TestPanicWhileAdopting(t *testing.T) {
	quietly(t)
	l := startLoop(t)
	for name, adopt := range map[string]func(l *Loop, fd int, remote netip.AddrPort){
		"before Adopt": func(*Loop, int, netip.AddrPort) { panic("a door's defect") },
		"after Adopt": func(l *Loop, fd int, remote netip.AddrPort) {
			_, _ = l.Adopt(fd, remote, &hooks{})
			panic("a door's defect")
		},
		"after Close": func(l *Loop, fd int, remote netip.AddrPort) {
			c, _ := l.Adopt(fd, remote, &hooks{})
			c.Close()
			panic("a door's defect")
		},
	} {
		t.Run(name, func(t *testing.T) {
			fd, peer := tcpPair(t)
			before := l.Stats.Panics.Load()
			l.Give(fd, netip.AddrPort{}, adopt)
			if _, err := io.Copy(io.Discard, peer); err != nil && !isReset(err) {
				t.Errorf("the peer saw %v, not an end", err)
			}
			on(t, l, func() {
				if n := l.Stats.Panics.Load() - before; n != 1 || l.Stats.Conns.Load() != 0 || l.given != -1 {
					t.Errorf("%d panics counted, %d connections, descriptor %d is still given", n, l.Stats.Conns.Load(), l.given)
				}
			})
		})
	}
	l.Stats.Panics.Store(0)
}

// TestPanicInResume: it ends nothing by itself, and the ticket is spent. Whoever parks recovers (see Parked).
func TestPanicInResume(t *testing.T) {
	quietly(t)
	l := startLoop(t)
	var ticket Ticket
	on(t, l, func() { ticket = l.Park(resumed(func(any) { panic("an owner's defect") })) })
	ticket.Resume(nil)
	ticket.Resume(nil)
	on(t, l, func() {
		if n := l.Stats.Panics.Load(); n != 1 || len(l.tickets.free) != 1 {
			t.Errorf("%d panics counted, %d free slots of 1", n, len(l.tickets.free))
		}
	})
	l.Stats.Panics.Store(0)
}

type resumed func(any)

func (f resumed) OnResume(v any) { f(v) }

// TestCloseDropsWhatIsStaged: in one batch of events, what an earlier turn staged is dropped by Close, so that Sent tells
// the truth about it, and sent first by CloseWrite and CloseLinger.
func TestCloseDropsWhatIsStaged(t *testing.T) {
	for name, k := range map[string]struct {
		end  func(*Conn)
		want string
	}{
		"Close":                 {(*Conn).Close, ""},
		"CloseWrite, and Close": {func(c *Conn) { c.CloseWrite(); c.Close() }, "staged"},
		"CloseLinger":           {(*Conn).CloseLinger, "staged"},
	} {
		t.Run(name, func(t *testing.T) {
			l := steppedLoop(t)
			fd, peer := tcpPair(t)
			staged := false
			c := mustAdopt(t, l, fd, &hooks{readable: func(c *Conn) {
				if !staged && c.Fill(1) == nil {
					c.Discard(len(c.Buffered()))
					c.Write([]byte("staged"))
					staged = true
				}
			}})
			closed := false
			laterFD, later := tcpPair(t)
			mustAdopt(t, l, laterFD, &hooks{readable: func(*Conn) {
				if !staged || c.Sent() != 0 {
					t.Errorf("the turns did not come in one batch: staged %v, sent %d", staged, c.Sent())
				}
				k.end(c)
				closed = true
			}})
			_, _ = peer.Write([]byte("?"))
			eventually(t, "the first connection's event", func() bool { b := make([]byte, 1); n, _ := recv(c.fd, b, syscall.MSG_PEEK); return n == 1 })
			_, _ = later.Write([]byte("?")) // its event is behind that of the first
			eventually(t, "the second connection's event", func() bool { b := make([]byte, 1); n, _ := recv(int32(laterFD), b, syscall.MSG_PEEK); return n == 1 })
			rounds(t, l, "the end", func() bool { return closed })
			_ = peer.CloseWrite()
			rounds(t, l, "the close", c.Closed)
			got, err := io.ReadAll(peer)
			if string(got) != k.want || err != nil && !isReset(err) {
				t.Errorf("the peer got %q, %v; want %q", got, err, k.want)
			}
		})
	}
}

// spent notes when an owner's value was given back, and whether its connection had been forgotten by then.
type spent struct {
	c    *Conn
	told int
	free bool
}

func (s *spent) OnSpent(l *Loop) {
	s.told++
	s.free = s.c.handler == nil
}

// TestSpend: a handler that is spent while its connection closes is given back once, at the end of the round, when nobody
// holds it any more.
func TestSpend(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	s := &spent{}
	s.c = mustAdopt(t, l, fd, &hooks{readable: func(c *Conn) {
		c.Close()
		l.Spend(s)
		if s.told != 0 {
			t.Error("it was given back inside the turn")
		}
	}})
	_, _ = peer.Write([]byte("x"))
	for end := time.Now().Add(patience); s.told == 0 && time.Now().Before(end); {
		l.round(10)
	}
	l.round(0)
	if s.told != 1 || !s.free {
		t.Errorf("told %d times, the connection has forgotten its handler: %v", s.told, s.free)
	}
}
