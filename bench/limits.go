package main

import (
	"golang.org/x/sys/unix"
)

const (
	descriptorsWanted = 65_536
	descriptorsSpare  = 1024 // of a process's descriptors, left for all but idle connections
)

// raiseDescriptorLimit lifts RLIMIT_NOFILE of this process and of those it starts as far as it may, and
// answers how far that was.
func raiseDescriptorLimit() (int, error) {
	want := unix.Rlimit{Cur: descriptorsWanted, Max: descriptorsWanted}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return 0, err
	}
	if now.Max >= want.Max {
		want.Max = now.Max
	}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &want) == nil {
		return int(want.Cur), nil
	}
	now.Cur = min(now.Max, descriptorsWanted) // not allowed to lift the hard limit: stay below it
	return int(now.Cur), unix.Setrlimit(unix.RLIMIT_NOFILE, &now)
}
