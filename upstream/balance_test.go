package upstream

import (
	"net/netip"
	"slices"
	"testing"
)

// still is a cluster without loops: picks need none while nothing is ejected.
func still(t testing.TB, loops int, a Algorithm, endpoints int) *Cluster {
	t.Helper()
	c := NewCluster("shop/web:80", &Env{}, Settings{Algorithm: a, Keyed: true})
	c.loops = make([]clusterLoop, loops)
	for i := range c.loops {
		c.loops[i] = newClusterLoop(nil, i, loops)
		c.loops[i].random.Seed(1, uint64(i)) // the same draws in every run
	}
	var list []Address
	for i := range endpoints {
		list = append(list, Address{Addr: place(i)})
	}
	if refused := c.Apply(list); len(refused) > 0 {
		t.Fatal(refused)
	}
	return c
}

func place(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 8080)
}

// index is e's place in still's order.
func index(e *Endpoint) int {
	b := e.addr.Addr().As4()
	return int(b[2])<<8 | int(b[3])
}

// eject makes endpoints unusable as far as clusters without a clock see.
func eject(c *Cluster, which ...int) {
	for _, i := range which {
		c.current.Load().ready[i].ejectedUntil.Store(1)
	}
}

var algorithms = []struct {
	name string
	Algorithm
}{
	{"round robin", RoundRobin},
	{"ewma", EWMA},
	{"least connections", LeastConnections},
	{"consistent hash", ConsistentHash},
	{"random of two", RandomOfTwo},
}

func TestPickAmongNone(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.name, func(t *testing.T) {
			if e := still(t, 1, a.Algorithm, 0).Pick(Wish{Hash: 7, Sticky: 9}); e != nil {
				t.Errorf("picked %v", e.addr)
			}
		})
	}
}

// Whatever the algorithm: unusable endpoints are avoided while others are usable, and picked when none is.
func TestPickAvoids(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.name, func(t *testing.T) {
			c := still(t, 1, a.Algorithm, 5)
			all := c.current.Load().ready
			eject(c, 0, 3)
			got := map[int]bool{}
			for i := range 1000 {
				got[index(c.Pick(Wish{Hash: uint32(i) * 2654435761, Tried: all[1:2]}))] = true
			}
			if len(got) != 2 || !got[2] || !got[4] {
				t.Errorf("picked %v, want 2 and 4", got)
			}
			if e := c.Pick(Wish{Tried: []*Endpoint{all[1], all[2], all[4]}}); e != all[1] && e != all[2] && e != all[4] {
				t.Errorf("all usable ones tried: picked %v, want one that is not ejected", e.addr)
			}
			eject(c, 1, 2, 4)
			for i := range 100 {
				if e := c.Pick(Wish{Hash: uint32(i) * 2654435761, Tried: all[:4]}); e != all[4] {
					t.Fatalf("all ejected: picked %v, want the one that was not tried", e.addr)
				}
			}
			if e := c.Pick(Wish{Tried: all}); e == nil {
				t.Error("all ejected and tried: picked none")
			}
		})
	}
}

func TestPickTerminating(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.name, func(t *testing.T) {
			c := still(t, 1, a.Algorithm, 0)
			list := addresses(place(0), place(1), place(2))
			list[2].Terminating = true
			c.Apply(list)
			v := c.current.Load()
			leaving := v.terminating[0]
			for i := range 100 {
				if e := c.Pick(Wish{Hash: uint32(i) * 2654435761, Sticky: leaving.identity}); e == leaving {
					t.Fatal("a terminating endpoint was picked although others are ready")
				}
			}
			if e := c.Pick(Wish{Tried: v.ready}); e != leaving {
				t.Errorf("all ready ones tried: picked %v, want the terminating one", e.addr)
			}
			eject(c, 0, 1)
			if e := c.Pick(Wish{}); e != leaving {
				t.Errorf("all ready ones ejected: picked %v, want the terminating one", e.addr)
			}
			c.Apply(list[2:])
			if e := c.Pick(Wish{}); e != leaving {
				t.Errorf("none is ready: picked %v, want the terminating one", e.addr)
			}
			leaving.ejectedUntil.Store(1)
			if e := c.Pick(Wish{Tried: []*Endpoint{leaving}}); e != leaving {
				t.Error("the last one of all was not picked")
			}
		})
	}
}

func TestPickAmongOne(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.name, func(t *testing.T) {
			c := still(t, 1, a.Algorithm, 1)
			e := c.current.Load().ready[0]
			for _, w := range []Wish{{}, {Hash: 1}, {Tried: []*Endpoint{e}}, {Sticky: e.StickyID(""), Tried: []*Endpoint{e}}} {
				if c.Pick(w) != e {
					t.Errorf("%+v: not picked", w)
				}
			}
		})
	}
}

func TestPickSticky(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.name, func(t *testing.T) {
			c := still(t, 1, a.Algorithm, 8)
			wanted := c.current.Load().ready[5]
			w := Wish{Sticky: wanted.StickyID(c.current.Load().Name)}
			for range 20 {
				if e := c.Pick(w); e != wanted {
					t.Fatalf("picked %v, want %v", e.addr, wanted.addr)
				}
			}
			if e := c.Pick(Wish{Sticky: w.Sticky, Tried: []*Endpoint{wanted}}); e == wanted {
				t.Error("picked the sticky one although it was tried")
			}
			if e := c.Pick(Wish{Sticky: 12345}); e == nil {
				t.Error("an identity of nobody led to nobody")
			}
			eject(c, 5)
			if e := c.Pick(w); e == wanted {
				t.Error("picked the sticky one although it is ejected")
			}
		})
	}
}

func TestRoundRobin(t *testing.T) {
	c := still(t, 2, RoundRobin, 4)
	sequence := func(loop, n int) (s []int) {
		for range n {
			s = append(s, index(c.Pick(Wish{Loop: loop})))
		}
		return s
	}
	if s := sequence(0, 6); !slices.Equal(s, []int{0, 1, 2, 3, 0, 1}) {
		t.Errorf("loop 0: %v", s)
	}
	if s := sequence(1, 5); !slices.Equal(s, []int{2, 3, 0, 1, 2}) {
		t.Errorf("loop 1, which begins elsewhere: %v", s)
	}
	eject(c, 1, 2)
	if s := sequence(1, 4); !slices.Equal(s, []int{3, 0, 3, 0}) {
		t.Errorf("with two ejected: %v", s)
	}
	c.Apply(addresses(place(0)))
	if s := sequence(1, 2); !slices.Equal(s, []int{0, 0}) {
		t.Errorf("with one left: %v", s)
	}
}
