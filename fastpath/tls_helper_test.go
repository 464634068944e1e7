package fastpath

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

const testName = "sluice.test"

// identity is a certificate for testName and the pool that trusts it.
var identity = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: testName}, DNSNames: []string{testName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
})

var tlsVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

func serverConfig(version uint16) *tls.Config {
	cert, _ := identity()
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: version, MaxVersion: version, DynamicRecordSizingDisabled: true}
}

func clientConfig(version uint16) *tls.Config {
	_, pool := identity()
	return &tls.Config{RootCAs: pool, ServerName: testName, MinVersion: version, MaxVersion: version, DynamicRecordSizingDisabled: true}
}

// side is which end of a TLS connection the loop has, and the protocol's version.
type side struct {
	server  bool
	version uint16
}

func (s side) String() string {
	name := map[bool]string{true: "server", false: "client"}[s.server]
	return name + " " + tls.VersionName(s.version)
}

// eachSide runs f as a sub-test for either end and version.
func eachSide(t *testing.T, f func(t *testing.T, s side)) {
	for _, version := range tlsVersions {
		for _, server := range []bool{true, false} {
			s := side{server, version}
			t.Run(s.String(), func(t *testing.T) { f(t, s) })
		}
	}
}

// ours is the loop's configuration.
func (s side) ours() *tls.Config {
	if s.server {
		return serverConfig(s.version)
	}
	return clientConfig(s.version)
}

// theirs is crypto/tls at the other end of nc.
func (s side) theirs(nc net.Conn) *tls.Conn {
	if s.server {
		return tls.Client(nc, clientConfig(s.version))
	}
	return tls.Server(nc, serverConfig(s.version))
}

// startTLS gives fd to the loop and begins a handshake on it.
func startTLS(t testing.TB, l *Loop, fd int, h Handler, cfg *tls.Config, server bool, w *Work) (c *Conn) {
	t.Helper()
	on(t, l, func() {
		c = mustAdopt(t, l, fd, h)
		if err := c.StartTLS(cfg, server, w); err != nil {
			t.Errorf("StartTLS: %v", err)
		}
	})
	return c
}

// wary is a peer that tells a bare FIN from close_notify. crypto/tls does not: it takes FIN between records for an end.
type wary struct{ *net.TCPConn }

var errBareEnd = errors.New("FIN without close_notify")

func (w wary) Read(b []byte) (int, error) {
	n, err := w.TCPConn.Read(b)
	if err == io.EOF {
		err = errBareEnd
	}
	return n, err
}

// tcpOf is the socket under a TLS or a plain peer.
func tcpOf(peer net.Conn) *net.TCPConn {
	if tc, ok := peer.(*tls.Conn); ok {
		peer = tc.NetConn()
	}
	if w, ok := peer.(wary); ok {
		return w.TCPConn
	}
	return peer.(*net.TCPConn)
}

// established tells that the handshake is over, and well.
func established(c *Conn) bool { return c.tls != nil && !c.tls.handshaking && c.tls.err == nil }

// secured is a TLS connection after its handshake: ours, theirs.
func secured(t testing.TB, l *Loop, s side, h Handler, kernelBytes int) (*Conn, *tls.Conn) {
	t.Helper()
	fd, peer := tcpPairBuffers(t, kernelBytes)
	c := startTLS(t, l, fd, h, s.ours(), s.server, NewWork(2))
	tc := s.theirs(wary{peer})
	if err := tc.Handshake(); err != nil {
		t.Fatalf("the peer's handshake: %v", err)
	}
	onEventually(t, l, "our handshake's end", func() bool { return established(c) })
	return c, tc
}

// chopped writes in pieces of random size, so that records arrive in any number of segments.
type chopped struct {
	net.Conn
	rng *mrand.Rand
	max int
}

func (c *chopped) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = c.Conn.Write(b[n:min(len(b), n+1+c.rng.IntN(c.max))])
		n += k
	}
	return n, err
}

func (c *chopped) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// gathered holds back what is written while it holds, and sends it all as one.
type gathered struct {
	*net.TCPConn
	holding bool
	held    []byte
}

func (g *gathered) Write(b []byte) (int, error) {
	if g.holding {
		g.held = append(g.held, b...)
		return len(b), nil
	}
	return g.TCPConn.Write(b)
}

func (g *gathered) release() error {
	g.holding = false
	_ = g.SetWriteDeadline(time.Now().Add(patience)) // crypto/tls let it pass when it sent close_notify
	_, err := g.TCPConn.Write(g.held)
	return err
}

// echoOnce sends n bytes and reads them back, while the connection stays open.
func echoOnce(t testing.TB, peer net.Conn, n int) {
	t.Helper()
	want := payload(n, n)
	go func() { _, _ = peer.Write(want) }()
	got := make([]byte, n)
	if _, err := io.ReadFull(peer, got); err != nil {
		t.Fatalf("echo of %d bytes: %v", n, err)
	}
	same(t, "echo", got, want)
}
