package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// These tests hold the rivals' configurations to "same work". They need the rivals' binaries and skip without:
// whoever has none cannot compare either.

// rival finds a candidate by the options' defaults, or skips.
func rival(t *testing.T, name string) candidate {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	c, err := candidates[name](t.Context(), options{nginx: "nginx", haproxy: "haproxy", caddy: "caddy", traefik: "traefik", envoy: "envoy"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// testRig is a rig whose plain origin is a recorder of request heads.
func testRig(t *testing.T) (*rig, <-chan http.Header) {
	t.Helper()
	dir := t.TempDir()
	c, err := newCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	port, heads := recorder(t)
	descriptors, err := raiseDescriptorLimit()
	if err != nil {
		t.Fatal(err)
	}
	return &rig{
		dir: dir, certificate: c, descriptors: descriptors,
		origin: &origin{plainPort: port, tlsPort: port},
	}, heads
}

// recorder is an origin that keeps the last head, Host included.
func recorder(t *testing.T) (int, <-chan http.Header) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	heads := make(chan http.Header, 16)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go record(conn, heads)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, heads
}

func record(conn net.Conn, heads chan<- http.Header) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		request.Header.Set("Host", request.Host)
		heads <- request.Header
		if _, err := conn.Write(answerSmall); err != nil {
			return
		}
	}
}

func TestRivalsDoTheSameWork(t *testing.T) {
	for _, name := range []string{"nginx", "haproxy", "caddy", "traefik", "envoy"} {
		t.Run(name, func(t *testing.T) {
			c := rival(t, name)
			r, heads := testRig(t)
			p, err := r.launch(t.Context(), c, shape{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.stop()
			<-heads // launch's own
			checkForwarded(t, askWithHopByHop(t, load{address: p.plain, host: hostBench}, heads), "http", p.plain)
			secured := load{address: p.tls, host: hostBench, tls: r.certificate.client(hostBench, false)}
			checkForwarded(t, askWithHopByHop(t, secured, heads), "https", p.tls)
			checkOtherHost(t, p)
		})
	}
}

func askWithHopByHop(t *testing.T, l load, heads <-chan http.Header) http.Header {
	t.Helper()
	conn, err := dial(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	message := "GET /128 HTTP/1.1\r\nHost: " + l.host + "\r\nKeep-Alive: 5\r\nTE: trailers\r\n" +
		"X-Forwarded-For: 1.2.3.4\r\nConnection: keep-alive\r\n\r\n"
	var answer answerParser
	if err := exchange(conn, []byte(message), make([]byte, 4096), &answer); err != nil {
		t.Fatal(err)
	}
	if !answer.right(sizeSmall) {
		t.Fatalf("answer: %+v", answer)
	}
	select {
	case head := <-heads:
		return head
	case <-time.After(5 * time.Second):
		t.Fatal("nothing reached the origin")
		return nil
	}
}

func checkForwarded(t *testing.T, head http.Header, proto, address string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(address)
	want := map[string]string{
		"Host":              hostBench,
		"X-Forwarded-For":   "127.0.0.1",
		"X-Forwarded-Proto": proto,
		"X-Forwarded-Host":  hostBench,
		"X-Forwarded-Port":  port,
		"X-Real-Ip":         "127.0.0.1",
		"Keep-Alive":        "",
		"Te":                "",
		"Connection":        "",
	}
	for name, value := range want {
		if got := strings.Join(head.Values(name), "|"); got != value {
			t.Errorf("%s %s: %q, want %q", proto, name, got, value)
		}
	}
}

func checkOtherHost(t *testing.T, p *running) {
	t.Helper()
	_, err := probe(t.Context(), load{address: p.plain, host: "other.example", path: pathSmall})
	if err == nil {
		t.Error("a host that is not configured was served")
	}
}

// ticketCounter counts the session tickets that a client gets.
type ticketCounter struct{ n atomic.Int32 }

func (*ticketCounter) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *ticketCounter) Put(_ string, state *tls.ClientSessionState) {
	if state != nil {
		c.n.Add(1)
	}
}

func TestRivalsSendTicketsWhenModernOnly(t *testing.T) {
	for _, name := range []string{"nginx", "haproxy", "caddy", "traefik", "envoy"} {
		for _, modern := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s-%v", name, modern), func(t *testing.T) {
				c := rival(t, name)
				r, _ := testRig(t)
				p, err := r.launch(t.Context(), c, shape{Modern: modern})
				if err != nil {
					t.Fatal(err)
				}
				defer p.stop()
				counter := &ticketCounter{}
				config := r.certificate.client(hostBench, true)
				config.ClientSessionCache = counter
				if _, err := probe(context.Background(), load{address: p.tls, host: hostBench, path: pathSmall, tls: config}); err != nil {
					t.Fatal(err)
				}
				if got := counter.n.Load() > 0; got != modern {
					t.Errorf("modern %v: %d tickets", modern, counter.n.Load())
				}
			})
		}
	}
}

// TestRivalsSpeakAll makes one request of every protocol that a scenario may want.
func TestRivalsSpeakAll(t *testing.T) {
	plain, _, _, _ := startTestOrigin(t)
	_, port, _ := net.SplitHostPort(plain)
	for _, name := range []string{"nginx", "haproxy", "caddy", "traefik", "envoy"} {
		t.Run(name, func(t *testing.T) {
			c := rival(t, name)
			r, _ := testRig(t)
			r.origin.plainPort, _ = strconv.Atoi(port)
			p, err := r.launch(t.Context(), c, shape{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.stop()
			h2, calls := r.certificate.clientHTTP2(hostBench), r.certificate.clientHTTP2(hostGRPC)
			for what, l := range map[string]load{
				"HTTP/2":          {address: p.tls, host: hostBench, path: pathSmall, speaks: speakHTTP2, tls: h2},
				"HTTP/2 bulk":     {address: p.tls, host: hostBench, path: pathBulk, speaks: speakHTTP2, tls: h2},
				"HTTP/2, sent up": {address: p.tls, host: hostBench, path: pathSmall, speaks: speakHTTP2, upload: sizeBulk, tls: h2},
				"gRPC":            {address: p.tls, host: hostGRPC, speaks: speakGRPC, tls: calls},
				"WebSocket":       {address: p.plain, host: hostBench, speaks: speakWebSocket},
			} {
				if _, err := probe(t.Context(), l); err != nil {
					t.Errorf("%s: %v\n%s", what, err, p.tail)
				}
			}
		})
	}
}

// TestRivalsServices makes a request to the port of a TCP service, and a question to that of a UDP service, of each that has one.
func TestRivalsServices(t *testing.T) {
	plain, _, _, counts := startTestOrigin(t)
	datagrams := startDatagrams(t, counts)
	for _, name := range []string{"nginx", "haproxy"} {
		t.Run(name, func(t *testing.T) {
			c := rival(t, name)
			r, _ := testRig(t)
			for at, port := range map[string]*int{plain: &r.origin.plainPort, datagrams: &r.origin.udpPort} {
				_, text, _ := net.SplitHostPort(at)
				*port, _ = strconv.Atoi(text)
			}
			p, err := r.launch(t.Context(), c, shape{Services: true})
			if err != nil {
				t.Fatal(err)
			}
			defer p.stop()
			if noService(serviceTCP)(c) == nil {
				if _, err := probe(t.Context(), load{address: local(p.deployment.TCP), host: hostBench, path: pathSmall}); err != nil {
					t.Errorf("TCP: %v\n%s", err, p.tail)
				}
			}
			if noService(serviceUDP)(c) == nil {
				got, err := loadDatagrams(t.Context(), load{address: local(p.deployment.UDP), conns: 1}, 100*time.Millisecond)
				for longer := time.Second; err == nil && got.requests == 0 && longer < 10*time.Second; longer *= 4 { // a busy machine
					got, err = loadDatagrams(t.Context(), load{address: local(p.deployment.UDP), conns: 1}, longer)
				}
				if err != nil || got.requests == 0 || got.bad > 0 {
					t.Errorf("UDP: %+v, %v\n%s", got, err, p.tail)
				}
			}
		})
	}
}
