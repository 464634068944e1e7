package l7

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKeepAlive(t *testing.T) {
	r := newRig(t)
	b := r.backend(mirror)
	c := r.dial()
	for i := range 20 {
		c.get(fmt.Sprint("/", i))
		c.expect("GET", 200, fmt.Sprintf("GET /%d ", i))
		c.post("/p", "body")
		c.expect("POST", 200, "POST /p body")
	}
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("%d backend connections, want 1", n)
	}
	r.recorded(1, 200, 20)
}

func TestKeepAliveRequests(t *testing.T) {
	r := newRig(t, func(r *rig) { r.settings.KeepAliveRequests = 3 })
	r.backend(mirror)
	c := r.dial()
	for i := range 3 {
		c.get("/")
		if a := c.expect("GET", 200, "GET / "); a.Close != (i == 2) {
			t.Errorf("request %d: Connection: close is %v", i, a.Close)
		}
	}
	c.ends()
}

// TestPipelining: many requests in one segment are answered in order, whoever answers them.
func TestPipelining(t *testing.T) {
	r := newRig(t)
	r.pick = func(x *Exchange) *Route {
		if strings.HasPrefix(string(x.Req.Path), "/none") {
			return nil
		}
		return r.route
	}
	b := r.backend(mirror)
	var all strings.Builder
	const rounds = 50
	for i := range rounds {
		fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		fmt.Fprintf(&all, "POST /p%d HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nlong", i)
		fmt.Fprintf(&all, "POST /c%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nin\r\n0\r\n\r\n", i)
		fmt.Fprintf(&all, "GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
		fmt.Fprintf(&all, "POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nlong")
	}
	c := r.dial()
	c.send(all.String())
	for i := range rounds {
		c.expect("GET", 200, fmt.Sprintf("GET /%d ", i))
		c.expect("POST", 200, fmt.Sprintf("POST /p%d long", i))
		c.expect("POST", 200, fmt.Sprintf("POST /c%d in", i))
		c.status("GET", 404)
		c.status("POST", 404)
	}
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("%d backend connections, want 1", n)
	}
}

// TestPipeliningIsFair: a client whose pipelined requests never wait for a backend does not hold the loop for longer than
// pipelinedMax of them.
func TestPipeliningIsFair(t *testing.T) {
	r := newRig(t)
	var turns []uint64 // the loop's turn in which each request was begun
	r.pick = func(x *Exchange) *Route {
		turns = append(turns, x.loop.Stats.Turns.Load())
		return nil
	}
	r.backend(mirror)
	c := r.dial()
	const n = 10 * pipelinedMax
	c.send(strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", n))
	for range n {
		c.status("GET", 404)
	}
	r.on(func() {
		const most = 2 * pipelinedMax // by its event, and by the list of those that asked for more
		for i := most; i < len(turns); i++ {
			if turns[i] == turns[i-most] {
				t.Fatalf("requests %d to %d were begun in one turn of the loop", i-most, i)
			}
		}
		if len(turns) != n {
			t.Errorf("%d requests, want %d", len(turns), n)
		}
	})
}

// TestPipelinedUnread: a client that asks and asks and never reads is neither answered without bound nor kept for ever.
func TestPipelinedUnread(t *testing.T) {
	r := newRig(t, func(r *rig) { r.settings.SendTimeout = short })
	r.backend(answering("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000)))
	c := r.dial()
	_ = c.SetReadBuffer(4 << 10)
	go func() { _, _ = io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 10000)) }()
	r.eventually("the client is cut", func() bool { return r.srv.Stats.Loops()[0].Open.Load() == 0 })
	if n := r.srv.Stats.Loops()[0].Exchanges.Load(); n > 2000 {
		t.Errorf("%d requests were answered to a client that reads none", n)
	}
}

func TestHTTP10(t *testing.T) {
	for _, c := range []struct {
		name, send, answer, body string
		keep                     bool
	}{
		{name: "without keep-alive", send: "GET / HTTP/1.0\r\n\r\n", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", body: "ok"},
		{name: "keep-alive", send: "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", body: "ok", keep: true},
		{name: "chunked becomes close", send: "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", body: "abcde"},
		{name: "post, keep-alive", send: "POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", body: "ok", keep: true},
		{name: "no interim heads", send: "GET / HTTP/1.0\r\n\r\n", answer: "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", body: "ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.backend(answering(c.answer))
			cl := r.dial()
			for range 2 {
				cl.send(c.send)
				a := cl.expect("GET", 200, c.body)
				if a.Header.Get("Connection") == "keep-alive" != c.keep || len(a.TransferEncoding) > 0 {
					t.Errorf("Connection: %s, Transfer-Encoding %v", a.Header.Get("Connection"), a.TransferEncoding)
				}
				if !c.keep {
					cl.ends()
					return
				}
			}
		})
	}
}

// TestHostless: HTTP/1.0 allows a request without Host; the backend gets a valid one.
func TestHostless(t *testing.T) {
	for _, c := range []struct{ name, sni, rule, want string }{
		{name: "catch-all", want: "_"},
		{name: "rule's host", rule: "shop.example", want: "shop.example"},
		{name: "wildcard", rule: "*.example", want: "_"},
		{name: "server name", sni: "tls.example", rule: "shop.example", want: "tls.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.ID.Host = c.rule })
			hosts := make(chan string, 1)
			r.backend(func(p *peer) {
				for q := p.request(); q != nil; q = p.request() {
					hosts <- q.Host + " " + q.Header.Get("X-Forwarded-Host")
					p.answer("200 OK", "")
				}
			})
			cl := r.dialAs(&Accepted{Server: []byte(c.sni)})
			cl.send("GET / HTTP/1.0\r\n\r\n")
			cl.expect("GET", 200, "")
			if got := receive(t, "the request", hosts); got != c.want+" "+c.want {
				t.Errorf("Host and X-Forwarded-Host %q, want %q twice", got, c.want)
			}
		})
	}
}

// framings are a backend's ways to end a body, and what an HTTP/1.1 client sees of it.
var framings = []struct {
	name, method, answer string
	status               int
	body                 string
	length               string // the Content-Length that the client is told
	closes               bool   // the backend ends its connection
}{
	{name: "length", method: "GET", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: "5"},
	{name: "empty", method: "GET", answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, length: "0"},
	{name: "chunked", method: "GET", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", status: 200, body: "hello"},
	{name: "chunked and empty", method: "GET", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 200},
	{name: "close", method: "GET", answer: "HTTP/1.1 200 OK\r\n\r\nhello", status: 200, body: "hello", closes: true},
	{name: "close of HTTP/1.0", method: "GET", answer: "HTTP/1.0 200 OK\r\n\r\nhello", status: 200, body: "hello", closes: true},
	{name: "204", method: "GET", answer: "HTTP/1.1 204 No Content\r\n\r\n", status: 204},
	{name: "304", method: "GET", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, length: "5"},
	{name: "HEAD with length", method: "HEAD", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", status: 200, length: "5"},
	{name: "HEAD, chunked", method: "HEAD", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", status: 200},
	{name: "HEAD without framing", method: "HEAD", answer: "HTTP/1.1 200 OK\r\n\r\n", status: 200},
}

func TestResponseFraming(t *testing.T) {
	for _, c := range framings {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			b := r.backend(func(p *peer) {
				for p.request() != nil {
					p.send(c.answer)
					if c.closes {
						return
					}
				}
			})
			cl := r.dial()
			for range 3 {
				cl.send(c.method + " / HTTP/1.1\r\nHost: a\r\n\r\n")
				a := cl.expect(c.method, c.status, c.body)
				if a.Close || a.Header.Get("Content-Length") != c.length || a.Header.Get("Date") == "" {
					t.Errorf("Connection: close %v, length %q, Date %q; want a connection that lives on, %q and a date",
						a.Close, a.Header.Get("Content-Length"), a.Header.Get("Date"), c.length)
				}
			}
			if n := b.accepted.Load(); n != 1 && !c.closes {
				t.Errorf("%d backend connections, want 1", n)
			}
		})
	}
}

// TestOwnAnswers: what the proxy itself answers is framed as rightly as what backends do.
func TestOwnAnswers(t *testing.T) {
	r := newRig(t)
	r.pick = func(*Exchange) *Route { return nil }
	r.backend(mirror)
	c := r.dial()
	c.get("/")
	if a := c.expect("GET", 404, "404 Not Found\n"); a.Header.Get("Date") == "" || a.Header.Get("Content-Type") == "" || a.Close {
		t.Errorf("header %v, close %v", a.Header, a.Close)
	}
	c.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
	if a := c.expect("HEAD", 404, ""); a.ContentLength != 14 {
		t.Errorf("HEAD: length %d, want 14", a.ContentLength)
	}
	c.post("/", "a body that came with its head is passed over")
	if a := c.status("POST", 404); a.Close {
		t.Error("a body that was there ended the connection")
	}
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
	if a := c.status("POST", 404); !a.Close {
		t.Error("an answer without the body does not say that the connection ends")
	}
	c.ends()
}

// TestSocketpair: a connection need not be TCP's.
func TestSocketpair(t *testing.T) {
	r := newRig(t)
	r.backend(mirror)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	r.must(err)
	r.on(func() {
		c, err := r.loops[0].Adopt(fds[0], netip.AddrPort{}, nil)
		if err != nil {
			t.Error(err)
			return
		}
		r.srv.ServeHTTP1(c, &Accepted{})
	})
	f := os.NewFile(uintptr(fds[1]), "client")
	defer f.Close()
	_, err = io.WriteString(f, "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	r.must(err)
	all, err := io.ReadAll(f)
	if err != nil || !strings.HasSuffix(string(all), "\r\n\r\nGET /a ") {
		t.Errorf("answer %q, %v", all, err)
	}
}
