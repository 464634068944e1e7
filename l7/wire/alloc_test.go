package wire_test

import (
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// TestAllocations proves that nothing here allocates once warm, errors included.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	zero := func(name string, f func()) { wantNoAllocations(t, name, f) }
	arena, r, answer := &wire.Arena{}, &wire.Request{}, &wire.Response{}
	dst := make([]byte, 0, 64<<10)
	for _, c := range accepted {
		if len(c.input) > 8<<10 {
			continue // an arena keeps 16 KiB at most, so that a rare large request does allocate
		}
		input := []byte(c.input)
		zero("request "+c.row+"/"+c.name, func() {
			arena.Reset()
			skip, n, _ := wire.RequestHeadEnd(input, 0, nil)
			if r.Parse(arena.Copy(input[skip:skip+n]), arena, nil) == nil {
				wire.AppendRequest(dst, r, wire.RequestOptions{})
			}
		})
	}
	for _, c := range refused {
		input := []byte(c.input)
		zero("refused "+c.row+"/"+c.name, func() {
			arena.Reset()
			wire.RequestHeadEnd(input, 0, nil)
			r.Parse(input, arena, nil)
		})
	}
	for _, c := range responsesAccepted {
		input := []byte(c.input)
		zero("answer "+c.name, func() {
			n, _ := wire.ResponseHeadEnd(input, 0, nil)
			if answer.Parse(input[:n], c.method, nil) == nil {
				wire.AppendResponse(dst, answer, wire.ResponseOptions{ClientMinor: 1, Head: c.method == wire.MethodHead})
			}
		})
	}
	for _, c := range responsesRefused {
		input := []byte(c.input)
		zero("answer refused "+c.name, func() {
			wire.ResponseHeadEnd(input, 0, nil)
			answer.Parse(input, wire.MethodGet, nil)
		})
	}
	xff := []wire.Field{wire.NewField(wire.FieldXForwardedFor, []byte("192.0.2.1, [2001:db8::1]:80, ::ffff:192.0.2.2"))}
	forwarded := []byte(`for="[::1]:80";proto=https`)
	zero("forwarded", func() {
		for f, ok := wire.LastForwardedFor(xff), true; ok; {
			_, ok = f.Next()
		}
		wire.NextForwarded(forwarded)
	})
}

func TestAllocationsChunked(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	arena, dst := &wire.Arena{}, make([]byte, 0, 64<<10)
	var reader wire.ChunkReader
	for _, c := range chunked {
		input := []byte(c.input)
		wantNoAllocations(t, "chunked "+c.row+"/"+c.name, func() {
			arena.Reset()
			reader.Reset()
			for rest, n, done, err := input, 0, false, error(nil); len(rest) > 0 && !done && err == nil; rest = rest[n:] {
				_, size, end, e := reader.Decode(rest, arena)
				if n, done = size, end; e != nil {
					break
				}
			}
			wire.AppendLastChunk(dst, reader.Trailers())
		})
	}
}

func wantNoAllocations(t *testing.T, name string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s: %v allocations", name, n)
	}
}
