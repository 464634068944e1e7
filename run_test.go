package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// child is sluice as a process that serves.
type child struct {
	*exec.Cmd
	t           *testing.T
	mu          sync.Mutex
	out, log    bytes.Buffer
	ended       chan struct{}
	dir         string
	http, admin string
}

// lockedWriter lets a test read what a process is still writing.
type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

// startChild starts a process; it is killed at the end of the test.
func startChild(t *testing.T, args ...string) *child { return startChildTo(t, nil, args...) }

// startChildTo is startChild with a standard output of its own; nil: the child keeps it.
func startChildTo(t *testing.T, stdout *os.File, args ...string) *child {
	t.Helper()
	return startLimited(t, stdout, "", args...)
}

// startLimited is startChildTo behind a line of shell, which may set limits and environment; "": none.
func startLimited(t *testing.T, stdout *os.File, limits string, args ...string) *child {
	t.Helper()
	c := program(args...)
	if limits != "" {
		c.Path, c.Args = "/bin/sh", append([]string{"sh", "-c", limits + `; exec "$0" "$@"`}, c.Args...)
	}
	return startCommand(t, c, stdout)
}

// startCommand starts a process as startChildTo does.
func startCommand(t *testing.T, command *exec.Cmd, stdout *os.File) *child {
	t.Helper()
	c := &child{Cmd: command, t: t, ended: make(chan struct{})}
	c.Stdout, c.Stderr = lockedWriter{&c.mu, &c.out}, lockedWriter{&c.mu, &c.log}
	if stdout != nil {
		c.Stdout = stdout
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.Wait() // ProcessState tells
		close(c.ended)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-c.ended
	})
	return c
}

// startServing starts a process that serves one Ingress for a backend, and waits for its ports.
func startServing(t *testing.T, backend int, flags ...string) *child {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), fmt.Appendf(nil, wireManifests, backend), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	c := startChild(t, append([]string{"--manifests=" + dir, "--bind-address=127.0.0.1", fmt.Sprint("--http-port=", port), "--https-port=0",
		"--admin-address=127.0.0.1:0", "--loops=2"}, flags...)...)
	c.dir, c.http = dir, fmt.Sprint("127.0.0.1:", port)
	c.admin = c.logged(`msg="the admin page is open" address=(\S+)`)[1]
	c.logged(`msg=serving`)
	return c
}

// logged waits for a line of the log.
func (c *child) logged(pattern string) []string {
	c.t.Helper()
	return c.waitFor(&c.log, pattern)
}

func (c *child) waitFor(b *bytes.Buffer, pattern string) []string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		text := b.String()
		c.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no %s in\n%s", pattern, text)
		}
	}
}

// logText is the log so far.
func (c *child) logText() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// ends waits for the process's end and checks its status.
func (c *child) ends(within time.Duration, status int) {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(within):
		c.t.Fatalf("the process has not ended within %v", within)
	}
	if got := c.ProcessState.ExitCode(); got != status {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.t.Errorf("exit status %d, want %d; the log is\n%s", got, status, c.log.String())
	}
}

// slowBackend answers "done" when it is told to.
func slowBackend(t *testing.T) (port int, arrived chan struct{}, answer func()) {
	t.Helper()
	arrived, proceed := make(chan struct{}, 100), make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-proceed
		_, _ = io.WriteString(w, "done")
	})}
	go func() { _ = s.Serve(ln) }()
	answer = sync.OnceFunc(func() { close(proceed) })
	t.Cleanup(func() {
		answer()
		_ = s.Close()
	})
	return ln.Addr().(*net.TCPAddr).Port, arrived, answer
}

// askSlow sends one request on a new connection; read takes the whole answer.
func askSlow(t *testing.T, address string) (read func() string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: wire.example\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return func() string {
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err.Error()
		}
		body, _ := io.ReadAll(answer.Body)
		return fmt.Sprint(answer.StatusCode, " ", string(body), " close=", answer.Close)
	}
}

func probe(t *testing.T, url string) int {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// TestDrain ends a process with requests in flight: probes say no, the port stays open for the grace period and closes
// then, every request is answered, and the process ends by itself.
func TestDrain(t *testing.T) {
	port, arrived, answer := slowBackend(t)
	c := startServing(t, port, "--shutdown-grace-period=1")
	if s := probe(t, "http://"+c.admin+"/readyz"); s != 200 {
		t.Errorf("/readyz is %d while serving", s)
	}
	const requests = 40
	var answers []func() string
	for range requests {
		answers = append(answers, askSlow(t, c.http))
	}
	idle, err := net.Dial("tcp", c.http)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	for range requests {
		<-arrived
	}
	c.signal(syscall.SIGTERM)
	c.signal(syscall.SIGTERM) // as who signals a process and its group does
	c.logged("msg=\"draining")
	if r, h := probe(t, "http://"+c.admin+"/readyz"), probe(t, "http://"+c.admin+"/healthz"); r != 503 || h != 500 {
		t.Errorf("while draining, /readyz is %d and /healthz %d", r, h)
	}
	late := askSlow(t, c.http) // the grace period
	<-arrived
	answers = append(answers, late)
	for refused := false; !refused; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", c.http)
		if refused = err != nil; !refused {
			_ = conn.Close()
		}
	}
	answer()
	for i, read := range answers {
		if got := read(); got != "200 done close=true" {
			t.Errorf("request %d of %d: %s", i, len(answers), got)
		}
	}
	c.ends(10*time.Second, 0)
	c.logged("msg=drained")
	if lines := strings.Count(c.out.String(), "\n"); lines != len(answers) {
		t.Errorf("the access log has %d lines, want %d:\n%s", lines, len(answers), c.out.String())
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	port, arrived, _ := slowBackend(t)
	c := startServing(t, port)
	askSlow(t, c.http)
	<-arrived
	c.signal(syscall.SIGTERM)
	c.logged("msg=\"draining")
	time.Sleep(signalEcho + 50*time.Millisecond)
	c.signal(syscall.SIGINT)
	c.ends(5*time.Second, 0)
}

func TestDrainLimit(t *testing.T) {
	port, arrived, _ := slowBackend(t)
	c := startServing(t, port, "--configmap=default/sluice")
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sluice}\ndata: {worker-shutdown-timeout: 1s}\n"
	if err := os.WriteFile(filepath.Join(c.dir, "settings.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.logged(`msg="problem has gone" object="ConfigMap default/sluice"`)
	askSlow(t, c.http)
	<-arrived
	c.signal(syscall.SIGTERM)
	c.ends(5*time.Second, 0)
	c.logged("the drain limit is reached")
}

func TestBindAddressChanges(t *testing.T) {
	c := startServing(t, 1, "--configmap=default/sluice", "--bind-address=")
	if err := os.WriteFile(filepath.Join(c.dir, "settings.yaml"), []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sluice}\n"+
		"data: {bind-address: 127.0.0.1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.logged("bind-address has changed: .* address=127.0.0.1")
}

func TestRescanSignal(t *testing.T) {
	c := startServing(t, 1)
	c.signal(syscall.SIGHUP)
	c.logged("SIGHUP: all manifests are read again")
	c.signal(syscall.SIGINT)
	c.ends(5*time.Second, 0)
}

// TestPortsOpenWithTheFirstSnapshot starts a process before its manifests are there.
func TestPortsOpenWithTheFirstSnapshot(t *testing.T) {
	dir, port := filepath.Join(t.TempDir(), "later"), freePort(t)
	c := startChild(t, "--manifests="+dir, "--bind-address=127.0.0.1", fmt.Sprint("--http-port=", port), "--https-port=0", "--admin-address=127.0.0.1:0")
	admin := c.logged(`msg="the admin page is open" address=(\S+)`)[1]
	c.logged("a directory of manifests cannot be read")
	if r, h := probe(t, "http://"+admin+"/readyz"), probe(t, "http://"+admin+"/healthz"); r != 503 || h != 200 {
		t.Errorf("before the first snapshot, /readyz is %d and /healthz %d", r, h)
	}
	if conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
		_ = conn.Close()
		t.Error("the port is open before the first snapshot")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.logged("msg=serving")
	if r := probe(t, "http://"+admin+"/readyz"); r != 200 {
		t.Errorf("/readyz is %d while serving", r)
	}
	c.signal(syscall.SIGTERM)
	c.ends(5*time.Second, 0)

	c = startChild(t, "--manifests="+dir+"/gone", "--http-port=0", "--https-port="+fmt.Sprint(port), "--admin-address=")
	c.logged("a directory of manifests cannot be read")
	c.signal(syscall.SIGTERM) // nothing to drain
	c.ends(5*time.Second, 0)
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := startChild(t, "--manifests="+t.TempDir(), "--bind-address=127.0.0.1", fmt.Sprint("--http-port=", ln.Addr().(*net.TCPAddr).Port),
		"--https-port=0", "--admin-address=")
	c.ends(10*time.Second, 1)
	c.logged("sluice: .*address already in use: choose another --http-port or --bind-address")
}
