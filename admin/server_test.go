package admin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
)

func scrapeBytes(b *testing.B, url string) int64 {
	b.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "identity")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || res.StatusCode != 200 {
		b.Fatal(res.Status, err)
	}
	return n
}

// TestProbes follows a process through its life.
func TestProbes(t *testing.T) {
	type state struct {
		ok  bool
		why string
	}
	var alive, ready atomic.Pointer[state]
	ask := func(p *atomic.Pointer[state]) func() (bool, string) {
		return func() (bool, string) { s := p.Load(); return s.ok, s.why }
	}
	base := open(t, Options{}, Sources{Alive: ask(&alive), Ready: ask(&ready)})
	for _, c := range []struct {
		moment       string
		alive, ready state
		health       int
		readiness    int
		wantReady    string
	}{
		{"start", state{true, ""}, state{false, "no snapshot yet"}, 200, 503, "no snapshot yet"},
		{"serving", state{true, ""}, state{true, ""}, 200, 200, "ok"},
		{"draining", state{true, ""}, state{false, "draining"}, 200, 503, "draining"},
		{"grace", state{false, "shutting down"}, state{false, "draining"}, 500, 503, "draining"},
	} {
		alive.Store(&c.alive)
		ready.Store(&c.ready)
		if status, body := get(t, base+"/healthz"); status != c.health || !c.alive.ok && body != c.alive.why+"\n" {
			t.Errorf("%s: healthz is %d %q", c.moment, status, body)
		}
		if status, body := get(t, base+"/readyz"); status != c.readiness || body != c.wantReady+"\n" {
			t.Errorf("%s: readyz is %d %q", c.moment, status, body)
		}
	}
}

func TestProbesWithoutSources(t *testing.T) {
	base := open(t, Options{}, Sources{})
	for path, want := range map[string]int{"/healthz": 500, "/readyz": 503, "/debug/snapshot": 404, "/debug/problems": 200, "/": 200} {
		if status, body := get(t, base+path); status != want {
			t.Errorf("%s is %d %q, want %d", path, status, body, want)
		}
	}
}

const key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA\n-----END EC PRIVATE KEY-----\n"

// TestSnapshotHasNoSecrets: a description that holds a key, by whatever defect, is not shown at all.
func TestSnapshotHasNoSecrets(t *testing.T) {
	for _, c := range []struct {
		name   string
		value  any
		status int
		want   string
	}{
		{"description", map[string]any{"hosts": []string{"shop.example"}}, 200, `{"hosts":["shop.example"]}`},
		{"nothing yet", nil, 200, `null`},
		{"a configuration as it is", &route.Config{DefaultCertificate: &route.Certificate{CertPEM: []byte("x"), KeyPEM: []byte(key)}}, 500, ""},
		{"a key as text", map[string]string{"key": key}, 500, ""},
		{"not JSON", func() {}, 500, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := get(t, open(t, Options{}, Sources{Snapshot: func() any { return c.value }})+"/debug/snapshot")
			if status != c.status || strings.Contains(body, "MHcCAQEEIA") || strings.Contains(body, "LS0t") {
				t.Fatalf("%d %s", status, body)
			}
			if c.want == "" {
				return
			}
			var got any
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			if b, _ := json.Marshal(got); string(b) != c.want {
				t.Errorf("got %s, want %s", b, c.want)
			}
		})
	}
}

// TestSnapshotOfRoutes shows what route describes of a configuration whose key and whose filters' values are secrets.
func TestSnapshotOfRoutes(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"shop.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &route.Config{Hosts: []*route.VirtualHost{{
		Name: "shop.example", Owner: route.Object{Kind: "Ingress", Namespace: "shop", Name: "web"},
		Certificate: &route.Certificate{Owner: route.Object{Kind: "Secret", Namespace: "shop", Name: "tls"},
			CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})},
		Rules: []route.Rule{{Path: "/a", Filters: []filter.Config{secretive{Password: "hunter2"}}}},
	}}}
	snapshot, problems := route.Compile(config, nil, route.Env{Loops: 1})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	status, body := get(t, open(t, Options{}, Sources{Snapshot: func() any { return snapshot.Describe() }})+"/debug/snapshot")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	for _, want := range []string{`"shop.example"`, `"/a"`, `shop/tls`, `secretive`} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not in\n%s", want, body)
		}
	}
	secret := base64.StdEncoding.EncodeToString(keyDER)
	for _, not := range []string{"hunter2", secret[:40], secret[len(secret)-40:], "PRIVATE"} {
		if strings.Contains(body, not) {
			t.Errorf("%s is in\n%s", not, body)
		}
	}
}

// secretive is a filter whose configuration must not be shown.
type secretive struct{ Password string }

func (secretive) Stage() filter.Stage { return filter.Access }

func (secretive) Compile(*filter.State) (l7.Filter, error) { return l7.Filter{}, nil }

func TestSnapshotOneAtATime(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	base := open(t, Options{}, Sources{Snapshot: func() any {
		if calls.Add(1) == 1 {
			close(entered)
			<-leave
		}
		return 1
	}})
	first := make(chan int)
	go func() {
		status, _ := get(t, base+"/debug/snapshot")
		first <- status
	}()
	<-entered
	if status, body := get(t, base+"/debug/snapshot"); status != 503 {
		t.Errorf("the second at once is %d %q", status, body)
	}
	close(leave)
	if status := <-first; status != 200 {
		t.Errorf("the first is %d", status)
	}
	if status, _ := get(t, base+"/debug/snapshot"); status != 200 {
		t.Errorf("one after the first is %d", status)
	}
}

func TestProblemsPage(t *testing.T) {
	_, body := get(t, open(t, Options{}, full(t))+"/debug/problems")
	want := "Ingress shop/web: spec: is odd\nIngress shop/api: is odd too\nSecret shop/tls: holds no certificate\n"
	if body != want {
		t.Errorf("got %q, want %q", body, want)
	}
}

func TestProfilesAreOffByDefault(t *testing.T) {
	base := open(t, Options{}, full(t))
	for _, path := range []string{"/debug/pprof/", "/debug/pprof", "/debug/pprof/goroutine", "/debug/pprof/profile?seconds=1"} {
		if status, _ := get(t, base+path); status != 404 {
			t.Errorf("%s is %d, want 404", path, status)
		}
	}
	if _, body := get(t, base+"/"); strings.Contains(body, "pprof") {
		t.Error("the index lists profiles")
	}
}

func TestProfiles(t *testing.T) {
	base := open(t, Options{Pprof: true}, full(t))
	for _, c := range []struct {
		path   string
		status int
		want   string
	}{
		{"/debug/pprof/", 200, "goroutine"},
		{"/debug/pprof", 200, "goroutine"},
		{"/debug/pprof/goroutine?debug=1", 200, "goroutine profile:"},
		{"/debug/pprof/trace?seconds=0.01", 200, "go 1."},
		{"/debug/pprof/trace?seconds=1e9", 400, ""},
		{"/debug/pprof/profile?seconds=121", 400, ""},
		{"/debug/pprof/trace?seconds=NaN", 400, ""},
		{"/debug/pprof/heap?seconds=-1", 400, ""},
		{"/debug/pprof/profile?seconds%3d=1&second%73=500", 400, ""},
	} {
		status, body := get(t, base+c.path)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s is %d %.80q", c.path, status, body)
		}
	}
	if _, body := get(t, base+"/"); !strings.Contains(body, "/debug/pprof/") {
		t.Error("the index does not list profiles")
	}
}

func TestIndexListsEveryPage(t *testing.T) {
	o := Options{Version: "<v1>", Pprof: true}
	base := open(t, o, full(t))
	for _, accept := range []string{"", "text/html,*/*;q=0.8"} {
		res, body := do(t, http.MethodGet, base+"/", "", "Accept", accept)
		for _, p := range New(o, Sources{}).admin.pages {
			if !strings.Contains(body, p.path) || !strings.Contains(body, p.about) {
				t.Errorf("Accept %q: %s is not listed in\n%s", accept, p.path, body)
			}
		}
		if kind := res.Header.Get("Content-Type"); strings.Contains(kind, "html") != (accept != "") ||
			strings.Contains(kind, "html") && strings.Contains(body, "<v1>") {
			t.Errorf("Accept %q: %s\n%s", accept, kind, body)
		}
		if !strings.Contains(body, "problems: 3") || !strings.Contains(body, "ready") {
			t.Errorf("the state is not shown in\n%s", body)
		}
	}
}

func TestMethodsAndPaths(t *testing.T) {
	base := open(t, Options{}, full(t))
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/healthz", 200},
		{"HEAD", "/healthz", 200},
		{"HEAD", "/metrics", 200},
		{"POST", "/healthz", 405},
		{"PUT", "/metrics", 405},
		{"DELETE", "/nowhere", 405},
		{"OPTIONS", "/", 405},
		{"GET", "/healthz/", 404},
		{"GET", "/metrics2", 404},
		{"GET", "/debug/", 404},
	} {
		res, body := do(t, c.method, base+c.path, "")
		if res.StatusCode != c.status || c.method == "HEAD" && body != "" {
			t.Errorf("%s %s is %d %q, want %d", c.method, c.path, res.StatusCode, body, c.status)
		}
		if c.status == 405 && res.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, res.Header.Get("Allow"))
		}
		if res.Header.Get("Server") != "" || res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: header is %v", c.method, c.path, res.Header)
		}
	}
}

func TestBounds(t *testing.T) {
	base := open(t, Options{}, full(t))
	if res, _ := do(t, http.MethodGet, base+"/healthz", "", "X", strings.Repeat("x", headBytesMax)); res.StatusCode != 431 {
		t.Errorf("a large head is %d", res.StatusCode)
	}
	if res, _ := do(t, http.MethodPost, base+"/healthz", strings.Repeat("x", bodyBytesMax+1)); res.StatusCode != 413 {
		t.Errorf("a large body is %d", res.StatusCode)
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "what is this\r\n\r\n")
	if b, _ := io.ReadAll(c); !strings.HasPrefix(string(b), "HTTP/1.1 400 ") {
		t.Errorf("what is no request is answered by %q", b)
	}
	c.Close()
	http.DefaultClient.CloseIdleConnections()
	holdAll(t, strings.TrimPrefix(base, "http://"))
}

// holdAll holds as many connections as there may be, and finds one more refused.
func holdAll(t *testing.T, address string) {
	t.Helper()
	for range connectionsMax {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HT")
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if b, _ := io.ReadAll(c); !strings.HasPrefix(string(b), "HTTP/1.1 503 ") {
		t.Errorf("one connection too many is answered by %q", b)
	}
}

// TestPanicCostsOnePage: the server, and with it the probes, outlives a defect in a page.
func TestPanicCostsOnePage(t *testing.T) {
	var log strings.Builder
	boom := func() any { panic("boom") }
	problems := func() []route.Problem { panic("bang") }
	base := open(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, Sources{Alive: yes, Snapshot: boom, Problems: problems})
	for range 2 {
		if status, body := get(t, base+"/debug/snapshot"); status != 500 || strings.Contains(body, "boom") {
			t.Errorf("a page that panics is %d %q", status, body)
		}
	}
	if status, body := get(t, base+"/metrics"); status != 200 || !strings.Contains(body, "go_goroutines") || strings.Contains(body, "bang") {
		t.Errorf("a scrape of a source that panics is %d %.200q", status, body)
	}
	if status, _ := get(t, base+"/healthz"); status != 200 {
		t.Errorf("healthz after a panic is %d", status)
	}
	if !strings.Contains(log.String(), "boom") || !strings.Contains(log.String(), "/debug/snapshot") {
		t.Errorf("the log is %q", log.String())
	}
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, address := range []string{taken.Addr().String(), "127.0.0.1:notaport", "nowhere"} {
		a := New(Options{}, Sources{})
		if got, err := a.Listen(listen.Options{Address: address}); err == nil || !strings.Contains(err.Error(), "admin address") {
			t.Errorf("listening on %s: %v, %v", address, got, err)
		}
		if err := a.Shutdown(context.Background()); err != nil {
			t.Errorf("shutdown of what never listened: %v", err)
		}
	}
}

// TestMetricsAddress: the network sees metrics and probes, which speak of the port, and whose answer it is.
func TestMetricsAddress(t *testing.T) {
	s := full(t)
	s.Ready = func() (bool, string) { return false, "draining" }
	s.PortReady = func() (bool, string) { return true, "another one has the port" }
	a := New(Options{Controller: Controller{Pod: "sluice-abcde"}}, s)
	address, err := a.ListenMetrics(listen.Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Shutdown(context.Background())
	for path, want := range map[string]int{"/metrics": 200, "/readyz": 200, "/healthz": 500, "/": 404, "/debug/snapshot": 404, "/debug/problems": 404, "/debug/pprof/": 404} {
		res, body := do(t, http.MethodGet, "http://"+address+path, "")
		if res.StatusCode != want || res.Header.Get("Sluice-Pod") != "sluice-abcde" {
			t.Errorf("%s: %d of pod %q, want %d: %.80s", path, res.StatusCode, res.Header.Get("Sluice-Pod"), want, body)
		}
	}
	if a.StepAside(t.Context()) {
		t.Error("a port that is not shared was left")
	}
}

// TestShutdown lets a request under way end, closes idle connections and takes no new ones.
func TestShutdown(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	a := New(Options{}, Sources{Alive: yes, Snapshot: func() any { close(entered); <-leave; return "last words" }})
	addr, err := a.Listen(listen.Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + addr
	get(t, base+"/healthz") // leaves an idle connection
	slow := make(chan string)
	go func() {
		_, body := get(t, base+"/debug/snapshot")
		slow <- body
	}()
	<-entered

	hurried, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := a.Shutdown(hurried); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a shutdown that may not wait for a request: %v", err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("a new connection is taken after the shutdown")
	}
	close(leave)
	if body := <-slow; body != "\"last words\"\n" {
		t.Errorf("the request under way was answered by %q", body)
	}
}

// TestShutdownAtOnce: a server may be shut down before it has begun to accept.
func TestShutdownAtOnce(t *testing.T) {
	for range 50 {
		a := New(Options{}, Sources{})
		if _, err := a.Listen(listen.Options{Address: "127.0.0.1:0"}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := a.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		cancel()
	}
}
