package main

import (
	"slices"
	"testing"
)

func TestSpreadOf(t *testing.T) {
	tests := []struct {
		name   string
		values []float64
		want   spread
	}{
		{"none", nil, spread{}},
		{"one", []float64{3}, spread{3, 3, 3, 1}},
		{"odd, unsorted", []float64{9, 1, 5}, spread{5, 1, 9, 3}},
		{"even: the middle of the middle two", []float64{4, 1, 2, 100}, spread{3, 1, 100, 4}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := spreadOf(test.values); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestSpreadOfLeavesItsInputAlone(t *testing.T) {
	values := []float64{2, 1}
	spreadOf(values)
	if values[0] != 2 {
		t.Error("the values were sorted in place")
	}
}

func TestPairedRatios(t *testing.T) {
	a := map[int]float64{1: 2, 2: 9, 3: 8, 4: 1}
	b := map[int]float64{1: 4, 3: 2, 4: 0, 5: 7}
	got := slices.Sorted(slices.Values(pairedRatios(a, b)))
	if want := []float64{0.5, 4}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: rounds of both, divisor not 0", got, want)
	}
}

// The median of ratios is not the ratio of medians: a slow spell of the machine that covers one round must not
// show.
func TestRatiosArePairedWithinRounds(t *testing.T) {
	a := map[int]float64{1: 10, 2: 30, 3: 11}
	b := map[int]float64{1: 20, 2: 60, 3: 22}
	if got := spreadOf(pairedRatios(a, b)); got != (spread{0.5, 0.5, 0.5, 3}) {
		t.Errorf("got %v", got)
	}
}
