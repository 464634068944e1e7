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
)

// keepMemory holds the ballast, and gives memory back in quiet moments, until ctx ends.
func keepMemory(ctx context.Context) {
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	ticker := time.NewTicker(memoryTick)
	defer ticker.Stop()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}}
	var allocated uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		metrics.Read(sample)
		objects, live, total, free := sample[0].Value.Uint64(), sample[1].Value.Uint64(), sample[2].Value.Uint64(), sample[3].Value.Uint64()
		fresh := total - allocated
		allocated = total
		if fresh < quietBytes && objects+free > live+max(live/livePart, ticksKept*fresh) {
			debug.FreeOSMemory() // collects first
		}
	}
}
