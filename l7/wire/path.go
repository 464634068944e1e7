package wire

import "github.com/sluiceproxy/sluice/fastpath"

// NormalisePath appends to dst the path as routing sees it: percent-decoded once (%2F too, so that /private%2fx lies under
// /private/), "//" merged, "." and ".." segments resolved, whether they were plain or encoded. dots tells whether there
// were any. The path begins with "/"; raw bytes that no target may have, "\" among them, %00, bad escapes, overlong
// UTF-8 and paths above the root are errors. Bytes that are not UTF-8 at all are let through, as nginx does: old
// Latin-1 links are harmless once decoded, an overlong "/" is not. With an error dst comes back as it was.
func NormalisePath(dst, path []byte) (out []byte, dots bool, err *fastpath.Error) {
	if len(path) == 0 || path[0] != '/' {
		return dst, false, ErrTarget
	}
	root := len(dst)
	out = dst
	last := byte(0) // the decoded byte before this one
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if c, err = unescape(path[i:]); err != nil {
				return dst, false, err
			}
			i += 2
		} else if chars[c]&charRefused != 0 {
			return dst, false, refusedIn(c)
		}
		if overlong(last, c) {
			return dst, false, ErrPathOverlong
		}
		last = c
		if c == '/' && len(out) > root {
			var had, ok bool
			if out, had, ok = endSegment(out, root); !ok {
				return dst, false, ErrPathAboveRoot
			}
			dots = dots || had
			if out[len(out)-1] == '/' {
				continue
			}
		}
		out = append(out, c)
	}
	out, had, ok := endSegment(out, root)
	if !ok {
		return dst, false, ErrPathAboveRoot
	}
	return out, dots || had, nil
}

// endSegment resolves the last segment of the path out[root:] if it is a dot segment. What is left ends with "/" then.
func endSegment(out []byte, root int) (_ []byte, dots, ok bool) {
	n := len(out)
	if out[n-1] != '.' {
		return out, false, true
	}
	if out[n-2] == '/' {
		return out[:n-1], true, true
	}
	if out[n-2] != '.' || out[n-3] != '/' {
		return out, false, true
	}
	n -= 3 // at the "/" before ".."
	if n == root {
		return out, true, false
	}
	for out[n-1] != '/' {
		n--
	}
	return out[:n], true, true
}

func refusedIn(c byte) *fastpath.Error {
	if c == '\\' {
		return ErrPathBackslash
	}
	return ErrTarget
}

// unescape decodes the %XX at b's start.
func unescape(b []byte) (byte, *fastpath.Error) {
	if len(b) < 3 {
		return 0, ErrPathEscape
	}
	high, low := unhex[b[1]], unhex[b[2]]
	if high|low > 15 {
		return 0, ErrPathEscape
	}
	c := high<<4 | low
	if c == 0 {
		return 0, ErrPathNUL
	}
	return c, nil
}

// overlong tells whether two bytes begin a UTF-8 sequence that is longer than it need be: another spelling of a character
// (of "/" and "." too) for whoever decodes carelessly behind us.
func overlong(lead, next byte) bool {
	switch lead {
	case 0xc0, 0xc1:
		return next&0xc0 == 0x80
	case 0xe0:
		return next >= 0x80 && next < 0xa0
	case 0xf0:
		return next >= 0x80 && next < 0x90
	case 0xf8:
		return next >= 0x80 && next < 0x88
	case 0xfc:
		return next >= 0x80 && next < 0x84
	}
	return false
}

// AppendPath appends a decoded path in its canonical spelling: a reader who decodes it once sees exactly path.
func AppendPath(dst, path []byte) []byte {
	for _, c := range path {
		if chars[c]&charPath != 0 {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

// appendSpelling appends a path in its sender's spelling, with what must not go on raw percent-encoded.
func appendSpelling(dst, path []byte) []byte {
	for _, c := range path {
		if chars[c]&charEscape == 0 {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}
