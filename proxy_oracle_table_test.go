package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An oracleRow is one behaviour, told to nginx in its own words and to this proxy in the dialect's, and the requests that
// both are sent. Words in capitals stand for what only a run knows: HOST (the row's), BACKEND, OTHER, DEAD, SILENT and
// SERVICE (addresses of worldPorts), PORT (nginx's own); _N makes a name the row's own.
type oracleRow struct {
	nginx       string // of nginx's server block, behind oracleDefaults; "": PASS for all paths
	http        string // … of its http block
	annotations map[string]string
	keys        map[string]string             // of the ConfigMap
	alsoKeys    bool                          // the annotations are keys of the ConfigMap too, and do the same
	path, kind  string                        // of the rule; "": /, Prefix
	endpoints   []string                      // names of worldPorts; nil: BACKEND
	canary      map[string]string             // annotations of a canary to OTHER
	more        string                        // manifests
	tls         bool                          // of the site; requests then come by TLS
	client      func(*testing.T, *tls.Config) // what its clients are besides; nil: as they are
	plain       bool                          // with tls: requests come without it all the same
	listen      string                        // nginx's parameters of its listener, behind those of TLS
	fields      []string                      // of answers, that have to be the same
	lines       []string                      // of what the backend was told
	requests    [][]string                    // "[METHOD ]TARGET", then fields, and at most one bodyOf
	check       func(t *testing.T, w *oracleWorld)
}

// oracleDefaults are those of ingress-nginx that a request can see.
const oracleDefaults = `proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_redirect off; port_in_redirect off; `

// bodyOf marks the element of a request that is its body.
const bodyOf = "body="

// An oracleWorld is one row at work: where this proxy and nginx are, and how often backends were asked.
type oracleWorld struct {
	row          oracleRow
	host         string
	ours, theirs string
	config       func() *tls.Config // nil: plain
	ports        *worldPorts
}

// worldPorts are the backends that all rows share.
type worldPorts struct {
	ports   map[string]int // by the words of rows
	service *authService
	chain   string // the authority that SECURE2's certificate is signed by, through another one
	mu      sync.Mutex
	asked   map[string]int    // by the field X-Row and the backend's name
	heard   map[string]string // … the last request with its body
	ended   chan struct{}
}

func newWorldPorts(t *testing.T) *worldPorts {
	w := &worldPorts{service: newAuthService(t), asked: map[string]int{}, heard: map[string]string{}, ended: make(chan struct{})}
	w.ports = map[string]int{"BACKEND": application(t, w.answer("good")), "OTHER": application(t, w.answer("other")), "DEAD": freePort(t), "SILENT": silentPort(t), "SERVICE": w.service.port}
	for _, name := range []string{"FAIL1", "FAIL2", "FAIL3", "FAIL4"} {
		w.ports[name] = application(t, w.answer("fail"))
	}
	w.ports["GARBAGE"] = newRawBackend(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nA\x00b: c\r\nContent-Length: 0\r\n\r\n")
		}
	}).port()
	w.ports["RAW"] = newRawBackend(t, sayBack).port()
	w.ports["DEAF"] = deafBackend(t, w.ended)
	w.secure(t)
	t.Cleanup(func() { close(w.ended) })
	return w
}

// deafBackend accepts connections and reads nothing; the system takes little for it, as long as an accepted socket has its
// listener's small buffer.
func deafBackend(t *testing.T, ended chan struct{}) (port int) {
	t.Helper()
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return err
	}}
	ln, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				<-ended
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().(*net.TCPAddr).Port
}

// secure adds backends of TLS, which tell what they are told: one whose certificate the tests' authority has signed, and one
// with an authority between.
func (w *worldPorts) secure(t *testing.T) {
	root := newAuthority(t, "root", nil)
	between := newAuthority(t, "between", root)
	chained := between.sign(t, "web.internal", func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"web.internal"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}).tls()
	chained.Certificate = append(chained.Certificate, between.der)
	w.chain = certificatePEM(root.keyPair)
	for name, pair := range map[string]*tls.Certificate{"SECURE1": issue(t, "web.internal").tls(), "SECURE2": chained} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			client := ""
			if len(r.TLS.PeerCertificates) > 0 {
				client = r.TLS.PeerCertificates[0].Subject.CommonName
			}
			fmt.Fprintf(rw, "sni: %s\nversion: %x\ncipher: %x\nclient: %s\n", r.TLS.ServerName, r.TLS.Version, r.TLS.CipherSuite, client)
		}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*pair}, ClientAuth: tls.RequestClientCert}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		w.ports[name] = portOfURL(t, s.URL)
	}
}

// answer is a backend: parameters are fields of the answer, a number as path is its status, /hold never ends.
func (w *worldPorts) answer(name string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.asked[r.Header.Get("X-Row")+" "+name]++
		w.mu.Unlock()
		if fail := r.Header.Get("X-Fail"); fail != "" && name == "fail" {
			if r.Header.Get("X-Slow") != "" {
				time.Sleep(1200 * time.Millisecond)
			}
			status, _ := strconv.Atoi(fail)
			rw.WriteHeader(status)
			return
		}
		for field, values := range r.URL.Query() {
			rw.Header()[field] = values
		}
		if strings.HasPrefix(r.URL.Path, "/hold") {
			select {
			case <-r.Context().Done():
			case <-w.ended:
			}
			panic(http.ErrAbortHandler)
		}
		if n, err := strconv.Atoi(r.URL.Query().Get("X-Head")); err == nil {
			rw.Header().Set("X-Head", strings.Repeat("h", n))
		}
		body, _ := io.ReadAll(r.Body)
		w.mu.Lock()
		w.heard[r.Header.Get("X-Row")+" "+name] = fmt.Sprintln(r.Method, r.RequestURI, r.Host, len(body))
		w.mu.Unlock()
		path := strings.TrimPrefix(r.URL.Path, "/")
		if path == "kept" {
			path = r.Header.Get("X-Kept")
		}
		if status, err := strconv.Atoi(path); err == nil && status >= 200 && status < 600 {
			rw.WriteHeader(status)
		}
		fmt.Fprintf(rw, "name: %s\npeer: %s\n", name, r.RemoteAddr)
		told(rw, r)
		if n, err := strconv.Atoi(r.URL.Query().Get("X-Bytes")); err == nil {
			_, _ = rw.Write(make([]byte, n))
		}
	}
}

// count tells how often a backend was asked with this field X-Row.
func (w *worldPorts) count(row, name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[row+" "+name]
}

// fill puts what the run knows in place of the words.
func (w *worldPorts) fill(text, host string) string {
	pairs := []string{"PASS;", fmt.Sprintf("proxy_pass http://127.0.0.1:%d;", w.ports["BACKEND"]), "HOST", host}
	for word, port := range w.ports {
		pairs = append(pairs, word, fmt.Sprint("127.0.0.1:", port))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// defaults are oracleDefaults without what a row says of its own.
func (r *oracleRow) defaults() (text string) {
	for d := range strings.SplitSeq(strings.TrimSuffix(oracleDefaults, "; "), "; ") {
		if name, _, _ := strings.Cut(d, " "); name == "proxy_set_header" || !strings.Contains(r.nginx, name+" ") {
			text += d + "; "
		}
	}
	return text
}

// server is a row's part of nginx's configuration.
func (r *oracleRow) server(w *worldPorts, host string, port int) string {
	text, listen := r.nginx, fmt.Sprintf("listen 127.0.0.1:%d %s;", port, r.listen)
	if text == "" {
		text = "location / { PASS; }"
	}
	if r.tls && !r.plain {
		listen = fmt.Sprintf("listen 127.0.0.1:%d ssl %s; ssl_certificate @pair; ssl_certificate_key @key;", port, r.listen)
		if !strings.Contains(text, "ssl_protocols") {
			listen += " ssl_protocols TLSv1.2 TLSv1.3;"
		}
	}
	return strings.NewReplacer("PORT", strconv.Itoa(port), "_N", fmt.Sprint("_", port)).Replace(w.fill(fmt.Sprintf("%s\nserver { %s server_name HOST; %s %s }\n", r.http, listen, r.defaults(), text), host))
}

// manifests are a row's for this proxy, with annotations or keys.
func (r *oracleRow) manifests(w *worldPorts, name, host string, annotations map[string]string) string {
	s := site{name: name, host: host, path: r.path, annotations: map[string]string{}}
	for k, v := range annotations {
		s.annotations[k] = w.fill(strings.ReplaceAll(v, "NAME", name), host)
	}
	if r.tls {
		s.secret = "pair"
	}
	for _, e := range r.endpoints {
		s.ports = append(s.ports, w.ports[e])
	}
	if len(r.endpoints) == 0 {
		s.ports = []int{w.ports["BACKEND"]}
	}
	kind := r.kind
	if kind == "" {
		kind = "Prefix"
	}
	text := typed(s, kind)
	if r.canary != nil {
		text += site{name: name + "-canary", host: host, ports: []int{w.ports["OTHER"]}, annotations: r.canary}.yaml()
	}
	return text + w.fill(strings.ReplaceAll(r.more, "NAME", name), host)
}

// withKeys are the rows, and those that are keys of the ConfigMap too once more as such.
func withKeys(rows map[string]oracleRow) map[string]oracleRow {
	for name, r := range maps.Clone(rows) {
		if r.alsoKeys {
			r.keys, r.annotations, r.alsoKeys = r.annotations, nil, false
			rows["ConfigMap "+name] = r
		}
	}
	return rows
}

// oracleTables are the rows by their tests.
var oracleTables = map[string]func() map[string]oracleRow{"TestOracleRoutes": oracleRoutes, "TestOracleFields": oracleFields, "TestOracleAccess": oracleAccess,
	"TestOracleCanary": oracleCanary, "TestOracleBackends": oracleBackends, "TestOracleClients": oracleClients, "TestOracleTLS": oracleTLS, "TestOracleBackendTLS": oracleBackendTLS}

// runOracle sends the rows to both. Rows without keys share one proxy, and all share one nginx.
func runOracle(t *testing.T, rows map[string]oracleRow) {
	rows = withKeys(rows)
	names := slices.Sorted(maps.Keys(rows))
	w, cache := newWorldPorts(t), t.TempDir()
	pair := issue(t, "*.example", "*.shop.example")
	certificate, key, err := pair.pem()
	if err != nil {
		t.Fatal(err)
	}
	root, err := testAuthority()
	if err != nil {
		t.Fatal(err)
	}
	authority := certificatePEM(root)
	service := "---\napiVersion: v1\nkind: Service\nmetadata: {name: pages, namespace: default}\nspec: {ports: [{name: main, port: 80}]}\n" + endpointsOf("pages", w.ports["OTHER"])
	client := issue(t, "proxy.internal")
	shown, proof, err := client.pem()
	if err != nil {
		t.Fatal(err)
	}
	material := func(name, ca string) string {
		return strings.Replace(secretOf(t, name, client), "kubernetes.io/tls", "Opaque", 1) + "  ca.crt: |\n" + indent(ca) + "\n"
	}
	base := secretOf(t, "pair", pair) + service + material("good", authority) + material("chain", w.chain) + authoritySecret("clients", authority, "")
	servers, shared := "", base
	worlds := map[string]*oracleWorld{}
	for i, name := range names {
		r := rows[name]
		o := &oracleWorld{row: r, host: fmt.Sprintf("r%d.example", i), ports: w}
		port := freePort(t)
		o.theirs = fmt.Sprint("127.0.0.1:", port)
		if r.tls && !r.plain {
			o.config = func() *tls.Config {
				c := trusting(t, o.host)
				if r.client != nil {
					r.client(t, c)
				}
				return c
			}
		}
		servers += r.server(w, o.host, port)
		if r.keys == nil {
			shared += r.manifests(w, fmt.Sprint("r", i), o.host, r.annotations)
		}
		worlds[name] = o
	}
	nginx(t, "return 404;", "http", strings.ReplaceAll(servers, "@cache", cache), "pair", certificate, "key", key, "users", oracleUsers, "ca", authority, "chain", w.chain, "client", shown, "proof", proof)
	p := startProxy(t, shared+configMapOf("global-allowed-response-headers", "X-Team"), configMapFlag)
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, mine := worlds[name], p
			if o.row.keys != nil {
				var keys []string
				for k, v := range o.row.keys {
					keys = append(keys, k, w.fill(strings.ReplaceAll(v, "NAME", fmt.Sprint("r", i)), o.host))
				}
				mine = startProxy(t, base+o.row.manifests(w, fmt.Sprint("r", i), o.host, o.row.annotations)+configMapOf(keys...), configMapFlag, "--default-backend-service=default/pages")
			}
			if o.ours = mine.HTTP; o.config != nil {
				o.ours = mine.HTTPS
			}
			for _, q := range o.row.requests {
				o.compare(t, q)
			}
			if o.row.check != nil {
				o.row.check(t, o)
			}
			if t.Failed() && os.Getenv("SLUICE_TEST_LOG") != "" {
				t.Log(mine.problems(t))
			}
		})
	}
}

const oracleUsers = "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"

// send sends one request to an address, on a connection of its own. A field Host replaces the row's.
func (w *oracleWorld) send(t *testing.T, address string, q []string) *answer {
	t.Helper()
	c := w.caller(address)
	defer c.hangUp()
	a, err := c.call(w.text(q))
	if err != nil {
		t.Fatalf("%q to %s: %v", q, address, err)
	}
	return a
}

// caller is a client of an address.
func (w *oracleWorld) caller(address string) *caller {
	c := &caller{address: address}
	if w.config != nil {
		c.tls = w.config()
	}
	return c
}

// text is a request as it is sent.
func (w *oracleWorld) text(q []string) string {
	method, target, found := strings.Cut(q[0], " ")
	if !found {
		method, target = "GET", q[0]
	}
	host, body, fields := w.host, "", ""
	for _, f := range q[1:] {
		if v, ok := strings.CutPrefix(f, bodyOf); ok {
			body = v
			fields += fmt.Sprintf("Content-Length: %d\r\n", len(v))
		} else if v, ok := strings.CutPrefix(f, "Host: "); ok {
			host = w.ports.fill(v, w.host)
		} else {
			fields += f + "\r\n"
		}
	}
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s", method, target, host, fields, body)
}

// compare sends a request to both, and compares statuses, fields and what the backend was told.
func (w *oracleWorld) compare(t *testing.T, q []string) {
	t.Helper()
	w.same(t, q, w.send(t, w.ours, q), w.send(t, w.theirs, q))
}

// same compares two answers.
func (w *oracleWorld) same(t *testing.T, q []string, a, b *answer) {
	t.Helper()
	if a.status != b.status {
		t.Errorf("%q: %d, nginx %d", q, a.status, b.status)
	}
	plain := func(a *answer, address, name string) string {
		text := strings.ReplaceAll(strings.Join(a.header.Values(name), "|"), "; ", ";") // nginx writes what it has changed anew
		return strings.ReplaceAll(strings.ReplaceAll(text, address, "HERE"), colonPort(address), "")
	}
	for _, name := range w.row.fields {
		if one, two := plain(a, w.ours, name), plain(b, w.theirs, name); one != two {
			t.Errorf("%q: %s is %q, nginx says %q", q, name, one, two)
		}
	}
	for _, name := range w.row.lines {
		if one, two := line(a.body, name), line(b.body, name); one != two {
			t.Errorf("%q: the backend was told %q, by nginx %q", q, one, two)
		}
	}
}

// both runs something with either address.
func (w *oracleWorld) both(run func(address string) string) (ours, theirs string) {
	return run(w.ours), run(w.theirs)
}

// agree runs something with either, and wants the same of both, and that it is something.
func agree(run func(t *testing.T, w *oracleWorld, address string) string) func(*testing.T, *oracleWorld) {
	return func(t *testing.T, w *oracleWorld) {
		t.Helper()
		ours, theirs := w.both(func(address string) string { return run(t, w, address) })
		if ours != theirs || ours == "" {
			t.Errorf("%q, nginx %q", ours, theirs)
		}
	}
}
