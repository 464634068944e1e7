package upstream

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Passive ejection: an endpoint that could not be connected to ejectAfter times in a row gets no requests for a while,
// twice as long each time it fails again at once. So does one whose answers were errors Outlier.Errors times in a row. It
// is never the last one, and never leaves less than Outlier.Panic per cent of a cluster's ready endpoints: many failing at
// once say more about us or the network than about them.

// outlier is what failures left behind; guarded by Cluster.judging.
type outlier struct {
	failures  int           // connect failures in a row
	backOff   time.Duration // the last ejection's length; 0: none since the last success
	until     time.Time     // its end, for the eyes of operators
	ejections uint64
}

// Failed tells that a connection to e could not be had; only what is the backend's fault counts. On loop l.
func (e *Endpoint) Failed(l *fastpath.Loop, err *fastpath.Error) { e.failed(l, err, err.Text) }

// failed does, and keeps the reason in words for operators.
func (e *Endpoint) failed(l *fastpath.Loop, err *fastpath.Error, reason string) {
	if err.Fault != fastpath.FaultBackend {
		return
	}
	e.loops[l.ID].failures.inc()
	e.lastFailure.Store(&reason)
	c := e.cluster
	c.judging.Lock()
	defer c.judging.Unlock()
	e.outlier.failures++
	e.failing.Store(true)
	if e.outlier.failures >= ejectAfter {
		e.ejectLocked(l, reason)
	}
}

// eject gives the endpoint no requests for a while, if the cluster can do without it.
func (e *Endpoint) eject(l *fastpath.Loop, reason string) {
	e.lastFailure.Store(&reason)
	e.cluster.judging.Lock()
	defer e.cluster.judging.Unlock()
	e.ejectLocked(l, reason)
}

func (e *Endpoint) ejectLocked(l *fastpath.Loop, reason string) {
	c := e.cluster
	now := l.Now()
	if e.removed.Load() || e.ejectedUntil.Load() > now || !c.spares(e, now) {
		return
	}
	o := &e.outlier
	first := c.current.Load().Outlier.Ejection
	o.backOff = min(max(2*o.backOff, first), max(ejectMax, first))
	o.ejections++
	o.until = time.Now().Add(o.backOff)
	e.ejectedUntil.Store(now + int64(o.backOff))
	go c.env.log().Warn("endpoint ejected; other endpoints take its requests",
		"cluster", c.id, "endpoint", e.addr.String(), "error", reason, "for", o.backOff)
}

// served tells that an ejection is over which nothing has been made of since.
func (e *Endpoint) served(now int64) bool {
	until := e.ejectedUntil.Load()
	return until != 0 && until <= now
}

// forgive lets the next ejection be a short one again: the endpoint has answered well, and not from before the one that
// runs.
func (e *Endpoint) forgive(now int64) {
	c := e.cluster
	c.judging.Lock()
	defer c.judging.Unlock()
	if e.ejectedUntil.Load() > now {
		return
	}
	e.ejectedUntil.Store(0)
	if e.outlier.failures == 0 {
		e.outlier.backOff = 0
	}
}

// Connected tells that a connection to e was made, TLS included. On loop l.
func (e *Endpoint) Connected(l *fastpath.Loop) {
	e.loops[l.ID].connects.inc()
	if !e.failing.Load() {
		return
	}
	c := e.cluster
	c.judging.Lock()
	defer c.judging.Unlock()
	e.failing.Store(false)
	if e.outlier.failures >= ejectAfter || c.current.Load().Outlier.Errors == 0 { // else its answers ejected it
		e.outlier.until = time.Time{}
		e.outlier.backOff = 0
		e.ejectedUntil.Store(0)
	}
	e.outlier.failures = 0
}

// spares tells whether the cluster can do without e: at least Outlier.Panic per cent of its ready endpoints stay, and one. Terminating endpoints are
// the last resort anyway.
func (c *Cluster) spares(e *Endpoint, now int64) bool {
	v := c.current.Load()
	if v.byIdentity[e.identity] != e {
		return true
	}
	out := 1
	for _, o := range v.ready {
		if o != e && (o.ejectedUntil.Load() > now || o.unhealthy.Load()) {
			out++
		}
	}
	n := len(v.ready)
	return out < n && (n-out)*100 >= n*v.Outlier.Panic
}
