package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// TLS below a loadLoop: the handshake is made with a blocking socket when the connection is opened; from then on
// crypto/tls reads and writes a socket that does not block. It takes "nothing there yet" for an error that passes
// because that is a temporary net.Error.

// tlsOpenLimit is how long one step of connecting may take.
const tlsOpenLimit = 5 * time.Second

var errAgain error = again{}

type again struct{}

func (again) Error() string   { return "nothing to read yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// errNoHTTP2 tells that a peer speaks TLS and chose another protocol.
var errNoHTTP2 = errors.New("no HTTP/2: ALPN did not choose h2")

// openTLS connects and shakes hands before it returns. What fails is counted like any other failure.
func (p *loadLoop) openTLS(c *loadConn) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	c.fd = int32(fd)
	if err := c.shakeHands(&p.peer, p.load); err != nil {
		unix.Close(fd)
		if errors.Is(err, errNoHTTP2) || p.failed(err) {
			return err
		}
		return p.openTLS(p.newConn())
	}
	p.now = time.Now() // a handshake may take long
	p.conns[c.fd] = c
	if err := p.watch(unix.EPOLL_CTL_ADD, c, unix.EPOLLIN); err != nil {
		return err
	}
	return p.book(c, c.proceed(c.talk.greet(p.out[:0])))
}

func (c *loadConn) shakeHands(peer unix.Sockaddr, l load) error {
	fd := int(c.fd)
	limit := unix.NsecToTimeval(tlsOpenLimit.Nanoseconds())
	if err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
	); err != nil {
		return err
	}
	if err := connectWhole(fd, peer); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	secured := tls.Client(c, l.tls)
	if err := secured.Handshake(); err != nil {
		return err
	}
	if l.speaks.overHTTP2() && secured.ConnectionState().NegotiatedProtocol != "h2" {
		return errNoHTTP2
	}
	c.secured = secured
	return unix.SetNonblock(fd, true)
}

// connectWhole connects a blocking socket. A signal that ends the wait does not end the attempt (connect(2)).
func connectWhole(fd int, peer unix.Sockaddr) error {
	for {
		switch err := unix.Connect(fd, peer); err {
		case unix.EINTR:
		case unix.EISCONN:
			return nil
		default:
			return err
		}
	}
}

// The rest of a net.Conn. crypto/tls asks for none of it on a connection that is used like this one.

func (c *loadConn) Close() error                     { return nil } // the loop closes the descriptor
func (c *loadConn) LocalAddr() net.Addr              { return nil }
func (c *loadConn) RemoteAddr() net.Addr             { return nil }
func (c *loadConn) SetDeadline(time.Time) error      { return nil }
func (c *loadConn) SetReadDeadline(time.Time) error  { return nil }
func (c *loadConn) SetWriteDeadline(time.Time) error { return nil }
