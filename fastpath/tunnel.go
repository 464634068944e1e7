package fastpath

import (
	"time"

	"golang.org/x/sys/unix"
)

// TunnelEnd is told once, when both connections of a tunnel are closed.
type TunnelEnd interface {
	OnTunnelEnd(t *Tunnel, err *Error) // err: nil after two orderly ends
}

// Tunnel is two connections joined byte for byte until both ended. What comes in bulk between plain ones is spliced in the
// kernel; small pieces are copied, and all where TLS stands on a side. Where the loop has a sockmap, the kernel may move both
// directions by itself (sockmap.go). A half-close is carried over, a reset too. A silent tunnel ends at its idle limit, a
// half-closed one earlier.
type Tunnel struct {
	a, b *Conn
	ab   direction
	ba   direction
	idle time.Duration
	half time.Duration
	end  TunnelEnd
	last int64 // when bytes, or an end, last moved

	kernel *kernelPath // nil: the sockets are in no sockmap
	began  int64
	small  uint32 // small pieces since the last large one
	tries  uint8  // at handing over
	use    SockmapUse
}

// direction is one way through a tunnel. Bytes are copied while they come in small pieces, and spliced once the source
// proves to send in bulk: a splice saves the copying, but costs a system call more for each arrival.
type direction struct {
	from, to *Conn
	splice   Splicer
	copied   int64 // bytes given to the destination, spliced ones aside
	spliced  int64 // bytes of splices that are over
	streak   uint8 // successive large pieces while copying, small ones while splicing
	ended    bool  // the source's end was passed on
	held     bool  // the kernel moves it
}

// bulkBytes is the size from which on a piece counts as large: a TLS record at its largest is. bulkStreak pieces in a row
// change the way that bytes are moved.
const (
	bulkBytes  = 16 << 10
	bulkStreak = 2
)

// Join makes a tunnel of two connected connections of the same loop; unread input of either goes first. From here on both
// belong to the tunnel.
func Join(a, b *Conn, idle, half time.Duration, end TunnelEnd) *Tunnel {
	t := new(Tunnel)
	t.Join(a, b, idle, half, end)
	return t
}

// Join is the function Join for a value of the caller's, such as a part of its end. It may join others once the round is
// over in which OnTunnelEnd came (Loop.Spend).
func (t *Tunnel) Join(a, b *Conn, idle, half time.Duration, end TunnelEnd) {
	*t = Tunnel{a: a, b: b, idle: idle, half: half, end: end, last: a.loop.now, began: a.loop.now, use: a.loop.sockmapUse}
	t.ab.from, t.ab.to = a, b
	t.ba.from, t.ba.to = b, a
	a.ReadAhead(true) // until its bytes are spliced, or the kernel moves them
	b.ReadAhead(true)
	a.SetHandler(t)
	b.SetHandler(t)
	a.SetDeadline(0)
	b.SetDeadline(t.last + int64(idle))
	a.wakeTunnel()
	b.wakeTunnel()
	t.askSockmap()
}

// wakeTunnel asks for a first turn where there may be something to move; a connection of which nothing is known tells of it
// by an event.
func (c *Conn) wakeTunnel() {
	if c.tls != nil || len(c.in) > 0 || c.flags&(flagReadable|flagEOF) != 0 || c.Broken() {
		c.Again()
	}
}

// Preceded tells that n bytes of a's were given to b before both were joined, so that they count.
func (t *Tunnel) Preceded(n int) { t.ab.copied += int64(n) }

// Bytes is how many bytes each way have been delivered: from a to b, and from b to a.
// While the kernel moves them it is asked, by a system call.
func (t *Tunnel) Bytes() (ab, ba int64) {
	return t.ab.bytes(), t.ba.bytes()
}

func (d *direction) bytes() int64 {
	n := d.copied + d.spliced + d.splice.Moved()
	if d.held {
		arrived, _ := d.arrived()
		n += int64(arrived)
	}
	return n
}

// End is whom Join was told to tell of the tunnel's end.
func (t *Tunnel) End() TunnelEnd { return t.end }

// Close ends the tunnel now, with a reset to both sides: the drain limit is reached.
func (t *Tunnel) Close() { t.abort(ErrTimeout) }

// OnReadable implements Handler.
func (t *Tunnel) OnReadable(c *Conn) {
	t.move(t.direction(c))
}

// direction is the one whose source c is.
func (t *Tunnel) direction(c *Conn) *direction {
	if c == t.b {
		return &t.ba
	}
	return &t.ab
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
	if c == t.a {
		t.recheckNow()
		return
	}
	if t.ab.held || t.ba.held { // nothing but the kernel's word wakes a held direction; it is not relied on for ever
		if t.recheckNow(); t.a == nil {
			return
		}
	}
	t.busy()
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
	if d.held {
		t.follow(d)
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
			return
		}
		t.consider(n)
	case err == ErrEOF && t.early(d):
		t.awaitRest(d)
	case err == ErrEOF:
		t.ended(d)
	default:
		t.abort(err)
	}
}

// ended passes the source's end on. The second end of two is told by the close that follows, if nothing has to wait.
func (t *Tunnel) ended(d *direction) {
	d.ended, t.last = true, d.from.loop.now
	if d.to.flushMore(); !t.both() || !d.to.Plain() {
		d.to.CloseWrite()
	}
	t.b.SetDeadline(t.last + int64(min(t.idle, t.half)))
	t.settle()
}

// flushMore sends what is staged and tells the kernel that more follows, so that the FIN, which must follow at once, leaves
// in the same segment.
func (c *Conn) flushMore() {
	if c.tls != nil || len(c.out) == 0 || c.flags&(flagBlocked|flagConnecting|flagClosed|flagWriteEnd) != 0 || c.err != nil {
		return
	}
	n, e := send(c.fd, c.out, unix.MSG_MORE)
	c.out = c.took(c.out, n, e)
}

// settle closes the tunnel when both ends were passed on and nothing that was staged before them waits.
func (t *Tunnel) settle() {
	if !t.ab.ended || !t.ba.ended {
		return
	}
	if !t.both() {
		t.a.flags |= flagTold
		t.b.flags |= flagTold
		return
	}
	t.a.Close()
	t.b.Close()
	t.finish(nil)
}

// both tells that both ends have come and nothing waits to be sent.
func (t *Tunnel) both() bool {
	return t.ab.ended && t.ba.ended && !t.a.Pending() && !t.b.Pending()
}

func (t *Tunnel) abort(err *Error) {
	if t.a == nil {
		return // it ended before
	}
	t.settleKernel()
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
	if k := t.kernel; k != nil {
		t.kernel = nil
		k.forget(t.a.loop)
	}
	t.a, t.b = nil, nil // their values will be other connections
	if t.end != nil {
		t.end.OnTunnelEnd(t, err)
	}
}

// pump moves what can be moved now. nil is never returned: a direction goes on until its end.
func (d *direction) pump() (int64, *Error) {
	if d.splice.Active() {
		return d.pumpSplice()
	}
	var n int64
	for n < turnBytes {
		room := d.to.Room()
		if room == 0 {
			return n, ErrWouldBlock
		}
		if len(d.from.Buffered()) == 0 {
			if d.streak >= bulkStreak && d.from.Bare() {
				d.startSplice()
				m, err := d.pumpSplice()
				return n + m, err
			}
			if err := d.from.Fill(room); err != nil {
				return n, err
			}
			d.judge(d.from.splices() && d.to.splices() && len(d.from.Buffered()) >= bulkBytes)
		}
		n += d.copy(room)
	}
	d.from.Again()
	return n, ErrWouldBlock
}

// splices tells whether splice(2) may be used: not with sockets in a sockmap, whose bytes it would not find.
func (c *Conn) splices() bool { return c.Plain() && c.flags&flagJoined == 0 }

// copy gives the destination what was read, as far as there is room. What a broken one is given is lost, and not counted.
func (d *direction) copy(room int) int64 {
	b := d.from.Buffered()
	b = b[:min(len(b), room)]
	d.to.Write(b)
	d.from.Discard(len(b))
	if !d.to.Broken() {
		d.copied += int64(len(b))
	}
	return int64(len(b))
}

// judge counts pieces in a row that speak for the other way of moving bytes.
func (d *direction) judge(other bool) {
	if !other {
		d.streak = 0
		return
	}
	d.streak++
}

func (d *direction) startSplice() {
	d.streak = 0
	d.from.ReadAhead(false)
	d.splice.Start(d.from, d.to, -1)
}

// pumpSplice goes back to copying when the source trickles, or when no descriptor is left for a pipe.
func (d *direction) pumpSplice() (int64, *Error) {
	n, err := d.splice.Pump()
	switch {
	case err == ErrNoDescriptor:
		d.stopSplice()
		d.from.Again()
		return n, ErrWouldBlock
	case err == ErrWouldBlock && d.splice.pipe == nil:
		if d.judge(n < bulkBytes); d.streak >= bulkStreak {
			d.stopSplice()
		}
	}
	return n, err
}

// stopSplice is called while the pipe is empty only: what is in it would be lost.
func (d *direction) stopSplice() {
	d.streak = 0
	d.spliced += d.splice.Moved()
	d.splice.Stop()
	d.from.ReadAhead(true)
}
