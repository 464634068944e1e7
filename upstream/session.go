package upstream

import (
	"crypto/tls"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// session is one HTTP/1.1 connection to an endpoint, and the Stream of whoever uses it at the moment. It belongs to one
// loop and is in one of these states:
//
//	         Open                       OnHandshake
//	(free) ───────► dialling ─► shaking ────────────► busy ◄──────► idle
//	   ▲               │           │                    │  Release     │
//	   └───────────────┴───────────┴────────────────────┴──────────────┘ close
//
// A peer is called as the last thing that a method does: it may release the stream, and the value may then be another
// session already.
type session struct {
	state   sessionState
	conn    *fastpath.Conn
	asked               // busy and before
	tls     *tls.Config // what it was made with
	dialled bool        // cluster.under counts its connection

	place     int   // dialling and shaking: its index in endpointLoop.awaited
	connectBy int64 // end of the time for connecting and the handshake
	born      int64 // when it was connected
	requests  int   // sent on it
	idleSince int64
	expires   int64 // idle: when it is given up
	idled     int64 // how long it had been idle when it was taken; -1: it is fresh

	stream1
}

type sessionState uint8

const (
	sessionFree sessionState = iota
	sessionDialling
	sessionShaking // hands, for TLS
	sessionBusy
	sessionIdle
)

var (
	_ Stream              = (*session)(nil)
	_ fastpath.Connector  = (*session)(nil)
	_ fastpath.Handshaker = (*session)(nil)
)

// Open gives p a stream to e: on an idle session of loop l at once (ready), or on one that is being dialled. Then
// p.OnStream follows, unless the stream is released before.
func (e *Endpoint) Open(l *fastpath.Loop, p Peer, o OpenOptions) (s Stream, ready bool, err *fastpath.Error) {
	v := e.cluster.current.Load()
	if v.err != nil {
		return nil, false, ErrSettings
	}
	if v.countAll && !take(&e.cluster.under.requests, v.Breaker.Requests) {
		return nil, false, e.cluster.overflowed(OverflowRequests, ErrRequests)
	}
	if v.HTTP2 {
		if s, ready, err = e.openStream(l, v, p, &o); err != nil && v.countAll {
			e.cluster.under.requests.Add(-1)
		}
		return s, ready, err
	}
	if !o.Fresh && !o.HTTP10 {
		if s := e.take(l, o.NonIdempotent); s != nil {
			e.loops[l.ID].reused.inc()
			s.begin(p, v, &o)
			return s, true, nil
		}
	}
	if s, err = e.openFresh(l, v, p, &o); err != nil && v.countAll {
		e.cluster.under.requests.Add(-1)
	}
	return s, false, err
}

// openFresh dials a session for p.
func (e *Endpoint) openFresh(l *fastpath.Loop, v *view, p Peer, o *OpenOptions) (s Stream, err *fastpath.Error) {
	if v.countAll && !take(&e.cluster.under.pending, v.Breaker.Pending) {
		return nil, e.cluster.overflowed(OverflowPending, ErrPending)
	}
	timeout := o.ConnectTimeout
	if timeout <= 0 {
		timeout = v.ConnectTimeout
	}
	fresh := localOf(l).get()
	fresh.endpoint, fresh.loop, fresh.tls, fresh.idled = e, l, e.tlsFor(v), -1
	fresh.state, fresh.connectBy, fresh.http10 = sessionDialling, l.Now()+int64(timeout), o.HTTP10
	if fresh.conn, fresh.dialled, err = e.dial(l, v, fresh, int64(timeout)); err != nil {
		localOf(l).put(fresh)
		if v.countAll {
			e.cluster.under.pending.Add(-1)
		}
		return nil, err
	}
	fresh.waits = v.countAll
	fresh.enter()
	fresh.begin(p, v, o)
	return fresh, nil
}

// enter counts a dial and enters it among those that are awaited.
func (s *session) enter() {
	p := &s.endpoint.loops[s.loop.ID]
	p.dials.inc()
	s.place = len(p.awaited)
	p.awaited = append(p.awaited, s)
}

// arrived is enter's other half: the session is there, or was given up.
func (s *session) arrived() {
	p := &s.endpoint.loops[s.loop.ID]
	p.dialled.inc()
	last := len(p.awaited) - 1
	p.awaited[s.place] = p.awaited[last]
	p.awaited[s.place].place = s.place
	p.awaited[last] = nil
	p.awaited = p.awaited[:last]
}

// OnConnect implements fastpath.Connector.
func (s *session) OnConnect(c *fastpath.Conn, err *fastpath.Error) {
	if err != nil {
		s.refused(err)
		return
	}
	if s.tls == nil {
		s.connectedPlain()
		return
	}
	s.state = sessionShaking
	c.SetDeadline(s.connectBy)
	if err := c.StartTLS(s.tls, false, s.endpoint.cluster.env.Work); err != nil {
		s.refused(err)
	}
}

// connectedPlain refuses a backend that speaks before it is asked, or has left again: what it said would be taken for the
// answer. Nothing was sent yet.
func (s *session) connectedPlain() {
	if s.conn.Readable() {
		if b, err := s.conn.Peek(); len(b) > 0 {
			s.refused(ErrSpokeFirst)
			return
		} else if err != fastpath.ErrWouldBlock {
			s.refused(ErrUnsent)
			return
		}
	}
	s.connected()
}

// OnHandshake implements fastpath.Handshaker.
func (s *session) OnHandshake(c *fastpath.Conn, err *fastpath.Error) {
	if err != nil {
		reason := ErrHandshake.Text
		if why := c.HandshakeError(); why != nil {
			reason += ": " + why.Error()
		}
		s.refusedFor(ErrHandshake, reason)
		return
	}
	c.SetDeadline(0)
	s.connected()
}

// connected gives the stream to its peer.
func (s *session) connected() {
	s.arrived()
	s.endpoint.loops[s.loop.ID].opened.inc()
	s.born = s.loop.Now()
	noLonger(&s.waits, &s.endpoint.cluster.under.pending)
	s.state = sessionBusy
	s.endpoint.Connected(s.loop)
	s.peer.OnStream(s, nil)
}

// refused tells the peer that there is no session.
func (s *session) refused(err *fastpath.Error) { s.refusedFor(err, err.Text) }

func (s *session) refusedFor(err *fastpath.Error, reason string) {
	p, e, l := s.peer, s.endpoint, s.loop
	s.end()
	s.close()
	e.failed(l, err, reason)
	p.OnStream(nil, err)
}

// close ends the session, whatever its state; a stream on it has ended before.
func (s *session) close() {
	switch s.state {
	case sessionDialling, sessionShaking:
		s.arrived()
	default:
		s.endpoint.loops[s.loop.ID].closed.inc()
	}
	noLonger(&s.dialled, &s.endpoint.cluster.under.connections)
	s.conn.Close()
	localOf(s.loop).put(s)
}

// OnReadable implements fastpath.Handler.
func (s *session) OnReadable(c *fastpath.Conn) {
	switch s.state {
	case sessionBusy:
		s.peer.OnResponse()
	case sessionIdle:
		s.readIdle()
	}
}

// OnWritable implements fastpath.Handler.
func (s *session) OnWritable(c *fastpath.Conn) {
	if s.state == sessionBusy && !s.outEnded {
		s.peer.OnRoom()
	}
}

// OnDeadline implements fastpath.Handler.
func (s *session) OnDeadline(c *fastpath.Conn) {
	switch s.state {
	case sessionShaking:
		s.refused(ErrHandshakeTimeout)
	case sessionBusy:
		s.peer.OnStreamTimeout()
	case sessionIdle:
		s.endpoint.idle.survived(s.loop.Now() - s.idleSince)
		s.leave()
		s.close()
	}
}

// SetTimeout implements Stream.
func (s *session) SetTimeout(d time.Duration) {
	if d <= 0 {
		s.conn.SetDeadline(0)
		return
	}
	s.conn.SetDeadline(s.loop.Now() + int64(d))
}

// Reused implements Stream.
func (s *session) Reused() bool { return s.idled >= 0 }

// Again implements Stream.
func (s *session) Again() { s.conn.Again() }

// Release implements Stream.
func (s *session) Release() {
	switch s.state {
	case sessionFree, sessionIdle:
		return
	case sessionBusy:
		if s.complete() && s.park() {
			return
		}
	}
	s.end()
	s.close()
}

// Tunnels implements Stream.
func (s *session) Tunnels() bool { return false }

// Detach implements Stream.
func (s *session) Detach() *fastpath.Conn {
	c := s.conn
	s.end()
	noLonger(&s.dialled, &s.endpoint.cluster.under.connections)
	s.endpoint.loops[s.loop.ID].closed.inc()
	localOf(s.loop).put(s)
	c.SetDeadline(0)
	return c
}

// local is what the sessions of a loop share.
type local struct {
	free    []*session
	scratch []byte // a head on its way into a connection's output

	free2   []*stream2
	list    wire.H2List // the header list that is being decompressed
	nowhere wire.Arena  // … of a block that nobody waits for
}

func localOf(l *fastpath.Loop) *local {
	if p, ok := l.Local[fastpath.LocalSessions].(*local); ok {
		return p
	}
	p := &local{}
	l.Local[fastpath.LocalSessions] = p
	return p
}

// get gives a session without a past.
func (p *local) get() *session {
	n := len(p.free)
	if n == 0 {
		s := &session{}
		s.chunks = wire.ChunkReader{Response: true}
		return s
	}
	s := p.free[n-1]
	p.free[n-1] = nil
	p.free = p.free[:n-1]
	return s
}

// put takes back a session that nobody calls any more.
func (p *local) put(s *session) {
	chunks := s.chunks
	chunks.Reset()
	*s = session{stream1: stream1{chunks: chunks}}
	if len(p.free) < sessionsFreeMax {
		p.free = append(p.free, s)
	}
}
