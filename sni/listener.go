package sni

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/cloudwego/netpoll"
	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/fastpath"
)

// listener is the netpoll.Listener of a door. netpoll's poller calls Accept when the port has connections; Accept takes
// them all, stays for those that follow at once (Acceptor), gives each to a loop, and answers (nil, nil), so that netpoll never reads a connection of ours
// (docs/decisions/0001-own-reactor-netpoll-accepts.md).
type listener struct {
	door   *Door
	file   *os.File
	fd     int // file's descriptor; asking file again would make it blocking
	inner  net.Listener
	addr   netip.AddrPort
	events netpoll.EventLoop
}

// acceptBatch is how many connections one call takes, so that several doors share the poller fairly.
const acceptBatch = 64

// acceptPause is how long a door without descriptors waits before it tries again.
const acceptPause = 50 * time.Millisecond

func listen(d *Door, address string) (*listener, error) {
	inner, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	file, err := inner.(*net.TCPListener).File() // a duplicate; both are closed by Close
	if err != nil {
		_ = inner.Close()
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	fd := int(file.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil { // Fd made the duplicate blocking
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	fastpath.NoDelay(fd)
	ln := &listener{door: d, file: file, fd: fd, inner: inner, addr: inner.Addr().(*net.TCPAddr).AddrPort()}
	if ln.events, err = netpoll.NewEventLoop(nil); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	d.Acceptor.add(ln)
	return ln, nil
}

// serve starts accepting.
func (ln *listener) serve() {
	go func() {
		if err := ln.events.Serve(ln); err != nil {
			slog.Error("a listener stopped: restart the process", "address", ln.addr, "error", err)
		}
	}()
}

// Accept implements netpoll.Listener, on netpoll's poller.
func (ln *listener) Accept() (net.Conn, error) {
	ln.take()
	ln.door.Acceptor.stay()
	return nil, nil
}

// take gives a batch of the port's queue to the loops; false: the queue is empty, or nothing can be taken at the moment.
func (ln *listener) take() bool {
	room, excess := ln.door.room()
	if excess > 0 {
		ln.door.shed(min(excess, acceptBatch))
	}
	if room <= 0 {
		ln.door.Stats.Full.Add(1)
		time.Sleep(acceptPause)
		return false
	}
	for range room {
		fd, remote, errno := fastpath.Accept(ln.fd)
		switch errno {
		case 0:
			ln.door.place(fd, remote)
		case syscall.EAGAIN:
			return false
		case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			ln.door.Stats.NoDescriptor.Add(1)
			time.Sleep(acceptPause) // only accepting waits; connections that are open go on
			return false
		default: // the connection died in the queue, or a signal came
		}
	}
	return true
}

// Fd implements netpoll.Listener.
func (ln *listener) Fd() int { return ln.fd }

// Addr implements net.Listener.
func (ln *listener) Addr() net.Addr { return ln.inner.Addr() }

// Close implements net.Listener.
func (ln *listener) Close() error {
	_ = ln.file.Close()
	return ln.inner.Close()
}

// turnAway has the kernel drop connections that have yet to begin. Those that are half-way arrive, and can be taken:
// what stands in the queue of a port that closes is reset, although its client may have sent a request already. Who is
// dropped tries again by itself, a second later, and finds the port closed.
func (ln *listener) turnAway() error {
	program := unix.SockFprog{Len: uint16(len(beginnings)), Filter: &beginnings[0]}
	return unix.SetsockoptSockFprog(ln.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program)
}

// beginnings is a socket filter that drops a segment with SYN and without ACK, and lets all others in.
var beginnings = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13}, // the TCP header's flags
	{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: 0x02},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
}

// stop takes what is still in the queue and closes the port.
func (ln *listener) stop(ctx context.Context) error {
	ln.door.Acceptor.remove(ln)
	for ln.take() && ctx.Err() == nil {
	}
	return ln.events.Shutdown(ctx)
}
