package route

import (
	"slices"
	"testing"

	"github.com/sluiceproxy/sluice/upstream"
)

// What has not changed is the same object in the next Snapshot.
func TestReuse(t *testing.T) {
	e := newTestEnv()
	a, b := host("a.example", rules("Prefix", "/")...), host("*.b.example", rules("Prefix", "/")...)
	c := config(a, b)
	first := compiled(t, c, nil, e)
	changed := *b
	second := compiled(t, &Config{Hosts: []*VirtualHost{&changed, a}, Clusters: c.Clusters}, first, e)
	if first.Host([]byte("a.example")) != second.Host([]byte("a.example")) {
		t.Error("the unchanged host was compiled anew")
	}
	if first.Host([]byte("x.b.example")) == second.Host([]byte("x.b.example")) {
		t.Error("the changed host was not compiled")
	}
	if second.Generation != first.Generation+1 || !second.CompiledAt.Equal(e.Now()) {
		t.Errorf("generation %d compiled at %v", second.Generation, second.CompiledAt)
	}
	third := compiled(t, &Config{Hosts: []*VirtualHost{a}, Clusters: c.Clusters}, second, e)
	if got := third.Host([]byte("x.b.example")); got != third.catchAll {
		t.Errorf("the removed host is still served: %q", got.Name())
	}
	if e.made != 1 {
		t.Errorf("%d clusters were made, want 1", e.made)
	}
}

// When hosts change where they stand, only they are compiled, of whatever kind of name; the others, and their Problems, are
// those of before, and so is the Snapshot before. A catch-all that comes into being is another matter.
func TestReuseInPlace(t *testing.T) {
	e := newTestEnv()
	names := []string{"", "*.b.example", "a.example", "twice.example"} // in a Config's order
	ask := []string{"unknown.example", "x.b.example", "a.example", "twice.example"}
	list := make([]*VirtualHost, len(names))
	for i, name := range names {
		list[i] = host(name, rules("Prefix", "/")...)
	}
	list[3].Rules = rules("Exact", "/p", "Exact", "/p") // a Problem
	first, problems := Compile(config(list...), nil, e.Env)
	if len(problems) != 1 {
		t.Fatalf("%q", texts(problems))
	}
	for i := range 3 {
		next := slices.Clone(list)
		next[i] = host(names[i], rules("Prefix", "/", "Exact", "/new")...)
		c := config(next...)
		c.Clusters = first.config.Clusters
		k := &compiler{config: c, previous: first, next: &Snapshot{miss: first.miss}}
		if changed, ok := k.changedInPlace(); !ok || !slices.Equal(changed, []int{i}) {
			t.Errorf("%q: %v, %v", names[i], changed, ok)
		}
		second, problems := Compile(c, first, e.Env)
		if len(problems) != 1 {
			t.Errorf("%q: %q", names[i], texts(problems))
		}
		for n, name := range ask {
			before, now := first.Host([]byte(name)), second.Host([]byte(name))
			if (before == now) != (n != i) {
				t.Errorf("%q changed, %s is the same Host: %v", names[i], name, before == now)
			}
			if got := led(now.Match([]byte("/new"))); n == i && got != "1" || led(before.Match([]byte("/new"))) == "1" {
				t.Errorf("%q changed, %s leads to %q", names[i], name, got)
			}
		}
		c = &Config{Hosts: append([]*VirtualHost{next[0], host("!")}, next[1:]...), Clusters: c.Clusters} // one more, which is refused
		third, _ := Compile(c, second, e.Env)
		for _, name := range ask {
			if third.Host([]byte(name)) != second.Host([]byte(name)) {
				t.Errorf("%q changed in place: when all are put together again, %s is another Host", names[i], name)
			}
		}
	}
	none := compiled(t, &Config{Hosts: list[2:3], Clusters: first.config.Clusters}, first, e)
	if h := none.Host([]byte("unknown.example")); led(h.Match([]byte("/"))) == "0" {
		t.Error("the catch-all that went still leads somewhere")
	}
}

// A host is compiled anew when a cluster that it names comes or goes, though the host itself did not change.
func TestClusterComesAndGoes(t *testing.T) {
	e := newTestEnv()
	v, other := host("shop.example", rules("Prefix", "/")...), host("other.example")
	v.Rules[0].Fallback = "spare"
	web, spare := service("web"), service("spare")
	lead := func(s *Snapshot) string { return led(at(s, "shop.example", "/")) }

	none, _ := Compile(&Config{Hosts: []*VirtualHost{v, other}}, nil, e.Env)
	if lead(none) != "503" {
		t.Fatalf("without its cluster the host leads to %q", lead(none))
	}
	both := compiled(t, &Config{Hosts: []*VirtualHost{v, other}, Clusters: []*Cluster{web, spare}}, none, e)
	if lead(both) != "0" || at(both, "shop.example", "/").Fallback == nil {
		t.Fatalf("when its cluster came, the host leads to %q", lead(both))
	}
	if none.Host([]byte("other.example")) != both.Host([]byte("other.example")) {
		t.Error("a host that names no cluster was compiled anew")
	}
	gone, problems := Compile(&Config{Hosts: []*VirtualHost{v, other}, Clusters: []*Cluster{spare}}, both, e.Env)
	if lead(gone) != "503" || len(problems) != 1 {
		t.Errorf("when its cluster went, the host leads to %q with problems %q", lead(gone), texts(problems))
	}
	back := compiled(t, &Config{Hosts: []*VirtualHost{v, other}, Clusters: []*Cluster{spare, web}}, gone, e)
	if lead(back) != "0" || at(back, "shop.example", "/").Cluster == at(both, "shop.example", "/").Cluster {
		t.Error("a cluster that came back is not a new one")
	}
	if at(back, "shop.example", "/").Fallback != at(both, "shop.example", "/").Fallback {
		t.Error("the cluster that stayed is not the same")
	}
}

// A cluster keeps its state; settings and endpoints change beside it, at Swap and not before.
func TestClusterState(t *testing.T) {
	e, store := newTestEnv(), NewStore()
	v, web := host("shop.example", rules("Prefix", "/")...), service("web")
	first := compiled(t, &Config{Hosts: []*VirtualHost{v}, Clusters: []*Cluster{web}}, nil, e)
	rec := e.of(first, "web")
	if len(rec.applied) != 0 {
		t.Fatal("endpoints were applied by Compile")
	}
	store.Swap(first)
	if !slices.Equal(rec.last(), web.Endpoints) {
		t.Fatalf("endpoints %v, want %v", rec.last(), web.Endpoints)
	}

	changed := *web
	changed.Settings = upstream.Settings{Algorithm: upstream.EWMA, TLS: &upstream.TLS{ServerName: "web"}}
	second := compiled(t, &Config{Hosts: []*VirtualHost{v}, Clusters: []*Cluster{&changed}}, first, e)
	if len(rec.settings) != 0 {
		t.Fatal("settings were changed by Compile")
	}
	if first.hosts[0] != second.hosts[0] {
		t.Error("changed settings made the host be compiled anew")
	}
	store.Swap(second)
	if len(rec.settings) != 1 || rec.settings[0] != changed.Settings || len(rec.applied) != 1 {
		t.Errorf("settings %v, applied %v", rec.settings, rec.applied)
	}

	equal := changed
	equal.Settings.TLS = &upstream.TLS{ServerName: "web"}
	third := compiled(t, &Config{Hosts: []*VirtualHost{v}, Clusters: []*Cluster{&equal}}, second, e)
	store.Swap(third)
	if len(rec.settings) != 1 || len(rec.applied) != 1 {
		t.Errorf("equal settings were set again: %d, %d", len(rec.settings), len(rec.applied))
	}

	more := equal
	more.Endpoints = addresses("192.0.2.1:80", "192.0.2.2:80")
	store.Swap(compiled(t, &Config{Hosts: []*VirtualHost{v}, Clusters: []*Cluster{&more}}, third, e))
	if !slices.Equal(rec.last(), more.Endpoints) || rec.closes() != 0 {
		t.Errorf("endpoints %v, want %v; closed %d times", rec.last(), more.Endpoints, rec.closes())
	}
}

func TestCertificates(t *testing.T) {
	e := newTestEnv()
	exact, wild, fallback := keyPair(t, "exact", "a.shop.example"), keyPair(t, "wild", "*.shop.example"), keyPair(t, "fallback")
	mismatch := *keyPair(t, "mismatch")
	mismatch.KeyPEM = keyPair(t, "x").KeyPEM
	garbage := &Certificate{Owner: Object{Kind: "Secret", Namespace: "shop", Name: "garbage"}, CertPEM: []byte("no"), KeyPEM: exact.KeyPEM}
	with := func(name string, c *Certificate) *VirtualHost {
		return &VirtualHost{Name: name, Owner: shop, Certificate: c}
	}
	c := &Config{DefaultCertificate: fallback, Hosts: []*VirtualHost{
		with("a.shop.example", exact), with("*.shop.example", wild), with("b.shop.example", nil),
		with("c.shop.example", &mismatch), with("d.shop.example", garbage), with("plain.example", nil),
	}}
	s, problems := Compile(c, nil, e.Env)
	want := []string{
		"Secret shop/mismatch: tls.key: private key does not match public key; the default certificate is shown instead",
		"Secret shop/garbage: tls.crt: failed to find any PEM data in certificate input; the default certificate is shown instead",
	}
	if got := texts(problems); !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
	check := func(s *Snapshot, want map[string]string) {
		t.Helper()
		for name, secret := range want {
			if got := shown(s.Certificate([]byte(name))); got != secret {
				t.Errorf("%q is shown %s, want %s", name, got, secret)
			}
		}
	}
	check(s, map[string]string{"a.shop.example": "exact", "b.shop.example": "wild", "x.shop.example": "wild", "x.y.shop.example": "fallback",
		"c.shop.example": "fallback", "d.shop.example": "fallback", "plain.example": "fallback", "other.test": "fallback", "": "fallback"})

	again, _ := Compile(&Config{DefaultCertificate: fallback, Hosts: []*VirtualHost{with("new.example", exact), with("", wild)}}, s, e.Env)
	check(again, map[string]string{"new.example": "exact", "other.test": "wild", "": "wild", "plain.example": "wild"})
	if again.Certificate([]byte("new.example")) != s.Certificate([]byte("a.shop.example")) {
		t.Error("a certificate was parsed again")
	}
	if again.certificate != s.certificate {
		t.Error("the default certificate was parsed again")
	}

	broken, problems := Compile(&Config{DefaultCertificate: garbage}, s, e.Env)
	if len(problems) != 1 {
		t.Errorf("problems %q", texts(problems))
	}
	check(broken, map[string]string{"a.shop.example": "self-signed"})

	for range 3 { // rotation: private keys that nobody shows any more do not pile up
		broken = compiled(t, &Config{Hosts: []*VirtualHost{with("a.shop.example", keyPair(t, "rotated"))}}, broken, e)
	}
	if n := len(broken.identities.certificates.values); n != 1 {
		t.Errorf("%d certificates are kept, want the one in use", n)
	}
}
