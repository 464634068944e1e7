package l7

import (
	"sync/atomic"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// Limits of forwarding.
const (
	triesMax   = 8        // attempts in all that proxy-next-upstream-tries: 0 ("unlimited") can mean
	relayBytes = 64 << 10 // body bytes moved in one turn before others have theirs
	paceBytes  = 4 << 10  // what limit-rate lets go at once, when it goes on
	spliceMin  = 64 << 10 // what must still be to come of a body before splice(2) is worth its pipe
)

// forward is an exchange's way to the backend: which endpoint, how far, and what may still be repeated.
type forward struct {
	cluster  *upstream.Cluster
	canary   *Canary // whose cluster it is; nil: the route's own
	belongs  belonging
	stream   upstream.Stream // nil while none is had
	tried    [triesMax]*upstream.Endpoint
	tries    int
	base     int                       // … that do not count: before an error page was asked for, and removed ones
	removed  int                       // … that were given up because their endpoint was removed
	failures [triesMax]*fastpath.Error // why tried attempts failed
	statuses [triesMax]int16           // … or the status for which another endpoint was asked
	times    [triesMax]int64           // … and how long they lasted
	first    int64                     // when the first attempt began
	tunnel   *upstream.Endpoint        // counts the exchange as a tunnel; nil: as a stream, or not at all
	retries  *atomic.Uint64            // the cluster's, among which the exchange is; nil: it is not

	body      []byte // the request's body as far as it is kept for a repeat
	bodySent  int    // bytes of body that the present stream has
	lost      bool   // body bytes were sent that are not kept: nothing can be repeated
	bodyEnd   bool   // the client's body is complete
	reqEnded  bool   // the present stream has the whole request
	answered  bool   // a head was read on the present stream
	connected bool   // the present attempt has, or had, a session
	interim   bool   // an interim head has gone to the client: nothing can be repeated
	expecting bool   // the backend's time runs
	copying   bool   // there was no pipe for a splice: bodies are copied
	http10    bool   // the request goes in HTTP/1.0: its body has a length, and nothing is upgraded
	pacing    bool   // the response waits until limit-rate lets it go on

	splice fastpath.Splicer // the response's body
	upload fastpath.Splicer // the request's body
	opened int64            // when the present attempt began
	asked  int64            // when the request was on its way
	headAt int64            // when the response's head came
	status int              // … and the status that it said
	got    int64            // body bytes from the backend
}

func (f *forward) reset() {
	body := f.body[:0]
	if cap(body) > 4<<10 {
		body = nil // a large buffer is not kept by an idle exchange
	}
	*f = forward{body: body}
}

// release lets go of the backend: a clean session returns to its pool, any other is closed.
func (f *forward) release() {
	if f.splice.Active() {
		f.splice.Stop()
	}
	if f.upload.Active() {
		f.upload.Stop()
	}
	if s := f.stream; s != nil {
		f.stream = nil
		s.Release()
	}
}

// forward sends the exchange to an endpoint of its route's cluster.
func (x *Exchange) forward() {
	f := &x.fwd
	if x.Route.Cluster == nil {
		x.failed(errNoEndpoint)
		return
	}
	x.choose()
	http2 := f.cluster.HTTP2()
	f.http10 = x.Route.Policy.HTTP10 && !http2
	switch {
	case x.Req.Upgrade == nil:
	case f.http10 && x.Req.Connect:
		x.failed(errUpgradeIn10)
		return
	case f.http10, http2 && !x.Req.Connect && !x.Req.WebSocket():
		x.Req.Upgrade = nil // a wish that a server may ignore (RFC 9110 7.8): curl's for h2c
	}
	x.Describe()
	if x.SendHost != nil {
		x.authority, x.Req.Authority = x.Req.Authority, x.SendHost
	}
	x.asked = x.Req.Target
	if len(x.RewriteTarget) > 0 {
		x.Req.Target = x.RewriteTarget
	}
	if x.Req.Framing == wire.FramingNone {
		f.bodyEnd = true
	} else if err := x.admitBody(); err != nil {
		x.failed(err)
		return
	} else if x.Route.Policy.BufferRequest && x.Req.Upgrade == nil && !x.grpc || x.lacksLength() {
		x.stage = stageCollect
		x.collect()
		return
	}
	x.connect()
}

// admitBody refuses a body that says itself to be too large.
func (x *Exchange) admitBody() *fastpath.Error {
	if limit := x.Route.Policy.BodyMax; limit > 0 && x.Req.ContentLength > limit {
		return errBodyTooLarge
	}
	return nil
}

// collect buffers the request's body until it is complete or the buffer is full; then a backend is asked.
func (x *Exchange) collect() {
	f := &x.fwd
	most := x.Settings.RequestBuffer
	if x.lacksLength() {
		most++ // one byte more tells a body that fits from one that does not
	}
	for len(f.body) < most {
		b, err := x.client.ReadBody(most - len(f.body))
		if err == fastpath.ErrWouldBlock {
			return
		}
		if err == fastpath.ErrEOF {
			f.bodyEnd = true
			break
		}
		if err != nil {
			x.failed(err)
			return
		}
		f.body = append(f.body, b...)
	}
	if x.lacksLength() {
		if !f.bodyEnd {
			x.failed(errLengthUnknown)
			return
		}
		x.Req.Framing, x.Req.ContentLength = wire.FramingLength, int64(len(f.body))
	}
	x.connect()
}

// lacksLength tells whether the request's body has to be complete before its head can be written: HTTP/1.0 knows no chunks.
func (x *Exchange) lacksLength() bool { return x.fwd.http10 && x.Req.Framing == wire.FramingChunked }

// connect picks an endpoint and asks for a session to it. What cannot be had at once comes back by OnStream.
func (x *Exchange) connect() {
	f := &x.fwd
	x.stage = stageConnect
	if x.overdue() {
		x.failed(errOverdue)
		return
	}
	if f.tries == 0 && x.Route.Mirror != nil && !x.intercepted {
		x.mirror()
	}
	e := x.pick()
	if e == nil && x.Route.Fallback != nil && f.cluster != x.Route.Fallback {
		f.cluster, f.canary, f.belongs = x.Route.Fallback, nil, belonging{}
		x.tellFallback()
		e = x.pick()
	}
	if e == nil {
		x.failed(errNoEndpoint)
		return
	}
	f.tried[f.tries%triesMax] = e
	f.tries++
	f.connected = false
	if f.opened = x.loop.Now(); f.first == 0 {
		f.first = f.opened
	}
	timeout := x.Route.Policy.ConnectTimeout
	if timeout == 0 {
		timeout = x.Settings.ConnectTimeout
	}
	timeout = x.within(timeout)
	s, ready, err := e.Open(x.loop, x, upstream.OpenOptions{
		Fresh:          f.tries > f.base+1, // an attempt after a failure does not try its luck with another idle session
		HTTP10:         f.http10,
		NonIdempotent:  !idempotent(x.Req.Method),
		ConnectTimeout: timeout,
		Head:           &x.Settings.ResponseLimits,
		InterimMax:     x.Settings.InterimMax,
		Arena:          &x.Arena,
	})
	switch {
	case ready || err != nil:
		x.OnStream(s, err)
	default:
		f.stream = s // being dialled: releasing it cancels
	}
}

// OnStream implements upstream.Peer: the session is there, or cannot be had.
func (x *Exchange) OnStream(s upstream.Stream, err *fastpath.Error) {
	defer x.recovered()
	f := &x.fwd
	if err != nil {
		f.stream = nil
		x.retry(err)
		return
	}
	f.stream, f.bodySent, f.reqEnded, f.answered, f.connected = s, 0, false, false, true
	f.asked = x.loop.Now()
	x.stage = stageResponse
	if err := s.Send(x.outgoing()); err != nil {
		x.failed(err)
		return
	}
	x.expect(x.sendTimeout())
	x.sendBody()
}

// sendBody moves the request's body on: what is kept first, then from the client as far as both sides let it. It goes on
// while a backend that answers early is relayed.
func (x *Exchange) sendBody() {
	f := &x.fwd
	for moved := 0; !f.reqEnded && f.stream != nil; {
		if f.bodyEnd && f.bodySent == len(f.body) {
			x.endRequest()
			return
		}
		if f.upload.Active() {
			x.sendSplice()
			return
		}
		room := f.stream.Room()
		if room == 0 {
			return
		}
		if moved >= relayBytes {
			x.client.Again()
			return
		}
		if f.bodySent < len(f.body) {
			n := min(room, len(f.body)-f.bodySent)
			if err := f.stream.WriteBody(f.body[f.bodySent : f.bodySent+n]); err != nil {
				x.retry(err)
				return
			}
			f.bodySent += n
			moved += n
			continue
		}
		b, err := x.readBody(room)
		switch {
		case err == fastpath.ErrWouldBlock:
			x.expect(x.clientWait()) // it is the client that is waited for
			return
		case err == fastpath.ErrEOF:
			f.bodyEnd = true
			continue
		case err != nil:
			x.failed(err)
			return
		}
		moved += len(b)
		if err := x.passOn(b); err != nil {
			x.retry(err)
			return
		}
	}
}

// readBody gives what is next of the request's body, as the backend gets it.
func (x *Exchange) readBody(most int) ([]byte, *fastpath.Error) {
	if x.web != nil && x.web.textIn {
		return x.readText(most)
	}
	return x.client.ReadBody(most)
}

// passOn sends body bytes that came from the client, and keeps them for a repeat while the buffer has room.
func (x *Exchange) passOn(b []byte) *fastpath.Error {
	f := &x.fwd
	err := f.stream.WriteBody(b)
	if !f.lost && x.Route.Policy.BufferRequest && len(f.body)+len(b) <= x.Settings.RequestBuffer {
		f.body = append(f.body, b...)
		f.bodySent = len(f.body)
	} else {
		f.lost = true
	}
	x.expect(x.sendTimeout())
	if left := x.client.BodyLeft(); err == nil && left >= spliceMin && f.lost && !f.copying {
		if from, to := x.client.Raw(), f.stream.RawOut(); from != nil && to != nil {
			f.upload.Start(from, to, left)
		}
	}
	return err
}

// arrived goes on with what the client's body was waited for.
func (x *Exchange) arrived() {
	if x.stage == stageCollect {
		x.collect()
	} else if x.sending() {
		x.sendBody()
	}
}

// sending tells whether the backend has not got the whole request.
func (x *Exchange) sending() bool {
	return x.fwd.stream != nil && !x.fwd.reqEnded && (x.stage == stageResponse || x.stage == stageBody)
}

// expect has the backend do something within d; 0: nothing is expected of it. Once it answers, relay alone says that.
func (x *Exchange) expect(d time.Duration) {
	if x.stage == stageResponse {
		x.fwd.expecting = d != 0
		x.fwd.stream.SetTimeout(x.within(d))
	}
}

// within shortens a wait (0: without end) to what the route's request-timeout leaves.
func (x *Exchange) within(d time.Duration) time.Duration {
	total := x.total()
	if total == 0 {
		return d
	}
	left := max(total-time.Duration(x.loop.Now()-x.started), time.Millisecond)
	if d == 0 {
		return left
	}
	return min(d, left)
}

// overdue tells whether the route's request-timeout has passed.
func (x *Exchange) overdue() bool {
	total := x.total()
	return total > 0 && x.loop.Now()-x.started >= int64(total)
}

// sendSplice lets the kernel move the rest of a large request body.
func (x *Exchange) sendSplice() {
	f := &x.fwd
	to := f.stream.RawOut()
	n, err := f.upload.Pump()
	if n > 0 {
		f.stream.SplicedOut(n)
		x.client.Spliced(n)
		x.expect(x.sendTimeout())
	}
	switch {
	case err == nil:
		f.upload.Stop()
		f.bodyEnd = true
		x.endRequest()
	case err == fastpath.ErrWouldBlock:
		switch {
		case !to.Blocked():
			x.expect(0)
			x.client.AwaitBody()
		case !f.expecting: // the client has sent more, and the backend takes none of it
			x.expect(x.sendTimeout())
		}
	case err == fastpath.ErrNoDescriptor:
		f.upload.Stop()
		f.copying = true
		x.sendBody()
	case to.Broken():
		f.upload.Stop()
		f.copying = true
		x.respondOrFail()
	case err == fastpath.ErrReset:
		x.failed(errClientGone)
	default:
		x.failed(errBodyCut)
	}
}

// endRequest tells the backend that the request is complete; its answer is due within proxy-read-timeout.
func (x *Exchange) endRequest() {
	f := &x.fwd
	f.reqEnded = true
	if x.Req.Framing != wire.FramingNone {
		if err := f.stream.EndBody(x.client.Trailers()); err != nil {
			x.retry(err)
			return
		}
	}
	x.expect(x.readTimeout())
}

// OnRoom implements upstream.Peer.
func (x *Exchange) OnRoom() {
	if x.joined != nil {
		defer x.joined.recovered()
		x.joined.fromClient()
		return
	}
	defer x.recovered()
	x.expect(x.sendTimeout())
	x.sendBody()
}

// OnResponse implements upstream.Peer.
func (x *Exchange) OnResponse() {
	if x.joined != nil {
		defer x.joined.recovered()
		x.joined.fromBackend()
		return
	}
	defer x.recovered()
	x.respondOrFail()
}

// respondOrFail looks for what the backend says, or why it says nothing.
func (x *Exchange) respondOrFail() {
	if x.stage == stageResponse {
		x.readHead()
		return
	}
	x.relay()
}

// OnStreamTimeout implements upstream.Peer: the backend was silent for too long.
func (x *Exchange) OnStreamTimeout() {
	defer x.recovered()
	switch {
	case x.overdue():
		x.failed(errOverdue)
	case x.fwd.pacing:
		x.fwd.pacing = false
		x.relay()
	case x.stage >= stageBody:
		x.failed(errReadTimeout)
	default:
		x.retry(errReadTimeout)
	}
}

// readHead takes the backend's answer: interim heads go on at once, the final one begins the relay.
func (x *Exchange) readHead() {
	f := &x.fwd
	for {
		err := f.stream.ReadHead(&x.Resp, &x.Arena)
		if err == fastpath.ErrWouldBlock {
			return
		}
		if err != nil {
			x.retry(err)
			return
		}
		f.answered = true
		if x.Resp.Status == 101 {
			x.upgrade()
			return
		}
		if x.Resp.Status >= 200 {
			break
		}
		if x.Resp.Status != 100 && x.Req.Minor >= 1 { // 100 is answered by us, when the body is wanted
			if err := x.client.WriteInterim(&x.Resp); err != nil {
				x.failed(err)
				return
			}
			f.interim = true
		}
	}
	if next := nextOf(x.Resp.Status); next != 0 && x.Route.Policy.NextUpstream&next != 0 && x.repeatable() && x.budgeted() {
		x.again(nil, x.Resp.Status)
		return
	}
	if e := x.Route.Errors; e != nil && !e.OwnOnly && x.intercept(x.Resp.Status) {
		return
	}
	x.beginResponse()
}

// beginResponse writes the final head and goes on with the body.
func (x *Exchange) beginResponse() {
	f := &x.fwd
	f.headAt, f.status = x.loop.Now(), x.Resp.Status
	f.stream.Endpoint().Observe(x.loop, f.headAt-f.asked)
	if f.status >= 500 { // whether it is good, its end tells
		f.stream.Endpoint().Answered(x.loop, true, f.asked)
	}
	x.leaveRetries()
	if x.Req.Connect && f.status/100 == 2 { // to the client it would be a tunnel (RFC 8441, 5), and the page its first bytes
		f.release()
		x.err = errNoTunnel // nobody is to blame: a server may answer an Upgrade as if there were none (RFC 9110, 7.8)
		x.respond(502, nil)
		return
	}
	x.stick()
	if !x.Settings.PassServer && wire.Index(x.Resp.Fields, wire.FieldServer) >= 0 {
		x.Resp.Fields = wire.Delete(x.Resp.Fields, wire.FieldServer)
	}
	if x.web != nil {
		x.beginWeb()
	}
	if !x.filterResponse() {
		x.failed(errPanic)
		return
	}
	r := &x.Resp
	end := x.Req.Method == wire.MethodHead || r.Framing == wire.FramingNone || r.Framing == wire.FramingLength && r.ContentLength == 0
	if x.major == 2 && x.Req.TETrailers && r.Framing == wire.FramingLength && !r.Unsaid {
		end = false // trailers may follow
	}
	x.date()
	if err := x.client.WriteHead(x, end); err != nil {
		x.unwritable(err)
		return
	}
	x.stage = stageBody
	x.relay()
}

// relay moves the response's body on, as far as both sides let it.
func (x *Exchange) relay() {
	f := &x.fwd
	if x.encoding != nil {
		x.relayEncoded()
		return
	}
	if x.web != nil && x.web.begun {
		x.relayWeb()
		return
	}
	for moved := 0; f.stream != nil; {
		if f.splice.Active() {
			x.relaySplice()
			return
		}
		room := x.client.Room()
		if room == 0 {
			f.stream.SetTimeout(x.within(0)) // it is the client that is waited for
			return
		}
		if x.Route.Policy.Rate > 0 {
			if room = x.paced(room); room == 0 {
				return
			}
		}
		if moved >= relayBytes {
			x.relayAgain()
			return
		}
		b, err := f.stream.ReadBody(room)
		if len(b) > 0 {
			moved += len(b)
			f.got += int64(len(b))
			if err := x.client.WriteBody(b); err != nil {
				x.failed(err)
				return
			}
			x.beginSplice()
			continue
		}
		switch err {
		case fastpath.ErrWouldBlock:
			f.stream.SetTimeout(x.within(x.readTimeout()))
		case fastpath.ErrEOF:
			x.endResponse()
		default:
			x.failed(err)
		}
		return
	}
}

// relayAgain gives the others their turn before the relay goes on. Meanwhile nobody is waited for.
func (x *Exchange) relayAgain() {
	x.fwd.stream.SetTimeout(x.within(0))
	x.fwd.stream.Again()
}

// paced is how much of room the route's limit-rate leaves, as nginx counts it: what a second brings is there at its
// beginning. 0: the relay goes on when more is there.
func (x *Exchange) paced(room int) int {
	f, p := &x.fwd, &x.Route.Policy
	due := p.RateAfter + p.Rate + int64(float64(p.Rate)*float64(x.loop.Now()-f.headAt)/float64(time.Second))
	if left := due - f.got; left > 0 {
		f.pacing = false
		return int(min(int64(room), left))
	}
	f.pacing = true
	wait := time.Duration(float64(f.got-due+min(p.Rate, paceBytes)) / float64(p.Rate) * float64(time.Second))
	f.stream.SetTimeout(x.within(max(wait, time.Millisecond)))
	return 0
}

// beginSplice lets the kernel move the rest of a large body, if both sides carry it unframed and in plain text.
func (x *Exchange) beginSplice() {
	f := &x.fwd
	left := f.stream.BodyLeft()
	if left < spliceMin || f.copying || x.Route.Policy.Rate > 0 {
		return
	}
	from, to := f.stream.Raw(), x.client.RawOut()
	if from != nil && to != nil {
		f.splice.Start(from, to, left)
	}
}

func (x *Exchange) relaySplice() {
	f := &x.fwd
	n, err := f.splice.Pump()
	if n > 0 {
		f.got += n
		x.client.SplicedOut(n)
	}
	switch {
	case err == nil:
		f.stream.Spliced(f.splice.Moved())
		f.splice.Stop()
		x.endResponse()
	case err == fastpath.ErrWouldBlock:
		if x.client.RawOut().Blocked() {
			f.stream.SetTimeout(x.within(0))
			x.client.Room() // the engine notes that the client is waited for
		} else {
			f.stream.SetTimeout(x.within(x.readTimeout()))
		}
	case err == fastpath.ErrNoDescriptor:
		f.stream.Spliced(f.splice.Moved())
		f.splice.Stop()
		f.copying = true
		x.relay()
	case x.client.RawOut().Broken():
		x.failed(errClientGone)
	default:
		x.failed(errBackendCut)
	}
}

// endResponse ends an exchange in order: the session returns to its pool.
func (x *Exchange) endResponse() {
	f := &x.fwd
	trailers := f.stream.Trailers()
	if x.web != nil && x.web.begun {
		trailers = nil // the client has them
	}
	if err := x.client.EndBody(trailers); err != nil {
		x.failed(err)
		return
	}
	if f.status < 500 {
		f.stream.Endpoint().Answered(x.loop, false, f.asked)
	}
	if !f.reqEnded {
		x.bodies.keep = false // the backend answered without the whole body: the rest is not waited for
	}
	x.record()
	x.fwd.release()
	x.stage = stageDone
	x.client.Done()
}

func (x *Exchange) sendTimeout() (d time.Duration) {
	if d = x.Route.Policy.SendTimeout; d == 0 {
		d = x.Settings.WriteTimeout
	}
	return d
}

func (x *Exchange) readTimeout() (d time.Duration) {
	if d = x.Route.Policy.ReadTimeout; d == 0 {
		d = x.Settings.ReadTimeout
	}
	return d
}
