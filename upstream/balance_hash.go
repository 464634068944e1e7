package upstream

import (
	"cmp"
	"slices"
)

// ringPoint is one of an endpoint's places on the ring.
type ringPoint struct {
	hash     uint64
	endpoint *Endpoint
}

// newRing places each endpoint many times (ketama's idea). The places follow from addresses alone, so all loops and all
// proxies agree, and an endpoint that comes or goes moves only its own share of the hashes.
func newRing(endpoints []*Endpoint) []ringPoint {
	if len(endpoints) == 0 {
		return nil
	}
	points := max(1, min(ringPoints, ringPointsMax/len(endpoints)))
	ring := make([]ringPoint, 0, points*len(endpoints))
	for _, e := range endpoints {
		for i := range points {
			ring = append(ring, ringPoint{mix(e.identity + uint64(i)*0x9e3779b97f4a7c15), e})
		}
	}
	slices.SortFunc(ring, func(a, b ringPoint) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.endpoint.identity, b.endpoint.identity))
	})
	return ring
}

// mix is splitmix64's finaliser: every bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// consistentHash takes the endpoint whose place on the ring follows the hash; unusable ones are walked past, so that only
// their hashes move. The walk is bounded; behind the bound any usable endpoint will do.
func consistentHash(v *view, l *clusterLoop, w Wish) *Endpoint {
	n := len(v.ring)
	if n == 0 {
		return nil
	}
	hash := mix(w.Hash)
	low, high := 0, n
	for low < high {
		if mid := int(uint(low+high) >> 1); v.ring[mid].hash < hash {
			low = mid + 1
		} else {
			high = mid
		}
	}
	var last *Endpoint
	for range min(n, ringWalkMax) {
		if low == n {
			low = 0
		}
		e := v.ring[low].endpoint
		low++
		if e != last && l.usable(e, w) {
			return e
		}
		last = e
	}
	return roundRobin(v, l, w)
}
