package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Limits of what can be asked for: a typo must not occupy the machine for a day.
const (
	roundsMax    = 100
	durationMax  = time.Minute
	durationMin  = 500 * time.Millisecond // shorter than this, edges of the window weigh more than its middle
	idleConnsMax = 50_000
	rateMax      = 1_000_000
)

// options is what the command line of compare asks for, checked.
type options struct {
	proxies   []string
	scenarios []scenario
	rounds    int
	duration  time.Duration
	load      string // "wrk" or "own": who makes keep-alive load
	idleConns int
	rate      float64 // of the rows at a fixed rate; 0: found by measuring
	out       string
	all       bool
	netns     bool
	quick     bool
	readme    string // file whose results section is rewritten; "" for none
	nginx     string
	modules   string // where nginx's dynamic modules lie, for its stream module
	haproxy   string
	caddy     string
	traefik   string
	envoy     string
	sluice    string
}

const compareHelp = `bench compare: paired, interleaved rounds of the same work for every proxy.

Ratios are taken within a round; the report shows their median with smallest and largest. Only ratios of one run
count, and differences under 10 %% are noise. Leave the machine alone while it runs.

Scenarios:
%s
Flags:
`

// parseOptions reads the command line. Help goes to w.
func parseOptions(args []string, w io.Writer) (options, error) {
	var o options
	var proxies, names string
	f := flag.NewFlagSet("bench compare", flag.ContinueOnError)
	f.SetOutput(w)
	f.Usage = func() {
		fmt.Fprintf(w, compareHelp, scenarioHelp())
		f.PrintDefaults()
	}
	f.StringVar(&proxies, "proxies", proxiesAlways, "which to compare, in this order within a round; when not given, caddy, traefik and envoy too where they are installed (not with --quick)")
	f.StringVar(&names, "scenarios", "", "comma-separated; when empty all without a +, a few with --quick")
	f.IntVar(&o.rounds, "rounds", 3, "rounds of every scenario")
	f.DurationVar(&o.duration, "duration", 2*time.Second, "measured time of a round; load also runs 0.5 s before and after")
	f.StringVar(&o.load, "load", "", "own|wrk: who makes keep-alive load (default wrk where installed)")
	f.IntVar(&o.idleConns, "idle-conns", 8000, "connections of idle-mem; its TLS row opens a quarter of them")
	f.Float64Var(&o.rate, "rate", 0, "requests/s of the rows at a fixed rate (default 45 % of what the slowest bounded proxy can do, measured first)")
	f.StringVar(&o.out, "out", "bench/results", "directory for the JSON and Markdown report")
	f.BoolVar(&o.all, "all", false, "the scenarios marked + as well: many routes, idle connections, filters, changes, reload (some ten minutes)")
	f.BoolVar(&o.netns, "netns", false, "proxies in a network namespace of their own, over veth instead of loopback (needs root; own load)")
	f.StringVar(&o.readme, "readme", "", "rewrite the section between the results markers of this Markdown file")
	f.BoolVar(&o.quick, "quick", false, "smoke test: 1 round of 1 s, few scenarios, fewer connections; its numbers mean little")
	f.StringVar(&o.nginx, "nginx", "nginx", "nginx binary")
	f.StringVar(&o.modules, "nginx-modules", "", "directory of nginx's dynamic modules (default: its compiled-in path)")
	f.StringVar(&o.haproxy, "haproxy", "haproxy", "HAProxy binary")
	f.StringVar(&o.caddy, "caddy", "caddy", "Caddy binary")
	f.StringVar(&o.traefik, "traefik", "traefik", "Traefik binary")
	f.StringVar(&o.envoy, "envoy", "envoy", "Envoy binary")
	f.StringVar(&o.sluice, "sluice", sluiceDefault(), "Sluice binary; the environment's SLUICE_BINARY sets the default")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	return o, o.complete(proxies, names, given)
}

// complete fills in what depends on other flags and refuses what makes no sense.
func (o *options) complete(proxies, names string, given map[string]bool) error {
	if o.quick {
		o.shorten(given)
		if names == "" {
			names = quickScenarios
		}
	}
	if o.netns && o.load == "wrk" {
		return errors.New("--netns and --load=wrk: wrk is made to find loopback only")
	}
	if o.load == "" {
		o.load = "own"
		if _, err := exec.LookPath("wrk"); err == nil && !o.netns {
			o.load = "wrk"
		}
	}
	var err error
	if o.scenarios, err = scenariosNamed(names, o.all); err != nil {
		return err
	}
	o.proxies = splitList(proxies)
	if !given["proxies"] && !o.quick {
		o.proxies = append(o.proxies, o.present()...)
	}
	switch {
	case len(o.proxies) == 0:
		return errors.New("--proxies is empty")
	case o.load != "own" && o.load != "wrk":
		return fmt.Errorf("--load=%s: want own or wrk", o.load)
	case o.rounds < 1 || o.rounds > roundsMax:
		return fmt.Errorf("--rounds=%d: want 1 to %d", o.rounds, roundsMax)
	case o.duration < durationMin || o.duration > durationMax:
		return fmt.Errorf("--duration=%v: want %v to %v", o.duration, durationMin, durationMax)
	case o.readme != "" && (o.quick || !slices.Contains(o.proxies, subject)):
		return errors.New("--readme wants whole runs that measure sluice: not --quick")
	case o.rate < 0 || o.rate > rateMax:
		return fmt.Errorf("--rate=%g: want 0 to %d", o.rate, int(rateMax))
	case o.idleConns < 4 || o.idleConns > idleConnsMax:
		return fmt.Errorf("--idle-conns=%d: want 4 to %d", o.idleConns, idleConnsMax)
	}
	return nil
}

const proxiesAlways = "sluice,nginx,haproxy"

// present lists the rivals that are compared only where they are installed.
func (o *options) present() []string {
	var found []string
	for _, rival := range []struct{ name, path string }{{"caddy", o.caddy}, {"traefik", o.traefik}, {"envoy", o.envoy}} {
		if _, err := exec.LookPath(rival.path); err == nil {
			found = append(found, rival.name)
		}
	}
	return found
}

// network says over what proxies are reached.
func (o *options) network() string {
	if o.netns {
		return "veth between two network namespaces"
	}
	return "loopback"
}

// shorten applies --quick to every flag that was not given.
func (o *options) shorten(given map[string]bool) {
	if !given["rounds"] {
		o.rounds = 1
	}
	if !given["duration"] {
		o.duration = time.Second
	}
	if !given["idle-conns"] {
		o.idleConns = 400
	}
}

func sluiceDefault() string {
	if path := os.Getenv("SLUICE_BINARY"); path != "" {
		return path
	}
	return "bin/sluice"
}

// splitList takes "a, b,,a" as a and b: order kept, every name once.
func splitList(s string) []string {
	var list []string
	for _, name := range strings.Split(s, ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}
