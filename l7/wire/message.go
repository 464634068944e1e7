package wire

// Method is a request method that the proxy treats in its own way; every other token is MethodOther.
type Method uint8

const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPost
	MethodPut
	MethodDelete
	MethodOptions
	MethodPatch
	MethodTrace
	MethodConnect
	methodCount
)

var methodNames = [methodCount]string{"", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"}

// Name is the method's token; empty for MethodOther.
func (m Method) Name() string { return methodNames[m] }

// MethodOf gives a token's Method. Methods are case-sensitive.
func MethodOf(token []byte) Method {
	switch string(token) {
	case "GET":
		return MethodGet
	case "HEAD":
		return MethodHead
	case "POST":
		return MethodPost
	case "PUT":
		return MethodPut
	case "DELETE":
		return MethodDelete
	case "OPTIONS":
		return MethodOptions
	case "PATCH":
		return MethodPatch
	case "TRACE":
		return MethodTrace
	case "CONNECT":
		return MethodConnect
	}
	return MethodOther
}

// Framing is how the end of a message's body is found.
type Framing uint8

const (
	FramingNone    Framing = iota // no body
	FramingLength                 // ContentLength bytes (may be 0: a Content-Length: 0 was sent)
	FramingChunked                // Transfer-Encoding: chunked
	FramingClose                  // response only: until the backend closes
)

func (f Framing) String() string { return [...]string{"none", "length", "chunked", "close"}[f] }

// Field is one header or trailer field. Name and Value are views of the arena that the message was parsed from and live
// as long as it; keeping them longer means copying.
type Field struct {
	Name  []byte // as spelled by the sender; always a token
	Value []byte // optional white space trimmed; no CR, LF, NUL or other control character except HTAB
	ID    FieldID
	Odd   bool // of a request: the client's name has other characters than letters, digits and hyphens, which were let in
}

// Request is a strictly parsed request: the typed model between two wires. Nothing of the client's framing is in it; the
// serialiser writes framing, Host and hop-by-hop fields from the typed members alone. All slices are views of the arena
// given to the parser, or of constants; Fields' and Listed's own arrays are reused by the next Parse.
type Request struct {
	Method     Method
	MethodText []byte // the token itself
	Target     []byte // origin-form path and query as it will be sent, "*" for OPTIONS *; raw query bytes unchanged
	Path       []byte // Target's path as routing sees it: percent-decoded once, dot segments resolved, "//" merged
	Query      []byte // the raw query without "?"; nil when there is no "?"
	Authority  []byte // Host as it will be sent: the target's authority if it had one, else the Host field; empty only in HTTP/1.0
	Host       []byte // Authority as routing sees it: lower case, no port, no trailing dot; IPv6 without brackets

	// Fields has no Host, Content-Length, Transfer-Encoding, Connection, Keep-Alive, Proxy-Connection, TE, Upgrade,
	// HTTP2-Settings or Expect, and nothing that Connection listed. Trailer is in it only with TETrailers: it announces
	// what is forwarded only then.
	Fields []Field
	Listed [][]byte // the names that Connection listed, and those of Own: trailers of these names are not forwarded either

	Framing       Framing
	ContentLength int64  // FramingLength only, else 0
	Minor         uint8  // HTTP/1.Minor of the sender: 0 or 1
	KeepAlive     bool   // the sender lets the connection live after this exchange
	Expect100     bool   // Expect: 100-continue on HTTP/1.1
	TETrailers    bool   // TE: trailers
	Upgrade       []byte // the protocol asked for by Connection: upgrade + Upgrade; nil: none. "websocket" is validated (RFC 6455 4.2.1)
	Connect       bool   // Upgrade was asked for by HTTP/2's extended CONNECT (RFC 8441): Method is GET, and there is no key
	Resolved      bool   // the path had dot segments: Target holds the resolved path, not the client's spelling
}

// Own keeps trailers of a name from the backend: what it says there is the proxy's.
func (r *Request) Own(name []byte) {
	if r.Framing != FramingNone && !isListed(name, r.Listed) {
		r.Listed = append(r.Listed, name)
	}
}

// Reset empties the request, but keeps the arrays of Fields and Listed for the next one.
func (r *Request) Reset() { *r = Request{Fields: r.Fields[:0], Listed: r.Listed[:0]} }

// WebSocket tells whether a WebSocket handshake is asked for, and is valid.
func (r *Request) WebSocket() bool { return equalFold(r.Upgrade, "websocket") }

// Response is a strictly parsed response head. All slices are views of the head given to the parser; Fields' and Listed's
// own arrays are reused by the next Parse. One that no parser made begins with Reset, which sets ContentLength to -1.
type Response struct {
	Status int    // 100..599
	Reason []byte // may be empty; canonical text is used when serialising

	// Fields has no Content-Length, Transfer-Encoding, Connection, Keep-Alive, Proxy-Connection, TE or Upgrade, and
	// nothing that Connection listed. Trailer is in it: ResponseOptions.Trailers says whether it is sent.
	Fields []Field
	Listed [][]byte // the names that Connection listed; trailers of these names are not forwarded either

	Framing       Framing
	ContentLength int64 // -1: none given (FramingNone may still carry one, as for HEAD)
	Unsaid        bool  // the length of 0 was told by END_STREAM alone, and HTTP/2 tells it so again: gRPC's Trailers-Only
	Minor         uint8
	KeepAlive     bool   // the connection may be used again once the body is complete
	KeepAliveHint int    // seconds from Keep-Alive: timeout=N; 0: none
	Upgrade       []byte // 101 only: the protocol that was switched to
}

// Reset empties the response, but keeps the arrays of Fields and Listed for the next one.
func (r *Response) Reset() {
	*r = Response{Fields: r.Fields[:0], Listed: r.Listed[:0], ContentLength: -1}
}

// SwitchesTo tells whether a 101 switches to the protocol that was asked for. A 101 for which it is false was not asked
// for and must not become a tunnel.
func (r *Response) SwitchesTo(asked []byte) bool {
	return r.Status == 101 && len(asked) > 0 && EqualFold(r.Upgrade, asked)
}
