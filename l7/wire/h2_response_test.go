package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// parseH2Response is what a client does with a block.
func parseH2Response(block []byte, m wire.Method, end bool) (*wire.Response, *fastpath.Error) {
	var d wire.H2Decoder
	var l wire.H2List
	a := new(wire.Arena)
	if err := d.Decode(block, &l, a, &wire.DefaultResponseLimits); err != nil {
		return nil, wire.ErrH2ResponseFields
	}
	r := new(wire.Response)
	return r, l.Response(r, m, end)
}

func TestH2Response(t *testing.T) {
	for name, c := range map[string]struct {
		lines  string
		method wire.Method
		end    bool
		err    *fastpath.Error
		want   string // as HTTP/1.1
	}{
		"length":            {":status: 200\ncontent-type: a/b\ncontent-length: 5", wire.MethodGet, false, nil, "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\n"},
		"unknown length":    {":status: 200\nx_a: b", wire.MethodGet, false, nil, "HTTP/1.1 200 OK\r\nx_a: b\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"trailers only":     {":status: 200\ngrpc-status: 0", wire.MethodPost, true, nil, "HTTP/1.1 200 OK\r\ngrpc-status: 0\r\nContent-Length: 0\r\n\r\n"},
		"HEAD":              {":status: 200\ncontent-length: 5", wire.MethodHead, true, nil, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"},
		"304":               {":status: 304\ncontent-length: 5", wire.MethodGet, true, nil, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"},
		"204":               {":status: 204", wire.MethodGet, true, nil, "HTTP/1.1 204 No Content\r\n\r\n"},
		"103":               {":status: 103\nlink: </a>", wire.MethodGet, false, nil, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"},
		"no status":         {"x: y", wire.MethodGet, false, wire.ErrH2ResponseStatus, ""},
		"status 20":         {":status: 20", wire.MethodGet, false, wire.ErrH2ResponseStatus, ""},
		"status 600":        {":status: 600", wire.MethodGet, false, wire.ErrH2ResponseStatus, ""},
		"status +20":        {":status: +20", wire.MethodGet, false, wire.ErrH2ResponseStatus, ""},
		"101":               {":status: 101", wire.MethodGet, false, wire.ErrH2ResponseStatus, ""},
		":path":             {":status: 200\n:path: /", wire.MethodGet, false, wire.ErrH2ResponseStatus, ""},
		"connection":        {":status: 200\nconnection: close", wire.MethodGet, false, wire.ErrH2ResponseFields, ""},
		"upper case":        {":status: 200\nX: y", wire.MethodGet, false, wire.ErrH2ResponseFields, ""},
		"interim that ends": {":status: 103", wire.MethodGet, true, wire.ErrH2ResponseEnd, ""},
		"two lengths":       {":status: 200\ncontent-length: 5\ncontent-length: 5", wire.MethodGet, false, wire.ErrResponseContentLength, ""},
		"length, no body":   {":status: 200\ncontent-length: 5", wire.MethodGet, true, wire.ErrH2ResponseLength, ""},
		"201 fields":        {":status: 200\n" + strings.Repeat("x: a\n", 201), wire.MethodGet, true, wire.ErrH2ResponseList, ""},
	} {
		r, err := parseH2Response(compress(c.lines), c.method, c.end)
		if err != c.err {
			t.Errorf("%s: %s, want %s", name, text(err), text(c.err))
			continue
		}
		if err != nil {
			continue
		}
		o := wire.ResponseOptions{KeepAlive: true, ClientMinor: 1, Head: c.method == wire.MethodHead}
		sent, err := wire.AppendResponse(nil, r, o)
		if string(sent) != c.want || err != nil {
			t.Errorf("%s: %q, %s\nwant %q", name, sent, text(err), c.want)
		}
		var e wire.H2Encoder
		out, err := e.AppendResponse(nil, 1, r, c.end, o)
		if err != nil {
			t.Errorf("%s: %s", name, text(err))
			continue
		}
		b, end := block(out)
		again, err := parseH2Response(b, c.method, end)
		if err != nil || showResponse(again) != showResponse(r) || end != c.end {
			t.Errorf("%s as HTTP/2 again: %s, %s\nwant %s", name, text(err), showResponse(again), showResponse(r))
		}
	}
}

// TestH2Encode: what our encoder writes, as a foreign decoder reads it.
func TestH2Encode(t *testing.T) {
	field := func(id wire.FieldID, name, value string) wire.Field {
		return wire.Field{ID: id, Name: []byte(name), Value: []byte(value)}
	}
	r := wire.Response{Status: 101, ContentLength: -1, Upgrade: []byte("websocket"), Fields: []wire.Field{
		field(wire.FieldSetCookie, "Set-Cookie", "a=b"), field(wire.FieldOther, "X-Long-Name", strings.Repeat("v", 300)),
		field(wire.FieldOther, "Connection", "close"), field(wire.FieldTrailer, "Trailer", "x")}}
	var e wire.H2Encoder
	first, err := e.AppendResponse(nil, 1, &r, false, wire.ResponseOptions{})
	b, _ := block(first)
	if want := ":status: 200\nset-cookie: a=b\nx-long-name: " + strings.Repeat("v", 300) + "\n"; err != nil || decompress(b) != want {
		t.Errorf("%s, %q", text(err), decompress(b))
	}
	if b[0] != 0x20 {
		t.Error("the first block does not set the table's size to 0")
	}
	second, _ := e.AppendResponse(nil, 3, &r, false, wire.ResponseOptions{})
	if b, _ := block(second); b[0] == 0x20 {
		t.Error("the second block sets the table's size again")
	}
	for _, status := range []int{200, 204, 206, 304, 400, 404, 500, 201, 503, 599} {
		r := wire.Response{Status: status, ContentLength: -1}
		out, _ := e.AppendResponse(nil, 1, &r, true, wire.ResponseOptions{})
		if b, _ := block(out); decompress(b) != ":status: "+string([]byte{byte('0' + status/100), byte('0' + status/10%10), byte('0' + status%10)})+"\n" {
			t.Errorf("%d: %q", status, decompress(b))
		}
	}
	bad := wire.Response{Status: 200, ContentLength: -1, Fields: []wire.Field{field(wire.FieldOther, "x", "a\r\nb: c")}}
	if out, err := e.AppendResponse([]byte("as it was"), 1, &bad, true, wire.ResponseOptions{}); err != wire.ErrSerialise || string(out) != "as it was" {
		t.Errorf("%q, %s", out, text(err))
	}
}

// TestH2LongBlock: a block of any length goes over as many frames as it needs, and is the same block.
func TestH2LongBlock(t *testing.T) {
	for n := wire.H2FrameMax - 40; n < wire.H2FrameMax+40; n++ {
		wantLongBlock(t, n)
	}
	for _, n := range []int{2*wire.H2FrameMax - 11, 3 * wire.H2FrameMax, 60 << 10} {
		wantLongBlock(t, n)
	}
}

func wantLongBlock(t *testing.T, n int) {
	t.Helper()
	value := make([]byte, n)
	for i := range value {
		value[i] = 'a' + byte(i%23)
	}
	r := wire.Response{Status: 200, ContentLength: 7, Framing: wire.FramingLength, Fields: []wire.Field{{Name: []byte("x"), Value: value}}}
	var e wire.H2Encoder
	out, err := e.AppendResponse([]byte{}, 5, &r, false, wire.ResponseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := block(out)
	if want := ":status: 200\nx: " + string(value) + "\ncontent-length: 7\n"; decompress(b) != want {
		t.Fatalf("%d bytes are not what they were", n)
	}
	if heads, _ := frames(out); len(heads) != (len(b)+wire.H2FrameMax-1)/wire.H2FrameMax {
		t.Fatalf("%d bytes went over %d frames", len(b), len(heads))
	}
	if !bytes.Contains(b, value) {
		t.Fatal("value is torn")
	}
}
