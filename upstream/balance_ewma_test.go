package upstream

import (
	"math"
	"testing"
	"time"
)

func TestResponseTime(t *testing.T) {
	var r responseTime
	start := int64(time.Hour)
	r.observe(start, 100)
	if r.mean != 100 {
		t.Errorf("first observation: %v", r.mean)
	}
	r.observe(start, 1e9)
	if r.mean != 100 {
		t.Errorf("another in the same moment weighs %v", r.mean)
	}
	r.observe(start+int64(ewmaDecay), 200)
	if want := 100/math.E + 200*(1-1/math.E); math.Abs(r.mean-want) > 1e-9 {
		t.Errorf("after the decay time: %v, want %v", r.mean, want)
	}
	r.observe(start+100*int64(ewmaDecay), 50)
	if math.Abs(r.mean-50) > 1e-9 {
		t.Errorf("after long: %v, want 50", r.mean)
	}
	r.observe(start, 1e9)
	if math.Abs(r.mean-50) > 1e-9 || r.at != start+100*int64(ewmaDecay) {
		t.Errorf("an answer from before weighs: %v", r.mean)
	}
}

// shares picks often and says which part each endpoint got.
func shares(c *Cluster, picks int) []float64 {
	got := make([]float64, len(c.current.Load().ready))
	for range picks {
		got[index(c.Pick(Wish{}))] += 1 / float64(picks)
	}
	return got
}

func TestEWMA(t *testing.T) {
	c := still(t, 1, EWMA, 4)
	all := c.current.Load().ready
	near := func(what string, want ...float64) {
		t.Helper()
		for i, got := range shares(c, 20_000) {
			if math.Abs(got-want[i]) > 0.02 {
				t.Errorf("%s: endpoint %d got %.3f, want %.3f", what, i, got, want[i])
			}
		}
	}
	for i, ms := range []int64{1, 2, 3, 4} {
		all[i].loops[0].time.observe(int64(time.Second), ms*int64(time.Millisecond))
	}
	near("of two draws the faster wins", 3./6, 2./6, 1./6, 0)
	all[0].active.Store(9)
	near("ten under way at a tenth of the speed", 0, 3./6, 2./6, 1./6)
	all[0].active.Store(0)
	all[0].loops[0].time = responseTime{}
	all[1].active.Store(1)
	all[2].active.Store(1)
	all[3].active.Store(1)
	near("a new endpoint counts by what is under way", 3./6, 2./6, 1./6, 0)
}

// An endpoint that was slow once is asked again, although nothing is heard of it meanwhile.
func TestEWMAForgets(t *testing.T) {
	c := still(t, 1, EWMA, 2)
	slow, quick := c.current.Load().ready[0], c.current.Load().ready[1]
	now := int64(time.Hour)
	slow.loops[0].time.observe(now, int64(3*time.Second))
	c.loops[0].clock = func() int64 { return now }
	for s := range 90 {
		now += int64(time.Second)
		quick.loops[0].time.observe(now, int64(20*time.Millisecond))
		e := c.Pick(Wish{})
		if e == slow && s < 40 {
			t.Fatalf("picked after %d s, when it still counts as the slower one", s)
		}
		if e == slow {
			slow.loops[0].time.observe(now, int64(20*time.Millisecond))
			if mean := time.Duration(slow.loops[0].time.mean); mean > 100*time.Millisecond {
				t.Errorf("mean %v after a quick answer", mean)
			}
			return
		}
	}
	t.Error("an endpoint that answered slowly once was never asked again")
}

// TestEWMAHangs: an endpoint that takes requests and says nothing is asked less and less.
func TestEWMAHangs(t *testing.T) {
	c := still(t, 1, EWMA, 2)
	hangs, well := c.current.Load().ready[0], c.current.Load().ready[1]
	now := int64(time.Hour)
	c.loops[0].clock = func() int64 { return now }
	for _, e := range []*Endpoint{hangs, well} {
		e.loops[0].time.observe(now, int64(20*time.Millisecond))
	}
	asked := 0
	for range 100 * 60 { // 100 a second for a minute
		now += int64(10 * time.Millisecond)
		if e := c.Pick(Wish{}); e == hangs {
			e.active.Add(1)
			asked++
		} else {
			e.loops[0].time.observe(now, int64(20*time.Millisecond))
		}
	}
	if asked == 0 || asked > 60 {
		t.Errorf("asked %d times of 6,000", asked)
	}
}

func TestObserve(t *testing.T) {
	env := newEnv(t, 1)
	c := cluster(t, env, Settings{Algorithm: EWMA}, newServer(t, answering(empty)).addr())
	e := only(t, c)
	on(t, env.Loops[0], func() { e.Observe(env.Loops[0], 77) })
	if e.loops[0].time.mean != 77 {
		t.Errorf("mean %v, want 77", e.loops[0].time.mean)
	}
	c.SetSettings(Settings{AllowLoopback: true})
	on(t, env.Loops[0], func() { e.Observe(env.Loops[0], 99) })
	if e.loops[0].time.mean != 77 {
		t.Errorf("mean %v although nobody asks for it", e.loops[0].time.mean)
	}
}
