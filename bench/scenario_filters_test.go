package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestChainIsAskedAcrossSites: CORS has nothing to do for who does not say where it comes from.
func TestChainIsAskedAcrossSites(t *testing.T) {
	const field = "\r\nOrigin: " + filtersOrigin + "\r\n"
	p := &running{}
	for name, l := range map[string]load{"chain": chainLoad(p), "bare": bareLoad(p)} {
		if head := string(requestOf(l)); !strings.Contains(head, field) || !strings.HasSuffix(head, "\r\n\r\n") {
			t.Errorf("%s: %q", name, head)
		}
	}
	if head := string(request(hostBench, pathSmall)); strings.Contains(head, "Origin") {
		t.Errorf("elsewhere: %q", head)
	}
}

// TestCORSIsWhole: a proxy that leaves out a field, or says it twice, has other work.
func TestCORSIsWhole(t *testing.T) {
	for lacks := range corsFields {
		for name, change := range map[string]func(http.Header){
			"all are there": func(http.Header) {},
			"one is not":    func(h http.Header) { h.Del(lacks) },
			"one is other":  func(h http.Header) { h.Set(lacks, "*") },
			"one is twice":  func(h http.Header) { h.Add(lacks, corsFields[lacks]) },
		} {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for field, value := range corsFields {
					w.Header().Set(field, value)
				}
				change(w.Header())
			}))
			err := checkCORS(t.Context(), &running{plain: strings.TrimPrefix(s.URL, "http://")})
			s.Close()
			if right := name == "all are there"; (err == nil) != right {
				t.Errorf("%s, %s: %v", lacks, name, err)
			}
		}
	}
}

// TestRivalsFilter makes the probes of the rows with filters on each that has a configuration for them.
func TestRivalsFilter(t *testing.T) {
	c := rival(t, "nginx")
	plain, _, _, _ := startTestOrigin(t)
	r, _ := testRig(t)
	_, port, _ := net.SplitHostPort(plain)
	r.origin.plainPort, _ = strconv.Atoi(port)
	p, err := r.launch(t.Context(), c, shape{Filters: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	for _, host := range []string{hostRewrite, hostChain} {
		if err := checkRewrite(t.Context(), p, host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := checkLog(t.Context(), p); err != nil {
		t.Error(err)
	}
	if err := checkCORS(t.Context(), p); err != nil {
		t.Error(err)
	}
	if err := checkLimit(t.Context(), p); err != nil {
		t.Error(err)
	}
	if _, err := probe(t.Context(), chainLoad(p)); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(filepath.Join(p.deployment.Dir, "nginx.conf"))
	if n := strings.Count(string(text), "access_log "+p.deployment.AccessLog()+" upstreaminfo buffer=256k flush=1s;"); n != 2 || err != nil {
		t.Errorf("%d access logs are buffered, want 2; %v", n, err)
	}
}

func TestKeepEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(path, []byte("a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- keepEmpty(ctx, path) }()
	for range 2 {
		waitFor(t, func() bool {
			info, err := os.Stat(path)
			return err == nil && info.Size() == 0
		})
		if err := os.WriteFile(path, []byte("another\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := keepEmpty(t.Context(), filepath.Join(filepath.Dir(path), "none")); err == nil {
		t.Error("a log that is not there is empty")
	}
}
