package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
)

//lint:file-ignore SA1019 net/http's own transport refuses the field :protocol, so it sends no extended CONNECT

// The tests of this file put a client and a server of WebSocket that others wrote at both ends of the whole program. Their client
// shakes hands as HTTP/1.1 does; overStreams carries the same handshake as an extended CONNECT of HTTP/2.

// socketBackend serves WebSockets: /close/CODE closes by that code, /drop cuts, all others echo message by message, each frame as
// it comes.
func socketBackend(t *testing.T) (port int) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(-1)
		if code, ok := strings.CutPrefix(r.URL.Path, "/close/"); ok {
			n, _ := strconv.Atoi(code)
			_ = c.Close(websocket.StatusCode(n), "as you wish")
			return
		}
		for r.URL.Path != "/drop" {
			if err := echoMessage(c); err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

func echoMessage(c *websocket.Conn) error {
	kind, r, err := c.Reader(context.Background())
	if err != nil {
		return err
	}
	w, err := c.Writer(context.Background(), kind)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Close()
}

// overStreams opens each WebSocket as a stream of HTTP/2 (RFC 8441).
type overStreams struct{ *http2.Transport }

// RoundTrip implements http.RoundTripper.
func (o overStreams) RoundTrip(r *http.Request) (*http.Response, error) {
	in, out := io.Pipe()
	q := r.Clone(r.Context())
	q.Method, q.Body, q.ContentLength = http.MethodConnect, in, -1
	q.Header[":protocol"] = []string{q.Header.Get("Upgrade")}
	sum := sha1.Sum([]byte(q.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Key"} {
		q.Header.Del(name)
	}
	res, err := o.Transport.RoundTrip(q)
	if err != nil || res.StatusCode != http.StatusOK {
		return res, err
	}
	res.StatusCode = http.StatusSwitchingProtocols
	res.Header.Set("Connection", "Upgrade")
	res.Header.Set("Upgrade", "websocket")
	res.Header.Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
	res.Body = streamBody{res.Body, out}
	return res, nil
}

// streamBody is both directions of a stream.
type streamBody struct {
	io.ReadCloser
	out *io.PipeWriter
}

func (b streamBody) Write(p []byte) (int, error) { return b.out.Write(p) }

func (b streamBody) Close() error {
	return errors.Join(b.out.Close(), b.ReadCloser.Close())
}

// socketWay is how a client of WebSocket reaches the proxy.
type socketWay struct {
	name   string
	client *http.Client
	url    string // without a path
}

// socketWays are all ways to a host of a proxy.
func socketWays(t *testing.T, plain, secure, host string) []socketWay {
	t.Helper()
	to := func(address string, config *tls.Config) func(context.Context, string, string, *tls.Config) (net.Conn, error) {
		return func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
			if config == nil {
				return new(net.Dialer).DialContext(ctx, "tcp", address)
			}
			return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
		}
	}
	one, two := trusting(t, host), trusting(t, host)
	one.NextProtos, two.NextProtos = []string{"http/1.1"}, []string{"h2"}
	var ways []socketWay
	for _, w := range []struct {
		name, scheme, address string
		config                *tls.Config
	}{
		{"HTTP/1.1", "http", plain, nil}, {"HTTP/1.1 over TLS", "https", secure, one},
		{"h2c", "http", plain, nil}, {"h2", "https", secure, two},
	} {
		dial := to(w.address, w.config)
		once := func(ctx context.Context, network, address string) (net.Conn, error) {
			return dial(ctx, network, address, nil)
		}
		var rt http.RoundTripper = &http.Transport{DialContext: once, DialTLSContext: once, DisableCompression: true}
		if strings.HasPrefix(w.name, "h2") {
			rt = overStreams{&http2.Transport{AllowHTTP: true, DialTLSContext: dial}}
		}
		t.Cleanup(rt.(interface{ CloseIdleConnections() }).CloseIdleConnections)
		ways = append(ways, socketWay{w.name, &http.Client{Transport: rt}, w.scheme + "://" + host})
	}
	return ways
}

// open shakes hands.
func (w socketWay) open(t *testing.T, path string, o websocket.DialOptions) *websocket.Conn {
	t.Helper()
	o.HTTPClient = w.client
	c, _, err := websocket.Dial(t.Context(), w.url+path, &o)
	if err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
	c.SetReadLimit(-1)
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// echoed sends a message and compares what comes back.
func echoed(ctx context.Context, c *websocket.Conn, kind websocket.MessageType, message []byte) error {
	sent := make(chan error, 1)
	go func() { sent <- c.Write(ctx, kind, message) }()
	got, back, err := c.Read(ctx)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if got != kind || !bytes.Equal(back, message) {
		return fmt.Errorf("%d bytes of type %v came back, %d of type %v were sent", len(back), got, len(message), kind)
	}
	return nil
}

// chatManifests are an Ingress of WebSocket's backend, for TLS and without.
func chatManifests(t *testing.T, port int) string {
	t.Helper()
	return site{name: "chat", host: "chat.example", ports: []int{port}, secret: "chat", annotations: map[string]string{"ssl-redirect": "false"}}.yaml() +
		secretOf(t, "chat", issue(t, "chat.example"))
}

// TestWebSocketSuite has what RFC 6455 knows pass in all ways: fragments, control frames between them, large messages,
// compression, codes of closing from either side, and a cut that is no close. Each way's tunnels are counted.
func TestWebSocketSuite(t *testing.T) {
	p := startProxy(t, chatManifests(t, socketBackend(t)))
	large := make([]byte, 16<<20)
	fill(large)
	began := 0
	for _, way := range socketWays(t, p.HTTP, p.HTTPS, "chat.example") {
		t.Run(way.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			t.Run("messages", func(t *testing.T) { socketMessages(ctx, t, way, large) })
			t.Run("fragments and pings", func(t *testing.T) { socketFragments(ctx, t, way, large[:300_000]) })
			t.Run("closed by the client", func(t *testing.T) { socketCloses(ctx, t, way, false) })
			t.Run("closed by the backend", func(t *testing.T) { socketCloses(ctx, t, way, true) })
			t.Run("cut", func(t *testing.T) {
				_, _, err := way.open(t, "/drop", websocket.DialOptions{}).Read(ctx)
				if err == nil || websocket.CloseStatus(err) != -1 || ctx.Err() != nil {
					t.Errorf("a backend that cuts ends in %v", err)
				}
			})
		})
		within(t, 30*time.Second, "every tunnel's end", func() bool { return p.metric(t, "sluice_tunnels_active") == 0 })
		n := int(p.metric(t, "sluice_tunnels_total"))
		if want := 3 + 2*len(closeCodes); n-began != want {
			t.Errorf("%s: %d tunnels were counted, want %d", way.name, n-began, want)
		}
		began = n
	}
	if up, down := p.metric(t, "sluice_tunnel_bytes_total", `direction="received"`), p.metric(t, "sluice_tunnel_bytes_total", `direction="sent"`); up < 4*16<<20 || down < 4*16<<20 {
		t.Errorf("%v bytes up and %v down were counted", up, down)
	}
}

// fill makes bytes that are neither equal nor random.
func fill(b []byte) {
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
}

// socketMessages echoes messages of many sizes, one of 16 MiB, and of both kinds, compressed.
func socketMessages(ctx context.Context, t *testing.T, way socketWay, large []byte) {
	c := way.open(t, "/", websocket.DialOptions{Subprotocols: []string{"chat"}, CompressionMode: websocket.CompressionContextTakeover})
	if c.Subprotocol() != "chat" {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	for _, n := range []int{0, 1, 125, 126, 65_535, 65_536, 65_537, len(large)} {
		if err := echoed(ctx, c, websocket.MessageBinary, large[:n]); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	if err := echoed(ctx, c, websocket.MessageText, bytes.Repeat([]byte("Grüße "), 10_000)); err != nil {
		t.Error(err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

// socketFragments sends a message in frames of odd sizes, with a ping between each two of them.
func socketFragments(ctx context.Context, t *testing.T, way socketWay, message []byte) {
	c := way.open(t, "/", websocket.DialOptions{CompressionMode: websocket.CompressionDisabled})
	type result struct {
		body []byte
		err  error
	}
	back := make(chan result, 1)
	go func() {
		_, body, err := c.Read(ctx) // answers pings, and takes pongs
		back <- result{body, err}
	}()
	w, err := c.Writer(ctx, websocket.MessageBinary)
	if err != nil {
		t.Fatal(err)
	}
	rest := message
	for n := 1; len(rest) > 0; n = n*5%40_009 + 1 {
		n = min(n, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
		if err := c.Ping(ctx); err != nil {
			t.Fatalf("a ping within a message: %v", err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-back; r.err != nil || !bytes.Equal(r.body, message) {
		t.Errorf("%d bytes came back, %v", len(r.body), r.err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

// closeCodes are registered ones and one of each range that is free to use (RFC 6455 7.4).
var closeCodes = []websocket.StatusCode{1000, 1001, 1003, 1008, 1011, 1013, 3000, 4999}

// socketCloses closes by every code and has the other side tell it.
func socketCloses(ctx context.Context, t *testing.T, way socketWay, byBackend bool) {
	for _, code := range closeCodes {
		path := "/"
		if byBackend {
			path = fmt.Sprint("/close/", int(code))
		}
		c := way.open(t, path, websocket.DialOptions{})
		if !byBackend {
			if err := c.Close(code, "enough"); err != nil { // it answers by the same code, or Close fails
				t.Errorf("%d: %v", code, err)
			}
			continue
		}
		_, _, err := c.Read(ctx)
		var closed websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != code || closed.Reason != "as you wish" {
			t.Errorf("%d: %v", code, err)
		}
	}
}

// TestWebSocketEdits: a tunnel on a stream outlives every change of the configuration, also its route's end, as those of HTTP/1.1
// do (TestWebSocket), and a connection whose tunnels have ended serves on.
func TestWebSocketEdits(t *testing.T) {
	port := socketBackend(t)
	p := startProxy(t, chatManifests(t, port))
	ways := socketWays(t, p.HTTP, p.HTTPS, "chat.example")[2:]
	var open []*websocket.Conn
	for _, way := range ways {
		open = append(open, way.open(t, "/", websocket.DialOptions{}))
	}
	for i, text := range []string{
		chatManifests(t, port), // another certificate
		site{name: "chat", host: "chat.example", ports: []int{port}, annotations: map[string]string{"proxy-read-timeout": "1"}}.yaml(),
		site{name: "chat", host: "chat.example"}.yaml(), // no endpoint
		site{name: "other", host: "other.example", ports: []int{port}}.yaml(),
	} {
		before := p.store.Load().Generation
		p.write("all.yaml", text)
		within(t, 30*time.Second, "an edit", func() bool { return p.store.Load().Generation > before })
		for _, c := range open {
			if err := echoed(t.Context(), c, websocket.MessageText, fmt.Append(nil, "edit ", i)); err != nil {
				t.Fatalf("after edit %d: %v", i, err)
			}
		}
	}
	if n := p.metric(t, "sluice_tunnels_active"); n != 2 {
		t.Errorf("%v tunnels are counted, want 2", n)
	}
	for _, c := range open {
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	}
	before := p.store.Load().Generation
	p.write("all.yaml", chatManifests(t, port))
	within(t, 30*time.Second, "the route is back", func() bool { return p.store.Load().Generation > before })
	for _, way := range ways {
		if err := echoed(t.Context(), way.open(t, "/", websocket.DialOptions{}), websocket.MessageText, []byte("again")); err != nil {
			t.Error(err)
		}
	}
}

// TestWebSocketIdle holds a thousand sockets of HTTP/1.1 and a thousand on streams. What they cost is bounded, each echoes at the
// end, and everything comes back.
func TestWebSocketIdle(t *testing.T) {
	if raceEnabled {
		t.Skip("it measures memory")
	}
	each := shorter(1000, 200)
	p := startProcess(t, nil, "", chatManifests(t, socketBackend(t)))
	all := socketWays(t, p.http, p.https, "chat.example")
	for _, way := range []socketWay{all[0], all[2], all[3]} {
		t.Run(way.name, func(t *testing.T) {
			memory, files := p.memory(), p.files()
			conns := make([]*websocket.Conn, each)
			var group sync.WaitGroup
			for part := range 20 {
				group.Go(func() {
					for i := part; i < each; i += 20 {
						c, _, err := websocket.Dial(t.Context(), way.url+"/", &websocket.DialOptions{HTTPClient: way.client})
						if err != nil {
							t.Errorf("socket %d: %v", i, err)
							return
						}
						conns[i] = c
						if err := echoed(t.Context(), c, websocket.MessageText, []byte("first")); err != nil {
							t.Error(err)
						}
					}
				})
			}
			group.Wait()
			if t.Failed() {
				return
			}
			within(t, 30*time.Second, "all are counted", func() bool { return int(p.metric("sluice_tunnels_active", "")) == each })
			more, open := p.memory()-memory, p.files()-files
			t.Logf("%d B and %.2f descriptors a socket", more/int64(each), float64(open)/float64(each))
			if more > int64(each)*idleSocketBytes+4<<20 || open > 2*each+20 { // the backend's and, over HTTP/1.1, the client's
				t.Errorf("%d sockets hold %d KiB and %d descriptors", each, more>>10, open)
			}
			for i, c := range conns {
				if err := echoed(t.Context(), c, websocket.MessageBinary, fmt.Append(nil, "last ", i)); err != nil {
					t.Fatalf("socket %d: %v", i, err)
				}
			}
			for _, c := range conns {
				group.Go(func() { _ = c.CloseNow() })
			}
			group.Wait()
			way.client.CloseIdleConnections()
			within(t, 30*time.Second, "descriptors are back", func() bool { return p.files() <= files+20 })
			within(t, 30*time.Second, "no tunnel is left", func() bool { return p.metric("sluice_tunnels_active", "") == 0 })
		})
	}
}

// idleSocketBytes is what an idle socket may cost: that it holds no buffer is what matters.
const idleSocketBytes = 12 << 10
