package upstream

import (
	"net"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// waiting is a peer that only notes what it is told.
type waiting struct {
	s   Stream
	err *fastpath.Error
	n   int
}

func (p *waiting) OnStream(s Stream, err *fastpath.Error) { p.s, p.err, p.n = s, err, p.n+1 }
func (p *waiting) OnResponse()                            {}
func (p *waiting) OnRoom()                                {}
func (p *waiting) OnStreamTimeout()                       {}

// opened asks for so many streams to the cluster's first endpoint, and answers those that were had and the last refusal.
func opened(t *testing.T, env *Env, c *Cluster, n int) (streams []Stream, refused *fastpath.Error) {
	t.Helper()
	l := env.Loops[0]
	peers := make([]*waiting, n)
	on(t, l, func() {
		for i := range peers {
			peers[i] = &waiting{}
			s, ready, err := c.current.Load().ready[0].Open(l, peers[i], OpenOptions{})
			if err != nil {
				refused = err
				peers[i] = nil
			} else if ready {
				peers[i].s = s
			}
		}
	})
	for _, p := range peers {
		if p == nil {
			continue
		}
		eventually(t, "the stream is there", func() (there bool) {
			on(t, l, func() { there = p.s != nil })
			return there
		})
		streams = append(streams, p.s)
	}
	return streams, refused
}

func silent(c net.Conn, _ int) { time.Sleep(patience) }

func TestBreaker(t *testing.T) {
	for _, c := range []struct {
		name string
		Breaker
		want  int
		err   *fastpath.Error
		which Overflow
	}{
		{"requests", Breaker{Requests: 3}, 3, ErrRequests, OverflowRequests},
		{"connections", Breaker{Connections: 2}, 2, ErrConnections, OverflowConnections},
		{"pending", Breaker{Pending: 4}, 4, ErrPending, OverflowPending},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := newEnv(t, 1)
			cl := cluster(t, env, Settings{Breaker: c.Breaker}, newServer(t, silent).addr())
			streams, err := opened(t, env, cl, 6)
			if len(streams) != c.want || err != c.err || cl.Overflows()[c.which] != uint64(6-c.want) {
				t.Fatalf("%d streams, %v, overflows %v; want %d", len(streams), err, cl.Overflows(), c.want)
			}
			if !Overloaded(err) {
				t.Error("the error is not known as a breaker's")
			}
			on(t, env.Loops[0], func() {
				for _, s := range streams {
					s.Release()
				}
			})
			u := &cl.under
			if a, b, d := u.requests.Load(), u.pending.Load(), u.connections.Load(); a != 0 || b != 0 || d != 0 {
				t.Errorf("at rest %d requests, %d pending, %d connections are counted", a, b, d)
			}
			if again, _ := opened(t, env, cl, 1); len(again) != 1 {
				t.Error("no stream after the others have ended")
			}
		})
	}
}

// TestBreakerBetweenLoops: an idle connection of one loop gives way to another loop, which is refused no longer than that takes.
func TestBreakerBetweenLoops(t *testing.T) {
	env := newEnv(t, 2)
	e := only(t, cluster(t, env, Settings{Breaker: Breaker{Connections: 1}}, newServer(t, answering(empty)).addr()))
	get("/").do(t, env, e).ok(t, 200, "")
	if n := idle(t, env, e); n != 1 {
		t.Fatalf("%d idle sessions", n)
	}
	l := env.Loops[1]
	p := &waiting{}
	var s Stream
	eventually(t, "a connection of the second loop", func() (begun bool) {
		on(t, l, func() {
			var err *fastpath.Error
			s, _, err = e.Open(l, p, OpenOptions{})
			begun = err == nil
		})
		return begun
	})
	eventually(t, "its stream is there", func() (there bool) {
		on(t, l, func() { there = p.n > 0 && p.s != nil && p.err == nil })
		return there
	})
	on(t, l, func() { s.Release() })
}

// Connections that fail are taken out of every count.
func TestBreakerCountsFailuresOut(t *testing.T) {
	env := newEnv(t, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	c := cluster(t, env, Settings{Breaker: Breaker{Requests: 10, Pending: 10, Connections: 10}}, at)
	var p waiting
	on(t, env.Loops[0], func() {
		_, _, p.err = c.current.Load().ready[0].Open(env.Loops[0], &p, OpenOptions{})
	})
	eventually(t, "the connection is refused", func() (told bool) {
		on(t, env.Loops[0], func() { told = p.err != nil })
		return told
	})
	u := &c.under
	if a, b, d := u.requests.Load(), u.pending.Load(), u.connections.Load(); a != 0 || b != 0 || d != 0 {
		t.Errorf("%d requests, %d pending, %d connections are counted", a, b, d)
	}
}

func TestRetryBudget(t *testing.T) {
	c := still(t, 1, RoundRobin, 1)
	granted := func(b Breaker, requests int64) (n int) {
		c.SetSettings(Settings{Breaker: b})
		c.under.requests.Store(requests)
		c.under.retries.Store(0)
		for range 100 {
			if _, ok := c.Retry(); ok {
				n++
			}
		}
		return n
	}
	for _, x := range []struct {
		Breaker
		requests int64
		want     int
	}{
		{Breaker{}, 0, 100},
		{Breaker{Retries: 7}, 0, 7},
		{Breaker{RetryBudget: 20}, 0, 3},
		{Breaker{RetryBudget: 20}, 100, 20},
		{Breaker{RetryBudget: 20, Retries: 5}, 100, 5},
	} {
		if n := granted(x.Breaker, x.requests); n != x.want {
			t.Errorf("%+v with %d requests: %d retries, want %d", x.Breaker, x.requests, n, x.want)
		}
	}
}
