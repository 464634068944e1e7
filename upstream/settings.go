package upstream

import (
	"crypto/tls"
	"time"
)

// Algorithm is how a cluster chooses among its usable endpoints.
type Algorithm uint8

const (
	RoundRobin Algorithm = iota
	EWMA                 // two random choices, the lower exponentially weighted response time (10 s decay) wins
	LeastConnections
	ConsistentHash // ring (ketama) over Wish.Hash
)

// Settings are a cluster's immutable settings; they stand beside its state and may be replaced at any time.
type Settings struct {
	Algorithm      Algorithm
	ConnectTimeout time.Duration // proxy-connect-timeout; 0: 5 s
	TLS            *TLS          // nil: plain
	IdleMax        int           // idle sessions kept per endpoint, all loops together, at least one each; 0: 320 (upstream-keepalive-connections); negative: none
	IdleTimeout    time.Duration // 0: 60 s (upstream-keepalive-timeout)
	RequestsMax    int           // requests a session may carry; 0: 10,000 (upstream-keepalive-requests)
	AllowLoopback  bool          // the source may name loopback endpoints (files); see docs/hardening.md 3.1 rule 7
}

// TLS is how a cluster speaks TLS to its endpoints (backend-protocol: HTTPS, proxy-ssl-*).
type TLS struct {
	Verify     bool
	ServerName string // SNI and the name that is verified, without which Verify is refused; "": none is sent
	RootsPEM   string // trust anchors; "": the system's
	CertPEM    string // client certificate
	KeyPEM     string
}

// compiled is Settings with its defaults filled in and its TLS ready for use. Immutable.
type compiled struct {
	Settings
	tls         *tls.Config // nil: plain
	err         error       // why the settings cannot be used: every Open fails
	idlePerLoop int
	countActive bool // the balancer asks for streams under way on all loops
}

// compile fills defaults in. before keeps its TLS configuration when nothing about TLS changed, so that sessions live on.
func compile(s Settings, loops int, before *compiled) *compiled {
	c := &compiled{Settings: s}
	c.ConnectTimeout = orDuration(s.ConnectTimeout, connectTimeoutDefault)
	c.IdleTimeout = orDuration(s.IdleTimeout, idleTimeoutDefault)
	c.RequestsMax = orInt(s.RequestsMax, requestsMaxDefault)
	c.IdleMax = orInt(s.IdleMax, idleMaxDefault)
	if c.IdleMax > 0 {
		c.idlePerLoop = max(1, c.IdleMax/loops)
	}
	if int(c.Algorithm) >= len(balancers) {
		c.Algorithm = RoundRobin
	}
	c.countActive = balancers[c.Algorithm].active
	switch {
	case s.TLS == nil:
	case before != nil && before.TLS != nil && *before.TLS == *s.TLS:
		c.tls, c.err = before.tls, before.err
	default:
		c.tls, c.err = s.TLS.config()
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
