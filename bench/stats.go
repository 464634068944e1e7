package main

import "slices"

// A spread is the median of some values with the smallest and the largest. Its zero value means no values.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Min:    sorted[0],
		Max:    sorted[n-1],
		N:      n,
	}
}

// pairedRatios divides what two proxies measured in the same round. A round that one of them lacks, or in which
// the divisor is nothing, gives no ratio.
func pairedRatios(a, b map[int]float64) []float64 {
	var ratios []float64
	for round, value := range a {
		if other, ok := b[round]; ok && other > 0 {
			ratios = append(ratios, value/other)
		}
	}
	return ratios
}
