package fastpath

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// DatagramBytesMax is more than a UDP datagram can hold.
	DatagramBytesMax = 64 << 10

	batchMax = 16 // datagrams of one system call: 1 MiB of memory for a loop that has UDP services
)

// Batch is the memory of a loop for datagrams on their way: received by one call, sent by others. What it holds lives until
// the next Receive. A loop has one, which Loop.Datagrams gives.
type Batch struct {
	messages [batchMax]message
	vectors  [batchMax]unix.Iovec
	peers    [batchMax]Peer
	lengths  [batchMax]int
	bytes    []byte
}

// Peer is who sent a datagram and where to, as the kernel says it. What is answered goes back the same way.
type Peer struct {
	name         [syscall.SizeofSockaddrInet6]byte
	control      [5]uint64 // the address that the datagram was sent to (IP_PKTINFO, IPV6_PKTINFO)
	nameBytes    uint32
	controlBytes uint32
}

// Key is what tells one peer from another: its address, port and scope.
func (p *Peer) Key() *[syscall.SizeofSockaddrInet6]byte { return &p.name }

// Addr is the peer's address and port, IPv4 in IPv6 unwrapped.
func (p *Peer) Addr() netip.AddrPort {
	port := binary.BigEndian.Uint16(p.name[2:])
	switch binary.NativeEndian.Uint16(p.name[:]) {
	case syscall.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(p.name[4:])), port)
	case syscall.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(p.name[8:])).Unmap(), port)
	}
	return netip.AddrPort{}
}

// To is the address of ours that the peer's datagram was sent to, IPv4 in IPv6 unwrapped; invalid: the kernel did not say.
func (p *Peer) To() netip.Addr {
	if p.controlBytes == 0 {
		return netip.Addr{}
	}
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:], p.control[2])
	binary.NativeEndian.PutUint64(b[8:], p.control[3])
	if p.level() == unix.IPPROTO_IP {
		return netip.AddrFrom4([4]byte(b[4:])) // ipi_spec_dst, behind ipi_ifindex
	}
	return netip.AddrFrom16(b).Unmap()
}

// level is the protocol that the information is of: control is a cmsghdr (8 bytes of length, level, type), then that.
func (p *Peer) level() uint32 {
	var head [8]byte
	binary.NativeEndian.PutUint64(head[:], p.control[1])
	return binary.NativeEndian.Uint32(head[:])
}

// tidy leaves of a peer what an answer needs: no flow label, and no interface, which routing chooses.
func (p *Peer) tidy(nameBytes uint32, controlBytes int) {
	p.nameBytes, p.controlBytes = nameBytes, uint32(controlBytes)
	clear(p.name[min(int(nameBytes), len(p.name)):])
	if binary.NativeEndian.Uint16(p.name[:]) == syscall.AF_INET6 {
		clear(p.name[4:8])
	}
	if controlBytes < unix.CmsgSpace(0) {
		p.controlBytes = 0
		return
	}
	switch p.level() {
	case unix.IPPROTO_IP:
		p.control[2] &^= uint64(firstHalf) // ipi_ifindex
	case unix.IPPROTO_IPV6:
		p.control[4] &^= uint64(firstHalf) // ipi6_ifindex
	default:
		p.controlBytes = 0
	}
}

// firstHalf masks the four bytes that stand first in memory of eight.
var firstHalf = binary.NativeEndian.Uint64([]byte{255, 255, 255, 255, 0, 0, 0, 0})

// Datagrams is the loop's batch. On the loop only.
func (l *Loop) Datagrams() *Batch {
	if b, ok := l.Local[LocalDatagrams].(*Batch); ok {
		return b
	}
	b := &Batch{bytes: make([]byte, batchMax*DatagramBytesMax)}
	b.wire()
	l.Local[LocalDatagrams] = b
	return b
}

// Receive takes what has come, at most a batch; more tells that more may stand there. With n 0 and no error nothing had come.
// An error is one that the kernel was told of (ICMP), or the socket's end.
func (b *Batch) Receive(c *Conn) (n int, more bool, err *Error) {
	n, e := b.receive(c.fd)
	switch {
	case e == syscall.EAGAIN:
		c.flags &^= flagReadable
		return 0, false, nil
	case e == syscall.ECONNREFUSED, e == syscall.EHOSTUNREACH, e == syscall.ENETUNREACH:
		return 0, true, ErrRefused
	case e != 0:
		return 0, true, ErrReset
	}
	for i := range n {
		m := &b.messages[i]
		b.lengths[i] = int(m.n)
		b.peers[i].tidy(m.header.Namelen, int(m.header.Controllen))
	}
	return n, n == batchMax, nil
}

// Len is how many bytes datagram i holds.
func (b *Batch) Len(i int) int { return b.lengths[i] }

// Peer is who sent datagram i.
func (b *Batch) Peer(i int) *Peer { return &b.peers[i] }

// Pass sends datagrams from … to-1 on a connected socket. It answers how many left; an error is about the next one. A full
// queue of the kernel's is no error: those datagrams are lost, as on any way.
func (b *Batch) Pass(c *Conn, from, to int) (n int, err *Error) { return b.sent(c.fd, from, to, nil) }

// Reply sends datagrams 0 … n-1 on the socket fd to a peer, from the address that it had sent its own to.
func (b *Batch) Reply(fd, n int, to *Peer) (int, *Error) { return b.sent(int32(fd), 0, n, to) }

func (b *Batch) sent(fd int32, from, to int, peer *Peer) (n int, err *Error) {
	for from+n < to {
		k, e := b.send(fd, from+n, to, peer)
		n += k
		switch e {
		case 0:
		case syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM, syscall.EMSGSIZE, syscall.EPERM:
			return n, nil
		case syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH:
			return n, ErrRefused
		default:
			return n, ErrReset
		}
	}
	return n, nil
}

// DialDatagrams makes a UDP socket that is connected to addr: it gets what that one sends, and what ICMP says of it.
func (l *Loop) DialDatagrams(addr netip.AddrPort, h Handler) (*Conn, *Error) {
	fd, e := datagramSocket(!addr.Addr().Unmap().Is4())
	if e != 0 {
		return nil, ErrNoDescriptor
	}
	if connect(fd, addr) != 0 {
		closeFD(fd)
		return nil, ErrRefused
	}
	c, err := l.register(fd, h, 0)
	if err != nil {
		closeFD(fd)
		return nil, ErrNoDescriptor
	}
	c.remote = addr
	return c, nil
}
