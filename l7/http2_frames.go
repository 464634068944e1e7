package l7

import (
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// This file is what an HTTP/2 connection does with each type of frame.

// headerBlock leads a whole block: a request's, or its trailers. Each is decompressed, whatever becomes of it.
func (h *http2) headerBlock(id uint32, block []byte, end bool, bad *wire.H2Error) *wire.H2Error {
	if s := h.find(id); s != nil {
		return h.trailers(s, block, end, bad)
	}
	if id&1 == 0 {
		return wire.ErrH2StreamID
	}
	if id <= h.last {
		if !h.wasReset(id) {
			return wire.ErrH2StreamClosed
		}
		return h.passOver(block)
	}
	if h.drains == drainLast { // not seen before the last GOAWAY: the client tries elsewhere
		return h.passOver(block)
	}
	h.last = id
	if bad != nil {
		if err := h.passOver(block); err != nil {
			return err
		}
		return bad
	}
	if len(h.streams) >= h.settings.HTTP2Streams {
		return h.refuseStream(id, block)
	}
	return h.begin(id, block, end)
}

// passOver decompresses a block for the table's sake.
func (h *http2) passOver(block []byte) *wire.H2Error {
	a := &h.local.scratch
	a.Reset()
	return h.dec.Decode(block, &h.local.list, a, &h.settings.Limits)
}

// refuseStream answers a stream beyond the limit. A client that knows the limit misbehaves.
func (h *http2) refuseStream(id uint32, block []byte) *wire.H2Error {
	if err := h.passOver(block); err != nil {
		return err
	}
	h.local.srv.Stats.StreamRefused(h.local.loop.ID)
	h.reset(id, wire.H2RefusedStream)
	if h.agreed {
		return h.misbehaved()
	}
	return nil
}

// begin makes an exchange of a request.
func (h *http2) begin(id uint32, block []byte, end bool) *wire.H2Error {
	s := h.open(id)
	x := s.x
	x.headBytes = len(block)
	if err := h.dec.Decode(block, &h.local.list, &x.Arena, &h.settings.Limits); err != nil {
		return err // closed ends the exchange
	}
	malformed, err := h.local.list.Request(&x.Req, &x.Arena, end)
	s.ended = end
	s.left = -1
	if x.Req.Framing == wire.FramingLength {
		s.left = x.Req.ContentLength
	}
	x.asked, x.bodies.asked = x.Req.Target, !x.Req.Expect100
	switch {
	case malformed:
		h.local.srv.Stats.Refused(h.local.loop.ID, err.Kind)
		s.fail(err, wire.H2ProtocolError)
		return h.misbehaved()
	case err != nil:
		h.local.srv.Stats.Refused(h.local.loop.ID, err.Kind)
		x.err = err
		x.respond(statusOf(err), nil)
		return nil
	case h.misdirected(x):
		x.respond(statusMisdirected, nil)
		return nil
	}
	s.urgency, s.incremental = wire.H2Urgency, true
	if v := wire.GetName(x.Req.Fields, "priority"); v != nil {
		s.urgency, s.incremental = wire.H2PriorityOf(v)
	}
	if x.Req.Connect && x.Req.WebSocket() {
		x.handshakeKey()
	}
	if s.held = s.left == 0 && !end; s.held { // nothing goes on that DATA could contradict
		s.awaitBody()
		return nil
	}
	x.serve()
	return nil
}

// misdirected is http1's. A connection often serves several hosts of one certificate, so the last one is remembered.
func (h *http2) misdirected(x *Exchange) bool {
	if len(h.covered) > 0 && string(x.Req.Host) == string(h.covered) {
		return false
	}
	if h.accepted.misdirects(x) {
		return true
	}
	if string(x.Req.Host) != string(h.accepted.Server) {
		h.covered = append(h.covered[:0], x.Req.Host...)
	}
	return false
}

// open makes the connection's next stream and its exchange.
func (h *http2) open(id uint32) *stream {
	h.settings = h.local.srv.Router.Settings()
	h.served++
	s := h.local.stream()
	s.h, s.id, s.window, s.share, s.recv = h, id, wire.H2Window(h.initial), h2WindowShare, h2WindowShare
	x := h.local.exchange()
	s.x = x
	x.client, x.Settings = s, h.settings
	x.Remote, x.Local, x.TLS, x.Server, x.accepted = h.c.Remote(), h.accepted.Local, h.tls, h.accepted.Server, h.accepted
	x.ClientIP = x.Remote.Addr()
	x.started, x.major = h.c.Loop().Now(), 2
	h.streams = append(h.streams, s)
	h.local.srv.Stats.ExchangeBegan(h.local.loop.ID)
	if int(h.served) == h.settings.KeepAliveRequests {
		h.drain()
	}
	return s
}

// trailers ends a request's body by a second block.
func (h *http2) trailers(s *stream, block []byte, end bool, bad *wire.H2Error) *wire.H2Error {
	if s.ended {
		if err := h.passOver(block); err != nil {
			return err
		}
		return wire.ErrH2HalfClosed
	}
	a := &h.local.scratch
	if s.x != nil {
		a = &s.x.Arena
	} else {
		a.Reset()
	}
	if err := h.dec.Decode(block, &h.local.list, a, &h.settings.Limits); err != nil {
		return err
	}
	fields, ok := h.local.list.Trailers()
	switch {
	case bad != nil:
		return bad
	case !ok || !end:
		return wire.ErrH2Trailers
	}
	s.trailers = append(s.trailers[:0], fields...)
	return h.endStream(s)
}

// endStream is the complete end of a request.
func (h *http2) endStream(s *stream) *wire.H2Error {
	s.ended = true
	if s.left > 0 {
		return wire.ErrH2DataLength
	}
	s.arrived()
	return nil
}

// dataHead begins a DATA frame of so many bytes in all, of which n are no padding.
func (h *http2) dataHead(head wire.H2Head, n int) *wire.H2Error {
	if h.idle(head.Stream) {
		return wire.ErrH2StreamIdle
	}
	if h.recv -= int32(head.Length); h.recv < 0 {
		return wire.ErrH2FlowControl
	}
	h.data, h.dataLeft, h.dataEnd = nil, n, head.Has(wire.H2EndStream)
	h.credit(head.Length - n)
	s := h.find(head.Stream)
	switch {
	case s == nil:
		h.credit(n)
		if h.wasReset(head.Stream) {
			return nil
		}
		return h.streamError(head.Stream, wire.ErrH2DataClosed)
	case s.ended:
		h.credit(n)
		return h.streamError(head.Stream, wire.ErrH2HalfClosed)
	}
	if s.recv -= int32(head.Length); s.recv < 0 {
		h.credit(n)
		return h.streamError(head.Stream, wire.ErrH2FlowStream)
	}
	if n == 0 && !h.dataEnd {
		if err := h.noisy(); err != nil {
			return err
		}
	} else {
		h.noise.Moved()
	}
	s.credit(head.Length - n)
	if s.left >= 0 {
		if s.left -= int64(n); s.left < 0 {
			h.credit(n)
			return h.streamError(head.Stream, wire.ErrH2DataLength)
		}
	}
	h.data = s
	if n == 0 && h.dataEnd {
		return h.dataOver()
	}
	return nil
}

// dataPadded leads a whole DATA frame with padding.
func (h *http2) dataPadded(head wire.H2Head, p []byte) *wire.H2Error {
	b, err := head.Unpad(p)
	if err != nil {
		return err
	}
	pad := len(p) - 1 - len(b)
	h.c.Discard(wire.H2HeadBytes + 1)
	if err := h.dataHead(head, len(b)); err != nil {
		return err
	}
	for h.dataLeft > 0 && !h.ended {
		h.dataPiece(h.c.Buffered())
	}
	if !h.ended {
		h.c.Discard(pad)
	}
	return nil
}

// dataPiece leads what has come of a DATA frame: b begins with it. Whoever reads takes it from the input itself; the rest is
// kept, as the window allows it.
func (h *http2) dataPiece(b []byte) {
	n := min(len(b), h.dataLeft)
	s := h.data
	if s == nil {
		h.c.Discard(n)
		h.dataLeft -= n
		return
	}
	s.fresh = n
	s.arrived()
	if h.ended {
		return
	}
	if h.data != s { // the stream has ended meanwhile, and with it what was fresh
		return
	}
	if s.fresh > 0 {
		s.keep(h.c.Buffered()[:s.fresh])
		s.take(s.fresh)
	}
	if h.dataLeft == 0 && h.dataEnd {
		if err := h.dataOver(); err != nil {
			h.raise(s.id, err)
		}
	}
}

// raise leads an error of a stream or the connection where nobody else does.
func (h *http2) raise(id uint32, err *wire.H2Error) {
	if err.Stream {
		err = h.streamError(id, err)
	}
	if err != nil {
		h.fail(err)
	}
}

// dataOver is the end of a frame that ends its stream.
func (h *http2) dataOver() *wire.H2Error {
	s := h.data
	h.data = nil
	if err := h.endStream(s); err != nil {
		return h.streamError(s.id, err)
	}
	return nil
}

// credit opens the connection's window by n bytes that were taken or passed over.
func (h *http2) credit(n int) {
	if n <= 0 || h.ended {
		return
	}
	if h.taken += uint32(n); h.taken >= h2WindowConn/h2CreditPart {
		h.recv += int32(h.taken)
		h.control(wire.AppendH2WindowUpdate(h.local.head[:0], 0, h.taken))
		h.taken = 0
	}
}

// clientSettings takes the client's SETTINGS, or its acknowledgement of ours.
func (h *http2) clientSettings(head wire.H2Head, p []byte) *wire.H2Error {
	if head.Has(wire.H2Ack) {
		h.agreed = true
		return h.noisy()
	}
	if h.settled {
		if err := h.noisy(); err != nil {
			return err
		}
	}
	h.settled = true
	before := h.initial
	if err := wire.EachH2Setting(p, h.setting); err != nil {
		return err
	}
	if grown := int64(h.initial) - int64(before); grown != 0 {
		for _, s := range h.streams {
			if !s.window.Grow(grown) {
				return wire.ErrH2SettingWindow
			}
		}
	}
	h.control(wire.AppendH2SettingsAck(h.local.head[:0]))
	if h.initial > before {
		h.opened()
	}
	return nil
}

// setting takes one parameter. Our frames never pass the smallest SETTINGS_MAX_FRAME_SIZE, and our header blocks use no
// table, so of most there is nothing to remember.
func (h *http2) setting(id wire.H2Setting, v uint32) *wire.H2Error {
	if id == wire.H2InitialWindow {
		h.initial = int32(v)
	}
	return nil
}

// windowUpdate lets a stream, or all, write on.
func (h *http2) windowUpdate(head wire.H2Head, p []byte) *wire.H2Error {
	n, err := head.ParseWindow(p)
	if err != nil {
		return err
	}
	h.count()
	if !h.noise.Update(n) {
		return errH2Noise
	}
	if head.Stream == 0 {
		if !h.window.Grow(int64(n)) {
			return wire.ErrH2Window
		}
		h.serveQueue()
		return nil
	}
	s := h.find(head.Stream)
	switch {
	case s == nil && h.idle(head.Stream):
		return wire.ErrH2StreamIdle
	case s == nil:
		return nil
	case !s.window.Grow(int64(n)):
		return wire.ErrH2WindowStream
	}
	if s.starved && s.window > 0 {
		s.open()
	}
	return nil
}

// opened has the streams write on whose own window was closed.
func (h *http2) opened() {
	for i := 0; i < len(h.streams) && !h.ended; i++ {
		s := h.streams[i]
		if s.starved && s.window > 0 {
			s.open()
			if i < len(h.streams) && h.streams[i] != s {
				i--
			}
		}
	}
}

func (h *http2) ping(head wire.H2Head, p []byte) *wire.H2Error {
	if head.Has(wire.H2Ack) {
		if h.drains == drainAnnounced && string(p) == string(drainPing) {
			h.drained()
			return nil
		}
		return h.noisy()
	}
	if err := h.noisy(); err != nil {
		return err
	}
	h.control(wire.AppendH2Ping(h.local.head[:0], true, p))
	return nil
}

// clientReset ends a stream that its client does not want any more. One that was not answered yet counts (CVE-2023-44487).
func (h *http2) clientReset(head wire.H2Head) *wire.H2Error {
	s := h.find(head.Stream)
	if s == nil {
		if h.idle(head.Stream) {
			return wire.ErrH2StreamIdle
		}
		for i, r := range h.resent {
			if r == head.Stream { // both have ended it: nothing is under way any more
				h.resent[i] = 0
			}
		}
		return h.noisy()
	}
	s.gone = true
	switch {
	case s.tunnel != nil:
		s.tunnel.close(errClientGone)
		return nil
	case s.x == nil:
		h.drop(s)
		return nil
	}
	s.x.abort(errClientGone)
	return h.misbehaved()
}

func (h *http2) priorityUpdate(p []byte) *wire.H2Error {
	id, value, err := wire.ParseH2PriorityUpdate(p)
	if err != nil {
		return err
	}
	if s := h.find(id); s != nil {
		s.urgency, s.incremental = wire.H2PriorityOf(value)
	}
	return h.noisy()
}

// ---- misbehaviour (docs/hardening.md 3.3)

// count begins a new period when the present one is over.
func (h *http2) count() {
	if now := h.c.Loop().Now(); now-h.period > h2Period {
		h.period, h.resets = now, 0
		h.noise.Forget()
	}
}

// misbehaved counts a stream that was reset before it was answered, by the client or for its errors (CVE-2025-8671).
func (h *http2) misbehaved() *wire.H2Error {
	h.count()
	if h.resets++; h.resets > h2ResetsMax {
		return errH2Resets
	}
	return nil
}

// noisy counts a frame that moves nothing.
func (h *http2) noisy() *wire.H2Error {
	h.count()
	if !h.noise.More() {
		return errH2Noise
	}
	if h.queued > h2ControlMax {
		return errH2Control
	}
	return nil
}

// Errors of an HTTP/2 client.
var (
	errH2Resets  = &wire.H2Error{Code: wire.H2EnhanceYourCalm, Text: "too many streams reset before their answer"}
	errH2Noise   = &wire.H2Error{Code: wire.H2EnhanceYourCalm, Text: "too many frames that move nothing"}
	errH2Control = &wire.H2Error{Code: wire.H2EnhanceYourCalm, Text: "answers to control frames are not read"}

	errH2Stream     = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindMalformed, Text: "client broke the rules of its stream"}
	errH2Connection = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindCancelled, Text: "client broke the rules of its connection"}
)
