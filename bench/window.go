package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// edge is how long load runs before and after the measured window: in it connections are made, pools filled and
// caches warmed, and neither is the end of the load in the window.
const edge = 500 * time.Millisecond

// A window is what was measured between two instants of steady load.
type window struct {
	length time.Duration
	used   consumption
	others float64 // percent of the machine that strangers used
	work   tally
	load   loadResult
	peak   uint64  // resident bytes, the most since the window began
	calls  float64 // system calls per request; 0: not counted
}

// lateTries is how often a window is measured whose samples came too late.
const lateTries = 3

// underLoad makes the load and measures p in the middle of it, again when the machine did not let us look in time.
func (r *rig) underLoad(ctx context.Context, p *running, l load, by loadFunc, work tallyFile) (w window, err error) {
	for range lateTries {
		if w, err = r.onceUnderLoad(ctx, p, l, by, work); !errors.Is(err, errLate) {
			break
		}
	}
	return w, err
}

func (r *rig) onceUnderLoad(ctx context.Context, p *running, l load, by loadFunc, work tallyFile) (window, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	var w window
	l.settle = edge
	go func() {
		var err error
		w.load, err = by(ctx, l, edge+r.options.duration+r.trail())
		ended <- err
	}()
	err := w.between(ctx, p, work, r.options.duration, ended)
	if err == nil && r.perf {
		if count, err := countSyscalls(ctx, p.pid(), perfTime); err == nil { // else the column stays empty
			w.calls = count.perRequest(w.used.cpu, w.work.Requests)
		}
	}
	if err != nil {
		cancel()
		<-ended // the load's goroutines and children are gone when we return
		return w, err
	}
	return w, <-ended
}

// trail is how long the load goes on after the window.
func (r *rig) trail() time.Duration {
	if r.perf {
		return edge + 2*perfTime
	}
	return edge
}

var (
	errLoadEnded = errors.New("the load ended before its time")
	errLate      = errors.New("the machine was too busy to be looked at in time")
)

// inTime tells whether a sample was taken near enough to the instant it was due: the first while the load is steady, the second
// so that the window has its length.
func inTime(due, taken time.Duration) error {
	if late := taken - due; late > edge/2 {
		return fmt.Errorf("%w: a sample due %v after the load's start came %v late", errLate, due.Round(time.Millisecond), late.Round(time.Millisecond))
	}
	return nil
}

// between takes the two samples. It puts ended's value back so that the caller can always receive one.
func (w *window) between(ctx context.Context, p *running, work tallyFile, length time.Duration, ended chan error) error {
	var samples [2]sample
	start := time.Now()
	begin, err := watchOthers()
	if err != nil {
		return err
	}
	due := edge
	for i := range samples {
		select {
		case err := <-ended:
			ended <- err
			return errors.Join(inTime(due, time.Since(start)), errLoadEnded, err)
		case <-p.done:
			return p.ended()
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(start.Add(due))):
		}
		if i == 0 {
			resetPeak(p.pid())
		}
		if samples[i], err = takeSample(p.pid(), work); err != nil {
			return err
		}
		taken := samples[i].at.Sub(start)
		if err := inTime(due, taken); err != nil {
			return err
		}
		due = taken + length
	}
	if w.peak, err = peakBytes(p.pid()); err != nil {
		return err
	}
	end, err := watchOthers()
	if err != nil {
		return err
	}
	w.others = end.othersSince(begin)
	before, after := samples[0], samples[1]
	w.length = after.at.Sub(before.at)
	w.used = after.usage.since(before.usage)
	w.work = tally{after.work.Requests - before.work.Requests, after.work.Bytes - before.work.Bytes}
	if w.work.Requests == 0 {
		return errors.New("nothing reached the origin")
	}
	return nil
}

// A sample is the state of proxy and origin at an instant.
type sample struct {
	at    time.Time
	usage usage
	work  tally
}

func takeSample(pid int, work tallyFile) (sample, error) {
	u, err := readUsage(pid)
	if err != nil {
		return sample{}, err
	}
	t, err := work.read()
	return sample{time.Now(), u, t}, err
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
