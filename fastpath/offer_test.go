package fastpath

import (
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOffers: a loop offers its processor before it waits while several events come at a time, and not else.
func TestOffers(t *testing.T) {
	l := steppedLoop(t)
	var peers [offerEvents]*net.TCPConn
	for i := range peers {
		var fd int
		fd, peers[i] = tcpPair(t)
		mustAdopt(t, l, fd, &sink{})
	}
	offers := func(events, ms int) (n uint64) {
		t.Helper()
		const waits = 5
		before, led := l.Stats.Offers.Load(), l.Stats.Events.Load()
		for range waits {
			for _, p := range peers[:events] {
				_, _ = p.Write([]byte("x"))
			}
			l.busy, l.offers.after = true, 0 // whatever else runs on this machine
			l.round(ms)
		}
		if got := l.Stats.Events.Load() - led; got != uint64(waits*events) {
			t.Errorf("%d events in %d rounds, want %d in each", got, waits, events)
		}
		l.skew += int64(offerWindow)
		l.round(0) // takes the time
		return l.Stats.Offers.Load() - before
	}
	if n := offers(0, 1); n != 0 {
		t.Errorf("%d offers of a new loop", n)
	}
	for _, window := range []struct {
		what       string
		events, ms int
		want       uint64
	}{
		{"one too few", offerEvents - 1, 10, 0},
		{"the first of enough", offerEvents, 10, 0},
		{"behind", offerEvents, 10, 5},
		{"behind, and it does not wait", offerEvents, 0, 0},
		{"behind again", offerEvents, 10, 5},
		{"the first with too few", offerEvents - 1, 10, 5},
		{"too few", offerEvents - 1, 10, 0},
	} {
		if n := offers(window.events, window.ms); n != window.want {
			t.Errorf("%s: %d offers, want %d", window.what, n, window.want)
		}
	}
	made := l.Stats.Offers.Load()
	l.offers.behind, l.offers.began, l.offers.after = true, l.now, l.now+1
	if l.offerBehind(); l.Stats.Offers.Load() != made {
		t.Error("offered before the rest is over")
	}
	l.now++
	if l.offerBehind(); l.Stats.Offers.Load() != made+1 {
		t.Error("not offered after the rest")
	}
}

// TestOffersAreTaken: who waits for the loop's processor has it.
func TestOffersAreTaken(t *testing.T) {
	const offers, want = 2000, 3 // the kernel has its own idea of whose turn it is; without a call one is an accident
	l := steppedLoop(t)
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	var one unix.CPUSet
	for i := range 1024 {
		if cpus.IsSet(i) {
			one.Set(i)
			break
		}
	}
	pin := func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			t.Errorf("sched_setaffinity: %v", err)
		}
	}
	var turns atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for pin(); ; turns.Add(1) {
			select {
			case <-done:
				return
			default:
			}
		}
	}()
	taken := make(chan int)
	go func() {
		pin()
		for turns.Load() == 0 {
			runtime.Gosched()
		}
		n := 0
		for i := 0; i < offers && n < want; i++ {
			l.now = l.time()
			l.offers.behind, l.offers.began, l.offers.after = true, l.now, 0
			before := turns.Load()
			if l.offerBehind(); turns.Load() > before {
				n++
			}
		}
		taken <- n
	}()
	if n := <-taken; n < want {
		t.Errorf("of %d offers %d were taken, want %d", offers, n, want)
	}
	close(done)
	<-ended
}

// TestNobodyTakesTheOffers: nothing is offered for ever longer to who keeps the processor, until offers are short again.
func TestNobodyTakesTheOffers(t *testing.T) {
	var o offers
	now := int64(time.Hour)
	rests := func(d time.Duration) time.Duration {
		now += int64(d)
		o.lasted(now, d)
		return time.Duration(max(0, o.after-now))
	}
	for range 3 {
		if got := rests(offerLong - 1); got != 0 {
			t.Fatalf("a rest of %v after a short one", got)
		}
	}
	for want := offerRest; want < offerRestMax; want *= 2 {
		if got := rests(offerLong); got != want {
			t.Fatalf("a rest of %v, want %v", got, want)
		}
	}
	for range 2 {
		if got := rests(offerLong); got != offerRestMax {
			t.Fatalf("a rest of %v, want %v", got, offerRestMax)
		}
	}
	for range offerShort + 1 {
		rests(time.Microsecond)
	}
	if got := rests(offerLong); got != offerRestMax {
		t.Errorf("after %d short ones a rest of %v, want %v: one long one is forgotten", offerShort+1, got, offerRestMax)
	}
	for range 8 * (offerShort + 1) {
		rests(time.Microsecond)
	}
	if got := rests(offerLong); got != offerRest {
		t.Errorf("when all are forgotten a rest of %v, want %v", got, offerRest)
	}
}
