package upstream

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Endpoints keep their state by address, whatever else changes.
func TestApplyKeeps(t *testing.T) {
	env := newEnv(t, 1)
	a, b := newServer(t, answering(empty)).addr(), newServer(t, answering(empty)).addr()
	c := cluster(t, env, Settings{}, a, b)
	first := c.current.Load().ready[0]
	get("/").do(t, env, first).ok(t, 200, "")

	mapped := netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port()) // ::ffff:127.0.0.1
	c.Apply([]Address{{Addr: b}, {Addr: mapped, Terminating: true}, {Addr: b}})
	v := c.current.Load()
	if len(v.ready) != 1 || len(v.terminating) != 1 || v.terminating[0] != first {
		t.Fatalf("%d ready, %d terminating", len(v.ready), len(v.terminating))
	}
	c.Apply([]Address{{Addr: a, Terminating: true}, {Addr: a}})
	if e := only(t, c); e != first {
		t.Fatal("another endpoint at the same address")
	}
	if got := get("/").do(t, env, first).ok(t, 200, ""); !got.reused {
		t.Error("the pool was lost")
	}
	c.Apply(nil)
	if n := idle(t, env, first); n != 0 {
		t.Errorf("%d idle sessions of a removed endpoint", n)
	}
	c.Apply(addresses(a))
	if only(t, c) == first {
		t.Error("a removed endpoint came back with its past")
	}
	if s := c.Stats(); s.Requests != 2 || s.Open != 0 {
		t.Errorf("%+v, want the removed endpoint's requests in it", s)
	}
}

// What is under way on a removed endpoint goes on to its end, and then closes.
func TestRemovedEndpointServesOn(t *testing.T) {
	for _, closed := range []bool{false, true} {
		env, do := newEnv(t, 1), make(chan struct{})
		serve := func(c net.Conn, _ int) {
			readRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
			<-do
			_, _ = io.WriteString(c, "lo")
			wait10(c)
		}
		c := cluster(t, env, Settings{}, newServer(t, serve).addr())
		e := only(t, c)
		r, headed := get("/"), make(chan struct{})
		r.done = make(chan struct{})
		r.head = func(*caller) bool {
			close(headed)
			return false
		}
		env.Loops[0].Post(func() { r.start(env.Loops[0], e) })
		wait(t, headed, "the head")
		if closed {
			c.Close()
		} else {
			c.Apply(nil)
		}
		on(t, env.Loops[0], func() {
			if e := c.Pick(Wish{}); e != nil {
				t.Errorf("picked %v of an empty cluster", e.addr)
			}
		})
		if s := c.Stats(); s.Active != 1 || s.Open != 1 {
			t.Errorf("%+v, want the exchange under way in it", s)
		}
		close(do)
		wait(t, r.done, "the answer")
		r.ok(t, 200, "hello")
		if s := c.Stats(); s != (Stats{Requests: 1, Connects: 1}) {
			t.Errorf("%+v, want all closed", s)
		}
	}
}

// Who waits for a connection to an endpoint that is removed is told at once, if there is another one to ask; its failures say
// nothing to anybody then.
func TestRemovedWhileDialling(t *testing.T) {
	silent := func(t *testing.T) netip.AddrPort { return newServer(t, func(c net.Conn, _ int) { wait10(c) }).addr() }
	for name, c := range map[string]struct {
		settings Settings
		addr     func(*testing.T) netip.AddrPort
	}{
		"dialling":         {Settings{}, fullBacklog},
		"shaking hands":    {Settings{TLS: &TLS{}}, silent},
		"HTTP/2, dialling": {http2(false), fullBacklog},
		"HTTP/2, settings": {http2(false), silent},
		"HTTP/2, hands":    {http2(true), silent},
	} {
		t.Run(name, func(t *testing.T) {
			env, addr := newEnv(t, 1), c.addr(t)
			cluster := cluster(t, env, c.settings, addr)
			e := only(t, cluster)
			var callers [3]*caller
			on(t, env.Loops[0], func() {
				for i := range callers {
					callers[i] = get("/")
					callers[i].done = make(chan struct{})
					callers[i].start(env.Loops[0], e)
				}
			})
			on(t, env.Loops[0], func() { callers[1].stream.Release() }) // of those that stay none is lost by it
			cluster.Apply(nil)
			on(t, env.Loops[0], func() {
				if callers[0].closed || callers[2].closed {
					t.Error("given up although there is nobody else")
				}
			})
			cluster.Apply(addresses(addr))
			for _, i := range []int{0, 2} {
				wait(t, callers[i].done, "the word that there is somebody else now")
				callers[i].failed(t, ErrRemoved)
			}
			again, last := get("/"), only(t, cluster)
			again.done = make(chan struct{})
			on(t, env.Loops[0], func() { again.start(env.Loops[0], last) })
			other := netip.MustParseAddrPort("127.0.0.1:9")
			cluster.Apply(addresses(other))
			wait(t, again.done, "the word of the removal")
			again.failed(t, ErrRemoved)
			if s := last.Stats(); s != (Stats{Requests: 1, Connects: s.Connects}) {
				t.Errorf("%+v, want nothing open and no failure", s)
			}
			on(t, env.Loops[0], func() {
				for range ejectAfter {
					e.Failed(env.Loops[0], ErrHandshake)
				}
			})
			if e.ejectedUntil.Load() != 0 {
				t.Error("a removed endpoint was ejected")
			}
			if s := e.Stats(); s.Open != 0 || s.Active != 0 || s.ConnectFailures != ejectAfter {
				t.Errorf("%+v, want nothing open and no other failures", s)
			}
		})
	}
}

func TestClosedClusterStaysClosed(t *testing.T) {
	env := newEnv(t, 1)
	a := newServer(t, answering(empty)).addr()
	c := cluster(t, env, Settings{}, a)
	c.Close()
	c.Apply(addresses(a))
	c.SetSettings(Settings{AllowLoopback: true})
	c.Close()
	if s := c.Endpoints(); len(s) != 0 {
		t.Errorf("%d endpoints after Close", len(s))
	}
}

func TestSettingsDefaults(t *testing.T) {
	c := compile(Settings{}, 2, nil)
	if c.ConnectTimeout != 5*time.Second || c.IdleMax != 320 || c.idlePerLoop != 160 || c.IdleTimeout != time.Minute ||
		c.RequestsMax != 10_000 || c.tls != nil || c.err != nil {
		t.Errorf("%+v", c)
	}
	if c := compile(Settings{IdleMax: 3}, 8, nil); c.idlePerLoop != 1 {
		t.Errorf("3 idle sessions over 8 loops: %d each, want 1", c.idlePerLoop)
	}
	if c := compile(Settings{Algorithm: 99}, 1, nil); c.Algorithm != RoundRobin {
		t.Errorf("an unknown algorithm became %d", c.Algorithm)
	}
}

// driver sends one request after the other on its loop, to wherever Pick leads.
type driver struct {
	*caller
	c        *Cluster
	l        *fastpath.Loop
	stop     *atomic.Bool
	wg       *sync.WaitGroup
	requests *atomic.Int64
	failed   func(*fastpath.Error)
}

func (d *driver) next() {
	if d.stop.Load() {
		d.wg.Done()
		return
	}
	e := d.c.Pick(Wish{Loop: d.l.ID, Hash: rand.Uint32()})
	if e == nil {
		d.failed(nil)
		d.wg.Done()
		return
	}
	d.caller = get("/")
	if rand.IntN(3) == 0 {
		d.caller = post("x")
	}
	d.done = make(chan struct{})
	d.start(d.l, e)
	go func(c *caller) {
		<-c.done
		d.requests.Add(1)
		d.l.Post(func() {
			if c.err != nil {
				d.failed(c.err)
			}
			d.next()
		})
	}(d.caller)
}

// No request fails while endpoints come, terminate and go.
func TestEndpointsUnderLoad(t *testing.T) {
	for _, a := range algorithms {
		t.Run(a.name, func(t *testing.T) {
			env := newEnv(t, 2)
			var addrs []netip.AddrPort
			for range 4 {
				addrs = append(addrs, newServer(t, answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).addr())
			}
			c := cluster(t, env, Settings{Algorithm: a.Algorithm, IdleMax: 4}, addrs...)
			var stop atomic.Bool
			var wg sync.WaitGroup
			var requests atomic.Int64
			failed := func(err *fastpath.Error) { t.Errorf("a request failed: %v", err) }
			for i := range 8 {
				wg.Add(1)
				d := &driver{c: c, l: env.Loops[i%2], stop: &stop, wg: &wg, requests: &requests, failed: failed}
				d.l.Post(d.next)
			}
			for i := range 100 {
				var list []Address
				for j, addr := range addrs {
					if (i+j)%4 > 0 {
						list = append(list, Address{Addr: addr, Terminating: (i+j)%4 == 1})
					}
				}
				before := requests.Load()
				c.Apply(list)
				eventually(t, "requests go on", func() bool { return requests.Load() > before+8 })
				_, _ = c.Stats(), c.Endpoints()
			}
			stop.Store(true)
			wg.Wait()
			c.Close()
			for _, l := range env.Loops {
				on(t, l, func() {})
			}
			if s := c.Stats(); s.Active != 0 || s.Open != 0 || s.Idle != 0 || s.Requests != uint64(requests.Load()) || s.ConnectFailures != 0 {
				t.Errorf("%+v after %d requests", s, requests.Load())
			}
			for _, l := range env.Loops {
				if n := l.Stats.Conns.Load(); n != 0 {
					t.Errorf("loop %d has %d connections left", l.ID, n)
				}
			}
		})
	}
}

// The same of who waits for a resting session of HTTP/2 that is asked by PING whether it lives: here it does not say.
func TestRemovedWhileAsked(t *testing.T) {
	b := scripted(t, func(f *frames) {
		f.head(f.request(), true, ":status", "204")
		f.request() // PING is read, and not answered
	})
	env := newEnv(t, 1)
	c := cluster(t, env, http2(false), b.addr())
	e, l := only(t, c), env.Loops[0]
	get("/").do(t, env, e).ok(t, 204, "")
	p := post("body")
	p.done = make(chan struct{})
	on(t, l, func() {
		s := e.loops[0].sessions[0]
		s.idleSince -= int64(time.Hour) // long enough that its backend may just be closing it
		if p.start(l, e); !s.probing {
			t.Fatal("it is not asked")
		}
	})
	c.Apply(nil)
	on(t, l, func() {
		if p.closed {
			t.Error("given up although there is nobody else")
		}
	})
	c.Apply(addresses(netip.MustParseAddrPort("127.0.0.1:9")))
	wait(t, p.done, "the word that there is somebody else now")
	p.failed(t, ErrRemoved)
	on(t, l, func() {})
	if s := e.Stats(); s.Open != 0 || s.Active != 0 || len(e.loops[0].awaited2) != 0 {
		t.Errorf("%+v, %d awaited, want nothing open", s, len(e.loops[0].awaited2))
	}
}

// An endpoint that was removed from an empty cluster serves all who wait for it, also those for whom its first session has no
// room.
func TestRemovedServesThoseWhoWait(t *testing.T) {
	greet := make(chan struct{})
	ln := newServer(t, func(c net.Conn, number int) {
		if number == 0 {
			<-greet
		}
		if _, err := io.ReadFull(c, make([]byte, len(xhttp2.ClientPreface))); err != nil {
			return
		}
		f := &frames{Framer: xhttp2.NewFramer(c, c), conn: c}
		f.enc = hpack.NewEncoder(&f.buf)
		if f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1}) == nil {
			f.serve("hello")
		}
	})
	env := newEnv(t, 1)
	c := cluster(t, env, http2(false), ln.addr())
	e, l := only(t, c), env.Loops[0]
	var callers [3]*caller
	on(t, l, func() {
		for i := range callers {
			callers[i] = get("/")
			callers[i].done = make(chan struct{})
			callers[i].start(l, e)
		}
	})
	c.Apply(nil)
	close(greet)
	for _, r := range callers {
		wait(t, r.done, "the answer")
		r.ok(t, 200, "hello")
	}
}
