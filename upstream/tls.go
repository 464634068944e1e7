package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/sluiceproxy/sluice/fastpath"
)

// protocolHTTP2 is HTTP/2's name in ALPN.
const protocolHTTP2 = "h2"

// config compiles TLS settings, once per change of them. Whatever cannot be honoured is an error: the cluster then fails
// closed.
func (t *TLS) config(http2 bool) (*tls.Config, error) {
	protocol := "http/1.1"
	if http2 {
		protocol = protocolHTTP2
	}
	cfg := &tls.Config{
		MinVersion:                  max(t.MinVersion, tls.VersionTLS12),
		MaxVersion:                  t.MaxVersion,
		NextProtos:                  []string{protocol},
		ServerName:                  t.ServerName,
		InsecureSkipVerify:          !t.Verify,
		DynamicRecordSizingDisabled: true, // backends are near: full records cost less
	}
	if t.Verify && t.ServerName == "" {
		return nil, errors.New("TLS verification needs the name to verify (proxy-ssl-name)")
	}
	if cfg.CipherSuites, _ = fastpath.CipherSuites(t.Ciphers); len(cfg.CipherSuites) == 0 {
		return nil, fmt.Errorf("%q names no cipher suite", t.Ciphers)
	}
	if t.Verify {
		cfg.VerifyConnection = t.shallow
	}
	if t.RootsPEM != "" {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(t.RootsPEM)) {
			return nil, errors.New("ca.crt holds no certificate")
		}
	}
	if t.CertPEM != "" || t.KeyPEM != "" {
		pair, err := tls.X509KeyPair([]byte(t.CertPEM), []byte(t.KeyPEM))
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

var errDeep = errors.New("the backend's certificate has more authorities above it than proxy-ssl-verify-depth allows")

// shallow refuses a verified certificate of which no chain is short enough. It is asked for resumed sessions too.
func (t *TLS) shallow(s tls.ConnectionState) error {
	for _, chain := range s.VerifiedChains {
		if len(chain)-2 <= t.Depth { // without the certificate itself and the anchor
			return nil
		}
	}
	return errDeep
}

// endpointTLS is a cluster's configuration with a ticket cache of its own: equal backends rarely share their ticket keys.
type endpointTLS struct{ of, own *tls.Config }

// secure gives e the TLS of settings, and tells whether that is other than before. Settings that cannot be used leave it as
// it is: nobody dials by them, and what was secure must not become plain.
func (e *Endpoint) secure(c *compiled) (changed bool) {
	var of *tls.Config
	if t := e.tls.Load(); t != nil {
		of = t.of
	}
	if c.err != nil || of == c.tls {
		return false
	}
	if c.tls == nil {
		e.tls.Store(nil)
		return true
	}
	own := c.tls.Clone()
	own.ClientSessionCache = tls.NewLRUClientSessionCache(tlsTicketsMax)
	e.tls.Store(&endpointTLS{of: c.tls, own: own})
	return true
}

// currentTLS is that of sessions which may be used again; nil: plain.
func (e *Endpoint) currentTLS() *tls.Config {
	if t := e.tls.Load(); t != nil {
		return t.own
	}
	return nil
}

// tlsFor is what who looked at v dials with. In the moment in which settings change, e may have that of other ones, which
// may be plain or speak another protocol; then it is the cluster's, and the session carries one request.
func (e *Endpoint) tlsFor(v *view) *tls.Config {
	if t := e.tls.Load(); t != nil && t.of == v.tls {
		return t.own
	}
	return v.tls
}
