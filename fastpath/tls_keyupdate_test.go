package fastpath

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// rawTLS is a TLS 1.3 client that writes its records itself once crypto/tls has made the handshake: crypto/tls never asks
// for a KeyUpdate, and hostile peers do.
type rawTLS struct {
	net.Conn
	out, in trafficKey
	updates int // KeyUpdates received
}

// trafficKey is one direction's key (RFC 8446, 7.3), from what the library has for it, in distinction to recordlayer.go.
type trafficKey struct {
	suite  peerSuite
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// peerSuite is what a cipher suite is made of.
type peerSuite struct {
	hash func() hash.Hash
	key  int
	aead func([]byte) (cipher.AEAD, error)
}

func peerGCM(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

var peerSuites = map[uint16]peerSuite{
	tls.TLS_AES_128_GCM_SHA256:       {sha256.New, 16, peerGCM},
	tls.TLS_AES_256_GCM_SHA384:       {sha512.New384, 32, peerGCM},
	tls.TLS_CHACHA20_POLY1305_SHA256: {sha256.New, 32, chacha20poly1305.New},
}

func (s peerSuite) expandLabel(secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
	info = append(append(info, label...), 0)
	b, err := hkdf.Expand(s.hash, secret, string(info), n)
	if err != nil {
		panic(err)
	}
	return b
}

func newTrafficKey(s peerSuite, secret []byte) trafficKey {
	aead, err := s.aead(s.expandLabel(secret, "key", s.key))
	if err != nil {
		panic(err)
	}
	return trafficKey{suite: s, secret: secret, aead: aead, iv: s.expandLabel(secret, "iv", 12)}
}

func (k *trafficKey) next() {
	*k = newTrafficKey(k.suite, k.suite.expandLabel(k.secret, "traffic upd", len(k.secret)))
}

func (k *trafficKey) nonce() []byte {
	n := append([]byte(nil), k.iv...)
	for i := range 8 {
		n[4+i] ^= byte(k.seq >> (56 - 8*i))
	}
	k.seq++
	return n
}

// newRawTLS makes a handshake as client over nc.
func newRawTLS(t testing.TB, nc net.Conn) *rawTLS {
	t.Helper()
	var log strings.Builder
	cfg := clientConfig(tls.VersionTLS13)
	cfg.KeyLogWriter = &log
	tc := tls.Client(nc, cfg)
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	suite := peerSuites[tc.ConnectionState().CipherSuite]
	secret := func(name string) []byte {
		for _, line := range strings.Split(log.String(), "\n") {
			if f := strings.Fields(line); len(f) == 3 && f[0] == name {
				b, _ := hex.DecodeString(f[2])
				return b
			}
		}
		t.Fatalf("no %s in the key log", name)
		return nil
	}
	return &rawTLS{Conn: nc, out: newTrafficKey(suite, secret("CLIENT_TRAFFIC_SECRET_0")), in: newTrafficKey(suite, secret("SERVER_TRAFFIC_SECRET_0"))}
}

// record seals b as one record.
func (r *rawTLS) record(kind recordKind, b []byte) []byte {
	inner := append(append([]byte(nil), b...), byte(kind))
	head := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(inner)+r.out.aead.Overhead()))
	return r.out.aead.Seal(head, r.out.nonce(), inner, head)
}

// keyUpdate changes our key; asked makes the peer change its own and say so.
func (r *rawTLS) keyUpdate(asked bool) []byte {
	message := []byte{messageKeyUpdate, 0, 0, 1, 0}
	if asked {
		message[4] = 1
	}
	b := r.record(recordHandshake, message)
	r.out.next()
	return b
}

// readRecord opens the next record and follows the peer's key changes.
func (r *rawTLS) readRecord() (kind recordKind, b []byte, err error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r.Conn, head); err != nil {
		return 0, nil, err
	}
	sealed := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(r.Conn, sealed); err != nil {
		return 0, nil, err
	}
	inner, err := r.in.aead.Open(nil, r.in.nonce(), sealed, head)
	if err != nil || len(inner) == 0 {
		return 0, nil, fmt.Errorf("record %d: %v", r.in.seq-1, err)
	}
	kind, b = recordKind(inner[len(inner)-1]), inner[:len(inner)-1]
	if kind == recordHandshake && b[0] == messageKeyUpdate {
		r.updates++
		r.in.next()
	}
	return kind, b, nil
}

// readData reads n bytes of application data.
func (r *rawTLS) readData(n int) ([]byte, error) {
	var got []byte
	for len(got) < n {
		kind, b, err := r.readRecord()
		if err != nil {
			return got, err
		}
		if kind == recordData {
			got = append(got, b...)
		}
	}
	return got, nil
}

// TestTLSKeyUpdate: the answer to a KeyUpdate is output that the owner knows nothing of. Reading goes on behind it without
// another event, and so does writing.
func TestTLSKeyUpdate(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPair(t)
	startTLS(t, l, fd, &echo{}, serverConfig(tls.VersionTLS13), true, NewWork(1))
	r := newRawTLS(t, peer)
	want := payload(0, 50_000)
	for round := range 5 {
		var wire []byte
		for at := 0; at < len(want); at += 1000 {
			wire = append(wire, r.keyUpdate(true)...)
			wire = append(wire, r.record(recordData, want[at:at+1000])...)
			wire = append(wire, r.keyUpdate(false)...)
		}
		if _, err := peer.Write(wire); err != nil {
			t.Fatal(err)
		}
		got, err := r.readData(len(want))
		if err != nil {
			t.Fatalf("round %d: %d bytes came back, then %v", round, len(got), err)
		}
		same(t, "echo", got, want)
	}
	if r.updates != 5*50 {
		t.Errorf("%d of our KeyUpdates were answered, want 250", r.updates)
	}
}

// TestTLSKeyUpdateWhileOwnerWaitsForRoom: an owner that asks Room just when such an answer waits must not be put off for
// good.
func TestTLSKeyUpdateWhileOwnerWaitsForRoom(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPair(t)
	h := &hooks{}
	h.readable = func(c *Conn) {
		err := c.Fill(100)
		for ; err == nil; err = c.Fill(100) {
		}
		c.Discard(len(c.Buffered()))
		if c.Room() > 0 {
			c.Write([]byte("answer"))
		}
	}
	h.writable = func(c *Conn) { c.Write([]byte("answer")) }
	startTLS(t, l, fd, h, serverConfig(tls.VersionTLS13), true, NewWork(1))
	r := newRawTLS(t, peer)
	for range 20 {
		if _, err := peer.Write(append(r.record(recordData, []byte("question")), r.keyUpdate(true)...)); err != nil {
			t.Fatal(err)
		}
		if got, err := r.readData(len("answer")); string(got) != "answer" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

// TestTLSKeyUpdateAfterOurEnd: the answer cannot be sent any more; that breaks nothing.
func TestTLSKeyUpdateAfterOurEnd(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPair(t)
	h := &sink{}
	c := startTLS(t, l, fd, h, serverConfig(tls.VersionTLS13), true, NewWork(1))
	r := newRawTLS(t, peer)
	onEventually(t, l, "the session", func() bool { return established(c) })
	on(t, l, c.CloseWrite)
	for i := range 3 {
		_, _ = peer.Write(append(r.keyUpdate(true), r.record(recordData, payload(i*100, 100))...))
		onEventually(t, l, "data", func() bool { return len(h.got) == (i+1)*100 })
	}
	on(t, l, func() {
		same(t, "input after our end", h.got, payload(0, 300))
		if c.Broken() || h.err != nil {
			t.Errorf("broken %v, %v", c.Broken(), h.err)
		}
	})
}

// TestTLSKeyUpdateFlood: a connection on which nothing but KeyUpdates comes is ended. That is also what bounds one Fill, which
// reads on until there is plain text.
func TestTLSKeyUpdateFlood(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPair(t)
	h := &sink{}
	startTLS(t, l, fd, h, serverConfig(tls.VersionTLS13), true, NewWork(1))
	r := newRawTLS(t, peer)
	var wire []byte
	for range 100 {
		wire = append(wire, r.keyUpdate(true)...)
	}
	_, _ = peer.Write(wire)
	onEventually(t, l, "the end of the patience", func() bool { return h.err == ErrTLS })
	kind, _, err := r.readRecord()
	for err == nil && kind != recordAlert {
		kind, _, err = r.readRecord()
	}
	if err != nil {
		t.Errorf("the peer is told nothing: %v", err)
	}
	if r.updates == 0 || r.updates > 50 {
		t.Errorf("%d KeyUpdates were answered", r.updates)
	}
}

// TestTLSKeyUpdateFloodWithData: a peer that hides its KeyUpdates among data and reads no answer fills no memory, and keeps
// the loop from nobody.
func TestTLSKeyUpdateFloodWithData(t *testing.T) {
	l := startLoop(t)
	fd, peer := tcpPairBuffers(t, 4<<10)
	h := &sink{}
	c := startTLS(t, l, fd, h, serverConfig(tls.VersionTLS13), true, NewWork(1))
	r := newRawTLS(t, peer)
	_, bystander := adopt(t, l, &echo{})
	flooded := make(chan error, 1)
	go func() {
		for err := error(nil); ; {
			var wire []byte
			for i := range 100 {
				if i%10 == 0 {
					wire = append(wire, r.record(recordData, []byte("x"))...)
				}
				wire = append(wire, r.keyUpdate(true)...)
			}
			if _, err = peer.Write(wire); err != nil {
				flooded <- err
				return
			}
		}
	}()
	for range 20 {
		echoOnce(t, bystander, 1000)
	}
	var most, was int
	onEventually(t, l, "the flood to be held up", func() bool {
		n := len(h.got)
		held := c.flags&flagHungry != 0 && c.Blocked() && n > 0 && n == was
		most, was = max(most, cap(c.tls.pending)), n
		return held
	})
	if most > 2*outputBytesMax {
		t.Errorf("answers held %d bytes", most)
	}
	_ = peer.SetDeadline(time.Now())
	if err := receive(t, "the flood's end", flooded); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the flood was not held up: %v", err)
	}
	on(t, l, c.Close)
}
