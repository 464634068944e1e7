package main

import (
	"bufio"
	"fmt"
	"io"

	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file are about traffic policy: what annotations say about limits, canaries and the like, on the wire;
// and, where nginx can say the same, beside nginx.

// statuses sends n requests one after the other and tells how often each status came.
func statuses(t *testing.T, address, host string, n int) map[int]int {
	t.Helper()
	c := &caller{address: address}
	defer c.hangUp()
	got := map[int]int{}
	for range n {
		a, err := c.call(request(host, "/"))
		if err != nil {
			t.Fatal(err)
		}
		got[a.status]++
	}
	return got
}

// gated is a backend that holds each request until it is given a token.
func gated(t *testing.T) (port int, tokens chan struct{}) {
	tokens = make(chan struct{})
	b := newRawBackend(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			<-tokens
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nheld\n")
		}
	})
	t.Cleanup(func() { close(tokens) })
	return b.port(), tokens
}

// together sends n requests at once, of which the backend holds pass until all others are answered, and tells how often
// each status came.
func together(t *testing.T, address, host string, n, pass int, tokens chan struct{}) map[int]int {
	t.Helper()
	answers := make(chan int, n)
	for range n {
		go func() {
			c := &caller{address: address}
			defer c.hangUp()
			status := 0
			if a, err := c.call(request(host, "/")); err == nil {
				status = a.status
			}
			answers <- status
		}()
	}
	got := map[int]int{}
	for i := range n {
		if i >= n-pass {
			select {
			case tokens <- struct{}{}:
			case <-time.After(callTimeout):
				t.Fatalf("the backend holds no request; so far %v", got)
			}
		}
		got[<-answers]++
	}
	return got
}

// TestLimitRequests: 1 + limit × multiplier requests pass at once, then 503, as in nginx; an allow list and another
// status hold too.
func TestLimitRequests(t *testing.T) {
	b := newBackend(t, "one", nil)
	one := func(name string, annotations ...string) string {
		m := map[string]string{}
		for i := 0; i < len(annotations); i += 2 {
			m[annotations[i]] = annotations[i+1]
		}
		return site{name: name, host: name + ".example", annotations: m, ports: []int{b.port()}}.yaml()
	}
	p := startProxy(t, one("rpm", "limit-rpm", "1")+one("multiplier", "limit-rpm", "2", "limit-burst-multiplier", "3")+
		one("free", "limit-rpm", "1", "limit-whitelist", "127.0.0.0/8")+one("none"))
	for host, pass := range map[string]int{"rpm": 6, "multiplier": 7, "free": 20, "none": 20} {
		got := statuses(t, p.HTTP, host+".example", 20)
		if got[200] != pass || got[503] != 20-pass {
			t.Errorf("%s: %v, want %d times 200", host, got, pass)
		}
	}
	at := nginx(t, "location / { limit_req zone=z burst=5 nodelay; root /nowhere; try_files /x =204; }", "http", "limit_req_zone $binary_remote_addr zone=z:1m rate=1r/m;")
	got := statuses(t, at, "rpm.example", 20)
	if got[503] != 14 {
		t.Errorf("nginx: %v, want the same 6 to pass", got)
	}
	if n := p.metric(t, "sluice_limited_requests_total", `limit="rate"`); n != 14+13 {
		t.Errorf("%v requests are counted as limited, want 27", n)
	}
}

// A changed limit keeps what was counted.
func TestLimitKeepsItsState(t *testing.T) {
	b := newBackend(t, "one", nil)
	manifest := func(status, rpm string) string {
		return site{name: "shop", host: "shop.example", annotations: map[string]string{"limit-rpm": rpm}, ports: []int{b.port()}}.yaml() +
			configMapOf("limit-req-status-code", status)
	}
	p := startProxy(t, manifest("429", "2"), configMapFlag)
	if got := statuses(t, p.HTTP, "shop.example", 15); got[200] != 11 || got[429] != 4 {
		t.Fatalf("%v, want 11 of 15 to pass", got)
	}
	before := p.store.Load().Generation
	p.write("all.yaml", manifest("430", "1"))
	within(t, editLimit, "the edit", func() bool { return p.store.Load().Generation > before })
	within(t, editLimit, "the new limit", func() bool { return statuses(t, p.HTTP, "shop.example", 1)[430] == 1 })
	if got := statuses(t, p.HTTP, "shop.example", 5); got[200] != 0 {
		t.Errorf("%v after the edit: the bucket was forgotten", got)
	}
}

// TestLimitConnections: so many requests of one client at a time; those that have ended make room.
func TestLimitConnections(t *testing.T) {
	port, tokens := gated(t)
	p := startProxy(t, site{name: "shop", host: "shop.example", annotations: map[string]string{"limit-connections": "3"}, ports: []int{port}}.yaml())
	backend := fmt.Sprintf("http://127.0.0.1:%d", port)
	at := nginx(t, "location / { limit_conn z 3; proxy_pass "+backend+"; }", "http", "limit_conn_zone $binary_remote_addr zone=z:1m;")
	for _, address := range []string{p.HTTP, at} {
		for round := range 2 {
			got := together(t, address, "shop.example", 10, 3, tokens)
			if got[200] != 3 || got[503] != 7 {
				t.Errorf("%s, round %d: %v, want 3 of 10 to pass", address, round, got)
			}
		}
	}
}

// TestLimitRate: a response comes no faster than limit-rate lets it, beyond limit-rate-after and the first second's share.
func TestLimitRate(t *testing.T) {
	const size = 400 << 10
	b := newRawBackend(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, make([]byte, size))
		}
	})
	p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{b.port()},
		annotations: map[string]string{"limit-rate": "100", "limit-rate-after": "200"}}.yaml())
	at := nginx(t, fmt.Sprintf("location / { limit_rate 100k; limit_rate_after 200k; proxy_pass http://127.0.0.1:%d; }", b.port()))
	for name, address := range map[string]string{"sluice": p.HTTP, "nginx": at} {
		began := time.Now()
		a := ask(t, address, nil, "shop.example", "/")
		took := time.Since(began)
		if a.status != 200 || len(a.body) != size {
			t.Fatalf("%s: %d, %d bytes", name, a.status, len(a.body))
		}
		// 400 KiB, of which 200 are free and 100 come with the first second: one second is left.
		if took < 500*time.Millisecond || took > 9*time.Second {
			t.Errorf("%s took %v, want about a second", name, took)
		}
	}
}

// TestAffinityEndToEnd: from the annotation to the cookie and back, over a reload.
func TestAffinityEndToEnd(t *testing.T) {
	var ports []int
	for i := range 4 {
		ports = append(ports, newBackend(t, fmt.Sprint("b", i), nil).port())
	}
	p := startProxy(t, site{name: "shop", host: "shop.example", path: "/app", ports: ports,
		annotations: map[string]string{"affinity": "cookie", "session-cookie-name": "stick"}}.yaml())
	a := ask(t, p.HTTP, nil, "shop.example", "/app")
	first, _, _ := strings.Cut(a.body, "\n")
	cookie := a.header.Get("Set-Cookie")
	if !strings.HasPrefix(cookie, "stick=") || !strings.Contains(cookie, "; Path=/app; HttpOnly") {
		t.Fatalf("cookie %q", cookie)
	}
	pair, _, _ := strings.Cut(cookie, ";")
	for range 10 {
		ask(t, p.HTTP, nil, "shop.example", "/app", "Cookie: "+pair).want(t, 200, first)
	}
}

// canaryAnnotations are those of a canary.
func canaryAnnotations(more ...string) map[string]string {
	m := map[string]string{"canary": "true"}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

// TestCanary: from manifests to the wire, and away again: the main Ingress inherits nothing, the canary everything.
func TestCanary(t *testing.T) {
	main, green := newBackend(t, "main", nil), newBackend(t, "green", nil)
	shop := site{name: "shop", host: "shop.example", ports: []int{main.port()}, annotations: map[string]string{"limit-rpm": "100000"}}.yaml()
	p := startProxy(t, shop)
	p.write("canary.yaml", site{name: "green", host: "shop.example", ports: []int{green.port()},
		annotations: canaryAnnotations("canary-by-header", "X-Canary")}.yaml())
	within(t, editLimit, "the canary", func() bool {
		a := ask(t, p.HTTP, nil, "shop.example", "/", "X-Canary: always")
		return strings.HasPrefix(a.body, "green\n")
	})
	ask(t, p.HTTP, nil, "shop.example", "/").want(t, 200, "main")
	p.write("canary.yaml", site{name: "green", host: "shop.example", ports: []int{green.port()},
		annotations: canaryAnnotations("canary-weight", "100")}.yaml())
	within(t, editLimit, "its weight", func() bool {
		a := ask(t, p.HTTP, nil, "shop.example", "/")
		return strings.HasPrefix(a.body, "green\n")
	})
	if err := os.Remove(filepath.Join(p.Dir, "canary.yaml")); err != nil {
		t.Fatal(err)
	}
	within(t, editLimit, "the end of the canary", func() bool {
		a := ask(t, p.HTTP, nil, "shop.example", "/")
		return strings.HasPrefix(a.body, "main\n")
	})
}

// TestHealthCheck: an endpoint whose check fails gets no requests, though it would answer them.
func TestHealthCheck(t *testing.T) {
	good := newBackend(t, "good", nil)
	bad := newRawBackend(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			status := "200 OK"
			if q.URL.Path == "/healthz" {
				status = "503 Not yet"
			}
			fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 4\r\n\r\nbad\n", status)
		}
	})
	p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{good.port(), bad.port()}, annotations: map[string]string{
		"sluice.dev/health-check": "http", "sluice.dev/health-check-path": "/healthz", "sluice.dev/health-check-interval": "100ms",
		"sluice.dev/health-check-unhealthy": "1"}}.yaml())
	within(t, callTimeout, "the check fails", func() bool {
		return p.metric(t, "sluice_endpoints", `cluster="default/shop:80"`, `state="unhealthy"`) == 1
	})
	for range 20 {
		ask(t, p.HTTP, nil, "shop.example", "/").want(t, 200, "good")
	}
	if p.metric(t, "sluice_health_checks_total", `result="bad"`) == 0 {
		t.Error("no bad check is counted")
	}
}

// TestCircuitBreaker: what goes beyond max-requests is answered 503 at once, and counted.
func TestCircuitBreaker(t *testing.T) {
	port, tokens := gated(t)
	p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{port}, annotations: map[string]string{"sluice.dev/max-requests": "2"}}.yaml())
	got := together(t, p.HTTP, "shop.example", 8, 2, tokens)
	if got[200] != 2 || got[503] != 6 {
		t.Errorf("%v, want 2 of 8 to pass", got)
	}
	if n := p.metric(t, "sluice_circuit_breaker_refusals_total", `limit="requests"`); n != 6 {
		t.Errorf("%v refusals are counted, want 6", n)
	}
	if got := together(t, p.HTTP, "shop.example", 1, 1, tokens); got[200] != 1 {
		t.Errorf("%v after the others have ended", got)
	}
}

// TestRequestTimeout: the whole time of a request is bounded, retries included.
func TestRequestTimeout(t *testing.T) {
	b := newBackend(t, "slow", nil)
	b.delay.Store(int64(5 * time.Second))
	p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{b.port()}, annotations: map[string]string{"sluice.dev/request-timeout": "300ms"}}.yaml())
	began := time.Now()
	ask(t, p.HTTP, nil, "shop.example", "/").want(t, 504, "")
	if took := time.Since(began); took < 290*time.Millisecond || took >= 5*time.Second {
		t.Errorf("took %v, want 300 ms", took)
	}
	b.delay.Store(0)
	ask(t, p.HTTP, nil, "shop.example", "/").want(t, 200, "slow")
}

// TestMirror: copies arrive as the backend gets the request, under mirror-host and mirror-target's path; a mirror that is
// silent or gone changes nothing for the client.
func TestMirror(t *testing.T) {
	main := newBackend(t, "main", nil)
	var mu sync.Mutex
	var copies []string
	var hang sync.WaitGroup
	hang.Add(1)
	t.Cleanup(hang.Done)
	other := newRawBackend(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(q.Body)
			mu.Lock()
			copies = append(copies, fmt.Sprintf("%s %s %s %s %s", q.Method, q.Host, q.RequestURI, q.Header.Get("X-Test"), body))
			mu.Unlock()
			if q.URL.Query().Has("hang") {
				hang.Wait()
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	target := fmt.Sprintf("http://127.0.0.1:%d/copy/$request_uri", other.port())
	p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{main.port()},
		annotations: map[string]string{"mirror-target": target, "mirror-host": "copy.example", "proxy-body-size": "1m"}}.yaml()+
		site{name: "gone", host: "gone.example", ports: []int{main.port()}, annotations: map[string]string{"mirror-target": "http://127.0.0.1:1"}}.yaml()+
		site{name: "bodiless", host: "bodiless.example", ports: []int{main.port()},
			annotations: map[string]string{"mirror-target": target, "mirror-request-body": "off"}}.yaml())
	want := func(text string) {
		t.Helper()
		within(t, callTimeout, "the copy "+text, func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range copies {
				if c == text {
					return true
				}
			}
			return false
		})
	}
	ask(t, p.HTTP, nil, "shop.example", "/a?b=c", "X-Test: yes").want(t, 200, "main")
	want("GET copy.example /copy/a?b=c yes ")
	c := &caller{address: p.HTTP}
	defer c.hangUp()
	post := func(host string, size int) {
		t.Helper()
		a, err := c.call(postOf(host, "/p", []byte(strings.Repeat("x", size)), false))
		if err != nil {
			t.Fatal(err)
		}
		a.want(t, 200, "main")
	}
	post("shop.example", 5)
	want("POST copy.example /copy/p  xxxxx")
	post("bodiless.example", 5)
	want("POST 127.0.0.1 /copy/p  ")
	post("shop.example", 300<<10)
	within(t, callTimeout, "a body too long is dropped", func() bool { return p.metric(t, "sluice_mirrored_requests_total", `result="dropped"`) == 1 })
	began := time.Now()
	for range 20 {
		ask(t, p.HTTP, nil, "shop.example", "/?hang").want(t, 200, "main")
		ask(t, p.HTTP, nil, "gone.example", "/").want(t, 200, "main")
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("with a silent mirror 40 requests take %v", took)
	}
	within(t, callTimeout, "failed copies are counted", func() bool { return p.metric(t, "sluice_mirrored_requests_total", `result="failed"`) >= 20 })
}

// TestServiceUpstream: requests go to the Service's address, whatever its endpoints are.
func TestServiceUpstream(t *testing.T) {
	service, endpoint := newBackend(t, "service", nil), newBackend(t, "endpoint", nil)
	text := site{name: "shop", host: "shop.example", ports: []int{endpoint.port()}, annotations: map[string]string{"service-upstream": "true"}}.yaml()
	text = strings.Replace(text, "spec: {ports: [{name: main, port: 80}]}",
		fmt.Sprintf("spec: {clusterIP: 127.0.0.1, ports: [{name: main, port: %d, targetPort: 80}]}", service.port()), 1)
	p := startProxy(t, strings.Replace(text, "port: {number: 80}", "port: {name: main}", 1))
	ask(t, p.HTTP, nil, "shop.example", "/").want(t, 200, "service")
}

// ejected is how many endpoints of all clusters are out.
func (p *testProxy) ejected() (n int) {
	for _, c := range p.clusters() {
		n += c.Ejected
	}
	return n
}

// TestWhoIsBlamed: an endpoint whose bodies break off is ejected, and one that does not answer in a request's time; one whose client
// used that time up is not.
func TestWhoIsBlamed(t *testing.T) {
	annotations := map[string]string{"sluice.dev/outlier-errors": "3", "sluice.dev/outlier-ejection-time": "1h", "sluice.dev/request-timeout": "200ms",
		"proxy-request-buffering": "off"}
	for _, c := range []struct {
		name    string
		answer  string
		request string
		ejected bool
	}{
		{"bodies that break off", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", request("shop.example", "/"), true},
		{"no answer in time", "", request("shop.example", "/"), true},
		{"no body in time", "", "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\n", false},
		{"good answers", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", request("shop.example", "/"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			lead := func(conn *net.TCPConn) {
				r := bufio.NewReader(conn)
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				if c.answer == "" {
					_, _ = io.Copy(io.Discard, r)
				}
				_, _ = io.WriteString(conn, c.answer)
			}
			ports := []int{newRawBackend(t, lead).port(), newRawBackend(t, lead).port()}
			p := startProxy(t, site{name: "shop", host: "shop.example", ports: ports, annotations: annotations}.yaml())
			for range 8 {
				conn, err := net.Dial("tcp", p.HTTP)
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(callTimeout))
				_, _ = io.WriteString(conn, c.request)
				if strings.HasPrefix(c.name, "bodies") {
					_, _ = io.Copy(io.Discard, conn) // it is cut; who left earlier would have cut it
				} else {
					_, _ = io.ReadFull(conn, make([]byte, len("HTTP/1.1 200")))
				}
				_ = conn.Close()
			}
			if n := p.ejected(); (n > 0) != c.ejected {
				t.Errorf("%d endpoints are ejected; one is to be: %v", n, c.ejected)
			}
		})
	}
}

// TestAnswersInARow: a stream that its client leaves was a good answer, one that was asked for before the bad ones says nothing of
// them, and a body that was promised and not sent is none.
func TestAnswersInARow(t *testing.T) {
	for _, c := range []struct {
		name    string
		paths   string
		ejected bool
	}{
		{"a stream between", "/bad /bad /stream /bad /bad", false},
		{"a body that stalls between", "/bad /bad /stall /bad", true},
		{"an answer between", "/bad /bad /good /bad /bad", false},
		{"a stream from before", "/old /bad /bad /leave /bad", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			lead := func(conn *net.TCPConn) {
				for r := bufio.NewReader(conn); ; {
					q, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.WriteString(conn, map[string]string{
						"/bad":    "HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\nno",
						"/good":   "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
						"/stall":  "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok",
						"/stream": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
						"/old":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
					}[q.URL.Path])
				}
			}
			p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{newRawBackend(t, lead).port(), newRawBackend(t, lead).port()},
				annotations: map[string]string{"sluice.dev/outlier-errors": "3", "sluice.dev/outlier-ejection-time": "1h",
					"upstream-hash-by": "$host"}}.yaml()) // all to one of the two
			var old net.Conn
			for path := range strings.FieldsSeq(c.paths) {
				conn := old
				if path != "/leave" {
					var err error
					if conn, err = net.Dial("tcp", p.HTTP); err != nil {
						t.Fatal(err)
					}
					_ = conn.SetDeadline(time.Now().Add(callTimeout))
					_, _ = io.WriteString(conn, request("shop.example", path))
					if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
						t.Fatal(err)
					}
				}
				if path == "/old" {
					old = conn
					continue
				}
				_ = conn.(*net.TCPConn).SetLinger(0) // a half-close is no reason to end a stream
				_ = conn.Close()
				time.Sleep(50 * time.Millisecond) // the proxy notices, and its clock goes on
			}
			if n := p.ejected(); (n > 0) != c.ejected {
				t.Errorf("%d endpoints are ejected; one is to be: %v", n, c.ejected)
			}
		})
	}
}

// TestTimeoutsCountForEWMA: who is silent until proxy-read-timeout is over is as slow as that. Both endpoints count as equally
// fast until the loop has heard of both, which 16 requests bring about but for one time in 65,536.
func TestTimeoutsCountForEWMA(t *testing.T) {
	hangs := newRawBackend(t, func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) })
	p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{hangs.port(), newBackend(t, "well", nil).port()},
		annotations: map[string]string{"load-balance": "ewma", "proxy-read-timeout": "1", "proxy-next-upstream": "off"}}.yaml(), "--loops=1")
	late := 0
	for i := range 16 + 24 {
		if ask(t, p.HTTP, nil, "shop.example", "/").status == 504 && i >= 16 {
			late++
		}
	}
	if late > 1 {
		t.Errorf("%d of 24 requests went to an endpoint that hangs", late)
	}
}
