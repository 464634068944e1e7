package fastpath

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// source writes a stream in pieces, as many as Room allows, then ends its side.
type source struct {
	stream
	piece    func() int
	writable int // calls of OnWritable
	stuck    bool
	done     bool
	held     int // the most memory that output had
	closing  func(*Conn)
}

func (s *source) pump(c *Conn) {
	buf := make([]byte, 70<<10)
	for s.left > 0 {
		room := c.Room()
		s.held = max(s.held, cap(c.out))
		if c.tls != nil {
			s.held = max(s.held, cap(c.tls.pending))
		}
		if room == 0 {
			s.stuck = true
			return
		}
		n, _ := s.stream.Read(buf[:min(room, s.piece())])
		c.Write(buf[:n])
		clear(buf[:n]) // what Write was given is the caller's again
	}
	if !s.done {
		s.done = true
		s.closing(c)
	}
}

func (s *source) OnReadable(c *Conn)        { s.pump(c) }
func (s *source) OnDeadline(*Conn)          {}
func (s *source) OnHandshake(*Conn, *Error) {}
func (s *source) OnWritable(c *Conn) {
	s.writable++
	s.stuck = false
	s.pump(c)
}

func pieces(sizes ...int) func() int {
	rng := rand.New(rand.NewPCG(8, 9))
	return func() int { return sizes[rng.IntN(len(sizes))] }
}

func TestOutputLeavesWithTheTurn(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	done := false
	c := mustAdopt(t, l, fd, &hooks{readable: func(c *Conn) {
		c.Write([]byte("head, "))
		c.Write([]byte("body"))
		if c.Sent() != 0 || !c.Pending() {
			t.Error("small output was not staged")
		}
		done = true
	}})
	_, _ = peer.Write([]byte("?"))
	rounds(t, l, "input", func() bool { return done })
	if c.Pending() || c.Sent() != 10 || c.out != nil {
		t.Errorf("after the turn: pending %v, sent %d, buffer held %v", c.Pending(), c.Sent(), c.out != nil)
	}
	b := make([]byte, 100)
	if n, _ := peer.Read(b); string(b[:n]) != "head, body" {
		t.Errorf("the peer read %q at once", b[:n])
	}
}

// TestOutputOfABatch: what several turns of a batch stage leaves together, in bounded groups and before the loop waits.
func TestOutputOfABatch(t *testing.T) {
	l := steppedLoop(t)
	const n = 3*flushBatch + 1
	var conns []*Conn
	var peers []*net.TCPConn
	most, turns := 0, 0
	h := &hooks{readable: func(c *Conn) {
		turns++
		_ = c.Fill(100)
		c.Discard(len(c.Buffered()))
		c.Write([]byte("answer"))
		staged := 0
		for _, o := range conns {
			if o.Pending() {
				staged++
			}
		}
		most = max(most, staged)
	}}
	for range n {
		fd, peer := tcpPair(t)
		conns, peers = append(conns, mustAdopt(t, l, fd, h)), append(peers, peer)
	}
	for _, p := range peers {
		_, _ = p.Write([]byte("question"))
	}
	rounds(t, l, "all questions", func() bool { return turns == n })
	for i, c := range conns {
		if c.Pending() || c.Sent() != uint64(len("answer")) {
			t.Errorf("connection %d of the batch: sent %d", i, c.Sent())
		}
	}
	if most > flushBatch {
		t.Errorf("%d connections had output staged at once", most)
	}
}

// TestRoomIsWatchedOnlyWhenNeeded: a new connection causes no event, and one that was blocked hears of room again and
// again.
func TestRoomIsWatchedOnlyWhenNeeded(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPairBuffers(t, 16<<10)
	writable := 0
	c := mustAdopt(t, l, fd, &hooks{writable: func(*Conn) { writable++ }})
	l.round(0)
	if n := l.Stats.Events.Load(); n != 0 {
		t.Errorf("%d events for a connection that nothing happened to", n)
	}
	for i := range 5 {
		total := 0
		for c.Room() > 0 {
			c.Write(payload(total, 20_000))
			total += 20_000
		}
		got := make(chan []byte, 1)
		go func() {
			b := make([]byte, total)
			_, _ = io.ReadFull(peer, b)
			got <- b
		}()
		rounds(t, l, "OnWritable", func() bool { return writable == i+1 })
		same(t, "output", receive(t, "the output", got), payload(0, total))
	}
}

func TestLargeOutputLeavesAtOnce(t *testing.T) {
	l := steppedLoop(t)
	fd, _ := tcpPair(t)
	c := mustAdopt(t, l, fd, &hooks{})
	c.Write(make([]byte, directWriteBytes))
	if c.Sent() != directWriteBytes {
		t.Errorf("a large write waits: sent %d", c.Sent())
	}
	c.Write(make([]byte, 100))
	c.Write(make([]byte, directWriteBytes))
	if c.Sent() != 2*directWriteBytes+100 || c.Pending() {
		t.Errorf("a staged head and a large write: sent %d", c.Sent())
	}
	for range outputFlushBytes/1000 + 1 {
		c.Write(make([]byte, 1000))
	}
	if c.Sent() < 2*directWriteBytes+100+outputFlushBytes {
		t.Errorf("small writes gather beyond outputFlushBytes: sent %d", c.Sent())
	}
}

// TestBackPressure: a peer that does not read stops the writer after a bounded amount; when it reads again, the writer
// hears of it, and every byte arrives once and in order. Pieces below and above directWriteBytes take different ways, and
// a mixture makes the large ones meet a staged head.
func TestBackPressure(t *testing.T) {
	cases := []struct {
		name  string
		piece func() int
	}{
		{"small", pieces(700)},
		{"large", pieces(30_000)},
		{"mixed", pieces(1, 100, 5000, directWriteBytes-1, directWriteBytes, 20_000, 65_536)},
	}
	const total = 6 << 20
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := startLoop(t)
			s := &source{stream: stream{left: total}, piece: c.piece, closing: (*Conn).CloseWrite}
			fd, peer := tcpPairBuffers(t, 64<<10)
			conn := adoptFD(t, l, fd, s)
			on(t, l, func() { s.pump(conn) })
			onEventually(t, l, "a full socket", func() bool { return s.stuck })
			on(t, l, func() {
				if conn.Room() != 0 || !conn.Blocked() {
					t.Errorf("stuck with room %d, blocked %v", conn.Room(), conn.Blocked())
				}
				if conn.Sent() > 1<<20 {
					t.Errorf("the kernel took %d bytes, the test needs smaller buffers", conn.Sent())
				}
			})
			sum, n, err := digest(peer)
			if err != nil || n != total || sum != streamDigest(stream{left: total}) {
				t.Errorf("the peer read %d of %d bytes, %v; digest equal: %v", n, total, err, sum == streamDigest(stream{left: total}))
			}
			on(t, l, func() {
				if s.writable == 0 {
					t.Error("OnWritable never came")
				}
				if s.held > 2*outputBytesMax {
					t.Errorf("output held %d bytes", s.held)
				}
				if conn.Sent() != total {
					t.Errorf("Sent() is %d", conn.Sent())
				}
			})
		})
	}
}

// TestWritesBeyondRoomAreKept: framing and heads may exceed Room, as the contract of Write says.
func TestWritesBeyondRoomAreKept(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPairBuffers(t, 16<<10)
	c := mustAdopt(t, l, fd, &hooks{})
	h := sha256.New()
	for i := 0; c.Room() > 0; i++ {
		b := payload(i, 10_000)
		h.Write(b)
		c.Write(b)
	}
	for range 5 {
		b := payload(99, 500)
		h.Write(b)
		c.Write(b)
	}
	c.CloseWrite()
	c.Write([]byte("what comes after the end is nobody's"))
	sum := make(chan [32]byte, 1)
	go func() {
		s, _, _ := digest(peer)
		sum <- s
	}()
	rounds(t, l, "everything sent", func() bool { return !c.Pending() })
	if got := receive(t, "the digest", sum); got != [32]byte(h.Sum(nil)) {
		t.Error("the peer read something else")
	}
}

// TestCloseWriteComesLast: FIN follows the output, however long that waits; input goes on.
func TestCloseWriteComesLast(t *testing.T) {
	l := startLoop(t)
	s := &sink{}
	fd, peer := tcpPairBuffers(t, 16<<10)
	c := adoptFD(t, l, fd, s)
	want := payload(5, 300_000)
	on(t, l, func() {
		c.Write(want)
		c.CloseWrite()
		c.CloseWrite() // twice is once
		if !c.Pending() {
			t.Error("the test needs output that waits")
		}
	})
	got, err := io.ReadAll(peer)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "output before the end", got, want)
	_, _ = peer.Write([]byte("still here"))
	onEventually(t, l, "input after our end", func() bool { return string(s.got) == "still here" })
	on(t, l, c.Close)
}

func TestOutputOfABrokenConnGoesNowhere(t *testing.T) {
	l := startLoop(t)
	s := &source{stream: stream{left: 64 << 20}, piece: pieces(20_000, 3000), closing: (*Conn).Close}
	fd, peer := tcpPairBuffers(t, 16<<10)
	c := adoptFD(t, l, fd, s)
	on(t, l, func() { s.pump(c) })
	onEventually(t, l, "a full socket", func() bool { return s.stuck })
	reset(peer)
	// the owner that waited for room is told, writes on, and nothing is kept
	onEventually(t, l, "the writer's end", func() bool { return s.done })
	on(t, l, func() {
		if s.held > 2*outputBytesMax {
			t.Errorf("output held %d bytes", s.held)
		}
	})
}

// TestFailedWriteIsTold: the reset's event came and its owner did not read. A write that fails later brings no event of its
// own, and the owner hears of it all the same.
func TestFailedWriteIsTold(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	calls := 0
	c := mustAdopt(t, l, fd, &hooks{readable: func(*Conn) { calls++ }})
	reset(peer)
	rounds(t, l, "the reset's event", func() bool { return calls == 1 })
	c.Write([]byte("into the void"))
	l.endTurn()
	rounds(t, l, "another OnReadable", func() bool { return calls == 2 })
	if err := c.Fill(100); err != ErrReset {
		t.Errorf("Fill: %v", err)
	}
}

// TestBothWaysAtOnce: an echo moves input and output of one connection together, under pressure from both ends.
func TestBothWaysAtOnce(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPairBuffers(t, 64<<10)
	adoptFD(t, l, fd, &echo{})
	echoed(t, peer, 16<<20)
}

// echoed sends n bytes and expects them back, then an orderly end.
func echoed(t testing.TB, peer net.Conn, n int) {
	t.Helper()
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{peer}, &stream{left: n}, make([]byte, 40_000))
		_ = peer.(interface{ CloseWrite() error }).CloseWrite()
	}()
	sum, got, err := digest(peer)
	if err != nil || got != int64(n) || sum != streamDigest(stream{left: n}) {
		t.Errorf("echo of %d bytes: %d came back, %v", n, got, err)
	}
}
