package fastpath

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
)

func TestCipherSuites(t *testing.T) {
	all, _ := CipherSuites("")
	if len(all) != 6 {
		t.Fatalf("%d suites", len(all))
	}
	for _, c := range tls.InsecureCipherSuites() {
		if slices.Contains(all, c.ID) {
			t.Errorf("%s is insecure", c.Name)
		}
	}
	rsa128 := uint16(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)
	for _, c := range []struct {
		list    string
		suites  int
		has     bool // ECDHE-RSA-AES128-GCM-SHA256
		unknown string
	}{
		{"DEFAULT", 6, true, ""},
		{"HIGH:!aNULL:!MD5", 6, true, ""},
		{"HIGH:!AES256:!aNULL", 4, true, ""},
		{"HIGH:!aRSA", 3, false, ""},
		{"ALL:!ECDHE-RSA-AES128-GCM-SHA256", 5, false, ""},
		{"ECDHE-RSA-AES128-GCM-SHA256", 1, true, ""},
		{"ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:AES128-SHA", 1, true, "DHE-RSA-AES128-GCM-SHA256 AES128-SHA"},
		{"+AES128:TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-CHACHA20-POLY1305", 1, false, ""},
		{"HIGH@STRENGTH", 0, false, "HIGH@STRENGTH"},
		{"RC4-MD5", 0, false, "RC4-MD5"},
		{"!aNULL", 0, false, ""},
	} {
		suites, unknown := CipherSuites(c.list)
		if len(suites) != c.suites || slices.Contains(suites, rsa128) != c.has || strings.Join(unknown, " ") != c.unknown {
			t.Errorf("%s: %v, unknown %v", c.list, suites, unknown)
		}
	}
}
