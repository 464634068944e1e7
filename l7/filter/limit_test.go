package filter

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

// nginxBucket is nginx's limit_req with nodelay as its source describes it: the oracle of pour.
type nginxBucket struct {
	known  bool
	last   int64
	excess int64
}

func (b *nginxBucket) request(ms, rate, burst int64) bool {
	if !b.known {
		*b = nginxBucket{known: true, last: ms}
		return true
	}
	excess := max(b.excess-rate*(ms-b.last)/1000+1000, 0)
	if excess > burst {
		return false
	}
	b.excess, b.last = excess, ms
	return true
}

func TestLimitIsNginxLeakyBucket(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		per := 1 + r.IntN(20)
		multiplier := r.IntN(6)
		f := compile(t, Limit{PerSecond: per, BurstMultiplier: multiplier}).Request.(*limit)
		var oracle nginxBucket
		s := sourceOf(netip.MustParseAddr("192.0.2.1"))
		ms := int64(r.Uint32()) // times near the end of 32 bits too
		for i := range 300 {
			ms += int64(r.IntN(2) * r.IntN(400))
			got := f.pour(s, uint32(ms))
			if want := oracle.request(ms, int64(per)*1000, int64(per*multiplier)*1000); got != want {
				t.Fatalf("run %d, request %d at %d ms, %d a second, burst × %d: %v, nginx %v", n, i, ms, per, multiplier, got, want)
			}
		}
	}
}

func TestLimitBurst(t *testing.T) {
	for _, c := range []struct {
		Limit
		pass int
	}{
		{Limit{PerSecond: 1, BurstMultiplier: 5}, 6},
		{Limit{PerSecond: 10, BurstMultiplier: 5}, 51},
		{Limit{PerMinute: 3, BurstMultiplier: 2}, 7},
		{Limit{PerSecond: 2}, 1},
		{Limit{PerSecond: 10, PerMinute: 1, BurstMultiplier: 5}, 6},
		{Limit{PerSecond: 1, PerMinute: 100, BurstMultiplier: 5}, 6},
	} {
		f := compile(t, c.Limit).Request.(*limit)
		passed := 0
		for range 200 {
			if f.pour(1<<40, 5) {
				passed++
			}
		}
		if passed != c.pass {
			t.Errorf("%+v: %d pass at once, want %d", c.Limit, passed, c.pass)
		}
	}
}

// A request that the second limit refuses is not counted by the first.
func TestLimitCountsARequestInAllOrNone(t *testing.T) {
	f := compile(t, Limit{PerSecond: 100, PerMinute: 1}).Request.(*limit)
	for range 50 {
		f.pour(7, 0)
	}
	if _, excess := unpack(bucketOf(f.rates[0].table, 7, 0, 1).state.Load()); excess != 1000 {
		t.Errorf("%d thousandths in the bucket of the second, want one request", excess)
	}
}

func TestSourceOf(t *testing.T) {
	a := func(s string) source { return sourceOf(netip.MustParseAddr(s)) }
	for _, c := range []struct {
		one, two string
		same     bool
	}{
		{"192.0.2.1", "192.0.2.1", true}, {"192.0.2.1", "192.0.2.2", false}, {"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:0:0:1", true}, {"2001:db8::1", "2001:db8:0:1::1", false},
	} {
		if (a(c.one) == a(c.two)) != c.same {
			t.Errorf("%s and %s: one source %v, want %v", c.one, c.two, !c.same, c.same)
		}
	}
}

// The tables are bounded whatever comes: a million sources leave 1.3 MiB, and a source that is busy all the while
// is not forgotten.
func TestLimitTableIsBounded(t *testing.T) {
	requests := 1_000_000
	if testing.Short() {
		requests = 200_000 // still many times the table
	}
	var buckets table[bucket]
	busy := sourceOf(netip.MustParseAddr("192.0.2.7"))
	r := &rate{leak: 1000, burst: 1 << 30}
	for i := range requests {
		if i%1000 == 0 {
			bucketOf(&buckets, busy, 0, r.leak).add(0, r)
		}
		bucketOf(&buckets, source(rand.Uint64()|1), 0, r.leak).add(0, r)
	}
	if _, excess := unpack(bucketOf(&buckets, busy, 0, r.leak).state.Load()); int(excess) != requests {
		t.Errorf("the busy source has %d thousandths, want %d requests", excess, requests/1000)
	}
	bytes := uintptr(0)
	for i := range buckets.levels {
		if l := buckets.levels[i].Load(); l != nil {
			bytes += uintptr(len(*l)) * unsafe.Sizeof(bucket{})
		}
	}
	if bytes > 1400<<10 {
		t.Errorf("%d bytes", bytes)
	}
	var held table[holding]
	n := 0
	for range 200_000 {
		if _, ok := acquire(&held, source(rand.Uint64()|1), 10); ok {
			n++
		}
	}
	if n < 80_000 || n > 87_296 {
		t.Errorf("%d of 200,000 sources found room", n)
	}
}

func TestLimitConnections(t *testing.T) {
	var held table[holding]
	s := sourceOf(netip.MustParseAddr("192.0.2.1"))
	one, ok1 := acquire(&held, s, 2)
	_, ok2 := acquire(&held, s, 2)
	_, ok3 := acquire(&held, s, 2)
	_, other := acquire(&held, sourceOf(netip.MustParseAddr("192.0.2.2")), 2)
	if !ok1 || !ok2 || ok3 || !other {
		t.Fatalf("%v %v %v, another source %v", ok1, ok2, ok3, other)
	}
	one.Add(^uint64(0))
	if _, ok := acquire(&held, s, 2); !ok {
		t.Error("no room after one has ended")
	}
}

// Loops share one limit: together they let as many pass as one does.
func TestLimitIsSharedByLoops(t *testing.T) {
	f := compile(t, Limit{PerSecond: 100, BurstMultiplier: 9}).Request.(*limit)
	s := sourceOf(netip.MustParseAddr("192.0.2.1"))
	f.pour(s, 0) // its bucket is there: two loops that see a source for the first time may each make one
	var passed atomic.Int64
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 1000 {
				if f.pour(s, 0) {
					passed.Add(1)
				}
			}
		})
	}
	wait.Wait()
	if passed.Load() != 900 {
		t.Errorf("%d passed, want 900 (and one before)", passed.Load())
	}
}

// A source that several loops see for the first time in one moment has one number of requests under way, not one a loop.
func TestLimitConnectionsOfANewSource(t *testing.T) {
	const loops, limit = 4, 3
	s := sourceOf(netip.MustParseAddr("192.0.2.1"))
	for round := range 5_000 {
		var held table[holding]
		var passed atomic.Int64
		var ready, done sync.WaitGroup
		ready.Add(loops)
		for range loops {
			done.Go(func() {
				ready.Done()
				ready.Wait()
				for range limit {
					if _, ok := acquire(&held, s, limit); ok {
						passed.Add(1)
					}
				}
			})
		}
		done.Wait()
		if passed.Load() != limit {
			t.Fatalf("round %d: %d passed, want %d", round, passed.Load(), limit)
		}
	}
}

// However requests of two sources in one set come and go: no more than the limit of one are under way at a time.
func TestLimitConnectionsThatEnd(t *testing.T) {
	const limit = 2
	var held table[holding]
	var under [2]atomic.Int64
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for i := range 50_000 {
				who := i & 1
				word, ok := acquire(&held, source(who+1)<<20, limit)
				if !ok {
					continue
				}
				if n := under[who].Add(1); n > limit {
					t.Errorf("%d requests of one source under way", n)
					return
				}
				if i&6 == 0 {
					runtime.Gosched()
				}
				under[who].Add(-1)
				word.Add(^uint64(0))
			}
		})
	}
	wait.Wait()
}

func TestLimitAllocatesNothing(t *testing.T) {
	f := compile(t, Limit{PerSecond: 1 << 16, PerMinute: 1 << 16, BurstMultiplier: 20}).Request.(*limit)
	var held table[holding]
	ms := uint32(0)
	if n := testing.AllocsPerRun(1000, func() {
		ms++
		s := sourceOf(netip.MustParseAddr("192.0.2.1"))
		f.pour(s, ms)
		if word, ok := acquire(&held, s, 10); ok {
			word.Add(^uint64(0))
		}
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func TestLimitRefusesWhatItCannotCount(t *testing.T) {
	for _, c := range []Limit{{PerSecond: 1 << 20, BurstMultiplier: 1 << 10}, {Connections: 1 << 30}, {PerSecond: 1, Allow: "x"}} {
		if _, err := c.Compile(&State{}); err == nil {
			t.Errorf("%+v compiles", c)
		}
	}
}

func BenchmarkLimit(b *testing.B) {
	for _, sources := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(sources), func(b *testing.B) {
			f, _ := Limit{PerSecond: 1000, BurstMultiplier: 5}.Compile(&State{})
			l := f.Request.(*limit)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				l.pour(sourceOf(netip.AddrFrom4([4]byte{10, byte(i % sources >> 16), byte(i % sources >> 8), byte(i % sources)})), uint32(i>>10))
			}
		})
	}
}
