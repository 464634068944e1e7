package l7

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ClientMode is what a host asks of its clients' certificates.
type ClientMode uint8

const (
	ClientOn           ClientMode = iota // nobody comes in without one of the host's authorities
	ClientOptional                       // who shows one has to show such a one
	ClientOptionalNoCA                   // … a sound one, of any authority
)

func (m ClientMode) String() string { return [...]string{"on", "optional", "optional_no_ca"}[m] }

// ClientTerms are a policy for client certificates as plain data.
type ClientTerms struct {
	Mode           ClientMode
	Depth          int    // authorities between a client's certificate and a root
	Authorities    string // PEM: those that sign themselves are roots
	RevocationList string // PEM; "": nothing is looked up. Else every authority of a chain needs a list
}

// Bounds of client certificates.
const (
	clientChainMax      = 10       // certificates that a client may show
	clientLeafBytesMax  = 16 << 10 // of its own
	authoritiesMax      = 512      // of a policy
	authorityNamesBytes = 32 << 10 // of their names together, which every client is told
)

// ClientAuth is a host's policy for client certificates. It is immutable. Hosts of equal terms share one, whatever Snapshot
// they are of; so two are the same policy if their IDs are equal.
type ClientAuth struct {
	ID    string
	Terms ClientTerms

	// TLS is the configuration of handshakes under this policy: its session ticket keys are nobody else's. The door's.
	TLS atomic.Pointer[Handshakes]

	roots, between *x509.CertPool
	names          *x509.CertPool // what clients are told
	lists          []*revocations
}

// Handshakes is the configuration of handshakes that a door has made, and of what: it compares that with what holds now.
type Handshakes struct {
	Config *tls.Config
	Of     any
}

// PolicyID tells terms apart.
func (t *ClientTerms) PolicyID() string {
	h := sha256.New()
	fmt.Fprintf(h, "%d %d %q %q", t.Mode, t.Depth, t.Authorities, t.RevocationList)
	return hex.EncodeToString(h.Sum(nil))
}

// NewClientAuth makes the policy of terms. An error: they cannot be kept, and nobody may come in.
func NewClientAuth(t ClientTerms) (*ClientAuth, error) {
	p := &ClientAuth{ID: t.PolicyID(), Terms: t, roots: x509.NewCertPool(), between: x509.NewCertPool(), names: x509.NewCertPool()}
	list, err := parseAuthorities(t.Authorities)
	if err != nil {
		return nil, err
	}
	roots := 0
	for _, c := range list {
		p.names.AddCert(c)
		if bytes.Equal(c.RawSubject, c.RawIssuer) {
			p.roots.AddCert(c)
			roots++
		} else {
			p.between.AddCert(c)
		}
	}
	if roots == 0 {
		return nil, errors.New("no authority signs itself: a chain has to end in one that does")
	}
	if t.RevocationList != "" {
		p.lists, err = parseRevocations(t.RevocationList, list)
	}
	return p, err
}

func parseAuthorities(text string) (list []*x509.Certificate, err error) {
	names := 0
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("authority %d does not parse: %w", len(list)+1, err)
		}
		list, names = append(list, c), names+len(c.RawSubject)+2
	}
	switch {
	case len(list) == 0:
		return nil, errors.New("no certificate in PEM")
	case len(list) > authoritiesMax || names > authorityNamesBytes:
		return nil, fmt.Errorf("%d authorities with %d bytes of names are more than %d with %d", len(list), names, authoritiesMax, authorityNamesBytes)
	}
	return list, nil
}

// Authorities are the names that clients are told, so that they choose a certificate.
func (p *ClientAuth) Authorities() *x509.CertPool { return p.names }

// Presented is what a client showed when its connection began, judged under a policy. It belongs to the connection's loop.
type Presented struct {
	policy *ClientAuth
	chain  []*x509.Certificate // empty: none
	reason string              // why it is not good; "": it is, or there is none
	lax    bool                // … which optional_no_ca overlooks

	result, subject, issuer, escaped []byte
}

// Present judges what a client shows. It computes signatures: not on a loop, if there is a chain.
func (p *ClientAuth) Present(chain []*x509.Certificate, now time.Time) *Presented {
	s := &Presented{policy: p, chain: chain}
	if len(chain) > 0 {
		s.reason, s.lax = p.judge(chain, now)
	}
	switch {
	case len(chain) == 0:
		s.result = clientNone
	case s.reason == "":
		s.result = clientSuccess
	default:
		s.result = []byte("FAILED:" + s.reason)
	}
	return s
}

// judge answers why a chain is not good, in OpenSSL's words where it has some; lax: only its authority is not known.
func (p *ClientAuth) judge(chain []*x509.Certificate, now time.Time) (reason string, lax bool) {
	leaf := chain[0]
	if len(chain) > clientChainMax || len(leaf.Raw) > clientLeafBytesMax {
		return "certificate chain too long", false
	}
	between := p.between
	if len(chain) > 1 {
		between = p.between.Clone()
		for _, c := range chain[1:] {
			between.AddCert(c)
		}
	}
	good, err := leaf.Verify(x509.VerifyOptions{Roots: p.roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		reason, lax = verifyReason(err, chain, now)
		if len(p.lists) > 0 && bytes.Equal(leaf.RawSubject, leaf.RawIssuer) {
			lax = false // it is a chain of its own, whose list is missing
		}
		return reason, lax
	}
	reason, lax = "unable to get local issuer certificate", len(p.lists) == 0 // OpenSSL looks no further than Depth
	for _, path := range good {
		if len(path)-2 > p.Terms.Depth {
			continue
		}
		if reason, lax = p.revoked(path, now), false; reason == "" {
			return "", false
		}
	}
	return reason, lax
}

func verifyReason(err error, chain []*x509.Certificate, now time.Time) (reason string, lax bool) {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown) && len(chain) > 1:
		return "unable to get local issuer certificate", true
	case errors.As(err, &unknown) && bytes.Equal(chain[0].RawSubject, chain[0].RawIssuer):
		return "self-signed certificate", true
	case errors.As(err, &unknown):
		return "unable to verify the first certificate", true
	case !errors.As(err, &invalid):
		return "certificate rejected", false
	}
	switch invalid.Reason {
	case x509.Expired:
		if invalid.Cert != nil && now.Before(invalid.Cert.NotBefore) {
			return "certificate is not yet valid", false
		}
		return "certificate has expired", false
	case x509.IncompatibleUsage:
		return "unsuitable certificate purpose", false
	case x509.NotAuthorizedToSign:
		return "invalid CA certificate", false
	case x509.TooManyIntermediates:
		return "path length constraint exceeded", false
	}
	return "certificate rejected", false
}

// A ClientVerdict is whether a client may come in.
type ClientVerdict uint8

const (
	ClientGood    ClientVerdict = iota
	ClientMissing               // nginx's 496
	ClientBad                   // nginx's 495
)

// Verdict is whether the policy lets its client in. A nil Presented never shows anything.
func (p *Presented) Verdict() ClientVerdict {
	switch {
	case p == nil:
		return ClientMissing
	case len(p.chain) == 0 && p.policy.Terms.Mode == ClientOn:
		return ClientMissing
	case p.reason != "" && !(p.lax && p.policy.Terms.Mode == ClientOptionalNoCA):
		return ClientBad
	}
	return ClientGood
}

// Result is nginx's $ssl_client_verify.
func (p *Presented) Result() []byte {
	if p == nil {
		return clientNone
	}
	return p.result
}

var clientNone, clientSuccess = []byte("NONE"), []byte("SUCCESS")

// Subject and Issuer are $ssl_client_s_dn and $ssl_client_i_dn, empty without a certificate. Made at their first use.
func (p *Presented) Subject() []byte { return p.name(&p.subject, true) }

// Issuer: see Subject.
func (p *Presented) Issuer() []byte { return p.name(&p.issuer, false) }

func (p *Presented) name(kept *[]byte, subject bool) []byte {
	if *kept == nil && len(p.chain) > 0 {
		raw := p.chain[0].RawIssuer
		if subject {
			raw = p.chain[0].RawSubject
		}
		*kept = distinguishedName(raw)
	}
	return *kept
}

// Escaped is $ssl_client_escaped_cert: the certificate as PEM, escaped as a part of a URI. Made at its first use.
func (p *Presented) Escaped() []byte {
	if p.escaped == nil && len(p.chain) > 0 {
		p.escaped = escapeComponent(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.chain[0].Raw}))
	}
	return p.escaped
}

// admitted tells whether the connection was made under the client-certificate policy of the request's host. If not, the
// exchange was answered.
func (x *Exchange) admitted() bool {
	want := x.Route.ClientAuth
	var made *ClientAuth
	if x.accepted != nil && x.accepted.Presented != nil {
		made = x.accepted.Presented.policy
	}
	if made == want || made != nil && want != nil && made.ID == want.ID {
		return true
	}
	if len(x.Server) == 0 || string(x.Req.Host) != string(x.Server) {
		x.respond(statusMisdirected, nil)
		return false
	}
	x.accepted = x.accepted.under(want)
	x.rejudged()
	return true
}

// under is what the door would hand over if the connection began under another policy: the host's has changed since. What
// was shown is judged anew, once for each connection and change.
func (a *Accepted) under(p *ClientAuth) *Accepted {
	other := *a
	other.Presented = nil
	if p != nil {
		var chain []*x509.Certificate
		if a.Presented != nil {
			chain = a.Presented.chain
		}
		other.Presented = p.Present(chain, time.Now())
	}
	return &other
}

// rejudged has the connection remember what it is under now.
func (x *Exchange) rejudged() {
	switch c := x.client.(type) {
	case *http1:
		c.accepted = x.accepted
	case *stream:
		c.h.accepted = x.accepted
	}
}

// Presented is what the client showed under the policy of the exchange's host; nil: nothing, since it was not asked.
func (x *Exchange) Presented() *Presented {
	if x.accepted == nil || x.accepted.Presented == nil || x.Route.ClientAuth == nil || x.accepted.Presented.policy.ID != x.Route.ClientAuth.ID {
		return nil
	}
	return x.accepted.Presented
}

// TurnAway has the client's connection end when this exchange is answered, so that its next one may show something else. No
// error page takes the answer's place: it would come from a backend of the host's.
func (x *Exchange) TurnAway() {
	x.bodies.keep, x.intercepted = false, true
	if s, ok := x.client.(*stream); ok {
		s.h.drain()
	}
}
