package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func soakCSV(samples []soakSample) string {
	var b strings.Builder
	b.WriteString("seconds,memory_bytes,descriptors,answers,failures\n")
	for _, s := range samples {
		fmt.Fprintf(&b, "%.1f,%d,%d,%d,%d\n", s.at.Seconds(), s.memory, s.files, s.answers, s.failures)
	}
	return b.String()
}

// soakSVG plots memory, descriptors and answers a second over time, one under the other, each from zero.
func soakSVG(samples []soakSample) string {
	const width, height, left, gap = 900, 160, 90, 40
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", left+width+20, 3*(height+gap)+20)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	total := samples[len(samples)-1].at.Seconds()
	for i, plot := range []struct {
		title string
		value func(n int) float64
	}{
		{"resident memory, MiB", func(n int) float64 { return float64(samples[n].memory) / (1 << 20) }},
		{"open descriptors", func(n int) float64 { return float64(samples[n].files) }},
		{"answers a second", func(n int) float64 {
			if n == 0 {
				return 0
			}
			return float64(samples[n].answers-samples[n-1].answers) / (samples[n].at - samples[n-1].at).Seconds()
		}},
	} {
		most := 1.0
		for n := range samples {
			most = max(most, plot.value(n))
		}
		top := 20 + i*(height+gap)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text x="4" y="%d">%.0f</text><text x="4" y="%d">0</text>`+"\n", left, top-4, plot.title, top+10, most, top+height)
		fmt.Fprintf(&b, `<path d="M%d %dv%dh%d" fill="none" stroke="gray"/><polyline fill="none" stroke="steelblue" points="`, left, top, height, width)
		for n, s := range samples {
			fmt.Fprintf(&b, "%.1f,%.1f ", left+width*s.at.Seconds()/total, float64(top+height)-height*plot.value(n)/most)
		}
		b.WriteString("\"/>\n")
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%v</text>`+"\n</svg>\n", left+width, 3*(height+gap)+10, samples[len(samples)-1].at.Round(time.Second))
	return b.String()
}

func TestSoakPlot(t *testing.T) {
	samples := []soakSample{{at: time.Second, memory: 1 << 20, files: 5}, {at: 2 * time.Second, memory: 2 << 20, files: 6, answers: 100}}
	if got, want := soakCSV(samples), "seconds,memory_bytes,descriptors,answers,failures\n1.0,1048576,5,0,0\n2.0,2097152,6,100,0\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if svg := soakSVG(samples); strings.Count(svg, "<polyline") != 3 || strings.Contains(svg, "NaN") || !strings.HasSuffix(svg, "</svg>\n") {
		t.Errorf("%s", svg)
	}
}
