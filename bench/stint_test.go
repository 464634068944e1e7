package main

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A goroutine that is always in some system call has Go's monitor wake all the time, unless it ends its stints.
func TestStintsLetTheMonitorSleep(t *testing.T) {
	const length = 500 * time.Millisecond
	switches := func(yields bool) int64 {
		before, after := unix.Rusage{}, unix.Rusage{}
		_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
		s, b := stint{}, make([]byte, 1)
		for end := time.Now().Add(length); time.Now().Before(end); {
			_, _ = unix.Read(-1, b)
			if yields {
				s.worked(time.Now())
			}
		}
		_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
		return after.Nvcsw - before.Nvcsw
	}
	with, without := switches(true), switches(false)
	t.Logf("switches of the process in %v: %d with yields, %d without", length, with, without)
	if 2*with > without {
		t.Errorf("%d switches with yields, %d without; want half at most", with, without)
	}
}
