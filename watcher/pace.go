package watcher

import (
	"runtime"
	"time"
)

// How a large change gives way to traffic (docs/decisions/0098-large-changes-give-way.md).
const (
	paceWork = 200 * time.Microsecond // of work without a pause
	paceRest = 4                      // a pause is so many times as long as the work before it
	paceLong = 20 * time.Millisecond  // … and at most that long: what computed long without a yield is over
	paceFree = 20 * time.Millisecond  // of work before the first pause: what one changed object makes
	paceMax  = 2 * time.Second        // all pauses of a change together
)

// pacer spreads the work of a change over time. Whoever computes without a pause takes the processor from the loop that is woken
// beside it until the kernel's next tick, and a change of everything computes for half a second: that is the tail of latency.
// It is for one goroutine at a time.
type pacer struct {
	rest func(time.Duration) // without the permit, see Permits
	now  func() time.Time

	began  time.Time     // when the work under way was
	worked time.Duration // since the change began
	left   time.Duration // of its pauses
}

// begin starts a change. The first one is urgent: nothing is served yet.
func (p *pacer) begin(urgent bool) {
	p.began, p.worked, p.left = p.now(), 0, paceMax
	if urgent {
		p.left = 0
	}
}

// yield is called between pieces of work, of some ten microseconds each.
func (p *pacer) yield() {
	work := p.now().Sub(p.began)
	if work < paceWork {
		return
	}
	if p.worked += work; p.worked < paceFree || p.left <= 0 {
		runtime.Gosched()
		p.began = p.now()
		return
	}
	from := p.began.Add(work)
	p.rest(min(paceRest*work, paceLong, p.left))
	p.began = p.now()
	p.left -= p.began.Sub(from) // who sleeps wakes late
}
