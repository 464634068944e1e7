package main

import (
	"path/filepath"
	"reflect"
	"testing"
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
