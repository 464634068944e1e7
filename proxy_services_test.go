package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The tests of this file are about TCP services: ports whose connections go to backends as they are.

// portMap is the ConfigMap default/NAME of TCP or UDP services; start the proxy with --tcp-services-configmap=default/NAME.
func portMap(name string, entries ...string) string {
	text := "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: default}\ndata:\n"
	if len(entries) == 0 {
		text = strings.TrimSuffix(text, "data:\n")
	}
	for i := 0; i < len(entries); i += 2 {
		text += fmt.Sprintf("  %q: %q\n", entries[i], entries[i+1])
	}
	return text
}

// serviceOf is a Service without an Ingress, with its endpoints.
func serviceOf(name string, ports ...int) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: default}\nspec: {ports: [{name: main, port: 80}]}\n", name) +
		endpointsOf(name, ports...)
}

const tcpFlag = "--tcp-services-configmap=default/tcp"

// named is a backend that says its name and then echoes.
func named(t testing.TB, name string) *rawBackend {
	return newRawBackend(t, func(c *net.TCPConn) {
		_ = c.SetDeadline(time.Time{})
		_, _ = io.WriteString(c, name)
		_, _ = io.Copy(c, c)
	})
}

// tcpClient is a connection of a TCP service whose backend is named.
type tcpClient struct{ net.Conn }

func dialService(t testing.TB, port int, name string) *tcpClient {
	t.Helper()
	c := &tcpClient{}
	within(t, callTimeout, "port "+strconv.Itoa(port)+" leads to "+name, func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return false
		}
		_ = conn.SetDeadline(time.Now().Add(callTimeout))
		b := make([]byte, len(name))
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != name {
			_ = conn.Close()
			return false
		}
		c.Conn = conn
		return true
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// echoes tells whether bytes still go there and back.
func (c *tcpClient) echoes() error {
	_ = c.SetDeadline(time.Now().Add(callTimeout))
	const text = "are you there?"
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		return fmt.Errorf("%q came back, %w", b, err)
	}
	return nil
}

// TestTCPServices adds, changes and takes out ports while connections of all of them are open.
func TestTCPServices(t *testing.T) {
	one, two := named(t, "one"), named(t, "two")
	services := serviceOf("one", one.port()) + serviceOf("two", two.port())
	a, b := freePort(t), freePort(t)
	p := startProxy(t, services+portMap("tcp", strconv.Itoa(a), "default/one:80"), tcpFlag)
	first := dialService(t, a, "one")
	lives := func(when string, list ...*tcpClient) {
		t.Helper()
		for i, c := range list {
			if err := c.echoes(); err != nil {
				t.Fatalf("%s: connection %d: %v", when, i, err)
			}
		}
	}

	p.write("all.yaml", services+portMap("tcp", strconv.Itoa(a), "default/one:80", strconv.Itoa(b), "default/two:main"))
	second := dialService(t, b, "two")
	lives("a port was added", first, second)

	p.write("all.yaml", services+portMap("tcp", strconv.Itoa(a), "default/two:80", strconv.Itoa(b), "default/two:main"))
	third := dialService(t, a, "two")
	lives("an entry was changed", first, second, third)
	sum := func() float64 {
		return p.metric(t, "nginx_ingress_controller_nginx_process_connections_total", `state="accepted"`)
	}
	accepted := sum()

	p.write("all.yaml", services+portMap("tcp", strconv.Itoa(b), "default/two:main"))
	within(t, callTimeout, "the port is closed", func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(a), 100*time.Millisecond)
		if err == nil {
			_ = c.Close()
		}
		return err != nil && strings.Contains(err.Error(), "refused")
	})
	lives("a port was taken out", first, second, third)
	if n := p.passing(); n != 3 {
		t.Errorf("%d tunnels are open, want 3", n)
	}
	for _, c := range []*tcpClient{first, second, third} {
		_ = c.Close()
	}
	within(t, callTimeout, "the tunnels' end", func() bool { return p.passing() == 0 })
	p.write("all.yaml", services+portMap("tcp", strconv.Itoa(a), "default/one:80")) // a retired door goes when the next one does
	dialService(t, a, "one")
	p.write("all.yaml", services)
	within(t, callTimeout, "there is no port", func() bool { return len(p.services.all()) == 0 })
	if n := sum(); accepted < 3 || n <= accepted {
		t.Errorf("%v connections were accepted when ports are closed, %v before", n, accepted)
	}
}

// TestTCPServiceDrainLimit: the connections of a port that was taken out have as long as in a drain, those of others stay.
func TestTCPServiceDrainLimit(t *testing.T) {
	one := named(t, "one")
	a, b := freePort(t), freePort(t)
	rest := serviceOf("one", one.port()) + configMapOf("worker-shutdown-timeout", "1")
	p := startProxy(t, rest+portMap("tcp", strconv.Itoa(a), "default/one:80", strconv.Itoa(b), "default/one:80"), tcpFlag, configMapFlag)
	going, staying := dialService(t, a, "one"), dialService(t, b, "one")
	p.write("all.yaml", rest+portMap("tcp", strconv.Itoa(b), "default/one:80"))
	_ = going.SetDeadline(time.Now().Add(callTimeout))
	if _, err := going.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection of the port that is gone ends with %v, want a reset", err)
	}
	if err := staying.echoes(); err != nil {
		t.Error(err)
	}
}

// TestTCPServiceProblems: a port that another process has is a Problem until that one goes; entries beside it serve.
func TestTCPServiceProblems(t *testing.T) {
	one := named(t, "one")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, b := taken.Addr().(*net.TCPAddr).Port, freePort(t)
	p := startProxy(t, serviceOf("one", one.port())+portMap("tcp", strconv.Itoa(a), "default/one:80", strconv.Itoa(b), "default/one:80"), tcpFlag)
	dialService(t, b, "one")
	said := func() (text string) {
		for _, problem := range p.controller.Problems() {
			text += problem.String() + "\n"
		}
		return text
	}
	want := fmt.Sprintf("ConfigMap default/tcp: data[%d]: the TCP port cannot be opened", a)
	if text := said(); !strings.Contains(text, want) || !strings.Contains(text, "choose another port") || !strings.Contains(text, "all.yaml") {
		t.Errorf("the problems are %q, want one with %q", text, want)
	}
	_ = taken.Close()
	dialService(t, a, "one")
	within(t, callTimeout, "the Problem has gone", func() bool { return said() == "" })
}

// TestTCPServiceFailures has endpoints that refuse: the next one is asked, and where none is left the client sees a reset.
func TestTCPServiceFailures(t *testing.T) {
	one := named(t, "one")
	dead := freePort(t)
	some, none, empty := freePort(t), freePort(t), freePort(t)
	manifests := serviceOf("some", one.port(), dead) + serviceOf("none", dead) + serviceOf("empty") +
		portMap("tcp", strconv.Itoa(some), "default/some:80", strconv.Itoa(none), "default/none:80", strconv.Itoa(empty), "default/empty:80")
	p := startProxy(t, manifests, tcpFlag)
	for range 20 {
		dialService(t, some, "one").Close()
	}
	for _, port := range []int{none, empty} {
		if _, err := talk(port, "hello"); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("port %d, without an endpoint: %v, want a reset", port, err)
		}
	}
	for b := range p.store.Load().Services() {
		want := uint64(1)
		if int(b.Port) == some {
			want = 0
		}
		within(t, callTimeout, fmt.Sprintf("port %d: %d connections failed", b.Port, want), func() bool { return b.Stats.Failed.Load() == want })
	}
}

// TestTCPServiceNextUpstream: with proxy-stream-next-upstream: false the first endpoint is the only one that is asked.
func TestTCPServiceNextUpstream(t *testing.T) {
	one, port := named(t, "one"), freePort(t)
	startProxy(t, serviceOf("some", one.port(), freePort(t))+portMap("tcp", strconv.Itoa(port), "default/some:80")+
		configMapOf("proxy-stream-next-upstream", "false"), tcpFlag, configMapFlag)
	answers := map[bool]int{}
	for range 4 {
		answer, _ := talk(port, "")
		answers[answer == "one"]++
	}
	if answers[true] == 0 || answers[false] == 0 {
		t.Errorf("%d connections reached an endpoint, %d did not; of two endpoints one is dead", answers[true], answers[false])
	}
}

// talk sends a text on a connection of its own and answers all that comes back.
func talk(port int, text string) (string, error) {
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(callTimeout))
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	_ = c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), err
}

// TestTCPServiceProxyHeaders compares, byte for byte, what backends get with what nginx's stream module sends them.
func TestTCPServiceProxyHeaders(t *testing.T) {
	got := make(chan string, 1)
	b := newRawBackend(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		got <- string(all)
	})
	in, out, both, v2 := freePort(t), freePort(t), freePort(t), freePort(t)
	port := strconv.Itoa
	startProxy(t, serviceOf("sink", b.port())+portMap("tcp", port(in), "default/sink:80:PROXY", port(out), "default/sink:80::PROXY",
		port(both), "default/sink:80:PROXY:PROXY", port(v2), "default/sink:80:PROXY:PROXY", "sluice-proxy-protocol-"+port(v2), "v2"), tcpFlag)
	const v6 = "PROXY TCP6 2001:db8::9 2001:db8::1 5555 443\r\n"
	for _, c := range []struct {
		name    string
		port    int
		sent    string
		arrives string // %d: the client's port, then ours
	}{
		{"in", in, proxyV1 + "hello", "hello"},
		{"in, nothing behind it", in, proxyV1, ""},
		{"in, version 2", in, proxyV2("203.0.113.9:1", "192.0.2.1:8443", "\x04\x00\x03abc") + "hello", "hello"},
		{"out", out, "hello", "PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\nhello"},
		{"out, a header of the client's own", out, proxyV1, "PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" + proxyV1},
		{"both", both, proxyV1 + "hello", proxyV1 + "hello"},
		{"both, IPv6", both, v6 + "hello", v6 + "hello"},
		{"both, from version 2", both, proxyV2("203.0.113.9:5555", "192.0.2.1:443", "") + "hello", proxyV1 + "hello"},
		{"both, local", both, proxyV2Local + "hello", "PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\nhello"},
		{"version 2", v2, proxyV1 + "hello", proxyV2("203.0.113.9:5555", "192.0.2.1:443", "") + "hello"},
		{"version 2, IPv6", v2, v6 + "hello", proxyV2("[2001:db8::9]:5555", "[2001:db8::1]:443", "") + "hello"},
	} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port(c.port))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, c.sent)
		_ = conn.(*net.TCPConn).CloseWrite()
		if strings.Contains(c.arrives, "%d") {
			c.arrives = fmt.Sprintf(c.arrives, conn.LocalAddr().(*net.TCPAddr).Port, c.port)
		}
		select {
		case all := <-got:
			if all != c.arrives {
				t.Errorf("%s: the backend got %q, want %q", c.name, all, c.arrives)
			}
		case <-time.After(callTimeout):
			t.Fatalf("%s: the backend got nothing", c.name)
		}
		_ = conn.Close()
	}
	for _, sent := range []string{"hello, this is no header\r\n", proxyV1 + proxyV1, "PROXY TCP4 1.2.3.4\r\n"} {
		if answer, _ := talk(in, sent); answer != "" {
			t.Errorf("%q was answered %q", sent, answer)
		}
	}
	select {
	case all := <-got:
		t.Errorf("a connection without a good header reached the backend with %q", all)
	default:
	}
	beside := nginxStream(t, fmt.Sprintf("proxy_protocol on; proxy_pass 127.0.0.1:%d;", b.port()))
	<-got // of the question whether nginx listens
	for _, to := range []int{beside, out} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port(to))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "hello")
		_ = conn.(*net.TCPConn).CloseWrite()
		want := fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\nhello", conn.LocalAddr().(*net.TCPAddr).Port, to)
		if all := <-got; all != want {
			t.Errorf("port %d: the backend got %q, want %q", to, all, want)
		}
		_ = conn.Close()
	}
}

// TestTCPServiceProxyHeaderLive: an entry that asks for PROXY headers, for another version or for none any more, has its effect
// on connections that begin after it, while one that is open goes on as it began.
func TestTCPServiceProxyHeaderLive(t *testing.T) {
	got := make(chan string, 1)
	b := newRawBackend(t, func(c *net.TCPConn) {
		_ = c.SetDeadline(time.Time{})
		all, _ := io.ReadAll(c)
		got <- string(all)
	})
	port := freePort(t)
	key, rest := strconv.Itoa(port), serviceOf("sink", b.port())
	p := startProxy(t, rest+portMap("tcp", key, "default/sink:80"), tcpFlag)
	address := "127.0.0.1:" + key
	open, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	_, _ = io.WriteString(open, "before")
	within(t, callTimeout, "the connection is led on", func() bool { return p.passing() == 1 })
	for _, c := range []struct {
		entries []string
		header  func(from string) string
	}{
		{[]string{key, "default/sink:80::PROXY"}, func(from string) string {
			_, source, _ := net.SplitHostPort(from)
			return fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %s %d\r\n", source, port)
		}},
		{[]string{key, "default/sink:80::PROXY", "sluice-proxy-protocol-" + key, "v2"}, func(from string) string { return proxyV2(from, address, "") }},
		{[]string{key, "default/sink:80"}, func(string) string { return "" }},
	} {
		p.write("all.yaml", rest+portMap("tcp", c.entries...))
		within(t, callTimeout, fmt.Sprint("connections are as ", c.entries, " says"), func() bool {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "hello")
			_ = conn.(*net.TCPConn).CloseWrite()
			return <-got == c.header(conn.LocalAddr().String())+"hello"
		})
	}
	_, _ = io.WriteString(open, " and after")
	_ = open.(*net.TCPConn).CloseWrite()
	if all := <-got; all != "before and after" {
		t.Errorf("the backend of the connection that was open got %q", all)
	}
}

// nginxStream runs nginx with one server of its stream module, and answers its port. more stands beside it.
func nginxStream(t *testing.T, server string, more ...string) int {
	t.Helper()
	binary, err := exec.LookPath("nginx")
	module := "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, e := os.Stat(module); err != nil || e != nil {
		t.Skip("nginx's stream module is not installed: apt-get install libnginx-mod-stream")
	}
	dir, port := t.TempDir(), freePort(t)
	text := fmt.Sprintf("load_module %s;\ndaemon off; pid %s/pid; error_log %s/error.log;\nevents {}\nstream { %s server { listen 127.0.0.1:%d; %s } }\n",
		module, dir, dir, strings.Join(more, " "), port, server)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(binary, "-c", file, "-p", dir)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Signal(syscall.SIGTERM); _ = c.Wait() })
	within(t, callTimeout, "nginx listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return port
}

// TestTCPServicesUnderLoad has clients that connect anew for each exchange, while ports beside theirs come and go and the
// endpoints of their own change. Nothing is lost.
func TestTCPServicesUnderLoad(t *testing.T) {
	one, two := named(t, "x"), named(t, "x")
	a, b := freePort(t), freePort(t)
	manifest := func(n int) string {
		entries := []string{strconv.Itoa(a), "default/some:80"}
		if n%2 == 1 {
			entries = append(entries, strconv.Itoa(b), "default/some:80")
		}
		return serviceOf("some", [][]int{{one.port()}, {one.port(), two.port()}, {two.port()}}[n%3]...) + portMap("tcp", entries...)
	}
	p := startProxy(t, manifest(0), tcpFlag)
	dialService(t, a, "x").Close()
	var stop atomic.Bool
	var done atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for !stop.Load() {
				if answer, err := talk(a, "hello"); err != nil || answer != "xhello" {
					t.Errorf("%q, %v", answer, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for n := range 20 {
		p.write("all.yaml", manifest(n+1))
		from := done.Load()
		within(t, callTimeout, "clients go on", func() bool { return t.Failed() || done.Load() >= from+50 })
	}
	stop.Store(true)
	all.Wait()
}

// TestPassThroughProxyHeader: backends of a host that is passed through are told who the client is, before its hello.
func TestPassThroughProxyHeader(t *testing.T) {
	got := make(chan string, 1)
	b := newRawBackend(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		got <- string(all)
	})
	hosts := ""
	for _, version := range []string{"v1", "v2", "off"} {
		hosts += site{name: "pass-" + version, host: version + ".example", ports: []int{b.port()},
			annotations: map[string]string{"ssl-passthrough": "true", "sluice.dev/passthrough-proxy-protocol": version}}.yaml()
	}
	p := startProxy(t, hosts+configMapOf("use-proxy-protocol", "true"), configMapFlag)
	for version, want := range map[string]string{"v1": proxyV1, "v2": proxyV2("203.0.113.9:5555", "192.0.2.1:443", ""), "off": ""} {
		hello := string(helloOf(t, &tls.Config{ServerName: version + ".example"}))
		conn, err := net.Dial("tcp", p.HTTPS)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, proxyV1+hello)
		_ = conn.(*net.TCPConn).CloseWrite()
		select {
		case all := <-got:
			if all != want+hello {
				t.Errorf("%s: the backend got %.100q, want %q and the hello", version, all, want)
			}
		case <-time.After(callTimeout):
			t.Fatalf("%s: the backend got nothing", version)
		}
		_ = conn.Close()
	}
}

// TestTCPServiceIdle: a silent connection ends at proxy-stream-timeout, one that speaks now and then does not.
func TestTCPServiceIdle(t *testing.T) {
	one, port := named(t, "one"), freePort(t)
	startProxy(t, serviceOf("one", one.port())+portMap("tcp", strconv.Itoa(port), "default/one:80")+
		configMapOf("proxy-stream-timeout", "1s"), tcpFlag, configMapFlag)
	silent, speaking := dialService(t, port, "one"), dialService(t, port, "one")
	over := make(chan error, 1)
	go func() {
		_ = silent.SetDeadline(time.Now().Add(callTimeout))
		_, err := silent.Read(make([]byte, 1))
		over <- err
	}()
	for {
		if err := speaking.echoes(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-over:
			if err == nil || !strings.Contains(err.Error(), "reset") {
				t.Errorf("the silent connection ends with %v, want a reset", err)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}
