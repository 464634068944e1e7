package fastpath

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// joined is a tunnel between two peers of the test.
type joined struct {
	t      testing.TB
	l      *Loop
	tunnel *Tunnel
	a, b   *net.TCPConn
	ended  chan *Error
}

// join makes a tunnel; kernelBytes bounds the kernel's buffers of all four sockets.
func join(t testing.TB, l *Loop, idle, half time.Duration, kernelBytes int) *joined {
	t.Helper()
	fdA, a := tcpPairOn(t, loopback, kernelBytes)
	j := joinFD(t, l, fdA, idle, half, kernelBytes)
	j.a = a
	return j
}

// joinFD is join with a first side that is connected already, to whomever.
func joinFD(t testing.TB, l *Loop, fdA int, idle, half time.Duration, kernelBytes int) *joined {
	t.Helper()
	j := &joined{t: t, l: l, ended: make(chan *Error, 2)}
	var fdB int
	fdB, j.b = tcpPairOn(t, loopback, kernelBytes)
	on(t, l, func() {
		a, b := mustAdopt(t, l, fdA, &hooks{}), mustAdopt(t, l, fdB, &hooks{})
		way.prepare(l, a, b)
		j.tunnel = Join(a, b, idle, half, j)
	})
	way.await(j)
	return j
}

func (j *joined) OnTunnelEnd(t *Tunnel, err *Error) {
	if t != j.tunnel {
		j.t.Error("another tunnel ended")
	}
	j.ended <- err
}

// end expects the tunnel to have ended with want, once, and nothing to be left of it.
func (j *joined) end(want *Error) {
	j.t.Helper()
	if err := receive(j.t, "the tunnel's end", j.ended); err != want {
		j.t.Errorf("the tunnel ended with %v, want %v", err, want)
	}
	on(j.t, j.l, func() {
		j.tunnel.Close() // afterwards it does nothing
		if n := j.l.Stats.Conns.Load(); n != 0 {
			j.t.Errorf("%d connections are open", n)
		}
		if len(j.ended) != 0 {
			j.t.Error("told of the end twice")
		}
		for _, p := range j.l.pipes.idle {
			if p.n != 0 {
				j.t.Error("a pipe with bytes in it is in stock")
			}
		}
	})
}

// bytes expects so many to have been delivered each way.
func (j *joined) bytes(ab, ba int) {
	j.t.Helper()
	on(j.t, j.l, func() {
		if gotAB, gotBA := j.tunnel.Bytes(); gotAB != int64(ab) || gotBA != int64(ba) {
			j.t.Errorf("Bytes: %d and %d, want %d and %d", gotAB, gotBA, ab, ba)
		}
	})
}

// wire is what both *net.TCPConn and *tls.Conn can do.
type wire interface {
	net.Conn
	CloseWrite() error
}

// transfer sends n bytes from one peer to the other, ends that direction and compares digests.
func transfer(t testing.TB, from, to wire, start, n int) {
	t.Helper()
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{from}, &stream{at: start, left: n}, make([]byte, 256<<10))
		_ = from.CloseWrite()
	}()
	sum, got, err := digest(to)
	if err != nil || got != int64(n) || sum != streamDigest(stream{at: start, left: n}) {
		t.Errorf("%d of %d bytes arrived, %v", got, n, err)
	}
}

func TestTunnelBulkBothWays(t *testing.T) {
	n := 128 << 20
	if raceDetector {
		n = 32 << 20 // the kernel moves them; only the peers' part becomes slow
	}
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Hour, 0)
	var wg sync.WaitGroup
	wg.Go(func() { transfer(t, j.a, j.b, 1, n) })
	wg.Go(func() { transfer(t, j.b, j.a, 2, n) })
	wg.Wait()
	j.end(nil)
	j.bytes(n, n)
	on(t, l, func() {
		if len(l.pipes.idle) == 0 || len(l.pipes.idle) > 2 {
			t.Errorf("%d pipes came back", len(l.pipes.idle))
		}
	})
}

// TestTunnelHalfClose: each direction ends by itself.
func TestTunnelHalfClose(t *testing.T) {
	for _, first := range []string{"a", "b"} {
		l := startLoop(t)
		j := join(t, l, time.Hour, time.Hour, 0)
		from, to := j.a, j.b
		if first == "b" {
			from, to = j.b, j.a
		}
		transfer(t, from, to, 0, 1000)
		for range 3 { // the other way is open still
			echoWay(t, to, from)
		}
		if len(j.ended) != 0 {
			t.Error("the tunnel ended with its first direction")
		}
		transfer(t, to, from, 7, 3<<20)
		j.end(nil)
	}
}

// echoWay sends some bytes and waits until they arrive.
func echoWay(t testing.TB, from, to net.Conn) {
	t.Helper()
	want := payload(3, 20_000)
	if _, err := from.Write(want); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(to, got); err != nil {
		t.Error(err)
	}
	same(t, "bytes through the tunnel", got, want)
}

// TestTunnelCloseWithDataInFlight: one peer sends and closes, the other begins to read only then.
func TestTunnelCloseWithDataInFlight(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Hour, 64<<10)
	const n = 4 << 20
	wrote := make(chan error, 1)
	go func() {
		_, err := j.a.Write(payload(0, n))
		j.a.Close()
		wrote <- err
	}()
	var was int64
	onEventually(t, l, "standstill", func() bool {
		ab, _ := j.tunnel.Bytes()
		still := ab > 0 && ab == was && (j.tunnel.b.Blocked() || way.sockmap != nil)
		was = ab
		return still
	})
	if was > 2<<20 {
		t.Errorf("%d bytes were taken for a reader that takes none", was)
	}
	got, err := io.ReadAll(j.b)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "what was in flight", got, payload(0, n))
	if err := receive(t, "the writer's end", wrote); err != nil {
		t.Error(err)
	}
	j.b.Close()
	j.end(nil)
	j.bytes(n, 0)
}

// TestTunnelReset: a reset on one side is one on the other, in every state of the tunnel.
func TestTunnelReset(t *testing.T) {
	states := map[string]func(j *joined, from, to *net.TCPConn){
		"idle":   func(j *joined, from, to *net.TCPConn) { echoWay(t, from, to) },
		"unused": func(*joined, *net.TCPConn, *net.TCPConn) {},
		"after its end": func(j *joined, from, to *net.TCPConn) {
			_ = from.CloseWrite()
			_, _ = io.ReadAll(to)
		},
		"after the other's end": func(j *joined, from, to *net.TCPConn) {
			_ = to.CloseWrite()
			_, _ = io.ReadAll(from)
		},
		"while it does not read": func(j *joined, from, to *net.TCPConn) {
			go func() { _, _ = to.Write(payload(0, 16<<20)) }()
			onEventually(t, j.l, "a blocked side", func() bool { return j.tunnel.a.Blocked() || j.tunnel.b.Blocked() })
		},
	}
	for name, prepare := range states {
		t.Run(name, func(t *testing.T) {
			for _, who := range []string{"a", "b"} {
				l := startLoop(t)
				j := join(t, l, time.Hour, time.Hour, 64<<10)
				from, to := j.a, j.b
				if who == "b" {
					from, to = j.b, j.a
				}
				prepare(j, from, to)
				reset(from)
				j.end(ErrReset)
				_, rerr := io.Copy(io.Discard, to)
				_, werr := to.Write([]byte("x"))
				if !isReset(rerr) && !isReset(werr) {
					t.Errorf("reset by %s: the other saw %v and %v", who, rerr, werr)
				}
			}
		})
	}
}

// limits looks at a tunnel's deadline as if it came now. A tunnel that moved something meanwhile has the rest of its limit,
// counted from then.
func (j *joined) limits(limit time.Duration) {
	j.t.Helper()
	on(j.t, j.l, func() {
		j.tunnel.OnDeadline(j.tunnel.b)
		if len(j.ended) != 0 {
			j.t.Error("the tunnel ended in spite of traffic")
			return
		}
		if d := j.tunnel.b.Deadline(); d != j.tunnel.last+int64(limit) {
			j.t.Errorf("the next look is %v after the last byte", time.Duration(d-j.tunnel.last))
		}
	})
}

// silence lets the time since the last byte pass.
func (j *joined) silence(d time.Duration) {
	on(j.t, j.l, func() {
		j.tunnel.last = j.l.now - int64(d)
		j.tunnel.OnDeadline(j.tunnel.b)
	})
}

func TestTunnelIdleLimit(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Minute, 0)
	for _, way := range [][2]net.Conn{{j.a, j.b}, {j.b, j.a}} { // traffic either way keeps it
		var before int64
		on(t, l, func() {
			j.tunnel.last = 0
			before = l.now
		})
		echoWay(t, way[0], way[1])
		on(t, l, func() {
			if j.tunnel.last < before {
				t.Error("the time of the last byte was not kept")
			}
		})
		j.limits(time.Hour)
	}
	j.silence(time.Hour - time.Second)
	if len(j.ended) != 0 {
		t.Error("the tunnel ended before its limit")
	}
	j.silence(time.Hour)
	j.end(ErrTimeout)
	if _, err := j.a.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("a saw %v", err)
	}
	if _, err := j.b.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("b saw %v", err)
	}
}

// TestTunnelLimitsComeByThemselves: the same two limits, by the clock.
func TestTunnelLimitsComeByThemselves(t *testing.T) {
	const short = 50 * time.Millisecond
	t.Run("idle", func(t *testing.T) {
		l := startLoop(t)
		begin := time.Now()
		j := join(t, l, short, time.Hour, 0)
		j.end(ErrTimeout)
		if took := time.Since(begin); took < short {
			t.Errorf("ended after %v", took)
		}
	})
	t.Run("half-closed", func(t *testing.T) {
		l := startLoop(t)
		begin := time.Now()
		j := join(t, l, time.Hour, short, 0)
		_ = j.b.CloseWrite()
		j.end(ErrTimeout)
		if took := time.Since(begin); took < short {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestTunnelHalfCloseLimit(t *testing.T) {
	for _, who := range []string{"a", "b"} {
		l := startLoop(t)
		j := join(t, l, time.Hour, time.Minute, 0)
		one, other := j.a, j.b
		if who == "b" {
			one, other = j.b, j.a
		}
		on(t, l, func() { j.tunnel.last = l.now - int64(time.Hour/2) }) // its time runs from the end on
		_ = one.CloseWrite()
		_, _ = io.ReadAll(other)
		on(t, l, func() {
			if j.tunnel.last < l.now-int64(time.Minute/2) {
				t.Error("the time of the first end was not kept")
			}
		})
		echoWay(t, other, one)
		j.limits(time.Minute)
		j.silence(time.Minute)
		j.end(ErrTimeout)
	}
}

func TestTunnelClose(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Hour, 0)
	echoWay(t, j.a, j.b)
	on(t, l, j.tunnel.Close)
	j.end(ErrTimeout)
	if _, err := j.a.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("a saw %v", err)
	}
}

// TestTunnelCloseAfterItsEnd: the values of its connections are other connections by then.
func TestTunnelCloseAfterItsEnd(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Hour, 0)
	j.a.Close()
	j.b.Close()
	if err := receive(t, "the tunnel's end", j.ended); err != nil {
		t.Errorf("ended with %v", err)
	}
	on(t, l, func() {}) // the values are free
	var peers []*net.TCPConn
	for range 2 {
		_, peer := adopt(t, l, &echo{})
		peers = append(peers, peer)
	}
	on(t, l, j.tunnel.Close)
	for _, p := range peers {
		echoOnce(t, p, 1000)
	}
}

// TestTunnelReadAheadGoesFirst: what was read before the tunnel stands is delivered before what follows, in both
// directions, and what follows is spliced.
func TestTunnelReadAheadGoesFirst(t *testing.T) {
	const n = 2 << 20
	for _, ahead := range []int{1, 5000, 100_000} {
		l := startLoop(t)
		fdA, peerA := tcpPair(t)
		fdB, peerB := tcpPair(t)
		held := &hooks{readable: func(c *Conn) { // reads without taking
			for c.Fill(32<<10) == nil {
			}
		}}
		a, b := adoptFD(t, l, fdA, held), adoptFD(t, l, fdB, held)
		fromB := payload(5, ahead)
		_, _ = peerA.Write(payload(1, ahead))
		_, _ = peerB.Write(fromB)
		onEventually(t, l, "read-ahead", func() bool { return len(a.Buffered()) == ahead && len(b.Buffered()) == ahead })
		end := make(chan *Error, 1)
		var tunnel *Tunnel
		on(t, l, func() {
			tunnel = Join(a, b, time.Hour, time.Hour, &hooks{tunnelEnd: func(_ *Tunnel, err *Error) { end <- err }})
		})
		go func() {
			_, _ = peerA.Write(payload(1+ahead, n))
			_ = peerA.CloseWrite()
		}()
		sum, _, err := digest(peerB)
		if err != nil || sum != streamDigest(stream{at: 1, left: ahead + n}) {
			t.Errorf("from a something else arrived, %v", err)
		}
		onEventually(t, l, "the first end", func() bool { return tunnel.ab.ended })
		on(t, l, func() {
			if tunnel.ab.copied < int64(ahead) || tunnel.ab.copied == int64(ahead+n) || tunnel.ab.bytes() != int64(ahead+n) {
				t.Errorf("%d bytes of %d were copied, %d were read before", tunnel.ab.copied, tunnel.ab.bytes(), ahead)
			}
		})
		_ = peerB.CloseWrite()
		got, err := io.ReadAll(peerA)
		if err != nil {
			t.Error(err)
		}
		same(t, "from b", got, fromB)
		if err := receive(t, "the tunnel's end", end); err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

// TestTunnelChangesItsWay: a direction is spliced while its source sends in bulk, and copied while it does not. The bytes
// are the same.
func TestTunnelChangesItsWay(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Hour, 1<<20)
	at := 0
	send := func(n int) { // at once, as far as the loop sees
		t.Helper()
		on(t, l, func() { _, _ = j.a.Write(payload(at, n)) })
		got := make([]byte, n)
		if _, err := io.ReadFull(j.b, got); err != nil {
			t.Fatal(err)
		}
		same(t, "what came through", got, payload(at, n))
		at += n
	}
	until := func(what string, n int, spliced bool) {
		t.Helper()
		for range 20 {
			send(n)
			now := false
			if on(t, l, func() { now = j.tunnel.ab.splice.Active() }); now == spliced {
				return
			}
		}
		t.Errorf("%s: spliced is %v", what, !spliced)
	}
	for range 3 {
		until("bulk", 200_000, true)
		until("trickle", 100, false)
	}
	on(t, l, func() {
		if j.tunnel.ba.splice.Active() || j.tunnel.ab.spliced == 0 || j.tunnel.ab.copied == 0 {
			t.Errorf("%d bytes spliced, %d copied", j.tunnel.ab.spliced, j.tunnel.ab.copied)
		}
	})
	j.bytes(at, 0)
	j.a.Close()
	j.b.Close()
	j.end(nil)
	j.bytes(at, 0)
}

// TestTunnelWithoutDescriptors: where no pipe can be had, bulk is copied.
func TestTunnelWithoutDescriptors(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Hour, 0)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Skip(err)
	}
	none := syscall.Rlimit{Cur: 3, Max: was.Max} // 0 to 2 are in use
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Skip(err)
	}
	transfer(t, j.a, j.b, 0, 8<<20)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	on(t, l, func() {
		if j.tunnel.ab.copied != 8<<20 {
			t.Errorf("%d bytes were copied", j.tunnel.ab.copied)
		}
	})
	transfer(t, j.b, j.a, 0, 8<<20)
	j.end(nil)
	j.bytes(8<<20, 8<<20)
}

// TestTunnelOfAnEndedConn: an end that was read before the tunnel stands is passed on as well.
func TestTunnelOfAnEndedConn(t *testing.T) {
	l := startLoop(t)
	fdA, peerA := tcpPair(t)
	fdB, peerB := tcpPair(t)
	a := adoptFD(t, l, fdA, &hooks{readable: func(c *Conn) {
		for c.Fill(32<<10) == nil {
		}
	}})
	_, _ = peerA.Write([]byte("last words"))
	_ = peerA.CloseWrite()
	onEventually(t, l, "the end", a.EOF)
	end := make(chan *Error, 1)
	on(t, l, func() {
		b := mustAdopt(t, l, fdB, &hooks{})
		Join(a, b, time.Hour, time.Hour, &hooks{tunnelEnd: func(_ *Tunnel, err *Error) { end <- err }})
	})
	if got, err := io.ReadAll(peerB); string(got) != "last words" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	transfer(t, peerB, peerA, 0, 10_000)
	if err := receive(t, "the tunnel's end", end); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// TestTunnelChurn: 300 live tunnels that come and go in every way. Descriptors, pipes and connections are all returned.
func TestTunnelChurn(t *testing.T) {
	before := descriptors(t)
	l, err := NewLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		l.Run()
		close(done)
	}()
	const live, total = 300, 600
	var ended atomic.Int64
	var wg sync.WaitGroup
	slots := make(chan struct{}, live)
	for i := range total {
		slots <- struct{}{}
		j := join(t, l, time.Hour, time.Hour, 0)
		wg.Go(func() {
			defer func() { <-slots }()
			churn(t, j, rand.New(rand.NewPCG(1, uint64(i))))
			ended.Add(1)
		})
	}
	wg.Wait()
	on(t, l, func() {
		if n := l.Stats.Conns.Load(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		if n := len(l.pipes.idle); n > pipesIdleMax {
			t.Errorf("%d pipes are kept", n)
		}
		if l.Stats.Panics.Load() != 0 {
			t.Error("a handler panicked")
		}
	})
	l.Stop()
	receive(t, "the loop's end", done)
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

// churn uses a tunnel and ends it in one of the ways that there are.
func churn(t testing.TB, j *joined, rng *rand.Rand) {
	defer j.a.Close()
	defer j.b.Close()
	for range 1 + rng.IntN(4) {
		echoWay(t, j.a, j.b)
		echoWay(t, j.b, j.a)
	}
	switch rng.IntN(5) {
	case 0:
		j.a.Close()
		_, _ = io.ReadAll(j.b)
		j.b.Close()
	case 1:
		_ = j.b.CloseWrite()
		_, _ = io.ReadAll(j.a)
		echoWay(t, j.a, j.b)
		j.a.Close()
	case 2:
		reset(j.a)
	case 3:
		go func() { _, _ = j.a.Write(block) }() // data in flight, and nobody reads
		reset(j.b)
	case 4:
		j.l.Post(j.tunnel.Close)
	}
	select {
	case <-j.ended:
	case <-time.After(patience):
		t.Error("a tunnel does not end")
	}
}

// TestTunnelPreceded: what was given to b before both were joined counts, while the tunnel lasts and when it has ended.
func TestTunnelPreceded(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Minute, time.Minute, 0)
	on(t, l, func() { j.tunnel.Preceded(517) })
	want := payload(0, 1000)
	if _, err := j.a.Write(want); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(j.b, got); err != nil {
		t.Fatal(err)
	}
	same(t, "behind what preceded", got, want)
	j.bytes(1517, 0)
	j.a.Close()
	j.b.Close()
	j.end(nil)
	j.bytes(1517, 0)
}
