package fastpath

import (
	"math/rand/v2"
	"testing"
	"time"
)

const tick = int64(1) << wheelShift

// dueTick is the tick at which a deadline, given while the wheel stood at tick `at`, has to fire.
func dueTick(deadline, at int64) int64 { return max(deadline>>wheelShift, at) + 1 }

// clock is a wheel without a loop's other parts, and a time that the test moves.
type clock struct {
	l     Loop
	fired []*Conn
}

func newClock() *clock {
	k := new(clock)
	k.l.now = 1000*tick + 12345
	k.l.wheel.tick = k.l.now >> wheelShift
	return k
}

func (k *clock) conn(after int64) *Conn {
	c := &Conn{loop: &k.l}
	c.SetDeadline(k.l.now + after)
	return c
}

// to moves the time to at and returns who fired.
func (k *clock) to(at int64) []*Conn {
	k.l.now, k.fired = at, nil
	k.l.wheel.advance(at, func(c *Conn) { k.fired = append(k.fired, c) })
	return k.fired
}

func TestWheelFiresWithinATickAndNeverEarly(t *testing.T) {
	afters := []int64{0, 1, tick - 1, tick, tick + 1, 7 * tick, int64(time.Second), wheelRange - 1, wheelRange, wheelRange + 1,
		wheelSlots * tick, 3*wheelRange + 17, int64(time.Hour)}
	for _, after := range afters {
		k := newClock()
		c := k.conn(after)
		due := c.deadline
		for k.l.now < due { // step by step, as a loop would
			next := min(k.l.now+max(1, (due-k.l.now)/3), due)
			if next == due {
				break
			}
			if len(k.to(next)) != 0 {
				t.Fatalf("deadline after %d: fired %d too early", after, due-next)
			}
		}
		if due > k.l.now && len(k.to(due-1)) != 0 {
			t.Fatalf("deadline after %d: fired 1 ns too early", after)
		}
		if got := k.to(due + tick); len(got) != 1 || got[0] != c {
			t.Fatalf("deadline after %d: did not fire within a tick", after)
		}
		if k.l.wheel.used != (wheel{}).used {
			t.Fatalf("deadline after %d: the loop would wake for an empty slot", after)
		}
		if c.deadline != 0 || c.armed != 0 || k.l.wheel.count != 0 {
			t.Fatalf("deadline after %d: left deadline=%d armed=%d count=%d", after, c.deadline, c.armed, k.l.wheel.count)
		}
	}
}

func TestWheelMovingLaterIsAStore(t *testing.T) {
	k := newClock()
	c := k.conn(100 * tick)
	slot := c.armed
	for i := range int64(1000) {
		c.SetDeadline(k.l.now + 100*tick + i*tick)
		if c.armed != slot || k.l.wheel.count != 1 {
			t.Fatalf("moved later by %d ticks: armed %d, was %d", i, c.armed, slot)
		}
	}
	if len(k.to(k.l.now+102*tick)) != 0 {
		t.Fatal("fired at the old deadline")
	}
	if c.armed == 0 || c.armed == slot {
		t.Fatal("was not moved on when its old slot came")
	}
	if len(k.to(c.deadline+tick)) != 1 {
		t.Fatal("did not fire at the new deadline")
	}
}

func TestWheelMovingEarlierRelinks(t *testing.T) {
	k := newClock()
	c := k.conn(1000 * tick)
	c.SetDeadline(k.l.now + 3*tick)
	if got := k.to(k.l.now + 5*tick); len(got) != 1 {
		t.Fatal("did not fire at the earlier deadline")
	}
	c.SetDeadline(k.l.now - 5*tick) // past: at the next tick
	if got := k.to(k.l.now + tick); len(got) != 1 {
		t.Fatal("a deadline in the past did not fire at the next tick")
	}
}

func TestWheelNoDeadline(t *testing.T) {
	k := newClock()
	c := k.conn(3 * tick)
	c.SetDeadline(0)
	if got := k.to(k.l.now + 10*tick); len(got) != 0 {
		t.Fatal("fired after SetDeadline(0)")
	}
	if c.armed != 0 || k.l.wheel.count != 0 {
		t.Fatal("an entry without a deadline stays in the wheel")
	}
	if k.l.wheel.wait(k.l.now) != -1 {
		t.Fatal("an empty wheel lets the loop wake")
	}
}

func TestWheelClosedConnStaysOut(t *testing.T) {
	k := newClock()
	c := &Conn{loop: &k.l, flags: flagClosed}
	c.SetDeadline(k.l.now + tick)
	if k.l.wheel.count != 0 {
		t.Fatal("a closed connection is in the wheel, its value will be reused")
	}
}

func TestWheelLongPause(t *testing.T) {
	k := newClock()
	var due, later []*Conn
	for i := range int64(500) {
		due = append(due, k.conn(i*24*tick))
	}
	pause := 3*wheelSlots*tick + 5
	for i := range int64(500) {
		later = append(later, k.conn(pause+tick+i*tick))
	}
	if got := k.to(k.l.now + pause); len(got) != len(due) {
		t.Fatalf("%d fired after the pause, want %d", len(got), len(due))
	}
	for i, c := range later {
		if c.armed == 0 || c.deadline == 0 {
			t.Fatalf("entry %d was lost in the pause", i)
		}
	}
	if got := k.to(k.l.now + 502*tick); len(got) != len(later) {
		t.Fatalf("%d fired in the end, want %d", len(got), len(later))
	}
}

// TestWheelFireTouchesItsOwnSlot: a handler closes, moves and re-arms entries of the slot that is being emptied.
func TestWheelFireTouchesItsOwnSlot(t *testing.T) {
	k := newClock()
	w := &k.l.wheel
	conns := make([]*Conn, 90)
	for i := range conns {
		conns[i] = k.conn(4 * tick)
	}
	fired := map[*Conn]int{}
	at := k.l.now + 6*tick
	k.l.now = at
	w.advance(at, func(c *Conn) {
		fired[c]++
		for i, o := range conns {
			if o == c || o.armed == 0 {
				continue
			}
			switch i % 3 {
			case 0: // closed: what drop does
				w.unlink(o)
				o.deadline = 0
			case 1:
				o.SetDeadline(at + 50*tick)
			}
		}
		if fired[c] == 1 {
			c.SetDeadline(at) // again at once
		}
	})
	for i, c := range conns {
		switch {
		case i%3 == 2 && fired[c] != 1:
			t.Errorf("entry %d fired %d times", i, fired[c])
		case i%3 == 1 && fired[c] == 0 && c.deadline != at+50*tick:
			t.Errorf("entry %d was moved and is lost", i)
		}
	}
	k.to(at + 60*tick)
	if w.count != 0 {
		t.Errorf("%d entries are left", w.count)
	}
}

func TestWheelManyEntries(t *testing.T) {
	k := newClock()
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[*Conn]int64{}
	for range 50_000 {
		c := k.conn(rng.Int64N(2 * wheelRange))
		want[c] = c.deadline
	}
	for len(want) > 0 {
		at := k.l.now + rng.Int64N(100*tick)
		for _, c := range k.to(at) {
			d, ok := want[c]
			if !ok || d > at {
				t.Fatal("fired twice or early")
			}
			delete(want, c)
		}
	}
}

func TestWheelWait(t *testing.T) {
	k := newClock()
	if got := k.l.wheel.wait(k.l.now); got != -1 {
		t.Fatalf("empty wheel: %d, want -1", got)
	}
	for _, after := range []int64{0, 1, tick, 63 * tick, 64 * tick, 65 * tick, 1000 * tick, wheelRange} {
		for _, start := range []int64{0, 63, 64, 4000, 4095, 4096} { // the slots' words wrap differently
			k := newClock()
			k.to(k.l.now + start*tick)
			c := k.conn(after)
			ms := int64(k.l.wheel.wait(k.l.now)) * int64(time.Millisecond)
			slot := c.armed << wheelShift
			if ms < slot-k.l.now || ms > slot-k.l.now+int64(time.Millisecond) {
				t.Errorf("start %d, deadline after %d: wait %v, the slot comes in %v", start, after, time.Duration(ms), time.Duration(slot-k.l.now))
			}
		}
	}
	c := k.conn(tick)
	k.l.now = c.deadline + 50*tick
	if got := k.l.wheel.wait(k.l.now); got != 0 {
		t.Errorf("overdue: %d, want 0", got)
	}
}

// model is the wheel in its plainest form: a list of deadlines and the ticks at which they must have fired.
type model struct {
	t   *testing.T
	k   *clock
	due map[*Conn]int64
}

func (m *model) set(c *Conn, at int64) {
	c.SetDeadline(at)
	if at == 0 {
		delete(m.due, c)
		return
	}
	m.due[c] = dueTick(at, m.k.l.wheel.tick)
}

func (m *model) fire(c *Conn) {
	if _, ok := m.due[c]; !ok {
		m.t.Fatal("fired without a deadline")
	}
	delete(m.due, c)
}

// check compares after the wheel was led to `now`.
func (m *model) check() {
	now := m.k.l.now
	first := int64(-1)
	for c, due := range m.due {
		if due <= now>>wheelShift {
			m.t.Fatalf("deadline %d is %d ns overdue", c.deadline, now-c.deadline)
		}
		if first < 0 || due < first {
			first = due
		}
	}
	if first >= 0 {
		wait := int64(m.k.l.wheel.wait(now)) * int64(time.Millisecond)
		if limit := first<<wheelShift - now + int64(time.Millisecond); wait < 0 || wait > limit {
			m.t.Fatalf("the loop would sleep %d ns, the next deadline comes in %d", wait, limit)
		}
	}
}

func TestWheelAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 99))
		k := newClock()
		m := &model{t: t, k: k, due: map[*Conn]int64{}}
		conns := make([]*Conn, 1+rng.IntN(40))
		for i := range conns {
			conns[i] = &Conn{loop: &k.l}
		}
		spans := []int64{1, tick, 20 * tick, 5000 * tick}
		span := func() int64 { return rng.Int64N(spans[rng.IntN(len(spans))] + 1) }
		change := func() {
			c := conns[rng.IntN(len(conns))]
			switch at := k.l.now + span() - span()/4; rng.IntN(8) {
			case 0:
				m.set(c, 0)
			case 1: // closed
				if c.armed != 0 {
					k.l.wheel.unlink(c)
				}
				c.deadline = 0
				delete(m.due, c)
			default:
				m.set(c, at)
			}
		}
		for range 400 {
			for range rng.IntN(5) {
				change()
			}
			k.l.now += span()
			k.l.wheel.advance(k.l.now, func(c *Conn) {
				m.fire(c)
				if rng.IntN(3) == 0 {
					change()
				}
			})
			m.check()
		}
	}
}
