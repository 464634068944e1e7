package sni

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	loop, cluster := udpEcho(t)
	for _, responses := range []int{1, 1 << 20} {
		t.Run(fmt.Sprint(responses), func(t *testing.T) {
			service := udpService(cluster, responses)
			u := udpDoor(t, loop, "127.0.0.1:0", func() *route.BoundService { return service })
			client := udpClient(t, u)
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

// TestUDPClosesAfterItsQueue: the last session may end while datagrams still stand in the queue of a port that closes. Those who
// sent them are answered.
func TestUDPClosesAfterItsQueue(t *testing.T) {
	loop, cluster := udpEcho(t)
	services := []*route.BoundService{udpService(cluster, 0), udpService(cluster, 1)} // whose sessions end at once; whose wait
	u := udpDoor(t, loop, "127.0.0.1:0", func() (s *route.BoundService) {
		s = services[0]
		services = services[len(services)-1:]
		return s
	})
	first, last := udpClient(t, u), udpClient(t, u)
	u.onLoop(func() {
		for range 16 { // a batch
			_, _ = first.Write([]byte("one way"))
		}
		_, _ = last.Write([]byte("question"))
		u.stopReading()
	})
	b := make([]byte, 2048)
	if n, err := last.Read(b); err != nil || string(b[:n]) != "question" {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// TestUDPCircle: what says that it comes from where it goes to has no session, as the answer would be the next question.
func TestUDPCircle(t *testing.T) {
	loop, cluster := udpEcho(t)
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		service := udpService(cluster, 1)
		u := udpDoor(t, loop, address, func() *route.BoundService { return service })
		for _, host := range []string{"127.0.0.1", "::1"} {
			to := netip.AddrPortFrom(netip.MustParseAddr(host), u.Socket().Addr().Port())
			var sockaddr unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
			if host == "127.0.0.1" && address != "[::]:0" {
				sockaddr = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
			}
			u.onLoop(func() {
				if unix.Sendto(u.Socket().FD(), []byte("circle"), 0, sockaddr) != nil {
					return // the other family's, or there is no IPv6
				}
				for u.take(loop.Datagrams()) {
				}
				if u.Accepted() == 0 || service.Stats.Begun.Load() != 0 {
					t.Errorf("%s to itself at %v: %d datagrams, %d sessions", address, to, u.Accepted(), service.Stats.Begun.Load())
				}
			})
		}
		u.EndTunnels()
	}
}

// udpEcho is a loop, and a cluster whose endpoint answers each datagram with the same one.
func udpEcho(t *testing.T) (*fastpath.Loop, *upstream.Cluster) {
	t.Helper()
	backend, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = backend.Close() })
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
	t.Cleanup(func() { loop.Stop(); <-done })
	cluster := upstream.NewCluster("test", &upstream.Env{Loops: []*fastpath.Loop{loop}}, upstream.Settings{AllowLoopback: true})
	t.Cleanup(cluster.Close)
	cluster.Apply([]upstream.Address{{Addr: backend.LocalAddr().(*net.UDPAddr).AddrPort()}})
	return loop, cluster
}

func udpService(c *upstream.Cluster, responses int) *route.BoundService {
	return &route.BoundService{Upstream: c, Stats: new(route.ServiceStats), Service: &route.Service{Protocol: route.UDP,
		Idle: time.Minute, Responses: responses, SessionsMax: 100}}
}

// udpDoor opens a door to what service says.
func udpDoor(t *testing.T, loop *fastpath.Loop, address string, service func() *route.BoundService) *UDP {
	t.Helper()
	u := NewUDP(UDPConfig{Loop: loop, Loops: []*fastpath.Loop{loop}, HTTP: l7.NewServer(route.NewStore(), nil, l7.NewStats(1)),
		Service: service, Limits: func() *Limits { return defaultLimits }})
	if err := u.Listen(listen.Options{Name: "udp", Address: address}); err != nil {
		t.Fatal(err)
	}
	return u
}

// udpClient is a socket that is connected to the door.
func udpClient(t *testing.T, u *UDP) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(u.Socket().Addr().Port())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}
