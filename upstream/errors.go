package upstream

import "github.com/sluiceproxy/sluice/fastpath"

func backend(kind fastpath.Kind, retry bool, text string) *fastpath.Error {
	return &fastpath.Error{Fault: fastpath.FaultBackend, Kind: kind, Retry: retry, Text: text}
}

// Errors of sessions: those of connections, laid at the backend's door.
var (
	ErrReset            = backend(fastpath.KindReset, false, "backend reset the connection")
	ErrCut              = backend(fastpath.KindEOF, false, "backend closed the connection before its answer was complete")
	ErrUnsent           = backend(fastpath.KindReset, true, "backend closed the connection before a byte of the request was sent")
	ErrTruncated        = backend(fastpath.KindEOF, false, "backend cut its TLS connection without close_notify")
	ErrTLS              = backend(fastpath.KindTLS, false, "TLS failure of the backend")
	ErrHandshake        = backend(fastpath.KindTLS, true, "TLS handshake with the backend failed")
	ErrHandshakeTimeout = backend(fastpath.KindTimeout, true, "TLS handshake with the backend timed out")
	ErrSpokeFirst       = backend(fastpath.KindMalformed, true, "backend spoke before it was asked")
	ErrInterims         = backend(fastpath.KindMalformed, false, "backend sent more interim answers than are allowed")
	ErrSwitched         = backend(fastpath.KindMalformed, false, "backend switched to a protocol that nobody asked for")
)

// Errors of ours.
var (
	ErrSettings = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindNoEndpoint, Text: "the cluster's TLS settings cannot be used: see its Problem"}
	ErrFraming  = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindInternal, Text: "request body other than its head promised"}
)
