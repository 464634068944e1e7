package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// The regression check compares two builds of Sluice, in pairs: old, new, old, new. CPU per unit of work is what is
// compared, for it drifts least on a shared machine, and only inside a pair. A regression is every pair of a row over
// the limit: one that is over by chance is followed by one that is not.

const (
	regressLimit     = 1.10
	regressRounds    = 3
	regressDuration  = time.Second
	regressScenarios = "h1-c64,tls-c64,handshake,body-1m"
	nameOld          = "old"
	nameNew          = "new"
)

var errRegression = errors.New("it costs more than before")

const regressHelp = `bench regress: one build of Sluice beside another, CPU per unit of work.

A row is a regression when the new build costs more than %.2f times the old one in every one of its pairs. The exit
status says so.

`

// regressCommand is the sub-command from its flags to its verdict.
func regressCommand(ctx context.Context, args []string, out, progress io.Writer) error {
	o, binaries, err := parseRegress(args, progress)
	if err != nil {
		return err
	}
	var builds []candidate
	for i, name := range []string{nameOld, nameNew} {
		o.sluice = binaries[i]
		c, err := findSluice(ctx, o)
		if err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		c.name = name
		builds = append(builds, c)
	}
	r, err := newRig(o, progress)
	if err != nil {
		return err
	}
	defer r.close()
	var rows []row
	for i, s := range o.scenarios {
		r.logf("%s (%d of %d): %s", s.name, i+1, len(o.scenarios), s.about)
		row := r.runScenario(ctx, s, builds)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		row.compare()
		rows = append(rows, row)
	}
	return judgeRegress(rows, out)
}

func parseRegress(args []string, w io.Writer) (options, [2]string, error) {
	o := options{load: "own", idleConns: 400, proxies: []string{nameOld, nameNew}}
	var names string
	var binaries [2]string
	f := flag.NewFlagSet("bench regress", flag.ContinueOnError)
	f.SetOutput(w)
	f.Usage = func() {
		fmt.Fprintf(w, regressHelp, regressLimit)
		f.PrintDefaults()
	}
	f.StringVar(&binaries[0], nameOld, "bin/sluice-old", "the build before")
	f.StringVar(&binaries[1], nameNew, sluiceDefault(), "the build after")
	f.StringVar(&names, "scenarios", regressScenarios, "comma-separated; see bench compare --help")
	f.IntVar(&o.rounds, "rounds", regressRounds, "pairs of every scenario")
	f.DurationVar(&o.duration, "duration", regressDuration, "measured time of one build in a pair")
	if err := f.Parse(args); err != nil {
		return o, binaries, err
	}
	if f.NArg() > 0 {
		return o, binaries, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	return o, binaries, o.complete(strings.Join(o.proxies, ","), names, map[string]bool{"proxies": true})
}

// judgeRegress prints a line a row, with all its pairs, and answers an error when one is a regression or could not
// be measured. A row that a build cannot do is no regression: features come, and the rows with them; but one that
// the old build could do and the new one cannot is.
func judgeRegress(rows []row, out io.Writer) error {
	var all []error
	fmt.Fprintf(out, "| scenario | figure | old | new | new / old, pair by pair | |\n|---|---|---|---|---|---|\n")
	for i := range rows {
		row := &rows[i]
		before, after := row.column(nameOld), row.column(nameNew)
		ratios := pairsInOrder(after, before)
		word := verdictOf(before, after, ratios)
		var pairs []string
		for _, ratio := range ratios {
			pairs = append(pairs, fmt.Sprintf("%.2f", ratio))
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s |\n", row.Name, row.Unit.Name,
			costCell(before.spread(costOf), row.Unit.Digits), costCell(after.spread(costOf), row.Unit.Digits), strings.Join(pairs, " "), word)
		if word != regressFine && word != regressUnable {
			all = append(all, fmt.Errorf("%s: %w: %s", row.Name, errRegression, word))
		}
		if !before.clean() || !after.clean() {
			all = append(all, fmt.Errorf("%s: errors or bad answers %s%s", row.Name, before.example(), after.example()))
		}
	}
	return errors.Join(all...)
}

const (
	regressFine   = "no regression"
	regressWorse  = "REGRESSION"
	regressLost   = "LOST: the old build could do it"
	regressUnable = "not built yet"
)

func verdictOf(before, after *column, ratios []float64) string {
	switch {
	case after.Skipped != "" && len(before.Rounds) > 0:
		return regressLost
	case after.Skipped != "" || before.Skipped != "":
		return regressUnable
	case len(ratios) == 0:
		return regressFine // not measured: clean tells
	}
	for _, ratio := range ratios {
		if ratio <= regressLimit {
			return regressFine
		}
	}
	return regressWorse
}

// pairsInOrder lists a's cost divided by b's, round by round.
func pairsInOrder(a, b *column) []float64 {
	var ratios []float64
	other := b.values(costOf)
	for _, m := range a.Rounds {
		if cost := other[m.Round]; cost > 0 {
			ratios = append(ratios, m.Cost/cost)
		}
	}
	return ratios
}
