package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// A comparison takes long, and the machine may not be ours for so long at a time. Rows are independent of each other,
// ratios being taken within rounds of one row, so several runs can make one section. Every row comes whole from one
// run.

var errOtherMachine = errors.New("the runs differ in machine, versions, load or rounds: their rows do not belong in one table")

var errPartial = errors.New("the run was interrupted: its rows may lack rounds or proxies, and are not published as whole ones")

// readmeCommand rewrites a results section from the JSON files of earlier runs.
func readmeCommand(args []string, progress io.Writer) error {
	f := flag.NewFlagSet("bench readme", flag.ContinueOnError)
	f.SetOutput(progress)
	file := f.String("readme", "README.md", "Markdown file whose results section is rewritten")
	out := f.String("out", "bench/results", "directory for the pictures")
	f.Usage = func() {
		fmt.Fprint(progress, "bench readme [flags] RESULT.json...: one results section from several runs; a row's last run counts\n\n")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		f.Usage()
		return errors.New("no JSON file")
	}
	var merged *report
	for _, path := range f.Args() {
		r, err := readReport(path)
		if err != nil {
			return err
		}
		if merged == nil {
			merged = r
		} else if err := merged.merge(r); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	merged.sort()
	return merged.rewrite(*file, *out)
}

// readReport reads a run's JSON file, and adds what that leaves out because the table of scenarios has it.
func readReport(path string) (*report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if r.Quick {
		return nil, fmt.Errorf("%s: a smoke test's numbers mean little", filepath.Base(path))
	}
	if r.Partial {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), errPartial)
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		n := scenarioIndex(row.Name)
		if n < 0 {
			return nil, fmt.Errorf("%s: there is no scenario %q any more", filepath.Base(path), row.Name)
		}
		row.Unit, row.cost, row.rate, row.p99 = scenarios[n].unit, scenarios[n].cost, scenarios[n].rate, scenarios[n].p99
		for j := range row.Proxies {
			row.Proxies[j].version = r.Versions[row.Proxies[j].Name]
		}
		row.compare()
	}
	return &r, nil
}

func scenarioIndex(name string) int {
	return slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
}

// merge takes another run's rows in; those of the same name are replaced.
func (r *report) merge(other *report) error {
	same := r.Machine.CPU == other.Machine.CPU && r.Machine.Cores == other.Machine.Cores && r.Machine.Kernel == other.Machine.Kernel &&
		r.Machine.Groups == other.Machine.Groups &&
		r.Rounds == other.Rounds && r.Seconds == other.Seconds && r.Network == other.Network &&
		r.Load == other.Load
	for name, version := range other.Versions {
		if known, ok := r.Versions[name]; ok && known != version {
			same = false
		}
		r.Versions[name] = version
	}
	if !same {
		return errOtherMachine
	}
	for _, theirs := range other.Rows {
		i := slices.IndexFunc(r.Rows, func(mine row) bool { return mine.Name == theirs.Name })
		if i < 0 {
			r.Rows = append(r.Rows, theirs)
		} else {
			r.Rows[i] = theirs
		}
	}
	r.Time = other.Time
	return nil
}

// sort puts the rows into the order of the table of scenarios.
func (r *report) sort() {
	slices.SortFunc(r.Rows, func(a, b row) int { return scenarioIndex(a.Name) - scenarioIndex(b.Name) })
}
