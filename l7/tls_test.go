package l7

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// certificate is the one that the tests' connections show.
var certificate = sync.OnceValues(func() (c tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		return c, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"shop.example", "*.more.example"}}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		return c, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
})

// shaker waits for a handshake and then gives the connection to the engine.
type shaker struct {
	r *rig
	a *Accepted
}

func (s *shaker) OnReadable(*fastpath.Conn) {}
func (s *shaker) OnWritable(*fastpath.Conn) {}
func (s *shaker) OnDeadline(*fastpath.Conn) {}

func (s *shaker) OnHandshake(c *fastpath.Conn, err *fastpath.Error) {
	if err != nil {
		c.Close()
		return
	}
	s.r.srv.ServeHTTP1(c, s.a)
}

// tlsClient is a client that speaks TLS.
type tlsClient struct {
	client
	tls *tls.Conn
}

func (c *tlsClient) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.tls, s); err != nil {
		c.t.Fatalf("sending %.80q: %v", s, err)
	}
}

// dialTLS connects a client with TLS, as server name shop.example.
func (r *rig) dialTLS() *tlsClient {
	r.Helper()
	cert, err := certificate()
	r.must(err)
	cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
	c := r.connect(func(c *fastpath.Conn) {
		c.SetHandler(&shaker{r, &Accepted{Server: []byte("shop.example"), Certificate: cert.Leaf}})
		if err := c.StartTLS(cfg, true, r.env.Work); err != nil {
			c.Close()
		}
	})
	t := tls.Client(c.TCPConn, &tls.Config{InsecureSkipVerify: true})
	r.must(t.Handshake())
	return &tlsClient{client{TCPConn: c.TCPConn, r: bufio.NewReader(t), t: r}, t}
}

func TestTLS(t *testing.T) {
	r := newRig(t)
	b := r.backend(mirror)
	c := r.dialTLS()
	for i := range 10 {
		c.send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: shop.example\r\n\r\n", i))
		c.expect("GET", 200, fmt.Sprintf("GET /%d ", i))
		c.send("POST /p HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\nbody")
		c.expect("POST", 200, "POST /p body")
		c.send("POST /c HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbo")
		c.send("dy\r\n0\r\n\r\n")
		c.expect("POST", 200, "POST /c body")
	}
	var all strings.Builder
	for i := range 40 {
		fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1\r\n\r\nx", i)
	}
	c.send(all.String())
	for i := range 40 {
		c.expect("POST", 200, fmt.Sprintf("POST /%d x", i))
	}
	if n := b.accepted.Load(); n > 20 { // of 70 requests: on a machine that halts for long, a POST takes a fresh one
		t.Errorf("%d backend connections, want 1", n)
	}
}

func TestTLSBigBodies(t *testing.T) {
	want := noiseSum(bigBytes)
	for _, framing := range []wire.Framing{wire.FramingLength, wire.FramingChunked} {
		t.Run(framing.String(), func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.BodyMax = 0 })
			r.backend(func(p *peer) {
				for q := p.head(); q != nil; q = p.head() {
					sum, _, err := digest(q.Body)
					if err != nil {
						return
					}
					p.send("HTTP/1.1 200 OK\r\nSum: " + sum + "\r\n" + framingField(framing, bigBytes) + "\r\n")
					if write(p, framing, newNoise(bigBytes)) != nil {
						return
					}
				}
			})
			c := r.dialTLS()
			for range 2 {
				c.send("POST / HTTP/1.1\r\nHost: shop.example\r\n" + framingField(framing, bigBytes) + "\r\n")
				r.must(write(c.tls, framing, newNoise(bigBytes)))
				res, err := http.ReadResponse(c.r, nil)
				r.must(err)
				if sum, n, err := digest(res.Body); sum != want || err != nil || res.Header.Get("Sum") != want {
					t.Errorf("up %s, down %d bytes, %v", res.Header.Get("Sum"), n, err)
				}
			}
		})
	}
}

// TestTLSClientLeaves: close_notify and an end say that nobody waits for the answer.
func TestTLSClientLeaves(t *testing.T) {
	for name, leave := range map[string]func(*tlsClient){
		"close_notify and FIN": func(c *tlsClient) { c.tls.Close() },
		"FIN":                  func(c *tlsClient) { c.TCPConn.Close() },
		"RST":                  func(c *tlsClient) { c.reset() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			reached, gone := make(chan bool, 1), make(chan time.Time, 1)
			r.backend(once(func(p *peer) {
				reached <- true
				if p.gone(patience) {
					gone <- time.Now()
				}
			}))
			c := r.dialTLS()
			c.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
			receive(t, "the backend", reached)
			left := time.Now()
			leave(c)
			if took := receive(t, "the backend's end", gone).Sub(left); took > cancelTime {
				t.Errorf("cancelled after %v", took)
			}
			r.recorded(wire.MethodGet, statusClientGone, 1)
		})
	}
}

// TestTLSHalfClosed: close_notify alone says that no request follows, and not that nobody reads; with the FIN nobody does.
func TestTLSHalfClosed(t *testing.T) {
	r := newRig(t)
	reached, answer := make(chan bool, 1), make(chan bool)
	r.backend(once(func(p *peer) {
		reached <- true
		<-answer
		p.answer("200 OK", "ok")
	}))
	c := r.dialTLS()
	c.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
	receive(t, "the backend", reached)
	r.must(c.tls.CloseWrite())
	time.Sleep(50 * time.Millisecond) // nothing tells outside that it was seen; a slow machine does not fail, it proves less
	answer <- true
	if b, err := io.ReadAll(c.tls); err != nil || !strings.HasSuffix(string(b), "ok") {
		t.Errorf("the client read %q, %v", b, err)
	}
}

// TestTLSCut: a response that breaks off has no close_notify, which would make it look complete.
func TestTLSCut(t *testing.T) {
	r := newRig(t)
	r.backend(once(func(p *peer) { p.send("HTTP/1.1 200 OK\r\n\r\nhalf"); time.Sleep(short / 5); p.reset() }))
	c := r.dialTLS()
	c.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
	if all, err := io.ReadAll(c.r); err == nil || !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%q, then %v: it looks complete", all, err)
	}
}

// TestTLSEnd: one that is complete ends with close_notify.
func TestTLSEnd(t *testing.T) {
	r := newRig(t)
	r.backend(once(func(p *peer) { p.send("HTTP/1.1 200 OK\r\n\r\nwhole") }))
	c := r.dialTLS()
	c.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
	if all, err := io.ReadAll(c.r); err != nil || !strings.HasSuffix(string(all), "whole") {
		t.Errorf("%q, then %v", all, err)
	}
}

// TestMisdirected: on a connection made for one host, another is served only if the certificate covers it.
func TestMisdirected(t *testing.T) {
	r := newRig(t)
	r.backend(mirror)
	c := r.dialTLS()
	for host, status := range map[string]int{"shop.example": 200, "a.more.example": 200, "other.example": 421, "a.b.more.example": 421, "SHOP.example.:443": 200} {
		c.send("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		if a := c.status("GET", status); a.Close {
			t.Errorf("%s: the connection ends", host)
		}
	}
}
