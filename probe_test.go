package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProbe asks a process as exec probes do, from its start to its end.
func TestProbe(t *testing.T) {
	t.Setenv("POD_NAME", "sluice-abcde")
	port, arrived, answer := slowBackend(t)
	socket := "--admin-address=unix://" + filepath.Join(t.TempDir(), "admin.sock")
	metrics := fmt.Sprint("127.0.0.1:", freePort(t))
	c := startServing(t, port, socket, "--metrics-address="+metrics)
	ask := func(want int, holds string, args ...string) {
		t.Helper()
		stdout, stderr, status := runProgram(t, nil, append([]string{"probe"}, args...)...)
		if status != want || !strings.Contains(stdout+stderr, holds) {
			t.Errorf("probe %v: status %d, %q, %q", args, status, stdout, stderr)
		}
	}
	ask(0, "ok", socket)
	ask(0, "ok", socket, "--path=/healthz", "--timeout=5")
	ask(0, "sluice_build_info", socket, "--path=/metrics")
	ask(1, "404 Not Found: there is no such page", socket, "--path=/nothing")
	ask(1, "no such file", socket+"x")
	ask(2, "give a path", socket, "--path=readyz")
	ask(2, "unknown flag --pth", socket, "--pth=/")
	ask(2, "names nobody", "--admin-address=")
	ask(0, "exit status 0 and the page", "--help")

	if status := probe(t, "http://"+metrics+"/debug/snapshot"); status != 404 {
		t.Errorf("the port of the metrics shows routes: %d", status)
	}
	res, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if got := res.Header.Get("Sluice-Pod"); res.StatusCode != 200 || got != "sluice-abcde" {
		t.Errorf("/metrics: %d of pod %q", res.StatusCode, got)
	}
	read := askSlow(t, c.http)
	<-arrived
	c.signal(syscall.SIGTERM)
	c.logged("msg=\"draining")
	ask(1, "503 Service Unavailable: draining", socket)
	if status := probe(t, "http://"+metrics+"/readyz"); status != 503 {
		t.Errorf("a load balancer is told %d by a process that ends", status)
	}
	answer()
	if got := read(); !strings.HasPrefix(got, "200 done") {
		t.Error(got)
	}
	c.ends(10*time.Second, 0)
	ask(1, "connection refused", socket)
}
