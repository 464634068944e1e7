package l7

import (
	"testing"

	"github.com/sluiceproxy/sluice/upstream"
)

// TestErrorPagesTakeTurns: the endpoints of a page's cluster are asked one after the other.
func TestErrorPagesTakeTurns(t *testing.T) {
	r := newRig(t)
	r.refusing()
	dead := r.cluster
	t.Cleanup(dead.Close)
	r.cluster, r.addresses = upstream.NewCluster("shop/pages:80", r.env, upstream.Settings{AllowLoopback: true}), nil
	for _, name := range []string{"one", "two"} {
		r.backend(func(p *peer) {
			for q := p.request(); q != nil; q = p.request() {
				p.answer("200 OK", name)
			}
		})
	}
	r.route.Cluster, r.route.Errors = dead, NewErrorPages(r.cluster, false, []int{502})
	c := r.dial()
	asked := map[string]int{}
	for range 6 {
		c.get("/")
		asked[c.status("GET", 200).body]++
	}
	if asked["one"] != 3 || asked["two"] != 3 {
		t.Errorf("the endpoints were asked for pages %v times, want 3 each", asked)
	}
}
