package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Rows at a fixed rate: all proxies get the same load, an open loop whose requests are due at equal distances, and
// latencies are counted from then. The rate is a share of what the slowest proxy with a bound can do, so that none of
// them is asked for more than half.

const (
	rateConns      = 64
	rateShare      = 0.45
	saturationTime = time.Second
	rateHeld       = 0.9 // of the requests that were due have to be answered by the end, or latencies mean nothing

	// rateWindows is how many times as long as others a row of p99 measures. In a second one moment of 16 ms in which the machine
	// attends to somebody else decides it.
	rateWindows = 5
)

func rateLoad(p *running) load {
	return load{address: p.plain, host: hostBench, path: pathSmall, conns: rateConns}
}

// findRate measures once what every proxy can do in a closed loop.
func findRate(ctx context.Context, n *instances, proxies []candidate) error {
	if n.fixedRate > 0 {
		return nil
	}
	if n.fixedRate = n.options.rate; n.fixedRate > 0 {
		return nil
	}
	slowest := 0.0
	for _, c := range proxies {
		if len(proxies) > 1 && !bounded(c.name) || n.scenario.lacking != nil && n.scenario.lacking(c) != nil {
			continue
		}
		p, err := n.start(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		l := rateLoad(p)
		l.settle = edge
		got, err := loadKept(ctx, l, edge+saturationTime)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		able := float64(got.requests) / (edge + saturationTime).Seconds()
		n.logf("  %-8s can do %.0f requests/s", c.name, able)
		if slowest == 0 || able < slowest {
			slowest = able
		}
	}
	if slowest == 0 {
		return errors.New("no proxy answered: there is no rate to measure at (--rate=N gives one)")
	}
	n.fixedRate = rateShare * slowest
	n.logf("  the fixed rate is %.0f requests/s", n.fixedRate)
	return nil
}

// atRate measures at the fixed rate. A rate that was not held voids the row's verdict but is no fault: with busy
// neighbours no proxy may hold it.
func atRate(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := rateLoad(p)
	l.rate = r.fixedRate
	long := *r
	long.options.duration *= rateWindows
	m, err := long.measure(ctx, p, l, loadKept, r.origin.plain)
	m.Offered = l.rate
	if err == nil && float64(m.Unanswered) > (1-rateHeld)*float64(m.Due) {
		m.NotHeld = fmt.Sprintf("the rate was not held: of %d requests that were due %d had no answer at the end", m.Due, m.Unanswered)
	}
	return m, err
}
