package l7

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// TestForwarded: what a backend learns about the client, from whom that is believed.
func TestForwarded(t *testing.T) {
	loopback, other := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("198.51.100.0/24")
	const said = "X-Forwarded-For: 203.0.113.1, 198.51.100.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: said.example\r\nX-Forwarded-Port: 8443\r\n" +
		"X-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\nX-Scheme: gopher\r\nX-Original-Forwarded-For: 8.8.8.8\r\n"
	for _, c := range []struct {
		name string
		set  func(*Settings)
		send string
		want map[string]string
	}{
		{name: "nobody is trusted", send: said, set: func(*Settings) {},
			want: map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example",
				"X-Forwarded-Port": "80", "X-Scheme": "http", "Forwarded": "", "X-Original-Forwarded-For": "203.0.113.1, 198.51.100.7",
				"X-Original-Forwarded-Host": "said.example", "Host": "shop.example"}},
		{name: "trusted, but not used", send: said, set: func(s *Settings) { s.TrustedPeers = []netip.Prefix{loopback} },
			want: map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http"}},
		{name: "use-forwarded-headers", send: said, set: func(s *Settings) { s.TrustedPeers, s.UseForwardedHeaders = []netip.Prefix{loopback}, true },
			want: map[string]string{"X-Forwarded-For": "198.51.100.7", "X-Real-IP": "198.51.100.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "said.example",
				"X-Forwarded-Port": "8443", "X-Scheme": "https", "Forwarded": "", "Host": "said.example", "X-Original-Forwarded-Host": "said.example"}},
		{name: "… of several hosts the first", send: "X-Forwarded-Host: a.example:81 , b.example,c.example\r\nX-Original-Forwarded-Host: x\r\n",
			set:  func(s *Settings) { s.TrustedPeers, s.UseForwardedHeaders = []netip.Prefix{loopback}, true },
			want: map[string]string{"Host": "a.example:81", "X-Forwarded-Host": "a.example:81", "X-Original-Forwarded-Host": "a.example:81 , b.example,c.example"}},
		{name: "… of none that is a host", send: "X-Forwarded-Host: a@b/c\r\n",
			set:  func(s *Settings) { s.TrustedPeers, s.UseForwardedHeaders = []netip.Prefix{loopback}, true },
			want: map[string]string{"Host": "shop.example", "X-Forwarded-Host": "shop.example"}},
		{name: "… and an empty one", send: "X-Forwarded-Host: ,b.example\r\n",
			set:  func(s *Settings) { s.TrustedPeers, s.UseForwardedHeaders = []netip.Prefix{loopback}, true },
			want: map[string]string{"Host": "shop.example", "X-Forwarded-Host": "shop.example"}},
		{name: "the port of https is 443", set: func(s *Settings) { s.HTTPSPort = 80 }, // of the port that the rig says it has
			want: map[string]string{"X-Forwarded-Port": "443"}},
		{name: "… from another peer", send: said, set: func(s *Settings) { s.TrustedPeers, s.UseForwardedHeaders = []netip.Prefix{other}, true },
			want: map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example", "Host": "shop.example"}},
		{name: "a chain of trusted ones", send: said, set: func(s *Settings) { s.TrustedPeers, s.UseForwardedHeaders = []netip.Prefix{loopback, other}, true },
			want: map[string]string{"X-Forwarded-For": "203.0.113.1", "X-Real-IP": "203.0.113.1"}},
		{name: "compute-full-forwarded-for", send: said, set: func(s *Settings) {
			s.TrustedPeers, s.UseForwardedHeaders, s.ComputeFullForwarded = []netip.Prefix{loopback}, true, true
		}, want: map[string]string{"X-Forwarded-For": "203.0.113.1, 198.51.100.7, 127.0.0.1", "X-Real-IP": "198.51.100.7"}},
		{name: "… of nobody who is trusted", send: said, set: func(s *Settings) { s.UseForwardedHeaders, s.ComputeFullForwarded = true, true },
			want: map[string]string{"X-Forwarded-For": "127.0.0.1"}},
		{name: "enable-real-ip: the address only", send: said, set: func(s *Settings) { s.TrustedPeers, s.RealIP = []netip.Prefix{loopback}, true },
			want: map[string]string{"X-Forwarded-For": "198.51.100.7", "X-Real-IP": "198.51.100.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example", "X-Forwarded-Port": "80", "Host": "shop.example"}},
		{name: "forwarded-for-header", send: said + "CF-Connecting-IP: 192.0.2.9\r\n", set: func(s *Settings) {
			s.TrustedPeers, s.UseForwardedHeaders, s.ForwardedForHeader = []netip.Prefix{loopback}, true, []byte("CF-Connecting-IP")
		}, want: map[string]string{"X-Forwarded-For": "192.0.2.9", "X-Real-IP": "192.0.2.9"}},
		{name: "… is not stripped by who came before", send: "CF-Connecting-IP: 192.0.2.9\r\nConnection: CF-Connecting-IP\r\n", set: func(s *Settings) {
			s.TrustedPeers, s.UseForwardedHeaders, s.ForwardedForHeader = []netip.Prefix{loopback}, true, []byte("CF-Connecting-IP")
			s.Limits.Trusted[0] = "CF-Connecting-IP"
		}, want: map[string]string{"X-Forwarded-For": "192.0.2.9", "X-Real-IP": "192.0.2.9"}},
		{name: "forwarded-host-header", send: said + "X-Edge-Host: edge.example\r\n", set: func(s *Settings) {
			s.TrustedPeers, s.UseForwardedHeaders, s.ForwardedHostHeader = []netip.Prefix{loopback}, true, "x-edge-host"
		}, want: map[string]string{"X-Forwarded-Host": "edge.example", "Host": "edge.example", "X-Edge-Host": "edge.example"}},
		{name: "… of nobody who is trusted", send: said + "X-Edge-Host: edge.example\r\n", set: func(s *Settings) {
			s.UseForwardedHeaders, s.ForwardedHostHeader = true, "X-Edge-Host"
		}, want: map[string]string{"X-Forwarded-Host": "shop.example"}},
		{name: "garbage in the list", send: "X-Forwarded-For: 203.0.113.1, unknown\r\n", set: func(s *Settings) { s.TrustedPeers, s.UseForwardedHeaders = []netip.Prefix{loopback}, true },
			want: map[string]string{"X-Forwarded-For": "127.0.0.1"}},
		{name: "httpoxy", send: "Proxy: http://evil.example\r\nPROXY: x\r\nproxy: y\r\nProxy-Like: z\r\n", set: func(*Settings) {},
			want: map[string]string{"Proxy": "", "Proxy-Like": "z"}},
		{name: "request ID of the client", send: "X-Request-ID: mine\r\n", set: func(*Settings) {}, want: map[string]string{"X-Request-ID": "mine"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { c.set(r.settings) })
			heads := make(chan http.Header, 1)
			r.backend(func(p *peer) {
				for q := p.request(); q != nil; q = p.request() {
					q.Header.Set("Host", q.Host)
					heads <- q.Header
					p.answer("200 OK", "")
				}
			})
			cl := r.dial()
			cl.send("GET / HTTP/1.1\r\nHost: shop.example\r\n" + c.send + "\r\n")
			cl.expect("GET", 200, "")
			got := receive(t, "the request", heads)
			for name, want := range c.want {
				if v := strings.Join(got.Values(name), " | "); v != want {
					t.Errorf("%s: %q, want %q", name, v, want)
				}
			}
			if id := got.Get("X-Request-ID"); len(id) != 32 && id != "mine" {
				t.Errorf("X-Request-ID %q", id)
			}
		})
	}
}
