package fastpath

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/ebpf"
)

// tunnelWay is how tests have tunnels moved. The zero value leaves it to the tunnel: copied or spliced by size.
type tunnelWay struct {
	name    string
	copying bool // never spliced
	sockmap *ebpf.Sockmap
}

var (
	way      tunnelWay       // of the tests that run now
	loopback = "127.0.0.1:0" // where their connections are
)

func (w tunnelWay) prepare(l *Loop, a, b *Conn) {
	l.sockmap, l.sockmapUse = nil, SockmapOff
	if w.copying {
		a.flags |= flagJoined
		b.flags |= flagJoined
	}
	if w.sockmap != nil {
		l.UseSockmap(w.sockmap, SockmapOn)
	}
}

// await waits until the kernel has the tunnel.
func (w tunnelWay) await(j *joined) {
	if w.sockmap != nil {
		onEventually(j.t, j.l, "the hand-over", func() bool { return j.tunnel.kernel != nil || len(j.ended) > 0 })
	}
}

// kernelSockmap is the sockmap of the tests, or the reason for which they do not run.
func kernelSockmap(t testing.TB, o ebpf.Options) *ebpf.Sockmap {
	t.Helper()
	m, u := ebpf.Open(o)
	if u != nil {
		if u.Reason == ebpf.ReasonTest || u.Reason == ebpf.ReasonLoad {
			t.Fatal(u)
		}
		t.Skipf("no sockmap here: %v", u)
	}
	t.Cleanup(m.Close)
	return m
}

// inEachWay runs f with tunnels that are copied, spliced, and joined in the kernel.
func inEachWay(t *testing.T, f func(t *testing.T)) {
	for _, w := range []tunnelWay{{name: "copy", copying: true}, {name: "splice"}, {name: "sockmap"}} {
		t.Run(w.name, func(t *testing.T) {
			if w.name == "sockmap" {
				w.sockmap = kernelSockmap(t, ebpf.Options{})
			}
			way = w
			defer func() { way = tunnelWay{} }()
			f(t)
		})
	}
}

// TestTunnelWays runs what every tunnel must pass in each way, over IPv4 and IPv6.
func TestTunnelWays(t *testing.T) {
	inEachWay(t, func(t *testing.T) {
		for _, test := range []struct {
			name string
			run  func(*testing.T)
		}{
			{"half-close", TestTunnelHalfClose},
			{"close", TestTunnelClose},
			{"close after its end", TestTunnelCloseAfterItsEnd},
			{"close with data in flight", TestTunnelCloseWithDataInFlight},
			{"limits", TestTunnelLimitsComeByThemselves},
			{"random sizes", testTunnelSizes},
			{"both at once", testTunnelDuplex},
			{"reset", testTunnelResets},
			{"urgent", testTunnelUrgent},
			{"one way stalls", testTunnelOneWayStalls},
			{"end behind a late reader", testTunnelLateReader},
			{"idle", testTunnelIdle},
			{"IPv6", func(t *testing.T) {
				loopback = "[::1]:0"
				defer func() { loopback = "127.0.0.1:0" }()
				TestTunnelHalfClose(t)
				TestTunnelCloseWithDataInFlight(t)
				testTunnelSizes(t)
				testTunnelDuplex(t)
				testTunnelResets(t)
				testTunnelLateReader(t)
			}},
		} {
			t.Run(test.name, test.run)
		}
	})
}

// longBytes is how much the long test moves each way. SLUICE_TUNNEL_GB asks for more: 5 by make test-long.
func longBytes() int {
	gb, err := strconv.Atoi(os.Getenv("SLUICE_TUNNEL_GB"))
	switch {
	case testing.Short() || raceDetector:
		return 64 << 20
	case err != nil:
		gb = 1
	}
	return gb * 1_000_000_000
}

// TestTunnelLong moves much both ways at once, in each way.
func TestTunnelLong(t *testing.T) {
	n := longBytes()
	inEachWay(t, func(t *testing.T) {
		l := startLoop(t)
		on(t, l, func() { l.poison = false }) // which would cost more than all else
		j := join(t, l, time.Hour, time.Hour, 0)
		for _, c := range []*net.TCPConn{j.a, j.b} {
			_ = c.SetDeadline(time.Now().Add(time.Duration(1+n>>28) * patience))
		}
		var wg sync.WaitGroup
		wg.Go(func() { exactly(t, j.a, j.b, 1, n) })
		wg.Go(func() { exactly(t, j.b, j.a, 2, n) })
		wg.Wait()
		j.end(nil)
		j.bytes(n, n)
	})
}

// exactly sends n bytes and an end, and compares every byte that comes with what was sent: that costs less than a digest, and
// tells where they differ.
func exactly(t testing.TB, from, to wire, start, n int) {
	t.Helper()
	go func() {
		for at := start; at < start+n; {
			b := block[at%len(block):]
			b = b[:min(len(b), start+n-at, 256<<10)]
			if _, err := from.Write(b); err != nil {
				t.Errorf("after %d bytes: %v", at-start, err)
				return
			}
			at += len(b)
		}
		_ = from.CloseWrite()
	}()
	buf := make([]byte, 256<<10)
	for at := start; ; {
		k, err := to.Read(buf)
		for b := buf[:k]; len(b) > 0; {
			want := block[at%len(block):]
			want = want[:min(len(want), len(b))]
			if string(b[:len(want)]) != string(want) {
				t.Errorf("other bytes came than were sent: %s", displaced(at, start, b))
				return
			}
			at += len(want)
			b = b[len(want):]
		}
		if err != nil {
			if err != io.EOF || at != start+n {
				t.Errorf("%d of %d bytes came, then %v", at-start, n, err)
			}
			return
		}
	}
}

// displaced tells what came instead of the bytes from at on, of a flow that began at start: bytes that are due later (as many
// were lost), bytes that came before (doubled), or none that were ever sent.
func displaced(at, start int, got []byte) string {
	first := 0
	for first < len(got) && got[first] == block[(at+first)%len(block)] {
		first++
	}
	at, got = at+first, got[first:]
	sample := got[:min(len(got), 64)]
	for from := range len(block) {
		if block[from] == sample[0] && matches(from, sample) {
			run := 0
			for run < len(got) && got[run] == block[(from+run)%len(block)] {
				run++
			}
			ahead := (from - at%len(block) + len(block)) % len(block)
			return fmt.Sprintf("after %d bytes at least %d came that are %d ahead or %d behind, modulo %d", at-start, run, ahead, len(block)-ahead, len(block))
		}
	}
	return fmt.Sprintf("after %d bytes came % x, which nobody sent", at-start, sample)
}

func matches(from int, sample []byte) bool {
	for i, c := range sample {
		if block[(from+i)%len(block)] != c {
			return false
		}
	}
	return true
}

// testTunnelSizes sends pieces of all sizes, one way after the other, so that a flow changes its way in the middle.
func testTunnelSizes(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Hour, 0)
	rng := rand.New(rand.NewPCG(3, 4))
	sum := [2]int{}
	for range 400 {
		n := 1 << rng.IntN(19)
		n = n/2 + rng.IntN(n/2+1) + 1
		i := rng.IntN(2)
		from, to := j.a, j.b
		if i == 1 {
			from, to = j.b, j.a
		}
		want := payload(sum[i], n)
		wrote := make(chan error, 1)
		go func() {
			_, err := from.Write(want)
			wrote <- err
		}()
		got := make([]byte, n)
		if _, err := io.ReadFull(to, got); err != nil {
			t.Fatal(err)
		}
		same(t, "a piece", got, want)
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		sum[i] += n
	}
	_ = j.a.CloseWrite()
	_ = j.b.CloseWrite()
	j.end(nil)
	j.bytes(sum[0], sum[1])
}

// testTunnelDuplex: both peers send at once, in small pieces.
func testTunnelDuplex(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Hour, 0)
	const n = 300_000
	pieces := func(from *net.TCPConn, start int) {
		for at := 0; at < n; {
			k := min(n-at, 1+(at*7)%601)
			_, _ = from.Write(payload(start+at, k))
			at += k
		}
		_ = from.CloseWrite()
	}
	go pieces(j.a, 1)
	go pieces(j.b, 2)
	var wg sync.WaitGroup
	for to, start := range map[*net.TCPConn]int{j.b: 1, j.a: 2} {
		wg.Go(func() {
			got, err := io.ReadAll(to)
			if err != nil {
				t.Error(err)
			}
			same(t, "small pieces", got, payload(start, n))
		})
	}
	wg.Wait()
	j.end(nil)
	j.bytes(n, n)
}

// testTunnelResets: a reset on one side is one on the other: at rest, half-closed, and with a full backlog.
func testTunnelResets(t *testing.T) {
	for _, state := range []string{"idle", "after its end", "after the other's end", "full backlog"} {
		for _, who := range []string{"a", "b"} {
			l := startLoop(t)
			j := join(t, l, time.Hour, time.Hour, 64<<10)
			from, to := j.a, j.b
			if who == "b" {
				from, to = j.b, j.a
			}
			switch state {
			case "idle":
				echoWay(t, from, to)
			case "after its end":
				_ = from.CloseWrite()
				_, _ = io.ReadAll(to)
			case "after the other's end":
				_ = to.CloseWrite()
				_, _ = io.ReadAll(from)
			case "full backlog":
				fill(t, to)
			}
			reset(from)
			j.end(ErrReset)
			_ = to.SetReadDeadline(time.Now().Add(patience))
			_, rerr := io.Copy(io.Discard, to)
			_, werr := to.Write([]byte("x"))
			if !isReset(rerr) && !isReset(werr) {
				t.Errorf("%s, reset by %s: the other saw %v and %v", state, who, rerr, werr)
			}
		}
	}
}

// fill writes until nothing is taken for a while, and tells how much was taken.
func fill(t testing.TB, to *net.TCPConn) (n int) {
	t.Helper()
	piece := make([]byte, 64<<10)
	for {
		_ = to.SetWriteDeadline(time.Now().Add(150 * time.Millisecond))
		k, err := to.Write(piece)
		n += k
		if err != nil {
			_ = to.SetWriteDeadline(time.Now().Add(patience))
			return n
		}
	}
}

// testTunnelUrgent: out of band data may get lost or come in line; what is before and behind it stays as it is.
func testTunnelUrgent(t *testing.T) {
	l := startLoop(t)
	j := join(t, l, time.Hour, time.Hour, 0)
	raw := rawPeer(t, j.a)
	_, _ = j.a.Write([]byte("before"))
	if e := unix.Sendto(int(raw), []byte("!"), unix.MSG_OOB, nil); e != nil {
		t.Fatal(e)
	}
	_, _ = j.a.Write([]byte("behind"))
	_ = j.a.CloseWrite()
	_ = j.b.CloseWrite()
	got, err := io.ReadAll(j.b)
	if s := string(got); err != nil || s != "beforebehind" && s != "before!behind" {
		t.Errorf("%q, %v", s, err)
	}
	j.end(nil)
}

// testTunnelOneWayStalls: a peer that does not read, and for which much waits, does not hold up what it sends.
func testTunnelOneWayStalls(t *testing.T) {
	for _, who := range []string{"a", "b"} {
		l := startLoop(t)
		j := join(t, l, time.Hour, time.Hour, 0)
		from, to := j.a, j.b
		if who == "b" {
			from, to = j.b, j.a
		}
		echoWay(t, from, to)
		echoWay(t, to, from)
		if n := fill(t, from); n > 16<<20 {
			t.Errorf("%d bytes were taken for a reader that takes none", n)
		}
		for range 200 {
			echoWay(t, to, from)
		}
		// the same in bulk: to's own direction leaves the kernel as well, and must not wait for what waits for to
		go func() { _, _ = to.Write(payload(0, 8<<20)) }()
		got := make([]byte, 8<<20)
		if _, err := io.ReadFull(from, got); err != nil {
			t.Fatalf("by %s: %v", who, err)
		}
		same(t, "bulk from the stalled reader", got, payload(0, 8<<20))
		reset(to)
		j.end(ErrReset)
	}
}

// testTunnelLateReader: a peer sends, ends and closes, and the other reads late. All of it arrives, then the end.
func testTunnelLateReader(t *testing.T) {
	for range 6 {
		l := startLoop(t)
		j := join(t, l, time.Hour, time.Hour, 0)
		const n = 2 << 20
		go func() {
			_, _ = j.a.Write(payload(0, n))
			_ = j.a.CloseWrite()
		}()
		time.Sleep(5 * time.Millisecond) // late; how late matters to nothing
		got, err := io.ReadAll(j.b)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "before the end", got, payload(0, n))
		_ = j.b.CloseWrite()
		j.end(nil)
		j.bytes(n, 0)
	}
}

// testTunnelIdle: a tunnel on which bytes move outlives its idle limit, and ends after it without.
func testTunnelIdle(t *testing.T) {
	l := startLoop(t)
	const limit = 200 * time.Millisecond
	j := join(t, l, limit, time.Hour, 0)
	for begin := time.Now(); time.Since(begin) < 4*limit; time.Sleep(limit / 10) {
		echoWay(t, j.b, j.a)
		if len(j.ended) > 0 {
			t.Fatal("the tunnel ended in spite of traffic")
		}
	}
	j.end(ErrTimeout)
}

// TestTunnelStalledReader offers 768 MB to a reader that does not read, in each way. The kernel must hold little of it: by
// the sender's count, and by the memory that TCP and the sockets' owners have.
func TestTunnelStalledReader(t *testing.T) {
	const offer, allowed = 768 << 20, 16 << 20
	inEachWay(t, func(t *testing.T) {
		l := startLoop(t)
		j := join(t, l, time.Hour, time.Hour, 0)
		echoWay(t, j.a, j.b)
		before := slab(t)
		taken := 0
		piece := make([]byte, 1<<20)
		for taken < offer {
			_ = j.a.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := j.a.Write(piece)
			if taken += n; err != nil {
				break
			}
		}
		if held := slab(t) - before; taken > allowed {
			t.Errorf("%d MB were taken for a reader that takes none; the system has %d MB less", taken>>20, held>>20)
		}
		t.Logf("%.1f MB were taken", float64(taken)/(1<<20))
		on(t, l, func() {
			if w := way.sockmap; w != nil && l.Stats.Sockmap.Released[ebpf.ReleasedLimit].Load() != 1 {
				t.Error("the limiter did not release the direction")
			}
		})
		reset(j.b)
		j.end(ErrReset)
	})
}

// slab is how much memory the machine lacks.
func slab(t testing.TB) int64 {
	var i syscall.Sysinfo_t
	if err := syscall.Sysinfo(&i); err != nil {
		t.Fatal(err)
	}
	return -int64(i.Freeram) * int64(i.Unit)
}

// TestTunnelChurnThousand: 1,000 tunnels live at once, each of 2,000 comes, talks and goes, in each way.
func TestTunnelChurnThousand(t *testing.T) { inEachWay(t, testTunnelChurn) }

func testTunnelChurn(t *testing.T) {
	live, total := 1000, 2000
	switch {
	case testing.Short() || raceDetector:
		live, total = 200, 400
	case way.sockmap == nil:
		total = 1200 // of this way TestTunnelChurn has more
	}
	needDescriptors(t, 10*live)
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
	var all []*joined
	for range live {
		all = append(all, join(t, l, time.Hour, time.Hour, 0))
	}
	kernels := 0
	if way.sockmap != nil {
		kernels = live
	}
	if n := l.Stats.Sockmap.Open.Load(); n != int64(kernels) {
		t.Errorf("%d tunnels of %d are the kernel's, want %d", n, live, kernels)
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range total {
		slots <- struct{}{}
		j := all[i%live]
		all[i%live] = nil
		if i+live < total {
			all[i%live] = join(t, l, time.Hour, time.Hour, 0)
		}
		wg.Go(func() {
			defer func() { <-slots }()
			churn(t, j, rand.New(rand.NewPCG(9, uint64(i))))
		})
	}
	wg.Wait()
	on(t, l, func() {
		if n := l.Stats.Conns.Load(); n != 0 || l.Stats.Sockmap.Open.Load() != 0 || l.Stats.Panics.Load() != 0 {
			t.Errorf("%d connections are left, %d joined, %d panics", n, l.Stats.Sockmap.Open.Load(), l.Stats.Panics.Load())
		}
		if n := len(l.pipes.idle); n > pipesIdleMax {
			t.Errorf("%d pipes are kept", n)
		}
	})
	l.Stop()
	receive(t, "the loop's end", done)
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
	if way.sockmap == nil {
		return
	}
	if n := way.sockmap.Entries(); n != [3]int{} {
		t.Errorf("the maps still hold %v", n)
	}
}

func needDescriptors(t testing.TB, n int) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(n) {
		t.Skipf("%d descriptors are needed, the limit is %d (%v)", n, limit.Cur, err)
	}
}

// TestSockmapServerSpeaksFirst: bytes that wait on either side when the tunnel is handed over arrive, first and in order,
// without another byte to push them.
func TestSockmapServerSpeaksFirst(t *testing.T) {
	m := kernelSockmap(t, ebpf.Options{})
	l := startLoop(t)
	rounds := 1000
	if testing.Short() || raceDetector {
		rounds = 100
	}
	for i := range rounds {
		fdA, a := tcpPair(t)
		fdB, b := tcpPair(t)
		up, down := fmt.Sprintf("hello %d", i), fmt.Sprintf("greeting %d", i)
		if i%2 == 0 { // before the loop knows the sockets; else while they are handed over
			_, _ = a.Write([]byte(up))
			_, _ = b.Write([]byte(down))
		}
		end := make(chan *Error, 1)
		l.Post(func() {
			l.UseSockmap(m, SockmapOn)
			Join(mustAdopt(t, l, fdA, &hooks{}), mustAdopt(t, l, fdB, &hooks{}), time.Hour, time.Hour,
				&hooks{tunnelEnd: func(_ *Tunnel, err *Error) { end <- err }})
		})
		if i%2 == 1 {
			_, _ = b.Write([]byte(down))
			_, _ = a.Write([]byte(up))
		}
		for _, want := range []struct {
			c    *net.TCPConn
			text string
		}{{a, down}, {b, up}} {
			got := make([]byte, len(want.text))
			if _, err := io.ReadFull(want.c, got); err != nil || string(got) != want.text {
				t.Fatalf("round %d: %q instead of %q, %v", i, got, want.text, err)
			}
		}
		a.Close()
		b.Close()
		if err := receive(t, "the tunnel's end", end); err != nil {
			t.Fatalf("round %d ended with %v", i, err)
		}
	}
	if n := l.Stats.Sockmap.Joined.Load(); n < uint64(rounds)*9/10 {
		t.Errorf("only %d of %d tunnels were handed over", n, rounds)
	}
}

// TestSockmapRefusesAPartlyReadSegment: what was read in part would be moved whole, so such a tunnel stays in user space until
// it is at rest.
func TestSockmapRefusesAPartlyReadSegment(t *testing.T) {
	m := kernelSockmap(t, ebpf.Options{})
	l := startLoop(t)
	fdA, a := tcpPair(t)
	fdB, b := tcpPair(t)
	_, _ = a.Write(payload(0, 600))
	c := adoptFD(t, l, fdA, &hooks{readable: func(c *Conn) {
		if c.Received() == 0 {
			_ = c.Fill(10)
		}
	}})
	onEventually(t, l, "the first ten bytes", func() bool { return c.Received() == 10 })
	var tunnel *Tunnel
	on(t, l, func() {
		l.UseSockmap(m, SockmapOn)
		tunnel = Join(c, mustAdopt(t, l, fdB, &hooks{}), time.Hour, time.Hour, &hooks{})
		c.Discard(0)
		tunnel.ab.to.Write(c.Buffered()) // ten bytes forwarded, 590 wait
		c.Discard(10)
		tunnel.ab.copied += 10
		if tunnel.handOver(); tunnel.kernel != nil {
			t.Error("handed over in the middle of a segment")
		}
	})
	_, _ = a.Write(payload(600, 200))
	_ = a.CloseWrite()
	got, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "all", got, payload(0, 800))
}

// TestSockmapFull: a tunnel for which the maps have no room goes through user space.
func TestSockmapFull(t *testing.T) {
	m := kernelSockmap(t, ebpf.Options{Tunnels: 4})
	l := startLoop(t)
	way = tunnelWay{name: "full"}
	defer func() { way = tunnelWay{} }()
	var tunnels []*joined
	for range 12 {
		j := join(t, l, time.Hour, time.Hour, 0)
		on(t, l, func() {
			l.UseSockmap(m, SockmapOn)
			j.tunnel.SetSockmap(SockmapOn)
		})
		onEventually(t, l, "a decision", func() bool { return j.tunnel.kernel != nil || j.tunnel.use == SockmapOff })
		tunnels = append(tunnels, j)
	}
	for _, j := range tunnels {
		echoWay(t, j.a, j.b)
		echoWay(t, j.b, j.a)
	}
	if joined, refused := l.Stats.Sockmap.Joined.Load(), l.Stats.Sockmap.Refused.Load(); joined != 4 || refused != 8 {
		t.Errorf("%d joined, %d refused", joined, refused)
	}
	for _, j := range tunnels {
		j.a.Close()
		j.b.Close()
		if err := receive(t, "an end", j.ended); err != nil {
			t.Error(err)
		}
	}
}

// TestSockmapEndedSocket: a socket whose peer has ended is not handed over.
func TestSockmapEndedSocket(t *testing.T) {
	m := kernelSockmap(t, ebpf.Options{})
	l := startLoop(t)
	for range 50 {
		fdA, a := tcpPair(t)
		fdB, b := tcpPair(t)
		_, _ = a.Write([]byte("only this"))
		_ = a.CloseWrite()
		end := make(chan *Error, 1)
		on(t, l, func() {
			l.UseSockmap(m, SockmapOn)
			Join(mustAdopt(t, l, fdA, &hooks{}), mustAdopt(t, l, fdB, &hooks{}), time.Hour, time.Hour,
				&hooks{tunnelEnd: func(_ *Tunnel, err *Error) { end <- err }})
		})
		if got, err := io.ReadAll(b); string(got) != "only this" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		transfer(t, b, a, 0, 100_000)
		if err := receive(t, "the tunnel's end", end); err != nil {
			t.Error(err)
		}
	}
}

// TestSockmapLimitThenEnd: the limiter gives a direction back in the middle of a stream, an end follows, and every byte
// arrives.
func TestSockmapLimitThenEnd(t *testing.T) {
	way = tunnelWay{name: "sockmap", sockmap: kernelSockmap(t, ebpf.Options{Queued: 64 << 10})}
	defer func() { way = tunnelWay{} }()
	for i := range 30 {
		l := startLoop(t)
		j := join(t, l, time.Hour, time.Hour, 0)
		n := 300_000 + i*70_001
		exactly(t, j.a, j.b, i, n)
		echoWay(t, j.b, j.a)
		_ = j.b.CloseWrite()
		j.end(nil)
		j.bytes(n, 20_000)
		if l.Stats.Sockmap.Released[ebpf.ReleasedLimit].Load() == 0 {
			t.Error("the limit was not reached")
		}
	}
}

// TestSockmapDetached: when somebody takes the program away, tunnels go through user space, and those that are joined go on.
func TestSockmapDetached(t *testing.T) {
	quietly(t)
	m := kernelSockmap(t, ebpf.Options{})
	l := startLoop(t)
	way = tunnelWay{name: "sockmap", sockmap: m}
	defer func() { way = tunnelWay{} }()
	before := join(t, l, time.Hour, time.Hour, 0)
	if err := m.Detach(); err != nil {
		t.Fatal(err)
	}
	way = tunnelWay{name: "detached"}
	after := join(t, l, time.Hour, time.Hour, 0)
	on(t, l, func() {
		l.UseSockmap(m, SockmapOn)
		after.tunnel.SetSockmap(SockmapOn)
	})
	for _, j := range []*joined{before, after} {
		echoWay(t, j.a, j.b)
		echoWay(t, j.b, j.a)
		j.a.Close()
		j.b.Close()
		if err := receive(t, "an end", j.ended); err != nil {
			t.Error(err)
		}
	}
	if !m.Gone() || l.sockmap != nil || l.Stats.Sockmap.Refused.Load() != 1 {
		t.Error("that the program is gone was not noticed")
	}
}

// TestSockmapAuto: a tunnel of small messages is handed over once it is old enough; bulk is not.
func TestSockmapAuto(t *testing.T) {
	m := kernelSockmap(t, ebpf.Options{})
	l := startLoop(t)
	use := func(j *joined) {
		on(t, l, func() {
			l.UseSockmap(m, SockmapAuto)
			j.tunnel.SetSockmap(SockmapAuto)
		})
	}
	chat := func(j *joined, n int) {
		for range n {
			_, _ = j.a.Write([]byte("ping"))
			_, _ = io.ReadFull(j.b, make([]byte, 4))
			_, _ = j.b.Write([]byte("pong"))
			_, _ = io.ReadFull(j.a, make([]byte, 4))
		}
	}
	small := join(t, l, time.Hour, time.Hour, 0)
	use(small)
	on(t, l, func() { small.tunnel.began += int64(time.Hour) }) // however slow the machine is: young
	chat(small, 2*sockmapPieces)
	on(t, l, func() {
		if small.tunnel.kernel != nil {
			t.Error("handed over too early")
		}
		small.tunnel.began -= int64(time.Hour) + sockmapAge
	})
	chat(small, 2*sockmapPieces)
	onEventually(t, l, "the hand-over", func() bool { return small.tunnel.kernel != nil })
	chat(small, 10)
	bulk := join(t, l, time.Hour, time.Hour, 0)
	use(bulk)
	on(t, l, func() { bulk.tunnel.began -= sockmapAge })
	transfer(t, bulk.a, bulk.b, 0, 8<<20)
	on(t, l, func() {
		if bulk.tunnel.kernel != nil {
			t.Error("bulk was handed over")
		}
	})
	for _, j := range []*joined{small, bulk} {
		j.a.Close()
		j.b.Close()
		if err := receive(t, "an end", j.ended); err != nil {
			t.Error(err)
		}
	}
}
