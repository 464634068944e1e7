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
	ErrALPN             = backend(fastpath.KindTLS, true, "backend does not speak HTTP/2: it chose another protocol (ALPN)")
	ErrNotHTTP2         = backend(fastpath.KindMalformed, true, "backend does not speak HTTP/2: its first bytes are not SETTINGS")
	ErrNoSettings       = backend(fastpath.KindTimeout, true, "backend sent no SETTINGS of HTTP/2 in time")
	ErrNoStreams        = backend(fastpath.KindOverload, true, "backend allows no HTTP/2 stream")
	ErrHTTP2            = backend(fastpath.KindMalformed, false, "backend broke the rules of HTTP/2")
	ErrStreamReset      = backend(fastpath.KindReset, false, "backend reset the stream")
	ErrRefusedStream    = backend(fastpath.KindReset, true, "backend refused the stream before it looked at it")
	ErrGoAway           = backend(fastpath.KindReset, true, "backend went away before it looked at the stream")
	ErrPing             = backend(fastpath.KindTimeout, false, "backend does not answer PING")
	ErrSwitched         = backend(fastpath.KindMalformed, false, "backend switched to a protocol that nobody asked for")
)

// Errors of ours.
var (
	ErrRemoved  = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindNoEndpoint, Retry: true, Text: "the endpoint was removed while it was being connected"}
	ErrSettings = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindNoEndpoint, Text: "the cluster's TLS settings cannot be used: see its Problem"}
	ErrUpgrade  = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindUnsupported, Text: "no upgrade: the backend's HTTP/2 does not offer extended CONNECT (RFC 8441)"}
	ErrPanic    = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindInternal, Text: "a session of HTTP/2 panicked"}
	ErrFraming  = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindInternal, Text: "request body other than its head promised"}
)
