package fastpath

import (
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// shaken is a handler that keeps the handshake's result and otherwise does nothing.
func shaken() (*hooks, chan *Error) {
	done := make(chan *Error, 2)
	return &hooks{handshake: func(_ *Conn, err *Error) { done <- err }}, done
}

func TestTLSHelloInSingleBytes(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		l := startLoop(t)
		fd, peer := tcpPair(t)
		startTLS(t, l, fd, &echo{}, s.ours(), s.server, NewWork(2))
		echoOnce(t, s.theirs(&chopped{peer, rand.New(rand.NewPCG(1, 1)), 1}), 2000)
	})
}

// TestTLSInputBeforeStartTLS: what was read already, to look at it, belongs to the handshake.
func TestTLSInputBeforeStartTLS(t *testing.T) {
	l := startLoop(t)
	w := NewWork(2)
	next := &echo{}
	first := &hooks{}
	first.readable = func(c *Conn) {
		for c.Fill(100) == nil {
		}
		if len(c.Buffered()) < 150 {
			return
		}
		c.SetHandler(next)
		if err := c.StartTLS(serverConfig(tls.VersionTLS13), true, w); err != nil {
			t.Errorf("StartTLS: %v", err)
		}
	}
	_, peer := adopt(t, l, first)
	echoOnce(t, tls.Client(peer, clientConfig(tls.VersionTLS13)), 5000)
}

// TestTLSDataBehindTheHandshake: the client's last handshake record and its first data arrive as one. No event follows, so
// the owner has to be told all the same.
func TestTLSDataBehindTheHandshake(t *testing.T) {
	for _, version := range tlsVersions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			l := startLoop(t)
			fd, peer := tcpPair(t)
			h := &sink{}
			startTLS(t, l, fd, h, serverConfig(version), true, NewWork(1))
			g := &gathered{TCPConn: peer}
			cfg := clientConfig(version)
			cfg.VerifyConnection = func(tls.ConnectionState) error { // the server's flight is here; ours comes
				g.holding = version == tls.VersionTLS13 // TLS 1.2 has one more round
				return nil
			}
			tc := tls.Client(g, cfg)
			if err := tc.Handshake(); err != nil {
				t.Fatal(err)
			}
			g.holding = true
			_, _ = tc.Write(payload(0, 30_000))
			_ = tc.CloseWrite()
			if err := g.release(); err != nil {
				t.Fatal(err)
			}
			onEventually(t, l, "the end", func() bool { return h.err != nil })
			same(t, "data", h.got, payload(0, 30_000))
			if h.err != ErrEOF {
				t.Errorf("ended with %v", h.err)
			}
		})
	}
}

// TestTLSOutputStagedDuringTheHandshake leaves when the session stands, with the end that was asked for behind it.
func TestTLSOutputStagedDuringTheHandshake(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		l := startLoop(t)
		fd, peer := tcpPair(t)
		h, done := shaken()
		told := make(chan struct{}, 1)
		h.writable = func(*Conn) { told <- struct{}{} }
		c := startTLS(t, l, fd, h, s.ours(), s.server, NewWork(1))
		want := 0
		on(t, l, func() {
			for c.Room() > 0 {
				c.Write(payload(want, 5000))
				want += 5000
			}
			c.CloseWrite()
		})
		got, err := io.ReadAll(s.theirs(wary{peer}))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "staged output", got, payload(0, want))
		if err := receive(t, "the handshake", done); err != nil {
			t.Error(err)
		}
		receive(t, "OnWritable", told)
	})
}

// TestTLSStalledHandshakesHoldNoPermit: a thousand peers that began a handshake and say no more leave both permits to those
// who do.
func TestTLSStalledHandshakesHoldNoPermit(t *testing.T) {
	l := startLoop(t)
	w := NewWork(2)
	cfg := serverConfig(tls.VersionTLS13)
	stalledHandler, stalledDone := shaken()
	const stalled = 1000
	for i := range stalled {
		fd, peer := tcpPair(t)
		startTLS(t, l, fd, stalledHandler, cfg, true, w)
		hello := []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}
		if _, err := peer.Write(hello[:i%len(hello)]); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 {
		fd, peer := tcpPair(t)
		startTLS(t, l, fd, &echo{}, cfg, true, w)
		echoOnce(t, tls.Client(peer, clientConfig(tls.VersionTLS13)), 1000)
	}
	if n := w.Running(WorkHandshake); n != stalled {
		t.Errorf("%d handshakes are under way, want %d", n, stalled)
	}
	on(t, l, func() {
		for _, c := range l.conns {
			if c != nil {
				c.Close()
			}
		}
	})
	eventually(t, "the handshakes' goroutines to end", func() bool { return w.Running(WorkHandshake) == 0 })
	if len(stalledDone) != 0 {
		t.Error("OnHandshake after Close")
	}
	if len(w.permits) != 2 {
		t.Errorf("%d permits are left of 2", len(w.permits))
	}
}

func TestTLSHandshakeFailures(t *testing.T) {
	cases := []struct {
		name string
		peer func(*net.TCPConn) error // what the peer sees, if it looks
	}{
		{"HTTP", func(c *net.TCPConn) error { _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); return err }},
		{"garbage", func(c *net.TCPConn) error { _, err := c.Write(block[:5000]); return err }},
		{"a hello cut off", func(c *net.TCPConn) error { _, _ = c.Write([]byte{22, 3, 1, 2, 0}); return c.CloseWrite() }},
		{"an end at once", func(c *net.TCPConn) error { return c.CloseWrite() }},
		{"a reset", func(c *net.TCPConn) error { reset(c); return nil }},
		{"no common version", func(c *net.TCPConn) error {
			err := tls.Client(c, clientConfig(tls.VersionTLS12)).Handshake()
			if err == nil || !strings.Contains(err.Error(), "protocol version") {
				return errors.New("the peer was not told why")
			}
			return nil
		}},
		{"certificate refused", func(c *net.TCPConn) error {
			cfg := clientConfig(tls.VersionTLS13)
			cfg.RootCAs = nil
			if tls.Client(c, cfg).Handshake() == nil {
				return errors.New("the peer was satisfied")
			}
			return nil
		}},
	}
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			l := startLoop(t)
			w := NewWork(1)
			h, done := shaken()
			fd, peer := tcpPair(t)
			c := startTLS(t, l, fd, h, serverConfig(tls.VersionTLS13), true, w)
			if err := k.peer(peer); err != nil {
				t.Error(err)
			}
			if err := receive(t, "the handshake's end", done); err != ErrTLS {
				t.Errorf("OnHandshake(%v)", err)
			}
			on(t, l, func() {
				if c.HandshakeError() == nil {
					t.Error("no reason for the log")
				}
				c.Close()
			})
			eventually(t, "the goroutine's end", func() bool { return w.Running(WorkHandshake) == 0 })
			if len(w.permits) != 1 || len(done) != 0 {
				t.Errorf("%d permits, %d more results", len(w.permits), len(done))
			}
		})
	}
}

// TestTLSFailureAsClient: a backend whose certificate does not fit.
func TestTLSFailureAsClient(t *testing.T) {
	l := startLoop(t)
	h, done := shaken()
	fd, peer := tcpPair(t)
	cfg := clientConfig(tls.VersionTLS13)
	cfg.ServerName = "another.test"
	c := startTLS(t, l, fd, h, cfg, false, NewWork(1))
	_ = tls.Server(peer, serverConfig(tls.VersionTLS13)).Handshake()
	if err := receive(t, "the handshake's end", done); err != ErrTLS {
		t.Errorf("OnHandshake(%v)", err)
	}
	on(t, l, func() {
		var wrong *tls.CertificateVerificationError
		if !errors.As(c.HandshakeError(), &wrong) {
			t.Errorf("the reason is %v", c.HandshakeError())
		}
	})
}

// TestTLSCloseDuringHandshake: the goroutine may be waiting for the peer or computing; the connection's value goes to
// another connection at once. Nothing of the first reaches the second (the race detector watches).
func TestTLSCloseDuringHandshake(t *testing.T) {
	l := startLoop(t)
	w := NewWork(2)
	entered, leave := make(chan struct{}), make(chan struct{})
	cfg := serverConfig(tls.VersionTLS13)
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if h.Conn.RemoteAddr() == nil || h.Conn.LocalAddr() == nil {
			t.Error("no address for the callback")
		}
		entered <- struct{}{}
		<-leave
		_ = h.Conn.RemoteAddr().String()
		return nil, nil
	}
	for i := range 30 {
		h, done := shaken()
		fd, peer := tcpPair(t)
		c := startTLS(t, l, fd, h, cfg, true, w)
		if i%2 == 0 { // it computes
			go tls.Client(peer, clientConfig(tls.VersionTLS13)).Handshake()
			receive(t, "the callback", entered)
		}
		on(t, l, c.Close)
		fd, other := tcpPair(t)
		adoptFD(t, l, fd, &echo{}) // may be the same value
		if i%2 == 0 {
			leave <- struct{}{}
		}
		echoOnce(t, other, 3000)
		eventually(t, "the goroutine's end", func() bool { return w.Running(WorkHandshake) == 0 })
		on(t, l, func() {})
		if len(done) != 0 {
			t.Fatal("OnHandshake after Close")
		}
	}
}

// TestTLSFeedIsBounded: while the handshake computes, the loop reads 64 KiB for it and then stops; afterwards all goes on.
func TestTLSFeedIsBounded(t *testing.T) {
	l := startLoop(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	cfg := serverConfig(tls.VersionTLS13)
	cfg.VerifyConnection = func(tls.ConnectionState) error { // our flight has left, the client's is coming
		close(entered)
		<-leave
		return nil
	}
	h := &sink{}
	fd, peer := tcpPair(t)
	c := startTLS(t, l, fd, h, cfg, true, NewWork(1))
	tc := tls.Client(peer, clientConfig(tls.VersionTLS13))
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	const total = 1 << 20
	go func() {
		_, _ = tc.Write(payload(0, total))
		_ = tc.CloseWrite()
	}()
	receive(t, "the callback", entered)
	var received uint64
	onEventually(t, l, "a full feed", func() bool {
		hs := c.tls.hs
		hs.mu.Lock()
		defer hs.mu.Unlock()
		if len(hs.feed) > feedBytesMax {
			t.Errorf("the feed holds %d bytes", len(hs.feed))
		}
		received = c.Received()
		return hs.full
	})
	on(t, l, func() {
		if c.Received() != received || received > 2*feedBytesMax {
			t.Errorf("read %d bytes, then %d, for a handshake that takes none", received, c.Received())
		}
	})
	close(leave)
	onEventually(t, l, "the end", func() bool { return h.err != nil })
	same(t, "data", h.got, payload(0, total))
	if h.err != ErrEOF {
		t.Errorf("ended with %v", h.err)
	}
}

// TestTLSFeedResumes: a flight of more than 64 KiB, while the handshake waits for a permit, stops the loop's reading; once
// the handshake takes it, reading goes on.
func TestTLSFeedResumes(t *testing.T) {
	l := startLoop(t)
	w := NewWork(1)
	cert, _ := identity()
	one := cert.Certificate[0]
	for n := len(one); n < 100<<10; n += len(one) {
		cert.Certificate = append(cert.Certificate[:len(cert.Certificate):len(cert.Certificate)], one)
	}
	cfg := serverConfig(tls.VersionTLS13)
	cfg.ClientAuth = tls.RequireAnyClientCert
	fd, peer := tcpPair(t)
	c := startTLS(t, l, fd, &echo{}, cfg, true, w)
	ccfg := clientConfig(tls.VersionTLS13)
	ccfg.Certificates = []tls.Certificate{cert}
	ccfg.VerifyConnection = func(tls.ConnectionState) error {
		w.enter() // the server's handshake waits for our flight, so the permit is free
		return nil
	}
	tc := tls.Client(peer, ccfg)
	sent := make(chan error, 1)
	go func() { sent <- tc.Handshake() }()
	onEventually(t, l, "a full feed", func() bool {
		hs := c.tls.hs
		hs.mu.Lock()
		defer hs.mu.Unlock()
		return hs.full
	})
	if err := receive(t, "the peer's handshake", sent); err != nil { // all it has is sent: no event follows
		t.Fatal(err)
	}
	for range 5 {
		on(t, l, func() {})
	}
	w.leave()
	onEventually(t, l, "the rest to be read", func() bool { return c.TLS() != nil })
	echoOnce(t, tc, 200_000)
}

func TestTLSPanics(t *testing.T) {
	quietly(t)
	l := startLoop(t)
	w := NewWork(1)
	t.Run("in a callback off the loop", func(t *testing.T) {
		cfg := serverConfig(tls.VersionTLS13)
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("a callback's defect") }
		cfg.Certificates = nil
		h, done := shaken()
		h.handshake = func(c *Conn, err *Error) {
			c.Close()
			done <- err
		}
		fd, peer := tcpPair(t)
		startTLS(t, l, fd, h, cfg, true, w)
		if tls.Client(peer, clientConfig(tls.VersionTLS13)).Handshake() == nil {
			t.Error("the peer was satisfied")
		}
		if err := receive(t, "the handshake's end", done); err != ErrTLS {
			t.Errorf("OnHandshake(%v)", err)
		}
	})
	t.Run("in OnHandshake", func(t *testing.T) {
		fd, peer := tcpPair(t)
		startTLS(t, l, fd, &hooks{handshake: func(*Conn, *Error) { panic("a handler's defect") }}, serverConfig(tls.VersionTLS13), true, w)
		if _, err := tls.Client(peer, clientConfig(tls.VersionTLS13)).Read(make([]byte, 1)); err == nil {
			t.Error("the connection serves on")
		}
	})
	eventually(t, "the closes", func() bool { return l.Stats.Conns.Load() == 0 && w.Running(WorkHandshake) == 0 })
	if n := l.Stats.Panics.Load(); n != 2 || len(w.permits) != 1 {
		t.Errorf("%d panics counted, %d permits left", n, len(w.permits))
	}
	l.Stats.Panics.Store(0)
}

func TestTLSOverload(t *testing.T) {
	l := startLoop(t)
	w := NewWork(1)
	w.running[WorkHandshake].Store(workMax[WorkHandshake])
	c, _ := adopt(t, l, &echo{})
	on(t, l, func() {
		if err := c.StartTLS(serverConfig(tls.VersionTLS13), true, w); err != ErrOverload {
			t.Errorf("StartTLS: %v", err)
		}
		c.Close()
	})
	if w.Refused.Load() != 1 {
		t.Errorf("%d refusals counted", w.Refused.Load())
	}
}

func TestTLSDeadlineDuringHandshake(t *testing.T) {
	l := startLoop(t)
	w := NewWork(1)
	h, _ := shaken()
	closed := make(chan struct{})
	h.deadline = func(c *Conn) {
		c.CloseLinger() // not a Handshaker any more: the handshake's end must not look for one
		close(closed)
	}
	fd, peer := tcpPair(t)
	c := startTLS(t, l, fd, h, serverConfig(tls.VersionTLS13), true, w)
	on(t, l, func() { c.SetDeadline(l.now + int64(10*time.Millisecond)) })
	receive(t, "the deadline", closed)
	if _, err := peer.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
	eventually(t, "the goroutine's end", func() bool { return w.Running(WorkHandshake) == 0 })
}
