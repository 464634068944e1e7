package l7

import "encoding/base64"

// base64Reader decodes base64 (RFC 4648 4) that comes in pieces cut anywhere. A sender may pad whenever it has sent a piece of
// its own (PROTOCOL-WEB.md), so padding ends four characters and not the text. Nothing else is taken: no line ends, no other
// alphabet, no bits that say nothing. The zero value is ready.
type base64Reader struct {
	four [4]byte
	n    int // characters of four that have come
}

// append appends what src says; false: it is not base64.
func (r *base64Reader) append(dst, src []byte) (_ []byte, ok bool) {
	for len(src) > 0 {
		four := src
		if r.n > 0 || len(src) < 4 {
			n := copy(r.four[r.n:], src)
			src = src[n:]
			if r.n += n; r.n < 4 {
				return dst, true
			}
			r.n, four = 0, r.four[:]
		} else {
			src = src[4:]
		}
		if dst, ok = appendFour(dst, four); !ok {
			return dst, false
		}
	}
	return dst, true
}

// appendFour appends the one to three bytes of four characters.
func appendFour(dst, four []byte) ([]byte, bool) {
	a, b, c, d := base64Value[four[0]], base64Value[four[1]], base64Value[four[2]], base64Value[four[3]]
	if a|b|c|d < base64None {
		return append(dst, a<<2|b>>4, b<<4|c>>2, c<<6|d), true
	}
	switch {
	case four[3] != '=' || a|b >= base64None:
		return dst, false
	case four[2] == '=':
		return append(dst, a<<2|b>>4), b&0x0f == 0
	case c >= base64None:
		return dst, false
	}
	return append(dst, a<<2|b>>4, b<<4|c>>2), c&0x03 == 0
}

// base64None is the value of what is no character of base64, and all above it.
const base64None = 64

var base64Value = func() (t [256]byte) {
	for i := range t {
		t[i] = base64None
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// base64Writer encodes what comes in pieces. The zero value is ready.
type base64Writer struct {
	three [3]byte
	n     int // bytes of three that wait
}

// append appends what can be said of src without padding.
func (w *base64Writer) append(dst, src []byte) []byte {
	if w.n > 0 {
		n := copy(w.three[w.n:], src)
		src = src[n:]
		if w.n += n; w.n < len(w.three) {
			return dst
		}
		w.n = 0
		dst = base64.StdEncoding.AppendEncode(dst, w.three[:])
	}
	whole := len(src) - len(src)%3
	dst = base64.StdEncoding.AppendEncode(dst, src[:whole])
	w.n = copy(w.three[:], src[whole:])
	return dst
}

// end appends what waits, padded.
func (w *base64Writer) end(dst []byte) []byte {
	dst = base64.StdEncoding.AppendEncode(dst, w.three[:w.n])
	w.n = 0
	return dst
}
