package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestNoLenientSwitch: no flag, annotation or key says that the parser shall take what it refuses (docs/hardening.md 3.1
// rule 6). The names are those by which other proxies offer it.
func TestNoLenientSwitch(t *testing.T) {
	lenient := regexp.MustCompile(`(?i)lenient|tolera|accept-invalid|invalid-http|ignore-invalid-headers|unsafe|h1-case|allow-http-0|bare-lf|obs-fold|permissive`)
	page := readPage(t, "docs/annotations.md")
	for _, line := range strings.Split(page, "\n") {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if strings.HasPrefix(line, "| ") && lenient.MatchString(name) && !strings.Contains(rest, "answers 400, whatever is set") {
			t.Errorf("a switch that makes a parser lenient? %s", line)
		}
	}
	for _, f := range table {
		if lenient.MatchString(f.name) {
			t.Errorf("--%s", f.name)
		}
	}
}

// finding is what testssl.sh says of one property.
type finding struct{ ID, Severity, Finding string }

// TestTLSScan has testssl.sh look for weak protocols and ciphers.
func TestTLSScan(t *testing.T) {
	if os.Getenv("SLUICE_TLS_SCAN") == "" {
		t.Skip("it starts hundreds of processes, which takes minutes: SLUICE_TLS_SCAN=1 runs it")
	}
	scanner, err := exec.LookPath("testssl")
	if err != nil {
		t.Skip("testssl.sh is not installed (Debian: apt-get install testssl.sh)")
	}
	w := newTLSWorld(t)
	out := filepath.Join(t.TempDir(), "out.json")
	c := exec.Command(scanner, "--quiet", "--color", "0", "--ip", "127.0.0.1", "--jsonfile", out, "--fast", "--protocols", "--std",
		"https://exact.example:"+w.HTTPS[strings.LastIndex(w.HTTPS, ":")+1:])
	c.Dir = t.TempDir()
	c.Env = append(os.Environ(), "TERM=dumb")
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	timer := time.AfterFunc(8*time.Minute, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	_ = c.Run() // its status counts what it found
	b, err := os.ReadFile(out)
	var found []finding
	if err != nil || json.Unmarshal(b, &found) != nil {
		t.Fatalf("no findings: %v\n%s", err, log.String())
	}
	looked := map[string]string{}
	for _, f := range found {
		looked[f.ID] = f.Finding
		switch f.Severity {
		case "OK", "INFO", "LOW", "DEBUG":
		default:
			if strings.HasPrefix(f.ID, "scan") || strings.HasPrefix(f.ID, "engine") || f.ID == "service" || strings.HasPrefix(f.ID, "optimal_proto") || f.ID == "HSTS" {
				continue // about the scan, or about HTTP
			}
			t.Errorf("%s: %s: %s", f.Severity, f.ID, f.Finding)
		}
	}
	for id, want := range map[string]string{"SSLv2": "not offered", "SSLv3": "not offered", "TLS1": "not offered", "TLS1_1": "not offered", "TLS1_2": "offered", "TLS1_3": "offered",
		"cipherlist_NULL": "not offered", "cipherlist_aNULL": "not offered", "cipherlist_EXPORT": "not offered", "cipherlist_LOW": "not offered",
		"cipherlist_3DES_IDEA": "not offered", "cipherlist_AVERAGE": "not offered", "cipherlist_STRONG": "offered"} {
		if got := looked[id]; !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q, want %q", id, got, want)
		}
	}
	// and what is there still works
	conn, err := tls.Dial("tcp", w.HTTPS, trusting(t, "exact.example"))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
