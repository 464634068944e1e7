package sni

import (
	"runtime/debug"
	"testing"
)

// underRace tells whether the race detector is compiled in: it allocates on its own account.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, setting := range info.Settings {
		if setting.Key == "-race" {
			return setting.Value == "true"
		}
	}
	return false
}

// TestAllocations: a stranger's first bytes cost no memory, refused or not.
func TestAllocations(t *testing.T) {
	if underRace() {
		t.Skip("the race detector allocates")
	}
	hello := shopHello(t)
	straddling := records(message(serverName("shop.example.com"), alpn("h2", "http/1.1")), 3)
	streams := map[string][]byte{
		"hello in one record":      hello,
		"hello in records of one":  records(joined(hello), 1),
		"straddling name and ALPN": straddling,
		"IPv6 as a name":           records(message(serverName("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff")), 7),
		"hello, short":             hello[:len(hello)-1],
		"hello, malformed":         records(message(serverName("a"), serverName("b"))),
		"many extensions":          records(message(numbered(helloExtensionsMax)...)),
		"HTTP":                     []byte("GET / HTTP/1.1\r\n"),
		"v1 TCP4":                  []byte("PROXY TCP4 192.0.2.1 203.0.113.7 56324 443\r\n"),
		"v1 TCP6":                  []byte("PROXY TCP6 2001:db8::1 2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff 56324 443\r\n"),
		"v1 malformed address":     []byte("PROXY TCP6 2001:db8::1:: 2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff 56324 443\r\n"),
		"v1 UNKNOWN":               []byte("PROXY UNKNOWN\r\n"),
		"v2 TCP4":                  version2(0x21, 0x11, block4, typed(4, []byte("x"))),
		"v2 TCP6":                  version2(0x21, 0x21, block6),
		"v2 short":                 version2(0x21, 0x21, block6)[:20],
	}
	for name, stream := range streams {
		t.Run(name, func(t *testing.T) {
			allocs := testing.AllocsPerRun(100, func() {
				h, err := Parse(stream)
				if err == nil && len(h.ServerName()) == 1 && h.Offers("h3") {
					panic("unreachable, but keeps the calls")
				}
				ParseProxy(stream)
				LooksLikeProxy(stream)
			})
			if allocs != 0 {
				t.Errorf("%v allocations", allocs)
			}
		})
	}
}
