package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file send raw bytes through a whole proxy to a backend that records what it gets: each row of the
// HTTP/1.1 table of docs/hardening.md 3.2, its answer, and what the backend received, byte for byte.

// recorder is a backend that keeps the raw bytes of every request.
type recorder struct {
	ln       net.Listener
	response string // what it answers

	mu   sync.Mutex
	got  []string
	seen chan struct{}
}

func newRecorder(t *testing.T, response string) *recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{ln: ln, response: response, seen: make(chan struct{}, 1000)}
	go r.serve()
	t.Cleanup(func() { _ = ln.Close() })
	return r
}

func (r *recorder) port() int { return r.ln.Addr().(*net.TCPAddr).Port }

func (r *recorder) serve() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		go r.lead(c)
	}
}

// lead records requests. It frames them in the plainest way: it is the judge of what the proxy sends, not a victim.
func (r *recorder) lead(c net.Conn) {
	defer c.Close()
	br := bufio.NewReader(c)
	for {
		raw, err := rawRequest(br)
		if raw != "" {
			r.mu.Lock()
			r.got = append(r.got, raw)
			r.mu.Unlock()
			r.seen <- struct{}{}
		}
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, r.response); err != nil || strings.Contains(r.response, "Connection: close") {
			return
		}
	}
}

// rawRequest reads one request as it stands on the wire. What it had read is returned also when it was cut.
func rawRequest(br *bufio.Reader) (string, error) {
	var raw strings.Builder
	length, chunked := 0, false
	for {
		line, err := br.ReadString('\n')
		raw.WriteString(line)
		if err != nil {
			return raw.String(), err
		}
		lower := strings.ToLower(strings.TrimSpace(line))
		if v, ok := strings.CutPrefix(lower, "content-length:"); ok {
			_, _ = fmt.Sscan(v, &length)
		}
		chunked = chunked || lower == "transfer-encoding: chunked"
		if lower == "" {
			break
		}
	}
	if !chunked {
		body := make([]byte, length)
		n, err := io.ReadFull(br, body)
		raw.Write(body[:n])
		return raw.String(), err
	}
	for {
		line, err := br.ReadString('\n')
		raw.WriteString(line)
		if err != nil {
			return raw.String(), err
		}
		size := 0
		_, _ = fmt.Sscanf(line, "%x", &size)
		data := make([]byte, size+2)
		if size == 0 {
			for line != "\r\n" {
				if line, err = br.ReadString('\n'); err != nil {
					return raw.String(), err
				}
				raw.WriteString(line)
			}
			return raw.String(), nil
		}
		n, err := io.ReadFull(br, data)
		raw.Write(data[:n])
		if err != nil {
			return raw.String(), err
		}
	}
}

// take returns what was recorded since the last take.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

const wireManifests = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: wire, namespace: default}
spec:
  ingressClassName: nginx
  rules:
  - host: wire.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: wire, port: {number: 80}}}}]}
  - host: private.example
    http:
      paths:
      - {path: /private, pathType: Prefix, backend: {service: {name: wire, port: {number: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {name: wire, namespace: default}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: wire-1, namespace: default, labels: {kubernetes.io/service-name: wire}}
addressType: IPv4
endpoints: [{addresses: ["127.0.0.1"]}]
ports: [{port: %d}]
`

// wireCase is one input and what has to become of it.
type wireCase struct {
	name   string
	send   string // the request's bytes
	status string // "" : the connection is closed without an answer
	keep   bool   // the connection lives on
	back   string // what the backend received; "": nothing. $X stands for the fields that the proxy adds
}

const host = "Host: wire.example\r\nX-Request-ID: t\r\n"

// get is the usual request with more fields.
func get(fields string) string { return "GET / HTTP/1.1\r\n" + host + fields + "\r\n" }

// got is what the backend receives for a request line and fields.
func got(line, fields, rest string) string {
	return line + "\r\nHost: wire.example\r\n" + fields + "$X" + rest
}

func post(fields, body string) string { return "POST / HTTP/1.1\r\n" + host + fields + "\r\n" + body }

// refused are inputs that nothing of may reach a backend, and that end the connection.
func refused(status string, named map[string]string) (cs []wireCase) {
	for name, send := range named {
		cs = append(cs, wireCase{name: name, send: send, status: status})
	}
	return cs
}

// passed are inputs that are forwarded as given.
func passed(named map[string][2]string) (cs []wireCase) {
	for name, v := range named {
		cs = append(cs, wireCase{name: name, send: v[0], status: "200", keep: true, back: v[1]})
	}
	return cs
}

const chunkedHead = "Transfer-Encoding: chunked\r\n"

// wireTable is docs/hardening.md 3.2, row by row.
func wireTable() map[string][]wireCase {
	long := strings.Repeat("a", 9000)
	return map[string][]wireCase{
		"Content-Length and Transfer-Encoding": refused("400", map[string]string{
			"cl-te": post("Content-Length: 5\r\n"+chunkedHead, "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: wire.example\r\n\r\n"),
			"te-cl": post(chunkedHead+"Content-Length: 5\r\n", "0\r\n\r\n"),
		}),
		"Transfer-Encoding other than one chunked": append(refused("400", map[string]string{
			"two lines":       post(chunkedHead+chunkedHead, "0\r\n\r\n"),
			"chunked,chunked": post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"),
			"empty":           post("Transfer-Encoding:\r\n", "0\r\n\r\n"),
			"trailing comma":  post("Transfer-Encoding: chunked,\r\n", "0\r\n\r\n"),
			"parameter":       post("Transfer-Encoding: chunked;a=b\r\n", "0\r\n\r\n"),
		}), refused("501", map[string]string{
			"gzip, chunked": post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
		})...),
		"Transfer-Encoding in HTTP/1.0": refused("400", map[string]string{
			"1.0": "POST / HTTP/1.0\r\n" + host + chunkedHead + "\r\n0\r\n\r\n",
		}),
		"Content-Length": refused("400", map[string]string{
			"sign": post("Content-Length: +5\r\n", "hello"), "empty": post("Content-Length:\r\n", ""),
			"hex": post("Content-Length: 0x5\r\n", "hello"), "2^64": post("Content-Length: 18446744073709551616\r\n", ""),
			"2^63": post("Content-Length: 9223372036854775808\r\n", ""), "two": post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
			"two equal": post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), "list": post("Content-Length: 5, 5\r\n", "hello"),
		}),
		"chunk-size": refused("400", map[string]string{
			"sign": post(chunkedHead, "+5\r\nhello\r\n0\r\n\r\n"), "0x": post(chunkedHead, "0x5\r\nhello\r\n0\r\n\r\n"),
			"underscore": post(chunkedHead, "1_0\r\nhello\r\n0\r\n\r\n"), "leading blank": post(chunkedHead, " 5\r\nhello\r\n0\r\n\r\n"),
			"trailing blank": post(chunkedHead, "5 \r\nhello\r\n0\r\n\r\n"), "overflow": post(chunkedHead, "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n"),
			"63 bits": post(chunkedHead, "8000000000000000\r\nhello\r\n0\r\n\r\n"), "bare LF": post(chunkedHead, "5\nhello\r\n0\r\n\r\n"),
			"bare CR": post(chunkedHead, "5\rhello\r\n0\r\n\r\n"), "CRCR": post(chunkedHead, "5\r\r\nhello\r\n0\r\n\r\n"),
			"no CRLF after data": post(chunkedHead, "5\r\nhelloXX0\r\n\r\n"), "empty": post(chunkedHead, "\r\nhello\r\n0\r\n\r\n"),
		}),
		"chunk-ext": append(passed(map[string][2]string{
			"dropped": {post(chunkedHead, "5;a=b;c\r\nhello\r\n0;x\r\n\r\n"), got("POST / HTTP/1.1", "", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
		}), refused("400", map[string]string{
			"control":  post(chunkedHead, "5;a=\x01\r\nhello\r\n0\r\n\r\n"),
			"too long": post(chunkedHead, "5;"+strings.Repeat("a", 300)+"\r\nhello\r\n0\r\n\r\n"),
		})...),
		"trailers": append(passed(map[string][2]string{
			"dropped without TE": {post(chunkedHead, "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"), got("POST / HTTP/1.1", "", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
			"forwarded with TE, forbidden ones dropped": {post("TE: trailers\r\nConnection: TE\r\n"+chunkedHead, "5\r\nhello\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\nHost: evil\r\nAuthorization: x\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"),
				got("POST / HTTP/1.1", "", "Transfer-Encoding: chunked\r\nConnection: TE\r\nTE: trailers\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")},
		}), refused("400", map[string]string{
			"malformed": post(chunkedHead, "5\r\nhello\r\n0\r\nX-T : 1\r\n\r\n"),
		})...),
		"bare LF": refused("400", map[string]string{
			"whole head": "GET / HTTP/1.1\nHost: wire.example\n\n", "one line": "GET / HTTP/1.1\r\nHost: wire.example\nA: b\r\n\r\n",
			"last": "GET / HTTP/1.1\r\nHost: wire.example\r\n\n",
		}),
		"bare CR and NUL": refused("400", map[string]string{
			"CR in value": get("A: b\rc\r\n"), "CR in name": get("A\rb: c\r\n"), "NUL in value": get("A: b\x00c\r\n"),
			"NUL in target": "GET /\x00 HTTP/1.1\r\n" + host + "\r\n", "NUL in name": get("A\x00: b\r\n"),
		}),
		"control characters in values": append(refused("400", map[string]string{
			"0x01": get("A: b\x01\r\n"), "0x1f": get("A: b\x1f\r\n"), "0x7f": get("A: b\x7f\r\n"),
		}), passed(map[string][2]string{"HTAB": {get("A: b\tc\r\n"), got("GET / HTTP/1.1", "A: b\tc\r\n", "\r\n")}})...),
		"obs-fold": refused("400", map[string]string{
			"fold": get("A: b\r\n c\r\n"), "first line": "GET / HTTP/1.1\r\n Host: wire.example\r\n\r\n", "tab": get("A: b\r\n\tc\r\n"),
		}),
		"field names": refused("400", map[string]string{
			"blank before colon": get("A : b\r\n"), "no colon": get("AAA\r\n"), "empty name": get(": b\r\n"), "parentheses": get("X(A): b\r\n"),
			"blank in name": get("X A: b\r\n"), "non-ASCII": get("X\xc3\xa4: b\r\n"),
		}),
		"odd names":  passed(map[string][2]string{"dropped": {get("A.B: c\r\nX!Forwarded!For: 1.2.3.4\r\nD: e\r\n"), got("GET / HTTP/1.1", "D: e\r\n", "\r\n")}}),
		"underscore": passed(map[string][2]string{"dropped": {get("A_B: c\r\nX_Forwarded_For: 1.2.3.4\r\nD: e\r\n"), got("GET / HTTP/1.1", "D: e\r\n", "\r\n")}}),
		"request line": append(append(refused("400", map[string]string{
			"two blanks": "GET  / HTTP/1.1\r\n" + host + "\r\n", "trailing blank": "GET / HTTP/1.1 \r\n" + host + "\r\n", "0.9": "GET /\r\n\r\n",
			"HTTP/0.9": "GET / HTTP/0.9\r\n" + host + "\r\n", "lower case": "GET / http/1.1\r\n" + host + "\r\n", "three empty lines": "\r\n\r\n\r\n" + get(""),
			"bad method": "G(T / HTTP/1.1\r\n" + host + "\r\n", "tab": "GET\t/ HTTP/1.1\r\n" + host + "\r\n", "HTTP/1.10": "GET / HTTP/1.10\r\n" + host + "\r\n",
		}), refused("505", map[string]string{
			"HTTP/2.0": "GET / HTTP/2.0\r\n" + host + "\r\n", "HTTP/3.0": "GET / HTTP/3.0\r\n" + host + "\r\n",
		})...), passed(map[string][2]string{
			"one empty line":  {"\r\n" + get(""), got("GET / HTTP/1.1", "", "\r\n")},
			"two empty lines": {"\r\n\r\n" + get(""), got("GET / HTTP/1.1", "", "\r\n")},
		})...),
		"target": append(refused("400", map[string]string{
			"control": "GET /\x01 HTTP/1.1\r\n" + host + "\r\n", "fragment": "GET /a#b HTTP/1.1\r\n" + host + "\r\n", "0x7f": "GET /\x7f HTTP/1.1\r\n" + host + "\r\n",
			"blank": "GET /a b HTTP/1.1\r\n" + host + "\r\n", "backslash": "GET /a\\b HTTP/1.1\r\n" + host + "\r\n",
		}), passed(map[string][2]string{
			"odd bytes in the query": {"GET /?a=\"<>^`{|}\\\x80 HTTP/1.1\r\n" + host + "\r\n", got("GET /?a=\"<>^`{|}\\\x80 HTTP/1.1", "", "\r\n")},
			"odd bytes in the path":  {"GET /{a} HTTP/1.1\r\n" + host + "\r\n", got("GET /%7Ba%7D HTTP/1.1", "", "\r\n")},
			"semicolon in the query": {"GET /a?x=%2F&y=1%262;z HTTP/1.1\r\n" + host + "\r\n", got("GET /a?x=%2F&y=1%262;z HTTP/1.1", "", "\r\n")},
		})...),
		"target form": append(append(refused("400", map[string]string{
			"GET *": "GET * HTTP/1.1\r\n" + host + "\r\n", "no slash": "GET a HTTP/1.1\r\n" + host + "\r\n", "userinfo": "GET http://u@wire.example/ HTTP/1.1\r\n" + host + "\r\n",
			"ftp": "GET ftp://wire.example/ HTTP/1.1\r\n" + host + "\r\n", "CONNECT malformed": "CONNECT / HTTP/1.1\r\n" + host + "\r\n",
		}), refused("405", map[string]string{
			"CONNECT": "CONNECT wire.example:443 HTTP/1.1\r\n" + host + "\r\n",
		})...), passed(map[string][2]string{
			"OPTIONS *":                    {"OPTIONS * HTTP/1.1\r\n" + host + "\r\n", got("OPTIONS * HTTP/1.1", "", "\r\n")},
			"absolute form, its host wins": {"GET http://wire.example/a HTTP/1.1\r\nHost: other.example\r\nX-Request-ID: t\r\n\r\n", got("GET /a HTTP/1.1", "", "\r\n")},
		})...),
		"Host": append(refused("400", map[string]string{
			"none": "GET / HTTP/1.1\r\n\r\n", "two": get("Host: wire.example\r\n"), "list": "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "port": "GET / HTTP/1.1\r\nHost: wire.example:65536\r\n\r\n",
			"port letters": "GET / HTTP/1.1\r\nHost: wire.example:abc\r\n\r\n", "userinfo": "GET / HTTP/1.1\r\nHost: u@wire.example\r\n\r\n", "slash": "GET / HTTP/1.1\r\nHost: wire.example/\r\n\r\n",
		}), wireCase{name: "without route", send: "GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n", status: "404", keep: true},
			wireCase{name: "trailing dot, upper case, port", send: "GET / HTTP/1.1\r\nHost: WIRE.example.:80\r\nX-Request-ID: t\r\n\r\n", status: "200", keep: true,
				back: strings.ReplaceAll(got("GET / HTTP/1.1", "", "\r\n"), "wire.example", "WIRE.example.:80")}),
		"hop-by-hop": passed(map[string][2]string{
			"removed":                {get("Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nHTTP2-Settings: x\r\nUpgrade: h2c\r\nA: b\r\n"), got("GET / HTTP/1.1", "A: b\r\n", "\r\n")},
			"ours are not removable": {get("Connection: host, content-length, x-forwarded-for, x-real-ip\r\n"), got("GET / HTTP/1.1", "", "\r\n")},
		}),
		"Expect": []wireCase{
			{name: "100-continue", send: post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"), status: "200", keep: true, back: got("POST / HTTP/1.1", "", "Content-Length: 5\r\n\r\nhello")},
			{name: "other", send: get("Expect: magic\r\n"), status: "417", keep: true},
			{name: "HTTP/1.0", send: "POST / HTTP/1.0\r\n" + host + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", status: "200", back: got("POST / HTTP/1.1", "", "Content-Length: 5\r\n\r\nhello")},
		},
		"path": append(refused("400", map[string]string{
			"above the root": "GET /../a HTTP/1.1\r\n" + host + "\r\n", "%00": "GET /%00 HTTP/1.1\r\n" + host + "\r\n", "bad escape": "GET /%zz HTTP/1.1\r\n" + host + "\r\n",
			"short escape": "GET /%4 HTTP/1.1\r\n" + host + "\r\n", "overlong": "GET /%c0%af HTTP/1.1\r\n" + host + "\r\n", "encoded above the root": "GET /%2e%2e/a HTTP/1.1\r\n" + host + "\r\n",
		}), passed(map[string][2]string{
			"own spelling": {"GET /a%2Fb//c HTTP/1.1\r\n" + host + "\r\n", got("GET /a%2Fb//c HTTP/1.1", "", "\r\n")},
			"dot segments": {"GET /a/./b/../c HTTP/1.1\r\n" + host + "\r\n", got("GET /a/c HTTP/1.1", "", "\r\n")},
			"encoded dots": {"GET /a/%2e%2e/c?x=%2e HTTP/1.1\r\n" + host + "\r\n", got("GET /c?x=%2e HTTP/1.1", "", "\r\n")},
		})...),
		"methods with a body": passed(map[string][2]string{
			"GET":    {"GET / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello", got("GET / HTTP/1.1", "", "Content-Length: 5\r\n\r\nhello")},
			"DELETE": {"DELETE / HTTP/1.1\r\n" + host + chunkedHead + "\r\n5\r\nhello\r\n0\r\n\r\n", got("DELETE / HTTP/1.1", "", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
		}),
		"X-Forwarded-*": passed(map[string][2]string{
			"replaced": {get("X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n"),
				got("GET / HTTP/1.1", "X-Original-Forwarded-For: 1.2.3.4\r\nX-Original-Forwarded-For: 5.6.7.8\r\nX-Original-Forwarded-Host: evil\r\n", "\r\n")},
		}),
		"limits": append(append(refused("414", map[string]string{"request line": "GET /" + long + " HTTP/1.1\r\n" + host + "\r\n"}),
			refused("431", map[string]string{
				"one line": get("A: " + long + long + "\r\n"), "block": get(strings.Repeat("A: "+long+"\r\n", 4)), "fields": get(strings.Repeat("A: b\r\n", 101)),
			})...), refused("413", map[string]string{
			"content-length": post("Content-Length: 1048577\r\n", ""),
		})...),
		"websocket": append(refused("400", map[string]string{
			"POST":      post("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 0\r\n", ""),
			"short key": get("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhl\r\n"),
			"no key":    get("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
		}), refused("426", map[string]string{
			"version": get("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
		})...),
		"TLS on the HTTP port": refused("400", map[string]string{"hello": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"}),
	}
}

func TestWire(t *testing.T) {
	backend := newRecorder(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	p := startProxy(t, fmt.Sprintf(wireManifests, backend.port()))
	_, port, _ := net.SplitHostPort(p.HTTP)
	for row, cases := range wireTable() {
		t.Run(row, func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) { c.run(t, p, backend, port) })
			}
		})
	}
}

func (c wireCase) run(t *testing.T, p *testProxy, backend *recorder, port string) {
	backend.take()
	conn, err := net.Dial("tcp", p.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, c.send); err != nil && c.keep {
		t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	status := readAnswer(t, br)
	if status != c.status {
		t.Errorf("answer %q, want %q", status, c.status)
	}
	if c.keep {
		if _, err := io.WriteString(conn, "GET /after HTTP/1.1\r\nHost: nobody.example\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if s := readAnswer(t, br); s != "404" {
			t.Errorf("the next request on the connection: %q, want 404", s)
		}
	} else if rest, err := io.ReadAll(br); len(rest) > 0 {
		t.Errorf("the connection went on with %q (%v)", rest, err)
	}
	c.checkBackend(t, backend.take(), port)
}

func (c wireCase) checkBackend(t *testing.T, got []string, port string) {
	if c.back == "" {
		for _, g := range got {
			t.Errorf("the backend received %q", g)
		}
		return
	}
	host := "wire.example"
	if i := strings.Index(c.back, "Host: "); i > 0 {
		host, _, _ = strings.Cut(c.back[i+6:], "\r\n")
	}
	added := "X-Request-ID: t\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: " + host +
		"\r\nX-Forwarded-Port: " + port + "\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Scheme: http\r\nX-Scheme: http\r\n"
	want := strings.Replace(c.back, "$X", added, 1)
	if len(got) != 1 || got[0] != want {
		t.Errorf("the backend received\n%q\nwant\n%q", got, want)
	}
}

// readAnswer reads one answer, after any 1xx, and returns its status; "": the connection ended.
func readAnswer(t *testing.T, br *bufio.Reader) string {
	t.Helper()
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return ""
		}
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "HTTP/1.1" {
			t.Fatalf("no status line: %q", line)
		}
		length := 0
		for {
			h, err := br.ReadString('\n')
			if err != nil {
				t.Fatalf("head cut: %v", err)
			}
			if v, ok := strings.CutPrefix(strings.ToLower(h), "content-length:"); ok {
				_, _ = fmt.Sscan(v, &length)
			}
			if h == "\r\n" {
				break
			}
		}
		if _, err := io.CopyN(io.Discard, br, int64(length)); err != nil {
			t.Fatalf("body cut: %v", err)
		}
		if !strings.HasPrefix(f[1], "1") {
			return f[1]
		}
	}
}

// TestWireSplit sends the forwarded requests once more, byte by byte: segmentation changes nothing.
func TestWireSplit(t *testing.T) {
	backend := newRecorder(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	p := startProxy(t, fmt.Sprintf(wireManifests, backend.port()))
	for row, cases := range wireTable() {
		for _, c := range cases {
			if c.back == "" || len(c.send) > 1000 {
				continue
			}
			t.Run(row+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				conn, err := net.Dial("tcp", p.HTTP)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				for _, b := range []byte(c.send) {
					if _, err := conn.Write([]byte{b}); err != nil {
						t.Fatal(err)
					}
				}
				if s := readAnswer(t, bufio.NewReader(conn)); s != c.status {
					t.Errorf("answer %q, want %q", s, c.status)
				}
			})
		}
	}
}
