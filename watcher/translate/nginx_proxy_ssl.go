package translate

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/upstream"
)

// TLS towards backends. As in ingress-nginx nothing is read without proxy-ssl-secret.
var proxySSLAnnotations = []annotation{
	{
		key: "proxy-ssl-secret", scope: scopeIngress, risk: riskMedium, verdict: same, effect: deny,
		text: "A Secret, NAME or NAMESPACE/NAME, for TLS to backends (backend-protocol: HTTPS): tls.crt and tls.key are shown to them, ca.crt is whom they are verified against.",
		parse: func(d *dialect, value string) error {
			d.proxySSL.secret = value
			return nil
		},
	},
	{
		key: "proxy-ssl-verify", scope: scopeIngress, risk: riskLow, verdict: same, effect: deny,
		text: "on: backends' certificates are verified against ca.crt and proxy-ssl-name; off (default): they are not. Without " +
			"proxy-ssl-name there is no name to verify, and backends of TLS answer 502.",
		parse: func(d *dialect, value string) (err error) {
			d.proxySSL.verify, err = parseSwitch(value)
			return err
		},
	},
	{
		key: "proxy-ssl-verify-depth", scope: scopeIngress, risk: riskLow, verdict: same,
		text: "How many authorities may stand between the backend's certificate and ca.crt's; default 1.",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, 100)
			if err == nil {
				d.proxySSL.depth = n
			}
			return err
		},
	},
	{
		key: "proxy-ssl-name", scope: scopeIngress, risk: riskHigh, verdict: same, effect: deny,
		text: "The name that backends' certificates must have, and that they are told with proxy-ssl-server-name.",
		parse: func(d *dialect, value string) error {
			name, why := hostName(value)
			if why != "" || name == "" || strings.HasPrefix(name, "*") {
				return fmt.Errorf("%q is not a DNS name", value)
			}
			d.proxySSL.name = name
			return nil
		},
	},
	{
		key: "proxy-ssl-server-name", scope: scopeIngress, risk: riskLow, verdict: differs,
		text: "on: backends are told proxy-ssl-name as the server name (SNI); off (default): none.",
		note: "With proxy-ssl-verify they always are.",
		parse: func(d *dialect, value string) (err error) {
			d.proxySSL.sni, err = parseSwitch(value)
			return err
		},
	},
	{
		key: "proxy-ssl-protocols", scope: scopeIngress, risk: riskLow, verdict: differs, note: "Older versions are a Problem. Both by default; in ingress-nginx TLSv1.2.",
		text: "TLS versions towards backends: TLSv1.2, TLSv1.3.",
		parse: func(d *dialect, value string) error {
			s := &d.proxySSL
			return parseVersions(&s.low, &s.high, value)
		},
	},
	{
		key: "proxy-ssl-ciphers", scope: scopeIngress, risk: riskMedium, verdict: differs,
		note: "Suites with ECDHE and authenticated encryption only, in Go's order; TLS 1.3's are always on.",
		text: "TLS 1.2's cipher suites towards backends, as OpenSSL writes a list; default DEFAULT.",
		parse: func(d *dialect, value string) error {
			return parseCiphers(&d.proxySSL.ciphers, value)
		},
	},
}

const proxyDepthDefault = 1

type proxySSLDialect struct {
	secret      string
	verify, sni bool
	name        string
	depth       int    // authorities between a backend's certificate and a root
	low, high   uint16 // TLS versions; 0: those that there are
	ciphers     string // "": all
}

// proxySSL reads what a fragment asks of TLS to backends; why: it cannot be had.
func (t *Translator) proxySSL(f *fragment) (s upstream.TLS, why string) {
	d := &f.dialect.proxySSL
	if d.secret == "" {
		return s, ""
	}
	k, why := f.reference(d.secret, f.dialect.defaults.crossNamespace)
	var secret *corev1.Secret
	if why == "" {
		if secret = t.secrets.by[k]; secret == nil {
			why = "does not exist"
		}
	}
	if why != "" {
		return s, fmt.Sprintf("Secret %q %s", d.secret, why)
	}
	s.CertPEM, s.KeyPEM, s.RootsPEM = string(secret.Data[corev1.TLSCertKey]), string(secret.Data[corev1.TLSPrivateKeyKey]), string(secret.Data["ca.crt"])
	switch {
	case s.CertPEM == "" && s.RootsPEM == "":
		return s, "Secret " + k.String() + " has neither tls.crt nor ca.crt"
	case (s.CertPEM == "") != (s.KeyPEM == ""):
		return s, "Secret " + k.String() + " has one of tls.crt and tls.key only"
	case s.RootsPEM != "" && firstCertificate([]byte(s.RootsPEM)) == nil:
		return s, "Secret " + k.String() + " holds no certificate in PEM under ca.crt"
	case s.RootsPEM == "" && d.verify:
		return s, "Secret " + k.String() + " has no ca.crt to verify backends against"
	}
	s.MinVersion, s.MaxVersion, s.Ciphers = d.low, d.high, d.ciphers
	if d.verify {
		s.Depth = d.depth
	}
	if s.Verify = d.verify; d.verify || d.sni {
		s.ServerName = d.name
	}
	if s.Verify && s.ServerName == "" {
		s.ServerName = nameOfNobody
	}
	return s, ""
}

// nameOfNobody is what no certificate is for (RFC 2606): a handshake that has to verify it fails.
const nameOfNobody = "invalid"

// settleProxySSL tells that what is to be verified has no name. Backends without TLS are served all the same.
func (f *fragment) settleProxySSL(prefix string) {
	if d := &f.dialect.proxySSL; d.secret != "" && d.verify && d.name == "" {
		f.refuse(annotationField(prefix+"/proxy-ssl-verify"), "needs the name to verify: write proxy-ssl-name; backends of TLS answer 502")
	}
}

// variant tells clusters apart whose backends are spoken to differently: "" without a wish.
func (f *fragment) variant() string {
	d := &f.dialect.proxySSL
	if d.secret == "" {
		return ""
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %q %v %v %q %d %d %d %q", f.ing.Namespace, d.secret, d.verify, d.sni, d.name, d.depth, d.low, d.high, d.ciphers)
	return "-" + strconv.FormatUint(h.Sum64(), 36)
}

// clusterTLS is how a cluster's backends are spoken to: all who use it wish for the same. What cannot be had fails closed.
func (t *Translator) clusterTLS(c *cluster) *upstream.TLS {
	for _, u := range c.uses {
		f := u.fragment
		if u.canaryOf != nil {
			f = u.main
		}
		if f != nil && f.dialect.proxySSL.secret != "" {
			wish, why := t.proxySSL(f)
			if why != "" {
				return &upstream.TLS{Verify: true, ServerName: nameOfNobody}
			}
			return &wish
		}
	}
	return &upstream.TLS{}
}

// backendTLS denies a part whose wish for TLS to backends cannot be had.
func (b *hostBuild) backendTLS(p part, n *named) {
	if _, why := b.translator.proxySSL(p.fragment); why != "" {
		b.deny(p, n, "proxy-ssl-secret", why)
	}
}
