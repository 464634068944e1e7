package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A load is what clients do for one measurement. With a rate it is an open loop: requests are due at fixed times,
// whether or not the answers before them have come. Otherwise it is closed loops, each sending a request when it has
// its answer.
type load struct {
	address string
	host    string
	path    string
	conns   int
	tls     *tls.Config // nil: plain
	fresh   bool        // a new connection for every request
	wire    int64       // bytes of a right answer on the wire as the probe saw it; wrk's output is checked by it

	speaks  protocol
	streams int      // of one HTTP/2 connection at a time; 0 is 1
	origin  string   // of HTTP/1.1: the field Origin, as scripts of another site send it; empty: none
	upload  int      // bytes of a request's body
	targets []target // of HTTP/1.1: requests go to one of them after another, in an order of chance
	once    bool     // connections that end are not opened again, and the load ends with the last of them
	rate    float64  // requests/s over all connections; 0: closed loops

	// settle is how long after the start latencies are not counted yet: connections are made then.
	settle time.Duration
}

// A target is where a request goes.
type target struct{ host, path string }

// A protocol is what the clients of a load speak.
type protocol int

const (
	speakHTTP1 protocol = iota
	speakHTTP2
	speakGRPC // unary calls over HTTP/2
	speakWebSocket
)

// overHTTP2 says whether TLS has to agree on h2.
func (p protocol) overHTTP2() bool { return p == speakHTTP2 || p == speakGRPC }

// A loadFunc makes the load for the given time and answers what the clients saw. It returns early on ctx.
type loadFunc func(ctx context.Context, l load, total time.Duration) (loadResult, error)

// A loadResult is the clients' view of a whole run: latencies and faults. How much work the measured window held is
// the origin's to say.
type loadResult struct {
	requests  int64  // right answers
	errors    int64  // connections refused, cut, timed out; answers that break the protocol
	bad       int64  // whole answers with a wrong status or length
	due       int64  // of an open loop: requests that should have been sent
	late      int64  // of these: not sent to the end
	example   string // one of the errors
	latencies quantiles
}

// quantiles of latencies. Those of an open loop are counted from the time a request was due: what waits for a
// stalled proxy counts in full (no coordinated omission).
type quantiles struct {
	p50, p90, p99, p999 time.Duration
	curve               []curvePoint // for the plot; only the own generator has it
}

// A curvePoint is one point of a latency distribution.
type curvePoint struct {
	Percentile   float64 `json:"percentile"`
	Microseconds int64   `json:"microseconds"`
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
	histogram *hdrhistogram.Histogram
	from      time.Time     // latencies of requests before it are not counted
	now       time.Time     // of a loop: near enough for telling silence, and cheaper than to read the clock each time
	seen      *bytes.Buffer // what a probe wants to look at: bodies of answers; nil in a load
}

func newClientCount() *clientCount { return &clientCount{histogram: newLatencies()} }

// failed books an error and says whether there were too many.
func (c *clientCount) failed(err error) bool {
	c.errors++
	c.example = err.Error()
	return c.errors >= errorsMax
}

// answered books a whole answer to a request that was sent, or was due, at since.
func (c *clientCount) answered(right bool, since time.Time) {
	if !right {
		c.bad++
		return
	}
	c.requests++
	c.waited(since)
}

// waited books a latency that ends now.
func (c *clientCount) waited(since time.Time) {
	if since.Before(c.from) {
		return
	}
	us := max(1, min(time.Since(since).Microseconds(), latencyMax.Microseconds()))
	_ = c.histogram.RecordValue(us) // cannot fail within these bounds
}

// total merges clients' counts and computes the quantiles.
func total(counts ...*clientCount) loadResult {
	var sum loadResult
	latencies := newLatencies()
	for _, c := range counts {
		sum.requests += c.requests
		sum.errors += c.errors
		sum.bad += c.bad
		sum.due += c.due
		sum.late += c.late
		sum.example = cmp.Or(sum.example, c.example)
		latencies.Merge(c.histogram)
	}
	sum.latencies = quantilesOf(latencies)
	return sum
}

// curvePercentiles are the points of a latency plot: evenly spaced on its axis, which counts nines.
var curvePercentiles = []float64{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 97.5, 99, 99.5, 99.75, 99.9, 99.95, 99.99}

func quantilesOf(h *hdrhistogram.Histogram) quantiles {
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond }
	q := quantiles{p50: at(50), p90: at(90), p99: at(99), p999: at(99.9)}
	if h.TotalCount() == 0 {
		return q
	}
	for _, percentile := range curvePercentiles {
		if float64(h.TotalCount())*(100-percentile) < 100 {
			break // fewer than one request lies beyond: the point would be the maximum by another name
		}
		q.curve = append(q.curve, curvePoint{percentile, h.ValueAtQuantile(percentile)})
	}
	return q
}
