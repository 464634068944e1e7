package wire

const (
	arenaBlockMin = 1 << 10
	arenaKeepMax  = 16 << 10 // the largest block that survives a Reset
)

// Arena is the bump allocator of one exchange: heads, normalised paths and trailers live here, and every name and value of
// the exchange is a view of it. Views stay valid and in place until Reset, also when the arena grows (growth starts a
// new block and leaves the old one to its views). The zero value is ready. Not for use by two goroutines.
type Arena struct {
	block []byte // the current block; its length is what is used
	kept  []byte // the largest earlier block of at most arenaKeepMax: what Reset falls back to
}

// Alloc gives n bytes of any content; an append to them never touches their neighbours.
func (a *Arena) Alloc(n int) []byte {
	if cap(a.block)-len(a.block) < n {
		a.grow(n)
	}
	start := len(a.block)
	a.block = a.block[:start+n]
	return a.block[start : start+n : start+n]
}

// Copy gives a copy of b.
func (a *Arena) Copy(b []byte) []byte {
	view := a.Alloc(len(b))
	copy(view, b)
	return view
}

// Reserve gives an empty slice with room for n bytes, for results whose length is only known afterwards. Whoever
// appended to it calls Commit with the result before anything else is asked of the arena.
func (a *Arena) Reserve(n int) []byte {
	if cap(a.block)-len(a.block) < n {
		a.grow(n)
	}
	start := len(a.block)
	return a.block[start:start:cap(a.block)]
}

// Commit keeps b, which began as the last Reserve's slice and did not outgrow it.
func (a *Arena) Commit(b []byte) []byte {
	a.block = a.block[:len(a.block)+len(b)]
	return b[:len(b):len(b)]
}

// Reset forgets all views and keeps one block of at most 16 KiB, so that an idle exchange costs little.
func (a *Arena) Reset() {
	a.retire()
	a.block, a.kept = a.kept[:0], nil
}

func (a *Arena) grow(n int) {
	size := max(n, min(2*cap(a.block), arenaKeepMax), arenaBlockMin)
	a.retire()
	a.block = make([]byte, 0, size)
}

// retire remembers the current block if it is the best to keep.
func (a *Arena) retire() {
	if c := cap(a.block); c <= arenaKeepMax && c > cap(a.kept) {
		a.kept = a.block
	}
}
