package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// testReport is two rounds of one scenario with figures that are easy to divide.
func testReport() *report {
	s := scenario{
		name: "h1-c64", about: "about it", unit: unitRequest,
		cost: atMost(0.80, 0.65), rate: atLeast(1.1, 1.1),
	}
	proxies := []candidate{
		{name: "sluice", version: "0.1"}, {name: "nginx", version: "1.22.1"}, {name: "haproxy", version: "2.6.12"},
	}
	r := &report{
		Time: time.Unix(1_700_000_000, 0), Versions: map[string]string{}, Load: "own", Rounds: 2, Seconds: 2,
		Machine: machine{CPU: "Abacus", Cores: 2, Kernel: "6.1", Groups: true},
		Rows:    []row{newRow(s, proxies)},
	}
	for i, costs := range [][2]float64{{15, 30}, {20, 40}, {25, 50}} {
		r.Versions[proxies[i].name] = proxies[i].version
		for round, cost := range costs {
			r.Rows[0].Proxies[i].Rounds = append(r.Rows[0].Proxies[i].Rounds, measurement{
				Round: round + 1, Cost: cost, Rate: 1000 / cost, SystemShare: 0.8, Requests: 1000,
			})
		}
	}
	return r
}

func TestReportJudges(t *testing.T) {
	r := testReport()
	r.finish()
	against := r.Rows[0].Proxies[0].Against
	if got := against["nginx"].Cost; got != (spread{0.75, 0.75, 0.75, 2}) {
		t.Errorf("cost against nginx: %v", got)
	}
	for name, want := range map[string][2]string{
		"nginx":   {verdictMet, verdictMet}, // 0.75 <= 0.80 * 0.95; 1.33 >= 1.1 / 0.95
		"haproxy": {verdictMet, verdictMet}, // 0.60 <= 0.65
	} {
		if c := against[name]; c.CostMust.Verdict != want[0] || c.RateMust.Verdict != want[1] {
			t.Errorf("%s: %+v %+v", name, c.CostMust, c.RateMust)
		}
	}
	if c := r.Rows[0].Proxies[1].Against["haproxy"]; c.CostMust != nil {
		t.Error("a rival was judged")
	}
}

func TestReportMissesAndVoids(t *testing.T) {
	r := testReport()
	r.Rows[0].Proxies[0].Rounds[0].Cost = 100
	r.Rows[0].Proxies[0].Rounds[1].Cost = 100
	r.Rows[0].Proxies[2].Rounds[1].Bad = 1
	r.finish()
	against := r.Rows[0].Proxies[0].Against
	if v := against["nginx"].CostMust.Verdict; v != verdictMissed {
		t.Errorf("five times nginx: %s", v)
	}
	if v := against["haproxy"].CostMust.Verdict; v != verdictVoid {
		t.Errorf("a rival that answers wrongly: %s", v)
	}
	if err := r.failure(); err == nil || !strings.Contains(err.Error(), "haproxy") {
		t.Errorf("failure: %v", err)
	}
}

// TestRateNotHeldVoidsOnlyTheVerdict: neighbours may be why, so the command does not fail.
func TestRateNotHeldVoidsOnlyTheVerdict(t *testing.T) {
	r := testReport()
	r.Rows[0].p99 = atMost(1, 1)
	for i := range r.Rows[0].Proxies {
		for j := range r.Rows[0].Proxies[i].Rounds {
			r.Rows[0].Proxies[i].Rounds[j].P99 = 100
		}
	}
	r.Rows[0].Proxies[1].Rounds[1].NotHeld = "the rate was not held: by far"
	r.finish()
	against := r.Rows[0].Proxies[0].Against
	if v := against["nginx"].P99Must.Verdict; v != verdictVoid {
		t.Errorf("nginx did not hold the rate: %s", v)
	}
	if v := against["haproxy"].P99Must.Verdict; v != verdictMet {
		t.Errorf("HAProxy held it: %s", v)
	}
	if err := r.failure(); err != nil {
		t.Errorf("failure: %v", err)
	}
	if text := r.markdown(); !strings.Contains(text, "- nginx: the rate was not held: by far") || !strings.Contains(text, "| h1-c64 | p99 latency |") {
		t.Errorf("the report does not say it:\n%s", text)
	}
}

func TestReportMarkdown(t *testing.T) {
	r := testReport()
	r.Rows[0].Proxies[2].Skipped = "it cannot"
	r.Rows[0].Proxies[2].Rounds = nil
	r.finish()
	text := r.markdown()
	for _, want := range []string{
		"Abacus, 2 cores, 0 MiB, Linux 6.1, a scheduling group each for proxy, origin and load;",
		"haproxy 2.6.12, nginx 1.22.1, sluice 0.1",
		"older than mainline 1.31: each bound against it is stricter by 0.95",
		"| h1-c64 | CPU µs/request | **0.75** (0.75–0.75) | ≤ 0.76 | met | – | ≤ 0.65 | not measured |",
		"| h1-c64 | requests/s | **1.33** (1.33–1.33) | ≥ 1.16 | met |",
		"| sluice | **22.5** (15.0–30.0) | – | **0.75** (0.75–0.75) | – | 4.5+18.0 |",
		"- haproxy: it cannot",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	checkTables(t, text)
}

// checkTables wants every line of a table to have as many cells as its head.
func checkTables(t *testing.T, text string) {
	t.Helper()
	cells := 0
	for line := range strings.Lines(text) {
		n := strings.Count(line, "|")
		if n > 0 && cells > 0 && n != cells {
			t.Errorf("%d bars where the head has %d: %s", n, cells, line)
		}
		cells = n
	}
}

func TestReportIsPublished(t *testing.T) {
	for name, quick := range map[string]bool{"compare-20231114-221320": false, "tmp-compare-20231114-221320": true} {
		r := testReport()
		r.Quick = quick
		r.finish()
		dir := filepath.Join(t.TempDir(), "results")
		var out strings.Builder
		if err := r.publish(options{out: dir}, &out, &strings.Builder{}); err != nil {
			t.Fatal(err)
		}
		data, err1 := os.ReadFile(filepath.Join(dir, name+".json"))
		text, err2 := os.ReadFile(filepath.Join(dir, name+".md"))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		var back report
		if err := json.Unmarshal(data, &back); err != nil || len(back.Rows) != 1 || back.Rows[0].Proxies[0].Against["nginx"].CostMust == nil {
			t.Errorf("JSON: %v\n%s", err, data)
		}
		if out.String() != string(text) {
			t.Error("what is printed is not what is written")
		}
	}
}

func TestReportRewritesTheReadme(t *testing.T) {
	r := testReport()
	r.Rows[0].Proxies[0].Rounds[0].Others = 40
	lacking := newRow(scenario{name: "h2-10x10", unit: unitRequest, cost: atMost(0.5, 0.5)}, []candidate{{name: "sluice"}, {name: "nginx"}})
	lacking.Proxies[0].Skipped = "no HTTP/2"
	r.Rows = append(r.Rows, lacking)
	r.finish()
	dir := t.TempDir()
	file := filepath.Join(dir, "README.md")
	for range 2 { // a second time changes nothing
		old := "# Title\n\n" + resultsBegin + "old\n" + resultsEnd + "\n\nafter\n"
		if text, err := os.ReadFile(file); err == nil {
			old = string(text)
		}
		os.WriteFile(file, []byte(old), 0o644)
		if err := r.rewrite(file, dir); err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(file)
		for _, want := range []string{"# Title\n\n" + resultsBegin + "Taken on", "| h1-c64 |", "not quiet", resultsEnd + "\n\nafter\n", "![cost", "(latest-cost.svg)", "asking: h2-10x10.", "not built yet"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		if strings.Contains(string(text), "old") {
			t.Error("the old section is still there")
		}
	}
	if err := os.WriteFile(file, []byte("no markers"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.rewrite(file, dir); !errors.Is(err, errNoMarkers) {
		t.Errorf("without markers: %v", err)
	}
	if text, _ := os.ReadFile(file); string(text) != "no markers" {
		t.Error("a file without markers was changed")
	}
}

// TestReadmeOfSeveralRuns makes a section of two runs; the row that both have is the second's.
func TestReadmeOfSeveralRuns(t *testing.T) {
	dir := t.TempDir()
	readme := filepath.Join(dir, "README.md")
	os.WriteFile(readme, []byte(resultsBegin+resultsEnd), 0o644)
	save := func(name string, change func(*report)) string {
		r := testReport()
		change(r)
		r.finish()
		data, err := r.json()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	first := save("1.json", func(r *report) {})
	second := save("2.json", func(r *report) {
		c1 := r.Rows[0]
		c1.Name = "h1-c1"
		c64 := r.Rows[0]
		c64.Proxies = slices.Clone(c64.Proxies)
		c64.Proxies[0].Rounds = []measurement{{Round: 1, Cost: 3, Rate: 1}, {Round: 2, Cost: 6, Rate: 1}}
		r.Rows = []row{c64, c1}
	})
	if err := readmeCommand([]string{"--readme=" + readme, "--out=" + dir, first, second}, io.Discard); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(readme)
	one := strings.Index(string(text), "| h1-c1 | CPU µs/request | **0.75** (0.75–0.75) | ≤ 0.95 | met |")
	many := strings.Index(string(text), "| h1-c64 | CPU µs/request | **0.15** (0.15–0.15) | ≤ 0.76 | met |")
	if one < 0 || many < one {
		t.Errorf("rows at %d and %d of\n%s", one, many, text)
	}
	elsewhere := save("3.json", func(r *report) { r.Versions["nginx"] = "1.0" })
	quick := save("4.json", func(r *report) { r.Quick = true })
	gone := save("5.json", func(r *report) { r.Rows[0].Name = "h9" })
	other := save("6.json", func(r *report) { r.Load = "wrk" })
	partial := save("7.json", func(r *report) { r.Partial = true })
	for file, want := range map[string]error{elsewhere: errOtherMachine, other: errOtherMachine, partial: errPartial} {
		if err := readmeCommand([]string{"--readme=" + readme, "--out=" + dir, first, file}, io.Discard); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", filepath.Base(file), err, want)
		}
	}
	if err := readmeCommand([]string{"--readme=" + readme, "--out=" + dir, partial}, io.Discard); !errors.Is(err, errPartial) {
		t.Errorf("an interrupted run alone: %v", err)
	}
	for _, file := range []string{elsewhere, quick, gone, filepath.Join(dir, "none.json"), readme} {
		if err := readmeCommand([]string{"--readme=" + readme, "--out=" + dir, first, file}, io.Discard); err == nil {
			t.Errorf("%s was taken", filepath.Base(file))
		}
	}
}

// TestPicturesAreWellFormed reads every picture as XML: names and versions may hold what XML must escape.
func TestPicturesAreWellFormed(t *testing.T) {
	r := testReport()
	r.Machine.CPU = "A & B <C>"
	for i, routes := range []float64{10, 1000, 100_000} {
		row := r.Rows[0]
		row.Name, row.Vary = fmt.Sprintf("routes-%d", i), &vary{"routes", routes}
		r.Rows = append(r.Rows, row)
	}
	rate := &r.Rows[0]
	rate.Proxies = slices.Clone(rate.Proxies)
	for i := range rate.Proxies {
		rounds := slices.Clone(rate.Proxies[i].Rounds)
		for j := range rounds {
			rounds[j].Offered = 1000
			for _, percentile := range curvePercentiles {
				rounds[j].Curve = append(rounds[j].Curve, curvePoint{percentile, int64(100 + 10*percentile)})
			}
		}
		rate.Proxies[i].Rounds = rounds
	}
	r.finish()
	got := map[string]bool{}
	for _, p := range r.pictures() {
		got[p.suffix] = true
		d := xml.NewDecoder(strings.NewReader(p.svg))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", p.suffix, err, p.svg)
			}
		}
		if strings.Contains(p.svg, "NaN") || strings.Contains(p.svg, "Inf") {
			t.Errorf("%s: a coordinate is no number", p.suffix)
		}
	}
	for _, want := range []string{"cost", "latency-h1-c64", "routes"} {
		if !got[want] {
			t.Errorf("no picture %s: %v", want, got)
		}
	}
}

func TestParsePerf(t *testing.T) {
	for printed, want := range map[string]syscallCount{
		"1234,,raw_syscalls:sys_enter,800000000,100.00,,\n":      {1234, 800 * time.Millisecond},
		"<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n":     {},
		"warning\n\n77,,raw_syscalls:sys_enter,8,100.00,0.1,x\n": {77, 8},
	} {
		if got, err := parsePerf(printed); err != nil || got != want {
			t.Errorf("%q: %v, %v", printed, got, err)
		}
	}
	for _, printed := range []string{"event syntax error", "many,,raw_syscalls:sys_enter,8,100.00,,\n"} {
		if _, err := parsePerf(printed); err == nil {
			t.Errorf("%q was taken for a count", printed)
		}
	}
	// 1000 calls in 10 ms of CPU, 50 µs of CPU a request: 5 a request.
	if got := (syscallCount{1000, 10 * time.Millisecond}).perRequest(time.Second, 20_000); got < 4.99 || got > 5.01 {
		t.Errorf("%v calls a request, want 5", got)
	}
}

// TestReportJudgesAlone: a figure that is a ratio already has a bound of its own, for the subject alone.
func TestReportJudgesAlone(t *testing.T) {
	for cost, want := range map[float64]string{1.15: verdictMet, 1.16: verdictMissed} {
		r := testReport()
		row := newRow(scenario{name: "chain", unit: unitTimes, cost: ofItself(1.15)}, []candidate{{name: "sluice"}, {name: "nginx"}})
		for i := range row.Proxies {
			row.Proxies[i].Rounds = []measurement{{Round: 1, Cost: cost - 0.1}, {Round: 2, Cost: cost}, {Round: 3, Cost: cost + 0.1}}
		}
		r.Rows = append(r.Rows, row)
		r.finish()
		ours, theirs := r.Rows[1].Proxies[0], r.Rows[1].Proxies[1]
		if ours.Must == nil || ours.Must.Verdict != want || theirs.Must != nil || ours.Against["nginx"].CostMust != nil {
			t.Errorf("%v: %+v; nginx %+v", cost, ours.Must, theirs.Must)
		}
		line := fmt.Sprintf("chain: **%.2f** (%.2f–%.2f) × CPU/request without, must be ≤ 1.15: %s.", cost, cost-0.1, cost+0.1, want)
		if text := r.section(""); !strings.Contains(text, line) || strings.Contains(text, "| chain |") {
			t.Errorf("the section lacks %q: %s", line, text)
		}
	}
}

// TestDisturbedRounds: a round in which others were at work is set aside for all proxies, unless it has an error.
func TestDisturbedRounds(t *testing.T) {
	r := testReport()
	row := &r.Rows[0]
	if most := row.disturbed(2); most != 0 {
		t.Errorf("%v %% in a quiet round", most)
	}
	row.Proxies[1].Rounds[1].Others = 12
	if most := row.disturbed(2); most != 12 || row.disturbed(1) != 0 {
		t.Errorf("%v %% of 12", most)
	}
	row.Proxies[2].Rounds[1].Errors = 1
	if most := row.disturbed(2); most != 0 {
		t.Errorf("%v %% in a round with an error, which has to stay", most)
	}
	row.Proxies[2].Rounds[1].Errors = 0
	row.setAside(2)
	for _, c := range row.Proxies {
		if len(c.Rounds) != 1 || len(c.Aside) != 1 || c.Aside[0].Round != 2 {
			t.Errorf("%s has %d rounds, %d aside", c.Name, len(c.Rounds), len(c.Aside))
		}
	}
	r.finish()
	if text := r.markdown(); !strings.Contains(text, "1 rounds were measured again") {
		t.Errorf("the report does not tell:\n%.900s", text)
	}
	if !strings.Contains(r.section(""), "measured again") {
		t.Error("the section does not tell")
	}
}
