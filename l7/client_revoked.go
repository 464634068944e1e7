package l7

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// revocations is a certificate revocation list (RFC 5280 5).
type revocations struct {
	list    *x509.RevocationList
	issuer  *x509.Certificate // whose signature was found good; nil: none of the policy's authorities signed it
	serials map[string]bool
}

func parseRevocations(text string, authorities []*x509.Certificate) (out []*revocations, err error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("revocation list %d does not parse: %w", len(out)+1, err)
		}
		for _, e := range list.Extensions {
			if e.Critical { // it says that the list is not of all certificates, or a part of another one
				return nil, fmt.Errorf("revocation list %d has a critical extension, %s", len(out)+1, e.Id)
			}
		}
		r := &revocations{list: list, serials: make(map[string]bool, len(list.RevokedCertificateEntries))}
		for i := range list.RevokedCertificateEntries {
			e := &list.RevokedCertificateEntries[i]
			if e.ReasonCode != removedFromList {
				r.serials[string(e.SerialNumber.Bytes())] = true
			}
		}
		for _, a := range authorities {
			if bytes.Equal(a.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(a) == nil {
				r.issuer = a
				break
			}
		}
		out = append(out, r)
	}
	if len(out) == 0 {
		return nil, errors.New("no revocation list in PEM (X509 CRL)")
	}
	return out, nil
}

const removedFromList = 8 // RFC 5280 5.3.1

// revoked answers why the lists forbid a path, a client's certificate first and a root last. As with nginx's ssl_crl every
// certificate needs a list of its issuer's, and one that is not out of date.
func (p *ClientAuth) revoked(path []*x509.Certificate, now time.Time) string {
	if len(p.lists) == 0 {
		return ""
	}
	for i, c := range path {
		issuer := path[min(i+1, len(path)-1)]
		if why := p.listed(c, issuer, now); why != "" {
			return why
		}
	}
	return ""
}

func (p *ClientAuth) listed(c, issuer *x509.Certificate, now time.Time) string {
	why := "unable to get certificate CRL"
	for _, r := range p.lists {
		if !bytes.Equal(r.list.RawIssuer, c.RawIssuer) {
			continue
		}
		switch {
		case (r.issuer == nil || !r.issuer.Equal(issuer)) && r.list.CheckSignatureFrom(issuer) != nil:
			why = "CRL signature failure"
		case now.Before(r.list.ThisUpdate):
			why = "CRL is not yet valid"
		case !r.list.NextUpdate.IsZero() && now.After(r.list.NextUpdate):
			why = "CRL has expired"
		case r.serials[string(c.SerialNumber.Bytes())]:
			return "certificate revoked"
		default:
			return ""
		}
	}
	return why
}
