package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// clockTick is USER_HZ: what /proc counts CPU in on every Linux that Go supports.
const clockTick = 10 * time.Millisecond

// A procStat is what the bench needs of /proc/PID/stat.
type procStat struct {
	parent int
	user   time.Duration // of the process with its threads, living and dead, and the children it has waited for
	system time.Duration
}

var errProcFormat = errors.New("unknown format")

// parseStat reads a line of /proc/PID/stat. The second field is a name in brackets which may itself hold
// brackets and spaces, so fields are counted from the last closing one.
func parseStat(line string) (procStat, error) {
	i := strings.LastIndexByte(line, ')')
	fields := strings.Fields(line[i+1:])
	if i < 0 || len(fields) < 15 {
		return procStat{}, fmt.Errorf("stat: %w", errProcFormat)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return procStat{}, fmt.Errorf("stat: parent: %w", err)
	}
	var ticks [4]int64 // utime, stime, cutime, cstime
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(fields[11+i], 10, 64); err != nil {
			return procStat{}, fmt.Errorf("stat: times: %w", err)
		}
	}
	return procStat{
		parent: parent,
		user:   time.Duration(ticks[0]+ticks[2]) * clockTick,
		system: time.Duration(ticks[1]+ticks[3]) * clockTick,
	}, nil
}

// parseSchedstat reads the time on CPU from /proc/PID/task/TID/schedstat. It is the same clock as that of stat
// (which the kernel splits by ticks and scales to it), in nanoseconds.
func parseSchedstat(text string) (time.Duration, error) {
	first, _, _ := strings.Cut(text, " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("schedstat: %w", err)
	}
	return time.Duration(ns), nil
}

// parseSwitches adds the voluntary and involuntary context switches of a thread's status.
func parseSwitches(status []byte) (uint64, error) {
	var sum uint64
	for _, key := range []string{"\nvoluntary_ctxt_switches:", "\nnonvoluntary_ctxt_switches:"} {
		n, err := statusNumber(status, key)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// parseRSS reads resident memory in bytes from smaps_rollup ("Rss:") or status ("VmRSS:").
func parseRSS(text []byte) (uint64, error) {
	for _, key := range []string{"\nRss:", "\nVmRSS:"} {
		if n, err := statusNumber(text, key); err == nil {
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("resident memory: %w", errProcFormat)
}

// statusNumber finds the number after key, which begins with the end of the line before.
func statusNumber(text []byte, key string) (uint64, error) {
	_, rest, found := bytes.Cut(text, []byte(key))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	fields := bytes.Fields(line)
	if !found || len(fields) == 0 {
		return 0, fmt.Errorf("status: no %q: %w", key[1:], errProcFormat)
	}
	return strconv.ParseUint(string(fields[0]), 10, 64)
}

// kernelTellsChildren: the kernel lists the children of each thread (CONFIG_PROC_CHILDREN, proc(5)).
var kernelTellsChildren = sync.OnceValue(func() bool {
	_, err := os.Stat(procFile(os.Getpid(), "task", strconv.Itoa(os.Getpid()), "children"))
	return err == nil
})

// processTree lists root and its descendants. It does not read what others run where it need not: hundreds of processes that
// a busy machine has took so long that a window of a second had shrunk to a twentieth of it.
func processTree(root int) ([]int, error) {
	if !kernelTellsChildren() {
		return searchTree(root)
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ { // grows while it is walked; a process has one parent, so it ends
		for _, tid := range numbersIn(procFile(tree[i], "task")) {
			text, _ := os.ReadFile(procFile(tree[i], "task", strconv.Itoa(tid), "children")) // none of a thread that has just ended
			for child := range strings.FieldsSeq(string(text)) {
				pid, err := strconv.Atoi(child)
				if err != nil {
					return nil, fmt.Errorf("children: %w", errProcFormat)
				}
				tree = append(tree, pid)
			}
		}
	}
	return tree, nil
}

// searchTree is processTree by the parents of all processes.
func searchTree(root int) ([]int, error) {
	children := map[int][]int{}
	for _, pid := range numbersIn("/proc") {
		line, err := os.ReadFile(procFile(pid, "stat"))
		if err != nil {
			continue // ended since the listing
		}
		stat, err := parseStat(string(line))
		if err != nil {
			return nil, err
		}
		children[stat.parent] = append(children[stat.parent], pid)
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// numbersIn lists the entries of dir that are numbers: processes or threads.
func numbersIn(dir string) []int {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1) // what could be read counts; the rest has ended
	var numbers []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func procFile(pid int, name ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, name...)...)
}
