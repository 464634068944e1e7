package filter

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

// A source is whom limits count: an IPv4 address, or an IPv6 /64, of which one client has all addresses. It is the
// address's hash under a seed of the process, so that nobody can choose sources that meet.
type source uint64

var sourceSeed = maphash.MakeSeed()

func sourceOf(a netip.Addr) source {
	a = a.Unmap()
	b := a.As16()
	n := 16
	if a.Is6() {
		n = 8
	}
	return source(max(maphash.Bytes(sourceSeed, b[:n]), 1))
}

// Bounds of what limits remember. A table grows by levels as sources come, and never shrinks: its largest form is 1.3 MiB.
const (
	limitWays   = 8   // places that a source may have in a level
	limitLevels = 5   // of 256, 1,024, … 65,536 places: 87,296 sources in all
	limitFirst  = 256 // places of the first level
	limitGrowth = 4   // how many times a level is larger than the one before
)

// A table finds a slot for a source, for all loops at once and without a lock: levels of sets of limitWays slots. A source
// lives in the set that its hash chooses, in the first level that had room. When no level has any, a next one is made;
// beyond the last one the source that matters least loses its place.
type table[S any] struct {
	levels [limitLevels]atomic.Pointer[[]S]
}

// set is the source's set in level i; nil: the level is not there.
func (t *table[S]) set(i int, s source) []S {
	level := t.levels[i].Load()
	if level == nil {
		return nil
	}
	sets := uint64(len(*level) / limitWays)
	at := (uint64(s) >> 8 & (sets - 1)) * limitWays
	return (*level)[at : at+limitWays : at+limitWays]
}

// grow makes the next level; false: all are there.
func (t *table[S]) grow(from int) bool {
	if from >= limitLevels {
		return false
	}
	size := limitFirst
	for range from {
		size *= limitGrowth
	}
	level := make([]S, size)
	t.levels[from].CompareAndSwap(nil, &level) // somebody else may have been faster
	return true
}

// A bucket is one source's leaky bucket: how full it was, and when, in one word that loops exchange as a whole.
type bucket struct {
	owner atomic.Uint64 // the source; 0: free
	state atomic.Uint64 // time in ms, and thousandths of requests beyond the rate
}

func pack(ms uint32, excess uint32) uint64 { return uint64(ms)<<32 | uint64(excess) }

func unpack(v uint64) (ms uint32, excess uint32) { return uint32(v >> 32), uint32(v) }

// drained is how full a bucket is at ms if it was v, leaking rate thousandths a second.
func drained(v uint64, ms uint32, rate uint64) uint32 {
	at, excess := unpack(v)
	passed := int32(ms - at)
	switch {
	case passed < -60_000:
		return 0 // the clock has gone round since
	case passed < 0:
		passed = 0 // another loop is a little ahead
	}
	leaked := rate * uint64(passed) / 1000
	return uint32(uint64(excess) - min(leaked, uint64(excess)))
}

// bucketOf finds the source's bucket, or gives it one that is empty.
func bucketOf(t *table[bucket], s source, ms uint32, rate uint64) *bucket {
	for i := range limitLevels {
		set := t.set(i, s)
		if set == nil {
			break
		}
		for j := range set {
			if set[j].owner.Load() == uint64(s) {
				return &set[j]
			}
		}
	}
	for i := range limitLevels {
		if t.set(i, s) == nil && !t.grow(i) {
			break
		}
		if b := vacant(t.set(i, s), s, ms, rate, false); b != nil {
			return b
		}
	}
	return vacant(t.set(limitLevels-1, s), s, ms, rate, true)
}

// vacant gives the source a bucket that is nobody's or has drained; with force, the emptiest one. Two loops may give one
// source two buckets in the same moment: the first one counts from then on, the other drains.
func vacant(set []bucket, s source, ms uint32, rate uint64, force bool) *bucket {
	best, least := -1, uint32(0)
	for i := range set {
		excess := uint32(0)
		if set[i].owner.Load() != 0 {
			excess = drained(set[i].state.Load(), ms, rate)
		}
		if excess == 0 || force && (best < 0 || excess < least) {
			if best, least = i, excess; excess == 0 {
				break
			}
		}
	}
	if best < 0 {
		return nil
	}
	b := &set[best]
	b.owner.Store(uint64(s))
	b.state.Store(pack(ms, 0))
	return b
}

// A holding is one source's requests under way: half of its hash, and their number, in one word.
type holding struct{ word atomic.Uint64 }

const (
	holdingCount = 1<<20 - 1 // the part of a word that is the number
	holdingMax   = 1 << 19   // requests that a source can be allowed
)

func (s source) tag() uint64 { return uint64(s) &^ holdingCount }

// holds tells whether a word counts requests of the source.
func (s source) holds(word uint64) bool {
	return word&^holdingCount == s.tag() && word&holdingCount > 0
}

// acquire counts a request of the source, unless it has limit under way. The word is to be lowered by one at the end.
//
// Two loops may count a source that is new in two words in the same moment. So whoever has counted looks whether the source
// is counted elsewhere too; if it is, it takes back and begins again. Of two that stay, the one that counted last would have
// seen the other: all that stay are in one word, which holds no more than limit.
func acquire(t *table[holding], s source, limit uint64) (*atomic.Uint64, bool) {
	for {
		word, ok := join(t, s, limit)
		if word == nil && ok {
			word = begin(t, s)
		}
		if word == nil {
			return nil, false // as nginx does when its zone is full
		}
		if !heldElsewhere(t, s, word) {
			return word, true
		}
		word.Add(^uint64(0))
	}
}

// join counts a request in the word that counts the source already; nil and true: no word does; nil and false: it has limit
// under way.
func join(t *table[holding], s source, limit uint64) (*atomic.Uint64, bool) {
	for i := range limitLevels {
		set := t.set(i, s)
		for j := range set {
			for v := set[j].word.Load(); s.holds(v); v = set[j].word.Load() {
				if v&holdingCount >= limit {
					return nil, false
				}
				if set[j].word.CompareAndSwap(v, v+1) {
					return &set[j].word, true
				}
			}
		}
	}
	return nil, true
}

// begin counts the source's first request in a word that counts nobody's; nil: there is none.
func begin(t *table[holding], s source) *atomic.Uint64 {
	for i := range limitLevels {
		if t.set(i, s) == nil && !t.grow(i) {
			break
		}
		set := t.set(i, s)
		for j := range set {
			if v := set[j].word.Load(); v&holdingCount == 0 && set[j].word.CompareAndSwap(v, s.tag()|1) {
				return &set[j].word
			}
		}
	}
	return nil
}

// heldElsewhere tells whether another word than this one counts the source.
func heldElsewhere(t *table[holding], s source, word *atomic.Uint64) bool {
	for i := range limitLevels {
		set := t.set(i, s)
		for j := range set {
			if other := &set[j].word; other != word && s.holds(other.Load()) {
				return true
			}
		}
	}
	return false
}
