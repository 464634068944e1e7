package route

import (
	"crypto/tls"
	"strings"
)

// parsedCertificate is what became of a Certificate.
type parsedCertificate struct {
	certificate *tls.Certificate
	err         error
}

// certificate parses a key pair, once for each pointer: parsing and checking a key takes longer than compiling a host.
func (k *compiler) certificate(c *Certificate) parsedCertificate {
	if k.certificates == nil {
		k.certificates = k.previous.certificates()
	}
	parsed, ok := k.certificates[c]
	if !ok {
		pair, err := tls.X509KeyPair(c.CertPEM, c.KeyPEM)
		parsed = parsedCertificate{certificate: &pair, err: err}
		k.certificates[c] = parsed
		k.worked(yieldEvery)
	}
	return parsed
}

// certificates are those that a Snapshot has in use.
func (s *Snapshot) certificates() map[*Certificate]parsedCertificate {
	m := map[*Certificate]parsedCertificate{}
	if c := s.config.DefaultCertificate; c != nil && s.ownCertificate {
		m[c] = parsedCertificate{certificate: s.certificate}
	}
	for _, h := range s.hosts {
		if h.Certificate != nil {
			m[h.source.Certificate] = parsedCertificate{certificate: h.Certificate}
		}
	}
	return m
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
