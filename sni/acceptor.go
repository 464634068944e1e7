package sni

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Acceptor lets netpoll's poller stay with the ports while connections come in quick succession. Between two events the
// poller asks for more, gives its turn to Go's scheduler and then sleeps: three system calls and a wake-up of other
// threads for each connection, more than all else that accepting costs
// (docs/decisions/0010-accepting-in-a-row.md). So whoever was called for one connection waits for the next one himself,
// on an epoll instance with the ports of all doors, and goes back to netpoll when it becomes quiet. All doors of a process
// share one; the zero value is ready.
type Acceptor struct {
	waiting atomic.Bool // somebody waits already

	mu    sync.Mutex // while connections are taken, and while ports change
	ep    int        // 0: there was no descriptor for it, and nobody stays
	ports map[int32]*listener
}

const (
	acceptQuiet = 20 * time.Millisecond // no connection for so long is quiet
	acceptWait  = 5 * time.Millisecond  // one wait
	acceptYield = 4 * time.Millisecond  // how often Go's scheduler may choose; with a wait it stays below the 10 ms after which its monitor would send a signal
)

// add has ln's connections taken too.
func (a *Acceptor) add(ln *listener) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ports == nil {
		a.ports = map[int32]*listener{}
		if ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
			a.ep = ep
		}
	}
	a.ports[int32(ln.fd)] = ln
	_ = unix.EpollCtl(a.ep, unix.EPOLL_CTL_ADD, ln.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(ln.fd)}) // else netpoll alone tells
}

// remove comes before ln is closed. Nobody takes a connection of it afterwards.
func (a *Acceptor) remove(ln *listener) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ports[int32(ln.fd)] == ln {
		delete(a.ports, int32(ln.fd))
		_ = unix.EpollCtl(a.ep, unix.EPOLL_CTL_DEL, ln.fd, nil) // fails only for a descriptor that is not there
	}
}

// stay takes the connections of all doors until it is quiet, however long that lasts. On netpoll's poller, whose own wait is
// an ordinary system call: each makes Go's monitor look every 20 µs for a while, so it should not be come back to while there
// is work (docs/decisions/0084-the-acceptor-stays.md). Its thread gives way to those it works for, so that it finds several
// connections when its turn comes (docs/decisions/0095-the-acceptor-gives-way.md).
func (a *Acceptor) stay() {
	if a.ep == 0 {
		a.nudge()
		return
	}
	if !a.waiting.CompareAndSwap(false, true) {
		return
	}
	defer a.nudge() // after the next line: who was told that somebody waits has given his own before
	defer a.waiting.Store(false)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fastpath.GiveWay(unix.Gettid(), true)
	defer func() { fastpath.GiveWay(unix.Gettid(), false) }() // the next goroutine of this thread may be a loop
	var events [8]unix.EpollEvent
	last := time.Now()
	nudged := last
	for yielded := last; ; {
		n := fastpath.EpollWaitBriefly(a.ep, events[:], acceptWait)
		now := time.Now()
		if n > 0 {
			last = now
			a.take(events[:n])
		} else if now.Sub(last) >= acceptQuiet {
			return
		}
		if now.Sub(nudged) >= acceptQuiet {
			nudged = now
			a.nudge()
		}
		if now.Sub(yielded) >= acceptYield {
			yielded = now
			yield()
		}
	}
}

// yield lets Go's scheduler choose. The goroutine is not locked to its thread meanwhile, so that no other one is woken to choose
// (docs/decisions/0113-a-yield-that-wakes-nobody.md). The thread does not give way while others may run on it, or begin threads
// from it, which inherit its policy for good; whichever one comes back with the goroutine gives way from then on.
func yield() {
	fastpath.GiveWay(unix.Gettid(), false)
	runtime.UnlockOSThread()
	runtime.Gosched()
	runtime.LockOSThread()
	fastpath.GiveWay(unix.Gettid(), true)
}

// take takes one connection of each port that has some: whether there are more the next wait says, for less than an accept that
// finds nothing.
func (a *Acceptor) take(events []unix.EpollEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range events {
		if ln := a.ports[events[i].Fd]; ln != nil {
			ln.take(1)
		}
	}
}

// nudge has the loops adopt connections that have shown nothing, so that their time runs.
func (a *Acceptor) nudge() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ln := range a.ports {
		ln.door.nudge()
	}
}
