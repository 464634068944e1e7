package fastpath

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/ebpf"
)

// TestSockmapWakesNobody: epoll does not watch for the input of a joined socket, which would wake the loop at each segment
// for nothing. It does again for a direction that came back, and that one is told of without an event of its socket's.
func TestSockmapWakesNobody(t *testing.T) {
	const queued = 64 << 10
	m := kernelSockmap(t, ebpf.Options{Queued: queued})
	l := startLoop(t)
	fdA, a := tcpPair(t)
	fdB, b := tcpPair(t)
	var tunnel *Tunnel
	on(t, l, func() {
		l.UseSockmap(m, SockmapOn)
		tunnel = Join(mustAdopt(t, l, fdA, &hooks{}), mustAdopt(t, l, fdB, &hooks{}), time.Hour, time.Hour, &hooks{})
	})
	onEventually(t, l, "a hand-over", func() bool { return tunnel.kernel != nil })
	for _, fd := range []int{fdA, fdB} {
		if ev := watched(t, l, int32(fd)); ev&unix.EPOLLIN != 0 || ev&unix.EPOLLRDHUP == 0 {
			t.Errorf("of a joined socket epoll watches for %#x", ev)
		}
	}
	echoWay(t, a, b)
	echoWay(t, b, a)
	all := payload(0, 8<<20)
	sent := make(chan error, 1)
	go func() { _, err := a.Write(all); sent <- err }() // nobody reads: the limiter gives the direction back
	onEventually(t, l, "a release", func() bool { return !tunnel.ab.held })
	if ev := watched(t, l, int32(fdA)); ev&unix.EPOLLIN == 0 {
		t.Errorf("of a socket that came back epoll watches for %#x", ev)
	}
	if ev := watched(t, l, int32(fdB)); ev&unix.EPOLLIN != 0 {
		t.Errorf("of the other, still joined, epoll watches for %#x", ev)
	}
	got := make([]byte, len(all))
	if _, err := io.ReadFull(b, got); err != nil {
		t.Fatal(err)
	}
	same(t, "what was sent to a reader that came late", got, all)
	if err := receive(t, "all written", sent); err != nil {
		t.Error(err)
	}
}

// watched are the events that a loop's epoll waits for, by descriptor, as the kernel tells.
func watched(t *testing.T, l *Loop, fd int32) uint32 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprint("/proc/self/fdinfo/", l.ep))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var tfd int32
		var events uint32
		if n, _ := fmt.Sscanf(line, "tfd: %d events: %x", &tfd, &events); n == 2 && tfd == fd {
			return events
		}
	}
	t.Fatalf("descriptor %d is not watched:\n%s", fd, text)
	return 0
}
