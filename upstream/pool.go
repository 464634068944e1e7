package upstream

import (
	"slices"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// take gives the idle session of loop l that was used last, if one may be handed out. careful: the request must not be
// lost, so that only a session will do of which the backend is all but certain not to be closing it just now.
func (e *Endpoint) take(l *fastpath.Loop, careful bool) *session {
	p := &e.loops[l.ID]
	for n := len(p.idle); n > 0; n = len(p.idle) {
		s := p.idle[n-1]
		idled := l.Now() - s.idleSince
		if careful && idled > 0 && idled >= e.idle.safe() {
			return nil // and so are all below it
		}
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		if !s.fresh(idled, careful) {
			s.close()
			continue
		}
		s.state, s.idled = sessionBusy, idled
		s.conn.SetDeadline(0)
		s.stream1.reset()
		return s
	}
	return nil
}

// fresh tells whether an idle session may carry another request: within its time, and the backend has said nothing on it
// since; bytes that came unasked would be taken for the next request's answer. The loop has marked every connection of
// the present batch of events that has input, so the socket itself is asked only where it is marked, and where even an
// end that came since the batch must be seen (careful).
func (s *session) fresh(idled int64, careful bool) bool {
	if s.expires <= s.loop.Now() {
		return false
	}
	if !careful && !s.conn.Waiting() && !s.conn.EOF() {
		return true
	}
	_, err := s.conn.Peek()
	if err == fastpath.ErrEOF || err == fastpath.ErrReset {
		s.endpoint.idle.closedAfter(idled)
	}
	return err == fastpath.ErrWouldBlock && !s.conn.Waiting()
}

// park keeps the session of a complete exchange for the next one, if the rules of docs/hardening.md 3.1 allow it.
func (s *session) park() bool {
	e := s.endpoint
	settings := e.cluster.current.Load()
	p := &e.loops[s.loop.ID]
	if e.removed.Load() || s.tls != e.currentTLS() || s.requests >= settings.RequestsMax || settings.idlePerLoop == 0 {
		return false
	}
	limit := min(settings.IdleTimeout, settings.AgeMax-time.Duration(s.loop.Now()-s.born))
	if s.hint > 0 {
		announced := time.Duration(s.hint) * time.Second
		e.idle.announce(int64(announced))
		limit = min(limit, announced-idleHintMargin)
	}
	if len(p.idle) >= settings.idlePerLoop {
		limit = min(limit, idleOverflow)
	}
	if limit <= 0 || !s.quiet() {
		return false
	}
	if s.idled > 0 {
		e.idle.survived(s.idled)
	}
	s.end()
	now := s.loop.Now()
	s.state, s.idleSince, s.expires = sessionIdle, now, now+int64(limit)
	s.conn.SetDeadline(s.expires)
	p.idle = append(p.idle, s)
	return true
}

// quiet tells that nothing stands on the connection in either direction.
func (s *session) quiet() bool {
	c := s.conn
	if c.Pending() || c.Broken() || c.EOF() || len(c.Buffered()) > 0 {
		return false
	}
	if c.Plain() && !c.Readable() {
		return true
	}
	return c.Fill(1) == fastpath.ErrWouldBlock && !c.Waiting() && len(c.Buffered()) == 0 // not even when its turn is used up
}

// readIdle closes an idle session on which the backend said anything but what TLS says by itself, or which it closed.
func (s *session) readIdle() {
	err := s.conn.Fill(1)
	if err == fastpath.ErrWouldBlock && !s.conn.Broken() {
		return
	}
	if err != nil {
		s.endpoint.idle.closedAfter(s.loop.Now() - s.idleSince)
	}
	s.leave()
	s.close()
}

// leave takes an idle session out of its pool.
func (s *session) leave() {
	p := &s.endpoint.loops[s.loop.ID]
	if i := slices.Index(p.idle, s); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
}
