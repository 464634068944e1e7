package fastpath

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// tlsState is a connection's TLS layer. Its handshake is crypto/tls's, over a memory connection that the loop feeds, as a
// coroutine of the loop's (handshake.go). Afterwards the record layer of a client's TLS 1.3 is ours (recordlayer.go), and of
// every other the loop drives the tls.Conn.
type tlsState struct {
	c           ref // a handshake may outlive the connection: the value may be another connection's by then
	loop        *Loop
	remote      netip.AddrPort
	conn        *tls.Conn    // nil once there is a layer
	layer       *recordLayer // nil: conn's
	protocol    string       // what ALPN chose
	hs          *handshake   // nil once the loop drives conn
	handshaking bool         // hs != nil

	view    []byte // records that were not taken: a view of loop.records while loop.opener == t, else of own
	own     []byte
	opened  int     // layer: bytes at the begin of view that are plain text, …
	closed  int     // … and how many after them are the rest of their record
	pending []byte  // records that the socket has not taken; nothing is sealed while they wait
	drained bool    // there is nothing left to give without more records
	given   records // … as far as what it was given tells
	rawEOF  bool    // conn saw the end of the TCP stream, not only close_notify
	sealing bool    // records that conn writes go to loop.sealed
	sealed  int     // bytes of these that were sealed ahead, and …
	from    int     // … where they begin

	round uint64 // of the loop, in which
	fills int    // plain text was asked for so often

	notified bool  // close_notify was sealed
	err      error // why the handshake failed
}

// release lets go of everything when the connection closes.
func (t *tlsState) release() {
	c := t.c.c
	if t.hs != nil {
		t.hs.abandon()
	}
	if t.layer != nil {
		t.layer.rest(c.loop)
	}
	if c.loop.opener == t {
		c.loop.opener = nil
	}
	t.forget()
	if t.pending != nil {
		c.loop.buffers.put(t.pending)
	}
	t.view, t.pending = nil, nil
}

// TLS is the connection's state, for OnHandshake: later it may be nil, as it is on a plain connection. It allocates.
func (c *Conn) TLS() *tls.ConnectionState {
	if c.tls == nil || c.tls.handshaking || c.tls.conn == nil {
		return nil
	}
	s := c.tls.conn.ConnectionState()
	return &s
}

// Protocol is what ALPN chose; "": nothing, or there is no TLS.
func (c *Conn) Protocol() string {
	if c.tls == nil {
		return ""
	}
	return c.tls.protocol
}

// Plain tells that no TLS layer stands between Fill and the socket.
func (c *Conn) Plain() bool { return c.tls == nil }

// open tells that plain text may be sealed and sent at once.
func (t *tlsState) open() bool { return !t.handshaking && len(t.pending) == 0 }

// fill is Conn.Fill through the record layer.
func (t *tlsState) fill(max int) *Error {
	c := t.c.c
	if t.handshaking {
		return ErrWouldBlock
	}
	if t.sendPending(); len(t.pending) > pendingBytesMax { // what reading itself adds: answers to KeyUpdates
		c.flags |= flagHungry
		return ErrWouldBlock
	}
	if t.spent() {
		c.Again()
		return ErrWouldBlock
	}
	for {
		if !t.drained {
			if err := t.take(max); err != ErrWouldBlock {
				return err
			}
		}
		if c.flags&flagReadable == 0 {
			if err := c.ended(); err != ErrEOF {
				return err
			}
			return ErrTruncated
		}
		err := t.receive()
		if err == ErrEOF && t.layer == nil {
			t.drained = false // let the record layer judge what a bare end means
			continue
		}
		if err == ErrEOF {
			return ErrTruncated
		}
		if err != nil {
			return err
		}
	}
}

// receive takes records from the socket, behind the part of one that has come already.
func (t *tlsState) receive() *Error {
	l := t.loop
	l.lendRecords(t)
	had := copy(l.records, t.view)
	t.forget()
	n, err := t.c.c.recv(l.records[had:])
	if t.view = l.records[:had+n]; n > 0 {
		t.drained = false
	}
	return err
}

// forget gives the buffer back that view is of.
func (t *tlsState) forget() {
	if t.own != nil {
		t.loop.buffers.put(t.own)
		t.own = nil
	}
}

// spent tells that t has had its share of the loop's present round. Owners count plain text, but a peer may hide sixteen
// KeyUpdates behind every byte of it, and each costs microseconds.
func (t *tlsState) spent() bool {
	if round := t.loop.Stats.Turns.Load(); t.round != round {
		t.round, t.fills = round, 0
	}
	t.fills++
	return t.fills > fillsPerRound
}

// take takes plain text from the record layer.
func (t *tlsState) take(max int) *Error {
	c := t.c.c
	dst, err := c.room(max)
	if err != nil {
		return err
	}
	if t.layer != nil {
		return t.takeOpened(dst)
	}
	n, e := t.conn.Read(dst)
	if n > 0 {
		c.grew(n)
		if n < len(dst) && len(t.view) == 0 && t.given.whole <= 1 && t.given.atBorder() {
			t.drained, t.given.whole = true, 0 // it was the one record that conn had: no need to ask
		}
		return nil
	}
	switch {
	case e == nil || e == error(ErrWouldBlock):
		t.drained, t.given.whole = true, 0
		return ErrWouldBlock
	case errors.Is(e, io.EOF) && !t.rawEOF:
		c.flags |= flagEOF
		c.flags &^= flagReadable
		return ErrEOF
	case t.rawEOF:
		return ErrTruncated
	}
	return t.fail() // an alert is on its way
}

// fail: nothing more is said on this connection but what is pending.
func (t *tlsState) fail() *Error {
	t.c.c.err = ErrTLS
	if t.layer != nil {
		t.layer.failed = true
	}
	t.drop()
	t.sendPending()
	return ErrTLS
}

// drop forgets what has come and nobody may read.
func (t *tlsState) drop() {
	t.view, t.opened, t.closed = nil, 0, 0
	t.forget()
}

// takeOpened takes plain text of the layer's present record, or of the next one that has any.
func (t *tlsState) takeOpened(dst []byte) *Error {
	if t.opened == 0 {
		if err := t.openNext(); err != nil {
			return err
		}
	}
	n := copy(dst, t.view[:t.opened])
	t.c.c.grew(n)
	t.view, t.opened = t.view[n:], t.opened-n
	if t.opened == 0 {
		t.view, t.closed = t.view[t.closed:], 0
		if whole, a := recordAt(t.view); whole == 0 && a == alertNone {
			t.drained = true
		}
		if len(t.view) == 0 {
			t.forget()
		}
	}
	return nil
}

// openNext opens records in place until one has plain text.
func (t *tlsState) openNext() *Error {
	c, l, s := t.c.c, t.loop, t.layer
	if s.failed {
		return ErrTLS
	}
	for !s.ended {
		whole, a := recordAt(t.view)
		if a != alertNone {
			return t.refuse(a)
		}
		if whole == 0 {
			if t.drained = true; c.flags&flagEOF != 0 {
				return ErrTruncated
			}
			return ErrWouldBlock
		}
		kind, text, a := s.open(l, t.view[:whole])
		if a != alertNone {
			return t.refuse(a)
		}
		if kind == recordData && len(text) > 0 {
			s.idle = 0
			t.view, t.opened, t.closed = t.view[recordHeadBytes:], len(text), whole-recordHeadBytes-len(text)
			return nil
		}
		asked, over, a := s.control(kind, text)
		switch {
		case a != alertNone:
			return t.refuse(a)
		case over:
			return t.fail()
		case asked && !t.notified:
			t.queue(s.sealKeyUpdate(l, nil))
		}
		if t.view = t.view[whole:]; len(t.view) == 0 {
			t.forget()
		}
	}
	t.drop()
	c.flags |= flagEOF
	c.flags &^= flagReadable
	return ErrEOF
}

// refuse ends the connection with an alert.
func (t *tlsState) refuse(a alert) *Error {
	if !t.notified {
		t.queue(t.layer.sealAlert(t.loop, nil, alertFatal, a))
	}
	return t.fail()
}

// queue has records sent that answer what was read.
func (t *tlsState) queue(b []byte) {
	c, l := t.c.c, t.loop
	t.pending = append(l.buffers.grow(t.pending, len(b)), b...)
	if c.flags&flagDirty == 0 {
		c.flags |= flagDirty
		l.dirty = append(l.dirty, ref{c, c.gen})
	}
}

// records follows the borders of TLS records through a stream (RFC 8446 5.1).
type records struct {
	whole int // records that have ended since the record layer was last known to have nothing
	left  int // bytes of the present record that are still to come
	size  int // its length, as far as its header has come
	head  int // bytes of its header
}

const recordHeadBytes = 5

// follow takes note of bytes that the record layer was given.
func (r *records) follow(b []byte) {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(r.left, len(b))
			b = b[n:]
			if r.left -= n; r.left == 0 {
				r.whole++
			}
			continue
		}
		if r.head++; r.head > recordHeadBytes-2 { // the last two are the length
			r.size = r.size<<8 | int(b[0])
		}
		b = b[1:]
		if r.head == recordHeadBytes {
			if r.left = r.size; r.left == 0 {
				r.whole++
			}
			r.head, r.size = 0, 0
		}
	}
}

func (r *records) atBorder() bool { return r.left == 0 && r.head == 0 }

// toBorder is how many bytes the present record, or its head, is short of.
func (r *records) toBorder() int {
	if r.left > 0 {
		return r.left
	}
	return recordHeadBytes - r.head
}

// flush seals what is staged, then b, and sends the records by one call.
func (t *tlsState) flush(b []byte) {
	c := t.c.c
	l := c.loop
	if t.handshaking {
		return
	}
	if t.sendPending(); len(t.pending) > 0 || c.err != nil {
		if len(b) > 0 {
			c.out = append(l.buffers.grow(c.out, len(b)), b...)
		}
		return
	}
	from := len(l.sealed)
	if t.sealed > 0 {
		t.send(l.sealed[t.from : t.from+t.sealed])
		t.sealed = 0
	}
	t.sealing = true
	if len(c.out) > 0 {
		t.seal(c.out)
		c.releaseOut()
	}
	if len(b) > 0 {
		t.seal(b)
	}
	if c.flags&flagWriteEnd != 0 && !t.notified {
		t.notified = true
		t.sealEnd()
	}
	t.sealing = false
	if len(l.sealed) > from {
		t.send(l.sealed[from:])
		l.sealed = l.sealed[:from]
	}
	c.finishWriting()
}

// sealAhead seals what is staged, if it is little, for the flush that follows in the same pass.
func (t *tlsState) sealAhead() {
	c, l := t.c.c, t.loop
	if t.handshaking || len(t.pending) > 0 || c.err != nil || c.flags&(flagBlocked|flagWriteEnd) != 0 || len(c.out) == 0 || len(c.out) > sealAheadMax ||
		len(l.sealed) > flushBatch*sealAheadMax {
		return
	}
	t.from = len(l.sealed)
	t.sealing = true
	t.seal(c.out)
	t.sealing = false
	t.sealed = len(l.sealed) - t.from
	c.releaseOut()
}

// outgoing is Conn.outgoing: what was sealed ahead, if that is all.
func (t *tlsState) outgoing() []byte {
	if t.sealed == 0 || t.handshaking || len(t.pending) > 0 || len(t.c.c.out) > 0 || t.c.c.flags&flagWriteEnd != 0 {
		return nil
	}
	return t.loop.sealed[t.from : t.from+t.sealed]
}

// outgone is told what came of sending outgoing.
func (t *tlsState) outgone(n int, e syscall.Errno) {
	b := t.loop.sealed[t.from : t.from+t.sealed]
	t.sealed = 0
	t.gave(b, n, e)
}

// send sends records; what the socket does not take waits.
func (t *tlsState) send(b []byte) {
	if len(t.pending) > 0 { // it has to wait behind that
		t.gave(b, 0, 0)
		return
	}
	n, e := send(t.c.c.fd, b, 0)
	t.gave(b, n, e)
}

// gave takes note of what the socket took of records; the rest waits.
func (t *tlsState) gave(b []byte, n int, e syscall.Errno) {
	c := t.c.c
	if e != 0 && e != syscall.EAGAIN {
		c.fail()
		return
	}
	c.sent += uint64(n)
	if n < len(b) {
		t.pending = append(t.loop.buffers.grow(t.pending, len(b)-n), b[n:]...)
		c.block()
	}
}

// keep saves records behind those that wait already.
func (t *tlsState) keep(b []byte) {
	l := t.loop
	if l.opener == t {
		l.lendRecords(nil)
	}
	own := append(append(l.buffers.get(len(t.view)+len(b)), t.view...), b...)
	if t.own != nil {
		l.buffers.put(t.own)
	}
	t.view, t.own, t.drained = own, own, false
}

// seal appends b to loop.sealed as records.
func (t *tlsState) seal(b []byte) {
	if t.layer != nil {
		t.loop.sealed = t.layer.seal(t.loop, t.loop.sealed, b)
		return
	}
	if _, err := t.conn.Write(b); err != nil {
		t.c.c.fail()
	}
}

// sealEnd appends close_notify.
func (t *tlsState) sealEnd() {
	if t.layer != nil {
		t.loop.sealed = t.layer.sealAlert(t.loop, t.loop.sealed, alertWarning, alertCloseNotify)
		return
	}
	_ = t.conn.CloseWrite() // an error: there is no session to end
}

func (t *tlsState) sendPending() {
	c := t.c.c
	if len(t.pending) == 0 || c.flags&flagBlocked != 0 {
		return
	}
	n, e := send(c.fd, t.pending, 0)
	t.pending = c.took(t.pending, n, e)
}

// lendRecords gives the shared record buffer to t; who held it before keeps what was not taken.
func (l *Loop) lendRecords(t *tlsState) {
	if o := l.opener; o != nil && o != t {
		if len(o.view) > 0 {
			o.own = append(l.buffers.get(len(o.view)), o.view...)
			o.view = o.own
		} else {
			o.view = nil
		}
	}
	if l.poison && l.opener != t {
		overwrite(l.records)
	}
	l.opener = t
}

// memoryConn is the net.Conn that crypto/tls sees: records in from the loop, records out to it.
type memoryConn tlsState

func (m *memoryConn) Read(b []byte) (int, error) {
	t := (*tlsState)(m)
	if t.hs != nil {
		return t.hs.read(b)
	}
	if len(t.view) == 0 {
		if t.c.c.flags&flagEOF != 0 {
			t.rawEOF = true
			return 0, io.EOF
		}
		return 0, ErrWouldBlock
	}
	n := copy(b, t.view)
	t.given.follow(t.view[:n])
	t.view = t.view[n:]
	if len(t.view) == 0 {
		t.forget()
	}
	return n, nil
}

func (m *memoryConn) Write(b []byte) (int, error) {
	t := (*tlsState)(m)
	if t.hs != nil {
		return t.hs.write(b)
	}
	c := t.c.c
	l := c.loop
	if t.sealing {
		l.sealed = append(l.sealed, b...)
		return len(b), nil
	}
	if c.flags&flagShut != 0 {
		return len(b), nil // answers to a KeyUpdate after our end: nobody reads them
	}
	t.queue(b)
	return len(b), nil
}

func (m *memoryConn) Close() error                     { return nil }
func (m *memoryConn) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(m.remote) }
func (m *memoryConn) RemoteAddr() net.Addr             { return net.TCPAddrFromAddrPort(m.remote) }
func (m *memoryConn) SetDeadline(time.Time) error      { return nil }
func (m *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (m *memoryConn) SetWriteDeadline(time.Time) error { return nil }
