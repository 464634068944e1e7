package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
)

// tunnelResults are the figures of each round, by measurement and candidate. The n-th figures of two candidates that ran
// together are of the same round.
type tunnelResults map[string]map[string][]tunnelFigures

// readTunnelResults reads what earlier runs left; "" and a file that is not there yet are empty.
func readTunnelResults(file string) (tunnelResults, error) {
	r := tunnelResults{}
	if file == "" {
		return r, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

func (r tunnelResults) write(file string) error {
	if file == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// report prints medians, with the smallest and the largest of the process's CPU, and what that and p50 are of the rivals'.
func (b *tunnelBench) report(out io.Writer, results tunnelResults) {
	fmt.Fprintf(out, "%d processors, %s, %v a measurement, nginx %s, HAProxy %s\n", runtime.NumCPU(), cmp.Or(b.namespace, "loopback"), b.span, b.nginx, b.haproxy)
	for _, w := range tunnelWorks {
		if len(results[w.name]) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n| %s | rounds | process CPU (min-max) | machine CPU | rate | p50 µs | p99 µs | CPU, p50 ÷ nginx | ÷ HAProxy | ÷ Sluice |\n", w.name)
		fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
		for _, name := range tunnelNames {
			list := results[w.name][name]
			if len(list) == 0 {
				continue
			}
			of := func(get func(tunnelFigures) float64) spread { return tunnelSpread(list, get) }
			cpu := of(tunnelFigure["CPU"])
			machine := of(func(f tunnelFigures) float64 { return f.Machine })
			p99 := of(func(f tunnelFigures) float64 { return f.P99 })
			fmt.Fprintf(out, "| %s | %d | %.1f (%.1f-%.1f) | %.1f | %.2f | %.0f | %.0f |", name, len(list), cpu.Median, cpu.Min, cpu.Max, machine.Median,
				of(tunnelFigure["rate"]).Median, of(tunnelFigure["p50"]).Median, p99.Median)
			for _, rival := range []string{nameNginx, nameHAProxy, nameSluice} {
				fmt.Fprintf(out, " %s |", tunnelRatio(list, results[w.name][rival]))
			}
			fmt.Fprintln(out)
		}
	}
	b.goals(out, results)
}

// tunnelRatio is the median of the rounds' ratios, of CPU and of p50.
func tunnelRatio(list, rival []tunnelFigures) string {
	cpu, p50 := tunnelRatios(list, rival, tunnelFigure["CPU"]), tunnelRatios(list, rival, tunnelFigure["p50"])
	if cpu.N == 0 || p50.N == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f, %.2f", cpu.Median, p50.Median)
}

// tunnelSpread is the spread of one of the figures.
func tunnelSpread(list []tunnelFigures, get func(tunnelFigures) float64) spread {
	var values []float64
	for _, f := range list {
		values = append(values, get(f))
	}
	return spreadOf(values)
}
