package fastpath

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"net"
	"testing"
	"time"
)

// TestRecordLayerSuites: each suite's records are what the library's parts say, in both directions and over changes of the keys.
func TestRecordLayerSuites(t *testing.T) {
	for id := range recordSuites {
		t.Run(tls.CipherSuiteName(id), func(t *testing.T) {
			l := &Loop{}
			suite := peerSuites[id]
			client, server := payload(1, suite.hash().Size()), payload(99, suite.hash().Size())
			s := l.newRecordLayer(id, client, server, 2)
			r := &rawTLS{out: newTrafficKey(suite, client), in: newTrafficKey(suite, server)}
			r.in.seq = 2
			for i := range 10 {
				want := payload(i, []int{1, 100, 16_384}[i%3])
				r.Conn = &reading{b: s.seal(l, nil, want)}
				if kind, got, err := r.readRecord(); kind != recordData || err != nil || !bytes.Equal(got, want) {
					t.Fatalf("record %d of ours: %d bytes of kind %d, %v", i, len(got), kind, err)
				}
				kind, got, a := s.open(l, r.record(recordData, want))
				if kind != recordData || a != alertNone || !bytes.Equal(got, want) {
					t.Fatalf("record %d of theirs: %d bytes of kind %d, alert %d", i, len(got), kind, a)
				}
				switch i {
				case 3:
					r.Conn = &reading{b: s.sealKeyUpdate(l, nil)}
					if _, _, err := r.readRecord(); err != nil || r.updates != 1 {
						t.Fatalf("our KeyUpdate: %v", err)
					}
				case 5:
					kind, text, _ := s.open(l, r.keyUpdate(true))
					if asked, over, a := s.control(kind, text); !asked || over || a != alertNone {
						t.Fatalf("their KeyUpdate: asked %v, over %v, alert %d", asked, over, a)
					}
				case 7:
					l.RestTLS()
					if s.in.aead != nil || s.out.aead != nil || len(l.warm) != 0 {
						t.Error("a session that rests has ciphers")
					}
				}
			}
		})
	}
	for what, s := range map[string]*recordLayer{
		"a suite of TLS 1.2": new(Loop).newRecordLayer(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, payload(0, 32), payload(0, 32), 0),
		"no secrets":         new(Loop).newRecordLayer(tls.TLS_AES_128_GCM_SHA256, nil, nil, 0),
		"a short secret":     new(Loop).newRecordLayer(tls.TLS_AES_256_GCM_SHA384, payload(0, 48), payload(0, 32), 0),
	} {
		if s != nil {
			t.Errorf("%s makes a session", what)
		}
	}
}

// reading is a connection on which b comes.
type reading struct {
	net.Conn
	b []byte
}

func (r *reading) Read(b []byte) (int, error) {
	n := copy(b, r.b)
	r.b = r.b[n:]
	return n, nil
}

// TestRecordLayerTaken: every TLS 1.3 connection of a client is ours after its handshake, whatever the handshake was like, and no
// other is. With what stays of crypto/tls's values nothing is left to hold.
func TestRecordLayerTaken(t *testing.T) {
	certificates := func(n int) (own tls.Certificate) { // of n bytes
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		text, _ := asn1.Marshal(make([]byte, n))
		template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "a client"}, NotAfter: time.Now().Add(time.Hour),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: text}}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	presents := func(n int) func(*tls.Config) {
		return func(c *tls.Config) {
			c.Certificates, c.ClientSessionCache = []tls.Certificate{certificates(n)}, tls.NewLRUClientSessionCache(1) // else it wants no ticket
		}
	}
	resumed := tls.NewLRUClientSessionCache(1)
	for _, k := range []struct {
		name    string
		version uint16
		ours    func(*tls.Config)
		theirs  func(*tls.Config)
		want    bool
	}{
		{"TLS 1.2", tls.VersionTLS12, nil, nil, false},
		{"a client that wants no ticket", tls.VersionTLS13, nil, nil, true},
		{"without tickets", tls.VersionTLS13, func(c *tls.Config) { c.SessionTicketsDisabled = true }, nil, true},
		{"a ticket", tls.VersionTLS13, nil, func(c *tls.Config) { c.ClientSessionCache = resumed }, true},
		{"a ticket that is used", tls.VersionTLS13, nil, func(c *tls.Config) { c.ClientSessionCache = resumed }, true},
		{"another curve than the client began with", tls.VersionTLS13, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP384} }, nil, true},
		{"a client's certificate, which makes the ticket follow the client's part", tls.VersionTLS13,
			func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert },
			presents(100), true},
		{"no certificate of the client that was asked for one", tls.VersionTLS13, func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }, nil, true},
		{"a ticket that takes two records", tls.VersionTLS13, func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert },
			presents(16_000), false},
	} {
		t.Run(k.name, func(t *testing.T) {
			l := startLoop(t)
			srv, cli := serverConfig(k.version), clientConfig(k.version)
			srv.SetSessionTicketKeys([][32]byte{{1}})
			if k.ours != nil {
				k.ours(srv)
			}
			if k.theirs != nil {
				k.theirs(cli)
			}
			fd, peer := tcpPair(t)
			h := &echo{}
			c, tc := startTLS(t, l, fd, h, srv, true, NewWork(2)), tls.Client(peer, cli)
			for _, n := range []int{1, 20_000, 200_000} {
				echoOnce(t, tc, n)
			}
			on(t, l, func() {
				if want := k.name == "a ticket that is used"; h.state.DidResume != want {
					t.Errorf("resumed %v, want %v", h.state.DidResume, want)
				}
				if got := c.tls.layer != nil && c.tls.conn == nil; got != k.want {
					t.Errorf("a session of ours: %v, want %v", got, k.want)
				}
				l.RestTLS()
			})
			echoOnce(t, tc, 20_000)
			tc.Close()
			onEventually(t, l, "the close", func() bool { return l.Stats.Conns.Load() == 0 && len(l.warm) == 0 })
			if h.ended != ErrEOF {
				t.Errorf("ended with %v", h.ended)
			}
		})
	}
}

// sealed is what the client says by one record, or by bytes that are none.
type sealed func(r *rawTLS) []byte

func (r *rawTLS) broken(at int) []byte {
	b := r.record(recordData, []byte("something"))
	b[at] ^= 1
	return b
}

// TestRecordLayerRefuses: each record that is none, or not to be sent here, ends the connection; the client is told by which alert,
// and what came before it was read.
func TestRecordLayerRefuses(t *testing.T) {
	message := func(b ...byte) sealed { return func(r *rawTLS) []byte { return r.record(recordHandshake, b) } }
	padded := func(kind recordKind, text, zeros int) sealed {
		return func(r *rawTLS) []byte {
			return r.record(0, append(append(payload(0, text), byte(kind)), make([]byte, zeros-1)...))
		}
	}
	for _, k := range []struct {
		name string
		say  sealed
		want alert
	}{
		{"a bit of the text", func(r *rawTLS) []byte { return r.broken(7) }, alertBadRecordMAC},
		{"a bit of the tag", func(r *rawTLS) []byte { return r.broken(5 + 9 + 1 + 15) }, alertBadRecordMAC},
		{"a record that came before", func(r *rawTLS) []byte { b := r.record(recordData, []byte("once")); return append(b, b...) }, alertBadRecordMAC},
		{"a record that is missing", func(r *rawTLS) []byte { r.record(recordData, []byte("lost")); return r.record(recordData, nil) }, alertBadRecordMAC},
		{"of the server's key", func(r *rawTLS) []byte { return (&rawTLS{out: r.in}).record(recordData, nil) }, alertBadRecordMAC},
		{"no tag", func(*rawTLS) []byte { return []byte{23, 3, 3, 0, 3, 1, 2, 3} }, alertBadRecordMAC},
		{"no bytes", func(*rawTLS) []byte { return []byte{23, 3, 3, 0, 0} }, alertBadRecordMAC},
		{"another version", func(r *rawTLS) []byte { return r.broken(2) }, alertProtocolVersion},
		{"a plain alert", func(*rawTLS) []byte { return []byte{21, 3, 3, 0, 2, 1, 0} }, alertUnexpectedMessage},
		{"a plain handshake", func(*rawTLS) []byte { return []byte{22, 3, 3, 0, 5, 24, 0, 0, 1, 0} }, alertUnexpectedMessage},
		{"a change of ciphers", func(*rawTLS) []byte { return []byte{20, 3, 3, 0, 1, 1} }, alertUnexpectedMessage},
		{"HTTP", func(*rawTLS) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }, alertUnexpectedMessage},
		{"too long a record", func(*rawTLS) []byte { return binary.BigEndian.AppendUint16([]byte{23, 3, 3}, recordSealedMax+1) }, alertRecordOverflow},
		{"too long a text", func(r *rawTLS) []byte { return r.record(recordData, make([]byte, recordTextMax+1)) }, alertRecordOverflow},
		{"too long a text, of padding", padded(recordData, 100, recordTextMax-99), alertRecordOverflow},
		{"nothing but padding", func(r *rawTLS) []byte { return r.record(0, make([]byte, 100)) }, alertUnexpectedMessage},
		{"a kind that is unknown", func(r *rawTLS) []byte { return r.record(24, []byte("heartbeat")) }, alertUnexpectedMessage},
		{"a change of ciphers, sealed", func(r *rawTLS) []byte { return r.record(20, []byte{1}) }, alertUnexpectedMessage},
		{"half an alert", func(r *rawTLS) []byte { return r.record(recordAlert, []byte{2}) }, alertUnexpectedMessage},
		{"two alerts", func(r *rawTLS) []byte { return r.record(recordAlert, []byte{1, 0, 1, 0}) }, alertUnexpectedMessage},
		{"no message", message(), alertUnexpectedMessage},
		{"half a KeyUpdate", message(24, 0, 0), alertUnexpectedMessage},
		{"two KeyUpdates", message(24, 0, 0, 1, 0, 24, 0, 0, 1, 0), alertUnexpectedMessage},
		{"a long KeyUpdate", message(24, 0, 0, 2, 0, 0), alertUnexpectedMessage},
		{"a KeyUpdate of another length", message(24, 0, 1, 1, 0), alertUnexpectedMessage},
		{"a KeyUpdate that says neither", message(24, 0, 0, 1, 2), alertIllegalParameter},
		{"a ticket", message(4, 0, 0, 1, 0), alertUnexpectedMessage},
		{"a hello", message(1, 0, 0, 1, 0), alertUnexpectedMessage},
		{"many records without text", func(r *rawTLS) (b []byte) {
			for range recordsIdleMax + 1 {
				b = append(b, r.record(recordData, nil)...)
			}
			return b
		}, alertUnexpectedMessage},

		{"padding", padded(recordData, 100, 1000), alertNone},
		{"the longest padding", padded(recordData, 100, recordTextMax-100), alertNone},
		{"a few records without text", func(r *rawTLS) (b []byte) {
			for range recordsIdleMax {
				b = append(b, r.record(recordData, nil)...)
			}
			return b
		}, alertNone},
		{"a user that cancelled", func(r *rawTLS) []byte { return r.record(recordAlert, []byte{1, 90}) }, alertNone},
		{"a KeyUpdate", func(r *rawTLS) []byte { return r.keyUpdate(false) }, alertNone},
	} {
		t.Run(k.name, func(t *testing.T) {
			p := newBorderPeer(t)
			p.max = 64 << 10
			wire := append(p.r.record(recordData, []byte("before")), k.say(p.r)...)
			wire = append(wire, p.r.record(recordData, []byte("after"))...)
			if _, err := p.r.Write(wire); err != nil {
				t.Fatal(err)
			}
			if k.want == alertNone {
				rounds(t, p.l, "what comes after", func() bool { return bytes.HasSuffix(p.got, []byte("after")) })
				if p.err != nil {
					t.Error(p.err)
				}
				return
			}
			rounds(t, p.l, "the end", func() bool { return p.err != nil })
			if p.err != ErrTLS || !bytes.HasPrefix(p.got, []byte("before")) || bytes.HasSuffix(p.got, []byte("after")) {
				t.Errorf("%v, after %q", p.err, p.got)
			}
			if kind, b, err := p.r.readRecord(); kind != recordAlert || err != nil || !bytes.Equal(b, []byte{alertFatal, byte(k.want)}) {
				t.Errorf("the client reads %d of kind %d, %v; want alert %d", b, kind, err, k.want)
			}
			if err := p.c.Fill(100); err != ErrTLS {
				t.Errorf("asked again: %v", err)
			}
			p.l.flushDirty()
			p.c.Close()
			if kind, _, err := p.r.readRecord(); err == nil {
				t.Errorf("the client is told more: kind %d", kind)
			}
		})
	}
}

// TestRecordLayerEnds: an alert of the client's ends the session without an answer, and close_notify as an end: what follows it is not
// looked at.
func TestRecordLayerEnds(t *testing.T) {
	for what, k := range map[string]struct {
		say  []byte
		want *Error
	}{
		"close_notify":          {[]byte{1, 0}, ErrEOF},
		"close_notify as fatal": {[]byte{2, 0}, ErrEOF},
		"an internal error":     {[]byte{2, 80}, ErrTLS},
		"an error as a warning": {[]byte{1, 42}, ErrTLS},
	} {
		t.Run(what, func(t *testing.T) {
			p := newBorderPeer(t)
			wire := append(p.r.record(recordData, []byte("before")), p.r.record(recordAlert, k.say)...)
			if _, err := p.r.Write(append(wire, "nobody reads this"...)); err != nil {
				t.Fatal(err)
			}
			rounds(t, p.l, "the end", func() bool { return p.err != nil })
			for range 2 {
				if p.err != k.want || string(p.got) != "before" {
					t.Errorf("%v, after %q", p.err, p.got)
				}
				p.err = p.c.Fill(100)
			}
			p.c.Write([]byte("still")) // our direction is open after close_notify, and closed after an error
			p.l.flushDirty()
			p.c.Close()
			kind, b, err := p.r.readRecord()
			if got, want := string(b) == "still" && kind == recordData, k.want == ErrEOF; got != want {
				t.Errorf("the client reads %q, %v", b, err)
			}
		})
	}
}

// TestRecordLayerChangesItsKey: a key seals no more records than it may. The client follows.
func TestRecordLayerChangesItsKey(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPair(t)
	c := startTLS(t, l, fd, &echo{}, serverConfig(tls.VersionTLS13), true, NewWork(1))
	r := newRawTLS(t, peer)
	onEventually(t, l, "the session", func() bool { return established(c) })
	on(t, l, func() { c.tls.layer.out.seq = recordsOfKey - 1 })
	r.in.seq = recordsOfKey - 1
	for i := range 4 {
		want := payload(i, 40_000)
		go func() {
			for at := 0; at < len(want); at += 10_000 {
				_, _ = peer.Write(r.record(recordData, want[at:at+10_000]))
			}
		}()
		got, err := r.readData(len(want))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "echo", got, want)
	}
	if r.updates != 1 {
		t.Errorf("%d KeyUpdates", r.updates)
	}
}

// TestRecordLayersRest: ciphers of sessions that were not used for a while are let go of, others stay.
func TestRecordLayersRest(t *testing.T) {
	p := newBorderPeer(t)
	s := p.c.tls.layer
	p.l.restTLS()
	p.give(t, p.r.record(recordData, []byte("x")))
	if p.l.restTLS(); s.in.aead == nil {
		t.Error("a session that was used has lost its ciphers")
	}
	p.l.skew += int64(layersRest)
	p.l.round(0)
	if s.in.aead != nil || s.out.aead != nil || s.warm != 0 || len(p.l.warm) != 0 {
		t.Error("a session that was not used keeps its ciphers")
	}
	p.give(t, p.r.record(recordData, []byte("y")))
	if string(p.got) != "xy" || s.warm != 1 {
		t.Errorf("got %q", p.got)
	}
	if p.c.Close(); len(p.l.warm) != 0 {
		t.Error("a closed connection's session is held")
	}
}

// TestAllocRecordLayer: a request and its answer through a session take no memory.
func TestAllocRecordLayer(t *testing.T) {
	p := newBorderPeer(t)
	p.l.poison = false
	p.c.SetHandler(&echo{})
	raw := rawPeer(t, tcpOf(p.r.Conn))
	var wire [][]byte
	for range 2200 {
		wire = append(wire, p.r.record(recordData, payload(0, 300)))
	}
	got, size := make([]byte, 1000), 300+recordHeadBytes+1+tagBytes
	allocations(t, "a record in, a record out", func() {
		_, _ = send(raw, wire[0], 0)
		wire = wire[1:]
		for n := 0; n < size; {
			p.l.round(10)
			if k, e := recv(raw, got[n:], 0); e == 0 {
				n += k
			}
		}
	})
}

// TestIdleRecordLayersHoldNothing: a connection that rests has neither crypto/tls's values nor ciphers nor buffers, even when the
// begin of a record has come.
func TestIdleRecordLayersHoldNothing(t *testing.T) {
	p := newBorderPeer(t)
	wire := p.r.record(recordData, payload(0, 1000))
	p.give(t, wire[:700])
	p.l.RestTLS()
	s := p.c.tls
	if s.conn != nil || s.hs != nil || s.layer.in.aead != nil || s.pending != nil || p.c.out != nil || p.c.own != nil {
		t.Error("it holds something")
	}
	if cap(s.own) > bufferClasses[0] || p.c.Waiting() {
		t.Errorf("700 bytes of a record are held in %d; waiting %v", cap(s.own), p.c.Waiting())
	}
	if p.give(t, wire[700:]); s.own != nil || len(p.got) != 1000 {
		t.Errorf("held %d after %d bytes", cap(s.own), len(p.got))
	}
}

// FuzzRecordLayer: whatever comes, what is given is what the client has sealed, from the begin and in order, and nothing behind the first
// byte that was changed; without a change, all of it.
func FuzzRecordLayer(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0, 200, 255}, uint16(0), byte(0))
	f.Add([]byte{9, 9, 9}, uint16(3), byte(1))
	f.Add([]byte{250, 251, 252, 253, 1}, uint16(40), byte(0x80))
	f.Fuzz(func(t *testing.T, script []byte, at uint16, flip byte) {
		l := &Loop{}
		suite := peerSuites[tls.TLS_AES_128_GCM_SHA256]
		client, server := payload(1, 32), payload(99, 32)
		s := l.newRecordLayer(tls.TLS_AES_128_GCM_SHA256, client, server, 0)
		r := &rawTLS{out: newTrafficKey(suite, client), in: newTrafficKey(suite, server)}
		var wire, want, got []byte
		idle, fair := 0, true
		for i, b := range script[:min(len(script), 200)] {
			switch {
			case b >= 250:
				wire = append(wire, r.keyUpdate(b&1 == 1)...)
				idle++
			case b >= 240: // any kind, any content
				kind, text := recordKind(script[(i+1)%len(script)]), script[:i%7]
				if wire, fair = append(wire, r.record(kind, text)...), false; kind == recordData {
					want = append(want, text...)
				}
			default:
				text := payload(len(want), int(b)*i%700)
				wire, want = append(wire, r.record(recordData, text)...), append(want, text...)
				if idle++; len(text) > 0 {
					idle = 0
				}
			}
			fair = fair && idle <= recordsIdleMax
		}
		if int(at) < len(wire) && flip != 0 {
			wire[at] ^= flip
			fair = false
		}
		end := alertNone
		for !s.ended {
			whole, a := recordAt(wire)
			if end = a; whole == 0 {
				break
			}
			kind, text, a := s.open(l, wire[:whole])
			if end = a; a != alertNone {
				break
			}
			if wire = wire[whole:]; kind == recordData && len(text) > 0 {
				s.idle = 0
				got = append(got, text...)
			} else if _, over, a := s.control(kind, text); over || a != alertNone {
				end = a
				break
			}
		}
		if !bytes.HasPrefix(want, got) {
			t.Fatal("something else than was sent")
		}
		if fair && (len(got) != len(want) || end != alertNone) {
			t.Fatalf("%d of %d bytes, then alert %d", len(got), len(want), end)
		}
	})
}
