package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestH2Spec has the whole program examined by h2spec, strictly: over TLS and, with prior knowledge, without. Its 146 cases
// are those of the release that tools/go.mod pins; make test builds it.
func TestH2Spec(t *testing.T) {
	program, err := filepath.Abs("bin/h2spec")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("bin/h2spec is not there: make bin/h2spec builds it")
	}
	b := newBackend(t, "one", nil)
	p := startProxy(t, site{name: "any", host: "localhost", ports: []int{b.port()}}.yaml())
	for name, address := range map[string]string{"TLS": p.HTTPS, "h2c": p.HTTP} {
		t.Run(name, func(t *testing.T) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"--strict", "--timeout=5", "--host=localhost", "--port=" + port}
			if name == "TLS" {
				args = append(args, "--tls", "--insecure")
			}
			out, err := exec.Command(program, args...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "146 tests, 146 passed, 0 skipped, 0 failed") {
				t.Errorf("%v\n%s", err, failures(string(out)))
			}
		})
	}
}

// failures are the lines of a report that tell of them.
func failures(report string) string {
	_, found, ok := strings.Cut(report, "Failures:")
	if !ok {
		return report
	}
	return found
}
