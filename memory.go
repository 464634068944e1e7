package main

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Two habits keep memory both cheap and small (docs/decisions/0005-scheduler-and-collector.md): while there is work, the
// collector runs seldom; once a burst is over, what it left is given back to the system.

const (
	// ballastBytes is memory that is never touched, so it is never resident: the collector counts it as live, and runs
	// once in that many bytes of garbage, not once in the few megabytes that a proxy holds.
	ballastBytes = 8 << 20

	memoryTick = 100 * time.Millisecond // how often garbage is looked at
	quietBytes = 256 << 10              // less new garbage than this in a tick is quiet

	// Collecting costs as much as there is alive, so what can be given back, garbage and what the last collection left
	// free, has to be worth that: this part of what lives, and as many ticks' new garbage.
	livePart, ticksKept = 32, 16

	// A heap of that much, garbage included, is looked at and given back in a few milliseconds: a first quiet tick will do,
	// if there was none within so long. All else waits for a calm, since the next change, which needs the memory again,
	// may be near.
	smallBytes = 64 << 20
	soonAfter  = time.Second
	calmAfter  = 3 * time.Second

	stuckAfter = 2 * time.Second // without progress for that long, the runtime has no more to give
)

// heap is what the runtime says about memory, in bytes.
type heap struct {
	objects, live, free uint64 // alive or garbage; alive after the last collection; free and not given back
	allocated           uint64 // ever
}

// small tells whether all that is free can be given back at once. Nothing interrupts that: whoever stops the world meanwhile,
// such as a compile that begins, stops all loops with it until the end, which is a millisecond for each MiB or so. And
// nobody knows before a collection how much of a heap is alive. A larger heap is given back by the runtime, in pieces of
// 64 KiB and at its own pace (docs/decisions/0097-memory-goes-back-in-pieces.md).
func (h heap) small() bool { return h.objects+h.free <= smallBytes }

// giver decides when memory is given back.
type giver struct {
	allocated uint64
	busy      time.Time // when it was last not quiet
	last      time.Time // when memory was last given back

	giving bool      // what is free is on its way to the system, in pieces
	free   uint64    // the least that was seen on the way
	shrank time.Time // when that was
	kept   uint64    // what the runtime would not give
}

// A step is what is to be done with memory at a tick.
type step uint8

const (
	nothing  step = iota
	atOnce        // all is given back
	inPieces      // the runtime begins to give back what is free
	enough        // it has done so, or there is work again
)

// next tells, once a tick, what is to be done.
func (g *giver) next(now time.Time, h heap) step {
	fresh := h.allocated - g.allocated
	g.allocated = h.allocated
	g.kept = min(g.kept, h.free)
	if fresh >= quietBytes {
		g.busy = now
	}
	switch {
	case g.giving && g.given(now, h, fresh):
		g.giving = false
		return enough
	case g.giving || !g.due(now, h, fresh):
		return nothing
	case h.small():
		return atOnce
	}
	g.giving, g.free, g.shrank = true, math.MaxUint64, now
	return inPieces
}

// given tells whether giving back has come to its end.
func (g *giver) given(now time.Time, h heap, fresh uint64) bool {
	if h.free < g.free {
		g.free, g.shrank = h.free, now
	}
	stuck := now.Sub(g.shrank) >= stuckAfter
	if stuck {
		g.kept = h.free
	}
	return stuck || fresh >= quietBytes || h.small() || h.free <= h.live/livePart
}

// due tells whether memory is to be collected and given back now.
func (g *giver) due(now time.Time, h heap, fresh uint64) bool {
	if fresh >= quietBytes || h.objects+h.free <= h.live+g.kept+max(h.live/livePart, ticksKept*fresh) {
		return false
	}
	cheap := h.small() && now.Sub(g.last) >= soonAfter
	if !cheap && now.Sub(g.busy) < calmAfter {
		return false
	}
	g.last = now
	return true
}

// keepMemory holds the ballast, and gives memory back in quiet moments, until ctx ends. Then rest is called first: what can be
// made again is let go of.
func keepMemory(ctx context.Context, rest func()) {
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	ticker := time.NewTicker(memoryTick)
	defer ticker.Stop()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/gogc:percent"}}
	var g giver
	var percent int // GOGC before what is free was on its way
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			if g.giving {
				debug.SetGCPercent(percent)
			}
			return
		case now = <-ticker.C:
		}
		metrics.Read(sample)
		switch g.next(now, heap{objects: sample[0].Value.Uint64(), live: sample[1].Value.Uint64(), free: sample[2].Value.Uint64(),
			allocated: sample[3].Value.Uint64()}) {
		case atOnce:
			rest()
			debug.FreeOSMemory() // collects first
		case inPieces:
			rest()
			percent = int(sample[4].Value.Uint64())
			giveBack(percent)
		case enough:
			debug.SetGCPercent(percent)
		}
	}
}

// giveBack collects, and has the runtime give back what is free until GOGC is percent again.
func giveBack(percent int) {
	runtime.GC()
	runtime.GC() // now what the runtime keeps goes by what is alive, and no longer by what the first one found
	if percent > 0 {
		debug.SetGCPercent(max(percent-percent/10-10, 1)) // it keeps a tenth more than its goal: a goal that is a tenth lower
	}
}
