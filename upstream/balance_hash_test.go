package upstream

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestConsistentHash(t *testing.T) {
	const n, hashes = 10, 20_000
	before, shuffled := still(t, 1, ConsistentHash, n), still(t, 1, ConsistentHash, 0)
	var list []Address
	for _, i := range rand.Perm(n) {
		list = append(list, Address{Addr: place(i)})
	}
	shuffled.Apply(list)
	less := still(t, 1, ConsistentHash, 0)
	less.Apply(slices.DeleteFunc(slices.Clone(list), func(a Address) bool { return a.Addr == place(3) }))
	out := still(t, 1, ConsistentHash, n)
	eject(out, 3)

	share := make([]int, n)
	for h := range uint64(hashes) {
		e := before.Pick(Wish{Hash: h})
		share[index(e)]++
		if o := shuffled.Pick(Wish{Hash: h}); o.addr != e.addr {
			t.Fatalf("hash %d leads to %v or %v, by the order of endpoints", h, e.addr, o.addr)
		}
		a, b := less.Pick(Wish{Hash: h}), out.Pick(Wish{Hash: h})
		if index(e) != 3 && (a.addr != e.addr || b.addr != e.addr) {
			t.Fatalf("hash %d moved from %v to %v and %v, although its endpoint is there", h, e.addr, a.addr, b.addr)
		}
		if index(e) == 3 && a.addr != b.addr {
			t.Fatalf("hash %d goes to %v without its endpoint, to %v when that is ejected", h, a.addr, b.addr)
		}
	}
	for i, s := range share {
		if s < hashes/n*7/10 || s > hashes/n*13/10 {
			t.Errorf("endpoint %d has %d of %d hashes", i, s, hashes)
		}
	}
}

// With almost all of a large cluster ejected the walk ends, and an endpoint is found all the same.
func TestConsistentHashWalkIsBounded(t *testing.T) {
	c := still(t, 1, ConsistentHash, 200)
	for i := range 199 {
		eject(c, i)
	}
	for h := range uint64(1000) {
		if e := c.Pick(Wish{Hash: h}); index(e) != 199 {
			t.Fatalf("hash %d leads to %v, which is ejected", h, e.addr)
		}
	}
}

func TestRingIsBounded(t *testing.T) {
	c := still(t, 1, ConsistentHash, 5000)
	if n := len(c.current.Load().ring); n > ringPointsMax {
		t.Errorf("%d points, at most %d are wanted", n, ringPointsMax)
	}
}

func TestIdentity(t *testing.T) {
	seen := map[uint64]bool{}
	for i := range 5000 {
		id := identityOf(place(i))
		if id == 0 || seen[id] {
			t.Fatalf("identity %d of %v is 0 or another's", id, place(i))
		}
		seen[id] = true
	}
	if id := identityOf(place(1)); id != 0xd75d669b1ece1488 {
		t.Errorf("identity %#x of %v: cookies that clients hold would lead elsewhere", id, place(1))
	}
}
