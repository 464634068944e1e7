package main

import (
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestTunnelResultsAddUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tunnels.json")
	want := tunnelResults{"bulk up": {nameNginx: {{Process: 1.5, Machine: 2, Rate: 3, P50: 4, P99: 5}}}}
	if got, err := readTunnelResults(file); err != nil || len(got) != 0 {
		t.Fatalf("of no file: %v, %v", got, err)
	}
	if err := want.write(file); err != nil {
		t.Fatal(err)
	}
	if got, err := readTunnelResults(file); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTunnelChoice(t *testing.T) {
	relays := tunnelRelays("sluice", "haproxy", "nginx")
	if len(relays) != len(tunnelNames) {
		t.Errorf("%d candidates, %d in the report", len(relays), len(tunnelNames))
	}
	for i := range relays {
		if relays[i].name != tunnelNames[i] {
			t.Errorf("%q is not in its place in the report", relays[i].name)
		}
	}
	var b tunnelBench
	got, err := b.choose(relays, "bulk", "nginx,Sluice sockmap")
	if err != nil || len(got) != 2 || got[0].name != nameNginx || got[1].name != "Sluice sockmap" || len(b.works) != 2 {
		t.Errorf("%v, %v, %v", got, b.works, err)
	}
	for _, c := range [][2]string{{"sleep", ""}, {"", "Squid"}} {
		if _, err := b.choose(relays, c[0], c[1]); err == nil {
			t.Errorf("%q was taken", c)
		}
	}
}

// TestTunnelRepeat: every client takes steps for the whole time, all of them count, and an error is not lost.
func TestTunnelRepeat(t *testing.T) {
	var under, most atomic.Int32
	step := func() (int, error) {
		for now := under.Add(1); ; {
			if m := most.Load(); now <= m || most.CompareAndSwap(m, now) {
				break
			}
		}
		time.Sleep(5 * time.Millisecond)
		under.Add(-1)
		return 3, nil
	}
	n, times, err := repeat(4, 50*time.Millisecond, step)
	if err != nil || n != 3*len(times) || len(times) < 4 || most.Load() != 4 || !slices.IsSorted(times) || times[0] < 5*time.Millisecond {
		t.Errorf("%d, %v, %v, %d at a time", n, times, err, most.Load())
	}
	fault := errors.New("no")
	if _, _, err := repeat(2, time.Hour, func() (int, error) { return 0, fault }); !errors.Is(err, fault) {
		t.Errorf("%v", err)
	}
}

// TestTunnelRatio: rounds are compared with each other, not medians: here no round's ratio is that of the medians.
func TestTunnelRatio(t *testing.T) {
	of := func(v ...float64) (list []tunnelFigures) {
		for _, v := range v {
			list = append(list, tunnelFigures{Process: v, P50: 2 * v})
		}
		return list
	}
	if got := tunnelRatio(of(1, 10, 4), of(2, 5, 8)); got != "0.50, 0.50" {
		t.Errorf("%q", got)
	}
	if got := tunnelRatio(of(1), nil); got != "" {
		t.Errorf("%q of no rival", got)
	}
}

// TestTunnelGoals: each goal has its line, with the median of the rounds' ratios and a verdict, and what was not measured is not
// met.
func TestTunnelGoals(t *testing.T) {
	results := tunnelResults{
		"bulk up": {
			nameSluice:  {{Process: 9, Rate: 2}, {Process: 5, Rate: 2}, {Process: 6, Rate: 0.5}},
			nameNginx:   {{Process: 10}, {Process: 10}, {Process: 10}},
			nameHAProxy: {{Process: 8, Rate: 1}, {Process: 5, Rate: 1}, {Process: 4, Rate: 1}},
		},
		"ping-pong 512 B": {nameSluice: {{Process: 10, P50: 12}}, nameNginx: {{Process: 10, P50: 10}}, nameJoined: {{Process: 4, P50: 12}}},
	}
	var b strings.Builder
	bench := &tunnelBench{nginx: "1.31.5"}
	bench.goals(&b, results)
	for _, want := range []string{
		"bulk up: CPU of Sluice ÷ nginx | 0.60 (0.50-0.90) | ≤ 1 | 0.6 | met, aim too |",
		"bulk up: CPU of Sluice ÷ HAProxy | 1.12 (1.00-1.50) | ≤ 0.9 | 0.6 | MISSED |",
		"bulk up: rate of Sluice ÷ HAProxy | 2.00 (0.50-2.00) | ≥ 1 |  | met |",
		"ping-pong 512 B: p50 of Sluice ÷ nginx | 1.20 (1.20-1.20) | ≤ 1.3 | 1.1 | met |",
		"ping-pong 512 B: CPU of Sluice sockmap ÷ Sluice | 0.40 (0.40-0.40) | ≤ 0.3 |  | MISSED |",
		"connections: CPU of Sluice ÷ nginx |  | ≤ 1 | 0.85 | not measured |",
	} {
		if !strings.Contains(b.String(), "| "+want+"\n") {
			t.Errorf("there is no line %q in\n%s", want, &b)
		}
	}
	if n := strings.Count(b.String(), "\n"); n != len(tunnelGoals)+3 {
		t.Errorf("%d lines for %d goals", n, len(tunnelGoals))
	}
	b.Reset()
	bench.nginx = "1.22.1"
	if bench.goals(&b, results); !strings.Contains(b.String(), "p50 of Sluice ÷ nginx | 1.20 (1.20-1.20) | ≤ 1.23 |") {
		t.Errorf("against an old nginx the goals are not stricter:\n%s", &b)
	}
	b.Reset()
	if (&tunnelBench{namespace: "x"}).goals(&b, results); b.Len() > 0 {
		t.Errorf("between namespaces there are no goals, but\n%s", &b)
	}
}
