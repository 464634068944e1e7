package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	certificateAge  = 48 * time.Hour
	certificateSkew = time.Hour
	probeTimeout    = 5 * time.Second
)

// pki is the cluster's certificate authority, and the admin's pair.
type pki struct {
	ca    *x509.Certificate
	key   crypto.Signer
	pem   []byte // of ca
	admin tls.Certificate
}

// writePKI makes an authority, the API server's certificate, the key of service accounts, and kubeconfigs for an admin
// and the controller manager.
func writePKI(dir, bind, apiURL, kubeconfig string, services []net.IP) (*pki, error) {
	p, err := newPKI()
	if err != nil {
		return nil, err
	}
	serving, servingKey, err := p.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
		IPAddresses: append([]net.IP{net.ParseIP(bind), net.IPv4(127, 0, 0, 1)}, services...),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, err
	}
	private, public, err := accountKey()
	if err != nil {
		return nil, err
	}
	for name, b := range map[string][]byte{
		"ca.crt": p.pem, "apiserver.crt": serving, "apiserver.key": servingKey, "sa.key": private, "sa.pub": public,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	certificate, key, err := p.writeKubeconfig(kubeconfig, apiURL, pkix.Name{CommonName: "test-admin", Organization: []string{"system:masters"}})
	if err != nil {
		return nil, err
	}
	if p.admin, err = tls.X509KeyPair(certificate, key); err != nil {
		return nil, err
	}
	_, _, err = p.writeKubeconfig(filepath.Join(dir, "controller-manager.kubeconfig"), apiURL,
		pkix.Name{CommonName: "system:kube-controller-manager"})
	return p, err
}

func newPKI() (*pki, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test-ca"},
		NotBefore: time.Now().Add(-certificateSkew), NotAfter: time.Now().Add(certificateAge),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return &pki{ca: ca, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, err
}

// accountKey is the pair that signs and checks the tokens of service accounts.
func accountKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if private, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, nil, err
	}
	public, err = x509.MarshalPKIXPublicKey(key.Public())
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), err
}

// issue signs a certificate and answers it and its key as PEM.
func (p *pki) issue(t *x509.Certificate) (certificate, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	t.NotBefore, t.NotAfter = time.Now().Add(-certificateSkew), time.Now().Add(certificateAge)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, p.ca, k.Public(), p.key)
	if err != nil {
		return nil, nil, err
	}
	b, err := x509.MarshalECPrivateKey(k)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b}), err
}

func (p *pki) client() *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(p.ca)
	return &http.Client{Timeout: probeTimeout, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{p.admin}}}}
}

// writeKubeconfig issues a client's certificate and writes a kubeconfig that holds it.
func (p *pki) writeKubeconfig(file, server string, who pkix.Name) (certificate, key []byte, err error) {
	certificate, key, err = p.issue(&x509.Certificate{Subject: who, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil, nil, err
	}
	b64 := base64.StdEncoding.EncodeToString
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: test
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: %[3]q
  user: {client-certificate-data: %[4]s, client-key-data: %[5]s}
contexts:
- name: test
  context: {cluster: test, user: %[3]q}
current-context: test
`, server, b64(p.pem), who.CommonName, b64(certificate), b64(key))
	return certificate, key, os.WriteFile(file, []byte(text), 0o600)
}

// firstServiceIPs are the addresses of the Service "kubernetes".
func firstServiceIPs(networks string) (list []net.IP) {
	for one := range strings.SplitSeq(networks, ",") {
		if p, err := netip.ParsePrefix(one); err == nil {
			list = append(list, net.IP(p.Masked().Addr().Next().AsSlice()))
		}
	}
	return list
}
