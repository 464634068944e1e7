package l7

import (
	"net/netip"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// serve leads an exchange whose request head is parsed: route, request filters, forward. It is this floor's table of
// contents; what has to wait returns from it and comes back through resume, OnStream, OnResponse or the engine.
func (x *Exchange) serve() {
	x.Route = x.local.srv.Router.Route(x)
	if x.Route == nil {
		x.respond(statusNoRoute, nil)
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
		switch f.Request(x) {
		case Respond:
			x.sendAnswer()
			return
		case Park:
			x.stage = stageParked
			return
		}
	}
	x.forward()
}

// Park makes the ticket by which a filter that answers Park resumes the exchange. deadline is loop time.
func (x *Exchange) Park(deadline int64) fastpath.Ticket {
	x.ticket = x.loop.Park(x)
	x.client.SetDeadline(deadline)
	return x.ticket
}

// Resumed is what a ticket's holder passes to Resume: it runs on the exchange's loop and prepares the answer or the
// request, as a request filter would.
type Resumed func(x *Exchange) Verdict

// OnResume implements fastpath.Parked.
func (x *Exchange) OnResume(v any) {
	x.ticket, x.stage = fastpath.Ticket{}, stageHead
	x.client.SetDeadline(0)
	if f, ok := v.(Resumed); ok {
		switch f(x) {
		case Respond:
			x.sendAnswer()
			return
		case Park:
			x.stage = stageParked
			return
		}
	}
	x.filterRequest()
}

// expired ends a parked exchange whose deadline has passed.
func (x *Exchange) expired() {
	x.ticket.Cancel()
	x.failed(errParkTimeout)
}

// respond answers by the proxy itself.
func (x *Exchange) respond(status int, body []byte) {
	x.Respond(status, body)
	x.sendAnswer()
}

// sendAnswer writes the response that the proxy made: response filters, head, body.
func (x *Exchange) sendAnswer() {
	x.stage = stageBody
	r := &x.Resp
	body := x.answer
	if body == nil {
		body = page(r.Status)
	}
	if len(body) > 0 {
		r.Fields = append(r.Fields, wire.Field{Name: nameContentType, Value: typeText, ID: wire.FieldContentType})
	}
	r.Framing, r.ContentLength = wire.FramingLength, int64(len(body))
	x.filterResponse()
	if x.Settings.ServerTokens {
		r.Fields = append(r.Fields, wire.Field{Name: nameServer, Value: serverName, ID: wire.FieldServer})
	}
	end := len(body) == 0 || x.Req.Method == wire.MethodHead
	if err := x.client.WriteHead(x, end); err != nil {
		x.abort(err)
		return
	}
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

// filterResponse runs the route's response filters, last stage first.
func (x *Exchange) filterResponse() {
	if x.Route != nil {
		for _, f := range x.Route.Response {
			f.Response(x)
		}
	}
}

// failed answers an error before the response's head was written, and cuts the response after it.
func (x *Exchange) failed(err *fastpath.Error) {
	x.fwd.release()
	x.err = err
	if x.stage >= stageBody || err.Kind == fastpath.KindCancelled {
		x.abort(err)
		return
	}
	x.respond(statusOf(err), nil)
}

// abort cuts the exchange visibly.
func (x *Exchange) abort(err *fastpath.Error) {
	x.fwd.release()
	x.ticket.Cancel()
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
	x.Secure = x.TLS
	s := x.Settings
	if !s.UseForwardedHeaders || !trusted(s.TrustedPeers, x.ClientIP) {
		return
	}
	x.trusted = true
	if v := wire.Get(x.Req.Fields, wire.FieldXForwardedProto); v != nil {
		x.Secure = wire.EqualFold(v, schemeHTTPS)
	}
	x.ClientIP = x.forwardedFor()
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
