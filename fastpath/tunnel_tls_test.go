package fastpath

import (
	"crypto/tls"
	"io"
	"sync"
	"testing"
	"time"
)

// layer is how one side of a tunnel is reached: plainly, or through TLS with the loop as server or as client.
type layer struct {
	name string
	side *side
}

var layers = []layer{
	{"plain", nil},
	{"TLS server", &side{true, tls.VersionTLS13}},
	{"TLS client", &side{false, tls.VersionTLS12}},
}

// reached is our connection and the peer's end of it.
func (k layer) reached(t testing.TB, l *Loop, kernelBytes int) (*Conn, wire) {
	t.Helper()
	if k.side == nil {
		fd, peer := tcpPairBuffers(t, kernelBytes)
		return adoptFD(t, l, fd, &hooks{}), peer
	}
	return secured(t, l, *k.side, &hooks{}, kernelBytes)
}

// joinLayers makes a tunnel of two layers.
func joinLayers(t testing.TB, l *Loop, a, b layer, half time.Duration, kernelBytes int) (j *joined, peerA, peerB wire) {
	t.Helper()
	j = &joined{t: t, l: l, ended: make(chan *Error, 2)}
	connA, peerA := a.reached(t, l, kernelBytes)
	connB, peerB := b.reached(t, l, kernelBytes)
	on(t, l, func() { j.tunnel = Join(connA, connB, time.Hour, half, j) })
	return j, peerA, peerB
}

// eachTLSPair runs f for every pair of layers with TLS on at least one side.
func eachTLSPair(t *testing.T, f func(t *testing.T, a, b layer)) {
	for _, a := range layers {
		for _, b := range layers {
			if a.side != nil || b.side != nil {
				t.Run(a.name+" to "+b.name, func(t *testing.T) { f(t, a, b) })
			}
		}
	}
}

func TestTunnelTLSBothWays(t *testing.T) {
	const n = 2 << 20
	eachTLSPair(t, func(t *testing.T, a, b layer) {
		l := startLoop(t)
		j, peerA, peerB := joinLayers(t, l, a, b, time.Hour, 0)
		var wg sync.WaitGroup
		wg.Go(func() { transfer(t, peerA, peerB, 1, n) })
		wg.Go(func() { transfer(t, peerB, peerA, 2, n+5) })
		wg.Wait()
		j.end(nil)
		j.bytes(n, n+5)
	})
}

func TestTunnelTLSHalfClose(t *testing.T) {
	eachTLSPair(t, func(t *testing.T, a, b layer) {
		l := startLoop(t)
		j, peerA, peerB := joinLayers(t, l, a, b, time.Hour, 0)
		transfer(t, peerB, peerA, 0, 1000)
		echoWay(t, peerA, peerB)
		transfer(t, peerA, peerB, 0, 1<<20)
		j.end(nil)
	})
}

// TestTunnelTLSSlowReader: bounded while nobody reads. Then both sides end, and only then the reader begins: it gets all,
// however long the rest had to wait in the tunnel.
func TestTunnelTLSSlowReader(t *testing.T) {
	eachTLSPair(t, func(t *testing.T, a, b layer) {
		l := startLoop(t)
		j, peerA, peerB := joinLayers(t, l, a, b, time.Minute, 16<<10)
		sent := make(chan int, 1)
		stop := make(chan struct{})
		go func() {
			n := 0
			for {
				select {
				case <-stop:
					_ = peerA.CloseWrite()
					sent <- n
					return
				default:
					_ = peerA.SetWriteDeadline(time.Now().Add(patience))
					k, _ := peerA.Write(payload(n, 4000))
					n += k
				}
			}
		}()
		// a little is always under way; the rest waits at the writer, in the kernel or, at most a turn's share, here
		onEventually(t, l, "a blocked side", func() bool { return j.tunnel.b.Blocked() && j.tunnel.b.Room() == 0 })
		on(t, l, func() {
			for _, c := range []*Conn{j.tunnel.a, j.tunnel.b} {
				held := cap(c.out) + cap(c.own)
				if c.tls != nil {
					held += cap(c.tls.pending) + cap(c.tls.own)
				}
				if held > 4*outputBytesMax {
					t.Errorf("a side holds %d bytes", held)
				}
			}
		})
		_ = peerB.CloseWrite()
		close(stop)
		onEventually(t, l, "the other end", func() bool { return j.tunnel.ba.ended })
		sum, got, err := digest(peerB)
		n := receive(t, "the writer's end", sent)
		if err != nil || got != int64(n) || sum != streamDigest(stream{left: n}) {
			t.Errorf("%d of %d bytes arrived, %v", got, n, err)
		}
		if rest, err := io.ReadAll(peerA); len(rest) != 0 || err != nil {
			t.Errorf("the writer read %d bytes, %v", len(rest), err)
		}
		j.end(nil)
	})
}

// TestTunnelTLSWaitsForStagedOutput: both directions have ended while the last bytes wait for a reader that may be slower
// than any linger. They are delivered, and then the tunnel ends.
func TestTunnelTLSWaitsForStagedOutput(t *testing.T) {
	l := startLoop(t)
	a, peerA := layers[1].reached(t, l, 0)
	b, peerB := layers[0].reached(t, l, 16<<10)
	on(t, l, func() {
		a.SetHandler(&hooks{readable: func(c *Conn) { // reads without taking
			for c.Fill(32<<10) == nil {
			}
		}})
	})
	_, _ = peerA.Write(payload(0, 5000))
	_ = peerA.CloseWrite()
	_ = peerB.CloseWrite()
	onEventually(t, l, "both ends", func() bool { return a.EOF() && b.Readable() })
	j := &joined{t: t, l: l, ended: make(chan *Error, 2)}
	filled := 0
	on(t, l, func() {
		for { // nobody knows yet that the kernel takes no more
			n, e := send(b.fd, payload(filled, 1000), 0)
			if e != 0 {
				break
			}
			filled += n
		}
		j.tunnel = Join(a, b, time.Hour, time.Minute, j)
	})
	onEventually(t, l, "both ends", func() bool { return j.tunnel.a == nil || j.tunnel.ab.ended && j.tunnel.ba.ended })
	on(t, l, func() {
		if j.tunnel.a == nil || !b.Pending() || b.Deadline()-l.now < int64(time.Minute/2) || len(j.ended) != 0 {
			t.Error("the tunnel ended before its output had left")
		}
	})
	got, err := io.ReadAll(peerB)
	if err != nil {
		t.Error(err)
	}
	same(t, "what arrived", got, append(payload(0, filled), payload(0, 5000)...))
	j.end(nil)
}

// TestTunnelTLSSlowReaderIsNotIdle: what was staged leaves only now, and nothing new comes. That is traffic.
func TestTunnelTLSSlowReaderIsNotIdle(t *testing.T) {
	l := startLoop(t)
	j, peerA, peerB := joinLayers(t, l, layers[1], layers[0], time.Minute, 16<<10)
	n := 0
	for waits := false; !waits; {
		_, _ = peerA.Write(payload(n, 1000))
		n += 1000
		onEventually(t, l, "the piece to move on", func() bool { ab, _ := j.tunnel.Bytes(); return ab == int64(n) })
		on(t, l, func() { waits = j.tunnel.b.Room() == 0 })
	}
	on(t, l, func() { j.tunnel.last = 0 })
	got := make([]byte, n)
	if _, err := io.ReadFull(peerB, got); err != nil {
		t.Fatal(err)
	}
	same(t, "what arrived", got, payload(0, n))
	onEventually(t, l, "a note of it", func() bool { return j.tunnel.last != 0 })
}

// TestTunnelTLSCut: a TLS side that ends without close_notify was cut. The other side must not take it for an end.
func TestTunnelTLSCut(t *testing.T) {
	l := startLoop(t)
	j, peerA, peerB := joinLayers(t, l, layers[1], layers[0], time.Minute, 0)
	echoWay(t, peerA, peerB)
	_ = tcpOf(peerA).CloseWrite()
	j.end(ErrTruncated)
	if _, err := peerB.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("the other side saw %v", err)
	}
}

// TestTunnelTLSReset: as on plain sides.
func TestTunnelTLSReset(t *testing.T) {
	eachTLSPair(t, func(t *testing.T, a, b layer) {
		l := startLoop(t)
		j, peerA, peerB := joinLayers(t, l, a, b, time.Minute, 0)
		echoWay(t, peerA, peerB)
		reset(tcpOf(peerA))
		j.end(ErrReset)
		if _, err := peerB.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("the other side saw %v", err)
		}
	})
}
