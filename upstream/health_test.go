package upstream

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// patient is a backend whose status the test chooses; 0: it hangs up.
func patient(t *testing.T, status *atomic.Int32) *server {
	return newServer(t, func(c net.Conn, _ int) {
		buf := make([]byte, 4096)
		if _, err := c.Read(buf); err == nil && status.Load() != 0 {
			fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", status.Load())
		}
	})
}

func TestHealthChecks(t *testing.T) {
	env := newEnv(t, 1)
	var one, two, three atomic.Int32
	one.Store(200)
	two.Store(200)
	three.Store(200)
	c := cluster(t, env, Settings{AllowLoopback: true}, patient(t, &one).addr(), patient(t, &two).addr(), patient(t, &three).addr())
	c.SetSettings(Settings{AllowLoopback: true, Check: Check{Kind: CheckHTTP, Path: "/healthz", Interval: 5 * time.Millisecond, Healthy: 2, Unhealthy: 2}})
	seen := func() map[*Endpoint]bool {
		m := map[*Endpoint]bool{}
		on(t, env.Loops[0], func() {
			for range 30 {
				m[c.Pick(Wish{})] = true
			}
		})
		return m
	}
	if len(seen()) != 3 {
		t.Fatal("endpoints are unhealthy before a check said so")
	}
	one.Store(503)
	bad := c.current.Load().ready[0]
	eventually(t, "the first one gets no requests", func() bool { m := seen(); return len(m) == 2 && !m[bad] })
	if s := c.Endpoints()[0]; s.Unhealthy == "" || s.Stats.ChecksFailed == 0 || s.Stats.Checks < s.Stats.ChecksFailed {
		t.Errorf("state %+v", s)
	}
	two.Store(0)
	three.Store(500)
	eventually(t, "all are used when most are unhealthy", func() bool { return len(seen()) == 3 })
	one.Store(204)
	two.Store(302)
	eventually(t, "those that are well again are used", func() bool { m := seen(); return len(m) == 2 && m[bad] })
	c.SetSettings(Settings{AllowLoopback: true})
	eventually(t, "without checks all are used", func() bool { return len(seen()) == 3 })
}

// Whether health counts is judged by what all checks found, also when others end while one judges.
func TestPanicIsJudgedInTurn(t *testing.T) {
	c := still(t, 1, RoundRobin, 2)
	all := c.current.Load().ready
	all[0].unhealthy.Store(true)
	all[1].unhealthy.Store(true)
	c.judging.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.judgePanic()
	}()
	select {
	case <-done:
		t.Error("it was judged while another check did")
	case <-time.After(20 * time.Millisecond):
	}
	all[1].unhealthy.Store(false)
	c.judging.Unlock()
	<-done
	if c.panics.Load() {
		t.Error("health does not count, although half of the endpoints are well")
	}
}

func TestHealthCheckTCP(t *testing.T) {
	env := newEnv(t, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	good := newServer(t, silent)
	c := cluster(t, env, Settings{AllowLoopback: true}, good.addr(), ln.Addr().(*net.TCPAddr).AddrPort())
	c.SetSettings(Settings{AllowLoopback: true, Check: Check{Kind: CheckTCP, Interval: 5 * time.Millisecond, Unhealthy: 1}})
	eventually(t, "both were checked", func() bool { s := c.Stats(); return s.Checks >= 2 && s.ChecksFailed == 0 })
	ln.Close()
	eventually(t, "one is unhealthy", func() bool { return c.Endpoints()[1].Unhealthy != "" && c.Endpoints()[0].Unhealthy == "" })
}

// An endpoint whose answers are errors is ejected, and comes back; never more than the panic threshold leaves.
func TestOutlierByAnswers(t *testing.T) {
	j := newJudged(t, 4)
	j.SetSettings(Settings{Outlier: Outlier{Errors: 3, Ejection: 7 * time.Second, Panic: 75}})
	answer := func(i int, bad ...bool) {
		on(t, j.env.Loops[0], func() {
			for _, b := range bad {
				j.current.Load().ready[i].Answered(j.env.Loops[0], b, j.env.Loops[0].Now())
			}
		})
	}
	answer(0, true, true, false, true, true)
	j.want("never three in a row", 0, 0, 0, 0)
	answer(0, true)
	j.want("three in a row", 7, 0, 0, 0)
	answer(1, true, true, true)
	j.want("the threshold", 7, 0, 0, 0)
	j.later(0)
	answer(0, true, true, true)
	j.want("again at once", 14, 0, 0, 0)
	j.later(0)
	answer(0, true, false, true, true, true)
	j.want("after a good answer", 7, 0, 0, 0)
	j.later(0)
	answer(0, true, true, true)
	j.want("again at once", 14, 0, 0, 0)
	answer(0, true, false)
	j.want("answers from before", 14, 0, 0, 0)
	j.later(0)
	answer(0, true, true, true)
	j.want("which forgive nothing", 28, 0, 0, 0)
	j.later(0)
	answer(0, false)
	if until := j.current.Load().ready[0].ejectedUntil.Load(); until != 0 {
		t.Error("a good answer leaves the ejection that is over")
	}
	answer(0, true, true, true)
	j.want("after nothing but good answers", 7, 0, 0, 0)
}

// A new endpoint gets a tenth of its share at first, and all of it in the end; the first ones of a cluster start at once.
func TestSlowStart(t *testing.T) {
	c := still(t, 1, RoundRobin, 3)
	now := int64(1)
	c.loops[0].clock = func() int64 { return now }
	share := func(e *Endpoint) (n int) {
		for range 3000 {
			if c.Pick(Wish{}) == e {
				n++
			}
		}
		return n
	}
	c.SetSettings(Settings{Keyed: true, SlowStart: time.Minute})
	for _, e := range c.current.Load().ready {
		if n := share(e); n != 1000 {
			t.Errorf("%v got %d of 3000 at the start", e.addr, n)
		}
	}
	c.Apply(addresses(place(0), place(1), place(2), place(3)))
	e := c.current.Load().ready[3]
	now = e.warmFrom.Load()
	at := func(part time.Duration, low, high int) {
		t.Helper()
		now = e.warmFrom.Load() + int64(part)
		if n := share(e); n < low || n > high {
			t.Errorf("after %v: %d of 3000, want %d to %d", part, n, low, high)
		}
	}
	at(time.Second, 40, 160)
	at(30*time.Second, 300, 600)
	at(time.Minute, 750, 750)
}
