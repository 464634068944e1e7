package main

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// The tests of this file are about who comes in: basic authentication, and services that are asked.

func opaqueSecret(name, key, value string) string {
	return "---\napiVersion: v1\nkind: Secret\nmetadata: {name: " + name + ", namespace: default}\nstringData:\n  " + key + ": |\n" + indent(value) + "\n"
}

func basicField(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// hashes of the password "secret", by user.
func passwordFile(t testing.TB) string {
	t.Helper()
	slow, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\napr1:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\nbcrypt:" + strings.Replace(string(slow), "$2a$", "$2y$", 1) + "\nold:$1$abc$def\n"
}

func TestBasicAuthOnTheWire(t *testing.T) {
	port := application(t, told)
	p := startProxy(t, opaqueSecret("users", "auth", passwordFile(t))+
		site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"auth-type": "basic", "auth-secret": "users", "auth-realm": "Keep out"}}.yaml()+
		site{name: "any", host: "any.example", ports: []int{port}, annotations: map[string]string{"auth-type": "basic", "auth-secret": "users", "satisfy": "any", "allowlist-source-range": "127.0.0.2"}}.yaml()+
		site{name: "near", host: "near.example", ports: []int{port}, annotations: map[string]string{"auth-type": "basic", "auth-secret": "users", "satisfy": "any", "allowlist-source-range": "127.0.0.1"}}.yaml()+
		site{name: "both", host: "both.example", ports: []int{port}, annotations: map[string]string{"auth-type": "basic", "auth-secret": "users", "allowlist-source-range": "127.0.0.2"}}.yaml())
	c := &caller{address: p.HTTP}
	defer c.hangUp()
	for range 3 { // from the queue, then from memory
		for _, one := range []struct {
			field  string
			status int
		}{
			{basicField("sha", "secret"), 200}, {basicField("apr1", "secret"), 200}, {basicField("bcrypt", "secret"), 200},
			{basicField("sha", "Secret"), 401}, {basicField("apr1", ""), 401}, {basicField("bcrypt", "secret "), 401},
			{basicField("old", "secret"), 401}, {basicField("nobody", "secret"), 401}, {"X-A: b", 401}, {"Authorization: Basic ???", 401},
			{"Authorization: Bearer c2hhOnNlY3JldA==", 401}, {"Authorization: basic  c2hhOnNlY3JldA==", 200},
			{"Authorization: Basic " + strings.Repeat("QUFB", 2000), 401},
		} {
			a, err := c.call(request("web.example", "/", one.field))
			if err != nil {
				t.Fatal(err)
			}
			if a.status != one.status {
				t.Errorf("%.60s: %d, want %d", one.field, a.status, one.status)
			}
			if challenge := a.header.Get("WWW-Authenticate"); (challenge == `Basic realm="Keep out"`) != (one.status == 401) {
				t.Errorf("%.60s: challenge %q", one.field, challenge)
			}
			if strings.Contains(a.body, "Authorization") {
				t.Errorf("the backend got the password: %s", a.body)
			}
		}
	}
	if c.dials != 1 {
		t.Errorf("%d connections", c.dials)
	}
	for host, want := range map[string][2]int{"any.example": {401, 200}, "near.example": {200, 200}, "both.example": {403, 403}} {
		if got := ask(t, p.HTTP, nil, host, "/").status; got != want[0] {
			t.Errorf("%s without a password: %d, want %d", host, got, want[0])
		}
		a := ask(t, p.HTTP, nil, host, "/", basicField("bcrypt", "secret"))
		if a.status != want[1] || a.status == 200 && a.header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s with a password: %d, want %d", host, a.status, want[1])
		}
	}
	p.write("users.yaml", "")
	p.write("all.yaml", opaqueSecret("users", "auth", "sha:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\n")+
		site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"auth-type": "basic", "auth-secret": "users"}}.yaml())
	within(t, editLimit, "a changed Secret", func() bool { return ask(t, p.HTTP, nil, "web.example", "/", basicField("sha", "secret")).status == 401 })
	ask(t, p.HTTP, nil, "web.example", "/", basicField("bcrypt", "secret")).want(t, 401, "")
}

// TestWrongPasswordsAreBounded: a flood of wrong passwords against a slow hash is refused beyond a few that wait, and
// requests of others go on.
func TestWrongPasswordsAreBounded(t *testing.T) {
	slow, err := bcrypt.GenerateFromPassword([]byte("secret"), 9)
	if err != nil {
		t.Fatal(err)
	}
	port := application(t, told)
	p := startProxy(t, opaqueSecret("users", "auth", "bcrypt:"+string(slow)+"\n")+
		site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"auth-type": "basic", "auth-secret": "users"}}.yaml()+
		site{name: "open", host: "open.example", ports: []int{port}}.yaml())
	var all sync.WaitGroup
	var refused, busy atomic.Int64
	for i := range 40 {
		all.Go(func() {
			switch a := ask(t, p.HTTP, nil, "web.example", "/", basicField("bcrypt", fmt.Sprint(i))); a.status {
			case 401:
				refused.Add(1)
			case 503:
				busy.Add(1)
			default:
				t.Errorf("status %d", a.status)
			}
		})
		ask(t, p.HTTP, nil, "open.example", "/").want(t, 200, "")
	}
	all.Wait()
	if refused.Load() == 0 || busy.Load() == 0 {
		t.Errorf("%d were refused, %d met a full queue", refused.Load(), busy.Load())
	}
	ask(t, p.HTTP, nil, "web.example", "/", basicField("bcrypt", "secret")).want(t, 200, "")
}

// authService answers as its path says, and notes what it was asked.
type authService struct {
	mu    sync.Mutex
	asked []*http.Request
	port  int
}

func newAuthService(t testing.TB) *authService {
	s := &authService{}
	s.port = application(t, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r)
		s.mu.Unlock()
		h := w.Header()
		h.Add("Set-Cookie", "auth=1; Path=/")
		h.Add("Set-Cookie", "auth=2; Path=/")
		h.Set("Remote-User", "ann")
		h.Set("WWW-Authenticate", `Bearer realm="auth"`)
		h.Set("X-Secret", "never")
		status := 0
		fmt.Sscanf(r.Header.Get("X-Want"), "%d", &status)
		switch status {
		case 0:
			status = 200
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			time.Sleep(2 * time.Second)
			status = 200
		case 3:
			status = 200
			defer func() { _, _ = w.Write(make([]byte, 1<<20)) }()
		}
		w.WriteHeader(status)
		fmt.Fprint(w, "the service's own page")
	})
	return s
}

func (s *authService) last() *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[len(s.asked)-1]
}

func (s *authService) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func TestExternalAuthOnTheWire(t *testing.T) {
	service := newAuthService(t)
	var served atomic.Int64
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		if r.URL.Path == "/teapot" {
			w.WriteHeader(418)
		}
		told(w, r)
	})
	authURL := fmt.Sprintf("http://127.0.0.1:%d/verify?a=b", service.port)
	p := startProxy(t,
		site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"auth-url": authURL, "auth-response-headers": "Remote-User, Remote-Groups"}}.yaml()+
			site{name: "signin", host: "signin.example", ports: []int{port}, annotations: map[string]string{"auth-url": authURL, "auth-signin": "https://auth.example/?x=y", "auth-method": "POST", "auth-always-set-cookie": "true"}}.yaml()+
			site{name: "cached", host: "cached.example", ports: []int{port}, annotations: map[string]string{"auth-url": authURL, "auth-cache-key": "$http_authorization", "auth-proxy-set-headers": "fields"}}.yaml()+
			site{name: "dead", host: "dead.example", ports: []int{port}, annotations: map[string]string{"auth-url": fmt.Sprintf("http://127.0.0.1:%d/", freePort(t))}}.yaml()+
			configMap("fields", "X-Tenant", "$host", "Cookie", ""))
	c := &caller{address: p.HTTP}
	defer c.hangUp()
	call := func(text string) *answer {
		t.Helper()
		a, err := c.call(text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for _, one := range []struct {
		want, status int
		cookies      int
	}{{200, 200, 2}, {202, 200, 2}, {204, 200, 2}, {299, 200, 2}, {401, 401, 0}, {403, 403, 0}, {302, 500, 0}, {404, 500, 0}, {429, 500, 0}, {503, 500, 0}, {1, 500, 0}, {3, 200, 2}} {
		before := served.Load()
		a := call(fmt.Sprintf("POST /p?q=1 HTTP/1.1\r\nHost: web.example\r\nX-Want: %d\r\nRemote-User: root\r\nRemote-Groups: wheel\r\nX-Forwarded-Host: evil\r\nX-Original-URL: http://evil/\r\nX-Forwarded-Uri: /public\r\nX-Forwarded-Method: HEAD\r\nProxy: evil\r\nContent-Length: 4\r\n\r\nbody", one.want))
		if a.status != one.status || len(a.header.Values("Set-Cookie")) != one.cookies {
			t.Errorf("the service says %d: answer %d, cookies %q", one.want, a.status, a.header.Values("Set-Cookie"))
		}
		if asked := served.Load() > before; asked != (one.status == 200) {
			t.Errorf("the service says %d: the backend was asked: %v", one.want, asked)
		}
		if (a.header.Get("WWW-Authenticate") == `Bearer realm="auth"`) != (one.status == 401) {
			t.Errorf("the service says %d: challenge %q", one.want, a.header.Get("WWW-Authenticate"))
		}
		if a.header.Get("X-Secret") != "" || strings.Contains(a.body, "the service's own") {
			t.Errorf("the service's answer leaks: %v", a.header)
		}
		if one.status == 200 && (!strings.Contains(a.body, "Remote-User: ann\r\n") || strings.Contains(a.body, "root") || strings.Contains(a.body, "wheel")) {
			t.Errorf("the backend was told %s", a.body)
		}
	}
	r := service.last()
	for name, want := range map[string]string{"X-Original-Url": "http://web.example/p?q=1", "X-Original-Method": "POST", "X-Sent-From": "nginx-ingress-controller",
		"X-Auth-Request-Redirect": "/p?q=1", "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "X-Forwarded-Proto": "", "X-Forwarded-Host": "", "X-Forwarded-Uri": "", "X-Forwarded-Method": "", "Proxy": "", "X-Original-Uri": "", "Content-Length": ""} {
		if got := strings.Join(r.Header.Values(name), "|"); got != want {
			t.Errorf("the service got %s: %q, want %q", name, got, want)
		}
	}
	if r.Method != "GET" || r.RequestURI != "/verify?a=b" || r.Host != "127.0.0.1" || r.ContentLength != 0 || r.Header.Get("X-Request-Id") == "" {
		t.Errorf("the service got %s %s, Host %s, %d bytes", r.Method, r.RequestURI, r.Host, r.ContentLength)
	}
	a := call(request("signin.example", "/a/?b=c", "X-Want: 401"))
	if want := "https://auth.example/?x=y&rd=http://signin.example%2Fa%2F%3Fb%3Dc"; a.status != 302 || a.header.Get("Location") != want || len(a.header.Values("Set-Cookie")) != 2 {
		t.Errorf("sign in: %d %v", a.status, a.header)
	}
	if r := service.last(); r.Method != "POST" || r.Header.Get("X-Original-Uri") != "/a/?b=c" || r.Header.Get("X-Scheme") != "http" {
		t.Errorf("the service got %s %v", r.Method, r.Header)
	}
	if a = call(request("signin.example", "/teapot")); a.status != 418 || len(a.header.Values("Set-Cookie")) != 2 {
		t.Errorf("always: %d %v", a.status, a.header)
	}
	call(request("dead.example", "/")).want(t, 500, "")
	if c.dials != 1 {
		t.Errorf("%d connections", c.dials)
	}
}

// TestExternalAuthIsKept: answers are kept by the author's key, but none that sets a cookie.
func TestExternalAuthIsKept(t *testing.T) {
	var asked atomic.Int64
	service := application(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.Header.Get("Authorization") {
		case "cookie":
			w.Header().Set("Set-Cookie", "a=b")
		case "private":
			w.Header().Set("Cache-Control", "private")
		case "no":
			w.WriteHeader(401)
		case "forbidden":
			w.WriteHeader(403)
		}
		w.Header().Set("Remote-User", "u-"+r.Header.Get("Authorization"))
	})
	port := application(t, told)
	p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{
		"auth-url": fmt.Sprintf("http://127.0.0.1:%d/", service), "auth-cache-key": "$http_authorization", "auth-response-headers": "Remote-User"}}.yaml(), "--loops=1")
	for key, want := range map[string]int64{"one": 1, "two": 1, "no": 1, "forbidden": 3, "cookie": 3, "private": 3} {
		before := asked.Load()
		status := map[string]int{"no": 401, "forbidden": 403}[key]
		for range 3 {
			a := ask(t, p.HTTP, nil, "web.example", "/", "Authorization: "+key)
			if status == 0 && (a.status != 200 || key != "cookie" && !strings.Contains(a.body, "Remote-User: u-"+key)) || status != 0 && a.status != status {
				t.Errorf("%s: %d %s", key, a.status, a.body)
			}
		}
		if n := asked.Load() - before; n != want {
			t.Errorf("%s: asked %d times, want %d", key, n, want)
		}
	}
}

// TestExternalAuthClientLeaves: who leaves while the service thinks is not waited for, and nothing is left over.
func TestExternalAuthClientLeaves(t *testing.T) {
	service := newAuthService(t)
	b := newBackend(t, "web", nil)
	p := startProxy(t, site{name: "web", host: "web.example", ports: []int{b.port()}, annotations: map[string]string{
		"auth-url": fmt.Sprintf("http://127.0.0.1:%d/", service.port)}}.yaml())
	for range 5 {
		c := &caller{address: p.HTTP}
		before := service.count()
		go func() { _, _ = c.call(request("web.example", "/", "X-Want: 2")) }()
		within(t, 5*time.Second, "the service is asked", func() bool { return service.count() > before })
		_ = c.conn.(*net.TCPConn).SetLinger(0) // a bare FIN may be half of a goodbye
		c.conn.Close()
	}
	within(t, 5*time.Second, "nothing is under way", func() bool { return p.http.Idle() })
	if n := b.served.Load(); n != 0 {
		t.Errorf("the backend was asked %d times", n)
	}
	ask(t, p.HTTP, nil, "web.example", "/").want(t, 200, "web")
}

// oauth2Proxy behaves as oauth2-proxy does behind ingress-nginx, after its handlers: /oauth2/auth answers 202 with
// X-Auth-Request-* for a session, else 401; /oauth2/start leads to the provider with where to come back to; the callback
// sets the cookie and goes there.
func oauth2Proxy(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/oauth2/auth":
		if c, err := r.Cookie("_oauth2_proxy"); err != nil || c.Value != "session" {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-Auth-Request-User", "ann")
		w.Header().Set("X-Auth-Request-Email", "ann@example.com")
		w.WriteHeader(http.StatusAccepted)
	case "/oauth2/start":
		http.Redirect(w, r, "https://provider.example/authorize?state="+url.QueryEscape(r.URL.Query().Get("rd")), http.StatusFound)
	case "/oauth2/callback":
		http.SetCookie(w, &http.Cookie{Name: "_oauth2_proxy", Value: "session", Path: "/", HttpOnly: true, Secure: true})
		http.Redirect(w, r, r.URL.Query().Get("state"), http.StatusFound)
	default:
		http.NotFound(w, r)
	}
}

// TestOAuth2ProxyDocumentedConfiguration is oauth2-proxy's documented configuration for ingress-nginx: two Ingresses of one
// host, auth-url and auth-signin at $host.
func TestOAuth2ProxyDocumentedConfiguration(t *testing.T) {
	app, proxy := application(t, told), application(t, oauth2Proxy)
	p := startProxy(t, secretOf(t, "tls", issue(t, "app.example"))+
		site{name: "app", host: "app.example", ports: []int{app}, secret: "tls", annotations: map[string]string{
			"auth-url":              "https://$host/oauth2/auth",
			"auth-signin":           "https://$host/oauth2/start?rd=$escaped_request_uri",
			"auth-response-headers": "X-Auth-Request-User, X-Auth-Request-Email",
		}}.yaml()+site{name: "oauth2-proxy", host: "app.example", path: "/oauth2", ports: []int{proxy}, secret: "tls"}.yaml())
	config := trusting(t, "app.example")
	get := func(path string, fields ...string) *answer {
		return ask(t, p.HTTPS, config, "app.example", path, fields...)
	}

	a := get("/orders?id=5")
	if want := "https://app.example/oauth2/start?rd=%2Forders%3Fid%3D5"; a.status != 302 || a.header.Get("Location") != want {
		t.Fatalf("without a session: %d %v", a.status, a.header)
	}
	a = get(strings.TrimPrefix(a.header.Get("Location"), "https://app.example"))
	if want := "https://provider.example/authorize?state=%2Forders%3Fid%3D5"; a.status != 302 || a.header.Get("Location") != want {
		t.Fatalf("start: %d %v", a.status, a.header)
	}
	a = get("/oauth2/callback?state=%2Forders%3Fid%3D5")
	if a.status != 302 || a.header.Get("Location") != "/orders?id=5" {
		t.Fatalf("callback: %d %v", a.status, a.header)
	}
	cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	a = get("/orders?id=5", "Cookie: "+cookie, "X-Auth-Request-User: root")
	if a.status != 200 || !strings.Contains(a.body, "X-Auth-Request-User: ann\r\n") || !strings.Contains(a.body, "X-Auth-Request-Email: ann@example.com\r\n") || strings.Contains(a.body, "root") {
		t.Fatalf("with a session: %d %s", a.status, a.body)
	}
	get("/orders", "Cookie: _oauth2_proxy=forged").want(t, 302, "")
}

// TestOAuth2ProxyItself is the same with oauth2-proxy itself: its OIDC provider is where it sends who has no session; who
// logs in by its own form, with a password of its file, has one.
func TestOAuth2ProxyItself(t *testing.T) {
	users, port := filepath.Join(t.TempDir(), "users"), freePort(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(users, []byte("ann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(tool(t, "oauth2-proxy"), fmt.Sprintf("--http-address=127.0.0.1:%d", port), "--reverse-proxy=true", "--upstream=static://202", "--set-xauthrequest=true",
		"--provider=oidc", "--skip-oidc-discovery=true", "--oidc-issuer-url=https://provider.example", "--login-url=https://provider.example/authorize",
		"--redeem-url=https://provider.example/token", "--oidc-jwks-url=https://provider.example/keys", "--client-id=app", "--client-secret=x",
		"--cookie-secret=0123456789abcdef0123456789abcdef", "--email-domain=*", "--htpasswd-file="+users, "--trusted-proxy-ip=127.0.0.1")
	startCommand(t, command, nil)
	p := startProxy(t, secretOf(t, "tls", issue(t, "app.example"))+
		site{name: "app", host: "app.example", ports: []int{application(t, told)}, secret: "tls", annotations: map[string]string{
			"auth-url":              "https://$host/oauth2/auth",
			"auth-signin":           "https://$host/oauth2/start?rd=$escaped_request_uri",
			"auth-response-headers": "X-Auth-Request-User, X-Auth-Request-Email",
		}}.yaml()+site{name: "oauth2-proxy", host: "app.example", path: "/oauth2", ports: []int{port}, secret: "tls"}.yaml())
	c := &caller{address: p.HTTPS, tls: trusting(t, "app.example")}
	defer c.hangUp()
	call := func(text string) *answer {
		t.Helper()
		a, err := c.call(text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	within(t, 30*time.Second, "oauth2-proxy answers", func() bool { return call(request("app.example", "/oauth2/auth")).status == 401 })

	a := call(request("app.example", "/orders?id=5", "Cookie: _oauth2_proxy=forged"))
	if want := "https://app.example/oauth2/start?rd=%2Forders%3Fid%3D5"; a.status != 302 || a.header.Get("Location") != want {
		t.Fatalf("without a session: %d %v", a.status, a.header)
	}
	a = call(request("app.example", strings.TrimPrefix(a.header.Get("Location"), "https://app.example")))
	to, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.status != 302 || to.Host != "provider.example" || to.Query().Get("redirect_uri") != "https://app.example/oauth2/callback" ||
		!strings.HasSuffix(to.Query().Get("state"), ":%2Forders%3Fid%3D5") { // oauth2-proxy escapes what follows its nonce
		t.Fatalf("start: %d %v, %v", a.status, a.header, err)
	}
	form := "username=ann&password=secret&rd=%2Forders%3Fid%3D5"
	a = call(fmt.Sprintf("POST /oauth2/sign_in HTTP/1.1\r\nHost: app.example\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(form), form))
	if a.status != 302 || a.header.Get("Location") != "/orders?id=5" {
		t.Fatalf("sign in: %d %v %s", a.status, a.header, a.body)
	}
	var cookies []string
	for _, one := range a.header.Values("Set-Cookie") {
		pair, _, _ := strings.Cut(one, ";")
		cookies = append(cookies, pair)
	}
	a = call(request("app.example", "/orders?id=5", "Cookie: "+strings.Join(cookies, "; "), "X-Auth-Request-User: root"))
	if a.status != 200 || line(a.body, "X-Auth-Request-User:") != "X-Auth-Request-User: ann" || strings.Contains(a.body, "root") || !strings.HasPrefix(a.body, "GET /orders?id=5\n") {
		t.Fatalf("with a session: %d %s", a.status, a.body)
	}
}

// TestExternalAuthDoesNotAskItself: a service behind itself is an error, not a loop.
func TestExternalAuthDoesNotAskItself(t *testing.T) {
	port := application(t, told)
	p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{
		"auth-url": "http://$host/verify", "ssl-redirect": "false"}}.yaml())
	ask(t, p.HTTP, nil, "web.example", "/").want(t, 500, "")
	ask(t, p.HTTP, nil, "nobody.example", "/").want(t, 404, "")
}

// TestBackendTLSOnTheWire: a backend that wants a client certificate gets it, under the name that it is verified by; one
// that has another name or authority is not asked.
func TestBackendTLSOnTheWire(t *testing.T) {
	authority, err := testAuthority()
	if err != nil {
		t.Fatal(err)
	}
	var name atomic.Value
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name.Store(r.TLS.ServerName)
		fmt.Fprintln(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*issue(t, "web.internal").tls()}, ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	port := portOfURL(t, s.URL)
	certificate, key, err := issue(t, "proxy.internal").pem()
	if err != nil {
		t.Fatal(err)
	}
	ca, _, err := authority.pem()
	if err != nil {
		t.Fatal(err)
	}
	secret := func(name, ca string) string {
		return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: default}\nstringData:\n  tls.crt: |\n%s\n  tls.key: |\n%s\n  ca.crt: |\n%s\n",
			name, indent(certificate), indent(key), indent(ca))
	}
	with := func(name, secret, as string, verify string) string {
		return site{name: name, host: name + ".example", ports: []int{port}, annotations: map[string]string{"backend-protocol": "HTTPS",
			"proxy-ssl-secret": secret, "proxy-ssl-verify": verify, "proxy-ssl-name": as}}.yaml()
	}
	nameless := map[string]string{"proxy-ssl-secret": "good", "proxy-ssl-verify": "on"}
	plain := site{name: "plain", host: "plain.example", ports: []int{newBackend(t, "one", nil).port()}, annotations: nameless}.yaml()
	nameless = map[string]string{"backend-protocol": "HTTPS", "proxy-ssl-secret": "good", "proxy-ssl-verify": "on"}
	p := startProxy(t, secret("good", ca)+secret("other", certificate)+plain+
		site{name: "nameless", host: "nameless.example", ports: []int{port}, annotations: nameless}.yaml()+
		with("right", "good", "web.internal", "on")+with("wrong", "good", "other.internal", "on")+with("stranger", "other", "web.internal", "on")+
		with("careless", "other", "web.internal", "off")+
		site{name: "bare", host: "bare.example", ports: []int{port}, annotations: map[string]string{"backend-protocol": "HTTPS"}}.yaml())
	ask(t, p.HTTP, nil, "right.example", "/").want(t, 200, "proxy.internal")
	if name.Load() != "web.internal" {
		t.Errorf("the backend was told the name %q", name.Load())
	}
	for host, status := range map[string]int{"wrong.example": 502, "stranger.example": 502, "careless.example": 200, "bare.example": 502,
		"nameless.example": 502, "plain.example": 200} {
		if a := ask(t, p.HTTP, nil, host, "/"); a.status != status {
			t.Errorf("%s: %d, want %d", host, a.status, status)
		}
	}
}
