package fastpath

import (
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPostWakesTheLoop: no wake-up is lost, whatever the loop does at that moment. Every post is waited for, so a lost one
// leaves the loop asleep and the test waiting.
func TestPostWakesTheLoop(t *testing.T) {
	l := startLoop(t)
	for range 5_000 {
		done := make(chan struct{})
		l.Post(func() { close(done) })
		receive(t, "a posted function", done)
	}
}

func TestPostFromManyGoroutines(t *testing.T) {
	l := startLoop(t)
	const posters, each = 8, 3000
	var last [posters]int
	var total int
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := 1; i <= each; i++ {
				l.Post(func() {
					if last[p] != i-1 {
						t.Errorf("poster %d: %d came after %d", p, i, last[p])
					}
					last[p] = i
					if total++; total%3 == 0 {
						l.Post(func() {}) // from the loop itself
					}
				})
			}
		})
	}
	wg.Wait()
	onEventually(t, l, "all posts", func() bool { return total == posters*each })
}

func TestIdleLoopSleeps(t *testing.T) {
	l := startLoop(t)
	adopt(t, l, &hooks{})
	on(t, l, func() {})
	before := l.Stats.Turns.Load()
	time.Sleep(50 * time.Millisecond) // nothing is waited for: nothing must happen
	if n := l.Stats.Turns.Load() - before; n > 3 {
		t.Errorf("an idle loop turned %d times in 50 ms", n)
	}
}

func TestDeadlineComesOnceAndNotEarly(t *testing.T) {
	l := startLoop(t)
	type shot struct{ due, at int64 }
	shots := make(chan shot, 100)
	for i := range 40 {
		var due int64
		h := &hooks{deadline: func(c *Conn) {
			if c.Deadline() != 0 {
				t.Error("the deadline stands when it has come")
			}
			shots <- shot{due, l.now}
		}}
		c, _ := adopt(t, l, h)
		on(t, l, func() {
			c.SetDeadline(l.Now() + int64(time.Hour))
			due = l.Now() + int64(i)*int64(3*time.Millisecond)
			c.SetDeadline(due)
		})
	}
	for range 40 {
		s := receive(t, "a deadline", shots)
		if s.at < s.due {
			t.Errorf("came %v early", time.Duration(s.due-s.at))
		}
		if late := time.Duration(s.at - s.due); late > 10*time.Second {
			t.Errorf("came %v late", late)
		}
	}
	on(t, l, func() {})
	if len(shots) != 0 {
		t.Error("a deadline came twice")
	}
}

func TestDeadlineMayBeSetAgain(t *testing.T) {
	l := startLoop(t)
	shots := make(chan struct{}, 10)
	n := 0
	h := &hooks{deadline: func(c *Conn) {
		if n++; n < 5 {
			c.SetDeadline(l.Now() + int64(time.Millisecond))
		} else {
			c.Close()
		}
		shots <- struct{}{}
	}}
	c, _ := adopt(t, l, h)
	on(t, l, func() { c.SetDeadline(l.Now()) })
	for range 5 {
		receive(t, "a deadline", shots)
	}
	onEventually(t, l, "the close", func() bool { return l.wheel.count == 0 })
}

// TestAgainIsFair: connections that always ask for more keep neither others nor posts nor deadlines waiting, and each of
// them has as many turns as the next.
func TestAgainIsFair(t *testing.T) {
	l := startLoop(t)
	var turns [3]int
	for i := range turns {
		c, _ := adopt(t, l, &hooks{readable: func(c *Conn) {
			turns[i]++
			c.Again()
			c.Again() // twice is once
		}})
		on(t, l, c.Again)
	}
	_, peer := adopt(t, l, &echo{})
	c, _ := adopt(t, l, &hooks{deadline: func(c *Conn) { c.SetDeadline(l.now + int64(time.Millisecond)) }})
	on(t, l, func() { c.SetDeadline(l.now) })
	var before [3]int
	on(t, l, func() { before = turns })
	echoed(t, peer, 200_000)
	on(t, l, func() {
		first := turns[0] - before[0]
		for i := range turns {
			if n := turns[i] - before[i]; n == 0 || n < first-1 || n > first+1 {
				t.Errorf("turns: %v, before: %v", turns, before)
				break
			}
		}
	})
}

func TestGiveAndEach(t *testing.T) {
	l := startLoop(t)
	const n = 20
	var adopted atomic.Int64
	for range n {
		fd, _ := tcpPair(t)
		l.Give(fd, netip.MustParseAddrPort("192.0.2.1:80"), func(l *Loop, fd int, remote netip.AddrPort) {
			c, err := l.Adopt(fd, remote, &echo{})
			if err != nil || c.Remote() != remote {
				t.Errorf("Adopt: %v", err)
			}
			adopted.Add(1)
		})
	}
	eventually(t, "all adopted", func() bool { return adopted.Load() == n })
	if l.Stats.Conns.Load() != n || l.Stats.Pending.Load() != 0 {
		t.Errorf("%d connections, %d pending", l.Stats.Conns.Load(), l.Stats.Pending.Load())
	}
	on(t, l, func() {
		seen := 0
		l.Each(func(h Handler) {
			seen++
			if seen == 1 {
				for _, c := range l.conns { // one that closes all the others
					if c != nil && c.handler != h {
						c.Close()
					}
				}
			}
		})
		if seen != 1 {
			t.Errorf("Each told of %d closed connections", seen-1)
		}
	})
}

func TestAdoptOfABadDescriptor(t *testing.T) {
	l := startLoop(t)
	on(t, l, func() {
		if _, err := l.Adopt(1<<16, netip.AddrPort{}, &hooks{}); err == nil {
			t.Error("a descriptor that is not open was adopted")
		}
		if l.Stats.Conns.Load() != 0 {
			t.Error("and counted")
		}
	})
}

// TestStopClosesEverything: no descriptor stays behind, pipes included.
func TestStopClosesEverything(t *testing.T) {
	before := descriptors(t)
	l, err := NewLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		l.Run()
		close(done)
	}()
	for range 10 {
		fd, peer := tcpPair(t)
		adoptFD(t, l, fd, &echo{})
		peer.Close()
	}
	on(t, l, func() {
		for range 5 {
			defer l.pipes.put(l.pipes.get(false))
		}
	})
	l.Stop()
	receive(t, "the loop's end", done)
	l.Post(func() { t.Error("ran after the end") })
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

func TestTimeIsWallTime(t *testing.T) {
	l := startLoop(t)
	on(t, l, func() {
		if d := time.Since(l.Wall()).Abs(); d > time.Minute {
			t.Errorf("Wall is off by %v", d)
		}
		if l.Now() <= 0 {
			t.Error("0 must never be a time")
		}
	})
}

// TestGiveWatched: who has shown nothing wakes no loop, is adopted by a nudge, and with the first event otherwise; no byte
// is missed, whenever it came.
func TestGiveWatched(t *testing.T) {
	l := startLoop(t)
	on(t, l, func() {})
	remote := netip.MustParseAddrPort("192.0.2.1:80")
	var adopted atomic.Int64
	adopt := func(l *Loop, fd int, remote netip.AddrPort) {
		if _, err := l.Adopt(fd, remote, &echo{}); err != nil {
			t.Errorf("Adopt: %v", err)
		}
		adopted.Add(1)
	}
	time.Sleep(2 * rawWaitMax) // the loop is not busy any more
	before := l.Stats.Turns.Load()
	fd, silent := tcpPair(t)
	l.GiveWatched(fd, remote, adopt)
	time.Sleep(50 * time.Millisecond)
	if n := l.Stats.Turns.Load() - before; n != 0 || adopted.Load() != 0 || l.Stats.Pending.Load() != 1 {
		t.Errorf("a silent connection: %d turns, %d adopted, %d pending", n, adopted.Load(), l.Stats.Pending.Load())
	}
	l.Nudge()
	eventually(t, "the silent one's adoption", func() bool { return adopted.Load() == 1 && l.Stats.Pending.Load() == 0 })
	echoOnce(t, silent, 1000)
	for i := range 200 {
		fd, peer := tcpPair(t)
		if i%2 == 0 { // its bytes are there before epoll is told
			if _, err := peer.Write([]byte("early")); err != nil {
				t.Fatal(err)
			}
		}
		l.GiveWatched(fd, remote, adopt)
		if i%2 == 1 {
			if _, err := peer.Write([]byte("early")); err != nil {
				t.Fatal(err)
			}
		}
		_ = peer.SetReadDeadline(time.Now().Add(patience))
		got := make([]byte, 5)
		if _, err := io.ReadFull(peer, got); err != nil || string(got) != "early" {
			t.Fatalf("connection %d: %q, %v", i, got, err)
		}
		peer.Close()
	}
	silent.Close()
	eventually(t, "all ends", func() bool { return l.Stats.Conns.Load() == 0 && adopted.Load() == 201 })
}

// TestGiveWatchedNotTaken: an event of a connection that its adoption closed, of a number that the loop has never had, is
// nobody's.
func TestGiveWatchedNotTaken(t *testing.T) {
	quietly(t)
	l := startLoop(t)
	fd, peer := tcpPair(t)
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 1000)
	if err != nil {
		t.Fatal(err)
	}
	closeFD(int32(fd))
	if _, err := peer.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	l.GiveWatched(high, netip.AddrPort{}, func(*Loop, int, netip.AddrPort) { panic("a door's defect") })
	if _, err := io.Copy(io.Discard, peer); err != nil && !isReset(err) {
		t.Errorf("the peer saw %v, not an end", err)
	}
	_, other := adopt(t, l, &echo{})
	echoOnce(t, other, 100) // the loop goes on
	if n := l.Stats.Panics.Swap(0); n != 1 {
		t.Errorf("%d panics", n)
	}
}

// TestGiveWatchedToAnEndedLoop: the number of its epoll instance may be another descriptor's.
func TestGiveWatchedToAnEndedLoop(t *testing.T) {
	l := newTestLoop(t)
	l.closeAll()
	fd, _ := tcpPair(t)
	l.GiveWatched(fd, netip.AddrPort{}, nil)
	l.Nudge()
	if l.ep != -1 || len(l.posted) != 1 || l.posted[0].gen != 0 {
		t.Errorf("epoll %d, posted %+v", l.ep, l.posted)
	}
	closeFD(int32(fd))
}
