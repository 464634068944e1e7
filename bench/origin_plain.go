package main

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	originConnsMax  = 32_768
	originReadBytes = 64 << 10
	originEvents    = 512
)

// A plainOrigin serves HTTP/1.1 from one level-triggered epoll loop: the cheapest backend we can write, so that
// as much of the machine as possible is left for the proxy under test. It answers pipelined requests too.
type plainOrigin struct {
	epoll    int
	listener int
	conns    map[int32]*originConn
	buf      []byte
	sum      tally
	file     tallyFile
}

// An originConn holds what a connection could not finish at once; both are empty most of the time.
type originConn struct {
	fd      int32
	partial []byte // of a request's head
	unsent  []byte // of an answer; views of the shared answers
}

// servePlain accepts on the listening descriptor and serves for ever.
func servePlain(listener int, file tallyFile) error {
	o, err := newPlainOrigin(listener, file)
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, originEvents)
	for {
		n, err := unix.EpollWait(o.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		before := o.sum
		for _, e := range events[:max(n, 0)] {
			o.handle(e)
		}
		if o.sum != before {
			if err := o.file.write(o.sum); err != nil {
				return err
			}
		}
	}
}

func newPlainOrigin(listener int, file tallyFile) (*plainOrigin, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	o := &plainOrigin{
		epoll: epoll, listener: listener, file: file,
		conns: map[int32]*originConn{},
		buf:   make([]byte, originReadBytes),
	}
	if err := unix.SetNonblock(listener, true); err != nil {
		return nil, err
	}
	return o, o.watch(unix.EPOLL_CTL_ADD, int32(listener), unix.EPOLLIN)
}

func (o *plainOrigin) watch(operation int, fd int32, events uint32) error {
	return unix.EpollCtl(o.epoll, operation, int(fd), &unix.EpollEvent{Events: events, Fd: fd})
}

func (o *plainOrigin) handle(e unix.EpollEvent) {
	if e.Fd == int32(o.listener) {
		o.accept()
		return
	}
	c := o.conns[e.Fd]
	switch {
	case c == nil: // closed earlier in this batch
	case len(c.unsent) > 0:
		o.resume(c)
	default:
		o.read(c)
	}
}

func (o *plainOrigin) accept() {
	for {
		fd, _, err := unix.Accept4(o.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		if len(o.conns) >= originConnsMax || o.watch(unix.EPOLL_CTL_ADD, int32(fd), unix.EPOLLIN) != nil {
			unix.Close(fd)
			continue
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // only saves latency
		o.conns[int32(fd)] = &originConn{fd: int32(fd)}
	}
}

func (o *plainOrigin) read(c *originConn) {
	n, err := unix.Read(int(c.fd), o.buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil || n == 0:
		o.close(c)
	case len(c.partial) > 0:
		o.serve(c, append(c.partial, o.buf[:n]...))
	default:
		o.serve(c, o.buf[:n])
	}
}

// serve answers the whole requests of b, one after another, until the socket takes no more; the rest of b waits.
func (o *plainOrigin) serve(c *originConn, b []byte) {
	for {
		end := bytes.Index(b, endOfHead)
		if end < 0 {
			break
		}
		end += len(endOfHead)
		c.unsent = answerTo(b[:end])
		o.sum.Requests++
		b = b[end:]
		if !o.flush(c) {
			break
		}
	}
	if len(b) > headMax {
		o.close(c)
		return
	}
	c.partial = append([]byte(nil), b...) // nil, without allocation, when b is empty
}

// flush writes what is unsent. When the socket takes no more, or is closed for an error, it answers false.
func (o *plainOrigin) flush(c *originConn) bool {
	for len(c.unsent) > 0 {
		n, err := unix.Write(int(c.fd), c.unsent)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if o.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLOUT) != nil {
				o.close(c)
			}
			return false
		case err != nil:
			o.close(c)
			return false
		default:
			o.sum.Bytes += uint64(n)
			c.unsent = c.unsent[n:]
		}
	}
	return true
}

// resume goes on when a blocked socket takes bytes again, and returns to reading once all are written.
func (o *plainOrigin) resume(c *originConn) {
	if !o.flush(c) {
		return
	}
	if o.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN) != nil {
		o.close(c)
		return
	}
	o.serve(c, c.partial)
}

func (o *plainOrigin) close(c *originConn) {
	if o.conns[c.fd] == c { // not twice: the number may be another's by then
		delete(o.conns, c.fd)
		unix.Close(int(c.fd))
	}
}
