package wire

import (
	"encoding/binary"
	"net/netip"

	"github.com/sluiceproxy/sluice/fastpath"
)

// ForwardedFor walks the addresses of all X-Forwarded-For fields from right to left: from the nearest proxy's word
// outwards. Walk on only while the address just seen is a trusted proxy's; the first other one is the client.
type ForwardedFor struct {
	fields []Field
	rest   []byte // what is left of fields[len(fields)]
	more   bool   // rest has another element, perhaps an empty one
	ended  bool
}

// LastForwardedFor begins the walk.
func LastForwardedFor(fields []Field) ForwardedFor { return ForwardedFor{fields: fields} }

// Next gives the next address. ok is false at the end and, for good, at an element that is not an address (with or
// without a port): what stands left of it cannot be believed.
func (f *ForwardedFor) Next() (addr netip.Addr, ok bool) {
	for !f.ended && !f.more {
		n := len(f.fields) - 1
		if n < 0 {
			f.ended = true
			break
		}
		if f.fields[n].ID == FieldXForwardedFor {
			f.rest, f.more = f.fields[n].Value, true
		}
		f.fields = f.fields[:n]
	}
	if f.ended {
		return netip.Addr{}, false
	}
	cut := len(f.rest)
	for cut > 0 && f.rest[cut-1] != ',' {
		cut--
	}
	last := trim(f.rest[cut:])
	f.more = cut > 0
	f.rest = f.rest[:max(cut-1, 0)]
	addr, ok = ParseAddr(last)
	f.ended = !ok
	return addr, ok
}

// ForwardedElement is one element of a Forwarded field (RFC 7239). Values are views, quotes taken off, and nil when
// absent; a quoted pair is refused, since nothing that belongs here needs one.
type ForwardedElement struct {
	For, By, Host, Proto []byte
}

// NextForwarded cuts the first element off a Forwarded field's value. rest is nil after the last one.
func NextForwarded(value []byte) (e ForwardedElement, rest []byte, err *fastpath.Error) {
	for {
		var name, v []byte
		if name, v, value, err = forwardedPair(value); err != nil {
			return ForwardedElement{}, nil, err
		}
		if !e.set(name, v) {
			return ForwardedElement{}, nil, ErrForwarded
		}
		if len(value) == 0 {
			return e, nil, nil
		}
		separator := value[0]
		value = value[1:]
		if separator == ',' {
			return e, value, nil
		}
	}
}

// set takes a pair; false when the parameter was there already. Unknown parameters are passed over.
func (e *ForwardedElement) set(name, value []byte) bool {
	var to *[]byte
	switch {
	case equalFold(name, "for"):
		to = &e.For
	case equalFold(name, "by"):
		to = &e.By
	case equalFold(name, "host"):
		to = &e.Host
	case equalFold(name, "proto"):
		to = &e.Proto
	default:
		return true
	}
	if *to != nil {
		return false
	}
	*to = value
	return true
}

// forwardedPair reads name "=" (token | quoted-string); rest begins with ";" or "," or is empty.
func forwardedPair(b []byte) (name, value, rest []byte, err *fastpath.Error) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	n := tokenEnd(b)
	if n == 0 || n == len(b) || b[n] != '=' {
		return nil, nil, nil, ErrForwarded
	}
	name, b = b[:n], b[n+1:]
	if len(b) > 0 && b[0] == '"' {
		n = 1
		for n < len(b) && b[n] != '"' && b[n] != '\\' && (b[n] >= ' ' && b[n] != 0x7f) {
			n++
		}
		if n == len(b) || b[n] != '"' {
			return nil, nil, nil, ErrForwarded
		}
		value, b = b[1:n], b[n+1:]
	} else {
		if n = tokenEnd(b); n == 0 {
			return nil, nil, nil, ErrForwarded
		}
		value, b = b[:n], b[n:]
	}
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	if len(b) > 0 && b[0] != ';' && b[0] != ',' {
		return nil, nil, nil, ErrForwarded
	}
	return name, value, b, nil
}

func tokenEnd(b []byte) int {
	for i, c := range b {
		if chars[c]&charToken == 0 {
			return i
		}
	}
	return len(b)
}

// ParseAddr reads an IP address as proxies write it: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1] or
// [2001:db8::1]:80. A zone is refused; an IPv4 address mapped into IPv6 comes out as IPv4.
func ParseAddr(b []byte) (addr netip.Addr, ok bool) {
	if len(b) > 0 && b[0] == '[' {
		end := literalEnd(b)
		if end < 0 || end < len(b) && (b[end] != ':' || len(b) == end+1 || !validPort(b[end+1:])) {
			return netip.Addr{}, false
		}
		b = b[1 : end-1]
	} else if n := tokenEnd(b); n < len(b) && tokenEnd(b[n+1:]) == len(b)-n-1 { // one colon at most: IPv4
		if b[n] != ':' || n+1 == len(b) || !validPort(b[n+1:]) {
			return netip.Addr{}, false
		}
		b = b[:n]
	}
	if v4, ok := parseIPv4(b); ok {
		return netip.AddrFrom4(v4), true
	}
	v6, ok := parseIPv6(b)
	if !ok {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16(v6).Unmap(), true
}

// parseIPv4 reads four decimal numbers without leading zeros. (netip's own parsers take strings: an allocation.)
func parseIPv4(b []byte) (ip [4]byte, ok bool) {
	i := 0
	for part := range ip {
		if part > 0 {
			if i == len(b) || b[i] != '.' {
				return ip, false
			}
			i++
		}
		start, n := i, 0
		for i < len(b) && b[i] >= '0' && b[i] <= '9' && i-start < 3 {
			n = n*10 + int(b[i]-'0')
			i++
		}
		if i == start || n > 255 || b[start] == '0' && i > start+1 {
			return ip, false
		}
		ip[part] = byte(n)
	}
	return ip, i == len(b)
}

// parseIPv6 reads the text forms of RFC 4291 2.2, without a zone.
func parseIPv6(b []byte) (ip [16]byte, ok bool) {
	n, gap := 0, -1 // bytes written, and where "::" stood
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, b = 0, b[2:]
	}
	for len(b) > 0 {
		if n == 16 {
			return ip, false
		}
		digits, group := hexGroup(b)
		if digits < len(b) && b[digits] == '.' {
			v4, ok := parseIPv4(b)
			if !ok || n > 12 {
				return ip, false
			}
			copy(ip[n:], v4[:])
			n, b = n+4, nil
			break
		}
		if digits == 0 {
			return ip, false
		}
		binary.BigEndian.PutUint16(ip[n:], group)
		n, b = n+2, b[digits:]
		if len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return ip, false
		}
		b = b[1:]
		if b[0] == ':' {
			if gap >= 0 {
				return ip, false
			}
			gap, b = n, b[1:]
		}
	}
	if gap < 0 {
		return ip, n == 16
	}
	if n == 16 {
		return ip, false
	}
	copy(ip[16-(n-gap):], ip[gap:n])
	clear(ip[gap : 16-(n-gap)])
	return ip, true
}

// hexGroup reads up to four hexadecimal digits.
func hexGroup(b []byte) (digits int, v uint16) {
	for digits < len(b) && digits < 4 && unhex[b[digits]] < 16 {
		v = v<<4 | uint16(unhex[b[digits]])
		digits++
	}
	return digits, v
}
