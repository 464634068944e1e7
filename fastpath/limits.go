package fastpath

import "time"

// Everything here that input can stretch has its maximum in this block.
const (
	readBufferBytes  = 64 << 10         // the loop's shared read buffer; also the most that one turn of a connection reads
	aheadBytes       = 16 << 10         // received for a connection before its turn, at most
	aheadStride      = aheadBytes + 192 // not a power of two: the places' first bytes would share the same lines of the cache
	inputBytesMax    = 128 << 10        // unread input that a connection may hold (an incomplete head up to its own limit)
	outputBytesMax   = 64 << 10         // staged output; Room is what is left of it
	outputFlushBytes = 32 << 10         // staged output that is sent without waiting for the turn's end
	directWriteBytes = 8 << 10          // writes from this size on are sent without staging when nothing is staged
	feedBytesMax     = 64 << 10         // TLS records queued for a handshake
	pipeBytes        = 256 << 10        // capacity asked for a splice pipe
	pipesIdleMax     = 64               // empty pipes a loop keeps
	largePipeBytes   = 1 << 20          // … of a large one
	largePipesMax    = 8                // large pipes of a loop: an ordinary user has 64 MiB of pipes in all (pipe-user-pages-soft)
	shortBodyMax     = 2 << 20          // bodies up to this have large pipes
	buffersIdleMax   = 256              // empty buffers of each class that a loop keeps
	connsIdleMax     = 1024             // closed Conn values that a loop keeps for reuse
	flushBatch       = 32               // connections with staged output after which it is sent; sends in a row wake their peers less often
	ringCallsMin     = 2                // calls that io_uring makes at once, at least
	sealAheadMax     = 4 << 10          // staged output that is sealed with that of others before any is sent
	eventsPerWait    = 256              // events taken from one epoll_wait
	lingerBytesMax   = 64 << 10         // bytes drained from a peer whose connection was ended by an error
	lingerTimeout    = time.Second
	// what such a peer has for the output that still waits for it, before lingerTimeout begins
	lingerSendTimeout = 30 * time.Second
	lingerSendBytes   = 240 * 30 // what it must take in that time to have as much again
	turnBytes         = 64 << 10 // what a connection may move in one turn before others have theirs
	rcvLowatMax       = 128 << 10
	rcvLowatReset     = 20 * time.Millisecond // a backend that dawdles must not hold its bytes back

	// what a loop's handshakes may compute in a round before its other connections have their turn; one step at least
	handshakeTurn     = 200 * time.Microsecond
	coroutinesIdleMax = 64 // idle coroutines, with their grown stacks, that a loop keeps

	fillsPerRound = 32 // how often a TLS connection is asked for plain text before the others have their turn

	rawWaitMax = 20 * time.Millisecond // for how long a busy loop waits without telling Go's scheduler
	yieldEvery = 8 * time.Millisecond  // how often a loop lets Go's scheduler choose; at 10 ms its monitor would send a signal

	layersRest = 4 * time.Second // for how long a TLS connection is not used, at least, before its ciphers are let go of

	wallEvery = time.Second // how often a loop asks for the time of day

	// TLS records that may wait for the socket while input is read: more than Room lets an owner stage
	pendingBytesMax = outputBytesMax + 16<<10
)
