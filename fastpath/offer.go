package fastpath

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A loop that is behind offers its processor before it waits. Whoever waits for that processor, such as a client or a backend
// on the same machine, sends while the loop can still run: nobody has to wake it, and its next round has more to do at a time.
// Where nobody waits the offer costs one short system call. A loop that keeps up does not offer: it would be late for the
// next event (docs/decisions/0108-a-loop-offers-before-it-waits.md).

const (
	offerEvents  = 4                       // events a wait from which a loop counts as behind …
	offerWindow  = 64 * time.Millisecond   // … reckoned over so long, at least
	offerLong    = 2 * time.Millisecond    // who keeps the processor longer than this is no peer, but busy by itself
	offerRest    = 16 * time.Millisecond   // for how long nothing is offered after that; each further time twice as long …
	offerRestMax = 2048 * time.Millisecond // … up to this
	offerShort   = 32                      // offers that were short, until a long one is forgotten
)

// offers is what a loop knows of its offers.
type offers struct {
	behind        bool
	began         int64 // loop time of the window's beginning
	waits, events int   // … and what was since
	after         int64 // loop time before which nothing is offered
	rest          time.Duration
	short         int // offers in a row that were short, since the rest became longer or shorter
}

// offerBehind offers the processor if the loop is behind.
func (l *Loop) offerBehind() {
	o := &l.offers
	if l.now-o.began >= int64(offerWindow) {
		o.reckon(l.now)
	}
	o.waits++
	if !o.behind || l.now < o.after {
		return
	}
	from := l.time()
	offerProcessor()
	l.Stats.Offers.Store(l.Stats.Offers.Load() + 1)
	now := l.time()
	o.lasted(now, time.Duration(now-from))
}

// reckon ends a window.
func (o *offers) reckon(now int64) {
	o.behind = o.events > 0 && o.events >= offerEvents*o.waits
	o.began, o.waits, o.events = now, 0, 0
}

// lasted takes note of how long an offer was.
func (o *offers) lasted(now int64, d time.Duration) {
	switch {
	case d >= offerLong:
		o.rest = min(max(2*o.rest, offerRest), offerRestMax)
		o.after, o.short = now+int64(o.rest), 0
	case o.rest == 0:
	case o.short < offerShort:
		o.short++
	default:
		o.rest, o.short = o.rest/2, 0
	}
}

// offerProcessor has the kernel run whoever waits for this processor.
func offerProcessor() { _, _, _ = syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
