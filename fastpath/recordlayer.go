package fastpath

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"hash"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// recordLayer is that of a client's TLS 1.3 connection after its handshake (RFC 8446, 5). crypto/tls makes the handshake; what it
// holds afterwards for a connection, some three KiB, it holds as long as the connection lives. A recordLayer holds the secrets of
// its two directions, and their ciphers only while it is used (docs/decisions/0099-records-of-our-own.md).
type recordLayer struct {
	suite   *recordSuite
	in, out traffic
	idle    int  // records since the last one with plain text
	ended   bool // close_notify came
	failed  bool // something came that is none of TLS's, or a fatal alert: nothing more is opened
	used    bool // since ciphers were last let go of
	warm    int  // place in the loop's list of layers with ciphers, from 1; 0: not there
}

// traffic is one direction's keys (RFC 8446, 7.3).
type traffic struct {
	secret [sha512.Size384]byte // the traffic secret, as long as the suite's hash
	iv     [nonceBytes]byte
	seq    uint64      // the next record's number
	aead   cipher.AEAD // nil while the layer rests
}

// recordKind is the type of what a record contains (RFC 8446, 5.1).
type recordKind byte

const (
	recordAlert     recordKind = 21
	recordHandshake recordKind = 22
	recordData      recordKind = 23
)

// alert is a TLS alert's description (RFC 8446, 6).
type alert byte

const (
	alertNone              alert = 255 // nothing is wrong
	alertCloseNotify       alert = 0
	alertUnexpectedMessage alert = 10
	alertBadRecordMAC      alert = 20
	alertRecordOverflow    alert = 22
	alertIllegalParameter  alert = 47
	alertProtocolVersion   alert = 70
	alertUserCanceled      alert = 90

	alertWarning, alertFatal = 1, 2
)

const (
	recordTextMax    = 16 << 10            // plain text of a record
	recordSealedMax  = recordTextMax + 256 // what follows its head
	recordsIdleMax   = 16                  // records in a row without plain text
	recordsOfKey     = 1 << 23             // records that one key seals: AES-GCM may be used for 2^24.5 (RFC 8446, 5.5)
	nonceBytes       = 12
	tagBytes         = 16
	messageKeyUpdate = 24
	keyUpdateBytes   = 5
)

// recordSuite is what a cipher suite is made of.
type recordSuite struct {
	hash                func() hash.Hash
	hashBytes, keyBytes int
	aead                func(key []byte) (cipher.AEAD, error)
}

var recordSuites = map[uint16]*recordSuite{
	tls.TLS_AES_128_GCM_SHA256:       {sha256.New, sha256.Size, 16, newGCM},
	tls.TLS_AES_256_GCM_SHA384:       {sha512.New384, sha512.Size384, 32, newGCM},
	tls.TLS_CHACHA20_POLY1305_SHA256: {sha256.New, sha256.Size, chacha20poly1305.KeySize, chacha20poly1305.New},
}

func newGCM(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// expand is HKDF-Expand-Label with an empty context, for at most a hash's length, from a secret's HMAC (RFC 8446, 7.1; RFC
// 5869, 2.3: then there is one block).
func expand(secret hash.Hash, label string, n int) []byte {
	secret.Reset()
	info := append(make([]byte, 0, 32), byte(n>>8), byte(n), byte(len(labelPrefix)+len(label)))
	secret.Write(append(append(append(info, labelPrefix...), label...), 0, 1))
	return secret.Sum(nil)[:n]
}

const labelPrefix = "tls13 "

// newRecordLayer is what stands between the traffic secrets of a client and its server, who has sealed as many records as it has
// sent tickets. nil: nothing that is known here.
func (l *Loop) newRecordLayer(suite uint16, client, server []byte, tickets int) *recordLayer {
	r := &recordLayer{suite: recordSuites[suite]}
	if r.suite == nil || len(client) != r.suite.hashBytes || len(server) != r.suite.hashBytes {
		return nil
	}
	r.in.begin(r.suite, client)
	r.out.begin(r.suite, server)
	r.out.seq = uint64(tickets)
	r.use(l)
	return r
}

// begin makes secret the direction's.
func (d *traffic) begin(s *recordSuite, secret []byte) {
	copy(d.secret[:], secret)
	d.seq = 0
	d.derive(s)
}

// derive makes the cipher and what its nonces are made of.
func (d *traffic) derive(s *recordSuite) {
	secret := hmac.New(s.hash, d.secret[:s.hashBytes])
	copy(d.iv[:], expand(secret, "iv", nonceBytes))
	aead, err := s.aead(expand(secret, "key", s.keyBytes))
	if err != nil {
		panic(err) // the key's length is the suite's
	}
	d.aead = aead
}

// update goes on to the next secret (RFC 8446, 7.2).
func (d *traffic) update(s *recordSuite) {
	d.begin(s, expand(hmac.New(s.hash, d.secret[:s.hashBytes]), "traffic upd", s.hashBytes))
}

// nonce writes the next record's into b (RFC 8446, 5.3).
func (d *traffic) nonce(b *[nonceBytes]byte) []byte {
	*b = d.iv
	at := b[nonceBytes-8:]
	binary.BigEndian.PutUint64(at, binary.BigEndian.Uint64(at)^d.seq)
	d.seq++
	return b[:]
}

// ---- opening

// recordAt is the length of the record that b begins with; 0: it is not complete. Of a head that cannot be one's, the alert.
func recordAt(b []byte) (n int, a alert) {
	if len(b) < recordHeadBytes {
		return 0, alertNone
	}
	size := int(b[3])<<8 | int(b[4])
	switch {
	case recordKind(b[0]) != recordData: // all are sealed from here on, and say so
		return 0, alertUnexpectedMessage
	case b[1] != 3 || b[2] != 3:
		return 0, alertProtocolVersion
	case size > recordSealedMax:
		return 0, alertRecordOverflow
	case len(b) < recordHeadBytes+size:
		return 0, alertNone
	}
	return recordHeadBytes + size, alertNone
}

// open opens the record b in place. text is a view of b.
func (r *recordLayer) open(l *Loop, b []byte) (kind recordKind, text []byte, a alert) {
	r.use(l)
	text, err := r.in.aead.Open(b[recordHeadBytes:recordHeadBytes], r.in.nonce(&l.nonce), b[recordHeadBytes:], b[:recordHeadBytes])
	if err != nil {
		return 0, nil, alertBadRecordMAC
	}
	if len(text) > recordTextMax+1 { // padding counts (RFC 8446, 5.4)
		return 0, nil, alertRecordOverflow
	}
	for len(text) > 0 && text[len(text)-1] == 0 { // padding
		text = text[:len(text)-1]
	}
	if len(text) == 0 {
		return 0, nil, alertUnexpectedMessage
	}
	return recordKind(text[len(text)-1]), text[:len(text)-1], alertNone
}

// control does what a record without plain text asks for. asked: a KeyUpdate of ours is to be the answer. over: the peer has ended
// the connection, by an alert that is no close_notify.
func (r *recordLayer) control(kind recordKind, text []byte) (asked, over bool, a alert) {
	if r.idle++; r.idle > recordsIdleMax {
		return false, false, alertUnexpectedMessage
	}
	switch {
	case kind == recordData && len(text) == 0:
	case kind == recordAlert && len(text) == 2:
		switch alert(text[1]) {
		case alertCloseNotify:
			r.ended = true
		case alertUserCanceled: // a close_notify follows
		default:
			return false, true, alertNone
		}
	case kind == recordHandshake && len(text) == keyUpdateBytes && text[0] == messageKeyUpdate && text[1]|text[2] == 0 && text[3] == 1:
		if text[4] > 1 {
			return false, false, alertIllegalParameter
		}
		r.in.update(r.suite)
		return text[4] == 1, false, alertNone
	default: // clients send no other message after the handshake, and this one is too short to come in parts
		return false, false, alertUnexpectedMessage
	}
	return false, false, alertNone
}

// ---- sealing

// seal appends b to dst as records with plain text, and a KeyUpdate whenever the key has sealed enough.
func (r *recordLayer) seal(l *Loop, dst, b []byte) []byte {
	dst = slices.Grow(dst, len(b)+(len(b)/recordTextMax+1)*(recordHeadBytes+1+tagBytes))
	for len(b) > 0 {
		if r.out.seq >= recordsOfKey {
			dst = r.sealKeyUpdate(l, dst)
		}
		n := min(len(b), recordTextMax)
		dst = r.sealOne(l, dst, recordData, b[:n])
		b = b[n:]
	}
	return dst
}

// sealOne appends one record.
func (r *recordLayer) sealOne(l *Loop, dst []byte, kind recordKind, b []byte) []byte {
	r.use(l)
	size := len(b) + 1 + tagBytes
	at, from := len(dst), len(dst)+recordHeadBytes
	dst = append(dst, byte(recordData), 3, 3, byte(size>>8), byte(size))
	dst = append(append(dst, b...), byte(kind))
	return r.out.aead.Seal(dst[:from], r.out.nonce(&l.nonce), dst[from:], dst[at:from])
}

func (r *recordLayer) sealAlert(l *Loop, dst []byte, level byte, a alert) []byte {
	return r.sealOne(l, dst, recordAlert, []byte{level, byte(a)})
}

// sealKeyUpdate appends a KeyUpdate that asks for none, after which another key seals.
func (r *recordLayer) sealKeyUpdate(l *Loop, dst []byte) []byte {
	dst = r.sealOne(l, dst, recordHandshake, []byte{messageKeyUpdate, 0, 0, 1, 0})
	r.out.update(r.suite)
	return dst
}

// ---- ciphers, while they are used

// use notes that the layer needs its ciphers, and has them made if it rested.
func (r *recordLayer) use(l *Loop) {
	if r.used = true; r.warm > 0 {
		return
	}
	l.warm = append(l.warm, r)
	if r.warm = len(l.warm); r.in.aead == nil {
		r.in.derive(r.suite)
		r.out.derive(r.suite)
	}
}

// rest lets go of the ciphers.
func (r *recordLayer) rest(l *Loop) {
	if r.leave(l) {
		r.in.aead, r.out.aead = nil, nil
	}
}

// leave takes the layer from the loop's list of those with ciphers; false: it is not there.
func (r *recordLayer) leave(l *Loop) bool {
	if r.warm == 0 {
		return false
	}
	last := l.warm[len(l.warm)-1]
	l.warm[r.warm-1], last.warm = last, r.warm
	l.warm[len(l.warm)-1] = nil
	l.warm = l.warm[:len(l.warm)-1]
	r.warm = 0
	return true
}

// restTLS has those layers rest that were not used since the last call.
func (l *Loop) restTLS() {
	for i := len(l.warm) - 1; i >= 0; i-- {
		if r := l.warm[i]; r.used {
			r.used = false
		} else {
			r.rest(l)
		}
	}
	l.restedAt = l.now
}

// RestTLS has the record layers of all connections rest: what they hold is made again when they are used, in a few
// microseconds. For quiet moments, on the loop.
func (l *Loop) RestTLS() {
	for len(l.warm) > 0 {
		l.warm[len(l.warm)-1].rest(l)
	}
}
