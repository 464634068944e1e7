package l7

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

var shop = Identity{Namespace: "shop", Ingress: "web", Service: "front", Port: "http", Host: "shop.example", Path: "/a"}

func TestStatsIdentity(t *testing.T) {
	want := Identity{Namespace: "shop", Ingress: "web", Service: "front", Port: "http"}
	if got := shop.StatsIdentity(false); got != want {
		t.Errorf("without hosts: %+v", got)
	}
	want.Host = "shop.example"
	if got := shop.StatsIdentity(true); got != want {
		t.Errorf("with hosts: %+v", got)
	}
}

func TestAddTryKeepsTheLast(t *testing.T) {
	for n := range 6 {
		var r Record
		for i := range n {
			r.AddTry(Try{Status: i + 1})
		}
		kept := r.tries()
		if r.Tried != n || len(kept) != min(n, TriesKept) {
			t.Fatalf("after %d tries: %d counted, %d kept", n, r.Tried, len(kept))
		}
		for i, k := range kept {
			if want := n - len(kept) + i + 1; k.Status != want {
				t.Errorf("after %d tries: kept[%d] is try %d, want %d", n, i, k.Status, want)
			}
		}
	}
}

// TestRouteStatsSums has every loop write while a scrape reads; -race judges the first, the sums the second.
func TestRouteStatsSums(t *testing.T) {
	const loops, each = 4, 2000
	s := NewRouteStats(shop.StatsIdentity(false), loops)
	records := []Record{
		{Method: wire.MethodGet, Status: 200, Duration: int64(3 * time.Millisecond), RequestBytes: 10, BytesSent: 100},
		{Method: wire.MethodGet, Status: 404, Duration: int64(10 * time.Millisecond), RequestBytes: 10, BytesSent: 50},
		{Method: wire.MethodPost, Status: 200, Duration: int64(time.Minute), RequestBytes: 1000, BytesSent: 20},
		{Method: wire.MethodPost, Status: 502, Duration: int64(time.Second), RequestBytes: 1000, BytesSent: 20, Tried: 2,
			Tries: [TriesKept]Try{{Time: -1, Err: fastpath.ErrRefused}, {Time: int64(time.Second), Err: fastpath.ErrReset}}},
	}
	var wg sync.WaitGroup
	for loop := range loops {
		wg.Go(func() {
			for i := range each {
				s.Record(loop, &records[i%len(records)])
			}
		})
	}
	for range 50 {
		s.Snapshot()
	}
	wg.Wait()

	c := s.Snapshot()
	const quarter = loops * each / 4
	for o, want := range map[Outcome]uint64{{wire.MethodGet, 200}: quarter, {wire.MethodGet, 404}: quarter,
		{wire.MethodPost, 200}: quarter, {wire.MethodPost, 502}: quarter, OutcomeOther: 0} {
		if c.Requests[o] != want {
			t.Errorf("%v: %d requests, want %d", o, c.Requests[o], want)
		}
	}
	wantDuration := Histogram{Counts: make([]uint64, len(TimeBuckets)+1), Sum: quarter * (time.Minute + time.Second + 13*time.Millisecond)}
	wantDuration.Counts[0], wantDuration.Counts[1], wantDuration.Counts[7] = quarter, quarter, quarter
	wantDuration.Counts[len(TimeBuckets)] = quarter
	if !reflect.DeepEqual(c.Duration, wantDuration) {
		t.Errorf("durations are %+v, want %+v", c.Duration, wantDuration)
	}
	if c.Response.Counts[7] != quarter || c.Response.Sum != quarter*time.Second {
		t.Errorf("response times are %+v", c.Response)
	}
	if c.RequestBytes != quarter*2020 || c.BytesSent != quarter*190 || c.Retries != quarter {
		t.Errorf("%d bytes received, %d sent, %d retries", c.RequestBytes, c.BytesSent, c.Retries)
	}
	if c.BackendErrors[fastpath.KindRefused] != quarter || c.BackendErrors[fastpath.KindReset] != quarter {
		t.Errorf("backend errors are %v", c.BackendErrors)
	}
}

// TestOutcomesAreBounded lets a client and a backend choose any method and status: no count is lost, and no more than
// the maximum is told apart.
func TestOutcomesAreBounded(t *testing.T) {
	s := NewRouteStats(Identity{}, 1)
	told := map[Outcome]uint64{}
	random := rand.New(rand.NewPCG(1, 2))
	const n = 20_000
	for range n {
		r := Record{Method: wire.Method(random.IntN(int(wire.MethodConnect) + 1)), Status: 100 + random.IntN(500)}
		s.Record(0, &r)
		told[Outcome{r.Method, r.Status}]++
	}
	c := s.Snapshot()
	var sum uint64
	for o, got := range c.Requests {
		sum += got
		if o != OutcomeOther && got != told[o] {
			t.Errorf("%v: %d, want %d", o, got, told[o])
		}
	}
	if sum != n || len(c.Requests) != outcomesMax+1 {
		t.Errorf("%d requests in %d outcomes, want %d in %d", sum, len(c.Requests), n, outcomesMax+1)
	}
}

func TestStatsFollowAnExchange(t *testing.T) {
	s := NewStats(2)
	route := NewRouteStats(shop.StatsIdentity(false), 2)

	s.ConnOpened(1)
	s.ExchangeBegan(1)
	if s.Active() != 1 || s.Loops()[1].Open.Load() != 1 {
		t.Errorf("%d exchanges on %d connections, want 1 on 1", s.Active(), s.Loops()[1].Open.Load())
	}
	s.Record(1, route, &Record{Status: 200, RequestBytes: 7, BytesSent: 9})

	s.ExchangeBegan(1)
	s.TunnelOpened(1)
	if s.Tunnels() != 1 || s.Active() != 1 {
		t.Errorf("%d tunnels, %d exchanges, want 1 and 1", s.Tunnels(), s.Active())
	}
	s.TunnelClosed(1)
	s.Record(1, route, &Record{Status: 101, RequestBytes: 100, BytesSent: 200, Tunnel: true})

	s.ExchangeBegan(1)
	s.Refused(1, fastpath.KindMalformed)
	s.Record(1, nil, &Record{Status: 400, Err: wire.ErrHost})
	s.ConnShed(1)
	s.ConnClosed(1)

	l := &s.Loops()[1]
	got := []uint64{l.Opened.Load(), l.Shed.Load(), uint64(l.Open.Load()),
		uint64(s.Active()), uint64(s.Tunnels()), l.Upgraded.Load(), l.Exchanges.Load(),
		l.BytesReceived.Load(), l.BytesSent.Load(), l.TunnelBytesUp.Load(), l.TunnelBytesDown.Load(),
		l.Refused[fastpath.KindMalformed].Load(), l.Errors[fastpath.FaultClient][fastpath.KindMalformed].Load()}
	want := []uint64{1, 1, 0, 0, 0, 1, 3, 7, 9, 100, 200, 1, 1}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("counters are %v, want %v", got, want)
		}
	}
	if n := s.NoRoute.Snapshot().Requests[Outcome{wire.MethodOther, 400}]; n != 1 {
		t.Errorf("%d requests without a route, want 1", n)
	}
	if n := len(route.Snapshot().Requests); n != 2 {
		t.Errorf("the route has %d outcomes, want 2", n)
	}
}

// usual is an exchange as most are.
func usual() *Record {
	r := &Record{
		Now: time.Unix(1_795_000_000, 123_456_789).In(time.FixedZone("", 3600)), ID: &shop,
		Remote: netip.MustParseAddr("192.0.2.7"), Method: wire.MethodGet, MethodText: []byte("GET"),
		Target: []byte("/a/b?c=d"), Minor: 1, Host: []byte("shop.example"), Referer: []byte("https://shop.example/"),
		UserAgent: []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"), RequestID: []byte("4e1f0c5a9b2d4c6f8a7b6c5d4e3f2a1b"),
		RequestBytes: 431, Status: 200, BodyBytes: 1024, BytesSent: 1301, Duration: int64(2345 * time.Microsecond),
	}
	r.AddTry(Try{Addr: netip.MustParseAddrPort("10.0.0.3:8080"), Status: 200, Bytes: 1024, Time: int64(2100 * time.Microsecond)})
	return r
}

func TestStatsRecordAllocatesNothing(t *testing.T) {
	s, route, r := NewStats(1), NewRouteStats(shop, 1), usual()
	s.Record(0, route, r)
	if n := testing.AllocsPerRun(1000, func() { s.Record(0, route, r) }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

// TestRoutesOff: without metrics nothing is counted by route, and no block is made for it; what the drain goes by is.
func TestRoutesOff(t *testing.T) {
	s, route := NewStats(1), NewRouteStats(shop, 1)
	s.RoutesOff = true
	for _, r := range []*RouteStats{route, nil} {
		s.ExchangeBegan(0)
		s.Record(0, r, usual())
	}
	if route.blocks[0].Load() != nil || s.NoRoute.blocks[0].Load() != nil {
		t.Error("a route has counters")
	}
	if l := &s.loops[0]; l.Active.Load() != 0 || l.Exchanges.Load() != 2 {
		t.Errorf("%d under way, %d ended", l.Active.Load(), l.Exchanges.Load())
	}
}

func BenchmarkRouteStatsRecord(b *testing.B) {
	s, r := NewRouteStats(shop, 1), usual()
	for b.Loop() {
		s.Record(0, r)
	}
}

func BenchmarkStatsRecord(b *testing.B) {
	s, route, r := NewStats(1), NewRouteStats(shop, 1), usual()
	for b.Loop() {
		s.Record(0, route, r)
	}
}
