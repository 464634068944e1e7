package l7

import (
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// errBackendCut is a response that ended before its length said.
var errBackendCut = &fastpath.Error{Fault: fastpath.FaultBackend, Kind: fastpath.KindEOF, Text: "backend cut its response"}

// retry repeats the request on another endpoint if the rules of docs/hardening.md 3.4 allow it, else answers the error.
// Nothing of a response has gone to the client yet.
func (x *Exchange) retry(err *fastpath.Error) {
	if (err.Fault == fastpath.FaultBackend || err == upstream.ErrRemoved) && x.overdue() { // who was told the deadline (grpc-timeout) may give up just before our timer does
		x.failed(errOverdue)
		return
	}
	f := &x.fwd
	if err == upstream.ErrRemoved && f.removed < triesMax { // by the configuration, so that it is no try
		f.removed++
		f.base++
		x.again(err, 0)
		return
	}
	unsent := f.stream == nil && err.Retry || f.stream != nil && !f.stream.Sent()
	allowed := unsent && x.wants(err) && x.triesLeft() && !f.lost
	if !allowed && !f.answered {
		allowed = x.wants(err) && x.repeatable()
	}
	if !allowed || !x.budgeted() {
		x.failed(err)
		return
	}
	x.again(err, 0)
}

// budgeted enters the exchange into the cluster's retries, once; false: there are as many as its breaker allows.
func (x *Exchange) budgeted() bool {
	f := &x.fwd
	if f.retries != nil {
		return true
	}
	count, ok := f.cluster.Retry()
	if count != nil {
		x.Hold(count)
		f.retries = count
	}
	return ok
}

// leaveRetries takes an exchange whose answer stands out of the cluster's retries: what follows, a body or a tunnel, may last
// for hours.
func (x *Exchange) leaveRetries() {
	if f := &x.fwd; f.retries != nil {
		x.unhold(f.retries)
		f.retries = nil
	}
}

// blame tells the endpoint that it answered badly: by a status of 500 and more, a cut or silence. One whose head said so was told.
func (x *Exchange) blame(err *fastpath.Error, status int) {
	f := &x.fwd
	if f.stream == nil || !f.connected || f.status >= 500 {
		return
	}
	e := f.stream.Endpoint()
	switch {
	case status >= 500:
		e.Answered(x.loop, true, f.asked)
	case err == nil:
	case err.Fault == fastpath.FaultBackend && (err != errOverdue || x.backendOwes()):
		e.Answered(x.loop, true, f.asked)
		if err.Kind == fastpath.KindTimeout && f.asked > 0 && f.headAt == 0 && !x.duplex() {
			e.Observe(x.loop, x.loop.Now()-f.asked) // at least so long
		}
	case f.status > 0 && err.Fault == fastpath.FaultClient && f.stream.BodyLeft() <= 0:
		e.Answered(x.loop, false, f.asked) // the client had enough of a stream: many a one never ends otherwise
	}
}

// backendOwes tells whether it is the backend that is waited for, and as long as the route says: a deadline of the client's own
// (grpc-timeout) may be of a millisecond, and whoever sends or reads slowly may use a request's time up by himself.
func (x *Exchange) backendOwes() bool {
	f := &x.fwd
	switch {
	case x.callTimeout > 0 && x.callTimeout == x.total():
		return false
	case x.stage >= stageBody:
		return !f.pacing && x.client.Room() > 0
	}
	return f.expecting
}

// again gives up the present attempt, which failed or was answered with a status that asks for another, and makes the next.
func (x *Exchange) again(err *fastpath.Error, status int) {
	x.blame(err, status)
	x.fwd.attemptEnded(x.loop.Now(), err, status)
	x.fwd.release()
	x.Resp.Reset()
	x.connect()
}

// repeatable tells whether a request that the backend may have seen can be sent once more: it is idempotent or its author
// waived that, its body is at hand, and a try is left.
func (x *Exchange) repeatable() bool {
	p := &x.Route.Policy
	waived := p.NextUpstream&NextNonIdempotent != 0 || x.Settings.RetryNonIdempotent
	return (waived || idempotent(x.Req.Method)) && !x.fwd.lost && !x.fwd.interim && x.triesLeft()
}

// triesLeft tells whether proxy-next-upstream-tries and -timeout leave another attempt.
func (x *Exchange) triesLeft() bool {
	p := &x.Route.Policy
	limit := p.Tries
	if limit == 0 || limit > triesMax {
		limit = triesMax
	}
	return x.fwd.tries-x.fwd.base < limit && !x.overdue() && (p.TriesTimeout == 0 || x.loop.Now()-x.fwd.first < int64(p.TriesTimeout))
}

// wants tells whether proxy-next-upstream names the failure.
func (x *Exchange) wants(err *fastpath.Error) bool {
	next := NextError
	switch err.Kind {
	case fastpath.KindTimeout:
		next = NextTimeout
	case fastpath.KindMalformed, fastpath.KindHeadTooLarge:
		next = NextInvalidHeader
	}
	return err.Fault != fastpath.FaultClient && !upstream.Overloaded(err) && x.Route.Policy.NextUpstream&next != 0
}

// idempotent: RFC 9110 9.2.2. A method that we do not know is taken as not idempotent.
func idempotent(m wire.Method) bool {
	switch m {
	case wire.MethodGet, wire.MethodHead, wire.MethodPut, wire.MethodDelete, wire.MethodOptions, wire.MethodTrace:
		return true
	}
	return false
}

// nextOf is the proxy-next-upstream token of a response's status; 0: none.
func nextOf(status int) NextUpstream {
	switch status {
	case 500:
		return Next500
	case 502:
		return Next502
	case 503:
		return Next503
	case 504:
		return Next504
	case 403:
		return Next403
	case 404:
		return Next404
	case 429:
		return Next429
	}
	return 0
}
