package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// byHand speaks TCP without the kernel's help: it is alone behind a TUN device, in a network namespace of its own, so that
// segments come as a test cuts them. What it writes the kernel has dealt with when the write returns.
type byHand struct {
	t    testing.TB
	tun  *os.File
	door int // listens in the namespace

	to   uint16 // the port that it speaks to
	from uint16 // its own
	seq  uint32 // of the first byte that it sends
	sent uint32 // how far it has sent: the offset behind all
	ack  uint32 // sequence number of the first byte that it was sent and has not read
}

var handAddress, kernelAddress = [4]byte{10, 66, 0, 2}, [4]byte{10, 66, 0, 1}

// TCP's flags.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
)

// speakByHand makes the namespace, or skips with the reason.
func speakByHand(t testing.TB) *byHand {
	t.Helper()
	h := &byHand{t: t}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and ends with the goroutine; the namespace lives as long as what was opened in it
		made <- h.open()
	}()
	if err := <-made; err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) {
			t.Skipf("needs a network namespace with a TUN device: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.tun.Close()
		_ = unix.Close(h.door)
	})
	return h
}

// open enters a namespace for good, and opens the device and a listening socket there.
func (h *byHand) open() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	device, err := unix.NewIfreq("byhand")
	if err != nil {
		return err
	}
	device.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, device); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	h.tun = os.NewFile(uintptr(fd), "tun")
	if h.door, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	for _, set := range []struct {
		request uint
		address [4]byte
	}{{unix.SIOCSIFADDR, kernelAddress}, {unix.SIOCSIFNETMASK, [4]byte{255, 255, 255, 0}}} {
		if err := errors.Join(device.SetInet4Addr(set.address[:]), unix.IoctlIfreq(h.door, set.request, device)); err != nil {
			return fmt.Errorf("the device's address: %w", err)
		}
	}
	device.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(h.door, unix.SIOCSIFFLAGS, device); err != nil {
		return fmt.Errorf("the device up: %w", err)
	}
	if err := unix.Bind(h.door, &unix.SockaddrInet4{Addr: kernelAddress}); err != nil {
		return err
	}
	return unix.Listen(h.door, 16)
}

// connect opens a connection whose first byte has sequence number seq, and returns the kernel's side of it.
func (h *byHand) connect(seq uint32) int {
	h.t.Helper()
	at, err := unix.Getsockname(h.door)
	if err != nil {
		h.t.Fatal(err)
	}
	h.to = uint16(at.(*unix.SockaddrInet4).Port)
	h.from++
	h.from |= 0x8000
	h.seq, h.ack, h.sent = seq, 0, 0
	h.write(seq-1, tcpSYN, nil)
	p := h.read(func(p packet) bool { return p.flags&tcpSYN != 0 })
	h.ack = p.seq + 1
	h.write(seq, tcpACK, nil)
	fd := -1
	eventually(h.t, "the connection", func() bool {
		fd, _, err = unix.Accept4(h.door, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return err == nil
	})
	return fd
}

// send sends bytes of the stream whose first has offset at.
func (h *byHand) send(at int, b []byte, fin bool) {
	h.t.Helper()
	flags := byte(tcpACK | tcpPSH)
	if fin {
		flags |= tcpFIN
	}
	h.write(h.seq+uint32(at), flags, b)
}

// receive reads and acknowledges what the kernel sends, until its FIN or its RST.
func (h *byHand) receive() (got []byte, reset bool) {
	h.t.Helper()
	for {
		p := h.read(func(p packet) bool { return len(p.data) > 0 || p.flags&(tcpFIN|tcpRST) != 0 })
		if p.flags&tcpRST != 0 {
			return got, true
		}
		if p.seq != h.ack {
			continue // again, or not yet due
		}
		got = append(got, p.data...)
		h.ack += uint32(len(p.data))
		end := p.flags&tcpFIN != 0
		if end {
			h.ack++
		}
		h.write(h.seq+h.sent, tcpACK, nil)
		if end {
			return got, false
		}
	}
}

// packet is a segment that came from the kernel.
type packet struct {
	seq   uint32
	flags byte
	data  []byte
}

// read waits for a segment of this connection that is wanted.
func (h *byHand) read(wanted func(packet) bool) packet {
	h.t.Helper()
	_ = h.tun.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1<<16)
	for {
		n, err := h.tun.Read(b)
		if err != nil {
			h.t.Fatalf("the device: %v", err)
		}
		ip := b[:n]
		if len(ip) < 40 || ip[0] != 0x45 || ip[9] != unix.IPPROTO_TCP {
			continue // the kernel talks to itself about IPv6
		}
		tcp := ip[20:min(int(binary.BigEndian.Uint16(ip[2:])), n)]
		if binary.BigEndian.Uint16(tcp) != h.to || binary.BigEndian.Uint16(tcp[2:]) != h.from {
			continue // of a connection that was before
		}
		if p := (packet{binary.BigEndian.Uint32(tcp[4:]), tcp[13], tcp[tcp[12]>>4*4:]}); wanted(p) {
			return p
		}
	}
}

// write hands the kernel a segment.
func (h *byHand) write(seq uint32, flags byte, data []byte) {
	h.t.Helper()
	if end := seq - h.seq + uint32(len(data)); flags&tcpSYN == 0 {
		h.sent = max(h.sent, end+uint32(flags&tcpFIN))
	}
	tcp := make([]byte, 20, 20+len(data))
	binary.BigEndian.PutUint16(tcp, h.from)
	binary.BigEndian.PutUint16(tcp[2:], h.to)
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], h.ack)
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 0xffff)
	tcp = append(tcp, data...)
	pseudo := slices.Concat(handAddress[:], kernelAddress[:], []byte{0, unix.IPPROTO_TCP, byte(len(tcp) >> 8), byte(len(tcp))})
	binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo, tcp...)))
	ip := slices.Concat([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_TCP, 0, 0}, handAddress[:], kernelAddress[:])
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(tcp)))
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	if _, err := h.tun.Write(append(ip, tcp...)); err != nil {
		h.t.Fatalf("the device: %v", err)
	}
}

// checksum is RFC 1071's.
func checksum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
