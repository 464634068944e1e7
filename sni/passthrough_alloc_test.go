package sni

import (
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// passAllocsMax is how many values one passed-through connection may allocate on average, from accept to its end, with what
// netpoll and the runtime allocate meanwhile. One of the values that are kept, made anew each time, would be over it.
const passAllocsMax = 2.5

// TestPassThroughAllocations: what leads a passed-through connection is used again, so that the next one allocates next to
// nothing (docs/decisions/0090-passages-are-used-again.md). Both peers are raw descriptors: they allocate nothing.
func TestPassThroughAllocations(t *testing.T) {
	if underRace() {
		t.Skip("the race detector allocates")
	}
	h := open(t, true, func(*Limits) {})
	ln, at := rawListener(t)
	h.serve(&route.Config{
		Hosts: []*route.VirtualHost{{Name: "shop.example.com", Passthrough: "shop"}},
		Clusters: []*route.Cluster{{ID: "shop", Endpoints: []upstream.Address{{Addr: at}},
			Settings: upstream.Settings{AllowLoopback: true}}},
	})
	door := netip.MustParseAddrPort(h.address)
	to := &unix.SockaddrInet4{Port: int(door.Port()), Addr: door.Addr().As4()}
	hello, got := shopHello11(t), make([]byte, 4<<10)
	pass := func() {
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(client, to)
		}
		if err == nil {
			_, err = unix.Write(client, hello)
		}
		if err != nil {
			t.Fatal(err)
		}
		backend, errno := -1, syscall.EAGAIN
		for end := time.Now().Add(patience); errno == syscall.EAGAIN && time.Now().Before(end); {
			time.Sleep(20 * time.Microsecond)
			backend, _, errno = fastpath.Accept(ln)
		}
		if errno != 0 {
			t.Fatal(errno)
		}
		_ = unix.Close(client)
		n := 0
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Microsecond) {
			k, err := unix.Read(backend, got[n:])
			if err == nil && k == 0 {
				break
			}
			n += max(k, 0)
		}
		if n != len(hello) {
			t.Fatalf("%d bytes of %d arrived", n, len(hello))
		}
		_ = unix.Close(backend)
		for end := time.Now().Add(patience); h.door.Census.Connections() != 0; time.Sleep(20 * time.Microsecond) {
			if time.Now().After(end) {
				t.Fatal("the connection stays")
			}
		}
	}
	for range 20 { // both loops
		pass()
	}
	// AllocsPerRun would leave one processor, which waiting loops hold
	const runs = 200
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		pass()
	}
	runtime.ReadMemStats(&after)
	if n := float64(after.Mallocs-before.Mallocs) / runs; n > passAllocsMax {
		t.Errorf("%.2f allocations a connection, at most %v are allowed", n, passAllocsMax)
	} else {
		t.Logf("%.2f allocations a connection", n)
	}
}

// rawListener is a backend that the test accepts from, without waiting.
func rawListener(t *testing.T) (int, netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { _ = unix.Close(fd) })
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
}
