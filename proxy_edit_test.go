package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The tests of this file edit manifests while the proxy serves them: what is edited holds within a second, what is broken
// costs only itself, and no connection is dropped.

// witnesses are connections that were open before an edit and have to be after it.
type witnesses struct {
	t       *testing.T
	callers []*caller
}

// watchers open a plain, a TLS and a pass-through connection to hosts that no edit touches.
func newWitnesses(t *testing.T, p *testProxy) *witnesses {
	t.Helper()
	secured := newBackend(t, "stays", issue(t, "pass.example"))
	plain := newBackend(t, "stays", nil)
	p.write("witnesses.yaml", passSite("pass", "pass.example", secured.port())+
		site{name: "stays", host: "stays.example", ports: []int{plain.port()}, secret: "stays",
			annotations: map[string]string{"ssl-redirect": "false"}}.yaml()+secretOf(t, "stays", issue(t, "stays.example")))
	w := &witnesses{t: t, callers: []*caller{
		{address: p.HTTP}, {address: p.HTTPS, tls: trusting(t, "stays.example")}, {address: p.HTTPS, tls: trusting(t, "pass.example")},
	}}
	within(t, editLimit, "the witnesses' hosts", func() bool { return p.store.Load().Host([]byte("pass.example")).Passthrough != nil })
	w.check()
	return w
}

// check sends a request on every connection; it must be the one it was.
func (w *witnesses) check() {
	w.t.Helper()
	for i, host := range []string{"stays.example", "stays.example", "pass.example"} {
		c := w.callers[i]
		a, err := c.call(request(host, "/"))
		if err != nil {
			w.t.Fatal(err)
		}
		a.want(w.t, 200, "stays")
		if c.dials != 1 || c.repeats != 0 || a.close {
			w.t.Fatalf("the connection to %s was dropped: %d dials, %d repeats, close %v", host, c.dials, c.repeats, a.close)
		}
	}
}

// edits is a run of changes; each has to be served within editLimit.
type edits struct {
	*testProxy
	witnesses *witnesses
	slowest   time.Duration
}

// expect waits until a path answers as it should.
func (e *edits) expect(what, host, path string, ok func(a *answer) bool) {
	e.t.Helper()
	began := time.Now()
	var last *answer
	for {
		if last = ask(e.t, e.HTTP, nil, host, path); ok(last) {
			break
		}
		if time.Since(began) > editLimit {
			e.t.Fatalf("%s: not within %v, the answer is still %d %q", what, editLimit, last.status, last.body)
		}
		time.Sleep(2 * time.Millisecond)
	}
	e.slowest = max(e.slowest, time.Since(began))
	e.witnesses.check()
}

func by(name string) func(*answer) bool {
	return func(a *answer) bool { return a.status == 200 && strings.HasPrefix(a.body, name+"\n") }
}

func status(n int) func(*answer) bool { return func(a *answer) bool { return a.status == n } }

func newEdits(t *testing.T) *edits {
	p := startProxy(t, configMapOf("hsts", "true"), configMapFlag)
	return &edits{testProxy: p, witnesses: newWitnesses(t, p)}
}

func (e *edits) remove(name string) {
	e.t.Helper()
	if err := os.Remove(filepath.Join(e.Dir, name)); err != nil {
		e.t.Fatal(err)
	}
}

func TestEdits(t *testing.T) {
	e := newEdits(t)
	one, two := newBackend(t, "one", nil), newBackend(t, "two", nil)
	shop := site{name: "shop", host: "shop.example", ports: []int{one.port()}}
	e.write("shop.yaml", shop.yaml())
	e.expect("a new Ingress", "shop.example", "/", by("one"))
	shop.ports = []int{two.port()}
	e.write("shop.yaml", shop.yaml())
	e.expect("another endpoint", "shop.example", "/", by("two"))
	e.write("api.yaml", site{name: "api", host: "shop.example", path: "/api", ports: []int{one.port()}}.yaml())
	e.expect("a route of another Ingress", "shop.example", "/api/x", by("one"))
	e.expect("the first route", "shop.example", "/apix", by("two"))
	e.write("api.yaml", site{name: "api", host: "shop.example", path: "/v2", ports: []int{one.port()}}.yaml())
	e.expect("a changed path", "shop.example", "/v2", by("one"))
	e.expect("the path before", "shop.example", "/api", by("two"))
	shop.annotations = map[string]string{"permanent-redirect": "https://elsewhere.example"}
	e.write("shop.yaml", shop.yaml())
	e.expect("an annotation", "shop.example", "/", status(301))
	shop.annotations, shop.ports = nil, nil
	e.write("shop.yaml", shop.yaml())
	e.expect("no endpoint", "shop.example", "/", status(503))
	e.write("endpoints.yaml", endpointsOf("shop", one.port(), two.port()))
	e.expect("endpoints of another file", "shop.example", "/", by("one"))
	e.remove("endpoints.yaml")
	e.expect("their file is deleted", "shop.example", "/", status(503))
	e.remove("api.yaml")
	e.expect("a deleted Ingress", "shop.example", "/v2", status(503))
	e.remove("shop.yaml")
	e.expect("a deleted host", "shop.example", "/", status(404))
	t.Logf("the slowest edit was served after %v", e.slowest.Round(time.Millisecond))
}

// TestEditsOfSettings changes the ConfigMap.
func TestEditsOfSettings(t *testing.T) {
	e := newEdits(t)
	one := newBackend(t, "one", nil)
	e.write("shop.yaml", site{name: "shop", host: "shop.example", ports: []int{one.port()}}.yaml())
	e.expect("a new Ingress", "shop.example", "/", by("one"))
	e.write("all.yaml", configMapOf("whitelist-source-range", "10.0.0.0/8", "no-such-key", "1"))
	began := time.Now()
	for status := 0; status != 403; {
		status = ask(t, e.HTTP, nil, "shop.example", "/").status
		if time.Since(began) > editLimit {
			t.Fatal("the ConfigMap's edit does not hold")
		}
	}
	if problems := e.problems(t); !strings.Contains(problems, "no-such-key") {
		t.Errorf("problems are\n%s", problems)
	}
	e.write("all.yaml", configMapOf())
	e.expect("a ConfigMap without keys", "shop.example", "/", by("one"))
	e.write("all.yaml", "")
	e.expect("no ConfigMap", "shop.example", "/", by("one"))
	within(t, editLimit, "a Problem for the ConfigMap", func() bool { return strings.Contains(e.problems(t), "default/sluice") })
	e.write("all.yaml", configMapOf("use-proxy-protocol", "true"))
	within(t, editLimit, "PROXY headers", func() bool {
		c := &caller{address: e.HTTP, wrap: func(n net.Conn) net.Conn { return &headed{Conn: n, header: proxyV1} }}
		defer c.hangUp()
		a, err := c.call(request("shop.example", "/"))
		return err == nil && strings.Contains(a.body, "X-Forwarded-For: 203.0.113.9\r\n")
	})
	e.witnesses.check() // they were accepted before
}

// TestEditsBroken breaks a manifest in several ways: its objects stay as they were, others follow their edits.
func TestEditsBroken(t *testing.T) {
	e := newEdits(t)
	one, two := newBackend(t, "one", nil), newBackend(t, "two", nil)
	shop, other := site{name: "shop", host: "shop.example", ports: []int{one.port()}}, site{name: "other", host: "other.example", ports: []int{one.port()}}
	e.write("shop.yaml", shop.yaml())
	e.write("other.yaml", other.yaml())
	e.expect("an Ingress", "shop.example", "/", by("one"))
	for i, c := range []struct{ name, text, told string }{
		{"no YAML", "a: [", "shop.yaml"},
		{"another field", strings.Replace(shop.yaml(), "ingressClassName", "ingresClassName", 1), "spec.ingresClassName"},
		{"another type", strings.Replace(shop.yaml(), "ingressClassName: nginx", "ingressClassName: [nginx]", 1), "spec.ingressClassName"},
		{"cut", shop.yaml()[:200], "shop.yaml"},
		{"binary", "\x00\xff\xfe", "shop.yaml"},
	} {
		e.write("shop.yaml", c.text)
		within(t, 2*editLimit, c.name+": a Problem", func() bool { return strings.Contains(e.problems(t), c.told) })
		e.expect(c.name+": the last good version", "shop.example", "/", by("one"))
		other.path = fmt.Sprintf("/%d", i)
		e.write("other.yaml", other.yaml())
		e.expect(c.name+": another file's edit", "other.example", other.path, by("one"))
	}
	shop.ports = []int{two.port()}
	e.write("shop.yaml", shop.yaml())
	e.expect("a good version again", "shop.example", "/", by("two"))
	within(t, editLimit, "no Problem any more", func() bool { return !strings.Contains(e.problems(t), "shop.yaml") })
	bad := shop
	bad.secret = "no-such-secret"
	bad.annotations = map[string]string{"ssl-redirect": "false", "proxy-body-size": "many", "no-such-annotation": "1"}
	e.write("shop.yaml", bad.yaml()+secretOf(t, "broken", issue(t, "shop.example")))
	within(t, editLimit, "Problems of the object", func() bool {
		text := e.problems(t)
		return strings.Contains(text, "no-such-secret") && strings.Contains(text, "proxy-body-size") && strings.Contains(text, "no-such-annotation")
	})
	e.expect("an object with Problems", "shop.example", "/", by("two"))
}

// TestEditsByLink replaces a directory's content as mounts of ConfigMaps do, by the link ..data.
func TestEditsByLink(t *testing.T) {
	e := newEdits(t)
	one, two := newBackend(t, "one", nil), newBackend(t, "two", nil)
	for i, b := range []*backend{one, two, one} {
		dir := fmt.Sprintf("..v%d", i)
		if err := os.Mkdir(filepath.Join(e.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		text := site{name: "shop", host: "shop.example", ports: []int{b.port()}}.yaml()
		if err := os.WriteFile(filepath.Join(e.Dir, dir, "mounted.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		temporary := filepath.Join(e.Dir, "..data_tmp")
		if err := os.Symlink(dir, temporary); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temporary, filepath.Join(e.Dir, "..data")); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.Symlink("..data/mounted.yaml", filepath.Join(e.Dir, "mounted.yaml")); err != nil {
				t.Fatal(err)
			}
		}
		e.expect("version "+dir, "shop.example", "/", by(b.name))
	}
}

// TestEditsByRescan changes a file behind the watcher's back, through another name of it: SIGHUP has it read.
func TestEditsByRescan(t *testing.T) {
	e := newEdits(t)
	one, two := newBackend(t, "one", nil), newBackend(t, "two", nil)
	shop := site{name: "shop", host: "shop.example", ports: []int{one.port()}}
	e.write("shop.yaml", shop.yaml())
	e.expect("an Ingress", "shop.example", "/", by("one"))
	elsewhere := filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.Link(filepath.Join(e.Dir, "shop.yaml"), elsewhere); err != nil {
		t.Skip("no second name for a file here: ", err)
	}
	shop.ports = []int{two.port()}
	if err := os.WriteFile(elsewhere, []byte(shop.yaml()), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if a := ask(t, e.HTTP, nil, "shop.example", "/"); !by("one")(a) {
		t.Fatalf("the change was seen, so this proves nothing: %q", a.body)
	}
	e.source.Rescan()
	e.expect("what was read again", "shop.example", "/", by("two"))
}
