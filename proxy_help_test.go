package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// ---- manifests

// site is an Ingress of one rule with its Service and EndpointSlices, as manifests.
type site struct {
	name        string // of all of them
	host        string
	path        string            // "": /
	annotations map[string]string // ingress-nginx's without their prefix
	secret      string            // of TLS; "": none
	ports       []int             // of endpoints at 127.0.0.1
}

const siteManifests = `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %[1]s, namespace: default, annotations: {%[2]s}}
spec:
  ingressClassName: nginx
  %[3]s
  rules:
  - host: %[4]q
    http: {paths: [{path: %[5]q, pathType: Prefix, backend: {service: {name: %[1]s, port: {number: 80}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: default}
spec: {ports: [{name: main, port: 80}]}
`

const sliceManifest = `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-%[2]d, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
endpoints: [{addresses: ["127.0.0.1"]}]
ports: [{name: main, port: %[2]d}]
`

func (s site) yaml() string {
	annotations := ""
	for k, v := range s.annotations {
		if !strings.Contains(k, "/") {
			k = "nginx.ingress.kubernetes.io/" + k
		}
		annotations += fmt.Sprintf("%s: %q, ", k, v)
	}
	tls := ""
	if s.secret != "" {
		tls = fmt.Sprintf("tls: [{hosts: [%q], secretName: %s}]", s.host, s.secret)
	}
	path := s.path
	if path == "" {
		path = "/"
	}
	return fmt.Sprintf(siteManifests, s.name, annotations, tls, s.host, path) + endpointsOf(s.name, s.ports...)
}

// endpointsOf is an EndpointSlice of a Service for each port of 127.0.0.1.
func endpointsOf(service string, ports ...int) (text string) {
	for _, port := range ports {
		text += fmt.Sprintf(sliceManifest, service, port)
	}
	return text
}

// secretOf is a certificate as a manifest.
func secretOf(t testing.TB, name string, pair *keyPair) string {
	t.Helper()
	certificate, key, err := pair.pem()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: default}\ntype: kubernetes.io/tls\nstringData:\n"+
		"  tls.crt: |\n%s\n  tls.key: |\n%s\n", name, indent(certificate), indent(key))
}

// configMapOf is the ConfigMap default/sluice; start the proxy with configMapFlag.
func configMapOf(keys ...string) string {
	text := "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: sluice, namespace: default}\ndata:\n"
	for i := 0; i < len(keys); i += 2 {
		text += fmt.Sprintf("  %s: %q\n", keys[i], keys[i+1])
	}
	return text
}

const configMapFlag = "--configmap=default/sluice"

// ---- certificates

var testAuthority = sync.OnceValues(func() (*keyPair, error) { return newKeyPair("test authority", nil, nil) })

// issue makes a certificate of the tests' authority.
func issue(t testing.TB, names ...string) *keyPair {
	t.Helper()
	authority, err := testAuthority()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := newKeyPair(names[0], names, authority)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// trusting is a client's TLS configuration that believes the tests' authority only.
func trusting(t testing.TB, name string) *tls.Config {
	t.Helper()
	authority, err := testAuthority()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	return &tls.Config{RootCAs: roots, ServerName: name}
}

// ---- backends

// backend is an HTTP server that tells who it is and what it got.
type backend struct {
	name     string
	server   *fasthttp.Server
	listener *trackedListener
	served   atomic.Int64
	delay    atomic.Int64 // nanoseconds before an answer
	done     chan error
}

// newBackend starts a backend; with a certificate it speaks TLS.
func newBackend(t testing.TB, name string, certificate *keyPair) *backend {
	t.Helper()
	return startBackend(t, name, "127.0.0.1:0", certificate)
}

// newBackendAt starts a backend at an address.
func newBackendAt(t testing.TB, name, address string) *backend {
	t.Helper()
	return startBackend(t, name, address, nil)
}

func startBackend(t testing.TB, name, address string, certificate *keyPair) *backend {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{name: name, listener: &trackedListener{Listener: ln, open: map[net.Conn]bool{}}, done: make(chan error, 1)}
	b.server = &fasthttp.Server{Handler: b.answer, Name: name, CloseOnShutdown: true, DisableHeaderNamesNormalizing: true, Logger: silent{}}
	outer := net.Listener(b.listener)
	if certificate != nil {
		outer = tls.NewListener(outer, &tls.Config{Certificates: []tls.Certificate{*certificate.tls()}, NextProtos: []string{"http/1.1"}})
	}
	go func() { b.done <- b.server.Serve(outer) }()
	t.Cleanup(b.kill)
	return b
}

func (b *backend) port() int { return b.listener.Addr().(*net.TCPAddr).Port }

// answer shows the request as it arrived, in a body whose first line is the backend's name.
func (b *backend) answer(ctx *fasthttp.RequestCtx) {
	b.served.Add(1)
	if d := b.delay.Load(); d > 0 {
		time.Sleep(time.Duration(d))
	}
	fmt.Fprintf(ctx, "%s\n%s", b.name, ctx.Request.Header.Header())
	_, _ = ctx.Write(ctx.PostBody())
}

// kill ends the backend as a crash does: the port closes, connections are reset.
func (b *backend) kill() {
	_ = b.listener.Close()
	b.listener.reset()
}

// retire ends the backend as a well-behaved pod does: what is under way is answered.
func (b *backend) retire() error { return b.server.Shutdown() }

// silent is a logger that says nothing: a backend's complaints about connections that tests cut are no news.
type silent struct{}

func (silent) Printf(string, ...any) {}

// trackedListener knows its connections.
type trackedListener struct {
	net.Listener
	mu       sync.Mutex
	open     map[net.Conn]bool
	accepted atomic.Int64
}

func (l *trackedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.accepted.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = true
	return &trackedConn{TCPConn: c.(*net.TCPConn), listener: l}, nil
}

func (l *trackedListener) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
}

type trackedConn struct {
	*net.TCPConn
	listener *trackedListener
}

func (c *trackedConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c.TCPConn)
	c.listener.mu.Unlock()
	return c.TCPConn.Close()
}

// ---- clients

// caller is a raw HTTP/1.1 client with one connection that it keeps.
type caller struct {
	address string
	next    string      // where it goes when nobody listens at address any more; "": nowhere
	tls     *tls.Config // nil: plain
	wrap    func(net.Conn) net.Conn

	conn    net.Conn
	reader  *bufio.Reader
	answers int // on the present connection
	dials   int
	repeats int // requests that were sent twice: a reused connection ended without a byte of an answer
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	close  bool
}

const callTimeout = 30 * time.Second

func (c *caller) dial() error {
	c.hangUp()
	conn, err := net.DialTimeout("tcp", c.address, callTimeout)
	if portClosed(err) && c.next != "" {
		c.address, c.next = c.next, ""
		conn, err = net.DialTimeout("tcp", c.address, callTimeout)
	}
	if err != nil {
		return err
	}
	c.dials++
	if c.wrap != nil {
		conn = c.wrap(conn)
	}
	_ = conn.SetDeadline(time.Now().Add(callTimeout))
	if c.tls != nil {
		secured := tls.Client(conn, c.tls)
		if err := secured.Handshake(); err != nil {
			_ = conn.Close()
			return err
		}
		conn = secured
	}
	c.conn, c.reader, c.answers = conn, bufio.NewReader(conn), 0
	return nil
}

func (c *caller) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// call sends a request and reads its answer. It repeats once, as every client may: when a connection that had answered
// before ends without a byte.
func (c *caller) call(request string) (*answer, error) {
	if c.conn == nil {
		if err := c.dial(); err != nil {
			return nil, fmt.Errorf("dial: %w", err)
		}
	}
	reused := c.answers > 0
	a, touched, err := c.exchange(request)
	if err != nil && reused && !touched {
		c.repeats++
		if err := c.dial(); err != nil {
			return nil, fmt.Errorf("dial again: %w", err)
		}
		a, _, err = c.exchange(request)
	}
	if err != nil {
		c.hangUp()
		return nil, err
	}
	if a.close {
		c.hangUp()
	}
	return a, nil
}

// exchange is one try; touched tells that bytes of an answer came.
func (c *caller) exchange(request string) (a *answer, touched bool, err error) {
	_ = c.conn.SetDeadline(time.Now().Add(callTimeout))
	if _, err := io.WriteString(c.conn, request); err != nil {
		return nil, false, err // what was answered in spite of it is not looked for
	}
	if _, err := c.reader.Peek(1); err != nil {
		return nil, false, err
	}
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return nil, true, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, true, err
	}
	c.answers++
	return &answer{status: res.StatusCode, header: res.Header, body: string(body), close: res.Close}, true, nil
}

// request is a GET.
func request(host, path string, fields ...string) string {
	text := "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n"
	for _, f := range fields {
		text += f + "\r\n"
	}
	return text + "\r\n"
}

// ask sends one GET on a connection of its own.
func ask(t testing.TB, address string, config *tls.Config, host, path string, fields ...string) *answer {
	t.Helper()
	c := &caller{address: address, tls: config}
	defer c.hangUp()
	a, err := c.call(request(host, path, fields...))
	if err != nil {
		t.Fatalf("%s%s: %v", host, path, err)
	}
	return a
}

// want checks status and first line of an answer's body; "": any.
func (a *answer) want(t testing.TB, status int, first string) {
	t.Helper()
	line, _, _ := strings.Cut(a.body, "\n")
	if a.status != status || first != "" && line != first {
		t.Fatalf("answer %d %q, want %d %q", a.status, a.body, status, first)
	}
}

// within waits until ok holds, and fails when it takes longer than a manifest's edit may take to be served.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// editLimit is how soon an edit of a manifest has to be served.
const editLimit = time.Second

// ended reads a connection to its end and answers what came; a reset is an error.
func ended(c net.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(callTimeout))
	b, err := io.ReadAll(c)
	return string(b), err
}

// isReset tells that a connection was cut, not ended.
func isReset(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && strings.Contains(e.Error(), "reset")
}

// adminPage answers a page of the admin server: its status and body.
func (p *testProxy) adminPage(t testing.TB, path string) (int, string) {
	t.Helper()
	a := ask(t, p.adminOpened, nil, "admin", path)
	return a.status, a.body
}

// problems is /debug/problems.
func (p *testProxy) problems(t testing.TB) string {
	t.Helper()
	status, text := p.adminPage(t, "/debug/problems")
	if status != 200 {
		t.Fatalf("/debug/problems answers %d", status)
	}
	return text
}
