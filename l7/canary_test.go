package l7

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/upstream"
)

// withCanaries is a rig whose route has a main backend and one for each rule: "main", "c0", "c1", …
func withCanaries(t *testing.T, a *upstream.Affinity, sticky bool, rules ...CanaryRule) (*rig, []*upstream.Cluster) {
	r := newRig(t, func(r *rig) { r.route.Policy.SetsAffinity, r.route.ID.Path = a != nil, "/" })
	r.cluster.SetSettings(upstream.Settings{AllowLoopback: true, Name: "one-main-80", Affinity: a})
	r.backend(named("main"))
	var clusters []*upstream.Cluster
	for i, rule := range rules {
		name := fmt.Sprint("c", i)
		c := upstream.NewCluster(name, r.env, upstream.Settings{AllowLoopback: true, Name: "one-" + name + "-80", Keyed: true})
		t.Cleanup(c.Close)
		b := r.backend(named(name))
		at := r.addresses[len(r.addresses)-1]
		r.addresses = r.addresses[:len(r.addresses)-1]
		r.cluster.Apply(r.addresses)
		c.Apply([]upstream.Address{at})
		_ = b
		compiled, err := NewCanary(c, name, sticky, rule)
		r.must(err)
		r.route.Canaries = append(r.route.Canaries, compiled)
		clusters = append(clusters, c)
	}
	return r, clusters
}

func TestCanaryRules(t *testing.T) {
	for _, c := range []struct {
		name   string
		rule   CanaryRule
		fields string
		want   string
	}{
		{"no rule", CanaryRule{}, "X-C: always\r\n", "main"},
		{"header always", CanaryRule{Header: "X-C"}, "x-c: always\r\n", "c0"},
		{"header never goes before the cookie", CanaryRule{Header: "X-C", Cookie: "k", Weight: 100}, "X-C: never\r\nCookie: k=always\r\n", "main"},
		{"header always goes before the cookie", CanaryRule{Header: "X-C", Cookie: "k"}, "X-C: always\r\nCookie: k=never\r\n", "c0"},
		{"another value: the cookie decides", CanaryRule{Header: "X-C", Cookie: "k"}, "X-C: maybe\r\nCookie: k=always\r\n", "c0"},
		{"another value: the weight decides", CanaryRule{Header: "X-C", Weight: 100}, "X-C: maybe\r\n", "c0"},
		{"an empty value is another value", CanaryRule{Header: "X-C", Weight: 100}, "X-C:\r\n", "c0"},
		{"header value", CanaryRule{Header: "X-C", Value: "yes"}, "X-C: yes\r\n", "c0"},
		{"with a value always is no word", CanaryRule{Header: "X-C", Value: "yes"}, "X-C: always\r\n", "main"},
		{"with a value never is no word", CanaryRule{Header: "X-C", Value: "yes", Weight: 100}, "X-C: never\r\n", "c0"},
		{"header value is exact", CanaryRule{Header: "X-C", Value: "yes"}, "X-C: yes!\r\n", "main"},
		{"pattern is not anchored", CanaryRule{Header: "X-C", Pattern: "b+"}, "X-C: abba\r\n", "c0"},
		{"pattern that does not match: the weight decides", CanaryRule{Header: "X-C", Pattern: "^b", Weight: 100}, "X-C: abba\r\n", "c0"},
		{"with a pattern never is no word", CanaryRule{Header: "X-C", Pattern: "^b", Weight: 100}, "X-C: never\r\n", "c0"},
		{"a broken pattern: who has the field stays", CanaryRule{Header: "X-C", PatternBroken: true, Cookie: "k", Weight: 100}, "X-C: always\r\nCookie: k=always\r\n", "main"},
		{"a broken pattern: others go on", CanaryRule{Header: "X-C", PatternBroken: true, Cookie: "k"}, "Cookie: k=always\r\n", "c0"},
		{"value goes before a broken pattern", CanaryRule{Header: "X-C", Value: "yes", PatternBroken: true}, "X-C: yes\r\n", "c0"},
		{"value goes before pattern", CanaryRule{Header: "X-C", Value: "yes", Pattern: "."}, "X-C: no\r\n", "main"},
		{"cookie always", CanaryRule{Cookie: "k"}, "Cookie: a=b; k=always\r\n", "c0"},
		{"cookie names in any case", CanaryRule{Cookie: "k"}, "Cookie: K=always\r\n", "c0"},
		{"cookie never goes before the weight", CanaryRule{Cookie: "k", Weight: 100}, "Cookie: k=never\r\n", "main"},
		{"weight 0", CanaryRule{Weight: 0}, "", "main"},
		{"weight of everything", CanaryRule{Weight: 100}, "", "c0"},
		{"weight beyond the total", CanaryRule{Weight: 500, WeightTotal: 200}, "", "c0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := withCanaries(t, nil, true, c.rule)
			for range 5 {
				if body, _ := r.visit(c.fields); body != c.want {
					t.Fatalf("answered by %s, want %s", body, c.want)
				}
			}
		})
	}
}

func TestCanaryWeights(t *testing.T) {
	r, _ := withCanaries(t, nil, true, CanaryRule{Weight: 20}, CanaryRule{Weight: 300, WeightTotal: 1000}, CanaryRule{Header: "X-C", Weight: 10})
	const n = 3000
	count := func(fields string) map[string]int {
		got := map[string]int{}
		c := r.dial()
		for range n {
			c.send("GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n")
			got[c.response("GET").body]++
			if n := int(r.settings.KeepAliveRequests); n > 0 && (got["main"]+got["c0"]+got["c1"]+got["c2"])%(n-1) == 0 {
				c = r.dial()
			}
		}
		return got
	}
	near := func(got map[string]int, name string, share float64) {
		t.Helper()
		sigma := math.Sqrt(share * (1 - share) * n)
		if d := math.Abs(float64(got[name]) - share*n); d > 5*sigma {
			t.Errorf("%s took %d of %d, want about %.0f", name, got[name], n, share*n)
		}
	}
	got := count("")
	for name, share := range map[string]float64{"c0": 0.2, "c1": 0.3, "c2": 0.1, "main": 0.4} {
		near(got, name, share)
	}
	got = count("X-C: never\r\n")
	for name, share := range map[string]float64{"c0": 0.2, "c1": 0.3, "main": 0.5} {
		near(got, name, share)
	}
	if got["c2"] > 0 {
		t.Errorf("c2 took %d requests that said never", got["c2"])
	}
}

func TestCanaryWithoutEndpointsTakesNothing(t *testing.T) {
	r, clusters := withCanaries(t, nil, true, CanaryRule{Header: "X-C", Weight: 100})
	clusters[0].Apply(nil)
	for _, fields := range []string{"", "X-C: always\r\n"} {
		if body, _ := r.visit(fields); body != "main" {
			t.Errorf("%q answered by %s", fields, body)
		}
	}
}

// Affinity goes before every rule: who is with the main backend stays, and who is with the canary stays there.
func TestCanaryStickiness(t *testing.T) {
	r, clusters := withCanaries(t, &upstream.Affinity{Cookie: "route"}, true, CanaryRule{Header: "X-C", Cookie: "k"})
	_, main := r.visit("")
	_, canary := r.visit("X-C: always\r\n")
	if main == nil || canary == nil || !strings.HasSuffix(main.Value, "|"+r.cluster.BackendKey()) || !strings.HasSuffix(canary.Value, "|"+clusters[0].BackendKey()) {
		t.Fatalf("cookies %v, %v", main, canary)
	}
	for _, c := range []struct{ fields, want string }{
		{"Cookie: route=" + main.Value + "\r\nX-C: always\r\n", "main"},
		{"Cookie: route=" + main.Value + "; k=always\r\n", "main"},
		{"Cookie: route=" + canary.Value + "\r\n", "c0"},
		{"Cookie: route=" + canary.Value + "; k=never\r\nX-C: never\r\n", "c0"},
	} {
		if body, set := r.visit(c.fields); body != c.want || set != nil {
			t.Errorf("%q: %s, cookie %v; want %s", c.fields, body, set, c.want)
		}
	}
}

// affinity-canary-behavior: legacy. The canary has no affinity; who is with the main backend stays all the same.
func TestCanaryLegacy(t *testing.T) {
	r, clusters := withCanaries(t, &upstream.Affinity{Cookie: "route"}, false, CanaryRule{Header: "X-C"})
	if body, set := r.visit("X-C: always\r\n"); body != "c0" || set != nil {
		t.Errorf("%s, cookie %v", body, set)
	}
	if body, _ := r.visit("Cookie: route=x|" + clusters[0].BackendKey() + "\r\n"); body != "main" {
		t.Errorf("a cookie of the canary leads to %s", body)
	}
	_, main := r.visit("")
	if body, _ := r.visit("Cookie: route=" + main.Value + "\r\nX-C: always\r\n"); body != "main" {
		t.Errorf("a client of the main backend goes to %s", body)
	}
}
