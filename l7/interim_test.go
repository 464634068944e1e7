package l7

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// TestInterim: 1xx heads of a backend reach the client, at most ten of them; 100 does not, it is the proxy's own.
func TestInterim(t *testing.T) {
	const hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\n\r\n"
	for _, c := range []struct {
		name, sent string
		interims   []int
		status     int
	}{
		{"103", hint, []int{103}, 200},
		{"102 and 103", "HTTP/1.1 102 Processing\r\n\r\n" + hint, []int{102, 103}, 200},
		{"100 is dropped", "HTTP/1.1 100 Continue\r\n\r\n" + hint, []int{103}, 200},
		{"ten", strings.Repeat(hint, 10), []int{103, 103, 103, 103, 103, 103, 103, 103, 103, 103}, 200},
		{"eleven", strings.Repeat(hint, 11), []int{103, 103, 103, 103, 103, 103, 103, 103, 103, 103}, 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.backend(answering(c.sent + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
			cl := r.dial()
			for range 2 {
				cl.get("/")
				for _, want := range c.interims {
					a := cl.response("GET")
					if a.StatusCode != want || want == 103 && a.Header.Get("Link") != "</a.css>" || a.Header.Get("Connection") != "" {
						t.Fatalf("interim head %d %v, want %d", a.StatusCode, a.Header, want)
					}
				}
				cl.status("GET", c.status)
			}
		})
	}
}

// TestInterimIsTheLastWord: once an interim head has gone to the client, no other endpoint is asked.
func TestInterimIsTheLastWord(t *testing.T) {
	for name, then := range map[string]string{"status": "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "cut": ""} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.NextUpstream |= Next503 })
			b := r.backend(func(p *peer) {
				if p.request() != nil {
					p.send("HTTP/1.1 103 Early Hints\r\n\r\n" + then)
				}
			})
			cl := r.dial()
			cl.get("/")
			cl.status("GET", 103)
			cl.status("GET", map[string]int{"status": 503, "cut": 502}[name])
			if n := b.accepted.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func TestContinue(t *testing.T) {
	for _, buffered := range []bool{true, false} {
		t.Run(fmt.Sprintf("buffered %v", buffered), func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.BufferRequest = buffered })
			r.backend(func(p *peer) {
				for q := p.head(); q != nil; q = p.head() {
					if q.Header.Get("Expect") != "" {
						p.answer("500 x", "Expect was passed on")
						continue
					}
					body, _ := io.ReadAll(q.Body)
					p.answer("200 OK", string(body))
				}
			})
			c := r.dial()
			for range 2 {
				c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
				c.status("POST", 100)
				c.send("body")
				c.expect("POST", 200, "body")
				c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
				c.status("POST", 100)
				c.send("4\r\nbody\r\n0\r\n\r\n")
				c.expect("POST", 200, "body")
				// who sends without waiting needs no 100
				c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody")
				c.expect("POST", 200, "body")
			}
		})
	}
}

// TestNoContinue: a final answer instead of a 100 ends the connection, since nobody knows whether a body follows.
func TestNoContinue(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n"
	for name, status := range map[string]int{"413": 413, "404": 404, "503": 503} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.BodyMax = 1000 })
			r.backend(mirror)
			switch status {
			case 404:
				r.pick = func(*Exchange) *Route { return nil }
			case 503:
				r.route.Policy.BodyMax, r.route.Cluster = 0, nil
			}
			c := r.dial()
			c.send(head)
			if a := c.status("POST", status); !a.Close {
				t.Error("no Connection: close")
			}
			c.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n") // nothing more is parsed on the connection
			c.ends()
		})
	}
}

// TestNoContinueBehindTheHead: a backend of HTTP/2 that answers before it takes any of the body, and takes it then, has no
// 100 follow its answer's head.
func TestNoContinueBehindTheHead(t *testing.T) {
	begun := make(chan struct{})
	defer close(begun)
	r := newRig(t, func(r *rig) {
		r.cluster = upstream.NewCluster("shop/early:80", r.env, upstream.Settings{AllowLoopback: true, HTTP2: true})
		r.route.Cluster, r.route.Policy.BufferRequest, r.probeless = r.cluster, false, true
	})
	r.backend(func(p *peer) {
		f := h2.NewFramer(p, p.r)
		_, _ = p.r.Discard(len(h2.ClientPreface))
		_ = f.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 0})
		for {
			got, err := f.ReadFrame()
			if err != nil {
				return
			}
			if s, ok := got.(*h2.SettingsFrame); ok && !s.IsAck() {
				_ = f.WriteSettingsAck()
			}
			if q, ok := got.(*h2.HeadersFrame); ok {
				_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: q.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true}) // 200
				_ = f.WriteData(q.StreamID, false, []byte("early "))
				<-begun
				_ = f.WriteWindowUpdate(q.StreamID, 10)
				_ = f.WriteData(q.StreamID, true, []byte("late"))
			}
		}
	})
	one := r.dial()
	one.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	if _, err := one.r.Peek(1); err != nil {
		t.Fatal(err)
	}
	begun <- struct{}{}
	one.expect("POST", 200, "early late")
	two := r.dialH2()
	two.open(1, strings.Replace(h2Head, "GET", "POST", 1)+"expect: 100-continue\ncontent-length: 4", false)
	two.until("head", func() bool { return two.answers[1] != nil })
	begun <- struct{}{}
	if a := two.want(1, "200", "early late"); len(a.heads) != 1 {
		t.Errorf("heads %v", a.heads)
	}
}

// TestEarlyAnswer: a backend answers before it has the body. The client gets the answer, and the connections end, since
// the rest of the body stands between them and their next request.
func TestEarlyAnswer(t *testing.T) {
	for _, c := range []struct {
		name, field string
		first, rest string
		closes      bool // the backend closes behind its answer
	}{
		{name: "length", field: "Content-Length: 10\r\n", first: "01234"},
		{name: "length, closes", field: "Content-Length: 10\r\n", first: "01234", closes: true},
		{name: "chunked", field: "Transfer-Encoding: chunked\r\n", first: "5\r\n01234\r\n"},
		{name: "100-continue, body never sent", field: "Content-Length: 10\r\nExpect: 100-continue\r\n"},
		{name: "large", field: "Content-Length: 4000000\r\n", first: strings.Repeat("x", 200_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.BufferRequest, r.route.Policy.BodyMax = false, 0 })
			left := make(chan bool, 1)
			r.backend(func(p *peer) {
				if p.n > 0 {
					mirror(p)
					return
				}
				if p.head() == nil {
					return
				}
				p.answer("403 Forbidden", "no")
				if !c.closes {
					left <- p.gone(patience)
				}
			})
			cl := r.dial()
			cl.send("POST / HTTP/1.1\r\nHost: a\r\n" + c.field + "\r\n")
			if strings.Contains(c.field, "Expect") {
				cl.status("POST", 100)
			}
			cl.send(c.first)
			if a := cl.expect("POST", 403, "no"); !a.Close {
				t.Error("no Connection: close")
			}
			if !c.closes && !receive(t, "the backend's connection ends", left) {
				t.Error("the backend's connection was kept")
			}
			_, _ = io.Copy(io.Discard, cl.r)
		})
	}
}

// TestEarlyAnswerAndReset: who answers early and then resets, with the body streaming at it, has answered all the same.
func TestEarlyAnswerAndReset(t *testing.T) {
	for _, framing := range []wire.Framing{wire.FramingLength, wire.FramingChunked} {
		t.Run(framing.String(), func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.BufferRequest, r.route.Policy.BodyMax = false, 0 })
			r.backend(func(p *peer) {
				q := p.head()
				if q == nil {
					return
				}
				_, _ = io.CopyN(io.Discard, q.Body, rand.N[int64](500_000))
				p.answer("403 Forbidden", "no")
				p.reset()
			})
			for range 30 {
				c := r.dial()
				c.send("POST / HTTP/1.1\r\nHost: a\r\n" + framingField(framing, endless) + "\r\n")
				go func() { _ = write(c, framing, io.LimitReader(zeros{}, endless)) }()
				c.expect("POST", 403, "no")
				c.Close()
			}
		})
	}
}

// TestBothWaysAtOnce: a backend that answers while it reads gets all of the body, and the client all of the answer.
func TestBothWaysAtOnce(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.BufferRequest, r.route.Policy.BodyMax = false, 0 })
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			buf := make([]byte, 32<<10)
			for {
				n, err := q.Body.Read(buf)
				if n > 0 {
					p.send(fmt.Sprintf("%x\r\n%s\r\n", n, buf[:n]))
				}
				if err != nil {
					break
				}
			}
			p.send("0\r\n\r\n")
		}
	})
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	res, err := http.ReadResponse(c.r, nil)
	r.must(err)
	for i := range 50 {
		word := strings.Repeat(fmt.Sprint("word", i), 1+i*100)
		c.send(fmt.Sprintf("%x\r\n%s\r\n", len(word), word))
		back := make([]byte, len(word))
		if _, err := io.ReadFull(res.Body, back); err != nil || string(back) != word {
			t.Fatalf("word %d: %.50q, %v", i, back, err)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("behind the words: %q, %v", rest, err)
	}
	c.ends() // it said Connection: close, as the body was not complete when the head was written
}

// TestBothWaysAtOnceLarge: the same with more than all buffers hold, by splice(2) on the way up.
func TestBothWaysAtOnceLarge(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.BufferRequest, r.route.Policy.BodyMax = false, 0 })
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", q.ContentLength))
			if _, err := io.Copy(p, q.Body); err != nil {
				return
			}
		}
	})
	c := r.dial()
	c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", bigBytes))
	go func() { _, _ = io.Copy(c, newNoise(bigBytes)) }()
	res, err := http.ReadResponse(c.r, nil)
	r.must(err)
	if sum, n, err := digest(res.Body); sum != noiseSum(bigBytes) || err != nil {
		t.Errorf("%d bytes back, %v", n, err)
	}
}

func TestTrailers(t *testing.T) {
	for _, asked := range []bool{true, false} {
		t.Run(fmt.Sprintf("TE: trailers %v", asked), func(t *testing.T) {
			r := newRig(t)
			up := make(chan http.Header, 1)
			r.backend(func(p *peer) {
				for q := p.request(); q != nil; q = p.request() {
					up <- q.Trailer
					p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: x-hop\r\n\r\n" +
						"5\r\nhello\r\n0\r\nX-Sum: down\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\n")
				}
			})
			c := r.dial()
			te := ""
			if asked {
				te = "TE: trailers\r\nConnection: TE\r\n"
			}
			for range 2 {
				c.send("POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n" + te + "\r\n3\r\nabc\r\n0\r\nX-Sum: up\r\nHost: evil\r\n\r\n")
				a := c.expect("POST", 200, "hello")
				got := receive(t, "the request", up)
				wantUp, wantDown := "", ""
				if asked {
					wantUp, wantDown = "up", "down"
				}
				if got.Get("X-Sum") != wantUp || len(got) > 1 || a.Trailer.Get("X-Sum") != wantDown || len(a.Trailer) > 1 {
					t.Errorf("trailers up %v, down %v; want %q and %q", got, a.Trailer, wantUp, wantDown)
				}
			}
		})
	}
}

// TestWaitForTheClientIsNotTheBackends: a client that takes its time over its body does not use up proxy-send-timeout.
func TestWaitForTheClientIsNotTheBackends(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.route.Policy.BufferRequest = false
		r.route.Policy.SendTimeout, r.route.Policy.ReadTimeout = short, patience
	})
	r.backend(mirror)
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
	time.Sleep(2 * short)
	c.send("dy")
	c.expect("POST", 200, "POST / body")
}
