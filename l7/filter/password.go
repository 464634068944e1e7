package filter

import (
	"bytes"
	"crypto/md5"  //nolint:gosec // apr1 is what htpasswd files hold
	"crypto/sha1" //nolint:gosec // likewise
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// bcryptCostMax bounds the time that one password may take: each step doubles it, and 14 is about a second.
const bcryptCostMax = 14

// passwordHash is a line of an htpasswd file without its user.
type passwordHash struct {
	kind hashKind
	text []byte // the whole of it
	salt []byte // apr1
	sum  []byte // {SHA}: decoded; apr1: as text
}

type hashKind uint8

const (
	hashSHA hashKind = iota
	hashApr1
	hashBcrypt
)

// slow hashes are not for a loop.
func (h *passwordHash) slow() bool { return h.kind != hashSHA }

var errHash = errors.New("is no hash of bcrypt ($2y$), apr1 ($apr1$) or {SHA}; make one with htpasswd -B")

// CheckPasswordHash tells why a hash cannot be used.
func CheckPasswordHash(text string) error {
	_, err := parsePasswordHash(text)
	return err
}

func parsePasswordHash(text string) (h passwordHash, err error) {
	h.text = []byte(text)
	switch {
	case strings.HasPrefix(text, "{SHA}"):
		h.sum, err = base64.StdEncoding.DecodeString(text[len("{SHA}"):])
		if err != nil || len(h.sum) != sha1.Size {
			return h, errHash
		}
	case strings.HasPrefix(text, "$apr1$"):
		salt, sum, ok := strings.Cut(text[len("$apr1$"):], "$")
		if !ok || salt == "" || len(salt) > 8 || len(sum) != apr1SumLength {
			return h, errHash
		}
		h.kind, h.salt, h.sum = hashApr1, []byte(salt), []byte(sum)
	case strings.HasPrefix(text, "$2"):
		cost, err := bcrypt.Cost(h.text)
		if err != nil {
			return h, errHash
		}
		if cost > bcryptCostMax {
			return h, fmt.Errorf("has cost %d: more than %d would let anybody keep the processor busy", cost, bcryptCostMax)
		}
		h.kind = hashBcrypt
	default:
		return h, errHash
	}
	return h, nil
}

// matches compares in constant time. It may take as long as its hash wants it to.
func (h *passwordHash) matches(password []byte) bool {
	switch h.kind {
	case hashSHA:
		sum := sha1.Sum(password) //nolint:gosec // see above
		return subtle.ConstantTimeCompare(sum[:], h.sum) == 1
	case hashApr1:
		return subtle.ConstantTimeCompare(apr1(password, h.salt), h.sum) == 1
	}
	return bcrypt.CompareHashAndPassword(h.text, password) == nil
}

const (
	apr1SumLength = 22
	apr1Rounds    = 1000
	apr1Digits    = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// apr1 is Apache's variant of crypt(3)'s MD5 scheme: 1,000 rounds over password and salt in a fixed dance.
func apr1(password, salt []byte) []byte {
	inner := md5.New() //nolint:gosec // see above
	write := func(parts ...[]byte) {
		for _, p := range parts {
			inner.Write(p)
		}
	}
	write(password, salt, password)
	mix := inner.Sum(nil)
	inner.Reset()
	write(password, []byte("$apr1$"), salt)
	for left := len(password); left > 0; left -= md5.Size {
		write(mix[:min(left, md5.Size)])
	}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			write([]byte{0})
		} else {
			write(password[:1])
		}
	}
	sum := inner.Sum(nil)
	for i := range apr1Rounds {
		inner.Reset()
		if i&1 != 0 {
			write(password)
		} else {
			write(sum)
		}
		if i%3 != 0 {
			write(salt)
		}
		if i%7 != 0 {
			write(password)
		}
		if i&1 != 0 {
			write(sum)
		} else {
			write(password)
		}
		sum = inner.Sum(sum[:0])
	}
	return apr1Text(sum)
}

// apr1Text spells the sum, three bytes at a time in the scheme's own order.
func apr1Text(sum []byte) []byte {
	var out bytes.Buffer
	digits := func(v uint32, n int) {
		for range n {
			out.WriteByte(apr1Digits[v&0x3f])
			v >>= 6
		}
	}
	for _, at := range [][3]int{{0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}} {
		digits(uint32(sum[at[0]])<<16|uint32(sum[at[1]])<<8|uint32(sum[at[2]]), 4)
	}
	digits(uint32(sum[11]), 2)
	return out.Bytes()
}
