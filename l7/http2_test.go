package l7

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7/wire"
	h2 "golang.org/x/net/http2"
)

func TestH2Get(t *testing.T) {
	r := newRig(t)
	seen := make(chan string, 1)
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			seen <- fmt.Sprintf("%s %s %s %s %q %s", q.Method, q.RequestURI, q.Proto, q.Host, q.Header["Cookie"], q.Header.Get("X-Forwarded-Proto"))
			p.answer("200 OK\r\nX-Upper: Y\r\nConnection: x-hop\r\nX-Hop: 1", "hello")
		}
	})
	c := r.dialH2()
	for id := uint32(1); id < 9; id += 2 {
		c.open(id, h2Head+"cookie: a=1\ncookie: b=2\n", true)
		if got, want := receive(t, "request", seen), `GET / HTTP/1.1 shop.example ["a=1; b=2"] http`; got != want {
			t.Fatalf("the backend got %s, want %s", got, want)
		}
		a := c.want(id, "200", "hello")
		if h := a.heads[0]; h["x-upper"] != "Y" || h["x-hop"] != "" || h["connection"] != "" || h["content-length"] != "5" || h["date"] == "" {
			t.Fatalf("head %v", h)
		}
	}
	c.Close()
	r.recorded(wire.MethodGet, 200, 4)
}

// TestH2BackendHearsNothing: what is malformed is reset, and no connection to the backend carries a byte of it.
func TestH2BackendHearsNothing(t *testing.T) {
	r := newRig(t)
	b := r.backend(func(p *peer) {
		if q := p.head(); q != nil {
			t.Errorf("the backend got %s %s", q.Method, q.URL)
		}
	})
	c := r.dialH2()
	id := uint32(1)
	for _, lines := range []string{"connection: close", "transfer-encoding: chunked", "te: gzip", "X: y", "x: a\x00b", "content-length: -5",
		"content-length: 1\ncontent-length: 1", "host: other.example", "x: y\n:path: /"} {
		c.open(id, h2Head+lines, true)
		c.wantReset(id, h2.ErrCodeProtocol)
		id += 2
	}
	for _, data := range []string{"123456", "1234"} { // more and less than content-length
		c.open(id, h2Head+"content-length: 5", false)
		c.must(c.f.WriteData(id, true, []byte(data)))
		c.wantReset(id, h2.ErrCodeProtocol)
		id += 2
	}
	c.open(id, h2Head+"content-length: 0", false)
	c.must(c.f.WriteData(id, true, []byte("x")))
	c.wantReset(id, h2.ErrCodeProtocol)
	if n := b.accepted.Load(); n != 0 {
		t.Errorf("%d connections to the backend", n)
	}
	r.ended = true
	c.Close()
	r.settle()
}

// TestH2Statuses: what the table answers for both versions is answered on the stream, and the connection goes on.
func TestH2Statuses(t *testing.T) {
	r := newRig(t)
	r.backend(mirror)
	c := r.dialH2()
	id := uint32(1)
	for lines, status := range map[string]string{
		":method: CONNECT\n:authority: shop.example:443":                                                   "405",
		":method: GET\n:scheme: http\n:path: /a b\n:authority: shop.example":                               "400",
		":method: GET\n:scheme: http\n:path: /../a\n:authority: shop.example":                              "400",
		":method: GET\n:scheme: http\n:path: /":                                                            "400",
		h2Head + "expect: 200-ok":                                                                          "417",
		h2Head + strings.Repeat("x: a\n", 101):                                                             "431",
		":method: GET\n:scheme: http\n:path: /" + strings.Repeat("a", 9000) + "\n:authority: shop.example": "414",
		h2Head + "content-length: 2000000":                                                                 "413",
	} {
		c.open(id, lines, !strings.Contains(lines, "2000000"))
		if a := c.answer(id); a.status() != status {
			t.Errorf("%.80q: %s, want %s", lines, a.status(), status)
		}
		id += 2
	}
	c.open(id, h2Head, true)
	c.want(id, "200", "GET / ")
}

// TestH2Foreign: net/http's client sees through the proxy what it would see without: bodies of all sizes, both
// ways, at once.
func TestH2Foreign(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.BodyMax = 0 })
	r.backend(echo)
	tr := r.transport()
	defer tr.CloseIdleConnections()
	ask := func(i int) {
		size := []int{0, 1, 100, 16383, 16384, 16385, 65535, 65536, 200_000, 1 << 20}[i%10]
		body := bytes.Repeat([]byte{byte('a' + i%26)}, size)
		req, _ := http.NewRequest("POST", fmt.Sprintf("http://shop.example/%d", i), bytes.NewReader(body))
		if i%2 == 1 {
			req.ContentLength = -1
			req.Body = io.NopCloser(bytes.NewReader(body))
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Errorf("%d: %v", i, err)
			return
		}
		got, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(got, body) || res.Header.Get("X-Seen") != fmt.Sprintf("POST /%d", i) {
			t.Errorf("%d: %d of %d bytes, %v, %q", i, len(got), size, err, res.Header.Get("X-Seen"))
		}
	}
	ask(0) // its connection is everybody's: each of forty would dial, and one that came too late outlive the test
	var wait sync.WaitGroup
	for i := range 40 {
		wait.Go(func() { ask(i) })
	}
	wait.Wait()
}

// TestH2SlowStream: a stream whose client does not read stops its own backend, and neither the connection nor the loop.
func TestH2SlowStream(t *testing.T) {
	r := newRig(t)
	sent := make(chan int, 1)
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			if q.URL.Path != "/large" {
				p.answer("200 OK", "small")
				continue
			}
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
			n := 0
			for block := make([]byte, 64<<10); ; {
				_ = p.SetWriteDeadline(time.Now().Add(stall))
				k, err := p.Write(block)
				if n += k; err != nil {
					sent <- n
					return
				}
			}
		}
	})
	c := r.dialH2()
	c.must(c.f.WriteWindowUpdate(0, 1<<24))
	c.open(1, strings.Replace(h2Head, ":path: /", ":path: /large", 1), true)
	c.until("the window is used up", func() bool { return c.answers[1] != nil && len(c.answers[1].body) == 65535 })
	for id := uint32(3); id < 43; id += 2 {
		c.open(id, h2Head, true)
		c.want(id, "200", "small")
	}
	if n := receive(t, "the backend is stopped", sent); n > 16<<20 {
		t.Errorf("the backend got rid of %d bytes while its client read 65,535", n)
	}
	c.must(c.f.WriteRSTStream(1, h2.ErrCodeCancel))
	c.open(43, h2Head, true)
	c.want(43, "200", "small")
}

// TestH2SlowUpload: a backend that does not read stops its own stream's client, after what the windows allow.
func TestH2SlowUpload(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.BodyMax, r.route.Policy.BufferRequest = 0, false })
	proceed := make(chan struct{})
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			if q.Method == "POST" {
				<-proceed
			}
			n, _ := io.Copy(io.Discard, q.Body)
			p.answer("200 OK", fmt.Sprint(n))
		}
	})
	c := r.dialH2()
	c.open(1, strings.Replace(h2Head, "GET", "POST", 1), false)
	const size = 8 << 20
	window, sent := 65535, 0
	grow := func() {
		for window > 0 && sent < size {
			n := min(window, 16<<10, size-sent)
			c.must(c.f.WriteData(1, sent+n == size, make([]byte, n)))
			sent, window = sent+n, window-n
		}
	}
	updates := func() bool {
		f, err := c.f.ReadFrame()
		c.must(err)
		if w, ok := f.(*h2.WindowUpdateFrame); ok && w.StreamID == 1 {
			window += int(w.Increment)
		}
		if h, ok := f.(*h2.HeadersFrame); ok && h.StreamID == 3 {
			return false
		}
		return true
	}
	grow()
	_ = c.SetReadDeadline(time.Now().Add(stall))
	for {
		f, err := c.f.ReadFrame()
		if err != nil {
			break
		}
		if w, ok := f.(*h2.WindowUpdateFrame); ok && w.StreamID == 1 {
			window += int(w.Increment)
			grow()
		}
	}
	if sent == size {
		t.Fatal("all was taken, though the backend reads nothing")
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	c.f = h2.NewFramer(c, c.r)
	c.open(3, h2Head, true)
	for updates() {
		grow()
	}
	close(proceed)
	for sent < size {
		updates()
		grow()
	}
	c.want(1, "200", fmt.Sprint(size))
}

// TestH2WindowGrows: the window of a stream whose backend takes all at once grows to eight times, and to that for all
// streams of a connection together. What one has grown by is there for the next when it has ended.
func TestH2WindowGrows(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.BodyMax, r.route.Policy.BufferRequest = 0, false })
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			n, _ := io.Copy(io.Discard, q.Body)
			p.answer("200 OK", fmt.Sprint(n))
		}
	})
	c := r.dialH2()
	sent := map[uint32]int{}
	window := func(id uint32) int { return 65535 + c.granted[id] - sent[id] }
	upload := func(id uint32, size int, end bool) {
		for left := size; left > 0; {
			c.until("a window", func() bool { return window(id) > 0 })
			n := min(window(id), 16<<10, left)
			left -= n
			c.must(c.f.WriteData(id, end && left == 0, make([]byte, n)))
			sent[id] += n
		}
	}
	settled := func(id uint32, atLeast, most int) { // what has been taken, up to a quarter, need not be told
		t.Helper()
		for window(id) < atLeast*3/4 {
			pongs := c.pongs
			c.must(c.f.WritePing(false, [8]byte{}))
			c.until("a pong", func() bool { return c.pongs > pongs })
		}
		if got := window(id); got > most {
			t.Errorf("the window of stream %d is %d, more than %d", id, got, most)
		}
	}
	post := strings.Replace(h2Head, "GET", "POST", 1)
	c.open(1, post, false)
	upload(1, 4<<20, false)
	settled(1, 8*65535, 8*65535)
	c.open(3, post, false)
	upload(3, 1<<20, true)
	c.want(3, "200", fmt.Sprint(1<<20))
	if got := window(3); got > 65535 {
		t.Errorf("the window of a second stream is %d", got)
	}
	upload(1, 1, true)
	c.want(1, "200", fmt.Sprint(4<<20+1))
	c.open(5, post, false)
	upload(5, 4<<20, false)
	settled(5, 8*65535, 8*65535)
	upload(5, 1, true)
	c.want(5, "200", fmt.Sprint(4<<20+1))
}

// TestH2WindowHeld: a window that is held open without being opened ends its stream, not the connection.
func TestH2WindowHeld(t *testing.T) {
	r := newRig(t, func(r *rig) { r.settings.SendTimeout = short })
	r.backend(answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	c := r.dialH2(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 0})
	c.open(1, h2Head, true)
	c.wantReset(1, h2.ErrCodeCancel)
	r.on(func() { r.route.Cluster = nil }) // an answer of our own has to wait alike
	c.open(3, h2Head, true)
	c.wantReset(3, h2.ErrCodeCancel)
	r.on(func() { r.route.Cluster = r.cluster })
	c.open(5, h2Head, true)
	c.must(c.f.WriteWindowUpdate(5, 2))
	c.until("two bytes", func() bool { return c.answers[5] != nil && len(c.answers[5].body) == 2 })
	c.must(c.f.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1}))
	c.until("one more", func() bool { return len(c.answers[5].body) == 3 })
	c.must(c.f.WriteWindowUpdate(5, 100))
	c.want(5, "200", "hello")
}

func TestH2Trailers(t *testing.T) {
	r := newRig(t)
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			p.send("HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: " +
				q.Trailer.Get("x-in") + "\r\nContent-Length: 5\r\n\r\n")
		}
	})
	c := r.dialH2()
	c.open(1, strings.Replace(h2Head, "GET", "POST", 1)+"te: trailers\ntrailer: x-in\n", false)
	c.must(c.f.WriteData(1, false, []byte("body")))
	c.open(1, "x-in: 7", true)
	a := c.want(1, "200", "abc")
	if len(a.heads) != 2 || a.heads[1]["x-sum"] != "7" || a.heads[1]["content-length"] != "" {
		t.Errorf("heads %v", a.heads)
	}
	c.open(3, strings.Replace(h2Head, "GET", "POST", 1), true) // without TE nobody asked for them
	if a := c.want(3, "200", "abc"); len(a.heads) != 1 {
		t.Errorf("heads %v", a.heads)
	}
	c.open(5, strings.Replace(h2Head, "GET", "POST", 1), false)
	c.open(5, ":path: /x", true)
	c.wantReset(5, h2.ErrCodeProtocol)
}

func TestH2Interim(t *testing.T) {
	r := newRig(t)
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			p.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
			p.answer("200 OK", q.body)
		}
	})
	c := r.dialH2()
	c.open(1, strings.Replace(h2Head, "GET", "POST", 1)+"expect: 100-continue\ncontent-length: 3", false)
	c.until("100", func() bool { return c.answers[1] != nil && len(c.answers[1].heads) == 1 })
	c.must(c.f.WriteData(1, true, []byte("abc")))
	a := c.want(1, "200", "abc")
	if len(a.heads) != 3 || a.heads[0][":status"] != "100" || a.heads[1][":status"] != "103" || a.heads[1]["link"] != "</a>" {
		t.Errorf("heads %v", a.heads)
	}
}

// TestH2WebSocket: an extended CONNECT becomes a handshake of HTTP/1.1 with a key of ours, and its tunnel carries both ways.
func TestH2WebSocket(t *testing.T) {
	r := newRig(t)
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			if q.Header.Get("Upgrade") == "" {
				p.answer("200 OK", "plain")
				continue
			}
			if q.URL.Path == "/bad" {
				q.Header.Set("Sec-WebSocket-Key", "another")
			}
			p.send(proving(q) + "first ")
			p.echo()
			_ = p.CloseWrite()
			return
		}
	})
	c := r.dialH2()
	c.open(1, h2Handshake, false)
	c.must(c.f.WriteData(1, false, []byte("second ")))
	c.until("echo", func() bool { return c.answers[1] != nil && string(c.answers[1].body) == "first second " })
	if h := c.answers[1].heads[0]; h[":status"] != "200" || h["sec-websocket-accept"] != "" || h["upgrade"] != "" {
		t.Errorf("head %v", h)
	}
	if n := r.srv.Stats.Tunnels(); n != 1 {
		t.Errorf("%d tunnels", n)
	}
	c.open(3, h2Head, true) // the connection serves on beside it
	c.want(3, "200", "plain")
	large := bytes.Repeat([]byte("0123456789abcdef"), 4000)
	c.must(c.f.WriteWindowUpdate(1, 1<<20))
	c.must(c.f.WriteWindowUpdate(0, 1<<20))
	for i := 0; i < len(large); i += 16000 {
		c.must(c.f.WriteData(1, i+16000 == len(large), large[i:i+16000]))
	}
	c.want(1, "200", "first second "+string(large))
	c.open(5, strings.Replace(h2Handshake, "/chat", "/bad", 1), false)
	if a := c.answer(5); a.status() != "502" {
		t.Errorf("a handshake that proves nothing: %s", a.status())
	}
	c.open(7, h2Handshake, false)
	c.until("tunnel", func() bool { return c.answers[7] != nil && string(c.answers[7].body) == "first " })
	c.must(c.f.WriteRSTStream(7, h2.ErrCodeCancel))
	c.open(9, strings.Replace(h2Handshake, ": 13", ": 8", 1), false)
	if a := c.answer(9); a.status() != "426" {
		t.Errorf("version 8: %s", a.status())
	}
	c.Close()
	r.eventually("no tunnel is left", func() bool { return r.srv.Stats.Tunnels() == 0 })
}

// TestH2NoTunnelOfHTTP: an extended CONNECT for HTTP itself, which no filter could follow, reaches no backend.
func TestH2NoTunnelOfHTTP(t *testing.T) {
	r := newRig(t)
	b := r.backend(func(p *peer) {
		if q := p.head(); q != nil {
			t.Errorf("the backend got %s %s, Upgrade: %s", q.Method, q.URL, q.Header.Get("Upgrade"))
			p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + q.Header.Get("Upgrade") + "\r\n\r\n")
		}
	})
	c := r.dialH2()
	for i, protocol := range []string{"h2c", "H2c/1", "h2", "HTTP/2.0"} {
		id := uint32(2*i + 1)
		c.open(id, strings.Replace(h2Handshake, ": websocket", ": "+protocol, 1), false)
		c.until("head", func() bool { return c.answers[id].status() != "" })
		if s := c.answers[id].status(); s != "501" {
			t.Errorf("%s: %s", protocol, s)
		}
	}
	if n := b.accepted.Load(); n != 0 {
		t.Errorf("%d connections to the backend", n)
	}
	r.ended = true
	c.Close()
	r.settle()
}

// TestH2NoTunnelByAPage: what answers an extended CONNECT by a page of 200 has opened no tunnel, and the client is not told so; other
// statuses are the backend's.
func TestH2NoTunnelByAPage(t *testing.T) {
	for said, want := range map[string]string{"200 OK": "502", "204 No Content": "502", "403 Forbidden": "403"} {
		r := newRig(t)
		r.backend(func(p *peer) {
			if p.head() != nil {
				p.answer(said, map[bool]string{true: "", false: "page"}[said[:3] == "204"])
			}
		})
		c := r.dialH2()
		c.open(1, h2Handshake, false)
		c.until("head", func() bool { return c.answers[1].status() != "" })
		if s := c.answers[1].status(); s != want || strings.Contains(string(c.answers[1].body), "page") && want == "502" {
			t.Errorf("%s: %s %q, want %s", said, s, c.answers[1].body, want)
		}
		r.ended = true
		c.Close()
		r.settle()
	}
}

// TestH2TunnelIdle: a tunnel that is silent is reset after its idle limit, one that is half-closed after that one's; what moves
// puts the end off, and the connection serves on.
func TestH2TunnelIdle(t *testing.T) {
	r := newRig(t, func(r *rig) { r.settings.TunnelIdle, r.settings.HalfCloseTimeout = far, far/2 })
	done := make(chan struct{})
	defer close(done)
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			if q.Header.Get("Upgrade") == "" {
				p.answer("200 OK", "plain")
				continue
			}
			p.send(proving(q))
			p.echo()
			<-done // the client's end is not answered
			return
		}
	})
	c := r.dialH2()
	pass := func(d time.Duration) {
		r.on(func() { r.skip(d) })
		c.must(c.f.WritePing(false, [8]byte{}))
		pongs := c.pongs
		c.until("the loop has looked", func() bool { return c.pongs > pongs })
	}
	for i, limit := range []time.Duration{far, far / 2} {
		id := uint32(1 + 4*i)
		c.open(id, h2Handshake, false)
		for _, word := range []string{"one", "two", "three"} {
			c.must(c.f.WriteData(id, false, []byte(word)))
			c.until("echo", func() bool { return c.answers[id] != nil && strings.HasSuffix(string(c.answers[id].body), word) })
			pass(far * 3 / 4)
		}
		if i == 1 {
			c.must(c.f.WriteData(id, true, nil))
			pass(limit * 3 / 4)
		}
		if len(c.resets) > i {
			t.Fatalf("a tunnel was reset before its limit: %v", c.resets)
		}
		pass(limit)
		c.wantReset(id, h2.ErrCodeConnect)
		c.open(id+2, h2Head, true)
		c.want(id+2, "200", "plain")
	}
	c.Close()
	r.eventually("no tunnel is left", func() bool { return r.srv.Stats.Tunnels() == 0 })
}

const h2Handshake = ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /chat\n:authority: shop.example\nsec-websocket-version: 13\n"

// proving is a 101 that answers the handshake's key.
func proving(q *http.Request) string {
	sum := sha1.Sum([]byte(q.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
}

// TestH2Drain: two GOAWAYs; what came before the second is answered.
func TestH2Drain(t *testing.T) {
	r := newRig(t)
	proceed := make(chan struct{})
	r.backend(func(p *peer) {
		for p.request() != nil {
			<-proceed
			p.answer("200 OK", "late")
		}
	})
	r.ended = true
	c := r.dialH2()
	c.open(1, h2Head, true)
	r.eventually("request under way", func() bool { return r.srv.Stats.Active() == 1 })
	r.srv.Drain(r.loops)
	f, err := c.f.ReadFrame()
	c.must(err)
	for f.Header().Type != h2.FrameGoAway {
		f, err = c.f.ReadFrame()
		c.must(err)
	}
	if g := f.(*h2.GoAwayFrame); g.LastStreamID != 1<<31-1 || g.ErrCode != h2.ErrCodeNo {
		t.Fatalf("first GOAWAY: %+v", g)
	}
	c.open(3, h2Head, true) // sent before the client saw the first
	c.until("the second GOAWAY", func() bool { return len(c.goAway) == 1 })
	if c.goAway[0].LastStreamID != 3 || c.goAway[0].ErrCode != h2.ErrCodeNo {
		t.Fatalf("second GOAWAY: %+v", c.goAway[0])
	}
	c.open(5, h2Head, true) // nobody looks at it
	close(proceed)
	c.want(1, "200", "late")
	c.want(3, "200", "late")
	c.wantEnd(h2.ErrCodeNo)
	if c.answers[5] != nil {
		t.Errorf("stream 5 was answered: %v", c.answers[5])
	}
	r.settle()
}

// TestH2Requests: after keep-alive-requests the connection is ended in order.
func TestH2Requests(t *testing.T) {
	r := newRig(t, func(r *rig) { r.settings.KeepAliveRequests = 3 })
	r.backend(mirror)
	c := r.dialH2()
	for id := uint32(1); id <= 5; id += 2 {
		c.open(id, h2Head, true)
		c.want(id, "200", "GET / ")
	}
	c.wantEnd(h2.ErrCodeNo)
}

// TestH2Timeouts: silence before the preface, within a frame, within a body, between requests.
func TestH2Timeouts(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.settings.HeaderTimeout, r.settings.BodyTimeout, r.settings.KeepAliveTimeout = short, short, 4*short
	})
	r.backend(mirror)
	c := r.dialH2()
	c.open(1, h2Head+"content-length: 5", false)
	if a := c.answer(1); a.status() != "408" {
		t.Errorf("a body that does not come: %s", a.status())
	}
	c.must(c.f.WriteRSTStream(1, h2.ErrCodeNo))
	c.open(3, h2Head, true)
	c.want(3, "200", "GET / ")
	c.wantEnd(h2.ErrCodeNo) // idle
	c = r.dialH2()
	c.send("\x00\x00\x08\x06")
	c.wantEnd(h2.ErrCodeProtocol)
	c = r.dialH2()
	c.must(c.f.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: c.compressed(h2Head)}))
	c.wantEnd(h2.ErrCodeProtocol)
	r.on(func() { r.settings = DefaultSettings(); r.settings.FirstByteTimeout = short })
	raw := r.dial()
	raw.send(h2.ClientPreface)
	if b, _ := io.ReadAll(raw.r); !bytes.Contains(b, []byte{0, 0, 8, 7, 0, 0, 0, 0, 0}) {
		t.Errorf("no GOAWAY in %q", b)
	}
}

// TestH2Priority: when the connection's window opens, the most urgent stream writes first.
func TestH2Priority(t *testing.T) {
	r := newRig(t)
	body := strings.Repeat("x", 40_000)
	r.backend(answering(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)))
	c := r.dialH2()
	c.open(1, h2Head, true)
	c.want(1, "200", body)
	c.open(3, h2Head+"priority: u=6", true)
	c.open(5, h2Head+"priority: u=1", true)
	c.open(7, h2Head+"priority: u=4", true)
	c.until("all heads, and no more window", func() bool {
		n := 0
		for id := uint32(3); id <= 7; id += 2 {
			if a := c.answers[id]; a != nil && len(a.heads) > 0 {
				n += len(a.body)
			} else {
				return false
			}
		}
		return n == 65535-len(body)
	})
	was := len(c.answers[5].body) + len(c.answers[7].body)
	c.must(c.f.WriteWindowUpdate(0, uint32(2*len(body)-was)))
	c.want(5, "200", body)
	c.want(7, "200", body)
	c.must(c.f.WriteWindowUpdate(0, 1<<20))
	c.want(3, "200", body)
}

// TestH2Floods: every flood is ended by GOAWAY with ENHANCE_YOUR_CALM within its limit, and another client keeps its answers.
func TestH2Floods(t *testing.T) {
	huge := strings.Repeat("a", 4000)
	for name, c := range map[string]struct {
		flood func(c *h2client, i int) error
		most  int // rounds after which it must be over
	}{
		"CVE-2023-44487 rapid reset": {func(c *h2client, i int) error {
			id := uint32(2*i + 1)
			c.open(id, h2Head, true)
			return c.f.WriteRSTStream(id, h2.ErrCodeCancel)
		}, h2ResetsMax + 1},
		"CVE-2025-8671 MadeYouReset": {func(c *h2client, i int) error {
			id := uint32(2*i + 1)
			c.open(id, h2Head, true)
			return c.f.WriteWindowUpdate(id, 0)
		}, h2ResetsMax + 1},
		"CVE-2025-8671 by malformed requests": {func(c *h2client, i int) error {
			c.open(uint32(2*i+1), h2Head+"connection: close", true)
			return nil
		}, h2ResetsMax + 1},
		"CVE-2024-27316 CONTINUATION": {func(c *h2client, i int) error {
			if i == 0 {
				return c.f.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: c.compressed(h2Head), EndStream: true})
			}
			return c.f.WriteContinuation(1, false, nil)
		}, wire.H2ContinuationsMax + 2},
		"CVE-2019-9512 PING":     {func(c *h2client, i int) error { return c.f.WritePing(false, [8]byte{}) }, wire.H2NoiseMax + 1},
		"CVE-2019-9515 SETTINGS": {func(c *h2client, i int) error { return c.f.WriteSettings() }, wire.H2NoiseMax + 1},
		"CVE-2019-9513 PRIORITY": {func(c *h2client, i int) error {
			return c.f.WritePriority(uint32(2*i+1), h2.PriorityParam{})
		}, wire.H2NoiseMax + 1},
		"CVE-2019-9518 empty DATA": {func(c *h2client, i int) error {
			if i == 0 {
				c.open(1, strings.Replace(h2Head, "GET", "POST", 1), false)
			}
			return c.f.WriteData(1, false, nil)
		}, wire.H2NoiseMax + 1},
		"CVE-2019-9511 small WINDOW_UPDATE": {func(c *h2client, i int) error { return c.f.WriteWindowUpdate(0, 1) }, wire.H2NoiseMax + 1},
		"unknown frames":                    {func(c *h2client, i int) error { return c.f.WriteRawFrame(0xee, 0, 0, nil) }, wire.H2NoiseMax + 1},
		"CVE-2016-6581 HPACK bomb": {func(c *h2client, i int) error {
			lines := h2Head + "x: " + huge + "\n"
			if i > 0 {
				lines += strings.Repeat("x: "+huge+"\n", 100)
			}
			c.open(uint32(2*i+1), lines, true)
			return nil
		}, 2},
		"streams beyond the limit": {func(c *h2client, i int) error {
			c.open(uint32(2*i+1), strings.Replace(h2Head, "GET", "POST", 1), false)
			return nil
		}, 100 + h2ResetsMax + 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.backend(mirror)
			other, bad := r.dialH2(), r.dialH2()
			bad.must(bad.f.WritePing(false, [8]byte{}))
			bad.until("our SETTINGS are acknowledged", func() bool { return bad.pongs == 1 })
			var written sync.WaitGroup
			written.Add(1)
			go func() {
				defer written.Done()
				for i := range c.most + 1 {
					if c.flood(bad, i) != nil {
						return
					}
				}
			}()
			for id := uint32(1); id < 21; id += 2 {
				other.open(id, h2Head, true)
				other.want(id, "200", "GET / ")
			}
			bad.dec.SetEmitEnabled(false)
			bad.wantEnd(h2.ErrCodeEnhanceYourCalm)
			written.Wait()
			if n := r.srv.Stats.Loops()[0].Abusive.Load(); n != 1 {
				t.Errorf("%d abusive connections are counted", n)
			}
			other.open(21, h2Head, true)
			other.want(21, "200", "GET / ")
		})
	}
}

// TestH2Gone: a client that leaves cancels what its streams have asked of backends.
func TestH2Gone(t *testing.T) {
	r := newRig(t)
	cancelled := make(chan bool, 3)
	r.backend(func(p *peer) {
		if p.request() != nil {
			cancelled <- p.gone(patience)
		}
	})
	r.probeless = true
	c := r.dialH2()
	c.open(1, h2Head, true)
	c.open(3, h2Head, true)
	c.open(5, h2Head, true)
	r.eventually("three requests", func() bool { return r.backends[0].accepted.Load() == 3 })
	c.must(c.f.WriteRSTStream(3, h2.ErrCodeCancel))
	if !receive(t, "cancelled", cancelled) {
		t.Error("a reset stream's backend goes on")
	}
	c.reset()
	for range 2 {
		if !receive(t, "cancelled", cancelled) {
			t.Error("the backend of a client that left goes on")
		}
	}
	r.recorded(wire.MethodGet, 499, 3)
}

// TestH2Early: a backend that answers early is relayed; the client is told that nobody reads the rest.
func TestH2Early(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.BodyMax, r.route.Policy.BufferRequest = 0, false })
	r.backend(func(p *peer) {
		if q := p.head(); q != nil && q.Method == "POST" {
			p.answer("403 Forbidden", "no")
			_, _ = io.Copy(io.Discard, p.r)
		}
	})
	r.probeless = true
	c := r.dialH2()
	c.open(1, strings.Replace(h2Head, "GET", "POST", 1)+"content-length: 1000000", false)
	c.must(c.f.WriteData(1, false, make([]byte, 1000)))
	c.want(1, "403", "no")
	c.wantReset(1, h2.ErrCodeNo)
}

// FuzzH2Script: frames of every kind and order, cut anywhere, on a connection of the whole engine, with a backend behind
// it. Nothing panics, nothing is left over, and the next client is served.
func FuzzH2Script(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, int64(1))
	f.Add([]byte{0, 0, 0, 16, 2, 17, 18, 3, 19, 20, 9, 9}, int64(7))
	f.Fuzz(func(t *testing.T, script []byte, seed int64) {
		if len(script) > 200 {
			return
		}
		r := newRig(t)
		r.backend(echo)
		wantScript(t, r, script, rand.New(rand.NewPCG(uint64(seed), 0)))
	})
}

// wantScript plays a script.
func wantScript(t *testing.T, r *rig, script []byte, rnd *rand.Rand) {
	c := r.dialH2()
	var out bytes.Buffer
	c.f = h2.NewFramer(&out, c.r)
	c.f.AllowIllegalWrites, c.f.AllowIllegalReads = true, true
	last := uint32(1)
	for _, op := range script {
		id := last - uint32(2*rnd.IntN(3))
		switch op % 16 {
		case 0, 1:
			last += 2
			_ = c.f.WriteHeaders(h2.HeadersFrameParam{StreamID: last, BlockFragment: c.compressed(h2Head), EndStream: op&16 != 0, EndHeaders: op&32 == 0, PadLength: op >> 6})
		case 2, 3:
			_ = c.f.WriteDataPadded(id, op&16 != 0, make([]byte, rnd.IntN(20000)), make([]byte, op>>5))
		case 4:
			_ = c.f.WriteRSTStream(id, h2.ErrCode(op))
		case 5:
			_ = c.f.WriteWindowUpdate(id, rnd.Uint32()>>rnd.IntN(32))
		case 6:
			_ = c.f.WriteWindowUpdate(0, rnd.Uint32()>>rnd.IntN(32))
		case 7:
			_ = c.f.WriteSettings(h2.Setting{ID: h2.SettingID(rnd.IntN(10)), Val: rnd.Uint32() >> rnd.IntN(32)})
		case 8:
			_ = c.f.WritePing(op&16 != 0, [8]byte{op})
		case 9:
			_ = c.f.WriteContinuation(id, op&16 != 0, c.compressed("x: y"))
		case 10:
			_ = c.f.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: c.compressed("x-trailer: y"), EndStream: op&16 == 0, EndHeaders: true})
		case 11:
			_ = c.f.WritePriority(id, h2.PriorityParam{StreamDep: uint32(op)})
		case 12:
			_ = c.f.WriteRawFrame(h2.FrameType(rnd.IntN(20)), h2.Flags(rnd.Uint32()), id, make([]byte, rnd.IntN(30)))
		case 13:
			_ = c.f.WriteGoAway(id, h2.ErrCodeNo, nil)
		case 14:
			last += 2
			_ = c.f.WriteHeaders(h2.HeadersFrameParam{StreamID: last, BlockFragment: c.compressed(":method: CONNECT\n:protocol: websocket\n:scheme: http\n:path: /\n:authority: shop.example\nsec-websocket-version: 13"), EndHeaders: true})
		case 15:
			_ = c.f.WriteRawFrame(h2.FrameHeaders, h2.FlagHeadersEndHeaders, id, []byte{byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())})
		}
	}
	go func() { _, _ = io.Copy(io.Discard, c.r) }()
	for b := out.Bytes(); len(b) > 0; {
		n := min(len(b), 1+rnd.IntN(len(b)))
		if _, err := c.Write(b[:n]); err != nil {
			break
		}
		b = b[n:]
	}
	if rnd.IntN(2) == 0 {
		c.reset()
	} else {
		c.Close()
	}
	good := r.dialH2()
	good.open(1, h2Head, true)
	if a := good.answer(1); a.status() != "200" {
		t.Fatalf("the next client got %s", a.status())
	}
	good.Close()
	r.eventually("nothing is left over", func() bool { return r.srv.Idle() && r.cluster.Stats().Active == 0 })
}
