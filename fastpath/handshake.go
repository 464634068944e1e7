package fastpath

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"net"
)

// handshake is a TLS handshake under way: crypto/tls runs on a coroutine, which the loop resumes when there is input for
// it and which comes back when it wants more. So a handshake switches no thread, takes no lock, and what it computes in
// one go is the time of one step: about what a key exchange costs, or a signature. The loop gives all handshakes together
// handshakeTurn a round, and serves its other connections in between. What would take a step much longer, signatures by
// slow keys, is computed off the loop (OffLoop) (docs/decisions/0009-handshakes-are-coroutines.md).
type handshake struct {
	t        *tlsState
	co       *coroutine
	work     *Work
	feed     []byte // records from the socket that were not taken; at most feedBytesMax
	eof      bool   // none will follow
	shut     bool   // the connection has closed: whatever is asked of it fails
	queued   bool   // its turn comes
	awaiting bool   // a signature is being computed off the loop
	done     bool
	err      error

	secrets [2][]byte // of TLS 1.3: the client's direction and the server's, once crypto/tls has them
	tickets int       // that were sent: a record each, sealed by the second of them …
	large   bool      // … or more than one
}

// StartTLS begins a handshake as server or as client (then cfg says whom to expect); the connection's handler, a
// Handshaker, hears of its end. Input that was read already and is unread belongs to the handshake. w bounds how many
// there are; over it the answer is ErrOverload and the owner closes.
func (c *Conn) StartTLS(cfg *tls.Config, server bool, w *Work) *Error {
	if !w.begin(WorkHandshake) {
		return ErrOverload
	}
	t := &tlsState{c: ref{c, c.gen}, loop: c.loop, remote: c.remote, handshaking: true}
	hs := &handshake{t: t, work: w}
	t.hs = hs
	if server {
		t.conn = tls.Server((*memoryConn)(t), hs.listening(cfg))
	} else {
		t.conn = tls.Client((*memoryConn)(t), cfg)
	}
	c.tls = t
	if len(c.in) > 0 {
		hs.feed = append(c.loop.buffers.get(len(c.in)), c.in...)
		c.Discard(len(c.in))
	}
	hs.eof = c.flags&flagEOF != 0
	hs.queue()
	if c.flags&flagReadable != 0 {
		t.feedSocket()
	}
	return nil
}

// HandshakeError is why OnHandshake reported ErrTLS, for the log.
func (c *Conn) HandshakeError() error {
	if c.tls == nil {
		return nil
	}
	return c.tls.err
}

// queue has the loop resume the handshake when its turn comes.
func (hs *handshake) queue() {
	if !hs.queued && !hs.awaiting {
		hs.queued = true
		hs.t.loop.shaking = append(hs.t.loop.shaking, hs)
	}
}

// runHandshakes resumes handshakes that have something to do, one after the other, until their time of this round is up.
func (l *Loop) runHandshakes() {
	l.crowd()
	n := 0
	for l.shookAt = Now(); n < len(l.shaking); {
		hs := l.shaking[n]
		l.shaking[n] = nil
		n++
		hs.queued = false
		hs.step()
		l.reclaim()
		l.offer()
		if l.shaken() {
			break
		}
	}
	l.shaking = l.shaking[:copy(l.shaking, l.shaking[n:])]
}

// shaken tells whether the handshakes' time of this round is up.
func (l *Loop) shaken() bool { return Now()-l.shookAt >= int64(handshakeTurn) }

// giveTurn ends the step there, if the time is up. On the coroutine, between two things that crypto/tls computes.
func (hs *handshake) giveTurn() {
	if !hs.shut && hs.t.loop.shaken() {
		hs.queue()
		hs.co.wait()
	}
}

// step resumes the handshake once.
func (hs *handshake) step() {
	if hs.done || hs.awaiting {
		return
	}
	l := hs.t.loop
	if hs.co == nil {
		hs.co = l.coroutine()
		hs.co.hs = hs
	}
	if hs.co.resume(); hs.shut && !hs.done && !hs.awaiting {
		hs.co.resume() // a callback has closed the connection: nothing waits any more
	}
	if hs.done {
		hs.co.hs = nil
		l.coroutines = append(l.coroutines, hs.co)
		l.trimCoroutines(coroutinesIdleMax)
		hs.co = nil
		hs.work.end(WorkHandshake)
	}
	t := hs.t
	if hs.shut {
		hs.release()
		return
	}
	if t.sendPending(); hs.done {
		t.finish()
		return
	}
	if t.c.c.flags&flagReadable != 0 {
		t.feedSocket() // reading had stopped at feedBytesMax
	}
}

// run is the handshake's coroutine. A panic, of a certificate callback say, is a failed handshake.
func (hs *handshake) run() {
	defer func() {
		if p := recover(); p != nil {
			hs.t.loop.panicked(p)
			hs.err = fmt.Errorf("panic in the TLS handshake: %v", p)
		}
		hs.done = true
	}()
	hs.err = hs.t.conn.Handshake()
}

// abandon ends the handshake of a connection that has closed: what it asks of it fails from now on, so it soon ends.
func (hs *handshake) abandon() {
	hs.shut = true
	switch {
	case hs.co == nil: // it never began
		hs.done = true
		hs.work.end(WorkHandshake)
		hs.release()
	case hs.co.running || hs.awaiting: // whoever resumes it ends it
	default:
		hs.step()
	}
}

// release gives the feed back.
func (hs *handshake) release() {
	if hs.feed != nil {
		hs.t.loop.buffers.put(hs.feed[:0])
		hs.feed = nil
	}
}

// finish gives the tls.Conn to the loop. Another turn follows: what came behind the handshake stands in memory, where no
// event tells of it.
func (t *tlsState) finish() {
	r, hs := t.c, t.hs
	c := r.c
	defer c.loop.recovered(c)
	t.hs, t.handshaking, t.err = nil, false, hs.err
	if hs.err == nil {
		state := t.conn.ConnectionState()
		t.protocol, t.layer = state.NegotiatedProtocol, hs.recordLayer(&state)
	}
	if len(hs.feed) > 0 {
		t.own, t.view = hs.feed, hs.feed
		hs.feed = nil
	}
	hs.release()
	if hs.eof {
		c.flags |= flagEOF
	}
	var err *Error
	if hs.err != nil {
		err = ErrTLS
	}
	c.handler.(Handshaker).OnHandshake(c, err)
	if !r.live() { // closed, or another loop's
		return
	}
	if t.layer != nil {
		t.conn = nil
	}
	if err == nil {
		c.settle() // what was written meanwhile
		c.Again()
	}
}

// feedSocket gives waiting records to the handshake.
func (t *tlsState) feedSocket() {
	c, hs := t.c.c, t.hs
	l := c.loop
	l.lendRecords(nil)
	for c.flags&flagReadable != 0 {
		room := feedBytesMax - len(hs.feed)
		if room <= 0 {
			return
		}
		n, err := c.recv(l.records[:min(room, len(l.records))])
		if n > 0 {
			hs.feed = append(l.buffers.grow(hs.feed, n), l.records[:n]...)
			hs.queue()
		}
		if err == ErrEOF || err == ErrReset {
			hs.eof = true
			hs.queue()
		}
		if err != nil {
			return
		}
	}
	if c.Broken() {
		hs.eof = true
		hs.queue()
	}
}

// read is the memory connection's Read, on the coroutine.
func (hs *handshake) read(b []byte) (int, error) {
	for len(hs.feed) == 0 && !hs.shut && !hs.eof {
		hs.co.wait()
	}
	switch {
	case hs.shut:
		return 0, net.ErrClosed
	case len(hs.feed) == 0:
		return 0, io.EOF
	}
	// Never beyond a record, so that crypto/tls holds nothing of those that follow the handshake.
	n := copy(b, hs.feed[:min(len(hs.feed), hs.t.given.toBorder())])
	hs.t.given.follow(hs.feed[:n])
	hs.feed = hs.feed[:copy(hs.feed, hs.feed[n:])]
	return n, nil
}

// write is the memory connection's Write, on the coroutine.
func (hs *handshake) write(b []byte) (int, error) {
	t := hs.t
	if hs.shut {
		return 0, net.ErrClosed
	}
	if len(t.pending)+len(b) > feedBytesMax {
		return 0, ErrOverload
	}
	t.pending = append(t.loop.buffers.grow(t.pending, len(b)), b...)
	return len(b), nil
}

// ---- the keys of what follows

// listening is cfg with an ear for the secrets of TLS 1.3 (the key log is where crypto/tls tells them), and for the tickets that
// are sealed by them. Tickets stay cfg's, whose keys they are.
func (hs *handshake) listening(cfg *tls.Config) *tls.Config {
	own := cfg.Clone()
	own.KeyLogWriter = (*keyLog)(hs)
	own.WrapSession = func(state tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		ticket, err := cfg.EncryptTicket(state, s)
		hs.tickets++
		hs.large = hs.large || len(ticket) > ticketMax
		return ticket, err
	}
	own.UnwrapSession = cfg.DecryptTicket
	return own
}

// ticketMax leaves room for the rest of a ticket's message in its record.
const ticketMax = recordTextMax - 1024

var trafficLabels = [...][]byte{[]byte("CLIENT_TRAFFIC_SECRET_0 "), []byte("SERVER_TRAFFIC_SECRET_0 ")}

// keyLog is the io.Writer for a handshake's secrets, on the coroutine.
type keyLog handshake

// Write takes a line of the key log: label, client random, secret.
func (k *keyLog) Write(line []byte) (int, error) {
	for i, label := range trafficLabels {
		if rest, ok := bytes.CutPrefix(line, label); ok {
			_, text, _ := bytes.Cut(bytes.TrimSuffix(rest, []byte("\n")), []byte(" "))
			k.secrets[i] = make([]byte, hex.DecodedLen(len(text)))
			if _, err := hex.Decode(k.secrets[i], text); err != nil {
				return 0, err
			}
		}
	}
	return len(line), nil
}

// recordLayer is what the handshake has led to; nil: it stays crypto/tls's.
func (hs *handshake) recordLayer(state *tls.ConnectionState) *recordLayer {
	if state.Version != tls.VersionTLS13 || hs.large || !hs.t.given.atBorder() || fips140.Enforced() { // which allows crypto/tls's own use of AES-GCM alone
		return nil
	}
	return hs.t.loop.newRecordLayer(state.CipherSuite, hs.secrets[0], hs.secrets[1], hs.tickets)
}

// ---- coroutines

// coroutine runs handshakes, one after the other, so that its grown stack serves many. Only its loop resumes it.
type coroutine struct {
	next    func() (struct{}, bool)
	stop    func()
	yield   func(struct{}) bool
	hs      *handshake
	running bool
}

// coroutine gives an idle one.
func (l *Loop) coroutine() *coroutine {
	if n := len(l.coroutines); n > 0 {
		co := l.coroutines[n-1]
		l.coroutines = l.coroutines[:n-1]
		return co
	}
	co := &coroutine{}
	co.next, co.stop = iter.Pull(co.run)
	return co
}

func (co *coroutine) run(yield func(struct{}) bool) {
	co.yield = yield
	for {
		co.hs.run()
		if !yield(struct{}{}) {
			return
		}
	}
}

// resume goes on with the coroutine until it waits again. On the loop.
func (co *coroutine) resume() {
	co.running = true
	co.next()
	co.running = false
}

// wait goes back to the loop until it resumes. On the coroutine.
func (co *coroutine) wait() {
	if !co.yield(struct{}{}) {
		co.hs.shut = true // the loop has ended
	}
}

// trimCoroutines lets idle coroutines beyond most go.
func (l *Loop) trimCoroutines(most int) {
	for n := len(l.coroutines); n > most; n-- {
		l.coroutines[n-1].stop()
		l.coroutines[n-1] = nil
		l.coroutines = l.coroutines[:n-1]
	}
}

// ---- slow keys

// OffLoop is cert, or a copy whose private key signs off the loop if it is slow: everything but P-256 and Ed25519, which
// take some tens of microseconds. conn is the connection of the handshake's tls.ClientHelloInfo; the copy serves that
// handshake only. The keys are exchanged already, so others may have their turn before the signature.
func OffLoop(conn net.Conn, cert *tls.Certificate) *tls.Certificate {
	m, ours := conn.(*memoryConn)
	if cert == nil || !ours {
		return cert
	}
	hs := (*tlsState)(m).hs
	hs.giveTurn()
	switch k := cert.PrivateKey.(type) {
	case ed25519.PrivateKey:
		return cert
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return cert
		}
	}
	signer, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return cert
	}
	other := *cert
	other.PrivateKey = &slowSigner{signer, hs}
	return &other
}

// slowSigner computes signatures off the loop, under a permit.
type slowSigner struct {
	crypto.Signer
	hs *handshake
}

// Sign implements crypto.Signer, on the handshake's coroutine.
func (s *slowSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	hs := s.hs
	digest = append([]byte(nil), digest...)
	if hs.work.Go(WorkCompute, func() {
		hs.work.Do(func() { signature, err = s.Signer.Sign(rand, digest, opts) })
		hs.t.loop.Post(func() {
			hs.awaiting = false
			hs.step()
		})
	}) != nil {
		return nil, ErrOverload
	}
	hs.awaiting = true
	hs.co.wait()
	if hs.shut {
		return nil, net.ErrClosed
	}
	return signature, err
}
