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

// How a cluster is watched.
const (
	requestsPerSecond = 200.0 // towards the API server; lists and watches are few, statuses may be many
	requestsBurst     = 400
	retryFirst        = 200 * time.Millisecond // pause after a list or watch that failed
	retryMax          = 5 * time.Second        // … doubles up to
	retrySteps        = 6
	retryForget       = 30 * time.Second // a watch that lasted so long was a good one
	contactTold       = 30 * time.Second // how often the log says that the API server is silent
	gatherQuiet       = 5 * time.Millisecond
	gatherMax         = 50 * time.Millisecond // a state waits so long for the end of a burst of events
	namedTimeout      = 2 * time.Second       // a state waits so long for Secrets and ConfigMaps that have just been named
	namedRetry        = time.Second
	fetchesMax        = 16
	loadTimeout       = time.Minute // of `sluice lint`
)

// What is written to a cluster.
const (
	statusQuiet      = 50 * time.Millisecond // several reasons to write become one
	statusTick       = time.Minute
	statusRetry      = 5 * time.Second
	statusWriters    = 8 // patches under way
	eventsPerSecond  = 5
	eventsBurst      = 50
	eventsWaitingMax = 1_000
	eventMessageMax  = 1_000 // the API takes 1,024 bytes
)
