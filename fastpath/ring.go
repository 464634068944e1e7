package fastpath

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring has the kernel make several calls by one system call (io_uring(7)). It is a vector of non-blocking calls and nothing
// else: run returns when each is done or refused. Readiness stays epoll's, the kernel keeps no request and no buffer, and no
// thread works for it. So whoever has no io_uring (an old kernel, a seccomp profile) makes the same calls one by one, and
// nothing else changes (docs/decisions/0017-calls-in-a-row.md).
//
// Of one loop, whose goroutine may change its thread: the ring belongs to the process.
type ring struct {
	fd              int
	memory, entries []byte // the kernel's, mapped

	sqTail, cqHead, cqTail *uint32 // views of memory
	sqMask, cqMask         uint32
	submissions            []submission
	completions            []completion

	tried [2]byte // sent and received by test
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
	call      uint64 // user_data: the index in the list of calls
	_         [3]uint64
}

// completion is struct io_uring_cqe.
type completion struct {
	call   uint64
	result int32 // bytes; below 0: -errno
	flags  uint32
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct{ head, tail, mask, entries, flags, dropped, array, _, _, _ uint32 }
	cq                                                   struct{ head, tail, mask, entries, overflow, cqes, flags, _, _, _ uint32 }
}

// Of linux/io_uring.h; golang.org/x/sys has the numbers of the system calls only.
const (
	ringOpSend      = 26
	ringOpRecv      = 27
	ringSubmitAll   = 1 << 7 // IORING_SETUP_SUBMIT_ALL, Linux 5.18: a refused call does not hold up those behind it
	ringGetEvents   = 1 << 0 // IORING_ENTER_GETEVENTS
	ringSingleMap   = 1 << 0 // IORING_FEAT_SINGLE_MMAP
	ringSubmissions = 0x10000000
)

// newRing makes a ring and tries it. An error is no fault: the calls are made one by one then.
func newRing() (*ring, error) {
	p := ringParams{flags: ringSubmitAll}
	fd, _, e := syscall.Syscall(unix.SYS_IO_URING_SETUP, flushBatch, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	r := &ring{fd: int(fd)}
	err := r.mapMemory(&p)
	if err == nil {
		err = r.test()
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *ring) mapMemory(p *ringParams) (err error) {
	if p.features&ringSingleMap == 0 {
		return errors.New("io_uring: the kernel is too old")
	}
	const rw, how = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(completion{})))
	if r.memory, err = unix.Mmap(r.fd, 0, int(size), rw, how); err != nil {
		return fmt.Errorf("io_uring: mmap: %w", err)
	}
	if r.entries, err = unix.Mmap(r.fd, ringSubmissions, int(p.sqEntries)*int(unsafe.Sizeof(submission{})), rw, how); err != nil {
		return fmt.Errorf("io_uring: mmap: %w", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[offset])) }
	r.sqTail, r.cqHead, r.cqTail = at(p.sq.tail), at(p.cq.head), at(p.cq.tail)
	r.sqMask, r.cqMask = *at(p.sq.mask), *at(p.cq.mask)
	r.submissions = unsafe.Slice((*submission)(unsafe.Pointer(unsafe.SliceData(r.entries))), p.sqEntries)
	r.completions = unsafe.Slice((*completion)(unsafe.Pointer(&r.memory[p.cq.cqes])), p.cqEntries)
	for i := range p.sqEntries { // each place of the queue names the entry of its own number, for good
		*at(p.sq.array + 4*i) = i
	}
	return nil
}

// test sends a byte to itself, receives it, and asks for more: that must be refused, not waited for.
func (r *ring) test() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("io_uring: socketpair: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	r.tried = [2]byte{'s', 0}
	from, to := &Conn{fd: int32(pair[0])}, &Conn{fd: int32(pair[1])}
	list := []call{{c: from, b: r.tried[:1]}}
	r.run(ringOpSend, list)
	sent := list[0]
	list = []call{{c: to, b: r.tried[1:]}, {c: to, b: r.tried[1:]}}
	r.run(ringOpRecv, list)
	if sent.n != 1 || list[0].n != 1 || r.tried[1] != 's' || list[1].errno != unix.EAGAIN {
		return fmt.Errorf("io_uring: the test failed: sent %d (%v), received %d (%v), then %d (%v)",
			sent.n, sent.errno, list[0].n, list[0].errno, list[1].n, list[1].errno)
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

// run makes the calls, at most flushBatch, and notes what came of each. The memory that they name is the heap's, which Go
// does not move, and list keeps it.
func (r *ring) run(op uint8, list []call) {
	tail := *r.sqTail
	for i := range list {
		l := &list[i]
		r.submissions[(tail+uint32(i))&r.sqMask] = submission{op: op, fd: l.c.fd, address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(l.b)))),
			length: uint32(len(l.b)), msgFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, call: uint64(i)}
	}
	atomic.StoreUint32(r.sqTail, tail+uint32(len(list)))
	taken := r.enter(len(list), 0, 0)
	if taken < len(list) { // the kernel is out of memory, say: the rest is taken back, and made one by one
		atomic.StoreUint32(r.sqTail, tail+uint32(taken))
		oneByOne(op, list[taken:])
	}
	for done := r.reap(op, list); done < taken; done += r.reap(op, list) { // never yet seen: what is not to wait is done by now
		r.enter(0, taken-done, ringGetEvents)
	}
}

// enter is io_uring_enter(2); it answers how many submissions the kernel took.
func (r *ring) enter(submit, wait int, flags uintptr) int {
	n, _, e := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(wait), flags, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

// reap notes what is done, and answers how many that were.
func (r *ring) reap(op uint8, list []call) int {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	for at := head; at != tail; at++ {
		done := &r.completions[at&r.cqMask]
		l := &list[done.call]
		switch e := syscall.Errno(-done.result); {
		case done.result >= 0:
			l.n, l.errno = int(done.result), 0
		case e == syscall.EINTR:
			oneByOne(op, list[done.call:done.call+1])
		default:
			l.n, l.errno = 0, e
		}
	}
	atomic.StoreUint32(r.cqHead, tail)
	return int(tail - head)
}
