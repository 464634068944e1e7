package l7

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// TestDrain: idle connections end at once; requests under way, and the first one of who has only just come, are answered
// with Connection: close; tunnels live on until they are told to end.
func TestDrain(t *testing.T) {
	r := newRig(t)
	r.probeless = true // every request has a connection of its own now
	answer := make(chan bool)
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			switch {
			case q.Header.Get("Upgrade") != "":
				p.send(switching)
				_, _ = io.Copy(struct{ io.Writer }{p}, struct{ io.Reader }{p.r})
				return
			case q.RequestURI == "/slow":
				<-answer
			}
			p.answer("200 OK", q.RequestURI)
		}
	})
	idle, fresh, busy, half, ws := r.dial(), r.dial(), r.dial(), r.dial(), r.dial()
	idle.get("/")
	idle.expect("GET", 200, "/")
	busy.get("/slow")
	half.get("/")
	half.expect("GET", 200, "/")
	half.send("GET /half HTTP/1.1\r\nHo")
	ws.send(webSocket)
	ws.upgraded()
	r.eventually("all is under way", func() bool { return r.srv.Stats.Active() == 2 })
	r.on(func() {})

	r.srv.Drain(r.loops)
	idle.ends()
	if r.srv.Idle() {
		t.Error("idle, with a request and a tunnel under way")
	}
	late := r.dial() // accepted just before the doors closed
	r.on(func() {})
	time.Sleep(short / 10)
	late.get("/late")
	late.expect("GET", 200, "/late")
	late.ends()
	fresh.get("/fresh")
	if a := fresh.expect("GET", 200, "/fresh"); !a.Close {
		t.Error("a newcomer's answer lacks Connection: close")
	}
	fresh.ends()
	half.send("st: a\r\n\r\n")
	if a := half.expect("GET", 200, "/half"); !a.Close {
		t.Error("the answer to what was half there lacks Connection: close")
	}
	half.ends()
	close(answer)
	if a := busy.expect("GET", 200, "/slow"); !a.Close {
		t.Error("the answer under way lacks Connection: close")
	}
	busy.ends()
	ws.send("still there")
	ws.wants("still there")
	if r.srv.Idle() {
		t.Error("idle, with a tunnel")
	}
	r.srv.CloseTunnels(r.loops)
	ws.cut()
	r.eventually("idle", r.srv.Idle)
}

// TestDrainLosesNothing: clients that ask on while a drain begins have nothing to repeat: the last answer that each gets
// says that the connection ends.
func TestDrainLosesNothing(t *testing.T) {
	r := newRig(t)
	r.probeless = true
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			time.Sleep(time.Millisecond)
			p.answer("200 OK", q.RequestURI)
		}
	})
	var running sync.WaitGroup
	var answered, repeated atomic.Int64
	for i := range 20 {
		c := r.dial()
		running.Add(1)
		go func() {
			defer running.Done()
			for k := 0; ; k++ {
				target := fmt.Sprintf("/%d/%d", i, k)
				if _, err := io.WriteString(c, "GET "+target+" HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
					repeated.Add(1)
					return
				}
				if _, err := c.r.Peek(1); err != nil { // closed before a byte of an answer: to be repeated
					if k == 0 {
						t.Error("a fresh connection was closed without an answer")
					}
					repeated.Add(1)
					return
				}
				a := c.response("GET")
				if a.body != target || a.err != nil {
					t.Errorf("answer %d %q %v", a.StatusCode, a.body, a.err)
				}
				answered.Add(1)
				if a.Close {
					return
				}
			}
		}()
	}
	r.eventually("traffic", func() bool { return answered.Load() > 100 })
	r.srv.Drain(r.loops)
	running.Wait()
	r.eventually("idle", r.srv.Idle)
	if t.Logf("%d answered", answered.Load()); repeated.Load() > 0 {
		t.Errorf("%d requests met a connection that closed", repeated.Load())
	}
}

// TestDrainPipelined: behind the answer that says close nothing more is answered.
func TestDrainPipelined(t *testing.T) {
	r := newRig(t)
	r.probeless = true
	asked := make(chan string, 10)
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			asked <- q.RequestURI
			time.Sleep(short)
			p.answer("200 OK", "")
		}
	})
	c := r.dial()
	c.send(strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 5))
	receive(t, "the first request", asked)
	r.srv.Drain(r.loops)
	if a := c.expect("GET", 200, ""); !a.Close {
		t.Error("no Connection: close")
	}
	c.ends()
	if n := len(asked); n != 0 {
		t.Errorf("%d more requests reached the backend", n)
	}
	r.recorded(wire.MethodGet, 200, 1)
}
