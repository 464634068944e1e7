package main

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamples: nothing is wrong with them, and lint says of each annotation what becomes of it and where that is told.
func TestExamples(t *testing.T) {
	stdout, stderr, status := runProgram(t, nil, "lint", "examples")
	if status != 0 || stderr != "skipped, since not *.yaml, *.yml or *.json: 1\n" || !strings.Contains(stdout, "5 Ingresses: no problem\n") {
		t.Fatalf("status %d, standard error %q, standard output\n%s", status, stderr, stdout)
	}
	document, err := os.ReadFile("docs/annotations.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(document), "\n")
	for _, key := range []string{"limit-rps", "canary-weight", "affinity", "sluice.dev/health-check"} {
		_, after, ok := strings.Cut(stdout, key+": \"")
		_, after, there := strings.Cut(after, "docs/annotations.md:")
		number, _, _ := strings.Cut(after, "]")
		var n int
		if err := json.Unmarshal([]byte(number), &n); !ok || !there || err != nil || !strings.HasPrefix(lines[n-1], "| `"+key+"`") {
			t.Errorf("%s: line %s is not its row", key, number)
		}
	}
}

// TestLintFile: one file by its name; a bad value and an unknown annotation are refused, and the status tells.
// TestLintDescends: directories in directories are read, and what is not is said.
func TestLintDescends(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"team/shop/shop.yaml": site{name: "shop", host: "shop.example", annotations: map[string]string{"limit-rps": "5"}}.yaml(),
		"team/notes.md":       "nothing", ".git/x.yaml": "nonsense: [",
		"top.yml": site{name: "top", host: "top.example", annotations: map[string]string{"use-regex": "true"}}.yaml(),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "team"), filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status := runProgram(t, nil, "lint", dir)
	for _, want := range []string{"Ingress default/shop (", "Ingress default/top (", "2 Ingresses: no problem"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	for _, want := range []string{".git is skipped: a hidden directory", "not *.yaml, *.yml or *.json: 1", "again"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in\n%s", want, stderr)
		}
	}
	if status != 0 {
		t.Errorf("status %d", status)
	}
	if _, stderr, status := runProgram(t, nil, "lint", t.TempDir()); status != 1 || !strings.Contains(stderr, "there is no manifest") {
		t.Errorf("an empty directory: status %d, %q", status, stderr)
	}
}

func TestLintFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.yaml")
	text := site{name: "shop", host: "shop.example", annotations: map[string]string{"limit-rate": "fast", "afinity": "cookie", "use-regex": "true",
		"proxy-body-size": "1m"}}.yaml()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "other.yaml"), []byte("nonsense: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status := runProgram(t, nil, "lint", file)
	for _, want := range []string{"Ingress default/shop (", "refused   nginx.ingress.kubernetes.io/limit-rate: \"fast\" [docs/annotations.md:",
		"did you mean affinity?", "differs   nginx.ingress.kubernetes.io/use-regex", "same      nginx.ingress.kubernetes.io/proxy-body-size"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if status != 1 || stderr != "" || strings.Contains(stdout, "other.yaml") {
		t.Errorf("status %d, standard error %q, standard output\n%s", status, stderr, stdout)
	}
	if _, stderr, status := runProgram(t, nil, "lint", filepath.Join(t.TempDir(), "gone.yaml")); status != 1 || !strings.Contains(stderr, "gone.yaml") {
		t.Errorf("a file that is not there: status %d, %q", status, stderr)
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		args string
		want []string
	}{
		{"GET https://shop.example/api/x?y=z", []string{"GET /api/x?y=z for shop.example", "host      shop.example, by name",
			"rule      /api (Prefix) of Ingress shop/shop", "backend   api:http, cluster shop/api:http",
			"/ (Prefix) of Ingress shop/shop: matches, but a longer path goes first",
			"proxy-read-timeout 30s, from the annotation nginx.ingress.kubernetes.io/proxy-read-timeout", "proxy-send-timeout 1m0s, from the default"}},
		{"GET http://shop.example/", []string{"rule      / (Prefix)", "shop-web-next-80 takes it by chance, with 10 %", "/api (Prefix) of Ingress shop/shop: does not match /"}},
		{"-H X-Canary:always GET http://shop.example/", []string{"shop-web-next-80 takes it: its header or cookie rule says so", "cluster shop/web-next:80"}},
		{"-H X-Canary:never GET http://shop.example/", []string{"shop-web-next-80 does not take it", "cluster shop/web:80"}},
		{"GET http://nobody.example/", []string{"host      (any), by catch-all", "outcome   404"}},
		{"GET http://shop.example/%00", []string{"is refused: "}},
		{"POST http://login.example/", []string{"filters   HSTS, Limit", `limit-rps: "5" (differs)`}},
	} {
		stdout, stderr, status := runProgram(t, nil, append([]string{"explain", "--manifests=examples"}, strings.Fields(c.args)...)...)
		if status != 0 || stderr != "" {
			t.Errorf("%s: status %d, %q", c.args, status, stderr)
		}
		for _, want := range c.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: no %q in\n%s", c.args, want, stdout)
			}
		}
	}
	if stdout, _, status := runProgram(t, nil, "explain", "--manifests", "examples", "GET", "http://shop.example/", "--json"); status != 0 || !json.Valid([]byte(stdout)) {
		t.Errorf("status %d, JSON\n%s", status, stdout)
	}
	for _, bad := range [][]string{{"explain"}, {"explain", "--manifests=examples", "GET"}, {"explain", "--manifests=examples", "GET", "ftp://a/"},
		{"explain", "--manifests=examples", "GET", "http://a/", "-H", "nonsense"}} {
		if _, stderr, status := runProgram(t, nil, bad...); status != 2 || stderr == "" {
			t.Errorf("%v: status %d, %q", bad, status, stderr)
		}
	}
}

// TestExplainPage: the same of what is served, as JSON.
func TestExplainPage(t *testing.T) {
	b := newBackend(t, "one", nil)
	p := startProxy(t, site{name: "shop", host: "shop.example", path: "/app", ports: []int{b.port()}, annotations: map[string]string{"limit-rps": "7"}}.yaml())
	status, text := p.adminPage(t, "/debug/explain?url="+url.QueryEscape("https://shop.example/app/x"))
	var e struct {
		Host, HostBy string
		Rule         struct{ Ingress, Path string }
		Endpoints    []string
		Annotations  []struct{ Key, Value, Verdict string }
	}
	if err := json.Unmarshal([]byte(text), &e); status != 200 || err != nil {
		t.Fatalf("%d, %v:\n%s", status, err, text)
	}
	if e.Host != "shop.example" || e.HostBy != "name" || e.Rule.Ingress != "default/shop" || e.Rule.Path != "/app" || len(e.Endpoints) != 1 || len(e.Annotations) != 1 {
		t.Errorf("%+v", e)
	}
	if status, _ := p.adminPage(t, "/debug/explain?url=nonsense"); status != 400 {
		t.Errorf("nonsense answers %d", status)
	}
}

// TestArgumentsBesideFlags: what stands after a switch is not its value, what stands after another flag is.
func TestArgumentsBesideFlags(t *testing.T) {
	q, _, rest := questionOf(strings.Fields("--enable-ssl-passthrough GET --v 3 -v 2 https://h/ --manifests POST"))
	if q.Method != "GET" || q.URL != "https://h/" || strings.Join(rest, " ") != "--enable-ssl-passthrough --v 3 -v 2 --manifests POST" {
		t.Errorf("%+v, flags %q", q, rest)
	}
	paths, rest := splitPaths(strings.Fields("--watch-ingress-without-class a --ingress-class b -v 3 c --ingress-class=x d"))
	if strings.Join(paths, " ") != "a c d" || strings.Join(rest, " ") != "--watch-ingress-without-class --ingress-class b -v 3 --ingress-class=x" {
		t.Errorf("paths %q, flags %q", paths, rest)
	}
}
