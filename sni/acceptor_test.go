package sni

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/fastpath"
)

// TestAcceptorGivesWay: while connections come, one thread of the process waits for its turn when it is woken. When it is quiet
// none does, since any goroutine may run on it, a loop's too.
func TestAcceptorGivesWay(t *testing.T) {
	h := open(t, false, func(*Limits) {})
	stop := time.Now().Add(patience)
	for batch := 0; batch != 1; batch = givingWay(t) {
		if time.Now().After(stop) {
			t.Fatalf("%d threads give way while connections come, want 1", batch)
		}
		conn, err := net.Dial("tcp", h.address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	for batch := 1; batch != 0; batch = givingWay(t) {
		if time.Now().After(stop) {
			t.Fatalf("%d threads give way when it is quiet", batch)
		}
		time.Sleep(acceptQuiet / 4)
	}
}

// TestYieldGivesTheThreadBack: whoever runs on the acceptor's thread while it yields finds that it does not give way: it may be a
// loop, or begin a thread, which inherits the policy for good. Afterwards the acceptor's gives way again, whichever that is now.
func TestYieldGivesTheThreadBack(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that others run on the thread of who yields
	var ran, giving atomic.Int32
	var stop atomic.Bool
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for !stop.Load() {
				if policy, _, _ := syscall.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0); policy == unix.SCHED_BATCH {
					giving.Add(1)
				}
				ran.Add(1)
				runtime.Gosched()
			}
		})
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if !fastpath.GiveWay(unix.Gettid(), true) {
		t.Fatal("the kernel refuses SCHED_BATCH, which needs no right")
	}
	for range 100 {
		yield()
		if n := givingWay(t); n != 1 {
			t.Fatalf("%d threads give way after a yield", n)
		}
	}
	if !fastpath.GiveWay(unix.Gettid(), false) || givingWay(t) != 0 {
		t.Error("another thread gives way than the acceptor's")
	}
	stop.Store(true)
	others.Wait()
	if ran.Load() == 0 || giving.Load() != 0 {
		t.Errorf("others ran %d times, %d times on a thread that gives way", ran.Load(), giving.Load())
	}
}

// givingWay counts the threads of this process whose policy is SCHED_BATCH.
func givingWay(t *testing.T) (n int) {
	t.Helper()
	paths, _ := filepath.Glob("/proc/self/task/*/stat")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ") // proc_pid_stat(5): fields from the third on
		fields := strings.Fields(rest)
		const policy = 41 - 3
		if len(fields) <= policy {
			t.Fatalf("%s says %q", path, text)
		}
		if fields[policy] == strconv.Itoa(unix.SCHED_BATCH) {
			n++
		}
	}
	return n
}
