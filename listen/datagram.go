package listen

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// openDatagrams binds a UDP address, or takes what a predecessor left.
func openDatagrams(o Options) (*Socket, error) {
	s := &Socket{Name: o.Name, shared: o.Share, datagram: true}
	err := s.bindDatagrams(o)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Address, err)
	}
	if err = s.prepareDatagrams(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("listen on %s: %w", o.Address, err)
	}
	return s, nil
}

func (s *Socket) bindDatagrams(o Options) (err error) {
	if file := o.Legacy.take(o.Name); file != nil {
		defer file.Close()
		s.fd, err = own(file)
		return err
	}
	var c net.ListenConfig
	if o.Share {
		c.Control = sharePort
	}
	packets, err := c.ListenPacket(context.Background(), "udp"+family(o.Address), o.Address)
	if err != nil {
		return err
	}
	defer packets.Close()
	s.fd, err = own(packets.(*net.UDPConn))
	return err
}

// prepareDatagrams has the socket tell where each datagram was sent to, so that answers come from there.
func (s *Socket) prepareDatagrams() error {
	if err := syscall.SetNonblock(s.fd, true); err != nil {
		return err
	}
	at, err := localAddr(s.fd)
	if err != nil {
		return err
	}
	s.at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if at.Addr().Is4() {
		return unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	return unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// deafen has a UDP socket get no datagrams any more but those that stand in its queue; what is sent on it still leaves. A
// connected socket gets only its peer's, and is none of those among which a shared port chooses. The peer is the
// socket itself, which sends itself nothing.
func (s *Socket) deafen() error {
	at, err := localAddr(s.fd)
	if err != nil {
		return err
	}
	to := netip.AddrPortFrom(at.Addr(), at.Port())
	if at.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
		if at.Addr().Is4() {
			to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
		}
	}
	return unix.Connect(s.fd, sockaddr(to.Addr(), to.Port()))
}
