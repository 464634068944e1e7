package l7

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// Limits of streams.
const (
	h2ShareBytes   = 64 << 10        // what a stream may write in its turn while others wait; a quarter if it shares its urgency
	h2LingerTime   = 5 * time.Second // for the rest of a request that was answered already
	h2WriteMargin  = 64              // what frames add to a write at most, Room's margin
	streamsIdleMax = 256             // streams that a loop keeps for reuse
	h2BodyKept     = 4 << 10         // the largest buffer that an unused stream keeps
)

// stream is one request on an HTTP/2 connection: the client's side of an exchange. It outlives its exchange while the
// client's window keeps back the end of an answer.
type stream struct {
	h      *http2
	x      *Exchange    // nil: over
	tunnel joinedStream // nil: it is no tunnel
	id     uint32

	window wire.H2Window // what may still be written
	share  int32         // the window that the client has for sending …
	recv   int32         // … and what is left of it
	taken  int32         // of what it sent, taken without its being told
	left   int64         // of the body that content-length announced; -1: unknown
	in     []byte        // body bytes that nobody has asked for yet …
	read   int           // … and how many of them somebody has by now
	fresh  int           // body bytes behind those, first in the connection's input

	trailers []wire.Field
	rest     []byte // the end of an answer that has to wait for a window

	turn        uint64 // when it began to wait
	urgency     uint8
	incremental bool // it shares with others of its urgency

	held    bool // the request waits for the end of a body that has to be empty
	ended   bool // the client has sent all
	whole   bool // … and its END_STREAM, or the last byte of content-length, was written: the answer is complete
	endDue  bool // END_STREAM follows rest
	gone    bool // the client has reset it
	waits   bool // in the connection's queue
	starved bool // its own window is closed
	again   bool // another turn was asked for

	bodyDue int64 // when the client's body is late; 0: it is not waited for
	sendDue int64 // when the client must have opened the window
	parkDue int64 // when a parked exchange expires
	mark    int64 // body bytes written when sendDue was set
	written int64
	code    wire.H2Code // why it is reset
}

func (p *local) stream() *stream {
	if n := len(p.freeStreams); n > 0 {
		s := p.freeStreams[n-1]
		p.freeStreams = p.freeStreams[:n-1]
		return s
	}
	return new(stream)
}

func (p *local) releaseStream(s *stream) {
	in := s.in[:0]
	if cap(in) > h2BodyKept {
		in = nil
	}
	*s = stream{in: in, trailers: s.trailers[:0]}
	if len(p.freeStreams) < streamsIdleMax {
		p.freeStreams = append(p.freeStreams, s)
	}
}

// fail ends the stream for a defect: it is reset, and its exchange cancelled.
func (s *stream) fail(err *fastpath.Error, code wire.H2Code) {
	s.code = code
	switch {
	case s.tunnel != nil:
		s.tunnel.close(err)
	case s.x != nil:
		s.x.abort(err)
	default:
		s.cut(code)
	}
}

// cut resets the stream.
func (s *stream) cut(code wire.H2Code) {
	if !s.gone {
		s.h.reset(s.id, code)
	}
	s.h.drop(s)
}

// arrived has whoever wants it look at what came of the request.
func (s *stream) arrived() {
	x := s.x
	if x != nil && s.bodyDue != 0 {
		b := &x.bodies
		b.waited += s.h.c.Loop().Now() - b.since
		b.since, s.bodyDue = 0, 0
	}
	switch {
	case s.tunnel != nil:
		s.tunnel.fromClient()
	case x == nil:
		s.pass()
		if s.ended && len(s.rest) == 0 {
			s.h.drop(s)
		} else if s.recv <= 0 {
			s.finish()
		}
	case s.held:
		if s.held = !s.ended; !s.held {
			x.serve()
		}
	default:
		x.arrived()
	}
}

// pass drops what has come of a body that nobody reads. The stream's window stays as it is: so much may come for nothing.
func (s *stream) pass() {
	n := len(s.in) - s.read
	s.in, s.read = s.in[:0], 0
	s.h.credit(n)
	if n = s.fresh; n > 0 {
		s.take(n)
		s.h.credit(n)
	}
}

// keep copies body bytes that stay in the window until they are read.
func (s *stream) keep(b []byte) {
	if s.read > 0 {
		s.in = s.in[:copy(s.in, s.in[s.read:])]
		s.read = 0
	}
	s.in = append(s.in, b...)
}

// take removes n fresh bytes from the input.
func (s *stream) take(n int) {
	s.fresh -= n
	s.h.dataLeft -= n
	s.h.c.Discard(n)
}

// credit opens the stream's window by n bytes that were taken, now or together with more. While nothing of the body waits
// here for its backend, the window doubles: opening it in small steps costs more than the bytes, and a client far away
// waits for each.
func (s *stream) credit(n int) {
	if s.taken += int32(n); s.taken < s.share/h2CreditPart || s.ended || s.h.ended {
		return
	}
	opened := s.taken
	if s.taken = 0; s.read == len(s.in) && s.h.spare >= s.share {
		s.h.spare -= s.share
		opened += s.share
		s.share *= 2
	}
	s.recv += opened
	s.h.control(wire.AppendH2WindowUpdate(s.h.local.head[:0], s.id, uint32(opened)))
}

// ---- Client: the request's body

// ReadBody implements Client.
func (s *stream) ReadBody(max int) ([]byte, *fastpath.Error) {
	b := &s.x.bodies
	var view []byte
	if n := len(s.in) - s.read; n > 0 {
		n = min(n, max)
		view = s.in[s.read : s.read+n]
		if s.read += n; s.read == len(s.in) {
			s.in, s.read = s.in[:0], 0
		}
	} else if n := min(s.fresh, max); n > 0 {
		view = s.h.c.Buffered()[:n]
		s.take(n)
	}
	if n := len(view); n > 0 {
		s.credit(n)
		s.h.credit(n)
		b.got += int64(n)
		if r := s.x.Route; r != nil && r.Policy.BodyMax > 0 && b.got > r.Policy.BodyMax {
			return nil, errBodyTooLarge
		}
		return view, nil
	}
	if s.ended {
		return nil, fastpath.ErrEOF
	}
	if b.due100() {
		if err := s.writeContinue(); err != nil {
			return nil, err
		}
	}
	if s.x.duplex() {
		return nil, fastpath.ErrWouldBlock // in a call a client may be silent
	}
	s.awaitBody()
	if b.tooSlow(s.h.settings) {
		return nil, errTooSlow
	}
	return nil, fastpath.ErrWouldBlock
}

func (s *stream) writeContinue() *fastpath.Error {
	return s.WriteInterim(&wire.Response{Status: 100, ContentLength: -1})
}

// awaitBody starts the wait for more of the body.
func (s *stream) awaitBody() {
	now := s.h.c.Loop().Now()
	if b := &s.x.bodies; b.since == 0 {
		b.since = now
	}
	s.bodyDue = now + int64(s.h.settings.BodyTimeout)
	s.h.arm(s.bodyDue)
}

// AwaitBody implements Client. No body is spliced, so nobody asks.
func (s *stream) AwaitBody() { s.awaitBody() }

// Trailers implements Client.
func (s *stream) Trailers() []wire.Field {
	if s.x.Req.TETrailers {
		return s.trailers
	}
	return nil
}

// BodyLeft implements Client: frames cannot be spliced.
func (s *stream) BodyLeft() int64 { return -1 }

// Raw implements Client.
func (s *stream) Raw() *fastpath.Conn { return nil }

// Spliced implements Client.
func (s *stream) Spliced(int64) {}

// Again implements Client.
func (s *stream) Again() {
	s.again, s.h.again = true, true
	s.h.c.Again()
}

// SetDeadline implements Client.
func (s *stream) SetDeadline(t int64) {
	if s.parkDue = t; t != 0 {
		s.h.arm(t)
	}
}

// ---- Client: the response

// WriteInterim implements Client.
func (s *stream) WriteInterim(res *wire.Response) *fastpath.Error {
	head, err := s.h.enc.AppendResponse(s.h.local.head[:0], s.id, res, false, wire.ResponseOptions{})
	if err != nil {
		return err
	}
	s.h.c.Write(head)
	return nil
}

// WriteHead implements Client. A 101 answers an extended CONNECT; its proof was for us.
func (s *stream) WriteHead(x *Exchange, end bool) *fastpath.Error {
	r := &x.Resp
	if r.Status == 101 {
		r.Fields = wire.DeleteName(r.Fields, "sec-websocket-accept")
		end = false
	}
	head, err := s.h.enc.AppendResponse(s.h.local.head[:0], s.id, r, end, wire.ResponseOptions{Trailers: x.Req.TETrailers})
	if err != nil {
		return err
	}
	s.h.c.Write(head)
	s.whole = end
	x.bodies.headOut, x.bodies.headSent = true, len(head)
	return nil
}

// Room implements Client: what the windows, the connection's buffer and those that wait for it leave to this stream.
func (s *stream) Room() int {
	h := s.h
	n := h2ShareBytes
	if h.serving == s {
		n = h.share
	} else if len(h.queue) > 0 {
		n = 0
	}
	if s.window <= 0 {
		s.starve()
		return 0
	}
	if n = min(n, int(h.window), h.c.Room()-h2WriteMargin); n <= 0 {
		h.enqueue(s)
		return 0
	}
	return min(n, int(s.window))
}

// WriteBody implements Client. Room was asked before, but for answers of the proxy's own: what the windows keep back of
// these waits.
func (s *stream) WriteBody(b []byte) *fastpath.Error {
	x := s.x
	x.bodies.sent += int64(len(b))
	n := min(len(b), max(0, min(int(s.window), int(s.h.window))))
	r := &x.Resp
	end := n == len(b) && r.Framing == wire.FramingLength && x.bodies.sent == r.ContentLength && !x.Req.TETrailers
	s.write(b[:n], end)
	if n < len(b) {
		s.rest = append(s.rest, b[n:]...)
		s.await()
	}
	return nil
}

// await waits for the window that is closed.
func (s *stream) await() {
	if s.window <= 0 {
		s.starve()
	} else {
		s.h.enqueue(s)
	}
}

// write sends frames that the windows allow.
func (s *stream) write(b []byte, end bool) {
	h := s.h
	for len(b) > 0 {
		n := min(len(b), wire.H2FrameMax)
		last := end && n == len(b)
		h.c.Write(wire.AppendH2DataHead(h.local.head[:0], s.id, n, last))
		h.c.Write(b[:n])
		b = b[n:]
		s.window -= wire.H2Window(n)
		h.window -= wire.H2Window(n)
		s.written += int64(n)
		s.whole = last
		if h.serving == s {
			h.share -= n
		}
		h.noise.Sent(n)
	}
}

// EndBody implements Client.
func (s *stream) EndBody(trailers []wire.Field) *fastpath.Error {
	s.x.bodies.outEnded = true
	switch {
	case s.whole:
		return nil
	case len(s.rest) > 0:
		s.endDue = true
		return nil
	case len(trailers) > 0 && s.x.Req.TETrailers:
		b, sent, err := s.h.enc.AppendTrailers(s.h.local.head[:0], s.id, trailers, s.x.Resp.Listed...)
		if err != nil {
			return err
		}
		if s.whole = sent; sent {
			s.h.c.Write(b)
			return nil
		}
	}
	s.endData()
	return nil
}

// endData writes the END_STREAM of a body whose last bytes have gone already.
func (s *stream) endData() {
	s.h.c.Write(wire.AppendH2DataHead(s.h.local.head[:0], s.id, 0, true))
	s.whole = true
}

// RawOut implements Client.
func (s *stream) RawOut() *fastpath.Conn { return nil }

// SplicedOut implements Client.
func (s *stream) SplicedOut(int64) {}

// Done implements Client: the answer is complete, or the rest of it waits for the client's window.
func (s *stream) Done() {
	x := s.x
	s.x, s.parkDue, s.bodyDue = nil, 0, 0
	s.h.local.release(x)
	s.pass()
	if len(s.rest) == 0 {
		s.finish()
	}
}

// finish ends a stream whose answer is complete. A client that still sends has a moment for the rest, if the window takes
// it; else it is told that nobody reads (RFC 9113 8.1).
func (s *stream) finish() {
	switch {
	case s.ended:
		s.h.drop(s)
	case s.recv <= 0 || s.left > int64(s.recv):
		s.cut(wire.H2NoError)
	case s.bodyDue == 0:
		s.bodyDue = s.h.c.Loop().Now() + int64(h2LingerTime)
		s.h.arm(s.bodyDue)
	}
}

// Abort implements Client.
func (s *stream) Abort(err *fastpath.Error) {
	x := s.x
	s.x = nil
	s.h.local.release(x)
	code := s.code
	if code == wire.H2NoError {
		if code = wire.H2InternalError; err.Kind == fastpath.KindCancelled {
			code = wire.H2Cancel
		}
	}
	s.cut(code)
}

var _ Client = (*stream)(nil)

// ---- order among the streams that wait to write

// starve notes that the stream's own window is closed.
func (s *stream) starve() {
	s.starved = true
	if s.sendDue == 0 {
		s.mark = s.written
		s.sendDue = s.h.c.Loop().Now() + int64(s.h.settings.SendTimeout)
		s.h.arm(s.sendDue)
	}
}

// open lets the stream write on: its window is no longer closed.
func (s *stream) open() {
	s.starved = false
	s.h.enqueue(s)
	s.h.serveQueue()
}

// enqueue has the stream wait for the connection.
func (h *http2) enqueue(s *stream) {
	if !s.waits {
		s.waits = true
		if s.incremental || s.turn == 0 {
			h.turn++
			s.turn = h.turn
		}
		h.queue = append(h.queue, s)
	}
	if h.serving == nil && (h.window <= 0 || h.c.Blocked()) {
		h.stall()
	}
}

func (h *http2) dequeue(s *stream) {
	if !s.waits {
		return
	}
	s.waits = false
	for i, o := range h.queue {
		if o == s {
			n := len(h.queue) - 1
			copy(h.queue[i:], h.queue[i+1:])
			h.queue[n] = nil
			h.queue = h.queue[:n]
			return
		}
	}
}

// serveQueue has streams write while the connection takes it: the most urgent first, and those of one urgency in turn
// (RFC 9218 10), a stream that asked for it wholly before the next.
func (h *http2) serveQueue() {
	if h.serving != nil {
		return // it is at work further up the stack
	}
	begun := h.window
	for len(h.queue) > 0 && !h.ended {
		if h.window <= 0 || h.c.Room() <= h2WriteMargin {
			h.stall()
			return
		}
		if begun-h.window >= relayBytes {
			h.again = true
			h.c.Again()
			return
		}
		s := h.queue[0]
		for _, o := range h.queue[1:] {
			if o.urgency < s.urgency || o.urgency == s.urgency && o.turn < s.turn {
				s = o
			}
		}
		h.dequeue(s)
		h.serving, h.share = s, h2ShareBytes
		if s.incremental {
			h.share = h2ShareBytes / 4
		}
		s.moveOn()
		h.serving = nil
	}
	h.stalled = false
}

// moveOn writes what there is to write.
func (s *stream) moveOn() {
	switch {
	case len(s.rest) > 0:
		s.writeRest()
	case s.tunnel != nil:
		s.tunnel.fromBackend()
	case s.x != nil && s.x.stage == stageBody:
		s.x.relay()
	}
}

// writeRest writes on what the window kept back of an answer.
func (s *stream) writeRest() {
	n := min(len(s.rest), s.Room())
	if n <= 0 {
		return
	}
	s.write(s.rest[:n], s.endDue && n == len(s.rest))
	if s.rest = s.rest[n:]; len(s.rest) > 0 {
		s.await()
		return
	}
	if s.x == nil {
		s.finish()
	}
}

// stall begins the wait for a client that does not take its output.
func (h *http2) stall() {
	if !h.stalled {
		h.stalled, h.mark = true, taken(h.c)
		h.stallAt = h.c.Loop().Now() + int64(h.settings.SendTimeout)
		h.arm(h.stallAt)
	}
}

// least is what a client must take within SendTimeout.
func least(s *Settings) int64 {
	return max(1, int64(s.RateMin)*int64(s.SendTimeout)/int64(time.Second))
}
