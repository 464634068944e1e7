package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// decode feeds src in segments of at most step bytes; used is how many bytes the body took.
func decode(c *wire.ChunkReader, src []byte, step int, a *wire.Arena) (body []byte, used int, done bool, err *fastpath.Error) {
	for used < len(src) && !done && err == nil {
		var data []byte
		var n int
		segment := src[used:min(used+step, len(src))]
		data, n, done, err = c.Decode(segment, a)
		body = append(body, data...)
		used += n
	}
	return body, used, done, err
}

var chunked = []struct {
	row, name, input string
	want             string // the body, when it is complete
	err              *fastpath.Error
}{
	{"size", "usual", "5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n", "hello0123456789", nil},
	{"size", "lower case, leading zeros", "000000000000000a\r\n0123456789\r\n00\r\n\r\n", "0123456789", nil},
	{"size", "empty body", "0\r\n\r\n", "", nil},
	{"size", "17 digits", "00000000000000001\r\na\r\n0\r\n\r\n", "", wire.ErrChunkSize},
	{"size", "2^63", "8000000000000000\r\n", "", wire.ErrChunkSize},
	{"size", "2^64-1", "ffffffffffffffff\r\n", "", wire.ErrChunkSize},
	{"size", "empty", "\r\n", "", wire.ErrChunkSize},
	{"size", "sign", "+5\r\nhello\r\n", "", wire.ErrChunkSize},
	{"size", "minus", "-5\r\nhello\r\n", "", wire.ErrChunkSize},
	{"size", "0x", "0x5\r\nhello\r\n", "", wire.ErrChunkSize},
	{"size", "_", "1_0\r\n", "", wire.ErrChunkSize},
	{"size", "not hexadecimal", "g\r\n", "", wire.ErrChunkSize},
	{"size", "leading blank", " 5\r\nhello\r\n", "", wire.ErrChunkSize},
	{"size", "trailing blank", "5 \r\nhello\r\n", "", wire.ErrChunkSize},
	{"size", "trailing tab", "5\t;a\r\nhello\r\n", "", wire.ErrChunkSize},
	{"size", "only an extension", ";a\r\n", "", wire.ErrChunkSize},
	{"size", "bare LF", "5\nhello\r\n", "", wire.ErrChunkLine},
	{"size", "bare CR", "5\rhello\r\n", "", wire.ErrChunkLine},
	{"size", "CRCR", "5\r\r\nhello\r\n", "", wire.ErrChunkLine},
	{"data", "missing CRLF", "5\r\nhello0\r\n\r\n", "", wire.ErrChunkEnd},
	{"data", "LF only", "5\r\nhello\n0\r\n\r\n", "", wire.ErrChunkEnd},
	{"data", "CR only", "5\r\nhello\r0\r\n\r\n", "", wire.ErrChunkEnd},
	{"data", "too long", "4\r\nhello\r\n0\r\n\r\n", "", wire.ErrChunkEnd},
	{"extension", "dropped", "5;a=b;c=\"d;e\"\r\nhello\r\n0;x\r\n\r\n", "hello", nil},
	{"extension", "tab and 0x80", "1;\t\xff\r\na\r\n0\r\n\r\n", "a", nil},
	{"extension", "at its limit", "1" + strings.Repeat(";", 257)[1:] + "x\r\na\r\n0\r\n\r\n", "a", nil},
	{"extension", "over its limit", "1;" + strings.Repeat("x", 257) + "\r\na\r\n0\r\n\r\n", "", wire.ErrChunkExtensions},
	{"extension", "all over their limit", strings.Repeat("1;"+strings.Repeat("x", 255)+"\r\na\r\n", 65), "", wire.ErrChunkExtensions},
	{"extension", "NUL", "1;a\x00\r\na\r\n", "", wire.ErrChunkExtension},
	{"extension", "control", "1;a\x1f\r\na\r\n", "", wire.ErrChunkExtension},
	{"extension", "bare LF", "1;a\nb\r\n0\r\n\r\n", "", wire.ErrChunkLine},
	{"extension", "bare CR", "1;a\rb\r\n", "", wire.ErrChunkLine},
	{"trailers", "bare LF at the end", "0\r\n\n", "", wire.ErrTrailer},
	{"trailers", "bare LF", "0\r\nX: a\n\r\n", "", wire.ErrTrailer},
	{"trailers", "bare CR", "0\r\nX: a\rb\r\n\r\n", "", wire.ErrTrailer},
	{"trailers", "blank before colon", "0\r\nX : a\r\n\r\n", "", wire.ErrTrailer},
	{"trailers", "folded", "0\r\nX: a\r\n b\r\n\r\n", "", wire.ErrTrailer},
	{"trailers", "no colon", "0\r\nGET / HTTP/1.1\r\n\r\n", "", wire.ErrTrailer},
	{"trailers", "NUL", "0\r\nX: \x00\r\n\r\n", "", wire.ErrTrailer},
	{"trailers", "32", "0\r\n" + strings.Repeat("X: a\r\n", 32) + "\r\n", "", nil},
	{"trailers", "33", "0\r\n" + strings.Repeat("X: a\r\n", 33) + "\r\n", "", wire.ErrTrailers},
	{"trailers", "over 8 KiB", "0\r\nX: " + strings.Repeat("a", 8192-6) + "\r\n\r\n", "", wire.ErrTrailers},
	{"trailers", "8 KiB", "0\r\nX: " + strings.Repeat("a", 8192-7) + "\r\n\r\n", "", nil},
}

func TestChunkReader(t *testing.T) {
	for _, c := range chunked {
		t.Run(c.row+"/"+c.name, func(t *testing.T) {
			for _, step := range []int{1, 2, 3, 7, 1 << 20} {
				input := []byte(c.input)
				if c.err == nil {
					input = append(input, "\x00next"...)
				}
				var r wire.ChunkReader
				body, used, done, err := decode(&r, input[:len(c.input)], step, &wire.Arena{})
				if err != c.err {
					t.Fatalf("step %d: %s, want %s", step, text(err), text(c.err))
				}
				if err == nil && strings.HasSuffix(c.input, "\r\n\r\n") && (!done || used != len(c.input) || string(body) != c.want) {
					t.Fatalf("step %d: %q, %d, %t", step, body, used, done)
				}
				r.Reset()
				if _, again, _, _ := decode(&r, input, 1<<20, nil); c.err == nil && done && again != used {
					t.Fatalf("read past the end: %d, want %d", again, used)
				}
			}
		})
	}
}

func TestChunkReaderFault(t *testing.T) {
	c := wire.ChunkReader{Response: true}
	c.Reset()
	if _, _, _, err := c.Decode([]byte("x"), nil); err != wire.ErrResponseChunkSize || err.Fault != fastpath.FaultBackend {
		t.Fatal(text(err))
	}
}

func TestTrailers(t *testing.T) {
	input := []byte("0\r\nX-Sum: 1\r\ncontent-length: 5\r\nContent_Length: 5\r\nHost: x\r\nX-Forwarded-Any: y\r\nX-Hop: z\r\nAuthorization: w\r\n" +
		"grpc-status: 0\r\nProxy-Authorization: v\r\nTransfer_Encoding: chunked\r\n\r\nGET")
	var c wire.ChunkReader
	var a wire.Arena
	for _, step := range []int{1, 5, len(input)} {
		c.Reset()
		if _, used, done, err := decode(&c, input, step, &a); !done || err != nil || used != len(input)-3 {
			t.Fatal(used, done, err)
		}
		if n := len(c.Trailers()); n != 10 {
			t.Fatal(n)
		}
		out, err := wire.AppendLastChunk(nil, c.Trailers(), []byte("x-hop"))
		if err != nil || string(out) != "0\r\nX-Sum: 1\r\ngrpc-status: 0\r\n\r\n" {
			t.Fatalf("%q %s", out, text(err))
		}
	}
	out, err := wire.AppendLastChunk([]byte("b"), []wire.Field{{Name: []byte("A"), Value: []byte("\n")}})
	if err != wire.ErrSerialise || string(out) != "b" {
		t.Fatalf("%q %s", out, text(err))
	}
	if out, _ := wire.AppendLastChunk(nil, nil); string(out) != wire.LastChunk {
		t.Fatalf("%q", out)
	}
}

func TestAppendChunkHeader(t *testing.T) {
	for n, want := range map[int]string{-1: "", 0: "", 1: "1\r\n", 15: "F\r\n", 16: "10\r\n", 4096: "1000\r\n", 1<<63 - 1: "7FFFFFFFFFFFFFFF\r\n"} {
		got := wire.AppendChunkHeader(nil, n)
		if string(got) != want || len(got) > wire.ChunkHeaderMax {
			t.Errorf("%d: %q", n, got)
		}
	}
}

// What the writer writes, the reader reads.
func TestChunkRoundTrip(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789"), 1000)
	var sent []byte
	for rest, n := want, 1; len(rest) > 0; n = min(n*3, len(rest)) {
		sent = append(append(wire.AppendChunkHeader(sent, n), rest[:n]...), wire.ChunkEnd...)
		rest = rest[n:]
	}
	sent = append(sent, wire.LastChunk...)
	var c wire.ChunkReader
	body, used, done, err := decode(&c, sent, 100, nil)
	if !bytes.Equal(body, want) || used != len(sent) || !done || err != nil {
		t.Fatal(len(body), used, done, text(err))
	}
}
