package sni

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
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

// TestYieldMoves: where the acceptor comes back on another thread, that one gives way, and the one that it had no more.
func TestYieldMoves(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))) // one alone has no other thread to come back on
	var stop atomic.Bool
	defer stop.Store(true)
	for range 4 * runtime.GOMAXPROCS(0) {
		go func() {
			for !stop.Load() {
				runtime.Gosched()
			}
		}()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	first := unix.Gettid()
	if !fastpath.GiveWay(first, true) {
		t.Fatal("the kernel refuses SCHED_BATCH, which needs no right")
	}
	thread := first
	defer func() { fastpath.GiveWay(thread, false) }()
	for end := time.Now().Add(patience); thread == first; {
		if time.Now().After(end) {
			t.Fatal("the goroutine kept its thread, so that nothing was tested")
		}
		thread = yield(thread)
	}
	if n := givingWay(t); n != 1 || thread != unix.Gettid() {
		t.Errorf("%d threads give way, %d was told of on %d", n, thread, unix.Gettid())
	}
	if !fastpath.GiveWay(thread, false) || givingWay(t) != 0 {
		t.Error("another thread gives way than the one that was told of")
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
