package fastpath

import "math/bits"

// The wheel holds one deadline a connection. Moving a deadline later, which every read does, is one store: the entry
// stays where it is and is looked at again when its slot comes round. So traffic costs no timer work, and an idle
// connection is touched once per turn of the wheel.
const (
	wheelShift = 23 // a tick is 2^23 ns = 8.4 ms
	wheelSlots = 4096
	wheelRange = (wheelSlots - 3) << wheelShift // 34 s; so an entry made while a slot is emptied never lands in it
)

type wheel struct {
	slots [wheelSlots]*Conn
	used  [wheelSlots / 64]uint64 // which slots hold entries
	tick  int64                   // every slot up to this tick has been looked at
	count int
}

// arm makes sure that the wheel looks at c no later than its deadline.
func (w *wheel) arm(c *Conn) {
	at := c.deadline
	if max := w.tick<<wheelShift + wheelRange; at > max {
		at = max
	}
	tick := at>>wheelShift + 1 // round up: never early
	if tick <= w.tick {
		tick = w.tick + 1
	}
	if c.armed != 0 {
		if c.armed <= tick {
			return
		}
		w.unlink(c)
	}
	w.link(c, tick)
}

func (w *wheel) link(c *Conn, tick int64) {
	i := tick & (wheelSlots - 1)
	c.armed, c.prev, c.next = tick, nil, w.slots[i]
	if c.next != nil {
		c.next.prev = c
	}
	w.slots[i] = c
	w.used[i/64] |= 1 << (i % 64)
	w.count++
}

func (w *wheel) unlink(c *Conn) {
	i := c.armed & (wheelSlots - 1)
	if c.prev != nil {
		c.prev.next = c.next
	} else if w.slots[i] = c.next; c.next == nil {
		w.used[i/64] &^= 1 << (i % 64)
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.armed, c.prev, c.next = 0, nil, nil
	w.count--
}

// advance looks at every slot up to now and calls fire for each connection whose deadline has passed.
func (w *wheel) advance(now int64, fire func(*Conn)) {
	to := now >> wheelShift
	if to <= w.tick {
		return
	}
	if to-w.tick > wheelSlots {
		w.tick = to - wheelSlots // a long pause: each slot once is enough
	}
	for w.tick < to && w.count > 0 {
		w.tick++
		i := w.tick & (wheelSlots - 1)
		if w.used[i/64]&(1<<(i%64)) == 0 {
			continue
		}
		w.expire(i, now, fire)
	}
	w.tick = to
}

// expire empties slot i. Nothing that fire arms can land in it again: wheelRange is shorter than the wheel.
func (w *wheel) expire(i int64, now int64, fire func(*Conn)) {
	for c := w.slots[i]; c != nil; c = w.slots[i] {
		w.unlink(c)
		switch {
		case c.deadline == 0:
		case c.deadline > now:
			w.arm(c)
		default:
			c.deadline = 0
			fire(c)
		}
	}
}

// wait returns how many milliseconds the loop may sleep: until the next slot in use, -1 when there is none.
func (w *wheel) wait(now int64) int {
	if w.count == 0 {
		return -1
	}
	i := int((w.tick + 1) & (wheelSlots - 1))
	for n := 0; n < wheelSlots; {
		word := w.used[i/64] >> (i % 64)
		if word != 0 {
			n += bits.TrailingZeros64(word)
			at := (w.tick + 1 + int64(n)) << wheelShift
			if at <= now {
				return 0
			}
			return int((at-now)/1e6) + 1
		}
		step := 64 - i%64
		n += step
		i = (i + step) & (wheelSlots - 1)
	}
	return -1
}
