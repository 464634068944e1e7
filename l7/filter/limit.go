package filter

import (
	"fmt"
	"time"

	"github.com/sluiceproxy/sluice/l7"
)

// Limit bounds the requests of one source, an IPv4 address or an IPv6 /64: how many a second and a minute, as nginx's
// limit_req with nodelay does (a leaky bucket: Burst beyond the first one pass at once), and how many at a time, as its
// limit_conn. What it remembers belongs to the owning object: a changed number keeps it.
type Limit struct {
	PerSecond, PerMinute int // requests; 0: no limit
	Connections          int // requests under way; 0: no limit
	BurstMultiplier      int // how many times PerSecond and PerMinute may come at once beyond the first request
	Allow                string
	Status               int // of a request too many; 0: 503
	ConnectionStatus     int // of a request too many at a time; 0: 503
}

// Stage is before access: requests without authentication count.
func (Limit) Stage() Stage { return PreAccess }

// limitStatus is nginx's limit_req_status and limit_conn_status.
const limitStatus = 503

// Roles of the states.
const (
	roleSecond     = "limit per second"
	roleMinute     = "limit per minute"
	roleConnection = "limit at a time"
)

// Compile finds the tables of the owner.
func (c Limit) Compile(s *State) (l7.Filter, error) {
	allow, err := ParsePrefixes(c.Allow)
	if err != nil {
		return l7.Filter{}, fmt.Errorf("allow list of limits: %w", err)
	}
	if c.Connections > holdingMax {
		return l7.Filter{}, fmt.Errorf("%d requests at a time are more than can be counted; at most %d", c.Connections, holdingMax)
	}
	f := &limit{allow: newPrefixSet(allow), connections: uint64(max(c.Connections, 0)), status: c.Status, connectionStatus: c.ConnectionStatus}
	if f.status == 0 {
		f.status = limitStatus
	}
	if f.connectionStatus == 0 {
		f.connectionStatus = limitStatus
	}
	for _, z := range []struct {
		role     string
		n, scale int
	}{{roleSecond, c.PerSecond, 1}, {roleMinute, c.PerMinute, 60}} {
		if z.n <= 0 {
			continue
		}
		burst := uint64(z.n) * uint64(max(c.BurstMultiplier, 0)) * 1000
		if burst > 1<<31 {
			return l7.Filter{}, fmt.Errorf("a burst of %d requests is more than can be counted; at most %d", burst/1000, 1<<31/1000)
		}
		f.rates = append(f.rates, rate{
			table: s.Get(z.role, func() any { return new(table[bucket]) }).(*table[bucket]),
			leak:  uint64(z.n) * 1000 / uint64(z.scale),
			burst: uint32(burst),
		})
	}
	if f.connections > 0 {
		f.held = s.Get(roleConnection, func() any { return new(table[holding]) }).(*table[holding])
	}
	return l7.Filter{Request: f}, nil
}

type limit struct {
	allow            prefixSet
	rates            []rate // at most two
	held             *table[holding]
	connections      uint64
	status           int
	connectionStatus int
}

type rate struct {
	table *table[bucket]
	leak  uint64 // thousandths of requests a second
	burst uint32 // thousandths
}

// Request counts as nginx does: requests a second and minute first, then those at a time; a request that one limit
// refuses is not counted by the others before it.
func (f *limit) Request(x *l7.Exchange) l7.Verdict {
	if f.allow.contains(x.ClientIP) {
		return l7.Continue
	}
	s := sourceOf(x.ClientIP)
	if len(f.rates) > 0 && !f.pour(s, uint32(x.Loop().Now()/int64(time.Millisecond))) {
		x.CountLimited(l7.LimitRate)
		x.Respond(f.status, nil)
		return l7.Respond
	}
	if f.held == nil {
		return l7.Continue
	}
	word, ok := acquire(f.held, s, f.connections)
	if !ok {
		x.CountLimited(l7.LimitConnections)
		x.Respond(f.connectionStatus, nil)
		return l7.Respond
	}
	x.Hold(word)
	return l7.Continue
}

// pour puts a request into each of the source's buckets, or into none if one would overflow.
func (f *limit) pour(s source, ms uint32) bool {
	var buckets [2]*bucket
	for i := range f.rates {
		r := &f.rates[i]
		buckets[i] = bucketOf(r.table, s, ms, r.leak)
		if i == len(f.rates)-1 {
			break
		}
		if _, ok := buckets[i].excess(ms, r); !ok {
			return false
		}
	}
	last := len(f.rates) - 1
	if !buckets[last].add(ms, &f.rates[last]) {
		return false
	}
	for i := range last {
		buckets[i].add(ms, &f.rates[i])
	}
	return true
}

// excess is how full the bucket would be with one request more; false: too full.
func (b *bucket) excess(ms uint32, r *rate) (uint32, bool) {
	excess := drained(b.state.Load(), ms, r.leak)
	return excess, excess <= r.burst
}

// add pours one request in; false: it would overflow.
func (b *bucket) add(ms uint32, r *rate) bool {
	for {
		old := b.state.Load()
		excess := drained(old, ms, r.leak)
		if excess > r.burst {
			return false
		}
		if b.state.CompareAndSwap(old, pack(ms, excess+1000)) {
			return true
		}
	}
}
