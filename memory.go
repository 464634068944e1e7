package main

import (
	"context"
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

	// What is given back in vain, because more garbage comes soon, costs a collection and the page faults of what is
	// touched again. Pauses between such give-backs double from the first to the longest; a time without garbage ends that.
	pauseFirst, pauseMax = 400 * time.Millisecond, 3200 * time.Millisecond
	soonAfter            = 4 * time.Second
)

// heap is what the runtime says about memory, in bytes.
type heap struct {
	objects, live, free uint64 // alive or garbage; alive after the last collection; free and not given back
	allocated           uint64 // ever
}

// giver decides when memory is given back.
type giver struct {
	allocated uint64
	last      time.Time     // when it was last
	pause     time.Duration // from then to the next
	littered  bool          // since then, there was something worth giving back
}

// due tells, once a tick, whether memory is to be given back now.
func (g *giver) due(now time.Time, h heap) bool {
	fresh := h.allocated - g.allocated
	g.allocated = h.allocated
	if fresh >= quietBytes || h.objects+h.free <= h.live+max(h.live/livePart, ticksKept*fresh) {
		return false
	}
	if !g.littered {
		g.littered = true
		if now.Sub(g.last) < soonAfter {
			g.pause = min(max(2*g.pause, pauseFirst), pauseMax)
		} else {
			g.pause = 0
		}
	}
	if now.Sub(g.last) < g.pause {
		return false
	}
	g.last, g.littered = now, false
	return true
}

// keepMemory holds the ballast, and gives memory back in quiet moments, until ctx ends.
func keepMemory(ctx context.Context) {
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	ticker := time.NewTicker(memoryTick)
	defer ticker.Stop()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	var g giver
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return
		case now = <-ticker.C:
		}
		metrics.Read(sample)
		if g.due(now, heap{objects: sample[0].Value.Uint64(), live: sample[1].Value.Uint64(), free: sample[2].Value.Uint64(),
			allocated: sample[3].Value.Uint64()}) {
			debug.FreeOSMemory() // collects first
		}
	}
}
