package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The tests of this file pass ports from one process to the next under load. Every request has a connection of its own:
// clients that keep theirs would not notice a port that closes.

// webSockets is a backend that answers every upgrade and then echoes.
func webSockets(t *testing.T) (port int) {
	return newRawBackend(t, func(c *net.TCPConn) {
		_ = c.SetDeadline(time.Time{})
		br := bufio.NewReader(c)
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(c, br)
	}).port()
}

// socketClient is a client's end of a tunnel.
type socketClient struct {
	net.Conn
	reader *bufio.Reader
}

// openWebSocket has a backend's upgrade.
func openWebSocket(t *testing.T, address, host string) *socketClient {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, request(host, "/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
	w := &socketClient{Conn: conn, reader: bufio.NewReader(conn)}
	if answer, err := http.ReadResponse(w.reader, nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("no upgrade: %v %v", answer, err)
	}
	return w
}

// echoes tells whether the tunnel still carries bytes both ways.
func (w *socketClient) echoes() error {
	_ = w.SetDeadline(time.Now().Add(20 * time.Second))
	const text = "are you there?"
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(w.reader, b); err != nil || string(b) != text {
		return fmt.Errorf("%q, %w", b, err)
	}
	return nil
}

// relay is what the processes of a test have in common.
type relay struct {
	*testing.T
	testProxy // where they serve
	dir       string
	flags     []string
	tunnels   []*socketClient
}

// newRelay prepares processes that serve HTTP, HTTPS and WebSockets at one address.
func newRelay(t *testing.T, host string, flags ...string) *relay {
	t.Helper()
	dir := t.TempDir()
	text := site{name: "shop", host: "shop.example", ports: []int{newBackend(t, "one", nil).port()}, secret: "shop",
		annotations: map[string]string{"ssl-redirect": "false"}}.yaml() + secretOf(t, "shop", issue(t, "shop.example")) +
		site{name: "chat", host: "chat.example", ports: []int{webSockets(t)}}.yaml()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	http, https := fmt.Sprint(freePort(t)), fmt.Sprint(freePort(t))
	r := &relay{T: t, dir: dir, testProxy: testProxy{HTTP: net.JoinHostPort(host, http), HTTPS: net.JoinHostPort(host, https)}}
	r.flags = append([]string{"--manifests=" + dir, "--bind-address=" + host, "--http-port=" + http, "--https-port=" + https, "--loops=2"}, flags...)
	return r
}

// next starts another process and waits until it serves.
func (r *relay) next(flags ...string) *child {
	r.Helper()
	c := startChild(r.T, append(flags, r.flags...)...)
	c.logged("msg=serving")
	return c
}

// fleet lets clients ask on both ports, one request a connection.
func (r *relay) fleet() *fleet {
	return r.start(r.T, load{host: "shop.example", config: trusting(r.T, "shop.example"), posts: true, fresh: 1, callers: 4, pause: time.Millisecond})
}

// openTunnels opens n WebSockets.
func (r *relay) openTunnels(n int) {
	r.Helper()
	for range n {
		r.tunnels = append(r.tunnels, openWebSocket(r.T, r.HTTP, "chat.example"))
	}
}

// tunnelsLive checks that none of the WebSockets has been cut.
func (r *relay) tunnelsLive() {
	r.Helper()
	var all sync.WaitGroup
	for i, w := range r.tunnels {
		all.Go(func() {
			if err := w.echoes(); err != nil {
				r.Errorf("WebSocket %d of %d was cut: %v", i, len(r.tunnels), err)
			}
		})
	}
	all.Wait()
}

func (r *relay) closeTunnels() {
	for _, w := range r.tunnels {
		_ = w.Close()
	}
	r.tunnels = nil
}

// TestRollOut replaces the process of a node again and again as a DaemonSet with maxSurge does: the next one starts while
// the present one serves, and this one is told to end when that one is ready.
func TestRollOut(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			metrics := net.JoinHostPort(host, fmt.Sprint(freePort(t)))
			r := newRelay(t, host, "--reuse-port", "--metrics-address="+metrics)
			admin := func(n int) string { return fmt.Sprintf("--admin-address=unix://%s/%d.sock", r.dir, n) }
			present := r.next(admin(0))
			first := present
			r.openTunnels(100)
			f := r.fleet()
			probed := staysReady(t, "http://"+metrics)
			time.Sleep(200 * time.Millisecond)
			var old []*child
			for n := range shorter(6, 3) {
				next := r.next(admin(n + 1))
				if n > 0 { // two may step aside at once; each that starts disturbs them, so more would take the longest they may
					old[n-1].left()
				}
				present.signal(syscall.SIGTERM)
				old, present = append(old, present), next
			}
			for _, c := range old[1:] { // the first one has the tunnels
				c.ends(40*time.Second, 0)
			}
			first.left()
			probed()
			f.end("roll-outs at " + host)
			r.tunnelsLive()
			select {
			case <-first.ended:
				t.Error("the first process did not wait for its tunnels")
			default:
			}
			r.closeTunnels()
			first.ends(20*time.Second, 0)
			for _, c := range append(old, present) {
				if strings.Contains(c.logText(), "level=WARN") || strings.Contains(c.logText(), "level=ERROR") {
					t.Errorf("the log of a process is\n%s", c.logText())
				}
			}
		})
	}
}

// TestRollOutFails: a process that cannot have the address of its metrics ends before it takes the ports from who serves.
func TestRollOutFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := newRelay(t, "127.0.0.1", "--reuse-port", "--admin-address=")
	r.next()
	r.openTunnels(1)
	f := r.fleet()
	for range 3 {
		c := startChild(t, append([]string{"--metrics-address=" + taken.Addr().String()}, r.flags...)...)
		c.ends(20*time.Second, 1)
		c.logged("sluice: .*address already in use: choose another --metrics-address")
	}
	f.end("processes that fail")
	r.tunnelsLive()
}

// left waits until another process has both ports of this one.
func (c *child) left() {
	c.t.Helper()
	within(c.t, 40*time.Second, "another process has both ports", func() bool {
		return strings.Count(c.logText(), "another process has the port") == 2
	})
}

// staysReady asks for readiness until the answer is called, or the test ends: nobody takes the node out.
func staysReady(t *testing.T, base string) (stop func()) {
	t.Helper()
	ending := make(chan struct{})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: callTimeout}
	asked := 0
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-ending:
				return
			case <-time.After(5 * time.Millisecond):
			}
			asked++
			answer, err := client.Get(base + "/readyz")
			if err != nil {
				t.Errorf("/readyz: %v", err)
				continue
			}
			_ = answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				t.Errorf("/readyz was %d", answer.StatusCode)
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(ending)
		asking.Wait()
		if asked == 0 {
			t.Error("readiness was never asked for")
		}
	})
	t.Cleanup(stop) // before the processes are ended, which were started earlier
	return stop
}

// TestUpgrade replaces the program in place, by SIGUSR2.
func TestUpgrade(t *testing.T) {
	r := newRelay(t, "127.0.0.1", "--admin-address=127.0.0.1:"+fmt.Sprint(freePort(t)))
	present := r.next()
	admin := "http://" + present.logged(`msg="the admin page is open" address=(\S+)`)[1]
	r.openTunnels(100)
	f := r.fleet()
	probed := staysReady(t, admin)
	time.Sleep(200 * time.Millisecond)
	pid, polls := present.Process.Pid, eventPolls(t, present.Process.Pid)
	for n := range shorter(5, 2) {
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if t.Failed() {
				t.Log(present.logText())
			}
		}()
		within(t, 20*time.Second, "the successor serves", func() bool {
			return strings.Count(present.logText(), `msg="the successor serves"`) == n+1
		})
		started := regexp.MustCompile(`a successor starts; .* pid=(\d+)`).FindAllStringSubmatch(present.logText(), -1)
		pid, _ = strconv.Atoi(started[n][1])
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	}
	probed()
	time.Sleep(200 * time.Millisecond)
	f.end("upgrades")
	if n := eventPolls(t, pid); n > polls {
		t.Errorf("the last successor has %d epoll instances, the first process had %d: descriptors are left to successors", n, polls)
	}
	r.tunnelsLive()
	if gone(present.Process.Pid) {
		t.Error("the first process did not wait for its tunnels")
	}
	r.closeTunnels()
	within(t, 20*time.Second, "the first process ends when it has nothing left to do", func() bool { return gone(present.Process.Pid) })
	ask(t, r.HTTP, nil, "shop.example", "/").want(t, 200, "one")
}

// eventPolls is how many epoll instances a process has.
func eventPolls(t *testing.T, pid int) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, _ := os.Readlink(filepath.Join(dir, f.Name())); to == "anon_inode:[eventpoll]" {
			n++
		}
	}
	return n
}

// gone tells that a process has ended. A child's Wait tells it late, since the output is its successor's, too.
func gone(pid int) bool { return syscall.Kill(pid, 0) != nil }

// TestUpgradeFails starts successors that cannot serve: the process says so and serves on, and a later one takes over.
func TestUpgradeFails(t *testing.T) {
	r := newRelay(t, "127.0.0.1", "--admin-address=127.0.0.1:0")
	path := filepath.Join(t.TempDir(), "sluice")
	link := func(to string) {
		_ = os.Remove(path)
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	link(os.Args[0])
	command := program(r.flags...)
	command.Path, command.Args[0] = path, path
	c := startCommand(t, command, nil)
	c.logged("msg=serving")
	f := r.fleet()
	for _, bad := range []struct{ name, program, why string }{
		{"is not there", "/nowhere", "no such file"},
		{"is no program", filepath.Join(r.dir, "all.yaml"), "permission denied"},
		{"ends at once", "/bin/false", "exit status 1"},
		{"ends without a word", "/bin/true", "it ended: exit status 0"},
	} {
		link(bad.program)
		before := strings.Count(c.logText(), "did not take over")
		c.signal(syscall.SIGUSR2)
		within(t, 10*time.Second, "the log tells that the successor "+bad.name, func() bool {
			return strings.Count(c.logText(), "did not take over") > before
		})
		if !regexp.MustCompile(`level=ERROR msg="the successor did not take over; this process serves on as before".*` + bad.why).MatchString(c.logText()) {
			t.Errorf("a successor that %s: the log is\n%s", bad.name, c.logText())
		}
	}
	link("/nowhere")
	for range 20 { // who signals a process and its group sends several; what comes behind them is still heard
		c.signal(syscall.SIGUSR2)
		time.Sleep(time.Millisecond) // or the kernel makes one of them
	}
	f.end("upgrades that fail")
	c.signal(syscall.SIGTERM)
	c.ends(10*time.Second, 0)
}

// TestUpgradeWebhook replaces the program in place while an API server asks its webhook, on a connection for each review and
// one of HTTP/2 that it keeps: each review is answered, and by the successor in the end.
func TestUpgradeWebhook(t *testing.T) {
	certFile, keyFile := webhookPair(t)
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	r := newRelay(t, "127.0.0.1", "--validating-webhook="+address, "--validating-webhook-certificate="+certFile, "--validating-webhook-key="+keyFile)
	present := r.next()
	ending := make(chan struct{})
	var asking sync.WaitGroup
	var answered atomic.Int64
	for _, fresh := range []bool{true, false} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: trusting(t, "webhook.example"), DisableKeepAlives: fresh, ForceAttemptHTTP2: !fresh}, Timeout: 30 * time.Second}
		asking.Go(func() {
			defer client.CloseIdleConnections()
			for {
				select {
				case <-ending:
					return
				case <-time.After(2 * time.Millisecond):
				}
				status, text, err := askReview(client, address)
				if err != nil || status != 200 || !strings.Contains(text, `"allowed":true`) {
					t.Errorf("a review (connections of their own: %v): %d %s %v", fresh, status, text, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	stop := sync.OnceFunc(func() { close(ending); asking.Wait() })
	t.Cleanup(stop)
	within(t, 30*time.Second, "reviews", func() bool { return answered.Load() > 20 })
	if err := syscall.Kill(present.Process.Pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, "a successor starts", func() bool { return strings.Contains(present.logText(), "a successor starts") })
	pid, _ := strconv.Atoi(regexp.MustCompile(`a successor starts; .* pid=(\d+)`).FindStringSubmatch(present.logText())[1])
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	within(t, 30*time.Second, "the first process ends", func() bool { return gone(present.Process.Pid) })
	from := answered.Load()
	within(t, 30*time.Second, "the successor's reviews", func() bool { return t.Failed() || answered.Load() > from+20 })
	stop()
}

// askReview sends a webhook the review of an Ingress that goes.
func askReview(client *http.Client, address string) (status int, text string, err error) {
	const body = `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "kind": {"group": "networking.k8s.io", "version": "v1", "kind": "Ingress"}, "operation": "DELETE"}}`
	a, err := client.Post("https://"+address+"/networking/v1/ingresses", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return a.StatusCode, string(b), err
}
