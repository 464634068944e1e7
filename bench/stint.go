package main

import (
	"runtime"
	"time"
)

// stintMax is less than the 10 ms after which Go's monitor takes the processor away from a goroutine.
const stintMax = 7 * time.Millisecond

// A stint is what a goroutine does between two yields to Go's scheduler. One that leads an epoll loop has to yield by itself:
// once the monitor has taken its processor away, it looks after the process many thousand times a second for a while, and each
// look takes a processor from the proxy under test or from its peers (docs/decisions/0107-the-origins-monitor.md).
type stint struct{ began time.Time }

// worked yields if the stint has lasted long enough.
func (s *stint) worked(now time.Time) {
	if now.Sub(s.began) >= stintMax {
		s.began = now
		runtime.Gosched()
	}
}
