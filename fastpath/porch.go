package fastpath

import (
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A porch is a loop on which clients make their TLS handshakes while the loop behind it serves others: a step of a handshake
// takes a third of a millisecond, which those would wait for. Its thread has a lower weight and offers its processor between any
// two steps. Whoever is through moves to a loop that serves (docs/decisions/0100-handshakes-on-the-porch.md).

// NewPorch makes a porch; Run starts it.
func NewPorch(id int) (*Loop, error) {
	l, err := NewLoop(id)
	if err == nil {
		l.porch = true
	}
	return l, err
}

// Porch tells that the loop is one. From any goroutine.
func (l *Loop) Porch() bool { return l.porch }

const (
	porchNice = 10 // beside the other threads of the process: a ninth of their weight

	lastingTurns = 16               // a client's connection that had more turns lasts: a handshake and a request take a few, passed through or not
	lastingNote  = time.Millisecond // how often a loop says that it leads such
	lastingAfter = 20 * time.Millisecond

	crowdShaking = 4                      // handshakes with something to do that are a crowd, …
	crowdNote    = 100 * time.Millisecond // … which is told of so often
)

// lowerWeight gives the loop a thread of its own, which comes after the others. What the kernel refuses is done without.
func (l *Loop) lowerWeight() {
	runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
	raised, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	policy, _, e := syscall.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	if err != nil || e != 0 || policy != unix.SCHED_NORMAL {
		return // somebody has chosen for the whole process
	}
	nice := 20 - raised // the system call's answer is never negative
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Nice: int32(min(nice+porchNice, 19)), Runtime: uint64(shortSlice)}, 0)
}

// offer has the kernel run whoever waits for a porch's processor.
func (l *Loop) offer() {
	if l.porch {
		offerProcessor()
	}
}

// notice takes note of a client's connection that lasts and has a turn.
func (l *Loop) notice(c *Conn) {
	switch {
	case c.turns < 0: // a backend's
	case c.turns < lastingTurns:
		c.turns++
	case l.now-l.lasting >= int64(lastingNote):
		l.lasting = l.now
		l.Stats.Lasting.Store(l.now)
	}
}

// Serves tells that the loop has just led connections that last. From any goroutine.
func (l *Loop) Serves() bool { return Now()-l.Stats.Lasting.Load() < int64(lastingAfter) }

// crowd tells w of many handshakes on a porch, so that there are processors for them.
func (l *Loop) crowd() {
	if l.porch && len(l.shaking) >= crowdShaking && l.now-l.crowded >= int64(crowdNote) {
		l.crowded = l.now
		l.shaking[0].work.Stir()
	}
}

// Mover is the handler of a connection that moves between loops.
type Mover interface {
	Handler
	OnMoved(c *Conn) // on the new loop; OnReadable follows
}

// Move gives c to another loop, and h has its new value there. c, on whose loop this is, is closed from here on, without a word to
// its keeper. Its output has left, but for records of TLS.
func (c *Conn) Move(to *Loop, h Mover) {
	l, t := c.loop, c.tls
	if c.aheadLeft > 0 {
		c.keepAhead()
	}
	if t != nil {
		t.leave()
	}
	m := &moved{Conn: *c, in: append([]byte(nil), c.in...), h: h}
	c.tls, c.keeper, c.handler = nil, nil, nil
	l.forget(c)
	_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, int(m.fd), nil) // fails only for a descriptor that is not there
	to.Stats.Pending.Add(1)
	to.post(post{f: func() { m.enter(to) }})
}

// moved is a connection between two loops.
type moved struct {
	Conn
	in []byte // unread
	h  Mover
}

// enter makes it the loop's.
func (m *moved) enter(l *Loop) {
	l.Stats.Pending.Add(-1)
	c, err := l.register(m.fd, m.h, m.flags&(flagOut|flagBlocked|flagHup|flagEOF|flagBroken)|flagReadable)
	if err != nil {
		closeFD(m.fd)
		if m.keeper != nil {
			m.keeper.OnClosed(&m.Conn)
		}
		return
	}
	defer l.recovered(c)
	c.remote, c.keeper, c.received, c.sent, c.err, c.turns = m.remote, m.keeper, m.received, m.sent, m.err, m.turns
	if m.tls != nil {
		c.tls = m.tls
		c.tls.enter(c)
	}
	if len(m.in) > 0 {
		c.own = append(l.buffers.get(len(m.in)), m.in...)
		c.in = c.own
	}
	c.SetDeadline(m.deadline)
	m.h.OnMoved(c)
	if c.flags&flagClosed == 0 {
		c.settle()
		c.Again()
	}
}

// leave makes t nobody's; there is no handshake any more.
func (t *tlsState) leave() {
	l := t.loop
	if l.opener == t {
		l.lendRecords(nil)
	}
	if t.layer != nil {
		t.conn = nil
		t.layer.leave(l)
	}
}

// enter makes t c's.
func (t *tlsState) enter(c *Conn) {
	t.c, t.loop = ref{c, c.gen}, c.loop
	if t.layer != nil {
		t.layer.use(c.loop)
	}
}
