package sni

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Errors of a PROXY header. Each closes the connection: without the header it is not known who speaks.
var (
	ErrNotProxy = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindMalformed,
		Text: "no PROXY header where one is required"}
	ErrProxyMalformed = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindMalformed,
		Text: "malformed PROXY header"}
	ErrProxyTransport = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindUnsupported,
		Text: "PROXY header for a transport other than TCP"}
	ErrProxyTooLarge = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindMalformed,
		Text: "PROXY header over its limit"}
)

const (
	proxyV1Signature = "PROXY "
	proxyV2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV1BytesMin  = len("PROXY UNKNOWN\r\n") // the shortest header of both versions

	proxyV2FixedBytes     = len(proxyV2Signature) + 4
	proxyV2CommandLocal   = 0x20 // version 2 in the upper half
	proxyV2CommandProxy   = 0x21
	proxyV2Unspecified    = 0x00
	proxyV2TCP4           = 0x11
	proxyV2UDP4           = 0x12
	proxyV2TCP6           = 0x21
	proxyV2UDP6           = 0x22
	proxyV2UnixStream     = 0x31
	proxyV2UnixDatagram   = 0x32
	proxyVectorFixedBytes = 1 + 2 // type, length
)

// ProxyHeader says for whom the peer opened the connection.
type ProxyHeader struct {
	// Local: the peer speaks for itself (a health check) or does not know; the connection's own addresses hold.
	Local bool
	// Src is the client, Dst what it connected to. IPv4 in IPv6 is unwrapped, so that one client has one address whatever
	// the peer makes of it. Zero if Local.
	Src, Dst netip.AddrPort
}

// LooksLikeProxy tells that b, the first bytes of a stream, begins with a whole signature of either version. After one header
// the caller refuses another: that one would be the client's own word about its address.
func LooksLikeProxy(b []byte) bool {
	return len(b) >= len(proxyV1Signature) && agrees(b, proxyV1Signature) ||
		len(b) >= len(proxyV2Signature) && agrees(b, proxyV2Signature)
}

// ParseProxy reads a PROXY header of version 1 or 2 at the start of b. n is its length; with ErrShort it is the least number
// of bytes, from the start of the stream, that a whole header can have. It allocates nothing and keeps nothing of b. Whether
// this peer's word counts is the caller's to know.
func ParseProxy(b []byte) (h ProxyHeader, n int, err error) { return parseProxy(b, proxyV2BytesMax) }

// parseProxy takes a header of version 2 of at most v2Max bytes.
func parseProxy(b []byte, v2Max int) (h ProxyHeader, n int, err error) {
	switch {
	case agrees(b, proxyV1Signature):
		return parseProxyV1(b)
	case agrees(b, proxyV2Signature):
		return parseProxyV2(b, v2Max)
	}
	return ProxyHeader{}, 0, ErrNotProxy
}

// agrees tells that b is the beginning of the signature or has it as its beginning.
func agrees(b []byte, signature string) bool {
	n := min(len(b), len(signature))
	return string(b[:n]) == signature[:n]
}

func parseProxyV1(b []byte) (ProxyHeader, int, error) {
	n, err := proxyV1Length(b)
	if err != nil {
		return ProxyHeader{}, n, err
	}
	line := b[len(proxyV1Signature) : n-len("\r\n")]
	protocol, fields, more := cutSpace(line)
	if string(protocol) == "UNKNOWN" {
		return ProxyHeader{Local: true}, n, nil // whatever else the line says is to be ignored
	}
	h, ok := ProxyHeader{}, false
	switch {
	case !more:
	case string(protocol) == "TCP4":
		h, ok = parseProxyV1Fields(fields, parseIPv4)
	case string(protocol) == "TCP6":
		h, ok = parseProxyV1Fields(fields, parseIPv6)
	}
	if !ok {
		return ProxyHeader{}, 0, ErrProxyMalformed
	}
	return h, n, nil
}

// proxyV1Length finds the CRLF. A CR or LF alone ends no line, and receivers that differ in this see different headers.
func proxyV1Length(b []byte) (int, error) {
	seen := b[:min(len(b), proxyV1BytesMax)]
	end := bytes.IndexAny(seen, "\r\n")
	switch {
	case end < 0 && len(seen) == proxyV1BytesMax, end == proxyV1BytesMax-1:
		return 0, ErrProxyTooLarge
	case end < 0:
		return max(proxyV1BytesMin, len(b)+1), ErrShort
	case seen[end] == '\n':
		return 0, ErrProxyMalformed
	case end+1 == len(seen):
		return max(proxyV1BytesMin, len(b)+1), ErrShort
	case seen[end+1] != '\n':
		return 0, ErrProxyMalformed
	}
	return end + len("\r\n"), nil
}

// parseProxyV1Fields reads "source destination source-port destination-port", with exactly one space between them.
func parseProxyV1Fields(b []byte, parseIP func([]byte) (netip.Addr, bool)) (h ProxyHeader, ok bool) {
	var fields [4][]byte
	for i := range fields {
		var more bool
		fields[i], b, more = cutSpace(b)
		if more != (i < len(fields)-1) {
			return ProxyHeader{}, false
		}
	}
	src, ok1 := parseIP(fields[0])
	dst, ok2 := parseIP(fields[1])
	srcPort, ok3 := parseDecimal(fields[2], 1<<16-1)
	dstPort, ok4 := parseDecimal(fields[3], 1<<16-1)
	h.Src = netip.AddrPortFrom(src.Unmap(), uint16(srcPort))
	h.Dst = netip.AddrPortFrom(dst.Unmap(), uint16(dstPort))
	return h, ok1 && ok2 && ok3 && ok4
}

func parseProxyV2(b []byte, most int) (ProxyHeader, int, error) {
	if len(b) < proxyV2FixedBytes {
		return ProxyHeader{}, proxyV2FixedBytes, ErrShort
	}
	command, transport := b[12], b[13]
	if command != proxyV2CommandLocal && command != proxyV2CommandProxy {
		return ProxyHeader{}, 0, ErrProxyMalformed
	}
	n := proxyV2FixedBytes + int(binary.BigEndian.Uint16(b[14:]))
	if n > most {
		return ProxyHeader{}, 0, ErrProxyTooLarge
	}
	if len(b) < n {
		return ProxyHeader{}, n, ErrShort
	}
	h := ProxyHeader{Local: true}
	if command == proxyV2CommandProxy {
		var err error
		if h, err = parseProxyV2Block(transport, b[proxyV2FixedBytes:n]); err != nil {
			return ProxyHeader{}, 0, err
		}
	}
	return h, n, nil // for LOCAL transport and block count for nothing, the protocol says
}

// parseProxyV2Block reads addresses and checks that the vectors behind them fill the block. Transports that we do not carry
// could pass as unspecified, and their clients would then come from the balancer's own, often privileged, address; we refuse.
func parseProxyV2Block(transport byte, block []byte) (h ProxyHeader, err error) {
	ipBytes := 4
	switch transport {
	case proxyV2Unspecified:
		return ProxyHeader{Local: true}, nil // it is not said how long the addresses are, so not where vectors begin
	case proxyV2TCP4:
	case proxyV2TCP6:
		ipBytes = 16
	case proxyV2UDP4, proxyV2UDP6, proxyV2UnixStream, proxyV2UnixDatagram:
		return ProxyHeader{}, ErrProxyTransport
	default:
		return ProxyHeader{}, ErrProxyMalformed
	}
	addressBytes := 2*ipBytes + 4
	if len(block) < addressBytes || !areVectors(block[addressBytes:]) {
		return ProxyHeader{}, ErrProxyMalformed
	}
	src, _ := netip.AddrFromSlice(block[:ipBytes])
	dst, _ := netip.AddrFromSlice(block[ipBytes : 2*ipBytes])
	h.Src = netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(block[2*ipBytes:]))
	h.Dst = netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(block[2*ipBytes+2:]))
	return h, nil
}

// areVectors tells that b is type-length-value vectors and nothing else. None of them is used.
func areVectors(b []byte) bool {
	for len(b) > 0 {
		if len(b) < proxyVectorFixedBytes {
			return false
		}
		n := proxyVectorFixedBytes + int(binary.BigEndian.Uint16(b[1:]))
		if n > len(b) {
			return false
		}
		b = b[n:]
	}
	return true
}

func cutSpace(b []byte) (field, rest []byte, found bool) {
	space := bytes.IndexByte(b, ' ')
	if space < 0 {
		return b, nil, false
	}
	return b[:space], b[space+1:], true
}

// parseDecimal reads a number of digits only, without leading zeros.
func parseDecimal(b []byte, limit int) (v int, ok bool) {
	if len(b) == 0 || len(b) > 5 || len(b) > 1 && b[0] == '0' {
		return 0, false
	}
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return v, v <= limit
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// parseIPv4 and parseIPv6 accept what netip.ParseAddr accepts without a zone. That one takes a string and would allocate it
// for a stranger, at each try.
func parseIPv4(b []byte) (netip.Addr, bool) {
	var ip [4]byte
	for i := range ip {
		octet := b
		dot := bytes.IndexByte(b, '.')
		if (dot >= 0) != (i < len(ip)-1) {
			return netip.Addr{}, false
		}
		if dot >= 0 {
			octet, b = b[:dot], b[dot+1:]
		}
		v, ok := parseDecimal(octet, 255)
		if !ok {
			return netip.Addr{}, false
		}
		ip[i] = byte(v)
	}
	return netip.AddrFrom4(ip), true
}

func parseIPv6(b []byte) (netip.Addr, bool) {
	head, tail := b, []byte(nil)
	gap := bytes.Index(b, []byte("::"))
	if gap >= 0 {
		head, tail = b[:gap], b[gap+2:]
	}
	var ip, end [16]byte
	headBytes, ok1 := parseIPv6Groups(head, &ip, gap < 0)
	tailBytes, ok2 := parseIPv6Groups(tail, &end, true)
	if !ok1 || !ok2 {
		return netip.Addr{}, false
	}
	if gap < 0 {
		return netip.AddrFrom16(ip), headBytes == len(ip)
	}
	copy(ip[len(ip)-tailBytes:], end[:tailBytes])
	return netip.AddrFrom16(ip), headBytes+tailBytes < len(ip) // "::" stands for one group at least
}

// parseIPv6Groups reads groups with colons between them into ip and tells how many bytes they make; the last two groups of
// an address may be written as IPv4.
func parseIPv6Groups(b []byte, ip *[16]byte, last bool) (n int, ok bool) {
	for more := len(b) > 0; more; {
		var group []byte
		colon := bytes.IndexByte(b, ':')
		if more = colon >= 0; more {
			group, b = b[:colon], b[colon+1:]
		} else {
			group = b
		}
		if !more && last && n <= len(ip)-4 {
			if v4, ok := parseIPv4(group); ok {
				octets := v4.As4()
				return n + copy(ip[n:], octets[:]), true
			}
		}
		v, ok := parseHex(group)
		if !ok || n == len(ip) {
			return 0, false
		}
		binary.BigEndian.PutUint16(ip[n:], v)
		n += 2
	}
	return n, true
}

func parseHex(b []byte) (v uint16, ok bool) {
	if len(b) == 0 || len(b) > 4 {
		return 0, false
	}
	for _, c := range b {
		switch lower := c | 0x20; {
		case isDigit(c):
			v = v<<4 | uint16(c-'0')
		case 'a' <= lower && lower <= 'f':
			v = v<<4 | uint16(lower-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}
