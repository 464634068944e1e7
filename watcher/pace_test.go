package watcher

import (
	"slices"
	"testing"
	"time"
)

// pacedWork is a change that computes in pieces, on a clock of its own.
func pacedWork(urgent bool, piece, all time.Duration) (pauses []time.Duration) {
	now := time.Unix(0, 0)
	p := pacer{now: func() time.Time { return now }, rest: func(d time.Duration) { pauses = append(pauses, d); now = now.Add(d) }}
	p.begin(urgent)
	for worked := time.Duration(0); worked < all; worked += piece {
		now = now.Add(piece)
		p.yield()
	}
	return pauses
}

// TestPace: small changes and the first one are not held up, large ones rest four fifths of their time, huge ones not for ever.
func TestPace(t *testing.T) {
	ms, µs := time.Millisecond, time.Microsecond
	if p := pacedWork(false, 20*µs, paceFree-paceWork); p != nil {
		t.Errorf("a small change rests: %v", p)
	}
	if p := pacedWork(true, 20*µs, time.Second); p != nil {
		t.Errorf("the first change rests %d times", len(p))
	}
	pauses := pacedWork(false, 20*µs, paceFree+100*ms)
	if n := int(100*ms/paceWork) + 1; len(pauses) != n || slices.Min(pauses) != paceRest*paceWork || slices.Max(pauses) != paceRest*paceWork {
		t.Errorf("100 ms beyond what is free rest %d times for %v to %v, not %d times for %v", len(pauses), slices.Min(pauses), slices.Max(pauses), n, paceRest*paceWork)
	}
	if p := pacedWork(false, 30*ms, 60*ms); !slices.Equal(p, []time.Duration{paceLong, paceLong}) {
		t.Errorf("pieces of 30 ms are followed by %v", p)
	}
	total := time.Duration(0)
	for _, d := range pacedWork(false, 20*µs, 5*time.Second) {
		total += d
	}
	if total != paceMax {
		t.Errorf("a huge change rests for %v, not %v", total, paceMax)
	}
}

// pausing are permits that note the pauses, and make none but on the pacer's clock.
type pausing struct {
	Permits
	pauses int
	now    time.Time
}

func (p *pausing) Rest(d time.Duration) { p.pauses++; p.now = p.now.Add(d) }

// TestLargeChangesGiveWay: a change of everything pauses, all the way through the translator and the compile.
func TestLargeChangesGiveWay(t *testing.T) {
	k := office()
	work := &pausing{Permits: k.Work}
	k.Work = work
	k.apply(manyState(t, false))
	if work.pauses > 0 {
		t.Errorf("the first state paused %d times", work.pauses)
	}
	calls := 0
	k.pace.now = func() time.Time { // each yield finds work enough for a pause
		if calls++; calls%2 == 0 {
			work.now = work.now.Add(paceWork)
		}
		return work.now
	}
	next := manyState(t, false)
	for _, ing := range next.Objects.Ingresses {
		ing.Annotations["nginx.ingress.kubernetes.io/proxy-body-size"] = "9m"
	}
	before := k.Store.Load()
	k.apply(next)
	if k.Store.Load() == before {
		t.Fatal("nothing was compiled")
	}
	if want := int(paceMax / paceWork / paceRest); work.pauses != want {
		t.Errorf("%d pauses, not %d", work.pauses, want)
	}
	// Each Ingress, host and cluster once in the translator, some paths at a time in the compile; the clock is asked twice for each.
	if least := 2 * (3*manyIngresses + manyIngresses*manyPaths/yieldsEvery); calls < least {
		t.Errorf("the clock was asked %d times, at least %d should be", calls, least)
	}
}

// yieldsEvery is how many rules a compile does between two yields, route's yieldEvery.
const yieldsEvery = 16
