package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests of this file have a whole proxy in their process: real listeners on loopback and real backends, wired as main
// does. Its relatives proxy_*_test.go tell about TLS, pass-through, the PROXY protocol, edits, load and latency.

// TestHTTP routes by host and path, over plain HTTP, on one connection.
func TestHTTP(t *testing.T) {
	one, two, other := newBackend(t, "one", nil), newBackend(t, "two", nil), newBackend(t, "other", nil)
	p := startProxy(t, site{name: "root", host: "shop.example", ports: []int{one.port()}}.yaml()+
		site{name: "api", host: "shop.example", path: "/api", ports: []int{two.port()}}.yaml()+
		site{name: "wild", host: "*.apps.example", ports: []int{other.port()}}.yaml()+
		site{name: "empty", host: "empty.example"}.yaml())
	c := &caller{address: p.HTTP}
	defer c.hangUp()
	for _, want := range []struct {
		host, path string
		status     int
		by         string
	}{
		{"shop.example", "/", 200, "one"},
		{"shop.example", "/apix", 200, "one"},
		{"shop.example", "/api", 200, "two"},
		{"shop.example", "/api/x?y=z", 200, "two"},
		{"SHOP.example.:8080", "/a%2F../api", 200, "two"}, // %2F counts as a slash, so this is /api
		{"green.apps.example", "/", 200, "other"},
		{"a.green.apps.example", "/", 404, ""},
		{"apps.example", "/", 404, ""},
		{"nobody.example", "/", 404, ""},
		{"empty.example", "/", 503, ""},
		{"shop.example", "/", 200, "one"},
	} {
		a, err := c.call(request(want.host, want.path))
		if err != nil {
			t.Fatal(want.host, want.path, err)
		}
		if line, _, _ := strings.Cut(a.body, "\n"); a.status != want.status || want.by != "" && line != want.by {
			t.Errorf("%s%s: %d by %s, want %d by %s", want.host, want.path, a.status, line, want.status, want.by)
		}
	}
	if c.dials != 1 {
		t.Errorf("the requests took %d connections", c.dials)
	}
}

// TestBodies sends bodies of many sizes there and back, over plain HTTP and TLS, with a length and in chunks.
func TestBodies(t *testing.T) {
	b := newRawBackend(t, func(c *net.TCPConn) { serveEcho(c) })
	p := startProxy(t, site{name: "echo", host: "echo.example", ports: []int{b.port()}, secret: "echo",
		annotations: map[string]string{"ssl-redirect": "false", "proxy-body-size": "0"}}.yaml()+secretOf(t, "echo", issue(t, "echo.example")))
	payload := make([]byte, 8<<20)
	_, _ = rand.Read(payload)
	for _, client := range []*caller{{address: p.HTTP}, {address: p.HTTPS, tls: trusting(t, "echo.example")}} {
		for _, path := range []string{"/", "/at-once"} {
			for i, size := range []int{0, 1, 4095, 65_535, 65_536, 65_537, 300_000, len(payload), 0, 1, 4095, 65_535, 65_536, 65_537, 300_000, len(payload)} {
				chunked, body := i >= 8, payload[:size]
				a, err := client.call(postOf("echo.example", path, body, chunked))
				if err != nil {
					t.Fatalf("%s, %d bytes, chunked %v, TLS %v: %v", path, size, chunked, client.tls != nil, err)
				}
				if a.status != 200 || a.body != string(body) {
					t.Errorf("%s, %d bytes, chunked %v, TLS %v: %d, %d bytes came back", path, size, chunked, client.tls != nil, a.status, len(a.body))
				}
			}
			if path == "/" && client.dials != 1 || client.repeats > 0 {
				t.Errorf("%s, TLS %v: %d connections, %d of them ended without a word", path, client.tls != nil, client.dials, client.repeats)
			}
		}
		client.hangUp()
	}
}

// postOf is a POST, its body with a length or in chunks of odd sizes.
func postOf(host, path string, body []byte, chunked bool) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\n", path, host)
	if !chunked {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
		return b.String()
	}
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	for n := 1; len(body) > 0; n = n*7%30_011 + 1 {
		n = min(n, len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\n\r\n")
	return b.String()
}

// serveEcho answers requests with their own bodies, framed as they were: those to /at-once while they still come, after
// which a connection ends, because nothing makes a client send what is answered already.
func serveEcho(c net.Conn) {
	reader := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		if r.URL.Path == "/" {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		res := http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: r.ContentLength, Body: r.Body, TransferEncoding: r.TransferEncoding}
		if err := res.Write(c); err != nil {
			return
		}
	}
}

// TestPipelining sends requests without waiting for answers; they come in order.
func TestPipelining(t *testing.T) {
	b := newBackend(t, "one", nil)
	p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{b.port()}}.yaml())
	conn, err := net.Dial("tcp", p.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callTimeout))
	const n = 200
	var text strings.Builder
	for i := range n {
		text.WriteString(request("shop.example", fmt.Sprint("/", i)))
	}
	go func() {
		_, _ = io.WriteString(conn, text.String())
	}()
	reader := bufio.NewReader(conn)
	for i := range n {
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || !strings.HasPrefix(string(body), fmt.Sprintf("one\nGET /%d HTTP/1.1", i)) {
			t.Fatalf("answer %d is %q, %v", i, body, err)
		}
	}
}

// ---- WebSocket

const upgradeFields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// upgrader is a backend that switches protocols and then sends everything back, with a greeting of its own at once.
func upgrader(t *testing.T) *rawBackend {
	return newRawBackend(t, func(c *net.TCPConn) {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		reader := bufio.NewReader(c)
		r, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		if r.URL.Path == "/no" {
			_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+
			"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello")
		_, _ = io.Copy(c, reader)
		_ = c.CloseWrite()
	})
}

// upgraded opens a connection, upgrades it, and checks that bytes go both ways.
func upgraded(t *testing.T, address string, config *tls.Config, host string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err == nil && config != nil {
		conn = tls.Client(conn, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	// What follows the request at once is the tunnel's already; it must not be taken for a request, nor be lost.
	if _, err := io.WriteString(conn, "GET /chat HTTP/1.1\r\nHost: "+host+"\r\n"+upgradeFields+"\r\nearly"); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" || res.Header.Get("Sec-WebSocket-Accept") == "" {
		t.Fatalf("the answer is %d %v", res.StatusCode, res.Header)
	}
	if err := expectText(reader, "helloearly"); err != nil {
		t.Fatal(err)
	}
	echoes(t, conn, reader, "ping")
	return conn, reader
}

func expectText(r io.Reader, want string) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		return fmt.Errorf("got %q, %v, want %q", got, err, want)
	}
	return nil
}

func echoes(t *testing.T, conn net.Conn, reader io.Reader, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if err := expectText(reader, text); err != nil {
		t.Fatal(err)
	}
}

// TestWebSocket upgrades over plain HTTP and TLS. The tunnels live through edits, also one that deletes their route.
func TestWebSocket(t *testing.T) {
	b := upgrader(t)
	p := startProxy(t, secretOf(t, "chat", issue(t, "chat.example")))
	chat := site{name: "chat", host: "chat.example", ports: []int{b.port()}, secret: "chat", annotations: map[string]string{"ssl-redirect": "false"}}
	p.write("chat.yaml", chat.yaml())
	within(t, editLimit, "the route", func() bool {
		a := ask(t, p.HTTP, nil, "chat.example", "/no", strings.TrimSuffix(upgradeFields, "\r\n"))
		return a.status == 403 && a.body == "no"
	})
	plain, plainReader := upgraded(t, p.HTTP, nil, "chat.example")
	secure, secureReader := upgraded(t, p.HTTPS, trusting(t, "chat.example"), "chat.example")
	if n := p.http.Stats.Tunnels(); n != 2 {
		t.Errorf("%d tunnels are counted, want 2", n)
	}
	for i, edit := range []func(){
		func() { p.write("other.yaml", site{name: "other", host: "other.example"}.yaml()) },
		func() { p.write("all.yaml", secretOf(t, "chat", issue(t, "chat.example"))) },
		func() { chat.ports = append(chat.ports, 1); p.write("chat.yaml", chat.yaml()) },
		func() { chat.ports = nil; p.write("chat.yaml", chat.yaml()) },
		func() { p.write("chat.yaml", "") },
	} {
		before := p.store.Load().Generation
		edit()
		if i < 2 || i == 4 { // endpoints alone make no new snapshot
			within(t, editLimit, "an edit", func() bool { return p.store.Load().Generation > before })
		} else {
			time.Sleep(100 * time.Millisecond)
		}
		echoes(t, plain, plainReader, fmt.Sprint("plain ", i))
		echoes(t, secure, secureReader, fmt.Sprint("secure ", i))
	}
	if a := ask(t, p.HTTP, nil, "chat.example", "/"); a.status != 404 {
		t.Errorf("after its deletion the host answers %d", a.status)
	}
	_ = plain.(*net.TCPConn).CloseWrite()
	_ = secure.(*tls.Conn).CloseWrite()
	for _, r := range []*bufio.Reader{plainReader, secureReader} {
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("after our end came %q, %v", rest, err)
		}
	}
	within(t, time.Second, "the tunnels' end", func() bool { return p.http.Stats.Tunnels() == 0 })
}

// TestWebSocketBulk moves much through tunnels, plain ones and ones with TLS.
func TestWebSocketBulk(t *testing.T) {
	b := upgrader(t)
	p := startProxy(t, site{name: "chat", host: "chat.example", ports: []int{b.port()}, secret: "chat",
		annotations: map[string]string{"ssl-redirect": "false"}}.yaml()+secretOf(t, "chat", issue(t, "chat.example")))
	payload := make([]byte, 4<<20)
	_, _ = rand.Read(payload)
	var group sync.WaitGroup
	for _, config := range []*tls.Config{nil, trusting(t, "chat.example")} {
		address := p.HTTP
		if config != nil {
			address = p.HTTPS
		}
		for range 3 {
			conn, reader := upgraded(t, address, config, "chat.example")
			group.Go(func() {
				if _, err := conn.Write(payload); err != nil {
					t.Error(err)
				}
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			})
			group.Go(func() {
				got, err := io.ReadAll(reader)
				if err != nil || !bytes.Equal(got, payload) {
					t.Errorf("TLS %v: %d bytes came back, or others: %v", config != nil, len(got), err)
				}
			})
		}
	}
	group.Wait()
}

// ---- admin

// metric is the value of the one series that holds all parts; -1: there is none.
func (p *testProxy) metric(t *testing.T, name string, parts ...string) float64 {
	t.Helper()
	status, text := p.adminPage(t, "/metrics")
	if status != 200 {
		t.Fatalf("/metrics answers %d", status)
	}
	value := -1.0
series:
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue series
			}
		}
		if value != -1 {
			t.Fatalf("several series %s with %v:\n%s", name, parts, text)
		}
		fields := strings.Fields(line)
		_, _ = fmt.Sscan(fields[len(fields)-1], &value)
	}
	return value
}

// TestMetrics counts what was sent: by Ingress, Service and status, at the doors, and to the backends.
func TestMetrics(t *testing.T) {
	w := newTLSWorld(t)
	w.write("api.yaml", site{name: "api", host: "bare.example", path: "/api", ports: []int{freePort(t)}}.yaml())
	within(t, editLimit, "the second Ingress", func() bool { return ask(t, w.HTTP, nil, "bare.example", "/api").status == 502 })
	seen := w.metric(t, "nginx_ingress_controller_requests", `ingress="api"`, `status="502"`)
	before := max(0, w.metric(t, "nginx_ingress_controller_requests", `ingress="bare"`, `status="200"`)) // answered until then
	c := &caller{address: w.HTTP}
	defer c.hangUp()
	for range 7 {
		_, _ = c.call(request("bare.example", "/"))
	}
	for range 3 {
		_, _ = c.call(request("bare.example", "/api"))
	}
	_, _ = c.call("POST / HTTP/1.1\r\nHost: bare.example\r\nContent-Length: 5\r\n\r\nhello")
	ask(t, w.HTTPS, trusting(t, "exact.example"), "exact.example", "/")
	within(t, time.Second, "the sums", func() bool {
		return w.metric(t, "nginx_ingress_controller_requests", `ingress="bare"`, `service="bare"`, `method="POST"`, `status="200"`) == 1
	})
	for _, m := range []struct {
		name  string
		parts []string
		want  float64
	}{
		{"nginx_ingress_controller_requests", []string{`namespace="default"`, `ingress="bare"`, `service="bare"`, `method="GET"`, `status="200"`}, before + 7},
		{"nginx_ingress_controller_requests", []string{`ingress="api"`, `service="api"`, `status="502"`}, seen + 3},
		{"nginx_ingress_controller_requests", []string{`ingress="exact"`, `status="200"`}, 1},
		{"nginx_ingress_controller_request_duration_seconds_count", []string{`ingress="bare"`}, before + 8},
		{"sluice_exchanges_active", nil, 0},
		{"sluice_tls_handshake_errors_total", []string{`door="https"`}, 0},
		{"sluice_loop_panics_total", []string{`loop="0"`}, 0},
		{"nginx_ingress_controller_config_last_reload_successful", nil, 1},
		{"sluice_applies_total", []string{`result="failed"`}, 0},
	} {
		if got := w.metric(t, m.name, m.parts...); got != m.want {
			t.Errorf("%s%v is %v, want %v", m.name, m.parts, got, m.want)
		}
	}
	if n := w.metric(t, "sluice_backend_requests_total", `cluster="default/bare:80"`); n != before+8 {
		t.Errorf("the cluster was asked %v times, want %v", n, before+8)
		_, text := w.adminPage(t, "/metrics")
		t.Log(text)
	}
}

// TestAdminPages reads every page; none of them holds a secret.
func TestAdminPages(t *testing.T) {
	w := newTLSWorld(t)
	_, key, err := w.exact.pem()
	if err != nil {
		t.Fatal(err)
	}
	key = strings.Split(key, "\n")[1] // its first line that is no mark
	for path, want := range map[string]string{
		"/": "/debug/snapshot", "/healthz": "ok", "/readyz": "ok", "/metrics": "sluice_snapshot_age_seconds",
		"/debug/snapshot": "exact.example", "/debug/problems": "", "/debug/pprof/": "",
	} {
		status, text := w.adminPage(t, path)
		if wanted := map[bool]int{true: 404, false: 200}[strings.Contains(path, "pprof")]; status != wanted || !strings.Contains(text, want) {
			t.Errorf("%s answers %d %.200q, want %d with %s", path, status, text, wanted, want)
		}
		if strings.Contains(text, key) || strings.Contains(text, "PRIVATE") {
			t.Errorf("%s shows a private key", path)
		}
	}
	p := startProxy(t, "", "--profiling")
	if status, _ := p.adminPage(t, "/debug/pprof/"); status != 200 {
		t.Errorf("with --profiling /debug/pprof/ answers %d", status)
	}
}

// TestReadiness follows the probes of a proxy from before its first snapshot to its drain.
func TestReadiness(t *testing.T) {
	p := startProxy(t, "", "--shutdown-grace-period=1")
	check := func(when string, ready, alive int) {
		t.Helper()
		r, why := p.adminPage(t, "/readyz")
		if h, _ := p.adminPage(t, "/healthz"); r != ready || h != alive {
			t.Errorf("%s: /readyz is %d (%s), /healthz %d, want %d and %d", when, r, why, h, ready, alive)
		}
	}
	p.phase.Store(phaseStarting)
	check("before the first snapshot", 503, 200)
	p.phase.Store(phaseServing)
	check("while serving", 200, 200)
	drained := make(chan error, 1)
	go func() { drained <- p.drain(context.Background()) }()
	within(t, time.Second, "the drain's begin", func() bool { return p.phase.Load() == phaseDraining })
	check("in the grace period", 503, 500)
	ask(t, p.HTTP, nil, "nobody.example", "/").want(t, 404, "")
	if err := <-drained; err != nil {
		t.Error(err)
	}
	check("after it", 503, 500)
}

// TestEndedWhileStarting: a process that is told to end when its ports are open already, in the last moment of its start, drains
// what came to it.
func TestEndedWhileStarting(t *testing.T) {
	p := startProxy(t, "")
	l := &life{proxy: p.proxy, ctx: t.Context(), starting: true, stopStart: func() {}, started: make(chan error, 1), drained: make(chan error, 1)}
	l.started <- nil
	if over, err := l.signalled(syscall.SIGTERM); over || err != nil {
		t.Fatalf("it ends at once: %v, %v", over, err)
	}
	if err := <-l.drained; err != nil || p.phase.Load() != phaseDraining {
		t.Errorf("the drain: %v, phase %d", err, p.phase.Load())
	}
	l.starting, l.draining = true, false
	p.phase.Store(phaseStarting)
	l.started <- nil
	if over, err := l.signalled(syscall.SIGTERM); !over || err != nil {
		t.Errorf("before there is anything to drain: %v, %v", over, err)
	}
}

// ---- the process

// TestProcessPorts starts processes whose flags switch ports off or move them.
func TestProcessPorts(t *testing.T) {
	b := newBackend(t, "one", nil)
	dir := t.TempDir()
	text := site{name: "shop", host: "shop.example", ports: []int{b.port()}}.yaml()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	http, https, admin := freePort(t), freePort(t), freePort(t)
	for _, c := range []struct {
		name                string
		flags               []string
		http, https, probes bool
	}{
		{"all", []string{fmt.Sprint("--http-port=", http), "--https-port", fmt.Sprint(https), fmt.Sprint("--healthz-port=", admin)}, true, true, true},
		{"no HTTP", []string{"--http-port=0", fmt.Sprint("--https-port=", https), fmt.Sprint("--admin-address=127.0.0.1:", admin)}, false, true, true},
		{"no HTTPS, no admin", []string{fmt.Sprint("--http-port=", http), "--https-port", "0", "--admin-address="}, true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startChild(t, append([]string{"--manifests", dir, "--bind-address=127.0.0.1"}, c.flags...)...)
			p.logged("msg=serving")
			for port, want := range map[int]bool{http: c.http, https: c.https, admin: c.probes} {
				conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
				if (err == nil) != want {
					t.Errorf("port %d: open is %v", port, err == nil)
				}
				if err == nil {
					_ = conn.Close()
				}
			}
			if c.http {
				ask(t, fmt.Sprint("127.0.0.1:", http), nil, "shop.example", "/").want(t, 200, "one")
			}
			if c.https {
				ask(t, fmt.Sprint("127.0.0.1:", https), &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true}, "shop.example", "/").want(t, 200, "one")
			}
			if c.probes {
				ask(t, fmt.Sprint("127.0.0.1:", admin), nil, "admin", "/readyz").want(t, 200, "ok")
			}
			p.signal(syscall.SIGTERM)
			p.ends(5*time.Second, 0)
		})
	}
}

// TestHelp holds --help to being readable: grouped, and no line longer than a terminal.
func TestHelp(t *testing.T) {
	text, stderr, status := runProgram(t, nil, "--help")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, %s", status, stderr)
	}
	groups := regexp.MustCompile(`(?m)^[A-Z].*:$`).FindAllString(text, -1)
	if len(groups) < 5 {
		t.Errorf("--help has the groups %q", groups)
	}
	for line := range strings.Lines(text) {
		if len(line) > 121 {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
	for _, flag := range []string{"--manifests=DIR", "--http-port=PORT", "--admin-address=HOST:PORT", "--configmap=NAMESPACE/NAME", "--enable-ssl-passthrough"} {
		if !strings.Contains(text, "\n  "+flag) {
			t.Errorf("--help does not show %s", flag)
		}
	}
}
