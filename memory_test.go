package main

import (
	"testing"
	"time"
)

// heapModel is a heap of which so much lives; what is thrown away lies about until it is given back.
type heapModel struct {
	giver
	live, garbage, allocated uint64
	now                      time.Time
	given                    []time.Duration // when memory was given back, from the start
}

// tick lets a tick pass in which so much was thrown away.
func (m *heapModel) tick(garbage uint64) {
	m.now = m.now.Add(memoryTick)
	m.allocated += garbage
	m.garbage += garbage
	if m.due(m.now, heap{objects: m.live + m.garbage, live: m.live, allocated: m.allocated}) {
		m.garbage = 0
		m.given = append(m.given, m.now.Sub(time.Time{}.Add(time.Hour)))
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
	return &heapModel{live: 200 << 20, now: time.Time{}.Add(time.Hour)}
}

func TestMemoryGoesBackInTheFirstQuietMoment(t *testing.T) {
	m := newHeapModel()
	for burst := range 3 { // each long after the one before
		m.tick(64 << 20)
		if len(m.given) != burst {
			t.Fatalf("burst %d: memory was given back while there was work", burst)
		}
		m.tick(0)
		if len(m.given) != burst+1 {
			t.Fatalf("burst %d: nothing was given back in the first quiet moment", burst)
		}
		m.during(2*soonAfter, 0, 0)
		if len(m.given) != burst+1 {
			t.Fatalf("burst %d: there was nothing to give back, and yet it was: %v", burst, m.given)
		}
	}
}

// TestMemoryIsNotGivenBackInVain: garbage that comes five times a second is not worth as many collections.
func TestMemoryIsNotGivenBackInVain(t *testing.T) {
	m := newHeapModel()
	const long = time.Minute
	m.during(long, 2, 16<<20)
	if most := int(long/pauseMax) + 5; len(m.given) > most || len(m.given) < int(long/pauseMax)/2 {
		t.Errorf("memory was given back %d times in %v, want at most %d: %v", len(m.given), long, most, m.given)
	}
	for i := 2; i < len(m.given); i++ {
		if before, pause := m.given[i-1]-m.given[i-2], m.given[i]-m.given[i-1]; pause < before-2*memoryTick && before < pauseMax {
			t.Errorf("pauses do not grow: %v after %v", pause, before)
		}
	}
	m.during(pauseMax+memoryTick, 0, 0)
	if m.garbage != 0 {
		t.Errorf("%d MiB are still there %v after the last garbage", m.garbage>>20, pauseMax)
	}
	m.during(soonAfter, 0, 0)
	before := len(m.given)
	m.tick(64 << 20)
	m.tick(0)
	if len(m.given) != before+1 {
		t.Error("after a long quiet time, the first quiet moment gives nothing back")
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
