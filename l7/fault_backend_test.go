package l7

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// once leads the first connection of a backend by misbehave, after a request has come, and all others well.
func once(misbehave func(p *peer)) func(*peer) {
	return func(p *peer) {
		if p.n > 0 {
			mirror(p)
			return
		}
		if p.request() != nil {
			misbehave(p)
		}
	}
}

// says sends bytes and waits for the proxy to go, so that nothing but the bytes can be the reason.
func says(bytes string) func(*peer) {
	return func(p *peer) {
		p.send(bytes)
		p.gone(patience)
	}
}

// TestFaultBeforeTheHead: whatever a backend does instead of answering, the client gets a whole answer of the proxy's.
func TestFaultBeforeTheHead(t *testing.T) {
	many := strings.Repeat("A: b\r\n", 250)
	for name, c := range map[string]struct {
		status int
		do     func(*peer)
		silent string // in place of do: what it says before it says nothing more
	}{
		"garbage":                 {502, says("hello\r\n\r\n"), ""},
		"binary":                  {502, says("\x00\x01\x02"), ""},
		"no status":               {502, says("HTTP/1.1 abc OK\r\n\r\n"), ""},
		"HTTP/2":                  {502, says("HTTP/2.0 200 OK\r\n\r\n"), ""},
		"LF only":                 {502, says("HTTP/1.1 200 OK\nContent-Length: 0\n\n"), ""},
		"control character":       {502, says("HTTP/1.1 200 OK\r\nA: \x01\r\nContent-Length: 0\r\n\r\n"), ""},
		"folded":                  {502, says("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), ""},
		"huge line":               {502, says("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 20<<10) + "\r\n\r\n"), ""},
		"huge head":               {502, says("HTTP/1.1 200 OK\r\n" + strings.Repeat("A: "+strings.Repeat("x", 10<<10)+"\r\n", 8)), ""},
		"many fields":             {502, says("HTTP/1.1 200 OK\r\n" + many + "\r\n"), ""},
		"two lengths":             {502, says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), ""},
		"length and chunked":      {502, says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), ""},
		"unknown coding":          {502, says("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), ""},
		"unasked 101":             {502, says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), ""},
		"silence":                 {504, nil, ""},
		"half a head and silence": {504, nil, "HTTP/1.1 200 OK\r\nContent-"},
		"interim and silence":     {504, nil, "HTTP/1.1 100 Continue\r\n\r\n"},
		"end":                     {502, func(*peer) {}, ""},
		"end within the head":     {502, func(p *peer) { p.send("HTTP/1.1 200 OK\r\nContent-") }, ""},
		"reset":                   {502, (*peer).reset, ""},
		"reset within the head":   {502, func(p *peer) { p.send("HTTP/1.1 200 OK\r\n"); time.Sleep(short / 10); p.reset() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) { r.route.Policy.Tries, r.route.Policy.ReadTimeout = 1, far })
			if c.do == nil {
				c.do = r.silent(c.silent)
			}
			r.backend(once(c.do))
			cl := r.dial()
			cl.get("/")
			if a := cl.status("GET", c.status); a.Close {
				t.Error("the client's connection ends for the backend's fault")
			}
			cl.get("/next")
			cl.expect("GET", 200, "GET /next ")
			r.recorded(1, c.status, 1)
		})
	}
}

// TestFaultAfterTheHead: a response that breaks off is cut visibly: by a reset, and never behind what looks complete.
func TestFaultAfterTheHead(t *testing.T) {
	const (
		length  = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
		large   = "HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n"
		chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
		toEnd   = "HTTP/1.1 200 OK\r\n\r\nhello"
	)
	megabyte := strings.Repeat("m", 1<<20)
	send := func(s string) func(*peer) { return func(p *peer) { p.send(s) } }
	reset := func(s string) func(*peer) {
		return func(p *peer) {
			p.send(s)
			time.Sleep(short / 10) // else the reset overtakes the bytes
			p.reset()
		}
	}
	silence := map[string]string{
		"length, silence":     length + "half",
		"large, silence":      large + megabyte,
		"chunked, silence":    chunked,
		"to the end, silence": toEnd,
	}
	for name, do := range map[string]func(*peer){
		"length, end":              send(length + "half"),
		"length, nothing":          send(length),
		"length, reset":            reset(length + "half"),
		"length, silence":          nil,
		"large, end":               send(large + megabyte),
		"large, reset":             reset(large + megabyte),
		"large, silence":           nil,
		"chunked, end":             send(chunked),
		"chunked, end in size":     send(chunked + "5"),
		"chunked, end in data":     send(chunked + "5\r\nhe"),
		"chunked, end in trailers": send(chunked + "0\r\nA: b\r\n"),
		"chunked, no last CRLF":    send(chunked + "0\r\n"),
		"chunked, reset":           reset(chunked),
		"chunked, silence":         nil,
		"chunked, bad size":        says(chunked + "zz\r\n"),
		"chunked, bad end of data": says(chunked + "1\r\nabc"),
		"chunked, bad trailer":     says(chunked + "0\r\nA : b\r\n\r\n"),
		"to the end, reset":        reset(toEnd),
		"to the end, silence":      nil,
	} {
		for _, minor := range []int{1, 0} {
			t.Run(fmt.Sprint(name, ", HTTP/1.", minor), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(r *rig) { r.route.Policy.ReadTimeout, r.settings.SendTimeout = far, 1000*far })
				if do == nil {
					do = r.silent(silence[name])
				}
				b := r.backend(once(do))
				c := r.dial()
				c.send(fmt.Sprintf("GET / HTTP/1.%d\r\nHost: a\r\n\r\n", minor))
				raw := c.cut()
				if n := b.accepted.Load(); n != 1 {
					t.Errorf("the backend was asked %d times", n)
				}
				if strings.HasSuffix(raw, "\r\n0\r\n\r\n") {
					t.Error("the cut response has a last chunk")
				}
				r.recorded(1, 200, 1)
				if n := r.errors(fastpath.FaultBackend); n != 1 {
					t.Errorf("%d errors of the backend were counted, want 1", n)
				}
			})
		}
	}
}

// TestMoreThanTheLength: what a backend sends behind its answer reaches nobody, and its connection is not used again.
func TestMoreThanTheLength(t *testing.T) {
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"none":    "HTTP/1.1 204 No Content\r\n\r\n",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", later ", later), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				b := r.backend(once(func(p *peer) {
					if later {
						p.send(answer)
						time.Sleep(short / 10)
						p.send(poison)
					} else {
						p.send(answer + poison)
					}
					p.gone(patience)
				}))
				c := r.dial()
				c.get("/")
				if a := c.response("GET"); a.StatusCode >= 300 || a.body != "ok" && a.body != "" {
					t.Errorf("answer %d %q", a.StatusCode, a.body)
				}
				r.eventually("the backend's connection ends", func() bool { return r.cluster.Stats().Open == 0 })
				c.get("/next")
				c.expect("GET", 200, "GET /next ")
				if n := b.accepted.Load(); n != 2 {
					t.Errorf("%d backend connections, want 2", n)
				}
			})
		}
	}
}

// TestSlowBackend: proxy-read-timeout is between two reads, not for the whole response.
func TestSlowBackend(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.ReadTimeout = stall })
	r.backend(func(p *peer) {
		for p.request() != nil {
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
			for range 8 {
				time.Sleep(stall / 5)
				p.send(".")
			}
		}
	})
	c := r.dial()
	c.get("/")
	c.expect("GET", 200, "........")
}

// TestBusyProxyIsNotTheBackends: between two turns of an answer that has come the backend owes nothing, however long the proxy is
// busy with others.
func TestBusyProxyIsNotTheBackends(t *testing.T) {
	const first, more = 1 << 20, 3 * relayBytes // the first has the kernel take the other in one piece
	r := newRig(t, func(r *rig) { r.route.Policy.ReadTimeout, r.settings.SendTimeout = far, 1000*far })
	goOn, said := make(chan struct{}), make(chan struct{})
	r.backend(func(p *peer) {
		for p.request() != nil {
			p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			p.send(fmt.Sprintf("%x\r\n%s\r\n", first, strings.Repeat("a", first)))
			<-goOn
			p.send(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", more, strings.Repeat("b", more)))
			close(said)
		}
	})
	cl := r.dial()
	cl.get("/")
	res, err := http.ReadResponse(cl.r, nil)
	r.must(err)
	_, err = io.CopyN(io.Discard, res.Body, first)
	r.must(err)
	r.on(func() {
		close(goOn)
		receive(r, "the rest at the proxy's socket", said)
		r.skip(2 * far)
	})
	if n, err := io.Copy(io.Discard, res.Body); n != more || err != nil {
		t.Errorf("%d bytes of %d, %v", n, more, err)
	}
}

// TestSlowClientIsNotTheBackends: while the client is what is waited for, proxy-read-timeout does not run.
func TestSlowClientIsNotTheBackends(t *testing.T) {
	for name, field := range readers {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.ReadTimeout, r.settings.SendTimeout = far, 1000*far })
			r.backend(endlessAnswer(field))
			c := r.dial()
			c.get("/")
			waited := 0
			r.eventually("the client is waited for", func() bool {
				r.on(func() {
					r.loops[0].Each(func(h fastpath.Handler) {
						if h, ok := h.(*http1); ok && h.stalled { // the backend's time stands still in this very moment
							r.skip(10 * far)
							waited++
						}
					})
				})
				return waited >= 5
			})
			res, err := http.ReadResponse(c.r, nil)
			r.must(err)
			if n, err := io.Copy(io.Discard, res.Body); n != 20_000_000 || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
}
