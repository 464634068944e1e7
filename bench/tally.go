package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A tally is what the origin has served since its start. Work is counted here and not at the load generator: the
// harness can read it at the very instants at which it reads the proxies' CPU, whoever makes the load.
type tally struct {
	Requests uint64
	Bytes    uint64 // of answers, heads included
}

const tallyBytes = 16

// A tallyFile is a tally in a file of memory that the origin writes and the harness reads. Each of its servers has a
// slot.
type tallyFile struct {
	file *os.File
	slot int64
}

const (
	slotPlain = iota
	slotTLS
	slotUDP
	slots
)

func newTallyFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("bench-tally", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("tally file: %w", err)
	}
	file := os.NewFile(uintptr(fd), "bench-tally")
	return file, file.Truncate(slots * tallyBytes)
}

func (t tallyFile) write(v tally) error {
	var b [tallyBytes]byte
	binary.NativeEndian.PutUint64(b[:8], v.Requests)
	binary.NativeEndian.PutUint64(b[8:], v.Bytes)
	_, err := t.file.WriteAt(b[:], t.slot*tallyBytes)
	return err
}

func (t tallyFile) read() (tally, error) {
	var b [tallyBytes]byte
	_, err := t.file.ReadAt(b[:], t.slot*tallyBytes)
	return tally{binary.NativeEndian.Uint64(b[:8]), binary.NativeEndian.Uint64(b[8:])}, err
}

// A sharedTally is a tallyFile that many goroutines add to.
type sharedTally struct {
	tallyFile
	mu  sync.Mutex
	sum tally
}

func (s *sharedTally) add(requests, bytes uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.Requests += requests
	s.sum.Bytes += bytes
	return s.write(s.sum)
}
