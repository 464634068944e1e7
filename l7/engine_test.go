package l7

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// foreign is an engine as HTTP/3 will be one: requests come and answers go on goroutines of their own, which meet the
// exchange on its loop, by Post. It is the second implementation of Client.
type foreign struct {
	loop *fastpath.Loop

	// On the loop.
	x       *Exchange // nil once it is over
	in      []byte
	inEnded bool
	window  int // what may be written until the goroutine has taken some

	// Shared with the goroutine.
	mu    sync.Mutex
	moved sync.Cond
	out   []byte
	fresh int // of out: not yet taken
	head  int // the response's status; 0: not there
	ended bool
	cut   bool
	early []int
}

const foreignWindow = 5000

// ask begins an exchange from another goroutine.
func (r *rig) ask(method wire.Method, target string, framing wire.Framing) *foreign {
	f := &foreign{loop: r.loops[0], window: foreignWindow, inEnded: framing == wire.FramingNone}
	f.moved.L = &f.mu
	f.loop.Post(func() {
		x := r.srv.local(f.loop).exchange()
		x.client, x.Settings, f.x = f, r.settings, x
		x.started = f.loop.Now()
		x.Req.Method, x.Req.Minor = method, 1
		x.Req.Target, x.Req.Path = []byte(target), []byte(target)
		x.Req.Authority, x.Req.Host = []byte("foreign.example"), []byte("foreign.example")
		x.Req.Framing = framing
		r.srv.Stats.ExchangeBegan(f.loop.ID)
		x.serve()
	})
	return f
}

// push brings more of the request's body, or its end.
func (f *foreign) push(b []byte, end bool) {
	b = bytes.Clone(b)
	f.loop.Post(func() {
		f.in, f.inEnded = append(f.in, b...), end
		f.poke()
	})
}

// poke leads the exchange on when there is something of its client's.
func (f *foreign) poke() {
	switch x := f.x; {
	case x == nil:
	case x.stage == stageCollect:
		x.collect()
	case x.sending():
		x.sendBody()
	}
}

// leave cancels the exchange.
func (f *foreign) leave() {
	f.loop.Post(func() {
		if f.x != nil {
			f.x.failed(errClientGone)
		}
	})
}

// finish waits for the end and takes what comes at the pace that it comes; true: it was complete.
func (f *foreign) finish() (status int, body []byte, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.ended && !f.cut {
		if n := f.fresh; n > 0 {
			f.fresh = 0
			f.loop.Post(func() {
				f.window += n
				if f.x != nil && f.x.stage == stageBody {
					f.x.relay()
				}
			})
		}
		f.moved.Wait()
	}
	return f.head, f.out, f.ended
}

// tell changes what the goroutine sees.
func (f *foreign) tell(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	f.moved.Signal()
}

func (f *foreign) ReadBody(max int) ([]byte, *fastpath.Error) {
	if len(f.in) > 0 {
		n := min(max, len(f.in))
		b := f.in[:n]
		f.in = f.in[n:]
		return b, nil
	}
	if f.inEnded {
		return nil, fastpath.ErrEOF
	}
	return nil, fastpath.ErrWouldBlock
}

func (f *foreign) Trailers() []wire.Field { return nil }
func (f *foreign) BodyLeft() int64        { return -1 }
func (f *foreign) Raw() *fastpath.Conn    { return nil }
func (f *foreign) Spliced(int64)          { panic("nothing of it can be spliced") }
func (f *foreign) AwaitBody()             {}
func (f *foreign) RawOut() *fastpath.Conn { return nil }
func (f *foreign) SplicedOut(int64)       { panic("nothing to it can be spliced") }
func (f *foreign) Again()                 { f.loop.Post(f.poke) }

func (f *foreign) WriteInterim(res *wire.Response) *fastpath.Error {
	f.tell(func() { f.early = append(f.early, res.Status) })
	return nil
}

func (f *foreign) WriteHead(x *Exchange, end bool) *fastpath.Error {
	f.tell(func() { f.head = x.Resp.Status })
	return nil
}

func (f *foreign) Room() int { return f.window }

func (f *foreign) WriteBody(b []byte) *fastpath.Error {
	f.window -= len(b)
	f.tell(func() {
		f.out = append(f.out, b...)
		f.fresh += len(b)
	})
	return nil
}

func (f *foreign) EndBody([]wire.Field) *fastpath.Error    { return nil }
func (f *foreign) Tunnel(*Exchange, *fastpath.Conn)        {}
func (f *foreign) TunnelStream(*Exchange, upstream.Stream) {}

func (f *foreign) SetDeadline(t int64) {
	if x := f.x; t != 0 {
		ticket := x.ticket
		time.AfterFunc(time.Duration(t-f.loop.Now()), func() {
			f.loop.Post(func() {
				if f.x == x && x.stage == stageParked && x.ticket == ticket {
					x.expired()
				}
			})
		})
	}
}

func (f *foreign) Done() {
	f.over()
	f.tell(func() { f.ended = true })
}

func (f *foreign) Abort(*fastpath.Error) {
	f.over()
	f.tell(func() { f.cut = true })
}

func (f *foreign) over() {
	x := f.x
	f.x = nil
	x.local.release(x)
}

var _ Client = (*foreign)(nil)

// TestForeignEngine: the contract between exchange and engine holds for one whose clients live on other goroutines.
func TestForeignEngine(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.BodyMax = 0 })
	r.route.Request = []RequestFilter{requestFilter(func(x *Exchange) Verdict {
		if rand.N(3) > 0 {
			return Continue
		}
		k := x.Park(x.Loop().Now() + int64(patience))
		go k.Resume(nil)
		return Park
	})}
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			p.send("HTTP/1.1 103 Early Hints\r\n\r\n")
			p.answer("200 OK", q.RequestURI+q.body)
		}
	})
	var running sync.WaitGroup
	for i := range 60 {
		running.Add(1)
		go func() {
			defer running.Done()
			target := fmt.Sprint("/", i)
			framing := wire.FramingChunked
			if i%5 == 0 {
				framing = wire.FramingNone
			}
			f := r.ask(wire.MethodPut, target, framing)
			var body []byte
			for k, n := 0, rand.N(20); k < n && framing != wire.FramingNone; k++ {
				part := bytes.Repeat([]byte{byte('a' + k)}, rand.N(20_000))
				body = append(body, part...)
				f.push(part, false)
			}
			if framing != wire.FramingNone {
				f.push(nil, true)
			}
			if i%7 == 0 {
				f.leave()
			}
			status, got, ok := f.finish()
			if i%7 == 0 {
				return
			}
			if want := target + string(body); status != 200 || !ok || string(got) != want || len(f.early) != 1 {
				t.Errorf("%d: status %d, %d bytes of %d, complete %v, interim heads %v", i, status, len(got), len(want), ok, f.early)
			}
		}()
	}
	running.Wait()
}

// TestForeignEngineFaults: errors reach such a client too: an answer before the head, a cut after it.
func TestForeignEngineFaults(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.Tries = 1 })
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			switch q.RequestURI {
			case "/garbage":
				p.send("what?")
			case "/half":
				p.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
				return
			default:
				p.answer("200 OK", "")
			}
		}
	})
	for target, want := range map[string]struct {
		status int
		ok     bool
	}{"/garbage": {502, true}, "/half": {200, false}, "/good": {200, true}} {
		f := r.ask(wire.MethodGet, target, wire.FramingNone)
		if status, _, ok := f.finish(); status != want.status || ok != want.ok {
			t.Errorf("%s: status %d, complete %v", target, status, ok)
		}
	}
}

// brokenHead is a foreign engine with a defect.
type brokenHead struct{ *foreign }

func (b brokenHead) WriteHead(*Exchange, bool) *fastpath.Error { panic("broken") }

// TestForeignEnginePanics: a panic in leading a response ends the exchange, although it came with the backend's event.
func TestForeignEnginePanics(t *testing.T) {
	r := newRig(t)
	r.quietly(1)
	r.pick = func(x *Exchange) *Route {
		if f, ok := x.client.(*foreign); ok {
			x.client = brokenHead{f}
		}
		return r.route
	}
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			p.answer(fmt.Sprint(http.StatusOK, " OK"), "")
		}
	})
	if _, _, ok := r.ask(wire.MethodGet, "/", wire.FramingNone).finish(); ok {
		t.Error("the exchange ended well")
	}
}
