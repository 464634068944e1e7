package upstream

import (
	"crypto/tls"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Algorithm is how a cluster chooses among its usable endpoints.
type Algorithm uint8

const (
	RoundRobin Algorithm = iota
	EWMA                 // two random choices, the lower exponentially weighted response time (10 s decay) wins
	LeastConnections
	ConsistentHash // ring (ketama) over Wish.Hash
	RandomOfTwo    // two random choices, the fewer streams under way wins
)

// Settings are a cluster's immutable settings; they stand beside its state and may be replaced at any time.
type Settings struct {
	Algorithm      Algorithm
	ConnectTimeout time.Duration // proxy-connect-timeout; 0: 5 s
	TLS            *TLS          // nil: plain
	HTTP2          bool          // backends speak HTTP/2: by ALPN with TLS, with prior knowledge without (h2c)
	IdleMax        int           // idle sessions kept per endpoint, all loops together, at least one each; 0: 320 (upstream-keepalive-connections); negative: none
	IdleTimeout    time.Duration // 0: 60 s (upstream-keepalive-timeout)
	AgeMax         time.Duration // of a session that takes another request; 0: 1 h (upstream-keepalive-time)
	RequestsMax    int           // requests a session may carry; 0: 10,000 (upstream-keepalive-requests)
	SayKeepAlive   bool          // requests of HTTP/1.1 say Connection: keep-alive (connection-proxy-header)
	AllowLoopback  bool          // the source may name loopback endpoints (files); see docs/hardening.md 3.1 rule 7

	Name        string    // ingress-nginx's name of the backend, "namespace-service-port": affinity cookies are made with it
	Affinity    *Affinity // nil: none
	Keyed       bool      // endpoints are also found by affinity cookies of another cluster's: this one is its canary
	HashBy      string    // ConsistentHash: the key, for ParseKey
	Subset      int       // ConsistentHash: a hash leads to a group of so many endpoints; 0: to one
	HashBalance int       // ConsistentHash: per cent of the mean that an endpoint may have under way; 0: any number

	Breaker   Breaker
	Outlier   Outlier
	Check     Check
	Sockmap   fastpath.SockmapUse // of tunnels to its endpoints; fastpath.SockmapDefault: --sockmap decides
	SlowStart time.Duration       // how long a new endpoint gets less than its share, rising from a tenth; 0: it gets all at once
}

// Breaker bounds what a cluster is given, all loops together: what goes beyond it is refused at once (503). 0: no bound.
type Breaker struct {
	Connections int // open connections, those being dialled and tunnels included
	Pending     int // requests that wait for a connection
	Requests    int // requests under way
	Retries     int // retries under way
	RetryBudget int // per cent of the requests under way that may be retries, at least retriesMin
}

// Outlier is passive ejection by answers, beside that by connections that cannot be had.
type Outlier struct {
	Errors   int           // statuses of 500 and more, cuts and timeouts in a row that eject an endpoint; 0: none do
	Ejection time.Duration // the first one's length, doubled each time it fails again at once; 0: 5 s
	Panic    int           // per cent of the ready endpoints that stay in use at least; 0: 50
}

// Check is an active health check.
type Check struct {
	Kind      CheckKind
	Path      string        // CheckHTTP: what is asked for; "": /
	Host      string        // CheckHTTP, CheckGRPC: the Host; "": the endpoint's address
	Service   string        // CheckGRPC: whose health is asked for; "": the server's
	StatusMin int           // CheckHTTP: statuses that are healthy; 0: 200
	StatusMax int           // 0: 399
	Interval  time.Duration // 0: 10 s
	Timeout   time.Duration // 0: 2 s
	Healthy   int           // good checks in a row that make an endpoint healthy; 0: 2
	Unhealthy int           // bad ones that make it unhealthy; 0: 3
}

// CheckKind is what an endpoint has to do to be healthy.
type CheckKind uint8

const (
	CheckNone CheckKind = iota
	CheckTCP            // take a connection
	CheckHTTP           // answer a GET with one of the statuses
	CheckGRPC           // say SERVING to gRPC's health protocol (grpc.health.v1)
)

// TLS is how a cluster speaks TLS to its endpoints (backend-protocol: HTTPS, proxy-ssl-*).
type TLS struct {
	Verify     bool
	ServerName string // SNI and the name that is verified, without which Verify is refused; "": none is sent
	RootsPEM   string // trust anchors; "": the system's
	CertPEM    string // client certificate
	KeyPEM     string

	MinVersion, MaxVersion uint16 // tls.VersionTLS12 or tls.VersionTLS13; 0: both
	Ciphers                string // for fastpath.CipherSuites; "": all
	Depth                  int    // with Verify: authorities that may stand between the certificate and a trust anchor
}

// compiled is Settings with its defaults filled in and its TLS ready for use. Immutable.
type compiled struct {
	Settings
	tls         *tls.Config // nil: plain
	tlsErr      error       // why it cannot be had
	err         error       // why the settings cannot be used: every Open fails
	idlePerLoop int
	countActive bool // the balancer asks for streams under way on all loops
	countAll    bool // the breaker asks for what the cluster has under way on all loops
	key         []KeyPart
	backendKey  string
}

// keyed tells whether endpoints are found by cookies.
func (c *compiled) keyed() bool { return c.Keyed || c.Affinity != nil }

// compile fills defaults in. before keeps its TLS configuration when nothing about TLS changed, so that sessions live on.
func compile(s Settings, loops int, before *compiled) *compiled {
	c := &compiled{Settings: s}
	c.ConnectTimeout = orDuration(s.ConnectTimeout, connectTimeoutDefault)
	c.IdleTimeout = orDuration(s.IdleTimeout, idleTimeoutDefault)
	c.AgeMax = orDuration(s.AgeMax, ageMaxDefault)
	c.RequestsMax = orInt(s.RequestsMax, requestsMaxDefault)
	c.IdleMax = orInt(s.IdleMax, idleMaxDefault)
	if c.IdleMax > 0 {
		c.idlePerLoop = max(1, c.IdleMax/loops)
	}
	if int(c.Algorithm) >= len(balancers) {
		c.Algorithm = RoundRobin
	}
	c.countActive = balancers[c.Algorithm].active || c.HashBalance > 0
	c.countAll = c.Breaker != (Breaker{})
	if n := c.Breaker.Connections; n > 0 {
		c.idlePerLoop = min(c.idlePerLoop, max(1, n/(2*loops))) // idle ones of one loop are of no use to another
	}
	c.Outlier.Ejection = orDuration(c.Outlier.Ejection, ejectFirst)
	c.Outlier.Panic = orInt(c.Outlier.Panic, panicDefault)
	c.Check.fill()
	if c.keyed() {
		c.backendKey = BackendKey(c.Name)
	}
	switch {
	case s.TLS == nil:
	case before != nil && before.TLS != nil && *before.TLS == *s.TLS && before.HTTP2 == s.HTTP2:
		c.tls, c.tlsErr = before.tls, before.tlsErr
	default:
		c.tls, c.tlsErr = s.TLS.config(s.HTTP2)
	}
	c.err = c.tlsErr
	if key, err := ParseKey(s.HashBy); err == nil {
		c.key = key
	} else if c.err == nil {
		c.err = err
	}
	return c
}

func orDuration(v, otherwise time.Duration) time.Duration {
	if v > 0 {
		return v
	}
	return otherwise
}

// orInt takes 0 as "not said"; a negative number means none.
func orInt(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return max(v, 0)
}
