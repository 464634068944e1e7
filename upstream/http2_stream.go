package upstream

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// stream2 is one request and its answer on an HTTP/2 session. It may outlive its place there: what has come is read after
// the session has gone.
type stream2 struct {
	asked
	session *session2
	id      uint32 // 0: nothing was sent
	open    bool   // the session holds it
	reused  bool
	at      uint64 // conn.Sent before the request
	unsent  bool   // the backend has not looked at it, or the kernel never got it
	err     *fastpath.Error

	method   wire.Method
	listed   [][]byte
	upgrade  []byte // the protocol of an extended CONNECT; nil: it is none
	te       bool   // TE: trailers
	out      wire.Framing
	outLeft  int64
	outEnded bool
	window   wire.H2Window // what may still be written
	starved  bool          // its own window is closed
	queued   bool          // in the session's queue

	recv     int32 // what the backend may still send
	taken    int32 // of what it sent, taken without its being told
	heads    []wire.Response
	headRead int
	interims int
	head     bool  // the final head has come
	bodiless bool  // … and no body may follow
	left     int64 // of the body that content-length announced; -1: unknown
	inEnded  bool
	in       []byte // body bytes that nobody has asked for yet …
	read     int    // … and how many of them somebody has by now
	fresh    int    // body bytes behind those, first in the connection's input
	trailers []wire.Field

	again bool
	due   int64           // SetTimeout's end
	timer fastpath.Ticket // … once the session has gone, and with it the connection that keeps the time
	turn  fastpath.Ticket // Again's, likewise: there is an answer left to be read, slowly
	arena *wire.Arena
	own   wire.Arena // for a peer that gave none
}

var _ Stream = (*stream2)(nil)

// stream gives a stream without a past.
func (p *local) stream() *stream2 {
	n := len(p.free2)
	if n == 0 {
		return new(stream2)
	}
	st := p.free2[n-1]
	p.free2[n-1] = nil
	p.free2 = p.free2[:n-1]
	return st
}

// release takes back a stream that nobody calls any more.
func (p *local) release(st *stream2) {
	if len(p.free2) == sessionsFreeMax {
		return
	}
	in := st.in[:0]
	if cap(in) > h2BodyKept {
		in = nil
	}
	own := st.own
	own.Reset()
	*st = stream2{in: in, heads: st.heads[:0], trailers: st.trailers[:0], own: own}
	p.free2 = append(p.free2, st)
}

// memory is where heads are kept.
func (st *stream2) memory() *wire.Arena {
	if st.arena != nil {
		return st.arena
	}
	return &st.own
}

// refused ends a stream that got no session.
func (st *stream2) refused(err *fastpath.Error) {
	p := st.peer
	st.end()
	localOf(st.loop).release(st)
	p.OnStream(nil, err)
}

// tell has the peer look at what has come.
func (st *stream2) tell() {
	if st.peer != nil && st.id != 0 {
		st.peer.OnResponse()
	}
}

// fail notes why the answer is not complete.
func (st *stream2) fail(err *fastpath.Error) {
	if st.err == nil && !st.inEnded {
		st.err = err
	}
}

// defect resets the stream for a defect of the answer, and tells its peer.
func (st *stream2) defect(err *fastpath.Error, code wire.H2Code) {
	s := st.session
	s.control(wire.AppendH2Reset(localOf(st.loop).scratch[:0], st.id, code))
	st.fail(err)
	s.drop(st)
	st.tell()
}

// Reused implements Stream.
func (st *stream2) Reused() bool { return st.reused }

// Send implements Stream.
func (st *stream2) Send(r *wire.Request) *fastpath.Error {
	s := st.session
	if !st.open {
		return ErrUnsent
	}
	if st.upgrade = r.Upgrade; st.upgrade != nil {
		if !s.connects {
			return ErrUpgrade
		}
		return st.connect(r)
	}
	end := r.Framing == wire.FramingNone || r.Framing == wire.FramingLength && r.ContentLength == 0
	p := localOf(st.loop)
	b, err := s.enc.AppendRequest(p.scratch[:0], s.next, r, s.tls != nil, end)
	if err != nil {
		return err
	}
	st.sent(r, r.Framing, end)
	s.conn.Write(b)
	p.keep(b)
	return nil
}

// connect sends an extended CONNECT (RFC 8441): from its answer on, DATA is the tunnel's.
func (st *stream2) connect(r *wire.Request) *fastpath.Error {
	s, p := st.session, localOf(st.loop)
	b, err := s.enc.AppendRequest(p.scratch[:0], s.next, r, s.tls != nil, false)
	if err != nil {
		return err
	}
	st.sent(r, wire.FramingChunked, false)
	s.conn.Write(b)
	p.keep(b)
	return nil
}

// sent gives the stream its identifier: its request is about to be written.
func (st *stream2) sent(r *wire.Request, out wire.Framing, end bool) {
	s := st.session
	st.id, st.at = s.next, s.conn.Sent()
	s.next += 2
	s.requests++
	st.method, st.listed, st.te = r.Method, r.Listed, r.TETrailers
	st.out, st.outLeft, st.outEnded = out, r.ContentLength, end
	st.window, st.recv, st.left = wire.H2Window(s.initial), wire.H2WindowInitial, -1
	if len(s.streams) == 1 && s.pingBy == 0 {
		if s.pings = 0; !s.conn.Blocked() { // what waits here does not ask the backend for anything
			s.heard = st.loop.Now()
		}
		s.arm(s.pingDue())
	}
}

// Sent implements Stream. What stands in the session's output cannot be taken back.
func (st *stream2) Sent() bool { return st.id != 0 && !st.unsent }

// Room implements Stream: what the windows, the connection's buffer and those that wait for it leave to this stream.
func (st *stream2) Room() int {
	s := st.session
	if !st.open || st.outEnded {
		return 0
	}
	n := h2ShareBytes
	if s.serving == st {
		n = s.share
	} else if len(s.queue) > 0 {
		n = 0
	}
	if st.window <= 0 {
		st.starved = true
		return 0
	}
	if n = min(n, int(s.window), s.conn.Room()-h2WriteMargin); n <= 0 {
		s.enqueue(st)
		return 0
	}
	return min(n, int(st.window))
}

// WriteBody implements Stream.
func (st *stream2) WriteBody(b []byte) *fastpath.Error {
	if len(b) == 0 || !st.open { // a lost stream is told of by ReadHead
		return nil
	}
	if st.outEnded || st.out == wire.FramingNone || st.out == wire.FramingLength && int64(len(b)) > st.outLeft {
		return ErrFraming
	}
	if st.out == wire.FramingLength {
		st.outLeft -= int64(len(b))
		if st.outLeft == 0 && !st.te {
			st.write(b, true)
			st.outEnded = true
			return nil
		}
	}
	st.write(b, false)
	return nil
}

// write sends frames.
func (st *stream2) write(b []byte, end bool) {
	s := st.session
	scratch := localOf(st.loop).scratch[:0]
	for len(b) > 0 {
		n := min(len(b), wire.H2FrameMax)
		s.conn.Write(wire.AppendH2DataHead(scratch, st.id, n, end && n == len(b)))
		s.conn.Write(b[:n])
		b = b[n:]
		st.window -= wire.H2Window(n)
		s.window -= wire.H2Window(n)
		if s.serving == st {
			s.share -= n
		}
		s.noise.Sent(n)
	}
}

// EndBody implements Stream.
func (st *stream2) EndBody(trailers []wire.Field) *fastpath.Error {
	if st.outEnded || !st.open {
		return nil
	}
	if st.out == wire.FramingLength && st.outLeft > 0 {
		return ErrFraming
	}
	s, p := st.session, localOf(st.loop)
	if len(trailers) > 0 && st.te {
		b, sent, err := s.enc.AppendTrailers(p.scratch[:0], st.id, trailers, st.listed...)
		if err != nil {
			return err
		}
		if sent {
			s.conn.Write(b)
			p.keep(b)
			st.outEnded = true
			return nil
		}
	}
	s.conn.Write(wire.AppendH2DataHead(p.scratch[:0], st.id, 0, true))
	st.outEnded = true
	return nil
}

// RawOut implements Stream: frames cannot be spliced.
func (st *stream2) RawOut() *fastpath.Conn { return nil }

// SplicedOut implements Stream.
func (st *stream2) SplicedOut(int64) {}

// takeHead keeps a head that has come.
func (st *stream2) takeHead(list *wire.H2List, end bool) *fastpath.Error {
	n := len(st.heads)
	if n < cap(st.heads) {
		st.heads = st.heads[:n+1] // with the array of its fields
	} else {
		st.heads = append(st.heads, wire.Response{})
	}
	r := &st.heads[n]
	if err := list.Response(r, st.method, end); err != nil {
		st.heads = st.heads[:n]
		return err
	}
	if r.Status < 200 {
		if st.interims++; st.interims > st.interimMax {
			return ErrInterims
		}
		return nil
	}
	st.head = true
	if st.upgrade != nil && r.Status < 300 && !end {
		if r.Framing == wire.FramingLength {
			return wire.ErrH2ResponseLength // RFC 9110 9.3.6
		}
		r.Status, r.Upgrade, r.Framing = 101, st.upgrade, wire.FramingNone // DATA follows, and is the tunnel's
		return nil
	}
	switch r.Framing {
	case wire.FramingNone:
		st.bodiless = true
	case wire.FramingLength:
		st.left = r.ContentLength
	}
	return nil
}

// ReadHead implements Stream.
func (st *stream2) ReadHead(res *wire.Response, a *wire.Arena) *fastpath.Error {
	if st.headRead < len(st.heads) {
		r := &st.heads[st.headRead]
		st.headRead++
		*res, *r = *r, *res
		if r.Reset(); st.arena != a {
			for i := range res.Fields {
				f := &res.Fields[i]
				f.Name, f.Value = a.Copy(f.Name), a.Copy(f.Value)
			}
		}
		return nil
	}
	if st.err != nil {
		return st.err
	}
	return fastpath.ErrWouldBlock
}

// takeTrailers ends an answer's body by a second block.
func (st *stream2) takeTrailers(list *wire.H2List, end bool) *wire.H2Error {
	fields, ok := list.Trailers()
	switch {
	case !ok || !end:
		return wire.ErrH2Trailers
	case st.left > 0:
		return wire.ErrH2DataLength
	}
	st.trailers = append(st.trailers[:0], fields...)
	st.inEnded = true
	return nil
}

// takeData judges that n bytes of the body may come.
func (st *stream2) takeData(n int) *wire.H2Error {
	switch {
	case !st.head:
		return errDataFirst
	case st.inEnded:
		return wire.ErrH2HalfClosed
	case st.bodiless && n > 0:
		return wire.ErrH2DataLength
	case st.left >= 0:
		if st.left -= int64(n); st.left < 0 {
			return wire.ErrH2DataLength
		}
	}
	return nil
}

var errDataFirst = &wire.H2Error{Code: wire.H2ProtocolError, Stream: true, Text: "DATA before an answer's head"}

// keep copies body bytes that stay in the window until they are read.
func (st *stream2) keep(b []byte) {
	if st.read > 0 {
		st.in = st.in[:copy(st.in, st.in[st.read:])]
		st.read = 0
	}
	st.in = append(st.in, b...)
}

// take removes n fresh bytes from the input.
func (st *stream2) take(n int) {
	st.fresh -= n
	st.session.dataLeft -= n
	st.session.conn.Discard(n)
}

// credit opens the stream's window by n bytes that were taken, now or together with more.
func (st *stream2) credit(n int) {
	if st.taken += int32(n); st.taken >= h2Credit && st.open && !st.inEnded {
		st.recv += st.taken
		st.session.control(wire.AppendH2WindowUpdate(localOf(st.loop).scratch[:0], st.id, uint32(st.taken)))
		st.taken = 0
	}
}

// ReadBody implements Stream.
func (st *stream2) ReadBody(max int) ([]byte, *fastpath.Error) {
	var view []byte
	if n := len(st.in) - st.read; n > 0 {
		n = min(n, max)
		view = st.in[st.read : st.read+n]
		if st.read += n; st.read == len(st.in) {
			st.in, st.read = st.in[:0], 0
		}
	} else if n := min(st.fresh, max); n > 0 {
		view = st.session.conn.Buffered()[:n]
		st.take(n)
	}
	if n := len(view); n > 0 {
		st.credit(n)
		st.session.credit(n)
		return view, nil
	}
	switch {
	case st.inEnded:
		return nil, fastpath.ErrEOF
	case st.err != nil:
		return nil, st.err
	}
	return nil, fastpath.ErrWouldBlock
}

// Trailers implements Stream.
func (st *stream2) Trailers() []wire.Field { return st.trailers }

// BodyLeft implements Stream: frames cannot be spliced.
func (st *stream2) BodyLeft() int64 { return -1 }

// Raw implements Stream.
func (st *stream2) Raw() *fastpath.Conn { return nil }

// Spliced implements Stream.
func (st *stream2) Spliced(int64) {}

// Again implements Stream.
func (st *stream2) Again() {
	if !st.open {
		st.turn.Cancel()
		st.turn = st.loop.Park(st)
		st.turn.Resume(false)
		return
	}
	st.again, st.session.again = true, true
	st.session.conn.Again()
}

// SetTimeout implements Stream.
func (st *stream2) SetTimeout(d time.Duration) {
	st.due = 0
	st.timer.Cancel()
	switch {
	case d <= 0:
	case st.open:
		st.due = st.loop.Now() + int64(d)
		st.session.arm(st.due)
	case st.id != 0:
		t := st.loop.Park(st)
		st.timer = t
		time.AfterFunc(d, func() { t.Resume(true) })
	}
}

// OnResume implements fastpath.Parked: the time has come (true), or another turn.
func (st *stream2) OnResume(v any) {
	if v == true {
		st.peer.OnStreamTimeout()
		return
	}
	st.tell()
}

// Tunnels implements Stream.
func (st *stream2) Tunnels() bool { return true }

// Detach implements Stream. Who asks Tunnels does not call it.
func (st *stream2) Detach() *fastpath.Conn { panic("upstream: a stream of HTTP/2 is no connection") }

// Release implements Stream.
func (st *stream2) Release() {
	if st.peer == nil {
		return
	}
	s := st.session
	st.end()
	st.timer.Cancel()
	st.turn.Cancel()
	if st.open && st.id != 0 && !(st.inEnded && st.outEnded) {
		s.control(wire.AppendH2Reset(localOf(st.loop).scratch[:0], st.id, wire.H2Cancel))
	}
	s.credit(len(st.in) - st.read)
	if st.open {
		s.drop(st)
	} else if st.id == 0 {
		s.forget(st)
	}
	localOf(st.loop).release(st)
}
