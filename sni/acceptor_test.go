package sni

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
