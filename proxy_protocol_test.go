package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file are about the PROXY protocol: who the client is, told by a load balancer in front.

const proxyV1 = "PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n"

// proxyV2 is a binary header for a TCP connection, with vectors behind the addresses.
func proxyV2(from, to string, vectors string) string {
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11")
	if src.Addr().Is6() {
		b[13] = 0x21
	}
	addresses := append(src.Addr().AsSlice(), dst.Addr().AsSlice()...)
	addresses = binary.BigEndian.AppendUint16(addresses, src.Port())
	addresses = binary.BigEndian.AppendUint16(addresses, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)+len(vectors)))
	return string(b) + string(addresses) + vectors
}

// proxyV2Local is what a load balancer's own health check sends.
const proxyV2Local = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

// headed sends a PROXY header before anything else.
type headed struct {
	net.Conn
	header string
	alone  bool // in a segment of its own
}

func (h *headed) Write(b []byte) (int, error) {
	header := h.header
	h.header = ""
	if h.alone && header != "" {
		if _, err := io.WriteString(h.Conn, header); err != nil {
			return 0, err
		}
		time.Sleep(20 * time.Millisecond)
		header = ""
	}
	n, err := h.Conn.Write(append([]byte(header), b...))
	return max(0, n-len(header)), err
}

// proxyProtocolWorld is a proxy that requires PROXY headers, with a plain, a TLS and a pass-through host.
func proxyProtocolWorld(t *testing.T, pass string, keys ...string) (*testProxy, *backend) {
	t.Helper()
	b := newBackend(t, "one", nil)
	p := startProxy(t, site{name: "plain", host: "plain.example", ports: []int{b.port()}}.yaml()+
		site{name: "secure", host: "secure.example", ports: []int{b.port()}, secret: "secure"}.yaml()+
		secretOf(t, "secure", issue(t, "secure.example"))+pass+configMapOf(append([]string{"use-proxy-protocol", "true"}, keys...)...), configMapFlag)
	return p, b
}

func TestProxyProtocol(t *testing.T) {
	pass := newRawBackend(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	withoutPeeking, _ := proxyProtocolWorld(t, "")
	peeking, _ := proxyProtocolWorld(t, passSite("pass", "pass.example", pass.port()), "proxy-real-ip-cidr", "10.0.0.0/8, 127.0.0.1")
	for _, c := range []struct{ name, header, client, port string }{
		{"v1, IPv4", proxyV1, "203.0.113.9", "443"},
		{"v1, IPv6", "PROXY TCP6 2001:db8::9 2001:db8::1 5555 443\r\n", "2001:db8::9", "443"},
		{"v1, unknown", "PROXY UNKNOWN\r\n", "127.0.0.1", ""},
		{"v1, unknown with more", "PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n", "127.0.0.1", ""},
		{"v2, IPv4", proxyV2("203.0.113.9:1", "192.0.2.1:8443", ""), "203.0.113.9", "8443"},
		{"v2, IPv6", proxyV2("[2001:db8::9]:1", "[2001:db8::1]:8443", ""), "2001:db8::9", "8443"},
		{"v2 with vectors", proxyV2("203.0.113.9:1", "192.0.2.1:8443", "\x04\x00\x03abc\x05\x00\x00"), "203.0.113.9", "8443"},
		{"v2, large", proxyV2("203.0.113.9:1", "192.0.2.1:8443", "\x04\x0b\xb8"+strings.Repeat("a", 3000)), "203.0.113.9", "8443"},
		{"v2, local", proxyV2Local, "127.0.0.1", ""},
	} {
		for shape, wrap := range map[string]func(net.Conn) net.Conn{
			"at once": func(n net.Conn) net.Conn { return &headed{Conn: n, header: c.header} },
			"alone":   func(n net.Conn) net.Conn { return &headed{Conn: n, header: c.header, alone: true} },
			"in bytes": func(n net.Conn) net.Conn {
				return &headed{Conn: &pieces{Conn: n, size: 1, limit: len(c.header) + 30}, header: c.header}
			},
			"in slow segements": func(n net.Conn) net.Conn {
				return &headed{Conn: &pieces{Conn: n, size: 20, limit: 60, pause: 10 * time.Millisecond}, header: c.header}
			},
		} {
			for _, p := range []*testProxy{withoutPeeking, peeking} {
				t.Run(c.name+" "+shape, func(t *testing.T) {
					t.Parallel()
					checkForwarded(t, &caller{address: p.HTTP, wrap: wrap}, "plain.example", c.client, c.port)
					checkForwarded(t, &caller{address: p.HTTPS, wrap: wrap, tls: trusting(t, "secure.example")}, "secure.example", c.client, c.port)
				})
			}
		}
	}
}

// checkForwarded holds what the backend is told about the client, on several requests of a connection. port "": the door's, which is
// 443 where it is that of --https-port. A client that connected to port 443 spoke TLS, whoever ended it.
func checkForwarded(t *testing.T, c *caller, host, client, port string) {
	t.Helper()
	defer c.hangUp()
	if port == "" && c.tls != nil {
		port = "443"
	} else if port == "" {
		_, port, _ = net.SplitHostPort(c.address)
	}
	proto := "http"
	if c.tls != nil || port == "443" {
		proto = "https"
	}
	for range 2 {
		a, err := c.call(request(host, "/", "X-Forwarded-For: 6.6.6.6"))
		if err != nil {
			t.Fatal(err)
		}
		a.want(t, 200, "one")
		for _, field := range []string{"X-Forwarded-For: " + client, "X-Real-IP: " + client, "X-Forwarded-Port: " + port, "X-Forwarded-Proto: " + proto} {
			if !strings.Contains(a.body, field+"\r\n") {
				t.Errorf("%s: the backend got no %s:\n%s", host, field, a.body)
			}
		}
	}
}

// TestProxyProtocolPassThrough: the header is taken off, what follows stays untouched.
func TestProxyProtocolPassThrough(t *testing.T) {
	got := make(chan []byte, 1)
	pass := newRawBackend(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		got <- all
	})
	p, _ := proxyProtocolWorld(t, passSite("pass", "pass.example", pass.port()))
	hello := helloOf(t, &tls.Config{ServerName: "pass.example"})
	for _, header := range []string{proxyV1, proxyV2("203.0.113.9:1", "192.0.2.1:8443", "\x04\x00\x03abc"), proxyV2Local} {
		for _, size := range []int{1, 7, 100_000} {
			conn, err := net.Dial("tcp", p.HTTPS)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := (&pieces{Conn: conn, size: size, limit: 300}).Write(append([]byte(header), hello...)); err != nil {
				t.Fatal(err)
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			if all := <-got; !bytes.Equal(all, hello) {
				t.Errorf("header %q in pieces of %d: the backend got %.60q, want %.60q", header, size, all, hello)
			}
		}
	}
}

func TestProxyProtocolRefused(t *testing.T) {
	p, b := proxyProtocolWorld(t, "")
	plain, hello := request("plain.example", "/"), string(helloOf(t, trusting(t, "secure.example")))
	for _, c := range []struct {
		name, http string // what is sent, and what comes back on the HTTP port; the HTTPS port gets a hello instead
		later      string // sent after a pause
		status     string // "": closed without a word
	}{
		{"no header", "", "", ""},
		{"a second header", proxyV1 + proxyV1, "", ""},
		{"a second header, version 2", proxyV1 + proxyV2("203.0.113.9:1", "192.0.2.1:8443", ""), "", ""},
		{"a second header later", proxyV1, proxyV1, "400"},
		{"an octet over 255", "PROXY TCP4 256.0.0.1 192.0.2.1 5555 443\r\n", "", ""},
		{"a port over 65535", "PROXY TCP4 203.0.113.9 192.0.2.1 70000 443\r\n", "", ""},
		{"another family", "PROXY UDP4 203.0.113.9 192.0.2.1 5555 443\r\n", "", ""},
		{"a long line", "PROXY TCP4 203.0.113.9 192.0.2.1 5555 443" + strings.Repeat(" ", 80) + "\r\n", "", ""},
		{"lower case", "proxy tcp4 203.0.113.9 192.0.2.1 5555 443\r\n", "", ""},
		{"vectors beyond their length", proxyV2("203.0.113.9:1", "192.0.2.1:8443", "\x04\x00\x30abc"), "", ""},
		{"over 4 KiB", proxyV2("203.0.113.9:1", "192.0.2.1:8443", "\x04\x13\x88"+strings.Repeat("a", 5000)), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for address, rest := range map[string]string{p.HTTP: plain, p.HTTPS: hello} {
				before := b.served.Load()
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if c.later == "" {
					_, _ = io.WriteString(conn, c.http+rest)
				} else {
					_, _ = io.WriteString(conn, c.http)
					time.Sleep(300 * time.Millisecond) // both at once would be another row
					_, _ = io.WriteString(conn, c.later+rest)
				}
				got, _ := ended(conn)
				if c.status == "" && got != "" || !strings.HasPrefix(got, "HTTP/1.1 "+c.status) && c.status != "" {
					t.Errorf("the answer is %.200q, want %q", got, c.status)
				}
				if b.served.Load() != before {
					t.Error("the backend was asked")
				}
			}
		})
	}
}

// TestProxyProtocolTrust has a peer that is not named in proxy-real-ip-cidr, with a header and without.
func TestProxyProtocolTrust(t *testing.T) {
	p, b := proxyProtocolWorld(t, "", "proxy-real-ip-cidr", "10.0.0.0/8")
	for _, address := range []string{p.HTTP, p.HTTPS} {
		for _, send := range []string{proxyV1 + request("plain.example", "/"), request("plain.example", "/"), ""} {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, send)
			began := time.Now()
			if got, _ := ended(conn); got != "" || time.Since(began) > time.Second {
				t.Errorf("a stranger got %q after %v", got, time.Since(began))
			}
		}
	}
	if b.served.Load() != 0 {
		t.Error("the backend was asked")
	}
	if n := p.door("http").Stats.Refused.Load(); n != 3 {
		t.Errorf("%d refusals are counted at the HTTP port, want 3", n)
	}
}

// TestDawdlers waits for the door's patience to end: with a PROXY header, a hello, a handshake or a first request that
// does not come.
func TestDawdlers(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for timeouts of seconds")
	}
	proxied, _ := proxyProtocolWorld(t, "")
	w := newTLSWorld(t)
	hello := helloOf(t, trusting(t, "exact.example"))
	var group sync.WaitGroup
	for _, c := range []struct {
		name, address, send string
		limit               time.Duration
	}{
		{"no PROXY header", proxied.HTTP, "", 3 * time.Second},
		{"half a PROXY header", proxied.HTTPS, "PROXY TCP4 203.0", 3 * time.Second},
		{"no hello", w.HTTPS, "", 5 * time.Second},
		{"half a hello", w.HTTPS, string(hello[:100]), 5 * time.Second},
		{"no Finished", w.HTTPS, string(hello), 10 * time.Second},
		{"no request", w.HTTP, "", 10 * time.Second},
		{"half a head", w.HTTP, "GET / HTTP/1.1\r\n", 10 * time.Second},
	} {
		group.Go(func() {
			conn, err := net.Dial("tcp", c.address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			_, _ = io.WriteString(conn, c.send)
			began := time.Now()
			got, _ := io.ReadAll(conn)
			if took := time.Since(began); took < c.limit-500*time.Millisecond || took > c.limit+2*time.Second {
				t.Errorf("%s: it ended after %v, want %v", c.name, took, c.limit)
			}
			if c.name == "half a head" && !strings.HasPrefix(string(got), "HTTP/1.1 408") {
				t.Errorf("%s: the answer is %q, want 408", c.name, got)
			}
		})
	}
	group.Wait()
}
