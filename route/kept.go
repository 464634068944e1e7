package route

import (
	"cmp"
	"iter"
	"slices"
	"sync"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
)

// identities is the state that goes from one Snapshot to the next by the identity of what it belongs to. All snapshots of
// one succession share it.
type identities struct {
	stats  kept[l7.Identity, *l7.RouteStats] // by StatsIdentity
	states kept[Object, *filter.State]
	other  *l7.RouteStats // of identities beyond statsMax

	policies     kept[string, clientPolicy]            // by ID; those out of use go when the next one comes
	certificates kept[*Certificate, parsedCertificate] // those out of use go when the next one comes
}

func newIdentities(env *Env) *identities {
	i := &identities{
		stats:  kept[l7.Identity, *l7.RouteStats]{max: statsMax, idleMax: statsIdleMax},
		states: kept[Object, *filter.State]{idleMax: stateIdleMax},
		other:  l7.NewRouteStats(l7.Identity{Namespace: "other", Ingress: "other", Service: "other"}, env.Loops),
	}
	i.other.SetBuckets(env.Buckets)
	return i
}

// kept holds values by key: those in use, and some that were in use and may be again, an Ingress that is deleted and
// created anew.
type kept[K comparable, V any] struct {
	max     int // of all values; 0: as many as there are objects
	idleMax int // of those that are not in use

	mu      sync.Mutex
	values  map[K]*keptValue[V]
	sweepAt int // the number of values at which it is worth looking for idle ones
}

type keptValue[V any] struct {
	value V
	used  uint64 // the last generation that is known to use it
}

// get answers the value of key, or puts what make makes; false when there is no room.
func (k *kept[K, V]) get(key K, generation uint64, make func() V) (V, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v := k.values[key]; v != nil {
		return v.value, true
	}
	if k.max > 0 && len(k.values) >= k.max {
		var zero V
		return zero, false
	}
	if k.values == nil {
		k.values = map[K]*keptValue[V]{}
	}
	v := &keptValue[V]{value: make(), used: generation}
	k.values[key] = v
	return v.value, true
}

// has tells whether there is a value of key.
func (k *kept[K, V]) has(key K) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.values[key] != nil
}

// sweep forgets the values that have been idle longest, once enough new ones have come that there may be too many, or there is
// no room for more. A compile that changes little does not pay for it.
func (k *kept[K, V]) sweep(generation uint64, inUse iter.Seq[K]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	full := k.max > 0 && len(k.values) >= k.max
	if len(k.values) <= k.sweepAt && !full {
		return
	}
	for key := range inUse {
		if v := k.values[key]; v != nil {
			v.used = generation
		}
	}
	var idle []K
	for key, v := range k.values {
		if v.used != generation {
			idle = append(idle, key)
		}
	}
	excess := len(idle) - k.idleMax
	if full && len(idle) > 0 {
		excess = max(excess, len(idle)/2, 1) // new ones need room
	}
	if excess > 0 {
		slices.SortFunc(idle, func(a, b K) int { return cmp.Compare(k.values[a].used, k.values[b].used) })
		for _, key := range idle[:excess] {
			delete(k.values, key)
		}
	}
	k.sweepAt = len(k.values) + k.idleMax
}

// all answers the values, in no order.
func (k *kept[K, V]) all() []V {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]V, 0, len(k.values))
	for _, v := range k.values {
		list = append(list, v.value)
	}
	return list
}
