package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

func (r *report) json() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}

// markdown is the report for people: what was measured on, what must hold, then every row's figures.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Comparison of %s\n\n", r.Time.UTC().Format("2006-01-02 15:04 UTC"))
	r.preamble(&b)
	fmt.Fprintf(&b, "## What must hold for %s\n\n", subject)
	r.musts(&b)
	for _, p := range r.pictures() {
		fmt.Fprintf(&b, "![%s](%s-%s.svg)\n\n", p.about, r.fileName(), p.suffix)
	}
	for i := range r.Rows {
		r.Rows[i].markdown(&b)
	}
	return b.String()
}

func (r *report) preamble(b *strings.Builder) {
	m := r.Machine
	fmt.Fprintf(b, "%s, %d cores, %d MiB, Linux %s%s; load average before %s, %.1f %% of CPU time stolen by the host.\n",
		m.CPU, m.Cores, m.MemoryMiB, m.Kernel, m.sharing(), m.LoadAvg, m.Steal)
	maker := "own generator (" + m.Go + ")"
	if r.Load == "wrk" {
		maker = "wrk " + m.Wrk + ", else own generator (" + m.Go + ")"
	}
	fmt.Fprintf(b, "%s; load: %s, over %s.\n", strings.Join(r.versions(), ", "), maker, r.Network)
	fmt.Fprintf(b, "%s of %g s, proxies in turn; ", r.rounds(), r.Seconds)
	b.WriteString("ratios are medians of ratios within a round (smallest–largest).\n")
	b.WriteString("CPU is that of the proxy's process tree in the round's window, work what the origin served in it.\n")
	b.WriteString("Latencies are those of a closed loop at saturation; in rows at a fixed rate they are counted from when a request was due.\n")
	b.WriteString("\"others\" is the share of the machine that foreign processes used, or its host for others.\n")
	if n := r.setAside(); n > 0 {
		fmt.Fprintf(b, "%d rounds were measured again, because others had %d %% or more in them; the JSON file has what they said.\n", n, loudFrom)
	}
	b.WriteString("Differences under 10 % are noise; where others is not near 0, larger ones are too.\n")
	if r.Quick {
		b.WriteString("\n**A smoke test: these numbers mean little.**\n")
	}
	if r.Partial {
		b.WriteString("\n**Interrupted: rounds and scenarios are missing.**\n")
	}
	if v, ok := r.Versions["nginx"]; ok && olderThanMainline(v) {
		fmt.Fprintf(b, "\nnginx %s is older than mainline %d.%d: each bound against it is stricter by %g.\n",
			v, mainlineMajor, mainlineMinor, olderFactor)
	}
	if v, ok := r.Versions["haproxy"]; ok && !strings.HasPrefix(v, haproxyReference+".") {
		fmt.Fprintf(b, "\nThe bounds against HAProxy are meant for %s; this is %s.\n", haproxyReference, v)
	}
	b.WriteString("\n")
}

// musts prints every row's bounds, and the verdict where the subject was measured.
func (r *report) musts(b *strings.Builder) {
	rivals := r.boundedRivals()
	b.WriteString("| scenario | figure |")
	for _, rival := range rivals {
		fmt.Fprintf(b, " / %s | must | |", rivalTitles[rival])
	}
	fmt.Fprintf(b, "\n|---|---|%s\n", strings.Repeat("---|---|---|", len(rivals)))
	for i := range r.Rows {
		row := &r.Rows[i]
		for _, f := range row.bounded() {
			row.mustLine(b, f, rivals)
		}
	}
	b.WriteString("\n")
	for i := range r.Rows {
		r.Rows[i].mustAlone(b)
	}
}

// mustAlone prints the bound of a figure that is compared with nobody's.
func (r *row) mustAlone(b *strings.Builder) {
	if s := r.column(subject); s != nil && s.Must != nil {
		fmt.Fprintf(b, "%s: **%.2f** (%.2f–%.2f) %s, must be %s: %s.\n\n", r.Name, s.spread(costOf).Median, s.spread(costOf).Min, s.spread(costOf).Max,
			r.Unit.Name, s.Must.Bound, s.Must.Verdict)
	}
}

func (r *report) rounds() string {
	if r.Rounds == 1 {
		return "1 round"
	}
	return fmt.Sprintf("%d rounds", r.Rounds)
}

// versions lists the proxies with theirs, in alphabetical order.
func (r *report) versions() []string {
	var versions []string
	for name, version := range r.Versions {
		versions = append(versions, name+" "+version)
	}
	slices.Sort(versions)
	return versions
}

var rivalTitles = map[string]string{"nginx": "nginx", "haproxy": "HAProxy", "caddy": "Caddy"}

// boundedRivals lists those with bounds: Caddy only where it was measured.
func (r *report) boundedRivals() []string {
	rivals := []string{"nginx", "haproxy"}
	if _, ok := r.Versions["caddy"]; ok {
		rivals = append(rivals, "caddy")
	}
	return rivals
}

// A boundedFigure is a figure of a row that must keep bounds.
type boundedFigure struct {
	name   string
	bounds bounds
	of     func(comparison) (spread, *must)
}

// bounded lists a row's figures with bounds.
func (r *row) bounded() []boundedFigure {
	all := []boundedFigure{
		{r.Unit.Name, r.cost, func(c comparison) (spread, *must) { return c.Cost, c.CostMust }},
		{"requests/s", r.rate, func(c comparison) (spread, *must) { return c.Rate, c.RateMust }},
		{"p99 latency", r.p99, func(c comparison) (spread, *must) { return c.P99, c.P99Must }},
	}
	return slices.DeleteFunc(all, func(f boundedFigure) bool { return f.bounds == bounds{} || f.bounds.alone > 0 })
}

func (r *row) mustLine(b *strings.Builder, f boundedFigure, rivals []string) {
	fmt.Fprintf(b, "| %s | %s |", r.Name, f.name)
	s := r.column(subject)
	for _, rival := range rivals {
		ratio, verdict := spread{}, (*must)(nil)
		if s != nil {
			ratio, verdict = f.of(s.Against[rival])
		}
		bound := f.bounds.against(rival, r.version(rival))
		word := "not measured"
		switch {
		case bound.none():
			word = ""
		case verdict != nil:
			word = verdict.Verdict
		case s != nil && s.Skipped != "":
			word = "not built yet"
		}
		fmt.Fprintf(b, " %s | %s | %s |", ratioCell(ratio), bound, word)
	}
	b.WriteString("\n")
}

func (r *row) column(name string) *column {
	for i := range r.Proxies {
		if r.Proxies[i].Name == name {
			return &r.Proxies[i]
		}
	}
	return nil
}

func (r *row) version(name string) string {
	if c := r.column(name); c != nil {
		return c.version
	}
	return ""
}

// markdown prints one row's figures, a line a proxy.
func (r *row) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## %s\n\n%s\n\n| proxy | %s |", r.Name, r.About, r.Unit.Name)
	for _, c := range r.Proxies {
		fmt.Fprintf(b, " / %s |", c.Name)
	}
	heads := slices.Concat(figureHeads(r.Unit), []string{"errors", "bad", "handshake"})
	fmt.Fprintf(b, " %s |\n|%s\n", strings.Join(heads, " | "), strings.Repeat("---|", 2+len(r.Proxies)+len(heads)))
	for i := range r.Proxies {
		r.line(b, &r.Proxies[i])
	}
	b.WriteString("\n")
	for _, c := range r.Proxies {
		if c.Skipped != "" || c.Failed != "" {
			fmt.Fprintf(b, "- %s: %s\n", c.Name, firstLine(c.Skipped+c.Failed))
		}
		if missed := c.notHeld(); missed != "" {
			fmt.Fprintf(b, "- %s: %s\n", c.Name, missed)
		}
		if extra := c.extra(); extra != "" {
			fmt.Fprintf(b, "- %s: %s\n", c.Name, extra)
		}
	}
	b.WriteString("\n")
}

func (r *row) line(b *strings.Builder, c *column) {
	fmt.Fprintf(b, "| %s | %s |", c.Name, costCell(c.spread(costOf), r.Unit.Digits))
	for _, other := range r.Proxies {
		fmt.Fprintf(b, " %s |", ratioCell(c.Against[other.Name].Cost))
	}
	cells := c.figures(r.Unit)
	fmt.Fprintf(b, " %s |\n", strings.Join(cells, " | "))
}

func figureHeads(u unit) []string {
	switch u {
	case unitMemory:
		return []string{"connections", "RSS before MiB"}
	case unitEffect:
		return nil
	case unitFailed:
		return []string{"right answers", "p50/p90/p99/p99.9 µs"}
	}
	return []string{"user+sys", "requests/s", "MB/s", "p50/p90/p99/p99.9 µs", "ctx/request", "calls/request", "peak MiB", "others"}
}

// figures are the cells behind the ratios: medians, and sums of what went wrong.
func (c *column) figures(u unit) []string {
	median := func(of func(measurement) float64) float64 { return c.spread(of).Median }
	var errors, bad int64
	handshake := ""
	for _, m := range c.Rounds {
		errors += m.Errors
		bad += m.Bad
		handshake = m.Handshake
	}
	faults := []string{fmt.Sprint(errors), fmt.Sprint(bad), handshake}
	if len(c.Rounds) == 0 {
		return append(slices.Repeat([]string{"–"}, len(figureHeads(u))), "–", "–", "")
	}
	latencies := fmt.Sprintf("%.0f/%.0f/%.0f/%.0f",
		median(func(m measurement) float64 { return m.P50 }),
		median(func(m measurement) float64 { return m.P90 }),
		median(p99Of),
		median(func(m measurement) float64 { return m.P999 }))
	switch u {
	case unitMemory:
		return append([]string{
			fmt.Sprintf("%.0f", median(func(m measurement) float64 { return float64(m.Connections) })),
			fmt.Sprintf("%.1f", median(func(m measurement) float64 { return float64(m.RSSKiB) / 1024 })),
		}, faults...)
	case unitEffect:
		return faults
	case unitFailed:
		return append([]string{fmt.Sprintf("%.0f", median(func(m measurement) float64 { return float64(m.Requests) })), latencies}, faults...)
	}
	cost := median(costOf)
	system := cost * median(func(m measurement) float64 { return m.SystemShare })
	return append([]string{
		fmt.Sprintf("%.*f+%.*f", u.Digits, cost-system, u.Digits, system),
		fmt.Sprintf("%.0f", median(rateOf)),
		fmt.Sprintf("%.1f", median(func(m measurement) float64 { return m.MBPerSecond })),
		latencies,
		fmt.Sprintf("%.2f", median(func(m measurement) float64 { return m.Switches })),
		orDash("%.1f", median(func(m measurement) float64 { return m.Syscalls })),
		orDash("%.0f", median(func(m measurement) float64 { return float64(m.PeakKiB) / 1024 })),
		fmt.Sprintf("%.0f %%", median(func(m measurement) float64 { return m.Others })),
	}, faults...)
}

// orDash prints a figure that not every machine can give.
func orDash(format string, v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf(format, v)
}

// extra prints the medians of what only this row has.
func (c *column) extra() string {
	if len(c.Rounds) == 0 {
		return ""
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(c.Rounds[0].Extra)) {
		all = append(all, fmt.Sprintf("%s %.4g", name, c.spread(func(m measurement) float64 { return m.Extra[name] }).Median))
	}
	return strings.Join(all, ", ")
}

func costCell(s spread, digits int) string {
	if s.N == 0 {
		return "–"
	}
	return fmt.Sprintf("**%.*f** (%.*f–%.*f)", digits, s.Median, digits, s.Min, digits, s.Max)
}

func ratioCell(s spread) string {
	if s.N == 0 {
		return "–"
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", s.Median, s.Min, s.Max)
}
