package fastpath

import (
	"cmp"
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

func TestIsNear(t *testing.T) {
	for path, want := range map[unix.TCPBBRInfo]bool{
		{Bw_lo: nearMin, Min_rtt: nearMicros}:           true,
		{Bw_hi: 1, Bw_lo: 0, Min_rtt: 3}:                true,
		{Bw_lo: nearMin - 1, Min_rtt: 3}:                false, // slow
		{Bw_lo: nearMin, Min_rtt: nearMicros + 1}:       false, // far
		{Bw_hi: 2, Min_rtt: 10_000}:                     false,
		{Bw_lo: 0, Min_rtt: 3}:                          false, // nothing sent yet
		{Bw_lo: 4e9, Min_rtt: 1<<32 - 1, Cwnd_gain: 17}: false, // no time seen yet
	} {
		if isNear(path) != want {
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

// TestQuantum: whose peer is near sends whole segments, as many as go at once, as soon as BBR knows. On loopback, whose segments are
// quanta, its socket takes little from then on.
func TestQuantum(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	control(t, fd, "bbr")
	c := mustAdopt(t, l, fd, &sink{})
	if q := c.quantum(); q != 0 || tight(t, c) {
		t.Errorf("%d at once before anything was sent, tight %v", q, tight(t, c))
	}
	carry(t, fd, peer, 16<<20)
	q, mss := c.quantum(), int64(segmentMax(c.fd))
	if q != quantumOf(mss) {
		path, ok := bbrInfo(c.fd)
		t.Errorf("%d at once towards a peer on this machine, segments have %d (%+v, %v)", q, mss, path, ok)
	}
	if mss <= quantumMax/2 || !tight(t, c) {
		t.Errorf("segments of %d bytes, tight: %v", mss, tight(t, c))
	}
	control(t, fd, "cubic") // who is tight is not asked for that again
	if again := c.quantum(); again != q || c.flags&flagNotBBR != 0 {
		t.Errorf("%d at once, and then %d", q, again)
	}
	allocations(t, "asking", func() { c.quantum() })
}

// tight tells whether c's socket was told to take little, and fails the test where one option was given without the other.
func tight(t testing.TB, c *Conn) bool {
	t.Helper()
	unsent, err := unix.GetsockoptInt(int(c.fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
	buffer, err2 := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
	locked, err3 := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	held := locked&unix.SOCK_SNDBUF_LOCK != 0 && buffer <= 2*tightBuffer
	if held != (unsent == 1) || held != (c.flags&flagTight != 0) {
		t.Errorf("at most %d bytes, locked %d, unsent %d, flags %b", buffer, locked, unsent, c.flags)
	}
	return held
}

// TestQuantumSmallSegments: where a quantum has many segments the socket is left as it is: whoever wakes for each of them, as the
// peer takes it, pays more than timers cost (docs/decisions/0112-less-than-the-window.md).
func TestQuantumSmallSegments(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := pairOnDevice(t, "ip link set lo mtu 1500 up")
	control(t, fd, "bbr")
	c := mustAdopt(t, l, fd, &sink{})
	carry(t, fd, peer, 16<<20)
	if q, mss := c.quantum(), int64(segmentMax(c.fd)); q != quantumOf(mss) || mss > 1500 || tight(t, c) {
		path, ok := bbrInfo(c.fd)
		t.Errorf("segments of %d bytes, %d at once, tight: %v (%+v, %v)", mss, q, tight(t, c), path, ok)
	}
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

// slowPair is a tcpPair over a device that carries a gigabit a second.
func slowPair(t testing.TB) (int, *net.TCPConn) {
	t.Helper()
	return pairOnDevice(t, "ip link set lo mtu 1500 up", "tc qdisc add dev lo root tbf rate 1gbit burst 5kb latency 100ms")
}

// pairOnDevice is a tcpPair in a network namespace of its own whose loopback device steps make; a reason to skip where that cannot
// be made. The test's thread stays there, and ends with the test.
func pairOnDevice(t testing.TB, steps ...string) (int, *net.TCPConn) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs root, for a network namespace: %v", err)
	}
	for _, step := range steps {
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

// TestSpliceLearns: the destination is asked while a body moves, or a tunnel's bytes, since a fresh connection knows nothing yet. On
// loopback it then holds no more than a quantum that TCP has not sent, nor more than the congestion window lets go, also where the
// peer stalls; and all arrives.
func TestSpliceLearns(t *testing.T) {
	const n = 64 << 20
	for what, left := range map[string]int64{"body": n, "tunnel": -1} {
		t.Run(what, func(t *testing.T) {
			l := steppedLoop(t)
			m := &mover{}
			fdFrom, in := tcpPair(t)
			fdTo, out := tcpPair(t)
			control(t, fdTo, "bbr")
			from, to := mustAdopt(t, l, fdFrom, m), mustAdopt(t, l, fdTo, m)
			go func() {
				_, _ = io.CopyBuffer(struct{ io.Writer }{in}, &stream{left: n}, make([]byte, 1<<20))
				_ = in.CloseWrite()
			}()
			stall, sum := make(chan struct{}), make(chan [32]byte, 1)
			go func() {
				h := sha256.New()
				_, _ = io.CopyN(h, out, n/2)
				<-stall
				_, _ = io.CopyN(h, out, n/2)
				sum <- [32]byte(h.Sum(nil))
			}()
			m.s.Start(from, to, left)
			unsent, held, learned := 0, 0, int64(0)
			look := func() {
				l.round(0)
				if m.s.quantum == 0 || m.ended {
					return
				}
				if learned = cmp.Or(learned, m.s.Moved()); m.s.Moved() > learned+shortBodyMax { // what was given before has left
					a, err := unix.IoctlGetInt(fdTo, siocOutQNSD)
					b, err2 := unix.IoctlGetInt(fdTo, unix.TIOCOUTQ)
					if err := errors.Join(err, err2); err != nil {
						t.Fatal(err)
					}
					unsent, held = max(unsent, a), max(held, b)
				}
			}
			rounds(t, l, "a peer that stalls", func() bool {
				look()
				return to.Blocked() && m.s.Moved() > n/2
			})
			close(stall)
			rounds(t, l, "all of it", func() bool {
				look()
				return m.ended
			})
			if learned == 0 {
				path, ok := bbrInfo(to.fd)
				t.Fatalf("%d bytes went to a peer on this machine as to any other (%+v, %v)", n, path, ok)
			}
			if unsent > int(segmentMax(to.fd)) || held > 2*tightBuffer+int(segmentMax(to.fd)) || held == 0 {
				t.Errorf("the socket held %d bytes, of which %d were unsent", held, unsent)
			}
			if m.s.Moved() != n || receive(t, "what arrived", sum) != streamDigest(stream{left: n}) {
				t.Errorf("%v after %d bytes, or others arrived", m.err, m.s.Moved())
			}
		})
	}
}

// siocOutQNSD asks how much of what a socket took TCP has not sent (SIOCOUTQNSD of linux/sockios.h).
const siocOutQNSD = 0x894b

// TestSpliceAsks: what is short is not worth asking, a tunnel not before it has carried more, unless its destination is tight already;
// and all is asked once more soon and then from time to time.
func TestSpliceAsks(t *testing.T) {
	l := steppedLoop(t)
	fd, _ := tcpPair(t)
	control(t, fd, "cubic")
	to := mustAdopt(t, l, fd, &sink{})
	asks := func(s *Splicer) bool {
		to.flags &^= flagNotBBR
		s.turn()
		return to.flags&flagNotBBR != 0
	}
	for n, want := range map[int64][3]bool{
		-1:            {false, true, true},
		0:             {},
		quantaMin - 1: {},
		quantaMin:     {true, true, true},
		1 << 40:       {true, true, true},
	} {
		var s Splicer
		s.Start(to, to, n)
		for i, moved := range []int64{0, quantaFirst, quantaFirst + quantaAgain} {
			if s.moved = moved; asks(&s) != want[i] {
				t.Errorf("after %d of %d bytes: asked %v, want %v", moved, n, !want[i], want[i])
			}
			if asks(&s) {
				t.Errorf("after %d of %d bytes: asked twice", moved, n)
			}
		}
	}
	to.flags |= flagTight
	var s Splicer
	if s.Start(to, to, -1); s.turn() == 4*turnBytes {
		t.Error("a tunnel to a tight socket moves more than a quantum")
	}
}

func BenchmarkQuantum(b *testing.B) {
	for name, forget := range map[string]connFlags{"bbr": flagTight, "cubic": flagNotBBR, "tight": 0} {
		b.Run(name, func(b *testing.B) {
			l := steppedLoop(b)
			fd, peer := tcpPair(b)
			control(b, fd, strings.Replace(name, "tight", "bbr", 1))
			c := mustAdopt(b, l, fd, &sink{})
			carry(b, fd, peer, 4<<20)
			b.ReportAllocs()
			for b.Loop() {
				c.flags &^= forget
				c.quantum()
			}
		})
	}
}
