package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// testProxy is a whole proxy in this process, wired as main does, on a directory of manifests.
type testProxy struct {
	*proxy
	t     testing.TB
	Dir   string     // the manifests
	Log   *lastLines // of the access log; nil: it is written elsewhere
	HTTP  string     // addresses
	HTTPS string
}

// lastLines keeps the end of what is written to it.
type lastLines struct {
	mu sync.Mutex
	b  []byte
}

func (l *lastLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b = append(l.b, b...); len(l.b) > 128<<10 {
		l.b = append(l.b[:0], l.b[len(l.b)-64<<10:]...)
	}
	return len(b), nil
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// startProxy serves the manifests, each a file of the directory, until the test ends.
func startProxy(t *testing.T, manifests string, flags ...string) *testProxy {
	t.Helper()
	log := new(lastLines)
	p := startProxyLogging(t, log, manifests, flags...)
	p.Log = log
	return p
}

// startProxyLogging writes the access log somewhere.
func startProxyLogging(t testing.TB, accessLog io.Writer, manifests string, flags ...string) *testProxy {
	t.Helper()
	p := &testProxy{t: t, Dir: t.TempDir()}
	p.write("all.yaml", manifests)
	httpPort, httpsPort := freePort(t), freePort(t)
	p.HTTP, p.HTTPS = "127.0.0.1:"+strconv.Itoa(httpPort), "127.0.0.1:"+strconv.Itoa(httpsPort)
	args := append([]string{"--manifests=" + p.Dir, "--bind-address=127.0.0.1", fmt.Sprintf("--http-port=%d", httpPort),
		fmt.Sprintf("--https-port=%d", httpsPort), "--admin-address=127.0.0.1:0", "--loops=2", "--enable-ssl-passthrough"}, flags...)
	o := defaultOptions()
	if err := parseFlags(&o, args, table); err != nil {
		t.Fatal(err)
	}
	var out io.Writer = io.Discard
	if testing.Verbose() && os.Getenv("SLUICE_TEST_LOG") != "" {
		out = os.Stderr
	}
	made, err := newProxy(o, slog.New(slog.NewTextHandler(out, nil)), accessLog)
	if err != nil {
		t.Fatal(err)
	}
	p.proxy = made
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := made.start(ctx); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatal("no snapshot within 30 s")
	}
	t.Cleanup(made.stop)
	return p
}

// write replaces a manifest by rename, as editors and ConfigMap mounts do.
func (p *testProxy) write(name, text string) {
	p.t.Helper()
	temporary := filepath.Join(p.Dir, "."+name+".new")
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(p.Dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

// portsGiven are those that freePort has answered, or has found taken.
var portsGiven sync.Map

// freePort is a port that nobody listens at. It is none of those that the system gives to outgoing connections, which
// others on this machine open at any time, and none that was given out before: tests run beside each other.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 20_000 + rand.IntN(12_000)
		if _, given := portsGiven.LoadOrStore(port, true); given {
			continue
		}
		if ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			_ = ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
