package sni

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// passBackend is an endpoint that takes connections and keeps them.
type passBackend struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func newPassBackend(t testing.TB) *passBackend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &passBackend{Listener: ln}
	t.Cleanup(func() {
		_ = ln.Close()
		b.closeAll()
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns = append(b.conns, c)
			b.mu.Unlock()
		}
	}()
	return b
}

func (b *passBackend) open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conns)
}

func (b *passBackend) closeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		_ = c.Close()
	}
	b.conns = nil
}

// TestTunnelsCountForBalancing: least connections sees pass-through tunnels, and sees them end.
func TestTunnelsCountForBalancing(t *testing.T) {
	h := open(t, true, func(*Limits) {})
	a, b := newPassBackend(t), newPassBackend(t)
	address := func(b *passBackend) upstream.Address {
		return upstream.Address{Addr: b.Addr().(*net.TCPAddr).AddrPort()}
	}
	h.serve(&route.Config{
		Hosts: []*route.VirtualHost{{Name: "shop.example.com", Passthrough: "shop"}},
		Clusters: []*route.Cluster{{ID: "shop", Endpoints: []upstream.Address{address(a), address(b)},
			Settings: upstream.Settings{Algorithm: upstream.LeastConnections, AllowLoopback: true}}},
	})
	hello := string(shopHello11(t))
	pass := func(n int64) {
		t.Helper()
		for range 4 {
			h.dial("127.0.0.1").send(hello)
			n++
			h.eventually("the tunnel", func() bool { return h.door.Stats.Tunnels.Load() == n })
		}
	}
	counts := func(want ...int) {
		t.Helper()
		h.eventually("the backends' connections", func() bool { return slices.Equal([]int{a.open(), b.open()}, want) })
	}
	pass(0)
	counts(2, 2)
	a.closeAll()
	h.eventually("the tunnels to one end", func() bool { return h.door.Stats.Tunnels.Load() == 2 })
	pass(2)
	counts(3, 3) // all but one to the one that lost its own
}

// TestPassagesAreUsedAgain: connections that follow each other share the values that lead them, and what is kept of one
// that is over holds nothing of it.
func TestPassagesAreUsedAgain(t *testing.T) {
	h := open(t, true, func(*Limits) {})
	b := newPassBackend(t)
	h.serve(&route.Config{
		Hosts: []*route.VirtualHost{{Name: "shop.example.com", Passthrough: "shop"}},
		Clusters: []*route.Cluster{{ID: "shop", Endpoints: []upstream.Address{{Addr: b.Addr().(*net.TCPAddr).AddrPort()}},
			Settings: upstream.Settings{AllowLoopback: true}}},
	})
	hello := string(shopHello11(t))
	kept := func() (arrivals, passages int) {
		for _, l := range h.door.Loops {
			done := make(chan struct{})
			l.Post(func() {
				defer close(done)
				s := sparesOf(l)
				arrivals, passages = arrivals+len(s.arrivals), passages+len(s.passages)
				for _, a := range s.arrivals {
					if *a != (arrival{}) {
						t.Errorf("an arrival is kept with %+v", *a)
					}
				}
				for _, p := range s.passages {
					if *p != (passage{}) {
						t.Errorf("a passage is kept with %+v", *p)
					}
				}
			})
			<-done
		}
		return arrivals, passages
	}
	const rounds = 12
	for range rounds {
		h.dial("127.0.0.1").send(hello)
		h.eventually("the tunnel", func() bool { return h.door.Stats.Tunnels.Load() == 1 })
		h.eventually("the backend's connection", func() bool { return b.open() == 1 })
		b.closeAll()
		h.eventually("its end", func() bool { return h.door.Stats.Tunnels.Load() == 0 })
		h.eventually("all connections' end", func() bool { return h.open() == 0 })
	}
	loops := len(h.door.Loops)
	if a, p := kept(); a == 0 || p == 0 || a > loops || p > loops {
		t.Errorf("%d connections, one after the other, on %d loops left %d arrivals and %d passages", rounds, loops, a, p)
	}
}

// TestRemovedEndpointsAreLeft: a connection whose backend is being dialled goes elsewhere when that is removed, and that is no
// try. One that is there already stays; whose client has left goes nowhere.
func TestRemovedEndpointsAreLeft(t *testing.T) {
	h := open(t, true, func(*Limits) {})
	b := newPassBackend(t)
	serve := func(addr netip.AddrPort) {
		t.Helper()
		h.serve(&route.Config{ // the PROXY header has to wait until the backend is connected
			Hosts: []*route.VirtualHost{{Name: "shop.example.com", Passthrough: "shop", PassthroughProxy: 1}},
			Clusters: []*route.Cluster{{ID: "shop", Endpoints: []upstream.Address{{Addr: addr}},
				Settings: upstream.Settings{AllowLoopback: true}}},
		})
		for _, l := range h.door.Loops { // what was posted is done
			done := make(chan struct{})
			l.Post(func() { close(done) })
			<-done
		}
	}
	dials := func(n int64) {
		h.eventually("the client's and the backend's connections", func() bool { return h.open() == n })
	}
	hello := string(shopHello11(t))
	serve(silent(t))
	leaves := h.dial("127.0.0.1")
	leaves.send(hello)
	dials(2)
	_ = leaves.Conn.(*net.TCPConn).SetLinger(0)
	_ = leaves.Close()
	dials(0)

	began := time.Now()
	h.dial("127.0.0.1").send(hello)
	dials(2)
	for range passTries + 1 {
		serve(silent(t))
	}
	serve(b.Addr().(*net.TCPAddr).AddrPort())
	h.eventually("the tunnel", func() bool { return h.door.Stats.Tunnels.Load() == 1 && b.open() == 1 })
	if d := time.Since(began); d > passConnectTimeout/2 || h.door.Stats.PassErrors.Load() != 0 {
		t.Errorf("after %v and %d errors, want none and no wait", d, h.door.Stats.PassErrors.Load())
	}
	serve(silent(t))
	if n := h.open(); n != 2 || h.door.Stats.Tunnels.Load() != 1 {
		t.Errorf("%d connections and %d tunnels, want those of one tunnel", n, h.door.Stats.Tunnels.Load())
	}
	b.closeAll()
	h.eventually("its end", func() bool { return h.door.Stats.Tunnels.Load() == 0 })
}

// silent is an address that answers no dial: its listener's queue is full.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	socket := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	fd := socket()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		_ = unix.Connect(socket(), sa) // under way, made or not
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
}
