package fastpath

import (
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// dialled is what became of a Dial.
type dialled struct {
	c   *Conn
	err *Error
}

// dial starts a connection from the loop; the answer comes by the channel.
func dial(t testing.TB, l *Loop, to netip.AddrPort, timeout time.Duration, h *hooks) <-chan dialled {
	t.Helper()
	answer := make(chan dialled, 2)
	inside := true
	connect := h.connect
	h.connect = func(c *Conn, err *Error) {
		if inside {
			t.Error("OnConnect from inside Dial")
		}
		if connect != nil {
			connect(c, err)
		}
		answer <- dialled{c, err}
	}
	on(t, l, func() {
		if _, err := l.Dial(to, timeout, h); err != nil {
			answer <- dialled{nil, err}
		}
		inside = false
	})
	return answer
}

func listen(t testing.TB, network, address string) (*net.TCPListener, netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("cannot listen: %v", err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener), ln.Addr().(*net.TCPAddr).AddrPort()
}

func TestDial(t *testing.T) {
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		t.Run(network, func(t *testing.T) {
			ln, to := listen(t, network, address)
			l := startLoop(t)
			var got sink
			h := &hooks{readable: got.OnReadable}
			answer := dial(t, l, to, time.Minute, h)
			peer, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			d := receive(t, "OnConnect", answer)
			if d.err != nil {
				t.Fatal(d.err)
			}
			on(t, l, func() {
				if d.c.Deadline() != 0 || l.Stats.Conns.Load() != 1 || d.c.Remote() != to {
					t.Errorf("deadline %d, %d connections, remote %v", d.c.Deadline(), l.Stats.Conns.Load(), d.c.Remote())
				}
				if local := d.c.Local().String(); local != peer.RemoteAddr().String() {
					t.Errorf("local %s, the peer sees %s", local, peer.RemoteAddr())
				}
				d.c.Write([]byte("question"))
			})
			b := make([]byte, 20)
			if n, _ := peer.Read(b); string(b[:n]) != "question" {
				t.Errorf("the peer read %q", b[:n])
			}
			_, _ = peer.Write([]byte("answer"))
			onEventually(t, l, "the answer", func() bool { return string(got.got) == "answer" })
		})
	}
}

// TestDialToOneWhoSpeaksFirst: input that came with the connection, and an end with it, are told after OnConnect.
func TestDialToOneWhoSpeaksFirst(t *testing.T) {
	ln, to := listen(t, "tcp4", "127.0.0.1:0")
	l := startLoop(t)
	var got sink
	connected := false
	h := &hooks{connect: func(*Conn, *Error) { connected = true }}
	h.readable = func(c *Conn) {
		if !connected {
			t.Error("OnReadable before OnConnect")
		}
		got.OnReadable(c)
	}
	hold, held := make(chan struct{}), make(chan struct{})
	var c *Conn
	l.Post(func() { // the loop sees nothing until all is there
		c, _ = l.Dial(to, time.Minute, h)
		close(held)
		<-hold
	})
	receive(t, "Dial", held)
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = peer.Write([]byte("greeting"))
	peer.Close()
	close(hold)
	onEventually(t, l, "greeting and end", func() bool { return got.err != nil })
	if string(got.got) != "greeting" || got.err != ErrEOF {
		t.Errorf("%q, %v", got.got, got.err)
	}
	on(t, l, c.Close)
}

// TestDialWritesMayBeStaged: output from before the connection stands leaves once it does, and who saw no room is told.
func TestDialWritesMayBeStaged(t *testing.T) {
	ln, to := listen(t, "tcp4", "127.0.0.1:0")
	l := startLoop(t)
	told := make(chan struct{}, 1)
	h := &hooks{writable: func(*Conn) { told <- struct{}{} }}
	want := payload(0, 50_000)
	on(t, l, func() {
		c, err := l.Dial(to, time.Minute, h)
		if err != nil {
			t.Error(err)
			return
		}
		c.Write(want)
		if c.Room() != 0 {
			t.Error("room on a connection that does not stand yet")
		}
		c.CloseWrite()
	})
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	sum, _, _ := digest(peer)
	if sum != streamDigest(stream{left: len(want)}) {
		t.Error("the peer read something else")
	}
	receive(t, "OnWritable", told)
}

func TestDialRefused(t *testing.T) {
	ln, to := listen(t, "tcp4", "127.0.0.1:0")
	ln.Close()
	l := startLoop(t)
	d := receive(t, "OnConnect", dial(t, l, to, time.Minute, &hooks{}))
	if d.err != ErrRefused {
		t.Errorf("got %v", d.err)
	}
	d = receive(t, "an answer", dial(t, l, netip.MustParseAddrPort("255.255.255.255:1"), time.Minute, &hooks{}))
	if d.err != ErrRefused {
		t.Errorf("a broadcast address: %v", d.err)
	}
	on(t, l, func() {})
	if n := l.Stats.Conns.Load(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// fullListener is an address that answers no SYN: its queue of connections is full.
func fullListener(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	to := sockname(int32(fd))
	for range 4 {
		filler, e := socket(false)
		if e != 0 {
			t.Fatal(e)
		}
		t.Cleanup(func() { closeFD(filler) })
		_ = connect(filler, to)
	}
	return to
}

func TestDialTimeout(t *testing.T) {
	to := fullListener(t)
	l := startLoop(t)
	begin := time.Now()
	d := receive(t, "OnConnect", dial(t, l, to, 100*time.Millisecond, &hooks{}))
	if d.err != ErrConnectTimeout {
		t.Errorf("got %v", d.err)
	}
	if took := time.Since(begin); took < 100*time.Millisecond {
		t.Errorf("gave up after %v", took)
	}
	on(t, l, func() {})
	if n := l.Stats.Conns.Load(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestDialGivenUp: what is closed before it stands is never told of.
func TestDialGivenUp(t *testing.T) {
	to := fullListener(t)
	l := startLoop(t)
	for _, end := range []func(*Conn){(*Conn).Close, (*Conn).Abort, (*Conn).CloseLinger} {
		on(t, l, func() {
			c, err := l.Dial(to, 20*time.Millisecond, &hooks{connect: func(*Conn, *Error) { t.Error("OnConnect after the close") }})
			if err != nil {
				t.Error(err)
				return
			}
			end(c)
		})
	}
	on(t, l, func() {
		if n := l.Stats.Conns.Load(); n != 0 || l.wheel.count != 0 {
			t.Errorf("%d connections and %d deadlines are left", n, l.wheel.count)
		}
	})
}

func TestDialPanicInOnConnect(t *testing.T) {
	quietly(t)
	_, to := listen(t, "tcp4", "127.0.0.1:0")
	l := startLoop(t)
	on(t, l, func() {
		_, _ = l.Dial(to, time.Minute, &hooks{connect: func(*Conn, *Error) { panic("a handler's defect") }})
	})
	eventually(t, "a counted panic", func() bool { return l.Stats.Panics.Load() == 1 && l.Stats.Conns.Load() == 0 })
	l.Stats.Panics.Store(0)
}

// TestDialSending: what is to be sent first leaves with the dial where the connection is made at once, and OnConnect does not
// follow then; else nothing of it is sent and OnConnect follows. On loopback the former is what happens, unless the kernel
// puts its work off: so as many are dialled as it takes to see it.
func TestDialSending(t *testing.T) {
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		t.Run(network, func(t *testing.T) {
			ln, to := listen(t, network, address)
			l := startLoop(t)
			for n := 0; ; n++ {
				if n == 100 {
					t.Fatal("no connection was made at once")
				}
				if dialSending(t, l, ln, to) {
					break
				}
			}
			on(t, l, func() {})
			if n := l.Stats.Conns.Load(); n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	}
}

// dialSending has a conversation that begins with the dial, and tells whether the first bytes left at once.
func dialSending(t *testing.T, l *Loop, ln net.Listener, to netip.AddrPort) bool {
	t.Helper()
	var got sink
	var c *Conn
	sent, told := 0, false
	h := &hooks{readable: got.OnReadable}
	h.connect = func(c *Conn, err *Error) {
		if told = true; err != nil || sent > 0 {
			t.Errorf("OnConnect after %d bytes were sent: %v", sent, err)
		}
		c.Write([]byte("question"))
	}
	on(t, l, func() {
		var err *Error
		if c, sent, err = l.DialSending(to, time.Minute, h, []byte("question")); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() || sent != 0 && sent != len("question") {
		t.Fatalf("%d bytes were sent", sent) // or the dial failed
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	b := make([]byte, len("question"))
	if _, err := io.ReadFull(peer, b); err != nil || string(b) != "question" {
		t.Errorf("the peer read %q, %v", b, err)
	}
	_, _ = peer.Write([]byte("answer"))
	onEventually(t, l, "the answer", func() bool { return string(got.got) == "answer" })
	on(t, l, func() {
		if told == (sent > 0) || c.Sent() != uint64(len(b)) || c.Deadline() != 0 || c.Remote() != to {
			t.Errorf("%d bytes at once, then OnConnect: %v; sent %d, deadline %d, remote %v", sent, told, c.Sent(), c.Deadline(), c.Remote())
		}
		c.Write([]byte("more"))
		c.CloseWrite()
	})
	if rest, err := io.ReadAll(peer); err != nil || string(rest) != "more" {
		t.Errorf("the peer read %q, %v", rest, err)
	}
	peer.Close()
	onEventually(t, l, "the end", func() bool { return got.err == ErrEOF })
	on(t, l, c.Close)
	return sent > 0
}

// TestDialSendingRefused: a refusal is told once, by the dial or by OnConnect.
func TestDialSendingRefused(t *testing.T) {
	ln, to := listen(t, "tcp4", "127.0.0.1:0")
	ln.Close()
	l := startLoop(t)
	answers := make(chan *Error, 2)
	h := &hooks{connect: func(_ *Conn, err *Error) { answers <- err }}
	on(t, l, func() {
		if c, sent, err := l.DialSending(to, time.Minute, h, []byte("question")); err != nil {
			if answers <- err; c != nil || sent != 0 {
				t.Errorf("%v, %d bytes sent, beside the error", c, sent)
			}
		}
	})
	if err := receive(t, "the refusal", answers); err != ErrRefused {
		t.Errorf("got %v", err)
	}
	on(t, l, func() {})
	if n := l.Stats.Conns.Load(); n != 0 || len(answers) != 0 {
		t.Errorf("%d connections are left, and %d answers", n, len(answers))
	}
}

// TestDialSendingLater: a peer that does not answer at once is sent nothing.
func TestDialSendingLater(t *testing.T) {
	to := fullListener(t)
	l := startLoop(t)
	answers := make(chan *Error, 1)
	h := &hooks{connect: func(_ *Conn, err *Error) { answers <- err }}
	on(t, l, func() {
		if _, sent, err := l.DialSending(to, 50*time.Millisecond, h, []byte("question")); sent != 0 || err != nil {
			t.Errorf("%d bytes sent, %v", sent, err)
			answers <- err
		}
	})
	if err := receive(t, "OnConnect", answers); err != ErrConnectTimeout {
		t.Errorf("got %v", err)
	}
}
