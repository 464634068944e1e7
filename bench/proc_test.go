package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	tests := []struct {
		name string
		line string
		want procStat
		bad  bool
	}{
		{"usual", "42 (nginx) S 7 42 42 0 -1 4194560 1 2 3 4 150 250 1 2 20 0 1 0 9 1 1 1",
			procStat{7, 1510 * time.Millisecond, 2520 * time.Millisecond}, false},
		{"name with brackets and blanks", "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 100 200 0 0 20 0",
			procStat{7, time.Second, 2 * time.Second}, false},
		{"short", "42 (nginx) S 7", procStat{}, true},
		{"no name", "42 S 7 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", procStat{}, true},
		{"letters", "42 (nginx) S 7 42 42 0 -1 4194560 1 2 3 4 x 250 1 2 20 0", procStat{}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseStat(test.line)
			if (err != nil) != test.bad || err == nil && got != test.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestParseSchedstat(t *testing.T) {
	got, err := parseSchedstat("1234567 89 3\n")
	if err != nil || got != 1234567 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseSchedstat(""); err == nil {
		t.Error("empty text was taken")
	}
}

func TestParseSwitches(t *testing.T) {
	got, err := parseSwitches([]byte("Name:\tx\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n"))
	if err != nil || got != 42 {
		t.Errorf("got %v, %v: voluntary must not be found inside nonvoluntary", got, err)
	}
	if _, err := parseSwitches([]byte("Name:\tx\n")); err == nil {
		t.Error("a status without the lines was taken")
	}
}

func TestParseRSS(t *testing.T) {
	for _, text := range []string{"00400000-7fff r [rollup]\nRss:     2048 kB\nPss: 1 kB\n", "Name:\tx\nVmRSS:\t 2048 kB\n"} {
		if got, err := parseRSS([]byte(text)); err != nil || got != 2<<20 {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := parseRSS([]byte("Name:\tx\n")); err == nil {
		t.Error("a text without memory was taken")
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	before, err := readUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const spin = 60 * time.Millisecond
	for start := time.Now(); time.Since(start) < spin; {
		runtime.Gosched()
	}
	after, err := readUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// Others may have had the CPU meanwhile, so only "some" and "not absurdly much" can be said.
	if got := after.since(before).cpu; got <= 0 || got > time.Minute {
		t.Errorf("%v of CPU for %v of spinning", got, spin)
	}
	if rss, err := residentBytes(os.Getpid()); err != nil || rss < 1<<20 {
		t.Errorf("resident: %d, %v", rss, err)
	}
	tree, err := processTree(os.Getppid())
	if err != nil || !slices.Contains(tree, os.Getpid()) {
		t.Errorf("the parent's tree %v lacks this process: %v", tree, err)
	}
}

// Both ways to a tree find the same descendants.
func TestProcessTree(t *testing.T) {
	parent := exec.Command("sh", "-c", "sleep 60 & echo $!; wait")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var grandchild int
	if _, err := fmt.Fscan(out, &grandchild); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(grandchild, syscall.SIGKILL)
		_ = parent.Wait()
	})
	want := []int{parent.Process.Pid, grandchild}
	for name, list := range map[string]func(int) ([]int, error){"told": processTree, "searched": searchTree} {
		if got, err := list(parent.Process.Pid); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
		if tree, err := list(os.Getpid()); err != nil || !slices.Contains(tree, grandchild) {
			t.Errorf("%s: this process' tree %v lacks %d: %v", name, tree, grandchild, err)
		}
	}
}

func TestInTime(t *testing.T) {
	for late, want := range map[time.Duration]error{0: nil, edge / 2: nil, edge/2 + 1: errLate, time.Second: errLate} {
		if err := inTime(edge, edge+late); !errors.Is(err, want) {
			t.Errorf("%v late: %v", late, err)
		}
	}
}

func TestSinceChoosesTheView(t *testing.T) {
	threads := func(onCPU ...time.Duration) map[int]threadUsage {
		m := map[int]threadUsage{}
		for i, d := range onCPU {
			m[i] = threadUsage{onCPU: d, switches: uint64(i)}
		}
		return m
	}
	const second = time.Second
	tests := []struct {
		name          string
		before, after usage
		want          time.Duration
		coarse        bool
	}{
		{"fine", usage{threads(1, 2), 0, 0, 1}, usage{threads(second+1, 2), second, 0, 1}, second, false},
		{"a thread was born", usage{threads(0), 0, 0, 1}, usage{threads(second, second), second, second, 1}, 2 * second, false},
		{"a thread died", usage{threads(0, 0), 0, 0, 1}, usage{threads(second), second, second, 1}, 2 * second, true},
		{"a thread came and went", usage{threads(0), 0, 0, 1}, usage{threads(second), second, second, 1}, 2 * second, true},
		{"rounding is no thread", usage{threads(0), 0, 0, 1}, usage{threads(second), second, 2 * clockTick, 1}, second, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.after.since(test.before); got.cpu != test.want || got.coarse != test.coarse {
				t.Errorf("got %v, coarse %v; want %v, %v", got.cpu, got.coarse, test.want, test.coarse)
			}
		})
	}
}

func TestParseCPUClock(t *testing.T) {
	got := parseCPUClock("cpu  100 10 50 1000 20 5 5 10 7 0")
	if want := (cpuClock{total: 1200, idle: 1020, stolen: 10}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if s := got.stealSince(cpuClock{total: 1000}); s != 5 {
		t.Errorf("steal %v %%", s)
	}
}

func TestOthersSince(t *testing.T) {
	before := bystander{cpuClock{}, usage{}}
	ours := usage{user: 3 * time.Second} // of 10 s, of which 6 s were busy
	after := bystander{cpuClock{total: 1000, idle: 400}, ours}
	if got := after.othersSince(before); got != 30 {
		t.Errorf("got %v %%, want 30", got)
	}
}

// TestSyscallsPerRequest counts those of a process that makes two a request: the origin, which reads and writes, and
// now and then waits and books.
func TestSyscallsPerRequest(t *testing.T) {
	if !findPerf(t.Context()) {
		t.Skip("perf cannot count system calls here")
	}
	c, err := newCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o, err := startOrigin(c, loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer o.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		loadKept(ctx, load{address: at(loopback, o.plainPort), host: hostBench, path: pathSmall, conns: 16}, time.Minute)
	}()
	waitFor(t, func() bool { sum, _ := o.plain.read(); return sum.Requests > 0 })
	before, err1 := readUsage(o.pid())
	from, _ := o.plain.read()
	count, err2 := countSyscalls(ctx, o.pid(), perfTime)
	after, err3 := readUsage(o.pid())
	to, _ := o.plain.read()
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	got := count.perRequest(after.since(before).cpu, to.Requests-from.Requests)
	cancel()
	<-loaded
	if got < 1 || got > 8 { // the two counts are of windows that differ a little
		t.Errorf("%.2f system calls a request", got)
	}
}
