package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The tests of this file are about certificates of clients: real TLS clients, and nginx beside the proxy.

// authority signs clients' certificates.
type authority struct {
	*keyPair
	above []*authority // up to the root, which is not among them
}

var serials atomic.Int64

// sign makes a certificate below a; change makes it unusual.
func (a *authority) sign(t testing.TB, name string, change func(*x509.Certificate)) *keyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: name, Organization: []string{"Sluice, Inc."}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if a != nil {
		parent, signer = a.certificate, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &keyPair{c, der, key}
}

func isAuthority(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
}

func newAuthority(t testing.TB, name string, above *authority) *authority {
	t.Helper()
	a := &authority{keyPair: above.sign(t, name, isAuthority)}
	if above != nil {
		a.above = append([]*authority{a}, above.above...)
	}
	return a
}

// revoke is a's revocation list of these certificates.
func (a *authority) revoke(t testing.TB, next time.Time, list ...*keyPair) string {
	t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next}
	for _, p := range list {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: p.certificate.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.certificate, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func certificatePEM(list ...*keyPair) (text string) {
	for _, p := range list {
		text += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.der}))
	}
	return text
}

// showing is a client that shows a certificate and those of its authorities, whatever it is asked for; nil: none.
func showing(name string, p *keyPair, above ...*authority) *tls.Config {
	c := &tls.Config{ServerName: name, InsecureSkipVerify: true}
	if p != nil {
		shown := p.tls()
		for _, a := range above {
			shown.Certificate = append(shown.Certificate, a.der)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
	}
	return c
}

func authoritySecret(name, ca, crl string) string {
	text := opaqueSecret(name, "ca.crt", ca)
	if crl != "" {
		text += "  ca.crl: |\n" + indent(crl) + "\n"
	}
	return text
}

// clients are those that the tests send, by what is peculiar about them.
type clients struct {
	root, between, deep, stranger *authority
	good                          *keyPair
	configs                       map[string]func(name string) *tls.Config
}

func newClients(t testing.TB) *clients {
	root := newAuthority(t, "root", nil)
	c := &clients{root: root, between: newAuthority(t, "between", root), stranger: newAuthority(t, "stranger", nil)}
	c.deep = newAuthority(t, "deep", c.between)
	c.good = root.sign(t, "good", nil)
	c.configs = map[string]func(string) *tls.Config{}
	add := func(kind string, p *keyPair, above ...*authority) {
		c.configs[kind] = func(name string) *tls.Config { return showing(name, p, above...) }
	}
	add("none", nil)
	add("good", c.good)
	add("one between", c.between.sign(t, "one", nil), c.between.above...)
	add("two between", c.deep.sign(t, "two", nil), c.deep.above...)
	add("between not shown", c.between.sign(t, "hidden", nil))
	add("stranger", c.stranger.sign(t, "good", nil))
	add("self-signed", (*authority)(nil).sign(t, "self", nil))
	add("expired", root.sign(t, "expired", func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) }))
	add("not yet", root.sign(t, "not yet", func(x *x509.Certificate) { x.NotBefore = time.Now().Add(time.Minute) }))
	add("a server's", root.sign(t, "server", func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))
	add("strange name", root.sign(t, "", func(x *x509.Certificate) {
		x.Subject = pkix.Name{CommonName: "#a+b \"c\"\\<x>; ü\r\nX-Evil: 1 ", Country: []string{"DE"}, ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "me@example"}, {Type: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: "x"}}}
	}))
	return c
}

var modes = []string{"on", "optional", "optional_no_ca", "off"}

// TestOracleClientCertificates sends every client to every mode, with and without a revocation list: to the proxy, and to nginx
// with what ingress-nginx would write.
func TestOracleClientCertificates(t *testing.T) {
	c := newClients(t)
	revoked := c.root.sign(t, "revoked", nil)
	c.configs["revoked"] = func(name string) *tls.Config { return showing(name, revoked) }
	port := application(t, told)
	pair := issue(t, "*.example")
	certificate, key, err := pair.pem()
	if err != nil {
		t.Fatal(err)
	}
	ca := certificatePEM(c.root.keyPair)
	future := time.Now().Add(time.Hour)
	lists := map[string]string{"": "", "crl": c.root.revoke(t, future, revoked) + c.between.revoke(t, future), "old": c.root.revoke(t, time.Now().Add(-time.Second), revoked)}
	for list, crl := range lists {
		manifests, servers, hosts := secretOf(t, "pair", pair)+authoritySecret("ca", ca, crl), "", []string{}
		extra := ""
		if crl != "" {
			extra = "ssl_crl @crl;"
		}
		for i, mode := range modes {
			host := fmt.Sprintf("m%d.example", i)
			hosts = append(hosts, host)
			manifests += site{name: "m" + fmt.Sprint(i), host: host, secret: "pair", ports: []int{port}, annotations: map[string]string{
				"auth-tls-secret": "ca", "auth-tls-verify-client": mode, "auth-tls-pass-certificate-to-upstream": "true"}}.yaml()
			servers += fmt.Sprintf(`} server { listen 127.0.0.1:@port ssl; server_name %s; ssl_certificate @pair; ssl_certificate_key @key;
 ssl_client_certificate @ca; ssl_verify_client %s; ssl_verify_depth 1; %s
 location / { proxy_set_header ssl-client-cert $ssl_client_escaped_cert; proxy_set_header ssl-client-verify $ssl_client_verify;
  proxy_set_header ssl-client-subject-dn $ssl_client_s_dn; proxy_set_header ssl-client-issuer-dn $ssl_client_i_dn; proxy_pass http://127.0.0.1:%d; }
`, host, mode, extra, port)
		}
		tlsPort := freePort(t)
		files := []string{"port", fmt.Sprint(tlsPort)}
		nginx(t, strings.ReplaceAll(servers, "@port", files[1]), "pair", certificate, "key", key, "ca", ca, "crl", crl)
		theirs := "127.0.0.1:" + files[1]
		p := startProxy(t, manifests)
		for kind, config := range c.configs {
			for i, host := range hosts {
				a := ask(t, p.HTTPS, config(host), host, "/", "ssl-client-verify: SUCCESS", "SSL-Client-Subject-DN: CN=root", "ssl-client-cert: x")
				b := ask(t, theirs, config(host), host, "/")
				what := fmt.Sprintf("%s, %s, list %q", kind, modes[i], list)
				if a.status != b.status || a.status == 400 && a.close != b.close {
					t.Errorf("%s: %d close %v, nginx %d %v\n%s", what, a.status, a.close, b.status, b.close, b.body)
				}
				if a.status != 200 {
					continue
				}
				for _, name := range []string{"Ssl-Client-Cert", "Ssl-Client-Subject-Dn", "Ssl-Client-Issuer-Dn", "Ssl-Client-Verify", "X-Evil"} {
					if one, two := line(a.body, name), line(b.body, name); one != two {
						t.Errorf("%s: the backend was told %q, by nginx %q", what, one, two)
					}
				}
			}
		}
	}
}

// TestClientCertificateConditions has what nginx is not asked above: pages, names, plain http, what cannot be had.
func TestClientCertificateConditions(t *testing.T) {
	c := newClients(t)
	port := application(t, told)
	pair := issue(t, "*.example")
	manifests := secretOf(t, "pair", pair) + authoritySecret("ca", certificatePEM(c.root.keyPair), "")
	for host, annotations := range map[string]map[string]string{
		"page":   {"auth-tls-secret": "ca", "auth-tls-error-page": "https://help.example/no"},
		"match":  {"auth-tls-secret": "ca", "auth-tls-match-cn": "CN=go+d", "ssl-redirect": "false"},
		"closed": {"auth-tls-secret": "nobody", "ssl-redirect": "false"},
		"plain":  {"auth-tls-secret": "ca", "ssl-redirect": "false"},
		"codes":  {"auth-tls-secret": "ca", "custom-http-errors": "400", "default-backend": "codes"},
	} {
		manifests += site{name: host, host: host + ".example", secret: "pair", ports: []int{port}, annotations: annotations}.yaml()
	}
	p := startProxy(t, manifests)
	none, good, other := c.configs["none"], c.configs["good"], c.configs["one between"]

	a := ask(t, p.HTTPS, none("page.example"), "page.example", "/")
	if a.want(t, 302, ""); a.header.Get("Location") != "https://help.example/no" {
		t.Errorf("Location: %q", a.header.Get("Location"))
	}
	ask(t, p.HTTPS, good("page.example"), "page.example", "/").want(t, 200, "")
	ask(t, p.HTTPS, good("match.example"), "match.example", "/").want(t, 200, "")
	ask(t, p.HTTPS, other("match.example"), "match.example", "/").want(t, 403, "client certificate unauthorized")
	ask(t, p.HTTP, nil, "match.example", "/").want(t, 403, "client certificate unauthorized")
	ask(t, p.HTTPS, good("closed.example"), "closed.example", "/").want(t, 403, "")
	ask(t, p.HTTP, nil, "closed.example", "/").want(t, 403, "")
	ask(t, p.HTTPS, none("plain.example"), "plain.example", "/").want(t, 400, "")
	a = ask(t, p.HTTP, nil, "plain.example", "/", "ssl-client-verify: SUCCESS", "ssl-client-subject-dn: CN=root")
	if a.want(t, 200, ""); strings.Contains(strings.ToLower(a.body), "ssl-client") {
		t.Errorf("over plain http the backend was told\n%s", a.body)
	}
	ask(t, p.HTTPS, none("codes.example"), "codes.example", "/").want(t, 400, "400 Bad Request") // no backend answers it
}

// TestClientCertificatePolicies is 421's case (b), and that no session is resumed under another policy.
func TestClientCertificatePolicies(t *testing.T) {
	c := newClients(t)
	port := application(t, told)
	pair := issue(t, "*.example")
	manifests := secretOf(t, "pair", pair) + authoritySecret("ca", certificatePEM(c.root.keyPair), "") + authoritySecret("other", certificatePEM(c.stranger.keyPair), "")
	for host, secret := range map[string]string{"one": "ca", "same": "ca", "other": "other", "open": ""} {
		var annotations map[string]string
		if secret != "" {
			annotations = map[string]string{"auth-tls-secret": secret}
		}
		manifests += site{name: host, host: host + ".example", secret: "pair", ports: []int{port}, annotations: annotations}.yaml()
	}
	p := startProxy(t, manifests)
	for _, v := range []struct {
		server, host string
		status       int
	}{
		{"one", "one", 200}, {"one", "same", 200}, {"one", "other", 421}, {"one", "open", 421},
		{"open", "one", 421}, {"open", "open", 200}, {"", "one", 421}, {"", "open", 200}, {"unknown", "one", 421},
	} {
		name := v.server + ".example"
		if v.server == "" {
			name = ""
		}
		if a := ask(t, p.HTTPS, c.configs["good"](name), v.host+".example", "/"); a.status != v.status {
			t.Errorf("%q on a connection for %q: %d, want %d", v.host, v.server, a.status, v.status)
		}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, v := range []struct {
			from, to string
			resumed  bool
		}{{"one", "one", true}, {"one", "same", true}, {"one", "other", false}, {"one", "open", false}, {"open", "one", false}} {
			cache := oneTicket{tls.NewLRUClientSessionCache(1)}
			var resumed bool
			for _, server := range []string{v.from, v.to} {
				config := c.configs["good"](server + ".example")
				config.ClientSessionCache, config.MinVersion, config.MaxVersion = cache, version, version
				conn := &caller{address: p.HTTPS, tls: config}
				if _, err := conn.call(request(server+".example", "/")); err != nil {
					t.Fatal(err)
				}
				if conn.conn != nil {
					resumed = conn.conn.(*tls.Conn).ConnectionState().DidResume
				}
				conn.hangUp()
			}
			if resumed != v.resumed {
				t.Errorf("version %x, from %s to %s: resumed is %v", version, v.from, v.to, resumed)
			}
		}
	}
}

// oneTicket offers whatever ticket came last, to every server.
type oneTicket struct{ tls.ClientSessionCache }

func (o oneTicket) Get(string) (*tls.ClientSessionState, bool) {
	return o.ClientSessionCache.Get("any")
}
func (o oneTicket) Put(_ string, s *tls.ClientSessionState) { o.ClientSessionCache.Put("any", s) }

// TestClientCertificateChanges changes a host's policy under a connection that lives on: it is judged anew.
func TestClientCertificateChanges(t *testing.T) {
	c := newClients(t)
	port := application(t, told)
	pair := issue(t, "*.example")
	base := secretOf(t, "pair", pair)
	web := site{name: "web", host: "web.example", secret: "pair", ports: []int{port}, annotations: map[string]string{"auth-tls-secret": "ca"}}.yaml()
	p := startProxy(t, base+web+authoritySecret("ca", certificatePEM(c.root.keyPair), ""))
	open := func(kind string) *caller { return &caller{address: p.HTTPS, tls: c.configs[kind]("web.example")} }
	one := open("good")
	status := func(conn *caller) int {
		a, err := conn.call(request("web.example", "/"))
		if err != nil {
			t.Fatal(err)
		}
		return a.status
	}
	if s := status(one); s != 200 {
		t.Fatal(s)
	}
	p.write("all.yaml", base+web+authoritySecret("ca", certificatePEM(c.root.keyPair), c.root.revoke(t, time.Now().Add(time.Hour), c.good)))
	within(t, 30*time.Second, "the certificate is revoked", func() bool { return status(one) == 400 })
	if one.dials != 1 {
		t.Errorf("%d connections", one.dials)
	}
	p.write("all.yaml", base+web+authoritySecret("ca", certificatePEM(c.root.keyPair, c.stranger.keyPair), ""))
	within(t, 30*time.Second, "it is not any more", func() bool { return status(one) == 200 })
	two := open("stranger")
	if s := status(two); s != 200 {
		t.Errorf("of the new authority: %d", s)
	}
	p.write("all.yaml", base+site{name: "web", host: "web.example", secret: "pair", ports: []int{port}}.yaml())
	within(t, 30*time.Second, "nobody is asked", func() bool { return status(open("none")) == 200 })
	three := open("none")
	if s := status(three) + status(two); s != 400 {
		t.Error(s)
	}
	p.write("all.yaml", base+web+authoritySecret("ca", certificatePEM(c.root.keyPair), ""))
	within(t, 30*time.Second, "all are asked", func() bool { return status(three) == 400 })
	if three.dials != 1 || three.conn != nil {
		t.Errorf("a connection that was not asked lives on: %d dials", three.dials)
	}
}

// TestClientCertificateHTTP2 has an HTTP/2 client with and without one.
func TestClientCertificateHTTP2(t *testing.T) {
	c := newClients(t)
	port := application(t, told)
	p := startProxy(t, secretOf(t, "pair", issue(t, "*.example"))+authoritySecret("ca", certificatePEM(c.root.keyPair), "")+
		site{name: "web", host: "web.example", secret: "pair", ports: []int{port}, annotations: map[string]string{
			"auth-tls-secret": "ca", "auth-tls-pass-certificate-to-upstream": "true"}}.yaml())
	for kind, want := range map[string]int{"good": 200, "none": 400, "stranger": 400} {
		tr := &http.Transport{TLSClientConfig: c.configs[kind]("web.example"), ForceAttemptHTTP2: true}
		for range 3 {
			r, _ := http.NewRequest("GET", "https://"+p.HTTPS+"/", nil)
			r.Host = "web.example"
			res, err := tr.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.ProtoMajor != 2 || res.StatusCode != want {
				t.Errorf("%s: %s %d", kind, res.Proto, res.StatusCode)
			}
			if want == 200 {
				told, err := url.PathUnescape(strings.TrimPrefix(line(string(body), "Ssl-Client-Cert: "), "Ssl-Client-Cert: "))
				if block, _ := pem.Decode([]byte(told)); err != nil || block == nil || string(block.Bytes) != string(c.good.der) {
					t.Errorf("the backend was told %q", told)
				}
			}
		}
		tr.CloseIdleConnections()
	}
}
