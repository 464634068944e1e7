package fastpath

import (
	"crypto/tls"
	"slices"
	"strings"
)

// suite is a TLS 1.2 suite with forward secrecy and authenticated encryption, under OpenSSL's name. There are no others
// here, and TLS 1.3 has none but such.
type suite struct {
	name string
	id   uint16
}

var suites = []suite{
	{"ECDHE-ECDSA-AES128-GCM-SHA256", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	{"ECDHE-RSA-AES128-GCM-SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	{"ECDHE-ECDSA-AES256-GCM-SHA384", tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
	{"ECDHE-RSA-AES256-GCM-SHA384", tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
	{"ECDHE-ECDSA-CHACHA20-POLY1305", tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
	{"ECDHE-RSA-CHACHA20-POLY1305", tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256},
}

// CipherSuites are the suites of a list as OpenSSL writes it: names, or words that stand for all that is spoken here (DEFAULT,
// HIGH, ALL …), between colons; "!NAME" and "-NAME" take one away. "" is all. unknown are the names that nobody speaks here; no
// suite at all is for the caller to refuse. Go chooses in an order of its own.
func CipherSuites(list string) (ids []uint16, unknown []string) {
	if list == "" {
		list = "DEFAULT"
	}
	taken := make(map[uint16]bool, len(suites))
	for _, word := range strings.FieldsFunc(list, func(c rune) bool { return c == ':' || c == ',' || c == ' ' }) {
		name := strings.TrimLeft(word, "!-+")
		i := slices.IndexFunc(suites, func(c suite) bool { return c.name == name })
		switch {
		case i >= 0 && word[0] != '+':
			taken[suites[i].id] = word == name
		case word[0] == '!' || word[0] == '-': // most of what is excluded is not spoken anyway
			for _, c := range suites {
				if slices.Contains(strings.Split(c.name, "-"), strings.TrimPrefix(name, "a")) { // ECDSA, aRSA, AES128 …
					taken[c.id] = false
				}
			}
		case word != name: // is only moved
		case strings.HasPrefix(word, "@"), strings.HasPrefix(word, "TLS_"): // strength, and TLS 1.3's suites, which are always on
		case slices.Contains(cipherWords, word):
			for _, c := range suites {
				taken[c.id] = true
			}
		default:
			unknown = append(unknown, word)
		}
	}
	for _, c := range suites {
		if taken[c.id] {
			ids = append(ids, c.id)
		}
	}
	return ids, unknown
}

// cipherWords are OpenSSL's words for sets in which all suites of ours are.
var cipherWords = []string{"DEFAULT", "HIGH", "ALL", "EECDH", "ECDHE", "kECDHE", "TLSv1.2"}
