package fastpath

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring has the kernel make several calls by one (io_uring(7)). It is used as a vector of non-blocking system calls and for
// nothing else: what is asked for is done, or refused, before run returns; readiness stays epoll's, and no request is ever
// left behind in the kernel. So it needs no rights, no thread of its own and no order of events, and whoever has no
// io_uring (an old kernel, a seccomp profile) makes the calls one by one.
//
// On the loop that owns it only. The loop's goroutine may change its thread: the ring belongs to the process.
type ring struct {
	fd                     int
	memory, entries        []byte // both mappings
	sqTail, cqHead, cqTail *uint32
	sqMask, cqMask         uint32
	submissions            []submission
	completions            []completion
}

// submission is struct io_uring_sqe.
type submission struct {
	op, flags uint8
	priority  uint16
	fd        int32
	offset    uint64
	address   uint64
	length    uint32
	msgFlags  uint32
	user      uint64 // index of the call
	_         [3]uint64
}

// completion is struct io_uring_cqe.
type completion struct {
	user   uint64
	result int32 // bytes; below 0: -errno
	flags  uint32
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// What golang.org/x/sys does not have of linux/io_uring.h.
const (
	ringOpSend         = 26
	ringOpRecv         = 27
	ringSubmitAll      = 1 << 7 // Linux 5.18: go on after a call that failed
	ringGetEvents      = 1 << 0
	ringFeatSingleMap  = 1 << 0
	ringOffSubmissions = 0x10000000
)

func newRing() (*ring, error) {
	p := ringParams{flags: ringSubmitAll}
	fd, _, e := syscall.Syscall(unix.SYS_IO_URING_SETUP, flushBatch, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	r := &ring{fd: int(fd)}
	if err := r.mapMemory(&p); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *ring) mapMemory(p *ringParams) (err error) {
	const rw, how = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if p.features&ringFeatSingleMap == 0 {
		return fmt.Errorf("io_uring: %w", unix.ENOSYS)
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(completion{})))
	if r.memory, err = unix.Mmap(r.fd, 0, int(size), rw, how); err != nil {
		return fmt.Errorf("io_uring: mmap: %w", err)
	}
	if r.entries, err = unix.Mmap(r.fd, ringOffSubmissions, int(p.sqEntries)*int(unsafe.Sizeof(submission{})), rw, how); err != nil {
		return fmt.Errorf("io_uring: mmap: %w", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[offset])) }
	r.sqTail, r.cqHead, r.cqTail = at(p.sq.tail), at(p.cq.head), at(p.cq.tail)
	r.sqMask, r.cqMask = *at(p.sq.mask), *at(p.cq.mask)
	r.submissions = unsafe.Slice((*submission)(unsafe.Pointer(unsafe.SliceData(r.entries))), p.sqEntries)
	r.completions = unsafe.Slice((*completion)(unsafe.Pointer(&r.memory[p.cq.cqes])), p.cqEntries)
	for i := range p.sqEntries { // the n-th place of the queue always names the n-th entry
		*at(p.sq.array + 4*i) = i
	}
	return nil
}

func (r *ring) close() {
	if r.memory != nil {
		_ = unix.Munmap(r.memory)
	}
	if r.entries != nil {
		_ = unix.Munmap(r.entries)
	}
	_ = unix.Close(r.fd)
}

// run makes the calls, at most flushBatch, and notes what came of each.
func (r *ring) run(op uint8, list []call) {
	tail := *r.sqTail
	for i := range list {
		l := &list[i]
		r.submissions[tail&r.sqMask] = submission{op: op, fd: l.c.fd, address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(l.b)))), length: uint32(len(l.b)),
			msgFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, user: uint64(i)}
		l.errno = unix.EINPROGRESS
		tail++
	}
	atomic.StoreUint32(r.sqTail, tail)
	for given, done := 0, 0; done < len(list); {
		n, _, e := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(len(list)-given), 0, 0, 0, 0)
		if e == 0 {
			given += int(n)
		}
		done += r.reap(list)
	}
}

func (r *ring) reap(list []call) int {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	n := int(tail - head)
	for ; head != tail; head++ {
		d := &r.completions[head&r.cqMask]
		l := &list[d.user]
		if d.result < 0 {
			l.n, l.errno = 0, syscall.Errno(-d.result)
		} else {
			l.n, l.errno = int(d.result), 0
		}
	}
	atomic.StoreUint32(r.cqHead, head)
	return n
}
