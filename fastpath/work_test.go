package fastpath

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestWorkPermitsBoundWhatComputes(t *testing.T) {
	const permits, jobs = 3, 60
	w := NewWork(permits)
	var computing, most atomic.Int32
	var wg sync.WaitGroup
	for range jobs {
		wg.Add(1)
		err := w.Go(WorkCompute, func() {
			defer wg.Done()
			w.Do(func() {
				n := computing.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				runtime.Gosched()
				computing.Add(-1)
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if n := most.Load(); n > permits || n == 0 {
		t.Errorf("%d computed at once under %d permits", n, permits)
	}
	if len(w.permits) != permits {
		t.Errorf("%d permits are left", len(w.permits))
	}
}

// TestWorkRest: who rests lends its only permit, and computes on when it has one again.
func TestWorkRest(t *testing.T) {
	w := NewWork(1)
	holds, lent := make(chan struct{}), make(chan struct{})
	go func() {
		<-holds
		w.Do(func() { close(lent) })
	}()
	w.Do(func() {
		close(holds)
		for deadline := time.Now().Add(10 * time.Second); ; {
			w.Rest(time.Millisecond)
			if len(w.permits) != 0 {
				t.Error("who computes after a rest has no permit")
			}
			select {
			case <-lent:
				return
			default:
			}
			if time.Now().After(deadline) {
				t.Error("nobody else got the permit")
				return
			}
		}
	})
	if len(w.permits) != 1 {
		t.Errorf("%d permits are left", len(w.permits))
	}
}

// TestWorkPermitsAreAllUsed: as many as there are permits do compute at once, whichever holds one.
func TestWorkPermitsAreAllUsed(t *testing.T) {
	w := NewWork(2)
	var both sync.WaitGroup
	both.Add(2)
	done := make(chan struct{}, 2)
	for range 2 {
		if err := w.Go(WorkCompute, func() {
			w.Do(func() {
				both.Done()
				both.Wait() // meets the other, or never returns
			})
			done <- struct{}{}
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		receive(t, "two at once", done)
	}
}

func TestWorkQueuesAreBounded(t *testing.T) {
	for kind := range workKinds {
		w := NewWork(1)
		hold := make(chan struct{})
		bound := int(workMax[kind])
		for i := range bound {
			if err := w.Go(kind, func() { <-hold }); err != nil {
				t.Fatalf("kind %d: piece %d of %d refused", kind, i, bound)
			}
		}
		if err := w.Go(kind, func() { t.Error("ran over the bound") }); err != ErrOverload {
			t.Errorf("kind %d over its bound: %v", kind, err)
		}
		if w.Running(kind) != bound || w.Refused.Load() != 1 {
			t.Errorf("kind %d: %d under way, %d refused", kind, w.Running(kind), w.Refused.Load())
		}
		other := (kind + 1) % workKinds // another kind has its own bound
		done := make(chan struct{})
		if err := w.Go(other, func() { close(done) }); err != nil {
			t.Errorf("kind %d is refused because of kind %d", other, kind)
		} else {
			receive(t, "another kind", done)
		}
		close(hold)
		eventually(t, "the end of all", func() bool { return w.Running(kind) == 0 })
		if err := w.Go(kind, func() {}); err != nil {
			t.Errorf("kind %d is refused after all ended", kind)
		}
	}
}

// TestWorkersAreReused: pieces that come one after another run on goroutines that are there, with their grown stacks, and
// after a burst only a few goroutines stay.
func TestWorkersAreReused(t *testing.T) {
	w := NewWork(1)
	before := runtime.NumGoroutine()
	piece := func() {
		done := make(chan struct{})
		if err := w.Go(WorkCompute, func() { close(done) }); err != nil {
			t.Fatal(err)
		}
		receive(t, "a piece of work", done)
	}
	for range 500 {
		piece()
		eventually(t, "an idle worker", func() bool { return w.Running(WorkCompute) == 0 && w.idle.Load() > 0 })
	}
	if n := runtime.NumGoroutine() - before; n > 5 {
		t.Errorf("%d goroutines for one piece at a time", n)
	}

	hold := make(chan struct{})
	for range int(workMax[WorkCompute]) {
		if err := w.Go(WorkCompute, func() { <-hold }); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	eventually(t, "the burst's goroutines to end", func() bool {
		return w.Running(WorkCompute) == 0 && runtime.NumGoroutine()-before <= workersIdleMax+5
	})
	if n := w.idle.Load(); n > workersIdleMax {
		t.Errorf("%d idle workers", n)
	}
}

// TestWorkShare: every piece is done once, by the caller alone when nobody gives a permit back, and by others beside it;
// a panic is the caller's, and costs no permit.
func TestWorkShare(t *testing.T) {
	for permits := 1; permits <= 3; permits++ {
		w := NewWork(permits)
		w.Do(func() {
			var done [1000]atomic.Int32
			w.Share(len(done), func(i int) { done[i].Add(1) })
			for i := range done {
				if n := done[i].Load(); n != 1 {
					t.Fatalf("%d permits: piece %d was done %d times", permits, i, n)
				}
			}
			w.Share(0, func(int) { t.Error("a piece of none") })
		})
		if len(w.permits) != permits {
			t.Errorf("%d permits are left of %d", len(w.permits), permits)
		}
	}
	w := NewWork(2)
	w.Do(func() { // two meet in it, or it never returns
		var both sync.WaitGroup
		both.Add(2)
		w.Share(2, func(int) { both.Done(); both.Wait() })
	})
	w.Do(func() {
		defer func() {
			if p := recover(); p != "a piece's defect" {
				t.Errorf("the caller saw %v", p)
			}
		}()
		w.Share(1000, func(i int) {
			if i == 7 {
				panic("a piece's defect")
			}
		})
	})
	if len(w.permits) != 2 {
		t.Errorf("%d permits are left of 2", len(w.permits))
	}
}

// TestWorkShareWaitsItsTurn: whoever else wants a permit gets one while a share goes on.
func TestWorkShareWaitsItsTurn(t *testing.T) {
	w := NewWork(2)
	var others int
	var asked atomic.Bool
	w.Do(func() {
		w.Share(2_000_000, func(i int) {
			if i == 10 {
				go func() {
					for range 20 {
						w.Do(func() { others++ })
					}
					asked.Store(true)
				}()
			}
			if !asked.Load() {
				runtime.Gosched()
			}
		})
		if !asked.Load() {
			t.Error("others waited until the end")
		}
	})
}

// TestWorkTellsOfComputing: once when a burst begins, once when it has been over for a while.
func TestWorkTellsOfComputing(t *testing.T) {
	w := NewWork(2)
	told := make(chan bool, 8)
	w.Computing = func(is bool) { told <- is }
	for range 3 {
		w.Do(func() {})
	}
	if !receive(t, "the beginning", told) {
		t.Fatal("told of an end first")
	}
	if receive(t, "the end", told) {
		t.Error("told of a beginning twice")
	}
	w.Do(func() {})
	if !receive(t, "the next beginning", told) {
		t.Error("told of an end twice")
	}
}

// TestWorkStir: computing without a permit is told of too, and its end.
func TestWorkStir(t *testing.T) {
	w := NewWork(2)
	w.Stir() // nobody wants to know
	told := make(chan bool, 8)
	w.Computing = func(is bool) { told <- is }
	for range 3 {
		w.Stir()
	}
	if !receive(t, "the beginning", told) || receive(t, "the end", told) {
		t.Error("told of something else")
	}
	w.Do(w.Stir)
	if !receive(t, "the next beginning", told) || receive(t, "the next end", told) {
		t.Error("told of something else, beside a permit")
	}
}
