package upstream

import (
	"net/netip"
	"sync/atomic"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Endpoint is one backend of a cluster: its idle sessions, its health, its counters. It lives as long as its address is
// in the cluster, whatever else changes. What a loop does with it happens in that loop's endpointLoop.
type Endpoint struct {
	cluster  *Cluster
	addr     netip.AddrPort
	identity uint64
	loops    []endpointLoop

	tls     atomic.Pointer[endpointTLS] // nil: plain
	removed atomic.Bool                 // no longer of the cluster: sessions end with their present exchange
	drained atomic.Int32                // … and how many loops have closed the idle ones
	idle    idleLimit

	failing      atomic.Bool  // outlier is not at rest
	ejectedUntil atomic.Int64 // loop time; 0: not ejected
	lastFailure  atomic.Pointer[string]
	outlier      outlier
	errors       atomic.Int32 // bad answers in a row, while Outlier asks for it
	badAt        atomic.Int64 // loop time of the last of them
	unhealthy    atomic.Bool  // its checks fail
	warmFrom     atomic.Int64 // slow start: loop time of its beginning
	warmUntil    atomic.Int64 // … and end; 0: none
	health       health

	_      [64]byte
	active atomic.Int64 // streams under way on all loops, while the balancer asks for them
	_      [64]byte
}

// endpointLoop is one loop's part of an endpoint. The loop alone writes it; counters are read by anybody.
type endpointLoop struct {
	idle     []*session  // by time of release: the last one is taken first
	awaited  []*session  // being connected, in no order: session.place is its index
	awaited2 []*session2 // the same of HTTP/2, and those that are asked by PING whether they live
	raw      []*Dial     // for tunnels, in no order: Dial.place is its index
	sessions []*session2 // HTTP/2 ones that may take more streams, or will when they are connected
	streams  int         // how many streams such a session takes, as the last one showed; 0: none has
	time     responseTime

	requests counter // streams asked for
	ended    counter // … and over
	dials    counter // sessions begun to be dialled
	dialled  counter // … and there, or given up
	opened   counter // sessions connected
	closed   counter // … and gone
	connects counter // connections made, those for tunnels included
	failures counter
	reused   counter      // streams on a session that had carried one before
	resting  atomic.Int64 // HTTP/2 sessions without a stream
	dialling atomic.Int64 // how many raw has
	_        [64]byte
}

// counter only grows. Its loop writes it without a lock, anybody reads it.
type counter struct{ n atomic.Uint64 }

func (c *counter) inc() { c.n.Store(c.n.Load() + 1) }

func newEndpoint(c *Cluster, addr netip.AddrPort) *Endpoint {
	return &Endpoint{cluster: c, addr: addr, identity: identityOf(addr), loops: make([]endpointLoop, len(c.loops))}
}

// identityOf is FNV-1a over the address and port: the same in every process, and never 0.
func identityOf(addr netip.AddrPort) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for _, b := range addr.Addr().As16() {
		h = (h ^ uint64(b)) * prime
	}
	h = (h ^ uint64(addr.Port()>>8)) * prime
	h = (h ^ uint64(addr.Port()&0xff)) * prime
	return max(mix(h), 1)
}

// Addr is where the endpoint listens.
func (e *Endpoint) Addr() netip.AddrPort { return e.addr }

// Gone tells whether e is no longer of its cluster. Any goroutine may ask.
func (e *Endpoint) Gone() bool { return e.removed.Load() }

// Cluster is the cluster that e belongs to, or belonged to.
func (e *Endpoint) Cluster() *Cluster { return e.cluster }

// Answered tells how an exchange with e went that was asked at a loop time: bad is a status of 500 and more, a cut or a timeout.
// On loop l.
func (e *Endpoint) Answered(l *fastpath.Loop, bad bool, asked int64) {
	limit := e.cluster.current.Load().Outlier.Errors
	switch {
	case limit == 0:
	case bad:
		e.badAt.Store(l.Now())
		if e.errors.Add(1) >= int32(limit) {
			e.errors.Store(0)
			e.eject(l, "its answers are errors")
		}
	case asked < e.badAt.Load(): // an answer from before that says nothing of what came since
	case e.errors.Load() != 0 || e.served(l.Now()):
		e.errors.Store(0)
		e.forgive(l.Now())
	}
}

// TunnelBegan counts a tunnel to e for balancers that compare what is under way. TunnelEnded must follow, once.
func (e *Endpoint) TunnelBegan() {
	e.active.Add(1)
	e.cluster.under.connections.Add(1)
}

// Sockmap says whether tunnels to e are to be joined in the kernel.
func (e *Endpoint) Sockmap() fastpath.SockmapUse { return e.cluster.current.Load().Sockmap }

// TunnelEnded ends what TunnelBegan began.
func (e *Endpoint) TunnelEnded() {
	e.active.Add(-1)
	e.cluster.under.connections.Add(-1)
}

// drain closes e's idle sessions of loop l, and has HTTP/2 ones end with their streams; with stale, only those that were
// made under other settings.
func (e *Endpoint) drain(l *fastpath.Loop, stale bool) {
	if !stale {
		e.giveUp(l)
	}
	p := &e.loops[l.ID]
	http2 := e.cluster.current.Load().HTTP2
	for i := len(p.sessions) - 1; i >= 0; i-- {
		if s := p.sessions[i]; !stale || !http2 || s.tls != e.currentTLS() {
			s.drain()
		}
	}
	keep := p.idle[:0]
	for _, s := range p.idle {
		if stale && !http2 && s.tls == e.currentTLS() {
			keep = append(keep, s)
			continue
		}
		s.close()
	}
	clear(p.idle[len(keep):])
	p.idle = keep
	if !stale {
		e.drained.Add(1)
	}
}

// giveUp sends those who wait for a connection to e elsewhere, as soon as there is anybody else: e is of its cluster no more,
// and what has gone may not even refuse them. Nothing of their requests was sent.
func (e *Endpoint) giveUp(l *fastpath.Loop) {
	if e.cluster.current.Load().empty() {
		return
	}
	p := &e.loops[l.ID]
	for n := len(p.awaited); n > 0 && len(p.awaited) > 0; n-- {
		p.awaited[len(p.awaited)-1].refused(ErrRemoved)
	}
	for n := len(p.awaited2); n > 0 && len(p.awaited2) > 0; n-- {
		p.awaited2[len(p.awaited2)-1].giveUp()
	}
	for n := len(p.raw); n > 0 && len(p.raw) > 0; n-- {
		p.raw[len(p.raw)-1].giveUp()
	}
}

// dialling tells whether a raw connection is being made. From any goroutine.
func (e *Endpoint) dialling() bool {
	for i := range e.loops {
		if e.loops[i].dialling.Load() > 0 {
			return true
		}
	}
	return false
}

// given tells that e's requests are others' now: it was removed, and there are others.
func (e *Endpoint) given() bool { return e.removed.Load() && !e.cluster.current.Load().empty() }
