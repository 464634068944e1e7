package route

// Bounds of what a configuration can stretch.
const (
	pathBytesMax = 8 << 10 // a rule's path; a longer one could match no request line
	hostBytesMax = 253     // a host name (RFC 1035)
	hostLabelMax = 63

	statsMax     = 50_000 // statistics blocks; identities beyond share the block "other"
	statsIdleMax = 10_000 // … that are kept although no rule names them any more
	stateIdleMax = 10_000 // filter states likewise
	lateMax      = 50_000 // clusters whose endpoint changes are remembered until the next Swap

	yieldEvery = 256 // rules compiled, or clusters changed, between two runtime.Gosched
)
