package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP/2 as the bench needs it, for its clients and its origin: frames in, frames out, no I/O. One of ours has to be
// far cheaper than the proxy between them, so a head that was sent once is sent again as the bytes that refer to the
// peer's table, and windows are so wide that they are seldom widened.

const (
	frameHeadBytes = 9
	frameMax       = 16 << 10       // what we take; every peer takes that much too
	windowOurs     = 1<<30 - 1      // of the connection and of each stream
	windowWiden    = windowOurs / 2 // taken before it is widened again
	windowDefault  = 65_535
	windowMost     = 1<<31 - 1
	tableBytes     = 4096
)

var (
	errFrameLong  = errors.New("HTTP/2: a frame is too long")
	errFrameShort = errors.New("HTTP/2: a frame is cut short")
	errWindow     = errors.New("HTTP/2: a window is out of bounds")
	clientPreface = []byte(http2.ClientPreface)
)

// streamEvents is what a side makes of the frames of its streams.
type streamEvents interface {
	// head takes the fields of a head or of trailers.
	head(id uint32, fields []hpack.HeaderField, last bool, out []byte) ([]byte, error)
	// data takes a piece of a body.
	data(id uint32, b []byte, last bool, out []byte) ([]byte, error)
	// reset tells that the peer has given a stream up.
	reset(id uint32) error
}

// An http2Conn is what both sides of a connection have: its framing, its compression, its windows.
type http2Conn struct {
	events  streamEvents
	partial []byte // of a frame
	block   []byte // of a head that goes on in CONTINUATION
	headID  uint32
	headEnd bool // that head ends its stream
	fields  []hpack.HeaderField
	decoder *hpack.Decoder
	encoder *hpack.Encoder
	encoded bytes.Buffer

	settled     bool // the peer's SETTINGS have come
	leaving     bool // the peer's GOAWAY has come
	streamsMost uint32
	window      int64  // for bodies of ours, of the connection
	windowFirst int64  // … of a new stream
	taken       int64  // of the peer's bodies since the window was widened
	blocked     []sent // bodies of ours that wait for a window, in their order
}

// A sent body is on its way.
type sent struct {
	id     uint32
	window int64
	rest   []byte
	then   []byte // frames that follow it: trailers; when there are none, its last frame ends the stream
}

func newHTTP2Conn(events streamEvents) *http2Conn {
	c := &http2Conn{events: events, streamsMost: 1 << 30, window: windowDefault, windowFirst: windowDefault}
	c.encoder = hpack.NewEncoder(&c.encoded)
	c.decoder = hpack.NewDecoder(tableBytes, func(f hpack.HeaderField) { c.fields = append(c.fields, f) })
	return c
}

// appendFrame appends the head of a frame.
func appendFrame(out []byte, length int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	out = append(out, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(out, id)
}

// appendSettings appends our SETTINGS and widens the connection's window.
func appendSettings(out []byte) []byte {
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: windowOurs}, {ID: http2.SettingEnablePush, Val: 0}}
	return appendSettingsOf(out, settings)
}

func appendSettingsOf(out []byte, settings []http2.Setting) []byte {
	out = appendFrame(out, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		out = binary.BigEndian.AppendUint16(out, uint16(s.ID))
		out = binary.BigEndian.AppendUint32(out, s.Val)
	}
	return appendWiden(out, windowOurs-windowDefault)
}

func appendWiden(out []byte, by uint32) []byte {
	out = appendFrame(out, 4, http2.FrameWindowUpdate, 0, 0)
	return binary.BigEndian.AppendUint32(out, by)
}

// encode compresses a head. Of the same fields the second result and all later ones are equal.
func (c *http2Conn) encode(fields []hpack.HeaderField) []byte {
	c.encoded.Reset()
	for _, f := range fields {
		_ = c.encoder.WriteField(f) // a bytes.Buffer takes all
	}
	return bytes.Clone(c.encoded.Bytes())
}

// feed takes what the peer said, in pieces of any size.
func (c *http2Conn) feed(b, out []byte) ([]byte, error) {
	if len(c.partial) > 0 {
		c.partial = append(c.partial, b...)
		b = c.partial
	}
	for len(b) >= frameHeadBytes {
		length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if length > frameMax {
			return out, errFrameLong
		}
		if len(b) < frameHeadBytes+length {
			break
		}
		kind, flags, id := http2.FrameType(b[3]), http2.Flags(b[4]), binary.BigEndian.Uint32(b[5:])&windowMost
		var err error
		if out, err = c.frame(kind, flags, id, b[frameHeadBytes:frameHeadBytes+length], out); err != nil {
			return out, err
		}
		b = b[frameHeadBytes+length:]
	}
	c.partial = append(c.partial[:0], b...)
	return out, nil
}

func (c *http2Conn) frame(kind http2.FrameType, flags http2.Flags, id uint32, b, out []byte) ([]byte, error) {
	switch kind {
	case http2.FrameData:
		return c.dataFrame(flags, id, b, out)
	case http2.FrameHeaders, http2.FrameContinuation:
		return c.headFrame(kind, flags, id, b, out)
	case http2.FrameSettings:
		if flags.Has(http2.FlagSettingsAck) {
			return out, nil
		}
		if err := c.settings(b); err != nil {
			return out, err
		}
		return c.unblock(appendFrame(out, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)), nil
	case http2.FramePing:
		if flags.Has(http2.FlagPingAck) {
			return out, nil
		}
		return append(appendFrame(out, len(b), http2.FramePing, http2.FlagPingAck, 0), b...), nil
	case http2.FrameWindowUpdate:
		if len(b) != 4 {
			return out, errFrameShort
		}
		return c.widened(id, int64(binary.BigEndian.Uint32(b)&windowMost), out)
	case http2.FrameGoAway:
		c.leaving = true
		if len(b) >= 8 && binary.BigEndian.Uint32(b[4:]) != 0 {
			return out, fmt.Errorf("HTTP/2: GOAWAY, %v", http2.ErrCode(binary.BigEndian.Uint32(b[4:])))
		}
	case http2.FrameRSTStream:
		c.drop(id)
		return out, c.events.reset(id)
	}
	return out, nil // PRIORITY, and what is not known
}

func (c *http2Conn) settings(b []byte) error {
	for ; len(b) >= 6; b = b[6:] {
		value := binary.BigEndian.Uint32(b[2:])
		switch http2.SettingID(binary.BigEndian.Uint16(b)) {
		case http2.SettingMaxConcurrentStreams:
			c.streamsMost = value
		case http2.SettingHeaderTableSize:
			c.encoder.SetMaxDynamicTableSizeLimit(min(value, tableBytes))
		case http2.SettingInitialWindowSize:
			if value > windowMost {
				return errWindow
			}
			for i := range c.blocked {
				c.blocked[i].window += int64(value) - c.windowFirst
			}
			c.windowFirst = int64(value)
		}
	}
	c.settled = true
	return nil
}

// unpad takes the padding of a frame away, and a head's priority.
func unpad(flags http2.Flags, b []byte, head bool) ([]byte, error) {
	padding := 0
	if flags.Has(http2.FlagDataPadded) { // the same bit in both kinds
		if len(b) == 0 {
			return nil, errFrameShort
		}
		padding, b = int(b[0]), b[1:]
	}
	if head && flags.Has(http2.FlagHeadersPriority) {
		padding += 5
		if padding > len(b) {
			return nil, errFrameShort
		}
		padding, b = padding-5, b[5:]
	}
	if padding > len(b) {
		return nil, errFrameShort
	}
	return b[:len(b)-padding], nil
}

func (c *http2Conn) headFrame(kind http2.FrameType, flags http2.Flags, id uint32, b, out []byte) ([]byte, error) {
	if kind == http2.FrameHeaders {
		var err error
		if b, err = unpad(flags, b, true); err != nil {
			return out, err
		}
		c.headID, c.headEnd = id, flags.Has(http2.FlagHeadersEndStream)
	}
	if !flags.Has(http2.FlagHeadersEndHeaders) || len(c.block) > 0 {
		if c.block = append(c.block, b...); len(c.block) > headMax {
			return out, errHeadLong
		}
		b = c.block
	}
	if !flags.Has(http2.FlagHeadersEndHeaders) {
		return out, nil
	}
	c.fields = c.fields[:0]
	if _, err := c.decoder.Write(b); err != nil {
		return out, err
	}
	if err := c.decoder.Close(); err != nil {
		return out, err
	}
	c.block = c.block[:0]
	return c.events.head(c.headID, c.fields, c.headEnd, out)
}

func (c *http2Conn) dataFrame(flags http2.Flags, id uint32, b, out []byte) ([]byte, error) {
	if c.taken += int64(len(b)); c.taken > windowWiden {
		out = appendWiden(out, uint32(c.taken))
		c.taken = 0
	}
	b, err := unpad(flags, b, false)
	if err != nil {
		return out, err
	}
	return c.events.data(id, b, flags.Has(http2.FlagDataEndStream), out)
}

// send appends as much of a body as the windows allow; the rest waits. then are frames that follow the body; without
// any, its last frame ends the stream.
func (c *http2Conn) send(id uint32, body, then, out []byte) []byte {
	s := sent{id, c.windowFirst, body, then}
	if len(c.blocked) > 0 && c.window <= 0 {
		c.blocked = append(c.blocked, s)
		return out
	}
	if out = c.advance(&s, out); len(s.rest) > 0 {
		c.blocked = append(c.blocked, s)
	}
	return out
}

func (c *http2Conn) advance(s *sent, out []byte) []byte {
	for len(s.rest) > 0 {
		n := int(min(int64(len(s.rest)), frameMax, s.window, c.window))
		if n <= 0 {
			return out
		}
		flags := http2.Flags(0)
		if n == len(s.rest) && s.then == nil {
			flags = http2.FlagDataEndStream
		}
		out = append(appendFrame(out, n, http2.FrameData, flags, s.id), s.rest[:n]...)
		s.rest = s.rest[n:]
		s.window -= int64(n)
		c.window -= int64(n)
	}
	return append(out, s.then...)
}

// unblock goes on with the bodies that wait, in their order, each as far as its windows allow.
func (c *http2Conn) unblock(out []byte) []byte {
	waiting := c.blocked[:0]
	for _, s := range c.blocked {
		if out = c.advance(&s, out); len(s.rest) > 0 {
			waiting = append(waiting, s)
		}
	}
	clear(c.blocked[len(waiting):]) // bodies must not be kept alive
	c.blocked = waiting
	return out
}

func (c *http2Conn) widened(id uint32, by int64, out []byte) ([]byte, error) {
	if id == 0 {
		if c.window += by; c.window > windowMost {
			return out, errWindow
		}
	}
	for i := range c.blocked {
		if c.blocked[i].id == id {
			c.blocked[i].window += by
		}
	}
	return c.unblock(out), nil
}

// drop forgets a body whose stream has ended.
func (c *http2Conn) drop(id uint32) {
	for i := range c.blocked {
		if c.blocked[i].id == id {
			c.blocked = append(c.blocked[:i], c.blocked[i+1:]...)
			return
		}
	}
}
