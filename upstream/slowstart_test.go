package upstream

import (
	"testing"
	"time"
)

// warming is a cluster of some endpoints, the last of which begins its slow start.
func warming(t *testing.T, s Settings, endpoints int) (c *Cluster, e *Endpoint, now *int64) {
	t.Helper()
	c = still(t, 1, s.Algorithm, endpoints-1)
	s.Keyed, s.SlowStart = s.Subset == 0, time.Minute
	c.SetSettings(s)
	list := addresses()
	for i := range endpoints {
		list = append(list, Address{Addr: place(i)})
	}
	c.began = true
	c.Apply(list)
	e = c.current.Load().ready[endpoints-1]
	at := e.warmFrom.Load()
	c.loops[0].clock = func() int64 { return at }
	return c, e, &at
}

// A new endpoint that nobody else stands beside gets everything: what is terminating waits until it fails.
func TestSlowStartOfTheOnlyOne(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.name, func(t *testing.T) {
			c, e, _ := warming(t, Settings{Algorithm: a.Algorithm}, 1)
			list := addresses(place(0), place(1))
			list[1].Terminating = true
			c.Apply(list)
			for i := range 200 {
				if got := c.Pick(Wish{Hash: uint32(i) * 2654435761}); got != e {
					t.Fatal("a terminating endpoint was picked although another is ready")
				}
			}
		})
	}
}

// A retry goes to a new endpoint rather than to the one that has just failed.
func TestSlowStartRetry(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.name, func(t *testing.T) {
			c, e, _ := warming(t, Settings{Algorithm: a.Algorithm}, 2)
			w := Wish{Tried: c.current.Load().ready[:1]}
			for i := range 200 {
				w.Hash = uint32(i) * 2654435761
				if got := c.Pick(w); got != e {
					t.Fatal("an endpoint that failed was picked although another is untried")
				}
			}
		})
	}
}

// A cookie that names a new endpoint leads there.
func TestSlowStartSticky(t *testing.T) {
	c, e, _ := warming(t, Settings{}, 4)
	for range 200 {
		if got := c.Pick(Wish{Sticky: e.StickyID("")}); got != e {
			t.Fatal("a client was sent away from the endpoint that its cookie names")
		}
	}
	if got := c.Pick(Wish{Sticky: e.StickyID(""), Tried: []*Endpoint{e}}); got == e {
		t.Error("picked although it was tried")
	}
}

// A key leads to one endpoint, and to the new one from some moment of its slow start on.
func TestSlowStartHash(t *testing.T) {
	const keys = 4000
	c, e, now := warming(t, Settings{Algorithm: ConsistentHash}, 4)
	var there [keys]bool
	share := func() (n int) {
		for i := range there {
			w := Wish{Hash: uint32(i) * 2654435761}
			got := c.Pick(w)
			for range 5 {
				if again := c.Pick(w); again != got {
					t.Fatalf("hash %d leads to %v, then to %v", w.Hash, got.addr, again.addr)
				}
			}
			if there[i] && got != e {
				t.Fatalf("hash %d was led back from the new endpoint", w.Hash)
			}
			if there[i] = got == e; there[i] {
				n++
			}
		}
		return n
	}
	first := share()
	*now += int64(30 * time.Second)
	half := share()
	*now += int64(30 * time.Second)
	if all := share(); first < all/20 || first > all/6 || half < all/3 || half > all*2/3 || all < keys/6 {
		t.Errorf("%d, %d and %d of %d keys lead to the new endpoint", first, half, all, keys)
	}
}

// … also when all are new, and when the key leads to a subset.
func TestSlowStartHashOfNewOnes(t *testing.T) {
	for _, subset := range []int{0, 1} {
		c, _, _ := warming(t, Settings{Algorithm: ConsistentHash, Subset: subset}, 3)
		for _, e := range c.current.Load().ready {
			e.warm(time.Minute)
		}
		for i := range uint32(200) {
			w := Wish{Hash: i * 2654435761}
			got := c.Pick(w)
			for range 5 {
				if again := c.Pick(w); again != got {
					t.Fatalf("subsets of %d: hash %d leads to %v, then to %v", subset, w.Hash, got.addr, again.addr)
				}
			}
		}
	}
}
