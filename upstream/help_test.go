package upstream

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// patience bounds every wait of these tests. It is long, because it is only ever spent by a test that fails.
const patience = 10 * time.Second

// newEnv starts loops and gives the environment of a process with them; they stop with the test.
func newEnv(t testing.TB, loops int) *Env {
	t.Helper()
	env := &Env{Work: fastpath.NewWork(2), Log: slog.New(slog.DiscardHandler)}
	for i := range loops {
		l, err := fastpath.NewLoop(i)
		if err != nil {
			t.Fatal(err)
		}
		stopped := make(chan struct{})
		go func() {
			l.Run()
			close(stopped)
		}()
		t.Cleanup(func() {
			l.Stop()
			<-stopped
		})
		env.Loops = append(env.Loops, l)
	}
	return env
}

// on runs f on the loop and waits for it.
func on(t testing.TB, l *fastpath.Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	l.Post(func() {
		defer close(done)
		f()
	})
	wait(t, done, "the loop")
}

func wait[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s did not come within %v", what, patience)
	}
	return v
}

// eventually waits until f is true; f runs on the test's goroutine.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// server listens on loopback and leads each connection through serve, which is told its number from 0.
type server struct {
	net.Listener
}

func newServer(t testing.TB, serve func(c net.Conn, number int)) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for i := 0; ; i++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c, i)
			}()
		}
	}()
	return &server{Listener: ln}
}

func (b *server) addr() netip.AddrPort { return b.Addr().(*net.TCPAddr).AddrPort() }

// answering is a backend's serve that reads requests and answers each with the same bytes.
func answering(answer string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		r := bufio.NewReader(c)
		for readRequest(r) != "" {
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

// readRequest reads one head and the body that its Content-Length announces, or all chunks, as raw bytes; "": the end.
func readRequest(r *bufio.Reader) string {
	var head strings.Builder
	length, chunked := 0, false
	for {
		line, err := r.ReadString('\n')
		head.WriteString(line)
		if err != nil {
			return ""
		}
		_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
		chunked = chunked || line == "Transfer-Encoding: chunked\r\n"
		if line == "\r\n" {
			break
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return ""
	}
	head.Write(body)
	for chunked {
		line, err := r.ReadString('\n')
		if err != nil {
			return ""
		}
		head.WriteString(line)
		chunked = !strings.HasSuffix(head.String(), "\r\n0\r\n\r\n") && !strings.HasSuffix(head.String(), "Sum: 1\r\n\r\n")
	}
	return head.String()
}

// cluster makes a cluster of loopback endpoints.
func cluster(t testing.TB, env *Env, s Settings, addrs ...netip.AddrPort) *Cluster {
	t.Helper()
	s.AllowLoopback = true
	c := NewCluster("shop/web:80", env, s)
	t.Cleanup(c.Close)
	if refused := c.Apply(addresses(addrs...)); len(refused) > 0 {
		t.Fatal(refused)
	}
	return c
}

func addresses(addrs ...netip.AddrPort) (list []Address) {
	for _, a := range addrs {
		list = append(list, Address{Addr: a})
	}
	return list
}

// caller is a Peer that sends one request and reads its answer.
type caller struct {
	loop    *fastpath.Loop
	request wire.Request
	body    []byte
	options OpenOptions
	trailer []wire.Field
	timeout time.Duration
	step    int                // most bytes that one read takes; 0: many
	keep    bool               // the stream is not released at the end
	began   func(Stream)       // called when the request is sent
	head    func(*caller) bool // called with the final head; false: it goes on by itself

	onResponse, onRoom func() // in place of reading and writing bodies

	stream   Stream
	response wire.Response
	arena    wire.Arena
	sent     int
	headed   bool
	done     chan struct{}
	closed   bool
	late     int // calls of OnRoom after the request was complete

	interims []int
	got      []byte
	trailers string
	reused   bool
	err      *fastpath.Error
}

func get(target string) *caller {
	return &caller{request: wire.Request{Method: wire.MethodGet, Target: []byte(target), Authority: []byte("shop.example")}}
}

func post(body string) *caller {
	c := get("/")
	c.request.Method = wire.MethodPost
	c.request.Framing, c.request.ContentLength = wire.FramingLength, int64(len(body))
	c.body = []byte(body)
	c.options.NonIdempotent = true
	return c
}

// start asks for the stream, on the loop.
func (c *caller) start(l *fastpath.Loop, e *Endpoint) {
	c.loop = l
	s, ready, err := e.Open(l, c, c.options)
	if ready || err != nil {
		c.OnStream(s, err)
		return
	}
	c.stream = s
}

// do runs the whole exchange and waits for it.
func (c *caller) do(t testing.TB, env *Env, e *Endpoint) *caller {
	t.Helper()
	c.done = make(chan struct{})
	l := env.Loops[0]
	l.Post(func() { c.start(l, e) })
	wait(t, c.done, "the answer")
	return c
}

func (c *caller) OnStream(s Stream, err *fastpath.Error) {
	if err != nil {
		c.stream = nil
		c.finish(err)
		return
	}
	c.stream, c.reused = s, s.Reused()
	if err := s.Send(&c.request); err != nil {
		c.finish(err)
		return
	}
	s.SetTimeout(c.timeout)
	if c.began != nil {
		c.began(s)
	}
	c.OnRoom()
}

func (c *caller) OnRoom() {
	if c.onRoom != nil {
		c.onRoom()
		return
	}
	if c.sent == len(c.body) && c.sent > 0 {
		c.late++
	}
	for c.sent < len(c.body) {
		n := min(c.stream.Room(), len(c.body)-c.sent)
		if n == 0 {
			return
		}
		if err := c.stream.WriteBody(c.body[c.sent : c.sent+n]); err != nil {
			c.finish(err)
			return
		}
		c.sent += n
	}
	if c.body != nil {
		if err := c.stream.EndBody(c.trailer); err != nil {
			c.finish(err)
		}
	}
}

func (c *caller) OnStreamTimeout() { c.finish(fastpath.ErrTimeout) }

func (c *caller) OnResponse() {
	for !c.headed {
		err := c.stream.ReadHead(&c.response, &c.arena)
		if err == fastpath.ErrWouldBlock {
			return
		}
		if err != nil {
			c.finish(err)
			return
		}
		if c.headed = c.response.Status >= 200 || c.response.Status == 101; !c.headed {
			c.interims = append(c.interims, c.response.Status)
		}
		if c.headed && c.head != nil && c.head(c) {
			return
		}
	}
	if c.onResponse != nil {
		c.onResponse()
		return
	}
	c.readBody()
}

func (c *caller) readBody() {
	step := c.step
	if step == 0 {
		step = 64 << 10
	}
	for {
		b, err := c.stream.ReadBody(step)
		c.got = append(c.got, b...)
		if err == nil {
			continue
		}
		if err == fastpath.ErrEOF {
			for _, f := range c.stream.Trailers() {
				c.trailers += string(f.Name) + ": " + string(f.Value) + "\n"
			}
			err = nil
		}
		if err != fastpath.ErrWouldBlock {
			c.finish(err)
		}
		return
	}
}

func (c *caller) finish(err *fastpath.Error) {
	if c.closed {
		return
	}
	c.closed, c.err = true, err
	if c.stream != nil && !c.keep {
		c.stream.Release()
	}
	close(c.done)
}

// ok fails the test unless the exchange ended well with that status and body.
func (c *caller) ok(t testing.TB, status int, body string) *caller {
	t.Helper()
	if c.err != nil || c.response.Status != status || string(c.got) != body {
		t.Fatalf("answer %d %.200q, error %v; want %d %.200q", c.response.Status, c.got, c.err, status, body)
	}
	return c
}

// failed fails the test unless the exchange ended with that error.
func (c *caller) failed(t testing.TB, err *fastpath.Error) *caller {
	t.Helper()
	if c.err != err {
		t.Fatalf("answer %d %.200q, error %v; want the error %v", c.response.Status, bytes.TrimSpace(c.got), c.err, err)
	}
	return c
}

// idle is how many sessions of the endpoint are idle, as its loops see it.
func idle(t testing.TB, env *Env, e *Endpoint) (n int) {
	t.Helper()
	for _, l := range env.Loops {
		on(t, l, func() { n += len(e.loops[l.ID].idle) })
	}
	return n
}

// only is the cluster's one endpoint.
func only(t testing.TB, c *Cluster) *Endpoint {
	t.Helper()
	v := c.current.Load()
	if len(v.ready) != 1 {
		t.Fatalf("%d ready endpoints, want 1", len(v.ready))
	}
	return v.ready[0]
}
