package sni

import (
	"crypto/tls"
	"net/netip"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
)

// newTLSConfig is what every terminated connection is served with. One Config is one set of session ticket keys; client
// certificate policies, when they come, get a Config each, so that no session resumes across policies.
func (d *Door) newTLSConfig() *tls.Config {
	l := d.Limits()
	return &tls.Config{
		MinVersion: l.TLSMin, MaxVersion: l.TLSMax,
		CipherSuites: aeadSuites,
		NextProtos:   protocols(d.HTTP), // no overlap with the client's list: alert 120
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return fastpath.OffLoop(hello.Conn, d.Store.Load().Certificate(normalName([]byte(hello.ServerName)))), nil
		},
		DynamicRecordSizingDisabled: true, // full records: the loop writes what it has by one call
	}
}

// aeadSuites are TLS 1.2's suites with forward secrecy and authenticated encryption; TLS 1.3 has no others.
var aeadSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// protocols are what ALPN offers: the slices are told apart by their lengths.
func protocols(s *l7.Server) []string {
	if s.Router.Settings().HTTP2 {
		return []string{l7.ProtocolHTTP2, l7.ProtocolHTTP1}
	}
	return []string{l7.ProtocolHTTP1}
}

// tlsConfig is the present Config. Other versions or protocols make another one with the same ticket keys.
func (d *Door) tlsConfig() *tls.Config {
	cfg, l := d.tls.Load(), d.Limits()
	offered := len(cfg.NextProtos) > 1
	if cfg.MinVersion == l.TLSMin && cfg.MaxVersion == l.TLSMax && offered == d.HTTP.Router.Settings().HTTP2 {
		return cfg
	}
	other := cfg.Clone()
	other.MinVersion, other.MaxVersion, other.NextProtos = l.TLSMin, l.TLSMax, protocols(d.HTTP)
	if !d.tls.CompareAndSwap(cfg, other) {
		return d.tls.Load() // another loop was faster
	}
	return other
}

// terminate begins the handshake.
func (a *arrival) terminate(c *fastpath.Conn, v Decision) {
	d := a.door
	if !d.admitHandshake(c.Remote().Addr()) {
		d.Stats.Overload.Add(1)
		c.Close()
		return
	}
	c.SetKeeper(a)
	d.Stats.Handshakes.Add(1)
	a.accept = &l7.Accepted{Local: a.accept.Local, Server: normalName(v.Hello.ServerName())}
	if cert := d.Store.Load().Certificate(a.accept.Server); cert != nil {
		a.accept.Certificate = cert.Leaf
	}
	c.SetDeadline(c.Loop().Now() + int64(d.Limits().HandshakeTimeout))
	if err := c.StartTLS(d.tlsConfig(), true, d.Work); err != nil {
		d.Stats.Overload.Add(1)
		c.Close()
	}
}

// OnHandshake implements fastpath.Handshaker.
func (a *arrival) OnHandshake(c *fastpath.Conn, err *fastpath.Error) {
	a.door.Census.handshakes.leave(c.Remote().Addr())
	c.SetKeeper((*guest)(a.door.Census))
	if err != nil {
		a.door.Stats.HandshakeErrors.Add(1)
		c.Close() // the alert has left already
		return
	}
	a.door.HTTP.Serve(c, a.accept)
}

// OnClosed implements fastpath.Keeper: the connection closed within its handshake.
func (a *arrival) OnClosed(c *fastpath.Conn) {
	a.door.Census.handshakes.leave(c.Remote().Addr())
	(*guest)(a.door.Census).OnClosed(c)
}

func contains(nets []netip.Prefix, a netip.Addr) bool {
	for _, p := range nets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
