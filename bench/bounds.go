package main

import (
	"fmt"
	"strconv"
	"strings"
)

// bounds are what a ratio of Sluice to its rivals must keep: the column "must" in PERFORMANCE.md. Zero is no
// bound.
type bounds struct {
	nginx   float64
	haproxy float64
	caddys  float64
	alone   float64 // of the figure itself, beside nobody's
	least   bool    // the ratio is at least the bound; otherwise at most
}

func atMost(nginx, haproxy float64) bounds { return bounds{nginx: nginx, haproxy: haproxy} }
func atLeast(nginx, haproxy float64) bounds {
	return bounds{nginx: nginx, haproxy: haproxy, least: true}
}

// ofItself is a bound of the figure itself, for rows whose figure is a ratio already.
func ofItself(most float64) bounds { return bounds{alone: most} }

// caddy adds what the ratio to Caddy must keep.
func (b bounds) caddy(bound float64) bounds {
	b.caddys = bound
	return b
}

const (
	subject = "sluice" // the proxy that bounds are about

	// The bounds are meant against nginx's newest mainline. An older nginx is slower, so against one every bound
	// is stricter by this factor.
	mainlineMajor, mainlineMinor = 1, 31
	olderFactor                  = 0.95

	// The bounds against HAProxy are meant for Debian's, the cheapest that was found.
	haproxyReference = "2.6"
)

// A bound is one of bounds, made for the rival as it is on this machine. Its zero value is no bound.
type bound struct {
	Value float64 `json:"value"`
	Least bool    `json:"atLeast"`
}

// against is the bound for a rival of that name and version.
func (b bounds) against(name, version string) bound {
	switch name {
	case "nginx":
		return bound{b.nginx, b.least}.stricter(olderThanMainline(version))
	case "haproxy":
		return bound{b.haproxy, b.least}
	case "caddy":
		return bound{b.caddys, b.least}
	}
	return bound{}
}

func (b bound) stricter(apply bool) bound {
	switch {
	case !apply:
	case b.Least:
		b.Value /= olderFactor
	default:
		b.Value *= olderFactor
	}
	return b
}

func (b bound) none() bool { return b.Value == 0 }

func (b bound) met(ratio float64) bool {
	if b.Least {
		return ratio >= b.Value
	}
	return ratio <= b.Value
}

func (b bound) String() string {
	switch {
	case b.none():
		return "none"
	case b.Least:
		return fmt.Sprintf("≥ %.3g", b.Value)
	}
	return fmt.Sprintf("≤ %.3g", b.Value)
}

func olderThanMainline(version string) bool {
	return olderThan(version, mainlineMajor, mainlineMinor)
}

// olderThan compares the first two numbers of a version. One that cannot be read counts as older: the stricter side.
func olderThan(version string, mostMajor, mostMinor int) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(second)
	if err1 != nil || err2 != nil {
		return true
	}
	return major < mostMajor || major == mostMajor && minor < mostMinor
}

// bounded says whether anything is asked of Sluice against that rival.
func bounded(name string) bool { return name == subject || name == "nginx" || name == "haproxy" }
