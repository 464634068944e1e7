package fastpath

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen. Only a failing test waits that long.
const patience = time.Minute

// hooks is a Handler, Connector, Handshaker and TunnelEnd made of functions; what is nil is ignored.
type hooks struct {
	readable, writable, deadline func(*Conn)
	connect, handshake           func(*Conn, *Error)
	tunnelEnd                    func(*Tunnel, *Error)
}

func (h *hooks) OnReadable(c *Conn) {
	if h.readable != nil {
		h.readable(c)
	}
}

func (h *hooks) OnWritable(c *Conn) {
	if h.writable != nil {
		h.writable(c)
	}
}

func (h *hooks) OnDeadline(c *Conn) {
	if h.deadline != nil {
		h.deadline(c)
	}
}

func (h *hooks) OnConnect(c *Conn, err *Error) {
	if h.connect != nil {
		h.connect(c, err)
	}
}

func (h *hooks) OnHandshake(c *Conn, err *Error) {
	if h.handshake != nil {
		h.handshake(c, err)
	}
}

func (h *hooks) OnTunnelEnd(t *Tunnel, err *Error) {
	if h.tunnelEnd != nil {
		h.tunnelEnd(t, err)
	}
}

// sink keeps all that a connection receives and how it ended.
type sink struct {
	got []byte
	err *Error
}

func (s *sink) OnReadable(c *Conn) {
	for s.err == nil {
		err := c.Fill(16 << 10)
		s.got = append(s.got, c.Buffered()...)
		c.Discard(len(c.Buffered()))
		if err == ErrWouldBlock {
			return
		}
		s.err = err
	}
}

func (s *sink) OnWritable(*Conn)          {}
func (s *sink) OnDeadline(*Conn)          {}
func (s *sink) OnHandshake(*Conn, *Error) {}

// echo sends back what it reads, as fast as the peer takes it, and ends when the peer has ended.
type echo struct {
	state  *tls.ConnectionState // what the handshake led to
	shaken chan *Error          // if not nil: told of the handshake's end
	ended  *Error
}

func (e *echo) OnReadable(c *Conn) { e.pump(c) }
func (e *echo) OnWritable(c *Conn) { e.pump(c) }
func (e *echo) OnDeadline(*Conn)   {}

func (e *echo) OnHandshake(c *Conn, err *Error) {
	e.state = c.TLS()
	if e.shaken != nil {
		e.shaken <- err
	}
	if err != nil {
		c.CloseLinger()
	}
}

func (e *echo) pump(c *Conn) {
	for moved := 0; moved < turnBytes; {
		room := c.Room()
		if room == 0 {
			return
		}
		if b := c.Buffered(); len(b) > 0 {
			b = b[:min(len(b), room)]
			c.Write(b)
			c.Discard(len(b))
			moved += len(b)
			continue
		}
		switch err := c.Fill(room); err {
		case nil:
		case ErrWouldBlock:
			return
		default:
			e.ended = err
			c.CloseLinger()
			return
		}
	}
	c.Again()
}

// oneByOneOnly has the loops of tests make their calls one by one, as where the kernel gives no ring.
var oneByOneOnly bool

// newTestLoop is a loop with poisoned buffers, and a ring where the kernel gives one.
func newTestLoop(t testing.TB) *Loop {
	t.Helper()
	l, err := NewLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	l.poison = true
	if !oneByOneOnly {
		_ = l.UseRing() // TestRing tells whether it can be had
	}
	return l
}

// startLoop runs a loop with poisoned buffers until the test ends. A panic that the test has not taken out of the
// statistics fails it.
func startLoop(t testing.TB) *Loop {
	t.Helper()
	l := newTestLoop(t)
	done := make(chan struct{})
	go func() {
		l.Run()
		close(done)
	}()
	t.Cleanup(func() {
		l.Stop()
		receive(t, "the loop's end", done)
		if n := l.Stats.Panics.Load(); n != 0 {
			t.Errorf("%d handlers panicked", n)
		}
	})
	return l
}

// quietly drops the log, for tests of what is logged with a stack.
func quietly(t testing.TB) {
	was := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(was) })
}

// steppedLoop is a loop that the test leads itself, by round: nothing happens between two lines of the test.
func steppedLoop(t testing.TB) *Loop {
	t.Helper()
	l := newTestLoop(t)
	t.Cleanup(func() {
		l.closeAll()
		if n := l.Stats.Panics.Load(); n != 0 {
			t.Errorf("%d handlers panicked", n)
		}
	})
	return l
}

// rounds leads a stepped loop until cond holds.
func rounds(t testing.TB, l *Loop, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
		ms := l.sleep()
		if ms < 0 || ms > 10 {
			ms = 10
		}
		l.round(ms)
	}
}

// on runs f on the loop and waits for it. f must not call t.FailNow.
func on(t testing.TB, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	l.Post(func() {
		defer close(done)
		f()
	})
	receive(t, "a turn of the loop", done)
}

// receive takes one value from ch.
func receive[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("in vain: %s", what)
		panic("unreachable")
	}
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// onEventually polls on the loop until cond holds.
func onEventually(t testing.TB, l *Loop, what string, cond func() bool) {
	t.Helper()
	eventually(t, what, func() (ok bool) {
		on(t, l, func() { ok = cond() })
		return ok
	})
}

// tcpPair is a connection over loopback: our end as a descriptor, the peer's end.
func tcpPair(t testing.TB) (int, *net.TCPConn) {
	t.Helper()
	return tcpPairBuffers(t, 0)
}

// tcpPairBuffers is tcpPair with the kernel's buffers of both ends held to about n bytes; 0: as they are.
func tcpPairBuffers(t testing.TB, n int) (int, *net.TCPConn) {
	t.Helper()
	return tcpPairOn(t, "127.0.0.1:0", n)
}

// tcpPairOn is tcpPairBuffers at an address of loopback's.
func tcpPairOn(t testing.TB, address string, n int) (int, *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	small := func(fd int32) {
		if n > 0 {
			setsockopt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, n)
			setsockopt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, n)
		}
	}
	_ = raw.Control(func(fd uintptr) { small(int32(fd)) }) // what is accepted inherits it
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { small(int32(fd)) })
	}}
	peer, err := dialer.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	if err := peer.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fd := -1
	eventually(t, "a connection to accept", func() bool {
		_ = raw.Control(func(lfd uintptr) { fd, _, _ = Accept(int(lfd)) })
		return fd >= 0
	})
	return fd, peer.(*net.TCPConn)
}

// adopt gives a fresh connection to the running loop l.
func adopt(t testing.TB, l *Loop, h Handler) (*Conn, *net.TCPConn) {
	t.Helper()
	fd, peer := tcpPair(t)
	return adoptFD(t, l, fd, h), peer
}

func adoptFD(t testing.TB, l *Loop, fd int, h Handler) (c *Conn) {
	t.Helper()
	on(t, l, func() { c = mustAdopt(t, l, fd, h) })
	return c
}

// mustAdopt is Adopt for a test that is on the loop.
func mustAdopt(t testing.TB, l *Loop, fd int, h Handler) *Conn {
	c, err := l.Adopt(fd, netip.AddrPort{}, h)
	if err != nil {
		t.Errorf("Adopt: %v", err)
		return nil
	}
	NoDelay(int(c.fd))
	return c
}

// block is random, and of a length that divides no buffer's: what is lost, doubled or out of order shows.
var block = func() []byte {
	b := make([]byte, 1048573)
	rng := rand.NewChaCha8([32]byte{7})
	_, _ = rng.Read(b)
	return b
}()

// payload is n bytes that begin somewhere in block.
func payload(start, n int) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(&stream{at: start, left: n}, b)
	return b
}

// stream reads as left bytes of block, over and over.
type stream struct{ at, left int }

func (s *stream) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	from := block[s.at%len(block):]
	n := copy(b[:min(len(b), s.left)], from)
	s.at, s.left = s.at+n, s.left-n
	return n, nil
}

// digest is the SHA-256 of everything that r yields.
func digest(r io.Reader) (sum [32]byte, n int64, err error) {
	h := sha256.New()
	n, err = io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 256<<10))
	h.Sum(sum[:0])
	return sum, n, err
}

func streamDigest(s stream) [32]byte {
	sum, _, _ := digest(&s)
	return sum
}

// same compares without printing megabytes.
func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%s: %d bytes, want %d; the first difference is at %d", what, len(got), len(want), i)
}

// reset makes the peer send RST.
func reset(peer *net.TCPConn) {
	_ = peer.SetLinger(0)
	peer.Close()
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// descriptors is how many are open in this process.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no /proc/self/fd: %v", err)
	}
	return len(entries)
}
