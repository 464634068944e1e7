package sni

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// version2 makes a header from its 13th and 14th byte and its block.
func version2(command, transport byte, block ...[]byte) []byte {
	return append([]byte(proxyV2Signature+string([]byte{command, transport})), vector16(block...)...)
}

func addresses(src, dst string) []byte {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	b := append(s.Addr().AsSlice(), d.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, s.Port()), d.Port())
}

func typed(kind byte, value []byte) []byte { return append([]byte{kind}, vector16(value)...) }

func between(src, dst string) ProxyHeader {
	return ProxyHeader{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

var (
	block4 = addresses("192.0.2.1:56324", "203.0.113.7:443")
	block6 = addresses("[2001:db8::1]:56324", "[2001:db8::2]:443")
	want4  = between("192.0.2.1:56324", "203.0.113.7:443")
	want6  = between("[2001:db8::1]:56324", "[2001:db8::2]:443")
	local  = ProxyHeader{Local: true}

	fullIPv6 = strings.Repeat("ffff:", 7) + "ffff"
)

var proxyCases = []struct {
	name   string
	stream string
	want   ProxyHeader
	err    error
}{
	{"v1 TCP4", "PROXY TCP4 192.0.2.1 203.0.113.7 56324 443\r\n", want4, nil},
	{"v1 TCP6", "PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 56324 443\r\n", want6, nil},
	{"v1 bounds", "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", between("0.0.0.0:0", "255.255.255.255:65535"), nil},
	{"v1 TCP6 longest", "PROXY TCP6 " + fullIPv6 + " " + fullIPv6 + " 65535 65535\r\n", between("["+fullIPv6+"]:65535", "["+fullIPv6+"]:65535"), nil},
	{"v1 IPv4 in IPv6", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:203.0.113.7 56324 443\r\n", want4, nil},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", local, nil},
	{"v1 UNKNOWN with addresses, 107 bytes", "PROXY UNKNOWN " + fullIPv6 + " " + fullIPv6 + " 65535 65535\r\n", local, nil},
	{"v1 UNKNOWN with anything", "PROXY UNKNOWN  \x00\xff \t\r\n", local, nil},
	{"v1, HTTP behind", "PROXY TCP4 192.0.2.1 203.0.113.7 56324 443\r\nGET / HTTP/1.1\r\n", want4, nil},
	{"v1, another behind", "PROXY UNKNOWN\r\nPROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", local, nil},

	{"v1 family and address differ", "PROXY TCP4 ::1 ::1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 family and address differ, 6", "PROXY TCP6 192.0.2.1 192.0.2.1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 octet over 255", "PROXY TCP4 192.0.2.256 192.0.2.1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 octet with a leading zero", "PROXY TCP4 192.0.2.01 192.0.2.1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 three octets", "PROXY TCP4 192.0.2 192.0.2.1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 five octets", "PROXY TCP4 1.2.3.4.5 192.0.2.1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 hexadecimal octet", "PROXY TCP4 0x1.2.3.4 192.0.2.1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 signed octet", "PROXY TCP4 +1.2.3.4 192.0.2.1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 IPv6 with a zone", "PROXY TCP6 fe80::1%1 ::1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 IPv6 with two gaps", "PROXY TCP6 1::2::3 ::1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 IPv6 in brackets", "PROXY TCP6 [::1] ::1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 port over 65535", "PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 port far over 65535", "PROXY TCP4 1.2.3.4 1.2.3.4 18446744073709551617 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 port with a leading zero", "PROXY TCP4 1.2.3.4 1.2.3.4 080 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 signed port", "PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 port with +", "PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 no ports", "PROXY TCP4 1.2.3.4 1.2.3.4\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 empty port", "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 fifth field", "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 blank at the end", "PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 two blanks", "PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 tab", "PROXY TCP4\t1.2.3.4 1.2.3.4 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 protocol alone", "PROXY TCP4\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 lower case", "PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 another protocol", "PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 UNKNOWN and more letters", "PROXY UNKNOWNS\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 no protocol", "PROXY \r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 LF alone", "PROXY UNKNOWN\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 CR alone", "PROXY UNKNOWN\rx", ProxyHeader{}, ErrProxyMalformed},
	{"v1 CR before CRLF", "PROXY UNKNOWN\r\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 NUL", "PROXY TCP4 1.2.3.4\x00 1.2.3.4 1 1\r\n", ProxyHeader{}, ErrProxyMalformed},
	{"v1 108 bytes", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", ProxyHeader{}, ErrProxyTooLarge},
	{"v1 without end", "PROXY UNKNOWN " + strings.Repeat("x", 200), ProxyHeader{}, ErrProxyTooLarge},
	{"v1 short", "PROXY TCP4 192.0.2.1 203.0.113.7 56324 443\r", ProxyHeader{}, ErrShort},
	{"v1 short, first byte", "P", ProxyHeader{}, ErrShort},

	{"v2 TCP4", string(version2(0x21, 0x11, block4)), want4, nil},
	{"v2 TCP6", string(version2(0x21, 0x21, block6)), want6, nil},
	{"v2 IPv4 in IPv6", string(version2(0x21, 0x21, addresses("[::ffff:192.0.2.1]:56324", "[::ffff:203.0.113.7]:443"))), want4, nil},
	{"v2 vectors", string(version2(0x21, 0x11, block4, typed(4, nil), typed(0xea, []byte("vpce-1")))), want4, nil},
	{"v2 4096 bytes", string(version2(0x21, 0x11, block4, typed(4, make([]byte, 4096-16-12-3)))), want4, nil},
	{"v2 LOCAL", string(version2(0x20, 0x00)), local, nil},
	{"v2 LOCAL with addresses", string(version2(0x20, 0x11, block4)), local, nil},
	{"v2 LOCAL with anything", string(version2(0x20, 0xff, []byte("x"))), local, nil},
	{"v2 unspecified", string(version2(0x21, 0x00)), local, nil},
	{"v2 unspecified with something", string(version2(0x21, 0x00, []byte{1, 0})), local, nil},
	{"v2, TLS behind", string(version2(0x21, 0x11, block4)) + "\x16\x03\x01", want4, nil},

	{"v2 version 1", string(version2(0x11, 0x11, block4)), ProxyHeader{}, ErrProxyMalformed},
	{"v2 version 3", string(version2(0x31, 0x11, block4)), ProxyHeader{}, ErrProxyMalformed},
	{"v2 command 2", string(version2(0x22, 0x11, block4)), ProxyHeader{}, ErrProxyMalformed},
	{"v2 family 4", string(version2(0x21, 0x41, block4)), ProxyHeader{}, ErrProxyMalformed},
	{"v2 transport 3", string(version2(0x21, 0x13, block4)), ProxyHeader{}, ErrProxyMalformed},
	{"v2 family without transport", string(version2(0x21, 0x10, block4)), ProxyHeader{}, ErrProxyMalformed},
	{"v2 transport without family", string(version2(0x21, 0x01, block4)), ProxyHeader{}, ErrProxyMalformed},
	{"v2 UDP4", string(version2(0x21, 0x12, block4)), ProxyHeader{}, ErrProxyTransport},
	{"v2 UDP6", string(version2(0x21, 0x22, block6)), ProxyHeader{}, ErrProxyTransport},
	{"v2 Unix stream", string(version2(0x21, 0x31, make([]byte, 216))), ProxyHeader{}, ErrProxyTransport},
	{"v2 Unix datagram", string(version2(0x21, 0x32, make([]byte, 216))), ProxyHeader{}, ErrProxyTransport},
	{"v2 TCP4, block too short", string(version2(0x21, 0x11, block4[:11])), ProxyHeader{}, ErrProxyMalformed},
	{"v2 TCP6 with the block of TCP4", string(version2(0x21, 0x21, block4)), ProxyHeader{}, ErrProxyMalformed},
	{"v2 no block", string(version2(0x21, 0x11)), ProxyHeader{}, ErrProxyMalformed},
	{"v2 one byte behind the addresses", string(version2(0x21, 0x11, block4, []byte{4})), ProxyHeader{}, ErrProxyMalformed},
	{"v2 vector too long", string(version2(0x21, 0x11, block4, []byte{4, 0, 1})), ProxyHeader{}, ErrProxyMalformed},
	{"v2 second vector too long", string(version2(0x21, 0x11, block4, typed(4, nil), []byte{4, 0xff, 0xff, 1})), ProxyHeader{}, ErrProxyMalformed},
	{"v2 4097 bytes", string(version2(0x21, 0x11, block4, typed(4, make([]byte, 4097-16-12-3)))), ProxyHeader{}, ErrProxyTooLarge},
	{"v2 announced 64 KiB", proxyV2Signature + "\x21\x11\xff\xff", ProxyHeader{}, ErrProxyTooLarge},
	{"v2 short", string(version2(0x21, 0x11, block4)[:27]), ProxyHeader{}, ErrShort},
	{"v2 short, fixed part only", string(version2(0x21, 0x11, block4)[:16]), ProxyHeader{}, ErrShort},

	{"nothing", "", ProxyHeader{}, ErrShort},
	{"TLS", "\x16\x03\x01", ProxyHeader{}, ErrNotProxy},
	{"HTTP", "GET / HTTP/1.1\r\n", ProxyHeader{}, ErrNotProxy},
	{"HTTP that begins alike", "PROPFIND / HTTP/1.1\r\n", ProxyHeader{}, ErrNotProxy},
	{"empty lines before HTTP", "\r\n\r\nGET /", ProxyHeader{}, ErrNotProxy},
	{"v1 lower case signature", "proxy UNKNOWN\r\n", ProxyHeader{}, ErrNotProxy},
	{"v2 signature, last byte wrong", "\r\n\r\n\x00\r\nQUIT\r", ProxyHeader{}, ErrNotProxy},
}

func TestParseProxy(t *testing.T) {
	for _, c := range proxyCases {
		t.Run(c.name, func(t *testing.T) {
			h, n, err := ParseProxy([]byte(c.stream))
			if err != c.err || h != c.want {
				t.Fatalf("%+v, %v, want %+v, %v", h, err, c.want, c.err)
			}
			if err == nil && c.stream[n-1] != '\n' && strings.HasPrefix(c.stream, "PROXY") {
				t.Errorf("length %d is not a line's", n)
			}
			checkProxyPrefixes(t, []byte(c.stream))
			checkAgainstReference(t, []byte(c.stream))
		})
	}
}

func TestLooksLikeProxy(t *testing.T) {
	for stream, want := range map[string]bool{
		"": false, "PROXY": false, "PROXY ": true, "PROXY TCP4 ": true, "PROXYS / HTTP/1.1": false, "proxy ": false,
		proxyV2Signature[:11]: false, proxyV2Signature: true, proxyV2Signature + "\x21": true, "\r\n\r\nGET / HTTP": false,
	} {
		if got := LooksLikeProxy([]byte(stream)); got != want {
			t.Errorf("LooksLikeProxy(%q) = %v", stream, got)
		}
	}
}

// TestParseIP holds the allocation-free parsers against netip: on the borders of the grammar, and on strings that are nearly
// addresses.
func TestParseIP(t *testing.T) {
	for _, s := range []string{
		"", ".", ":", "::", ":::", "::::", "1::", "::1", "1:", ":1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
		"1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8", "1:2:3:4:5:6:7:8::", "1::2::3", "12345::", "::00001", "::g",
		"1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:1.2.3.4", "::1.2.3.4", "1:2:3:4:5::1.2.3.4",
		"1:2:3:4:5:6::1.2.3.4", "1.2.3.4::", "1.2.3.4::1", "::1.2.3.4:1", "::1.2.3", "::1.2.3.256", "::01.2.3.4", "::1.2.3.4.5",
		"::%1", "[::1]", "1.2.3.4", "1.2.3.4.", ".1.2.3.4", "1..3.4", "00.0.0.0", "0.0.0.0", "255.255.255.255", "999.1.1.1",
	} {
		checkParseIP(t, s)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	parts := []string{":", ":", ":", "::", ".", ".", "0", "1", "9", "10", "255", "256", "00", "f", "Ab", "ffff", "12345", "g", "%", "-", "1.2.3.4"}
	valid := 0
	for range 300_000 {
		var s string
		for range 1 + rnd.IntN(16) {
			s += parts[rnd.IntN(len(parts))]
		}
		if checkParseIP(t, s) {
			valid++
		}
	}
	if valid < 1000 {
		t.Errorf("only %d addresses were valid: the test does not test", valid)
	}
}

func checkParseIP(t *testing.T, s string) (valid bool) {
	t.Helper()
	want, err := netip.ParseAddr(s)
	got4, ok4 := parseIPv4([]byte(s))
	got6, ok6 := parseIPv6([]byte(s))
	if wantOK := err == nil && want.Is4(); ok4 != wantOK || ok4 && got4 != want {
		t.Errorf("parseIPv4(%q) = %v %v, netip: %v %v", s, got4, ok4, want, err)
	}
	if wantOK := err == nil && want.Is6() && want.Zone() == ""; ok6 != wantOK || ok6 && got6 != want {
		t.Errorf("parseIPv6(%q) = %v %v, netip: %v %v", s, got6, ok6, want, err)
	}
	return ok4 || ok6
}

// checkProxyPrefixes: each beginning is ErrShort, with a length that the whole reaches, or already the result of the whole.
func checkProxyPrefixes(t *testing.T, stream []byte) {
	t.Helper()
	whole, wholeN, wholeErr := ParseProxy(stream[:len(stream):len(stream)])
	for k := range len(stream) {
		h, n, err := ParseProxy(stream[:k:k])
		if err == ErrShort {
			if n <= k || wholeErr == nil && n > wholeN {
				t.Fatalf("%d bytes need %d, the whole is %d", k, n, wholeN)
			}
			continue
		}
		if h != whole || n != wholeN || err != wholeErr {
			t.Fatalf("%d bytes: %+v %d %v, the whole: %+v %d %v", k, h, n, err, whole, wholeN, wholeErr)
		}
		if err == nil && k < n {
			t.Fatalf("%d bytes of a header of %d were enough", k, n)
		}
	}
	if wholeErr == ErrShort {
		return
	}
	h, n, err := ParseProxy(append(slices.Clone(stream), "\r\nPROXY UNKNOWN\r\n"...))
	if h != whole || n != wholeN || err != wholeErr {
		t.Fatalf("with more bytes behind: %+v %d %v, alone: %+v %d %v", h, n, err, whole, wholeN, wholeErr)
	}
}

type verdict int

const (
	refused verdict = iota
	unfinished
	accepted
)

// referenceProxy reads a header the plain way: strings, strconv and netip.
func referenceProxy(b []byte) (h ProxyHeader, n int, v verdict) {
	s := string(b)
	switch {
	case strings.HasPrefix(s, "PROXY "):
		return referenceV1(s)
	case strings.HasPrefix(s, "\r\n\r\n\x00\r\nQUIT\n"):
		return referenceV2(b)
	case strings.HasPrefix("PROXY ", s), strings.HasPrefix("\r\n\r\n\x00\r\nQUIT\n", s):
		return h, 0, unfinished
	}
	return h, 0, refused
}

func referenceV1(s string) (h ProxyHeader, n int, v verdict) {
	if len(s) > 107 {
		s = s[:107]
	}
	line, _, found := strings.Cut(s, "\r\n")
	if !found {
		if len(s) == 107 || strings.ContainsAny(strings.TrimSuffix(s, "\r"), "\r\n") {
			return h, 0, refused
		}
		return h, 0, unfinished
	}
	if strings.ContainsAny(line, "\r\n") {
		return h, 0, refused
	}
	n = len(line) + 2
	if line == "PROXY UNKNOWN" || strings.HasPrefix(line, "PROXY UNKNOWN ") {
		return ProxyHeader{Local: true}, n, accepted
	}
	words := strings.Split(line, " ")
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return h, 0, refused
	}
	var ips [2]netip.Addr
	var ports [2]uint64
	for i := range 2 {
		ip, err := netip.ParseAddr(words[2+i])
		if err != nil || ip.Zone() != "" || ip.Is4() != (words[1] == "TCP4") {
			return h, 0, refused
		}
		port, err := strconv.ParseUint(words[4+i], 10, 16)
		if err != nil || strconv.FormatUint(port, 10) != words[4+i] {
			return h, 0, refused
		}
		ips[i], ports[i] = ip.Unmap(), port
	}
	h.Src = netip.AddrPortFrom(ips[0], uint16(ports[0]))
	h.Dst = netip.AddrPortFrom(ips[1], uint16(ports[1]))
	return h, n, accepted
}

func referenceV2(b []byte) (h ProxyHeader, n int, v verdict) {
	if len(b) < 16 {
		return h, 0, unfinished
	}
	n = 16 + int(b[14])*256 + int(b[15])
	version, command := b[12]/16, b[12]%16
	if version != 2 || command > 1 || n > 4096 {
		return h, 0, refused
	}
	if len(b) < n {
		return h, 0, unfinished
	}
	if command == 0 || b[13] == 0 {
		return ProxyHeader{Local: true}, n, accepted
	}
	size := map[byte]int{0x11: 4, 0x21: 16}[b[13]]
	r := bytes.NewBuffer(slices.Clone(b[16:n]))
	if size == 0 || r.Len() < 2*size+4 {
		return h, 0, refused
	}
	src, _ := netip.AddrFromSlice(r.Next(size))
	dst, _ := netip.AddrFromSlice(r.Next(size))
	ports := r.Next(4)
	for r.Len() > 0 {
		vector := r.Next(3)
		if len(vector) < 3 {
			return h, 0, refused
		}
		length := int(vector[1])*256 + int(vector[2])
		if len(r.Next(length)) < length {
			return h, 0, refused
		}
	}
	h.Src = netip.AddrPortFrom(src.Unmap(), uint16(ports[0])*256+uint16(ports[1]))
	h.Dst = netip.AddrPortFrom(dst.Unmap(), uint16(ports[2])*256+uint16(ports[3]))
	return h, n, accepted
}

func checkAgainstReference(t *testing.T, stream []byte) {
	t.Helper()
	got, n, err := ParseProxy(stream)
	v := refused
	switch err {
	case nil:
		v = accepted
	case ErrShort:
		v, n = unfinished, 0
	}
	want, wantN, wantV := referenceProxy(stream)
	if got != want || n != wantN || v != wantV {
		t.Fatalf("%+v, %d bytes, verdict %d (%v); the reference: %+v, %d bytes, verdict %d", got, n, v, err, want, wantN, wantV)
	}
}

// FuzzProxyProtocol: the parser agrees with the reference on every input, and on every beginning of it with itself.
func FuzzProxyProtocol(f *testing.F) {
	for _, line := range []string{
		"PROXY TCP4 192.0.2.1 203.0.113.7 56324 443\r\nGET / HTTP/1.1\r\n",
		"PROXY TCP6 2001:db8::1 ::ffff:203.0.113.7 0 65535\r\n",
		"PROXY UNKNOWN\r\n",
		"PROXY UNKNOWN ffff:: ffff:: 1 1\r\nPROXY UNKNOWN\r\n",
		"PROXY TCP4 01.2.3.4 1.2.3.256 065 65536\r\n",
		"PROXY TCP6 fe80::1%eth0 1:2:3:4:5:6:7:8 +1 -1\n",
		"PROXY TCP4  1.2.3.4\t1.2.3.4 1 1 \r\r\n",
		"PROPFIND / HTTP/1.1\r\n",
	} {
		f.Add([]byte(line))
	}
	f.Add(version2(0x21, 0x11, block4))
	f.Add(version2(0x21, 0x21, block6, typed(3, []byte{1, 2, 3, 4}), typed(4, nil)))
	f.Add(version2(0x20, 0x00))
	f.Add(version2(0x21, 0x00, []byte{1, 0, 0}))
	f.Add(version2(0x21, 0x12, block4))
	f.Add(version2(0x21, 0x31, make([]byte, 216)))
	f.Add(version2(0x21, 0x11, block4, []byte{4, 0, 9}))
	f.Add([]byte(proxyV2Signature + "\x21\x11\xff\xff"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		checkAgainstReference(t, stream)
		checkProxyPrefixes(t, stream)
	})
}
