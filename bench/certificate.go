package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Names that requests carry; every proxy is configured for them.
const (
	hostBench = "bench.example"
	hostPass  = "pass.example"
	hostGRPC  = "grpc.example" // its backend speaks HTTP/2

	hostChanging = "changing.example"
	hostRewrite  = "rewrite.example" // rewrite and access log
	hostChain    = "chain.example"   // … and CORS and a limit
	hostLimited  = "limited.example" // one request a second
)

// A certificate is the one key pair that all proxies and the origin show: ECDSA P-256, made anew for every run.
type certificate struct {
	leaf     []byte // DER, for comparison
	cert     []byte // PEM
	key      []byte // PEM
	certFile string
	keyFile  string
	bothFile string // HAProxy wants both in one
}

// newCertificate makes a self-signed certificate for the bench's names and writes its files to dir.
func newCertificate(dir string) (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: hostBench},
		DNSNames:     []string{hostBench, hostPass, hostGRPC},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c := &certificate{
		leaf:     leaf,
		cert:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}),
		key:      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		certFile: filepath.Join(dir, "tls.crt"),
		keyFile:  filepath.Join(dir, "tls.key"),
		bothFile: filepath.Join(dir, "tls.pem"),
	}
	return c, c.write()
}

func (c *certificate) write() error {
	return errors.Join(
		os.WriteFile(c.certFile, c.cert, 0o600),
		os.WriteFile(c.keyFile, c.key, 0o600),
		os.WriteFile(c.bothFile, append(bytes.Clone(c.cert), c.key...), 0o600),
	)
}

var errWrongCertificate = errors.New("the peer showed another certificate")

// client is the configuration of a TLS client for name that talks TLS 1.3 and takes this certificate only. It is
// compared byte for byte: cheaper than building a chain, and stricter.
//
// The client offers X25519 only and no session tickets, so that Go and OpenSSL do the same work; modern instead
// offers what browsers do, X25519MLKEM768 and tickets, and resumes no session.
func (c *certificate) client(name string, modern bool) *tls.Config {
	config := &tls.Config{
		ServerName:         name,
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{"http/1.1"},
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, c.leaf) {
				return errWrongCertificate
			}
			return nil
		},
	}
	if modern {
		config.ClientSessionCache = forgetful{}
		return config
	}
	config.CurvePreferences = []tls.CurveID{tls.X25519}
	config.SessionTicketsDisabled = true
	return config
}

// clientHTTP2 is a client that would rather speak HTTP/2.
func (c *certificate) clientHTTP2(name string) *tls.Config {
	config := c.client(name, false)
	config.NextProtos = []string{"h2", "http/1.1"}
	return config
}

// forgetful makes the client offer session tickets and resume none.
type forgetful struct{}

func (forgetful) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (forgetful) Put(string, *tls.ClientSessionState)        {}
