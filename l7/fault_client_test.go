package l7

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// cancelTime is how long a backend may go on working for a client that has left.
const cancelTime = time.Second

// TestClientReset: a client that resets its connection cancels its request, wherever that stands.
func TestClientReset(t *testing.T) {
	const upload = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n"
	wait := func(p *peer) { p.request() }
	for name, c := range map[string]struct {
		send   string
		serve  func(p *peer) // until the backend does nothing more
		read   int           // bytes that the client reads before it resets
		method wire.Method
	}{
		"awaiting the head": {send: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", serve: wait, method: wire.MethodGet},
		"within the body": {send: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", method: wire.MethodGet, read: 10, serve: func(p *peer) {
			p.request()
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		}},
		"within a spliced body": {send: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", method: wire.MethodGet, read: 200_000, serve: func(p *peer) {
			p.request()
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + strings.Repeat("m", 1<<20))
		}},
		"within its own body":         {send: upload + "half", method: wire.MethodPost, serve: func(p *peer) { p.head() }},
		"within its own spliced body": {send: upload + strings.Repeat("m", 1<<20), method: wire.MethodPost, serve: func(p *peer) { p.head() }},
		"with a pipelined request":    {send: "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n", serve: wait, method: wire.MethodGet},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) { r.route.Policy.BufferRequest, r.route.Policy.BodyMax = false, 0 })
			reached, gone := make(chan bool, 1), make(chan time.Time, 1)
			r.backend(func(p *peer) {
				if p.n > 0 {
					mirror(p)
					return
				}
				c.serve(p)
				reached <- true
				if p.gone(patience) {
					gone <- time.Now()
				}
			})
			cl := r.dial()
			cl.send(c.send)
			receive(t, "the backend", reached)
			if _, err := io.ReadFull(cl.r, make([]byte, c.read)); err != nil {
				t.Fatal(err)
			}
			left := time.Now()
			cl.reset()
			if took := receive(t, "the backend's end", gone).Sub(left); took > cancelTime {
				t.Errorf("the backend's request was cancelled after %v", took)
			}
			r.recorded(c.method, statusClientGone, 1)
		})
	}
}

// TestClientLeavesBeforeTheBackendIsAsked: the same where no backend knows of it yet.
func TestClientLeavesBeforeTheBackendIsAsked(t *testing.T) {
	r := newRig(t)
	r.backend(mirror)
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
	r.eventually("the exchange begins", func() bool { return r.srv.Stats.Active() == 1 })
	c.reset()
	r.recorded(wire.MethodPost, statusClientGone, 1)
	if n := r.cluster.Stats().Requests; n != 0 {
		t.Errorf("%d requests reached the cluster", n)
	}
}

// TestClientLeavesWhileConnecting: nor does a dial go on for nobody.
func TestClientLeavesWhileConnecting(t *testing.T) {
	r := newRig(t)
	r.probeless = true
	r.endpoint(fullBacklog(t))
	c := r.dial()
	c.get("/")
	r.eventually("the dial begins", func() bool { return r.cluster.Stats().Active == 1 })
	c.reset()
	r.recorded(wire.MethodGet, statusClientGone, 1)
	if n := r.cluster.Stats().Active; n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// TestHalfClose: a client that ends its side behind a complete request gets its answer.
func TestHalfClose(t *testing.T) {
	for name, send := range map[string]string{
		"GET":       "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST":      "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
		"pipelined": "GET /0 HTTP/1.1\r\nHost: a\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.backend(func(p *peer) {
				for q := p.request(); q != nil; q = p.request() {
					time.Sleep(short / 5)
					p.answer("200 OK", q.RequestURI+q.body)
				}
			})
			c := r.dial()
			c.send(send)
			r.must(c.CloseWrite())
			if name == "pipelined" {
				c.expect("GET", 200, "/0")
			}
			a := c.response("GET")
			if a.StatusCode != 200 || !strings.HasPrefix(a.body, "/a") {
				t.Errorf("answer %d %q", a.StatusCode, a.body)
			}
			c.ends()
		})
	}
}

// TestEndWithinABody: a client that ends its side within a body gets 400, and its backend no whole request.
func TestEndWithinABody(t *testing.T) {
	large := strings.Repeat("m", 1<<20)
	for _, buffered := range []bool{true, false} {
		for name, send := range map[string]string{
			"length":  "Content-Length: 10\r\n\r\nhalf",
			"chunked": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
			"trailer": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n",
			"large":   "Content-Length: 5000000\r\n\r\n" + large,
			"bad":     "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
		} {
			t.Run(fmt.Sprint(name, ", buffered ", buffered), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(r *rig) { r.route.Policy.BufferRequest, r.route.Policy.BodyMax = buffered, 0 })
				var whole atomic.Int32
				r.backend(func(p *peer) {
					for p.request() != nil {
						whole.Add(1)
						p.answer("200 OK", "")
					}
				})
				c := r.dial()
				c.send("POST / HTTP/1.1\r\nHost: a\r\n" + send)
				r.must(c.CloseWrite())
				if a := c.status("POST", 400); !a.Close {
					t.Error("no Connection: close")
				}
				c.ends()
				if n := whole.Load(); n != 0 {
					t.Errorf("the backend got %d whole requests", n)
				}
				r.recorded(wire.MethodPost, 400, 1)
			})
		}
	}
}

// trickle sends s byte by byte until the other side is gone.
func trickle(c *client, s string, every time.Duration) {
	for _, b := range []byte(s) {
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(every)
	}
}

func TestHeaderTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		first string
		slow  bool
		asked string // a whole request before
	}{
		"half a head":               {first: "GET / HTTP/1.1\r\nHost"},
		"trickling":                 {slow: true},
		"behind a request":          {asked: "GET /a HTTP/1.1\r\nHost: a\r\n\r\n", first: "GET"},
		"pipelined behind a requst": {asked: "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) { r.settings.HeaderTimeout = short })
			r.backend(mirror)
			cl := r.dial()
			if c.asked != "" {
				cl.send(c.asked)
				cl.expect("GET", 200, "GET /a ")
			}
			began := time.Now()
			if c.slow {
				go trickle(cl, "GET / HTTP/1.1\r\nX: "+strings.Repeat("a", 1000), short/20)
			} else {
				cl.send(c.first)
			}
			if a := cl.status("GET", 408); !a.Close {
				t.Error("no Connection: close")
			}
			if took := time.Since(began); took > 20*short {
				t.Errorf("it took %v", took)
			}
			_, _ = io.Copy(io.Discard, cl.r)
		})
	}
}

// TestIdleTimeouts: a client that says nothing is closed without an answer: who never asked, and who asks no more.
func TestIdleTimeouts(t *testing.T) {
	r := newRig(t, func(r *rig) { r.settings.FirstByteTimeout, r.settings.KeepAliveTimeout = short, 4*short })
	r.backend(mirror)
	began := time.Now()
	silent := r.dial()
	silent.ends()
	if took := time.Since(began); took < short/2 || took > 20*short {
		t.Errorf("a silent client was closed after %v", took)
	}
	c := r.dial()
	c.get("/")
	c.expect("GET", 200, "GET / ")
	time.Sleep(2 * short) // longer than the time for a first byte
	c.get("/b")
	c.expect("GET", 200, "GET /b ")
	began = time.Now()
	c.ends()
	if took := time.Since(began); took < 2*short || took > 30*short {
		t.Errorf("an idle client was closed after %v", took)
	}
}

// TestLongExchange: neither timeout of an idle connection runs while a backend works.
func TestLongExchange(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.settings.FirstByteTimeout, r.settings.KeepAliveTimeout, r.settings.HeaderTimeout = 2*short, 2*short, short
		r.settings.BodyTimeout, r.settings.SendTimeout = short, short
	})
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			time.Sleep(4 * short)
			p.answer("200 OK", q.body)
		}
	})
	c := r.dial()
	c.get("/")
	c.expect("GET", 200, "")
	c.post("/", "body")
	c.expect("POST", 200, "body")
}

func TestBodyTimeout(t *testing.T) {
	for _, buffered := range []bool{true, false} {
		for name, body := range map[string]string{
			"length":  "Content-Length: 10\r\n\r\nhalf",
			"none":    "Content-Length: 10\r\n\r\n",
			"chunked": "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
			"spliced": "Content-Length: 5000000\r\n\r\n" + strings.Repeat("m", 1<<20),
			"expect":  "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
		} {
			t.Run(fmt.Sprint(name, ", buffered ", buffered), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(r *rig) {
					r.settings.BodyTimeout = short
					r.route.Policy.BufferRequest, r.route.Policy.BodyMax = buffered, 0
				})
				var whole atomic.Int32
				r.backend(func(p *peer) {
					for p.request() != nil {
						whole.Add(1)
					}
				})
				c := r.dial()
				c.send("POST / HTTP/1.1\r\nHost: a\r\n" + body)
				if name == "expect" {
					c.status("POST", 100)
				}
				if a := c.status("POST", 408); !a.Close {
					t.Error("no Connection: close")
				}
				c.ends()
				if n := whole.Load(); n != 0 {
					t.Errorf("the backend got %d whole requests", n)
				}
			})
		}
	}
}

// TestMinimumRate: a client that always sends a little in time, but too little in all, is not waited for.
func TestMinimumRate(t *testing.T) {
	for name, c := range map[string]struct {
		head   string
		before string // sent at once
	}{
		"length":  {head: "Content-Length: 100000\r\n"},
		"chunked": {head: "Transfer-Encoding: chunked\r\n", before: "186a0\r\n"},
		"spliced": {head: "Content-Length: 5000000\r\n", before: strings.Repeat("m", 200_000)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) {
				r.settings.BodyTimeout, r.settings.RateGrace, r.settings.RateMin = patience, short, 1_000_000
				r.route.Policy.BufferRequest, r.route.Policy.BodyMax = false, 0
			})
			r.backend(func(p *peer) {
				for p.request() != nil {
					p.answer("200 OK", "")
				}
			})
			cl := r.dial()
			cl.send("POST / HTTP/1.1\r\nHost: a\r\n" + c.head + "\r\n" + c.before)
			go trickle(cl, strings.Repeat("a", 1000), short/20)
			cl.status("POST", 408)
			_, _ = io.Copy(io.Discard, cl.r)
			if n := r.srv.Stats.Loops()[0].Errors[fastpath.FaultClient][fastpath.KindTooSlow].Load(); n != 1 {
				t.Errorf("counted as too slow: %d", n)
			}
		})
	}
}

// TestRateIsOfTheClient: the time that a backend takes over a body does not make its client slow.
func TestRateIsOfTheClient(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.settings.RateGrace, r.settings.RateMin = 2*short, 20_000_000
		r.route.Policy.BufferRequest, r.route.Policy.BodyMax = false, 0
	})
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			time.Sleep(4 * short)
			n, err := io.Copy(io.Discard, q.Body)
			if err != nil {
				return
			}
			p.answer("200 OK", fmt.Sprint(n))
		}
	})
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
	_, err := io.Copy(c, io.LimitReader(zeros{}, 20_000_000))
	r.must(err)
	c.expect("POST", 200, "20000000")
}

// readers are responses whose client is slow: copied and spliced.
var readers = map[string]string{"copied": "Transfer-Encoding: chunked\r\n", "spliced": "Content-Length: 20000000\r\n"}

func endlessAnswer(field string) func(p *peer) {
	return func(p *peer) {
		for p.request() != nil {
			p.send("HTTP/1.1 200 OK\r\n" + field + "\r\n")
			if field[0] == 'T' {
				if _, err := io.CopyBuffer(chunks{p}, io.LimitReader(struct{ io.Reader }{zeros{}}, 20_000_000), make([]byte, 1<<20)); err != nil {
					return
				}
				p.send("0\r\n\r\n")
			} else if _, err := io.Copy(p, io.LimitReader(zeros{}, 20_000_000)); err != nil {
				return
			}
		}
	}
}

// TestSlowReader: a client that takes nothing of its response is cut, and its backend freed.
func TestSlowReader(t *testing.T) {
	for name, field := range readers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) { r.settings.SendTimeout = short })
			r.backend(endlessAnswer(field))
			c := r.dial()
			_ = c.SetReadBuffer(4 << 10)
			c.get("/")
			r.recorded(wire.MethodGet, statusClientGone, 1)
			c.cut()
		})
	}
}

// TestPatientReader: one that takes some now and then is served on, although our kernel asks for more only rarely.
func TestPatientReader(t *testing.T) {
	for name, field := range readers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) { r.settings.SendTimeout = stall })
			r.backend(endlessAnswer(field))
			c := r.dial()
			_ = c.SetReadBuffer(16 << 10)
			c.get("/")
			res, err := http.ReadResponse(c.r, nil)
			r.must(err)
			buf := make([]byte, 8<<10)
			for end := time.Now().Add(3 * stall / 2); time.Now().Before(end); time.Sleep(short / 10) {
				if _, err := io.ReadFull(res.Body, buf); err != nil {
					t.Fatalf("cut: %v", err)
				}
			}
			if n := r.srv.Stats.Active(); n != 1 {
				t.Errorf("%d exchanges under way, want 1", n)
			}
		})
	}
}
