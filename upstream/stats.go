package upstream

import "time"

// Stats are counts of an endpoint or a cluster, added up over the loops.
type Stats struct {
	Active int64 // streams asked for and not over, those being dialled included
	Open   int64 // connected sessions
	Idle   int64 // … of which nobody uses

	Requests        uint64 // streams asked for
	Reused          uint64 // … that were given a session which had carried one before
	Connects        uint64 // connections made, for tunnels too
	ConnectFailures uint64
	Ejections       uint64
	Checks          uint64 // active health checks made
	ChecksFailed    uint64
}

func (s *Stats) add(o Stats) {
	s.Active += o.Active
	s.Open += o.Open
	s.Idle += o.Idle
	s.Requests += o.Requests
	s.Reused += o.Reused
	s.Connects += o.Connects
	s.ConnectFailures += o.ConnectFailures
	s.Ejections += o.Ejections
	s.Checks += o.Checks
	s.ChecksFailed += o.ChecksFailed
}

// Stats adds the endpoint's counters up. From any goroutine but a loop's.
func (e *Endpoint) Stats() (s Stats) {
	for i := range e.loops {
		p := &e.loops[i]
		ended, closed, dialled := p.ended.n.Load(), p.closed.n.Load(), p.dialled.n.Load() // before what they are taken from
		requests, opened := p.requests.n.Load(), p.opened.n.Load()
		active, open, dialling := int64(requests-ended), int64(opened-closed), int64(p.dials.n.Load()-dialled)
		s.Requests += requests
		s.Active += active
		s.Open += open
		if e.cluster.current.Load().HTTP2 {
			s.Idle += p.resting.Load()
		} else {
			s.Idle += max(0, open-(active-dialling))
		}
		s.Reused += p.reused.n.Load()
		s.Connects += p.connects.n.Load()
		s.ConnectFailures += p.failures.n.Load()
	}
	c := e.cluster
	c.judging.Lock()
	s.Ejections, s.Checks, s.ChecksFailed = e.outlier.ejections, e.health.checks, e.health.bad
	c.judging.Unlock()
	return s
}

// Stats adds up the counters of all endpoints that the cluster ever had, so that sums never fall.
func (c *Cluster) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.fold()
	for _, e := range c.byAddr {
		now.add(e.Stats())
	}
	now.add(c.past)
	return now
}

// fold moves the counters of removed endpoints that are at rest to c.past, and adds up the others'. c.mu is held.
func (c *Cluster) fold() (now Stats) {
	kept := c.gone[:0]
	for _, e := range c.gone {
		s := e.Stats()
		// A loop that picked e before it was removed opens its stream before it drains e.
		if int(e.drained.Load()) < len(c.env.Loops) || s.Active > 0 || s.Open > 0 || e.dialling() {
			now.add(s)
			kept = append(kept, e)
			continue
		}
		c.past.add(s)
	}
	clear(c.gone[len(kept):])
	c.gone = kept
	return now
}

// State is an endpoint as an operator sees it.
type State struct {
	Endpoint    *Endpoint
	Terminating bool
	Ejected     time.Duration // for how long still; 0: it is not
	Unhealthy   string        // why its last check failed; "": it is well, or not checked
	LastFailure string        // why it could not be connected to, the last time; "": never
	Stats       Stats
}

// Endpoints are the cluster's present endpoints, ready ones first. From any goroutine but a loop's.
func (c *Cluster) Endpoints() []State {
	v := c.current.Load()
	list := make([]State, 0, len(v.ready)+len(v.terminating))
	for i, e := range append(v.ready[:len(v.ready):len(v.ready)], v.terminating...) {
		s := State{Endpoint: e, Terminating: i >= len(v.ready), Stats: e.Stats()}
		if reason := e.lastFailure.Load(); reason != nil {
			s.LastFailure = *reason
		}
		c.judging.Lock()
		s.Ejected = max(0, time.Until(e.outlier.until))
		if e.unhealthy.Load() {
			s.Unhealthy = e.health.last
		}
		c.judging.Unlock()
		list = append(list, s)
	}
	return list
}
