package main

import (
	"math"
	"testing"
)

func TestOlderThanMainline(t *testing.T) {
	for version, want := range map[string]bool{
		"1.22.1": true, "1.30.9": true, "1.31.0": false, "1.31.5": false, "1.100.0": false, "2.0.0": false,
		"0.99": true, "": true, "unknown": true,
	} {
		if got := olderThanMainline(version); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}

func TestBoundsAgainst(t *testing.T) {
	tests := []struct {
		name          string
		bounds        bounds
		rival         string
		version       string
		want          float64
		holds, breaks float64
	}{
		{"mainline", atMost(0.80, 0.65), "nginx", "1.31.5", 0.80, 0.80, 0.81},
		{"Debian's nginx is stricter", atMost(0.80, 0.65), "nginx", "1.22.1", 0.76, 0.75, 0.77},
		{"at least, mainline", atLeast(1.1, 1.1), "nginx", "1.31.5", 1.1, 1.1, 1.09},
		{"at least, Debian's", atLeast(1.1, 1.1), "nginx", "1.22.1", 1.1 / 0.95, 1.16, 1.15},
		{"HAProxy has no such rule", atMost(0.80, 0.65), "haproxy", "1.8", 0.65, 0.65, 0.66},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := test.bounds.against(test.rival, test.version)
			if math.Abs(b.Value-test.want) > 1e-9 || !b.met(test.holds) || b.met(test.breaks) {
				t.Errorf("%v: met(%v) %v, met(%v) %v", b, test.holds, b.met(test.holds), test.breaks, b.met(test.breaks))
			}
		})
	}
	if b := atMost(0.8, 0).against("haproxy", "2.6.12"); !b.none() {
		t.Errorf("no bound is %v", b)
	}
	if b := atMost(0.8, 0.8).against("other", "1"); !b.none() {
		t.Errorf("a stranger's bound is %v", b)
	}
}
