package route

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sluiceproxy/sluice/l7"
)

func TestKept(t *testing.T) {
	k := kept[string, *int]{max: 6, idleMax: 2}
	get := func(generation uint64, keys ...string) (got []*int) {
		for _, key := range keys {
			v, ok := k.get(key, generation, func() *int { return new(int) })
			if !ok {
				v = nil
			}
			got = append(got, v)
		}
		return got
	}
	first := get(1, "a", "b", "c", "d", "e", "f")
	if again := get(2, "a", "b", "c", "d", "e", "f"); !slices.Equal(first, again) {
		t.Error("values did not stay")
	}
	if got := get(2, "g"); got[0] != nil {
		t.Error("there was room for a seventh value")
	}
	k.sweep(2, slices.Values([]string{"a", "b", "c"}))
	if len(k.values) != 5 || k.values["a"].value != first[0] {
		t.Errorf("%d values after a sweep, want 3 in use and 2 idle", len(k.values))
	}
	k.sweep(3, func(func(string) bool) { t.Error("a sweep that cannot find enough was begun") })
	get(3, "h")
	k.sweepAt = 0
	k.sweep(4, slices.Values([]string{"a", "b"}))
	if _, stays := k.values["h"]; !stays || len(k.values) != 4 {
		t.Errorf("%d values after the second sweep; the idle one used last stays: %v", len(k.values), stays)
	}
	if got := len(k.all()); got != 4 {
		t.Errorf("%d values in all", got)
	}
}

// TestKeptFull: values that are idle give way when there is no room, however few they are.
func TestKeptFull(t *testing.T) {
	k := kept[string, int]{max: 4, idleMax: 3}
	for i, key := range []string{"a", "b", "c", "d"} {
		if _, ok := k.get(key, uint64(i), func() int { return i }); !ok {
			t.Fatal("no room for " + key)
		}
	}
	k.sweep(5, slices.Values([]string{"a", "b", "d"}))
	if _, ok := k.get("e", 5, func() int { return 5 }); !ok || k.has("c") {
		t.Error("an idle value takes the room of a new one")
	}
	k.sweep(6, slices.Values([]string{"a", "b", "d", "e"}))
	if len(k.values) != 4 {
		t.Errorf("%d values of four that are in use", len(k.values))
	}
}

// Identities beyond the maximum share one block; routes of the same Ingress and Service share theirs.
func TestStatsMaximum(t *testing.T) {
	e := newTestEnv()
	first := compiled(t, &Config{}, nil, e)
	first.identities.stats.max = 2
	list := rules("Prefix", "/a", "Prefix", "/b", "Prefix", "/c", "Prefix", "/d")
	for i, service := range []string{"x", "x", "y", "z"} {
		list[i].Service = service
	}
	s := compiled(t, config(host("shop.example", list...)), first, e)
	stats := func(path string) *l7.RouteStats { return at(s, "shop.example", path).Stats }
	if stats("/a") != stats("/b") {
		t.Error("two paths of one Service have two statistics")
	}
	if stats("/a") == stats("/c") || stats("/c") == s.identities.other {
		t.Error("two Services share their statistics before the maximum")
	}
	if stats("/d") != s.identities.other {
		t.Error("a Service beyond the maximum has its own statistics")
	}
	if got := len(s.Stats()); got != 3 {
		t.Errorf("%d statistics, want 2 and the other", got)
	}
}

func TestStatsByHost(t *testing.T) {
	e := newTestEnv()
	e.StatsByHost = true
	s := compiled(t, config(host("a.example", rules("Prefix", "/")...), host("b.example", rules("Prefix", "/")...)), nil, e)
	a, b := at(s, "a.example", "/").Stats, at(s, "b.example", "/").Stats
	if a == b || a.ID.Host != "a.example" {
		t.Errorf("statistics by host: %+v, %+v", a.ID, b.ID)
	}
}

// TestStatsBuckets: the statistics of every route have the buckets that were asked for, those beyond the maximum too.
func TestStatsBuckets(t *testing.T) {
	e := newTestEnv()
	e.Buckets = l7.NewBuckets([]float64{1}, nil, nil)
	s := compiled(t, config(host("a.example", rules("Prefix", "/")...)), nil, e)
	for _, stats := range []*l7.RouteStats{at(s, "a.example", "/").Stats, s.identities.other} {
		if stats.Record(0, &l7.Record{}); stats.Snapshot().Buckets != e.Buckets {
			t.Errorf("%+v has other buckets", stats.ID)
		}
	}
}

// State of Ingresses that come and go does not pile up.
func TestStateOfThoseGone(t *testing.T) {
	e := newTestEnv()
	s := compiled(t, &Config{}, nil, e)
	s.identities.states.idleMax, s.identities.stats.idleMax = 3, 3
	stays := host("stays.example", rules("Prefix", "/")...)
	stays.Rules[0].Filters = append(stays.Rules[0].Filters, behaviour{name: "limit"})
	for i := range 40 {
		list := rules("Prefix", "/")
		list[0].Owner.Name = fmt.Sprint("ingress-", i)
		list[0].Filters = append(list[0].Filters, behaviour{name: "limit"})
		s = compiled(t, config(host("shop.example", list...), stays), s, e)
	}
	if n, m := len(s.identities.states.values), len(s.identities.stats.values); n > 9 || m > 9 {
		t.Errorf("%d states and %d statistics are kept of two Ingresses", n, m)
	}
	if _, kept := s.identities.states.values[shop]; !kept {
		t.Error("the state in use was forgotten")
	}
	if _, kept := s.identities.stats.values[at(s, "stays.example", "/").Stats.ID]; !kept {
		t.Error("the statistics in use were forgotten")
	}
}
