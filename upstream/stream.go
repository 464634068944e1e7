package upstream

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// OpenOptions say what kind of session Endpoint.Open may give.
type OpenOptions struct {
	Fresh          bool          // a new connection, never an idle one: an attempt after a failure
	HTTP10         bool          // the request is sent in HTTP/1.0, on a connection of its own; endpoints of HTTP/2 do not heed it
	NonIdempotent  bool          // an idle session only where the idle race is all but excluded (docs/hardening.md 3.4)
	ConnectTimeout time.Duration // 0: the cluster's
	Head           *wire.Limits  // of a response's head; nil: the defaults
	InterimMax     int           // 1xx heads before the final one; without Head 10
	Arena          *wire.Arena   // what ReadHead will be given: an HTTP/2 session fills it as heads come. nil: they are copied
}

// Peer is the asking side of a Stream: an exchange, a health check, a mirror. All calls come on its loop, never from
// inside a call that the peer itself made on the stream, and none comes after Release. OnResponse may come when there is
// nothing new: reads then answer ErrWouldBlock. After OnStream with an error there is no stream to release.
type Peer interface {
	OnStream(s Stream, err *fastpath.Error) // the session asked for is connected (TLS included), or cannot be had
	OnResponse()                            // head, body, end of body or an error may be read
	OnRoom()                                // Room is positive again after it was not
	OnStreamTimeout()                       // the time given to SetTimeout has passed without progress
}

// Stream is one request on its way to an endpoint and its response on its way back, over an HTTP/1.1 session or an
// HTTP/2 stream. It belongs to one loop. Nothing above it knows the protocol.
//
// Order of calls: Send, then WriteBody/EndBody as far as Room allows, ReadHead until it answers other than
// ErrWouldBlock (1xx heads come one by one), then ReadBody until ErrEOF; Release ends it at any time.
type Stream interface {
	Endpoint() *Endpoint
	Reused() bool // the session had carried a request before: a silent close may be the idle race
	// Send serialises the head. With r.Framing == FramingNone or a zero length the request is complete by it.
	Send(r *wire.Request) *fastpath.Error
	Room() int // body bytes that WriteBody takes now; 0: wait for OnRoom
	// WriteBody takes all of b, which must not be longer than Room. It frames as the request's head said.
	WriteBody(b []byte) *fastpath.Error
	// EndBody ends the request's body. Trailers go only with r.TETrailers, and never those that are forbidden. It does
	// nothing when the request is complete already.
	EndBody(trailers []wire.Field) *fastpath.Error
	// Sent tells whether the backend may have seen the request (retry rules): a byte of it was handed to the kernel, or stands
	// among those of other streams. False before Send, and once an HTTP/2 backend said that it has not looked at it
	// (REFUSED_STREAM, GOAWAY).
	Sent() bool
	// ReadHead parses the next head (1xx included) into res, with views of a. ErrWouldBlock: OnResponse follows.
	ReadHead(res *wire.Response, a *wire.Arena) *fastpath.Error
	// ReadBody returns at most max bytes of the body: a view that lives until the next call on this loop. ErrEOF is its
	// complete end; any other error means the body was cut.
	ReadBody(max int) ([]byte, *fastpath.Error)
	Trailers() []wire.Field
	// BodyLeft is what is still to come of a body of known length, beyond what is buffered in user space; -1: unknown.
	BodyLeft() int64
	// Raw is the plain-text connection for splice(2) when body bytes stand on it unframed and none is held; else nil.
	Raw() *fastpath.Conn
	// Spliced tells the stream that n body bytes left Raw by splice.
	Spliced(n int64)
	// RawOut is Raw for the request's body: plain text, known length, nothing staged; SplicedOut tells how many bytes went.
	RawOut() *fastpath.Conn
	SplicedOut(n int64)
	// Again asks for another OnResponse after others had their turn.
	Again()
	// SetTimeout has OnStreamTimeout called when d passes before the next SetTimeout; 0: never. It is a mere store.
	SetTimeout(d time.Duration)
	// Tunnels tells of an answered upgrade whether the stream itself is the tunnel's end (HTTP/2): WriteBody, ReadBody and their
	// like move its bytes. Else Detach gives the connection.
	Tunnels() bool
	// Detach gives up an HTTP/1.1 session's connection for a tunnel after a 101; bytes read ahead stay in its input. The stream is
	// over, the connection still lacks its new handler.
	Detach() *fastpath.Conn
	// Release ends the stream: a session whose exchange was complete and clean goes back to the pool, any other closes.
	Release()
}
