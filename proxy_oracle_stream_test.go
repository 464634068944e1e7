package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestOracleStream compares services of TCP and UDP with nginx's stream module.
func TestOracleStream(t *testing.T) {
	for name, run := range oracleStreams {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}

// oracleStreams are the rows of TestOracleStream.
var oracleStreams = map[string]func(*testing.T){
	"tcp":                  streamEcho,
	"proxy-stream-timeout": streamTimeout,
	"proxy-stream-next-upstream": func(t *testing.T) {
		streamTries(t, "proxy_next_upstream off;", freePort(t), true, "proxy-stream-next-upstream", "false")
	},
	"proxy-stream-next-upstream-tries": func(t *testing.T) {
		streamTries(t, "proxy_next_upstream_tries 1;", freePort(t), true, "proxy-stream-next-upstream-tries", "1")
	},
	"proxy-stream-next-upstream-timeout": func(t *testing.T) {
		streamTries(t, "proxy_connect_timeout 1s; proxy_next_upstream_timeout 500ms;", silentPort(t), true, "proxy-connect-timeout", "1", "proxy-stream-next-upstream-timeout", "500ms")
	},
	"proxy-stream-next-upstream-timeout, long": func(t *testing.T) {
		streamTries(t, "proxy_connect_timeout 1s; proxy_next_upstream_timeout 10m;", silentPort(t), false, "proxy-connect-timeout", "1", "proxy-stream-next-upstream-timeout", "10m")
	},
	"the next endpoint": func(t *testing.T) {
		streamTries(t, "proxy_next_upstream on;", freePort(t), false, "proxy-stream-next-upstream", "true")
	},
	"proxy-stream-responses":    streamResponses,
	"stream-access-log-path":    func(t *testing.T) { streamLogs(t, "FILE plain", false) },
	"disable-stream-access-log": func(t *testing.T) { streamLogs(t, "off", true, "disable-stream-access-log", "true") },
}

// besideStream is this proxy with one TCP service, and nginx with the same.
func besideStream(t *testing.T, directives string, ports []int, keys ...string) [2]int {
	t.Helper()
	servers := ""
	for _, p := range ports {
		servers += fmt.Sprintf("server 127.0.0.1:%d max_fails=0; ", p)
	}
	theirs := nginxStream(t, "proxy_pass all; "+directives, "upstream all { "+servers+"}")
	ours := freePort(t)
	startProxy(t, serviceOf("all", ports...)+portMap("tcp", strconv.Itoa(ours), "default/all:80")+configMapOf(keys...), tcpFlag, configMapFlag)
	return [2]int{ours, theirs}
}

func streamEcho(t *testing.T) {
	one := named(t, "one")
	for _, port := range besideStream(t, "", []int{one.port()}) {
		if err := dialService(t, port, "one").echoes(); err != nil {
			t.Errorf("port %d: %v", port, err)
		}
	}
}

// streamTimeout: a silent connection ends, by this proxy with a reset.
func streamTimeout(t *testing.T) {
	one := named(t, "one")
	for _, port := range besideStream(t, "proxy_timeout 1s;", []int{one.port()}, "proxy-stream-timeout", "1s") {
		c := dialService(t, port, "one")
		began := time.Now()
		_ = c.SetDeadline(began.Add(30 * time.Second))
		n, err := c.Read(make([]byte, 1))
		if took := time.Since(began); n > 0 || err != io.EOF && !isReset(err) || took < 500*time.Millisecond {
			t.Errorf("port %d: %d bytes, %v after %v", port, n, err, took)
		}
	}
}

// streamTries: of two endpoints one is dead or silent. Who comes to it either fails, or gets to the other one.
func streamTries(t *testing.T, directives string, dead int, fails bool, keys ...string) {
	one := named(t, "one")
	for _, port := range besideStream(t, directives, []int{dead, one.port()}, keys...) {
		reached, failed := 0, 0
		for n := 0; n < 4 || fails && n < 100 && (reached == 0 || failed == 0); n++ { // each loop has its own turn
			if greets(t, port) == "one" {
				reached++
			} else {
				failed++
			}
		}
		if reached == 0 || (failed > 0) != fails {
			t.Errorf("port %d: %d reached an endpoint, %d did not", port, reached, failed)
		}
	}
}

// greets is what a service says first; "": the connection ends.
func greets(t *testing.T, port int) string {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if isReset(err) {
		return "" // it came before Dial was done
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 3)
	n, _ := io.ReadFull(c, b)
	return string(b[:n])
}

// streamResponses: a datagram has two answers, and the next one too.
func streamResponses(t *testing.T) {
	two, ours, theirs := newUDPEcho(t, "", 2), freePort(t), freePort(t)
	nginxStream(t, "return ok;", fmt.Sprintf("server { listen 127.0.0.1:%d udp; proxy_responses 2; proxy_pass 127.0.0.1:%d; }", theirs, two.port()))
	startProxy(t, udpService("two", two.port())+portMap("udp", strconv.Itoa(ours), "default/two:80")+configMapOf("proxy-stream-responses", "2"), udpFlag, configMapFlag)
	for _, port := range []int{ours, theirs} {
		c, got := dialUDP(t, "127.0.0.1:"+strconv.Itoa(port)), ""
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		for _, text := range []string{"a", "b"} {
			_, _ = io.WriteString(c, text)
			b := make([]byte, 10)
			for range 2 {
				n, err := c.Read(b)
				if err != nil {
					t.Fatalf("port %d: %v after %q", port, err, got)
				}
				got += string(b[:n])
			}
		}
		if got != "aabb" {
			t.Errorf("port %d: %q", port, got)
		}
	}
}

// TestOraclePassThrough: a host that is passed through shows its backend's own certificate, others do not, as with nginx's
// ssl_preread.
func TestOraclePassThrough(t *testing.T) {
	own, under := issue(t, "pass.example"), issue(t, "under.example")
	secured, plain := newBackend(t, "secured", own), newBackend(t, "plain", nil)
	terminated := newBackend(t, "plain", under) // nginx's server behind it, as ingress-nginx has one
	theirs := nginxStream(t, "ssl_preread on; proxy_pass $way;", fmt.Sprintf("map $ssl_preread_server_name $way { pass.example 127.0.0.1:%d; default 127.0.0.1:%d; }", secured.port(), terminated.port()))
	p := startProxy(t, passSite("pass", "pass.example", secured.port())+site{name: "under", host: "under.example", ports: []int{plain.port()}, secret: "under"}.yaml()+secretOf(t, "under", under))
	for _, host := range []string{"pass.example", "under.example", "PASS.example"} {
		var both [2]string
		for i, address := range []string{p.HTTPS, net.JoinHostPort("127.0.0.1", strconv.Itoa(theirs))} {
			c := &caller{address: address, tls: trusting(t, host)}
			a, err := c.call(request(host, "/"))
			if err != nil {
				t.Fatalf("%s at %s: %v", host, address, err)
			}
			name, _, _ := strings.Cut(a.body, "\n")
			both[i] = name
			if c.conn != nil {
				both[i] += " " + c.conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
			}
			c.hangUp()
		}
		if both[0] != both[1] {
			t.Errorf("%s: %q, nginx %q", host, both[0], both[1])
		}
	}
}
