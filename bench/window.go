package main

import (
	"context"
	"errors"
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

// underLoad makes the load and measures p in the middle of it.
func (r *rig) underLoad(ctx context.Context, p *running, l load, by loadFunc, work tallyFile) (window, error) {
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

var errLoadEnded = errors.New("the load ended before its time")

// between takes the two samples. It puts ended's value back so that the caller can always receive one.
func (w *window) between(ctx context.Context, p *running, work tallyFile, length time.Duration, ended chan error) error {
	var samples [2]sample
	start := time.Now() // instants are counted from here, so that late ones do not add up
	begin, err := watchOthers()
	if err != nil {
		return err
	}
	for i, at := range []time.Duration{edge, edge + length} {
		select {
		case err := <-ended:
			ended <- err
			return errors.Join(errLoadEnded, err)
		case <-p.done:
			return p.ended()
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(start.Add(at))):
		}
		if i == 0 {
			resetPeak(p.pid())
		}
		if samples[i], err = takeSample(p.pid(), work); err != nil {
			return err
		}
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
