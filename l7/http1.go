package l7

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// Limits of the HTTP/1.1 engine.
const (
	pipelinedMax  = 16 // requests that one connection may begin in a turn
	chunkOverhead = 32 // what chunk framing adds to a write at most, Room's margin
)

// http1 is one HTTP/1.1 client connection: the engine between its bytes and its exchanges, one after the other. It is
// kept small; whatever only an exchange needs lives in Exchange.bodies.
type http1 struct {
	local    *local
	c        *fastpath.Conn
	x        *Exchange // nil between exchanges
	settings *Settings
	accepted *Accepted
	scanned  int32 // bytes of Buffered that hold no end of a head
	served   int32 // requests so far
	tls      bool
	headDue  bool // the deadline is the present head's, absolute
	looping  bool // next is on the stack
	waiting  bool // for more of the client's body
	stalled  bool // for the client to take output
	slow     bool // it was stalled once: no more is held for it than Settings.Buffer
	closing  bool
	mark     uint64 // stalled: what the client had taken when it was last looked
}

// ServeHTTP1 makes c an HTTP/1.1 connection of s. Input that was read already counts. On c's loop.
func (s *Server) ServeHTTP1(c *fastpath.Conn, a *Accepted) { s.newHTTP1(c, a).next() }

// RefuseHTTP1 answers 400 to a connection that speaks anything but TLS on a TLS port, and ends it.
func (s *Server) RefuseHTTP1(c *fastpath.Conn, a *Accepted) { s.newHTTP1(c, a).reject(errNotTLS) }

func (s *Server) newHTTP1(c *fastpath.Conn, a *Accepted) *http1 {
	l := c.Loop()
	h := &http1{local: s.local(l), c: c, settings: s.Router.Settings(), accepted: a, tls: !c.Plain()}
	s.Stats.ConnOpened(l.ID)
	c.SetHandler(h)
	c.SetDeadline(l.Now() + int64(h.settings.FirstByteTimeout))
	return h
}

// OnReadable implements fastpath.Handler.
func (h *http1) OnReadable(c *fastpath.Conn) {
	defer h.recovered()
	x := h.x
	switch {
	case x == nil:
		h.next()
	case c.Broken():
		h.gone()
	case x.stage == stageCollect, x.sending():
		h.arrived(&x.bodies) // whoever takes it: it is not the client that is waited for
		x.arrived()
	case !c.Plain() && len(c.Buffered()) == 0:
		h.watch()
	}
}

// watch looks for a TLS client that leaves while its response is awaited; a pipelined request stays unread. One that has only said
// that it will send no more (close_notify without a FIN) is answered.
func (h *http1) watch() {
	switch err := h.c.Fill(h.settings.Buffer); {
	case err == nil, err == fastpath.ErrWouldBlock:
	case err == fastpath.ErrEOF && !h.c.HungUp():
	default:
		h.gone()
	}
}

// gone cancels the exchange of a client that left.
func (h *http1) gone() {
	if h.x.stage < stageDone && h.x.stage != stageTunnel {
		h.x.failed(errClientGone)
	}
}

// OnWritable implements fastpath.Handler.
func (h *http1) OnWritable(c *fastpath.Conn) {
	defer h.recovered()
	h.stalled = false
	switch {
	case h.x == nil:
		h.next()
	case h.x.stage == stageBody:
		h.x.relay()
	}
}

// OnDeadline implements fastpath.Handler. A deadline that was overtaken by progress is none.
func (h *http1) OnDeadline(c *fastpath.Conn) {
	defer h.recovered()
	x := h.x
	switch {
	case h.stalled:
		h.look()
	case x == nil && h.headDue:
		h.reject(errHeaderTimeout)
	case x == nil:
		h.end()
	case x.stage == stageParked:
		x.expired()
	case h.waiting && x.stage < stageBody: // a response that comes early has timeouts of its own
		x.failed(h.late())
	}
}

// late is what to call a body that is waited for in vain.
func (h *http1) late() *fastpath.Error {
	h.x.bodies.keep = false
	if h.x.bodies.tooSlow(h.settings) {
		return errTooSlow
	}
	return errBodyTimeout
}

// stall begins the wait for a client that does not take its output.
func (h *http1) stall() {
	if !h.stalled {
		h.stalled, h.slow, h.mark = true, true, taken(h.c)
		h.c.SetDeadline(h.c.Loop().Now() + int64(h.settings.SendTimeout))
	}
}

// look cuts a client that has taken less than the minimum since the last look.
func (h *http1) look() {
	if n := taken(h.c); int64(n-h.mark) >= least(h.settings) {
		h.mark = n
		h.c.SetDeadline(h.c.Loop().Now() + int64(h.settings.SendTimeout))
		return
	}
	if h.x != nil {
		h.x.failed(errSendTimeout)
		return
	}
	h.closed()
	h.c.Abort()
}

// taken is how much the client of c has acknowledged. That a write succeeded says little: the kernel holds megabytes, and asks
// for more only when a third of them has gone.
func taken(c *fastpath.Conn) uint64 {
	held, err := unix.IoctlGetInt(c.FD(), unix.SIOCOUTQ)
	if err != nil {
		held = 0 // then every write counts
	}
	return c.Sent() - uint64(held)
}

// next begins requests until one is under way, or input is missing. It is the engine's idle state.
func (h *http1) next() {
	if h.looping {
		return
	}
	defer h.recovered()
	h.looping = true
	for n := 0; h.x == nil && !h.closing && !h.c.Closed(); n++ {
		if n == pipelinedMax {
			h.c.Again()
			break
		}
		if h.c.Pending() && h.c.Room() == 0 {
			h.stall()
			break
		}
		if !h.head() {
			break
		}
	}
	h.looping = false
}

// head looks for a whole request head and begins its exchange; false: more input is needed, or the connection ended.
func (h *http1) head() bool {
	c := h.c
	for {
		if b := c.Buffered(); len(b) > int(h.scanned) {
			if h.served == 0 && b[0] == wire.H2Preface[0] && h.foretells(b) {
				return false
			}
			skip, n, err := wire.RequestHeadEnd(b, int(h.scanned), &h.settings.Limits)
			if err == wire.ErrNoVersion && h.served == 0 && h.settings.HTTP2 && !h.tls && strange(b) {
				h.local.srv.Stats.Refused(h.local.loop.ID, err.Kind)
				h.end()
				return false
			}
			if err != nil {
				h.reject(err)
				return false
			}
			if n > 0 {
				h.begin(b[skip : skip+n])
				return true
			}
			h.scanned = int32(len(b))
		}
		switch err := c.Fill(h.settings.Buffer); err {
		case nil:
		case fastpath.ErrWouldBlock:
			h.idle()
			return false
		default:
			h.end() // between requests, or within a head: nobody waits for an answer
			return false
		}
	}
}

// foretells makes an HTTP/2 connection of one that begins with its preface (RFC 9113 3.3, prior knowledge). Over TLS it is
// ALPN that tells.
func (h *http1) foretells(b []byte) bool {
	n := min(len(b), len(wire.H2Preface))
	if h.tls || !h.settings.HTTP2 || n < h2PrefaceKnown || string(b[:n]) != wire.H2Preface[:n] {
		return false
	}
	h.closing = true
	h.local.srv.serveHTTP2(h.c, h.accepted)
	return true
}

// h2PrefaceKnown is how much of the preface no request of HTTP/1.1 begins with.
const h2PrefaceKnown = len("PRI * HTTP/2")

// idle sets the deadline of a connection that waits for a head.
func (h *http1) idle() {
	h.c.ReadAhead(true)
	now := h.c.Loop().Now()
	switch {
	case len(h.c.Buffered()) > 0:
		if !h.headDue {
			h.headDue = true
			h.c.SetDeadline(now + int64(h.settings.HeaderTimeout))
		}
	case h.served == 0: // the time for its first byte runs, also in a drain
	case h.local.srv.draining.Load():
		h.c.SetDeadline(now + int64(drainIdle)) // its answer may have begun before, without a word of an end
	default:
		h.c.SetDeadline(now + int64(h.settings.KeepAliveTimeout))
	}
}

// drain ends the connection if it has been idle for a while. One that was just answered may have its next request under
// way, which would be lost: it has a moment, and the answer says then that the connection ends.
func (h *http1) drain() {
	switch {
	case h.x != nil || len(h.c.Buffered()) > 0 || h.served == 0 || h.closing:
	case h.stalled || h.idleFor(drainIdle):
		h.end()
	default:
		h.c.SetDeadline(h.c.Loop().Now() + int64(drainIdle))
	}
}

// idleFor tells whether the connection has waited for its next request for at least d.
func (h *http1) idleFor(d time.Duration) bool {
	if h.x != nil || h.served == 0 || h.closing || h.stalled || h.headDue || h.c.Readable() || len(h.c.Buffered()) > 0 {
		return false
	}
	since := h.c.Deadline() - int64(h.settings.KeepAliveTimeout)
	return h.c.Loop().Now()-since >= int64(d)
}

// end closes the connection in order. What was answered leaves first; a peer that still sends is drained for a while,
// else a reset would cost it the answer.
func (h *http1) end() {
	h.closed()
	c := h.c
	c.CloseWrite()
	if c.Pending() || len(c.Buffered()) > 0 || c.Readable() && !c.EOF() {
		c.CloseLinger()
		return
	}
	c.Close()
}

func (h *http1) closed() {
	if !h.closing {
		h.closing = true
		h.local.srv.Stats.ConnClosed(h.local.loop.ID)
	}
}

// begin makes an exchange of a complete head.
func (h *http1) begin(head []byte) {
	x := h.open()
	copied := x.Arena.Copy(head)
	x.headBytes = len(head)
	h.c.Discard(len(h.c.Buffered()) - len(after(h.c.Buffered(), head)))
	if err := x.Req.Parse(copied, &x.Arena, &h.settings.Limits); err != nil {
		h.refuse(x, err)
		return
	}
	x.bodies.keep = x.Req.KeepAlive
	switch x.Req.Framing {
	case wire.FramingNone:
		x.bodies.ended = true
	case wire.FramingChunked:
		x.bodies.inChunks = true
	case wire.FramingLength:
		x.bodies.left = x.Req.ContentLength
		x.bodies.ended = x.bodies.left == 0
	}
	x.bodies.asked = !x.Req.Expect100
	x.asked = x.Req.Target
	if h.accepted.misdirects(x) {
		x.respond(statusMisdirected, nil)
		return
	}
	x.serve()
}

// strange tells a first line that could begin neither HTTP/1 nor HTTP/2: three words of which neither the second is a target
// nor the third a version. Whoever sent it would not understand an answer of either (RFC 9113 3.4).
func strange(head []byte) bool {
	line, _, _ := bytes.Cut(head, lineEnd)
	_, rest, _ := bytes.Cut(line, blank)
	target, version, ok := bytes.Cut(rest, blank)
	return ok && !bytes.ContainsAny(target, "/*:?%") && !bytes.ContainsAny(version, "/ ")
}

var blank = []byte(" ")

const statusMisdirected = 421

// misdirects tells a request on a TLS connection whose host is neither the one that the client asked the connection for
// nor one that the certificate shown covers (docs/hardening.md 3.2, row 421).
func (a *Accepted) misdirects(x *Exchange) bool {
	if len(a.Server) == 0 || a.Certificate == nil || len(x.Req.Host) == 0 || string(x.Req.Host) == string(a.Server) {
		return false
	}
	return a.Certificate.VerifyHostname(string(x.Req.Host)) != nil
}

// after is what follows view, a part of b, in b.
func after(b, view []byte) []byte { return b[cap(b)-cap(view)+len(view):] }

// open makes the connection's next exchange.
func (h *http1) open() *Exchange {
	h.settings = h.local.srv.Router.Settings()
	h.scanned, h.headDue, h.waiting, h.stalled = 0, false, false, false
	h.served++
	h.c.ReadAhead(false)
	x := h.local.exchange()
	x.client, x.Settings = h, h.settings
	x.Remote, x.Local, x.TLS, x.Server, x.accepted = h.c.Remote(), h.accepted.Local, h.tls, h.accepted.Server, h.accepted
	x.ClientIP = x.Remote.Addr()
	x.started = h.c.Loop().Now()
	h.x = x
	h.local.srv.Stats.ExchangeBegan(h.local.loop.ID)
	return x
}

// reject answers bytes that are no request.
func (h *http1) reject(err *fastpath.Error) { h.refuse(h.open(), err) }

// refuse answers a request that cannot be served as it stands. Most errors end the connection: what follows on it is in
// doubt (docs/hardening.md 3.1 rule 2).
func (h *http1) refuse(x *Exchange, err *fastpath.Error) {
	h.local.srv.Stats.Refused(h.local.loop.ID, err.Kind)
	x.err = err
	x.bodies.keep = err.Kind == fastpath.KindExpectation && x.Req.Framing == wire.FramingNone && x.Req.KeepAlive
	x.bodies.ended = true
	x.respond(statusOf(err), nil)
}

// keepAlive decides whether the connection outlives x, when the response's head is written. It does not when the body of
// the request is still under way: nothing makes the client send the rest.
func (h *http1) keepAlive(x *Exchange) bool {
	own := x.fwd.stream == nil
	if own {
		h.swallow(&x.bodies)
	}
	return x.bodies.ended && x.bodies.keep && int(h.served) < h.settings.KeepAliveRequests && !h.local.srv.draining.Load() && !(own && closes(x.Resp.Status))
}

// swallow takes what has come of a body that nobody reads any more.
func (h *http1) swallow(b *bodies) {
	for !b.ended && b.keep && len(h.c.Buffered()) > 0 {
		if _, err := h.decode(h.c.Buffered()); err != nil {
			b.keep = false
		}
	}
}

// closes: statuses of the proxy's own after which it does not go on with a connection.
func closes(status int) bool {
	return status == 400 || status == 408 || status == 413
}

// ---- Client: the request's body

// ReadBody implements Client.
func (h *http1) ReadBody(max int) ([]byte, *fastpath.Error) {
	x, b := h.x, &h.x.bodies
	for !b.ended {
		if in := h.c.Buffered(); len(in) > 0 {
			data, err := h.decode(in[:min(len(in), max)])
			if err != nil {
				b.keep = false
				return nil, err
			}
			if len(data) > 0 {
				return data, nil
			}
			continue
		}
		if b.due100() {
			h.c.Write(continueLine)
		}
		if err := h.c.Fill(max); err != nil {
			return nil, h.missing(x, err)
		}
		h.arrived(b)
	}
	return nil, fastpath.ErrEOF
}

var continueLine = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// decode takes body bytes out of in, the front of the input.
func (h *http1) decode(in []byte) ([]byte, *fastpath.Error) {
	x, b := h.x, &h.x.bodies
	data := in
	b.asked = true
	if b.inChunks {
		var n int
		var err *fastpath.Error
		data, n, b.ended, err = b.chunks.Decode(in, &x.Arena)
		if err != nil {
			return nil, err
		}
		h.c.Discard(n)
	} else {
		data = in[:min(int64(len(in)), b.left)]
		h.c.Discard(len(data))
		b.left -= int64(len(data))
		b.ended = b.left == 0
	}
	b.got += int64(len(data))
	if x.Route != nil && x.Route.Policy.BodyMax > 0 && b.got > x.Route.Policy.BodyMax {
		return nil, errBodyTooLarge
	}
	return data, nil
}

// missing notes that the client is waited for, or gives its leaving the right name.
func (h *http1) missing(x *Exchange, err *fastpath.Error) *fastpath.Error {
	b := &x.bodies
	if err != fastpath.ErrWouldBlock {
		b.keep = false
		if err == fastpath.ErrEOF || err == fastpath.ErrTruncated {
			return errBodyCut
		}
		return errClientGone
	}
	h.AwaitBody()
	if b.tooSlow(h.settings) {
		b.keep = false
		return errTooSlow
	}
	return err
}

// tooSlow tells whether the client's body comes under the minimum rate.
func (b *bodies) tooSlow(s *Settings) bool {
	return b.waited > int64(s.RateGrace) && b.got < int64(s.RateMin)*b.waited/int64(time.Second)
}

// AwaitBody implements Client.
func (h *http1) AwaitBody() {
	now := h.c.Loop().Now()
	if b := &h.x.bodies; b.since == 0 {
		b.since = now
	}
	h.waiting = true
	until := now + int64(h.settings.BodyTimeout)
	if h.x.bodies.tooSlow(h.settings) {
		until = now // a spliced body is judged by OnDeadline
	}
	if !h.stalled {
		h.c.SetDeadline(until)
	}
}

// arrived counts the time that the client let us wait.
func (h *http1) arrived(b *bodies) {
	h.waiting = false
	if b.since != 0 {
		b.waited += h.c.Loop().Now() - b.since
		b.since = 0
	}
}

// Trailers implements Client.
func (h *http1) Trailers() []wire.Field {
	if h.x.Req.Framing == wire.FramingChunked && h.x.Req.TETrailers {
		return h.x.bodies.chunks.Trailers()
	}
	return nil
}

// BodyLeft implements Client.
func (h *http1) BodyLeft() int64 {
	if h.x.Req.Framing != wire.FramingLength {
		return -1
	}
	return h.x.bodies.left
}

// Raw implements Client.
func (h *http1) Raw() *fastpath.Conn {
	if h.x.Req.Framing == wire.FramingLength && h.c.Bare() {
		return h.c
	}
	return nil
}

// Spliced implements Client.
func (h *http1) Spliced(n int64) {
	b := &h.x.bodies
	b.left -= n
	b.got += n
	b.ended = b.left == 0
	h.arrived(b)
}

// Again implements Client.
func (h *http1) Again() { h.c.Again() }

// SetDeadline implements Client.
func (h *http1) SetDeadline(t int64) { h.c.SetDeadline(t) }

// ---- Client: the response

// WriteInterim implements Client.
func (h *http1) WriteInterim(res *wire.Response) *fastpath.Error {
	head, err := wire.AppendResponse(h.local.head[:0], res, wire.ResponseOptions{KeepAlive: true, ClientMinor: 1})
	if err != nil {
		return err
	}
	h.c.Write(head)
	return nil
}

// WriteHead implements Client.
func (h *http1) WriteHead(x *Exchange, end bool) *fastpath.Error {
	b, r := &x.bodies, &x.Resp
	b.chunked = false
	if r.Framing == wire.FramingChunked || r.Framing == wire.FramingClose {
		if x.Req.Minor == 0 { // HTTP/1.0 knows no chunks: the close is the end
			r.Framing, b.keep = wire.FramingClose, false
		} else {
			r.Framing = wire.FramingChunked
		}
		b.chunked = r.Framing == wire.FramingChunked && !end
	}
	b.keep = h.keepAlive(x)
	head, err := wire.AppendResponse(h.local.head[:0], r, wire.ResponseOptions{KeepAlive: b.keep, ClientMinor: x.Req.Minor,
		Head: x.Req.Method == wire.MethodHead, Trailers: b.chunked && x.Req.TETrailers})
	if err != nil {
		return err
	}
	h.c.Write(head)
	b.headOut, b.headSent = true, len(head)
	return nil
}

// Room implements Client.
func (h *http1) Room() int {
	if n := h.c.Room() - chunkOverhead; n > 0 && !h.c.Blocked() { // a splice blocks with nothing staged
		if h.slow {
			n = min(n, h.settings.Buffer)
		}
		return n
	}
	h.stall()
	return 0
}

// WriteBody implements Client.
func (h *http1) WriteBody(b []byte) *fastpath.Error {
	h.x.bodies.sent += int64(len(b))
	if !h.x.bodies.chunked {
		h.c.Write(b)
		return nil
	}
	h.c.Write(wire.AppendChunkHeader(h.local.head[:0], len(b)))
	h.c.Write(b)
	h.c.Write(lineEnd)
	return nil
}

var lineEnd = []byte("\r\n")

// EndBody implements Client.
func (h *http1) EndBody(trailers []wire.Field) *fastpath.Error {
	b := &h.x.bodies
	b.outEnded = true
	if !b.chunked {
		return nil
	}
	if !h.x.Req.TETrailers {
		trailers = nil
	}
	last, err := wire.AppendLastChunk(h.local.head[:0], trailers, h.x.Resp.Listed...)
	if err != nil {
		return err
	}
	h.c.Write(last)
	return nil
}

// RawOut implements Client.
func (h *http1) RawOut() *fastpath.Conn {
	if h.c.Plain() && !h.x.bodies.chunked {
		return h.c
	}
	return nil
}

// SplicedOut implements Client.
func (h *http1) SplicedOut(n int64) { h.x.bodies.sent += n }

// Tunnel implements Client.
func (h *http1) Tunnel(x *Exchange, backend *fastpath.Conn) {
	h.x = nil
	h.closed()
	t := fastpath.Join(h.c, backend, x.Settings.TunnelIdle, x.Settings.HalfCloseTimeout, x)
	t.SetSockmap(x.fwd.tunnel.Sockmap())
}

// Done implements Client: the connection goes on with its next request, or ends.
func (h *http1) Done() {
	x := h.x
	h.x = nil
	keep, clean := x.bodies.keep && x.bodies.ended, x.bodies.ended && x.err == nil
	h.local.release(x)
	switch {
	case keep && h.looping: // next goes on
	case keep && (len(h.c.Buffered()) > 0 || h.c.Waiting()):
		h.next()
	case keep:
		h.idle()
	case clean:
		h.end()
	default: // the rest of what the client sent is in doubt
		h.closed()
		h.c.CloseLinger()
	}
}

// Abort implements Client.
func (h *http1) Abort(err *fastpath.Error) {
	x := h.x
	h.x = nil
	h.closed()
	h.local.release(x)
	h.c.Abort()
}

var _ Client = (*http1)(nil)
