package sni

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
)

// newTLSConfig is what terminated connections are served with whose host has this policy for client certificates (nil:
// none). One Config is one set of session ticket keys: each policy has its own, so that no session resumes across policies.
// Whatever a client shows, the handshake succeeds: an HTTP answer says what is wrong with it, as nginx does.
func (d *Door) newTLSConfig(p *l7.ClientAuth) *tls.Config {
	l := d.Limits()
	c := &tls.Config{
		MinVersion: l.TLSMin, MaxVersion: l.TLSMax,
		CipherSuites:           l.ciphers(),
		SessionTicketsDisabled: l.TLSNoTickets,
		NextProtos:             protocols(d.HTTP), // no overlap with the client's list: alert 120
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name, s := normalName([]byte(hello.ServerName)), d.Store.Load()
			if d.Limits().RejectUnknown && !s.Knows(name) {
				return nil, nil // alert 112, unrecognized_name
			}
			return fastpath.OffLoop(hello.Conn, s.Certificate(name)), nil
		},
		DynamicRecordSizingDisabled: true, // full records: the loop writes what it has by one call
	}
	if p != nil {
		c.ClientAuth, c.ClientCAs = tls.RequestClientCert, p.Authorities()
	}
	return c
}

// protocols are what ALPN offers: the slices are told apart by their lengths.
func protocols(s *l7.Server) []string {
	if s.Router.Settings().HTTP2 {
		return []string{l7.ProtocolHTTP2, l7.ProtocolHTTP1}
	}
	return []string{l7.ProtocolHTTP1}
}

// tlsConfig is the present Config of a policy. Other versions or protocols make another one with the same ticket keys.
func (d *Door) tlsConfig(p *l7.ClientAuth) *tls.Config {
	slot := &d.tls
	if p != nil {
		slot = &p.TLS
	}
	cfg, l := slot.Load(), d.Limits()
	if cfg == nil {
		if cfg = d.newTLSConfig(p); !slot.CompareAndSwap(nil, cfg) {
			cfg = slot.Load()
		}
	}
	offered := len(cfg.NextProtos) > 1
	if cfg.MinVersion == l.TLSMin && cfg.MaxVersion == l.TLSMax && offered == d.HTTP.Router.Settings().HTTP2 &&
		cfg.SessionTicketsDisabled == l.TLSNoTickets && slices.Equal(cfg.CipherSuites, l.ciphers()) {
		return cfg
	}
	other := cfg.Clone()
	other.MinVersion, other.MaxVersion, other.NextProtos = l.TLSMin, l.TLSMax, protocols(d.HTTP)
	other.CipherSuites, other.SessionTicketsDisabled = l.ciphers(), l.TLSNoTickets
	if !slot.CompareAndSwap(cfg, other) {
		return slot.Load() // another loop was faster
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
	a.accept = &l7.Accepted{Local: a.accept.Local, Proxied: a.accept.Proxied, Server: normalName(v.Hello.ServerName())}
	if cert := d.Store.Load().Certificate(a.accept.Server); cert != nil {
		a.accept.Certificate = cert.Leaf
	}
	c.SetDeadline(c.Loop().Now() + int64(d.Limits().HandshakeTimeout))
	a.policy = v.Host.ClientAuth
	if err := c.StartTLS(d.tlsConfig(a.policy), true, d.Work); err != nil {
		d.Stats.Overload.Add(1)
		c.Close()
	}
}

// OnHandshake implements fastpath.Handshaker.
func (a *arrival) OnHandshake(c *fastpath.Conn, err *fastpath.Error) {
	if err != nil {
		a.admitted(c)
		a.door.Stats.HandshakeErrors.Add(1)
		c.Close() // the alert has left already
		return
	}
	if a.policy == nil {
		a.admitted(c)
		a.door.HTTP.Serve(c, a.accept)
		return
	}
	chain := c.TLS().PeerCertificates
	if len(chain) == 0 {
		a.presented(c, a.policy.Present(nil, time.Time{}))
		return
	}
	a.judge(c, chain)
}

// judge has a client's certificates looked at off the loop. The connection still counts as a handshake, with its deadline.
func (a *arrival) judge(c *fastpath.Conn, chain []*x509.Certificate) {
	w, p := a.door.Work, a.policy
	a.conn, a.ticket = c, c.Loop().Park(a)
	ticket := a.ticket
	if w.Go(fastpath.WorkCompute, func() {
		var shown *l7.Presented
		w.Do(func() { shown = p.Present(chain, time.Now()) })
		ticket.Resume(shown)
	}) != nil {
		a.door.Stats.Overload.Add(1)
		c.Close()
	}
}

// OnResume implements fastpath.Parked: the client's certificates are judged.
func (a *arrival) OnResume(v any) {
	shown, _ := v.(*l7.Presented)
	a.presented(a.conn, shown)
}

func (a *arrival) presented(c *fastpath.Conn, shown *l7.Presented) {
	a.admitted(c)
	a.accept.Presented = shown
	a.door.HTTP.Serve(c, a.accept)
}

// admitted ends the handshake's count.
func (a *arrival) admitted(c *fastpath.Conn) {
	a.door.Census.handshakes.leave(c.Remote().Addr())
	c.SetKeeper((*guest)(a.door.Census))
}

// OnClosed implements fastpath.Keeper: the connection closed within its handshake.
func (a *arrival) OnClosed(c *fastpath.Conn) {
	a.ticket.Cancel()
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
