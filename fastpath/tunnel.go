package fastpath

import "time"

// TunnelEnd is told once, when both connections of a tunnel are closed.
type TunnelEnd interface {
	OnTunnelEnd(t *Tunnel, err *Error) // err: nil after two orderly ends
}

// Tunnel is two connections joined byte for byte until both ended. Plain ones are spliced in the kernel; where TLS stands
// on a side, bytes are copied. A half-close is carried over, a reset too. A silent tunnel ends at its idle limit, a
// half-closed one earlier.
type Tunnel struct {
	a, b *Conn
	ab   direction
	ba   direction
	idle time.Duration
	half time.Duration
	end  TunnelEnd
	last int64 // when bytes last moved
}

// direction is one way through a tunnel.
type direction struct {
	from, to *Conn
	splice   Splicer
	copied   int64
	ended    bool // the source's end was passed on
}

// Join makes a tunnel of two connected connections of the same loop; unread input of either goes first. From here on both
// belong to the tunnel.
func Join(a, b *Conn, idle, half time.Duration, end TunnelEnd) *Tunnel {
	t := &Tunnel{a: a, b: b, idle: idle, half: half, end: end, last: a.loop.now}
	t.ab.from, t.ab.to = a, b
	t.ba.from, t.ba.to = b, a
	a.SetHandler(t)
	b.SetHandler(t)
	a.SetDeadline(0)
	b.SetDeadline(t.last + int64(idle))
	a.flags |= flagReadable
	b.flags |= flagReadable
	a.Again()
	b.Again()
	return t
}

// Bytes is how many bytes each way have been delivered: from a to b, and from b to a.
func (t *Tunnel) Bytes() (ab, ba int64) {
	return t.ab.copied + t.ab.splice.Moved(), t.ba.copied + t.ba.splice.Moved()
}

// Close ends the tunnel now, with a reset to both sides: the drain limit is reached.
func (t *Tunnel) Close() { t.abort(ErrTimeout) }

// OnReadable implements Handler.
func (t *Tunnel) OnReadable(c *Conn) {
	d := &t.ab
	if c == t.b {
		d = &t.ba
	}
	t.move(d)
}

// OnWritable implements Handler: what waits for c comes from the other side.
func (t *Tunnel) OnWritable(c *Conn) {
	t.last = c.loop.now // what was staged has left: that is no idle tunnel
	d := &t.ba
	if c == t.b {
		d = &t.ab
	}
	t.move(d)
}

// OnDeadline implements Handler. Bytes that moved since the deadline was set only move the deadline.
func (t *Tunnel) OnDeadline(c *Conn) {
	limit := t.idle
	if t.ab.ended || t.ba.ended {
		limit = min(limit, t.half)
	}
	if at := t.last + int64(limit); at > c.loop.now {
		c.SetDeadline(at)
		return
	}
	t.abort(ErrTimeout)
}

func (t *Tunnel) move(d *direction) {
	if d.ended {
		if d.from.Broken() {
			t.abort(ErrReset)
			return
		}
		t.settle()
		return
	}
	n, err := d.pump()
	if n > 0 {
		t.last = d.from.loop.now
	}
	switch {
	case err == ErrWouldBlock:
		if t.a.Broken() && !t.a.Readable() || t.b.Broken() && !t.b.Readable() {
			t.abort(ErrReset)
		}
	case err == ErrEOF:
		t.ended(d)
	default:
		t.abort(err)
	}
}

// ended passes the source's end on.
func (t *Tunnel) ended(d *direction) {
	d.ended = true
	d.to.CloseWrite()
	t.b.SetDeadline(t.last + int64(min(t.idle, t.half)))
	t.settle()
}

// settle closes the tunnel when both ends were passed on and nothing that was staged before them waits.
func (t *Tunnel) settle() {
	if !t.ab.ended || !t.ba.ended {
		return
	}
	if t.a.Pending() || t.b.Pending() {
		t.a.flags |= flagTold
		t.b.flags |= flagTold
		return
	}
	t.a.Close()
	t.b.Close()
	t.finish(nil)
}

func (t *Tunnel) abort(err *Error) {
	if t.a == nil {
		return // it ended before
	}
	t.a.Abort()
	t.b.Abort()
	t.finish(err)
}

func (t *Tunnel) finish(err *Error) {
	ab, ba := t.Bytes()
	t.ab.splice.Stop()
	t.ba.splice.Stop()
	t.ab = direction{copied: ab, ended: true}
	t.ba = direction{copied: ba, ended: true}
	t.a, t.b = nil, nil // their values will be other connections
	if t.end != nil {
		t.end.OnTunnelEnd(t, err)
	}
}

// pump moves what can be moved now. nil is never returned: a direction goes on until its end.
func (d *direction) pump() (int64, *Error) {
	if d.from.Plain() && d.to.Plain() && len(d.from.Buffered()) == 0 {
		if !d.splice.Active() {
			moved := d.splice.moved
			d.splice.Start(d.from, d.to, -1)
			d.splice.moved = moved
		}
		return d.splice.Pump()
	}
	return d.copy()
}

func (d *direction) copy() (int64, *Error) {
	var n int64
	for n < turnBytes {
		room := d.to.Room()
		if room == 0 {
			return n, ErrWouldBlock
		}
		if b := d.from.Buffered(); len(b) > 0 {
			b = b[:min(len(b), room)]
			d.to.Write(b)
			d.from.Discard(len(b))
			d.copied += int64(len(b))
			n += int64(len(b))
			continue
		}
		if d.from.Plain() && d.to.Plain() {
			break // what was read ahead is gone; from here on it is spliced
		}
		if err := d.from.Fill(room); err != nil {
			return n, err
		}
	}
	d.from.Again()
	return n, ErrWouldBlock
}
