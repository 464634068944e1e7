package fastpath

import (
	"testing"
	"time"
)

// TestWallFollowsTheClock: a clock that is set, in either direction, is followed; between two looks at it the time of day
// goes on with the loop's own.
func TestWallFollowsTheClock(t *testing.T) {
	l, err := NewLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.closeAll()
	day := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	l.clock = func() time.Time { return day }
	looked := func() time.Time {
		l.wallAt = l.now - int64(wallEvery) // the next round looks
		l.round(0)
		return l.Wall()
	}
	for _, step := range []time.Duration{0, 3 * time.Hour, -48 * time.Hour, time.Millisecond} {
		day = day.Add(step)
		if got := looked(); !got.Equal(day) {
			t.Errorf("after a step of %v it is %v, want %v", step, got, day)
		}
	}
	before := l.Wall()
	l.now += int64(wallEvery) / 2
	if passed := l.Wall().Sub(before); passed != wallEvery/2 {
		t.Errorf("%v passed between two looks, want %v", passed, wallEvery/2)
	}
	day = day.Add(time.Hour)
	if l.round(0); l.Wall().Equal(day) {
		t.Error("the clock was asked in every round")
	}
}
