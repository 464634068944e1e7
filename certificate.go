package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// certificateLife is long: who sees one of these certificates shall think of its name, not of its date.
const certificateLife = 10 * 365 * 24 * time.Hour

// keyPair is a certificate with its key.
type keyPair struct {
	certificate *x509.Certificate
	der         []byte
	key         *ecdsa.PrivateKey
}

// newKeyPair makes a certificate for names, signed by issuer, or by itself if issuer is nil. Without names it is an
// authority.
func newKeyPair(commonName string, names []string, issuer *keyPair) (*keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Sluice"}, CommonName: commonName},
		DNSNames:              names,
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(certificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if len(names) == 0 {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	return &keyPair{certificate, der, key}, err
}

func (p *keyPair) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{p.der}, PrivateKey: p.key, Leaf: p.certificate}
}

// pem is the pair as PEM: certificate and key.
func (p *keyPair) pem() (certificate, key string, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// selfSigned is the certificate for names that have no other.
func selfSigned() (*tls.Certificate, error) {
	p, err := newKeyPair("Sluice default certificate", []string{"sluice.invalid"}, nil)
	if err != nil {
		return nil, err
	}
	return p.tls(), nil
}
