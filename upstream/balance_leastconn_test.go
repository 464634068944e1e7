package upstream

import (
	"slices"
	"testing"
)

func TestLeastConnections(t *testing.T) {
	c := still(t, 1, LeastConnections, 4)
	all := c.current.Load().ready
	for i, n := range []int64{3, 1, 2, 1} {
		all[i].active.Store(n)
	}
	var got []int
	for range 6 {
		e := c.Pick(Wish{})
		e.active.Add(1)
		got = append(got, index(e))
	}
	if want := []int{1, 3, 1, 2, 3, 0}; !sameLevels(got, want) {
		t.Errorf("picked %v, want like %v", got, want)
	}
	for i, e := range all {
		if n := e.active.Load(); n < 3 || n > 4 {
			t.Errorf("endpoint %d has %d under way", i, n)
		}
	}
}

// sameLevels compares picks up to the order among equals: the first two, then the rest.
func sameLevels(a, b []int) bool {
	first := func(s []int) []int { return slices.Sorted(slices.Values(s[:2])) }
	return slices.Equal(first(a), first(b))
}

// Equals take turns, so that a quiet cluster is not led to one endpoint.
func TestLeastConnectionsAmongEquals(t *testing.T) {
	c := still(t, 1, LeastConnections, 3)
	var got []int
	for range 6 {
		got = append(got, index(c.Pick(Wish{})))
	}
	if !slices.Equal(got, []int{0, 1, 2, 0, 1, 2}) {
		t.Errorf("picked %v", got)
	}
}

// In a large cluster only a window is compared, but all get their share.
func TestLeastConnectionsWindow(t *testing.T) {
	c := still(t, 1, LeastConnections, 3*leastWindowMax+1)
	for range 10 * len(c.current.Load().ready) {
		c.Pick(Wish{}).active.Add(1)
	}
	for i, e := range c.current.Load().ready {
		if n := e.active.Load(); n < 5 || n > 15 {
			t.Errorf("endpoint %d has %d under way, want about 10", i, n)
		}
	}
}
