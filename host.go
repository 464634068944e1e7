package main

import (
	"log/slog"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/fastpath"
)

// connectionsWanted is how many open files let a busy proxy work without a thought of them.
const connectionsWanted = 16_384

// raiseOpenFiles takes as many descriptors as the system lets us have: every connection is one.
func raiseOpenFiles(log *slog.Logger) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		log.Warn("the limit of open files is unknown", "error", err)
		return
	}
	if limit.Cur < limit.Max {
		raised := unix.Rlimit{Cur: limit.Max, Max: limit.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
			log.Warn("the limit of open files cannot be raised", "limit", limit.Cur, "error", err)
		} else {
			limit = raised
		}
	}
	if limit.Cur < connectionsWanted {
		log.Warn("few files may be open: every connection is one; raise ulimit -n or LimitNOFILE", "limit", limit.Cur)
	}
}

// openFilesMax is how many files may be open at the moment; 0: nobody knows.
func openFilesMax() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<30))
}

// loopsOf is how many loops there are: a thread for each processor that Go sees, which knows the limits of containers.
func loopsOf(o *options) int {
	if o.loops > 0 {
		return o.loops
	}
	return min(runtime.GOMAXPROCS(0), loopsMax)
}

// processors is how many processors Go's scheduler has: one for each loop, which a busy one never gives away, a third as
// many for the collector, which takes a quarter of all, and one for all else. More would cost: whenever a loop yields, an
// idle one wakes a thread that takes the loop over (docs/decisions/0008-waiting-without-the-scheduler.md). So the permits
// have theirs only while something is computed.
type processors struct{ loops, permits int }

// set gives the permits their processors, or takes them back, and has all threads take short turns meanwhile.
func (p processors) set(computing bool) {
	n := p.loops + 1 + p.loops/3
	if computing {
		n += p.permits
	}
	runtime.GOMAXPROCS(n)
	fastpath.ShortSlices(computing)
}
