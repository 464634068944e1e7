package l7

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// Bounds of what is kept of one exchange and of one route.
const (
	TriesKept      = 3  // tries of one exchange that a Record keeps; of more, the last ones
	outcomesMax    = 64 // pairs of method and status that are told apart on one route and loop; more fall into OutcomeOther
	outcomesAtOnce = 8  // of these, how many one allocation has room for
)

// Record is an ended exchange as the access log and the metrics see it: plain values, and views that need to live only
// as long as the call that is given the Record. Absent text is nil.
type Record struct {
	Now    time.Time // wall time of the loop
	Format LogFormat // the exchange's Settings.AccessLogFormat

	Template *LogTemplate // … and AccessLogTemplate, which wins; nil: none
	Exchange *Exchange    // what its variables are read from; nil: nobody's

	ID *Identity // the route's identity; nil: no route was found

	Remote       netip.Addr // who the request comes from: Exchange.ClientIP
	User         []byte     // the name that authentication found
	Method       wire.Method
	MethodText   []byte // nil: no request could be read
	Target       []byte // path and query as the client spelled them
	Major, Minor uint8  // of the HTTP version; a Major of 0 reads as 1
	Host         []byte
	Server       []byte // SNI name
	TLS          bool
	Referer      []byte
	UserAgent    []byte
	RequestID    []byte
	RequestBytes int64 // head and body as received
	Tunnel       bool  // the exchange was upgraded; the numbers of bytes include the tunnel's

	Status      int
	BodyBytes   int64           // body bytes sent
	BytesSent   int64           // head and body as sent
	Duration    int64           // nanoseconds from the head's first byte to the end
	Alternative string          // name of the canary cluster that was taken instead of the rule's own; "": none was
	Err         *fastpath.Error // why the exchange did not end well; nil: it did

	Tries   [TriesKept]Try // by AddTry
	Tried   int            // tries in all
	Removed int            // … that were given up because their endpoint was removed
}

// Try is one attempt to have an exchange answered by an endpoint.
type Try struct {
	Addr   netip.AddrPort
	Status int             // 0: no head came
	Bytes  int64           // body bytes read
	Time   int64           // nanoseconds from asking for a session to the response's end; -1: never connected
	Err    *fastpath.Error // nil: the endpoint did its part
}

// AddTry notes another try, the last one so far.
func (r *Record) AddTry(t Try) {
	if r.Tried >= TriesKept {
		copy(r.Tries[:], r.Tries[1:])
		r.Tries[TriesKept-1] = t
	} else {
		r.Tries[r.Tried] = t
	}
	r.Tried++
}

// tries returns the tries that are kept.
func (r *Record) tries() []Try { return r.Tries[:min(r.Tried, TriesKept)] }

// Counter only grows. It is written by one goroutine, its loop's, with a plain load and store, and read by anybody.
type Counter struct{ n atomic.Uint64 }

// Inc adds one. By the owner only.
func (c *Counter) Inc() { c.n.Store(c.n.Load() + 1) }

// Add adds n; less than nothing counts as nothing. By the owner only.
func (c *Counter) Add(n int64) { c.n.Store(c.n.Load() + uint64(max(n, 0))) }

// Load is the present value.
func (c *Counter) Load() uint64 { return c.n.Load() }

// Gauge goes up and down; otherwise it is like Counter.
type Gauge struct{ n atomic.Int64 }

// Add adds d, which may be negative. By the owner only.
func (g *Gauge) Add(d int64) { g.n.Store(g.n.Load() + d) }

// Load is the present value.
func (g *Gauge) Load() int64 { return g.n.Load() }

// LoopStats are what the HTTP engines count on one loop. That loop alone writes them; anybody reads them.
type LoopStats struct {
	_ cacheLine // a loop's counters share no cache line with another's

	Open    Gauge // client connections that an engine leads; an upgraded one is a tunnel instead
	Active  Gauge // exchanges under way, tunnels included
	Tunnels Gauge // upgraded connections

	Opened   Counter // connections that an engine took up; the door counts those that it accepted
	Shed     Counter // idle connections that were closed because a limit of the process was near
	Upgraded Counter // tunnels begun

	StreamsRefused Counter // HTTP/2 streams beyond the limit
	Abusive        Counter // HTTP/2 connections that were ended with ENHANCE_YOUR_CALM

	Exchanges       Counter // ended exchanges
	BytesReceived   Counter // from clients by ended exchanges
	BytesSent       Counter // to clients by ended exchanges
	TunnelBytesUp   Counter // from clients by ended exchanges that became tunnels
	TunnelBytesDown Counter // to clients by ended exchanges that became tunnels

	Mirrors [mirrorResults]Counter         // copies of requests, by what became of them
	Limited [limitKinds]Counter            // requests that a limit of their source refused
	Refused [kindCount]Counter             // requests that were answered without being looked at further: malformed, too large, …
	Errors  [faultCount][kindCount]Counter // exchanges that did not end well, refused ones included

	_ cacheLine
}

type cacheLine [64]byte

const faultCount = int(fastpath.FaultBackend) + 1

// Stats are the counters of all HTTP engines: a block per loop. The methods that take a loop's ID are called on that loop.
type Stats struct {
	NoRoute   *RouteStats // exchanges for which no route was found; refused requests are among them
	RoutesOff bool        // nobody reads RouteStats, and none are counted; set before the first exchange
	loops     []LoopStats
}

// NewStats makes the blocks for loops 0 … loops-1.
func NewStats(loops int) *Stats {
	return &Stats{NoRoute: NewRouteStats(Identity{}, loops), loops: make([]LoopStats, loops)}
}

// Loops are the blocks, one a loop, for reading.
func (s *Stats) Loops() []LoopStats { return s.loops }

// ConnOpened counts a connection that an engine took up; ConnClosed follows.
func (s *Stats) ConnOpened(loop int) {
	s.loops[loop].Opened.Inc()
	s.loops[loop].Open.Add(1)
}

// ConnShed counts an idle connection that is closed because a limit of the process is near; ConnClosed follows.
func (s *Stats) ConnShed(loop int) { s.loops[loop].Shed.Inc() }

// StreamRefused counts an HTTP/2 stream beyond the limit.
func (s *Stats) StreamRefused(loop int) { s.loops[loop].StreamsRefused.Inc() }

// Abused counts an HTTP/2 connection that is ended because its client misbehaves.
func (s *Stats) Abused(loop int) { s.loops[loop].Abusive.Inc() }

// ConnClosed is the end of a connection that was told to ConnOpened, as far as its engine goes: closed, or upgraded.
func (s *Stats) ConnClosed(loop int) { s.loops[loop].Open.Add(-1) }

// ExchangeBegan counts an exchange as under way; Record ends it.
func (s *Stats) ExchangeBegan(loop int) { s.loops[loop].Active.Add(1) }

// Refused counts a request that is answered by an error without being looked at further.
func (s *Stats) Refused(loop int, kind fastpath.Kind) { s.loops[loop].Refused[kind].Inc() }

// LimitKind is what a source had too much of.
type LimitKind uint8

const (
	LimitRate        LimitKind = iota // requests a second or minute
	LimitConnections                  // requests at a time
	limitKinds
)

// MirrorResult is what became of a copy.
type MirrorResult uint8

const (
	MirrorSent    MirrorResult = iota // it was answered
	MirrorFailed                      // it could not be sent, or was not answered
	MirrorDropped                     // it was not made: too many are under way, the body is too long, an upgrade
	mirrorResults
)

// CountLimited counts the exchange as refused by a limit of its source.
func (x *Exchange) CountLimited(k LimitKind) { x.local.srv.Stats.loops[x.loop.ID].Limited[k].Inc() }

// TunnelOpened counts an upgraded exchange; TunnelClosed follows, then Record.
func (s *Stats) TunnelOpened(loop int) {
	s.loops[loop].Upgraded.Inc()
	s.loops[loop].Tunnels.Add(1)
}

// TunnelClosed ends what TunnelOpened counted.
func (s *Stats) TunnelClosed(loop int) { s.loops[loop].Tunnels.Add(-1) }

// Active is how many exchanges are under way on all loops.
func (s *Stats) Active() (n int64) {
	for i := range s.loops {
		n += s.loops[i].Active.Load()
	}
	return n
}

// Tunnels is how many upgraded connections there are on all loops.
func (s *Stats) Tunnels() (n int64) {
	for i := range s.loops {
		n += s.loops[i].Tunnels.Load()
	}
	return n
}

// Record counts the end of an exchange: for its loop, and for its route (nil: none was found).
func (s *Stats) Record(loop int, route *RouteStats, r *Record) {
	l := &s.loops[loop]
	l.Active.Add(-1)
	l.Exchanges.Inc()
	if r.Tunnel {
		l.TunnelBytesUp.Add(r.RequestBytes)
		l.TunnelBytesDown.Add(r.BytesSent)
	} else {
		l.BytesReceived.Add(r.RequestBytes)
		l.BytesSent.Add(r.BytesSent)
	}
	if e := r.Err; e != nil {
		l.Errors[e.Fault][e.Kind].Inc()
	}
	if s.RoutesOff {
		return
	}
	if route == nil {
		route = s.NoRoute
	}
	route.Record(loop, r)
}

// StatsIdentity is the identity that routes share their RouteStats by: an Ingress and a Service's port, and the host
// pattern only when perHost (--metrics-per-host) asks for it. The path never counts: it would make a series of each.
func (id Identity) StatsIdentity(perHost bool) Identity {
	id.Path = ""
	if !perHost {
		id.Host = ""
	}
	return id
}

// RouteStats are the counters of one StatsIdentity. They outlive snapshots. Each loop has a block of its own, made at
// its first exchange; it writes there without a lock or an atomic read-modify-write, and a scrape adds the blocks up.
type RouteStats struct {
	ID      Identity
	buckets *Buckets
	blocks  []atomic.Pointer[routeBlock]
}

// NewRouteStats makes the counters of id, a StatsIdentity, for loops 0 … loops-1.
func NewRouteStats(id Identity, loops int) *RouteStats {
	return &RouteStats{ID: id, buckets: defaultBuckets, blocks: make([]atomic.Pointer[routeBlock], loops)}
}

// SetBuckets chooses the histograms' buckets, before the first exchange; nil: they stay as they are.
func (s *RouteStats) SetBuckets(b *Buckets) {
	if b != nil {
		s.buckets = b
	}
}

// routeBlock is one loop's share of RouteStats.
type routeBlock struct {
	duration     histogram
	response     histogram
	requestBytes Counter
	bytesSent    Counter
	retries      Counter

	requestLength, responseLength, sentSize spread // of requestBytes, and of bytesSent

	backendErrors [kindCount]Counter
	other         Counter // outcomes beyond outcomesMax
	outcomes      outcomes
	_             cacheLine
}

// outcomes counts exchanges by method and status. Few of the possible pairs occur on one route, mostly the same one, so
// a chain of short lists is both small and fast. Slots fill from the front and never change their key.
type outcomes struct {
	slots [outcomesAtOnce]struct {
		key atomic.Uint32 // outcomeKey; 0: free
		n   Counter
	}
	next atomic.Pointer[outcomes]
}

// Record counts an ended exchange. On the loop only.
func (s *RouteStats) Record(loop int, r *Record) {
	b := s.blocks[loop].Load()
	if b == nil {
		b = newRouteBlock(s.buckets)
		s.blocks[loop].Store(b)
	}
	b.count(outcomeKey(r.Method, r.Status)).Inc()
	b.duration.observe(r.Duration)
	b.requestBytes.Add(r.RequestBytes)
	b.bytesSent.Add(r.BytesSent)
	b.requestLength.observe(r.RequestBytes)
	b.responseLength.observe(r.BytesSent)
	b.sentSize.observe(r.BytesSent)
	if r.Tried > 0 {
		b.tried(r)
	}
}

// tried counts what the endpoints did.
func (b *routeBlock) tried(r *Record) {
	tries := r.tries()
	if last := &tries[len(tries)-1]; last.Time >= 0 {
		b.response.observe(last.Time)
	}
	if n := r.Tried - 1 - r.Removed; n > 0 {
		b.retries.Add(int64(n))
	}
	for i := range tries {
		if e := tries[i].Err; e != nil && e != upstream.ErrRemoved {
			b.backendErrors[e.Kind].Inc()
		}
	}
}

const outcomeTaken = 1 << 31

func outcomeKey(m wire.Method, status int) uint32 {
	return outcomeTaken | uint32(m)<<16 | uint32(uint16(status))
}

// count finds the counter of a key, or makes it.
func (b *routeBlock) count(key uint32) *Counter {
	for o, n := &b.outcomes, 0; ; n += outcomesAtOnce {
		for i := range o.slots {
			s := &o.slots[i]
			switch s.key.Load() {
			case key:
				return &s.n
			case 0:
				s.key.Store(key)
				return &s.n
			}
		}
		next := o.next.Load()
		if next == nil {
			if n+outcomesAtOnce >= outcomesMax {
				return &b.other
			}
			next = new(outcomes)
			o.next.Store(next)
		}
		o = next
	}
}

// RouteCounts are the sums of RouteStats at one moment. Counters of different kinds may be one exchange apart.
type RouteCounts struct {
	Requests      map[Outcome]uint64
	Duration      Histogram // of exchanges, as the client saw them
	Response      Histogram // of the last try's answer
	RequestBytes  uint64
	BytesSent     uint64
	Retries       uint64
	BackendErrors [kindCount]uint64 // failed tries by fastpath.Kind

	Buckets                                 *Buckets // of the histograms
	RequestLength, ResponseLength, SentSize []uint64 // exchanges by the buckets of these and, last, in none of them; nil: there are no buckets
}

// Outcome is what exchanges are told apart by. OutcomeOther stands for all that no room was left for.
type Outcome struct {
	Method wire.Method
	Status int
}

// OutcomeOther counts exchanges whose own outcome had no room.
var OutcomeOther = Outcome{wire.MethodOther, 0}

// Snapshot is the present sums. From any goroutine.
func (s *RouteStats) Snapshot() *RouteCounts {
	c := new(RouteCounts)
	s.AddTo(c)
	return c
}

// AddTo adds the present sums to c, so that several RouteStats may be shown as one.
func (s *RouteStats) AddTo(c *RouteCounts) {
	if c.Requests == nil {
		c.Requests = make(map[Outcome]uint64)
	}
	c.Buckets = s.buckets
	for i := range s.blocks {
		if b := s.blocks[i].Load(); b != nil {
			b.addTo(c)
		}
	}
}

func (b *routeBlock) addTo(c *RouteCounts) {
	for o := &b.outcomes; o != nil; o = o.next.Load() {
		for i := range o.slots {
			if key := o.slots[i].key.Load(); key != 0 {
				c.Requests[Outcome{wire.Method(key &^ outcomeTaken >> 16), int(uint16(key))}] += o.slots[i].n.Load()
			}
		}
	}
	if n := b.other.Load(); n > 0 {
		c.Requests[OutcomeOther] += n
	}
	b.duration.addTo(&c.Duration)
	b.response.addTo(&c.Response)
	b.requestLength.addTo(&c.RequestLength)
	b.responseLength.addTo(&c.ResponseLength)
	b.sentSize.addTo(&c.SentSize)
	c.RequestBytes += b.requestBytes.Load()
	c.BytesSent += b.bytesSent.Load()
	c.Retries += b.retries.Load()
	for k := range b.backendErrors {
		c.BackendErrors[k] += b.backendErrors[k].Load()
	}
}
