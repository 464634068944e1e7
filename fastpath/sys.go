package fastpath

import (
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file and ring.go are the only ones with unsafe: system calls that never block are made without telling the Go scheduler
// (RawSyscall), which saves about 10 % of a request's cost. The one call that blocks, epoll_wait, is raw too while the loop
// is busy, but for a short while only: blocking in a raw call holds up the garbage collector (Loop.wait).
//
// The kernel answers EAGAIN, not EINTR, on a non-blocking socket that has nothing. Should EINTR come all the same, the call
// is made again: taken for EAGAIN it would leave the connection waiting for an edge that never comes.

func recv(fd int32, b []byte, flags int) (int, syscall.Errno) {
	r, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags), 0, 0)
	if e == syscall.EINTR {
		return recv(fd, b, flags)
	}
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

func send(fd int32, b []byte, flags int) (int, syscall.Errno) {
	r, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags|unix.MSG_NOSIGNAL), 0, 0)
	if e == syscall.EINTR {
		return send(fd, b, flags)
	}
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// send2 sends a and b, in this order, by one call. v is the loop's, so that nothing is allocated.
func send2(fd int32, v *sendVector, a, b []byte) (int, syscall.Errno) {
	v.iov[0].Base, v.iov[1].Base = unsafe.SliceData(a), unsafe.SliceData(b)
	v.iov[0].SetLen(len(a))
	v.iov[1].SetLen(len(b))
	v.hdr.Iov = &v.iov[0]
	v.hdr.SetIovlen(2)
	r, _, e := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.hdr)), unix.MSG_NOSIGNAL)
	v.iov[0].Base, v.iov[1].Base = nil, nil
	if e == syscall.EINTR {
		return send2(fd, v, a, b)
	}
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

type sendVector struct {
	hdr unix.Msghdr
	iov [2]unix.Iovec
}

func splice(from, to int32, n int) (int, syscall.Errno) {
	r, _, e := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	if e == syscall.EINTR {
		return splice(from, to, n)
	}
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// epollWait blocks for at most ms milliseconds (-1: for ever), as an ordinary system call of which Go's scheduler knows.
func epollWait(ep int, events []unix.EpollEvent, ms int) int {
	p, n := uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events))
	r, _, e := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), p, n, uintptr(ms), 0, 0)
	if e != 0 {
		return 0 // EINTR; anything else would be a defect and shows as a spinning loop in the metrics
	}
	return int(r)
}

// EpollWaitBriefly waits on an epoll instance of the caller's without Go's scheduler knowing, for d, which must be a few
// milliseconds at most: so long it may hold up the garbage collector.
func EpollWaitBriefly(ep int, events []unix.EpollEvent, d time.Duration) int {
	return epollWaitBriefly(ep, events, int(min(d, rawWaitMax).Milliseconds()))
}

// epollWaitBriefly is epollWait without the scheduler's knowledge, for at most rawWaitMax: whoever stops the world sends a
// signal, which ends the wait at once, and if that is lost rawWaitMax ends it.
func epollWaitBriefly(ep int, events []unix.EpollEvent, ms int) int {
	p, n := uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events))
	r, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), p, n, uintptr(ms), 0, 0)
	if e != 0 {
		return 0
	}
	return int(r)
}

// NoDelay switches Nagle's algorithm off for a listening socket's connections, which inherit it: loops gather by themselves
// what belongs together.
func NoDelay(fd int) { setsockopt(int32(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// Accept takes a connection from a listening descriptor: non-blocking, close-on-exec, without unix.Accept4's extra
// system call. From any goroutine.
func Accept(fd int) (int, netip.AddrPort, syscall.Errno) {
	var sa syscall.RawSockaddrAny
	n := uint32(syscall.SizeofSockaddrAny)
	r, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if e != 0 {
		return -1, netip.AddrPort{}, e
	}
	return int(r), addrOf(&sa), 0
}

func sockname(fd int32) netip.AddrPort {
	var sa syscall.RawSockaddrAny
	n := uint32(syscall.SizeofSockaddrAny)
	if _, _, e := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n))); e != 0 {
		return netip.AddrPort{}
	}
	return addrOf(&sa)
}

// connect starts a connection; EINPROGRESS is the usual answer. The address is built on the stack.
func connect(fd int32, to netip.AddrPort) syscall.Errno {
	var e syscall.Errno
	port := to.Port()
	if a := to.Addr().Unmap(); a.Is4() {
		sa := syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: port<<8 | port>>8, Addr: a.As4()}
		_, _, e = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), syscall.SizeofSockaddrInet4)
	} else {
		sa := syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Port: port<<8 | port>>8, Addr: a.As16()}
		_, _, e = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), syscall.SizeofSockaddrInet6)
	}
	return e
}

func addrOf(sa *syscall.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case syscall.AF_INET:
		p := (*syscall.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(p.Addr), p.Port<<8|p.Port>>8)
	case syscall.AF_INET6:
		p := (*syscall.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(p.Addr).Unmap(), p.Port<<8|p.Port>>8)
	}
	return netip.AddrPort{}
}

func setsockopt(fd int32, level, name, value int) syscall.Errno {
	v := int32(value)
	_, _, e := syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), 4, 0)
	return e
}

func getsockopt(fd int32, level, name int, value unsafe.Pointer, n uint32) (uint32, syscall.Errno) {
	_, _, e := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(value), uintptr(unsafe.Pointer(&n)), 0)
	return n, e
}

// segmentMax is what a segment carries at most (MSS), in bytes; 0: not known.
func segmentMax(fd int32) int32 {
	var mss int32
	_, _ = getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, unsafe.Pointer(&mss), 4)
	return mss
}

// bbrInfo is what BBR thinks of a connection's path; false: the congestion control is another. Others tell less by TCP_CC_INFO,
// or nothing; later versions of BBR tell more, behind the same fields.
func bbrInfo(fd int32) (unix.TCPBBRInfo, bool) {
	var info unix.TCPBBRInfo
	const size = uint32(unsafe.Sizeof(info))
	n, e := getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_CC_INFO, unsafe.Pointer(&info), size)
	return info, e == 0 && n == size
}

func closeFD(fd int32) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

func shutdownWrite(fd int32) {
	syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), uintptr(syscall.SHUT_WR), 0)
}

func socket(v6 bool) (int32, syscall.Errno) {
	family := syscall.AF_INET
	if v6 {
		family = syscall.AF_INET6
	}
	r, _, e := syscall.RawSyscall(syscall.SYS_SOCKET, uintptr(family), syscall.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if e != 0 {
		return -1, e
	}
	return int32(r), 0
}

// ---- datagrams: see datagram.go

// message is what recvmmsg(2) and sendmmsg(2) take.
type message struct {
	header unix.Msghdr
	n      uint32
}

// wire points the messages of a batch to its memory, once.
func (b *Batch) wire() {
	for i := range b.messages {
		b.vectors[i].Base = &b.bytes[i*DatagramBytesMax]
		h := &b.messages[i].header
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
	}
}

// receive takes as many datagrams as there are, at most a batch.
func (b *Batch) receive(fd int32) (int, syscall.Errno) {
	for i := range b.messages {
		h := &b.messages[i].header
		h.Name, h.Namelen = &b.peers[i].name[0], uint32(len(b.peers[i].name))
		h.Control = (*byte)(unsafe.Pointer(&b.peers[i].control[0]))
		h.SetControllen(int(unsafe.Sizeof(b.peers[i].control)))
		b.vectors[i].SetLen(DatagramBytesMax)
	}
	return mmsg(unix.SYS_RECVMMSG, fd, b.messages[:], unix.MSG_DONTWAIT)
}

// send sends the datagrams from … to-1 of a batch; to where the socket is connected to if peer is nil.
func (b *Batch) send(fd int32, from, to int, peer *Peer) (int, syscall.Errno) {
	for i := from; i < to; i++ {
		h := &b.messages[i].header
		b.vectors[i].SetLen(b.Len(i))
		h.Name, h.Namelen, h.Control = nil, 0, nil
		h.SetControllen(0)
		if peer != nil {
			h.Name, h.Namelen = &peer.name[0], peer.nameBytes
			if peer.controlBytes > 0 {
				h.Control = (*byte)(unsafe.Pointer(&peer.control[0]))
				h.SetControllen(int(peer.controlBytes))
			}
		}
	}
	return mmsg(unix.SYS_SENDMMSG, fd, b.messages[from:to], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func mmsg(trap uintptr, fd int32, list []message, flags uintptr) (int, syscall.Errno) {
	r, _, e := syscall.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(list))), uintptr(len(list)), flags, 0, 0)
	if e == syscall.EINTR {
		return mmsg(trap, fd, list, flags)
	}
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

func datagramSocket(v6 bool) (int32, syscall.Errno) {
	family := syscall.AF_INET
	if v6 {
		family = syscall.AF_INET6
	}
	r, _, e := syscall.RawSyscall(syscall.SYS_SOCKET, uintptr(family), syscall.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if e != 0 {
		return -1, e
	}
	return int32(r), 0
}

// GiveWay tells the kernel whether a thread of this process waits, once it is woken, until who has the processor sleeps or has had
// its share (SCHED_BATCH of sched(7)), or may take the processor from it (SCHED_OTHER). What the thread gets in all stays the
// same. False: the kernel refuses, or somebody chose another policy; nothing has changed.
func GiveWay(thread int, on bool) bool {
	policy, _, e := syscall.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(thread), 0, 0)
	if e != 0 || policy != unix.SCHED_NORMAL && policy != unix.SCHED_BATCH {
		return false
	}
	policy = unix.SCHED_NORMAL
	if on {
		policy = unix.SCHED_BATCH
	}
	var priority int32 // both policies have 0
	_, _, e = syscall.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(thread), policy, uintptr(unsafe.Pointer(&priority)))
	return e == 0
}

// shortSlice is what the kernel gives a thread at once that is to leave others their turn; 2.8 ms are usual.
const shortSlice = 100 * time.Microsecond

// ShortSlices has the kernel give the process's threads their processors in short pieces, or in the usual ones, so that a loop that
// is woken waits less for whoever computes. Kernels from 6.12 on know such wishes. Porches keep their own.
func ShortSlices(on bool) {
	own, err := unix.SchedGetAttr(0, 0)
	tasks, failed := os.ReadDir("/proc/self/task")
	if err != nil || failed != nil {
		return
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		a, err := unix.SchedGetAttr(tid, 0)
		if err != nil || a.Nice > own.Nice || a.Policy != unix.SCHED_NORMAL && a.Policy != unix.SCHED_BATCH {
			continue // it has ended, is a porch's, or somebody has chosen for it
		}
		if a.Size, a.Runtime = unix.SizeofSchedAttr, 0; on {
			a.Runtime = uint64(shortSlice)
		}
		_ = unix.SchedSetAttr(tid, a, 0) // without, it takes longer
	}
}
