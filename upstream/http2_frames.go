package upstream

import (
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// This file is what an HTTP/2 session does with each type of frame.

// OnReadable implements fastpath.Handler.
func (s *session2) OnReadable(*fastpath.Conn) {
	defer s.panicked()
	if s.state < greeting2 || s.state == closed2 {
		return
	}
	if s.again {
		s.resume()
	}
	if s.state != closed2 && !s.incoming {
		s.read()
	}
}

// OnWritable implements fastpath.Handler.
func (s *session2) OnWritable(*fastpath.Conn) {
	defer s.panicked()
	s.queued = 0
	s.serveQueue()
	if s.incoming && s.state != closed2 {
		s.read()
	}
}

// resume gives another turn to the streams that asked for one.
func (s *session2) resume() {
	s.again = false
	for i := len(s.streams) - 1; i >= 0; i = min(i, len(s.streams)) - 1 {
		if st := s.streams[i]; st.again {
			st.again = false
			st.tell()
		}
	}
	s.serveQueue()
}

// read leads frames until input is missing, output is in the way, or others are due.
func (s *session2) read() {
	c := s.conn
	for n := 0; s.state != closed2; n++ {
		if n == h2TurnFrames {
			c.Again()
			return
		}
		if s.incoming = c.Queued() > h2QueuedMax; s.incoming {
			c.Room() // OnWritable follows
			return
		}
		if b := c.Buffered(); len(b) > 0 {
			done, err := s.step(b)
			if err != nil {
				s.abort(err)
				return
			}
			if done {
				continue
			}
		}
		if s.state == closed2 {
			return
		}
		switch err := c.Fill(bodyFillBytes); err {
		case nil:
			s.heard = s.loop.Now()
		case fastpath.ErrWouldBlock:
			return
		default:
			s.lost(lostBy(err))
			return
		}
	}
}

// lostBy lays an error of the connection at the backend's door.
func lostBy(err *fastpath.Error) *fastpath.Error {
	switch err {
	case fastpath.ErrEOF:
		return ErrCut
	case fastpath.ErrTruncated:
		return ErrTruncated
	case fastpath.ErrTLS:
		return ErrTLS
	case fastpath.ErrReset:
		return ErrReset
	}
	return err
}

// step leads what stands first in the input: a piece of DATA, or a frame. false: there is too little of it.
func (s *session2) step(b []byte) (bool, *wire.H2Error) {
	if s.dataLeft > 0 {
		s.dataPiece(b)
		return true, nil
	}
	if len(b) < wire.H2HeadBytes {
		return false, nil
	}
	head := wire.ParseH2Head(b)
	if s.state == greeting2 && (head.Type != wire.H2Settings || head.Has(wire.H2Ack)) {
		return false, wire.ErrH2Preface
	}
	if err := head.Check(wire.H2FrameMax); err != nil && !err.Stream {
		return false, err
	}
	if err := s.block.Order(head); err != nil {
		return false, err
	}
	if head.Type == wire.H2Data && !head.Has(wire.H2Padded) {
		s.conn.Discard(wire.H2HeadBytes)
		return true, s.dataHead(head, head.Length)
	}
	whole := wire.H2HeadBytes + head.Length
	if len(b) < whole {
		return false, nil
	}
	return true, s.frame(head, b[wire.H2HeadBytes:whole], whole)
}

// frame leads a whole frame. size is what it takes of the input.
func (s *session2) frame(head wire.H2Head, p []byte, size int) (err *wire.H2Error) {
	if err := head.Check(wire.H2FrameMax); err != nil { // the stream's
		s.conn.Discard(size)
		return s.streamError(head.Stream, err)
	}
	if head.Type == wire.H2Data {
		return s.dataPadded(head, p)
	}
	s.conn.Discard(size) // p lives on until somebody reads, which only those do who are told of something
	switch head.Type {
	case wire.H2Headers, wire.H2Continuation:
		var whole bool
		var part wire.H2Part
		if part, whole, err = s.block.Take(head, p); whole {
			err = s.headers(part)
		}
	case wire.H2Settings:
		err = s.settings(head, p)
	case wire.H2WindowUpdate:
		err = s.windowUpdate(head, p)
	case wire.H2Ping:
		err = s.onPing(head, p)
	case wire.H2Reset:
		err = s.reset(head, wire.H2Code(wire.ParseH2Uint(p)))
	case wire.H2GoAway:
		last, _ := wire.ParseH2GoAway(p)
		s.goAway(last)
	case wire.H2Priority:
		if err = s.noisy(); err == nil {
			err = head.CheckPriority(p)
		}
	default:
		err = s.noisy()
	}
	if err != nil && err.Stream {
		return s.streamError(head.Stream, err)
	}
	return err
}

// find gives an open stream; nil: there is none of that number.
func (s *session2) find(id uint32) *stream2 {
	for i := len(s.streams) - 1; i >= 0; i-- {
		if s.streams[i].id == id {
			return s.streams[i]
		}
	}
	return nil
}

// never tells whether we have not opened that stream.
func (s *session2) never(id uint32) bool { return id&1 == 0 || id >= s.next }

// streamError ends a stream for its backend's error.
func (s *session2) streamError(id uint32, e *wire.H2Error) *wire.H2Error {
	if s.never(id) {
		return wire.ErrH2StreamIdle
	}
	if err := s.noisy(); err != nil {
		return err
	}
	if st := s.find(id); st != nil {
		st.defect(ErrHTTP2, e.Code)
	}
	return nil
}

// headers takes a whole header block: a head, or trailers. Each is decompressed, whatever becomes of it.
func (s *session2) headers(p wire.H2Part) *wire.H2Error {
	l := localOf(s.loop)
	st := s.find(p.Stream)
	if st == nil {
		if s.never(p.Stream) {
			return wire.ErrH2StreamIdle
		}
		l.nowhere.Reset()
		if err := s.dec.Decode(p.Block, &l.list, &l.nowhere, &wire.DefaultResponseLimits); err != nil {
			return err
		}
		return s.noisy()
	}
	limits := st.limits
	if limits == nil {
		limits = &wire.DefaultResponseLimits
	}
	if err := s.dec.Decode(p.Block, &l.list, st.memory(), limits); err != nil {
		return err
	}
	s.noise.Moved()
	switch {
	case p.Bad != nil:
		return p.Bad
	case st.inEnded:
		return wire.ErrH2HalfClosed
	case st.head:
		if err := st.takeTrailers(&l.list, p.End); err != nil {
			return err
		}
	default:
		if err := st.takeHead(&l.list, p.End); err != nil {
			st.defect(err, wire.H2ProtocolError)
			return nil
		}
		st.inEnded = p.End
	}
	st.tell()
	return nil
}

// dataHead begins a DATA frame of so many bytes in all, of which n are no padding.
func (s *session2) dataHead(head wire.H2Head, n int) *wire.H2Error {
	if s.never(head.Stream) {
		return wire.ErrH2StreamIdle
	}
	if s.recv -= int32(head.Length); s.recv < 0 {
		return wire.ErrH2FlowControl
	}
	s.data, s.dataLeft, s.dataEnd = nil, n, head.Has(wire.H2EndStream)
	s.credit(head.Length - n)
	st := s.find(head.Stream)
	if st == nil { // we have reset it
		s.credit(n)
		return s.noisy()
	}
	var err *wire.H2Error
	if st.recv -= int32(head.Length); st.recv < 0 {
		err = wire.ErrH2FlowStream
	} else {
		err = st.takeData(n)
	}
	if err != nil {
		s.credit(n)
		return s.streamError(head.Stream, err)
	}
	if n == 0 && !s.dataEnd {
		return s.noisy()
	}
	s.noise.Moved()
	st.credit(head.Length - n)
	s.data = st
	if n == 0 {
		s.dataOver(st)
	}
	return nil
}

// dataPadded leads a whole DATA frame with padding.
func (s *session2) dataPadded(head wire.H2Head, p []byte) *wire.H2Error {
	b, err := head.Unpad(p)
	if err != nil {
		return err
	}
	pad := len(p) - 1 - len(b)
	s.conn.Discard(wire.H2HeadBytes + 1)
	if err := s.dataHead(head, len(b)); err != nil {
		return err
	}
	for s.dataLeft > 0 && s.state != closed2 {
		s.dataPiece(s.conn.Buffered())
	}
	if s.state != closed2 {
		s.conn.Discard(pad)
	}
	return nil
}

// dataPiece leads what has come of a DATA frame: b begins with it. Whoever reads takes it from the input itself; the rest is
// kept, as the window allows it.
func (s *session2) dataPiece(b []byte) {
	n := min(len(b), s.dataLeft)
	st := s.data
	if st == nil {
		s.conn.Discard(n)
		s.dataLeft -= n
		return
	}
	st.fresh = n
	st.tell()
	if s.state == closed2 || s.data != st { // the stream has ended meanwhile, and with it what was fresh
		return
	}
	if st.fresh > 0 {
		st.keep(s.conn.Buffered()[:st.fresh])
		st.take(st.fresh)
	}
	if s.dataLeft == 0 && s.dataEnd {
		s.dataOver(st)
	}
}

// dataOver is the end of a frame that ends its stream.
func (s *session2) dataOver(st *stream2) {
	s.data = nil
	if st.left > 0 {
		st.defect(wire.ErrH2ResponseLength, wire.H2ProtocolError)
		return
	}
	st.inEnded = true
	st.tell()
}

// credit opens the session's window by n bytes that were taken or passed over.
func (s *session2) credit(n int) {
	if n <= 0 || s.state == closed2 {
		return
	}
	if s.taken += uint32(n); s.taken >= h2WindowConn/4 {
		s.recv += int32(s.taken)
		s.control(wire.AppendH2WindowUpdate(localOf(s.loop).scratch[:0], 0, s.taken))
		s.taken = 0
	}
}

// settings takes the backend's SETTINGS, or its acknowledgement of ours.
func (s *session2) settings(head wire.H2Head, p []byte) *wire.H2Error {
	if head.Has(wire.H2Ack) {
		return s.noisy()
	}
	first := s.state == greeting2
	if !first {
		if err := s.noisy(); err != nil {
			return err
		}
	}
	before := s.initial
	if first {
		s.limit = h2StreamsMax
	}
	if err := wire.EachH2Setting(p, s.setting); err != nil {
		return err
	}
	if grown := int64(s.initial) - int64(before); grown != 0 {
		for _, st := range s.streams {
			if !st.window.Grow(grown) {
				return wire.ErrH2SettingWindow
			}
		}
	}
	s.endpoint.loops[s.loop.ID].streams = s.limit
	s.control(wire.AppendH2SettingsAck(localOf(s.loop).scratch[:0]))
	if first {
		s.greeted()
		return nil
	}
	if s.initial > before {
		for _, st := range s.streams {
			s.unstarve(st)
		}
		s.serveQueue()
	}
	return nil
}

// setting takes one parameter. Our frames never pass the smallest SETTINGS_MAX_FRAME_SIZE, and our header blocks use no
// table.
func (s *session2) setting(id wire.H2Setting, v uint32) *wire.H2Error {
	switch id {
	case wire.H2InitialWindow:
		s.initial = int32(v)
	case wire.H2MaxStreams:
		s.limit = int(min(v, h2StreamsMax))
	case wire.H2EnableConnect:
		if v == 0 && s.connects { // RFC 8441 3
			return wire.ErrH2Setting
		}
		s.connects = v == 1
	case wire.H2EnablePush:
		if v != 0 { // RFC 9113 6.5.2: a server must not
			return wire.ErrH2Setting
		}
	}
	return nil
}

// windowUpdate lets a stream, or all, write on.
func (s *session2) windowUpdate(head wire.H2Head, p []byte) *wire.H2Error {
	n, err := head.ParseWindow(p)
	switch {
	case err != nil && err.Stream:
		return s.streamError(head.Stream, err)
	case err != nil:
		return err
	}
	s.count()
	if !s.noise.Update(n) {
		return errNoise
	}
	if head.Stream == 0 {
		if !s.window.Grow(int64(n)) {
			return wire.ErrH2Window
		}
		s.serveQueue()
		return nil
	}
	st := s.find(head.Stream)
	switch {
	case st == nil && s.never(head.Stream):
		return wire.ErrH2StreamIdle
	case st == nil:
		return nil
	case !st.window.Grow(int64(n)):
		return s.streamError(head.Stream, wire.ErrH2WindowStream)
	}
	s.unstarve(st)
	s.serveQueue()
	return nil
}

// onPing answers a PING, or takes the answer to ours.
func (s *session2) onPing(head wire.H2Head, p []byte) *wire.H2Error {
	if err := s.noisy(); err != nil {
		return err
	}
	if !head.Has(wire.H2Ack) {
		s.control(wire.AppendH2Ping(localOf(s.loop).scratch[:0], true, p))
	} else if s.pingBy != 0 && string(p) == string(alivePing) {
		s.ponged()
	}
	return nil
}

// reset takes a RST_STREAM. One behind a whole answer only says that the rest of the request is not wanted (RFC 9113 8.1).
func (s *session2) reset(head wire.H2Head, code wire.H2Code) *wire.H2Error {
	st := s.find(head.Stream)
	if st == nil {
		if s.never(head.Stream) {
			return wire.ErrH2StreamIdle
		}
		return s.noisy()
	}
	err := ErrStreamReset
	if code == wire.H2RefusedStream && !st.head {
		s.limit = min(s.limit, max(1, len(s.streams)-1)) // it said so, whatever its SETTINGS say
		st.unsent, err = true, ErrRefusedStream
	}
	st.fail(err)
	s.drop(st)
	st.tell()
	return nil
}

// goAway is the backend's farewell: streams after the last one that it names were not looked at, and never will be.
func (s *session2) goAway(last uint32) {
	if s.state < ready2 {
		s.refused(ErrGoAway, ErrGoAway.Text)
		return
	}
	s.leave()
	s.state = leaving2
	waiting := s.waiting
	s.waiting = nil
	for i := len(s.streams) - 1; i >= 0 && s.state != closed2; i = min(i, len(s.streams)) - 1 {
		st := s.streams[i]
		if st.id <= last {
			continue
		}
		st.unsent = true
		st.fail(ErrGoAway)
		s.drop(st)
		st.tell()
	}
	for _, st := range waiting {
		st.refused(ErrGoAway)
	}
	if s.state != closed2 {
		s.settle()
	}
}

// ---- what a hostile backend might do

// count begins a new period when the present one is over.
func (s *session2) count() {
	if now := s.loop.Now(); now-s.period > h2Period {
		s.period = now
		s.noise.Forget()
	}
}

// noisy counts a frame that moves nothing.
func (s *session2) noisy() *wire.H2Error {
	s.count()
	if !s.noise.More() || s.queued > h2ControlMax {
		return errNoise
	}
	return nil
}

var errNoise = &wire.H2Error{Code: wire.H2EnhanceYourCalm, Text: "too many frames that move nothing"}

// control writes a frame that answers or announces.
func (s *session2) control(b []byte) {
	if s.queued++; !s.conn.Blocked() {
		s.queued = 1
	}
	s.conn.Write(b)
}

// ---- order among the streams that wait to write

// unstarve has a stream write on whose own window was closed.
func (s *session2) unstarve(st *stream2) {
	if st.starved && st.window > 0 {
		st.starved = false
		s.enqueue(st)
	}
}

func (s *session2) enqueue(st *stream2) {
	if !st.queued {
		st.queued = true
		s.queue = append(s.queue, st)
	}
}

func (s *session2) dequeue(st *stream2) {
	if !st.queued {
		return
	}
	st.queued = false
	for i, o := range s.queue {
		if o == st {
			n := len(s.queue) - 1
			copy(s.queue[i:], s.queue[i+1:])
			s.queue[n] = nil
			s.queue = s.queue[:n]
			return
		}
	}
}

// serveQueue has streams write in turn while the connection takes it.
func (s *session2) serveQueue() {
	if s.serving != nil {
		return // it is at work further up the stack
	}
	begun := s.window
	for len(s.queue) > 0 && s.state != closed2 {
		if s.window <= 0 || s.conn.Room() <= h2WriteMargin {
			return
		}
		if begun-s.window >= bodyFillBytes {
			s.again = true
			s.conn.Again()
			return
		}
		st := s.queue[0]
		s.dequeue(st)
		s.serving, s.share = st, h2ShareBytes
		if len(s.queue) > 0 {
			s.share /= 4
		}
		st.peer.OnRoom()
		s.serving = nil
	}
}
