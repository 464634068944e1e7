package translate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
)

// Certificates of clients. As in ingress-nginx nothing is read without auth-tls-secret.
var clientAuthAnnotations = []annotation{
	{
		key: "auth-tls-secret", scope: scopeHost, risk: riskMedium, verdict: differs,
		text: "The Secret, NAME, or NAMESPACE/NAME with allow-cross-namespace-resources, with the authorities of clients' certificates (ca.crt) and revocation lists (ca.crl). " +
			"Over TLS the host's clients are asked for one; plain http is served without, as by nginx. If the Secret cannot be used, the host answers 403.",
		note: "The oldest Ingress that names one decides, also if its Secret cannot be used; ingress-nginx goes on to the next. " +
			"A request for a host of another policy than its connection's is answered 421. Chains are verified by Go: no SHA-1.",
		parse: func(d *dialect, value string) error {
			d.client.secret = value
			return nil
		},
	},
	{
		key: "auth-tls-verify-client", scope: scopeHost, risk: riskMedium, verdict: same,
		text: "on (default): who shows no certificate of the authorities gets 400; optional: who shows one must show such a one; " +
			"optional_no_ca: of any authority; off: nobody is asked.",
		parse: func(d *dialect, value string) error {
			i := slices.Index(clientModes, value)
			if i < 0 {
				return fmt.Errorf("%q is none of %s", value, strings.Join(clientModes, ", "))
			}
			d.client.mode, d.client.off = l7.ClientMode(i), value == "off"
			return nil
		},
	},
	{
		key: "auth-tls-verify-depth", scope: scopeHost, risk: riskLow, verdict: same,
		text: "How many authorities may stand between a client's certificate and a root; default 1.",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, 100)
			if err == nil && n > 0 {
				d.client.depth = int(n)
			}
			return err
		},
	},
	{
		key: "auth-tls-error-page", scope: scopeHost, risk: riskHigh, verdict: differs,
		text: "A URL to which clients are redirected, by 302, instead of 400.",
		note: "http and https URLs; a path is a Problem: it would be asked without a certificate too.",
		parse: func(d *dialect, value string) error {
			d.client.page = value
			return filterCheck(filter.CheckErrorPage(value), func() { d.client.page = "" })
		},
	},
	{
		key: "auth-tls-pass-certificate-to-upstream", scope: scopeHost, risk: riskLow, verdict: same,
		text: "Whether backends get the certificate, as escaped PEM in ssl-client-cert. ssl-client-verify, ssl-client-subject-dn and ssl-client-issuer-dn they always get.",
		parse: func(d *dialect, value string) (err error) {
			d.client.pass, err = parseBool(value)
			return err
		},
	},
	{
		key: "auth-tls-match-cn", scope: scopeHost, risk: riskHigh, verdict: differs,
		text: "`CN=EXPRESSION`: what the subject must match somewhere, else 403, also over plain http. A bad value: the host answers 403.",
		note: "RE2: no look-around, no back-references.",
		parse: func(d *dialect, value string) error {
			if !strings.HasPrefix(value, "CN=") {
				d.client.closed = "auth-tls-match-cn does not begin with CN="
			} else if err := filter.CheckPattern(value); err != nil {
				d.client.closed = "auth-tls-match-cn is no regular expression that can be had: " + strings.TrimPrefix(err.Error(), "error parsing regexp: ")
			}
			if d.client.closed != "" {
				return &partly{d.client.closed + "; with auth-tls-secret the Ingress's hosts answer 403"}
			}
			d.client.match = value
			return nil
		},
	},
}

const clientDepthDefault = 1

var clientModes = []string{"on", "optional", "optional_no_ca", "off"}

type clientDialect struct {
	secret      string // "": none
	mode        l7.ClientMode
	off         bool
	depth       int
	page, match string
	pass        bool
	closed      string // why nobody comes in; "": some may
}

// filterCheck has undo run for a value that is not taken.
func filterCheck(err error, undo func()) error {
	if err != nil {
		undo()
	}
	return err
}

// chooseClientAuth takes the oldest Ingress's wish for client certificates. What cannot be had closes the host.
func (b *hostBuild) chooseClientAuth() {
	winner := slices.IndexFunc(b.parts, func(p part) bool { return p.dialect.client.secret != "" && !p.rules.bare })
	if winner < 0 {
		return
	}
	p := b.parts[winner]
	d := &p.dialect.client
	field := annotationField(b.translator.options.AnnotationsPrefix + "/auth-tls-secret")
	for _, other := range b.parts[winner+1:] {
		if o := &other.dialect.client; o.secret != "" && !other.rules.bare && *o != *d {
			b.refuse(other.fragment, field, "is ignored for host %q: Ingress %s/%s comes first and has another", b.host.name, p.ing.Namespace, p.ing.Name)
		}
	}
	f := filter.ClientCertificate{Asked: !d.off, ErrorPage: d.page, Match: d.match, Pass: d.pass}
	auth, why := b.clientAuth(p)
	if why == "" {
		why = d.closed
	}
	if why != "" {
		b.refuse(p.fragment, field, "%s; host %q answers 403", why, b.host.name)
		f = filter.ClientCertificate{Closed: true}
		auth = nil
	}
	if d.off {
		auth = nil
	}
	b.out.ClientAuth = auth
	b.out.Filters = slices.Concat([]filter.Config{f}, b.out.Filters)
	b.tellPlain(p, field, why)
}

// tellPlain warns of paths that plain http reaches without a certificate.
func (b *hostBuild) tellPlain(p part, field, why string) {
	d := &p.dialect.client
	if why != "" || d.off || d.mode != l7.ClientOn || d.match != "" {
		return
	}
	for _, o := range b.owners {
		if t := &o.dialect; !(t.sslRedirect && b.host.tls.on || t.forceSSLRedirect) {
			b.refuse(p.fragment, field, "paths of host %q are served over plain http too, where nobody is asked for a certificate: Ingress %s/%s does not redirect to https; force-ssl-redirect would",
				b.host.name, o.ing.Namespace, o.ing.Name)
			return
		}
	}
}

// clientAuth is what a part asks; why: it cannot be had.
func (b *hostBuild) clientAuth(p part) (a *route.ClientAuth, why string) {
	d := &p.dialect.client
	k, why := p.reference(d.secret, p.dialect.defaults.crossNamespace)
	var s *corev1.Secret
	if why == "" {
		if s = b.translator.secrets.by[k]; s == nil {
			why = "does not exist"
		}
	}
	if why != "" {
		return nil, fmt.Sprintf("Secret %q %s", d.secret, why)
	}
	terms := l7.ClientTerms{Mode: d.mode, Depth: d.depth, Authorities: string(s.Data["ca.crt"]), RevocationList: string(s.Data["ca.crl"])}
	if terms.Authorities == "" {
		return nil, "Secret " + k.String() + " has no ca.crt"
	}
	if _, err := l7.NewClientAuth(terms); err != nil {
		return nil, "Secret " + k.String() + ": " + err.Error()
	}
	return &route.ClientAuth{Owner: route.Object{Kind: "Secret", Namespace: k.namespace, Name: k.name}, Terms: terms}, ""
}
