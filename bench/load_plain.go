package main

import (
	"context"
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
)

// A plainLoad makes keep-alive load without TLS from one epoll loop in one goroutine.
type plainLoad struct {
	*clientCount
	load
	epoll   int
	peer    unix.SockaddrInet4
	request []byte
	conns   map[int32]*loadConn
	buf     []byte
}

type loadConn struct {
	fd         int32
	connecting bool
	sent       time.Time
	answer     answerParser
}

// loadPlain is the loadFunc for plain keep-alive connections.
func loadPlain(ctx context.Context, l load, duration time.Duration) (loadResult, error) {
	p, err := newPlainLoad(l)
	if err != nil {
		return loadResult{}, err
	}
	defer p.shut()
	err = p.run(ctx, time.Now().Add(duration))
	return total(p.clientCount), err
}

func newPlainLoad(l load) (*plainLoad, error) {
	address, err := netip.ParseAddrPort(l.address)
	if err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	p := &plainLoad{
		clientCount: newClientCount(), load: l, epoll: epoll,
		peer:    unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()},
		request: request(l.host, l.path),
		conns:   map[int32]*loadConn{},
		buf:     make([]byte, loadReadBytes),
	}
	for range l.conns {
		if err := p.open(); err != nil {
			p.shut()
			return nil, err
		}
	}
	return p, nil
}

func (p *plainLoad) shut() {
	for _, c := range p.conns {
		unix.Close(int(c.fd))
	}
	unix.Close(p.epoll)
}

var errTooMany = errors.New("too many errors: the run was ended")

func (p *plainLoad) run(ctx context.Context, end time.Time) error {
	events := make([]unix.EpollEvent, loadEvents)
	for time.Now().Before(end) && ctx.Err() == nil {
		n, err := unix.EpollWait(p.epoll, events, int(loadPoll.Milliseconds()))
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if c := p.conns[e.Fd]; c != nil {
				if err := p.handle(c); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

// open begins a connection; its first event says how that went.
func (p *plainLoad) open() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.Connect(fd, &p.peer); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return fmt.Errorf("connect: %w", err)
	}
	c := &loadConn{fd: int32(fd), connecting: true}
	p.conns[c.fd] = c
	return p.watch(unix.EPOLL_CTL_ADD, c, unix.EPOLLOUT)
}

func (p *plainLoad) watch(operation int, c *loadConn, events uint32) error {
	return unix.EpollCtl(p.epoll, operation, int(c.fd), &unix.EpollEvent{Events: events, Fd: c.fd})
}

// handle does what a connection's readiness allows. The only errors it returns are those that end the run.
func (p *plainLoad) handle(c *loadConn) error {
	if c.connecting {
		return p.connected(c)
	}
	n, err := unix.Read(int(c.fd), p.buf)
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return p.fail(c, err)
	}
	done, err := c.answer.feed(p.buf[:n])
	switch {
	case err != nil:
		return p.fail(c, err)
	case !done:
		return nil
	}
	p.answered(&c.answer, sizeOf(p.path), time.Since(c.sent))
	if c.answer.close {
		return p.reopen(c)
	}
	return p.send(c)
}

func (p *plainLoad) connected(c *loadConn) error {
	soError, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && soError != 0 {
		err = syscall.Errno(soError)
	}
	if err != nil {
		return p.fail(c, fmt.Errorf("connect: %w", err))
	}
	c.connecting = false
	_ = unix.SetsockoptInt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // as wrk does
	if err := p.watch(unix.EPOLL_CTL_MOD, c, unix.EPOLLIN); err != nil {
		return err
	}
	return p.send(c)
}

// send writes the next request. It is so small that a socket takes it whole or is broken.
func (p *plainLoad) send(c *loadConn) error {
	c.answer.reset()
	c.sent = time.Now()
	n, err := unix.Write(int(c.fd), p.request)
	if err == nil && n < len(p.request) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return p.fail(c, err)
	}
	return nil
}

func (p *plainLoad) fail(c *loadConn, err error) error {
	if p.failed(err) {
		return fmt.Errorf("%w: %w", errTooMany, err)
	}
	return p.reopen(c)
}

func (p *plainLoad) reopen(c *loadConn) error {
	delete(p.conns, c.fd)
	unix.Close(int(c.fd))
	return p.open()
}
