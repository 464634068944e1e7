package l7

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// Limits of bodies that are compressed on their way. How much memory they take together is a setting (EncodeMemory).
const (
	encodeBytes   = 32 << 10 // of a body that are compressed in one go
	encodeOnLoop  = 8 << 10  // of a body that are compressed on its loop; what follows is compressed off it
	encodeOutKeep = 64 << 10 // a larger buffer is not kept
)

// An Encoder compresses what is written to it, as the packages for it have it. Flush makes all of it readable.
type Encoder interface {
	io.WriteCloser
	Flush() error
	Reset(w io.Writer)
}

// A Codec makes the encoders of one coding (RFC 9110 8.4.1) and keeps those that are free. Shared by all loops.
type Codec struct {
	Name  []byte // as Content-Encoding has it
	Bytes int    // the most that an encoder holds
	Slow  bool   // even a body's beginning is too much for a loop
	New   func() Encoder

	free sync.Pool
}

// holds is what a body that is compressed may hold: its encoder, what waits for it, and what came of that.
func (c *Codec) holds() int64 { return int64(c.Bytes + encodeBytes + encodeOutKeep) }

// encoded is what all bodies may hold that are compressed now.
var encoded atomic.Int64

// encoding is the body of one response that is compressed. Its loop's, but while it is busy: then whoever computes has
// everything but x.
type encoding struct {
	x       *Exchange // nil: it has gone
	codec   *Codec
	enc     Encoder // nil until the first byte
	in, out []byte  // body that waits, and what came of it, of which sent bytes have gone
	sent    int
	fed     int64 // bytes that were compressed
	begun   bool  // enc writes this body
	unsaid  bool  // bytes that were compressed and not flushed
	streams bool  // the backend tells no length: what it says is flushed when it pauses
	busy    bool
	last    bool // the body is complete
	err     *fastpath.Error
}

// Write implements io.Writer for the encoder.
func (e *encoding) Write(b []byte) (int, error) {
	e.out = append(e.out, b...)
	return len(b), nil
}

// Encode has the response's body compressed on its way to the client, whose head says so by then. A response filter calls
// it; false: the body goes as it is. Answers of the proxy's own are short and do.
func (x *Exchange) Encode(c *Codec) bool {
	if x.fwd.stream == nil || x.encoding != nil || x.grpc || x.Route.Policy.Rate > 0 {
		return false
	}
	if encoded.Add(c.holds()) > int64(x.Settings.EncodeMemory) {
		encoded.Add(-c.holds())
		return false
	}
	e, _ := c.free.Get().(*encoding)
	if e == nil {
		e = &encoding{codec: c}
	}
	e.x, e.streams = x, x.Resp.Framing != wire.FramingLength
	x.encoding = e
	x.Resp.Framing, x.Resp.ContentLength = wire.FramingChunked, -1
	x.Resp.Fields = wire.Delete(x.Resp.Fields, wire.FieldContentLength)
	return true
}

// letGo takes the encoding from its exchange. One that is busy is free when it is done.
func (e *encoding) letGo() {
	e.x = nil
	if e.busy {
		return
	}
	encoded.Add(-e.codec.holds())
	if e.err != nil || cap(e.out) > encodeOutKeep {
		return
	}
	*e = encoding{codec: e.codec, enc: e.enc, in: e.in[:0], out: e.out[:0]}
	e.codec.free.Put(e)
}

// relayEncoded is relay for a body that is compressed.
func (x *Exchange) relayEncoded() {
	f, e := &x.fwd, x.encoding
	for moved := 0; f.stream != nil && !e.busy; {
		if e.err != nil {
			x.failed(e.err)
			return
		}
		if !x.sendEncoded() {
			return
		}
		if e.last {
			x.endResponse()
			return
		}
		if moved >= relayBytes {
			x.relayAgain()
			return
		}
		b, err := f.stream.ReadBody(encodeBytes - len(e.in))
		if len(b) > 0 {
			moved += len(b)
			f.got += int64(len(b))
			if e.in = append(e.in, b...); len(e.in) >= encodeBytes {
				x.encode(false)
			}
			continue
		}
		switch {
		case err == fastpath.ErrEOF:
			e.last = true
			x.encode(true)
		case err != fastpath.ErrWouldBlock:
			x.failed(err)
			return
		case e.streams && (len(e.in) > 0 || e.unsaid):
			x.encode(true)
		default:
			f.stream.SetTimeout(x.within(x.readTimeout()))
			return
		}
	}
}

// sendEncoded writes what was compressed; false: the client is waited for, or the exchange has ended.
func (x *Exchange) sendEncoded() bool {
	for e := x.encoding; e.sent < len(e.out); {
		room := x.client.Room()
		if room == 0 {
			x.fwd.stream.SetTimeout(x.within(0))
			return false
		}
		b := e.out[e.sent:min(len(e.out), e.sent+room)]
		e.sent += len(b)
		if err := x.client.WriteBody(b); err != nil {
			x.failed(err)
			return false
		}
	}
	x.encoding.out, x.encoding.sent = x.encoding.out[:0], 0
	return true
}

// encode compresses what waits: a body's beginning here, the rest off the loop, under a permit.
func (x *Exchange) encode(flush bool) {
	e, w := x.encoding, x.local.srv.Work
	if e.fed += int64(len(e.in)); e.fed <= encodeOnLoop && !e.codec.Slow || w == nil {
		e.compress(flush)
		return
	}
	l := x.loop
	e.busy = true
	if w.Go(fastpath.WorkCompute, func() {
		w.Do(func() { e.compress(flush) })
		l.Post(e.done)
	}) != nil {
		e.busy = false
		e.compress(flush) // too much waits: it is at most encodeBytes
		return
	}
	x.fwd.stream.SetTimeout(x.within(0)) // nobody is waited for
}

// done is the end of compress, on the loop.
func (e *encoding) done() {
	e.busy = false
	x := e.x
	if x == nil {
		e.letGo()
		return
	}
	defer x.recovered()
	x.relay()
}

// compress touches no exchange.
func (e *encoding) compress(flush bool) {
	defer func() {
		if p := recover(); p != nil {
			e.err = errEncoder
		}
		e.in = e.in[:0]
	}()
	if !e.begun {
		if e.begun = true; e.enc == nil {
			e.enc = e.codec.New()
		}
		e.enc.Reset(e)
	}
	_, err := e.enc.Write(e.in)
	switch {
	case err != nil:
	case e.last:
		err = e.enc.Close()
	case flush:
		err = e.enc.Flush()
	}
	if e.unsaid = !flush; err != nil {
		e.err = errEncoder
	}
}

var errEncoder = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindInternal, Text: "an encoder failed"}
