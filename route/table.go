package route

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// seed is one for the process, so that a hash may be kept beside its key from one snapshot to the next.
var seed = maphash.MakeSeed()

func hashOf(name string) uint64 { return maphash.String(seed, name) }

// table finds values by name: open addressing with linear probing on the upper bits of a 64-bit hash, at most half full.
// Hash, key and value stand in one slot, so that a look-up in a large table costs one cache miss before the key is
// compared. It is filled by its maker and immutable afterwards. The zero value is an empty table.
type table[V any] struct {
	slots []slot[V]
	shift uint // 64 - log2(len(slots))
	count int
}

type slot[V any] struct {
	hash  uint64
	key   string
	value *V // nil: free
}

// newTable makes a table with room for count values; put must not be called more often.
func newTable[V any](count int) table[V] {
	if count == 0 {
		return table[V]{}
	}
	log := bits.Len(uint(2*count - 1))
	return table[V]{slots: make([]slot[V], 1<<log), shift: uint(64 - log)}
}

// put adds a value, or does nothing and answers the one that has the name already.
func (t *table[V]) put(hash uint64, key string, value *V) (already *V) {
	mask := uint64(len(t.slots) - 1)
	for i := hash >> t.shift; ; i = (i + 1) & mask {
		s := &t.slots[i&mask]
		if s.value == nil {
			*s = slot[V]{hash: hash, key: key, value: value}
			t.count++
			return nil
		}
		if s.hash == hash && s.key == key {
			return s.value
		}
	}
}

// clone answers a table of the same values, for a maker to replace some.
func (t *table[V]) clone() table[V] {
	return table[V]{slots: slices.Clone(t.slots), shift: t.shift, count: t.count}
}

// replace puts another value where the table has the name; it must have it.
func (t *table[V]) replace(hash uint64, key string, value *V) {
	mask := uint64(len(t.slots) - 1)
	for i := hash >> t.shift; ; i++ {
		if s := &t.slots[i&mask]; s.hash == hash && s.key == key && s.value != nil {
			s.key, s.value = key, value
			return
		}
	}
}

// get answers the value of a name, or nil.
func (t *table[V]) get(hash uint64, key string) *V {
	if t.count == 0 {
		return nil
	}
	mask := uint64(len(t.slots) - 1)
	for i := hash >> t.shift; ; i++ {
		s := &t.slots[i&mask]
		if s.value == nil {
			return nil
		}
		if s.hash == hash && s.key == key {
			return s.value
		}
	}
}

// find is get for a borrowed name; it does not allocate.
func (t *table[V]) find(name []byte) *V {
	if t.count == 0 {
		return nil
	}
	hash := maphash.Bytes(seed, name)
	mask := uint64(len(t.slots) - 1)
	for i := hash >> t.shift; ; i++ {
		s := &t.slots[i&mask]
		if s.value == nil {
			return nil
		}
		if s.hash == hash && s.key == string(name) {
			return s.value
		}
	}
}
