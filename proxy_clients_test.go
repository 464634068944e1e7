package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The tests of this file have clients that are in everybody's hands talk to the whole program over HTTP/2. CI installs them; where
// one is missing its test skips and says so.

// foreign runs a client and gives what it said.
func foreign(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func needs(t *testing.T, program, debian string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not there: on Debian, apt-get install %s", program, debian)
	}
}

// clientWorld is a proxy with a backend of each protocol behind a path of one host. Each backend echoes a body, and answers others
// by the size that the query names.
type clientWorld struct {
	*testProxy
	ca, upload  string // files: an authority, and a body
	httpPort    string
	httpsPort   string
	backendKind []string // paths: what is spoken behind them
}

func newClientWorld(t *testing.T) *clientWorld {
	t.Helper()
	answer := func(w http.ResponseWriter, r *http.Request) {
		var n int64
		if _, err := fmt.Sscanf(r.URL.RawQuery, "size=%d", &n); err == nil {
			w.Header().Set("Content-Length", fmt.Sprint(n))
			_, _ = io.CopyN(w, endless{}, n)
			return
		}
		_, _ = io.Copy(w, r.Body)
	}
	plain := httptest.NewServer(http.HandlerFunc(answer))
	t.Cleanup(plain.Close)
	manifests := secretOf(t, "tls", issue(t, "localhost"))
	w := &clientWorld{}
	for kind, backend := range map[string]struct {
		port     int
		protocol string
	}{
		"http1": {plain.Listener.Addr().(*net.TCPAddr).Port, "HTTP"},
		"h2c":   {http2Application(t, false, answer), "GRPC"},
		"h2":    {http2Application(t, true, answer), "GRPCS"},
	} {
		w.backendKind = append(w.backendKind, kind)
		manifests += site{name: kind, host: "localhost", path: "/" + kind, secret: "tls", ports: []int{backend.port},
			annotations: map[string]string{"backend-protocol": backend.protocol, "proxy-body-size": "0", "ssl-redirect": "false"}}.yaml()
	}
	w.testProxy = startProxy(t, manifests)
	_, w.httpPort, _ = net.SplitHostPort(w.HTTP)
	_, w.httpsPort, _ = net.SplitHostPort(w.HTTPS)
	authority, err := testAuthority()
	if err != nil {
		t.Fatal(err)
	}
	certificate, _, err := authority.pem()
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 1<<20)
	fill(body)
	w.ca, w.upload = filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "body")
	for name, text := range map[string][]byte{w.ca: []byte(certificate), w.upload: body} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// endless is a body of any length.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// TestCurl asks and uploads in every way that curl speaks HTTP/2, to backends of each protocol.
func TestCurl(t *testing.T) {
	needs(t, "curl", "curl")
	w := newClientWorld(t)
	for _, way := range []struct {
		name, scheme, port, version string
		args                        []string
	}{
		{"TLS", "https", w.httpsPort, "2", []string{"--http2", "--cacert", w.ca}},
		{"TLS by AES-256", "https", w.httpsPort, "2", []string{"--http2", "--cacert", w.ca, "--tls13-ciphers", "TLS_AES_256_GCM_SHA384"}},
		{"TLS by ChaCha20", "https", w.httpsPort, "2", []string{"--http2", "--cacert", w.ca, "--tls13-ciphers", "TLS_CHACHA20_POLY1305_SHA256"}},
		{"TLS 1.2", "https", w.httpsPort, "2", []string{"--http2", "--cacert", w.ca, "--tls-max", "1.2"}},
		{"prior knowledge", "http", w.httpPort, "2", []string{"--http2-prior-knowledge"}},
		{"upgrade", "http", w.httpPort, "1.1", []string{"--http2"}}, // a wish that is ignored (RFC 9113 3.1)
	} {
		for _, kind := range w.backendKind {
			t.Run(way.name+" to "+kind, func(t *testing.T) {
				got := filepath.Join(t.TempDir(), "answer")
				args := append([]string{"--silent", "--show-error", "--noproxy", "*", "--output", got, "--connect-to", "localhost:" + way.port + ":127.0.0.1:" + way.port,
					"--write-out", "%{http_version} %{response_code} %{size_download} %{num_connects}\n"}, way.args...)
				url := way.scheme + "://localhost:" + way.port + "/" + kind
				if out, want := foreign(t, "curl", append(args, url+"?size=2000000")...), way.version+" 200 2000000 1\n"; out != want {
					t.Errorf("download: %q, want %q", out, want)
				}
				out := foreign(t, "curl", append(args, "--data-binary", "@"+w.upload, "--header", "Expect: 100-continue", url)...)
				sent, _ := os.ReadFile(w.upload)
				back, err := os.ReadFile(got)
				if err != nil || out != fmt.Sprintf("%s 200 %d 1\n", way.version, len(sent)) || !bytes.Equal(sent, back) {
					t.Errorf("upload: %q, %d bytes came back, %v", out, len(back), err)
				}
			})
		}
	}
}

// TestNghttp2 has nghttp and h2load ask many times at once, over TLS and with prior knowledge, backends of each protocol.
func TestNghttp2(t *testing.T) {
	needs(t, "nghttp", "nghttp2-client")
	needs(t, "h2load", "nghttp2-client")
	w := newClientWorld(t)
	status := regexp.MustCompile(`(?m)^ +\d+ .* (\d+) +\S+ /\S+$`)
	for scheme, address := range map[string]string{"https": w.HTTPS, "http": w.HTTP} {
		for _, kind := range w.backendKind {
			t.Run(scheme+" to "+kind, func(t *testing.T) {
				url := scheme + "://" + address + "/" + kind
				for _, args := range [][]string{{url + "?size=300000"}, {"--data=" + w.upload, url}} {
					out := foreign(t, "nghttp", append([]string{"--null-out", "--stat", "--no-verify-peer", "--multiply=20", "-H:authority: localhost"}, args...)...)
					answers := status.FindAllStringSubmatch(out, -1)
					for _, a := range answers {
						if a[1] != "200" {
							t.Errorf("%s", a[0])
						}
					}
					if len(answers) != 20 {
						t.Errorf("%d answers of 20\n%s", len(answers), out)
					}
				}
				out := foreign(t, "h2load", "--requests=2000", "--clients=8", "--max-concurrent-streams=20", "--connect-to="+address,
					scheme+"://localhost/"+kind+"?size=1000")
				if !strings.Contains(out, "2000 succeeded, 0 failed, 0 errored") || !strings.Contains(out, "2000 2xx") {
					t.Errorf("%s", out)
				}
			})
		}
	}
}

const browserPage = `<!doctype html><title>page</title><body><script>
const of = (tag, set) => new Promise((ok, bad) => {
	const e = document.createElement(tag);
	e.onload = ok; e.onerror = () => bad(new Error('not loaded: ' + (e.src || e.href)));
	set(e); document.body.append(e);
});
const all = [];
for (let i = 0; i < 200; i++) all.push(
	i % 4 === 0 ? of('script', e => e.src = '/r/' + i + '.js') :
	i % 4 === 1 ? of('img', e => e.src = '/r/' + i + '.svg') :
	i % 4 === 2 ? of('link', e => { e.rel = 'stylesheet'; e.href = '/r/' + i + '.css'; }) :
	fetch('/r/' + i + '.txt', {method: 'POST', body: 'x'.repeat(i * 100)}).then(r => r.text()).then(s => { if (s.length !== i * 100) throw new Error('upload ' + i); }));
const socket = () => new Promise((ok, bad) => {
	const s = new WebSocket('wss://' + location.host + '/chat');
	s.onopen = () => s.send('from the page');
	s.onmessage = m => s.close(1000);
	s.onclose = c => c.code === 1000 && c.wasClean ? ok() : bad(new Error('socket ' + c.code));
});
const tell = o => fetch('/result', {method: 'POST', body: JSON.stringify(o)});
Promise.all(all).then(socket).then(() => {
	const seen = performance.getEntriesByType('resource').filter(e => e.name.includes('/r/'));
	tell({Resources: seen.length, Page: performance.getEntriesByType('navigation')[0].nextHopProtocol,
		Others: seen.filter(e => e.nextHopProtocol !== 'h2').map(e => e.name + ' ' + e.nextHopProtocol),
		Connects: seen.filter(e => e.connectEnd > e.connectStart).map(e => e.name)});
}).catch(e => tell({Error: String(e)}));
</script>`

// TestChromium has a browser load a page with 200 resources of several kinds, and talk over a WebSocket: all on one connection of
// HTTP/2, as the page itself sees it.
func TestChromium(t *testing.T) {
	needs(t, "chromium", "chromium")
	result := make(chan []byte, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/result":
			select {
			case result <- body:
			default:
			}
		case r.URL.Path == "/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, browserPage)
		case strings.HasSuffix(r.URL.Path, ".js"):
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = io.WriteString(w, "1;")
		case strings.HasSuffix(r.URL.Path, ".css"):
			w.Header().Set("Content-Type", "text/css")
			_, _ = io.WriteString(w, "b {}")
		case strings.HasSuffix(r.URL.Path, ".svg"):
			w.Header().Set("Content-Type", "image/svg+xml")
			_, _ = io.WriteString(w, `<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>`)
		default:
			_, _ = w.Write(body)
		}
	}))
	defer web.Close()
	pair := issue(t, "shop.example")
	p := startProcess(t, nil, "", secretOf(t, "tls", pair)+
		site{name: "web", host: "shop.example", secret: "tls", ports: []int{web.Listener.Addr().(*net.TCPAddr).Port}}.yaml()+
		site{name: "chat", host: "shop.example", path: "/chat", secret: "tls", ports: []int{socketBackend(t)}}.yaml())
	spki := sha256.Sum256(pair.certificate.RawSubjectPublicKeyInfo)
	var said lockedBuffer
	browser := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server", "--remote-debugging-port=0",
		"--user-data-dir="+t.TempDir(), "--host-resolver-rules=MAP shop.example "+p.https+", MAP * ~NOTFOUND",
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(spki[:]), "https://shop.example/")
	browser.Stdout, browser.Stderr = &said, &said
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = browser.Process.Kill()
		_ = browser.Wait()
	}()
	var text []byte
	select {
	case text = <-result:
	case <-time.After(2 * time.Minute):
		said.mu.Lock()
		defer said.mu.Unlock()
		t.Fatalf("the page has not told how it went; Chromium said:\n%s", said.b.String())
	}
	var seen struct {
		Error, Page      string
		Resources        int
		Others, Connects []string
	}
	if err := json.Unmarshal(text, &seen); err != nil || seen.Error != "" {
		t.Fatalf("%s, %v", text, err)
	}
	if seen.Page != "h2" || seen.Resources != 200 || len(seen.Others) > 0 || len(seen.Connects) > 0 {
		t.Errorf("the page saw %+v", seen)
	}
	if n := p.metric("sluice_tls_handshakes_total", `door="https"`); n > 4 { // a browser opens some ahead, and under load races others, that carry nothing: the page has seen to it
		t.Errorf("%v connections were made", n)
	}
	p.waitFor(&p.out, `"(GET|CONNECT) /chat HTTP/2.0" `) // the WebSocket, too
}
