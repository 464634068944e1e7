package translate

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/route"
)

// A certificate is a Secret as far as it is a key pair. Whether key and certificate belong together is not asked here:
// route.Compile loads them.
type certificate struct {
	secret *corev1.Secret
	pair   *route.Certificate
	leaf   *x509.Certificate
	why    string // why it cannot be used; pair is nil then
}

// certificate reads the key pair of a Secret, once as long as the Secret stays what it is.
func (t *Translator) certificate(k key) *certificate {
	secret, old := t.secrets.by[k], t.certs[k]
	if old != nil && old.secret == secret {
		return old
	}
	c := readCertificate(secret)
	if old != nil && old.pair != nil && c.pair != nil &&
		bytes.Equal(old.pair.CertPEM, c.pair.CertPEM) && bytes.Equal(old.pair.KeyPEM, c.pair.KeyPEM) {
		c.pair = old.pair
	}
	t.certs[k] = c
	return c
}

func readCertificate(s *corev1.Secret) *certificate {
	c := &certificate{secret: s}
	if s == nil {
		c.why = "does not exist"
		return c
	}
	switch s.Type {
	case corev1.SecretTypeTLS, corev1.SecretTypeOpaque, "":
	default:
		c.why = "is of type " + string(s.Type) + "; it must be kubernetes.io/tls"
		return c
	}
	chain, private := s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]
	if len(chain) == 0 || len(private) == 0 {
		c.why = "lacks tls.crt or tls.key"
		return c
	}
	leaf := firstCertificate(chain)
	if leaf == nil {
		c.why = "holds no certificate in PEM under tls.crt"
		return c
	}
	if block, _ := pem.Decode(private); block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY") && block.Type != "EC PARAMETERS" {
		c.why = "holds no private key in PEM under tls.key"
		return c
	}
	c.leaf = leaf
	c.pair = &route.Certificate{
		Owner:   route.Object{Kind: "Secret", Namespace: s.Namespace, Name: s.Name},
		CertPEM: chain, KeyPEM: private,
	}
	return c
}

// firstCertificate is the leaf of a chain in PEM; nil: it does not parse.
func firstCertificate(chain []byte) *x509.Certificate {
	for {
		var block *pem.Block
		if block, chain = pem.Decode(chain); block == nil {
			return nil
		}
		if block.Type == "CERTIFICATE" {
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil
			}
			return leaf
		}
	}
}

// covers tells whether a certificate is for a host, a wildcard one too. A common name counts where there are no
// alternative names, as in ingress-nginx.
func (c *certificate) covers(host string) bool {
	if c.leaf.VerifyHostname(host) == nil {
		return true
	}
	name := strings.ToLower(c.leaf.Subject.CommonName)
	if len(c.leaf.DNSNames) > 0 || name == "" {
		return false
	}
	if parent, ok := strings.CutPrefix(name, "*."); ok {
		_, rest, _ := strings.Cut(host, ".")
		return host == name || rest == parent
	}
	return host == name
}

// secrets are those that the fragment's Ingress names, each once.
func (f *fragment) secrets() (keys []key) {
	if len(f.hosts) == 0 {
		return nil
	}
	seen := make(map[string]bool, len(f.ing.Spec.TLS))
	for i := range f.ing.Spec.TLS {
		if name := f.ing.Spec.TLS[i].SecretName; name != "" && !strings.Contains(name, "/") && !seen[name] {
			seen[name] = true
			keys = append(keys, key{f.ing.Namespace, name})
		}
	}
	named, _ := f.references()
	return append(keys, named...)
}

// defaultCertificate is that of --default-ssl-certificate; nil: the self-signed one.
func (t *Translator) defaultCertificate() *route.Certificate {
	o := t.options.DefaultSSLCertificate
	if o == "" {
		return nil
	}
	k, ok := parseKey(o)
	owner := route.Object{Kind: "Secret", Namespace: k.namespace, Name: k.name}
	if !ok {
		owner = route.Object{Kind: "Secret", Name: o}
		t.ledger.set("default certificate", []route.Problem{problem(owner, "--default-ssl-certificate",
			"is not NAMESPACE/NAME; a self-signed certificate is shown")})
		return nil
	}
	c := t.certificate(k)
	var problems []route.Problem
	if c.why != "" {
		problems = append(problems, problem(owner, "--default-ssl-certificate", "%s; a self-signed certificate is shown until it is there", c.why))
	}
	t.ledger.set("default certificate", problems)
	return c.pair
}
