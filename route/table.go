package route

import (
	"hash/maphash"
	"math/bits"
)

// seed is one for the process, so that a hash may be kept from one snapshot to the next.
var seed = maphash.MakeSeed()

func hashOf(name string) uint64 { return maphash.String(seed, name) }

// table finds hosts of a list by name: open addressing with linear probing on the upper bits of a 64-bit hash, at most
// three quarters full. A slot is four bytes, so that those of many hosts stay in the processor's own cache; the name stands
// in the host. It is filled by its maker and immutable afterwards, and goes from Snapshot to Snapshot while every place of
// the list keeps its name. The zero value is an empty table.
type table struct {
	slots []uint32 // 0: free; else the host's place in the list + 1, and above it a part of its hash
	shift uint     // 64 - log2(len(slots))
	bits  uint     // of a place
	skip  int      // bytes of a host's name that are not in its key
}

// newTable makes a table with room for count hosts of a list of at most listed; put must not be called more often.
func newTable(count, listed, skip int) table {
	if count == 0 {
		return table{}
	}
	log := bits.Len(uint(count + count/3))
	return table{slots: make([]uint32, 1<<log), shift: uint(64 - log), bits: uint(bits.Len(uint(listed))), skip: skip}
}

// put adds the host that will be the list's next, or does nothing and answers the one that has the name already.
func (t *table) put(h *Host, list []*Host) (already *Host) {
	if already = t.get(h.hash, h.trie.name()[t.skip:], list); already != nil {
		return already
	}
	i, mask := h.hash>>t.shift, uint64(len(t.slots)-1)
	for t.slots[i&mask] != 0 {
		i++
	}
	t.slots[i&mask] = t.tag(h.hash) | uint32(len(list)+1)
	return nil
}

// tag is the part of a hash that a slot holds.
func (t *table) tag(hash uint64) uint32 { return uint32(hash) << t.bits }

// find answers the host of a borrowed name, or nil; it does not allocate.
func (t *table) find(name []byte, list []*Host) *Host {
	if len(t.slots) == 0 {
		return nil
	}
	return t.get(maphash.Bytes(seed, name), name, list)
}

// get is find, for a table that is not empty.
func (t *table) get(hash uint64, name []byte, list []*Host) *Host {
	mask, tag := uint64(len(t.slots)-1), t.tag(hash)
	for i := hash >> t.shift; ; i++ {
		slot := t.slots[i&mask]
		if slot == 0 {
			return nil
		}
		if place := slot ^ tag; place>>t.bits == 0 {
			if h := list[place-1]; string(h.trie.name()[t.skip:]) == string(name) {
				return h
			}
		}
	}
}
