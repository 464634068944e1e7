package l7

import (
	"slices"
	"testing"
	"time"
)

func TestHistogramBounds(t *testing.T) {
	for i, bound := range defaultBuckets.times {
		h := &newRouteBlock(defaultBuckets).duration
		h.observe(bound)
		h.observe(bound + 1)
		var got Histogram
		h.addTo(&got)
		if got.Counts[i] != 1 || got.Counts[i+1] != 1 || got.Sum != time.Duration(2*bound+1) {
			t.Errorf("%v and a nanosecond more fell into %+v", time.Duration(bound), got)
		}
	}
	h := &newRouteBlock(defaultBuckets).duration
	h.observe(-5) // a clock that went wrong must not turn the sum back
	if h.sum.Load() != 0 || h.counts[0].Load() != 1 {
		t.Errorf("less than nothing fell into %+v", h)
	}
}

// TestBuckets has each histogram count by its own bounds, on several loops, and without an allocation once a loop has its
// block.
func TestBuckets(t *testing.T) {
	s := NewRouteStats(shop, 2)
	s.SetBuckets(NewBuckets([]float64{0.3, 1.1}, []float64{10, 20.5}, []float64{1000}))
	s.SetBuckets(nil)
	r := &Record{Duration: int64(300 * time.Millisecond), RequestBytes: 20, BytesSent: 1001, Tried: 1, Tries: [TriesKept]Try{{Time: int64(1100*time.Millisecond) + 1}}}
	s.Record(0, r)
	s.Record(1, r)
	r.Duration, r.RequestBytes, r.BytesSent = r.Duration+1, 21, 10
	s.Record(0, r)
	c := s.Snapshot()
	for name, of := range map[string]struct{ got, want []uint64 }{
		"durations": {c.Duration.Counts, []uint64{2, 1, 0}}, "response times": {c.Response.Counts, []uint64{0, 0, 3}},
		"request lengths": {c.RequestLength, []uint64{0, 2, 1}}, "response lengths": {c.ResponseLength, []uint64{1, 0, 2}},
		"sizes": {c.SentSize, []uint64{1, 2}},
	} {
		if !slices.Equal(of.got, of.want) {
			t.Errorf("%s are %v, want %v", name, of.got, of.want)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { s.Record(0, r) }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
	plain := NewRouteStats(shop, 1)
	plain.Record(0, r)
	if c := plain.Snapshot(); c.RequestLength != nil || c.ResponseLength != nil || c.SentSize != nil || len(c.Duration.Counts) != len(TimeBuckets)+1 {
		t.Errorf("without a word on buckets there are %+v", c)
	}
}

func TestBoundsAreWhole(t *testing.T) {
	if got := whole([]float64{0.000000001, 0.1, 0.7, 1.1, 2.675, 1e300}, 1e9); !slices.Equal(got, []int64{1, 1e8, 7e8, 11e8, 2675e6, 1<<63 - 1}) {
		t.Errorf("%v", got)
	}
	if got := whole([]float64{0, 0.5, 10.9}, 1); !slices.Equal(got, []int64{0, 0, 10}) {
		t.Errorf("%v", got)
	}
}
