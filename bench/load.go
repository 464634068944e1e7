package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A load is what clients do for one measurement: closed loops, each sending a request when it has its answer.
type load struct {
	address string
	host    string
	path    string
	conns   int
	tls     *tls.Config // nil: plain
	fresh   bool        // a new connection for every request
	wire    int64       // bytes of a right answer on the wire as the probe saw it; wrk's output is checked by it
}

// A loadFunc makes the load for the given time and answers what the clients saw. It returns early on ctx.
type loadFunc func(ctx context.Context, l load, total time.Duration) (loadResult, error)

// A loadResult is the clients' view of a whole run, its first and last half second included: latencies and
// faults. How much work the measured window held is the origin's to say.
type loadResult struct {
	requests int64  // right answers
	errors   int64  // connections refused, cut, timed out; answers that are no HTTP
	bad      int64  // whole answers with a wrong status or length
	example  string // one of the errors
	p50, p99 time.Duration
}

const (
	latencyMax = time.Minute
	errorsMax  = 1000 // of one run; a proxy that fails this often is not measured further
)

// newLatencies counts microseconds with three digits.
func newLatencies() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, latencyMax.Microseconds(), 3)
}

// A clientCount is what one client, or several in one goroutine, counts.
type clientCount struct {
	loadResult
	latencies *hdrhistogram.Histogram
}

func newClientCount() *clientCount { return &clientCount{latencies: newLatencies()} }

// failed books an error and says whether there were too many.
func (c *clientCount) failed(err error) bool {
	c.errors++
	c.example = err.Error()
	return c.errors >= errorsMax
}

// answered books a whole answer.
func (c *clientCount) answered(a *answerParser, size int, took time.Duration) {
	if !a.right(size) {
		c.bad++
		return
	}
	c.requests++
	us := max(1, min(took.Microseconds(), latencyMax.Microseconds()))
	_ = c.latencies.RecordValue(us) // cannot fail within these bounds
}

// total merges clients' counts and computes the quantiles.
func total(counts ...*clientCount) loadResult {
	var sum loadResult
	latencies := newLatencies()
	for _, c := range counts {
		sum.requests += c.requests
		sum.errors += c.errors
		sum.bad += c.bad
		sum.example = cmp.Or(sum.example, c.example)
		latencies.Merge(c.latencies)
	}
	sum.p50 = time.Duration(latencies.ValueAtQuantile(50)) * time.Microsecond
	sum.p99 = time.Duration(latencies.ValueAtQuantile(99)) * time.Microsecond
	return sum
}
