package wire

import "github.com/sluiceproxy/sluice/fastpath"

// ParseAuthority splits uri-host[":"port] (RFC 3986), without user information. It is stricter than the grammar where no
// name of a real host needs it: a name has unreserved characters only, no empty label and at most 255 bytes, an IPv6
// literal no zone. host keeps an IPv6 literal's brackets; port is empty when none, or an empty one, was given.
func ParseAuthority(b []byte) (host, port []byte, err *fastpath.Error) {
	end, _ := hostEnd(b)
	if end <= 0 {
		return nil, nil, ErrHost
	}
	if end == len(b) {
		return b, nil, nil
	}
	if b[end] != ':' || !validPort(b[end+1:]) {
		return nil, nil, ErrHost
	}
	return b[:end], b[end+1:], nil
}

// hostEnd measures the host at b's start (-1: none that is valid) and tells whether NormaliseHost would change it.
func hostEnd(b []byte) (end int, changes bool) {
	if len(b) > 0 && b[0] == '[' {
		return literalEnd(b), true
	}
	class, i := uint8(0), 0
	for ; i < len(b); i++ {
		c := chars[b[i]]
		if c&charReg == 0 {
			break
		}
		if b[i] == '.' && (i == 0 || b[i-1] == '.') {
			return -1, false
		}
		class |= c
	}
	if i == 0 || i > hostMax {
		return -1, false
	}
	return i, class&charUpper != 0 || b[i-1] == '.'
}

// literalEnd measures "[" IPv6 "]"; -1 when it is none.
func literalEnd(b []byte) int {
	for i, c := range b {
		if c == ']' {
			if _, ok := parseIPv6(b[1:i]); !ok {
				return -1
			}
			return i + 1
		}
	}
	return -1
}

// validPort accepts *5DIGIT up to 65535.
func validPort(b []byte) bool {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
		if n > 65535 {
			return false
		}
	}
	return len(b) <= 5
}

// NormaliseHost appends a valid host as routing sees it: lower case, without one trailing dot, without an IPv6 literal's
// brackets. It takes the host of ParseAuthority; a port must be off already.
func NormaliseHost(dst, host []byte) []byte {
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	} else if n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	for _, c := range host {
		dst = append(dst, lower[c])
	}
	return dst
}

// setAuthority fills Authority and Host. An empty port ("host:") is cut off, so that nobody behind has to wonder.
func (r *Request) setAuthority(b []byte, a *Arena) *fastpath.Error {
	end, changes := hostEnd(b)
	if end <= 0 || end < len(b) && (b[end] != ':' || !validPort(b[end+1:])) {
		return ErrHost
	}
	r.Authority = b
	if end == len(b)-1 {
		r.Authority = b[:end]
	}
	r.Host = b[:end:end]
	if changes {
		r.Host = a.Commit(NormaliseHost(a.Reserve(end), r.Host))
	}
	return nil
}
