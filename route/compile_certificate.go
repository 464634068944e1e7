package route

import (
	"crypto/tls"
	"iter"
	"runtime"
	"strings"
)

// parsedCertificate is what became of a Certificate.
type parsedCertificate struct {
	certificate *tls.Certificate
	err         error
}

// readCertificates parses the key pairs of all hosts that are not as they were, beside each other: where every host has its
// own, they are most of a compile's work.
func (k *compiler) readCertificates() {
	var list []*Certificate
	listed := make(map[*Certificate]bool)
	for _, v := range k.config.Hosts {
		if v == nil || v.Certificate == nil || k.hostBefore(v) != nil || listed[v.Certificate] {
			continue
		}
		listed[v.Certificate] = true
		if !k.next.identities.certificates.has(v.Certificate) {
			list = append(list, v.Certificate)
		}
	}
	k.hostAt = 0
	if len(list) < 2 {
		return // it is parsed when its host is compiled
	}
	parsed := make([]parsedCertificate, len(list))
	k.env.Share(len(list), func(i int) {
		parsed[i] = list[i].parse()
		runtime.Gosched()
	})
	for i, c := range list {
		k.next.identities.certificates.get(c, k.next.Generation, func() parsedCertificate { return parsed[i] })
	}
}

// certificate gives what a key pair is, parsed once for each pointer: that takes longer than compiling a host.
func (k *compiler) certificate(c *Certificate) parsedCertificate {
	parsed, _ := k.next.identities.certificates.get(c, k.next.Generation, func() parsedCertificate {
		k.worked(yieldEvery)
		return c.parse()
	})
	return parsed
}

func (c *Certificate) parse() parsedCertificate {
	pair, err := tls.X509KeyPair(c.CertPEM, c.KeyPEM)
	return parsedCertificate{certificate: &pair, err: err}
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
