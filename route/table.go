package route

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// seed is one for the process, so that a hash may be kept from one snapshot to the next.
var seed = maphash.MakeSeed()

func hashOf(name string) uint64 { return maphash.String(seed, name) }

// table finds hosts by name: open addressing with linear probing on the upper bits of a 64-bit hash, at most half full.
// What is probed is small, and a host's name stands in the host: a look-up in a large table costs a cache miss before
// the host's own. It is filled by its maker and immutable afterwards. The zero value is an empty table.
type table struct {
	tags  []uint16 // of the hash beside; 0: free
	hosts []*Host
	shift uint // 64 - log2(len(tags))
	count int
	skip  int // bytes of a host's name that are not in its key
}

// newTable makes a table with room for count hosts; put must not be called more often.
func newTable(count, skip int) table {
	if count == 0 {
		return table{skip: skip}
	}
	log := bits.Len(uint(2*count - 1))
	return table{tags: make([]uint16, 1<<log), hosts: make([]*Host, 1<<log), shift: uint(64 - log), skip: skip}
}

// tag is the part of a hash that is compared before the name.
func tag(hash uint64) uint16 { return uint16(hash) | 1 }

// put adds a host by its hash, or does nothing and answers the one that has the name already.
func (t *table) put(h *Host) (already *Host) {
	key, mask := h.trie.name()[t.skip:], uint64(len(t.tags)-1)
	for i := h.hash >> t.shift; ; i++ {
		switch at := i & mask; {
		case t.tags[at] == 0:
			t.tags[at], t.hosts[at] = tag(h.hash), h
			t.count++
			return nil
		case t.has(at, h.hash, key):
			return t.hosts[at]
		}
	}
}

// clone answers a table of the same hosts, for a maker to replace some.
func (t *table) clone() table {
	c := *t
	c.hosts = slices.Clone(t.hosts)
	return c
}

// replace puts a host of the same name and hash in the place of old, which the table must have.
func (t *table) replace(old, h *Host) {
	mask := uint64(len(t.tags) - 1)
	for i := old.hash >> t.shift; ; i++ {
		if t.hosts[i&mask] == old {
			t.hosts[i&mask] = h
			return
		}
	}
}

// find answers the host of a borrowed name, or nil; it does not allocate.
func (t *table) find(name []byte) *Host {
	if t.count == 0 {
		return nil
	}
	return t.get(maphash.Bytes(seed, name), name)
}

// get is find, for a table that is not empty.
func (t *table) get(hash uint64, name []byte) *Host {
	mask := uint64(len(t.tags) - 1)
	for i := hash >> t.shift; ; i++ {
		switch at := i & mask; {
		case t.tags[at] == 0:
			return nil
		case t.has(at, hash, name):
			return t.hosts[at]
		}
	}
}

// has tells whether a slot's host is of this name.
func (t *table) has(at, hash uint64, name []byte) bool {
	return t.tags[at] == tag(hash) && string(t.hosts[at].trie.name()[t.skip:]) == string(name)
}
