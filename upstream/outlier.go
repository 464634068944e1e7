package upstream

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Passive ejection: an endpoint that could not be connected to ejectAfter times in a row gets no requests for a while,
// twice as long each time it fails again at once. It is never the last one, and never leaves less than half of a
// cluster's ready endpoints: many failing at once say more about us or the network than about them.

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
	now := l.Now()
	if e.outlier.failures < ejectAfter || e.ejectedUntil.Load() > now || !c.spares(e, now) {
		return
	}
	o := &e.outlier
	o.backOff = min(max(2*o.backOff, ejectFirst), ejectMax)
	o.ejections++
	o.until = time.Now().Add(o.backOff)
	e.ejectedUntil.Store(now + int64(o.backOff))
	go c.env.log().Warn("endpoint ejected: connections to it fail; other endpoints take its requests",
		"cluster", c.id, "endpoint", e.addr.String(), "error", reason, "for", o.backOff)
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
	e.outlier.failures, e.outlier.backOff, e.outlier.until = 0, 0, time.Time{}
	e.ejectedUntil.Store(0)
}

// spares tells whether the cluster can do without e: at least half of its ready endpoints stay. Terminating endpoints are
// the last resort anyway.
func (c *Cluster) spares(e *Endpoint, now int64) bool {
	v := c.current.Load()
	if v.byIdentity[e.identity] != e {
		return true
	}
	out := 1
	for _, o := range v.ready {
		if o != e && o.ejectedUntil.Load() > now {
			out++
		}
	}
	return 2*out <= len(v.ready)
}
