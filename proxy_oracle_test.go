package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// nginx is a real nginx with one server on a port of loopback, the oracle of what annotations promise. more are files by their
// names, after "http" what stands beside the server, and after "main" what stands at the beginning. The test is skipped where the program is missing; continuous
// integration installs it.
func nginx(t *testing.T, config string, more ...string) (address string) {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed: on Debian apt-get install nginx-light")
	}
	dir := t.TempDir()
	port := freePort(t)
	address = fmt.Sprintf("127.0.0.1:%d", port)
	text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
  access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen 127.0.0.1:%[2]d; server_name web.example; %[3]s }
}`, dir, port, config)
	for i := 0; i < len(more); i += 2 {
		if more[i] == "main" {
			text = more[i+1] + "\n" + text
			continue
		}
		if more[i] == "http" {
			text = strings.Replace(text, "  server {", "  "+more[i+1]+"\n  server {", 1)
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, more[i]), []byte(more[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, "@"+more[i], filepath.Join(dir, more[i]))
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-p", dir, "-c", file, "-e", filepath.Join(dir, "error.log"))
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	within(t, 20*time.Second, "nginx listens", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("nginx ends: %v\n%s", err, out)
		default:
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return address
}

// sameAnswers sends requests to both and compares statuses and some fields, and what the backend was told.
func sameAnswers(t *testing.T, ours, theirs string, fields []string, lines []string, requests ...[]string) {
	t.Helper()
	for _, r := range requests {
		a, b := ask(t, ours, nil, "web.example", r[0], r[1:]...), ask(t, theirs, nil, "web.example", r[0], r[1:]...)
		if a.status != b.status {
			t.Errorf("%q: %d, nginx %d", r, a.status, b.status)
		}
		for _, name := range fields {
			one, two := strings.Join(a.header.Values(name), "|"), strings.Join(b.header.Values(name), "|")
			one, two = strings.ReplaceAll(one, "; ", ";"), strings.ReplaceAll(two, "; ", ";") // nginx writes what it has changed anew
			if strings.ReplaceAll(one, ours, "HERE") != strings.ReplaceAll(two, theirs, "HERE") {
				t.Errorf("%q: %s is %q, nginx says %q", r, name, one, two)
			}
		}
		for _, name := range lines {
			if one, two := line(a.body, name), line(b.body, name); one != two {
				t.Errorf("%q: the backend was told %q, by nginx %q", r, one, two)
			}
		}
	}
}

// line is the first line of a body that begins with name.
func line(body, name string) string {
	for l := range strings.Lines(body) {
		if strings.HasPrefix(l, name) {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

func TestOracleBasicAuth(t *testing.T) {
	port := application(t, told)
	users := "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\napr1:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n"
	theirs := nginx(t, fmt.Sprintf(`location / { auth_basic "Keep out"; auth_basic_user_file @users; proxy_set_header Authorization ""; proxy_pass http://127.0.0.1:%d; }`, port), "users", users)
	p := startProxy(t, opaqueSecret("users", "auth", users)+site{name: "web", host: "web.example", ports: []int{port},
		annotations: map[string]string{"auth-type": "basic", "auth-secret": "users", "auth-realm": "Keep out"}}.yaml())
	sameAnswers(t, p.HTTP, theirs, []string{"WWW-Authenticate"}, []string{"Authorization"},
		[]string{"/"}, []string{"/", basicField("sha", "secret")}, []string{"/", basicField("apr1", "secret")}, []string{"/", basicField("apr1", "wrong")},
		[]string{"/", basicField("nobody", "secret")}, []string{"/", basicField("sha", "")}, []string{"/", "Authorization: Basic !!"}, []string{"/", "Authorization: bAsIc c2hhOnNlY3JldA=="},
		[]string{"/", "Authorization: Basic c2hh"}, []string{"/", "Authorization: Bearer x"})
}

func TestOracleAuthRequest(t *testing.T) {
	service := newAuthService(t)
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/404" {
			w.WriteHeader(404)
		}
		told(w, r)
	})
	theirs := nginx(t, fmt.Sprintf(`location = /_auth { internal; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_pass http://127.0.0.1:%d/verify; }
  location / { auth_request /_auth; auth_request_set $c $upstream_http_set_cookie; add_header Set-Cookie $c; auth_request_set $u $upstream_http_remote_user;
    proxy_set_header Remote-User $u; proxy_pass http://127.0.0.1:%d; }`, service.port, port))
	p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{
		"auth-url": fmt.Sprintf("http://127.0.0.1:%d/verify", service.port), "auth-response-headers": "Remote-User"}}.yaml())
	var requests [][]string
	for _, want := range []int{200, 201, 204, 301, 302, 400, 401, 403, 404, 429, 500, 502, 503, 1} {
		requests = append(requests, []string{"/", fmt.Sprintf("X-Want: %d", want), "Remote-User: root"})
	}
	requests = append(requests, []string{"/404", "X-Want: 200"})
	sameAnswers(t, p.HTTP, theirs, []string{"WWW-Authenticate"}, []string{"Remote-User"}, requests...)
}

func TestOracleSatisfyAny(t *testing.T) {
	port := application(t, told)
	users := "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"
	for list, rules := range map[string]string{"127.0.0.1": "allow 127.0.0.1; deny all;", "192.0.2.1": "allow 192.0.2.1; deny all;"} {
		theirs := nginx(t, fmt.Sprintf(`location / { satisfy any; %s auth_basic "x"; auth_basic_user_file @users; proxy_pass http://127.0.0.1:%d; }`, rules, port), "users", users)
		p := startProxy(t, opaqueSecret("users", "auth", users)+site{name: "web", host: "web.example", ports: []int{port},
			annotations: map[string]string{"auth-type": "basic", "auth-secret": "users", "auth-realm": "x", "satisfy": "any", "allowlist-source-range": list}}.yaml())
		sameAnswers(t, p.HTTP, theirs, []string{"WWW-Authenticate"}, nil, []string{"/"}, []string{"/", basicField("sha", "secret")}, []string{"/", basicField("sha", "wrong")})
	}
}

func TestOracleResponseRewrites(t *testing.T) {
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.URL.Query() {
			for _, v := range values {
				w.Header().Add(name, v)
			}
		}
	})
	theirs := nginx(t, fmt.Sprintf(`location / { proxy_redirect http://in.example/ http://out.example/app/; proxy_cookie_domain in.example out.example; proxy_cookie_path /in/ /; proxy_pass http://127.0.0.1:%d; }`, port))
	p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{
		"proxy-redirect-from": "http://in.example/", "proxy-redirect-to": "http://out.example/app/", "proxy-cookie-domain": "in.example out.example", "proxy-cookie-path": "/in/ /"}}.yaml())
	var requests [][]string
	for _, q := range []string{"Location=http://in.example/a", "Location=http://in.example", "Location=/a", "Location=https://in.example/a", "Refresh=5;%20url=http://in.example/a",
		"Refresh=5;%20URL=http://in.example/a", "Refresh=5", "Set-Cookie=a=b;%20Path=/in/x;%20Domain=in.example", "Set-Cookie=a=b;Domain=.in.example;Path=/in/", "Set-Cookie=a=b;%20DOMAIN=IN.example;%20HttpOnly",
		"Set-Cookie=a=b;%20path=/in", "Set-Cookie=a=/in/;%20path=/other&Set-Cookie=c=d;%20Path=/in/", "Set-Cookie=a=b;%20Domain=x.in.example", "Set-Cookie=path=/in/x"} {
		requests = append(requests, []string{"/?" + strings.ReplaceAll(q, ";", "%3B")})
	}
	sameAnswers(t, p.HTTP, theirs, []string{"Location", "Refresh", "Set-Cookie"}, nil, requests...)
}

// TestOracleErrorPages: nginx keeps a request's method for a named location; this proxy asks for pages by GET. All else is
// compared.
func TestOracleErrorPages(t *testing.T) {
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		var status int
		fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.WriteHeader(status)
	})
	pages := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(410)
		told(w, r)
	})
	theirs := nginx(t, fmt.Sprintf(`location / { proxy_intercept_errors on; error_page 404 = @e404; error_page 503 = @e503; proxy_pass http://127.0.0.1:%d; }
  location /closed { deny all; error_page 403 = @e403; }
  location @e404 { proxy_set_header X-Code 404; proxy_set_header X-Original-URI $request_uri; rewrite (.*) / break; proxy_pass http://127.0.0.1:%[2]d; }
  location @e503 { proxy_set_header X-Code 503; proxy_set_header X-Original-URI $request_uri; rewrite (.*) / break; proxy_pass http://127.0.0.1:%[2]d; }
  location @e403 { proxy_set_header X-Code 403; proxy_set_header X-Original-URI $request_uri; rewrite (.*) / break; proxy_pass http://127.0.0.1:%[2]d; }`, port, pages))
	service := "---\napiVersion: v1\nkind: Service\nmetadata: {name: pages, namespace: default}\nspec: {ports: [{name: main, port: 80}]}\n" + endpointsOf("pages", pages)
	p := startProxy(t, service+site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"custom-http-errors": "404,503", "default-backend": "pages"}}.yaml()+
		site{name: "closed", host: "web.example", path: "/closed", ports: []int{port}, annotations: map[string]string{"custom-http-errors": "403", "default-backend": "pages", "denylist-source-range": "127.0.0.1"}}.yaml())
	sameAnswers(t, p.HTTP, theirs, nil, []string{"GET", "X-Code", "X-Original-Uri"},
		[]string{"/404?x=y", "X-Code: 1"}, []string{"/503"}, []string{"/418"}, []string{"/200"}, []string{"/closed?a"})
}

// TestOracleCORS asks nginx, configured as ingress-nginx configures it for these origins: an expression for the origin, a
// condition for the preflight, and fields on answers of every status.
func TestOracleCORS(t *testing.T) {
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(404)
		}
		told(w, r)
	})
	rules := func(maxAge, methods, headers, expose string, credentials bool) string {
		fields := ""
		add := func(name, value string) { fields += fmt.Sprintf("add_header %s %q;\n", name, value) }
		add("Access-Control-Allow-Origin", "$http_origin")
		if credentials {
			add("Access-Control-Allow-Credentials", "true")
		}
		add("Access-Control-Allow-Methods", methods)
		add("Access-Control-Allow-Headers", headers)
		if expose != "" {
			add("Access-Control-Expose-Headers", expose)
		}
		add("Access-Control-Max-Age", maxAge)
		preflight := fields
		always := strings.ReplaceAll(fields, ";\n", " always;\n")
		return fmt.Sprintf(`location / {
    if ($http_origin ~* "^(https://a\.example|https://[A-Za-z0-9\-]+\.b\.example)$") { set $cors true; }
    if ($request_method = OPTIONS) { set $cors "${cors}options"; }
    if ($cors = "trueoptions") { %s add_header Content-Length 0; return 204; }
    if ($cors = "true") { %s }
    proxy_pass http://127.0.0.1:%d; }`, preflight, always, port)
	}
	fields := []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers",
		"Access-Control-Expose-Headers", "Access-Control-Max-Age"}
	const methods, headers = "GET, PUT, POST, DELETE, PATCH, OPTIONS", "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
	for name, c := range map[string]struct {
		nginx       string
		annotations map[string]string
	}{
		"defaults": {rules("1728000", methods, headers, "", true), nil},
		"all said": {rules("5", "GET, PROPFIND", "X-A,X-B", "X-C, X-D", false), map[string]string{"cors-allow-methods": "GET, PROPFIND", "cors-allow-headers": "X-A,X-B",
			"cors-expose-headers": "X-C, X-D", "cors-allow-credentials": "false", "cors-max-age": "5"}},
	} {
		t.Run(name, func(t *testing.T) {
			annotations := map[string]string{"enable-cors": "true", "cors-allow-origin": "https://a.example, https://*.b.example"}
			for k, v := range c.annotations {
				annotations[k] = v
			}
			theirs := nginx(t, c.nginx)
			p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: annotations}.yaml())
			for _, origin := range []string{"", "Origin: https://a.example", "Origin: HTTPS://A.EXAMPLE", "Origin: https://x.b.example", "Origin: https://x.y.b.example", "Origin: https://b.example",
				"Origin: http://a.example", "Origin: null", "Origin: https://a.example.evil"} {
				var with []string
				if origin != "" {
					with = append(with, origin)
				}
				sameAnswers(t, p.HTTP, theirs, fields, []string{"GET"}, append([]string{"/"}, with...), append([]string{"/missing"}, with...))
				sameTo(t, p.HTTP, theirs, "OPTIONS", fields, with)
			}
		})
	}
}

// sameTo sends a request of another method than GET to both.
func sameTo(t *testing.T, ours, theirs, method string, fields, with []string) {
	t.Helper()
	var both [2]*answer
	for i, address := range []string{ours, theirs} {
		c := &caller{address: address}
		a, err := c.call(strings.Replace(request("web.example", "/", with...), "GET ", method+" ", 1))
		c.hangUp()
		if err != nil {
			t.Fatal(err)
		}
		both[i] = a
	}
	if both[0].status != both[1].status {
		t.Errorf("%s %q: %d, nginx %d", method, with, both[0].status, both[1].status)
	}
	for _, name := range fields {
		if one, two := both[0].header.Values(name), both[1].header.Values(name); strings.Join(one, "|") != strings.Join(two, "|") {
			t.Errorf("%s %q: %s is %q, nginx says %q", method, with, name, one, two)
		}
	}
}

// TestOracleRewrite sends paths through a rewrite with captures, in any case, as ingress-nginx writes it.
func TestOracleRewrite(t *testing.T) {
	port := application(t, told)
	for _, c := range []struct{ path, target string }{{"/app(/|$)(.*)", "/$2"}, {"/a/([^/]+)/b", "/x/$1"}, {"/old", "/new"}} {
		theirs := nginx(t, fmt.Sprintf(`location ~* "^%[1]s" { rewrite "(?i)%[1]s" %[2]s break; proxy_pass http://127.0.0.1:%[3]d; } location / { return 404; }`, c.path, c.target, port))
		p := startProxy(t, typed(site{name: "web", host: "web.example", path: c.path, ports: []int{port}, annotations: map[string]string{"rewrite-target": c.target}}, "ImplementationSpecific"))
		sameAnswers(t, p.HTTP, theirs, nil, []string{"GET"}, []string{"/app"}, []string{"/app/"}, []string{"/app/x/y?q=1"}, []string{"/APP/X"}, []string{"/apple"}, []string{"/x/app/y"},
			[]string{"/a/one/b"}, []string{"/a/one/b/c?z=1"}, []string{"/a//b"}, []string{"/old"}, []string{"/older/x?y"}, []string{"/OLD"})
	}
}

// TestOracleSourceRanges: who is denied, who is let in, and in which order the lists are asked.
func TestOracleSourceRanges(t *testing.T) {
	port := application(t, told)
	for _, c := range []struct{ allow, deny string }{{"127.0.0.0/8", ""}, {"10.0.0.0/8", ""}, {"", "127.0.0.1"}, {"", "10.0.0.1"}, {"127.0.0.1", "127.0.0.0/8"}, {"10.1.1.1,127.0.0.1/32", "192.0.2.0/24"}} {
		rules, annotations := "", map[string]string{}
		for _, d := range strings.Split(c.deny, ",") {
			if d != "" {
				rules += "deny " + d + "; "
				annotations["denylist-source-range"] = c.deny
			}
		}
		for _, a := range strings.Split(c.allow, ",") {
			if a != "" {
				rules += "allow " + a + "; "
				annotations["whitelist-source-range"] = c.allow
			}
		}
		if c.allow != "" {
			rules += "deny all;"
		}
		theirs := nginx(t, fmt.Sprintf(`location / { %s proxy_pass http://127.0.0.1:%d; }`, rules, port))
		p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: annotations}.yaml())
		sameAnswers(t, p.HTTP, theirs, nil, []string{"GET"}, []string{"/"}, []string{"/x", "X-Forwarded-For: 192.0.2.1"})
	}
}

// TestOracleRedirects: to fixed places with their codes, from the root to an application, to a path's slash, and what goes on.
func TestOracleRedirects(t *testing.T) {
	port := application(t, told)
	for name, c := range map[string]struct {
		nginx       string
		path        string
		annotations map[string]string
	}{
		"permanent":    {"location / { return 301 https://new.example/x?y=z; }", "", map[string]string{"permanent-redirect": "https://new.example/x?y=z"}},
		"its code":     {"location / { return 308 https://new.example; }", "", map[string]string{"permanent-redirect": "https://new.example", "permanent-redirect-code": "308"}},
		"temporal":     {"location / { return 302 https://new.example/a/; }", "", map[string]string{"temporal-redirect": "https://new.example/a/"}},
		"to a path":    {"location / { return 301 /new; }", "", map[string]string{"permanent-redirect": "/new"}},
		"relative":     {"absolute_redirect off; location / { return 301 /new; }", "", map[string]string{"permanent-redirect": "/new", "relative-redirects": "true"}},
		"app-root":     {"if ($uri = /) { return 302 $scheme://$http_host/app; } location / { proxy_pass http://BACKEND; }", "", map[string]string{"app-root": "/app"}},
		"a slash":      {"location /foo/ { proxy_pass http://BACKEND; } location / { return 404; }", "/foo/", nil},
		"a slash only": {"absolute_redirect off; location /foo/ { proxy_pass http://BACKEND; } location / { return 404; }", "/foo/", map[string]string{"relative-redirects": "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			theirs := nginx(t, "port_in_redirect off; "+strings.ReplaceAll(c.nginx, "BACKEND", fmt.Sprint("127.0.0.1:", port)))
			p := startProxy(t, site{name: "web", host: "web.example", path: c.path, ports: []int{port}, annotations: c.annotations}.yaml())
			sameAnswers(t, p.HTTP, theirs, []string{"Location"}, []string{"GET"}, []string{"/"}, []string{"/?a=b"}, []string{"/x/y?z"}, []string{"/foo"}, []string{"/foo?a=b"}, []string{"/foo/bar"}, []string{"/app"})
			for _, method := range []string{"POST", "PUT", "DELETE"} {
				sameTo(t, p.HTTP, theirs, method, []string{"Location"}, nil)
			}
		})
	}
}

// TestOracleLimits: how many requests pass at once, and that those who are let in by their address are not counted. A minute's
// rate, so that nothing leaks while the requests are made.
func TestOracleLimits(t *testing.T) {
	port := application(t, told)
	for name, c := range map[string]struct {
		rate, location string
		annotations    map[string]string
	}{
		"limit-rpm":              {"1r/m", "limit_req zone=z burst=5 nodelay;", map[string]string{"limit-rpm": "1"}},
		"limit-burst-multiplier": {"2r/m", "limit_req zone=z burst=6 nodelay;", map[string]string{"limit-rpm": "2", "limit-burst-multiplier": "3"}},
		"limit-whitelist":        {"1r/m", "", map[string]string{"limit-rpm": "1", "limit-whitelist": "127.0.0.0/8"}},
	} {
		t.Run(name, func(t *testing.T) {
			theirs := nginx(t, fmt.Sprintf("location / { %s proxy_pass http://127.0.0.1:%d; }", c.location, port), "http", "limit_req_zone $binary_remote_addr zone=z:1m rate="+c.rate+";")
			p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: c.annotations}.yaml())
			sameAnswers(t, p.HTTP, theirs, nil, []string{"GET"}, slices.Repeat([][]string{{"/"}}, 12)...)
		})
	}
}

// TestOracleBodySize: which bodies are answered 413, whatever frames them.
func TestOracleBodySize(t *testing.T) {
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d bytes\n", n)
	})
	for limit, sizes := range map[string][]int{"1k": {0, 1, 1023, 1024, 1025, 5000, 100_000}, "0": {0, 3 << 20}} {
		theirs := nginx(t, fmt.Sprintf("client_max_body_size %s; location / { proxy_pass http://127.0.0.1:%d; }", limit, port))
		p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"proxy-body-size": limit}}.yaml())
		for _, size := range sizes {
			for _, chunked := range []bool{false, true} {
				var both [2]string
				for i, address := range []string{p.HTTP, theirs} {
					c := &caller{address: address}
					a, err := c.call(postOf("web.example", "/", make([]byte, size), chunked))
					c.hangUp()
					if err != nil {
						t.Fatalf("limit %s, %d bytes, %s: %v", limit, size, address, err)
					}
					both[i] = fmt.Sprint(a.status, " ", line(a.body, fmt.Sprint(size)))
				}
				if both[0] != both[1] {
					t.Errorf("limit %s, %d bytes, chunked %v: %q, nginx %q", limit, size, chunked, both[0], both[1])
				}
			}
		}
	}
}

// TestOracleBackendRequest: what a backend is told of the client and of the request, and what a client is told besides.
func TestOracleBackendRequest(t *testing.T) {
	port := application(t, told)
	const forwarded = `proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Scheme $scheme; proxy_set_header X-Scheme $scheme;
    proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for; proxy_set_header Proxy "";`
	for name, c := range map[string]struct {
		nginx       string
		annotations map[string]string
	}{
		"as it is":       {"proxy_set_header Host $http_host;", nil},
		"upstream-vhost": {"proxy_set_header Host in.example;", map[string]string{"upstream-vhost": "in.example"}},
		"custom-headers": {"proxy_set_header Host $http_host; add_header X-Team blue always;", map[string]string{"custom-headers": "default/fields"}},
	} {
		t.Run(name, func(t *testing.T) {
			theirs := nginx(t, fmt.Sprintf("location / { %s %s proxy_pass http://127.0.0.1:%d; }", forwarded, c.nginx, port))
			p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: c.annotations}.yaml()+
				configMap("fields", "X-Team", "blue")+configMapOf("global-allowed-response-headers", "X-Team"), configMapFlag)
			sameAnswers(t, p.HTTP, theirs, []string{"X-Team"}, []string{"GET", "host:", "X-Real-Ip:", "X-Forwarded-For:", "X-Forwarded-Host:", "X-Forwarded-Proto:", "X-Forwarded-Scheme:", "X-Scheme:",
				"X-Original-Forwarded-For:", "Proxy:", "X-Own:", "Accept:"},
				[]string{"/"}, []string{"/a%20b?c=%2f&d", "X-Own: 1", "Accept: a, b"}, []string{"/", "X-Forwarded-For: 192.0.2.1", "Proxy: http://evil.example"}, []string{"/", "X-Real-IP: 192.0.2.1", "X-Forwarded-Proto: https"})
		})
	}
}

// TestOracleNextUpstream: for GETs, which failures of an endpoint have the next one asked, and what is answered when none is left.
func TestOracleNextUpstream(t *testing.T) {
	failing := application(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	good, dead := application(t, told), freePort(t)
	for name, c := range map[string]struct {
		ports       []int
		nginx       string
		annotations map[string]string
	}{
		"one is dead":       {[]int{good, dead}, "error timeout", nil},
		"all are dead":      {[]int{dead}, "error timeout", nil},
		"http_503":          {[]int{good, failing}, "error timeout http_503", map[string]string{"proxy-next-upstream": "error timeout http_503"}},
		"http_503 not said": {[]int{failing}, "error timeout", nil},
		"off":               {[]int{dead}, "off", map[string]string{"proxy-next-upstream": "off"}},
	} {
		t.Run(name, func(t *testing.T) {
			servers := ""
			for _, p := range c.ports {
				servers += fmt.Sprintf("server 127.0.0.1:%d max_fails=0; ", p)
			}
			theirs := nginx(t, "location / { proxy_next_upstream "+c.nginx+"; proxy_pass http://backends; }", "http", "upstream backends { "+servers+"}")
			p := startProxy(t, site{name: "web", host: "web.example", ports: c.ports, annotations: c.annotations}.yaml())
			sameAnswers(t, p.HTTP, theirs, nil, []string{"GET"}, slices.Repeat([][]string{{"/"}}, 6)...)
		})
	}
}
