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

// TestAllocationsH2: a request whose fields the table holds costs nothing, a value that is new one allocation, in the
// library that decompresses.
func TestAllocationsH2(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	var d wire.H2Decoder
	var l wire.H2List
	var e wire.H2Encoder
	arena, r, dst := &wire.Arena{}, &wire.Request{}, make([]byte, 0, 64<<10)
	answer := &wire.Response{Status: 200, ContentLength: 5, Framing: wire.FramingLength, Fields: []wire.Field{
		wire.NewField(wire.FieldContentType, []byte("text/plain")), {Name: []byte("X-Other"), Value: []byte("value")}}}
	request := func(block []byte) func() {
		return func() {
			arena.Reset()
			if d.Decode(block, &l, arena, nil) != nil {
				t.Fatal("block is refused")
			}
			if _, err := l.Request(r, arena, true); err != nil {
				t.Fatal(err)
			}
			wire.AppendRequest(dst, r, wire.RequestOptions{})
			e.AppendResponse(dst, 1, answer, false, wire.ResponseOptions{})
		}
	}
	known := compress(h2Get("user-agent: t", "accept: */*", "x-other: value"))
	d.Decode(known, &l, arena, nil)
	indexed := []byte{0x82, 0x87, 0x84, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62}
	wantNoAllocations(t, "all of it in the table", request(indexed))
	fresh := append(indexed, 0x0f, 4, 3, 'n', 'e', 'w') // accept-language, not indexed
	if n := testing.AllocsPerRun(100, request(fresh)); n > 1 {
		t.Errorf("one new value: %v allocations", n)
	}
}
