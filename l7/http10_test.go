package l7

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// ten has the rig's backends asked in HTTP/1.0, with room for so many bytes of a body.
func ten(buffer int, buffered bool) func(*rig) {
	return func(r *rig) {
		r.route.Policy.HTTP10, r.route.Policy.BufferRequest, r.settings.RequestBuffer = true, buffered, buffer
	}
}

// tellTen answers with what only HTTP/1.0 has or lacks, and leaves the connection open.
func tellTen(p *peer) {
	for q := p.request(); q != nil; q = p.request() {
		p.answer("200 OK", fmt.Sprintf("%s %s %v %q %q %q %q %d %s", q.Proto, q.Method, q.TransferEncoding, q.Header["Connection"], q.Header["Te"], q.Header["Upgrade"],
			q.Header["Content-Length"], q.ContentLength, q.body))
	}
}

// TestHTTP10Bodies: a backend of HTTP/1.0 gets bodies with their length, also where the client tells none; one that does not
// fit in the buffer is 411, and no backend hears of it.
func TestHTTP10Bodies(t *testing.T) {
	const buffer = 4 << 10
	for _, c := range []struct {
		name     string
		framing  wire.Framing
		size     int
		buffered bool
		status   int
	}{
		{"none", wire.FramingNone, 0, true, 200},
		{"length", wire.FramingLength, 5, true, 200},
		{"length over the buffer", wire.FramingLength, 3 * buffer, true, 200},
		{"length, unbuffered", wire.FramingLength, 3 * buffer, false, 200},
		{"chunked and empty", wire.FramingChunked, 0, true, 200},
		{"chunked", wire.FramingChunked, 5, true, 200},
		{"chunked, unbuffered", wire.FramingChunked, 5, false, 200},
		{"chunked, as long as the buffer", wire.FramingChunked, buffer, true, 200},
		{"chunked over the buffer", wire.FramingChunked, buffer + 1, true, 411},
		{"chunked over the buffer, unbuffered", wire.FramingChunked, buffer + 1, false, 411},
		{"chunked far over the buffer", wire.FramingChunked, 100 * buffer, true, 411},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ten(buffer, c.buffered))
			b := r.backend(tellTen)
			cl := r.dial()
			body := strings.Repeat("b", c.size)
			cl.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n" + framingField(c.framing, int64(c.size)) + "\r\n")
			if c.framing != wire.FramingNone {
				go func() { _ = write(cl, c.framing, strings.NewReader(body)) }()
			}
			length, told := c.size, fmt.Sprintf("[%q]", fmt.Sprint(c.size))
			if c.framing == wire.FramingNone {
				told = "[]"
			}
			if c.status == 200 {
				cl.expect("POST", 200, fmt.Sprintf("HTTP/1.0 POST [] [%q] [] [] %s %d %s", "close", told, length, body))
				return
			}
			cl.status("POST", c.status)
			if n := b.accepted.Load(); n != 0 {
				t.Errorf("%d connections to the backend", n)
			}
		})
	}
}

// TestHTTP10Connections: each request has a connection of its own, whether the answer keeps it open or its end is the answer's;
// and a request that has to be repeated is the same again.
func TestHTTP10Connections(t *testing.T) {
	r := newRig(t, ten(1<<10, true))
	var mu sync.Mutex
	heard, refused := []string{}, false
	b := r.backend(func(p *peer) {
		q := p.request()
		if q == nil {
			return
		}
		mu.Lock()
		heard = append(heard, q.Proto+" "+q.RequestURI+" "+q.body)
		cut := q.Method == "PUT" && !refused
		refused = refused || cut
		mu.Unlock()
		switch {
		case cut:
			p.reset()
		case q.RequestURI == "/close":
			p.send("HTTP/1.0 200 OK\r\nServer: old\r\n\r\nuntil the end")
			p.Close()
		default:
			p.answer("200 OK", q.RequestURI+q.body)
			p.gone(far)
		}
	})
	cl := r.dial()
	for range 2 {
		cl.get("/open")
		cl.expect("GET", 200, "/open")
		cl.get("/close")
		cl.expect("GET", 200, "until the end")
	}
	if n := b.accepted.Load(); n != 4 {
		t.Errorf("%d connections for 4 requests", n)
	}
	cl.send("PUT /again HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	cl.expect("PUT", 200, "/againhello")
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(heard[4:], ", "); got != "HTTP/1.0 /again hello, HTTP/1.0 /again hello" {
		t.Error(got)
	}
}

// TestHTTP10Upgrade: nothing is upgraded. Who asks by HTTP/1.1 gets the backend's answer to a plain GET, who asks by an extended
// CONNECT 501.
func TestHTTP10Upgrade(t *testing.T) {
	r := newRig(t, ten(1<<10, true))
	b := r.backend(tellTen)
	cl := r.dial()
	cl.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	cl.expect("GET", 200, fmt.Sprintf("HTTP/1.0 GET [] [%q] [] [] [] 0 ", "close"))
	h := r.dialH2()
	h.open(1, ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /chat\n:authority: h.test\nsec-websocket-version: 13", false)
	h.want(1, "501", string(page(501)))
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("%d connections to the backend", n)
	}
	h.open(3, ":method: POST\n:scheme: http\n:path: /\n:authority: h.test", false)
	h.must(h.f.WriteData(3, true, []byte("hello")))
	h.want(3, "200", fmt.Sprintf("HTTP/1.0 POST [] [%q] [] [] [%q] 5 hello", "close", "5"))
}
