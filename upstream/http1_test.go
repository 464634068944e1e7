package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

func TestAnswers(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20<<10)
	for _, tt := range []struct {
		name   string
		method wire.Method
		answer string
		status int
		body   string
		idle   int // sessions in the pool afterwards
	}{
		{name: "length", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", idle: 1},
		{name: "length zero", answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, idle: 1},
		{name: "long", answer: fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(long), long), status: 200, body: long, idle: 1},
		{name: "chunked", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", status: 200, body: "hello world", idle: 1},
		{name: "long chunked", answer: fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(long), long), status: 200, body: long, idle: 1},
		{name: "HEAD", method: wire.MethodHead, answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", status: 200, idle: 1},
		{name: "204", answer: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, idle: 1},
		{name: "204 with a length", answer: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", status: 204},
		{name: "304 with a length", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, idle: 1},
		{name: "1xx first", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n.", status: 200, body: ".", idle: 1},
		{name: "close", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", status: 200, body: "hello"},
		{name: "close in a 1xx", answer: "HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200},
		{name: "HTTP/1.0", answer: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello"},
		{name: "HTTP/1.0 keep-alive", answer: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", status: 200, body: "hello", idle: 1},
		{name: "too much", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world", status: 200, body: "hello"},
		{name: "an answer nobody asked for", answer: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n.HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", status: 200, body: "."},
		{name: "too much behind chunks", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\n\r\nX", status: 200, body: "."},
		{name: "body to a HEAD", method: wire.MethodHead, answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200},
		{name: "body of a 304", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", status: 304},
	} {
		for _, step := range []int{0, 1, 4096} {
			if step == 1 && len(tt.body) > 100 {
				continue
			}
			t.Run(fmt.Sprintf("%s by %d", tt.name, step), func(t *testing.T) {
				env := newEnv(t, 1)
				e := only(t, cluster(t, env, Settings{}, newServer(t, answering(tt.answer)).addr()))
				c := get("/")
				if c.step = step; tt.method != 0 {
					c.request.Method = tt.method
				}
				c.do(t, env, e).ok(t, tt.status, tt.body)
				if n := idle(t, env, e); n != tt.idle {
					t.Errorf("%d idle sessions, want %d", n, tt.idle)
				}
			})
		}
	}
}

// once is a backend's serve that reads one request, writes the answer and ends.
func once(answer string, end func(net.Conn)) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		readRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, answer)
		end(c)
	}
}

func fin(c net.Conn) { c.Close() }

func rst(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

func TestBrokenAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string
		end    func(net.Conn)
		err    *fastpath.Error
		body   string
	}{
		{"end at once", "", fin, ErrCut, ""},
		{"reset at once", "", rst, ErrReset, ""},
		{"end in the head", "HTTP/1.1 200 OK\r\nContent-Le", fin, ErrCut, ""},
		{"end after a 1xx", "HTTP/1.1 100 Continue\r\n\r\n", fin, ErrCut, ""},
		{"end in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", fin, ErrCut, "hel"},
		{"end in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", fin, ErrCut, "hel"},
		{"end before the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", fin, ErrCut, "hello"},
		{"garbage", "SSH-2.0-OpenSSH_9.9\r\n", fin, wire.ErrResponseLine, ""},
		{"garbage without an end", strings.Repeat("x", 100), wait10, wire.ErrResponseLine, ""},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", fin, wire.ErrResponseContentLength, ""},
		{"head without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Pad: "+strings.Repeat("y", 1000)+"\r\n", 80), wait10, wire.ErrResponseHeadTooLarge, ""},
		{"broken chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX", wait10, wire.ErrResponseChunkEnd, "hello"},
		{"a 101 nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", wait10, ErrSwitched, ""},
		{"eleven interim answers", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 11), wait10, ErrInterims, ""},
		{"silence", "", wait10, fastpath.ErrTimeout, ""},
		{"silence in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", wait10, fastpath.ErrTimeout, "hel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := newEnv(t, 1)
			e := only(t, cluster(t, env, Settings{}, newServer(t, once(tt.answer, tt.end)).addr()))
			c := get("/")
			if tt.err == fastpath.ErrTimeout {
				c.timeout = 50 * time.Millisecond
			}
			c.do(t, env, e).failed(t, tt.err)
			if string(c.got) != tt.body {
				t.Errorf("body %q, want %q", c.got, tt.body)
			}
			if tt.err != fastpath.ErrTimeout && tt.err.Fault != fastpath.FaultBackend {
				t.Errorf("the fault is the %v's", tt.err.Fault)
			}
			if s := e.Stats(); s.Open != 0 || s.Active != 0 {
				t.Errorf("%+v, want nothing open", s)
			}
		})
	}
}

// wait10 keeps a connection open until the proxy closes it.
func wait10(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.Copy(io.Discard, c)
}

func TestCloseDelimited(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(net.Conn)
		err  *fastpath.Error
	}{
		{"fin", fin, nil},
		{"reset", rst, ErrReset},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, headed := newEnv(t, 1), make(chan struct{})
			serve := once("HTTP/1.1 200 OK\r\n\r\nhello", func(c net.Conn) {
				<-headed
				tt.end(c)
			})
			e := only(t, cluster(t, env, Settings{}, newServer(t, serve).addr()))
			c := get("/")
			c.head = func(*caller) bool {
				close(headed)
				return false
			}
			c.do(t, env, e).failed(t, tt.err)
			if string(c.got) != "hello" {
				t.Errorf("body %q", c.got)
			}
			if n := idle(t, env, e); n != 0 {
				t.Errorf("%d idle sessions", n)
			}
		})
	}
}

// recording is a backend's serve that answers each request with 204 and hands what it got to the channel.
func recording(got chan<- string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		r := bufio.NewReader(c)
		for {
			request := readRequest(r)
			if request == "" {
				return
			}
			got <- request
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	}
}

func TestRequests(t *testing.T) {
	trailers := []wire.Field{{Name: []byte("Sum"), Value: []byte("1")}, {Name: []byte("Content-Length"), Value: []byte("9")}}
	chunked := func(te bool) *caller {
		c := post("hello")
		c.request.Framing, c.request.ContentLength, c.request.TETrailers = wire.FramingChunked, 0, te
		c.trailer = trailers
		return c
	}
	for _, tt := range []struct {
		name string
		c    *caller
		want string
	}{
		{"get", get("/a?b"), "GET /a?b HTTP/1.1\r\nHost: shop.example\r\n\r\n"},
		{"length", post("hello"), "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello"},
		{"length zero", post(""), "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n"},
		{"chunked", chunked(false), "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"chunked with trailers", chunked(true), "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\nConnection: TE\r\nTE: trailers\r\n\r\n5\r\nhello\r\n0\r\nSum: 1\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, got := newEnv(t, 1), make(chan string, 1)
			e := only(t, cluster(t, env, Settings{}, newServer(t, recording(got)).addr()))
			tt.c.do(t, env, e).ok(t, 204, "")
			if s := wait(t, got, "the request"); s != tt.want {
				t.Errorf("the backend got\n%q, want\n%q", s, tt.want)
			}
			if n := idle(t, env, e); n != 1 {
				t.Errorf("%d idle sessions, want 1", n)
			}
		})
	}
}

// A body other than its head promised would be read as another request, or swallow the next.
func TestRequestBodyIsWhatWasPromised(t *testing.T) {
	for _, tt := range []struct {
		name    string
		promise int64
		framing wire.Framing
	}{
		{"more", 4, wire.FramingLength},
		{"less", 6, wire.FramingLength},
		{"none promised", 0, wire.FramingNone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, got := newEnv(t, 1), make(chan string, 1)
			e := only(t, cluster(t, env, Settings{}, newServer(t, recording(got)).addr()))
			c := post("hello")
			c.request.Framing, c.request.ContentLength = tt.framing, tt.promise
			c.do(t, env, e).failed(t, ErrFraming)
			if n := idle(t, env, e); n != 0 {
				t.Errorf("%d idle sessions, want none", n)
			}
		})
	}
}

func TestUnsendableRequest(t *testing.T) {
	env, got := newEnv(t, 1), make(chan string, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, recording(got)).addr()))
	get("/ HTTP/1.1\r\nX: y").do(t, env, e).failed(t, wire.ErrSerialise)
	if n := idle(t, env, e); n != 0 {
		t.Errorf("%d idle sessions, want none", n)
	}
}

func TestTrailersOfAnswer(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\nSum: 1\r\nGrpc-Status: 0\r\n\r\n")).addr()))
	c := get("/").do(t, env, e).ok(t, 200, ".")
	if c.trailers != "Sum: 1\nGrpc-Status: 0\n" {
		t.Errorf("trailers %q", c.trailers)
	}
}

func TestInterims(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, answering(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 10)+"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).addr()))
	c := get("/").do(t, env, e).ok(t, 200, "")
	if len(c.interims) != 10 {
		t.Errorf("%d interim answers, want 10", len(c.interims))
	}
}

// An answer that comes before the request's body is complete ends the session: what follows could be taken for a request.
func TestEarlyAnswer(t *testing.T) {
	env := newEnv(t, 1)
	early := func(c net.Conn, _ int) {
		_, _ = bufio.NewReader(c).ReadString('\n')
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
		wait10(c)
	}
	e := only(t, cluster(t, env, Settings{}, newServer(t, early).addr()))
	c := post("")
	c.request.ContentLength, c.body = 5, nil
	c.do(t, env, e).ok(t, 413, "")
	if s := e.Stats(); s.Open != 0 {
		t.Errorf("%+v, want the session closed", s)
	}
}

// Large request bodies wait for the backend: Room is the only measure, and it is bounded.
func TestBackPressure(t *testing.T) {
	env, go1 := newEnv(t, 1), make(chan struct{})
	slow := func(c net.Conn, _ int) {
		r := bufio.NewReader(c)
		<-go1
		if n := len(readRequest(r)); n < 8<<20 {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	}
	e := only(t, cluster(t, env, Settings{}, newServer(t, slow).addr()))
	c := post(strings.Repeat("x", 8<<20))
	c.began = func(s Stream) {
		c.loop.Post(func() {
			if s.Room() != 0 {
				t.Errorf("Room is %d although the backend reads nothing", s.Room())
			}
			close(go1)
		})
	}
	c.do(t, env, e).ok(t, 204, "")
}

func TestUpgrade(t *testing.T) {
	const handshake = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %s\r\n\r\n"
	for _, tt := range []struct {
		name, asked, answered string
		err                   *fastpath.Error
	}{
		{"granted", "websocket", "WebSocket", nil},
		{"another", "websocket", "raw", ErrSwitched},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := newEnv(t, 1)
			echo := func(c net.Conn, _ int) {
				readRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, fmt.Sprintf(handshake, tt.answered)+"ahead")
				wait10(c)
			}
			e := only(t, cluster(t, env, Settings{}, newServer(t, echo).addr()))
			c := get("/")
			c.request.Upgrade = []byte(tt.asked)
			c.keep = tt.err == nil
			var ahead string
			c.head = func(c *caller) bool {
				conn := c.stream.Detach()
				ahead = string(conn.Buffered())
				conn.Close()
				c.finish(nil)
				return true
			}
			c.do(t, env, e).failed(t, tt.err)
			if tt.err == nil && ahead != "ahead" {
				t.Errorf("read ahead %q", ahead)
			}
			if s := e.Stats(); s.Open != 0 || s.Active != 0 {
				t.Errorf("%+v, want nothing open", s)
			}
		})
	}
}

// A refused upgrade is a plain answer, but its session is not used again.
func TestUpgradeRefused(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n.")).addr()))
	c := get("/")
	c.request.Upgrade = []byte("websocket")
	c.do(t, env, e).ok(t, 200, ".")
	if n := idle(t, env, e); n != 0 {
		t.Errorf("%d idle sessions, want none", n)
	}
}
