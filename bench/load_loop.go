package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	loadReadBytes = 256 << 10
	loadEvents    = 512
	loadPoll      = 50 * time.Millisecond // how late an idle loop may notice its end
	loadReads     = 16                    // of one connection in a row, so that a bulk one does not starve the others
)

// A loadLoop makes load on connections that are kept, from one epoll loop in one goroutine. What is said on a
// connection is its talk's business, TLS is load_tls.go's, and when requests are due is the pace's.
type loadLoop struct {
	*clientCount
	load
	epoll int
	peer  unix.SockaddrInet4
	conns map[int32]*loadConn
	buf   []byte
	out   []byte // what one connection is about to say
	pace  *pace  // nil: closed loops
	roomy []*loadConn

	looked time.Time // what had arrived by then has been heard
	end    time.Time // of the load
}

// A loadConn is one connection of a loop.
type loadConn struct {
	loop       *loadLoop
	fd         int32
	connecting bool
	talk       talk
	secured    *tls.Conn // nil: plain
	unsent     []byte
	queued     bool      // in the loop's roomy
	moved      time.Time // when a byte last went either way, or the connection was begun
}

// loadKept is the loadFunc for connections that are kept, of any protocol, plain or TLS.
func loadKept(ctx context.Context, l load, duration time.Duration) (loadResult, error) {
	end := time.Now().Add(duration)
	p, err := newLoadLoop(l, end)
	if err != nil {
		return loadResult{}, err
	}
	defer p.shut()
	err = p.run(ctx, end)
	return total(p.clientCount), err
}

func newLoadLoop(l load, end time.Time) (*loadLoop, error) {
	address, err := netip.ParseAddrPort(l.address)
	if err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	p := &loadLoop{
		clientCount: newClientCount(), load: l, epoll: epoll,
		peer:  unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()},
		conns: map[int32]*loadConn{},
		buf:   make([]byte, loadReadBytes),
		end:   end,
	}
	p.look(time.Now())
	p.from = p.now.Add(l.settle)
	for range l.conns {
		if err := p.open(); err != nil {
			p.shut()
			return nil, err
		}
	}
	if l.rate > 0 {
		if p.pace, err = newPace(epoll, l.rate, l.settle/2, end); err != nil {
			p.shut()
			return nil, err
		}
	}
	return p, nil
}

func (p *loadLoop) shut() {
	for _, c := range p.conns {
		unix.Close(int(c.fd))
	}
	if p.pace != nil {
		p.pace.close()
	}
	unix.Close(p.epoll)
}

var errTooMany = errors.New("too many errors: the run was ended")

func (p *loadLoop) run(ctx context.Context, end time.Time) error {
	events, s := make([]unix.EpollEvent, loadEvents), stint{}
	for time.Now().Before(end) && ctx.Err() == nil && len(p.conns) > 0 {
		s.worked(p.now)
		n, err := unix.EpollWait(p.epoll, events, int(loadPoll.Milliseconds()))
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		if err == nil {
			p.look(time.Now())
		}
		for _, e := range events[:max(n, 0)] {
			if err := p.dispatch(e); err != nil {
				return err
			}
		}
		if err := p.keepPace(); err != nil {
			return err
		}
	}
	p.settleUp()
	return ctx.Err()
}

func (p *loadLoop) dispatch(e unix.EpollEvent) error {
	if p.pace != nil && e.Fd == int32(p.pace.timer) {
		return p.pace.woken()
	}
	if c := p.conns[e.Fd]; c != nil {
		return p.book(c, c.handle(e.Events))
	}
	return nil
}

// book counts a connection's error and opens another in its place. The only errors it returns end the run.
func (p *loadLoop) book(c *loadConn, err error) error {
	switch {
	case err == nil:
		return nil
	case err == errLeft: // the peer ended it in good order
	case p.failed(err):
		return fmt.Errorf("%w: %w", errTooMany, err)
	}
	delete(p.conns, c.fd)
	unix.Close(int(c.fd))
	if p.once {
		return nil
	}
	return p.open()
}

// keepPace sends what an open loop owes: each request on the connection that has waited longest for one.
func (p *loadLoop) keepPace() error {
	if p.pace == nil {
		return nil
	}
	p.pace.look()
	for p.pace.owes() && len(p.roomy) > 0 {
		c := p.roomy[0]
		p.roomy = p.roomy[1:]
		c.queued = false
		if p.conns[c.fd] != c || c.talk.room() == 0 {
			continue
		}
		if err := p.book(c, c.say(c.talk.ask(p.out[:0], p.pace.next()))); err != nil {
			return err
		}
		c.queue()
	}
	return nil
}

// settleUp counts what is under way at the end, and the requests that an open loop still owes then: their users wait
// since they were due.
func (p *loadLoop) settleUp() {
	for _, c := range p.conns {
		c.settleUp()
	}
	if p.pace == nil {
		return
	}
	p.due = p.pace.due
	for p.pace.owes() && p.late < lateMax {
		p.late++
		p.waited(p.pace.next())
	}
}

func (p *loadLoop) newConn() *loadConn {
	return &loadConn{loop: p, talk: newTalk(p.load, p.clientCount), moved: p.now}
}

// open begins a connection. A plain one's first event says how that went.
func (p *loadLoop) open() error {
	c := p.newConn()
	if p.tls != nil {
		return p.openTLS(c)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.Connect(fd, &p.peer); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return fmt.Errorf("connect: %w", err)
	}
	c.fd, c.connecting = int32(fd), true
	p.conns[c.fd] = c
	return p.watch(unix.EPOLL_CTL_ADD, c, unix.EPOLLOUT)
}

func (p *loadLoop) watch(operation int, c *loadConn, events uint32) error {
	return unix.EpollCtl(p.epoll, operation, int(c.fd), &unix.EpollEvent{Events: events, Fd: c.fd})
}

var errLeft = errors.New("the peer ended the connection in good order")

// handle does what a connection's readiness allows.
func (c *loadConn) handle(events uint32) error {
	if c.connecting {
		return c.connected()
	}
	if events&unix.EPOLLOUT != 0 {
		if err := c.flush(); err != nil {
			return err
		}
	} // and read all the same: the event may be again's
	for range loadReads {
		n, err := c.read()
		if err == errAgain {
			return nil
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if err := c.hear(c.loop.buf[:n]); err != nil {
			return err
		}
		if c.secured == nil && n < len(c.loop.buf) {
			return nil // level-triggered: there is an event if there is more
		}
	}
	return c.again()
}

// again makes sure that there is another event: what TLS has already taken from the socket raises none.
func (c *loadConn) again() error {
	if c.secured == nil {
		return nil
	}
	return c.loop.watch(unix.EPOLL_CTL_MOD, c, unix.EPOLLIN|unix.EPOLLOUT)
}

// hear gives the talk what the peer said, and says what follows from it.
func (c *loadConn) hear(b []byte) error {
	out, err := c.talk.feed(b, c.loop.out[:0])
	if err != nil {
		return err
	}
	return c.proceed(out)
}

// proceed asks as much as the talk has room for, in a closed loop, or offers the room to the pace.
func (c *loadConn) proceed(out []byte) error {
	if c.loop.pace == nil && c.loop.rate == 0 {
		for c.talk.room() > 0 {
			out = c.talk.ask(out, time.Now())
		}
	}
	if err := c.say(out); err != nil {
		return err
	}
	c.queue()
	if c.talk.leaves() {
		return errLeft
	}
	return nil
}

// queue offers a connection with room to the pace.
func (c *loadConn) queue() {
	if c.loop.rate > 0 && !c.queued && c.talk.room() > 0 {
		c.queued = true
		c.loop.roomy = append(c.loop.roomy, c)
	}
}

func (c *loadConn) connected() error {
	soError, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && soError != 0 {
		err = syscall.Errno(soError)
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c.connecting = false
	_ = unix.SetsockoptInt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // as wrk does
	if err := c.loop.watch(unix.EPOLL_CTL_MOD, c, unix.EPOLLIN); err != nil {
		return err
	}
	return c.proceed(c.talk.greet(c.loop.out[:0]))
}

// read takes what is there, decrypted, into the loop's buffer; errAgain when nothing is.
func (c *loadConn) read() (int, error) {
	if c.secured != nil {
		return c.secured.Read(c.loop.buf)
	}
	return c.Read(c.loop.buf)
}

// say sends bytes, encrypted under TLS. out is the loop's buffer, which is kept at the size it grew to.
func (c *loadConn) say(out []byte) error {
	c.loop.out = out[:0]
	if len(out) == 0 {
		return nil
	}
	var err error
	if c.secured != nil {
		_, err = c.secured.Write(out)
	} else {
		_, err = c.Write(out)
	}
	return err
}

// flush sends what a full socket has left over.
func (c *loadConn) flush() error {
	for len(c.unsent) > 0 {
		n, err := unix.Write(int(c.fd), c.unsent)
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.EINTR:
		case err != nil:
			return err
		default:
			c.moved = c.loop.now
			c.unsent = c.unsent[n:]
		}
	}
	return c.loop.watch(unix.EPOLL_CTL_MOD, c, unix.EPOLLIN)
}

// Read reads the socket once. With Write and the rest in load_tls.go it makes a loadConn the net.Conn below TLS.
func (c *loadConn) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(c.fd), b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, errAgain
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			c.moved = c.loop.now
			return n, nil
		}
	}
}

// Write sends b, or keeps what the socket does not take until it does.
func (c *loadConn) Write(b []byte) (int, error) {
	sent := 0
	for len(c.unsent) == 0 && sent < len(b) {
		n, err := unix.Write(int(c.fd), b[sent:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			c.unsent = append(c.unsent[:0], b[sent:]...)
			return len(b), c.loop.watch(unix.EPOLL_CTL_MOD, c, unix.EPOLLIN|unix.EPOLLOUT)
		case err != nil:
			return sent, err
		default:
			c.moved = c.loop.now
			sent += n
		}
	}
	if sent < len(b) {
		c.unsent = append(c.unsent, b[sent:]...)
	}
	return len(b), nil
}
