package upstream

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// judged is a cluster whose loop time is the test's.
type judged struct {
	*Cluster
	env *Env
	t   *testing.T
}

func newJudged(t *testing.T, endpoints int) judged {
	env := newEnv(t, 1)
	c := NewCluster("shop/web:80", env, Settings{})
	t.Cleanup(c.Close)
	var list []Address
	for i := range endpoints {
		list = append(list, Address{Addr: place(i)})
	}
	c.Apply(list)
	return judged{c, env, t}
}

func (j judged) fail(i, times int) {
	j.t.Helper()
	for range times {
		on(j.t, j.env.Loops[0], func() { j.current.Load().ready[i].Failed(j.env.Loops[0], fastpath.ErrRefused) })
	}
}

// out is for how long endpoint i is ejected, in whole seconds; later lets that pass.
func (j judged) out(i int) (s int) {
	j.t.Helper()
	on(j.t, j.env.Loops[0], func() {
		until := j.current.Load().ready[i].ejectedUntil.Load()
		if left := until - j.env.Loops[0].Now(); until != 0 && left > 0 {
			s = int((time.Duration(left) + time.Second/2) / time.Second)
		}
	})
	return s
}

func (j judged) later(i int) { j.current.Load().ready[i].ejectedUntil.Store(1) }

func (j judged) want(what string, seconds ...int) {
	j.t.Helper()
	for i, want := range seconds {
		if got := j.out(i); got != want {
			j.t.Errorf("%s: endpoint %d is out for %d s, want %d", what, i, got, want)
		}
	}
}

func TestEjection(t *testing.T) {
	j := newJudged(t, 4)
	j.fail(0, 1)
	j.want("one failure", 0, 0, 0, 0)
	j.fail(0, 1)
	j.want("two in a row", 5, 0, 0, 0)
	j.fail(0, 10)
	j.want("more while it is out", 5, 0, 0, 0)
	for _, s := range []int{10, 20, 40, 60, 60} {
		j.later(0)
		j.fail(0, 1)
		j.want("again at once", s, 0, 0, 0)
	}
	e := j.current.Load().ready[0]
	if s := e.Stats(); s.Ejections != 6 || s.ConnectFailures != 17 {
		t.Errorf("%+v", s)
	}
	if s := j.Endpoints()[0]; s.Ejected < 50*time.Second || s.LastFailure != fastpath.ErrRefused.Text {
		t.Errorf("%+v", s)
	}
	on(t, j.env.Loops[0], func() { e.Connected(j.env.Loops[0]) })
	j.want("a success", 0, 0, 0, 0)
	j.fail(0, 1)
	j.want("one failure after it", 0, 0, 0, 0)
	j.fail(0, 1)
	j.want("two", 5, 0, 0, 0)
}

// Half of the endpoints stay, whatever happens to them.
func TestEjectionPanic(t *testing.T) {
	j := newJudged(t, 1)
	j.fail(0, 9)
	j.want("the only one", 0)

	j = newJudged(t, 2)
	j.fail(0, 2)
	j.fail(1, 9)
	j.want("one of two", 5, 0)

	j = newJudged(t, 5)
	for i := range 5 {
		j.fail(i, 2)
	}
	j.want("two of five", 5, 5, 0, 0, 0)
	j.later(0)
	j.fail(3, 1)
	j.want("one is back, another goes", 0, 5, 0, 5, 0)
}

// What is not the backend's fault judges no backend.
func TestOurFaultEjectsNobody(t *testing.T) {
	j := newJudged(t, 4)
	e := j.current.Load().ready[0]
	for range 5 {
		on(t, j.env.Loops[0], func() { e.Failed(j.env.Loops[0], fastpath.ErrNoDescriptor) })
	}
	j.want("no descriptor left", 0, 0, 0, 0)
}

// Real refusals eject an endpoint, and a real connection takes it back.
func TestEjectionByDialling(t *testing.T) {
	env := newEnv(t, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	c := cluster(t, env, Settings{}, dead, newServer(t, answering(empty)).addr())
	bad, good := c.current.Load().ready[0], c.current.Load().ready[1]
	picked := func() map[*Endpoint]int {
		m := map[*Endpoint]int{}
		on(t, env.Loops[0], func() {
			for range 10 {
				m[c.Pick(Wish{})]++
			}
		})
		return m
	}
	for range 2 {
		if m := picked(); m[bad] != 5 {
			t.Fatalf("the dead endpoint got %d of 10 picks, want 5", m[bad])
		}
		get("/").do(t, env, bad).failed(t, fastpath.ErrRefused)
	}
	if m := picked(); m[good] != 10 {
		t.Fatalf("the good endpoint got %d of 10 picks, want all", m[good])
	}
	if s := bad.Stats(); s.ConnectFailures != 2 || s.Ejections != 1 || s.Active != 0 || s.Open != 0 {
		t.Errorf("%+v", s)
	}
	back, err := net.Listen("tcp", dead.String())
	if err != nil {
		t.Skip("the port was taken by another process meanwhile:", err)
	}
	defer back.Close()
	go func() {
		for {
			conn, err := back.Accept()
			if err != nil {
				return
			}
			go answering(empty)(conn, 0)
		}
	}()
	get("/").do(t, env, bad).ok(t, 200, "")
	if m := picked(); m[bad] != 5 {
		t.Errorf("after a connection the endpoint got %d of 10 picks, want 5", m[bad])
	}
}

// A backend that does not answer SYNs is a timeout of connecting, and counts as a failure.
func TestConnectTimeout(t *testing.T) {
	env := newEnv(t, 1)
	env.AllowCIDRs = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	full := fullBacklog(t)
	e := only(t, cluster(t, env, Settings{ConnectTimeout: 50 * time.Millisecond}, full))
	get("/").do(t, env, e).failed(t, fastpath.ErrConnectTimeout)
	c := get("/")
	c.options.ConnectTimeout = 30 * time.Millisecond
	c.do(t, env, e).failed(t, fastpath.ErrConnectTimeout)
	if s := e.Stats(); s.ConnectFailures != 2 || s.Active != 0 {
		t.Errorf("%+v", s)
	}
}
