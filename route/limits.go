package route

import "time"

// Bounds of what a configuration can stretch.
const (
	pathBytesMax = 8 << 10 // a rule's path; a longer one could match no request line
	hostBytesMax = 253     // a host name (RFC 1035)
	hostLabelMax = 63

	statsMax     = 50_000 // statistics blocks; identities beyond share the block "other"
	statsIdleMax = 10_000 // … that are kept although no rule names them any more
	stateIdleMax = 10_000 // filter states likewise
	lateMax      = 50_000 // clusters whose endpoint changes are remembered until the next Swap

	// A cluster that no Snapshot names any more lives on for the exchanges that have its route already: those that are
	// parked, buffer a request's body, or wait for an answer and may have to ask another endpoint.
	clusterLinger = 90 * time.Second
	lingerMax     = 10_000 // clusters that do; more are closed at once

	yieldEvery = 16 // rules compiled, or clusters changed, between two calls of Env.Yield or runtime.Gosched
)
