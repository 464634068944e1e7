package upstream

import (
	"math/rand/v2"
	"slices"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Wish is what a caller asks of Cluster.Pick: values, never an exchange.
type Wish struct {
	Loop   int         // id of the asking loop
	Hash   uint32      // Hash of a key: for ConsistentHash
	Hashed bool        // Hash decides, whatever the algorithm is: balanced affinity. The settings have to be Keyed
	Sticky uint64      // the endpoint's StickyID, for persistent affinity; 0: none
	Stay   bool        // the endpoint that Sticky or Hash leads to, although it was tried
	Tried  []*Endpoint // endpoints that failed this exchange already; avoided while others are usable
}

// A balancer chooses among v.ready an endpoint that is up and that w has not tried; nil: there is none. It runs on loop
// w.Loop, whose clusterLoop it may change; it neither locks nor allocates.
type balancer func(v *view, l *clusterLoop, w Wish) *Endpoint

// balancers are the algorithms.
var balancers = [...]struct {
	pick   balancer
	active bool // it compares streams under way, which are counted across loops only then
	ring   bool // it needs view.ring
}{
	RoundRobin:       {pick: roundRobin},
	EWMA:             {pick: ewma, active: true},
	LeastConnections: {pick: leastConnections, active: true},
	ConsistentHash:   {pick: consistentHash, ring: true},
	RandomOfTwo:      {pick: randomOfTwo, active: true},
}

// view is what a Pick looks at: a cluster's endpoints and settings at one moment. Immutable.
type view struct {
	*compiled
	pick        balancer
	ready       []*Endpoint
	terminating []*Endpoint
	byIdentity  map[uint64]*Endpoint // ready ones
	sticky      map[uint64]*Endpoint // ready ones by StickyID; nil: the settings are not Keyed
	ring        []ringPoint          // nil: nobody asks by hash
	subsets     [][]*Endpoint        // what the ring's points lead to instead of ready; nil: there are none
}

func newView(c *compiled, ready, terminating []*Endpoint) *view {
	v := &view{compiled: c, ready: ready, terminating: terminating, byIdentity: make(map[uint64]*Endpoint, len(ready))}
	b := &balancers[c.Algorithm]
	v.pick = b.pick
	for _, e := range ready {
		v.byIdentity[e.identity] = e
	}
	if c.keyed() {
		v.sticky = make(map[uint64]*Endpoint, len(ready))
		for _, e := range ready {
			v.sticky[e.StickyID(c.Name)] = e
		}
	}
	if b.ring || c.keyed() {
		v.hash()
	}
	return v
}

// empty tells that there is nobody to pick.
func (v *view) empty() bool { return len(v.ready)+len(v.terminating) == 0 }

// clusterLoop is what one loop remembers of a cluster between two picks. It is touched by that loop only.
type clusterLoop struct {
	clock  func() int64 // the loop's time
	index  uint32       // of count loops
	count  uint32
	next   uint32 // round robin: the next endpoint's index
	spare  uint32 // the same for endpoints that are no balancer's choice
	random rand.PCG
	_      [64]byte
}

const unseeded = ^uint32(0)

func newClusterLoop(l *fastpath.Loop, index, count int) clusterLoop {
	c := clusterLoop{clock: func() int64 { return 0 }, index: uint32(index), count: uint32(count), next: unseeded}
	if l != nil {
		c.clock = l.Now
	}
	c.random.Seed(rand.Uint64(), uint64(index))
	return c
}

// up tells whether e is neither ejected nor unhealthy.
func (l *clusterLoop) up(e *Endpoint) bool {
	if e.unhealthy.Load() && !e.cluster.panics.Load() {
		return false
	}
	until := e.ejectedUntil.Load()
	return until == 0 || until <= l.clock()
}

// usable tells whether e is what a balancer may choose.
func (l *clusterLoop) usable(e *Endpoint, w Wish) bool {
	return l.up(e) && !slices.Contains(w.Tried, e) && (e.warmUntil.Load() == 0 || l.warm(e))
}

// warm lets an endpoint in its slow start be chosen now and then: in its warmth of a hundred draws.
func (l *clusterLoop) warm(e *Endpoint) bool {
	warmth := l.warmth(e)
	return warmth >= 100 || int64(l.below(100)) < warmth
}

// warmFor is warm for those who belong where their hash leads: the hash draws, so that a key that is once there stays.
func (l *clusterLoop) warmFor(e *Endpoint, hash uint32) bool {
	warmth := l.warmth(e)
	return warmth >= 100 || int64(mix(e.identity^uint64(hash))%100) < warmth
}

// warmth is the part of its share that an endpoint gets, of a hundred: a tenth at first, all when its slow start is over.
func (l *clusterLoop) warmth(e *Endpoint) int64 {
	from, until, now := e.warmFrom.Load(), e.warmUntil.Load(), l.clock()
	if until == 0 {
		return 100
	}
	if now >= until {
		e.warmUntil.CompareAndSwap(until, 0)
		return 100
	}
	return max(slowStartMin, (now-from)*100/max(until-from, 1))
}

// fits is usable for an endpoint that the request belongs to: its slow start sends nobody away who was there.
func (l *clusterLoop) fits(e *Endpoint, w Wish) bool {
	return l.up(e) && (w.Stay || !slices.Contains(w.Tried, e))
}

// below is a random number below n.
func (l *clusterLoop) below(n int) int { return int(l.random.Uint64() >> 32 * uint64(n) >> 32) }

// Pick chooses an endpoint; nil: the cluster has none at all. It is called on loop w.Loop.
func (c *Cluster) Pick(w Wish) *Endpoint {
	v, l := c.current.Load(), &c.loops[w.Loop]
	if w.Sticky != 0 {
		if e := v.sticky[w.Sticky]; e != nil && l.fits(e, w) {
			return e
		}
	}
	pick := v.pick
	if w.Hashed {
		pick = consistentHash
	}
	if e := pick(v, l, w); e != nil {
		return e
	}
	return v.otherwise(l, w)
}

// otherwise chooses when a balancer found nobody. One that its slow start alone kept back comes first, then one that is
// terminating but serves, then one that was tried already, then ejected ones: an ejection is a guess, and a guess must not
// make a cluster empty.
func (v *view) otherwise(l *clusterLoop, w Wish) *Endpoint {
	for _, c := range [...]struct {
		among       []*Endpoint
		up, untried bool
	}{
		{v.ready, true, true},
		{v.terminating, true, true},
		{v.ready, true, false},
		{v.terminating, true, false},
		{v.ready, false, true},
		{v.terminating, false, true},
		{v.ready, false, false},
		{v.terminating, false, false},
	} {
		for range c.among {
			l.spare++
			e := c.among[l.spare%uint32(len(c.among))]
			if (!c.up || l.up(e)) && (!c.untried || !slices.Contains(w.Tried, e)) {
				return e
			}
		}
	}
	return nil
}
