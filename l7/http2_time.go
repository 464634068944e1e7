package l7

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// This file is what happens to an HTTP/2 connection when nothing comes, or nothing goes. It has one deadline, at or before
// the first time at which anything is due; then all is looked at. So a request costs no timer.

// arm has OnDeadline come no later than t.
func (h *http2) arm(t int64) {
	if d := h.c.Deadline(); d == 0 || t < d {
		h.c.SetDeadline(t)
	}
}

// OnDeadline implements fastpath.Handler.
func (h *http2) OnDeadline(c *fastpath.Conn) {
	defer h.recovered()
	now := c.Loop().Now()
	switch {
	case !h.settled && now >= h.idleAt+int64(h.settings.FirstByteTimeout):
		h.fail(errH2Silent)
	case h.partial != 0 && now >= h.partial+int64(h.settings.HeaderTimeout):
		h.fail(errH2Partial)
	case h.stalled && now >= h.stallAt:
		h.look(now)
	case h.drains == drainAnnounced && now >= h.drainAt:
		h.drained()
	case len(h.streams) == 0 && h.settled && now >= h.idleAt+int64(h.settings.KeepAliveTimeout):
		h.end()
	}
	for i := len(h.streams) - 1; i >= 0 && !h.ended; i = min(i, len(h.streams)) - 1 {
		h.streams[i].late(now)
	}
	if !h.ended {
		h.rearm(now)
	}
}

// rearm sets the deadline to the next time at which something is due.
func (h *http2) rearm(now int64) {
	next := now + int64(h.settings.KeepAliveTimeout)
	due := func(t int64) {
		if t != 0 && t < next {
			next = t
		}
	}
	if !h.settled {
		due(h.idleAt + int64(h.settings.FirstByteTimeout))
	} else if len(h.streams) == 0 {
		due(h.idleAt + int64(h.settings.KeepAliveTimeout))
	}
	if h.partial != 0 {
		due(h.partial + int64(h.settings.HeaderTimeout))
	}
	if h.stalled {
		due(h.stallAt)
	}
	if h.drains == drainAnnounced {
		due(h.drainAt)
	}
	for _, s := range h.streams {
		due(s.bodyDue)
		due(s.sendDue)
		due(s.parkDue)
		if s.tunnel != nil {
			due(s.tunnel.due())
		}
	}
	h.c.SetDeadline(max(next, now+int64(time.Millisecond)))
}

// late does what is due on a stream.
func (s *stream) late(now int64) {
	x := s.x
	switch {
	case s.tunnel != nil && now >= s.tunnel.due():
		s.tunnel.close(fastpath.ErrTimeout)
		return
	case s.parkDue != 0 && now >= s.parkDue && x != nil && x.stage == stageParked:
		s.parkDue = 0
		x.expired()
		return
	case s.bodyDue != 0 && now >= s.bodyDue && x == nil:
		s.cut(wire.H2NoError)
		return
	case s.bodyDue != 0 && now >= s.bodyDue:
		s.bodyDue = 0
		if x.stage < stageBody { // a response that comes early has timeouts of its own
			err := errBodyTimeout
			if x.bodies.tooSlow(s.h.settings) {
				err = errTooSlow
			}
			x.failed(err)
			return
		}
	}
	if s.sendDue == 0 || now < s.sendDue {
		return
	}
	s.sendDue = 0
	if !s.starved && len(s.rest) == 0 {
		return
	}
	if s.written-s.mark < least(s.h.settings) { // a window that is held open without being opened
		s.fail(errSendTimeout, wire.H2Cancel)
		return
	}
	s.starve()
}

// look cuts a client that has taken less than the minimum since the last look.
func (h *http2) look(now int64) {
	held := taken(h.c)
	if len(h.queue) == 0 && !h.incoming && !h.c.Blocked() {
		h.stalled = false
		return
	}
	if int64(held-h.mark) < least(h.settings) {
		h.closed(errSendTimeout)
		h.c.Abort()
		return
	}
	h.mark, h.stallAt = held, now+int64(h.settings.SendTimeout)
}

// rest is the end of a turn: the time of what has come in part begins to run.
func (h *http2) rest() {
	if h.dataLeft == 0 && len(h.c.Buffered()) > 0 || h.block.Open() {
		if h.partial == 0 {
			h.partial = h.c.Loop().Now()
			h.arm(h.partial + int64(h.settings.HeaderTimeout))
		}
		return
	}
	h.partial = 0
	if len(h.streams) == 0 && h.settled {
		h.arm(h.idleAt + int64(h.settings.KeepAliveTimeout))
	}
}

// OnWritable implements fastpath.Handler.
func (h *http2) OnWritable(c *fastpath.Conn) {
	defer h.recovered()
	h.queued = 0
	h.serveQueue()
	if h.incoming && !h.ended {
		h.read()
	}
}

// idleFor tells whether the connection has had no stream for at least d.
func (h *http2) idleFor(d time.Duration) bool {
	return len(h.streams) == 0 && h.settled && !h.ended && h.last > 0 && !h.c.Readable() && len(h.c.Buffered()) == 0 &&
		h.c.Loop().Now()-h.idleAt >= int64(d)
}

var (
	errH2Silent  = &wire.H2Error{Code: wire.H2SettingsTimeout, Text: "no preface and SETTINGS in time"}
	errH2Partial = &wire.H2Error{Code: wire.H2ProtocolError, Text: "frame or header block did not come in time"}
)
