package fastpath

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Give hands the connected descriptor fd to the loop from another goroutine; adopt runs on the loop. If it panics, the
// connection is closed.
func (l *Loop) Give(fd int, remote netip.AddrPort, adopt func(l *Loop, fd int, remote netip.AddrPort)) {
	l.Stats.Pending.Add(1)
	l.post(post{adopt: adopt, fd: int32(fd), remote: remote})
}

// GiveWatched is Give for a connection with which nothing is to be done before it shows something. It wakes nobody: epoll
// watches the connection from now on, and the loop adopts it with its first event, or whenever it is awake. Who gives so has
// to Nudge the loop after a while, for the sake of those that show nothing (docs/decisions/0091-no-wake-for-a-silent-newcomer.md).
func (l *Loop) GiveWatched(fd int, remote netip.AddrPort, adopt func(l *Loop, fd int, remote netip.AddrPort)) {
	l.Stats.Pending.Add(1)
	if !l.giveWatched(post{adopt: adopt, fd: int32(fd), remote: remote}) {
		l.post(post{adopt: adopt, fd: int32(fd), remote: remote}) // Adopt tells what is wrong
	}
}

// giveWatched holds the lock from before epoll is told of the descriptor: whoever sees its event finds the post, too.
func (l *Loop) giveWatched(p post) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watched--; l.watched >= 0 { // all were used
		l.watched = -1
	}
	p.gen = l.watched
	l.came.Store(true)
	if unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, int(p.fd), &unix.EpollEvent{Events: epollInput, Fd: p.fd, Pad: p.gen}) != nil {
		return false
	}
	l.newcomers[0] = append(l.newcomers[0], p)
	return true
}

// Nudge wakes the loop if newcomers wait for it. From any goroutine.
func (l *Loop) Nudge() {
	if !l.came.Load() {
		return
	}
	l.mu.Lock()
	l.wake()
}

// take has what Give brought adopted.
func (l *Loop) take(p post) {
	l.Stats.Pending.Add(-1)
	l.given, l.givenGen = p.fd, p.gen
	defer l.taken(int(p.fd))
	p.adopt(l, int(p.fd), p.remote)
}

// taken ends a connection whose adoption panicked: nobody else knows of it.
func (l *Loop) taken(fd int) {
	own := l.given != int32(fd)
	l.given = -1
	p := recover()
	if p == nil {
		return
	}
	l.panicked(p)
	switch {
	case !own:
		closeFD(int32(fd))
	case l.conns[fd] != nil:
		l.conns[fd].flags |= flagPanicked
		l.conns[fd].Abort()
	}
}
