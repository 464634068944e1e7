package l7

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// wantedTry is what is to be recorded of a try: how long it lasted at least and at most, less than 0: it never connected.
type wantedTry struct {
	atLeast, atMost time.Duration
	status          int
	kind            fastpath.Kind // KindNone: the endpoint did its part
}

// TestRecordOfTries: log and metrics learn of every try how long it lasted once it was connected, and how it failed; also
// of the last one.
func TestRecordOfTries(t *testing.T) {
	const never = -1
	refused := func(r *rig) { r.refusing() }
	serving := func(serve func(*peer)) func(*rig) { return func(r *rig) { r.backend(serve) } }
	hangs := wantedTry{far, 100 * far, 0, fastpath.KindTimeout}
	silent := func(bytes string) func(*rig) {
		return func(r *rig) { r.backend(once(r.silent(bytes))) }
	}
	fails := answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	for _, c := range []struct {
		name     string
		backends []func(*rig) // asked in this order
		change   func(*rig)
		status   int
		want     []wantedTry
	}{
		{"answered", []func(*rig){serving(mirror)}, nil, 200, []wantedTry{{0, patience, 200, 0}}},
		{"refused", []func(*rig){refused}, nil, 502, []wantedTry{{never, never, 0, fastpath.KindRefused}}},
		{"silent", []func(*rig){silent("")}, nil, 504, []wantedTry{hangs}},
		{"cut before the head", []func(*rig){silent("HTTP/1.1 2")}, nil, 504, []wantedTry{hangs}},
		{"garbage", []func(*rig){serving(once(says("hello\r\n\r\n")))}, nil, 502, []wantedTry{{0, patience, 0, fastpath.KindMalformed}}},
		{"cut after the head", []func(*rig){serving(once(func(p *peer) { p.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") }))},
			nil, 200, []wantedTry{{0, patience, 200, fastpath.KindEOF}}},
		{"silent after the head", []func(*rig){silent("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")}, nil, 200,
			[]wantedTry{{far, 100 * far, 200, fastpath.KindTimeout}}},
		{"large body cut", []func(*rig){serving(once(func(p *peer) {
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + strings.Repeat("m", 1<<20))
		}))}, nil, 200, []wantedTry{{0, patience, 200, fastpath.KindEOF}}},
		{"refused, silent, answered", []func(*rig){refused, silent(""), serving(mirror)}, nil, 200,
			[]wantedTry{{never, never, 0, fastpath.KindRefused}, hangs, {0, patience, 200, 0}}},
		{"a status that asks for another", []func(*rig){serving(fails), serving(mirror)},
			func(r *rig) { r.route.Policy.NextUpstream |= Next503 }, 200, []wantedTry{{0, patience, 503, 0}, {0, patience, 200, 0}}},
		{"our own fault after its answer", []func(*rig){serving(mirror)}, func(r *rig) {
			r.quietly(1)
			r.route.Response = []ResponseFilter{responseFilter(func(*Exchange) { panic("a test's") })}
		}, 500, []wantedTry{{0, patience, 200, 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.ReadTimeout, r.route.Policy.Tries = far, len(c.backends) })
			r.probeless = true
			for _, add := range c.backends {
				add(r)
			}
			if c.change != nil {
				c.change(r)
			}
			cl := r.dial()
			cl.get("/")
			go func() { _, _ = io.Copy(io.Discard, cl.r) }() // nothing shall wait for the client
			r.recorded(1, c.status, 1)
			var got Record
			r.on(func() { got = r.srv.local(r.loops[0]).record })
			if got.Tried != len(c.want) {
				t.Fatalf("%d tries, want %d", got.Tried, len(c.want))
			}
			for i, want := range c.want {
				checkTry(t, fmt.Sprintf("try %d", i), &got.Tries[i], want)
			}
			r.checkTryCounts(c.want)
		})
	}
}

func checkTry(t *testing.T, what string, got *Try, want wantedTry) {
	t.Helper()
	if lasted := time.Duration(got.Time); lasted < want.atLeast || lasted > want.atMost {
		t.Errorf("%s lasted %v, want %v to %v", what, lasted, want.atLeast, want.atMost)
	}
	kind := fastpath.KindNone
	if got.Err != nil {
		kind = got.Err.Kind
	}
	if got.Status != want.status || kind != want.kind {
		t.Errorf("%s: status %d, %v; want %d, %v", what, got.Status, kind, want.status, want.kind)
	}
}

// checkTryCounts compares what the metrics show: the last try's time, and the failures of all.
func (r *rig) checkTryCounts(want []wantedTry) {
	r.Helper()
	counts := r.stats.Snapshot()
	var times uint64
	for _, n := range counts.Response.Counts {
		times += n
	}
	if last := want[len(want)-1]; times != 1 && last.atLeast >= 0 || times != 0 && last.atLeast < 0 || counts.Response.Sum < last.atLeast {
		r.Errorf("%d response times, in all %v; want one of at least %v", times, counts.Response.Sum, last.atLeast)
	}
	var failed, wanted uint64
	for i := range counts.BackendErrors {
		failed += counts.BackendErrors[i]
	}
	for _, w := range want {
		if w.kind != fastpath.KindNone {
			wanted++
		}
	}
	if failed != wanted {
		r.Errorf("%d failed tries were counted, want %d", failed, wanted)
	}
}
