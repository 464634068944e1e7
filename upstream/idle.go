package upstream

import "sync/atomic"

// idleLimit is what is known about how long an endpoint lets a connection be idle. A request that must not be lost takes
// an idle session only well before that (docs/hardening.md 3.4). All in nanoseconds; 0: unknown.
type idleLimit struct {
	shown     atomic.Int64 // the shortest time after which it closed an idle connection
	announced atomic.Int64 // the shortest Keep-Alive: timeout
}

// closedAfter notes that the endpoint closed a connection that had been idle for d.
func (i *idleLimit) closedAfter(d int64) { lower(&i.shown, max(d, 1)) }

// announce notes a Keep-Alive: timeout.
func (i *idleLimit) announce(d int64) { lower(&i.announced, d) }

// survived notes that a connection was alive after being idle for d. It contradicts an idle limit that is clearly shorter:
// what was seen then was a backend that went away, and it must not force fresh connections for ever.
func (i *idleLimit) survived(d int64) {
	if shown := i.shown.Load(); shown != 0 && d > 2*shown {
		i.shown.CompareAndSwap(shown, 0)
	}
}

// safe is for how long a session may have been idle so that a close by the backend is all but excluded.
func (i *idleLimit) safe() int64 {
	limit := i.shown.Load()
	if a := i.announced.Load(); limit == 0 || a != 0 && a < limit {
		limit = a
	}
	if limit == 0 {
		limit = int64(idleLimitAssumed)
	}
	return limit / idleLimitShare
}

func lower(v *atomic.Int64, to int64) {
	for {
		old := v.Load()
		if old != 0 && old <= to || v.CompareAndSwap(old, to) {
			return
		}
	}
}
