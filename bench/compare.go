package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A rig is what all measurements of a run share.
type rig struct {
	options     options
	dir         string // for configurations; removed at the end
	certificate *certificate
	origin      *origin
	network     network
	keepAlive   loadFunc // plain or TLS, as --load says
	descriptors int
	progress    io.Writer
	begun       time.Time
	perf        bool    // system calls can be counted
	fixedRate   float64 // requests/s of the rows at a fixed rate; 0 before it is found
}

// compareCommand is the sub-command from its flags to its reports.
func compareCommand(ctx context.Context, args []string, out, progress io.Writer) error {
	o, err := parseOptions(args, progress)
	if err != nil {
		return err
	}
	proxies, err := findCandidates(ctx, o)
	if err != nil {
		return err
	}
	r, err := newRig(o, progress)
	if err != nil {
		return err
	}
	defer r.close()
	rep := newReport(ctx, o, proxies)
	for i, s := range o.scenarios {
		r.logf("%s (%d of %d): %s", s.name, i+1, len(o.scenarios), s.about)
		rep.Rows = append(rep.Rows, r.runScenario(ctx, s, proxies))
		if ctx.Err() != nil {
			rep.Partial = true // what was measured is still reported
			break
		}
	}
	rep.finish()
	if err := rep.publish(o, out, progress); err != nil {
		return err
	}
	if rep.Partial {
		return errors.New("interrupted")
	}
	return rep.failure()
}

// newRig makes the run's directory, certificate and origin.
func newRig(o options, progress io.Writer) (*rig, error) {
	r := &rig{options: o, progress: progress, begun: time.Now()}
	var err error
	if r.descriptors, err = raiseDescriptorLimit(); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	if err := r.prepare(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rig) prepare() error {
	var err error
	if r.certificate, err = newCertificate(r.dir); err != nil {
		return err
	}
	r.keepAlive = loadKept
	r.perf = !r.options.quick && findPerf(context.Background())
	if r.options.load == "wrk" {
		if r.keepAlive, err = wrkLoad(r.dir); err != nil {
			return err
		}
	}
	if r.options.netns {
		if r.network, err = newNetwork(context.Background()); err != nil {
			return err
		}
	}
	r.origin, err = startOrigin(r.certificate, r.network.origin())
	return err
}

func (r *rig) close() {
	if r.origin != nil {
		r.origin.stop()
	}
	r.network.close()
	os.RemoveAll(r.dir) // a rest in the temporary directory is no failure of the run
}

// logf is a line of progress with the time since the start.
func (r *rig) logf(format string, args ...any) {
	fmt.Fprintf(r.progress, "%6.1fs  %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
}

// runScenario measures every proxy in every round: A B C, A B C. A proxy that cannot do it is skipped with the
// reason; one that fails is left out of further rounds.
func (r *rig) runScenario(ctx context.Context, s scenario, proxies []candidate) row {
	result := newRow(s, proxies)
	instances := instances{rig: r, scenario: s, running: map[string]*running{}}
	defer instances.stop()
	if s.prepare != nil {
		if err := s.prepare(ctx, &instances, proxies); err != nil {
			result.fail(err)
			r.logf("  %v", err)
			return result
		}
	}
	again := 0
	for round := 1; round <= r.options.rounds && ctx.Err() == nil; round++ {
		r.runRound(ctx, &instances, proxies, &result, round)
		if most := result.disturbed(round); most >= loudFrom && again < r.options.rounds && !r.options.quick {
			r.logf("  round %d again: others had %.0f %% of the machine", round, most)
			result.setAside(round)
			again++
			round--
		}
	}
	return result
}

// runRound measures every proxy once.
func (r *rig) runRound(ctx context.Context, instances *instances, proxies []candidate, result *row, round int) {
	for i, c := range proxies {
		column := &result.Proxies[i]
		if column.Skipped != "" || column.Failed != "" {
			continue
		}
		m, err := instances.measure(ctx, c)
		if ctx.Err() != nil {
			return
		}
		var missing lacking
		if errors.As(err, &missing) {
			column.Skipped = missing.Error()
			r.logf("  %-8s %v", c.name, missing)
			continue
		}
		if err != nil {
			column.Failed = err.Error()
			r.logf("  %-8s failed: %v", c.name, err)
			continue
		}
		m.Round = round
		column.Rounds = append(column.Rounds, m)
		unit := result.Unit
		r.logf("  round %d  %-8s %10.*f %s  errors %d, bad %d %s",
			round, c.name, unit.Digits, m.Cost, unit.Name, m.Errors, m.Bad, cmp.Or(m.Example, m.NotHeld))
	}
}

// instances are the proxies of one scenario: each is started when it is first measured and lives to the
// scenario's end, or to the end of the round if the scenario says so.
type instances struct {
	*rig
	scenario scenario
	running  map[string]*running
}

// start answers the scenario's instance of c, and starts it if there is none.
func (n *instances) start(ctx context.Context, c candidate) (*running, error) {
	if p := n.running[c.name]; p != nil {
		return p, nil
	}
	p, err := n.launch(ctx, c, n.scenario.shape)
	if err == nil {
		n.running[c.name] = p
	}
	return p, err
}

func (n *instances) measure(ctx context.Context, c candidate) (measurement, error) {
	p, err := n.start(ctx, c)
	if err != nil {
		return measurement{}, err
	}
	if n.scenario.restart {
		defer n.end(c.name)
	}
	m, err := n.scenario.measure(ctx, n.rig, p)
	if err == nil && !p.expected {
		err = p.ended()
	}
	return m, errors.Join(err, n.origin.ended())
}

func (n *instances) end(name string) {
	n.running[name].stop()
	delete(n.running, name)
}

func (n *instances) stop() {
	for name := range n.running {
		n.end(name)
	}
}
