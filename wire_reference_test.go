package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The tests of this file put the rows of docs/hardening.md 3.2 to the proxies that one would otherwise use, by the same
// bytes and the same judge. An expectation that neither meets has to be argued: nobody shall be held to what nobody can do.

// reference is another proxy before the recorder, configured as strictly as it can be.
type reference struct {
	name    string
	address string
}

const nginxReference = `daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/log crit;
events { worker_connections 1000; }
http {
  access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  client_header_buffer_size 8k; large_client_header_buffers 4 8k; merge_slashes on; client_max_body_size 1m;
  upstream b { server 127.0.0.1:%[3]d; keepalive 8; }
  server { listen 127.0.0.1:%[2]d default_server; location / { return 404; } }
  server { listen 127.0.0.1:%[2]d; server_name wire.example;
    location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_request_buffering off;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Real-IP $remote_addr; } }
}
`

const haproxyReference = `global
  expose-experimental-directives
  maxconn 1000
  tune.http.maxhdr 101
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend f
  bind 127.0.0.1:%[2]d
  http-request normalize-uri path-strip-dotdot full
  acl ours req.hdr(host),field(1,:),regsub(\.$,) -i wire.example
  http-request deny deny_status 404 unless ours
  http-request set-header X-Forwarded-For %%[src]
  default_backend b
backend b
  server one 127.0.0.1:%[3]d
`

// startReference runs a reference; the test skips when the program is not there.
func startReference(t *testing.T, name, configuration string, backend int, args func(file, dir string) []string) *reference {
	t.Helper()
	path, err := lookPeer(name)
	if err != nil {
		t.Skipf("%s is not installed: %v", name, err)
	}
	dir, port := t.TempDir(), freePort(t)
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, dir, port, backend), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	c := exec.Command(path, args(file, dir)...)
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = c.Wait(); close(done) }()
	t.Cleanup(func() { _ = c.Process.Kill(); <-done })
	r := &reference{name: name, address: fmt.Sprint("127.0.0.1:", port)}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", r.address); err == nil {
			_ = conn.Close()
			return r
		}
		select {
		case <-done:
			t.Fatalf("%s has ended:\n%s", name, log.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen", name)
		}
	}
}

// lookPeer finds a program, also where the distribution keeps those of administrators.
func lookPeer(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

// meets tells why a reference does not do with an input what the row asks for; "": it does.
func (r *reference) meets(c wireCase, backend *recorder) string {
	backend.take()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	_, _ = io.WriteString(conn, c.send)
	br := bufio.NewReader(conn)
	status, closes := referenceAnswer(br)
	if status != c.status {
		return "answers " + status
	}
	if !c.keep && !closes {
		_, _ = io.WriteString(conn, "GET /after HTTP/1.1\r\nHost: nobody.example\r\n\r\n")
		if s, _ := referenceAnswer(br); s != "" {
			return "goes on with the connection: " + s
		}
	}
	got := backend.take()
	switch {
	case c.back == "" && len(got) > 0:
		return fmt.Sprintf("forwards %.60q", got[0])
	case c.back == "":
		return ""
	case len(got) != 1:
		return fmt.Sprintf("forwards %d requests", len(got))
	}
	return sameRequest(got[0], c.back)
}

// referenceAnswer is readAnswer for programs that may answer anything.
func referenceAnswer(br *bufio.Reader) (status string, closes bool) {
	for {
		line, err := br.ReadString('\n')
		f := strings.Fields(line)
		if err != nil || len(f) < 2 {
			return "", true
		}
		length := 0
		closes := f[0] != "HTTP/1.1"
		for h := ""; h != "\r\n"; {
			if h, err = br.ReadString('\n'); err != nil {
				return "", true
			}
			low := strings.ToLower(h)
			if v, ok := strings.CutPrefix(low, "content-length:"); ok {
				_, _ = fmt.Sscan(v, &length)
			}
			closes = closes || strings.HasPrefix(low, "connection: close")
		}
		_, _ = io.CopyN(io.Discard, br, int64(length))
		if !strings.HasPrefix(f[1], "1") {
			return f[1], closes
		}
	}
}

// sameRequest compares what matters in what a backend got: request line, fields of the client's, body. Each proxy adds
// fields of its own, which are left out.
func sameRequest(got, want string) string {
	line := func(s string) string { l, _, _ := strings.Cut(s, "\r\n"); return l }
	body := func(s string) string { _, b, _ := strings.Cut(s, "\r\n\r\n"); return b }
	fields := func(s string) (fs []string) {
		head, _, _ := strings.Cut(strings.ReplaceAll(s, "$X", ""), "\r\n\r\n")
		for _, f := range strings.Split(head, "\r\n")[1:] {
			name, value, _ := strings.Cut(strings.ToLower(f), ":")
			switch name {
			case "host", "x-request-id", "x-forwarded-for", "x-real-ip", "connection", "x-original-forwarded-for":
			default:
				fs = append(fs, name+":"+strings.TrimSpace(value))
			}
		}
		slices.Sort(fs)
		return fs
	}
	switch {
	case line(got) != line(want):
		return fmt.Sprintf("forwards the line %q", line(got))
	case body(got) != body(want):
		return fmt.Sprintf("forwards the body %q", body(got))
	case !slices.Equal(fields(got), fields(want)):
		return fmt.Sprintf("forwards the fields %q", fields(got))
	}
	return ""
}

// TestWireReferences: each expectation of the table is met by nginx or HAProxy, or argued below. An argument for what a
// reference meets by now is told of: it may be taken out.
func TestWireReferences(t *testing.T) {
	backend := newRecorder(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	nginx := startReference(t, "nginx", nginxReference, backend.port(), func(file, dir string) []string { return []string{"-c", file, "-p", dir, "-e", dir + "/log"} })
	haproxy := startReference(t, "haproxy", haproxyReference, backend.port(), func(file, _ string) []string { return []string{"-db", "-f", file} })
	table := wireTable()
	used := map[string]bool{}
	met := map[string]int{}
	for row, cases := range table {
		for _, c := range cases {
			n, h := nginx.meets(c, backend), haproxy.meets(c, backend)
			if n != "" && h != "" && argued[row] == "" && argued[row+"/"+c.name] == "" { // a forwarded request of the row before may have come late
				time.Sleep(time.Second)
				n, h = nginx.meets(c, backend), haproxy.meets(c, backend)
			}
			if n == "" {
				met["nginx"]++
			}
			if h == "" {
				met["haproxy"]++
			}
			met["all"]++
			why, name := argued[row+"/"+c.name], row+"/"+c.name
			if why == "" {
				why, name = argued[row], row
			}
			used[name] = used[name] || why != "" && n != "" && h != ""
			t.Logf("%s/%s: nginx %q, HAProxy %q", row, c.name, n, h)
			if n != "" && h != "" && why == "" {
				t.Errorf("%s/%s: neither nginx (%s) nor HAProxy (%s) meets it, and it is not argued", row, c.name, n, h)
			}
		}
	}
	for name := range argued {
		if !used[name] {
			t.Logf("%s is argued, but a reference meets it", name)
		}
	}
	t.Logf("nginx meets %d, HAProxy %d of %d", met["nginx"], met["haproxy"], met["all"])
}

// argued says why Sluice does what neither nginx 1.22 nor HAProxy 2.6 does, by row, or by row and case.
var argued = map[string]string{
	"control characters in values":   "RFC 9110 5.5 allows only HTAB of them; what follows one in a log or a terminal is not what was sent",
	"request line/three empty lines": "RFC 9112 2.2 asks for at least one to be skipped; without an end to it a client never has to begin",
	"request line/two blanks":        "RFC 9112 3: one SP; whoever splits at the first or at the last blank sees another target",
	"target/backslash":               "no URI holds one (RFC 3986); some backends take it for a slash, and are led past a path's rule",
	"target/odd bytes in the path":   "RFC 3986 allows them percent-encoded only; the resource is the same, and no backend has to guess",
	"target form/ftp":                "RFC 9112 3.2.2: what we cannot be the origin of is not ours to route",
	"target form/CONNECT":            "405 is RFC 9110's word for a method that is known and not allowed; both refuse or route it by its host",
	"Host/port":                      "no port is above 65535: RFC 3986 3.2.3 names digits, TCP 16 bits; a backend that wraps it sees another one",
	"Host/port letters":              "RFC 9110 7.2 asks for 400 to an invalid Host",
	"Host/userinfo":                  "RFC 9110 7.2 asks for 400 to an invalid Host; they take it for a name without a route",
	"chunk-size/bare LF":             "CVE-2025-22871's class: a parser that wants CRLF sees other chunks. Newer versions of both refuse",
	"chunk-size/trailing blank":      "RFC 9112 7.1 has none; parsers that stop at a blank and those that trim it differ",
	"bare LF":                        "RFC 9112 2.2 lets a recipient take it; two that differ in it see two requests",
	"hop-by-hop/removed":             "RFC 9110 7.6.1: what Connection names MUST be removed; measured in docs/hardening.md 2",
	"Expect/other":                   "RFC 9110 10.1.1 allows 417; to forward it is to promise what only the backend could keep",
	"path/overlong":                  "a backend that decodes overlong UTF-8 sees a slash where the rule saw none",
	"path/dot segments":              "they route by the resolved path and forward the other: a backend that does not resolve serves what no rule allowed",
	"path/encoded dots":              "as for dot segments",
	"chunk-ext/control":              "RFC 9112 7.1.1 allows tokens and quoted strings only",
	"chunk-ext/too long":             "RFC 9112 7.1.1 asks for a limit",
	"websocket/POST":                 "RFC 6455 4.1: GET. A tunnel that no WebSocket is behind is request smuggling",
	"websocket/version":              "RFC 6455 4.4: 426 with the version that is spoken; here before a backend is asked",
	"trailers":                       "RFC 9110 6.5.1: forwarded only where asked for, and never what frames, routes or authenticates. nginx drops all, HAProxy none",
	"X-Forwarded-*/replaced":         "both do what their configuration says field by field; here all are replaced by default, so that none is forgotten",
	"limits/one line":                "RFC 6585: 431 tells what was too large; they say 400",
	"limits/block":                   "as for one line",
	"limits/fields":                  "as for one line; nginx 1.22 has no such limit (1.29.4 has max_headers)",
	"Transfer-Encoding other than one chunked/trailing comma": "an empty list element is malformed (RFC 9112 6.1), not unknown: 400, not nginx's 501",
}
