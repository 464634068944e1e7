package upstream

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// authority is a CA that signs what tests need.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key, a.pem, _ = a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true})
	return a
}

func (a *authority) issue(c *x509.Certificate) (cert *x509.Certificate, key *ecdsa.PrivateKey, certPEM, keyPEM string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// pair is a certificate for name, as a server's or client's configuration has it.
func (a *authority) pair(name string) (pair tls.Certificate, certPEM, keyPEM string) {
	a.t.Helper()
	_, _, certPEM, keyPEM = a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}})
	pair, err := tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair, certPEM, keyPEM
}

// below is an authority whose certificate a has signed.
func (a *authority) below() *authority {
	cert, key, certPEM, _ := a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "between"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign})
	return &authority{t: a.t, cert: cert, key: key, pem: certPEM}
}

// secure is serve behind a TLS server; seen hears of every handshake that succeeded.
func secure(cfg *tls.Config, seen chan<- tls.ConnectionState, serve func(net.Conn, int)) func(net.Conn, int) {
	return func(raw net.Conn, i int) {
		c := tls.Server(raw, cfg)
		if c.Handshake() != nil {
			return
		}
		if seen != nil {
			seen <- c.ConnectionState()
		}
		serve(c, i)
	}
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	server, _, _ := ca.pair("web.shop")
	_, certPEM, keyPEM := ca.pair("sluice")
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	plain := &tls.Config{Certificates: []tls.Certificate{server}, NextProtos: []string{"h2", "http/1.1"}}
	mutual := plain.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, pool
	newest, older, deep := plain.Clone(), plain.Clone(), plain.Clone()
	newest.MinVersion = tls.VersionTLS13
	older.MaxVersion, older.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	between := ca.below()
	leaf, _, _ := between.pair("web.shop")
	leaf.Certificate = append(leaf.Certificate, between.cert.Raw)
	deep.Certificates = []tls.Certificate{leaf}
	for _, tt := range []struct {
		name   string
		server *tls.Config
		tls    TLS
		err    *fastpath.Error
	}{
		{"not verified, no name", plain, TLS{}, nil},
		{"not verified, name", plain, TLS{ServerName: "web.shop"}, nil},
		{"verified", plain, TLS{Verify: true, ServerName: "web.shop", RootsPEM: ca.pem}, nil},
		{"another name", plain, TLS{Verify: true, ServerName: "api.shop", RootsPEM: ca.pem}, ErrHandshake},
		{"another CA", plain, TLS{Verify: true, ServerName: "web.shop", RootsPEM: other.pem}, ErrHandshake},
		{"the system's CAs", plain, TLS{Verify: true, ServerName: "web.shop"}, ErrHandshake},
		{"TLS 1.2 only, with a server of 1.3 only", newest, TLS{MaxVersion: tls.VersionTLS12}, ErrHandshake},
		{"TLS 1.3 only", newest, TLS{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13}, nil},
		{"TLS 1.3 only, with a server of 1.2 only", older, TLS{MinVersion: tls.VersionTLS13}, ErrHandshake},
		{"a suite that both have", older, TLS{Ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256"}, nil},
		{"no suite that both have", older, TLS{Ciphers: "ECDHE-ECDSA-AES256-GCM-SHA384"}, ErrHandshake},
		{"no suite at all", older, TLS{Ciphers: "RC4-MD5"}, ErrSettings},
		{"as deep as may be", deep, TLS{Verify: true, ServerName: "web.shop", RootsPEM: ca.pem, Depth: 1}, nil},
		{"too deep", deep, TLS{Verify: true, ServerName: "web.shop", RootsPEM: ca.pem}, ErrHandshake},
		{"client certificate", mutual, TLS{CertPEM: certPEM, KeyPEM: keyPEM}, nil},
		{"verified without a name", plain, TLS{Verify: true, RootsPEM: ca.pem}, ErrSettings},
		{"roots that are none", plain, TLS{RootsPEM: "x"}, ErrSettings},
		{"half a client certificate", plain, TLS{CertPEM: certPEM}, ErrSettings},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, seen := newEnv(t, 1), make(chan tls.ConnectionState, 1)
			c := cluster(t, env, Settings{TLS: &tt.tls}, newServer(t, secure(tt.server, seen, answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))).addr())
			e := only(t, c)
			if (c.Problem() != nil) != (tt.err == ErrSettings) {
				t.Errorf("problem %v", c.Problem())
			}
			if tt.err != nil {
				get("/").do(t, env, e).failed(t, tt.err)
				if s := e.Stats(); s.Open != 0 || s.Active != 0 {
					t.Errorf("%+v, want nothing open", s)
				}
				if why := c.Endpoints()[0].LastFailure; tt.err == ErrHandshake && !strings.Contains(why, "x509: ") && !strings.Contains(why, "tls: ") && !strings.Contains(why, "proxy-ssl-verify-depth") {
					t.Errorf("the reason shown is %q", why)
				}
				return
			}
			for i := range 3 {
				if c := get("/").do(t, env, e).ok(t, 200, "hello"); c.reused != (i > 0) {
					t.Errorf("request %d: reused is %v", i, c.reused)
				}
			}
			s := wait(t, seen, "the handshake")
			if s.ServerName != tt.tls.ServerName || s.NegotiatedProtocol != "http/1.1" {
				t.Errorf("server name %q, protocol %q", s.ServerName, s.NegotiatedProtocol)
			}
		})
	}
}

// A client certificate that is missing is told only after the handshake in TLS 1.3: the session ends, the backend's fault.
func TestTLSAlertAfterHandshake(t *testing.T) {
	ca := newAuthority(t)
	server, _, _ := ca.pair("web.shop")
	cfg := &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert}
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{TLS: &TLS{}}, newServer(t, secure(cfg, nil, answering(empty))).addr()))
	c := get("/").do(t, env, e)
	if c.err == nil || c.err.Fault != fastpath.FaultBackend {
		t.Errorf("error %v", c.err)
	}
}

// A body that ends with the connection is complete only if TLS says so.
func TestTLSTruncation(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.pair("web.shop")
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}}
	for _, tt := range []struct {
		name string
		end  func(*tls.Conn)
		err  *fastpath.Error
	}{
		{"close_notify", func(c *tls.Conn) { c.Close() }, nil},
		{"bare FIN", func(c *tls.Conn) { c.NetConn().Close() }, ErrTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := newEnv(t, 1)
			serve := func(c net.Conn, _ int) {
				readRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello")
				tt.end(c.(*tls.Conn))
			}
			e := only(t, cluster(t, env, Settings{TLS: &TLS{}}, newServer(t, secure(cfg, nil, serve)).addr()))
			if c := get("/").do(t, env, e).failed(t, tt.err); string(c.got) != "hello" {
				t.Errorf("body %q", c.got)
			}
		})
	}
}

// More than the answer in the same record stays inside the record layer: it ends the session as bytes on the socket do.
func TestTLSTooMuch(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.pair("web.shop")
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, DynamicRecordSizingDisabled: true}
	const record, step = 16 << 10, 4 << 10
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 28630\r\n\r\n"
	body := strings.Repeat("x", 28630)
	if (len(head)+len(body)-record)%step != 0 {
		t.Fatal("the last read must end with the body, inside a record")
	}
	for _, extra := range []string{"", "X", empty} {
		env := newEnv(t, 1)
		e := only(t, cluster(t, env, Settings{TLS: &TLS{}}, newServer(t, secure(cfg, nil, answering(head+body+extra))).addr()))
		c := get("/")
		c.step = step
		c.do(t, env, e).ok(t, 200, body)
		want := 1
		if extra != "" {
			want = 0
		}
		if n := idle(t, env, e); n != want {
			t.Errorf("%d bytes too much: %d idle sessions, want %d", len(extra), n, want)
		}
	}
}

// … also when the session's share of the turn is used up with the answer's last byte, so that the record layer gives no more.
func TestTLSTooMuchForTheTurn(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.pair("web.shop")
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, DynamicRecordSizingDisabled: true}
	const record, step = 16 << 10, 64
	for reads := 20; reads < 45; reads++ { // of the second record
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", record+reads*step-len(empty)-4)
		body := strings.Repeat("x", record+reads*step-len(head))
		env := newEnv(t, 1)
		e := only(t, cluster(t, env, Settings{TLS: &TLS{}}, newServer(t, secure(cfg, nil, answering(head+body+empty))).addr()))
		c := get("/")
		c.step = step
		c.do(t, env, e).ok(t, 200, body)
		if idle(t, env, e) != 0 {
			t.Errorf("%d reads: the session is kept, and the next request gets what is left", reads)
		}
	}
}

func TestTLSResumption(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.pair("web.shop")
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}}
	env, seen := newEnv(t, 1), make(chan tls.ConnectionState, 2)
	e := only(t, cluster(t, env, Settings{TLS: &TLS{Verify: true, ServerName: "web.shop", RootsPEM: ca.pem}},
		newServer(t, secure(cfg, seen, answering(empty))).addr()))
	for i := range 2 {
		c := get("/")
		c.options.Fresh = true
		c.do(t, env, e).ok(t, 200, "")
		if s := wait(t, seen, "the handshake"); s.DidResume != (i > 0) {
			t.Errorf("connection %d: resumed is %v", i, s.DidResume)
		}
	}
}

// Sessions made under other TLS settings are not used any more; other settings change nothing.
func TestTLSSettingsChange(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.pair("web.shop")
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}}
	env := newEnv(t, 1)
	s := Settings{TLS: &TLS{ServerName: "web.shop"}, AllowLoopback: true}
	c := cluster(t, env, s, newServer(t, secure(cfg, nil, answering(empty))).addr())
	e := only(t, c)
	get("/").do(t, env, e).ok(t, 200, "")
	s.TLS, s.IdleMax = &TLS{ServerName: "web.shop"}, 7
	c.SetSettings(s)
	if n := idle(t, env, e); n != 1 {
		t.Errorf("the same TLS settings: %d idle sessions, want 1", n)
	}
	held := get("/")
	held.keep = true
	held.do(t, env, e).ok(t, 200, "")
	get("/").do(t, env, e).ok(t, 200, "")
	s.TLS = &TLS{Verify: true, ServerName: "web.shop", RootsPEM: ca.pem}
	c.SetSettings(s)
	on(t, env.Loops[0], func() { held.stream.Release() })
	if n := idle(t, env, e); n != 0 {
		t.Errorf("other TLS settings: %d idle sessions, want none", n)
	}
	if c := get("/").do(t, env, e).ok(t, 200, ""); c.reused {
		t.Error("a session of the old settings was used")
	}
}

// Settings that cannot be used make nothing plain: neither what was there before nor what comes meanwhile.
func TestTLSSettingsBreak(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.pair("web.shop")
	env, seen := newEnv(t, 1), make(chan tls.ConnectionState, 9)
	addr := func() netip.AddrPort {
		return newServer(t, secure(&tls.Config{Certificates: []tls.Certificate{pair}}, seen, answering(empty))).addr()
	}
	one, two := addr(), addr()
	s := Settings{TLS: &TLS{ServerName: "web.shop"}, AllowLoopback: true}
	c := cluster(t, env, s, one)
	e := only(t, c)
	before := e.currentTLS()
	for name, broken := range map[string]Settings{
		"TLS":      {TLS: &TLS{Verify: true}, AllowLoopback: true},
		"hash key": {TLS: &TLS{ServerName: "api.shop"}, AllowLoopback: true, HashBy: "$nothing"},
	} {
		broken.Check = Check{Kind: CheckHTTP, Interval: time.Millisecond}
		c.SetSettings(broken)
		c.Apply(addresses(one, two))
		if got := e.currentTLS(); got == nil || got != before {
			t.Fatalf("broken %s: the endpoint's TLS is %v, want what it was", name, got)
		}
		get("/").do(t, env, e).failed(t, ErrSettings)
		time.Sleep(10 * time.Millisecond)
		if s := c.Stats(); s.Checks != 0 {
			t.Errorf("broken %s: %d health checks", name, s.Checks)
		}
	}
	s.TLS = &TLS{ServerName: "api.shop"}
	c.SetSettings(s)
	for _, e := range c.current.Load().ready {
		for i := range 2 {
			if c := get("/").do(t, env, e).ok(t, 200, ""); c.reused != (i > 0) {
				t.Errorf("request %d to %v: reused is %v", i, e.addr, c.reused)
			}
		}
		if s := wait(t, seen, "the handshake"); s.ServerName != "api.shop" {
			t.Errorf("%v was asked for %q", e.addr, s.ServerName)
		}
	}
}

// Who looked at the settings before they changed dials by them in all, and who looks after too: never the protocol of the
// ones with the TLS of the others.
func TestTLSSettingsChangeWhileDialling(t *testing.T) {
	ca := newAuthority(t)
	pair, _, _ := ca.pair("web.shop")
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{protocolHTTP2, "http/1.1"}}
	env, seen := newEnv(t, 1), make(chan tls.ConnectionState, 1)
	c := cluster(t, env, Settings{TLS: &TLS{}}, newServer(t, secure(cfg, seen, answering(empty))).addr())
	e, old := only(t, c), c.current.Load()
	before := e.tls.Load()
	c.SetSettings(Settings{TLS: &TLS{}, HTTP2: true, AllowLoopback: true})
	r := get("/")
	r.done, r.loop = make(chan struct{}), env.Loops[0]
	on(t, env.Loops[0], func() { r.stream, r.err = e.openFresh(env.Loops[0], old, r, &r.options) })
	wait(t, r.done, "the answer")
	r.ok(t, 200, "")
	if s := wait(t, seen, "the handshake"); s.NegotiatedProtocol != "http/1.1" {
		t.Errorf("HTTP/1.1 was spoken on a connection of %q", s.NegotiatedProtocol)
	}
	if n := idle(t, env, e); n != 0 {
		t.Errorf("%d sessions of the old settings are kept", n)
	}
	v := c.current.Load()
	e.tls.Store(before)
	if got := e.tlsFor(v); got.NextProtos[0] != protocolHTTP2 {
		t.Errorf("HTTP/2 is dialled with ALPN %q", got.NextProtos)
	}
	e.tls.Store(nil)
	if e.tlsFor(v) == nil {
		t.Error("TLS settings, and it is dialled in clear")
	}
	v = newView(compile(Settings{}, 1, nil), nil, nil)
	e.tls.Store(before)
	if e.tlsFor(v) != nil {
		t.Error("plain settings, and it is dialled with TLS")
	}
}

func TestHandshakeTimeout(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{TLS: &TLS{}, ConnectTimeout: 50 * time.Millisecond}, newServer(t, func(c net.Conn, _ int) { wait10(c) }).addr()))
	get("/").do(t, env, e).failed(t, ErrHandshakeTimeout)
	if s := e.Stats(); s.ConnectFailures != 1 || s.Open != 0 || s.Active != 0 {
		t.Errorf("%+v", s)
	}
	eventually(t, "the handshake's goroutine ends", func() bool { return env.Work.Running(fastpath.WorkHandshake) == 0 })
}

// A plain backend under TLS settings, and the end of a connection within the handshake, are failures of connecting.
func TestNoTLSThere(t *testing.T) {
	for name, serve := range map[string]func(net.Conn, int){
		"plain HTTP": func(c net.Conn, _ int) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); wait10(c) },
		"end":        func(c net.Conn, _ int) { _, _ = io.ReadFull(c, make([]byte, 10)) },
		"reset":      func(c net.Conn, _ int) { _, _ = io.ReadFull(c, make([]byte, 10)); rst(c) },
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t, 1)
			e := only(t, cluster(t, env, Settings{TLS: &TLS{}}, newServer(t, serve).addr()))
			get("/").do(t, env, e).failed(t, ErrHandshake)
			if s := e.Stats(); s.ConnectFailures != 1 || s.Open != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Beyond the bound of handshakes under way a session is refused, and that is our fault, not the backend's.
func TestTooManyHandshakes(t *testing.T) {
	env, release := newEnv(t, 1), make(chan struct{})
	for env.Work.Go(fastpath.WorkHandshake, func() { <-release }) == nil {
	}
	defer close(release)
	e := only(t, cluster(t, env, Settings{TLS: &TLS{}}, newServer(t, func(c net.Conn, _ int) { wait10(c) }).addr()))
	get("/").do(t, env, e).failed(t, fastpath.ErrOverload)
	if s := e.Stats(); s != (Stats{Requests: 1}) {
		t.Errorf("%+v", s)
	}
}
