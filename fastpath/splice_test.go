package fastpath

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mover owns both connections of a splice.
type mover struct {
	s        Splicer
	ended    bool
	err      *Error // nil and ended: all has arrived
	reported int64  // sum of what Pump returned
	pumps    int
}

func (m *mover) OnReadable(c *Conn) {
	if c == m.s.from || c.Broken() {
		m.pump()
	}
}
func (m *mover) OnWritable(*Conn) { m.pump() }
func (m *mover) OnDeadline(*Conn) {}

func (m *mover) pump() {
	if m.ended {
		return
	}
	n, err := m.s.Pump()
	m.reported += n
	m.pumps++
	if err != ErrWouldBlock {
		m.ended, m.err = true, err
	}
}

// spliced starts a splice of n bytes between two fresh connections: ours to read from and its peer, ours to write to and
// its peer.
func spliced(t testing.TB, l *Loop, n int64, kernelBytes int) (m *mover, from *Conn, in *net.TCPConn, to *Conn, out *net.TCPConn) {
	t.Helper()
	m = &mover{}
	fdFrom, in := tcpPairBuffers(t, kernelBytes)
	fdTo, out := tcpPairBuffers(t, kernelBytes)
	on(t, l, func() {
		from, to = mustAdopt(t, l, fdFrom, m), mustAdopt(t, l, fdTo, m)
		m.s.Start(from, to, n)
		m.pump()
	})
	return m, from, in, to, out
}

func TestSpliceExactly(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 65_536, 100_001, 3 << 20} {
		l := startLoop(t)
		m, from, in, to, out := spliced(t, l, int64(n), 0)
		go func() { _, _ = in.Write(payload(0, n+5000)) }()
		got := make([]byte, n)
		if _, err := io.ReadFull(out, got); err != nil {
			t.Fatal(err)
		}
		same(t, "what arrived", got, payload(0, n))
		onEventually(t, l, "the end of the splice", func() bool { return m.ended })
		s := &sink{}
		on(t, l, func() {
			if m.err != nil || m.s.Moved() != int64(n) || m.reported != int64(n) || to.Sent() != uint64(n) {
				t.Errorf("%d bytes: %v, moved %d, reported %d, sent %d", n, m.err, m.s.Moved(), m.reported, to.Sent())
			}
			m.s.Stop()
			if m.s.Active() {
				t.Error("active after Stop")
			}
			from.SetHandler(s)
			from.Again()
		})
		onEventually(t, l, "what follows the body", func() bool { return len(s.got) == 5000 })
		on(t, l, func() { same(t, "what follows the body", s.got, payload(n, 5000)) })
	}
}

func TestSpliceUntilTheEnd(t *testing.T) {
	const n = 20 << 20
	l := startLoop(t)
	m, _, in, to, out := spliced(t, l, -1, 0)
	on(t, l, func() { to.Write([]byte("a staged head, ")) })
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{in}, &stream{left: n}, make([]byte, 100_000))
		_ = in.CloseWrite()
	}()
	head := make([]byte, len("a staged head, "))
	if _, err := io.ReadFull(out, head); err != nil || string(head) != "a staged head, " {
		t.Errorf("head %q, %v", head, err)
	}
	h := sha256.New()
	if _, err := io.CopyN(h, out, n); err != nil || [32]byte(h.Sum(nil)) != streamDigest(stream{left: n}) {
		t.Errorf("something else arrived, %v", err)
	}
	onEventually(t, l, "the end", func() bool { return m.ended })
	on(t, l, func() {
		if m.err != ErrEOF || m.s.Moved() != n {
			t.Errorf("%v after %d bytes", m.err, m.s.Moved())
		}
		if len(l.pipes.idle) != 1 || l.pipes.idle[0].n != 0 || m.s.pipe != nil {
			t.Errorf("%d pipes are back", len(l.pipes.idle))
		}
	})
}

// TestSpliceBehindStagedOutput: a head that the destination does not take yet goes first, and the splice goes on by itself
// when it has left.
func TestSpliceBehindStagedOutput(t *testing.T) {
	l := startLoop(t)
	m := &mover{}
	fdFrom, in := tcpPair(t)
	fdTo, out := tcpPairBuffers(t, 16<<10)
	_, _ = in.Write(payload(0, 5000))
	head := payload(9, 300_000)
	on(t, l, func() {
		from, to := mustAdopt(t, l, fdFrom, m), mustAdopt(t, l, fdTo, m)
		to.Write(head)
		m.s.Start(from, to, 5000)
		m.pump()
		if m.ended || !to.Pending() {
			t.Error("the test needs output that waits")
		}
	})
	got := make([]byte, len(head)+5000)
	if _, err := io.ReadFull(out, got); err != nil {
		t.Fatal(err)
	}
	same(t, "head and body", got, append(head, payload(0, 5000)...))
}

func TestSpliceSourceEndsEarly(t *testing.T) {
	l := startLoop(t)
	m, _, in, _, out := spliced(t, l, 1<<20, 0)
	_, _ = in.Write(payload(0, 1000))
	_ = in.CloseWrite()
	onEventually(t, l, "the end", func() bool { return m.ended })
	if m.err != ErrEOF {
		t.Errorf("ended with %v", m.err)
	}
	got := make([]byte, 1000)
	_, _ = io.ReadFull(out, got)
	same(t, "what arrived", got, payload(0, 1000))
}

func TestSpliceResets(t *testing.T) {
	t.Run("source", func(t *testing.T) {
		l := startLoop(t)
		m, from, in, to, _ := spliced(t, l, -1, 0)
		reset(in)
		onEventually(t, l, "the end", func() bool { return m.ended })
		on(t, l, func() {
			if m.err != ErrReset || !from.Broken() || to.Broken() {
				t.Errorf("%v, source broken %v, destination broken %v", m.err, from.Broken(), to.Broken())
			}
		})
	})
	t.Run("destination", func(t *testing.T) {
		l := startLoop(t)
		m, from, in, to, out := spliced(t, l, -1, 16<<10)
		go func() { _, _ = in.Write(payload(0, 4<<20)) }()
		onEventually(t, l, "a full destination", func() bool { return to.Blocked() })
		reset(out)
		onEventually(t, l, "the end", func() bool { return m.ended })
		on(t, l, func() {
			if m.err != ErrReset || from.Broken() || !to.Broken() {
				t.Errorf("%v, source broken %v, destination broken %v", m.err, from.Broken(), to.Broken())
			}
			m.s.Stop()
			if len(l.pipes.idle) != 0 {
				t.Error("a pipe with bytes in it was put back")
			}
		})
	})
	t.Run("source that a write met first", func(t *testing.T) {
		l := startLoop(t)
		m, from, in, _, _ := spliced(t, l, -1, 0)
		on(t, l, func() {
			reset(in)
			from.Write(make([]byte, directWriteBytes)) // takes the kernel's error
		})
		onEventually(t, l, "the end", func() bool { return m.ended })
		if m.err != ErrReset {
			t.Errorf("a reset passed for %v", m.err)
		}
	})
}

// TestSpliceSlowReader: as much as the pipe and the kernel's buffers hold is taken, no more; when the reader goes on, so
// does all.
func TestSpliceSlowReader(t *testing.T) {
	const n = 32 << 20
	l := startLoop(t)
	m, from, in, to, out := spliced(t, l, n, 64<<10)
	wrote := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{in}, &stream{left: n}, make([]byte, 100_000))
		wrote <- err
	}()
	var was uint64
	onEventually(t, l, "standstill", func() bool {
		still := to.Blocked() && from.Received() == was
		was = from.Received()
		return still
	})
	if was > 2<<20 {
		t.Errorf("%d bytes were taken for a reader that takes none", was)
	}
	on(t, l, func() {
		if m.s.pipe == nil || m.s.pipe.n == 0 || int64(was) != m.s.Moved()+int64(m.s.pipe.n) {
			t.Error("bytes are elsewhere than in the pipe and the socket")
		}
	})
	h := sha256.New()
	if _, err := io.CopyN(h, out, n); err != nil || [32]byte(h.Sum(nil)) != streamDigest(stream{left: n}) {
		t.Errorf("something else arrived, %v", err)
	}
	if err := receive(t, "the writer's end", wrote); err != nil {
		t.Error(err)
	}
}

// TestSpliceIsFair: a bulk splice gives way to others after its share.
func TestSpliceIsFair(t *testing.T) {
	l := steppedLoop(t)
	m := &mover{}
	fdFrom, in := tcpPairBuffers(t, 4<<20)
	fdTo, out := tcpPairBuffers(t, 4<<20)
	go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{in}, &stream{left: 64 << 20}, make([]byte, 1<<20)) }()
	go func() { _, _ = io.Copy(io.Discard, out) }()
	from, to := mustAdopt(t, l, fdFrom, m), mustAdopt(t, l, fdTo, m)
	m.s.Start(from, to, 64<<20)
	most := int64(0)
	rounds(t, l, "all of it", func() bool {
		pumps, reported := m.pumps, m.reported
		l.round(0)
		if m.pumps == pumps+1 {
			most = max(most, m.reported-reported)
		}
		return m.ended
	})
	if most > 4*turnBytes+pipeBytes {
		t.Errorf("one turn moved %d bytes", most)
	}
}

func lowWater(t testing.TB, c *Conn) int {
	n, err := unix.GetsockoptInt(c.FD(), unix.SOL_SOCKET, unix.SO_RCVLOWAT)
	if err != nil {
		t.Error(err)
	}
	return n
}

// heldBack is far more than SO_RCVLOWAT may hold bytes back; without its reset they would wait for ever.
const heldBack = 5 * time.Second

// dawdler is a splice whose source is led by hand: bulk makes the kernel hold n bytes before the loop looks.
type dawdler struct {
	t       *testing.T
	l       *Loop
	m       *mover
	from    *Conn
	in, out *net.TCPConn
	at      int
}

func newDawdler(t *testing.T, n int) *dawdler {
	l := startLoop(t)
	m, from, in, _, out := spliced(t, l, int64(n), 1<<20)
	on(t, l, func() { m.s.quantum, m.s.ask = 0, int64(n) }) // whatever congestion control this machine has
	return &dawdler{t: t, l: l, m: m, from: from, in: in, out: out}
}

func (d *dawdler) bulk(n int) {
	d.t.Helper()
	on(d.t, d.l, func() { _, _ = d.in.Write(payload(d.at, n)) })
	d.arrived(n)
}

// slowly sends n bytes and returns how long they took to arrive.
func (d *dawdler) slowly(n int) time.Duration {
	d.t.Helper()
	begin := time.Now()
	_, _ = d.in.Write(payload(d.at, n))
	d.arrived(n)
	return time.Since(begin)
}

func (d *dawdler) arrived(n int) {
	d.t.Helper()
	got := make([]byte, n)
	if _, err := io.ReadFull(d.out, got); err != nil {
		d.t.Fatalf("after %d bytes: %v", d.at, err)
	}
	same(d.t, "what arrived", got, payload(d.at, n))
	d.at += n
}

func (d *dawdler) raise() {
	d.t.Helper()
	for range 10 {
		d.bulk(200_000)
		if d.lowWater() > 1 {
			return
		}
	}
	d.t.Fatal("SO_RCVLOWAT is never raised for a bulk sender")
}

func (d *dawdler) lowWater() (n int) {
	on(d.t, d.l, func() { n = lowWater(d.t, d.from) })
	return n
}

// TestSpliceDawdlingSource: a sender in bulk wakes the loop for more at once. When it dawdles, what it sends is not held
// back beyond a moment.
func TestSpliceDawdlingSource(t *testing.T) {
	d := newDawdler(t, 100<<20)
	for range 3 {
		d.raise()
		if took := d.slowly(1000); took > heldBack {
			t.Errorf("1000 bytes were held back for %v", took)
		}
		if n := d.lowWater(); n != 1 {
			t.Errorf("SO_RCVLOWAT is %d after a pause", n)
		}
		if took := d.slowly(1); took > heldBack {
			t.Errorf("a byte was held back for %v", took)
		}
	}
	onEventually(t, d.l, "an empty list of raised connections", func() bool { return len(d.l.lowats) == 0 })
}

// TestSpliceRaisedLowWaterAndTheEnd: FIN and RST are seen though fewer bytes than SO_RCVLOWAT wait.
func TestSpliceRaisedLowWaterAndTheEnd(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){"FIN": func(c *net.TCPConn) { _ = c.CloseWrite() }, "RST": reset} {
		d := newDawdler(t, 100<<20)
		d.raise()
		end(d.in)
		want := map[string]*Error{"FIN": ErrEOF, "RST": ErrReset}[name]
		onEventually(t, d.l, "the end", func() bool { return d.m.ended })
		if d.m.err != want {
			t.Errorf("%s: ended with %v", name, d.m.err)
		}
	}
}

// TestSpliceTail: the last bytes of a body do not wait for more, which never comes.
func TestSpliceTail(t *testing.T) {
	for _, tail := range []int{1000, lowatAfter - 1, lowatAfter, 100_000, rcvLowatMax + 1000} {
		bulk := 0
		d := newDawdler(t, 100<<20)
		d.raise()
		on(t, d.l, func() { bulk = d.at; d.m.s.left = int64(200_000 + tail) })
		d.bulk(200_000)
		n := d.lowWater()
		if n > tail {
			t.Errorf("a tail of %d bytes is waited for with SO_RCVLOWAT %d", tail, n)
		}
		if tail < lowatAfter && n != 1 {
			t.Errorf("a tail of %d bytes: SO_RCVLOWAT %d", tail, n)
		}
		if took := d.slowly(tail / 2); took > heldBack {
			t.Errorf("half of a tail of %d bytes was held back for %v", tail, took)
		}
		d.slowly(tail - tail/2)
		onEventually(t, d.l, "the end", func() bool { return d.m.ended })
		if d.m.err != nil || d.m.s.Moved() != int64(bulk+200_000+tail) || d.lowWater() != 1 {
			t.Errorf("%v after %d bytes, SO_RCVLOWAT %d", d.m.err, d.m.s.Moved(), d.lowWater())
		}
	}
}

func TestSpliceStopResetsLowWater(t *testing.T) {
	d := newDawdler(t, 100<<20)
	d.raise()
	on(t, d.l, d.m.s.Stop)
	if n := d.lowWater(); n != 1 {
		t.Errorf("SO_RCVLOWAT is %d after Stop", n)
	}
}

// TestDescriptorsRunOut: neither a dial nor a splice does more than say so.
func TestDescriptorsRunOut(t *testing.T) {
	l := steppedLoop(t)
	_, to := listen(t, "tcp4", "127.0.0.1:0")
	m := &mover{}
	fdFrom, in := tcpPair(t)
	fdTo, out := tcpPair(t)
	from, dst := mustAdopt(t, l, fdFrom, m), mustAdopt(t, l, fdTo, m)
	_, _ = in.Write([]byte("x"))
	rounds(t, l, "input", from.Readable)

	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Skip(err)
	}
	none := syscall.Rlimit{Cur: 3, Max: was.Max} // 0 to 2 are in use
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Skip(err)
	}
	_, dialErr := l.Dial(to, time.Second, &hooks{})
	m.s.Start(from, dst, -1)
	_, spliceErr := m.s.Pump()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if dialErr != ErrNoDescriptor || spliceErr != ErrNoDescriptor {
		t.Errorf("Dial: %v; Pump: %v", dialErr, spliceErr)
	}
	if _, err := m.s.Pump(); err != ErrWouldBlock {
		t.Errorf("with descriptors again: %v", err)
	}
	b := make([]byte, 1)
	if n, err := out.Read(b); n != 1 || b[0] != 'x' || errors.Is(err, io.EOF) {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
}

// TestSpliceStalledReader offers a body of 768 MB to a reader that takes none, over a connection whose bodies before it came in large
// pieces, by which the kernel has widened its window: what is taken stays within what the machine's operator allows one socket
// to receive, and what waits to be sent. What the reader's own socket holds is elsewhere but in a test.
func TestSpliceStalledReader(t *testing.T) {
	const offer, short, shorts = 768 << 20, shortBodyMax, 32
	allowed := receiveMax(t) + 16<<20
	l := startLoop(t)
	m, from, in, to, out := spliced(t, l, short, 0)
	wrote := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{in}, &stream{left: shorts * short}, make([]byte, 1<<20))
		wrote <- err
	}()
	for i := range shorts {
		if i > 0 {
			on(t, l, func() {
				m.s.Start(from, to, short)
				m.ended = false
				m.pump()
			})
		}
		if _, err := io.CopyN(io.Discard, out, short); err != nil {
			t.Fatal(err)
		}
		onEventually(t, l, "the end of a body", func() bool { return m.ended && m.err == nil })
	}
	if err := receive(t, "the writer's end", wrote); err != nil {
		t.Fatal(err)
	}
	on(t, l, func() {
		m.s.Start(from, to, offer)
		m.ended = false
	})
	taken := 0
	for piece := make([]byte, 1<<20); taken < offer; {
		_ = in.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := in.Write(piece)
		if taken += n; err != nil {
			break
		}
	}
	theirs := queued(t, out)
	if taken-theirs > allowed {
		t.Errorf("%d MB were taken for a reader that takes none, %d of them by its own kernel; instead of %d", taken>>20, theirs>>20, allowed>>20)
	}
	t.Logf("%.1f MB were taken, %.1f of them by the reader's kernel", float64(taken)/(1<<20), float64(theirs)/(1<<20))
}

// queued is how many bytes conn has received and not read.
func queued(t testing.TB, conn *net.TCPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		if failed := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); failed != nil {
			err = failed
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// receiveMax is the most that the kernel lets a socket's receive buffer grow to (tcp_rmem, tcp(7)).
func receiveMax(t testing.TB) int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_rmem")
	if err != nil {
		t.Fatal(err)
	}
	var least, usual, most int
	if _, err := fmt.Sscan(string(text), &least, &usual, &most); err != nil {
		t.Fatal(err)
	}
	return most
}

// TestSplicePipes: bodies beyond shortBodyMax and those of a length that is not known get no large pipe, no loop makes more than
// largePipesMax of these, and one that was given up full is replaced.
func TestSplicePipes(t *testing.T) {
	var p pipes
	defer p.close()
	var out []*pipe
	for range largePipesMax {
		out = append(out, p.get(true))
	}
	for _, one := range out {
		if one.size != largePipeBytes {
			t.Fatalf("a pipe of %d bytes", one.size)
		}
	}
	small := p.get(true)
	if small.size != pipeBytes {
		t.Errorf("large pipe %d", largePipesMax+1)
	}
	p.put(small)
	if got := p.get(false); got != small {
		t.Error("an idle pipe was not used")
	} else {
		p.put(got)
	}
	out[0].n = 1 // it can only be closed
	for _, one := range out {
		p.put(one)
	}
	if p.made != largePipesMax-1 || len(p.large) != largePipesMax-1 || len(p.idle) != 1 {
		t.Errorf("%d large pipes made, %d idle, %d small ones idle", p.made, len(p.large), len(p.idle))
	}
	if one := p.get(true); one.size != largePipeBytes {
		t.Error("a large pipe that was closed counts still")
	} else {
		p.put(one)
	}
	for n, want := range map[int64]int{-1: pieceBytes, pipeBytes + 1: pipeBytes + 1, shortBodyMax: largePipeBytes, shortBodyMax + 1: pipeBytes} {
		s := Splicer{}
		s.Start(nil, new(Conn), n)
		s.pipe = p.get(s.wantsLarge())
		if got := s.piece(); got != want {
			t.Errorf("of %d bytes %d are taken at once, want %d", n, got, want)
		}
		p.put(s.pipe)
	}
}
