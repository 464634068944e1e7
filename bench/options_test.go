package main

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	tests := []struct {
		name, args string
		check      func(options) bool
	}{
		{"defaults", "", func(o options) bool {
			return o.rounds == 3 && o.duration == 2*time.Second && o.idleConns == 8000 && len(o.scenarios) < len(scenarios)
		}},
		{"quick", "--quick", func(o options) bool {
			return o.rounds == 1 && o.duration == time.Second && len(o.scenarios) == 10
		}},
		{"quick, but", "--quick --rounds=2 --scenarios=h1-c1", func(o options) bool {
			return o.rounds == 2 && len(o.scenarios) == 1
		}},
		{"all", "--all", func(o options) bool { return len(o.scenarios) == len(scenarios) }},
		{"a group", "--scenarios=idle-mem", func(o options) bool {
			return len(o.scenarios) == 3 && o.scenarios[1].name == "idle-mem-tls"
		}},
		{"the table's order", "--scenarios=tls-c64,h1-c1", func(o options) bool {
			return len(o.scenarios) == 2 && o.scenarios[0].name == "h1-c1"
		}},
		{"proxies' given order", "--proxies=haproxy,,nginx,haproxy", func(o options) bool {
			return strings.Join(o.proxies, " ") == "haproxy nginx"
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, err := parseOptions(strings.Fields(test.args), io.Discard)
			if err != nil || !test.check(o) {
				t.Errorf("%d scenarios, proxies %v, %v", len(o.scenarios), o.proxies, err)
			}
		})
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for _, args := range []string{
		"--rounds=0", "--rounds=101", "--duration=1ms", "--duration=1h", "--idle-conns=0", "--idle-conns=1000000",
		"--load=ab", "--rate=-1", "--rate=1e9", "--proxies=,", "--scenarios=h9", "compare", "--unknown",
	} {
		if _, err := parseOptions([]string{args}, io.Discard); err == nil {
			t.Errorf("%s was taken", args)
		}
	}
}

func TestHelpNamesEveryScenario(t *testing.T) {
	var b strings.Builder
	if _, err := parseOptions([]string{"--help"}, &b); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	for _, s := range scenarios {
		if !strings.Contains(b.String(), " "+s.name+" ") {
			t.Errorf("no %s", s.name)
		}
	}
	if strings.Contains(b.String(), "%!") {
		t.Errorf("a verb was not filled in:\n%s", b.String())
	}
}
