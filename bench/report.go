package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A report is everything a run found out. It is the JSON file as it is; report_markdown.go prints it for people.
type report struct {
	Time     time.Time         `json:"time"`
	Machine  machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Load     string            `json:"load"`
	Network  string            `json:"network"`
	Rounds   int               `json:"rounds"`
	Seconds  float64           `json:"secondsPerRound"`
	Quick    bool              `json:"quick,omitempty"`
	Partial  bool              `json:"interrupted,omitempty"`
	Rows     []row             `json:"scenarios"`

	clock cpuClock
}

// A row is one scenario's result.
type row struct {
	Name    string   `json:"name"`
	About   string   `json:"about"`
	Unit    unit     `json:"unit"`
	Vary    *vary    `json:"vary,omitempty"`
	Proxies []column `json:"proxies"`

	cost, rate, p99 bounds
}

// A column is one proxy's part of a row.
type column struct {
	Name    string                `json:"name"`
	Rounds  []measurement         `json:"rounds,omitempty"`
	Aside   []measurement         `json:"aside,omitempty"`   // rounds that were measured again, because others were at work
	Against map[string]comparison `json:"against,omitempty"` // by the other proxy's name
	Skipped string                `json:"skipped,omitempty"`
	Failed  string                `json:"failed,omitempty"`
	Must    *must                 `json:"must,omitempty"` // of the subject's own figure

	version string
}

// disturbed is the most of the machine that others had in a round, in percent; 0 for a round with an error, which is kept whoever
// was to blame.
func (r *row) disturbed(round int) (most float64) {
	for _, c := range r.Proxies {
		if n := len(c.Rounds); n > 0 && c.Rounds[n-1].Round == round {
			if !c.Rounds[n-1].clean() {
				return 0
			}
			most = max(most, c.Rounds[n-1].Others)
		}
	}
	return most
}

// setAside takes a round out of what is compared, of all proxies: what it would have said does not matter for that.
func (r *row) setAside(round int) {
	for i := range r.Proxies {
		c := &r.Proxies[i]
		if n := len(c.Rounds); n > 0 && c.Rounds[n-1].Round == round {
			c.Aside = append(c.Aside, c.Rounds[n-1])
			c.Rounds = c.Rounds[:n-1]
		}
	}
}

// setAside is how many rounds were measured again, of all rows.
func (r *report) setAside() (n int) {
	for _, row := range r.Rows {
		most := 0
		for _, c := range row.Proxies {
			most = max(most, len(c.Aside))
		}
		n += most
	}
	return n
}

// A comparison holds ratios to another proxy within rounds. Only the subject's has verdicts.
type comparison struct {
	Cost     spread `json:"cost"`
	Rate     spread `json:"rate"`
	P99      spread `json:"p99"`
	CostMust *must  `json:"costMust,omitempty"`
	RateMust *must  `json:"rateMust,omitempty"`
	P99Must  *must  `json:"p99Must,omitempty"` // of rows at a fixed rate
}

// A must is a bound with its verdict.
type must struct {
	Bound   bound  `json:"bound"`
	Verdict string `json:"verdict"`
}

const (
	verdictMet    = "met"
	verdictMissed = "MISSED"
	verdictVoid   = "void" // somebody's answers were wrong, or came too late to mean anything
)

func newReport(ctx context.Context, o options, proxies []candidate) *report {
	r := &report{
		Time: time.Now(), Machine: describeMachine(ctx), Versions: map[string]string{},
		Load: o.load, Network: o.network(), Rounds: o.rounds, Seconds: o.duration.Seconds(), Quick: o.quick,
		clock: readCPUClock(),
	}
	for _, c := range proxies {
		r.Versions[c.name] = c.version
	}
	return r
}

func newRow(s scenario, proxies []candidate) row {
	r := row{Name: s.name, About: s.about, Unit: s.unit, Vary: s.vary, cost: s.cost, rate: s.rate, p99: s.p99}
	for _, c := range proxies {
		column := column{Name: c.name, version: c.version}
		if s.lacking != nil {
			if err := s.lacking(c); err != nil {
				column.Skipped = err.Error()
			}
		}
		r.Proxies = append(r.Proxies, column)
	}
	return r
}

// fail books an error that keeps every proxy from being measured.
func (r *row) fail(err error) {
	for i := range r.Proxies {
		if r.Proxies[i].Skipped == "" {
			r.Proxies[i].Failed = err.Error()
		}
	}
}

// finish computes what follows from the measurements.
func (r *report) finish() {
	r.Machine.Steal = readCPUClock().stealSince(r.clock)
	for i := range r.Rows {
		r.Rows[i].compare()
	}
}

// compare fills in every proxy's ratios to every other.
func (r *row) compare() {
	for i := range r.Proxies {
		a := &r.Proxies[i]
		a.Against = map[string]comparison{}
		for _, b := range r.Proxies {
			if a.Name != b.Name {
				a.Against[b.Name] = r.judge(a, &b)
			}
		}
		if a.Name == subject {
			a.Must = verdict(bound{Value: r.cost.alone}, a.spread(costOf), a.clean())
		}
	}
}

// judge compares a with b and, if a is the subject, with the bounds.
func (r *row) judge(a, b *column) comparison {
	c := comparison{
		Cost: spreadOf(pairedRatios(a.values(costOf), b.values(costOf))),
		Rate: spreadOf(pairedRatios(a.values(rateOf), b.values(rateOf))),
		P99:  spreadOf(pairedRatios(a.values(p99Of), b.values(p99Of))),
	}
	if a.Name == subject {
		clean := a.clean() && b.clean() && a.notHeld() == "" && b.notHeld() == ""
		c.CostMust = verdict(r.cost.against(b.Name, b.version), c.Cost, clean)
		c.RateMust = verdict(r.rate.against(b.Name, b.version), c.Rate, clean)
		c.P99Must = verdict(r.p99.against(b.Name, b.version), c.P99, clean)
	}
	return c
}

// verdict is nil where there is no bound or nothing was measured.
func verdict(b bound, ratios spread, clean bool) *must {
	switch {
	case b.none() || ratios.N == 0:
		return nil
	case !clean:
		return &must{b, verdictVoid}
	case b.met(ratios.Median):
		return &must{b, verdictMet}
	}
	return &must{b, verdictMissed}
}

func costOf(m measurement) float64 { return m.Cost }
func rateOf(m measurement) float64 { return m.Rate }
func p99Of(m measurement) float64  { return m.P99 }

// values lists one figure by round.
func (c *column) values(of func(measurement) float64) map[int]float64 {
	values := map[int]float64{}
	for _, m := range c.Rounds {
		values[m.Round] = of(m)
	}
	return values
}

// spread summarises one figure over the rounds.
func (c *column) spread(of func(measurement) float64) spread {
	var values []float64
	for _, m := range c.Rounds {
		values = append(values, of(m))
	}
	return spreadOf(values)
}

func (c *column) clean() bool {
	for _, m := range c.Rounds {
		if !m.clean() {
			return false
		}
	}
	return c.Failed == ""
}

// notHeld tells of a round in which the fixed rate was not held; "" when there is none.
func (c *column) notHeld() string {
	for _, m := range c.Rounds {
		if m.NotHeld != "" {
			return m.NotHeld
		}
	}
	return ""
}

func (c *column) example() string {
	for _, m := range c.Rounds {
		if m.Example != "" {
			return "(" + m.Example + ")"
		}
	}
	return ""
}

// failure is what makes the command fail: a proxy that could not be measured or answered wrongly. A missed bound
// does not; one run is no proof.
func (r *report) failure() error {
	var all []error
	for _, row := range r.Rows {
		for _, c := range row.Proxies {
			switch {
			case c.Failed != "":
				all = append(all, fmt.Errorf("%s: %s: %s", row.Name, c.Name, firstLine(c.Failed)))
			case !c.clean():
				all = append(all, fmt.Errorf("%s: %s: errors or bad answers %s", row.Name, c.Name, c.example()))
			}
		}
	}
	return errors.Join(all...)
}

// publish prints the report and writes its files. Those of --quick are named so that git ignores them.
func (r *report) publish(o options, out, progress io.Writer) error {
	text := r.markdown()
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	base := filepath.Join(o.out, r.fileName())
	data, err := r.json()
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(base+".md", []byte(text), 0o644),
		os.WriteFile(base+".json", data, 0o644),
	); err != nil {
		return err
	}
	for _, p := range r.pictures() {
		if err := os.WriteFile(base+"-"+p.suffix+".svg", []byte(p.svg), 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintf(progress, "written: %s.md, .json and .svg\n", base)
	if o.readme != "" && !r.Partial {
		return r.rewrite(o.readme, o.out)
	}
	return nil
}

// fileName is that of the report's files, without their endings.
func (r *report) fileName() string {
	name := "compare-" + r.Time.UTC().Format("20060102-150405")
	if r.Quick {
		return "tmp-" + name
	}
	return name
}
