package fastpath

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// framer reads frames (length, bytes) and takes only whole ones: what is incomplete stays unread between turns.
type framer struct {
	rng *rand.Rand
	got []byte
	err *Error
}

func (f *framer) OnReadable(c *Conn) {
	for {
		err := c.Fill(1 + f.rng.IntN(9000))
		f.take(c)
		if err == ErrWouldBlock {
			return
		}
		if err != nil {
			if f.err == nil { // another turn may follow its end, when the test looks already
				f.err = err
			}
			return
		}
		if f.rng.IntN(4) == 0 {
			c.Again() // the others come first, with all of this unread
			return
		}
	}
}

func (f *framer) take(c *Conn) {
	for {
		b := c.Buffered()
		if len(b) < 4 {
			return
		}
		n := int(binary.BigEndian.Uint32(b))
		if len(b) < 4+n {
			return
		}
		c.Discard(4)
		f.got = append(f.got, b[4:4+n]...) // a view, some bytes of which are discarded: it lives on
		c.Discard(n)
	}
}

func (f *framer) OnWritable(*Conn) {}
func (f *framer) OnDeadline(*Conn) {}

// frames is a random sequence of frames and the bytes in them.
func frames(rng *rand.Rand, n int) (wire, content []byte) {
	for len(content) < n {
		size := rng.IntN(300)
		switch rng.IntN(20) {
		case 0:
			size = rng.IntN(100 << 10) // longer than the shared buffer
		case 1, 2:
			size = rng.IntN(9000)
		}
		b := payload(len(content)+n, size)
		wire = binary.BigEndian.AppendUint32(wire, uint32(size))
		wire = append(wire, b...)
		content = append(content, b...)
	}
	return wire, content
}

// TestInterleavedInput: many connections of one loop, each segmented at random and always with something unread, while the
// shared buffer is overwritten after every turn. Everyone gets exactly their own bytes.
func TestInterleavedInput(t *testing.T) {
	t.Run("as asked for", func(t *testing.T) { testInterleaved(t, false) })
	t.Run("received ahead", func(t *testing.T) { testInterleaved(t, true) })
}

func testInterleaved(t *testing.T, ahead bool) {
	l := startLoop(t)
	rng := rand.New(rand.NewPCG(3, 4))
	const conns = 20
	var readers [conns]*framer
	var peers [conns]*net.TCPConn
	var wires, contents [conns][]byte
	for i := range conns {
		readers[i] = &framer{rng: rand.New(rand.NewPCG(5, uint64(i)))}
		c, peer := adopt(t, l, readers[i])
		on(t, l, func() { c.ReadAhead(ahead) })
		peers[i] = peer
		wires[i], contents[i] = frames(rng, 300_000)
	}
	for open := conns; open > 0; {
		i := rng.IntN(conns)
		if wires[i] == nil {
			continue
		}
		n := min(len(wires[i]), 1+rng.IntN(6000))
		if _, err := peers[i].Write(wires[i][:n]); err != nil {
			t.Fatal(err)
		}
		if wires[i] = wires[i][n:]; len(wires[i]) == 0 {
			wires[i] = nil
			_ = peers[i].CloseWrite()
			open--
		}
	}
	for i, r := range readers {
		onEventually(t, l, "an end", func() bool { return r.err != nil })
		if r.err != ErrEOF {
			t.Errorf("connection %d ended with %v", i, r.err)
		}
		same(t, "frames", r.got, contents[i])
	}
	on(t, l, func() {
		for _, c := range l.conns {
			if c != nil && (len(c.Buffered()) != 0 || c.own != nil) {
				t.Error("a connection that has read everything holds a buffer")
			}
		}
	})
}

// TestSplitInvariance: the same bytes, cut in every possible way, read the same.
func TestSplitInvariance(t *testing.T) {
	wire, content := frames(rand.New(rand.NewPCG(6, 7)), 60)
	wire, content = wire[:min(len(wire), 400)], content[:min(len(content), 400)]
	for cut := 1; cut < len(wire); cut += 3 {
		l := steppedLoop(t)
		fd, peer := tcpPair(t)
		r := &framer{rng: rand.New(rand.NewPCG(1, uint64(cut)))}
		c := mustAdopt(t, l, fd, r)
		for _, part := range [][]byte{wire[:cut], wire[cut:]} {
			if _, err := peer.Write(part); err != nil {
				t.Fatal(err)
			}
			want := c.Received() + uint64(len(part))
			rounds(t, l, "a part", func() bool { return c.Received() == want && len(l.ready) == 0 })
		}
		if len(r.got) == 0 || !bytes.Equal(r.got, content[:len(r.got)]) {
			t.Fatalf("cut at %d: the frames differ", cut)
		}
		peer.Close()
	}
}

func TestSharedBufferIsPoisonedAfterTheTurn(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	var view []byte
	c := mustAdopt(t, l, fd, &hooks{readable: func(c *Conn) {
		_ = c.Fill(4096)
		view = c.Buffered()
	}})
	if _, err := peer.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	rounds(t, l, "input", func() bool { return view != nil })
	if string(view) != "\xdb\xdb\xdb\xdb\xdb" {
		t.Errorf("a view kept beyond the turn reads %q", view)
	}
	if string(c.Buffered()) != "hello" {
		t.Errorf("the stash reads %q", c.Buffered())
	}
}

func TestInputBound(t *testing.T) {
	l := startLoop(t)
	const total = 1 << 20
	var refused *Error
	var held int
	var got []byte
	var end *Error
	h := &hooks{}
	hold := func(c *Conn) {
		for refused == nil {
			err := c.Fill(16 << 10)
			held = max(held, len(c.Buffered()), cap(c.own))
			if err == ErrWouldBlock {
				return
			}
			refused = err
		}
	}
	h.readable = hold
	c, peer := adopt(t, l, h)
	go func() {
		_, _ = peer.Write(payload(0, total))
		_ = peer.CloseWrite()
	}()
	onEventually(t, l, "a refusal", func() bool { return refused != nil })
	if refused != ErrOverload {
		t.Errorf("Fill over the bound: %v", refused)
	}
	if held != inputBytesMax {
		t.Errorf("held %d bytes, the bound is %d", held, inputBytesMax)
	}
	on(t, l, func() { // and it goes on when there is room again
		s := &sink{got: append([]byte(nil), c.Buffered()...)}
		c.Discard(len(c.Buffered()))
		h.readable = func(c *Conn) {
			s.OnReadable(c)
			got, end = s.got, s.err
		}
		c.Again()
	})
	onEventually(t, l, "the end", func() bool { return end != nil })
	same(t, "input", got, payload(0, total))
}

func TestFillOfNothingIsNoEnd(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	asked := false
	c := mustAdopt(t, l, fd, &hooks{readable: func(c *Conn) {
		asked = true
		if err := c.Fill(0); err != nil || c.EOF() {
			t.Errorf("Fill(0): %v, EOF %v", err, c.EOF())
		}
	}})
	_, _ = peer.Write([]byte("x"))
	rounds(t, l, "input", func() bool { return asked })
	if err := c.Fill(1); err != nil || string(c.Buffered()) != "x" {
		t.Errorf("Fill(1): %v, %q", err, c.Buffered())
	}
}

// cork holds back the kernel's segments, so that what is written and the FIN go out as one.
func cork(t *testing.T, peer *net.TCPConn) {
	raw, err := peer.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { setsockopt(int32(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
}

// TestEndInTheSegmentOfTheData: data and FIN are one event. A short read must not forget the end.
func TestEndInTheSegmentOfTheData(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	s := &sink{}
	c := mustAdopt(t, l, fd, s)
	l.round(0)
	cork(t, peer)
	_, _ = peer.Write([]byte("all I have"))
	_ = peer.CloseWrite()
	rounds(t, l, "the end", func() bool { return s.err != nil })
	if string(s.got) != "all I have" || s.err != ErrEOF || !c.EOF() || c.Broken() {
		t.Errorf("got %q, %v, EOF %v, broken %v", s.got, s.err, c.EOF(), c.Broken())
	}
	c.Write([]byte("a half-closed peer still reads"))
	l.endTurn()
	b := make([]byte, 100)
	n, _ := peer.Read(b)
	if string(b[:n]) != "a half-closed peer still reads" {
		t.Errorf("peer read %q", b[:n])
	}
}

func TestEndAfterTheData(t *testing.T) {
	l := startLoop(t)
	s := &sink{}
	_, peer := adopt(t, l, s)
	_, _ = peer.Write([]byte("1"))
	onEventually(t, l, "data", func() bool { return len(s.got) == 1 })
	_ = peer.CloseWrite()
	onEventually(t, l, "the end", func() bool { return s.err == ErrEOF })
}

// TestHangUpAfterBothEnds: after FIN in both directions the kernel reports EPOLLHUP. That is no failure.
func TestHangUpAfterBothEnds(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	s := &sink{}
	c := mustAdopt(t, l, fd, s)
	c.CloseWrite()
	if n, err := peer.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("peer read %d, %v", n, err)
	}
	_ = peer.CloseWrite()
	rounds(t, l, "the end", func() bool { return s.err != nil })
	if s.err != ErrEOF || c.Broken() {
		t.Errorf("after two orderly ends: %v, broken %v", s.err, c.Broken())
	}
}

func TestResetIsSeen(t *testing.T) {
	l := startLoop(t)
	for _, data := range []string{"", "said before"} {
		s := &sink{}
		c, peer := adopt(t, l, s)
		if data != "" {
			_, _ = peer.Write([]byte(data))
			onEventually(t, l, "data", func() bool { return string(s.got) == data })
		}
		reset(peer)
		onEventually(t, l, "the reset", func() bool { return s.err != nil })
		on(t, l, func() {
			if s.err != ErrReset || !c.Broken() {
				t.Errorf("after %q: %v, broken %v", data, s.err, c.Broken())
			}
			c.Close()
		})
	}
}

// TestDataBeforeAReset: what came before the reset is still there to be read.
func TestDataBeforeAReset(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	s := &sink{}
	mustAdopt(t, l, fd, s)
	_, _ = peer.Write(payload(0, 100_000))
	reset(peer)
	rounds(t, l, "the reset", func() bool { return s.err != nil })
	if s.err != ErrReset {
		t.Errorf("ended with %v", s.err)
	}
	same(t, "data before the reset", s.got, payload(0, 100_000))
}

// TestResetThatAWriteSawFirst: the kernel tells an error once. When a write has taken it, the next read says 0, and that
// must not pass for an orderly end: a body until the end of the connection would look complete.
func TestResetThatAWriteSawFirst(t *testing.T) {
	for _, n := range []int{10, directWriteBytes} {
		l := steppedLoop(t)
		fd, peer := tcpPair(t)
		s := &sink{}
		c := mustAdopt(t, l, fd, s)
		l.round(0)
		reset(peer)
		c.Write(make([]byte, n))
		c.Flush()
		if !c.Broken() {
			t.Fatal("a write after the reset did not fail")
		}
		rounds(t, l, "the reset", func() bool { return s.err != nil })
		if s.err != ErrReset || c.EOF() {
			t.Errorf("write of %d: ended with %v, EOF %v", n, s.err, c.EOF())
		}
		if err := c.Fill(100); err != ErrReset {
			t.Errorf("Fill afterwards: %v", err)
		}
	}
}

func TestPeekLeavesTheSocketUntouched(t *testing.T) {
	l := startLoop(t)
	var seen string
	var err *Error
	h := &hooks{}
	h.readable = func(c *Conn) {
		var b []byte
		b, err = c.Peek()
		seen = string(b)
	}
	c, peer := adopt(t, l, h)
	_, _ = peer.Write([]byte("client"))
	onEventually(t, l, "a first look", func() bool { return seen == "client" })
	on(t, l, func() { c.SetLowWater(len("clienthello")) })
	_, _ = peer.Write([]byte("hello"))
	onEventually(t, l, "a second look", func() bool { return seen == "clienthello" })
	s := &sink{}
	on(t, l, func() {
		if c.Received() != 0 {
			t.Errorf("Peek took %d bytes", c.Received())
		}
		c.SetLowWater(1)
		c.SetHandler(s)
		s.OnReadable(c)
	})
	onEventually(t, l, "the bytes themselves", func() bool { return string(s.got) == "clienthello" })
	on(t, l, func() { c.SetHandler(h) })
	_ = peer.CloseWrite()
	onEventually(t, l, "the end", func() bool { return err == ErrEOF })
}

func TestPeekOfAReset(t *testing.T) {
	l := steppedLoop(t)
	fd, peer := tcpPair(t)
	c := mustAdopt(t, l, fd, &hooks{})
	if _, err := c.Peek(); err != ErrWouldBlock {
		t.Errorf("nothing there: %v", err)
	}
	reset(peer)
	if _, err := c.Peek(); err != ErrReset {
		t.Errorf("after a reset: %v", err)
	}
	c.flags |= flagReadable
	if err := c.Fill(10); err != ErrReset {
		t.Errorf("Fill after a Peek that saw the reset: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPair(t)
	c := adoptFD(t, l, fd, &hooks{})
	if got, want := c.Local().String(), peer.RemoteAddr().String(); got != want {
		t.Errorf("Local() is %s, the peer says %s", got, want)
	}
	lfd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Skipf("no IPv6: %v", err)
	}
	defer syscall.Close(lfd)
	if err := syscall.Bind(lfd, &syscall.SockaddrInet6{Addr: [16]byte{15: 1}}); err != nil {
		t.Skipf("no IPv6 loopback: %v", err)
	}
	if a := sockname(int32(lfd)); a.Addr().String() != "::1" || a.Port() == 0 {
		t.Errorf("sockname: %v", a)
	}
}
