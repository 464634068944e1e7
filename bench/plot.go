package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A canvas is an SVG picture under way. Coordinates are pixels from the upper left corner.
type canvas struct {
	b             strings.Builder
	width, height float64
}

const (
	plotFont  = "font-family='Helvetica, Arial, sans-serif'"
	inkStrong = "#1f2328"
	inkWeak   = "#6e7781"
	inkGrid   = "#d8dee4"
)

// plotColours tell the proxies apart, in every picture alike.
var plotColours = map[string]string{
	"sluice": "#0969da", "sluice-no-ring": "#54aeff", "nginx": "#2da44e", "haproxy": "#d4761a", "caddy": "#8250df", "traefik": "#1b9aaa", "envoy": "#cf222e",
}

func colourOf(proxy string) string {
	if c, ok := plotColours[proxy]; ok {
		return c
	}
	return inkWeak
}

// newCanvas begins a picture with its title and a line below it.
func newCanvas(width, height float64, title, below string) *canvas {
	c := &canvas{width: width, height: height}
	fmt.Fprintf(&c.b, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %g %g' width='%g' height='%g' role='img'>\n", width, height, width, height)
	fmt.Fprintf(&c.b, "<title>%s</title>\n", html.EscapeString(title))
	c.rect(0, 0, width, height, "#ffffff")
	c.text(20, 28, "start", 16, inkStrong, "bold", title)
	c.text(20, 48, "start", 12, inkWeak, "normal", below)
	return c
}

func (c *canvas) rect(x, y, w, h float64, fill string) {
	fmt.Fprintf(&c.b, "<rect x='%.1f' y='%.1f' width='%.1f' height='%.1f' fill='%s'/>\n", x, y, w, h, fill)
}

func (c *canvas) line(x1, y1, x2, y2, width float64, stroke string) {
	fmt.Fprintf(&c.b, "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='%s' stroke-width='%g'/>\n", x1, y1, x2, y2, stroke, width)
}

// text has a white rim, so that it can be read across lines.
func (c *canvas) text(x, y float64, anchor string, size float64, fill, weight, s string) {
	fmt.Fprintf(&c.b, "<text x='%.1f' y='%.1f' text-anchor='%s' font-size='%g' font-weight='%s' fill='%s' stroke='#ffffff' stroke-width='3' paint-order='stroke' stroke-linejoin='round' %s>%s</text>\n",
		x, y, anchor, size, weight, fill, plotFont, html.EscapeString(s))
}

// A point of a curve, in the picture's coordinates.
type point struct{ x, y float64 }

func (c *canvas) path(points []point, stroke string, width float64) {
	var d strings.Builder
	for i, p := range points {
		command := "L"
		if i == 0 {
			command = "M"
		}
		fmt.Fprintf(&d, "%s%.1f %.1f ", command, p.x, p.y)
	}
	fmt.Fprintf(&c.b, "<path d='%s' fill='none' stroke='%s' stroke-width='%g' stroke-linejoin='round'/>\n", strings.TrimSpace(d.String()), stroke, width)
}

func (c *canvas) dot(p point, fill string) {
	fmt.Fprintf(&c.b, "<circle cx='%.1f' cy='%.1f' r='3.5' fill='%s'/>\n", p.x, p.y, fill)
}

// legend names the proxies in a row that begins at x.
func (c *canvas) legend(x, y float64, names []string) {
	for _, name := range names {
		c.rect(x, y-9, 12, 10, colourOf(name))
		c.text(x+17, y, "start", 12, inkStrong, "normal", name)
		x += 34 + 7.2*float64(len(name))
	}
}

func (c *canvas) String() string { return c.b.String() + "</svg>\n" }

// An axis translates values to pixels, evenly or by their logarithms.
type axis struct {
	low, high float64 // values at its ends
	from, to  float64 // pixels at its ends
	log       bool
}

func (a axis) at(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log10(max(v, a.low)), math.Log10(low), math.Log10(high)
	}
	if high == low {
		return a.from
	}
	return a.from + (v-low)/(high-low)*(a.to-a.from)
}

// roundUp is the next of 1, 2, 2.5, 5 times a power of ten.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, step := range []float64{1, 2, 2.5, 5} {
		if v <= step*power*(1+1e-9) {
			return step * power
		}
	}
	return 10 * power
}

// logTicks are 1, 2 and 5 times the powers of ten from low to high.
func logTicks(low, high float64) []float64 {
	var ticks []float64
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for _, step := range []float64{1, 2, 5} {
			if v := step * power; v >= low*(1-1e-9) && v <= high*(1+1e-9) {
				ticks = append(ticks, v)
			}
		}
	}
	return ticks
}

// microseconds prints a latency in the unit that suits it.
func microseconds(us float64) string {
	switch {
	case us >= 1e6:
		return fmt.Sprintf("%g s", us/1e6)
	case us >= 1e3:
		return fmt.Sprintf("%g ms", us/1e3)
	}
	return fmt.Sprintf("%g µs", us)
}

// count prints a number of things: 1k, 100k.
func count(n float64) string {
	if n >= 1000 {
		return fmt.Sprintf("%gk", n/1000)
	}
	return fmt.Sprintf("%g", n)
}
