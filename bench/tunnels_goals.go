package main

import (
	"context"
	"fmt"
	"io"
)

// tunnelGoal is what a candidate's figure must be of another's, on loopback, and what it is to come to.
type tunnelGoal struct {
	work, candidate, rival string
	figure                 string // a key of tunnelFigure
	must                   bound
	aim                    float64 // 0: none beyond what it must be
}

const nameJoined = "Sluice sockmap"

var tunnelFigure = map[string]func(tunnelFigures) float64{
	"CPU":  func(f tunnelFigures) float64 { return f.Process },
	"rate": func(f tunnelFigures) float64 { return f.Rate },
	"p50":  func(f tunnelFigures) float64 { return f.P50 },
}

// tunnelGoals are what docs/decisions/0003-performance-goals.md says of pass-through, and what
// decision 4 asks of joined tunnels.
var tunnelGoals = func() (list []tunnelGoal) {
	for _, w := range tunnelWorks {
		goal := func(candidate, figure, rival string, must bound, aim float64) {
			list = append(list, tunnelGoal{w.name, candidate, rival, figure, must, aim})
		}
		switch {
		case w.size == 0:
			goal(nameSluice, "CPU", nameNginx, bound{Value: 1}, 0.6)
			goal(nameSluice, "CPU", nameHAProxy, bound{Value: 0.9}, 0.6)
			goal(nameSluice, "rate", nameHAProxy, bound{1, true}, 0)
		case w.size < 0 && w.clients == 1: // docs/decisions/0003-performance-goals.md is about as many as a proxy has to serve
		case w.size < 0:
			goal(nameSluice, "CPU", nameNginx, bound{Value: 1}, 0.85)
			goal(nameSluice, "CPU", nameHAProxy, bound{Value: 1}, 0.85)
		default:
			if w.size == 512 {
				goal(nameSluice, "p50", nameNginx, bound{Value: 1.3}, 1.1)
			}
			goal(nameJoined, "CPU", nameSluice, bound{Value: 0.3}, 0)
			goal(nameJoined, "p50", nameSluice, bound{Value: 1.2}, 0)
		}
	}
	return list
}()

// versionOf asks a rival's program what it is; "": it is not there, or does not tell.
func versionOf(ctx context.Context, program, flag string) string {
	printed, _ := output(ctx, program, flag)
	return versionNumber.FindString(printed)
}

// goals prints which goals the results reach; between network namespaces there are none. What was not measured says so. Against
// an nginx that is older than the mainline that the goals are meant for they are stricter, as in bench compare.
func (b *tunnelBench) goals(out io.Writer, results tunnelResults) {
	if b.namespace != "" {
		return
	}
	fmt.Fprintln(out, "\n| goal | median of the rounds' ratios (min-max) | must | aim | verdict |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- |")
	for _, g := range tunnelGoals {
		if g.rival == nameNginx {
			g.must = g.must.stricter(olderThanMainline(b.nginx))
		}
		list, rival := results[g.work][g.candidate], results[g.work][g.rival]
		ratio, verdict, aim := "", "not measured", ""
		if r := tunnelRatios(list, rival, tunnelFigure[g.figure]); r.N > 0 {
			ratio, verdict = fmt.Sprintf("%.2f (%.2f-%.2f)", r.Median, r.Min, r.Max), g.verdict(r.Median)
		}
		if g.aim > 0 {
			aim = fmt.Sprint(g.aim)
		}
		fmt.Fprintf(out, "| %s: %s of %s ÷ %s | %s | %s | %s | %s |\n", g.work, g.figure, g.candidate, g.rival, ratio, g.must, aim, verdict)
	}
}

func (g *tunnelGoal) verdict(ratio float64) string {
	switch {
	case !g.must.met(ratio):
		return verdictMissed
	case g.aim > 0 && ratio <= g.aim:
		return verdictMet + ", aim too"
	}
	return verdictMet
}

// tunnelRatios is the spread of the rounds' ratios of a figure; rounds without one do not count.
func tunnelRatios(list, rival []tunnelFigures, get func(tunnelFigures) float64) spread {
	var ratios []float64
	for i := range min(len(list), len(rival)) {
		if of := get(rival[i]); of > 0 {
			ratios = append(ratios, get(list[i])/of)
		}
	}
	return spreadOf(ratios)
}
