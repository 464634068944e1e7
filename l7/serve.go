package l7

import (
	"net/netip"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// serve leads an exchange whose request head is parsed: route, request filters, forward. It is this floor's table of
// contents; what has to wait returns from it and comes back through resume, OnStream, OnResponse or the engine.
func (x *Exchange) serve() {
	x.call()
	x.Route = x.local.srv.Router.Route(x)
	if x.Route == nil {
		x.respond(statusNoRoute, nil)
		return
	}
	if x.Route.Policy.GRPCWeb {
		x.callWeb()
	}
	if x.TLS && !x.admitted() {
		return
	}
	x.trust()
	x.filterRequest()
}

const statusNoRoute = 404

// filterRequest runs the route's request filters from x.filter on.
func (x *Exchange) filterRequest() {
	fs := x.Route.Request
	for x.filter < len(fs) {
		f := fs[x.filter]
		x.filter++
		if !x.follow(x.ask(f)) {
			return
		}
	}
	x.forward()
}

// follow does what a filter's verdict says; true: it is the next filter's turn.
func (x *Exchange) follow(v Verdict) bool {
	switch v {
	case Continue:
		return true
	case Respond:
		x.sendAnswer()
	case Park:
		x.stage = stageParked
	default:
		x.failed(errPanic)
	}
	return false
}

// Park makes the ticket by which a filter that answers Park resumes the exchange. deadline is loop time.
func (x *Exchange) Park(deadline int64) fastpath.Ticket {
	x.ticket.Cancel()
	x.ticket = x.loop.Park(x)
	x.client.SetDeadline(deadline)
	return x.ticket
}

// Resumed is what a ticket's holder passes to Resume: it runs on the exchange's loop and prepares the answer or the
// request, as a request filter would.
type Resumed func(x *Exchange) Verdict

// Request implements RequestFilter.
func (f Resumed) Request(x *Exchange) Verdict { return f(x) }

// OnResume implements fastpath.Parked.
func (x *Exchange) OnResume(v any) {
	defer x.recovered()
	x.ticket, x.stage = fastpath.Ticket{}, stageHead
	x.client.SetDeadline(0)
	if f, ok := v.(Resumed); ok && !x.follow(x.ask(f)) {
		return
	}
	x.filterRequest()
}

// expired ends a parked exchange whose deadline has passed.
func (x *Exchange) expired() {
	x.unpark()
	x.failed(errParkTimeout)
}

// respond answers by the proxy itself.
func (x *Exchange) respond(status int, body []byte) {
	x.Respond(status, body)
	x.sendAnswer()
}

// sendAnswer writes the response that the proxy made: response filters, head, body.
func (x *Exchange) sendAnswer() {
	if !x.grpc && x.intercept(x.Resp.Status) {
		return
	}
	body := x.frameAnswer()
	if !x.filterResponse() {
		x.failed(errPanic)
		return
	}
	r := &x.Resp
	if x.Settings.ServerTokens {
		r.Fields = append(r.Fields, wire.Field{Name: nameServer, Value: serverName, ID: wire.FieldServer})
	}
	x.date()
	end := len(body) == 0
	if err := x.client.WriteHead(x, end); err != nil {
		x.unwritable(err)
		return
	}
	x.stage = stageBody
	if !end {
		if err := x.client.WriteBody(body); err != nil {
			x.abort(err)
			return
		}
	}
	if err := x.client.EndBody(nil); err != nil {
		x.abort(err)
		return
	}
	x.done()
}

// frameAnswer sets the fields and the framing that go with the answer's body, and returns as much of it as is sent.
func (x *Exchange) frameAnswer() []byte {
	r := &x.Resp
	if x.grpc && r.Status >= 400 {
		return x.answerCall()
	}
	body := x.answer
	if body == nil {
		body = page(r.Status)
	}
	if !wire.BodyAllowed(r.Status, wire.MethodOther) {
		r.Framing, r.ContentLength = wire.FramingNone, -1
		return nil
	}
	if len(body) > 0 && wire.Get(r.Fields, wire.FieldContentType) == nil {
		r.Fields = append(r.Fields, wire.Field{Name: nameContentType, Value: typeText, ID: wire.FieldContentType})
	}
	r.Framing, r.ContentLength = wire.FramingLength, int64(len(body))
	if x.Req.Method == wire.MethodHead { // the length is told, the body is not
		r.Framing, body = wire.FramingNone, nil
	}
	return body
}

// filterResponse runs the route's response filters, last stage first; false: one panicked, and none runs again.
func (x *Exchange) filterResponse() bool {
	if x.Route != nil && !x.plain {
		x.addAuthentication()
		for _, f := range x.Route.Response {
			if !x.tell(f) {
				x.plain = true
				return false
			}
		}
	}
	return true
}

// unwritable answers 500 for a head that the serialiser refused: a filter or a backend made it what must not be sent.
func (x *Exchange) unwritable(err *fastpath.Error) {
	if x.plain {
		x.abort(err)
		return
	}
	x.plain = true
	x.failed(err)
}

// date adds the Date field to a response that has none.
func (x *Exchange) date() {
	if r := &x.Resp; wire.Get(r.Fields, wire.FieldDate) == nil {
		r.Fields = append(r.Fields, wire.Field{Name: nameDate, Value: x.local.now(), ID: wire.FieldDate})
	}
}

// failed answers an error before the response's head was written, and cuts the response after it.
func (x *Exchange) failed(err *fastpath.Error) {
	x.blame(err, 0)
	x.fwd.release()
	x.err = err
	if x.stage >= stageBody || err.Kind == fastpath.KindCancelled {
		if !x.endCall(err) {
			x.abort(err)
		}
		return
	}
	if err == wire.ErrSerialise {
		x.bodies.keep = false // docs/hardening.md 3.1 rule 1: a 500 and a close
	}
	x.respond(statusOf(err), nil)
}

// abort cuts the exchange visibly.
func (x *Exchange) abort(err *fastpath.Error) {
	if err.Fault == fastpath.FaultClient {
		x.blame(err, 0)
	}
	x.fwd.release()
	x.unpark()
	x.err, x.stage = err, stageDone
	if x.Resp.Status == 0 || err.Kind == fastpath.KindCancelled {
		x.Resp.Status = statusOf(err)
	}
	x.record()
	x.client.Abort(err)
}

// done ends an exchange whose response is complete.
func (x *Exchange) done() {
	x.stage = stageDone
	x.record()
	x.client.Done()
}

// trust finds out who the request comes from: the connection's peer, or what a trusted peer says.
func (x *Exchange) trust() {
	x.Secure = x.TLS || x.offloaded()
	s := x.Settings
	if !s.UseForwardedHeaders && !s.RealIP || !trusted(s.TrustedPeers, x.ClientIP) {
		return
	}
	x.ClientIP = x.forwardedFor()
	if x.trusted = s.UseForwardedHeaders; !x.trusted {
		return
	}
	if v := wire.Get(x.Req.Fields, wire.FieldXForwardedProto); v != nil && !x.offloaded() {
		x.Secure = wire.EqualFold(v, schemeHTTPS)
	}
}

// offloaded tells whether a PROXY header says that the client connected to port 443: TLS ended before this proxy.
func (x *Exchange) offloaded() bool {
	return x.accepted != nil && x.accepted.Proxied && x.Local.Port() == 443
}

func trusted(nets []netip.Prefix, a netip.Addr) bool {
	for _, p := range nets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

var (
	nameContentType = []byte("Content-Type")
	nameServer      = []byte("Server")
	nameDate        = []byte("Date")
	serverName      = []byte("sluice")
	typeText        = []byte("text/plain; charset=utf-8")
	schemeHTTP      = []byte("http")
	schemeHTTPS     = []byte("https")
)
