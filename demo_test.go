package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/watcher"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// TestDemoManifests holds the embedded manifests to what we ask of others' ones.
func TestDemoManifests(t *testing.T) {
	b, err := startDemoBackends()
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	dir, err := writeDemo(t.TempDir(), b)
	if err != nil {
		t.Fatal(err)
	}
	source, err := watcher.Open(watcher.Spec{Scheme: "file", Paths: []string{dir}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	state, err := source.Load()
	if err != nil {
		t.Fatal(err)
	}
	o := demoOptions()
	o.manifests = []string{dir}
	translator := translate.New(translateOptions(&o))
	for _, p := range watcher.Check(state, translator, route.Env{NewCluster: lintCluster}) {
		t.Error(p)
	}
	config, _ := translator.Translate(&state.Objects)
	hosts := map[string]bool{}
	for _, h := range config.Hosts {
		hosts[h.Name] = h.Certificate != nil || h.Passthrough != ""
	}
	for name, tls := range map[string]bool{"shop.localhost": true, "*.apps.localhost": true, "secure.localhost": true, "api.localhost": false} {
		if got, ok := hosts[name]; !ok || got != tls {
			t.Errorf("host %s: there %v, with TLS %v", name, ok, got)
		}
	}
}

// TestDemoKeepsEdits starts twice on one directory.
func TestDemoKeepsEdits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "demo")
	write := func() string {
		b, err := startDemoBackends()
		if err != nil {
			t.Fatal(err)
		}
		defer b.close()
		if _, err := writeDemo(dir, b); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "backends.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := write()
	if err := os.WriteFile(filepath.Join(dir, "shop.yaml"), []byte("# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if write() == first {
		t.Error("where the backends are was not written anew")
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "shop.yaml")); string(text) != "# mine\n" {
		t.Errorf("an edited manifest became\n%s", text)
	}
}

// TestDemoDirectoryOfOthers does not write where somebody else could.
func TestDemoDirectoryOfOthers(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	mine, err := demoDirectory()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := demoDirectory(); again != mine {
		t.Errorf("two demos, two directories: %s, %s", mine, again)
	}
	if err := os.Chmod(mine, 0o777); err != nil {
		t.Fatal(err)
	}
	if other, err := demoDirectory(); err != nil || other == mine {
		t.Errorf("a directory that everybody may write to is used: %s, %v", other, err)
	}
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), mine); err != nil {
		t.Fatal(err)
	}
	if other, err := demoDirectory(); err != nil || other == mine {
		t.Errorf("a link is used: %s, %v", other, err)
	}
}

var demoLine = regexp.MustCompile(`^  ((?:curl|sed|sleep) .*)$`)

// TestDemo runs the demo as users do, with the lines that it prints.
func TestDemo(t *testing.T) {
	for _, tool := range []string{"sh", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the demo's lines need %s: %v", tool, err)
		}
	}
	dir := t.TempDir()
	c := startChild(t, "demo", "--dir="+dir, fmt.Sprint("--http-port=", freePort(t)), fmt.Sprint("--https-port=", freePort(t)), "--admin-address=127.0.0.1:0")
	c.waitFor(&c.out, "Ctrl-C ends the demo")
	wants := []string{
		"Hello from the shop",
		`"path": "/api/orders"`,
		`"path": "/orders"`,
		"HTTP/1.1 301",
		"Location: https://blue.apps.localhost",
		"Host: shop.localhost",
		"Host: green.apps.localhost",
		"passed through",
		"", // the edit
		"", // waiting
		`"path": "/interface/orders"`,
		"/metrics",
	}
	c.mu.Lock()
	text := c.out.String()
	c.mu.Unlock()
	n := 0
	for line := range strings.Lines(text) {
		m := demoLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		answer, err := exec.Command("sh", "-c", m[1]).CombinedOutput()
		if n >= len(wants) {
			t.Fatalf("a line that this test does not know: %s", m[1])
		}
		if err != nil || !strings.Contains(string(answer), wants[n]) {
			t.Errorf("%s\nanswers (%v)\n%s\nwant %q", m[1], err, answer, wants[n])
		}
		n++
	}
	if n != len(wants) {
		t.Errorf("%d lines to try, want %d", n, len(wants))
	}
	c.signal(syscall.SIGINT)
	c.ends(10*time.Second, 0)
	if problems := c.log.String(); strings.Contains(problems, "msg=problem") {
		t.Errorf("the demo has problems:\n%s", problems)
	}
}

func TestDemoPortInUse(t *testing.T) {
	p := startProxy(t, "")
	_, port, _ := strings.Cut(p.HTTP, ":")
	dir := t.TempDir()
	_, stderr, status := runProgram(t, nil, "demo", "--dir="+dir, "--http-port="+port)
	if status != 1 || !strings.Contains(stderr, "choose another --http-port") {
		t.Errorf("status %d, standard error\n%s", status, stderr)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("a demo that cannot start has written %v", entries)
	}
}
