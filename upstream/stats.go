package upstream

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

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
}

// Stats adds the endpoint's counters up. From any goroutine but a loop's.
func (e *Endpoint) Stats() (s Stats) {
	for i := range e.loops {
		p := &e.loops[i]
		ended, closed := p.ended.n.Load(), p.closed.n.Load() // before what they are taken from: never negative
		parked := p.parked.n.Load()
		taken := p.taken.n.Load()
		s.Requests += p.requests.n.Load()
		s.Active += int64(p.requests.n.Load() - ended)
		s.Open += int64(p.opened.n.Load() - closed)
		s.Idle += max(0, int64(parked)-int64(taken))
		s.Reused += p.reused.n.Load()
		s.Connects += p.connects.n.Load()
		s.ConnectFailures += p.failures.n.Load()
	}
	c := e.cluster
	c.judging.Lock()
	s.Ejections = e.outlier.ejections
	c.judging.Unlock()
	return s
}

// Stats adds up the counters of all endpoints that the cluster ever had, so that sums never fall.
func (c *Cluster) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	var now Stats
	for _, e := range c.byAddr {
		now.add(e.Stats())
	}
	kept := c.gone[:0]
	for _, e := range c.gone {
		s := e.Stats()
		if s.Active > 0 || s.Open > 0 {
			now.add(s)
			kept = append(kept, e)
			continue
		}
		c.past.add(s)
	}
	clear(c.gone[len(kept):])
	c.gone = kept
	now.add(c.past)
	return now
}

// State is an endpoint as an operator sees it.
type State struct {
	Endpoint    *Endpoint
	Terminating bool
	Ejected     time.Duration   // for how long still; 0: it is not
	LastFailure *fastpath.Error // of connecting; nil: none ever
	Stats       Stats
}

// Endpoints are the cluster's present endpoints, ready ones first. now is loop time, as of any loop.
func (c *Cluster) Endpoints(now int64) []State {
	v := c.current.Load()
	list := make([]State, 0, len(v.ready)+len(v.terminating))
	for i, e := range append(v.ready[:len(v.ready):len(v.ready)], v.terminating...) {
		s := State{Endpoint: e, Terminating: i >= len(v.ready), LastFailure: e.lastFailure.Load(), Stats: e.Stats()}
		if left := e.ejectedUntil.Load() - now; left > 0 {
			s.Ejected = time.Duration(left)
		}
		list = append(list, s)
	}
	return list
}
