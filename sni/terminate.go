package sni

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/route"
)

// handshakeTerms are what a tls.Config is made of. Limits are immutable: the same pointer says the same.
type handshakeTerms struct {
	limits *Limits
	http2  bool
}

// tlsConfig is what a host's connections are served with: the Config of its policy for client certificates, and with a
// list of suites of its own a copy with that. Tickets of the one open those of the other: crypto/tls resumes no session
// whose suite is not in the list.
func (d *Door) tlsConfig(h *route.Host) *tls.Config {
	general, own := d.policyConfig(h.ClientAuth), h.Ciphers
	if own == nil {
		return general
	}
	made := own.TLS.Load()
	if made == nil || made.Of != any(general) {
		made = &l7.Handshakes{Config: general.Clone(), Of: general}
		made.Config.CipherSuites = own.Suites
		own.TLS.Store(made)
	}
	return made.Config
}

// policyConfig is the present Config of a policy (nil: none). One Config is one set of session ticket keys: each policy has
// its own, so that no session resumes across policies. Other terms make another Config with the same keys.
func (d *Door) policyConfig(p *l7.ClientAuth) *tls.Config {
	slot := &d.tls
	if p != nil {
		slot = &p.TLS
	}
	terms := handshakeTerms{d.Limits(), d.HTTP.Router.Settings().HTTP2}
	for {
		made := slot.Load()
		if made != nil && made.Of == any(terms) {
			return made.Config
		}
		other := &l7.Handshakes{Config: d.newTLSConfig(p, terms, made), Of: terms}
		if slot.CompareAndSwap(made, other) {
			return other.Config
		}
		// Another loop was faster.
	}
}

// newTLSConfig makes the Config of a policy. before is the one that holds so far, whose keys live on, or nil. Whatever a
// client shows, the handshake succeeds: an HTTP answer says what is wrong with it, as nginx does.
func (d *Door) newTLSConfig(p *l7.ClientAuth, terms handshakeTerms, before *l7.Handshakes) *tls.Config {
	l, c := terms.limits, &tls.Config{}
	if before != nil && l.TLSTicketKey == nil && before.Of.(handshakeTerms).limits.TLSTicketKey == nil {
		c = before.Config.Clone()
	}
	c.MinVersion, c.MaxVersion = l.TLSMin, l.TLSMax
	c.CipherSuites, c.CurvePreferences = l.ciphers(), l.TLSCurves
	c.SessionTicketsDisabled = l.TLSNoTickets
	if l.TLSTicketKey != nil {
		c.SetSessionTicketKeys([][32]byte{policyTicketKey(l.TLSTicketKey, p)})
	}
	c.NextProtos = protocols(terms.http2) // no overlap with the client's list: alert 120
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		name, s := normalName([]byte(hello.ServerName)), d.Store.Load()
		if d.Limits().RejectUnknown && !s.Knows(name) {
			return nil, nil // alert 112, unrecognized_name
		}
		return fastpath.OffLoop(hello.Conn, s.Certificate(name)), nil
	}
	c.DynamicRecordSizingDisabled = true // full records: the loop writes what it has by one call
	if p != nil {
		c.ClientAuth, c.ClientCAs = tls.RequestClientCert, p.Authorities()
	}
	return c
}

// policyTicketKey is the key of a policy's tickets: of one given key each policy has another.
func policyTicketKey(key *[32]byte, p *l7.ClientAuth) (out [32]byte) {
	h := hmac.New(sha256.New, key[:])
	if p != nil {
		h.Write([]byte(p.ID))
	}
	h.Sum(out[:0])
	return out
}

// protocols are what ALPN offers.
func protocols(http2 bool) []string {
	if http2 {
		return []string{l7.ProtocolHTTP2, l7.ProtocolHTTP1}
	}
	return []string{l7.ProtocolHTTP1}
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
	if err := c.StartTLS(d.tlsConfig(v.Host), true, d.Work); err != nil {
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
		a.served(c)
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
	a.accept.Presented = shown
	a.served(c)
}

// served ends the arrival: the connection is HTTP's.
func (a *arrival) served(c *fastpath.Conn) {
	a.admitted(c)
	a.enter(c, Terminate, nil)
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
