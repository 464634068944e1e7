package fastpath

import (
	"testing"
)

func TestBufferClasses(t *testing.T) {
	cases := []struct{ n, class int }{
		{0, 4 << 10}, {1, 4 << 10}, {4 << 10, 4 << 10}, {4<<10 + 1, 16 << 10}, {16 << 10, 16 << 10}, {16<<10 + 1, 64 << 10},
		{64<<10 + 1, inputBytesMax}, {inputBytesMax, inputBytesMax}, {inputBytesMax + 1, inputBytesMax + 1},
	}
	for _, c := range cases {
		var s buffers
		b := s.get(c.n)
		if len(b) != 0 || cap(b) != c.class {
			t.Errorf("get(%d): len %d cap %d, want 0 and %d", c.n, len(b), cap(b), c.class)
		}
		s.put(append(b, 1))
		again := s.get(c.n)
		if len(again) != 0 {
			t.Errorf("get(%d) gave a buffer with %d bytes in it", c.n, len(again))
		}
		if kept := &again[:1][0] == &b[:1][0]; kept != (c.class <= inputBytesMax) {
			t.Errorf("get(%d) after put: the same buffer: %v", c.n, kept)
		}
	}
}

// A queue beyond the largest class is copied a few times, not for every piece that it gets.
func TestBufferGrowthBeyondClasses(t *testing.T) {
	var s buffers
	var b []byte
	copies := 0
	for len(b) < 16*inputBytesMax {
		had := cap(b)
		if b = append(s.grow(b, 1000), make([]byte, 1000)...); cap(b) != had {
			copies++
		}
	}
	if most := len(bufferClasses) + 5; copies > most {
		t.Errorf("%d bytes in pieces of 1000: %d copies, want at most %d", len(b), copies, most)
	}
}

func TestBufferStockIsBounded(t *testing.T) {
	var s buffers
	for range 2 * buffersIdleMax {
		for _, size := range bufferClasses {
			s.put(make([]byte, 0, size))
		}
		s.put(make([]byte, 0, 5000)) // of no class
	}
	total := 0
	for i, f := range s.free {
		if want := buffersIdleMax >> (2 * i); len(f) != want {
			t.Errorf("class %d keeps %d, want %d", i, len(f), want)
		}
		total += len(f) * bufferClasses[i]
	}
	if total > 4<<20 {
		t.Errorf("a loop's stock may reach %d bytes", total)
	}
}

func TestBufferGrowth(t *testing.T) {
	var s buffers
	var b, want []byte
	for n := 1; len(b)+n <= inputBytesMax; n = n*3/2 + 1 {
		more := payload(len(want), n)
		b = append(s.grow(b, n), more...)
		want = append(want, more...)
		same(t, "grown buffer", b, want)
	}
	for i, f := range s.free[:len(bufferClasses)-1] {
		if len(f) != 1 {
			t.Errorf("class %d: %d buffers came back, want the one that was outgrown", i, len(f))
		}
	}
	at := &b[0]
	if b = s.grow(b, cap(b)-len(b)); &b[0] != at {
		t.Error("moved though there was room")
	}
}

// retiredBuffer is the last buffer that was retired on c's loop.
func (c *Conn) retiredBuffer() []byte { return c.loop.retired[len(c.loop.retired)-1] }

// TestRetiredStashStaysIntact: what a handler has discarded of a stash may still be looked at until the turn ends, also
// when other connections take and give buffers of the same class in between.
func TestRetiredStashStaysIntact(t *testing.T) {
	l := steppedLoop(t)
	fdA, peerA := tcpPair(t)
	fdB, peerB := tcpPair(t)
	fdC, peerC := tcpPair(t)
	first, second := payload(11, 3000), payload(500_000, 1000)
	whole := append(append([]byte(nil), first...), second...)

	other := &hooks{}
	b, c := mustAdopt(t, l, fdB, other), mustAdopt(t, l, fdC, other)
	checked := false
	h := &hooks{}
	h.readable = func(a *Conn) {
		_ = a.Fill(64 << 10)
		if len(a.Buffered()) < len(whole) {
			return // stays in the stash
		}
		view := a.Buffered()
		a.Discard(len(first))
		a.Discard(len(second))
		// others read, are stashed because of each other, and stage output: all take buffers
		class := cap(a.retiredBuffer())
		for range 3 {
			_ = b.Fill(class / 2)
			_ = c.Fill(class / 2)
		}
		for range 10 {
			c.Write(make([]byte, 3000))
			b.Write(make([]byte, 3000))
		}
		if cap(b.own) != class {
			t.Errorf("others take buffers of %d bytes, the test needs %d", cap(b.own), class)
		}
		same(t, "view of a discarded stash", view, whole)
		checked = true
	}
	mustAdopt(t, l, fdA, h)

	for _, p := range []interface{ Write([]byte) (int, error) }{peerB, peerC} {
		if _, err := p.Write(payload(77, 60_000)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := peerA.Write(first); err != nil {
		t.Fatal(err)
	}
	rounds(t, l, "the first part", func() bool { return len(l.conns[fdA].Buffered()) == len(first) })
	if l.conns[fdA].own == nil {
		t.Fatal("what is unread at the turn's end is not stashed")
	}
	if _, err := peerA.Write(second); err != nil {
		t.Fatal(err)
	}
	rounds(t, l, "the second part", func() bool { return checked })
	if len(l.retired) != 0 || l.conns[fdA].own != nil {
		t.Errorf("after the turn: %d retired buffers, own %v", len(l.retired), l.conns[fdA].own != nil)
	}
}
