package translate

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sluiceproxy/sluice/route"
)

// TLS of clients.
var tlsAnnotations = []annotation{
	{
		key: "ssl-passthrough", scope: scopeHost, risk: riskLow, verdict: differs, effect: drop,
		text: "Hands the TLS connections of the Ingress's hosts, by server name, to the backend of the path `/` as they are; " +
			"needs --enable-ssl-passthrough. All else that is said of the hosts holds for plain http only.",
		note: "Wildcard hosts are passed through too. The host without a name is not. The oldest Ingress of a host asks for it, and the rule for / is of its namespace.",
		parse: func(d *dialect, value string) error {
			on, err := parseBool(value)
			if err != nil {
				return err
			}
			if on && !d.options.EnableSSLPassthrough {
				return &refusal{ignore, "needs --enable-ssl-passthrough: TLS ends at this proxy"}
			}
			d.passthrough = on
			return nil
		},
	},
	{
		key: "ssl-ciphers", scope: scopeHost, risk: riskLow, verdict: differs,
		text: "TLS 1.2's cipher suites of the Ingress's hosts, as OpenSSL writes a list; of several Ingresses the oldest that has one decides.",
		note: "Suites with ECDHE and authenticated encryption only, in Go's order; a list with others is a Problem, and the others are left out. TLS 1.3's are always on.",
		parse: func(d *dialect, value string) error {
			return parseCiphers(&d.ciphers, value)
		},
	},
	{
		key: "ssl-prefer-server-ciphers", scope: scopeHost, risk: riskLow, verdict: differs,
		text: "true: of the suites that both know the server's order decides, not the client's. Without the annotation it is so too, as in ingress-nginx.",
		note: "`false` is a Problem, and the server's order holds: it is crypto/tls's, AES-GCM first where both have it in hardware, else ChaCha20; all suites are sound.",
		parse: func(_ *dialect, value string) error {
			prefer, err := parseBool(value)
			if err == nil && !prefer {
				return errors.New("the client's order cannot be had: the server's order of sound suites holds for all clients; leave the annotation out")
			}
			return err
		},
	},
	{
		key: "passthrough-proxy-protocol", own: true, scope: scopeHost, risk: riskLow, verdict: own,
		text: "With ssl-passthrough: v1 or v2 sends backends a PROXY header of that version before the client's own bytes; off (default) sends none.",
		parse: func(d *dialect, value string) error {
			version, ok := map[string]route.ProxyVersion{"off": 0, "v1": 1, "v2": 2}[value]
			if !ok {
				return fmt.Errorf("%q is not one of off, v1, v2", value)
			}
			d.passthroughProxy = version
			return nil
		},
	},
}

// chooseCiphers takes the oldest Ingress's list of suites.
func (b *hostBuild) chooseCiphers() {
	winner := slices.IndexFunc(b.parts, func(p part) bool { return p.dialect.ciphers != "" && !p.rules.bare })
	if winner < 0 {
		return
	}
	p := b.parts[winner]
	b.out.Ciphers = p.dialect.ciphers
	for _, other := range b.parts[winner+1:] {
		if o := other.dialect.ciphers; o != "" && !other.rules.bare && o != p.dialect.ciphers {
			b.refuse(other.fragment, annotationField(b.translator.options.AnnotationsPrefix+"/ssl-ciphers"),
				"is ignored for host %q: Ingress %s/%s comes first and has another", b.host.name, p.ing.Namespace, p.ing.Name)
		}
	}
}
