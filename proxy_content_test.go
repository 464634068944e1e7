package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// The tests of this file are about what annotations of content do on the wire: heads, error pages, further hosts.

// application is a backend that does what a test wants of it. Its first argument tells its port.
func application(t testing.TB, serve http.HandlerFunc) int {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	return portOfURL(t, s.URL)
}

func portOfURL(t testing.TB, address string) int {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// told are the fields of a request as the backend got them.
func told(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s\nhost: %s\n", r.Method, r.RequestURI, r.Host)
	_ = r.Header.Write(w)
}

func configMap(name string, keys ...string) string {
	return strings.Replace(configMapOf(keys...), "name: sluice,", "name: "+name+",", 1)
}

func TestCORSOnTheWire(t *testing.T) {
	var served atomic.Int64
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		w.Header().Set("Access-Control-Allow-Origin", "https://backend.example")
		if r.URL.Path == "/missing" {
			w.WriteHeader(404)
		}
	})
	p := startProxy(t, site{name: "all", host: "all.example", ports: []int{port}, annotations: map[string]string{"enable-cors": "true"}}.yaml()+
		site{name: "some", host: "some.example", ports: []int{port}, annotations: map[string]string{"enable-cors": "true",
			"cors-allow-origin": "https://a.example,https://*.b.example", "cors-expose-headers": "X-C", "cors-max-age": "5"}}.yaml())
	preflight := func(host, origin string) *answer {
		c := &caller{address: p.HTTP}
		defer c.hangUp()
		a, err := c.call("OPTIONS / HTTP/1.1\r\nHost: " + host + "\r\nOrigin: " + origin + "\r\nAccess-Control-Request-Method: PUT\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		origin, allowed string
		status          int
	}{
		{"https://a.example", "https://a.example", 204},
		{"HTTPS://A.example", "HTTPS://A.example", 204},
		{"https://x.b.example", "https://x.b.example", 204},
		{"https://x.y.b.example", "https://backend.example", 200},
		{"https://b.example", "https://backend.example", 200},
		{"https://evil.example", "https://backend.example", 200}, // the backend answers
	} {
		before := served.Load()
		a := preflight("some.example", c.origin)
		if a.status != c.status || a.header.Get("Access-Control-Allow-Origin") != c.allowed || len(a.header.Values("Access-Control-Allow-Origin")) != 1 {
			t.Errorf("%s: %d %v", c.origin, a.status, a.header)
		}
		if asked := served.Load() > before; asked != (c.status == 200) {
			t.Errorf("%s: the backend was asked: %v", c.origin, asked)
		}
		if got := a.header.Values("Vary"); len(got) != 1 || got[0] != "Origin" {
			t.Errorf("%s: Vary is %q", c.origin, got)
		}
	}
	if a := preflight("all.example", "https://a.example"); a.status != 204 || a.header.Get("Vary") != "" {
		t.Errorf("an origin of all: %d %v", a.status, a.header)
	}
	a := ask(t, p.HTTP, nil, "some.example", "/missing", "Origin: https://a.example")
	if a.status != 404 || a.header.Get("Access-Control-Allow-Origin") != "https://a.example" || a.header.Get("Access-Control-Expose-Headers") != "X-C" ||
		a.header.Get("Access-Control-Max-Age") != "5" || a.header.Get("Access-Control-Allow-Credentials") != "true" {
		t.Errorf("an error's answer: %d %v", a.status, a.header)
	}
}

func TestHeadersOnTheWire(t *testing.T) {
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Server", "Backend/1.0")
		h.Set("X-Powered-By", "magic")
		h.Set("X-Runtime", "5")
		h.Set("Location", "http://inner.example/next?a=b")
		h.Set("Refresh", "5; URL=http://inner.example/later")
		h.Add("Set-Cookie", "a=b; Path=/app/x; domain=.inner.example; HttpOnly")
		h.Add("Set-Cookie", "path=inner.example; Path=/other; Domain=third.example")
		told(w, r)
	})
	p := startProxy(t, site{name: "own", host: "own.example", ports: []int{port}, annotations: map[string]string{
		"sluice.dev/request-headers-set":     `{"X-Tenant": "$host-$http_x_user", "X-Forwarded-Proto": "https", "X-Empty": "$arg_none"}`,
		"sluice.dev/request-headers-add":     `{"X-User": "second"}`,
		"sluice.dev/request-headers-remove":  "X-Debug",
		"sluice.dev/response-headers-set":    `{"X-Frame-Options": "DENY"}`,
		"sluice.dev/response-headers-remove": "X-Powered-By",
		"custom-headers":                     "fields",
		"upstream-vhost":                     "inner.example",
		"proxy-redirect-from":                "http://inner.example/", "proxy-redirect-to": "$scheme://$http_host/",
		"proxy-cookie-path": "/app/ /", "proxy-cookie-domain": "inner.example outer.example",
	}}.yaml()+
		site{name: "prefix", host: "prefix.example", path: "/app(/|$)(.*)", ports: []int{port}, annotations: map[string]string{
			"rewrite-target": "/$2", "x-forwarded-prefix": "/app"}}.yaml()+
		configMapOf("global-allowed-response-headers", "X-Custom", "hide-headers", "X-Runtime", "proxy-add-original-uri-header", "true",
			"add-headers", "default/add", "proxy-set-headers", "default/set")+
		configMap("fields", "X-Custom", "costs $5")+configMap("add", "X-Served-By", "sluice", "X-Frame-Options", "SAMEORIGIN")+configMap("set", "X-Zone", "one"), configMapFlag)
	a := ask(t, p.HTTP, nil, "own.example", "/p?q=1", "X-User: ann", "X-Debug: 1", "X-Empty: x")
	for _, want := range []string{"host: inner.example\n", "X-Tenant: own.example-ann\r\n", "X-Forwarded-Proto: https\r\n", "X-User: ann\r\nX-User: second\r\n",
		"X-Forwarded-Host: own.example\r\n", "X-Original-Uri: /p?q=1\r\n", "X-Zone: one\r\n"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the backend was not told %q: %s", want, a.body)
		}
	}
	for _, never := range []string{"X-Debug", "X-Empty"} {
		if strings.Contains(a.body, never) {
			t.Errorf("the backend was told %s", never)
		}
	}
	for name, want := range map[string]string{"X-Frame-Options": "DENY", "X-Powered-By": "", "X-Runtime": "", "Server": "", "X-Custom": "costs $5",
		"X-Served-By": "sluice", "Location": "http://own.example/next?a=b", "Refresh": "5; URL=http://own.example/later",
		"Set-Cookie": "a=b; Path=/x; domain=.outer.example; HttpOnly|path=inner.example; Path=/other; Domain=third.example"} {
		if got := strings.Join(a.header.Values(name), "|"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	a = ask(t, p.HTTP, nil, "prefix.example", "/app/x")
	if !strings.Contains(a.body, "GET /x\n") || !strings.Contains(a.body, "X-Forwarded-Prefix: /app\r\n") {
		t.Errorf("prefix: %s", a.body)
	}
	p.write("fields.yaml", "")
	p.write("all.yaml", site{name: "own", host: "own.example", ports: []int{port}, annotations: map[string]string{"custom-headers": "fields"}}.yaml())
	within(t, editLimit, "a ConfigMap that is gone denies", func() bool { return ask(t, p.HTTP, nil, "own.example", "/").status == 503 })
}

func TestErrorPagesOnTheWire(t *testing.T) {
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		status, _ := strconv.Atoi(strings.Trim(r.URL.Path, "/"))
		w.WriteHeader(status)
		fmt.Fprint(w, "the backend's own")
	})
	pages := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Page", "1")
		w.WriteHeader(410)
		if r.Method != "HEAD" {
			told(w, r)
		}
	})
	broken := application(t, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	service := func(name string, port int) string {
		return "---\napiVersion: v1\nkind: Service\nmetadata: {name: " + name + ", namespace: default}\nspec: {ports: [{name: main, port: 80}]}\n" + endpointsOf(name, port)
	}
	errorsOn := func(more ...string) map[string]string {
		m := map[string]string{"custom-http-errors": "404,418,403,503", "default-backend": "pages"}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	p := startProxy(t, service("pages", pages)+service("broken", broken)+
		site{name: "web", host: "web.example", ports: []int{port}, annotations: errorsOn()}.yaml()+
		site{name: "own", host: "own.example", ports: []int{port}, annotations: errorsOn("disable-proxy-intercept-errors", "true")}.yaml()+
		site{name: "closed", host: "closed.example", ports: []int{port}, annotations: errorsOn("allowlist-source-range", "192.0.2.0/24")}.yaml()+
		site{name: "empty", host: "empty.example", annotations: map[string]string{"custom-http-errors": "503", "default-backend": "pages"}}.yaml()+
		site{name: "broken-page", host: "broken.example", ports: []int{port}, annotations: errorsOn("default-backend", "broken")}.yaml())
	c := &caller{address: p.HTTP}
	defer c.hangUp()
	a, err := c.call(request("web.example", "/404?x=y", "Accept: text/html", "X-Code: 200"))
	if err != nil {
		t.Fatal(err)
	}
	a.want(t, 410, "GET /?x=y")
	for _, want := range []string{"X-Code: 404\r\n", "X-Format: text/html\r\n", "X-Original-Uri: /404?x=y\r\n", "X-Namespace: default\r\n",
		"X-Ingress-Name: web\r\n", "X-Service-Name: web\r\n", "X-Service-Port: 80\r\n", "X-Request-Id: "} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the page was not told %q: %s", want, a.body)
		}
	}
	for _, r := range []string{
		"POST /418 HTTP/1.1\r\nHost: web.example\r\nContent-Length: 4\r\n\r\nbody",
		"POST /418 HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
	} {
		if a, err = c.call(r); err != nil {
			t.Fatal(err)
		}
		a.want(t, 410, "GET /")
	}
	a, err = c.call("GET /500 HTTP/1.1\r\nHost: web.example\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	a.want(t, 500, "the backend's own")
	if c.dials != 1 {
		t.Errorf("%d connections", c.dials)
	}
	ask(t, p.HTTP, nil, "own.example", "/404").want(t, 404, "the backend's own")
	ask(t, p.HTTP, nil, "closed.example", "/200").want(t, 410, "GET /")
	a = ask(t, p.HTTP, nil, "empty.example", "/some/path")
	if a.status != 410 || !strings.Contains(a.body, "X-Code: 503\r\n") {
		t.Errorf("no endpoints: %d %s", a.status, a.body)
	}
	ask(t, p.HTTP, nil, "broken.example", "/404").want(t, 502, "")
	ask(t, p.HTTP, nil, "web.example", "/200").want(t, 200, "the backend's own")
}

func TestDerivedHostsOnTheWire(t *testing.T) {
	b := newBackend(t, "web", nil)
	manifests := site{name: "web", host: "web.example", ports: []int{b.port()}, annotations: map[string]string{
		"server-alias": "alias.example,*.wild.example", "from-to-www-redirect": "true"}}.yaml()
	p := startProxy(t, manifests)
	for _, host := range []string{"web.example", "alias.example", "x.wild.example"} {
		ask(t, p.HTTP, nil, host, "/").want(t, 200, "web")
	}
	port := p.HTTP[strings.LastIndexByte(p.HTTP, ':')+1:]
	a := ask(t, p.HTTP, nil, "www.web.example", "/a/?b=c/")
	if want := "http://web.example:" + port + "/a/?b=c"; a.status != 308 || a.header.Get("Location") != want {
		t.Errorf("%d %s, want %s", a.status, a.header.Get("Location"), want)
	}
	other := newBackend(t, "other", nil)
	p.write("other.yaml", site{name: "other", host: "alias.example", ports: []int{other.port()}}.yaml())
	within(t, editLimit, "a rule takes an alias's place", func() bool { return strings.HasPrefix(ask(t, p.HTTP, nil, "alias.example", "/").body, "other") })
	p.write("all.yaml", site{name: "web", host: "web.example", ports: []int{b.port()}}.yaml())
	within(t, editLimit, "derived hosts go", func() bool {
		return ask(t, p.HTTP, nil, "x.wild.example", "/").status == 404 && ask(t, p.HTTP, nil, "www.web.example", "/").status == 404
	})
	ask(t, p.HTTP, nil, "web.example", "/").want(t, 200, "web")
}

// TestReplacedAnswersCountAgainstEndpoints: an answer that a page replaces is still what the endpoint said, and ejects it;
// the cookie of affinity is none of the page's.
func TestReplacedAnswersCountAgainstEndpoints(t *testing.T) {
	bad := application(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	good := application(t, told)
	pages := application(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(410) })
	p := startProxy(t, site{name: "pages", host: "pages.example", ports: []int{pages}}.yaml()+
		site{name: "web", host: "web.example", ports: []int{bad, good}, annotations: map[string]string{"custom-http-errors": "500", "default-backend": "pages",
			"affinity": "cookie", "sluice.dev/outlier-errors": "3", "sluice.dev/outlier-ejection-time": "1h"}}.yaml())
	replaced := 0
	for range 100 {
		a := ask(t, p.HTTP, nil, "web.example", "/")
		if a.status == 410 {
			replaced++
		} else if a.status != 200 {
			t.Errorf("status %d", a.status)
		}
		if cookie := a.header.Get("Set-Cookie"); (cookie != "") != (a.status == 200) {
			t.Errorf("%d with the cookie %q", a.status, cookie)
		}
	}
	if replaced != 3 {
		t.Errorf("%d answers were replaced, want 3 until the endpoint is ejected", replaced)
	}
}
