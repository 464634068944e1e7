package fastpath

// Fault says whose doing a data-path error is.
type Fault uint8

const (
	FaultProxy   Fault = iota // our own limit or defect
	FaultClient               // the peer that asked
	FaultBackend              // the endpoint that was asked
)

func (f Fault) String() string { return [...]string{"proxy", "client", "backend"}[f] }

// Kind says what went wrong. With Fault and Retry it determines the status code, the log level, the metric label
// and the health verdict; nothing else does.
type Kind uint8

const (
	KindNone           Kind = iota
	KindMalformed           // bytes that are not what the protocol allows
	KindUnsupported         // well formed, but a coding that we do not implement (501)
	KindVersion             // an HTTP version that we do not speak (505)
	KindMethod              // a method that a proxy of this kind does not serve (405)
	KindExpectation         // an Expect other than 100-continue (417)
	KindUpgrade             // a WebSocket version that is not 13 (426)
	KindURITooLong          // request line over its limit (414)
	KindHeadTooLarge        // header block over its limit (431 from a client, 502 from a backend)
	KindBodyTooLarge        // body over its limit (413)
	KindLengthRequired      // a body that only its own end delimits, where its length has to be told first (411)
	KindTimeout             // a deadline passed
	KindTooSlow             // a peer under its minimum rate
	KindRefused             // connection refused, unreachable, or not allowed to be dialled
	KindNoEndpoint          // a cluster without a usable endpoint (503)
	KindReset               // connection reset
	KindEOF                 // connection ended where more was promised
	KindOverload            // a bound of ours is reached (503)
	KindTLS                 // handshake or record failure
	KindCancelled           // the client left (499)
	KindInternal            // a defect of ours (500)
)

var kindNames = [...]string{"none", "malformed", "unsupported", "version", "method", "expectation", "upgrade", "uri_too_long",
	"head_too_large", "body_too_large", "length_required", "timeout", "too_slow", "refused", "no_endpoint", "reset", "eof", "overload", "tls",
	"cancelled", "internal"}

func (k Kind) String() string { return kindNames[k] }

// Error is the data path's error: whose fault, what kind, whether a retry elsewhere is safe as far as the error alone
// tells. The hot path uses package-level values only; compare them by identity, never by text.
type Error struct {
	Fault Fault
	Kind  Kind
	Retry bool // no byte of the request can have reached an application
	Text  string
}

func (e *Error) Error() string { return e.Text }

// Temporary tells net.Error askers (crypto/tls) that ErrWouldBlock leaves a connection usable.
func (e *Error) Temporary() bool { return e == ErrWouldBlock }

// Timeout is the other half of net.Error.
func (e *Error) Timeout() bool { return e == ErrWouldBlock || e.Kind == KindTimeout }

// ErrWouldBlock is the answer of every non-blocking call that has to wait; a readiness callback follows.
var ErrWouldBlock = &Error{Kind: KindNone, Text: "would block"}

// ErrEOF is a complete, orderly end: of a body, or of a peer's sending side (FIN; with TLS close_notify).
var ErrEOF = &Error{Kind: KindNone, Text: "end"}

// Errors of the connections themselves. Engines translate them to the side that they stand for.
var (
	ErrReset     = &Error{Fault: FaultClient, Kind: KindReset, Text: "connection reset by peer"}
	ErrTimeout   = &Error{Fault: FaultClient, Kind: KindTimeout, Text: "connection idle past its deadline"}
	ErrRefused   = &Error{Fault: FaultBackend, Kind: KindRefused, Retry: true, Text: "connection refused or unreachable"}
	ErrClosed    = &Error{Fault: FaultProxy, Kind: KindInternal, Text: "connection is closed"}
	ErrTLS       = &Error{Fault: FaultClient, Kind: KindTLS, Text: "TLS failure"}
	ErrTruncated = &Error{Fault: FaultClient, Kind: KindEOF, Text: "TLS connection cut without close_notify"}
	ErrOverload  = &Error{Fault: FaultProxy, Kind: KindOverload, Text: "no room: a limit of the process is reached"}
)

// Errors of dialling.
var (
	ErrConnectTimeout = &Error{Fault: FaultBackend, Kind: KindTimeout, Retry: true, Text: "connect timed out"}
	ErrNoDescriptor   = &Error{Fault: FaultProxy, Kind: KindOverload, Retry: true, Text: "no descriptor left: raise the process's nofile limit"}
)
