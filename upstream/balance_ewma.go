package upstream

import (
	"math"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// ewmaDecay is the time in which an observation's weight falls to 1/e.
const ewmaDecay = 10 * time.Second

// ewma takes two endpoints by chance and of these the one with the lower cost: its exponentially weighted response time,
// times the streams under way and the new one. Response times are each loop's own observations.
func ewma(v *view, l *clusterLoop, w Wish) *Endpoint {
	e := bestOfTwo(v, l, w, cheaper)
	if e != nil {
		e.loops[l.index].time.asked = l.clock()
	}
	return e
}

// cheaper compares costs. While one of the two was never observed, both count as equally fast: a new endpoint must
// neither be flooded nor starve. Nor does one that was slow once, and so is asked no more: a mean fades as long as nobody
// asks. What both lose by now is the same part of each, so that only the older one's lead in age counts.
func cheaper(a, b *Endpoint, l *clusterLoop) *Endpoint {
	ta, tb := &a.loops[l.index].time, &b.loops[l.index].time
	ca, cb := float64(a.active.Load()+1), float64(b.active.Load()+1)
	if ta.at != 0 && tb.at != 0 {
		ca *= ta.mean * kept(ta.last(), tb.last())
		cb *= tb.mean * kept(tb.last(), ta.last())
	}
	if cb < ca {
		return b
	}
	return a
}

// responseTime is one loop's exponentially weighted mean of an endpoint's response times.
type responseTime struct {
	mean  float64 // nanoseconds
	at    int64   // loop time of the last observation; 0: none
	asked int64   // … of the last choice: one that hangs is heard of no more, and must not seem better for that
}

func (t *responseTime) last() int64 { return max(t.at, t.asked) }

// observe weighs by the time since the last observation, not by their number: a burst says no more than its moment.
func (t *responseTime) observe(now, rtt int64) {
	if t.at == 0 {
		t.mean, t.at = float64(rtt), now
		return
	}
	old := kept(t.at, now)
	t.mean = t.mean*old + float64(rtt)*(1-old)
	t.at = max(t.at, now)
}

// kept is the weight that a mean of then still has now.
func kept(then, now int64) float64 {
	if now <= then {
		return 1
	}
	return math.Exp(-float64(now-then) / float64(ewmaDecay))
}

// Observe tells how many nanoseconds the endpoint took for the head of an answer. On loop l.
func (e *Endpoint) Observe(l *fastpath.Loop, rtt int64) {
	if e.cluster.current.Load().Algorithm == EWMA {
		e.loops[l.ID].time.observe(l.Now(), rtt)
	}
}
