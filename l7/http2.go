package l7

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// Limits of the HTTP/2 engine; those of header blocks are in l7/wire.
const (
	h2WindowConn  = 1 << 20                 // bytes of DATA that a connection may have under way to us
	h2WindowShare = wire.H2WindowInitial    // … and a stream
	h2WindowSpare = 7 * h2WindowShare       // by which the windows of streams may grow together: one to eight times, or several to less
	h2CreditPart  = 4                       // a window is opened again when that part of it was taken
	h2QueuedMax   = 128 << 10               // output that waits while input is still read
	h2ControlMax  = 1000                    // control frames that wait to be sent
	h2Period      = int64(10 * time.Second) // in which misbehaviour is counted
	h2ResetsMax   = 100                     // streams reset in that time before their answer, by the client or for its errors
	h2Forgotten   = 8                       // streams that we reset and of which frames may still come
	h2TurnFrames  = 256                     // frames that one turn leads
	h2DrainWait   = int64(time.Second)      // between the two GOAWAYs, if no PING comes back
)

// http2 is one HTTP/2 client connection: frames in, streams to exchanges, frames out. What it writes in one batch of
// events leaves by one send, as one TLS write.
type http2 struct {
	local    *local
	c        *fastpath.Conn
	settings *Settings
	accepted *Accepted
	streams  []*stream // open ones: few enough for a linear search
	dec      wire.H2Decoder
	enc      wire.H2Encoder

	last    uint32 // the highest stream that the client has opened
	served  int32  // streams so far
	window  wire.H2Window
	initial int32  // window of a stream towards the client: its SETTINGS_INITIAL_WINDOW_SIZE
	taken   uint32 // bytes of DATA taken of which the client was not told: its window is smaller by so much
	recv    int32  // what the client may still send
	spare   int32  // by which windows of streams may still grow

	data     *stream // of the DATA frame under way; nil: its bytes are passed over
	dataLeft int     // its bytes that are still to come
	dataEnd  bool    // it ends its stream

	block wire.H2Block

	queue   []*stream // streams that wait for the connection to take more
	serving *stream
	turn    uint64 // numbers those that wait
	share   int    // what serving may still write in its turn

	resent [h2Forgotten]uint32 // streams that we reset last
	resets int32
	noise  wire.H2Noise
	period int64 // when counting began
	queued int32 // control frames since all output had left

	idleAt   int64 // when the last stream ended, or the connection began
	partial  int64 // since when a frame or block is incomplete; 0: none is
	mark     uint64
	stallAt  int64
	covered  []byte // the last host, beyond the server name, that the certificate was found to cover
	stalled  bool   // the client does not take what is there for it
	greeted  bool   // the preface has come
	settled  bool   // … and the first SETTINGS
	agreed   bool   // our SETTINGS were acknowledged
	drains   drainStage
	drainAt  int64
	tls      bool
	ended    bool
	reading  bool
	again    bool // a stream asked for another turn
	incoming bool // input waits because output does
}

// drainStage is how far the end of a connection has been announced.
type drainStage uint8

const (
	drainNone      drainStage = iota
	drainAnnounced            // GOAWAY with the highest identifier, and a PING whose answer says that it was seen
	drainLast                 // GOAWAY with the last stream that is answered
)

// serveHTTP2 makes c an HTTP/2 connection of s: ALPN chose it, or the preface was seen. It was told to ConnOpened.
func (s *Server) serveHTTP2(c *fastpath.Conn, a *Accepted) {
	l := c.Loop()
	h := &http2{local: s.local(l), c: c, settings: s.Router.Settings(), accepted: a, tls: !c.Plain(),
		window: wire.H2WindowInitial, initial: wire.H2WindowInitial, recv: h2WindowConn, spare: h2WindowSpare, idleAt: l.Now(), period: l.Now()}
	c.SetHandler(h)
	c.Gather()
	c.ReadAhead(true)
	c.SetDeadline(l.Now() + int64(h.settings.FirstByteTimeout))
	h.greet()
	defer h.recovered()
	h.read()
}

// greet sends our SETTINGS and opens the connection's window.
func (h *http2) greet() {
	b := wire.AppendH2Setting(h.local.head[:wire.H2HeadBytes], wire.H2MaxStreams, uint32(h.settings.HTTP2Streams))
	b = wire.AppendH2Setting(b, wire.H2MaxHeaderList, uint32(h.settings.Limits.HeadMax()))
	b = wire.AppendH2Setting(b, wire.H2EnableConnect, 1)
	b = wire.AppendH2Setting(b, wire.H2NoLegacyPriorities, 1)
	wire.AppendH2Head(b[:0], wire.H2Head{Length: len(b) - wire.H2HeadBytes, Type: wire.H2Settings})
	h.c.Write(wire.AppendH2WindowUpdate(b, 0, h2WindowConn-wire.H2WindowInitial))
}

// OnReadable implements fastpath.Handler.
func (h *http2) OnReadable(c *fastpath.Conn) {
	defer h.recovered()
	if c.Broken() {
		h.gone()
		return
	}
	if h.again {
		h.resume()
	}
	if !h.ended && !h.incoming {
		h.read()
	}
}

// resume gives another turn to the streams that asked for one.
func (h *http2) resume() {
	h.again = false
	for i := 0; i < len(h.streams) && !h.ended; i++ {
		if s := h.streams[i]; s.again {
			s.again = false
			s.arrived()
		}
	}
	if !h.ended {
		h.serveQueue()
	}
}

// read leads frames until input is missing, output is in the way, or others are due.
func (h *http2) read() {
	c := h.c
	h.reading = true
	defer func() { h.reading = false }()
	for n := 0; !h.ended; n++ {
		if n == h2TurnFrames {
			c.Again()
			return
		}
		if h.incoming = c.Queued() > h2QueuedMax; h.incoming {
			c.Room() // OnWritable follows
			h.stall()
			return
		}
		if b := c.Buffered(); len(b) > 0 {
			done, err := h.step(b)
			if err != nil {
				h.fail(err)
				return
			}
			if done {
				continue
			}
		}
		if h.ended {
			return
		}
		switch err := c.Fill(h.settings.Buffer); err {
		case nil:
		case fastpath.ErrWouldBlock:
			h.rest()
			return
		default:
			h.gone()
			return
		}
	}
}

// step leads what stands first in the input: the preface, a piece of DATA, or a frame. false: there is too little of it.
func (h *http2) step(b []byte) (bool, *wire.H2Error) {
	switch {
	case !h.greeted:
		return h.preface(b)
	case h.dataLeft > 0:
		h.dataPiece(b)
		return true, nil
	case len(b) < wire.H2HeadBytes:
		return false, nil
	}
	head := wire.ParseH2Head(b)
	if err := head.Check(wire.H2FrameMax); err != nil && !err.Stream {
		return false, err
	}
	if err := h.order(head); err != nil {
		return false, err
	}
	if head.Type == wire.H2Data && !head.Has(wire.H2Padded) {
		h.c.Discard(wire.H2HeadBytes)
		return true, h.dataHead(head, head.Length)
	}
	whole := wire.H2HeadBytes + head.Length
	if len(b) < whole {
		return false, nil
	}
	if !h.block.Open() {
		h.partial = 0
	}
	return true, h.frame(head, b[wire.H2HeadBytes:whole], whole)
}

// preface looks for the client's.
func (h *http2) preface(b []byte) (bool, *wire.H2Error) {
	n := min(len(b), len(wire.H2Preface))
	if string(b[:n]) != wire.H2Preface[:n] {
		return false, wire.ErrH2Preface
	}
	if n < len(wire.H2Preface) {
		return false, nil
	}
	h.c.Discard(n)
	h.greeted = true
	return true, nil
}

// order holds what may follow what: SETTINGS first, and nothing within a header block.
func (h *http2) order(head wire.H2Head) *wire.H2Error {
	if !h.settled && (head.Type != wire.H2Settings || head.Has(wire.H2Ack)) {
		return wire.ErrH2Preface
	}
	return h.block.Order(head)
}

// frame leads a whole frame. size is what it takes of the input.
func (h *http2) frame(head wire.H2Head, p []byte, size int) *wire.H2Error {
	if err := head.Check(wire.H2FrameMax); err != nil { // the stream's
		h.c.Discard(size)
		return h.streamError(head.Stream, err)
	}
	var err *wire.H2Error
	switch head.Type {
	case wire.H2Headers, wire.H2Continuation:
		var whole bool
		var part wire.H2Part
		if part, whole, err = h.block.Take(head, p); whole {
			err = h.headerBlock(part.Stream, part.Block, part.End, part.Bad)
		}
	case wire.H2Data:
		err = h.dataPadded(head, p)
	case wire.H2Settings:
		err = h.clientSettings(head, p)
	case wire.H2WindowUpdate:
		err = h.windowUpdate(head, p)
	case wire.H2Ping:
		err = h.ping(head, p)
	case wire.H2Reset:
		err = h.clientReset(head)
	case wire.H2GoAway: // the client opens no more streams: what is under way goes on
	case wire.H2Priority:
		if err = h.noisy(); err == nil {
			err = head.CheckPriority(p)
		}
	case wire.H2PriorityUpdate:
		err = h.priorityUpdate(p)
	default:
		err = h.noisy()
	}
	if !h.ended && head.Type != wire.H2Data {
		h.c.Discard(size)
	}
	if err != nil && err.Stream {
		return h.streamError(head.Stream, err)
	}
	return err
}

// find gives an open stream; nil: there is none of that number.
func (h *http2) find(id uint32) *stream {
	for i := len(h.streams) - 1; i >= 0; i-- {
		if h.streams[i].id == id {
			return h.streams[i]
		}
	}
	return nil
}

// idle tells whether a stream was never opened. The client's have odd numbers, ours, which we never open, even ones.
func (h *http2) idle(id uint32) bool { return id&1 == 0 || id > h.last }

// streamError resets a stream for its client's error, which counts.
func (h *http2) streamError(id uint32, e *wire.H2Error) *wire.H2Error {
	if err := h.misbehaved(); err != nil {
		return err
	}
	if s := h.find(id); s != nil {
		s.fail(errH2Stream, e.Code)
		return nil
	}
	h.reset(id, e.Code)
	return nil
}

// reset writes a RST_STREAM, and remembers that frames may still come.
func (h *http2) reset(id uint32, code wire.H2Code) {
	copy(h.resent[1:], h.resent[:])
	h.resent[0] = id
	h.control(wire.AppendH2Reset(h.local.head[:0], id, code))
}

// wasReset tells whether we have reset that stream lately: its frames are passed over (RFC 9113 5.1, closed).
func (h *http2) wasReset(id uint32) bool {
	for _, r := range h.resent {
		if r == id {
			return true
		}
	}
	return false
}

// control writes a frame that answers or announces; too many that wait are a client that provokes and does not read.
func (h *http2) control(b []byte) {
	if h.queued++; !h.c.Blocked() {
		h.queued = 1
	}
	h.c.Write(b)
}

// fail ends the connection for an error of its client: GOAWAY, then what was answered so far, then the end.
func (h *http2) fail(e *wire.H2Error) {
	if h.ended {
		return
	}
	if e.Code == wire.H2EnhanceYourCalm {
		h.local.srv.Stats.Abused(h.local.loop.ID)
	}
	h.local.srv.Stats.Refused(h.local.loop.ID, fastpath.KindMalformed)
	h.c.Write(wire.AppendH2GoAway(h.local.head[:0], h.last, e.Code))
	h.closed(errH2Connection)
	h.c.CloseLinger()
}

// gone ends the connection of a client that left.
func (h *http2) gone() {
	h.closed(errClientGone)
	h.c.CloseWrite()
	h.c.Close()
}

// closed ends every stream; the connection is the caller's to close.
func (h *http2) closed(err *fastpath.Error) {
	if h.ended {
		return
	}
	h.ended = true
	for len(h.streams) > 0 {
		s := h.streams[len(h.streams)-1]
		s.gone = true
		switch {
		case s.tunnel != nil:
			s.tunnel.close(err)
		case s.x != nil:
			s.x.abort(err)
		}
		if n := len(h.streams); n > 0 && h.streams[n-1] == s {
			h.drop(s)
		}
	}
	h.local.srv.Stats.ConnClosed(h.local.loop.ID)
}

// drop takes a stream out of the connection. Nobody holds it any more.
func (h *http2) drop(s *stream) {
	for i, o := range h.streams {
		if o == s {
			n := len(h.streams) - 1
			h.streams[i] = h.streams[n]
			h.streams[n] = nil
			h.streams = h.streams[:n]
			break
		}
	}
	h.dequeue(s)
	h.spare += s.share - h2WindowShare
	if h.data == s {
		h.data = nil
		h.credit(h.dataLeft)
	}
	if h.serving == s {
		h.serving = nil
	}
	h.credit(len(s.in) - s.read)
	h.local.releaseStream(s)
	if len(h.streams) == 0 && !h.ended {
		h.idleAt = h.c.Loop().Now()
		h.quiet()
	}
}

// quiet is the moment when no stream is open.
func (h *http2) quiet() {
	switch {
	case h.drains == drainLast:
		h.end()
	case h.local.srv.draining.Load():
		h.drain()
	}
}

// end closes a connection without open streams in order.
func (h *http2) end() {
	if h.ended {
		return
	}
	if h.drains != drainLast {
		h.c.Write(wire.AppendH2GoAway(h.local.head[:0], h.last, wire.H2NoError))
	}
	h.closed(errClientGone)
	h.c.CloseLinger()
}

// drain announces the end, twice: the client may have sent requests that we have not seen, and those are answered too
// (RFC 9113 6.8).
func (h *http2) drain() {
	if h.drains != drainNone || h.ended {
		return
	}
	h.drains, h.drainAt = drainAnnounced, h.c.Loop().Now()+h2DrainWait
	b := wire.AppendH2GoAway(h.local.head[:0], wire.H2StreamMax, wire.H2NoError)
	h.c.Write(wire.AppendH2Ping(b, false, drainPing))
	h.arm(h.drainAt)
}

var drainPing = []byte("draining")

// drained is the second GOAWAY: no stream after the last one seen is answered.
func (h *http2) drained() {
	if h.drains != drainAnnounced {
		return
	}
	h.drains = drainLast
	h.c.Write(wire.AppendH2GoAway(h.local.head[:0], h.last, wire.H2NoError))
	if len(h.streams) == 0 {
		h.end()
	}
}
