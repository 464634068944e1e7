package upstream

import "time"

// Everything here that a backend or a configuration can stretch has its maximum or default in this block.
const (
	connectTimeoutDefault = 5 * time.Second  // proxy-connect-timeout; it bounds the TLS handshake too
	idleMaxDefault        = 320              // upstream-keepalive-connections
	idleTimeoutDefault    = 60 * time.Second // upstream-keepalive-timeout
	ageMaxDefault         = time.Hour        // upstream-keepalive-time
	requestsMaxDefault    = 10_000           // upstream-keepalive-requests

	idleOverflow      = time.Second            // how long a session beyond IdleMax is kept: a tide of answers must not close what the next requests need
	idleHintMargin    = time.Second            // a session is given up this much before the backend said that it would
	idleLimitAssumed  = 200 * time.Millisecond // idle limit of an endpoint that has neither shown nor announced one
	idleLimitShare    = 4                      // a request that must not be lost takes a session idle for less than this part of the limit
	sessionsFreeMax   = 1024                   // ended session values that a loop keeps for reuse
	scratchBytesMax   = 64 << 10               // of a loop's scratch buffer for heads; a larger one is not kept
	interimMaxDefault = 10                     // 1xx heads before a final one
	headFillBytes     = 16 << 10               // what is read at once while a head is awaited
	bodyFillBytes     = 64 << 10               // … and of a body
	h2StreamsMax      = 100                    // streams at once on a session, if the backend takes so many
	h2WindowConn      = 1 << 20                // bytes of DATA that a session may have under way to us
	h2Credit          = 16 << 10               // bytes taken before a window is opened again
	h2QueuedMax       = 128 << 10              // output that waits while input is still read
	h2OutputMax       = 256 << 10              // … and while the session takes requests
	h2ControlMax      = 1000                   // control frames that wait to be sent
	h2Period          = int64(10 * time.Second)
	h2TurnFrames      = 256                     // frames that one turn leads
	h2ShareBytes      = 64 << 10                // what a stream may write in its turn; a quarter while others wait
	h2WriteMargin     = 64                      // what frames add to a write at most, Room's margin
	h2PingAfter       = int64(20 * time.Second) // silence on a session with streams before it is asked whether it lives
	h2PingAgain       = int64(6 * time.Minute)  // … the second time and later: servers take more for abuse
	h2PingTimeout     = 10 * time.Second        // what it has for its answer
	h2BodyKept        = 4 << 10                 // the largest body buffer that an unused stream keeps
	tlsTicketsMax     = 4                       // TLS session tickets kept per endpoint
	ejectAfter        = 2                       // connect failures in a row that eject an endpoint
	ejectFirst        = 5 * time.Second         // for how long, the first time; doubled each time it fails again at once
	ejectMax          = 60 * time.Second
	panicDefault      = 50 // per cent of a cluster's ready endpoints that stay in use, whatever is said of the others
	retriesMin        = 3  // retries under way that a retry budget always allows
	slowStartMin      = 10 // per cent of its share that a new endpoint gets at first
	checksAtOnce      = 16 // checks of one cluster under way
	checkBytesMax     = 64 << 10
	checkInterval     = 10 * time.Second
	checkTimeout      = 2 * time.Second
	checkHealthy      = 2
	checkUnhealthy    = 3
	leastWindowMax    = 128 // endpoints that one pick by least connections compares
	ringPoints        = 160 // points of an endpoint on the hash ring
	ringPointsMax     = 1 << 17
	ringWalkMax       = 512              // points that one pick walks past unusable endpoints
	resolveDefault    = 30 * time.Second // between two resolutions, when the resolver gives no TTL
	resolveMin        = 5 * time.Second
	resolveMax        = 5 * time.Minute
	resolveTimeout    = 10 * time.Second
	resolvedMax       = 256              // addresses taken of one name
	ownAddressesFresh = 30 * time.Second // how old the list of the node's own addresses may be
)
