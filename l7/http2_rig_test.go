package l7

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2client is a raw HTTP/2 client: a foreign framer and header compression over a connection of a rig's.
type h2client struct {
	*client
	f       *h2.Framer
	enc     *hpack.Encoder
	dec     *hpack.Decoder
	block   bytes.Buffer
	answers map[uint32]*h2answer
	resets  map[uint32]h2.ErrCode
	granted map[uint32]int // by WINDOW_UPDATE
	goAway  []*h2.GoAwayFrame
	pongs   int
	initial uint32 // SETTINGS_MAX_CONCURRENT_STREAMS that we were told
}

// h2answer is what came on a stream.
type h2answer struct {
	heads []map[string]string // interim ones, the head, trailers
	body  []byte
	ended bool
}

func (a *h2answer) status() string {
	if a == nil || len(a.heads) == 0 {
		return ""
	}
	for _, h := range a.heads {
		if s := h[":status"]; s >= "200" {
			return s
		}
	}
	return ""
}

// dialH2 connects a client and exchanges SETTINGS; settings are ours.
func (r *rig) dialH2(settings ...h2.Setting) *h2client {
	r.Helper()
	c := &h2client{client: r.dial(), answers: map[uint32]*h2answer{}, resets: map[uint32]h2.ErrCode{}, granted: map[uint32]int{}}
	c.f = h2.NewFramer(c, c.r)
	c.f.AllowIllegalWrites, c.f.AllowIllegalReads = true, true
	c.enc, c.dec = hpack.NewEncoder(&c.block), hpack.NewDecoder(4096, nil)
	c.send(h2.ClientPreface)
	r.must(c.f.WriteSettings(settings...))
	c.until("SETTINGS acknowledged", func() bool { return c.initial != 0 })
	return c
}

// compressed makes a header block of "name: value" lines.
func (c *h2client) compressed(lines string) []byte {
	c.block.Reset()
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		at := strings.Index(line[1:], ":") + 1
		c.must(c.enc.WriteField(hpack.HeaderField{Name: line[:at], Value: strings.TrimPrefix(line[at+1:], " ")}))
	}
	return c.block.Bytes()
}

func (c *h2client) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

const h2Head = ":method: GET\n:scheme: http\n:path: /\n:authority: shop.example\n"

// open sends a request's head.
func (c *h2client) open(id uint32, lines string, end bool) {
	c.t.Helper()
	c.must(c.f.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: c.compressed(lines), EndStream: end, EndHeaders: true}))
}

// next reads one frame; false: the connection has ended.
func (c *h2client) next() bool {
	c.t.Helper()
	f, err := c.f.ReadFrame()
	if err != nil {
		if e, ok := err.(net.Error); ok && e.Timeout() {
			c.t.Fatalf("no frame came: %v", err)
		}
		return false
	}
	id := f.Header().StreamID
	a := c.answers[id]
	if a == nil && id != 0 {
		a = new(h2answer)
		c.answers[id] = a
	}
	switch f := f.(type) {
	case *h2.SettingsFrame:
		if v, ok := f.Value(h2.SettingMaxConcurrentStreams); ok {
			c.initial = v
		}
		if !f.IsAck() {
			c.must(c.f.WriteSettingsAck())
		}
	case *h2.HeadersFrame:
		fields, err := c.dec.DecodeFull(f.HeaderBlockFragment())
		c.must(err)
		head := map[string]string{}
		for _, f := range fields {
			head[f.Name] = f.Value
		}
		a.heads, a.ended = append(a.heads, head), f.StreamEnded()
	case *h2.DataFrame:
		a.body, a.ended = append(a.body, f.Data()...), f.StreamEnded()
	case *h2.WindowUpdateFrame:
		c.granted[id] += int(f.Increment)
	case *h2.RSTStreamFrame:
		c.resets[id] = f.ErrCode
	case *h2.GoAwayFrame:
		c.goAway = append(c.goAway, &h2.GoAwayFrame{LastStreamID: f.LastStreamID, ErrCode: f.ErrCode})
	case *h2.PingFrame:
		if f.IsAck() {
			c.pongs++
		} else {
			c.must(c.f.WritePing(true, f.Data))
		}
	}
	return true
}

// until reads frames until f holds.
func (c *h2client) until(what string, f func() bool) {
	c.t.Helper()
	for !f() {
		if !c.next() {
			c.t.Fatalf("the connection ended before: %s", what)
		}
	}
}

// answer reads a stream's whole answer.
func (c *h2client) answer(id uint32) *h2answer {
	c.t.Helper()
	c.until(fmt.Sprintf("answer on %d", id), func() bool {
		if code, ok := c.resets[id]; ok && (c.answers[id] == nil || !c.answers[id].ended) {
			c.t.Fatalf("stream %d was reset: %v", id, code)
		}
		return c.answers[id] != nil && c.answers[id].ended
	})
	return c.answers[id]
}

// want compares a stream's answer.
func (c *h2client) want(id uint32, status, body string) *h2answer {
	c.t.Helper()
	a := c.answer(id)
	if a.status() != status || string(a.body) != body {
		c.t.Fatalf("stream %d: %s %.200q, want %s %.200q", id, a.status(), a.body, status, body)
	}
	return a
}

// reset waits for a stream's RST_STREAM.
func (c *h2client) wantReset(id uint32, code h2.ErrCode) {
	c.t.Helper()
	c.until("RST_STREAM", func() bool { _, ok := c.resets[id]; return ok })
	if c.resets[id] != code {
		c.t.Fatalf("stream %d was reset by %v, want %v", id, c.resets[id], code)
	}
}

// wantEnd reads to the connection's end and compares the last GOAWAY.
func (c *h2client) wantEnd(code h2.ErrCode) {
	c.t.Helper()
	for c.next() {
	}
	if len(c.goAway) == 0 || c.goAway[len(c.goAway)-1].ErrCode != code {
		c.t.Fatalf("GOAWAYs: %+v, want %v", c.goAway, code)
	}
}

// transport is a foreign client, net/http's, over connections of the rig's.
func (r *rig) transport() *http.Transport {
	var mu sync.Mutex
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		c := r.dial()
		_ = c.SetDeadline(time.Time{})
		return c.TCPConn, nil
	}}
}

// echo answers with the request's body, as it comes.
func echo(p *peer) {
	for {
		q := p.head()
		if q == nil {
			return
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Seen: %s %s\r\n\r\n", len(body), q.Method, q.URL.RequestURI()))
		_, _ = p.Write(body)
	}
}
