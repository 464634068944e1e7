package l7

import (
	"net/http"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// record tells metrics and access log about an exchange that has ended. It runs once per exchange, before the exchange
// is released, on the loop's one Record.
func (x *Exchange) record() {
	if x.depth > 0 { // nobody's request but the proxy's own: its cluster has counted it
		return
	}
	p := x.local
	r := &p.record
	r.Format = x.Settings.AccessLogFormat
	x.recordRequest(r)
	x.recordAnswer(r)
	var stats *RouteStats
	log := x.Settings.AccessLog && p.srv.Log != nil
	if r.ID = nil; x.Route != nil {
		stats, r.ID = x.Route.Stats, &x.Route.ID
		log = log && !x.Route.Policy.NoAccessLog
	}
	log = log && x.wanted()
	p.srv.Stats.Record(x.loop.ID, stats, r)
	if log {
		r.Now, r.Template, r.Exchange = x.loop.Wall(), x.Settings.AccessLogTemplate, x
		x.recordText(r)
		p.srv.Log.Write(x.loop.ID, r)
	}
}

// wanted tells whether the ConfigMap leaves the exchange to the access log.
func (x *Exchange) wanted() bool {
	s := x.Settings
	if s.NoDefaultAccessLog && (x.Route == nil || x.Route.ID.Ingress == "") {
		return false
	}
	return s.AccessLogSkip == nil || !s.AccessLogSkip.has(x.asked)
}

func (x *Exchange) recordRequest(r *Record) {
	r.Method, r.MethodText, r.Major, r.Minor = x.Req.Method, x.Req.MethodText, 1, x.Req.Minor
	if x.major != 0 {
		r.Major, r.Minor = x.major, 0
	}
	r.RequestBytes = int64(x.headBytes) + x.bodies.got
}

func (x *Exchange) recordAnswer(r *Record) {
	f := &x.fwd
	if r.Status, r.Err = x.Resp.Status, x.err; x.callStatus != 0 && r.Status == http.StatusOK {
		r.Status = x.callStatus
	}
	r.Tunnel = x.Resp.Status == 101
	r.BodyBytes, r.BytesSent = x.bodies.sent, x.bodies.sent+int64(x.bodies.headSent)
	r.Duration = x.loop.Now() - x.started
	r.Tried, r.Removed, r.Alternative = 0, f.removed, ""
	if f.canary != nil {
		r.Alternative = f.canary.Name
	}
	if f.tries == 0 {
		return
	}
	for i := max(0, f.tries-TriesKept); i < f.tries-1; i++ {
		k := i % triesMax
		r.AddTry(Try{Addr: f.tried[k].Addr(), Status: int(f.statuses[k]), Time: f.times[k], Err: f.failures[k]})
	}
	last := Try{Addr: f.tried[(f.tries-1)%triesMax].Addr(), Status: f.status, Time: f.lasted(x.loop.Now()), Bytes: f.got}
	if e := x.err; e != nil && (e.Fault == fastpath.FaultBackend || e.Fault == fastpath.FaultProxy && f.headAt == 0) {
		last.Err = e
	}
	r.AddTry(last)
	r.Tried = f.tries
}

// lasted is how long the present attempt has lasted; -1: it never got a session.
func (f *forward) lasted(now int64) int64 {
	if !f.connected {
		return -1
	}
	return now - f.opened
}

// recordText adds what only the access log shows.
func (x *Exchange) recordText(r *Record) {
	r.Remote, r.Target, r.Host = x.ClientIP, x.asked, x.Req.Host
	r.Server, r.TLS, r.RequestID = x.Server, x.TLS, x.RequestID
	r.Referer = wire.Get(x.Req.Fields, wire.FieldReferer)
	r.UserAgent = wire.Get(x.Req.Fields, wire.FieldUserAgent)
}

// attemptEnded notes how an attempt went after which another one is made: by its error, or by the status of its answer.
func (f *forward) attemptEnded(now int64, err *fastpath.Error, status int) {
	i := (f.tries - 1) % triesMax
	f.failures[i], f.statuses[i], f.times[i] = err, int16(status), f.lasted(now)
}
