package main

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	originConnsMax  = 32_768
	originReadBytes = 64 << 10
	originEvents    = 512
)

// A plainOrigin serves HTTP/1.1, WebSocket and HTTP/2 without TLS from one level-triggered epoll loop: the cheapest
// backend we can write, so that as much of the machine as possible is left for the proxy under test. It answers
// pipelined requests too.
type plainOrigin struct {
	epoll    int
	listener int
	conns    map[int32]*originConn
	buf      []byte
	out      []byte       // what one upgraded connection is about to say
	slow     []slowAnswer // in the order in which they are due: all wait equally long
	sum      tally
	file     tallyFile
}

// A slowAnswer is one that waits for its time.
type slowAnswer struct {
	conn *originConn
	at   time.Time
}

// An originConn holds what a connection could not finish at once; the slices are empty most of the time.
type originConn struct {
	fd      int32
	partial []byte // of a request's head, or of what the upgraded connection's protocol calls a frame
	unsent  []byte // of an answer; views of the shared answers
	body    int64  // bytes of a request's body still to come; the answer follows them
	after   []byte // that answer
	waits   bool   // for the time of a slow answer: nothing is served meanwhile
	serves  upgraded
}

// upgraded is what a connection speaks once it has left HTTP/1.1.
type upgraded interface {
	// take takes what the peer said and appends what to say. It counts in sum.
	take(b, out []byte, sum *tally) ([]byte, error)
}

// servePlain accepts on the listening descriptor and serves for ever.
func servePlain(listener int, file tallyFile) error {
	o, err := newPlainOrigin(listener, file)
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, originEvents)
	for s := (stint{}); ; s.worked(time.Now()) {
		n, err := unix.EpollWait(o.epoll, events, o.patience())
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		before := o.sum
		for _, e := range events[:max(n, 0)] {
			o.handle(e)
		}
		o.answerSlow()
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

// patience is how long to wait for events, in milliseconds: until the next slow answer is due.
func (o *plainOrigin) patience() int {
	if len(o.slow) == 0 {
		return -1
	}
	return max(0, int(time.Until(o.slow[0].at).Milliseconds())+1)
}

// answerSlow answers what is due by now, and goes on with what was pipelined behind it.
func (o *plainOrigin) answerSlow() {
	for len(o.slow) > 0 && !time.Now().Before(o.slow[0].at) {
		c := o.slow[0].conn
		o.slow = o.slow[1:]
		if o.conns[c.fd] != c {
			continue // closed since
		}
		c.waits, c.unsent = false, answerSmall
		if o.flush(c) {
			o.serve(c, c.partial)
		}
	}
}

func (o *plainOrigin) read(c *originConn) {
	n, err := unix.Read(int(c.fd), o.buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil || n == 0:
		o.close(c)
	case c.serves != nil:
		o.relay(c, o.buf[:n])
	case len(c.partial) > 0:
		o.serve(c, append(c.partial, o.buf[:n]...))
	default:
		o.serve(c, o.buf[:n])
	}
}

// serve answers the whole requests of b, one after another, until the socket takes no more; the rest of b waits.
func (o *plainOrigin) serve(c *originConn, b []byte) {
	for c.serves == nil && !c.waits {
		if c.body > 0 {
			n := min(c.body, int64(len(b)))
			c.body -= n
			o.sum.Bytes += uint64(n)
			if b = b[n:]; c.body > 0 {
				break
			}
			c.unsent, c.after = c.after, nil
		} else {
			end := bytes.Index(b, endOfHead)
			if bytes.HasPrefix(b, clientPreface) {
				c.serves, b = newHTTP2Origin(), b[len(clientPreface):]
				break
			}
			if end < 0 || bytes.HasPrefix(clientPreface, b) {
				break
			}
			end += len(endOfHead)
			o.begin(c, b[:end])
			b = b[end:]
		}
		if c.body == 0 && !c.waits && !o.flush(c) {
			break
		}
	}
	switch {
	case c.serves != nil:
		o.relay(c, b)
		return
	case len(b) > headMax:
		o.close(c)
		return
	}
	c.partial = append([]byte(nil), b...) // nil, without allocation, when b is empty
}

// begin takes a request's head: its answer goes out at once, or when its body has come.
func (o *plainOrigin) begin(c *originConn, head []byte) {
	o.sum.Requests++
	if key := webSocketKeyOf(head); key != "" {
		c.unsent, c.serves = upgradeAnswer(key), &webSocketOrigin{}
		return
	}
	if bytes.HasPrefix(head, []byte("GET "+pathSlow+" ")) {
		c.waits = true
		o.slow = append(o.slow, slowAnswer{c, time.Now().Add(slowAfter)})
		return
	}
	c.unsent = answerTo(head)
	if c.body = bodyOf(head); c.body > 0 {
		c.unsent, c.after = nil, c.unsent
	}
}

// relay serves a connection that has left HTTP/1.1. What it says is sent, or kept while the socket takes no more:
// nothing is read then, so that a peer which does not read cannot make it grow.
func (o *plainOrigin) relay(c *originConn, b []byte) {
	c.partial = nil
	out, err := c.serves.take(b, o.out[:0], &o.sum)
	if err != nil {
		o.close(c)
		return
	}
	o.out = out[:0]
	if len(out) == 0 {
		return
	}
	if len(c.unsent) > 0 { // the answer of the upgrade
		c.unsent = append(bytes.Clone(c.unsent), out...)
		return
	}
	c.unsent = out
	if o.flush(c); len(c.unsent) > 0 {
		c.unsent = bytes.Clone(c.unsent) // out is everybody's
	}
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
