package upstream

import (
	"crypto/tls"
	"slices"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// session2 is one HTTP/2 connection to an endpoint and the streams on it. It belongs to one loop:
//
//	      openStream                OnHandshake           SETTINGS        GOAWAY, age, drain
//	(new) ─────► dialling ─► shaking ─────► greeting ────────► open ─────────────────────► leaving ─► closed
//
// Until it is open, streams wait in it. Then requests go out at once, as many as the backend allows; a stream too many
// opens the next session. What it writes in one batch of events leaves by one send.
//
// A session is judged alive by what comes on it: when nothing does while streams wait for answers, PING asks. And a request
// that must not be lost is no sooner sent on a session that has rested than the backend has answered a PING: that excludes
// the race with its close as well as a fresh connection would, at a fraction of its price.
type session2 struct {
	state    state2
	endpoint *Endpoint
	loop     *fastpath.Loop
	conn     *fastpath.Conn
	tls      *tls.Config // what it was made with
	dialled  bool        // cluster.under counts its connection
	idles    bool        // endpointLoop.resting counts it

	connectBy int64 // end of the time for connecting, the handshake and SETTINGS
	born      int64
	requests  int
	idleSince int64
	expires   int64 // resting: when it is given up

	waiting []*stream2 // until it is open, or has answered PING
	streams []*stream2 // open ones: few enough for a linear search
	next    uint32     // identifier of the next stream
	limit   int        // streams at once

	connects bool // the backend takes extended CONNECT (RFC 8441)

	dec   wire.H2Decoder
	enc   wire.H2Encoder
	block wire.H2Block

	window  wire.H2Window
	initial int32  // window of a stream towards the backend
	taken   uint32 // bytes of DATA taken of which the backend was not told
	recv    int32  // what the backend may still send

	data     *stream2 // of the DATA frame under way; nil: its bytes are passed over
	dataLeft int
	dataEnd  bool

	queue   []*stream2 // streams that wait for the session to take more
	serving *stream2
	share   int // what serving may still write in its turn

	noise  wire.H2Noise
	period int64
	queued int32 // control frames since all output had left

	heard   int64 // when something last came
	pingBy  int64 // when the PING under way has to be answered; 0: none is
	pings   int   // answered ones since anything else came
	probing bool  // waiting waits for PING's answer

	again    bool
	incoming bool
}

type state2 uint8

const (
	dialling2 state2 = iota
	shaking2
	greeting2
	ready2
	leaving2 // it takes no more streams, and ends with those that it has
	closed2
)

var (
	_ fastpath.Connector  = (*session2)(nil)
	_ fastpath.Handshaker = (*session2)(nil)
)

// openStream is Open for backends of HTTP/2.
func (e *Endpoint) openStream(l *fastpath.Loop, v *view, p Peer, o *OpenOptions) (Stream, bool, *fastpath.Error) {
	st := localOf(l).stream()
	st.endpoint, st.loop, st.arena = e, l, o.Arena
	s := e.roomy(l, o.Fresh)
	if s != nil && s.state == ready2 && !s.probing && !(o.NonIdempotent && s.doubtful()) {
		st.begin(p, v, o)
		st.reused = s.requests > 0
		if st.reused {
			e.loops[l.ID].reused.inc()
		}
		s.admit(st)
		return st, true, nil
	}
	if v.countAll && !take(&e.cluster.under.pending, v.Breaker.Pending) {
		localOf(l).release(st)
		return nil, false, e.cluster.overflowed(OverflowPending, ErrPending)
	}
	if s == nil {
		var err *fastpath.Error
		if s, err = e.dial2(l, v, o.ConnectTimeout); err != nil {
			if v.countAll {
				e.cluster.under.pending.Add(-1)
			}
			localOf(l).release(st)
			return nil, false, err
		}
	}
	st.waits = v.countAll
	st.begin(p, v, o)
	s.await(st)
	return st, false, nil
}

// roomy is the first session that takes one more stream, so that those beyond it come to rest and are given up. fresh: one
// that is at rest will not do.
func (e *Endpoint) roomy(l *fastpath.Loop, fresh bool) *session2 {
	p := &e.loops[l.ID]
	for i := 0; i < len(p.sessions); i++ {
		s := p.sessions[i]
		if s.worn() {
			s.drain() // takes it out of the list
			i--
			continue
		}
		if len(s.streams)+len(s.waiting) < s.limit && !(fresh && s.resting()) {
			return s
		}
	}
	return nil
}

// worn tells that an open session shall take no more requests: it is too old, has carried enough, or its backend does not
// read them.
func (s *session2) worn() bool {
	v := s.endpoint.cluster.current.Load()
	return s.state == ready2 && (s.congested() || s.requests >= v.RequestsMax || s.next > wire.H2StreamMax-2 || s.loop.Now()-s.born >= int64(v.AgeMax) || s.conn.EOF() || s.conn.Broken())
}

// congested tells that much output waits. What streams write is bounded by Room, but heads and resets are not: a backend that
// does not read would be given them for ever, by requests whose clients leave.
func (s *session2) congested() bool { return s.conn.Queued() > h2OutputMax }

// doubtful tells that the backend may just be closing a session that has rested.
func (s *session2) doubtful() bool {
	return len(s.streams) == 0 && s.requests > 0 && s.loop.Now()-s.idleSince >= s.endpoint.idle.safe()
}

// resting tells that the session is open and carries nothing.
func (s *session2) resting() bool {
	return s.state == ready2 && len(s.streams) == 0 && len(s.waiting) == 0
}

// dial2 begins a session.
func (e *Endpoint) dial2(l *fastpath.Loop, v *view, timeout time.Duration) (s *session2, err *fastpath.Error) {
	if timeout <= 0 {
		timeout = v.ConnectTimeout
	}
	p := &e.loops[l.ID]
	s = &session2{endpoint: e, loop: l, tls: e.tlsFor(v), connectBy: l.Now() + int64(timeout), next: 1, limit: h2StreamsMax,
		window: wire.H2WindowInitial, initial: wire.H2WindowInitial, recv: h2WindowConn}
	if p.streams > 0 {
		s.limit = p.streams
	}
	if s.conn, s.dialled, err = e.dial(l, v, s, int64(timeout)); err != nil {
		return nil, err
	}
	p.dials.inc()
	p.sessions = append(p.sessions, s)
	s.enter()
	return s, nil
}

// await has a stream wait until the session is open, or has answered PING.
func (s *session2) await(st *stream2) {
	st.session = s
	s.waiting = append(s.waiting, st)
	if s.state == ready2 && !s.probing {
		s.probing = true
		s.enter()
		s.rest(false)
		s.ping(s.endpoint.cluster.current.Load().ConnectTimeout)
	}
}

// admit gives a stream its place. Its identifier it gets when its request is sent.
func (s *session2) admit(st *stream2) {
	s.rest(false)
	st.session, st.open = s, true
	s.streams = append(s.streams, st)
}

// promote lets the streams go on that waited. Those for which the backend has no place try the next session.
func (s *session2) promote() {
	for len(s.waiting) > 0 && s.state == ready2 && len(s.streams) < s.limit && !s.congested() {
		st := s.shift()
		noLonger(&st.waits, &s.endpoint.cluster.under.pending)
		st.reused = s.requests > 0
		s.admit(st)
		st.peer.OnStream(st, nil)
	}
	for len(s.waiting) > 0 {
		st := s.shift()
		if s.endpoint.given() {
			st.refused(ErrRemoved)
		} else if next := s.elsewhere(); next != nil {
			next.await(st)
		} else {
			st.refused(ErrNoStreams)
		}
	}
	s.settle()
}

func (s *session2) shift() *stream2 {
	st := s.waiting[0]
	s.waiting = s.waiting[1:]
	return st
}

// elsewhere is another session for a stream that waited here; nil: there is none to be had.
func (s *session2) elsewhere() *session2 {
	if s.limit == 0 {
		return nil
	}
	if next := s.endpoint.roomy(s.loop, true); next != nil && next != s && next.state != ready2 {
		return next
	}
	v := s.endpoint.cluster.current.Load()
	if v.err != nil || !v.HTTP2 { // they have changed since the stream was opened
		return nil
	}
	next, err := s.endpoint.dial2(s.loop, v, 0)
	if err != nil {
		return nil
	}
	return next
}

// OnConnect implements fastpath.Connector.
func (s *session2) OnConnect(c *fastpath.Conn, err *fastpath.Error) {
	defer s.panicked()
	if err != nil {
		s.refused(err, err.Text)
		return
	}
	if s.tls == nil {
		s.greet()
		return
	}
	s.state = shaking2
	c.SetDeadline(s.connectBy)
	if err := c.StartTLS(s.tls, false, s.endpoint.cluster.env.Work); err != nil {
		s.refused(err, err.Text)
	}
}

// OnHandshake implements fastpath.Handshaker.
func (s *session2) OnHandshake(c *fastpath.Conn, err *fastpath.Error) {
	defer s.panicked()
	if err != nil {
		reason := ErrHandshake.Text
		if why := c.HandshakeError(); why != nil {
			reason += ": " + why.Error()
		}
		s.refused(ErrHandshake, reason)
		return
	}
	if p := c.Protocol(); p != protocolHTTP2 && p != "" { // old libraries do not choose at all
		s.refused(ErrALPN, ErrALPN.Text)
		return
	}
	s.greet()
}

// greet sends the preface. The backend's SETTINGS, the first thing that it says, tell that it speaks HTTP/2, and how many
// streams it takes.
func (s *session2) greet() {
	s.state = greeting2
	c := s.conn
	c.Gather()
	c.SetDeadline(s.connectBy)
	b := append(localOf(s.loop).scratch[:0], wire.H2Preface...)
	var settings [12]byte
	p := wire.AppendH2Setting(settings[:0], wire.H2EnablePush, 0)
	p = wire.AppendH2Setting(p, wire.H2MaxHeaderList, wire.ResponseHeadMax)
	b = wire.AppendH2Settings(b, p)
	b = wire.AppendH2WindowUpdate(b, 0, h2WindowConn-wire.H2WindowInitial)
	c.Write(b)
	localOf(s.loop).keep(b)
	if c.Readable() {
		s.read()
	}
}

// greeted opens the session: the backend's first SETTINGS have come.
func (s *session2) greeted() {
	p := &s.endpoint.loops[s.loop.ID]
	p.dialled.inc()
	p.opened.inc()
	s.arrived()
	now := s.loop.Now()
	s.state, s.born, s.idleSince, s.heard, s.period = ready2, now, now, now, now
	s.conn.SetDeadline(0)
	s.endpoint.Connected(s.loop)
	s.promote()
}

// enter puts the session among those that are awaited.
func (s *session2) enter() {
	p := &s.endpoint.loops[s.loop.ID]
	p.awaited2 = append(p.awaited2, s)
}

// arrived is enter's other half: the session is there, or was given up.
func (s *session2) arrived() {
	p := &s.endpoint.loops[s.loop.ID]
	i := slices.Index(p.awaited2, s)
	p.awaited2 = slices.Delete(p.awaited2, i, i+1)
}

// giveUp sends those who wait for the session elsewhere: its endpoint was removed.
func (s *session2) giveUp() {
	defer s.panicked()
	if s.state < ready2 {
		s.refused(ErrRemoved, ErrRemoved.Text)
		return
	}
	s.probing = false
	s.arrived()
	for len(s.waiting) > 0 {
		s.shift().refused(ErrRemoved)
	}
	s.settle()
}

// refused tells those who wait that there is no session.
func (s *session2) refused(err *fastpath.Error, reason string) {
	s.shut()
	s.endpoint.failed(s.loop, err, reason)
	for len(s.waiting) > 0 {
		s.shift().refused(err)
	}
}

// leave takes the session out of those that take streams.
func (s *session2) leave() {
	p := &s.endpoint.loops[s.loop.ID]
	if i := slices.Index(p.sessions, s); i >= 0 {
		p.sessions = slices.Delete(p.sessions, i, i+1)
	}
}

// drain has the session end with its streams. One that is not open yet is left to those who wait for it.
func (s *session2) drain() {
	s.leave()
	if s.state == ready2 && len(s.waiting) == 0 {
		s.state = leaving2
		s.settle()
	}
}

// settle is the moment when a stream has gone, or came to nothing: a session without any rests, or ends.
func (s *session2) settle() {
	if len(s.streams) > 0 || len(s.waiting) > 0 || s.state < ready2 || s.state == closed2 {
		return
	}
	e := s.endpoint
	v := e.cluster.current.Load()
	if s.state == ready2 && (e.removed.Load() || s.tls != e.currentTLS() || !v.HTTP2 || v.idlePerLoop == 0 || s.worn() || !slices.Contains(e.loops[s.loop.ID].sessions, s)) {
		s.state = leaving2
	}
	if s.state == leaving2 {
		s.farewell(wire.H2NoError)
		return
	}
	now := s.loop.Now()
	limit := v.IdleTimeout
	if int(e.loops[s.loop.ID].resting.Load()) >= v.idlePerLoop {
		limit = min(limit, idleOverflow)
	}
	s.idleSince = now
	s.expires = min(now+int64(limit), s.born+int64(v.AgeMax))
	s.rest(true)
	s.arm(s.expires)
}

// rest keeps the count of sessions without a stream.
func (s *session2) rest(idle bool) {
	if s.idles == idle {
		return
	}
	s.idles = idle
	n := &s.endpoint.loops[s.loop.ID].resting
	if idle {
		n.Store(n.Load() + 1)
	} else {
		n.Store(n.Load() - 1)
	}
}

// farewell ends the session in order.
func (s *session2) farewell(code wire.H2Code) {
	s.conn.Write(wire.AppendH2GoAway(localOf(s.loop).scratch[:0], 0, code))
	s.conn.CloseWrite()
	s.shut()
}

// shut closes the connection; streams are the caller's.
func (s *session2) shut() {
	p := &s.endpoint.loops[s.loop.ID]
	if s.state < ready2 || s.probing {
		s.probing = false
		s.arrived()
	}
	if s.state < ready2 {
		p.dialled.inc()
	} else {
		p.closed.inc()
	}
	s.state = closed2
	s.leave()
	s.rest(false)
	noLonger(&s.dialled, &s.endpoint.cluster.under.connections)
	s.conn.Close()
}

// lost ends a session that can carry nothing more, and every stream on it.
func (s *session2) lost(err *fastpath.Error) {
	if s.state == closed2 {
		return
	}
	if s.state < ready2 {
		s.refused(notYet(err), notYet(err).Text)
		return
	}
	now := s.loop.Now()
	if s.state == ready2 && len(s.streams) == 0 && s.requests > 0 { // without a GOAWAY
		s.endpoint.idle.closedAfter(now - s.idleSince)
	}
	sent := s.conn.Sent()
	s.shut()
	for len(s.streams) > 0 {
		st := s.streams[len(s.streams)-1]
		if err.Kind != fastpath.KindMalformed && st.at >= sent {
			st.unsent = true
			st.fail(ErrUnsent)
		}
		st.fail(err)
		s.drop(st)
		st.tell()
	}
	for len(s.waiting) > 0 {
		s.shift().refused(ErrUnsent)
	}
}

// panicked, deferred by what the loop calls, ends a session when leading it panicked: its streams would wait for ever, and hold
// what they have. The panic goes on to the loop, which counts it and tells where it was. One of an exchange's ends there.
func (s *session2) panicked() {
	p := recover()
	if p == nil {
		return
	}
	defer panic(p)
	s.serving = nil
	s.lost(ErrPanic)
}

// notYet is what an error means while the session is not open: nothing was asked.
func notYet(err *fastpath.Error) *fastpath.Error {
	switch err {
	case ErrHTTP2:
		return ErrNotHTTP2
	case ErrPanic:
		return err
	}
	return ErrUnsent
}

// abort ends the session for an error of the backend's.
func (s *session2) abort(e *wire.H2Error) {
	if s.state == closed2 {
		return
	}
	if s.state >= ready2 {
		s.conn.Write(wire.AppendH2GoAway(localOf(s.loop).scratch[:0], 0, e.Code))
		s.conn.CloseWrite()
	}
	s.lost(ErrHTTP2)
}

// drop takes a stream out of the session. Bytes that it holds and nobody has read stay charged until they are.
func (s *session2) drop(st *stream2) {
	if !st.open {
		return
	}
	st.open = false
	if i := slices.Index(s.streams, st); i >= 0 {
		n := len(s.streams) - 1
		s.streams[i], s.streams[n] = s.streams[n], nil
		s.streams = s.streams[:n]
	}
	s.dequeue(st)
	if s.serving == st {
		s.serving = nil
	}
	if s.data == st {
		s.data = nil
		s.credit(s.dataLeft)
	}
	st.fresh, st.due, st.again = 0, 0, false
	s.settle()
}

// forget takes a stream out of those that wait. A session that nobody waits for any more is not dialled further.
func (s *session2) forget(st *stream2) {
	if i := slices.Index(s.waiting, st); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		if s.state < ready2 && len(s.waiting) == 0 {
			s.shut()
		}
	}
}

// ---- time

// arm has OnDeadline come no later than t.
func (s *session2) arm(t int64) {
	if d := s.conn.Deadline(); d == 0 || t < d {
		s.conn.SetDeadline(t)
	}
}

// OnDeadline implements fastpath.Handler: what is due is done.
func (s *session2) OnDeadline(*fastpath.Conn) {
	defer s.panicked()
	now := s.loop.Now()
	switch {
	case s.state == shaking2:
		s.refused(ErrHandshakeTimeout, ErrHandshakeTimeout.Text)
		return
	case s.state == greeting2:
		s.refused(ErrNoSettings, ErrNoSettings.Text)
		return
	case s.pingBy != 0 && now >= s.pingBy:
		s.lost(ErrPing)
		return
	case s.resting() && now >= s.expires:
		s.endpoint.idle.survived(now - s.idleSince)
		s.state = leaving2
		s.settle()
		return
	case len(s.streams) > 0 && s.pingBy == 0 && now >= s.pingDue():
		s.ping(h2PingTimeout)
	}
	for i := len(s.streams) - 1; i >= 0 && s.state != closed2; i = min(i, len(s.streams)) - 1 {
		if st := s.streams[i]; st.due != 0 && now >= st.due {
			st.due = 0
			st.peer.OnStreamTimeout()
		}
	}
	if s.state != closed2 {
		s.rearm(now)
	}
}

// rearm sets the deadline to the next time at which something is due.
func (s *session2) rearm(now int64) {
	next := int64(0)
	due := func(t int64) {
		if t != 0 && (next == 0 || t < next) {
			next = t
		}
	}
	if s.resting() {
		due(s.expires)
	}
	if s.pingBy != 0 {
		due(s.pingBy)
	} else if len(s.streams) > 0 {
		due(s.pingDue())
	}
	for _, st := range s.streams {
		due(st.due)
	}
	if next != 0 {
		next = max(next, now+int64(time.Millisecond))
	}
	s.conn.SetDeadline(next)
}

// pingDue is when a session with streams has been silent for so long that it is asked.
func (s *session2) pingDue() int64 {
	if s.pings == 0 {
		return s.heard + h2PingAfter
	}
	return s.heard + h2PingAgain
}

// ping asks whether the backend lives.
func (s *session2) ping(limit time.Duration) {
	s.pingBy = s.loop.Now() + int64(limit)
	s.control(wire.AppendH2Ping(localOf(s.loop).scratch[:0], false, alivePing))
	s.arm(s.pingBy)
}

var alivePing = []byte("alive???")

// ponged is the answer to our PING.
func (s *session2) ponged() {
	if s.pingBy = 0; s.probing {
		s.probing = false
		s.arrived()
		s.promote()
		return
	}
	s.pings++
}
