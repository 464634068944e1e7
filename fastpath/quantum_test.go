package fastpath

import (
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestQuantumOf(t *testing.T) {
	for mss, want := range map[int64]int64{
		65_483: 65_483, // loopback
		8_948:  62_636, // jumbo frames
		1_448:  65_160, // Ethernet
		1_220:  64_660, // IPv6's smallest packet
		536:    64_856,
		0:      0,
	} {
		if got := quantumOf(mss); got != want {
			t.Errorf("segments of %d bytes: %d at once, want %d", mss, got, want)
		}
	}
}

func TestNear(t *testing.T) {
	for path, want := range map[unix.TCPBBRInfo]bool{
		{Bw_lo: nearMin, Min_rtt: nearMicros}:           true,
		{Bw_hi: 1, Bw_lo: 0, Min_rtt: 3}:                true,
		{Bw_lo: nearMin - 1, Min_rtt: 3}:                false, // slow
		{Bw_lo: nearMin, Min_rtt: nearMicros + 1}:       false, // far
		{Bw_hi: 2, Min_rtt: 10_000}:                     false,
		{Bw_lo: 0, Min_rtt: 3}:                          false, // nothing sent yet
		{Bw_lo: 4e9, Min_rtt: 1<<32 - 1, Cwnd_gain: 17}: false, // no time seen yet
	} {
		if near(path) != want {
			t.Errorf("%+v: near %v, want %v", path, !want, want)
		}
	}
}

// control gives a socket a congestion control, and a test its reason to skip where the kernel lacks it.
func control(t testing.TB, fd int, name string) {
	t.Helper()
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name); err != nil {
		t.Skipf("this kernel, or its tcp_allowed_congestion_control, has no %s: %v", name, err)
	}
}

// carry sends n bytes from the socket fd to a peer that reads them, more than it takes at all times.
func carry(t testing.TB, fd int, peer *net.TCPConn, n int64) {
	t.Helper()
	dup, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(dup), "socket")
	from, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	arrived := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, peer, n)
		arrived <- err
	}()
	_, err = io.CopyBuffer(struct{ io.Writer }{from}, &stream{left: int(n)}, make([]byte, 1<<20))
	if err := errors.Join(err, from.Close(), receive(t, "the end of what was sent", arrived)); err != nil {
		t.Fatal(err)
	}
}

// TestQuantum: whose peer is near sends whole segments, as many as go at once, as soon as BBR knows.
func TestQuantum(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	control(t, fd, "bbr")
	c := mustAdopt(t, l, fd, &sink{})
	if q := c.quantum(); q != 0 {
		t.Errorf("%d at once before anything was sent", q)
	}
	carry(t, fd, peer, 16<<20)
	mss, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	if err != nil {
		t.Fatal(err)
	}
	if q := c.quantum(); q != quantumOf(int64(mss)) {
		path, ok := bbrInfo(c.fd)
		t.Errorf("%d at once towards a peer on this machine, segments have %d (%+v, %v)", q, mss, path, ok)
	}
	allocations(t, "asking", func() { c.quantum() })
}

// TestQuantumSlowPath: over a path of a gigabit a second all goes at once.
func TestQuantumSlowPath(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := slowPair(t)
	control(t, fd, "bbr")
	c := mustAdopt(t, l, fd, &sink{})
	carry(t, fd, peer, 16<<20)
	if path, ok := bbrInfo(c.fd); !ok || path.Bw_lo == 0 || path.Bw_hi > 0 || path.Bw_lo >= nearMin {
		t.Errorf("BBR: %v, %+v", ok, path)
	}
	if q := c.quantum(); q != 0 {
		t.Errorf("%d at once", q)
	}
}

// slowPair is a tcpPair in a network namespace of its own whose loopback device carries a gigabit a second; a reason to skip
// where that cannot be made. The test's thread stays there, and ends with the test.
func slowPair(t testing.TB) (int, *net.TCPConn) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs root, for a network namespace: %v", err)
	}
	for _, step := range []string{"ip link set lo mtu 1500 up", "tc qdisc add dev lo root tbf rate 1gbit burst 5kb latency 100ms"} {
		args := strings.Fields(step)
		if printed, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("needs iproute2 and a kernel with tbf: %s: %v: %s", step, err, printed)
		}
	}
	return tcpPair(t)
}

// TestQuantumOtherControl: what is not BBR is asked once a connection.
func TestQuantumOtherControl(t *testing.T) {
	for _, name := range []string{"cubic", "reno"} {
		t.Run(name, func(t *testing.T) {
			l := steppedLoop(t)
			fd, peer := tcpPair(t)
			control(t, fd, name)
			c := mustAdopt(t, l, fd, &sink{})
			carry(t, fd, peer, 4<<20)
			if q := c.quantum(); q != 0 || c.flags&flagNotBBR == 0 {
				t.Errorf("%d at once, flags %b", q, c.flags)
			}
		})
	}
}

// TestSpliceQuantum: a body moves a quantum a turn, whole and in order, through an ordinary pipe, however much waits.
func TestSpliceQuantum(t *testing.T) {
	const n, quantum = shortBodyMax, lowatAfter + 1000
	l := steppedLoop(t)
	m := &mover{}
	fdFrom, in := tcpPairBuffers(t, 1<<20)
	fdTo, out := tcpPair(t)
	from, to := mustAdopt(t, l, fdFrom, m), mustAdopt(t, l, fdTo, m)
	go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{in}, &stream{left: n}, make([]byte, 1<<20)) }()
	sum := make(chan [32]byte, 1)
	go func() {
		h := sha256.New()
		_, _ = io.CopyN(h, out, n)
		sum <- [32]byte(h.Sum(nil))
	}()
	eventually(t, "more than one turn moves", func() bool {
		waits, err := unix.IoctlGetInt(fdFrom, unix.TIOCINQ)
		return err == nil && waits >= 2*quantum
	})
	m.s.Start(from, to, n)
	m.s.quantum, m.s.ask = quantum, n // as if it had been asked for
	if m.s.piece() != quantum || m.s.turn() != quantum {
		t.Errorf("pieces of %d bytes, turns of %d", m.s.piece(), m.s.turn())
	}
	most, raised := int64(0), false
	for end := time.Now().Add(patience); !m.ended && time.Now().Before(end); {
		pumps, reported := m.pumps, m.reported
		l.round(min(max(l.sleep(), 0), 10))
		raised = raised || from.lowatAt != 0
		if m.pumps == pumps+1 {
			most = max(most, m.reported-reported)
		}
	}
	if m.err != nil || m.s.Moved() != n || receive(t, "what arrived", sum) != streamDigest(stream{left: n}) {
		t.Errorf("%v after %d bytes, or others arrived", m.err, m.s.Moved())
	}
	if most < quantum || most >= 2*quantum {
		t.Errorf("one turn moved %d bytes", most)
	}
	if l.pipes.made != 0 || raised {
		t.Errorf("%d large pipes were made, SO_RCVLOWAT was raised: %v", l.pipes.made, raised)
	}
}

// TestSpliceLearns: the destination is asked while a body moves, since a fresh connection knows nothing yet.
func TestSpliceLearns(t *testing.T) {
	const n = 64 << 20
	l := steppedLoop(t)
	m := &mover{}
	fdFrom, in := tcpPair(t)
	fdTo, out := tcpPair(t)
	control(t, fdTo, "bbr")
	from, to := mustAdopt(t, l, fdFrom, m), mustAdopt(t, l, fdTo, m)
	go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{in}, &stream{left: n}, make([]byte, 1<<20)) }()
	go func() { _, _ = io.Copy(io.Discard, out) }()
	m.s.Start(from, to, n)
	learned := false
	rounds(t, l, "all of it", func() bool {
		l.round(0)
		learned = learned || m.s.quantum > 0
		return m.ended
	})
	if !learned {
		path, ok := bbrInfo(to.fd)
		t.Errorf("%d bytes went to a peer on this machine as to any other (%+v, %v)", n, path, ok)
	}
}

// TestSpliceAsks: what is short is not worth asking, tunnels have small pieces anyway, and all else is asked once more soon
// and then from time to time.
func TestSpliceAsks(t *testing.T) {
	l := steppedLoop(t)
	fd, _ := tcpPair(t)
	to := mustAdopt(t, l, fd, &sink{})
	for n, asks := range map[int64]bool{-1: false, 0: false, quantaMin - 1: false, quantaMin: true, 1 << 40: true} {
		var s Splicer
		s.Start(to, to, n)
		if s.turn(); (s.ask == quantaFirst) != asks {
			t.Errorf("%d bytes: asked %v, want %v", n, !asks, asks)
		}
		s.moved = quantaFirst
		if s.turn(); (s.ask == quantaFirst+quantaAgain) != asks {
			t.Errorf("%d bytes: asked again %v, want %v", n, !asks, asks)
		}
	}
}

func BenchmarkQuantum(b *testing.B) {
	for _, name := range []string{"bbr", "cubic"} {
		b.Run(name, func(b *testing.B) {
			l := steppedLoop(b)
			fd, peer := tcpPair(b)
			control(b, fd, name)
			c := mustAdopt(b, l, fd, &sink{})
			carry(b, fd, peer, 4<<20)
			b.ReportAllocs()
			for b.Loop() {
				c.flags &^= flagNotBBR
				c.quantum()
			}
		})
	}
}
