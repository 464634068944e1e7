package fastpath

import (
	"crypto"
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

// TestTLSStalledHandshakes: a thousand peers that began a handshake and say no more hold nobody up.
func TestTLSStalledHandshakes(t *testing.T) {
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
	eventually(t, "the handshakes to end", func() bool { return w.Running(WorkHandshake) == 0 })
	if len(stalledDone) != 0 {
		t.Error("OnHandshake after Close")
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
			eventually(t, "the handshake's end", func() bool { return w.Running(WorkHandshake) == 0 })
			if len(done) != 0 {
				t.Errorf("%d more results", len(done))
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

// heldSigner is a slow key whose signatures are made when the test says so.
type heldSigner struct {
	crypto.Signer
	entered, leave chan struct{}
}

func (h *heldSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	h.entered <- struct{}{}
	<-h.leave
	return h.Signer.Sign(rand, digest, opts)
}

// heldConfig is a server's configuration with such a key.
func heldConfig() (*tls.Config, *heldSigner) {
	cert, _ := identity()
	held := &heldSigner{cert.PrivateKey.(crypto.Signer), make(chan struct{}), make(chan struct{})}
	cert.PrivateKey = held
	cfg := serverConfig(tls.VersionTLS13)
	cfg.Certificates = nil
	cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return OffLoop(h.Conn, &cert), nil }
	return cfg, held
}

// TestTLSCloseDuringHandshake: the handshake may be waiting for the peer, or for a signature; the connection's value goes
// to another connection at once. Nothing of the first reaches the second (the race detector watches).
func TestTLSCloseDuringHandshake(t *testing.T) {
	l := startLoop(t)
	w := NewWork(2)
	cfg, held := heldConfig()
	for i := range 30 {
		h, done := shaken()
		fd, peer := tcpPair(t)
		c := startTLS(t, l, fd, h, cfg, true, w)
		if i%2 == 0 { // its signature is being made
			go tls.Client(peer, clientConfig(tls.VersionTLS13)).Handshake()
			receive(t, "the signer", held.entered)
		}
		on(t, l, c.Close)
		fd, other := tcpPair(t)
		adoptFD(t, l, fd, &echo{}) // may be the same value
		if i%2 == 0 {
			held.leave <- struct{}{}
		}
		echoOnce(t, other, 3000)
		eventually(t, "the handshake's end", func() bool { return w.Running(WorkHandshake) == 0 })
		on(t, l, func() {})
		if len(done) != 0 {
			t.Fatal("OnHandshake after Close")
		}
	}
}

// TestTLSCloseInCallback: a callback that closes the connection ends its own handshake.
func TestTLSCloseInCallback(t *testing.T) {
	l := startLoop(t)
	w := NewWork(1)
	var c *Conn
	cfg := serverConfig(tls.VersionTLS13)
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c.Close() // callbacks run on the loop's thread, and nothing else does meanwhile
		return nil, nil
	}
	h, done := shaken()
	fd, peer := tcpPair(t)
	on(t, l, func() { c = mustAdopt(t, l, fd, h) })
	on(t, l, func() {
		if err := c.StartTLS(cfg, true, w); err != nil {
			t.Errorf("StartTLS: %v", err)
		}
	})
	if tls.Client(peer, clientConfig(tls.VersionTLS13)).Handshake() == nil {
		t.Error("the peer was satisfied")
	}
	eventually(t, "the handshake's end", func() bool { return w.Running(WorkHandshake) == 0 })
	if len(done) != 0 {
		t.Error("OnHandshake after Close")
	}
}

// TestTLSSlowKeyLeavesTheLoop: while a slow key signs, the loop serves others.
func TestTLSSlowKeyLeavesTheLoop(t *testing.T) {
	l := startLoop(t)
	cfg, held := heldConfig()
	fd, peer := tcpPair(t)
	startTLS(t, l, fd, &echo{}, cfg, true, NewWork(1))
	tc := tls.Client(peer, clientConfig(tls.VersionTLS13))
	go tc.Handshake()
	receive(t, "the signer", held.entered)
	_, other := adopt(t, l, &echo{})
	echoOnce(t, other, 3000)
	held.leave <- struct{}{}
	echoOnce(t, tc, 3000)
}

// TestTLSHandshakesShareTheLoop: however many handshakes have something to do, the loop leads a connection's event within a
// step or two.
func TestTLSHandshakesShareTheLoop(t *testing.T) {
	l := startLoop(t)
	w := NewWork(1)
	steps, seen := 0, -1
	cfg := serverConfig(tls.VersionTLS13)
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		steps++
		time.Sleep(handshakeTurn)
		return nil, nil
	}
	_, peer := adopt(t, l, &hooks{readable: func(c *Conn) {
		if c.Fill(1) == nil {
			seen = steps
		}
	}})
	const many = 40
	hello := clientHello(t)
	on(t, l, func() {
		for range many {
			fd, p := tcpPair(t)
			if _, err := p.Write(hello); err != nil {
				t.Error(err)
			}
			h, _ := shaken()
			c := mustAdopt(t, l, fd, h)
			c.flags |= flagReadable
			if err := c.StartTLS(cfg, true, w); err != nil {
				t.Error(err)
			}
		}
		_, _ = peer.Write([]byte{1}) // all are known to the loop now
	})
	onEventually(t, l, "all handshakes", func() bool { return steps == many })
	if seen < 0 || seen > 3 {
		t.Errorf("the event was led after %d handshakes' steps", seen)
	}
}

// TestTLSTurnBeforeTheSignature: a handshake whose key exchange has used up the time gives others their turn before it signs,
// and may find its connection closed when its own comes again.
func TestTLSTurnBeforeTheSignature(t *testing.T) {
	for _, closes := range []bool{false, true} {
		l := startLoop(t)
		w := NewWork(1)
		var c *Conn        // on the loop
		turns := uint64(0) // between the choice of the certificate and the signature
		cert, _ := identity()
		cfg := serverConfig(tls.VersionTLS13)
		cfg.Certificates = nil
		cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			time.Sleep(handshakeTurn)
			if closes {
				l.Post(func() { c.Close() })
			}
			before := l.Stats.Turns.Load()
			chosen := OffLoop(h.Conn, &cert)
			turns = l.Stats.Turns.Load() - before
			return chosen, nil
		}
		fd, peer := tcpPair(t)
		h, done := shaken()
		shaking := startTLS(t, l, fd, h, cfg, true, w)
		on(t, l, func() { c = shaking })
		client := make(chan error, 1)
		go func() { client <- tls.Client(peer, clientConfig(tls.VersionTLS13)).Handshake() }()
		if err := receive(t, "the client", client); (err != nil) != closes {
			t.Errorf("closed: %v: the client has %v", closes, err)
		}
		eventually(t, "the handshake's end", func() bool { return w.Running(WorkHandshake) == 0 })
		on(t, l, func() {
			if turns == 0 {
				t.Errorf("closed: %v: nobody had a turn between key exchange and signature", closes)
			}
		})
		if closes && len(done) > 0 {
			t.Error("OnHandshake after Close")
		}
	}
}

// clientHello is a client's first flight.
func clientHello(t *testing.T) []byte {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go tls.Client(theirs, clientConfig(tls.VersionTLS13)).Handshake()
	b := make([]byte, 16<<10)
	n, err := ours.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// TestTLSFeedIsBounded: while a signature is made, the loop reads 64 KiB for the handshake and then stops.
func TestTLSFeedIsBounded(t *testing.T) {
	l := startLoop(t)
	cfg, held := heldConfig()
	h, done := shaken()
	fd, peer := tcpPair(t)
	c := startTLS(t, l, fd, h, cfg, true, NewWork(1))
	go func() {
		_, _ = peer.Write(clientHello(t))
		_, _ = peer.Write(make([]byte, 1<<20))
	}()
	receive(t, "the signer", held.entered)
	var received uint64
	onEventually(t, l, "a full feed", func() bool {
		received = c.Received()
		return len(c.tls.hs.feed) == feedBytesMax
	})
	on(t, l, func() {
		if c.Received() != received || received > 2*feedBytesMax {
			t.Errorf("read %d bytes, then %d, for a handshake that takes none", received, c.Received())
		}
	})
	held.leave <- struct{}{}
	if err := receive(t, "the handshake's end", done); err != ErrTLS { // zeros are no record
		t.Errorf("OnHandshake(%v)", err)
	}
}

// TestTLSFeedResumes: a flight of more than 64 KiB, which does not fit into the feed, arrives all the same.
func TestTLSFeedResumes(t *testing.T) {
	l := startLoop(t)
	cert, _ := identity()
	one := cert.Certificate[0]
	for n := len(one); n < 100<<10; n += len(one) {
		cert.Certificate = append(cert.Certificate[:len(cert.Certificate):len(cert.Certificate)], one)
	}
	cfg := serverConfig(tls.VersionTLS13)
	cfg.ClientAuth = tls.RequireAnyClientCert
	fd, peer := tcpPair(t)
	g := &gathered{TCPConn: peer}
	startTLS(t, l, fd, &echo{}, cfg, true, NewWork(1))
	ccfg := clientConfig(tls.VersionTLS13)
	ccfg.Certificates = []tls.Certificate{cert}
	ccfg.VerifyConnection = func(tls.ConnectionState) error {
		g.holding = true // the whole flight leaves as one
		return nil
	}
	tc := tls.Client(g, ccfg)
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	if len(g.held) <= feedBytesMax {
		t.Fatalf("the flight has only %d bytes", len(g.held))
	}
	if err := g.release(); err != nil {
		t.Fatal(err)
	}
	echoOnce(t, tc, 200_000)
}

func TestTLSPanics(t *testing.T) {
	quietly(t)
	l := startLoop(t)
	w := NewWork(1)
	t.Run("in a callback", func(t *testing.T) {
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
	if n := l.Stats.Panics.Load(); n != 2 {
		t.Errorf("%d panics counted", n)
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
	eventually(t, "the handshake's end", func() bool { return w.Running(WorkHandshake) == 0 })
}
