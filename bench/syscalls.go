package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// perfTime is how long system calls are counted, after the measured window, for counting costs the proxy a little.
const perfTime = 200 * time.Millisecond

// findPerf says whether system calls can be counted here: perf is installed and may trace.
func findPerf(ctx context.Context) bool {
	_, err := countSyscalls(ctx, os.Getpid(), time.Millisecond)
	return err == nil
}

// syscallCount is how many calls a process tree made, and how long it ran on a CPU meanwhile.
type syscallCount struct {
	calls float64
	onCPU time.Duration
}

// countSyscalls counts for a time. perf says how long the counted threads ran, which is what makes a busy machine's
// count worth something: calls by CPU time do not hang on how often they got a CPU.
func countSyscalls(ctx context.Context, root int, length time.Duration) (syscallCount, error) {
	tree, err := processTree(root)
	if err != nil {
		return syscallCount{}, err
	}
	var pids []string
	for _, pid := range tree {
		pids = append(pids, strconv.Itoa(pid))
	}
	printed, err := exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", strings.Join(pids, ","),
		"--", "sleep", fmt.Sprintf("%g", length.Seconds())).CombinedOutput()
	if err != nil {
		return syscallCount{}, fmt.Errorf("perf: %w: %s", err, firstLine(string(printed)))
	}
	return parsePerf(string(printed))
}

// parsePerf reads the event's number and its time, in nanoseconds, from perf's list: "number,unit,event,time,…". A
// process that did not run is "not counted".
func parsePerf(printed string) (syscallCount, error) {
	for line := range strings.Lines(printed) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		if len(fields) < 4 || fields[2] != "raw_syscalls:sys_enter" {
			continue
		}
		if fields[0] == "<not counted>" {
			return syscallCount{}, nil
		}
		calls, err1 := strconv.ParseFloat(fields[0], 64)
		onCPU, err2 := strconv.ParseInt(fields[3], 10, 64)
		if err1 != nil || err2 != nil {
			return syscallCount{}, fmt.Errorf("perf: no numbers in %q", strings.TrimSpace(line))
		}
		return syscallCount{calls, time.Duration(onCPU)}, nil
	}
	return syscallCount{}, fmt.Errorf("perf printed no count: %s", firstLine(printed))
}

// perRequest is the calls of one request, by the CPU time of one; 0 when nothing was counted.
func (c syscallCount) perRequest(cpu time.Duration, requests uint64) float64 {
	if c.onCPU <= 0 || requests == 0 {
		return 0
	}
	return c.calls / c.onCPU.Seconds() * cpu.Seconds() / float64(requests)
}
