package fastpath

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// benchLoop is startLoop without poison, which would be what is measured.
func benchLoop(b *testing.B) *Loop {
	l := startLoop(b)
	on(b, l, func() { l.poison = false })
	return l
}

func roundTrips(b *testing.B, peer net.Conn, size int) {
	question, answer := payload(0, size), make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	_ = peer.SetDeadline(time.Time{})
	for b.Loop() {
		if _, err := peer.Write(question); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(peer, answer); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEcho is a question and its answer over loopback, the peer's system calls and both wake-ups included.
func BenchmarkEcho(b *testing.B) {
	_, peer := adopt(b, benchLoop(b), &echo{})
	roundTrips(b, peer, 200)
}

// BenchmarkEchoStepped is what the loop itself costs: epoll_wait, recv, send, in one thread with the peer's two calls.
func BenchmarkEchoStepped(b *testing.B) {
	l := steppedLoop(b)
	l.poison = false
	fd, peer := tcpPair(b)
	raw := rawPeer(b, peer)
	mustAdopt(b, l, fd, &echo{})
	buf := payload(0, 200)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = send(raw, buf, 0)
		for n := 0; n < len(buf); {
			l.round(0)
			if k, e := recv(raw, buf, 0); e == 0 {
				n += k
			}
		}
	}
}

func BenchmarkEchoTLS(b *testing.B) {
	l := benchLoop(b)
	_, peer := secured(b, l, side{true, tls.VersionTLS13}, &echo{}, 0)
	roundTrips(b, peer, 200)
}

func BenchmarkEchoTLSLarge(b *testing.B) {
	l := benchLoop(b)
	_, peer := secured(b, l, side{true, tls.VersionTLS13}, &echo{}, 0)
	roundTrips(b, peer, 32<<10)
}

func BenchmarkSetDeadlineLater(b *testing.B) {
	k := newClock()
	c := k.conn(tick)
	b.ReportAllocs()
	for b.Loop() {
		c.SetDeadline(c.deadline + 1)
	}
}

func BenchmarkSetDeadlineEarlier(b *testing.B) {
	k := newClock()
	c := k.conn(tick)
	b.ReportAllocs()
	for b.Loop() {
		c.SetDeadline(k.l.now + 100*tick)
		c.SetDeadline(k.l.now + 10*tick)
		k.l.wheel.unlink(c)
	}
}

// BenchmarkPost is a function led to a loop that sleeps, and its answer.
func BenchmarkPost(b *testing.B) {
	l := benchLoop(b)
	done := make(chan struct{})
	f := func() { done <- struct{}{} }
	b.ReportAllocs()
	for b.Loop() {
		l.Post(f)
		<-done
	}
}

// BenchmarkPostBusy is the same for a loop that is awake.
func BenchmarkPostBusy(b *testing.B) {
	l := benchLoop(b)
	f := func() {}
	b.ReportAllocs()
	for b.Loop() {
		l.Post(f)
	}
	on(b, l, f)
}

func BenchmarkTicket(b *testing.B) {
	l := steppedLoop(b)
	p := &parked{}
	b.ReportAllocs()
	for b.Loop() {
		l.Park(p).Cancel()
	}
}

// BenchmarkTunnel is a megabyte from one peer to the other through the kernel.
func BenchmarkTunnel(b *testing.B) {
	j := join(b, benchLoop(b), time.Hour, time.Hour, 0)
	chunk := make([]byte, 1<<20)
	got := make([]byte, 1<<20)
	_ = j.a.SetDeadline(time.Time{})
	_ = j.b.SetDeadline(time.Time{})
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		go func() { _, _ = j.a.Write(chunk) }()
		if _, err := io.ReadFull(j.b, got); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandshake is a full TLS 1.3 handshake, both ends' work included.
func BenchmarkHandshake(b *testing.B) {
	l := benchLoop(b)
	w := NewWork(2)
	ours, theirs := serverConfig(tls.VersionTLS13), clientConfig(tls.VersionTLS13)
	b.ReportAllocs()
	for b.Loop() {
		fd, peer := tcpPair(b)
		startTLS(b, l, fd, &echo{}, ours, true, w)
		tc := tls.Client(peer, theirs)
		if err := tc.Handshake(); err != nil {
			b.Fatal(err)
		}
		tc.Close()
	}
}
