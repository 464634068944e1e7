package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/route"
)

// The tests of this file are about UDP services.

const udpFlag = "--udp-services-configmap=default/udp"

// udpService is a Service without an Ingress whose endpoints take datagrams.
func udpService(name string, ports ...int) string {
	text := serviceOf(name, ports...)
	text = strings.Replace(text, "{name: main, port: 80}", "{name: main, port: 80, protocol: UDP}", 1)
	for _, port := range ports {
		text = strings.Replace(text, fmt.Sprintf("ports: [{name: main, port: %d}]", port), fmt.Sprintf("ports: [{name: main, port: %d, protocol: UDP}]", port), 1)
	}
	return text
}

// udpEcho answers each datagram with its name and the datagram, times over.
type udpEcho struct{ *net.UDPConn }

func newUDPEcho(t testing.TB, name string, times int) *udpEcho {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	e := &udpEcho{c}
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			for range times {
				_, _ = c.WriteToUDPAddrPort(append([]byte(name), b[:n]...), from)
			}
		}
	}()
	return e
}

func (e *udpEcho) port() int { return e.LocalAddr().(*net.UDPAddr).Port }

func dialUDP(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a datagram and answers what comes back, "" after a while.
func askUDP(c net.Conn, text string, limit time.Duration) string {
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := c.Write([]byte(text)); err != nil {
		return ""
	}
	b := make([]byte, 64<<10)
	n, _ := c.Read(b)
	return string(b[:n])
}

func reaches(t testing.TB, address, want string) {
	t.Helper()
	within(t, callTimeout, address+" leads to "+want, func() bool {
		c, err := net.Dial("udp", address)
		if err != nil {
			return false
		}
		defer c.Close()
		return askUDP(c, "?", 200*time.Millisecond) == want+"?"
	})
}

func (p *testProxy) udpStats(port int) *route.ServiceStats {
	if b := p.store.Load().Service(route.UDP, uint16(port)); b != nil {
		return b.Stats
	}
	return new(route.ServiceStats)
}

// TestUDPServices adds, changes and takes out ports live, and counts.
func TestUDPServices(t *testing.T) {
	one, two := newUDPEcho(t, "one", 1), newUDPEcho(t, "two", 1)
	services := udpService("one", one.port()) + udpService("two", two.port())
	a, b := freePort(t), freePort(t)
	at := func(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
	p := startProxy(t, services+portMap("udp", strconv.Itoa(a), "default/one:80"), udpFlag)
	c := dialUDP(t, at(a))
	for n := range 50 {
		text := strings.Repeat("x", n*1000)
		if got := askUDP(c, text, callTimeout); got != "one"+text {
			t.Fatalf("%d bytes: %.50q came back", len(text), got)
		}
	}
	within(t, callTimeout, "all sessions have ended with their answers", func() bool { return p.passing() == 0 })
	if s := p.udpStats(a); s.Begun.Load() != 50 || s.Failed.Load()+s.Dropped.Load() != 0 || s.Sent.Load() != s.Received.Load()+150 {
		t.Errorf("%d sessions, %d failed, %d dropped, %d bytes received, %d sent", s.Begun.Load(), s.Failed.Load(), s.Dropped.Load(), s.Received.Load(), s.Sent.Load())
	}
	p.write("all.yaml", services+portMap("udp", strconv.Itoa(a), "default/two:main", strconv.Itoa(b), "default/one:80"))
	reaches(t, at(a), "two")
	reaches(t, at(b), "one")
	if got := askUDP(c, "?", callTimeout); got != "two?" {
		t.Errorf("the first client gets %q", got)
	}
	p.write("all.yaml", services+portMap("udp", strconv.Itoa(b), "default/one:80"))
	within(t, callTimeout, "the port is closed", func() bool {
		other, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at(a))))
		if err == nil {
			_ = other.Close()
		}
		return err == nil
	})
	reaches(t, at(b), "one")
}

// TestUDPPortComesBack: a port that is taken out while its sessions wait for answers, and named again, does not wait for them.
func TestUDPPortComesBack(t *testing.T) {
	one, port := newUDPEcho(t, "one", 1), freePort(t)
	services := udpService("one", one.port()) + configMapOf("proxy-stream-responses", "1000")
	entry := portMap("udp", strconv.Itoa(port), "default/one:80")
	p := startProxy(t, services+entry, udpFlag, configMapFlag)
	c := dialUDP(t, "127.0.0.1:"+strconv.Itoa(port))
	for range 2 {
		within(t, callTimeout, "an answer", func() bool { return askUDP(c, "?", 200*time.Millisecond) == "one?" })
		if p.passing() == 0 {
			t.Fatal("no session waits for answers")
		}
		p.write("all.yaml", services+portMap("udp"))
		within(t, callTimeout, "the port is not named any more", func() bool { return p.store.Load().Service(route.UDP, uint16(port)) == nil })
		p.write("all.yaml", services+entry)
	}
	began := time.Now()
	within(t, callTimeout, "an answer", func() bool { return askUDP(c, "?", 200*time.Millisecond) == "one?" })
	if d := time.Since(began); d > 4*time.Second { // sessions that wait have 5 s
		t.Errorf("the port came back after %v", d)
	}
	within(t, callTimeout, "no Problem is left", func() bool { return len(p.controller.Problems()) == 0 })
}

// TestUDPSessions: of an endpoint that answers three times a client gets what proxy-stream-responses says, from the port
// that it asked, and one session does for all of its datagrams.
func TestUDPSessions(t *testing.T) {
	three, port := newUDPEcho(t, "", 3), freePort(t)
	p := startProxy(t, udpService("three", three.port())+portMap("udp", strconv.Itoa(port), "default/three:80")+
		configMapOf("proxy-stream-responses", "2", "proxy-stream-timeout", "2s"), udpFlag, configMapFlag)
	c := dialUDP(t, "127.0.0.1:"+strconv.Itoa(port))
	_ = c.SetDeadline(time.Now().Add(callTimeout))
	_, _ = c.Write([]byte("hello"))
	b := make([]byte, 100)
	for range 2 {
		if n, err := c.Read(b); err != nil || string(b[:n]) != "hello" {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	within(t, callTimeout, "the session's end", func() bool { return p.passing() == 0 })
	_ = c.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(b); err == nil {
		t.Errorf("a third answer came: %q", b[:n])
	}
}

// TestUDPFailures: an endpoint that nobody listens at costs the datagram that finds it out; the next ones go elsewhere.
func TestUDPFailures(t *testing.T) {
	one := newUDPEcho(t, "one", 1)
	some, none, empty := freePort(t), freePort(t), freePort(t)
	p := startProxy(t, udpService("some", one.port(), freePort(t))+udpService("none", freePort(t))+udpService("empty")+portMap("udp", strconv.Itoa(some), "default/some:80",
		strconv.Itoa(none), "default/none:80", strconv.Itoa(empty), "default/empty:80"), udpFlag)
	lost := 0
	c := dialUDP(t, "127.0.0.1:"+strconv.Itoa(some))
	for range 20 {
		if askUDP(c, "?", 200*time.Millisecond) != "one?" {
			lost++
		}
	}
	if lost > 2 { // two failures in a row eject it
		t.Errorf("%d of 20 datagrams had no answer", lost)
	}
	for _, port := range []int{none, empty} {
		if got := askUDP(dialUDP(t, "127.0.0.1:"+strconv.Itoa(port)), "?", 100*time.Millisecond); got != "" {
			t.Errorf("%q came from nowhere", got)
		}
		within(t, callTimeout, "the failure is counted", func() bool { return p.udpStats(port).Failed.Load() == 1 })
	}
	within(t, callTimeout, "no session is left", func() bool { return p.passing() == 0 })
}

// TestUDPSessionsMax: more clients than there may be sessions push out the one that was silent longest; idle ones end.
func TestUDPSessionsMax(t *testing.T) {
	silent, port := newUDPEcho(t, "", 0), freePort(t)
	p := startProxy(t, udpService("silent", silent.port())+portMap("udp", strconv.Itoa(port), "default/silent:80")+
		configMapOf("sluice-udp-sessions-max", "10", "proxy-stream-timeout", "1s"), udpFlag, configMapFlag)
	for n := range 30 {
		_, _ = dialUDP(t, "127.0.0.1:"+strconv.Itoa(port)).Write([]byte("?"))
		within(t, callTimeout, "the session", func() bool { return p.udpStats(port).Begun.Load() == uint64(n+1) })
		if n := p.udpStats(port).Active.Load(); n > 10 {
			t.Fatalf("%d sessions are open", n)
		}
	}
	if n := p.udpStats(port).Evicted.Load(); n != 20 {
		t.Errorf("%d sessions made room, want 20", n)
	}
	within(t, callTimeout, "idle sessions end", func() bool { return p.passing() == 0 })
}

// TestUDPFlood: datagrams of thousands of sources that nobody answers take the bounded number of sessions and no more, and a
// client that speaks in between keeps the session that it had.
func TestUDPFlood(t *testing.T) {
	const sessionsMax, sources, turn = 200, 4000, 100
	residents := map[netip.AddrPort]bool{} // the session's address towards the endpoint
	var mu sync.Mutex
	endpoint, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer endpoint.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := endpoint.ReadFromUDPAddrPort(b)
			switch {
			case err != nil:
				return
			case b[0] == '?':
				mu.Lock()
				residents[from] = true
				mu.Unlock()
				_, _ = endpoint.WriteToUDPAddrPort(b[:n], from)
			}
		}
	}()
	port := freePort(t)
	p := startProxy(t, udpService("dns", (&udpEcho{endpoint}).port())+portMap("udp", strconv.Itoa(port), "default/dns:80")+
		configMapOf("sluice-udp-sessions-max", strconv.Itoa(sessionsMax), "proxy-stream-responses", "1000000"), udpFlag, configMapFlag)
	resident, stats := dialUDP(t, "127.0.0.1:"+strconv.Itoa(port)), p.udpStats(port)
	for n := range sources {
		if n%turn == 0 { // nothing is lost: the queue holds a turn's datagrams, and the answer says that they are taken
			if text := fmt.Sprint("?", n); askUDP(resident, text, callTimeout) != text {
				t.Fatalf("after %d other sources the client has no answer", n)
			}
			if n := stats.Active.Load(); n > sessionsMax {
				t.Fatalf("%d sessions are open", n)
			}
		}
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("flood"))
		_ = c.Close()
	}
	within(t, callTimeout, "all sources are seen", func() bool { return stats.Begun.Load() == sources+1 })
	if n := stats.Evicted.Load(); n != sources+1-sessionsMax || stats.Active.Load() != sessionsMax {
		t.Errorf("%d sessions made room and %d are open, want %d and %d", n, stats.Active.Load(), sources+1-sessionsMax, sessionsMax)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(residents) != 1 {
		t.Errorf("the client that speaks had %d sessions", len(residents))
	}
}

// TestUDPUnderLoad asks like DNS clients, while endpoints and ports come and go. Nothing is lost.
func TestUDPUnderLoad(t *testing.T) {
	one, two := newUDPEcho(t, "", 1), newUDPEcho(t, "", 1)
	a, b := freePort(t), freePort(t)
	manifest := func(n int) string {
		entries := []string{strconv.Itoa(a), []string{"default/some:80", "default/other:80"}[n/2%2]}
		if n%2 == 1 {
			entries = append(entries, strconv.Itoa(b), "default/some:80")
		}
		return udpService("some", [][]int{{one.port()}, {one.port(), two.port()}, {two.port()}}[n%3]...) + udpService("other", two.port()) + portMap("udp", entries...)
	}
	p := startProxy(t, manifest(0), udpFlag)
	reaches(t, "127.0.0.1:"+strconv.Itoa(a), "")
	stop, done := clientsOfUDP(t, "127.0.0.1:"+strconv.Itoa(a))
	for n := range 20 {
		p.write("all.yaml", manifest(n+1))
		from := done.Load()
		within(t, callTimeout, "clients go on", func() bool { return t.Failed() || done.Load() >= from+200 })
	}
	stop()
	if s := p.udpStats(a); s.Dropped.Load() != 0 {
		t.Errorf("%d datagrams went nowhere", s.Dropped.Load())
	}
}

// clientsOfUDP ask until they are stopped, with one datagram under way each. One without an answer is an error.
func clientsOfUDP(t *testing.T, address string) (stop func(), done *atomic.Int64) {
	var ending atomic.Bool
	done = new(atomic.Int64)
	var all sync.WaitGroup
	for i := range 4 {
		c := dialUDP(t, address)
		all.Go(func() {
			for n := 0; !ending.Load(); n++ {
				text := fmt.Sprintf("client %d, question %d", i, n)
				if got := askUDP(c, text, callTimeout); got != text {
					t.Errorf("%q was answered %q", text, got)
					return
				}
				done.Add(1)
			}
		})
	}
	return func() { ending.Store(true); all.Wait() }, done
}

// TestServicesRollOut passes the ports of services from process to process under load.
func TestServicesRollOut(t *testing.T) {
	r := newRelay(t, "127.0.0.1", "--reuse-port", "--admin-address=", tcpFlag, udpFlag)
	echo, tcp := newUDPEcho(t, "", 1), named(t, "x")
	udpPort, tcpPort := freePort(t), freePort(t)
	manifests := udpService("dns", echo.port()) + serviceOf("echo", tcp.port()) + portMap("udp", strconv.Itoa(udpPort), "default/dns:80") +
		portMap("tcp", strconv.Itoa(tcpPort), "default/echo:80")
	if err := os.WriteFile(r.dir+"/services.yaml", []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	present := r.next()
	stop, done := clientsOfUDP(t, "127.0.0.1:"+strconv.Itoa(udpPort))
	var ending atomic.Bool
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for !ending.Load() {
				if answer, err := talk(tcpPort, "hello"); err != nil || answer != "xhello" {
					t.Errorf("%q, %v", answer, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for n := range 3 {
		from := done.Load()
		within(t, callTimeout, "clients go on", func() bool { return t.Failed() || done.Load() >= from+200 })
		if n == 2 {
			present.signal(syscall.SIGUSR2)
			pid, _ := strconv.Atoi(present.logged(`a successor starts; .* pid=(\d+)`)[1])
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
			present.logged(`msg="the successor serves"`)
			within(t, 40*time.Second, "the predecessor ends", func() bool { return gone(present.Process.Pid) })
			break
		}
		next := r.next()
		present.signal(syscall.SIGTERM)
		present.ends(40*time.Second, 0)
		present = next
	}
	from := done.Load()
	within(t, callTimeout, "clients go on", func() bool { return t.Failed() || done.Load() >= from+200 })
	ending.Store(true)
	stop()
	all.Wait()
}
