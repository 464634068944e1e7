package upstream

import (
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// stream1 is one request and its answer on an HTTP/1.1 session.
type stream1 struct {
	method   wire.Method
	http10   bool         // the request is of HTTP/1.0, and the session takes no other
	upgrade  []byte       // the protocol that the request asked for; a view of its arena
	listed   [][]byte     // what the request's Connection named: no trailer may be one of them
	trailers bool         // trailers are forwarded: TE: trailers
	out      wire.Framing // of the request's body
	outLeft  int64        // FramingLength: what is still to be written
	outEnded bool         // the request is complete
	sent     uint64       // conn.Sent before the request
	received uint64       // conn.Received before it

	scanned  int  // bytes of an incomplete head that were looked at
	interims int  // 1xx heads so far
	ending   bool // a head forbade to use the connection again
	head     bool // the final head was read
	switched bool // … and was a 101
	in       wire.Framing
	inLeft   int64
	inEnded  bool // the answer is complete
	hint     int  // Keep-Alive: timeout, seconds
	arena    *wire.Arena
	chunks   wire.ChunkReader
}

func (t *stream1) reset() {
	chunks := t.chunks
	chunks.Reset()
	*t = stream1{chunks: chunks}
}

// Send implements Stream.
func (s *session) Send(r *wire.Request) *fastpath.Error {
	settings := s.endpoint.cluster.current.Load()
	last := s.requests+1 >= settings.RequestsMax || settings.idlePerLoop == 0
	p := localOf(s.loop)
	b, err := wire.AppendRequest(p.scratch[:0], r, wire.RequestOptions{Close: last, KeepAlive: settings.SayKeepAlive, HTTP10: s.http10})
	if err != nil {
		return err
	}
	s.method, s.upgrade, s.listed, s.trailers = r.Method, r.Upgrade, r.Listed, r.TETrailers
	s.out, s.outLeft = r.Framing, r.ContentLength
	s.outEnded = s.out == wire.FramingNone || s.out == wire.FramingLength && s.outLeft == 0
	s.ending = s.http10
	s.sent, s.received = s.conn.Sent(), s.conn.Received()
	s.requests++
	s.conn.ReadAhead(true)
	s.conn.Write(b)
	p.keep(b)
	return nil
}

// keep remembers the scratch buffer, unless a huge head has grown it.
func (p *local) keep(b []byte) {
	if cap(b) <= scratchBytesMax {
		p.scratch = b[:0]
	}
}

// Sent implements Stream.
func (s *session) Sent() bool {
	return s.state == sessionBusy && s.requests > 0 && s.conn.Sent() > s.sent
}

// Room implements Stream.
func (s *session) Room() int { return s.conn.Room() }

// WriteBody implements Stream. More than a Content-Length promised is never sent: it would be another request.
func (s *session) WriteBody(b []byte) *fastpath.Error {
	if len(b) == 0 {
		return nil
	}
	switch {
	case s.outEnded:
		return ErrFraming
	case s.out == wire.FramingLength:
		if int64(len(b)) > s.outLeft {
			return ErrFraming
		}
		s.outLeft -= int64(len(b))
		s.conn.Write(b)
	case s.out == wire.FramingChunked:
		p := localOf(s.loop)
		p.scratch = wire.AppendChunkHeader(p.scratch[:0], len(b))
		s.conn.Write(p.scratch)
		s.conn.Write(b)
		s.conn.Write(chunkEnd)
	default:
		return ErrFraming
	}
	return nil
}

var chunkEnd = []byte(wire.ChunkEnd)

// EndBody implements Stream.
func (s *session) EndBody(trailers []wire.Field) *fastpath.Error {
	if s.outEnded {
		return nil
	}
	if s.out == wire.FramingLength {
		if s.outLeft > 0 {
			return ErrFraming
		}
		s.outEnded = true
		return nil
	}
	if !s.trailers {
		trailers = nil
	}
	p := localOf(s.loop)
	b, err := wire.AppendLastChunk(p.scratch[:0], trailers, s.listed...)
	if err != nil {
		return err
	}
	s.conn.Write(b)
	p.keep(b)
	s.outEnded = true
	return nil
}

// RawOut implements Stream.
func (s *session) RawOut() *fastpath.Conn {
	if s.out != wire.FramingLength || s.outEnded || !s.conn.Plain() {
		return nil
	}
	if s.conn.Flush(); s.conn.Pending() {
		return nil
	}
	return s.conn
}

// SplicedOut implements Stream.
func (s *session) SplicedOut(n int64) { s.outLeft -= n }

// ReadHead implements Stream.
func (s *session) ReadHead(res *wire.Response, a *wire.Arena) *fastpath.Error {
	for {
		if b := s.conn.Buffered(); len(b) > s.scanned {
			n, err := wire.ResponseHeadEnd(b, s.scanned, s.limits)
			if err != nil {
				return err
			}
			if n > 0 {
				head := a.Copy(b[:n])
				s.conn.Discard(n)
				s.scanned = 0
				return s.takeHead(res, head, a)
			}
			s.scanned = len(b)
		}
		if err := s.conn.Fill(headFillBytes); err != nil {
			return s.lost(err)
		}
	}
}

// takeHead parses one head. After the final one the body may be read.
func (s *session) takeHead(res *wire.Response, head []byte, a *wire.Arena) *fastpath.Error {
	if err := res.Parse(head, s.method, s.limits); err != nil {
		return err
	}
	s.ending = s.ending || !res.KeepAlive
	if res.Status < 200 && res.Status != 101 {
		if s.interims++; s.interims > s.interimMax {
			return ErrInterims
		}
		return nil
	}
	if s.switched = res.Status == 101; s.switched && !res.SwitchesTo(s.upgrade) {
		return ErrSwitched
	}
	s.conn.ReadAhead(false)
	s.head, s.arena, s.hint = true, a, res.KeepAliveHint
	s.in, s.inLeft = res.Framing, res.ContentLength
	s.inEnded = s.in == wire.FramingNone
	return nil
}

// ReadBody implements Stream.
func (s *session) ReadBody(max int) ([]byte, *fastpath.Error) {
	if s.inEnded {
		return nil, fastpath.ErrEOF
	}
	switch s.in {
	case wire.FramingLength:
		return s.readLength(max)
	case wire.FramingChunked:
		return s.readChunked(max)
	}
	return s.readToEnd(max)
}

func (s *session) readLength(max int) ([]byte, *fastpath.Error) {
	if s.inLeft == 0 {
		s.inEnded = true
		return nil, fastpath.ErrEOF
	}
	if len(s.conn.Buffered()) == 0 {
		// One byte more than there is to come shows the socket empty, and a backend that says too much.
		if err := s.conn.Fill(int(min(int64(max), s.inLeft+1, bodyFillBytes))); err != nil {
			return nil, s.lost(err)
		}
	}
	b := s.consume(int(min(int64(max), s.inLeft)))
	s.inLeft -= int64(len(b))
	return b, nil
}

func (s *session) readToEnd(max int) ([]byte, *fastpath.Error) {
	if len(s.conn.Buffered()) == 0 {
		err := s.conn.Fill(min(max, bodyFillBytes))
		if err == fastpath.ErrEOF {
			s.inEnded = true
			return nil, err
		}
		if err != nil {
			return nil, s.lost(err)
		}
	}
	return s.consume(max), nil
}

// consume takes at most max bytes of what is buffered.
func (s *session) consume(max int) []byte {
	b := s.conn.Buffered()
	b = b[:min(len(b), max)]
	s.conn.Discard(len(b))
	return b
}

func (s *session) readChunked(max int) ([]byte, *fastpath.Error) {
	for {
		b := s.conn.Buffered()
		if len(b) == 0 {
			if err := s.conn.Fill(min(max, bodyFillBytes)); err != nil {
				return nil, s.lost(err)
			}
			continue
		}
		data, n, done, err := s.chunks.Decode(b[:min(len(b), max)], s.arena)
		s.conn.Discard(n)
		s.inEnded = done
		switch {
		case err != nil:
			return nil, err
		case len(data) > 0:
			return data, nil
		case done:
			return nil, fastpath.ErrEOF
		}
	}
}

// Trailers implements Stream.
func (s *session) Trailers() []wire.Field { return s.chunks.Trailers() }

// BodyLeft implements Stream.
func (s *session) BodyLeft() int64 {
	if !s.head || s.in != wire.FramingLength {
		return -1
	}
	return max(0, s.inLeft-int64(len(s.conn.Buffered())))
}

// Raw implements Stream.
func (s *session) Raw() *fastpath.Conn {
	if s.BodyLeft() <= 0 || !s.conn.Bare() {
		return nil
	}
	return s.conn
}

// Spliced implements Stream.
func (s *session) Spliced(n int64) { s.inLeft -= n }

// complete tells that request and answer came to their end, and that neither side forbade another exchange. An upgrade
// that was asked for and not granted ends the session too: what such a backend does next is not worth a guess.
func (s *session) complete() bool {
	answered := s.inEnded || s.in == wire.FramingLength && s.inLeft == 0
	return s.head && answered && s.outEnded && !s.ending && s.upgrade == nil && !s.switched
}

// lost lays an error of the connection at the backend's door.
func (s *session) lost(err *fastpath.Error) *fastpath.Error {
	if err == fastpath.ErrWouldBlock {
		return err
	}
	if s.idled > 0 && !s.head && s.conn.Received() == s.received {
		s.endpoint.idle.closedAfter(s.idled) // the idle race, lost
	}
	switch {
	case !s.Sent():
		return ErrUnsent
	case err == fastpath.ErrEOF:
		return ErrCut
	case err == fastpath.ErrTruncated:
		return ErrTruncated
	case err == fastpath.ErrTLS:
		return ErrTLS
	case err == fastpath.ErrReset:
		return ErrReset
	}
	return err
}
