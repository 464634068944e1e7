package fastpath

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"hash"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func TestTLSEcho(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		l := startLoop(t)
		h := &echo{}
		c, peer := secured(t, l, s, h, 0)
		for _, n := range []int{1, 2, 100, 4095, 16383, 16384, 16385, 65536, 100_000, 1 << 20} {
			echoOnce(t, peer, n)
		}
		on(t, l, func() {
			if c.Plain() || h.state.Version != s.version || c.HandshakeError() != nil {
				t.Errorf("plain %v, %v", c.Plain(), c.HandshakeError())
			}
			if c.Received() < 1<<20 || c.Sent() < 1<<20 {
				t.Errorf("received %d, sent %d", c.Received(), c.Sent())
			}
			if c.own != nil || c.out != nil || c.tls.own != nil || c.tls.pending != nil {
				t.Error("an idle connection holds buffers")
			}
		})
		_ = peer.CloseWrite()
		if rest, err := io.ReadAll(peer); len(rest) != 0 || err != nil {
			t.Errorf("at the end: %d bytes, %v", len(rest), err)
		}
		peer.Close()
		onEventually(t, l, "the close", func() bool { return l.Stats.Conns.Load() == 0 })
		if h.ended != ErrEOF {
			t.Errorf("ended with %v", h.ended)
		}
	})
}

// TestTLSInterleaved: records of many connections, in segments of any size, through the shared and poisoned buffers.
func TestTLSInterleaved(t *testing.T) {
	l := startLoop(t)
	w := NewWork(2)
	var wg sync.WaitGroup
	for i := range 12 {
		s := side{i%2 == 0, tlsVersions[i/2%2]}
		fd, peer := tcpPair(t)
		startTLS(t, l, fd, &echo{}, s.ours(), s.server, w)
		tc := s.theirs(&chopped{peer, rand.New(rand.NewPCG(1, uint64(i))), 6000})
		wg.Go(func() { echoed(t, tc, 500_000+i) })
	}
	wg.Wait()
}

// TestTLSEnds: a complete end and a cut are told apart, and what came before is read first.
func TestTLSEnds(t *testing.T) {
	cases := []struct {
		name string
		end  func(*tls.Conn)
		want *Error
	}{
		{"close_notify", func(c *tls.Conn) { _ = c.CloseWrite() }, ErrEOF},
		{"close_notify and FIN", func(c *tls.Conn) { c.Close() }, ErrEOF},
		{"bare FIN", func(c *tls.Conn) { _ = c.NetConn().(*gathered).CloseWrite() }, ErrTruncated},
		{"FIN within a record", func(c *tls.Conn) {
			g := c.NetConn().(*gathered)
			g.holding = true
			_, _ = c.Write(make([]byte, 1000))
			_, _ = g.TCPConn.Write(g.held[:500])
			_ = g.CloseWrite()
		}, ErrTruncated},
		{"FIN within a record's header", func(c *tls.Conn) {
			g := c.NetConn().(*gathered)
			_, _ = g.TCPConn.Write([]byte{23, 3})
			_ = g.CloseWrite()
		}, ErrTruncated},
		{"reset", func(c *tls.Conn) { reset(c.NetConn().(*gathered).TCPConn) }, ErrReset},
		{"garbage", func(c *tls.Conn) { _, _ = c.NetConn().Write(block[:100]) }, ErrTLS},
	}
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			eachSide(t, func(t *testing.T, s side) {
				l := startLoop(t)
				h := &sink{}
				fd, peer := tcpPair(t)
				c := startTLS(t, l, fd, h, s.ours(), s.server, NewWork(1))
				tc := s.theirs(&gathered{TCPConn: peer})
				if _, err := tc.Write(payload(0, 40_000)); err != nil {
					t.Fatal(err)
				}
				if k.want == ErrReset { // the kernel may drop what a reset overtakes
					onEventually(t, l, "the data", func() bool { return len(h.got) == 40_000 })
				}
				k.end(tc)
				onEventually(t, l, "the end", func() bool { return h.err != nil })
				on(t, l, func() {
					same(t, "data before the end", h.got, payload(0, 40_000))
					if h.err != k.want {
						t.Errorf("got %v, want %v", h.err, k.want)
					}
					if err := c.Fill(100); err != k.want {
						t.Errorf("asked again: %v", err)
					}
					c.Close()
				})
			})
		})
	}
}

// TestTLSBackPressure: as for plain connections; what is sealed and waits is bounded too.
func TestTLSBackPressure(t *testing.T) {
	const total = 4 << 20
	for name, piece := range map[string]func() int{"small": pieces(900), "large": pieces(50_000), "mixed": pieces(10, 3000, 8192, 40_000, 65_536)} {
		t.Run(name, func(t *testing.T) {
			l := startLoop(t)
			s := &source{stream: stream{left: total}, piece: piece, closing: (*Conn).CloseWrite}
			c, peer := secured(t, l, side{true, tls.VersionTLS13}, s, 64<<10)
			onEventually(t, l, "a full socket", func() bool { return s.stuck })
			on(t, l, func() {
				if c.Room() != 0 || c.Sent() > 1<<20 {
					t.Errorf("stuck with room %d after %d bytes", c.Room(), c.Sent())
				}
			})
			sum, n, err := digest(peer)
			if err != nil || n != total || sum != streamDigest(stream{left: total}) {
				t.Errorf("the peer read %d of %d bytes, %v", n, total, err)
			}
			on(t, l, func() {
				if s.writable == 0 || s.held > 2*outputBytesMax {
					t.Errorf("OnWritable came %d times, %d bytes were held", s.writable, s.held)
				}
			})
		})
	}
}

// TestTLSCloseNotifyWaitsForOutput: an end that is asked for while output waits is still a complete one.
func TestTLSCloseNotifyWaitsForOutput(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		l := startLoop(t)
		h := &source{stream: stream{left: 64 << 20}, piece: pieces(20_000), closing: (*Conn).CloseWrite}
		c, peer := secured(t, l, s, h, 16<<10)
		onEventually(t, l, "a full socket", func() bool { return h.stuck })
		var want int
		on(t, l, func() {
			c.Write([]byte("more, beyond room"))
			want = h.at + len("more, beyond room")
			h.left, h.done = 0, true
			c.CloseWrite()
			if c.flags&flagShut != 0 {
				t.Error("the test needs output that waits")
			}
		})
		got, err := io.ReadAll(peer)
		if err != nil || len(got) != want {
			t.Errorf("the peer read %d of %d bytes, then %v", len(got), want, err)
		}
	})
}

func TestTLSHalfClose(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		l := startLoop(t)
		want := payload(17, 1<<20)
		t.Run("theirs first", func(t *testing.T) {
			h := &sink{}
			c, peer := secured(t, l, s, h, 0)
			_ = peer.CloseWrite()
			onEventually(t, l, "their end", func() bool { return h.err == ErrEOF })
			src := &source{stream: stream{at: 17, left: len(want)}, piece: pieces(30_000), closing: (*Conn).CloseWrite}
			on(t, l, func() {
				c.SetHandler(src)
				src.pump(c)
			})
			got, err := io.ReadAll(peer)
			if err != nil {
				t.Error(err)
			}
			same(t, "output after their end", got, want)
		})
		t.Run("ours first", func(t *testing.T) {
			h := &sink{}
			c, peer := secured(t, l, s, h, 0)
			on(t, l, func() {
				c.Write([]byte("bye"))
				c.CloseWrite()
				c.Write([]byte("and"))
			})
			if got, err := io.ReadAll(peer); string(got) != "bye" || err != nil {
				t.Errorf("the peer read %q, %v", got, err)
			}
			_, _ = peer.Write(want)
			_ = peer.CloseWrite()
			onEventually(t, l, "their end", func() bool { return h.err != nil })
			if h.err != ErrEOF {
				t.Errorf("ended with %v", h.err)
			}
			same(t, "input after our end", h.got, want)
		})
	})
}

// duplex sends a stream and reads another at the same time.
type duplex struct {
	source
	sum hash.Hash
	err *Error
}

func (d *duplex) OnReadable(c *Conn) {
	for moved := 0; d.err == nil; {
		err := c.Fill(32 << 10)
		b := c.Buffered()
		d.sum.Write(b)
		moved += len(b)
		c.Discard(len(b))
		if err == ErrWouldBlock {
			break
		}
		if d.err = err; moved >= turnBytes {
			c.Again()
			break
		}
	}
	d.pump(c)
}

func TestTLSBulkBothWays(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		const total = 6 << 20
		l := startLoop(t)
		d := &duplex{source: source{stream: stream{at: 5, left: total}, piece: pieces(100, 9000, 60_000), closing: (*Conn).CloseWrite}, sum: sha256.New()}
		_, peer := secured(t, l, s, d, 0)
		go func() {
			_, _ = io.CopyBuffer(struct{ io.Writer }{peer}, &stream{at: 6, left: total}, make([]byte, 50_000))
			_ = peer.CloseWrite()
		}()
		sum, n, err := digest(peer)
		if err != nil || n != total || sum != streamDigest(stream{at: 5, left: total}) {
			t.Errorf("the peer read %d of %d bytes, %v", n, total, err)
		}
		onEventually(t, l, "the end", func() bool { return d.err != nil })
		if d.err != ErrEOF || [32]byte(d.sum.Sum(nil)) != streamDigest(stream{at: 6, left: total}) {
			t.Errorf("we read something else, or not all: %v", d.err)
		}
	})
}

// TestReadingGoesOnBehindOutput: a peer that sends all it has before it reads anything must not wait for ever because of
// output that waits for it. The directions are independent, over TLS too.
func TestReadingGoesOnBehindOutput(t *testing.T) {
	const total = 6 << 20
	run := func(t *testing.T, l *Loop, d *duplex, peer wire) {
		onEventually(t, l, "output that waits", func() bool { return d.stuck })
		if _, err := io.CopyBuffer(struct{ io.Writer }{peer}, &stream{at: 6, left: total}, make([]byte, 50_000)); err != nil {
			t.Fatalf("the peer cannot send while it does not read: %v", err)
		}
		_ = peer.CloseWrite()
		sum, n, err := digest(peer)
		if err != nil || n != total || sum != streamDigest(stream{at: 5, left: total}) {
			t.Errorf("the peer read %d of %d bytes, %v", n, total, err)
		}
		onEventually(t, l, "the end", func() bool { return d.err != nil })
		if d.err != ErrEOF || [32]byte(d.sum.Sum(nil)) != streamDigest(stream{at: 6, left: total}) {
			t.Errorf("we read something else, or not all: %v", d.err)
		}
	}
	newDuplex := func() *duplex {
		return &duplex{source: source{stream: stream{at: 5, left: total}, piece: pieces(9000, 60_000), closing: (*Conn).CloseWrite}, sum: sha256.New()}
	}
	t.Run("plain", func(t *testing.T) {
		l, d := startLoop(t), newDuplex()
		fd, peer := tcpPairBuffers(t, 32<<10)
		c := adoptFD(t, l, fd, d)
		on(t, l, c.Again)
		run(t, l, d, peer)
	})
	eachSide(t, func(t *testing.T, s side) {
		l, d := startLoop(t), newDuplex()
		_, peer := secured(t, l, s, d, 32<<10)
		run(t, l, d, peer)
	})
}

// TestTLSCloseLinger: the answer on a connection that still receives, over TLS.
func TestTLSCloseLinger(t *testing.T) {
	eachSide(t, func(t *testing.T, s side) {
		l := startLoop(t)
		c, peer := secured(t, l, s, &hooks{}, 0)
		answer := payload(3, 20_000)
		_, _ = peer.Write(payload(0, 10_000))
		on(t, l, func() {
			c.Write(answer)
			c.CloseLinger()
		})
		if _, err := peer.Write(payload(0, 40_000)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(peer)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "answer", got, answer)
		peer.Close()
		onEventually(t, l, "the close", func() bool { return l.Stats.Conns.Load() == 0 })
	})
}

// TestTLSResumption: tickets work at either end, also when they come after the handshake, in the input.
func TestTLSResumption(t *testing.T) {
	for _, version := range tlsVersions {
		for _, server := range []bool{true, false} {
			s := side{server, version}
			t.Run(s.String(), func(t *testing.T) {
				l := startLoop(t)
				w := NewWork(2)
				srv, cli := serverConfig(version), clientConfig(version)
				cli.ClientSessionCache = tls.NewLRUClientSessionCache(4)
				for i := range 3 {
					fd, peer := tcpPair(t)
					var c *Conn
					var tc *tls.Conn
					h := &echo{}
					if server {
						c, tc = startTLS(t, l, fd, h, srv, true, w), tls.Client(peer, cli)
					} else {
						c, tc = startTLS(t, l, fd, h, cli, false, w), tls.Server(peer, srv)
					}
					echoOnce(t, tc, 1000)
					if got, want := tc.ConnectionState().DidResume, i > 0; got != want {
						t.Errorf("connection %d: resumed %v", i, got)
					}
					on(t, l, func() {
						if h.state.DidResume != (i > 0) {
							t.Errorf("connection %d: our end says resumed %v", i, h.state.DidResume)
						}
						c.SetDeadline(l.now + int64(time.Hour))
					})
					tc.Close()
				}
			})
		}
	}
}

// TestSealsInARow: what little several connections have staged is sealed before any of it is sent. It arrives whole and in
// order with what was too much for that, and with an end.
func TestSealsInARow(t *testing.T) {
	for _, version := range tlsVersions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			l := startLoop(t)
			want := [3][]byte{[]byte("little"), payload(0, sealAheadMax+1), []byte("last words")}
			var conns [len(want)]*Conn
			var peers [len(want)]*tls.Conn
			shaken := make(chan *Error, len(want))
			for i := range want {
				fd, nc := tcpPair(t)
				h := &hooks{handshake: func(_ *Conn, err *Error) { shaken <- err }}
				conns[i] = startTLS(t, l, fd, h, serverConfig(version), true, NewWork(1))
				peers[i] = tls.Client(wary{nc}, clientConfig(version))
				if err := peers[i].Handshake(); err != nil {
					t.Fatal(err)
				}
				if err := receive(t, "a handshake", shaken); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				on(t, l, func() {
					for i, c := range conns {
						c.Write(want[i])
						c.tls.sealAhead()
					}
					if a, b := conns[0], conns[2]; a.tls.sealed == 0 || b.tls.from < a.tls.sealed || a.Pending() || b.Pending() {
						t.Errorf("%d and %d bytes were sealed ahead", a.tls.sealed, b.tls.sealed)
					}
					if c := conns[1]; c.tls.sealed != 0 {
						t.Errorf("%d bytes of a large answer were sealed ahead", c.tls.sealed)
					}
				})
				for i, p := range peers {
					got := make([]byte, len(want[i]))
					if _, err := io.ReadFull(p, got); err != nil || !bytes.Equal(got, want[i]) {
						t.Fatalf("%d: got %d bytes, %v", i, len(got), err)
					}
				}
			}
			on(t, l, func() {
				for i, c := range conns {
					c.Write(want[i])
				}
			})
			on(t, l, func() {
				for _, c := range conns {
					c.CloseWrite()
				}
				if len(l.sealed) != 0 {
					t.Errorf("%d bytes of records are kept", len(l.sealed))
				}
			})
			for i, p := range peers {
				if got, err := io.ReadAll(p); err != nil || !bytes.Equal(got, want[i]) {
					t.Errorf("%d: got %d bytes, %v", i, len(got), err)
				}
			}
		})
	}
}
