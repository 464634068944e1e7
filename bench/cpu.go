package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// A usage is what a process tree has consumed up to an instant, in two views of one clock: fine, per living
// thread, and coarse, per process, which knows dead threads and children too.
type usage struct {
	threads   map[int]threadUsage
	user      time.Duration
	system    time.Duration
	processes int
}

type threadUsage struct {
	onCPU    time.Duration
	switches uint64
}

// A consumption is the difference of two usages.
type consumption struct {
	cpu      time.Duration
	system   float64 // the kernel's share of cpu, 0 to 1
	switches uint64
	coarse   bool // measured in ticks of 10 ms
}

// readUsage reads the usage of root and its descendants.
func readUsage(root int) (usage, error) {
	u := usage{threads: map[int]threadUsage{}}
	tree, err := processTree(root)
	if err != nil {
		return u, err
	}
	for _, pid := range tree {
		if err := u.addProcess(pid); pid != root && os.IsNotExist(err) {
			continue // ended just now; its parent has waited for it, or will
		} else if err != nil {
			return u, err
		}
	}
	return u, nil
}

func (u *usage) addProcess(pid int) error {
	line, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return err
	}
	stat, err := parseStat(string(line))
	if err != nil {
		return err
	}
	u.user += stat.user
	u.system += stat.system
	u.processes++
	for _, tid := range numbersIn(procFile(pid, "task")) {
		t, err := readThread(pid, tid)
		if os.IsNotExist(err) {
			continue // ended just now; the coarse view has it
		}
		if err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
		u.threads[tid] = t
	}
	return nil
}

func readThread(pid, tid int) (threadUsage, error) {
	var t threadUsage
	task := strconv.Itoa(tid)
	status, err := os.ReadFile(procFile(pid, "task", task, "status"))
	if err != nil {
		return t, err
	}
	if t.switches, err = parseSwitches(status); err != nil {
		return t, err
	}
	text, err := os.ReadFile(procFile(pid, "task", task, "schedstat"))
	if os.IsNotExist(err) {
		return t, nil // a kernel without it: since sees that the fine view lacks time
	}
	if err != nil {
		return t, err
	}
	t.onCPU, err = parseSchedstat(string(text))
	return t, err
}

// since is what was consumed from before to u. The fine view is taken unless a thread has ended in between, or
// the coarse one shows by more than its own rounding that one came and went.
func (u usage) since(before usage) consumption {
	user, system := u.user-before.user, u.system-before.system
	c := consumption{cpu: user + system, coarse: true}
	if c.cpu > 0 {
		c.system = float64(system) / float64(c.cpu)
	}
	var fine time.Duration
	for tid, t := range u.threads {
		fine += t.onCPU - before.threads[tid].onCPU
		c.switches += t.switches - before.threads[tid].switches
	}
	for tid := range before.threads {
		if _, lives := u.threads[tid]; !lives {
			return c
		}
	}
	rounding := 4 * clockTick * time.Duration(u.processes) // two numbers a process, cut at both instants
	if c.cpu > fine+rounding {
		return c
	}
	c.cpu, c.coarse = fine, false
	return c
}

// residentBytes sums the resident memory of a process tree. smaps_rollup is exact; status may be off by some
// hundred KiB, as the kernel counts it per CPU.
func residentBytes(root int) (uint64, error) {
	tree, err := processTree(root)
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, pid := range tree {
		text, err := os.ReadFile(procFile(pid, "smaps_rollup"))
		if err != nil {
			text, err = os.ReadFile(procFile(pid, "status"))
		}
		if err != nil {
			return 0, err
		}
		n, err := parseRSS(text)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// resetPeak lets the kernel forget the most memory that the processes of a tree have used. Where it does not, peaks
// are those since their start.
func resetPeak(root int) {
	tree, _ := processTree(root)
	for _, pid := range tree {
		_ = os.WriteFile(procFile(pid, "clear_refs"), []byte("5"), 0)
	}
}

// peakBytes sums the most resident memory of each process of a tree since resetPeak.
func peakBytes(root int) (uint64, error) {
	tree, err := processTree(root)
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, pid := range tree {
		status, err := os.ReadFile(procFile(pid, "status"))
		if err != nil {
			return 0, err
		}
		kib, err := statusNumber(status, "\nVmHWM:")
		if err != nil {
			return 0, err
		}
		sum += kib << 10
	}
	return sum, nil
}
