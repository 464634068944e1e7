// Package listen opens the process's listening sockets in such a way that a port can change hands without a client's
// notice. There are two ways, and both lose no connection:
//
//   - Two processes share the port (SO_REUSEPORT), each with a socket and a queue of its own. The new one Claims the
//     port: from then on the kernel gives it every new connection. The old one StepsAside: it goes on accepting until
//     nothing comes any more, and closes then (share.go).
//   - A process starts its Successor and passes it the very sockets, by descriptor (succeed.go).
//
// It accepts nothing itself: who accepts asks Expected about every connection.
package listen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what is to be opened.
type Options struct {
	Name    string       // under which the socket is passed on to a successor
	Address string       // HOST:PORT, or unix:///PATH; without HOST all addresses of both families, with 0.0.0.0 those of IPv4
	Share   bool         // other processes of the same user may listen on the same port (TCP only)
	Legacy  *Inheritance // what a predecessor left; nil: nothing

	Datagrams bool // UDP
}

// Socket is one listening socket. Open makes it, Close ends it; all methods may be called from any goroutine.
type Socket struct {
	Name string

	fd       int // of our own: Go's poller, which would wake a thread for each connection or datagram, does not know it
	at       netip.AddrPort
	path     string // in the file system, in place of at
	datagram bool
	shared   bool
	server   net.Listener // what Listener made; nil: nothing
	closed   atomic.Bool
	kept     atomic.Bool // another process has this very socket, too: its state is not ours alone
	expected atomic.Pointer[arrival]
}

// unixScheme begins the address of a socket in the file system.
const unixScheme = "unix://"

// UnixPath tells the path of a socket in the file system from HOST:PORT.
func UnixPath(address string) (path string, ok bool) { return strings.CutPrefix(address, unixScheme) }

// Open binds an address, or takes what a predecessor left under the name.
func Open(o Options) (*Socket, error) {
	if o.Datagrams {
		return openDatagrams(o)
	}
	ln, err := o.open()
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Address, err)
	}
	defer ln.Close()
	s := &Socket{Name: o.Name, path: ln.Addr().String()}
	if a, ok := ln.Addr().(*net.TCPAddr); ok {
		s.at = a.AddrPort()
	}
	if s.fd, err = own(ln.(syscall.Conn)); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Address, err)
	}
	s.shared = s.at.IsValid() && sharesPort(s.fd)
	return s, nil
}

// open makes the listener, whose socket lives on in a duplicate.
func (o *Options) open() (ln net.Listener, err error) {
	if file := o.Legacy.take(o.Name); file != nil {
		defer file.Close()
		ln, err = net.FileListener(file)
	} else {
		ln, err = bind(*o)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path may be a successor's by then
	}
	return ln, err
}

// own duplicates the descriptor of a socket.
func own(of syscall.Conn) (fd int, err error) {
	raw, err := of.SyscallConn()
	if err != nil {
		return -1, err
	}
	if e := raw.Control(func(known uintptr) { fd, err = unix.FcntlInt(known, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return -1, e
	}
	return fd, err
}

// errBindable ends Check's opening of a socket before it listens.
var errBindable = errors.New("the address can be bound")

// Check tells why Open would not get an address, without listening there: of those who share a port a socket that listens gets
// connections. Whether another user's process has it only binding tells.
func Check(o Options) error {
	if _, ok := UnixPath(o.Address); ok || o.Legacy.Has(o.Name) {
		return nil
	}
	c := net.ListenConfig{Control: func(network, address string, raw syscall.RawConn) error {
		if o.Share {
			if err := sharePort(network, address, raw); err != nil {
				return err
			}
		}
		return tryBind(network, address, raw)
	}}
	c.SetMultipathTCP(false)
	ln, err := c.Listen(noContext, "tcp"+family(o.Address), o.Address)
	switch {
	case errors.Is(err, errBindable):
		return nil
	case err == nil:
		return ln.Close()
	}
	return fmt.Errorf("listen on %s: %w", o.Address, err)
}

// tryBind binds a socket that is not to be used.
func tryBind(network, address string, raw syscall.RawConn) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "" {
		host = map[string]string{"tcp4": "0.0.0.0"}[network]
	}
	at, err := netip.ParseAddrPort(net.JoinHostPort(cmp.Or(host, "::"), port))
	if err != nil {
		return err
	}
	if at.Addr().Zone() != "" {
		return errBindable // not known: its scope has no number here
	}
	if e := raw.Control(func(fd uintptr) {
		if err = unix.Bind(int(fd), sockaddr(at.Addr(), at.Port())); err == nil {
			err = errBindable
		}
	}); e != nil {
		return e
	}
	return err
}

func bind(o Options) (net.Listener, error) {
	if path, ok := UnixPath(o.Address); ok {
		return bindUnix(path)
	}
	var c net.ListenConfig
	c.SetMultipathTCP(false) // Go's default; its sockets take neither the filter of TurnAway nor the program of Claim
	if o.Share {
		c.Control = sharePort
	}
	return c.Listen(noContext, "tcp"+family(o.Address), o.Address)
}

// family is "4" for all addresses of IPv4: net would listen on IPv6's, too.
func family(address string) string {
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr() == netip.IPv4Unspecified() {
		return "4"
	}
	return ""
}

func sharePort(_, _ string, raw syscall.RawConn) (err error) {
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); e != nil {
		return e
	}
	return err
}

// bindUnix makes a socket that only its owner may use. A path that a process left which is no more is taken over.
func bindUnix(path string) (net.Listener, error) {
	ln, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(path) {
		if err = os.Remove(path); err == nil {
			ln, err = net.Listen("unix", path)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// abandoned tells whether nobody listens at a path that is a socket.
func abandoned(path string) bool {
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSocket == 0 {
		return false
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// sharesPort tells whether a socket was opened with Share.
func sharesPort(fd int) bool {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	return err == nil && v == 1
}

// FD is the descriptor that accepts. It is non-blocking, and valid until Close.
func (s *Socket) FD() int { return s.fd }

// Addr is where the socket listens; invalid for a path.
func (s *Socket) Addr() netip.AddrPort { return s.at }

// String is the address as a log shows it, and as HTTP clients take it.
func (s *Socket) String() string {
	if s.at.IsValid() {
		return s.at.String()
	}
	return unixScheme + s.path
}

// Close ends listening. What a shared socket's queue holds is reset: StepAside first.
func (s *Socket) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return net.ErrClosed
	}
	err := unix.Close(s.fd)
	if s.server != nil {
		return cmp.Or(err, s.server.Close())
	}
	return err
}

// Listener is for servers that accept by themselves: it hides the connections that Expected is asked about. To be called once.
func (s *Socket) Listener() (net.Listener, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), s.String())
	defer file.Close()
	s.server, err = net.FileListener(file)
	return listener{s.server, s}, err
}

type listener struct {
	net.Listener
	socket *Socket
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); !ok || !l.socket.Expected(a.AddrPort()) {
			return c, nil
		}
		_ = c.Close()
	}
}

// TurnAway has the kernel drop connections that have yet to begin. Those that are half-way arrive, and can be taken:
// what stands in the queue of a port that closes is reset, although its client may have sent a request already. Who is
// dropped tries again by itself, a second later. A socket that a successor has, too, is left alone.
func (s *Socket) TurnAway() error {
	if s.kept.Load() {
		return nil
	}
	if s.datagram {
		return s.deafen()
	}
	program := unix.SockFprog{Len: uint16(len(beginnings)), Filter: &beginnings[0]}
	return unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
}

// Bounds of Emptied.
const (
	halfwayWait = 100 * time.Millisecond // who is connecting has so long to arrive
	emptyMax    = 3 * time.Second        // who has arrived has so long to be accepted; on a starved machine that takes a while
)

// Emptied waits, after TurnAway, until those that were half-way have been accepted, so that Close resets nobody. The
// sockets have to go on accepting. False: ctx ended before.
func Emptied(ctx context.Context, sockets ...*Socket) bool {
	wait := time.NewTimer(halfwayWait)
	defer wait.Stop()
	for began := time.Now(); ; wait.Reset(settlePoll) {
		select {
		case <-ctx.Done():
			return false
		case <-wait.C:
		}
		if !slices.ContainsFunc(sockets, (*Socket).queued) || time.Since(began) > emptyMax {
			return true
		}
	}
}

// beginnings is a socket filter that drops a segment with SYN and without ACK, and lets all others in.
var beginnings = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13}, // the TCP header's flags
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: 0x02},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}
