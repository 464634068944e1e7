package listen

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How the kernel shares a port, as tried out on Linux 6.18 (docs/decisions/0045-shared-port.md):
//
//   - The sockets of a port form a group, and stand in it in the order in which they began to listen. When one closes,
//     the last one takes its place.
//   - A program that any socket of the group attaches chooses the socket of each connection, by its place, when the
//     connection's first segment comes. It stays attached when its socket closes.
//   - Without a program, or when it names a place that there is not, a hash chooses.
//   - Connections that have begun stay with their socket. What is in its queue when it closes is reset.
//
// A process cannot ask which place its socket has. So it tries: it has everything sent to place 0, 1, 2 … and connects to
// itself each time, until the connection arrives in its own queue. Meanwhile all others get connections that they
// accept, as ever, so nobody notices.

// Bounds of sharing.
const (
	placesMax     = 16                     // places of a group that are tried
	roundsMax     = 3                      // times that all of them are, since a busy machine may be late
	connectWait   = 300 * time.Millisecond // for a connection to ourselves
	arrivalWait   = 150 * time.Millisecond // for it to be accepted by us; later, it is taken to have gone elsewhere
	confirmations = 2                      // more connections that have to arrive, since a hash may have chosen by chance
	looksMax      = 8                      // connections that tell whether any still come to us

	settlePoll  = 20 * time.Millisecond
	settleQuiet = 1500 * time.Millisecond // without a connection: longer than the kernel waits to repeat a lost SYN-ACK
	settleMax   = 15 * time.Second        // then the port closes although connections came all the time
	resteerWait = 500 * time.Millisecond  // connections that come so long after steering were not steered
)

// ErrNotSteered says that the kernel goes on choosing among the processes that share the port.
var ErrNotSteered = errors.New("no connection to ourselves arrived where it was sent")

var noContext = context.Background()

// arrival is a connection to ourselves that is on its way.
type arrival struct {
	from netip.AddrPort
	seen chan struct{}
}

// Expected tells whether a connection that was just accepted is one of our own by which the socket finds its place among
// those that share the port. It is to be closed and forgotten. It costs a load while none is under way.
func (s *Socket) Expected(remote netip.AddrPort) bool {
	a := s.expected.Load()
	if a == nil || a.from != netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()) {
		return false
	}
	if s.expected.CompareAndSwap(a, nil) {
		close(a.seen)
	}
	return true
}

// Claim has every new connection of the port come to this socket. The socket has to be accepting. Without Share it does
// nothing. An error says that the port works, but is still shared.
func (s *Socket) Claim(ctx context.Context) error {
	if !s.shared || s.datagram { // datagrams are shared by a hash, until one of the two is deaf
		return nil
	}
	for range roundsMax {
		for place := range uint32(placesMax) {
			if err := s.steer(place); err != nil {
				return fmt.Errorf("steer %s: %w", s, err)
			}
			mine, err := s.comesHere(ctx)
			for n := 0; n < confirmations && mine && err == nil; n++ {
				mine, err = s.comesHere(ctx)
			}
			if err != nil && err != syscall.ETIMEDOUT { // a socket that turns newcomers away, in its last moments, is not ours
				return fmt.Errorf("steer %s: %w", s, err)
			}
			if mine {
				return nil
			}
		}
	}
	return fmt.Errorf("steer %s: %w", s, ErrNotSteered)
}

// Yield sees to it that others get the port's new connections. False: nobody else has the port. The socket has to go on
// accepting.
func (s *Socket) Yield(ctx context.Context) bool {
	if !s.shared || s.kept.Load() || s.datagram {
		return false
	}
	return !s.stillComes(ctx) || s.yield(ctx, 0) < placesMax
}

// StepAside gets the socket ready to be closed: it Yields, and returns when the queue has been empty for settleQuiet. The
// socket has to go on accepting meanwhile; accepted is how many connections it has taken so far. False: nobody else has
// the port, or connections came to the last.
func (s *Socket) StepAside(ctx context.Context, accepted func() uint64) bool {
	if !s.Yield(ctx) {
		return false
	}
	began := time.Now()
	last, seen, steered, place := began, accepted(), began, uint32(0)
	for now := began; now.Sub(last) < settleQuiet; now = time.Now() {
		if now.Sub(began) > settleMax || ctx.Err() != nil {
			return false
		}
		time.Sleep(settlePoll)
		if n := accepted(); n != seen || s.queued() {
			seen, last = n, time.Now()
			if last.Sub(steered) > resteerWait { // to one that steps aside, too, maybe
				if place = s.yield(ctx, (place+1)%placesMax); place == placesMax {
					return false
				}
				steered = time.Now()
			}
		}
	}
	return true
}

// queued tells whether connections wait to be accepted.
func (s *Socket) queued() bool {
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.Unacked > 0 // of a listening socket: the length of its queue
}

// stillComes tells whether a connection that begins now may come to this socket.
func (s *Socket) stillComes(ctx context.Context) bool {
	for range looksMax {
		if mine, err := s.comesHere(ctx); mine || err != nil {
			return true
		}
	}
	return false
}

// yield has new connections go to another socket: the first that is not this one, from a place on, in a circle. It
// answers that place, or placesMax if there is none.
func (s *Socket) yield(ctx context.Context, from uint32) uint32 {
	for n := range uint32(placesMax) {
		place := (from + n) % placesMax
		if s.steer(place) != nil {
			break
		}
		mine, err := s.comesHere(ctx)
		for n := 0; n < confirmations && !mine && err == nil; n++ {
			mine, err = s.comesHere(ctx)
		}
		if err == nil && !mine {
			return place
		}
	}
	return placesMax
}

// steer has the kernel choose the socket at a place of the group.
func (s *Socket) steer(place uint32) error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: place}}
	return unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// comesHere connects to the port and tells whether the connection comes to this socket. One call at a time.
func (s *Socket) comesHere(ctx context.Context) (bool, error) {
	var err error
	for _, to := range s.ourselves() {
		var mine bool
		if mine, err = s.connect(ctx, to); err == nil || err == syscall.ETIMEDOUT {
			return mine, err
		}
	}
	return false, err
}

// ourselves are the addresses at which the socket can be reached from here.
func (s *Socket) ourselves() []netip.AddrPort {
	at := s.Addr()
	port := at.Port()
	v4 := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	switch {
	case !at.Addr().IsUnspecified():
		return []netip.AddrPort{netip.AddrPortFrom(at.Addr().Unmap(), port)}
	case at.Addr().Is4():
		return []netip.AddrPort{v4}
	}
	return []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Loopback(), port), v4}
}

func (s *Socket) connect(ctx context.Context, to netip.AddrPort) (bool, error) {
	family, own, target := unix.AF_INET6, sockaddr(to.Addr(), 0), sockaddr(to.Addr(), to.Port())
	switch {
	case to.Addr().Zone() != "":
		return false, errors.New("an address with a zone cannot be tried")
	case to.Addr().Is4():
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	// Its own end is known before it connects: it may be accepted before connect returns.
	if err := unix.Bind(fd, own); err != nil {
		return false, err
	}
	from, err := localAddr(fd)
	if err != nil {
		return false, err
	}
	a := &arrival{from: from, seen: make(chan struct{})}
	s.expected.Store(a)
	defer s.expected.CompareAndSwap(a, nil)
	if err := unix.Connect(fd, target); err != nil && err != unix.EINPROGRESS {
		return false, err
	}
	if err := connected(fd); err != nil {
		return false, err
	}
	timer := time.NewTimer(arrivalWait)
	defer timer.Stop()
	select {
	case <-a.seen:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: int(port), Addr: a.As16()}
}

// connected waits until a connection is made.
func connected(fd int) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for deadline := time.Now().Add(connectWait); ; {
		n, err := unix.Poll(poll, max(0, int(time.Until(deadline)/time.Millisecond)))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return syscall.ETIMEDOUT
		}
		e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && e != 0 {
			err = syscall.Errno(e)
		}
		return err
	}
}

func localAddr(fd int) (netip.AddrPort, error) {
	name, err := unix.Getsockname(fd)
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), err
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), err
	}
	return netip.AddrPort{}, err
}
