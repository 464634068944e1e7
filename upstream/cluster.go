package upstream

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Cluster is a set of equal backends. Its state (endpoints with their sessions and health) hangs on its identity and
// outlives every snapshot; settings and the list of addresses may change at any time. Pick is called on the loops, all
// else from any goroutine but a loop's.
type Cluster struct {
	id      string
	env     *Env
	loops   []clusterLoop
	current atomic.Pointer[view]

	mu       sync.Mutex // guards what follows, and the making of views
	settings *compiled
	wanted   []Address
	byAddr   map[netip.AddrPort]*Endpoint
	refused  []Refusal
	names    map[string]*nameState
	wake     chan struct{} // the resolver looks at names again; nil: there is none yet
	cancel   context.CancelFunc
	gone     []*Endpoint // removed ones whose last exchanges are still under way
	past     Stats       // what removed endpoints had counted
	closed   bool
	began    bool // it has had endpoints: those that come now start slowly

	checking   Check // what is checked at present
	stopChecks context.CancelFunc

	under  under
	panics atomic.Bool // too few endpoints are healthy: health does not count

	judging sync.Mutex // guards the endpoints' outlier state; held for moments only, also on loops
}

// NewCluster makes a cluster without endpoints. id names it in logs and metrics.
func NewCluster(id string, env *Env, s Settings) *Cluster {
	n := max(1, len(env.Loops))
	c := &Cluster{id: id, env: env, loops: make([]clusterLoop, n), byAddr: map[netip.AddrPort]*Endpoint{}, names: map[string]*nameState{}}
	for i := range c.loops {
		var l *fastpath.Loop
		if i < len(env.Loops) {
			l = env.Loops[i]
		}
		c.loops[i] = newClusterLoop(l, i, n)
	}
	c.settings = compile(s, n, nil)
	c.current.Store(newView(c.settings, nil, nil))
	return c
}

// ID is what NewCluster was given.
func (c *Cluster) ID() string { return c.id }

// SetSettings replaces the settings. Endpoints keep their state; sessions live on unless they were made under other TLS
// settings. When the new ones cannot be used, the cluster fails closed, and Problem says why.
func (c *Cluster) SetSettings(s Settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.settings
	c.settings = compile(s, len(c.loops), before)
	if c.closed {
		return
	}
	c.rebuild() // before anything is drained: what is dialled behind that has the new settings
	for _, e := range c.byAddr {
		if e.secure(c.settings) || c.settings.HTTP2 != before.HTTP2 {
			c.env.post(func(l *fastpath.Loop) { e.drain(l, true) })
		}
	}
}

// Problem is why the settings cannot be used; nil: they can.
func (c *Cluster) Problem() error { return c.current.Load().err }

// Apply replaces the endpoints. Those that stay, by address, keep their sessions, health and counters; those that go are
// drained. Names are resolved by a goroutine, and their addresses come and go like any. The refusals known by now are
// returned; Refusals tells later ones.
func (c *Cluster) Apply(list []Address) []Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.wanted = slices.Clone(list)
	c.watchNames()
	c.rebuild()
	return slices.Clone(c.refused)
}

// Refusals are the addresses that are not dialled, names' present ones included.
func (c *Cluster) Refusals() []Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.refused)
}

// Close gives all endpoints up. Exchanges under way go on to their end.
func (c *Cluster) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed, c.wanted = true, nil
	c.watchNames()
	c.rebuild()
	if c.cancel != nil {
		c.cancel()
	}
}

// rebuild makes the view anew from what is wanted and resolved. c.mu is held.
func (c *Cluster) rebuild() {
	b := builder{c: c, seen: make(map[netip.AddrPort]*wanted)}
	for _, a := range c.wanted {
		b.add(a)
	}
	var ready, terminating []*Endpoint
	for _, w := range b.list {
		if w.terminating {
			terminating = append(terminating, c.endpoint(w.addr))
		} else {
			ready = append(ready, c.endpoint(w.addr))
		}
	}
	c.refused = b.refused
	c.began = c.began || len(ready) > 0
	before := c.current.Load()
	c.current.Store(newView(c.settings, ready, terminating))
	if before.empty() {
		for _, e := range c.gone {
			c.env.post(e.giveUp)
		}
	}
	c.watchHealth()
	c.judgePanic()
	for addr, e := range c.byAddr {
		if b.seen[addr] == nil {
			c.remove(e)
		}
	}
	c.fold()
}

// endpoint finds or makes the endpoint of an address.
func (c *Cluster) endpoint(addr netip.AddrPort) *Endpoint {
	e := c.byAddr[addr]
	if e == nil {
		e = newEndpoint(c, addr)
		if c.began {
			e.warm(c.settings.SlowStart)
		}
		e.secure(c.settings)
		c.byAddr[addr] = e
	}
	return e
}

// remove drains an endpoint that no view names any more.
func (c *Cluster) remove(e *Endpoint) {
	delete(c.byAddr, e.addr)
	e.removed.Store(true)
	c.gone = append(c.gone, e)
	c.env.post(func(l *fastpath.Loop) { e.drain(l, false) })
}

// Address is one endpoint as the configuration names it.
type Address struct {
	Addr        netip.AddrPort // invalid when Name is set
	Name        string         // DNS name to resolve off the loops (ExternalName), with Port
	Port        uint16
	Terminating bool // serving but draining: used only while no other endpoint is ready
	Pod         bool // the endpoint controller names it for a pod, so it may be the node's own address
}

// wanted is an address that may be dialled.
type wanted struct {
	addr        netip.AddrPort
	terminating bool
}

// builder gathers addresses, each once, in their order.
type builder struct {
	c       *Cluster
	seen    map[netip.AddrPort]*wanted
	list    []*wanted
	refused []Refusal
}

func (b *builder) add(a Address) {
	if a.Name == "" {
		b.addOne(a)
		return
	}
	if n := b.c.names[a.Name]; n != nil {
		for _, addr := range n.addrs {
			one := a
			one.Addr = netip.AddrPortFrom(addr, a.Port)
			b.addOne(one)
		}
	}
}

func (b *builder) addOne(a Address) {
	addr := netip.AddrPortFrom(a.Addr.Addr().Unmap(), a.Addr.Port())
	if reason := b.c.env.refuse(addr, b.c.settings.AllowLoopback, a.Pod); reason != "" {
		b.refused = append(b.refused, Refusal{Address: a, Reason: reason})
		return
	}
	if w := b.seen[addr]; w != nil {
		w.terminating = w.terminating && a.Terminating
		return
	}
	w := &wanted{addr: addr, terminating: a.Terminating}
	b.seen[addr] = w
	b.list = append(b.list, w)
}
