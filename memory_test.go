package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// heapModel is a heap of which so much lives; what is thrown away lies about until it is given back.
type heapModel struct {
	giver
	live, garbage, allocated uint64
	now                      time.Time
	given                    []time.Duration // when memory was given back, from the start
	free, pace               uint64
}

// tick lets a tick pass in which so much was thrown away.
func (m *heapModel) tick(garbage uint64) {
	m.now = m.now.Add(memoryTick)
	m.allocated += garbage
	m.garbage += garbage
	switch m.next(m.now, heap{objects: m.live + m.garbage, live: m.live, free: m.free, allocated: m.allocated}) {
	case atOnce:
		m.garbage, m.free = 0, 0
		m.given = append(m.given, m.now.Sub(time.Time{}.Add(time.Hour)))
	case inPieces:
		m.garbage, m.free = 0, m.free+m.garbage
		m.given = append(m.given, m.now.Sub(time.Time{}.Add(time.Hour)))
	case nothing:
		if m.giving {
			m.free -= min(m.free, m.pace)
		}
	}
}

// during lets a time pass with so much garbage every so many ticks.
func (m *heapModel) during(d time.Duration, every int, garbage uint64) {
	for i := range int(d / memoryTick) {
		if every > 0 && i%every == 0 {
			m.tick(garbage)
		} else {
			m.tick(0)
		}
	}
}

func newHeapModel() *heapModel {
	return &heapModel{live: 200 << 20, pace: 200 << 20, now: time.Time{}.Add(time.Hour)}
}

func TestMemoryGoesBackInTheFirstQuietMoment(t *testing.T) {
	m := newHeapModel()
	m.live = smallBytes / 2
	for burst := range 3 {
		m.tick(smallBytes / 2)
		if len(m.given) != burst {
			t.Fatalf("burst %d: memory was given back while there was work", burst)
		}
		m.tick(0)
		if len(m.given) != burst+1 {
			t.Fatalf("burst %d: nothing was given back in the first quiet moment", burst)
		}
		m.during(soonAfter, 0, 0)
		if len(m.given) != burst+1 {
			t.Fatalf("burst %d: there was nothing to give back, and yet it was: %v", burst, m.given)
		}
	}
}

// TestMemoryIsNotGivenBackInVain: garbage that comes five times a second is not worth as many collections.
func TestMemoryIsNotGivenBackInVain(t *testing.T) {
	m := newHeapModel()
	m.live = smallBytes / 4
	const long = time.Minute
	m.during(long, 2, 1<<20)
	if most := int(long/soonAfter) + 1; len(m.given) > most || len(m.given) < most/2 {
		t.Errorf("memory was given back %d times in %v, want at most %d: %v", len(m.given), long, most, m.given)
	}
	if m.during(calmAfter, 0, 0); m.garbage != 0 {
		t.Errorf("%d MiB are still there %v after the last garbage", m.garbage>>20, calmAfter)
	}
}

// TestMuchMemoryWaits: of a large heap nothing is given back while the next change may be near, whatever of it lives.
func TestMuchMemoryWaits(t *testing.T) {
	for _, live := range []uint64{smallBytes, smallBytes / 4} {
		m := newHeapModel()
		m.live = live
		for range 3 {
			m.tick(smallBytes + 1 - smallBytes/4)
			m.during(calmAfter-memoryTick, 0, 0)
		}
		if len(m.given) > 0 || m.giving {
			t.Fatalf("it was given back between two changes: %v", m.given)
		}
		if m.tick(0); len(m.given) != 1 || !m.giving {
			t.Errorf("it is not given back in pieces after %v", calmAfter)
		}
	}
}

// TestLittleIsLeft: a collection has to be worth its cost.
func TestLittleIsLeft(t *testing.T) {
	m := newHeapModel()
	m.during(time.Minute, 0, 0)
	m.tick(m.live / livePart / 2)
	m.during(time.Minute, 0, 0)
	if len(m.given) > 0 {
		t.Errorf("a little was given back: %v", m.given)
	}
}

// TestGivingBackEnds: with what little is left, with new work, and when the runtime keeps the rest; what it keeps is not
// collected for again.
func TestGivingBackEnds(t *testing.T) {
	for name, c := range map[string]struct {
		pace  uint64 // given back a tick
		work  uint64 // garbage of each tick afterwards
		after time.Duration
	}{
		"all of it":  {pace: 4 << 20, after: 16 * memoryTick}, // 64 MiB, but for a 32nd of 200
		"work":       {pace: 1 << 20, work: quietBytes, after: memoryTick},
		"it is kept": {pace: 0, after: stuckAfter + memoryTick},
	} {
		t.Run(name, func(t *testing.T) {
			m := newHeapModel()
			m.pace = c.pace
			m.tick(64 << 20)
			m.during(calmAfter, 0, 0)
			if !m.giving {
				t.Fatal("nothing is given back")
			}
			began := m.now
			for m.giving && m.now.Sub(began) < time.Minute {
				m.tick(c.work)
			}
			if took := m.now.Sub(began); took != c.after {
				t.Errorf("it ended after %v, not %v", took, c.after)
			}
			m.during(time.Minute, 0, 0)
			switch {
			case c.pace == 0 && len(m.given) != 1:
				t.Errorf("what is kept was collected for again: %v", m.given)
			case c.pace > 0 && m.garbage+m.free > m.live/livePart:
				t.Errorf("%d MiB were not given back", (m.garbage+m.free)>>20)
			}
		})
	}
}

// TestMemoryGoesBack: the runtime does give back what is free, while its goal is a tenth lower.
func TestMemoryGoesBack(t *testing.T) {
	free := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	litter := make([][]byte, 0, 4096)
	for range cap(litter) {
		b := make([]byte, 16<<10)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		litter = append(litter, b)
	}
	runtime.KeepAlive(litter)
	litter = nil
	metrics.Read(free)
	before := free[1].Value.Uint64()
	giveBack(100)
	defer debug.SetGCPercent(100)
	within(t, time.Minute, "64 MiB are given back", func() bool {
		metrics.Read(free)
		time.Sleep(memoryTick)
		return free[1].Value.Uint64() > before+48<<20
	})
}
