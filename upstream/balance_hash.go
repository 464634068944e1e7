package upstream

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strconv"
)

// Hash is the hash of a key for Wish.Hash.
func Hash(key []byte) uint32 { return crc32.ChecksumIEEE(key) }

// ringPoint is one of a node's places on the ring: an endpoint's, or a subset's.
type ringPoint struct {
	hash uint32
	node uint32 // index of view.ready, or of view.subsets
}

// hash makes the view's ring, over endpoints or over subsets of them.
func (v *view) hash() {
	n := len(v.ready)
	names := make([]string, 0, n)
	if v.Subset > 0 && v.Algorithm == ConsistentHash && !v.keyed() { // a cookie leads to one endpoint, not to a group
		v.subsets = newSubsets(v.ready, v.Subset)
		for i := range v.subsets {
			names = append(names, "set"+strconv.Itoa(i+1))
		}
	} else {
		for _, e := range v.ready {
			names = append(names, e.addr.String())
		}
	}
	v.ring = newRing(names)
}

// newRing places each node many times, where nginx's ketama and ingress-nginx's do: the places of a node are the CRC-32
// of its name and of its place before. They follow from names alone, so all loops and all proxies agree, a node that
// comes or goes moves only its own share of the keys, and who comes from ingress-nginx finds each key where it was.
func newRing(names []string) []ringPoint {
	if len(names) == 0 {
		return nil
	}
	points := max(1, min(ringPoints, ringPointsMax/len(names)))
	ring := make([]ringPoint, 0, points*len(names))
	var last [4]byte
	for node, name := range names {
		base := crc32.ChecksumIEEE([]byte(name))
		clear(last[:])
		for range points {
			hash := crc32.Update(base, crc32.IEEETable, last[:])
			ring = append(ring, ringPoint{hash, uint32(node)})
			binary.LittleEndian.PutUint32(last[:], hash)
		}
	}
	slices.SortFunc(ring, func(a, b ringPoint) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(names[a.node], names[b.node]))
	})
	return ring
}

// newSubsets divides endpoints into groups of one size; those that are missing in the last one are taken from the front.
func newSubsets(endpoints []*Endpoint, size int) [][]*Endpoint {
	n := len(endpoints)
	if n == 0 {
		return nil
	}
	sets := make([][]*Endpoint, (n+size-1)/size)
	for i := range sets {
		sets[i] = make([]*Endpoint, size)
		for j := range sets[i] {
			sets[i][j] = endpoints[(i*size+j)%n]
		}
	}
	return sets
}

// mix is splitmix64's finaliser: every bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// consistentHash takes the endpoint whose place on the ring follows the hash; unusable ones are walked past, so that only
// their hashes move, and so are those that have more than their share under way (HashBalance), or that their slow start
// keeps from the hash still, unless there is no other. The walk is bounded; behind the bound any usable endpoint will do.
func consistentHash(v *view, l *clusterLoop, w Wish) *Endpoint {
	n := len(v.ring)
	if n == 0 {
		return roundRobin(v, l, w)
	}
	low, high := 0, n
	for low < high {
		if mid := int(uint(low+high) >> 1); v.ring[mid].hash < w.Hash {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if v.subsets != nil {
		return v.oneOf(low%n, l, w)
	}
	var last, cold *Endpoint
	share := int64(0)
	if !w.Hashed {
		share = v.share(l)
	}
	for range min(n, ringWalkMax) {
		if low == n {
			low = 0
		}
		e := v.ready[v.ring[low].node]
		low++
		if e != last && (share == 0 || e.active.Load() < share) && l.fits(e, w) {
			if w.Stay || l.warmFor(e, w.Hash) {
				return e
			}
			if cold == nil {
				cold = e
			}
		}
		last = e
	}
	if cold != nil {
		return cold
	}
	return roundRobin(v, l, w)
}

// oneOf takes an endpoint of a subset by chance; if that is unusable, the next one of the subset that is. Whom only a slow
// start keeps back is taken before the subset is left.
func (v *view) oneOf(point int, l *clusterLoop, w Wish) *Endpoint {
	set := v.subsets[v.ring[point].node]
	i := l.below(len(set))
	var cold *Endpoint
	for range set {
		e := set[i]
		if l.usable(e, w) {
			return e
		}
		if cold == nil && l.fits(e, w) {
			cold = e
		}
		if i++; i == len(set) {
			i = 0
		}
	}
	if cold != nil {
		return cold
	}
	return roundRobin(v, l, w)
}

// share is how many streams an endpoint may have under way so that the next one still goes where its hash leads:
// HashBalance per cent of the mean of those that are up, rounded up. 0: any number.
func (v *view) share(l *clusterLoop) int64 {
	if v.HashBalance == 0 {
		return 0
	}
	all, n := int64(1), int64(0) // this one
	for _, e := range v.ready[:min(len(v.ready), leastWindowMax)] {
		if l.up(e) {
			all += e.active.Load()
			n += 100
		}
	}
	if n == 0 {
		return 0
	}
	return (all*int64(v.HashBalance) + n - 1) / n
}
