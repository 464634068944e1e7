package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Rows about change: what a stream of changed routes costs the requests meanwhile, how long a change takes to be
// seen, and whether requests fail when the proxy reads all again or ends.

const (
	changingIngresses = 20               // one route each
	swapsUntold       = 5                // a second: what happens more often the proxy is told of
	effectChanges     = 10               // of one measurement
	effectLimit       = time.Minute      // of one change
	effectBudget      = 15 * time.Second // after it no further change is made
	effectPoll        = 500 * time.Microsecond
	effectRest        = 100 * time.Millisecond // between changes
	disturbConns      = 64
	disturbAfter      = time.Second
	disturbRest       = 2 * time.Second // after the signal
)

func noChange(c candidate) error {
	if c.change == nil {
		return fmt.Errorf("the harness does not change routes of %s", c.name)
	}
	return noManyRoutes(c)
}

// noSwaps leaves out who has no snapshots to swap: nginx would start new workers for each change.
func noSwaps(c candidate) error {
	if c.name != subject {
		return fmt.Errorf("%s has no snapshot to swap; see the rows of effect and reload", c.name)
	}
	return nil
}

// changeNext puts the next version of the changing route in place.
func (p *running) changeNext() error {
	p.deployment.Version++
	return p.change(p)
}

// duringChanges measures at the fixed rate twice: quiet, and while a route changes so many times a second. The cost
// and the latencies are those of the second, faults those of both: a quiet time that was none is nothing to compare with.
func duringChanges(perSecond float64) func(context.Context, *rig, *running) (measurement, error) {
	return func(ctx context.Context, r *rig, p *running) (measurement, error) {
		quiet, err := atRate(ctx, r, p)
		if err != nil {
			return measurement{}, err
		}
		applied, err := appliedConfigurations(ctx, p)
		if err != nil {
			return measurement{}, err
		}
		begun := time.Now()
		stop := make(chan struct{})
		var changing sync.WaitGroup
		var failed error
		changing.Go(func() { failed = p.changeUntil(stop, perSecond) })
		m, err := atRate(ctx, r, p)
		close(stop)
		changing.Wait()
		after, err2 := appliedConfigurations(ctx, p)
		m.Extra = map[string]float64{
			"quiet p99 µs":   quiet.P99,
			"quiet p99.9 µs": quiet.P999,
			"changes/s":      perSecond,
			"swaps/s":        (after - applied) / time.Since(begun).Seconds(),
		}
		m.alsoFailed(quiet)
		if err == nil && after <= applied {
			err = errors.New("no snapshot was swapped meanwhile")
		}
		return m, errors.Join(err, err2, failed)
	}
}

func (p *running) changeUntil(stop <-chan struct{}, perSecond float64) error {
	tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
			if err := p.changeNext(); err != nil {
				return err
			}
			if perSecond <= swapsUntold {
				continue // it sees that for itself; what comes faster it would gather
			}
			if err := p.reload(p); err != nil {
				return err
			}
		}
	}
}

// appliedConfigurations reads Sluice's count of snapshots that it put in place.
func appliedConfigurations(ctx context.Context, p *running) (float64, error) {
	page, err := adminPage(ctx, p.deployment, "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(page) {
		var n float64
		if rest, ok := strings.CutPrefix(line, `sluice_applies_total{result="applied"} `); ok {
			_, err := fmt.Sscan(rest, &n)
			return n, err
		}
	}
	return 0, errors.New("/metrics: no sluice_applies_total")
}

// timeToEffect changes a route again and again and looks, on new connections, how long it takes until the new
// version answers. The cost is the median.
func timeToEffect(ctx context.Context, r *rig, p *running) (measurement, error) {
	var took []float64
	for start := time.Now(); len(took) < effectChanges && (len(took) == 0 || time.Since(start) < effectBudget); {
		if err := sleep(ctx, effectRest); err != nil {
			return measurement{}, err
		}
		begun := time.Now()
		if err := p.changeNext(); err != nil {
			return measurement{}, err
		}
		if err := p.awaitVersion(ctx, begun.Add(effectLimit)); err != nil {
			return measurement{}, err
		}
		took = append(took, float64(time.Since(begun).Microseconds())/1e3)
	}
	s := spreadOf(took)
	return measurement{Cost: s.Median, Extra: map[string]float64{"changes": float64(s.N), "smallest ms": s.Min, "largest ms": s.Max}}, nil
}

func (p *running) awaitVersion(ctx context.Context, until time.Time) error {
	path := fmt.Sprintf("/v%d", p.deployment.Version)
	for {
		answer, _, err := ask(ctx, p, hostChanging, path)
		switch {
		case err == nil && answer.StatusCode == http.StatusOK:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(until):
			return errors.Join(fmt.Errorf("%s%s does not answer %v after the change", hostChanging, path, effectLimit), err)
		}
		if err := sleep(ctx, effectPoll); err != nil {
			return err
		}
	}
}

func noReload(c candidate) error {
	if c.reload == nil {
		return fmt.Errorf("%s reads nothing again as it is run here", c.name)
	}
	return nil
}

// underReload counts the requests that fail when the proxy reads everything again in the middle of the load.
func underReload(ctx context.Context, r *rig, p *running) (measurement, error) {
	return disturb(ctx, p, load{path: pathSmall}, func() error { return p.reload(p) })
}

// underQuit counts the requests that fail when the proxy is told to end in good order. Its clients do not come back:
// whoever ends a proxy sends them elsewhere.
func underQuit(path string) func(context.Context, *rig, *running) (measurement, error) {
	return func(ctx context.Context, r *rig, p *running) (measurement, error) {
		signal := p.quit
		if signal == 0 {
			signal = syscall.SIGTERM
		}
		p.expected = true
		return disturb(ctx, p, load{path: path, once: true}, func() error { return p.signal(signal) })
	}
}

// disturb makes plain load and does something to the proxy in the middle of it. The cost is the requests that
// failed: cut off, answered wrongly, or sent on a connection that was closed without a word.
func disturb(ctx context.Context, p *running, l load, what func() error) (measurement, error) {
	l.address, l.host, l.conns = p.plain, hostBench, disturbConns
	if _, err := probe(ctx, load{address: l.address, host: l.host, path: l.path}); err != nil {
		return measurement{}, err
	}
	told := make(chan error, 1)
	go func() {
		if err := sleep(ctx, disturbAfter); err != nil {
			told <- err
			return
		}
		told <- what()
	}()
	got, err := loadKept(ctx, l, disturbAfter+disturbRest)
	if err := errors.Join(<-told, err); err != nil {
		return measurement{}, err
	}
	return measurement{
		Cost: float64(got.errors + got.bad), Example: got.example, Requests: uint64(got.requests),
		P50: float64(got.latencies.p50.Microseconds()), P90: float64(got.latencies.p90.Microseconds()),
		P99: float64(got.latencies.p99.Microseconds()), P999: float64(got.latencies.p999.Microseconds()),
	}, nil
}
