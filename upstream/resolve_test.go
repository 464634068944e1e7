package upstream

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// names is a resolver whose answers the test sets.
type names struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
	ttl   time.Duration
	fail  bool
	asked atomic.Int32
}

func (n *names) Resolve(_ context.Context, name string) ([]netip.Addr, time.Duration, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked.Add(1)
	if n.fail {
		return nil, 0, errors.New("no such host")
	}
	return n.addrs[name], n.ttl, nil
}

func (n *names) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// named runs f in a bubble of its own time, with a cluster that has one name.
func named(t *testing.T, n *names, f func(t *testing.T, c *Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		env := newEnv(t, 0)
		env.Resolver = n
		env.OwnAddresses = func() ([]netip.Addr, error) { return own("10.9.0.1"), nil }
		c := NewCluster("shop/away:80", env, Settings{})
		defer c.Close()
		c.Apply([]Address{{Name: "away.example", Port: 8080}})
		synctest.Wait()
		f(t, c)
	})
}

func endpoints(c *Cluster) (list []string) {
	for _, e := range c.current.Load().ready {
		list = append(list, e.addr.String())
	}
	return list
}

func TestResolve(t *testing.T) {
	n := &names{addrs: map[string][]netip.Addr{"away.example": own("10.0.0.2", "10.0.0.1", "::ffff:10.0.0.2")}}
	named(t, n, func(t *testing.T, c *Cluster) {
		want := func(what string, asked int, list ...string) {
			t.Helper()
			synctest.Wait()
			if got := endpoints(c); !slices.Equal(got, list) || int(n.asked.Load()) != asked {
				t.Errorf("%s: %v after %d questions, want %v after %d", what, got, n.asked.Load(), list, asked)
			}
		}
		want("at first", 1, "10.0.0.1:8080", "10.0.0.2:8080")
		kept, view := c.current.Load().ready[0], c.current.Load()
		time.Sleep(resolveDefault)
		want("the same answer again", 2, "10.0.0.1:8080", "10.0.0.2:8080")
		if c.current.Load() != view {
			t.Error("the same answer, but another view")
		}
		n.set(func() { n.addrs["away.example"] = own("10.0.0.1", "10.0.0.3") })
		time.Sleep(resolveDefault - 1)
		want("before the default time", 2, "10.0.0.1:8080", "10.0.0.2:8080")
		time.Sleep(time.Nanosecond)
		want("after it", 3, "10.0.0.1:8080", "10.0.0.3:8080")
		if c.current.Load().ready[0] != kept {
			t.Error("an address that stayed has another endpoint")
		}
		n.set(func() { n.fail = true })
		time.Sleep(resolveDefault)
		want("a failure keeps the last good addresses", 4, "10.0.0.1:8080", "10.0.0.3:8080")
		time.Sleep(resolveMin)
		want("and is tried again soon", 5, "10.0.0.1:8080", "10.0.0.3:8080")
		n.set(func() { n.fail, n.addrs = false, nil })
		time.Sleep(resolveMin)
		want("no addresses are a failure", 6, "10.0.0.1:8080", "10.0.0.3:8080")
		n.set(func() { n.ttl, n.addrs = time.Millisecond, map[string][]netip.Addr{"away.example": own("10.0.0.4")} })
		time.Sleep(resolveMin)
		want("a change", 7, "10.0.0.4:8080")
		time.Sleep(resolveMin - 1)
		want("a tiny TTL is stretched", 7, "10.0.0.4:8080")
		n.set(func() { n.ttl = time.Hour })
		time.Sleep(time.Nanosecond)
		want("to the minimum", 8, "10.0.0.4:8080")
		time.Sleep(resolveMax)
		want("a long TTL is cut", 9, "10.0.0.4:8080")
	})
}

func TestResolveFollowsTheList(t *testing.T) {
	n := &names{addrs: map[string][]netip.Addr{"away.example": own("10.0.0.1"), "far.example": own("10.0.0.9")}}
	named(t, n, func(t *testing.T, c *Cluster) {
		c.Apply([]Address{{Name: "far.example", Port: 1}, {Name: "away.example", Port: 2}, {Name: "away.example", Port: 3}, {Addr: place(7)}})
		synctest.Wait()
		if got := endpoints(c); !slices.Equal(got, []string{"10.0.0.9:1", "10.0.0.1:2", "10.0.0.1:3", "10.1.0.7:8080"}) || n.asked.Load() != 2 {
			t.Errorf("%v after %d questions", got, n.asked.Load())
		}
		c.Apply([]Address{{Name: "far.example", Port: 1}})
		if got := endpoints(c); !slices.Equal(got, []string{"10.0.0.9:1"}) {
			t.Errorf("%v", got)
		}
		c.Apply(nil)
		time.Sleep(time.Hour)
		if n.asked.Load() != 2 {
			t.Errorf("%d questions although no name is wanted", n.asked.Load())
		}
	})
}

// DNS rebinding: a name that turns to the proxy itself leads nowhere, however it spells that.
func TestRebinding(t *testing.T) {
	for _, to := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "10.9.0.1", "169.254.169.254", "fe80::1"} {
		t.Run(to, func(t *testing.T) {
			n := &names{addrs: map[string][]netip.Addr{"away.example": own("10.0.0.1")}}
			named(t, n, func(t *testing.T, c *Cluster) {
				if got := endpoints(c); len(got) != 1 {
					t.Fatalf("%v", got)
				}
				c.Apply([]Address{{Name: "away.example", Port: 10254}}) // the admin port
				n.set(func() { n.addrs["away.example"] = own(to) })
				time.Sleep(resolveDefault)
				synctest.Wait()
				if e := c.Pick(Wish{}); e != nil {
					t.Errorf("picked %v", e.addr)
				}
				refused := c.Refusals()
				if len(refused) != 1 || refused[0].Address.Name != "away.example" || refused[0].Address.Addr.Port() != 10254 || refused[0].Reason == "" {
					t.Errorf("refused %v", refused)
				}
			})
		})
	}
}

func TestResolvedAddressesAreBounded(t *testing.T) {
	n := &names{addrs: map[string][]netip.Addr{}}
	for i := range 2 * resolvedMax {
		n.addrs["away.example"] = append(n.addrs["away.example"], place(i).Addr())
	}
	named(t, n, func(t *testing.T, c *Cluster) {
		if got := len(endpoints(c)); got != resolvedMax {
			t.Errorf("%d endpoints, want %d", got, resolvedMax)
		}
	})
}

func TestSystemResolver(t *testing.T) {
	addrs, ttl, err := (&Env{}).resolver().Resolve(t.Context(), "192.0.2.7") // an address needs no server
	if err != nil || ttl != 0 || len(addrs) != 1 || addrs[0].Unmap() != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("%v, %v, %v", addrs, ttl, err)
	}
}
