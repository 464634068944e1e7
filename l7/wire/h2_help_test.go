package wire_test

import (
	"bytes"
	"strings"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"golang.org/x/net/http2/hpack"
)

// compress makes a header block of "name: value" lines, by a foreign encoder. A pseudo-header's line begins with its colon.
func compress(lines string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, line := range strings.Split(strings.TrimSuffix(lines, "\n"), "\n") {
		if line == "" {
			continue
		}
		at := strings.Index(line[1:], ":") + 1
		value := line[at+1:]
		e.WriteField(hpack.HeaderField{Name: line[:at], Value: strings.TrimPrefix(value, " ")})
	}
	return b.Bytes()
}

// parseH2 is what a server does with a block.
func parseH2(block []byte, end bool, lim *wire.Limits) (r *wire.Request, malformed bool, err *fastpath.Error, conn *wire.H2Error) {
	var d wire.H2Decoder
	var l wire.H2List
	a := new(wire.Arena)
	if conn = d.Decode(block, &l, a, lim); conn != nil {
		return nil, false, nil, conn
	}
	r = new(wire.Request)
	malformed, err = l.Request(r, a, end)
	return r, malformed, err, nil
}

// frames cuts what an encoder wrote into frames; it panics where a peer would end the connection.
func frames(b []byte) (heads []wire.H2Head, payloads [][]byte) {
	for len(b) > 0 {
		h := wire.ParseH2Head(b)
		if err := h.Check(wire.H2FrameMax); err != nil {
			panic(err)
		}
		b = b[wire.H2HeadBytes:]
		heads, payloads = append(heads, h), append(payloads, b[:h.Length])
		b = b[h.Length:]
	}
	return heads, payloads
}

// block joins a header block's frames, and checks that they are the only ones.
func block(b []byte) (whole []byte, end bool) {
	heads, payloads := frames(b)
	for i, h := range heads {
		want := wire.H2Continuation
		if i == 0 {
			want, end = wire.H2Headers, h.Has(wire.H2EndStream)
		}
		if h.Type != want || h.Has(wire.H2EndHeaders) != (i == len(heads)-1) || h.Stream != heads[0].Stream {
			panic("frames are no header block")
		}
		whole = append(whole, payloads[i]...)
	}
	return whole, end
}

// decompress spells a block as a foreign decoder reads it.
func decompress(b []byte) string {
	fields, err := hpack.NewDecoder(4096, nil).DecodeFull(b)
	if err != nil {
		return err.Error()
	}
	var s strings.Builder
	for _, f := range fields {
		s.WriteString(f.Name + ": " + f.Value + "\n")
	}
	return s.String()
}
