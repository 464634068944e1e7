package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file are about TLS that ends at the proxy: certificates, versions, hellos in every shape, and what is
// not TLS at all.

// tlsWorld is a proxy with an exact, a wildcard and a default certificate, and a backend behind all hosts.
type tlsWorld struct {
	*testProxy
	backend                   *backend
	exact, wildcard, fallback *keyPair
}

func newTLSWorld(t *testing.T, flags ...string) *tlsWorld {
	t.Helper()
	w := &tlsWorld{
		backend: newBackend(t, "one", nil),
		exact:   issue(t, "exact.example"), wildcard: issue(t, "*.wild.example"), fallback: issue(t, "fallback.example"),
	}
	ports := []int{w.backend.port()}
	w.testProxy = startProxy(t, site{name: "exact", host: "exact.example", secret: "exact", ports: ports}.yaml()+
		site{name: "wild", host: "*.wild.example", secret: "wild", ports: ports}.yaml()+
		site{name: "bare", host: "bare.example", ports: ports}.yaml()+secretOf(t, "wild", w.wildcard)+secretOf(t, "fallback", w.fallback),
		append([]string{"--default-ssl-certificate=default/fallback"}, flags...)...)
	w.write("exact.yaml", secretOf(t, "exact", w.exact))
	within(t, editLimit, "the exact host's certificate", func() bool { return w.shown(t, "exact.example") == w.exact.certificate.Subject.CommonName })
	return w
}

// shown is the common name of the certificate that a server name gets.
func (p *testProxy) shown(t *testing.T, name string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", p.HTTPS, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestTLSCertificates(t *testing.T) {
	w := newTLSWorld(t)
	for name, want := range map[string]string{
		"exact.example": "exact.example", "EXACT.Example": "exact.example", "exact.example.": "exact.example", // Go's client strips the dot
		"one.wild.example": "*.wild.example", "One.WILD.example": "*.wild.example",
		"two.one.wild.example": "fallback.example", // a wildcard covers one label
		"wild.example":         "fallback.example",
		"bare.example":         "fallback.example",
		"unknown.example":      "fallback.example",
		"127.0.0.1":            "fallback.example", // Go's client sends no name then
		"":                     "fallback.example",
	} {
		if got := w.shown(t, name); got != want {
			t.Errorf("%q is shown the certificate of %s, want %s", name, got, want)
		}
	}
	for _, host := range []string{"exact.example", "one.wild.example"} {
		ask(t, w.HTTPS, trusting(t, host), host, "/").want(t, 200, "one")
	}
	a := ask(t, w.HTTPS, trusting(t, "exact.example"), "exact.example", "/")
	if !strings.Contains(a.body, "X-Forwarded-Proto: https\r\n") || !strings.Contains(a.body, "X-Forwarded-Port: 443\r\n") || a.header.Get("Strict-Transport-Security") == "" {
		t.Errorf("over TLS the backend got\n%s\nand the client %v", a.body, a.header)
	}
}

// TestTLSRotation rewrites a Secret: new handshakes get the new certificate, a connection under the old one lives on.
func TestTLSRotation(t *testing.T) {
	w := newTLSWorld(t)
	old := &caller{address: w.HTTPS, tls: trusting(t, "exact.example")}
	defer old.hangUp()
	for range 5 {
		if a, err := old.call(request("exact.example", "/")); err != nil {
			t.Fatal(err)
		} else {
			a.want(t, 200, "one")
		}
		next := issue(t, "exact.example")
		w.write("exact.yaml", secretOf(t, "exact", next))
		within(t, editLimit, "the new certificate", func() bool {
			conn, err := tls.Dial("tcp", w.HTTPS, trusting(t, "exact.example"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].Equal(next.certificate)
		})
	}
	if _, err := old.call(request("exact.example", "/")); err != nil || old.dials != 1 || old.repeats != 0 {
		t.Errorf("the connection under the first certificate: %v, %d dials", err, old.dials)
	}
	w.write("exact.yaml", "") // without the Secret the default certificate stands in
	within(t, editLimit, "the default certificate", func() bool { return w.shown(t, "exact.example") == "fallback.example" })
	if _, err := old.call(request("exact.example", "/")); err != nil || old.dials != 1 {
		t.Errorf("after the Secret is gone: %v, %d dials", err, old.dials)
	}
}

func TestTLSVersions(t *testing.T) {
	w := newTLSWorld(t)
	for _, c := range []struct {
		name   string
		change func(c *tls.Config)
		check  func(s tls.ConnectionState) bool
		err    string // of the handshake
	}{
		{"1.3 with a post-quantum key", func(*tls.Config) {}, func(s tls.ConnectionState) bool {
			return s.Version == tls.VersionTLS13 && s.CurveID == tls.X25519MLKEM768
		}, ""},
		{"1.3 without", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }, func(s tls.ConnectionState) bool {
			return s.Version == tls.VersionTLS13 && s.CurveID == tls.CurveP256
		}, ""},
		{"1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, func(s tls.ConnectionState) bool { return s.Version == tls.VersionTLS12 }, ""},
		{"1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }, nil, "protocol version not supported"},
		{"1.2 without forward secrecy", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		}, nil, "handshake failure"},
		{"1.2 with CBC", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		}, nil, "handshake failure"},
		{"ALPN with http/1.1", func(c *tls.Config) { c.NextProtos = []string{"spdy/3", "http/1.1"} },
			func(s tls.ConnectionState) bool { return s.NegotiatedProtocol == "http/1.1" }, ""},
		{"ALPN without overlap", func(c *tls.Config) { c.NextProtos = []string{"h3", "spdy/3"} }, nil, "no application protocol"},
		{"no ALPN", func(*tls.Config) {}, func(s tls.ConnectionState) bool { return s.NegotiatedProtocol == "" }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := trusting(t, "exact.example")
			c.change(config)
			conn, err := tls.Dial("tcp", w.HTTPS, config)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("handshake: %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if s := conn.ConnectionState(); !c.check(s) {
				t.Errorf("version %x, curve %v, ALPN %q", s.Version, s.CurveID, s.NegotiatedProtocol)
			}
			ask(t, w.HTTPS, config, "exact.example", "/").want(t, 200, "one")
		})
	}
}

// TestTLSAlertForALPN looks at the record itself: 120 is what RFC 7301 asks for.
func TestTLSAlertForALPN(t *testing.T) {
	w := newTLSWorld(t)
	conn, err := net.Dial("tcp", w.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	config := trusting(t, "exact.example")
	config.NextProtos = []string{"spdy/3"}
	if _, err := conn.Write(helloOf(t, config)); err != nil {
		t.Fatal(err)
	}
	if got, err := ended(conn); got != "\x15\x03\x03\x00\x02\x02\x78" {
		t.Errorf("the answer is %q (%v), want a fatal alert 120", got, err)
	}
}

func TestTLSResumption(t *testing.T) {
	w := newTLSWorld(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := trusting(t, "exact.example")
		config.MinVersion, config.MaxVersion = version, version
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 4 {
			c := &caller{address: w.HTTPS, tls: config}
			a, err := c.call(request("exact.example", "/"))
			if err != nil {
				t.Fatal(err)
			}
			a.want(t, 200, "one")
			if resumed := c.conn.(*tls.Conn).ConnectionState().DidResume; resumed != (i > 0) {
				t.Errorf("version %x, connection %d: resumed is %v", version, i, resumed)
			}
			c.hangUp()
		}
	}
}

// helloOf is the ClientHello that a client would send.
func helloOf(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	mine, its := net.Pipe()
	go func() {
		_ = tls.Client(its, config).Handshake() // fails when mine is closed
	}()
	defer mine.Close()
	var hello []byte
	for { // a hello over 16 KiB comes in several records
		var head [5]byte
		if _, err := io.ReadFull(mine, head[:]); err != nil {
			t.Fatal(err)
		}
		record := make([]byte, int(head[3])<<8|int(head[4]))
		if _, err := io.ReadFull(mine, record); err != nil {
			t.Fatal(err)
		}
		hello = append(append(hello, head[:]...), record...)
		if len(record) < 16<<10 {
			return hello
		}
	}
}

// pieces writes in small segments.
type pieces struct {
	net.Conn
	size  int
	pause time.Duration
	limit int // bytes that are cut up; the rest goes as it comes
}

func (p *pieces) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		n := len(b)
		if p.limit > 0 {
			n = min(p.size, n)
			p.limit -= n
		}
		k, err := p.Conn.Write(b[:n])
		written += k
		if err != nil {
			return written, err
		}
		b = b[n:]
		time.Sleep(p.pause)
	}
	return written, nil
}

// records puts the first flight into records of few bytes.
type records struct {
	net.Conn
	size int
	done bool
}

func (r *records) Write(b []byte) (int, error) {
	if r.done {
		return r.Conn.Write(b)
	}
	r.done = true
	if _, err := r.Conn.Write(cutRecords(b, r.size)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// cutRecords puts the content of TLS records into smaller ones.
func cutRecords(b []byte, size int) (out []byte) {
	for len(b) > 0 {
		n := int(b[3])<<8 | int(b[4])
		for content := b[5 : 5+n]; len(content) > 0; {
			k := min(size, len(content))
			out = append(out, b[0], b[1], b[2], byte(k>>8), byte(k))
			out = append(out, content[:k]...)
			content = content[k:]
		}
		b = b[5+n:]
	}
	return out
}

// helloShapes are ways in which one hello can arrive.
var helloShapes = map[string]func(net.Conn) net.Conn{
	"as it is":              func(c net.Conn) net.Conn { return c },
	"in segments of a byte": func(c net.Conn) net.Conn { return &pieces{Conn: c, size: 1, limit: 1 << 20} },
	"in slow segments": func(c net.Conn) net.Conn {
		return &pieces{Conn: c, size: 400, limit: 8 << 10, pause: 10 * time.Millisecond}
	},
	"in records of a byte":      func(c net.Conn) net.Conn { return &records{Conn: c, size: 1} },
	"in records of 100 bytes":   func(c net.Conn) net.Conn { return &records{Conn: c, size: 100} },
	"in records and in pieces":  func(c net.Conn) net.Conn { return &records{Conn: &pieces{Conn: c, size: 3, limit: 3000}, size: 50} },
	"the first byte on its own": func(c net.Conn) net.Conn { return &pieces{Conn: c, size: 1, limit: 1, pause: 30 * time.Millisecond} },
}

// largeProtos stretch a hello to n bytes and more.
func largeProtos(n int) []string {
	list := []string{"http/1.1"}
	for i := 0; i < n; i += 204 {
		list = append(list, fmt.Sprintf("%0203d", i))
	}
	return list
}

// TestTLSHello sends hellos in every shape.
func TestTLSHello(t *testing.T) {
	w := newTLSWorld(t)
	for name, shape := range helloShapes {
		for size, protos := range map[string][]string{"": nil, ", 5 KiB": largeProtos(5 << 10), ", 40 KiB": largeProtos(40 << 10)} {
			if strings.Contains(name, "a byte") && len(protos) > 100 {
				continue // the loopback's accounting of tiny segments is not what is tested
			}
			t.Run(name+size, func(t *testing.T) {
				t.Parallel()
				config := trusting(t, "exact.example")
				config.NextProtos = protos
				c := &caller{address: w.HTTPS, tls: config, wrap: shape}
				defer c.hangUp()
				a, err := c.call(request("exact.example", "/"))
				if err != nil {
					t.Fatal(err)
				}
				a.want(t, 200, "one")
			})
		}
	}
}

// TestTLSNames sends server names that Go's client does not, and finds in the plain flight of TLS 1.2 which certificate
// is shown.
func TestTLSNames(t *testing.T) {
	w := newTLSWorld(t)
	for _, c := range []struct {
		name, placeholder, sent string
		shown                   *keyPair // nil: an alert
	}{
		{"an IPv4 address", "aaaaaaaaa", "127.0.0.1", w.fallback},
		{"an exact name", "aaaaaaaaaaaaa", "exact.example", w.exact},
		{"upper case", "aaaaaaaaaaaaa", "EXACT.EXAMPLE", w.exact},
		{"a trailing dot", "aaaaaaaaaaaaaa", "exact.example.", nil}, // RFC 6066 forbids it, and so does crypto/tls
		{"a NUL", "aaaaaaaaaaaaa", "exact\x00example", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := &tls.Config{ServerName: c.placeholder, MaxVersion: tls.VersionTLS12}
			hello := bytes.Replace(helloOf(t, config), []byte(c.placeholder), []byte(c.sent), 1)
			conn, err := net.Dial("tcp", w.HTTPS)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(hello); err != nil {
				t.Fatal(err)
			}
			if c.shown == nil {
				if got, _ := ended(conn); strings.HasPrefix(got, "\x16") {
					t.Errorf("it was answered by a handshake: %q", got)
				}
				return
			}
			_ = conn.SetDeadline(time.Now().Add(callTimeout))
			var flight []byte
			for part := make([]byte, 4096); !bytes.Contains(flight, c.shown.der); {
				n, err := conn.Read(part)
				if flight = append(flight, part[:n]...); err != nil {
					t.Fatalf("the flight of %d bytes does not hold the certificate of %s: %v", len(flight), c.shown.certificate.Subject.CommonName, err)
				}
			}
		})
	}
}

// TestNotTLS sends to the HTTPS port what is no TLS.
func TestNotTLS(t *testing.T) {
	w := newTLSWorld(t)
	for _, c := range []struct{ name, send, status string }{
		{"HTTP", "GET / HTTP/1.1\r\nHost: exact.example\r\n\r\n", "400"},
		{"HTTP to a host without certificate", "GET / HTTP/1.1\r\nHost: bare.example\r\n\r\n", "400"},
		{"HTTP with a body", "POST / HTTP/1.1\r\nHost: bare.example\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("a", 100_000), "400"},
		{"two requests", "GET / HTTP/1.1\r\nHost: bare.example\r\n\r\nGET / HTTP/1.1\r\nHost: bare.example\r\n\r\n", "400"},
		{"garbage in lines", "hello\r\n\r\n", "400"},
		{"SSLv2", "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\r\n\r\n", "400"},
		{"a record of the wrong version", "\x16\x02\x00\x00\x05hello\r\n\r\n", "400"},
		{"an empty record", "\x16\x03\x01\x00\x00", ""},
		{"no hello in the record", "\x16\x03\x01\x00\x04\x02\x00\x00\x00", ""},
		{"application data within the hello", "\x16\x03\x01\x00\x04\x01\x00\x01\x00\x17\x03\x03\x00\x01a", ""},
		{"a hello over 64 KiB", "\x16\x03\x01\x40\x00\x01\x01\x00\x01" + strings.Repeat("a", 16380), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.backend.served.Load()
			conn, err := net.Dial("tcp", w.HTTPS)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, c.send) // what is refused early may be cut
			got, err := ended(conn)
			if c.status == "" && got != "" || !strings.HasPrefix(got, "HTTP/1.1 "+c.status) && c.status != "" {
				t.Errorf("the answer is %.300q (%v), want %q", got, err, c.status)
			}
			if strings.Count(got, "HTTP/1.1 ") > 1 {
				t.Errorf("the connection went on: %.300q", got)
			}
			if w.backend.served.Load() != before {
				t.Error("the backend was asked")
			}
		})
	}
}

// TestMisdirected is docs/hardening.md 3.2's row about 421, case (a).
func TestMisdirected(t *testing.T) {
	w := newTLSWorld(t)
	for _, c := range []struct {
		server, host string
		status       int
	}{
		{"exact.example", "exact.example", 200},
		{"exact.example", "EXACT.example.", 200},
		{"exact.example", "exact.example:443", 200},
		{"exact.example", "one.wild.example", 421},
		{"exact.example", "nobody.example", 421},
		{"one.wild.example", "two.wild.example", 200}, // the certificate covers it
		{"one.wild.example", "one.two.wild.example", 421},
		{"bare.example", "bare.example", 200}, // its name is the connection's, whatever certificate was shown
		{"", "exact.example", 200},            // no server name: case (b) alone could refuse
	} {
		config := trusting(t, c.server)
		config.InsecureSkipVerify = true // not every case shows a certificate of the name
		conn := &caller{address: w.HTTPS, tls: config}
		a, err := conn.call(request(c.host, "/"))
		if err != nil {
			t.Fatal(err)
		}
		if a.status != c.status {
			t.Errorf("%q on a connection for %q: %d, want %d", c.host, c.server, a.status, c.status)
		}
		if a.close {
			t.Errorf("%q on a connection for %q: the connection ends", c.host, c.server)
		} else if c.server != "" {
			if a, err := conn.call(request(c.server, "/")); err != nil || a.status != 200 || conn.dials != 1 {
				t.Errorf("the connection's own host afterwards: %v, %v", a, err)
			}
		}
		conn.hangUp()
	}
}

// TestTLSToBackends has backends that speak TLS themselves.
func TestTLSToBackends(t *testing.T) {
	secured := newBackend(t, "secured", issue(t, "inner.example"))
	p := startProxy(t, site{name: "inner", host: "inner.example", ports: []int{secured.port()},
		annotations: map[string]string{"backend-protocol": "HTTPS"}}.yaml())
	c := &caller{address: p.HTTP}
	defer c.hangUp()
	for range 20 {
		a, err := c.call(request("inner.example", "/"))
		if err != nil {
			t.Fatal(err)
		}
		a.want(t, 200, "secured")
	}
	if n := secured.listener.accepted.Load(); n != 1 {
		t.Errorf("20 requests took %d connections to the backend", n)
	}
	body := strings.Repeat("0123456789", 50_000)
	a, err := c.call("POST / HTTP/1.1\r\nHost: inner.example\r\nContent-Length: 500000\r\n\r\n" + body)
	if err != nil || !strings.HasSuffix(a.body, body) {
		t.Errorf("a body of 500 kB through TLS: %v", err)
	}
}

// TestTLSSlowHandshakes leaves handshakes half-way, many more than may compute at once: others go on.
func TestTLSSlowHandshakes(t *testing.T) {
	w := newTLSWorld(t)
	hello := helloOf(t, trusting(t, "exact.example"))
	for i := range 50 {
		conn, err := net.Dial("tcp", w.HTTPS)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			hello := hello[:len(hello)/2]
			_, err = conn.Write(hello)
		} else {
			_, err = conn.Write(hello)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for range 10 {
		ask(t, w.HTTPS, trusting(t, "exact.example"), "exact.example", "/").want(t, 200, "one")
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("10 handshakes beside 50 halves took %v", took)
	}
}

// TestTLSEnd holds that an answer that closes the connection ends by close_notify: a client can tell it from a cut.
func TestTLSEnd(t *testing.T) {
	w := newTLSWorld(t)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			conn, err := tls.Dial("tcp", w.HTTPS, trusting(t, "exact.example"))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(callTimeout))
			_, _ = io.WriteString(conn, request("exact.example", "/", "Connection: close"))
			got, err := io.ReadAll(conn) // nil: close_notify; else io.ErrUnexpectedEOF
			if err != nil || !strings.Contains(string(got), "one\n") || !strings.Contains(string(got), "Connection: close\r\n") {
				t.Errorf("%q, %v", got, err)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// TestHelloThenEnd: who ends its side behind a hello, or in the middle of one, is not waited for.
func TestHelloThenEnd(t *testing.T) {
	w := newTLSWorld(t)
	hello := helloOf(t, &tls.Config{ServerName: "exact.example", InsecureSkipVerify: true})
	for name, part := range map[string][]byte{"a whole hello": hello, "half a hello": hello[:len(hello)/2]} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", w.HTTPS)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			began := time.Now()
			if _, err := conn.Write(part); err != nil {
				t.Fatal(err)
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			if _, err := ended(conn); err != nil && !isReset(err) {
				t.Error(err)
			}
			if took := time.Since(began); took >= w.door("https").Limits().HelloTimeout {
				t.Errorf("it took %v", took)
			}
		})
	}
}
