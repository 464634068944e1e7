package l7

import (
	"math"
	"slices"
	"time"
)

// TimeBuckets are the upper bounds of the histograms of times, in seconds, where nothing else is said: Prometheus' and
// ingress-nginx's defaults.
var TimeBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// Buckets are the upper bounds of a route's histograms, each list in ascending order. Nobody writes to them.
type Buckets struct {
	Times   []float64 // seconds: of exchanges, and of backends' answers
	Lengths []float64 // bytes: of requests, and of responses; nil: these are counted without buckets
	Sizes   []float64 // bytes sent; nil: likewise

	times, lengths, sizes []int64 // the same, in nanoseconds and bytes
}

// NewBuckets makes Buckets; nil for times are TimeBuckets.
func NewBuckets(times, lengths, sizes []float64) *Buckets {
	if times == nil {
		times = TimeBuckets
	}
	return &Buckets{Times: times, Lengths: lengths, Sizes: sizes,
		times: whole(times, float64(time.Second)), lengths: whole(lengths, 1), sizes: whole(sizes, 1)}
}

var defaultBuckets = NewBuckets(nil, nil, nil)

// whole gives bounds in a smaller unit. What is measured are whole numbers of it, so that a bound's fraction is nothing;
// but a fraction that only binary numbers have is rounded. nil stays nil.
func whole(bounds []float64, unit float64) []int64 {
	if bounds == nil {
		return nil
	}
	list := make([]int64, len(bounds))
	for i, b := range bounds {
		n := b * unit
		if near := math.Round(n); math.Abs(n-near) < 1e-3 {
			n = near
		}
		if list[i] = math.MaxInt64; n < math.MaxInt64 {
			list[i] = int64(n)
		}
	}
	return list
}

// spread counts values by their buckets. Its loop writes it.
type spread struct {
	bounds []int64
	counts []Counter // one more than bounds; nil: nothing is counted
}

// cut takes the counters of a spread from the front of a slab.
func cut(slab *[]Counter, bounds []int64) spread {
	n := len(bounds) + 1
	s := spread{bounds, (*slab)[:n:n]}
	*slab = (*slab)[n:]
	return s
}

func (s *spread) observe(v int64) {
	if s.counts == nil {
		return
	}
	i := 0
	for i < len(s.bounds) && v > s.bounds[i] {
		i++
	}
	s.counts[i].Inc()
}

// addTo adds the counts to those of the same buckets.
func (s *spread) addTo(counts *[]uint64) {
	if *counts == nil && s.counts != nil {
		*counts = make([]uint64, len(s.counts))
	}
	for i := range s.counts {
		(*counts)[i] += s.counts[i].Load()
	}
}

// Histogram is a time histogram at one moment: how many values were in each of Buckets.Times and, last, in none of them.
type Histogram struct {
	Counts []uint64
	Sum    time.Duration
}

// histogram is a Histogram that its loop writes.
type histogram struct {
	spread
	sum Counter // nanoseconds
}

func (h *histogram) observe(ns int64) {
	h.spread.observe(ns)
	h.sum.Add(ns)
}

func (h *histogram) addTo(s *Histogram) {
	h.spread.addTo(&s.Counts)
	s.Sum += time.Duration(h.sum.Load())
}

// newRouteBlock makes a loop's share, its counters of all buckets side by side.
func newRouteBlock(b *Buckets) *routeBlock {
	n := 2 * (len(b.times) + 1)
	if b.lengths != nil {
		n += 2 * (len(b.lengths) + 1)
	}
	if b.sizes != nil {
		n += len(b.sizes) + 1
	}
	slab := slices.Grow([]Counter(nil), n+len(cacheLine{})/8)[:n] // what is behind it is no other loop's
	block := new(routeBlock)
	block.duration.spread, block.response.spread = cut(&slab, b.times), cut(&slab, b.times)
	if b.lengths != nil {
		block.requestLength, block.responseLength = cut(&slab, b.lengths), cut(&slab, b.lengths)
	}
	if b.sizes != nil {
		block.sentSize = cut(&slab, b.sizes)
	}
	return block
}
