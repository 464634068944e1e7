package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// perfTime is how long system calls are counted, after the measured window, for counting costs the proxy a little.
const perfTime = 200 * time.Millisecond

// findPerf says whether system calls can be counted here: perf is installed and may trace.
func findPerf(ctx context.Context) bool {
	_, err := countSyscalls(ctx, []int{1}, time.Millisecond)
	return err == nil
}

// countSyscalls counts the system calls of processes, with all their threads, for a time.
func countSyscalls(ctx context.Context, pids []int, length time.Duration) (float64, error) {
	var list []string
	for _, pid := range pids {
		list = append(list, strconv.Itoa(pid))
	}
	printed, err := exec.CommandContext(ctx, "perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", strings.Join(list, ","),
		"--", "sleep", fmt.Sprintf("%g", length.Seconds())).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("perf: %w: %s", err, firstLine(string(printed)))
	}
	return parsePerf(string(printed))
}

// parsePerf reads the number of the event from perf's list; a process that made no call is "not counted".
func parsePerf(printed string) (float64, error) {
	for line := range strings.Lines(printed) {
		number, rest, found := strings.Cut(line, ",")
		if !found || !strings.Contains(rest, "raw_syscalls:sys_enter") {
			continue
		}
		if number == "<not counted>" {
			return 0, nil
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return 0, fmt.Errorf("perf: %q is not a number", number)
		}
		return n, nil
	}
	return 0, fmt.Errorf("perf printed no count: %s", firstLine(printed))
}

// syscallsPerRequest counts while the load goes on: the proxy's calls a second divided by the origin's requests a
// second. It answers 0 when either cannot be told.
func syscallsPerRequest(ctx context.Context, pid int, work tallyFile) float64 {
	tree, err := processTree(pid)
	if err != nil {
		return 0
	}
	before, err1 := work.read()
	start := time.Now()
	calls, err2 := countSyscalls(ctx, tree, perfTime)
	length := time.Since(start)
	after, err3 := work.read()
	if err1 != nil || err2 != nil || err3 != nil || after.Requests <= before.Requests {
		return 0
	}
	rate := float64(after.Requests-before.Requests) / length.Seconds()
	return calls / perfTime.Seconds() / rate
}
