package l7

import (
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// A streamTunnel joins a client with a stream of a backend's HTTP/2 session, which an extended CONNECT opened (RFC 8441). The client
// is a connection of HTTP/1.1 after a 101, or a stream of HTTP/2. Bytes are copied, ends and resets carried over both ways, and
// neither side gets more than it has room for. The exchange stays the peer of the backend's stream.
type streamTunnel struct {
	x       *Exchange
	backend upstream.Stream
	c       *fastpath.Conn // the client's connection; nil: it is s
	s       *stream
	last    int64 // when bytes, or an end, last moved
	up      int64 // bytes to the backend
	down    int64
	upEnd   bool // the client's end was passed on
	downEnd bool
	closing bool
}

// begin leads the tunnel from here on.
func (t *streamTunnel) begin() {
	t.x.joined = t
	t.backend.SetTimeout(0)
	t.last = t.x.loop.Now()
	t.fromBackend()
	t.fromClient()
}

// TunnelStream implements Client.
func (h *http1) TunnelStream(x *Exchange, backend upstream.Stream) {
	h.x = nil
	h.closed()
	t := &streamTunnel{x: x, backend: backend, c: h.c}
	h.c.ReadAhead(false)
	h.c.SetHandler(t)
	h.c.SetDeadline(h.c.Loop().Now() + int64(x.Settings.TunnelIdle))
	t.begin()
}

// TunnelStream implements Client.
func (s *stream) TunnelStream(x *Exchange, backend upstream.Stream) {
	t := &streamTunnel{x: x, backend: backend, s: s}
	s.tunnel, s.x, s.parkDue, s.bodyDue = t, nil, 0, 0
	s.h.arm(s.h.c.Loop().Now() + int64(x.Settings.TunnelIdle))
	t.begin()
}

// due is when the tunnel has been silent for too long.
func (t *streamTunnel) due() int64 {
	limit := t.x.Settings.TunnelIdle
	if t.upEnd || t.downEnd {
		limit = min(limit, t.x.Settings.HalfCloseTimeout)
	}
	return t.last + int64(limit)
}

// OnReadable implements fastpath.Handler for the client's connection.
func (t *streamTunnel) OnReadable(c *fastpath.Conn) {
	defer t.recovered()
	if c.Broken() {
		t.close(errClientGone)
		return
	}
	t.fromClient()
}

// OnWritable implements fastpath.Handler for the client's connection.
func (t *streamTunnel) OnWritable(c *fastpath.Conn) {
	defer t.recovered()
	t.last = c.Loop().Now() // what was staged has left
	t.fromBackend()
}

// OnDeadline implements fastpath.Handler for the client's connection.
func (t *streamTunnel) OnDeadline(c *fastpath.Conn) {
	defer t.recovered()
	if due := t.due(); due > c.Loop().Now() {
		c.SetDeadline(due)
		return
	}
	t.close(fastpath.ErrTimeout)
}

// recovered ends a tunnel whose leading panicked.
func (t *streamTunnel) recovered() {
	if p := recover(); p != nil {
		countPanic(t.x.loop, p)
		t.close(errEngine)
	}
}

// fromClient moves what the client says on.
func (t *streamTunnel) fromClient() {
	for moved := 0; !t.closing && !t.upEnd; {
		room := t.backend.Room()
		if room == 0 {
			return // OnRoom follows
		}
		if moved >= relayBytes {
			t.clientAgain()
			return
		}
		b, err := t.clientSays(min(room, relayBytes))
		if len(b) > 0 {
			moved += len(b)
			t.up += int64(len(b))
			t.last = t.x.loop.Now()
			if err := t.backend.WriteBody(b); err != nil {
				t.close(err)
			}
			continue
		}
		switch err {
		case fastpath.ErrEOF:
			t.upEnd = true
			t.halfClosed()
			if err := t.backend.EndBody(nil); err != nil {
				t.close(err)
				return
			}
			t.settle()
		case fastpath.ErrWouldBlock:
			return
		default:
			t.close(err)
		}
	}
}

// clientSays gives at most so many bytes of the client's: a view, until the next call on this loop.
func (t *streamTunnel) clientSays(most int) ([]byte, *fastpath.Error) {
	if t.s != nil {
		b := t.s.said(most)
		switch {
		case len(b) > 0:
			return b, nil
		case t.s.ended:
			return nil, fastpath.ErrEOF
		}
		return nil, fastpath.ErrWouldBlock
	}
	if len(t.c.Buffered()) == 0 {
		if err := t.c.Fill(most); err != nil {
			return nil, err
		}
	}
	b := t.c.Buffered()
	b = b[:min(len(b), most)]
	t.c.Discard(len(b))
	return b, nil
}

func (t *streamTunnel) clientAgain() {
	if t.s != nil {
		t.s.Again()
	} else {
		t.c.Again()
	}
}

// said gives at most so many bytes that came as DATA of a tunnel: a view, until the next call on this loop.
func (s *stream) said(most int) (view []byte) {
	if n := min(len(s.in)-s.read, most); n > 0 {
		view = s.in[s.read : s.read+n]
		if s.read += n; s.read == len(s.in) {
			s.in, s.read = s.in[:0], 0
		}
	} else if n := min(s.fresh, most); n > 0 {
		view = s.h.c.Buffered()[:n]
		s.take(n)
	}
	s.credit(len(view))
	s.h.credit(len(view))
	return view
}

// fromBackend moves what the backend says on.
func (t *streamTunnel) fromBackend() {
	for moved := 0; !t.closing && !t.downEnd; {
		room := t.clientRoom()
		if room == 0 {
			return // the client's side calls again
		}
		if moved >= relayBytes {
			t.backend.Again()
			return
		}
		b, err := t.backend.ReadBody(room)
		if len(b) > 0 {
			moved += len(b)
			t.down += int64(len(b))
			t.last = t.x.loop.Now()
			if t.s != nil {
				t.s.write(b, false)
			} else {
				t.c.Write(b)
			}
			continue
		}
		switch err {
		case fastpath.ErrEOF:
			t.downEnd = true
			t.halfClosed()
			if t.s != nil {
				t.s.endData()
			} else {
				t.c.CloseWrite()
			}
			t.settle()
		case fastpath.ErrWouldBlock:
			return
		default:
			t.close(err)
		}
	}
}

func (t *streamTunnel) clientRoom() int {
	if t.s != nil {
		return t.s.Room()
	}
	return t.c.Room()
}

// halfClosed has the shorter limit begin.
func (t *streamTunnel) halfClosed() {
	if t.last = t.x.loop.Now(); t.s != nil {
		t.s.h.arm(t.due())
	} else {
		t.c.SetDeadline(t.due())
	}
}

// settle ends a tunnel whose both directions have ended in order.
func (t *streamTunnel) settle() {
	if t.upEnd && t.downEnd {
		t.close(nil)
	}
}

// close ends the tunnel now; with an error by a reset to both sides.
func (t *streamTunnel) close(err *fastpath.Error) {
	if t.closing {
		return
	}
	t.closing = true
	x, s := t.x, t.s
	x.joined = nil
	x.fwd.release()
	x.tunnelEnded(t.up, t.down, err)
	switch {
	case s == nil && err != nil:
		t.c.Abort()
	case s == nil:
		t.c.CloseLinger()
	default:
		s.tunnel = nil
		s.over()
	}
}

// over ends a stream whose tunnel has ended.
func (s *stream) over() {
	switch {
	case s.whole && s.ended:
		s.h.drop(s)
	case s.code != wire.H2NoError:
		s.cut(s.code)
	default:
		s.cut(wire.H2ConnectError)
	}
}

// A joinedStream is what a client's stream is joined with by its extended CONNECT: the engine's way into either kind of tunnel.
type joinedStream interface {
	fromClient()
	fromBackend()
	due() int64
	close(err *fastpath.Error)
}

// closeTunnels ends what streams carry as tunnels: the drain limit is reached.
func (h *http2) closeTunnels() {
	for i := len(h.streams) - 1; i >= 0; i = min(i, len(h.streams)) - 1 {
		if t := h.streams[i].tunnel; t != nil {
			t.close(fastpath.ErrTimeout)
		}
	}
}
