package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// streamBackend is a backend of HTTP/2 without TLS: each extended CONNECT (RFC 8441) becomes a connection to a backend of HTTP/1.1.
// net/http's own server takes none unless its process was told so at its start.
type streamBackend struct {
	t      *testing.T
	serve  int // port of a backend of HTTP/1.1 that serves the sockets
	offers bool

	mu    sync.Mutex
	asked []map[string]string
	open  map[openStream]bool
}

type openStream struct {
	s  *streamConn
	id uint32
}

// left takes note of a client that has ended or reset its tunnel.
func (b *streamBackend) left(s *streamConn, id uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.open, openStream{s, id})
}

// reset resets every tunnel, and tells how many there were.
func (b *streamBackend) reset() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for o := range b.open {
		o.s.do(func() { _ = o.s.f.WriteRSTStream(o.id, http2.ErrCodeInternal) })
	}
	n = len(b.open)
	clear(b.open)
	return n
}

func (b *streamBackend) start() (port int) {
	b.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go b.lead(c)
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// heads is what was asked for so far.
func (b *streamBackend) heads() []map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]map[string]string(nil), b.asked...)
}

// A streamConn is one connection to a streamBackend.
type streamConn struct {
	mu      sync.Mutex // of all that is written, and of the windows
	more    *sync.Cond
	f       *http2.Framer
	windows map[uint32]int // 0: the connection's
	initial int
	ended   bool
}

func (b *streamBackend) lead(c net.Conn) {
	defer c.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil {
		return
	}
	s := &streamConn{f: http2.NewFramer(c, c), windows: map[uint32]int{0: 65535}, initial: 65535}
	s.more = sync.NewCond(&s.mu)
	defer func() {
		s.mu.Lock()
		s.ended = true
		s.more.Broadcast()
		s.mu.Unlock()
	}()
	s.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1 << 20}}
	if b.offers {
		settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	}
	_ = s.f.WriteSettings(settings...)
	sockets := map[uint32]net.Conn{}
	defer func() {
		for _, k := range sockets {
			k.Close()
		}
	}()
	for {
		f, err := s.f.ReadFrame()
		if err != nil {
			return
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				s.initial = int(v)
			}
			if !f.IsAck() {
				s.do(func() { _ = s.f.WriteSettingsAck() })
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				s.do(func() { _ = s.f.WritePing(true, f.Data) })
			}
		case *http2.WindowUpdateFrame:
			s.do(func() { s.windows[id] += int(f.Increment) })
		case *http2.MetaHeadersFrame:
			s.do(func() { s.windows[id] += s.initial })
			if k := b.connect(s, f); k != nil {
				sockets[id] = k
			}
		case *http2.DataFrame:
			if k := sockets[id]; k != nil {
				_, _ = k.Write(f.Data())
				if f.StreamEnded() {
					b.left(s, id)
					_ = k.(*net.TCPConn).CloseWrite()
				}
			}
			if n := uint32(f.Length); n > 0 {
				s.do(func() {
					_ = s.f.WriteWindowUpdate(0, n)
					_ = s.f.WriteWindowUpdate(id, n)
				})
			}
		case *http2.RSTStreamFrame:
			b.left(s, id)
			if k := sockets[id]; k != nil {
				k.Close()
			}
		}
	}
}

func (s *streamConn) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.more.Broadcast()
}

// head answers a stream.
func (s *streamConn) head(id uint32, end bool, fields ...string) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	s.do(func() {
		_ = s.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: end, EndHeaders: true})
	})
}

// connect shakes hands with the backend of HTTP/1.1, and relays what it says.
func (b *streamBackend) connect(s *streamConn, f *http2.MetaHeadersFrame) net.Conn {
	got := map[string]string{}
	for _, h := range f.Fields {
		got[h.Name] = h.Value
	}
	b.mu.Lock()
	b.asked = append(b.asked, got)
	if b.open == nil {
		b.open = map[openStream]bool{}
	}
	b.open[openStream{s, f.StreamID}] = true
	b.mu.Unlock()
	if got[":method"] != "CONNECT" || got[":protocol"] != "websocket" || got[":path"] == "/refused" {
		s.head(f.StreamID, true, ":status", "403", "content-length", "0")
		return nil
	}
	k, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", b.serve))
	if err != nil {
		return nil
	}
	fmt.Fprintf(k, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", got[":path"])
	for _, name := range []string{"sec-websocket-protocol", "sec-websocket-extensions"} {
		if v, ok := got[name]; ok {
			fmt.Fprintf(k, "%s: %s\r\n", name, v)
		}
	}
	fmt.Fprint(k, "\r\n")
	go b.relay(s, f.StreamID, k)
	return k
}

func (b *streamBackend) relay(s *streamConn, id uint32, k net.Conn) {
	defer k.Close()
	r := bufio.NewReader(k)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		s.head(id, true, ":status", "502")
		return
	}
	fields := []string{":status", "200"}
	for _, name := range []string{"sec-websocket-protocol", "sec-websocket-extensions"} {
		if v := res.Header.Get(name); v != "" {
			fields = append(fields, name, v)
		}
	}
	s.head(id, false, fields...)
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		for at := 0; at < n; {
			s.mu.Lock()
			for !s.ended && (s.windows[0] <= 0 || s.windows[id] <= 0) {
				s.more.Wait()
			}
			if s.ended {
				s.mu.Unlock()
				return
			}
			m := min(n-at, s.windows[0], s.windows[id])
			s.windows[0] -= m
			s.windows[id] -= m
			_ = s.f.WriteData(id, false, buf[at:at+m])
			s.mu.Unlock()
			at += m
		}
		if err != nil {
			s.do(func() {
				if errors.Is(err, io.EOF) {
					_ = s.f.WriteData(id, true, nil)
				} else {
					_ = s.f.WriteRSTStream(id, http2.ErrCodeConnect)
				}
			})
			return
		}
	}
}

// TestWebSocketToHTTP2: sockets of clients of either version reach a backend of HTTP/2 that offers extended CONNECT, with messages
// of any size, fragments, pings and codes of closing; one that does not offer it is not asked, and the client told 501.
func TestWebSocketToHTTP2(t *testing.T) {
	b := &streamBackend{t: t, serve: socketBackend(t), offers: true}
	old := &streamBackend{t: t, serve: b.serve}
	h2c := map[string]string{"ssl-redirect": "false", "backend-protocol": "GRPC"}
	p := startProxy(t, site{name: "chat", host: "chat.example", ports: []int{b.start()}, secret: "chat", annotations: h2c}.yaml()+
		site{name: "old", host: "chat.example", path: "/old", ports: []int{old.start()}, secret: "chat", annotations: h2c}.yaml()+
		secretOf(t, "chat", issue(t, "chat.example")))
	large := make([]byte, 4<<20)
	fill(large)
	for _, way := range socketWays(t, p.HTTP, p.HTTPS, "chat.example") {
		t.Run(way.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			socketMessages(ctx, t, way, large)
			socketFragments(ctx, t, way, large[:100_000])
			socketCloses(ctx, t, way, false)
			socketCloses(ctx, t, way, true)
			for path, want := range map[string]int{"/refused": 403, "/old": 501} {
				c, a, err := websocket.Dial(ctx, way.url+path, &websocket.DialOptions{HTTPClient: way.client})
				if err == nil {
					c.CloseNow()
				}
				if err == nil || a == nil || a.StatusCode != want {
					t.Errorf("%s: %v, want %d", path, err, want)
				}
			}
		})
	}
	within(t, 30*time.Second, "every tunnel's end", func() bool { return p.metric(t, "sluice_tunnels_active") == 0 })
	for _, got := range b.heads() {
		if _, key := got["sec-websocket-key"]; key || got["sec-websocket-version"] != "13" || got[":scheme"] != "http" || got[":authority"] != "chat.example" {
			t.Fatalf("the backend was asked with %v", got)
		}
	}
	if len(old.heads()) > 0 {
		t.Errorf("a backend that does not offer it was asked: %v", old.heads())
	}
}

// TestWebSocketToHTTP2Idle: a socket on which nothing moves is ended on both sides after the idle limit, and the session to the
// backend takes the next one.
func TestWebSocketToHTTP2Idle(t *testing.T) {
	b := &streamBackend{t: t, serve: socketBackend(t), offers: true}
	p := startProxy(t, site{name: "chat", host: "chat.example", ports: []int{b.start()}, secret: "chat",
		annotations: map[string]string{"ssl-redirect": "false", "backend-protocol": "GRPC"}}.yaml()+
		secretOf(t, "chat", issue(t, "chat.example"))+configMapOf("sluice-tunnel-idle-timeout", "1s"), configMapFlag)
	for _, way := range socketWays(t, p.HTTP, p.HTTPS, "chat.example") {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for range 2 {
				c, _, err := websocket.Dial(ctx, way.url+"/", &websocket.DialOptions{HTTPClient: way.client})
				if err != nil {
					t.Fatal(err)
				}
				defer c.CloseNow()
				if err := echoed(ctx, c, websocket.MessageText, []byte("alive")); err != nil {
					t.Fatal(err)
				}
				if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
					t.Fatalf("the socket is not ended: %v", err)
				}
			}
		})
	}
	t.Cleanup(func() {
		within(t, 30*time.Second, "every tunnel's end", func() bool { return p.metric(t, "sluice_tunnels_active") == 0 })
	})
}

// TestWebSocketToHTTP2Ends: a backend's reset reaches the client as an end that is none of the protocol's, a client that has gone is
// told to the backend, and a drain's limit ends what is still open.
func TestWebSocketToHTTP2Ends(t *testing.T) {
	b := &streamBackend{t: t, serve: socketBackend(t), offers: true}
	p := startProxy(t, site{name: "chat", host: "chat.example", ports: []int{b.start()}, secret: "chat",
		annotations: map[string]string{"ssl-redirect": "false", "backend-protocol": "GRPC"}}.yaml()+
		secretOf(t, "chat", issue(t, "chat.example"))+configMapOf("worker-shutdown-timeout", "1s"), configMapFlag)
	ways := socketWays(t, p.HTTP, p.HTTPS, "chat.example")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sockets := func() (opened []*websocket.Conn) {
		for _, way := range ways {
			c, _, err := websocket.Dial(ctx, way.url+"/", &websocket.DialOptions{HTTPClient: way.client})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.CloseNow() })
			if err := echoed(ctx, c, websocket.MessageText, []byte("alive")); err != nil {
				t.Fatal(err)
			}
			opened = append(opened, c)
		}
		return opened
	}
	broken := func(what string, opened []*websocket.Conn) {
		for i, c := range opened {
			if _, _, err := c.Read(ctx); err == nil || websocket.CloseStatus(err) != -1 || ctx.Err() != nil {
				t.Errorf("%s, %s: the client sees %v", what, ways[i].name, err)
			}
		}
		within(t, 30*time.Second, "every tunnel's end", func() bool { return p.http.Stats.Tunnels() == 0 })
	}

	opened := sockets()
	if n := b.reset(); n != len(opened) {
		t.Fatalf("the backend has reset %d of %d", n, len(opened))
	}
	broken("reset by the backend", opened)

	for _, c := range sockets() {
		_ = c.CloseNow()
	}
	within(t, 30*time.Second, "the backend hears of every client that has gone", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.open) == 0
	})

	opened = sockets()
	if err := p.drain(ctx); err != nil {
		t.Fatal(err)
	}
	broken("drained", opened)
}
