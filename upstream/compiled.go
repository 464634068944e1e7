package upstream

import (
	"crypto/tls"
	"time"
)

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
