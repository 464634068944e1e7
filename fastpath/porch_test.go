package fastpath

import (
	"crypto/tls"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// through is a connection that is greeted on one loop and echoes on another.
type through struct {
	echo
	to     *Loop
	moved  *Conn
	left   *Conn
	got    string // unread input where it came to
	closed int
}

func (h *through) OnReadable(c *Conn) {
	if h.moved != nil {
		h.echo.OnReadable(c)
		return
	}
	if c.Fill(100) == nil {
		h.move(c)
	}
}

func (h *through) move(c *Conn) {
	h.left = c
	c.SetDeadline(c.loop.now + int64(time.Hour))
	c.SetKeeper(h)
	c.Move(h.to, h)
	if !c.Closed() || c.loop.Stats.Conns.Load() != 0 || len(c.loop.warm) != 0 {
		panic("the connection is still there")
	}
}

func (h *through) OnMoved(c *Conn) { h.moved, h.got = c, string(c.Buffered()) }
func (h *through) OnClosed(*Conn)  { h.closed++ }

func (h *through) OnHandshake(c *Conn, err *Error) {
	if h.echo.OnHandshake(c, err); err == nil {
		h.move(c)
	}
}

// startPorch runs one until the test ends.
func startPorch(t testing.TB) *Loop {
	l := startLoop(t)
	on(t, l, func() { l.porch = true; l.lowerWeight() })
	return l
}

// TestMove: what was read moves with the connection, and so do its deadline, its keeper and what it has counted.
func TestMove(t *testing.T) {
	porch, l := startPorch(t), startLoop(t)
	h := &through{to: l}
	fd, peer := tcpPair(t)
	on(t, porch, func() { mustAdopt(t, porch, fd, h) })
	echoOnce(t, peer, 50)
	echoOnce(t, peer, 300_000)
	on(t, l, func() {
		c := h.moved
		if h.got != string(payload(50, 50)) || c.Deadline() == 0 || c.Received() != 300_050 || c.Remote() != h.left.Remote() || l.Stats.Conns.Load() != 1 {
			t.Errorf("moved with %d unread bytes, %d received, deadline %d", len(h.got), c.Received(), c.Deadline())
		}
	})
	_ = peer.Close()
	onEventually(t, l, "the end", func() bool { return l.Stats.Conns.Load() == 0 })
	if h.closed != 1 || porch.Stats.Pending.Load()+l.Stats.Pending.Load() != 0 {
		t.Errorf("the keeper was told %d times", h.closed)
	}
}

// TestMoveTLS: a handshake on the porch, all else where the connection moves.
func TestMoveTLS(t *testing.T) {
	for _, version := range tlsVersions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			porch, l := startPorch(t), startLoop(t)
			for range 20 {
				h := &through{to: l}
				fd, peer := tcpPair(t)
				startTLS(t, porch, fd, h, serverConfig(version), true, NewWork(1))
				tc := tls.Client(peer, clientConfig(version))
				for _, n := range []int{1, 20_000, 200_000} {
					echoOnce(t, tc, n)
				}
				on(t, l, func() {
					if h.moved.loop != l || h.moved.tls.loop != l || (h.moved.tls.layer != nil) != (version == tls.VersionTLS13) {
						t.Error("not all of it has moved")
					}
					if s := h.moved.tls.layer; s != nil && (s.warm == 0 || h.moved.tls.conn != nil) {
						t.Error("the session is in no list, or crypto/tls's values are held")
					}
					l.RestTLS()
				})
				echoOnce(t, tc, 1000)
				tc.Close()
			}
			onEventually(t, l, "the ends", func() bool { return l.Stats.Conns.Load() == 0 && len(l.warm) == 0 })
			on(t, porch, func() {
				if porch.Stats.Conns.Load() != 0 || len(porch.warm) != 0 {
					t.Error("the porch holds somebody")
				}
			})
		})
	}
}

// TestMoveToALoopThatCannotTakeIt: the connection is closed, and its keeper told.
func TestMoveToALoopThatCannotTakeIt(t *testing.T) {
	porch, l := steppedLoop(t), steppedLoop(t)
	h := &through{to: l}
	fd, peer := tcpPair(t)
	mustAdopt(t, porch, fd, h)
	_, _ = peer.Write([]byte("x"))
	rounds(t, porch, "the move", func() bool { return h.left != nil })
	ep := l.ep
	l.ep = -1
	l.runPosted()
	l.ep = ep
	if h.moved != nil || h.closed != 1 || l.Stats.Conns.Load()+l.Stats.Pending.Load() != 0 {
		t.Errorf("moved %v, the keeper was told %d times", h.moved != nil, h.closed)
	}
	_ = peer.SetReadDeadline(time.Now().Add(patience))
	if _, err := peer.Read(make([]byte, 1)); err == nil {
		t.Errorf("the client sees %v", err)
	}
}

// TestPorchComesLast: its thread has a lower weight than the others of the process.
func TestPorchComesLast(t *testing.T) {
	policy, err := unix.SchedGetAttr(0, 0)
	if err != nil || policy.Policy != unix.SCHED_NORMAL {
		t.Skipf("somebody has chosen another policy for this process, which a porch leaves alone: %v, %v", policy, err)
	}
	porch, err := NewPorch(0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { porch.Run(); close(done) }()
	on(t, porch, func() {
		a, err := unix.SchedGetAttr(0, 0)
		if err != nil || a.Nice != min(policy.Nice+porchNice, 19) {
			t.Errorf("its nice value is %d, the test's %d, %v", a.Nice, policy.Nice, err)
		}
	})
	porch.Stop()
	receive(t, "its end", done)
}

// TestShortSlices: all threads but porches', and back.
func TestShortSlices(t *testing.T) {
	slice := func(tid int) time.Duration {
		a, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(a.Runtime)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	usual := slice(0)
	if usual == 0 || usual == shortSlice {
		t.Skipf("the kernel does not tell slices (6.12 does), or somebody has chosen: %v", usual)
	}
	porch := startPorch(t)
	defer ShortSlices(false)
	for _, short := range []bool{true, false, true, false} {
		ShortSlices(short)
		if got := slice(0); got != map[bool]time.Duration{true: shortSlice, false: usual}[short] {
			t.Errorf("short %v: the test's are %v", short, got)
		}
		on(t, porch, func() {
			if got := slice(0); got != shortSlice {
				t.Errorf("short %v: the porch's are %v", short, got)
			}
		})
	}
}

// TestServes: a loop serves while clients' connections that last have turns; those of backends do not count, nor do a new one's
// first turns.
func TestServes(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	c := mustAdopt(t, l, fd, &sink{})
	say := func() {
		want := c.Received() + 1
		_, _ = peer.Write([]byte("x"))
		rounds(t, l, "a byte", func() bool { return c.Received() == want })
	}
	for range lastingTurns {
		if say(); l.Serves() {
			t.Fatal("a new connection lasts")
		}
	}
	if say(); !l.Serves() {
		t.Error("it has lasted, and nobody noticed")
	}
	l.Stats.Lasting.Store(Now() - int64(lastingAfter))
	if l.Serves() {
		t.Error("it serves long after the last turn")
	}
	l.skew += int64(time.Second)
	l.lasting, c.turns = 0, -1
	if say(); l.Stats.Lasting.Load() > Now() {
		t.Error("a backend's connection counts")
	}
}
