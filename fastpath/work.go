package fastpath

import (
	"sync"
	"sync/atomic"
	"time"
)

// WorkKind names who computes off the loops; each kind has a bound of its own on what may wait.
type WorkKind uint8

const (
	WorkHandshake WorkKind = iota // TLS handshakes, of clients and towards backends: counted here, computed on their loops
	WorkCompile                   // translating and compiling the configuration
	WorkCompute                   // anything else: password hashes, large compressions
	workKinds
)

// workMax: the doors begin half of the handshakes at most, so that a flood of clients leaves room for those towards backends.
var workMax = [workKinds]int32{WorkHandshake: 2048, WorkCompile: 2, WorkCompute: 256}

// workersIdleMax is how many goroutines wait for the next piece of work with their grown stacks.
const workersIdleMax = 64

// Work is the computing that is done off the loops: at most W pieces at once (the permits), and a bounded number waiting.
// Whoever holds a permit gives it back while it waits for a peer, so that slow peers block nobody.
type Work struct {
	permits chan struct{}
	jobs    chan func()
	idle    atomic.Int32
	running [workKinds]atomic.Int32
	Refused atomic.Uint64

	// Computing is told when the first permit is taken, and when for computingRest none has been. Calls come one at a time.
	// Set it before the first use; nil: nobody wants to know.
	Computing func(bool)

	mu      sync.Mutex
	taken   int // permits
	told    bool
	resting *time.Timer
}

// computingRest: who is told of an end shall not be told of a beginning a moment later.
const computingRest = 500 * time.Millisecond

// NewWork makes the permits; 2 is the usual number.
func NewWork(permits int) *Work {
	w := &Work{permits: make(chan struct{}, permits), jobs: make(chan func())}
	for range permits {
		w.permits <- struct{}{}
	}
	return w
}

// Go runs f on a goroutine; ErrOverload when too much of its kind is under way. f takes permits itself.
func (w *Work) Go(kind WorkKind, f func()) *Error {
	if !w.begin(kind) {
		return ErrOverload
	}
	job := func() {
		defer w.end(kind)
		f()
	}
	select {
	case w.jobs <- job:
	default:
		go w.worker(job)
	}
	return nil
}

// begin counts a piece of work; false: too much of its kind is under way. end must follow.
func (w *Work) begin(kind WorkKind) bool {
	if w.running[kind].Add(1) > workMax[kind] {
		w.running[kind].Add(-1)
		w.Refused.Add(1)
		return false
	}
	return true
}

func (w *Work) end(kind WorkKind) { w.running[kind].Add(-1) }

// Do runs f under a permit and returns when it is done. It waits; never call it on a loop.
func (w *Work) Do(f func()) {
	w.enter()
	defer w.leave()
	f()
}

// Rest gives the caller's permit back, waits for d, and takes one again.
func (w *Work) Rest(d time.Duration) {
	w.leave()
	time.Sleep(d)
	w.enter()
}

// Share computes f(0) … f(n-1) for a caller that holds a permit: on its goroutine, and beside it under the other permits.
// These it takes anew for each piece and behind everybody who waits already, so a piece should take less than a millisecond.
// It returns when all are done. A panic in f is the caller's.
func (w *Work) Share(n int, f func(i int)) {
	s := &share{n: int64(n), f: f}
	var helpers sync.WaitGroup
	for range min(cap(w.permits), n) - 1 {
		helpers.Go(func() {
			for more := true; more; {
				w.Do(func() { more = s.piece() })
			}
		})
	}
	for s.piece() {
	}
	helpers.Wait()
	if p := s.panicked.Load(); p != nil {
		panic(*p)
	}
}

// share is one call of Share.
type share struct {
	next     atomic.Int64
	n        int64
	f        func(i int)
	panicked atomic.Pointer[any]
}

// piece does the next piece; false: there is none.
func (s *share) piece() bool {
	i := s.next.Add(1) - 1
	if i >= s.n {
		return false
	}
	defer func() {
		if p := recover(); p != nil {
			s.panicked.CompareAndSwap(nil, &p)
			s.next.Store(s.n) // the rest is not begun
		}
	}()
	s.f(int(i))
	return true
}

// Running is how many pieces of a kind are under way, waiting ones included.
func (w *Work) Running(kind WorkKind) int { return int(w.running[kind].Load()) }

func (w *Work) worker(job func()) {
	for {
		job()
		job = nil
		if w.idle.Add(1) > workersIdleMax {
			w.idle.Add(-1)
			return
		}
		job = <-w.jobs
		w.idle.Add(-1)
	}
}

func (w *Work) enter() {
	<-w.permits
	if w.Computing == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken++; !w.told {
		w.told = true
		w.Computing(true)
	}
}

func (w *Work) leave() {
	w.permits <- struct{}{}
	if w.Computing == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken--; w.taken == 0 {
		w.restSoon()
	}
}

// Stir has Computing told of computing for which no permit is taken, as if one had been given back just now. From any goroutine.
func (w *Work) Stir() {
	if w.Computing == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.told {
		w.told = true
		w.Computing(true)
	}
	if w.taken == 0 {
		w.restSoon()
	}
}

func (w *Work) restSoon() {
	if w.resting == nil {
		w.resting = time.AfterFunc(computingRest, w.rest)
	}
	w.resting.Reset(computingRest)
}

// rest tells of the end, unless somebody computes again.
func (w *Work) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken == 0 && w.told {
		w.told = false
		w.Computing(false)
	}
}
