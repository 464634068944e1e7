package sni

import (
	"net"
	"slices"
	"sync"
	"testing"

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
