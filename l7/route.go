package l7

import (
	"time"

	"github.com/sluiceproxy/sluice/upstream"
)

// Identity names the objects that a route comes from; metrics, logs and state hang on it.
type Identity struct {
	Namespace, Ingress string // the object that owns the rule; empty for the default backend
	Service, Port      string // the backend's Service and port as written; empty if the route answers by itself
	Host, Path         string // the rule's own host pattern and path
}

// Route is what a request leads to. It is built by route.Compile, immutable, and never points back to a Host or a
// Snapshot, so that a long tunnel pins only its route.
type Route struct {
	ID       Identity
	Request  []RequestFilter  // in the order of their stages
	Response []ResponseFilter // in reverse order of the stages
	Cluster  *upstream.Cluster
	Canaries []Canary          // at most CanariesMax; each takes a part of Cluster's requests
	Mirror   *Mirror           // nil: none
	Fallback *upstream.Cluster // asked when Cluster has no endpoint (default-backend annotation, then the controller's); nil: 503
	Errors   *ErrorPages       // answers that a page of its cluster replaces; nil: none

	ClientAuth *ClientAuth // its host's policy for client certificates; nil: none

	Policy Policy
	Stats  *RouteStats // by identity: outlives the snapshot
}

// Policy is how exchanges of a route are forwarded. Zero durations mean the Settings' default; BodyMax 0 means no limit.
type Policy struct {
	BodyMax        int64         // proxy-body-size, bytes
	BufferRequest  bool          // proxy-request-buffering: the backend is asked when the buffer is full or the body complete
	ConnectTimeout time.Duration // proxy-connect-timeout
	ReadTimeout    time.Duration // proxy-read-timeout: between two reads from the backend
	SendTimeout    time.Duration // proxy-send-timeout: between two writes to the backend
	Timeout        time.Duration // request-timeout: from a request's head to its answer's end; 0: none
	HTTP10         bool          // proxy-http-version: 1.0: backends of HTTP/1 are asked in HTTP/1.0
	Tries          int           // proxy-next-upstream-tries: attempts in all; 0: unlimited
	TriesTimeout   time.Duration // proxy-next-upstream-timeout; 0: none
	NextUpstream   NextUpstream
	Rate           int64 // limit-rate: bytes a second of a response; 0: any number
	RateAfter      int64 // limit-rate-after: bytes that go before Rate counts
	NoAccessLog    bool  // enable-access-log: false
	SetsAffinity   bool  // affinity: cookie: a client without the cookie of the Cluster's Affinity gets one
	GRPCWeb        bool  // sluice.dev/grpc-web: calls of gRPC-Web are translated for backends of HTTP/2
}

// NextUpstream is the set of failures after which another endpoint is asked (proxy-next-upstream).
type NextUpstream uint16

const (
	NextError NextUpstream = 1 << iota
	NextTimeout
	NextInvalidHeader
	Next500
	Next502
	Next503
	Next504
	Next403
	Next404
	Next429
	NextNonIdempotent // the author's waiver: POST, LOCK, PATCH may be sent again
)

// NextDefault is ingress-nginx's "error timeout".
const NextDefault = NextError | NextTimeout

// Router finds the route of an exchange; route.Store is the only implementation outside tests.
type Router interface {
	Route(*Exchange) *Route // nil: no route (404)
	Settings() *Settings    // never nil; read once per exchange
}
