package upstream

import (
	"sync/atomic"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// under is what a cluster has under way on all loops, counted only while its Breaker asks for it. What was counted is
// uncounted, whatever the settings have become since.
type under struct {
	_           [64]byte
	connections atomic.Int64
	pending     atomic.Int64
	requests    atomic.Int64
	retries     atomic.Uint64
	shedding    atomic.Bool // loops are asked for an idle connection
	refused     [overflowKinds]atomic.Uint64
	_           [64]byte
}

// Overflow is a bound of a Breaker that refused something.
type Overflow uint8

const (
	OverflowConnections Overflow = iota
	OverflowPending
	OverflowRequests
	OverflowRetries
	overflowKinds
)

func (o Overflow) String() string {
	return [...]string{"connections", "pending", "requests", "retries"}[o]
}

func overload(text string) *fastpath.Error {
	return &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindOverload, Text: text}
}

// Errors of breakers: the cluster has as much as it may have.
var (
	ErrConnections = overload("the cluster has as many connections as it may")
	ErrPending     = overload("as many requests wait for a connection to the cluster as may")
	ErrRequests    = overload("the cluster has as many requests as it may")
)

// Overloaded tells whether an error is a breaker's: another endpoint of the cluster would be refused as well.
func Overloaded(err *fastpath.Error) bool {
	return err == ErrConnections || err == ErrPending || err == ErrRequests
}

// take counts one more of n, unless there are limit already; 0: no limit.
func take(n *atomic.Int64, limit int) bool {
	if n.Add(1) > int64(limit) && limit > 0 {
		n.Add(-1)
		return false
	}
	return true
}

// overflowed counts a refusal.
func (c *Cluster) overflowed(o Overflow, err *fastpath.Error) *fastpath.Error {
	c.under.refused[o].Add(1)
	return err
}

// Overflows are how often each bound refused something, by Overflow. From any goroutine.
func (c *Cluster) Overflows() (n [int(overflowKinds)]uint64) {
	for i := range n {
		n[i] = c.under.refused[i].Load()
	}
	return n
}

// Retry asks for one more retry; false: there are as many as the Breaker allows. The count that it was entered in is
// lowered by one when the exchange has ended; nil: none. On the loops.
func (c *Cluster) Retry() (count *atomic.Uint64, ok bool) {
	b := &c.current.Load().Breaker
	if b.Retries == 0 && b.RetryBudget == 0 {
		return nil, true
	}
	n := int64(c.under.retries.Add(1))
	budget := max(retriesMin, c.under.requests.Load()*int64(b.RetryBudget)/100)
	if b.Retries > 0 && n > int64(b.Retries) || b.RetryBudget > 0 && n > budget {
		c.under.retries.Add(^uint64(0))
		c.under.refused[OverflowRetries].Add(1)
		return nil, false
	}
	return &c.under.retries, true
}

// dial makes a connection for h, if the Breaker allows one more; where it does not, an idle session of this loop's makes
// room. counted: the connection is in the cluster's count and has to be taken out by gone.
func (e *Endpoint) dial(l *fastpath.Loop, v *view, h fastpath.Connector, timeout int64) (c *fastpath.Conn, counted bool, err *fastpath.Error) {
	cluster := e.cluster
	if v.countAll {
		limit := v.Breaker.Connections
		if !take(&cluster.under.connections, limit) && (!v.shed(l) || !take(&cluster.under.connections, limit)) {
			cluster.shedElsewhere()
			return nil, false, cluster.overflowed(OverflowConnections, ErrConnections)
		}
		counted = true
	}
	if c, err = l.Dial(e.addr, time.Duration(timeout), h); err != nil {
		if counted {
			cluster.under.connections.Add(-1)
		}
		e.Failed(l, err)
		return nil, false, err
	}
	return c, counted, nil
}

// shedElsewhere has every loop close an idle session, so that a loop which has none is not refused for as long as those of the
// others stay.
func (c *Cluster) shedElsewhere() {
	if !c.under.shedding.CompareAndSwap(false, true) {
		return // they are about to
	}
	left := new(atomic.Int64)
	left.Store(int64(len(c.env.Loops)))
	c.env.post(func(l *fastpath.Loop) {
		c.current.Load().shed(l)
		if left.Add(-1) == 0 {
			c.under.shedding.Store(false)
		}
	})
}

// shed closes an idle session of loop l to one of the cluster's endpoints; false: there is none.
func (v *view) shed(l *fastpath.Loop) bool {
	for _, e := range v.ready {
		p := &e.loops[l.ID]
		if len(p.idle) > 0 {
			s := p.idle[0]
			s.leave()
			s.close()
			return true
		}
		for _, s := range p.sessions {
			if s.resting() {
				s.drain()
				return true
			}
		}
	}
	return false
}
