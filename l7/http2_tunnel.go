package l7

import "github.com/sluiceproxy/sluice/fastpath"

// h2Tunnel joins a stream that an extended CONNECT opened (RFC 8441) with the backend's connection: DATA one way, plain
// bytes the other. END_STREAM and FIN are carried over, RST_STREAM and a reset too.
type h2Tunnel struct {
	s       *stream
	x       *Exchange
	backend *fastpath.Conn
	last    int64 // when bytes, or an end, last moved
	up      int64 // bytes to the backend
	down    int64
	upEnd   bool // the client's end was passed on
	downEnd bool
	closing bool
}

// Tunnel implements Client.
func (s *stream) Tunnel(x *Exchange, backend *fastpath.Conn) {
	t := &h2Tunnel{s: s, x: x, backend: backend, last: s.h.c.Loop().Now()}
	s.tunnel, s.x, s.parkDue, s.bodyDue = t, nil, 0, 0
	backend.SetHandler(t)
	backend.SetDeadline(0)
	backend.Again()
	s.h.arm(t.due())
	if s.fresh > 0 || len(s.in) > s.read || s.ended {
		t.fromClient()
	}
}

// due is when the tunnel has been silent for too long.
func (t *h2Tunnel) due() int64 {
	limit := t.x.Settings.TunnelIdle
	if t.upEnd || t.downEnd {
		limit = min(limit, t.x.Settings.HalfCloseTimeout)
	}
	return t.last + int64(limit)
}

// OnReadable implements fastpath.Handler for the backend's connection.
func (t *h2Tunnel) OnReadable(*fastpath.Conn) { t.fromBackend() }

// OnWritable implements fastpath.Handler for the backend's connection.
func (t *h2Tunnel) OnWritable(*fastpath.Conn) { t.fromClient() }

// OnDeadline implements fastpath.Handler. The client's connection keeps the time.
func (t *h2Tunnel) OnDeadline(*fastpath.Conn) {}

// fromClient moves what came as DATA on.
func (t *h2Tunnel) fromClient() {
	s, c := t.s, t.backend
	for !t.closing {
		kept := len(s.in) - s.read
		if kept == 0 && s.fresh == 0 {
			break
		}
		room := c.Room()
		if room == 0 {
			return // OnWritable follows
		}
		n := 0
		if kept > 0 {
			n = min(kept, room)
			c.Write(s.in[s.read : s.read+n])
			if s.read += n; s.read == len(s.in) {
				s.in, s.read = s.in[:0], 0
			}
		} else {
			n = min(s.fresh, room)
			c.Write(s.h.c.Buffered()[:n])
			s.take(n)
		}
		t.up += int64(n)
		t.last = c.Loop().Now()
		s.credit(n)
		s.h.credit(n)
	}
	if s.ended && !t.upEnd && !t.closing {
		t.upEnd, t.last = true, c.Loop().Now()
		c.CloseWrite()
		t.settle()
	}
}

// fromBackend moves the backend's bytes on as DATA, as the windows allow it.
func (t *h2Tunnel) fromBackend() {
	s, c := t.s, t.backend
	for moved := 0; !t.closing && !t.downEnd; {
		if b := c.Buffered(); len(b) > 0 {
			room := s.Room()
			if room == 0 {
				return
			}
			n := min(len(b), room)
			s.write(b[:n], false)
			c.Discard(n)
			t.down += int64(n)
			moved += n
			t.last = c.Loop().Now()
			continue
		}
		if moved >= relayBytes {
			c.Again()
			return
		}
		switch err := c.Fill(relayBytes); err {
		case nil:
		case fastpath.ErrWouldBlock:
			return
		case fastpath.ErrEOF:
			t.downEnd, t.last = true, c.Loop().Now()
			s.endData()
			t.settle()
		default:
			t.close(err)
		}
	}
}

// settle ends a tunnel whose both directions have ended in order.
func (t *h2Tunnel) settle() {
	if t.upEnd && t.downEnd {
		t.end(nil)
	}
}

// close ends the tunnel now, with a reset to both sides.
func (t *h2Tunnel) close(err *fastpath.Error) { t.end(err) }

func (t *h2Tunnel) end(err *fastpath.Error) {
	if t.closing {
		return
	}
	t.closing = true
	s := t.s
	s.tunnel = nil
	if err != nil {
		t.backend.Abort()
	} else {
		t.backend.CloseLinger()
	}
	t.x.tunnelEnded(t.up, t.down, err)
	s.over()
}
