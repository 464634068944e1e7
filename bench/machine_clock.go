package main

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// A cpuClock is the machine's line of /proc/stat, in ticks of all its cores together.
type cpuClock struct {
	total  uint64
	idle   uint64
	stolen uint64 // by the host, for others
}

func readCPUClock() cpuClock {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuClock{}
	}
	return parseCPUClock(firstLine(string(text)))
}

// parseCPUClock reads "cpu user nice system idle iowait irq softirq steal guest …"; guests are in user already.
func parseCPUClock(line string) cpuClock {
	const idle, iowait, steal = 4, 5, 8
	var c cpuClock
	for i, field := range strings.Fields(line) {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil || i > steal {
			continue
		}
		c.total += n
		switch i {
		case idle, iowait:
			c.idle += n
		case steal:
			c.stolen = n
		}
	}
	return c
}

// stealSince is the percentage of CPU time that the host took.
func (c cpuClock) stealSince(before cpuClock) float64 {
	if c.total <= before.total {
		return 0
	}
	return 100 * float64(c.stolen-before.stolen) / float64(c.total-before.total)
}

// A bystander watches what everybody else uses of the machine while the harness and its children work.
type bystander struct {
	clock cpuClock
	ours  usage
}

func watchOthers() (bystander, error) {
	ours, err := readUsage(os.Getpid())
	return bystander{readCPUClock(), ours}, err
}

// othersSince is the percentage of CPU time that was used by none of ours.
func (b bystander) othersSince(before bystander) float64 {
	total := b.clock.total - before.clock.total
	busy := total - (b.clock.idle - before.clock.idle)
	if total == 0 || b.clock.total < before.clock.total {
		return 0
	}
	others := time.Duration(busy)*clockTick - b.ours.since(before.ours).cpu
	return max(0, 100*float64(others)/float64(time.Duration(total)*clockTick))
}
