package main

import (
	"log/slog"
	"runtime"

	"golang.org/x/sys/unix"
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

// sizeScheduler gives every loop a processor of Go's scheduler that it may block, every permit one, and one to all else. A
// loop that is busy never gives its own away (docs/decisions/0008-waiting-without-the-scheduler.md).
func sizeScheduler(loops, permits int) { runtime.GOMAXPROCS(loops + permits + 1) }
