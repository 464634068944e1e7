package sni

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/cloudwego/netpoll"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/listen"
)

// listener is the netpoll.Listener of a door. netpoll's poller calls Accept when the port has connections; Accept takes
// them all, stays for those that follow at once (Acceptor), gives each to a loop, and answers (nil, nil), so that netpoll never reads a connection of ours
// (docs/decisions/0001-own-reactor-netpoll-accepts.md).
type listener struct {
	door   *Door
	socket *listen.Socket
	fd     int
	addr   netip.AddrPort
	events netpoll.EventLoop
}

// acceptBatch is how many connections one call takes, so that several doors share the poller fairly.
const acceptBatch = 64

// acceptPause is how long a door without descriptors waits before it tries again.
const acceptPause = 50 * time.Millisecond

func openListener(d *Door, o listen.Options) (*listener, error) {
	socket, err := listen.Open(o)
	if err != nil {
		return nil, err
	}
	ln := &listener{door: d, socket: socket, fd: socket.FD(), addr: socket.Addr()}
	fastpath.NoDelay(ln.fd)
	if ln.events, err = netpoll.NewEventLoop(nil); err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf("listen on %s: %w", o.Address, err)
	}
	return ln, nil
}

// serve starts accepting.
func (ln *listener) serve() {
	ln.door.Acceptor.add(ln) // the door is whole now: who stays for another one's connections takes its own, too
	go func() {
		if err := ln.events.Serve(ln); err != nil {
			slog.Error("a listener stopped: restart the process", "address", ln.addr, "error", err)
		}
	}()
}

// Accept implements netpoll.Listener, on netpoll's poller.
func (ln *listener) Accept() (net.Conn, error) {
	ln.take(acceptBatch)
	ln.door.Acceptor.stay()
	return nil, nil
}

// take gives at most so many connections of the port's queue to the loops; false: the queue is empty, or nothing can be taken at
// the moment.
func (ln *listener) take(most int64) bool {
	room, excess := ln.door.room()
	if excess > 0 {
		ln.door.shed(min(excess, acceptBatch))
	}
	if room <= 0 {
		ln.door.Stats.Full.Add(1)
		time.Sleep(acceptPause)
		return false
	}
	for range min(room, most) {
		fd, remote, errno := fastpath.Accept(ln.fd)
		switch errno {
		case 0:
			if ln.socket.Expected(remote) {
				_ = syscall.Close(fd)
				continue
			}
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
func (ln *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(ln.addr) }

// Close implements net.Listener.
func (ln *listener) Close() error { return ln.socket.Close() }

// stop takes what is still in the queue and closes the port.
func (ln *listener) stop(ctx context.Context) error {
	ln.door.Acceptor.remove(ln)
	for ln.take(acceptBatch) && ctx.Err() == nil {
	}
	ln.door.nudge()
	return ln.events.Shutdown(ctx)
}
