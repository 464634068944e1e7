package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// The report's pictures. Each is made from the same figures as the tables; one without figures is not made.

// A picture is an SVG file of a report.
type picture struct {
	suffix string // of the file's name
	about  string
	svg    string
}

func (r *report) pictures() []picture {
	var all []picture
	if svg := r.costBars(); svg != "" {
		all = append(all, picture{"cost", "cost of every scenario beside " + r.reference(), svg})
	}
	for i := range r.Rows {
		if svg := r.Rows[i].latencyPlot(r); svg != "" {
			all = append(all, picture{"latency-" + r.Rows[i].Name, "latencies of " + r.Rows[i].Name, svg})
		}
	}
	for _, s := range r.series() {
		if svg := r.seriesPlot(s); svg != "" {
			all = append(all, picture{s.name, s.title, svg})
		}
	}
	return all
}

// source is the line below a picture's title: what it was taken on.
func (r *report) source() string {
	return fmt.Sprintf("%s, %d cores, Linux %s; %s of %g s, %s; median, smallest–largest",
		r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.rounds(), r.Seconds, r.Time.UTC().Format("2006-01-02"))
}

// reference is the proxy that bars are divided by: nginx, or whoever was measured first.
func (r *report) reference() string {
	if len(r.Rows) == 0 {
		return ""
	}
	if r.Rows[0].column("nginx") != nil {
		return "nginx"
	}
	return r.Rows[0].Proxies[0].Name
}

const (
	barHeight  = 14.0
	barGap     = 3.0
	groupGap   = 14.0
	barsLeft   = 150.0
	barsRight  = 760.0
	barsTop    = 90.0
	plotWidth  = 920.0
	ratioTop   = 2.5 // bars beyond are cut, and say so by their number
	plotHeight = 420.0
)

// costBars shows each proxy's cost divided by the reference's, scenario by scenario, with the cost itself beside it.
func (r *report) costBars() string {
	reference := r.reference()
	var rows []*row
	height := barsTop
	for i := range r.Rows {
		row := &r.Rows[i]
		base := row.column(reference)
		if base == nil || len(base.Rounds) == 0 || row.Unit == unitFailed || row.Vary != nil {
			continue
		}
		rows = append(rows, row)
		height += float64(row.measured())*(barHeight+barGap) + groupGap
	}
	if len(rows) == 0 {
		return ""
	}
	c := newCanvas(plotWidth, height+30, fmt.Sprintf("Cost, divided by that of %s", reference), r.source())
	c.legend(20, 72, r.names())
	x := axis{low: 0, high: ratioTop, from: barsLeft, to: barsRight}
	for v := 0.0; v <= ratioTop; v += 0.5 {
		c.line(x.at(v), barsTop-6, x.at(v), height, 1, inkGrid)
		c.text(x.at(v), height+16, "middle", 11, inkWeak, "normal", fmt.Sprintf("%g ×", v))
	}
	c.line(x.at(1), barsTop-6, x.at(1), height, 1.5, inkWeak)
	y := barsTop
	for _, row := range rows {
		y = row.bars(c, x, y, reference)
	}
	return c.String()
}

// bars draws one scenario's group from y downwards and answers where the next begins.
func (r *row) bars(c *canvas, x axis, y float64, reference string) float64 {
	middle := y + float64(r.measured())*(barHeight+barGap)/2
	c.text(barsLeft-10, middle, "end", 12, inkStrong, "bold", r.Name)
	c.text(barsLeft-10, middle+13, "end", 10, inkWeak, "normal", r.Unit.Name)
	for i := range r.Proxies {
		p := &r.Proxies[i]
		if len(p.Rounds) == 0 {
			continue
		}
		ratio := spread{1, 1, 1, 1}
		if p.Name != reference {
			ratio = p.Against[reference].Cost
		}
		end := x.at(min(ratio.Median, ratioTop))
		c.rect(x.from, y, end-x.from, barHeight, colourOf(p.Name))
		if p.Name != reference && ratio.Min < ratioTop {
			c.whisker(x.at(min(ratio.Min, ratioTop)), x.at(min(ratio.Max, ratioTop)), y+barHeight/2)
			end = max(end, x.at(min(ratio.Max, ratioTop)))
		}
		if ratio.Median > ratioTop { // cut: a gap in the bar says so
			c.rect(x.to-14, y-1, 5, barHeight+2, "#ffffff")
		}
		label := fmt.Sprintf("%.2f  (%.*f)", ratio.Median, r.Unit.Digits, p.spread(costOf).Median)
		c.text(end+8, y+barHeight-3, "start", 11, inkStrong, "normal", label)
		y += barHeight + barGap
	}
	return y + groupGap
}

// whisker marks the smallest and the largest.
func (c *canvas) whisker(from, to, y float64) {
	c.line(from, y, to, y, 1.2, inkStrong)
	c.line(from, y-3, from, y+3, 1.2, inkStrong)
	c.line(to, y-3, to, y+3, 1.2, inkStrong)
}

func (r *row) measured() int {
	n := 0
	for _, c := range r.Proxies {
		if len(c.Rounds) > 0 {
			n++
		}
	}
	return n
}

// names lists the proxies that have figures, in the report's order.
func (r *report) names() []string {
	var names []string
	for _, row := range r.Rows {
		for _, c := range row.Proxies {
			if len(c.Rounds) > 0 && !slices.Contains(names, c.Name) {
				names = append(names, c.Name)
			}
		}
	}
	return names
}

// latencyPlot draws the latency distributions of a row at a fixed rate: percentiles to the right by their nines, so
// that the tail, where users notice, has room.
func (r *row) latencyPlot(rep *report) string {
	curves := map[string][]curvePoint{}
	low, high, deepest, offered := math.Inf(1), 0.0, 0.0, 0.0
	var names []string
	for i := range r.Proxies {
		c := &r.Proxies[i]
		curve := c.medianCurve()
		if len(curve) < 2 || c.Rounds[0].Offered == 0 {
			continue
		}
		offered = c.Rounds[0].Offered
		names = append(names, c.Name)
		curves[c.Name] = curve
		for _, p := range curve {
			low, high = min(low, float64(p.Microseconds)), max(high, float64(p.Microseconds))
			deepest = max(deepest, p.Percentile)
		}
	}
	if len(names) == 0 {
		return ""
	}
	title := fmt.Sprintf("%s: latency at %.0f requests/s, by percentile", r.Name, offered)
	c := newCanvas(plotWidth, plotHeight, title, rep.source())
	c.legend(20, 72, names)
	x := axis{low: 0, high: nines(deepest), from: 80, to: plotWidth - 40}
	y := axis{low: max(low*0.8, 1), high: high * 1.25, from: plotHeight - 40, to: 92, log: true}
	c.gridY(x, y, logTicks(y.low, y.high), microseconds)
	for _, percentile := range []float64{0, 50, 90, 99, 99.9, 99.99} {
		if percentile <= deepest {
			at := x.at(nines(percentile))
			c.line(at, y.from, at, y.to, 1, inkGrid)
			c.text(at, y.from+18, "middle", 11, inkWeak, "normal", fmt.Sprintf("p%g", percentile))
		}
	}
	for _, name := range names {
		var points []point
		for _, p := range curves[name] {
			points = append(points, point{x.at(nines(p.Percentile)), y.at(float64(p.Microseconds))})
		}
		c.path(points, colourOf(name), 2.2)
	}
	return c.String()
}

// nines is how far to the right a percentile stands: 0 at p0, 1 at p90, 2 at p99.
func nines(percentile float64) float64 { return -math.Log10(1 - min(percentile, 99.9999)/100) }

func (c *canvas) gridY(x, y axis, ticks []float64, label func(float64) string) {
	for _, v := range ticks {
		c.line(x.from, y.at(v), x.to, y.at(v), 1, inkGrid)
		c.text(x.from-8, y.at(v)+4, "end", 11, inkWeak, "normal", label(v))
	}
}

// curveFrom is where a plotted curve begins: below, it only falls.
const curveFrom = 10

// medianCurve takes at each percentile the median of the rounds that have it.
func (c *column) medianCurve() []curvePoint {
	var curve []curvePoint
	for i, percentile := range curvePercentiles {
		var values []float64
		for _, m := range c.Rounds {
			if i < len(m.Curve) {
				values = append(values, float64(m.Curve[i].Microseconds))
			}
		}
		if percentile >= curveFrom && len(values) == len(c.Rounds) && len(values) > 0 {
			curve = append(curve, curvePoint{percentile, int64(spreadOf(values).Median)})
		}
	}
	return curve
}

// A series is a figure over a quantity that several rows vary.
type series struct {
	name, title string
	figure      string
	steps       []seriesStep
}

// A seriesStep is one row of a series.
type seriesStep struct {
	quantity float64
	row      *row
}

// series groups the rows that vary a quantity, in the order of the rows.
func (r *report) series() []series {
	var all []series
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Vary == nil {
			continue
		}
		step := seriesStep{row.Vary.Quantity, row}
		if n := len(all); n > 0 && all[n-1].steps[0].row.Vary.Of == row.Vary.Of {
			all[n-1].steps = append(all[n-1].steps, step)
			continue
		}
		all = append(all, series{
			name: strings.ReplaceAll(row.Vary.Of, " ", "-"), title: fmt.Sprintf("%s by number of %s", row.Unit.Name, row.Vary.Of), figure: row.Unit.Name,
			steps: []seriesStep{step},
		})
	}
	return slices.DeleteFunc(all, func(s series) bool { return len(s.steps) < 2 })
}

// seriesPlot draws the cost over the quantity, which has a logarithmic axis; 0 stands at its left end.
func (r *report) seriesPlot(s series) string {
	names := r.names()
	first, last := max(s.steps[0].quantity, 1), s.steps[len(s.steps)-1].quantity
	high := 0.0
	for _, step := range s.steps {
		for i := range step.row.Proxies {
			high = max(high, step.row.Proxies[i].spread(costOf).Max)
		}
	}
	if high == 0 {
		return ""
	}
	c := newCanvas(plotWidth, plotHeight, s.title, r.source())
	c.legend(20, 72, names)
	x := axis{low: first, high: last, from: 80, to: plotWidth - 60, log: true}
	y := axis{low: 0, high: roundUp(high * 1.05), from: plotHeight - 40, to: 92}
	c.gridY(x, y, []float64{0, y.high / 4, y.high / 2, y.high * 3 / 4, y.high}, func(v float64) string { return fmt.Sprintf("%g", v) })
	for _, step := range s.steps {
		c.text(x.at(step.quantity), y.from+18, "middle", 11, inkWeak, "normal", count(step.quantity))
	}
	for _, name := range names {
		var points []point
		for _, step := range s.steps {
			p := step.row.column(name)
			if p == nil || len(p.Rounds) == 0 {
				continue
			}
			cost, at := p.spread(costOf), x.at(step.quantity)
			c.line(at, y.at(cost.Min), at, y.at(cost.Max), 1.2, colourOf(name))
			points = append(points, point{at, y.at(cost.Median)})
		}
		c.path(points, colourOf(name), 2.2)
		for _, p := range points {
			c.dot(p, colourOf(name))
		}
	}
	return c.String()
}
