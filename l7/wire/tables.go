package wire

import (
	"encoding/binary"
	"math/bits"
)

// What a byte may be in a message. One table look-up answers for one byte; the two word tricks below answer for eight.
const (
	charToken   uint8 = 1 << iota // RFC 9110 tchar
	charOdd                       // a token character that nginx calls invalid in a field's name: no letter, digit or hyphen
	charReg                       // allowed in a host name as we take it: unreserved of RFC 3986
	charUpper                     // an upper-case letter
	charPath                      // RFC 3986 pchar without "%", and "/": stands for itself in a path
	charEscape                    // ``"<>^`{|}`` and >= 0x80: percent-encoded when a path is forwarded
	charRefused                   // never in a path: controls, blank, 0x7f, "#", "?", "\"
)

var chars = charTable()

func charTable() (t [256]uint8) {
	for c := range 256 {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			t[c] = charToken | charReg | charPath
		case c >= 'A' && c <= 'Z':
			t[c] = charToken | charReg | charPath | charUpper
		case c <= ' ' || c == 0x7f:
			t[c] = charRefused
		case c >= 0x80:
			t[c] = charEscape
		}
	}
	set := func(bytes string, bit uint8) {
		for _, c := range []byte(bytes) {
			t[c] |= bit
		}
	}
	set("!#$%&'*+-.^_`|~", charToken)
	set("!#$%&'*+.^_`|~", charOdd)
	set("-._~", charReg)
	set("-._~!$&'()*+,;=:@/", charPath)
	set("\"<>^`{|}", charEscape)
	set("#?\\", charRefused)
	return t
}

// lower maps upper-case ASCII to lower case and every other byte to itself.
var lower = lowerTable()

func lowerTable() (t [256]byte) {
	for c := range 256 {
		t[c] = byte(c)
		if c >= 'A' && c <= 'Z' {
			t[c] = byte(c) + 'a' - 'A'
		}
	}
	return t
}

// unhex maps a hexadecimal digit to its value and every other byte to 0xff.
var unhex = unhexTable()

func unhexTable() (t [256]uint8) {
	for c := range 256 {
		switch {
		case c >= '0' && c <= '9':
			t[c] = uint8(c - '0')
		case c >= 'a' && c <= 'f':
			t[c] = uint8(c-'a') + 10
		case c >= 'A' && c <= 'F':
			t[c] = uint8(c-'A') + 10
		default:
			t[c] = 0xff
		}
	}
	return t
}

const hexDigits = "0123456789ABCDEF"

// Eight bytes at once. Subtracting 0x20 from each byte of a word borrows into a byte's top bit exactly where the byte was
// smaller; a borrow can only spoil the bytes above a true hit, so the lowest hit is exact, and the lowest is the first.
const (
	ones = 0x0101010101010101
	tops = 0x8080808080808080
)

// controls marks bytes below 0x20 and 0x7f.
func controls(w uint64) uint64 {
	del := w ^ 0x7f*ones
	return ((w-0x20*ones)&^w | (del-ones)&^del) & tops
}

// blanks marks bytes up to 0x20 and 0x7f.
func blanks(w uint64) uint64 {
	del := w ^ 0x7f*ones
	return ((w-0x21*ones)&^w | (del-ones)&^del) & tops
}

// plain tells whether no byte of two words is below 0x20 or at least 0x7f, in the fewest steps; it may say no when the
// answer is yes.
func plain(v, w uint64) bool {
	return ((v-0x20*ones)|(v+ones)|(w-0x20*ones)|(w+ones))&tops == 0
}

// indexControl finds the first byte of b[i:] that is below 0x20 or 0x7f, else len(b).
func indexControl(b []byte, i int) int {
	for ; i+16 <= len(b); i += 16 {
		pair := b[i : i+16]
		v, w := binary.LittleEndian.Uint64(pair), binary.LittleEndian.Uint64(pair[8:])
		if plain(v, w) {
			continue
		}
		if m := controls(v); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		if m := controls(w); m != 0 {
			return i + 8 + bits.TrailingZeros64(m)>>3
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c == 0x7f {
			return i
		}
	}
	return i
}

// indexBlank finds the first byte of b[i:] that is at most 0x20 or 0x7f, else len(b).
func indexBlank(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		if m := blanks(binary.LittleEndian.Uint64(b[i:])); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c <= 0x20 || c == 0x7f {
			return i
		}
	}
	return i
}

// IsToken tells whether b is a token (RFC 9110 5.6.2): a method or field name.
func IsToken(b []byte) bool {
	for _, c := range b {
		if chars[c]&charToken == 0 {
			return false
		}
	}
	return len(b) > 0
}

// ValidValue tells whether b may be a field's value: no control character but HTAB. Its words overlap at the end, which
// spares it a tail; what is not plain ASCII is looked at byte by byte.
func ValidValue(b []byte) bool {
	n := len(b)
	if n < 8 {
		return validBytes(b)
	}
	i := 0
	for ; i+16 < n; i += 16 {
		pair := b[i : i+16]
		if !plain(binary.LittleEndian.Uint64(pair), binary.LittleEndian.Uint64(pair[8:])) {
			return validBytes(b)
		}
	}
	i = min(i, n-8)
	return plain(binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(b[n-8:])) || validBytes(b)
}

func validBytes(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// equalFold compares b with a lower-case ASCII text, whatever b's case.
func equalFold(b []byte, text string) bool {
	if len(b) != len(text) {
		return false
	}
	for i, c := range b {
		if lower[c] != text[i] {
			return false
		}
	}
	return true
}

// EqualFold compares two byte strings, whatever the case of their ASCII letters.
func EqualFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if lower[c] != lower[b[i]] {
			return false
		}
	}
	return true
}

func hasPrefixFold(b []byte, text string) bool {
	return len(b) >= len(text) && equalFold(b[:len(text)], text)
}

// trim cuts optional white space (blank, HTAB) off both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// element cuts the first element off a comma-separated list; it may be empty. more tells whether a comma followed.
func element(list []byte) (first, rest []byte, more bool) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:], true
		}
	}
	return trim(list), nil, false
}
