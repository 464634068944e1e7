package wire_test

import (
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
)

func usualRequest() *wire.Request {
	return &wire.Request{Method: wire.MethodGet, Target: []byte("/a?b"), Authority: []byte("h:80"), Fields: []wire.Field{
		wire.NewField(wire.FieldAccept, []byte("*/*")), {Name: []byte("X-A"), Value: []byte("1")}}}
}

const usualRequestSent = "GET /a?b HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\nX-A: 1\r\n"

func TestAppendRequest(t *testing.T) {
	cases := []struct {
		name   string
		change func(*wire.Request)
		close  bool
		want   string // nothing: an assertion failed
	}{
		{"as it is", func(*wire.Request) {}, false, usualRequestSent},
		{"close", func(*wire.Request) {}, true, usualRequestSent + "Connection: close\r\n"},
		{"length", func(r *wire.Request) { r.Framing, r.ContentLength = wire.FramingLength, 5 }, false, usualRequestSent + "Content-Length: 5\r\n"},
		{"chunked", func(r *wire.Request) { r.Framing = wire.FramingChunked }, false, usualRequestSent + "Transfer-Encoding: chunked\r\n"},
		{"trailers", func(r *wire.Request) { r.TETrailers = true }, true, usualRequestSent + "Connection: close, TE\r\nTE: trailers\r\n"},
		{"upgrade", func(r *wire.Request) { r.Upgrade = []byte("websocket") }, true, usualRequestSent + "Connection: Upgrade\r\nUpgrade: websocket\r\n"},
		{"upgrade and trailers", func(r *wire.Request) { r.Upgrade, r.TETrailers = []byte("a/1"), true }, false,
			usualRequestSent + "Connection: Upgrade, TE\r\nTE: trailers\r\nUpgrade: a/1\r\n"},
		{"other method", func(r *wire.Request) { r.Method, r.MethodText = wire.MethodOther, []byte("PURGE") }, false,
			strings.Replace(usualRequestSent, "GET", "PURGE", 1)},
		{"no authority", func(r *wire.Request) { r.Authority = nil }, false, strings.Replace(usualRequestSent, "h:80", "", 1)},
		{"fields that never pass", func(r *wire.Request) {
			for _, name := range []string{"host", "content-length", "Transfer-Encoding", "connection", "KEEP-ALIVE", "te", "upgrade", "Expect", "Trailer",
				"Proxy-Connection", "HTTP2-Settings"} {
				r.Fields = append(r.Fields, wire.Field{Name: []byte(name), Value: []byte("x")}, wire.Field{Name: []byte(name), ID: wire.IDOf([]byte(name))})
			}
		}, false, usualRequestSent},
		{"method with blank", func(r *wire.Request) { r.Method, r.MethodText = wire.MethodOther, []byte("A B") }, false, ""},
		{"no method", func(r *wire.Request) { r.Method, r.MethodText = wire.MethodOther, nil }, false, ""},
		{"CONNECT", func(r *wire.Request) { r.Method = wire.MethodConnect }, false, ""},
		{"target empty", func(r *wire.Request) { r.Target = nil }, false, ""},
		{"target with blank", func(r *wire.Request) { r.Target = []byte("/ HTTP/1.1") }, false, ""},
		{"target with LF", func(r *wire.Request) { r.Target = []byte("/aaaaaaaaaaaa\nb") }, false, ""},
		{"target relative", func(r *wire.Request) { r.Target = []byte("a") }, false, ""},
		{"target asterisk", func(r *wire.Request) { r.Target = []byte("*") }, false, ""},
		{"authority with CRLF", func(r *wire.Request) { r.Authority = []byte("h\r\nX: y") }, false, ""},
		{"authority list", func(r *wire.Request) { r.Authority = []byte("a,b") }, false, ""},
		{"name empty", func(r *wire.Request) { r.Fields[0].Name = nil }, false, ""},
		{"name with colon", func(r *wire.Request) { r.Fields[0].Name = []byte("A:") }, false, ""},
		{"name with LF", func(r *wire.Request) { r.Fields[1].Name = []byte("A\n") }, false, ""},
		{"value with LF", func(r *wire.Request) { r.Fields[1].Value = []byte("1\nY: 2") }, false, ""},
		{"value with CR", func(r *wire.Request) { r.Fields[1].Value = []byte("abcdefghijk\r") }, false, ""},
		{"value with NUL", func(r *wire.Request) { r.Fields[1].Value = []byte("abcdefgh\x00") }, false, ""},
		{"value with 0x7f", func(r *wire.Request) { r.Fields[1].Value = []byte("\x7f") }, false, ""},
		{"upgrade with LF", func(r *wire.Request) { r.Upgrade = []byte("a\nb") }, false, ""},
		{"upgrade empty", func(r *wire.Request) { r.Upgrade = []byte{} }, false, ""},
		{"until close", func(r *wire.Request) { r.Framing = wire.FramingClose }, false, ""},
		{"length negative", func(r *wire.Request) { r.Framing, r.ContentLength = wire.FramingLength, -1 }, false, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := usualRequest()
			c.change(r)
			out, err := wire.AppendRequest([]byte("before"), r, wire.RequestOptions{Close: c.close})
			if c.want == "" {
				if err != wire.ErrSerialise || string(out) != "before" {
					t.Fatalf("%q, %s", out, text(err))
				}
				return
			}
			if err != nil || string(out) != "before"+c.want+"\r\n" {
				t.Fatalf("%q, %s; want %q", out, text(err), c.want)
			}
		})
	}
}

// TestAppendRequest10: of HTTP/1.0 there is nothing that only HTTP/1.1 knows.
func TestAppendRequest10(t *testing.T) {
	const line = "GET /a?b HTTP/1.0\r\nHost: h:80\r\nAccept: */*\r\nX-A: 1\r\n"
	for name, c := range map[string]struct {
		change func(*wire.Request)
		want   string
	}{
		"as it is": {func(*wire.Request) {}, line + "Connection: close\r\n\r\n"},
		"length":   {func(r *wire.Request) { r.Framing, r.ContentLength = wire.FramingLength, 5 }, line + "Content-Length: 5\r\nConnection: close\r\n\r\n"},
		"trailers": {func(r *wire.Request) {
			r.TETrailers = true
			r.Fields = append(r.Fields, wire.NewField(wire.FieldTrailer, []byte("X-T")))
		}, line + "Connection: close\r\n\r\n"},
		"chunked": {func(r *wire.Request) { r.Framing = wire.FramingChunked }, ""},
		"upgrade": {func(r *wire.Request) { r.Upgrade = []byte("websocket") }, ""},
	} {
		for _, keepAlive := range []bool{false, true} {
			r := usualRequest()
			c.change(r)
			out, err := wire.AppendRequest(nil, r, wire.RequestOptions{HTTP10: true, KeepAlive: keepAlive})
			if string(out) != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%s: %q, %s; want %q", name, out, text(err), c.want)
			}
		}
	}
}

func TestAppendResponse(t *testing.T) {
	live := wire.ResponseOptions{KeepAlive: true, ClientMinor: 1}
	const ok = "HTTP/1.1 200 OK\r\nX-A: 1\r\n"
	cases := []struct {
		name   string
		change func(*wire.Response, *wire.ResponseOptions)
		want   string
	}{
		{"length", func(r *wire.Response, o *wire.ResponseOptions) {}, ok + "Content-Length: 3\r\n"},
		{"close", func(r *wire.Response, o *wire.ResponseOptions) { o.KeepAlive = false }, ok + "Content-Length: 3\r\nConnection: close\r\n"},
		{"1.0 client", func(r *wire.Response, o *wire.ResponseOptions) { o.ClientMinor = 0 }, ok + "Content-Length: 3\r\nConnection: keep-alive\r\n"},
		{"chunked", func(r *wire.Response, o *wire.ResponseOptions) { r.Framing = wire.FramingChunked }, ok + "Transfer-Encoding: chunked\r\n"},
		{"until close", func(r *wire.Response, o *wire.ResponseOptions) { r.Framing, o.KeepAlive = wire.FramingClose, false }, ok + "Connection: close\r\n"},
		{"HEAD", func(r *wire.Response, o *wire.ResponseOptions) { r.Framing, o.Head = wire.FramingNone, true }, ok + "Content-Length: 3\r\n"},
		{"HEAD without length", func(r *wire.Response, o *wire.ResponseOptions) {
			r.Framing, r.ContentLength, o.Head = wire.FramingNone, -1, true
		}, ok},
		{"204", func(r *wire.Response, o *wire.ResponseOptions) { r.Framing, r.Status = wire.FramingNone, 204 }, "HTTP/1.1 204 No Content\r\nX-A: 1\r\n"},
		{"304", func(r *wire.Response, o *wire.ResponseOptions) { r.Framing, r.Status = wire.FramingNone, 304 },
			"HTTP/1.1 304 Not Modified\r\nX-A: 1\r\nContent-Length: 3\r\n"},
		{"103", func(r *wire.Response, o *wire.ResponseOptions) {
			r.Framing, r.Status, o.KeepAlive = wire.FramingNone, 103, false
		},
			"HTTP/1.1 103 Early Hints\r\nX-A: 1\r\n"},
		{"101", func(r *wire.Response, o *wire.ResponseOptions) {
			r.Framing, r.Status, r.Upgrade = wire.FramingNone, 101, []byte("websocket")
		},
			"HTTP/1.1 101 Switching Protocols\r\nX-A: 1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"},
		{"unknown status", func(r *wire.Response, o *wire.ResponseOptions) { r.Status = 599 }, "HTTP/1.1 599 \r\nX-A: 1\r\nContent-Length: 3\r\n"},
		{"fields that never pass", func(r *wire.Response, o *wire.ResponseOptions) {
			r.Fields = append(r.Fields, wire.Field{Name: []byte("content-length")}, wire.Field{Name: []byte("Transfer-encoding")},
				wire.NewField(wire.FieldConnection, nil), wire.NewField(wire.FieldTrailer, nil))
		}, ok + "Content-Length: 3\r\n"},
		{"trailers", func(r *wire.Response, o *wire.ResponseOptions) {
			r.Framing, o.Trailers = wire.FramingChunked, true
			r.Fields = append(r.Fields, wire.NewField(wire.FieldTrailer, []byte("X-Sum")))
		}, ok + "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n"},
		{"no framing", func(r *wire.Response, o *wire.ResponseOptions) { r.Framing = wire.FramingNone }, ""},
		{"204 with length", func(r *wire.Response, o *wire.ResponseOptions) { r.Status = 204 }, ""},
		{"chunked to 1.0", func(r *wire.Response, o *wire.ResponseOptions) { r.Framing, o.ClientMinor = wire.FramingChunked, 0 }, ""},
		{"until close, kept alive", func(r *wire.Response, o *wire.ResponseOptions) { r.Framing = wire.FramingClose }, ""},
		{"101 without protocol", func(r *wire.Response, o *wire.ResponseOptions) { r.Framing, r.Status = wire.FramingNone, 101 }, ""},
		{"protocol without 101", func(r *wire.Response, o *wire.ResponseOptions) { r.Upgrade = []byte("websocket") }, ""},
		{"length negative", func(r *wire.Response, o *wire.ResponseOptions) { r.ContentLength = -1 }, ""},
		{"status 99", func(r *wire.Response, o *wire.ResponseOptions) { r.Status = 99 }, ""},
		{"status 600", func(r *wire.Response, o *wire.ResponseOptions) { r.Status = 600 }, ""},
		{"value with LF", func(r *wire.Response, o *wire.ResponseOptions) { r.Fields[0].Value = []byte("a\n") }, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := &wire.Response{Status: 200, Framing: wire.FramingLength, ContentLength: 3, Fields: []wire.Field{{Name: []byte("X-A"), Value: []byte("1")}}}
			o := live
			c.change(r, &o)
			out, err := wire.AppendResponse([]byte("before"), r, o)
			if c.want == "" {
				if err != wire.ErrSerialise || string(out) != "before" {
					t.Fatalf("%q, %s", out, text(err))
				}
				return
			}
			if err != nil || string(out) != "before"+c.want+"\r\n" {
				t.Fatalf("%q, %s; want %q", out, text(err), c.want)
			}
		})
	}
}
