package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const wrkOutput = `Running 2s test @ http://bench.example:80/128
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
bench: requests=1000 bytes=250000 p50=700 p90=900 p99=5000 p999=7000 connect=1 read=2 write=3 timeout=4 status=5
`

func TestParseWrk(t *testing.T) {
	got, err := parseWrk([]byte(wrkOutput))
	want := wrkReport{1000, 250000, 700, 900, 5000, 7000, 1, 2, 3, 4, 5}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, output := range map[string]string{
		"no line":         "unable to connect to bench.example\n",
		"a field missing": strings.Replace(wrkOutput, " timeout=4", "", 1),
		"a field twice":   strings.Replace(wrkOutput, "timeout=4", "read=4", 1),
		"a field unknown": strings.Replace(wrkOutput, "timeout", "patience", 1),
		"no number":       strings.Replace(wrkOutput, "p99=5000", "p99=nan", 1),
	} {
		if _, err := parseWrk([]byte(output)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestWrkResult(t *testing.T) {
	l := load{conns: 4, wire: 250}
	tests := []struct {
		name        string
		report      wrkReport
		errors, bad int64
	}{
		{"all right", wrkReport{requests: 1000, bytes: 250_000}, 0, 0},
		{"answers under way", wrkReport{requests: 1000, bytes: 251_000}, 0, 0},
		{"refusals", wrkReport{requests: 1000, bytes: 250_000, refused: 7}, 0, 7},
		{"each kind of error", wrkReport{requests: 1000, bytes: 250_000, connect: 1, read: 2, write: 3, timeout: 4}, 10, 0},
		{"short answers", wrkReport{requests: 1000, bytes: 200_000}, 0, 196},
		{"long answers", wrkReport{requests: 1000, bytes: 300_000}, 0, 196},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := test.report.result(l)
			if got.errors != test.errors || got.bad != test.bad {
				t.Errorf("errors %d, bad %d; want %d, %d", got.errors, got.bad, test.errors, test.bad)
			}
			if (got.example != "") != (test.errors > 0) {
				t.Errorf("example %q", got.example)
			}
		})
	}
}

func TestWrkArguments(t *testing.T) {
	l := load{address: "127.0.0.1:8443", host: hostBench, path: pathSmall, conns: 64}
	got := wrkArguments(l, 2500*time.Millisecond, "s.lua")
	for _, want := range []string{"-c64", "-d3s", "http://bench.example:8443/128"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}
