package watcher

import "time"

// Bounds of what manifests can stretch.
const (
	fileBytesMax    = 64 << 20 // of one manifest
	filesMax        = 10_000   // manifests of one directory
	listDepthMax    = 8        // lists within lists
	fileProblemsMax = 20       // problems told of one broken file
	fieldDepthMax   = 32       // how deep the field at fault is looked for
	fieldTriesMax   = 10_000   // … and how often it is tried
	linkHopsMax     = 8        // symbolic links followed to find out what to watch
	watchesMax      = 1_000    // directories watched
	toldMax         = 1_000    // things that the log says are left out
)

// When the file source looks.
const (
	quietAfter   = 20 * time.Millisecond  // no event for so long: a change is complete
	quietMax     = 200 * time.Millisecond // … or so long after its first event
	settleMax    = 500 * time.Millisecond // how long a file that is being written stays at its version before
	emptyMax     = 300 * time.Millisecond // how long an emptied file is taken for one that is about to be written
	racyWindow   = 2 * time.Second        // a file read so soon after its change may change again without a trace in its times
	rescanEvery  = 30 * time.Second       // events may be missing: network file systems, full queues
	pollEvery    = time.Second            // … where watching is impossible
	problemsTick = 10 * time.Second       // endpoints may be refused by the store at any time
)

// problemsLoggedMax bounds the lines that one change of the state writes about problems.
const problemsLoggedMax = 200
