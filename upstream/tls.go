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

// forEndpoint is the configuration with a ticket cache of its own: equal backends rarely share their ticket keys.
func forEndpoint(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return nil
	}
	own := cfg.Clone()
	own.ClientSessionCache = tls.NewLRUClientSessionCache(tlsTicketsMax)
	return own
}
