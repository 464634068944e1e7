package route

import (
	"crypto/tls"
	"iter"
	"strings"
)

// parsedCertificate is what became of a Certificate.
type parsedCertificate struct {
	certificate *tls.Certificate
	err         error
}

// certificate parses a key pair, once for each pointer: parsing and checking a key takes longer than compiling a host.
func (k *compiler) certificate(c *Certificate) parsedCertificate {
	parsed, _ := k.next.identities.certificates.get(c, k.next.Generation, func() parsedCertificate {
		k.worked(yieldEvery)
		pair, err := tls.X509KeyPair(c.CertPEM, c.KeyPEM)
		return parsedCertificate{certificate: &pair, err: err}
	})
	return parsed
}

// certificatesInUse are those that the Config shows.
func (k *compiler) certificatesInUse() iter.Seq[*Certificate] {
	return func(yield func(*Certificate) bool) {
		if c := k.config.DefaultCertificate; c != nil && !yield(c) {
			return
		}
		for _, h := range k.next.hosts {
			if c := h.source.Certificate; c != nil && !yield(c) {
				return
			}
		}
	}
}

// problem tells what is wrong with the key pair; the default certificate stands in.
func (p parsedCertificate) problem(c *Certificate) Problem {
	reason := strings.TrimPrefix(p.err.Error(), "tls: ")
	field := "tls.crt"
	if strings.Contains(reason, "key") {
		field = "tls.key"
	}
	return Problem{Object: c.Owner, Field: field, Reason: reason + "; the default certificate is shown instead"}
}
