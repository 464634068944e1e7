package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
	"golang.org/x/net/http2/hpack"
)

// FuzzH2ToH1: any list of fields, serialised for a backend of HTTP/1.1, is exactly one request to the strict parser, with
// the model that we had; serialised for one of HTTP/2, it is that request again.
func FuzzH2ToH1(f *testing.F) {
	f.Add(h2Get("cookie: a\ncookie: b\nhost: h.test"), true)
	f.Add(h2Get("content-length: 5\nte: trailers\ntrailer: x\nx_y: z"), false)
	f.Add(":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /chat\n:authority: h.test\nsec-websocket-version: 13", false)
	f.Add(h2Connect("h2c"), false)
	f.Add(":method: OPTIONS\n:scheme: http\n:path: *\n:authority: [::1]:80", true)
	f.Add(":method: POST\n:scheme: http\n:path: /a/../%2f?\r\n:authority: h.test:", false)
	f.Fuzz(func(t *testing.T, lines string, end bool) {
		for _, line := range strings.Split(lines, "\n") {
			if !strings.Contains(strings.TrimPrefix(line, ":"), ":") {
				return
			}
		}
		r, _, err, conn := parseH2(compress(lines), end, nil)
		if err != nil || conn != nil {
			return
		}
		r.Expect100, r.Resolved = false, false // the one is answered by us, the other done
		var e wire.H2Encoder
		out, err := e.AppendRequest(nil, 1, r, false, end)
		if err != nil {
			t.Fatalf("%q is accepted, and not sent on: %s", lines, text(err))
		}
		b, _ := block(out)
		again, malformed, err, conn := parseH2(b, end, nil)
		if err != nil || conn != nil {
			t.Fatalf("%q as HTTP/2 again: %s, malformed %t, %v", lines, text(err), malformed, conn)
		}
		if got, want := show(again), show(r); got != want {
			t.Fatalf("%q as HTTP/2 again:\n%s\nwant %s", lines, got, want)
		}
		if r.WebSocket() { // the engine makes the key
			r.Fields = wire.Set(r.Fields, wire.FieldSecWebSocketKey, []byte("dGhlIHNhbXBsZSBub25jZQ=="))
		}
		sent, err := wire.AppendRequest(nil, r, wire.RequestOptions{})
		if err != nil {
			t.Fatalf("%q is accepted, and not sent: %s", lines, text(err))
		}
		back, rest, err := parseRequest(sent, nil)
		if err != nil || len(rest) > 0 {
			t.Fatalf("%q was sent as %q: %s, and %q behind it", lines, sent, text(err), rest)
		}
		if got, want := show(back), show(r); got != want {
			t.Fatalf("%q was sent as %q:\n%s\nwant %s", lines, sent, got, want)
		}
		wantRoundTrip(t, r)
	})
}

// FuzzH2Frames: no bytes make the frames' parsers read beyond their payload, and what is accepted is what its type allows.
func FuzzH2Frames(f *testing.F) {
	f.Add([]byte(wire.H2Preface))
	f.Add(wire.AppendH2Settings(nil, wire.AppendH2Setting(nil, wire.H2InitialWindow, 1<<31)))
	f.Add([]byte{0, 0, 7, 1, wire.H2Padded | wire.H2HasDepend, 0, 0, 0, 1, 1, 0, 0, 0, 1, 5, 0})
	f.Add([]byte{0, 0, 4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add(wire.AppendH2GoAway(wire.AppendH2WindowUpdate(nil, 1, 0), 1, 99))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) >= wire.H2HeadBytes {
			h := wire.ParseH2Head(b)
			if spelled := wire.AppendH2Head(nil, h); !bytes.Equal(spelled[:5], b[:5]) || wire.ParseH2Head(spelled) != h {
				t.Fatalf("%x is %+v is %x", b[:9], h, spelled)
			}
			b = b[wire.H2HeadBytes:]
			if h.Check(wire.H2FrameMax) != nil || h.Length > len(b) {
				return
			}
			readPayload(t, h, b[:h.Length:h.Length])
			b = b[h.Length:]
		}
	})
}

// readPayload is what an engine does with a frame that Check let pass.
func readPayload(t *testing.T, h wire.H2Head, p []byte) {
	switch h.Type {
	case wire.H2Data, wire.H2Headers:
		if u, err := h.Unpad(p); err == nil && len(u) > len(p) {
			t.Fatal("padding grew")
		}
		h.Block(p)
	case wire.H2Priority:
		h.CheckPriority(p)
	case wire.H2Reset:
		_ = wire.H2Code(wire.ParseH2Uint(p)).String()
	case wire.H2Settings:
		n := 0
		wire.EachH2Setting(p, func(wire.H2Setting, uint32) *wire.H2Error { n++; return nil })
		if n > len(p)/6 {
			t.Fatal("more settings than bytes")
		}
	case wire.H2GoAway:
		wire.ParseH2GoAway(p)
	case wire.H2WindowUpdate:
		if n, err := h.ParseWindow(p); err == nil && (n == 0 || n > wire.H2WindowMax) {
			t.Fatal(n)
		}
	case wire.H2PriorityUpdate:
		if _, v, err := wire.ParseH2PriorityUpdate(p); err == nil {
			wire.H2PriorityOf(v)
		}
	}
}

// FuzzHPACK: blocks of a foreign encoder that uses its table and changes its size arrive as they were meant, one after
// another, in one decoder; and whatever a block of any bytes does, a decoder either refuses it or reads it as a foreign one.
func FuzzHPACK(f *testing.F) {
	f.Add("x: 1\ny: 2\n\n!64\nx: 1\ny: 2\n\n!0\nx: 1\n\n!4096\nx: 1\n", []byte{0x82, 0x40, 1, 'a', 1, 'b', 0xbe})
	f.Add(strings.Repeat("cookie: "+strings.Repeat("v", 500)+"\n", 20), []byte{0x3f, 0xe1, 0x1f, 0x20, 0x82})
	f.Fuzz(func(t *testing.T, script string, raw []byte) {
		var b bytes.Buffer
		e := hpack.NewEncoder(&b)
		var d wire.H2Decoder
		var l wire.H2List
		for _, lines := range strings.Split(script, "\n\n") {
			b.Reset()
			var want []string
			for _, line := range strings.Split(lines, "\n") {
				name, value, ok := strings.Cut(line, ": ")
				switch {
				case strings.HasPrefix(line, "!") && len(want) == 0: // only a block's beginning may
					e.SetMaxDynamicTableSize(uint32(len(line)*len(line)) % 4097)
				case ok && wire.IsToken([]byte(name)) && strings.ToLower(name) == name && wire.ValidValue([]byte(value)) && strings.Trim(value, " \t") == value:
					if id := wire.IDOf([]byte(name)); id.HopByHop() {
						continue
					}
					e.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: len(value)%3 == 0})
					want = append(want, name+": "+value)
				}
			}
			if len(want) > wire.TrailersMax || b.Len() > wire.TrailerBytesMax {
				return
			}
			if err := d.Decode(b.Bytes(), &l, new(wire.Arena), nil); err != nil {
				t.Fatalf("%q: %v", lines, err)
			}
			fields, ok := l.Trailers()
			if !ok {
				continue // over their limit once decompressed
			}
			got := make([]string, len(fields))
			for i, f := range fields {
				got[i] = strings.ToLower(string(f.Name)) + ": " + string(f.Value)
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Fatalf("%q: got %q", want, got)
			}
		}
		wantForeign(t, raw)
	})
}

// wantForeign compares what a block does to us and to a foreign decoder.
func wantForeign(t *testing.T, raw []byte) {
	var d wire.H2Decoder
	var l wire.H2List
	fields, foreign := hpack.NewDecoder(wire.H2TableBytes, nil).DecodeFull(raw)
	err := d.Decode(raw, &l, new(wire.Arena), nil)
	if (foreign == nil) != (err == nil) && err != wire.ErrH2ListTooLong {
		t.Fatalf("%x: foreign %v, ours %v", raw, foreign, err)
	}
	trailers, ok := l.Trailers()
	if err != nil || !ok {
		return
	}
	for i, f := range trailers {
		for i < len(fields) && wire.IDOf([]byte(fields[i].Name)).HopByHop() {
			fields = append(fields[:i], fields[i+1:]...)
		}
		if !strings.EqualFold(string(f.Name), fields[i].Name) || string(f.Value) != fields[i].Value {
			t.Fatalf("%x: foreign %q, ours %q: %q", raw, fields[i], f.Name, f.Value)
		}
	}
}
