package sni

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// TestDatagramsAllocateNothing: in steady state neither a datagram of a session nor a session of one datagram costs memory.
func TestDatagramsAllocateNothing(t *testing.T) {
	if underRace() {
		t.Skip("the race detector allocates")
	}
	backend, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := backend.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = backend.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	loop, err := fastpath.NewLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { loop.Run(); close(done) }()
	defer func() { loop.Stop(); <-done }()
	loops := []*fastpath.Loop{loop}
	cluster := upstream.NewCluster("test", &upstream.Env{Loops: loops}, upstream.Settings{AllowLoopback: true})
	defer cluster.Close()
	cluster.Apply([]upstream.Address{{Addr: backend.LocalAddr().(*net.UDPAddr).AddrPort()}})
	for _, responses := range []int{1, 1 << 20} {
		t.Run(fmt.Sprint(responses), func(t *testing.T) {
			service := &route.BoundService{Upstream: cluster, Stats: new(route.ServiceStats), Service: &route.Service{Protocol: route.UDP,
				Idle: time.Minute, Responses: responses, SessionsMax: 100}}
			u := NewUDP(UDPConfig{Loop: loop, Loops: loops, HTTP: l7.NewServer(route.NewStore(), nil, l7.NewStats(1)),
				Service: func() *route.BoundService { return service }, Limits: func() *Limits { return defaultLimits }})
			if err := u.Listen(listen.Options{Name: "udp", Address: "127.0.0.1:0"}); err != nil {
				t.Fatal(err)
			}
			client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), u.Socket().Addr().Port())))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			text, b := []byte("question"), make([]byte, 2048)
			ask := func() {
				_ = client.SetDeadline(time.Now().Add(10 * time.Second))
				if _, err := client.Write(text); err != nil {
					t.Fatal(err)
				}
				if n, err := client.Read(b); err != nil || string(b[:n]) != "question" {
					t.Fatalf("%q, %v", b[:n], err)
				}
			}
			for range 200 {
				ask()
			}
			var before, after runtime.MemStats
			const asked = 2000
			runtime.ReadMemStats(&before)
			for range asked {
				ask()
			}
			runtime.ReadMemStats(&after)
			if n := after.Mallocs - before.Mallocs; n > asked/10 { // all of them: clients and the runtime included
				t.Errorf("%d allocations for %d datagrams there and back", n, asked)
			}
			u.EndTunnels()
		})
	}
}
