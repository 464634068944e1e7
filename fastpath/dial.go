package fastpath

import (
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dial starts a connection to addr; h.OnConnect follows, never from inside Dial. timeout bounds it.
func (l *Loop) Dial(addr netip.AddrPort, timeout time.Duration, h Connector) (*Conn, *Error) {
	c, _, err := l.DialSending(addr, timeout, h, nil)
	return c, err
}

// DialSending is Dial with what the peer is to be sent first. On one machine, and between pods of one node, connect(2) says
// that the connection is under way when it is made already: then its socket takes bytes at once, and a wait and a turn are
// saved (docs/decisions/0089-first-bytes-with-the-dial.md). sent > 0: so much of first has left, the connection is made, and
// OnConnect does not follow. sent == 0: all is as with Dial, and nothing was sent. first is not kept.
func (l *Loop) DialSending(addr netip.AddrPort, timeout time.Duration, h Connector, first []byte) (c *Conn, sent int, err *Error) {
	fd, e := socket(!addr.Addr().Unmap().Is4())
	if e != 0 {
		return nil, 0, ErrNoDescriptor
	}
	setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if e := connect(fd, addr); e != 0 && e != syscall.EINPROGRESS {
		closeFD(fd)
		return nil, 0, ErrRefused
	}
	flags := flagConnecting | flagOut
	if len(first) > 0 {
		switch sent, e = send(fd, first, 0); {
		case e == 0:
			flags = 0
		case e != syscall.EAGAIN: // the kernel tells it once only: no event would follow
			closeFD(fd)
			return nil, 0, ErrRefused
		}
	}
	c, failed := l.register(fd, h, flags)
	if failed != nil {
		closeFD(fd)
		return nil, 0, ErrNoDescriptor
	}
	c.remote, c.sent, c.turns = addr, uint64(sent), -1
	if flags&flagConnecting != 0 {
		c.SetDeadline(l.now + int64(timeout))
	}
	return c, sent, nil
}

// connected leads the first event of a dialled connection.
func (c *Conn) connected(ev uint32) {
	if ev&unix.EPOLLERR != 0 || ev&unix.EPOLLHUP != 0 && ev&unix.EPOLLOUT == 0 {
		c.connectFailed(ErrRefused)
		return
	}
	if ev&unix.EPOLLOUT == 0 {
		return
	}
	c.flags &^= flagConnecting
	c.SetDeadline(0)
	if ev&unix.EPOLLRDHUP != 0 {
		c.flags |= flagHup
	}
	if ev&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 {
		c.flags |= flagReadable
	}
	c.Flush()
	c.handler.(Connector).OnConnect(c, nil)
	c.settle()
	if c.flags&(flagClosed|flagReadable) == flagReadable {
		c.Again()
	}
}

func (c *Conn) connectFailed(err *Error) {
	h := c.handler.(Connector)
	c.Close()
	h.OnConnect(c, err)
}
