package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file hold keys of ingress-nginx's dialect against what they do on the wire, where no test of a family
// does: a row for a key, named like it. docs/dialect-tests.md names them; dialect_test.go reads that.

// A dialectRow is the configuration of one site, and what has to be true of its answers.
type dialectRow struct {
	annotations map[string]string
	keys        []string // of the ConfigMap, each with its value
	path        string
	more        string // manifests
	tls         bool   // the site has a certificate
	check       func(t *testing.T, w *dialectWorld)
}

// A dialectWorld is a proxy with the site of one row.
type dialectWorld struct {
	*testProxy
	host      string
	held      *sync.Map // the targets that a backend holds
	manifests string    // without the ConfigMap
	log       *lockedBuffer
	service   *authService
}

func (w *dialectWorld) ask(t *testing.T, path string, fields ...string) *answer {
	t.Helper()
	return ask(t, w.HTTP, nil, w.host, path, fields...)
}

// redirects tells whether an answer leads somewhere.
func (w *dialectWorld) redirects(t *testing.T, path string, status int, location string) {
	t.Helper()
	if a := w.ask(t, path); a.status != status || a.header.Get("Location") != strings.ReplaceAll(location, "PORT", w.HTTP[strings.LastIndexByte(w.HTTP, ':'):]) {
		t.Errorf("%s: %d to %q, want %d to %q", path, a.status, a.header.Get("Location"), status, location)
	}
}

// logged tells whether a request is in the access log, once a later one of another host is. Both come on one connection: a
// loop writes its lines in their order, and two loops do not.
func (w *dialectWorld) logged(t *testing.T, path, text string) bool {
	t.Helper()
	c := &caller{address: w.HTTP}
	defer c.hangUp()
	for _, r := range []string{request(w.host, path), request("witness.example", "/the-witness")} {
		if _, err := c.call(r); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 30*time.Second, "the witness is logged", func() bool { return strings.Contains(w.log.String(), "/the-witness") })
	return strings.Contains(w.log.String(), text)
}

// TestDialect runs the rows, each with a proxy of its own.
func TestDialect(t *testing.T) {
	ended := make(chan struct{})
	var reached sync.Map // the targets of what is held
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "theirs/1.0")
		for name, values := range r.URL.Query() {
			w.Header()[name] = values
		}
		switch r.URL.Path {
		case "/missing":
			w.WriteHeader(404)
		case "/held":
			reached.Store(r.RequestURI, true)
			select {
			case <-r.Context().Done():
			case <-ended: // while a body is not read, the server does not see that its client has gone
			}
		}
		told(w, r)
		fmt.Fprintf(w, "Close: %v\n", r.Close)
	})
	t.Cleanup(func() { close(ended) })
	for name, row := range dialectTable() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &dialectWorld{host: "web.example", held: &reached, log: &lockedBuffer{}, service: newAuthService(t)}
			s := site{name: "web", host: w.host, path: row.path, ports: []int{port}, annotations: map[string]string{}}
			auth := fmt.Sprint("http://127.0.0.1:", w.service.port)
			for k, v := range row.annotations {
				s.annotations[k] = strings.ReplaceAll(v, "SERVICE", auth)
			}
			manifests := row.more
			if row.tls {
				s.secret = "pair"
				manifests += secretOf(t, "pair", issue(t, w.host))
			}
			var keys []string
			for _, k := range row.keys {
				keys = append(keys, strings.ReplaceAll(k, "SERVICE", auth))
			}
			witness := site{name: "witness", host: "witness.example", ports: []int{port}, annotations: map[string]string{"enable-global-auth": "false"}}
			w.manifests = manifests + s.yaml() + witness.yaml()
			w.testProxy = startProxyLogging(t, w.log, w.manifests+configMapOf(keys...), configMapFlag)
			row.check(t, w)
		})
	}
}

func asked(want string) func(*testing.T, *dialectWorld) {
	return func(t *testing.T, w *dialectWorld) {
		t.Helper()
		w.ask(t, "/x", "X-Want: 200")
		if r := w.service.last(); !strings.Contains(fmt.Sprintf("%s %s %v", r.Method, r.RequestURI, r.Header), want) {
			t.Errorf("the service was asked %s %v, want %q", r.Method, r.Header, want)
		}
	}
}

func answers(path string, status int, fields ...string) func(*testing.T, *dialectWorld) {
	return func(t *testing.T, w *dialectWorld) {
		t.Helper()
		w.ask(t, path, fields...).want(t, status, "")
	}
}

func leads(path string, status int, location string) func(*testing.T, *dialectWorld) {
	return func(t *testing.T, w *dialectWorld) { t.Helper(); w.redirects(t, path, status, location) }
}

// keepsAnswers tells whether the service is asked once, and what a status that is not kept does.
func keepsAnswers(t *testing.T, w *dialectWorld) {
	for range 5 {
		w.ask(t, "/", "X-Want: 403", "Authorization: a")
	}
	if n := w.service.count(); n != 5 {
		t.Errorf("the service is asked %d times for a status that is not kept, want 5", n)
	}
}

func signsIn(param string) func(*testing.T, *dialectWorld) {
	return func(t *testing.T, w *dialectWorld) {
		a := w.ask(t, "/x", "X-Want: 401")
		if want := "https://auth.example/?" + param + "=http://web.example%2Fx"; a.status != 302 || a.header.Get("Location") != want {
			t.Errorf("%d to %q, want %q", a.status, a.header.Get("Location"), want)
		}
	}
}

func cookiesAlways(t *testing.T, w *dialectWorld) {
	if a := w.ask(t, "/missing", "X-Want: 200"); a.status != 404 || len(a.header.Values("Set-Cookie")) != 2 {
		t.Errorf("%d with cookies %q", a.status, a.header.Values("Set-Cookie"))
	}
}

// dialectTable is the rows by their keys; those of the ConfigMap begin with "ConfigMap ".
func dialectTable() map[string]dialectRow {
	rows := map[string]dialectRow{}
	for _, part := range []map[string]dialectRow{redirectRows, authRows, backendRows, heldRows, contentRows, logRows} {
		for name, row := range part {
			rows[name] = row
		}
	}
	return rows
}

var redirectRows = map[string]dialectRow{
	"permanent-redirect":           {annotations: map[string]string{"permanent-redirect": "https://new.example/x"}, check: leads("/a?b=c", 301, "https://new.example/x")},
	"permanent-redirect to a path": {annotations: map[string]string{"permanent-redirect": "/new"}, check: leads("/a?b=c", 301, "http://web.example/new")},
	"permanent-redirect to a path, over TLS": {tls: true, annotations: map[string]string{"permanent-redirect": "/new", "use-port-in-redirects": "true"},
		check: func(t *testing.T, w *dialectWorld) {
			_, port, _ := net.SplitHostPort(w.HTTPS)
			if a := ask(t, w.HTTPS, trusting(t, w.host), w.host, "/a"); a.status != 301 || a.header.Get("Location") != "https://web.example:"+port+"/new" {
				t.Errorf("%d to %q", a.status, a.header.Get("Location"))
			}
		}},
	"permanent-redirect to a path, relative-redirects": {annotations: map[string]string{"permanent-redirect": "/new", "permanent-redirect-code": "308", "relative-redirects": "true"},
		check: leads("/a", 308, "/new")},
	"permanent-redirect-code": {annotations: map[string]string{"permanent-redirect": "https://new.example", "permanent-redirect-code": "308"},
		check: leads("/", 308, "https://new.example")},
	"temporal-redirect": {annotations: map[string]string{"temporal-redirect": "https://new.example/t", "permanent-redirect": "https://new.example/p"},
		check: leads("/", 302, "https://new.example/t")},
	"temporal-redirect-code": {annotations: map[string]string{"temporal-redirect": "https://new.example", "temporal-redirect-code": "307"},
		check: leads("/", 307, "https://new.example")},
	"app-root": {annotations: map[string]string{"app-root": "/app"}, check: func(t *testing.T, w *dialectWorld) {
		w.redirects(t, "/?q=1", 302, "http://web.example/app")
		w.ask(t, "/other").want(t, 200, "GET /other")
	}},
	"ssl-redirect": {tls: true, check: leads("/a/?b=c/", 308, "https://web.example/a/?b=c")},
	"ssl-redirect off": {tls: true, annotations: map[string]string{"ssl-redirect": "false"},
		check: answers("/", 200)},
	"ConfigMap ssl-redirect":       {tls: true, keys: []string{"ssl-redirect", "false"}, check: answers("/", 200)},
	"force-ssl-redirect":           {annotations: map[string]string{"force-ssl-redirect": "true"}, check: leads("/a/", 308, "https://web.example/a")},
	"ConfigMap force-ssl-redirect": {keys: []string{"force-ssl-redirect", "true"}, check: leads("/a", 308, "https://web.example/a")},
	"preserve-trailing-slash": {annotations: map[string]string{"force-ssl-redirect": "true", "preserve-trailing-slash": "true"},
		check: leads("/a/", 308, "https://web.example/a/")},
	"ConfigMap preserve-trailing-slash": {keys: []string{"force-ssl-redirect", "true", "preserve-trailing-slash", "true"},
		check: leads("/a/", 308, "https://web.example/a/")},
	"ConfigMap http-redirect-code": {keys: []string{"force-ssl-redirect", "true", "http-redirect-code", "301"},
		check: leads("/", 301, "https://web.example")},
	"ConfigMap no-tls-redirect-locations": {path: "/plain", keys: []string{"force-ssl-redirect", "true", "no-tls-redirect-locations", "/plain"},
		check: answers("/plain/x", 200)},
}

var authRows = map[string]dialectRow{
	"auth-secret-type": {annotations: map[string]string{"auth-type": "basic", "auth-secret": "users", "auth-secret-type": "auth-map"},
		more: opaqueSecret("users", "sha", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="), check: func(t *testing.T, w *dialectWorld) {
			w.ask(t, "/", basicField("sha", "secret")).want(t, 200, "")
			w.ask(t, "/", basicField("sha", "wrong")).want(t, 401, "")
		}},
	"auth-signin-redirect-param": {annotations: map[string]string{"auth-url": "SERVICE/", "auth-signin": "https://auth.example/", "auth-signin-redirect-param": "next"},
		check: signsIn("next")},
	"auth-request-redirect": {annotations: map[string]string{"auth-url": "SERVICE/", "auth-request-redirect": "https://back.example/"},
		check: asked("X-Auth-Request-Redirect:[https://back.example/]")},
	"auth-cache-duration": {annotations: map[string]string{"auth-url": "SERVICE/", "auth-cache-key": "$http_authorization", "auth-cache-duration": "200 1m"},
		check: keepsAnswers},
	"enable-global-auth": {annotations: map[string]string{"enable-global-auth": "false"}, keys: []string{"global-auth-url", "SERVICE/"},
		check: answers("/", 200, "X-Want: 403")},
	"ConfigMap global-auth-url": {keys: []string{"global-auth-url", "SERVICE/verify"}, check: func(t *testing.T, w *dialectWorld) {
		w.ask(t, "/", "X-Want: 403").want(t, 403, "")
		w.ask(t, "/", "X-Want: 200").want(t, 200, "")
		asked("GET /verify")(t, w)
	}},
	"ConfigMap global-auth-method": {keys: []string{"global-auth-url", "SERVICE/", "global-auth-method", "POST"}, check: asked("POST /")},
	"ConfigMap global-auth-signin": {keys: []string{"global-auth-url", "SERVICE/", "global-auth-signin", "https://auth.example/"}, check: signsIn("rd")},
	"ConfigMap global-auth-signin-redirect-param": {keys: []string{"global-auth-url", "SERVICE/", "global-auth-signin", "https://auth.example/",
		"global-auth-signin-redirect-param", "next"}, check: signsIn("next")},
	"ConfigMap global-auth-response-headers": {keys: []string{"global-auth-url", "SERVICE/", "global-auth-response-headers", "Remote-User"},
		check: func(t *testing.T, w *dialectWorld) {
			if a := w.ask(t, "/", "Remote-User: root"); !strings.Contains(a.body, "Remote-User: ann\r\n") || strings.Contains(a.body, "root") {
				t.Errorf("the backend was told %s", a.body)
			}
		}},
	"ConfigMap global-auth-request-redirect": {keys: []string{"global-auth-url", "SERVICE/", "global-auth-request-redirect", "https://back.example/"},
		check: asked("X-Auth-Request-Redirect:[https://back.example/]")},
	"ConfigMap global-auth-cache-key": {keys: []string{"global-auth-url", "SERVICE/", "global-auth-cache-key", "$http_authorization"},
		check: func(t *testing.T, w *dialectWorld) {
			for range 20 { // the service's answers have cookies, which are not kept; a 401 without is
				w.ask(t, "/", "X-Want: 200", "Authorization: a")
			}
			if n := w.service.count(); n != 20 {
				t.Errorf("answers with cookies are kept: asked %d times of 20", n)
			}
		}},
	"ConfigMap global-auth-cache-duration": {keys: []string{"global-auth-url", "SERVICE/", "global-auth-cache-key", "$http_authorization",
		"global-auth-cache-duration", "200 1m"}, check: keepsAnswers},
	"ConfigMap global-auth-always-set-cookie": {keys: []string{"global-auth-url", "SERVICE/", "global-auth-always-set-cookie", "true"}, check: cookiesAlways},
	"ConfigMap no-auth-locations": {path: "/open", keys: []string{"global-auth-url", "SERVICE/", "no-auth-locations", "/open"},
		check: answers("/open/x", 200, "X-Want: 403")},
}

var backendRows = map[string]dialectRow{
	"empty values ask for nothing": {annotations: map[string]string{"auth-type": "", "auth-url": "", "auth-signin": "", "satisfy": "", "limit-rps": "", "limit-whitelist": "",
		"permanent-redirect-code": "", "proxy-ssl-verify": "", "ssl-passthrough": "", "enable-modsecurity": "", "default-backend": ""}, check: answers("/", 200)},
	"an empty allow list lets nobody in": {annotations: map[string]string{"whitelist-source-range": ""}, check: answers("/", 503)},
	"a blank cors-allow-origin is none": {annotations: map[string]string{"enable-cors": "true", "cors-allow-origin": "  "}, check: func(t *testing.T, w *dialectWorld) {
		if a := w.ask(t, "/", "Origin: https://a.example"); a.status != 200 || a.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%d, %q are allowed", a.status, a.header.Get("Access-Control-Allow-Origin"))
		}
	}},
	"connection-proxy-header": {annotations: map[string]string{"connection-proxy-header": "close"}, check: func(t *testing.T, w *dialectWorld) {
		w.ask(t, "/").want(t, 200, "")
		if a := w.ask(t, "/"); !strings.Contains(a.body, "Close: true\n") {
			t.Errorf("the backend was told %s", a.body)
		}
	}},
	"ConfigMap proxy-body-size": {keys: []string{"proxy-body-size", "10"}, check: func(t *testing.T, w *dialectWorld) {
		for size, status := range map[int]int{10: 200, 11: 413} {
			c := &caller{address: w.HTTP}
			a, err := c.call(postOf(w.host, "/", make([]byte, size), false))
			c.hangUp()
			if err != nil || a.status != status {
				t.Errorf("%d bytes: %v, %v, want %d", size, a, err, status)
			}
		}
	}},
	"ConfigMap use-http2": {tls: true, keys: []string{"use-http2", "false"}, check: func(t *testing.T, w *dialectWorld) {
		config := trusting(t, w.host)
		config.NextProtos = []string{"h2", "http/1.1"}
		conn, err := tls.Dial("tcp", w.HTTPS, config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
			t.Errorf("%q is spoken", p)
		}
	}},
	"ConfigMap block-cidrs": {keys: []string{"block-cidrs", "127.0.0.0/8"}, check: answers("/", 403)},
	"ConfigMap block-user-agents": {keys: []string{"block-user-agents", "~*badbot"}, check: func(t *testing.T, w *dialectWorld) {
		w.ask(t, "/", "User-Agent: a BadBot/1").want(t, 403, "")
		w.ask(t, "/", "User-Agent: good").want(t, 200, "")
	}},
	"ConfigMap block-referers": {keys: []string{"block-referers", "http://bad.example/"}, check: func(t *testing.T, w *dialectWorld) {
		w.ask(t, "/", "Referer: http://bad.example/").want(t, 403, "")
		w.ask(t, "/", "Referer: http://good.example/").want(t, 200, "")
	}},
	"ConfigMap denylist-source-range": {keys: []string{"denylist-source-range", "127.0.0.1"}, check: answers("/", 403)},
	"ConfigMap limit-req-status-code": {annotations: map[string]string{"limit-rpm": "1", "limit-burst-multiplier": "1"}, keys: []string{"limit-req-status-code", "429"},
		check: func(t *testing.T, w *dialectWorld) {
			if got := statuses(t, w.HTTP, w.host, 5); got[200] != 2 || got[429] != 3 {
				t.Errorf("%v", got)
			}
		}},
	"ConfigMap use-forwarded-headers": {keys: []string{"use-forwarded-headers", "true", "proxy-real-ip-cidr", "127.0.0.0/8"},
		check: func(t *testing.T, w *dialectWorld) {
			if a := w.ask(t, "/", "X-Forwarded-For: 192.0.2.7"); line(a.body, "X-Forwarded-For:") != "X-Forwarded-For: 192.0.2.7" {
				t.Errorf("the backend was told %s", a.body)
			}
		}},
	"ConfigMap use-forwarded-headers redirects to the host that is said": {tls: true, keys: []string{"use-forwarded-headers", "true", "proxy-real-ip-cidr", "127.0.0.0/8"},
		check: func(t *testing.T, w *dialectWorld) {
			for field, want := range map[string]string{"X-Forwarded-Host: said.example:8080, x": "https://said.example/a", "X-Forwarded-Host: a@b": "https://web.example/a",
				"X-Other: said.example": "https://web.example/a"} {
				if a := w.ask(t, "/a", field); a.status != 308 || a.header.Get("Location") != want {
					t.Errorf("%s: %d to %q, want %q", field, a.status, a.header.Get("Location"), want)
				}
			}
			w.ask(t, "/a", "X-Forwarded-Proto: https").want(t, 200, "")
		}},
	"ConfigMap compute-full-forwarded-for": {keys: []string{"use-forwarded-headers", "true", "compute-full-forwarded-for", "true", "proxy-real-ip-cidr", "127.0.0.0/8"},
		check: func(t *testing.T, w *dialectWorld) {
			if a := w.ask(t, "/", "X-Forwarded-For: 192.0.2.7"); line(a.body, "X-Forwarded-For:") != "X-Forwarded-For: 192.0.2.7, 127.0.0.1" {
				t.Errorf("the backend was told %s", a.body)
			}
		}},
}

// heldRows are about requests that a backend holds.
var heldRows = map[string]dialectRow{
	"ConfigMap limit-conn-status-code": {annotations: map[string]string{"limit-connections": "1"}, keys: []string{"limit-conn-status-code", "429"},
		check: func(t *testing.T, w *dialectWorld) {
			held := &caller{address: w.HTTP}
			defer held.hangUp()
			if err := held.dial(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(held.conn, request(w.host, "/held?alone")); err != nil {
				t.Fatal(err)
			}
			within(t, 30*time.Second, "the request is held", func() bool { _, ok := w.held.Load("/held?alone"); return ok })
			w.ask(t, "/").want(t, 429, "")
		}},
	"ConfigMap proxy-send-timeout": {keys: []string{"proxy-send-timeout", "1", "proxy-body-size", "0"}, check: func(t *testing.T, w *dialectWorld) {
		c := &caller{address: w.HTTP}
		defer c.hangUp()
		if err := c.dial(); err != nil {
			t.Fatal(err)
		}
		go pour(c.conn, w.host, "/held")
		status, err := c.reader.ReadString('\n')
		if err != nil || !strings.HasPrefix(status, "HTTP/1.1 504 ") {
			t.Errorf("%q, %v", status, err)
		}
	}},
	"ConfigMap http2-max-concurrent-streams": {tls: true, keys: []string{"http2-max-concurrent-streams", "7"}, check: func(t *testing.T, w *dialectWorld) {
		if n := streamsAllowed(t, trusting(t, w.host), w.HTTPS); n != 7 {
			t.Errorf("%d streams are allowed", n)
		}
	}},
}

var contentRows = map[string]dialectRow{
	"ConfigMap allow-backend-server-header": {keys: []string{"allow-backend-server-header", "true"}, check: func(t *testing.T, w *dialectWorld) {
		if a := w.ask(t, "/"); a.header.Get("Server") != "theirs/1.0" {
			t.Errorf("Server: %q", a.header.Get("Server"))
		}
	}},
	"ConfigMap generate-request-id": {keys: []string{"generate-request-id", "false"}, check: func(t *testing.T, w *dialectWorld) {
		if a := w.ask(t, "/"); line(a.body, "X-Request-Id:") != "" {
			t.Errorf("the backend was told %s", a.body)
		}
	}},
	"generate-request-id on": {check: func(t *testing.T, w *dialectWorld) {
		if a := w.ask(t, "/"); len(line(a.body, "X-Request-Id:")) != len("X-Request-Id: ")+32 {
			t.Errorf("the backend was told %s", a.body)
		}
	}},
	"sluice.dev/response-headers-add": {annotations: map[string]string{"sluice.dev/response-headers-add": `{"Link": "</a.css>; rel=preload"}`},
		check: func(t *testing.T, w *dialectWorld) {
			if a := w.ask(t, "/?Link=own"); strings.Join(a.header.Values("Link"), "|") != "own|</a.css>; rel=preload" {
				t.Errorf("Link: %q", a.header.Values("Link"))
			}
		}},
	"ConfigMap proxy-cookie-domain": {keys: []string{"proxy-cookie-domain", "in.example out.example"}, check: func(t *testing.T, w *dialectWorld) {
		if a := w.ask(t, "/?Set-Cookie=a=b%3BDomain=in.example"); !strings.Contains(a.header.Get("Set-Cookie"), "out.example") {
			t.Errorf("Set-Cookie: %q", a.header.Get("Set-Cookie"))
		}
	}},
	"ConfigMap proxy-cookie-path": {keys: []string{"proxy-cookie-path", "/in/ /"}, check: func(t *testing.T, w *dialectWorld) {
		if a := w.ask(t, "/?Set-Cookie=a=b%3BPath=/in/x"); !strings.Contains(a.header.Get("Set-Cookie"), "Path=/x") {
			t.Errorf("Set-Cookie: %q", a.header.Get("Set-Cookie"))
		}
	}},
	"ConfigMap proxy-redirect-from": {keys: []string{"proxy-redirect-from", "http://in.example/", "proxy-redirect-to", "http://out.example/"},
		check: func(t *testing.T, w *dialectWorld) {
			if a := w.ask(t, "/?Location=http://in.example/a"); a.header.Get("Location") != "http://out.example/a" {
				t.Errorf("Location: %q", a.header.Get("Location"))
			}
		}},
}

var logRows = map[string]dialectRow{
	"enable-access-log": {annotations: map[string]string{"enable-access-log": "false"}, check: func(t *testing.T, w *dialectWorld) {
		if w.logged(t, "/quiet", "/quiet") {
			t.Errorf("the log has %s", w.log)
		}
	}},
	"enable-access-log on": {check: func(t *testing.T, w *dialectWorld) {
		if !w.logged(t, "/told", `"GET /told HTTP/1.1" 200`) {
			t.Errorf("the log has %s", w.log)
		}
	}},
	"ConfigMap disable-access-log":      {keys: []string{"disable-access-log", "true"}, check: logsNothing},
	"ConfigMap disable-http-access-log": {keys: []string{"disable-http-access-log", "true"}, check: logsNothing},
	"ConfigMap log-format-escape-json": {keys: []string{"log-format-escape-json", "true"}, check: func(t *testing.T, w *dialectWorld) {
		if !w.logged(t, "/told", `"path":"/told"`) && !strings.HasPrefix(w.log.String(), "{") {
			t.Errorf("the log has %s", w.log)
		}
	}},
	"ConfigMap sluice-access-log-format": {keys: []string{"sluice-access-log-format", "json"}, check: func(t *testing.T, w *dialectWorld) {
		if w.logged(t, "/told", "/told"); !strings.HasPrefix(w.log.String(), "{") {
			t.Errorf("the log has %s", w.log)
		}
	}},
}

// logsNothing switches the log on again, and looks at what is in it when a later request is.
func logsNothing(t *testing.T, w *dialectWorld) {
	w.ask(t, "/quiet").want(t, 200, "")
	w.write("all.yaml", w.manifests+configMapOf())
	within(t, 30*time.Second, "the log is on again", func() bool {
		w.ask(t, "/the-witness")
		return strings.Contains(w.log.String(), "/the-witness")
	})
	if text := w.log.String(); strings.Contains(text, "/quiet") {
		t.Errorf("the log has %s", text)
	}
}
