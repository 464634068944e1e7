package l7

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// Exchange is one request and its response. It belongs to one loop, lives in that loop's pool, and every slice in it is
// a view of its Arena or of memory that outlives it. Filters read and change Req before it is forwarded and Resp before
// it is written; what a filter must remember per exchange is a typed field here.
type Exchange struct {
	Req   wire.Request
	Resp  wire.Response
	Arena wire.Arena

	Route    *Route
	Settings *Settings
	Remote   netip.AddrPort // the connection's peer, or the PROXY header's source
	ClientIP netip.Addr     // who the request comes from, after trusted X-Forwarded-For
	Local    netip.AddrPort
	TLS      bool   // the client speaks TLS to us
	Secure   bool   // the client's own connection was https: TLS here, or a trusted X-Forwarded-Proto, or a PROXY header of port 443
	Server   []byte // SNI name of the connection, normalised; nil without TLS or name

	accepted *Accepted // nil: the proxy's own exchange, or a copy
	trusted  bool      // the connection's peer is a trusted proxy whose X-Forwarded-* count

	// RequestID is X-Request-ID: the client's, or made for this exchange. Known from forwarding on.
	RequestID []byte
	// RewriteTarget, when set, is the path and query that is sent instead of Req.Target.
	RewriteTarget []byte
	// SendHost, when set, is the Host that the backend gets instead of the client's, which X-Forwarded-Host still tells.
	SendHost []byte
	// Admitted: an address or an authentication let the request in, where one of them suffices (satisfy: any).
	Admitted bool
	// SetCookies and Challenge are added to the answer: what an authentication service wants to be told to the client.
	SetCookies    []wire.Field
	CookiesAlways bool   // … whatever the answer's status is
	Challenge     []byte // WWW-Authenticate

	authority   []byte     // the client's Host, while the backend gets another
	described   bool       // the fields about the client are the proxy's own
	intercepted bool       // an error page is under way, or was answered
	depth       uint8      // how many exchanges ask by this one; 0: it is a client's own
	sub         *subClient // the exchange that this one waits for

	loop        *fastpath.Loop
	local       *local
	client      Client
	answer      []byte        // body of a response of the proxy's own
	started     int64         // loop nanoseconds of the head's end
	asked       []byte        // Req.Target as the client spelled it, for the log
	headBytes   int           // bytes of the request's head
	major       uint8         // of the client's HTTP version, when it is not 1
	grpc        bool          // the request is a gRPC call
	callTimeout time.Duration // … with that deadline (grpc-timeout); 0: none
	callStatus  int           // of HTTP, which an answer of the proxy's own to a call stands for; 0: it is no such answer
	stage       stage
	filter      int // the next request filter to run
	ticket      fastpath.Ticket
	holds       [holdsMax]*atomic.Uint64 // counts of requests under way in which the exchange is
	held        int
	err         *fastpath.Error // why the exchange ended early, for log and metrics
	plain       bool            // response filters are skipped: one panicked, or their work could not be written
	fwd         forward
	joined      *streamTunnel // it is upgraded, and its backend's end a stream; nil: it is not
	encoding    *encoding     // the response's body is compressed; nil: it goes as it is
	web         *web          // the call is translated from gRPC-Web; nil: it is not
	alias       [1]wire.Field // forwarded-for-header under its usual ID
	bodies      bodies
}

// Loop is the loop that owns the exchange.
func (x *Exchange) Loop() *fastpath.Loop { return x.loop }

// holdsMax is in how many counts an exchange may be.
const holdsMax = 4

// Hold has the exchange's end lower a count of requests under way by one.
func (x *Exchange) Hold(count *atomic.Uint64) {
	x.holds[x.held] = count
	x.held++
}

// unhold lowers a count before the exchange's end, in which it was entered by Hold.
func (x *Exchange) unhold(count *atomic.Uint64) {
	i := slices.Index(x.holds[:x.held], count)
	count.Add(^uint64(0))
	x.held--
	x.holds[i], x.holds[x.held] = x.holds[x.held], nil
}

// letGo takes the exchange out of all counts.
func (x *Exchange) letGo() {
	for i := range x.held {
		x.holds[i].Add(^uint64(0))
		x.holds[i] = nil
	}
	x.held = 0
}

// Respond prepares a response of the proxy's own: status, and body text (copied only if it does not outlive the
// exchange; constants and compiled filters' memory do). A request filter that called it returns Respond.
func (x *Exchange) Respond(status int, body []byte) {
	x.Resp.Reset()
	x.Resp.Status = status
	x.answer = body
}

// Redirect prepares a redirect to location, which must outlive the exchange or be in its Arena.
func (x *Exchange) Redirect(status int, location []byte) {
	x.Respond(status, nil)
	x.SetResponse(wire.FieldLocation, nameLocation, location)
}

var nameLocation = []byte("Location")

// SetRequest sets a request field: the first of that ID (or, for FieldOther, of that name) is replaced, others removed.
func (x *Exchange) SetRequest(id wire.FieldID, name, value []byte) {
	if id == wire.FieldOther { // the others are no trailers anyway
		x.Req.Own(name)
	}
	x.Req.Fields = setField(x.Req.Fields, id, name, value)
}

// SetResponse sets a response field likewise.
func (x *Exchange) SetResponse(id wire.FieldID, name, value []byte) {
	x.Resp.Fields = setField(x.Resp.Fields, id, name, value)
}

// SetResponses is SetResponse of several fields in a row, each of an ID of its own (not FieldOther), once.
func (x *Exchange) SetResponses(fields []wire.Field) {
	var set uint64
	for i := range fields {
		set |= 1 << fields[i].ID
	}
	out := x.Resp.Fields[:0]
	for i := range x.Resp.Fields {
		if f := &x.Resp.Fields[i]; set>>f.ID&1 == 0 {
			if len(out) < i {
				out = append(out, *f)
			} else {
				out = out[:i+1]
			}
		}
	}
	x.Resp.Fields = append(out, fields...)
}

func setField(fs []wire.Field, id wire.FieldID, name, value []byte) []wire.Field {
	same := func(f *wire.Field) bool { return f.ID == id && (id != wire.FieldOther || f.Named(name)) }
	for i := range fs {
		if !same(&fs[i]) {
			continue
		}
		fs[i] = wire.Field{Name: name, Value: value, ID: id}
		out := fs[:i+1]
		for j := i + 1; j < len(fs); j++ {
			if !same(&fs[j]) {
				out = append(out, fs[j])
			}
		}
		return out
	}
	return append(fs, wire.Field{Name: name, Value: value, ID: id})
}

// Client is the client's side of an exchange: an HTTP/1.1 connection's current request, later an HTTP/2 or HTTP/3
// stream. It belongs to the exchange's loop.
type Client interface {
	// ReadBody returns at most max bytes of the request's body: a view that lives until the next call on this loop.
	// ErrEOF is its complete end.
	ReadBody(max int) ([]byte, *fastpath.Error)
	Trailers() []wire.Field
	// BodyLeft, Raw and Spliced are as in upstream.Stream, for splice(2) towards the backend.
	BodyLeft() int64
	Raw() *fastpath.Conn
	Spliced(n int64)
	// AwaitBody starts the wait for a client whose spliced body has paused.
	AwaitBody()
	// RawOut is the plain-text connection on which response bytes may be put unframed, by splice(2); else nil. SplicedOut
	// tells how many were.
	RawOut() *fastpath.Conn
	SplicedOut(n int64)
	// Again asks for another turn after others had theirs.
	Again()
	// WriteInterim sends a 1xx head.
	WriteInterim(res *wire.Response) *fastpath.Error
	// WriteHead serialises x.Resp. end: no body follows.
	WriteHead(x *Exchange, end bool) *fastpath.Error
	Room() int
	WriteBody(b []byte) *fastpath.Error
	EndBody(trailers []wire.Field) *fastpath.Error
	// Tunnel joins the client with the backend's connection after a 101 was written; Exchange.OnTunnelEnd or tunnelEnded
	// follows.
	Tunnel(x *Exchange, backend *fastpath.Conn)
	// TunnelStream joins it with a stream of the backend's HTTP/2 session instead; Exchange.tunnelEnded follows.
	TunnelStream(x *Exchange, backend upstream.Stream)
	// SetDeadline has the engine call expired at loop time t, if the exchange is parked then; 0: no more.
	SetDeadline(t int64)
	// Done ends the exchange at the client: the response is complete. The engine goes on with its next request.
	Done()
	// Abort cuts the response visibly: RST, or an aborted chunk, or RST_STREAM.
	Abort(err *fastpath.Error)
}

var _ upstream.Peer = (*Exchange)(nil)

// Asked is the request's target as the client spelled it.
func (x *Exchange) Asked() []byte {
	if x.asked != nil {
		return x.asked
	}
	return x.Req.Target
}

// Authority is the client's Host, also when the backend gets another one.
func (x *Exchange) Authority() []byte {
	if x.authority != nil {
		return x.authority
	}
	return x.Req.Authority
}

// Port is the port that the client connected to, as text.
func (x *Exchange) Port() []byte { return x.port() }

// ID is the X-Request-ID that the backend will get: the client's, or one that is made now.
func (x *Exchange) ID() []byte {
	if x.RequestID == nil {
		if x.RequestID = wire.Get(x.Req.Fields, wire.FieldXRequestID); x.RequestID == nil {
			x.RequestID = x.requestID()
		}
	}
	return x.RequestID
}
