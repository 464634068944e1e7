package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLogReaderGoes: when nobody reads standard output any more, lines are lost and counted; nothing else happens.
func TestLogReaderGoes(t *testing.T) {
	b := newBackend(t, "one", nil)
	dir := t.TempDir()
	text := site{name: "shop", host: "shop.example", ports: []int{b.port()}}.yaml()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	p := startChildTo(t, write, "--manifests="+dir, "--bind-address=127.0.0.1", fmt.Sprint("--http-port=", port), "--https-port=0", "--admin-address=127.0.0.1:0")
	_ = write.Close()
	admin := p.logged(`msg="the admin page is open" address=(\S+)`)[1]
	p.logged(`msg=serving`)
	address := fmt.Sprint("127.0.0.1:", port)
	ask(t, address, nil, "shop.example", "/").want(t, 200, "one")
	line := make([]byte, 1<<10)
	if n, err := read.Read(line); err != nil || !strings.Contains(string(line[:n]), `"GET / HTTP/1.1" 200`) {
		t.Fatalf("the access log says %q, %v", line[:n], err)
	}

	_ = read.Close()
	failed := regexp.MustCompile(`(?m)^sluice_access_log_write_errors_total [1-9]`)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		ask(t, address, nil, "shop.example", "/").want(t, 200, "one")
		if failed.MatchString(metricsOf(t, admin)) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no write of the access log failed")
		}
	}
	ask(t, address, nil, "shop.example", "/").want(t, 200, "one")
	p.signal(syscall.SIGTERM)
	p.ends(10*time.Second, 0)
}

func metricsOf(t *testing.T, admin string) string {
	t.Helper()
	answer, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
