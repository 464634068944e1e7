package wire

import (
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/sluiceproxy/sluice/fastpath"
)

// This file writes frames. Header blocks are compressed against HPACK's static table alone: no state, no memory for each
// connection, and nothing that a stranger's values could be guessed by (CRIME). docs/decisions/0030-http2-headers.md.

// AppendH2Head appends a frame's head.
func AppendH2Head(dst []byte, h H2Head) []byte {
	return append(dst, byte(h.Length>>16), byte(h.Length>>8), byte(h.Length), byte(h.Type), h.Flags,
		byte(h.Stream>>24), byte(h.Stream>>16), byte(h.Stream>>8), byte(h.Stream))
}

// AppendH2Setting appends one parameter of a SETTINGS payload.
func AppendH2Setting(dst []byte, id H2Setting, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, uint16(id)), value)
}

// AppendH2Settings appends a SETTINGS frame around a payload of AppendH2Setting's.
func AppendH2Settings(dst, payload []byte) []byte {
	return append(AppendH2Head(dst, H2Head{Length: len(payload), Type: H2Settings}), payload...)
}

// AppendH2SettingsAck appends the acknowledgement of the peer's SETTINGS.
func AppendH2SettingsAck(dst []byte) []byte {
	return AppendH2Head(dst, H2Head{Type: H2Settings, Flags: H2Ack})
}

// AppendH2Ping appends a PING, or the answer to one.
func AppendH2Ping(dst []byte, ack bool, data []byte) []byte {
	h := H2Head{Length: 8, Type: H2Ping}
	if ack {
		h.Flags = H2Ack
	}
	return append(AppendH2Head(dst, h), data[:8]...)
}

// AppendH2Reset appends a RST_STREAM.
func AppendH2Reset(dst []byte, stream uint32, code H2Code) []byte {
	dst = AppendH2Head(dst, H2Head{Length: 4, Type: H2Reset, Stream: stream})
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// AppendH2WindowUpdate appends a WINDOW_UPDATE; stream 0 means the connection.
func AppendH2WindowUpdate(dst []byte, stream, n uint32) []byte {
	dst = AppendH2Head(dst, H2Head{Length: 4, Type: H2WindowUpdate, Stream: stream})
	return binary.BigEndian.AppendUint32(dst, n)
}

// AppendH2GoAway appends a GOAWAY without debug data.
func AppendH2GoAway(dst []byte, last uint32, code H2Code) []byte {
	dst = AppendH2Head(dst, H2Head{Length: 8, Type: H2GoAway})
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, last), uint32(code))
}

// AppendH2DataHead appends the head of a DATA frame of n bytes, at most H2FrameMax; they go behind it.
func AppendH2DataHead(dst []byte, stream uint32, n int, end bool) []byte {
	h := H2Head{Length: n, Type: H2Data, Stream: stream}
	if end {
		h.Flags = H2EndStream
	}
	return AppendH2Head(dst, h)
}

// H2Encoder writes the header blocks of one connection. The zero value is ready.
type H2Encoder struct {
	begun bool // the table's size was set to 0, in the first block
}

// AppendResponse appends r's head as HEADERS, and CONTINUATION where it is long. end: no body follows. A 101 becomes the 200
// that answers an extended CONNECT. It asserts what wire.AppendResponse asserts.
func (e *H2Encoder) AppendResponse(dst []byte, stream uint32, r *Response, end bool, o ResponseOptions) ([]byte, *fastpath.Error) {
	if r.Status < 100 || r.Status > 599 || r.Status < 200 && end {
		return dst, ErrSerialise
	}
	out, at := e.begin(dst, fieldsSize(r.Fields))
	if r.Status == 101 {
		out = appendStatus(out, 200)
	} else {
		out = appendStatus(out, r.Status)
	}
	out, ok := appendH2Fields(out, r.Fields, o.Trailers)
	if !ok {
		return dst, ErrSerialise
	}
	if r.Status >= 200 && r.Status != 204 && r.ContentLength >= 0 && !(end && r.Unsaid) && (r.Framing == FramingLength || r.Framing == FramingNone) {
		out = appendH2Length(out, r.ContentLength)
	}
	return e.finish(out, at, stream, end), nil
}

// AppendRequest appends r's head as HEADERS, and CONTINUATION where it is long. end: no body follows. With r.Upgrade it is an
// extended CONNECT. secure tells :scheme. It asserts what wire.AppendRequest asserts.
func (e *H2Encoder) AppendRequest(dst []byte, stream uint32, r *Request, secure, end bool) ([]byte, *fastpath.Error) {
	method := r.MethodText
	if r.Method != MethodOther {
		method = methodNameBytes[r.Method]
	}
	if !IsToken(method) || r.Method == MethodConnect || !sendableTarget(r) || !sendableAuthority(r.Authority) {
		return dst, ErrSerialise
	}
	out, at := e.begin(dst, fieldsSize(r.Fields)+len(method)+len(r.Target)+len(r.Authority)+len(r.Upgrade))
	switch {
	case r.Upgrade != nil:
		if protocolName(r.Upgrade) == nil {
			return dst, ErrSerialise
		}
		out = appendLiteral(out, 2, nil, methodNameBytes[MethodConnect])
		out = appendLiteral(out, 0, h2ProtocolName, r.Upgrade)
	case r.Method == MethodGet:
		out = append(out, 0x80|2)
	case r.Method == MethodPost:
		out = append(out, 0x80|3)
	default:
		out = appendLiteral(out, 2, nil, method)
	}
	scheme := byte(6)
	if secure {
		scheme = 7
	}
	out = append(out, 0x80|scheme)
	if len(r.Target) == 1 && r.Target[0] == '/' {
		out = append(out, 0x80|4)
	} else {
		out = appendLiteral(out, 4, nil, r.Target)
	}
	if len(r.Authority) > 0 { // an HTTP/1.0 client may have sent none (RFC 9113 8.3.1)
		out = appendLiteral(out, 1, nil, r.Authority)
	}
	fields, ok := r.Fields, true
	if at := Index(fields, FieldSecWebSocketKey); r.Upgrade != nil && at >= 0 { // RFC 8441 5.1: it says nothing there
		if out, ok = appendH2Fields(out, fields[:at], r.TETrailers); !ok {
			return dst, ErrSerialise
		}
		fields = fields[at+1:]
	}
	if out, ok = appendH2Fields(out, fields, r.TETrailers); !ok || r.Framing == FramingLength && r.ContentLength < 0 {
		return dst, ErrSerialise
	}
	if r.TETrailers {
		out = appendLiteral(out, 0, h2TEName, h2TETrailers)
	}
	if r.Framing == FramingLength {
		out = appendH2Length(out, r.ContentLength)
	}
	return e.finish(out, at, stream, end), nil
}

var (
	h2ProtocolName = []byte(":protocol")
	h2TEName       = []byte("te")
	h2TETrailers   = []byte("trailers")
)

// AppendTrailers appends trailers as the HEADERS that end a stream, without those that must never come late; see
// AppendLastChunk. sent is false when none is left: then the stream has to be ended otherwise.
func (e *H2Encoder) AppendTrailers(dst []byte, stream uint32, trailers []Field, forbidden ...[]byte) (out []byte, sent bool, err *fastpath.Error) {
	out, at := e.begin(dst, fieldsSize(trailers))
	begun := len(out)
	for i := range trailers {
		f := &trailers[i]
		if ForbiddenTrailer(f.Name) || forbids(forbidden, f.Name) {
			continue
		}
		if !sendableField(f) {
			return dst, false, ErrSerialise
		}
		out = appendLiteral(out, 0, f.Name, f.Value)
	}
	if len(out) == begun {
		return dst, false, nil
	}
	return e.finish(out, at, stream, true), true, nil
}

// begin makes room for a block of that many bytes of names and values, behind its frame's head, which stands at at. The
// first block says that the dynamic table is not used: no change of the peer's settings needs an answer then (RFC 7541 4.2).
func (e *H2Encoder) begin(dst []byte, size int) (out []byte, at int) {
	at = len(dst)
	out = slices.Grow(dst, size+requestFixed)[:at+H2HeadBytes]
	if !e.begun {
		out = append(out, 0x20)
	}
	return out, at
}

// finish writes the heads of the frames of a block.
func (e *H2Encoder) finish(out []byte, at int, stream uint32, end bool) []byte {
	e.begun = true
	h := H2Head{Length: len(out) - at - H2HeadBytes, Type: H2Headers, Flags: H2EndHeaders, Stream: stream}
	if end {
		h.Flags |= H2EndStream
	}
	if h.Length > H2FrameMax {
		return splitBlock(out, at, h)
	}
	AppendH2Head(out[:at], h)
	return out
}

// splitBlock spreads a long block over frames, from the last to the first, so that each byte moves once.
func splitBlock(out []byte, at int, h H2Head) []byte {
	more := (h.Length - 1) / H2FrameMax // frames of CONTINUATION
	end := len(out)
	out = slices.Grow(out, more*H2HeadBytes)[:end+more*H2HeadBytes]
	for i := more; i > 0; i-- {
		from := at + H2HeadBytes + i*H2FrameMax
		to := from + i*H2HeadBytes
		copy(out[to:], out[from:end])
		c := H2Head{Length: end - from, Type: H2Continuation, Stream: h.Stream}
		if i == more {
			c.Flags = H2EndHeaders
		}
		AppendH2Head(out[:to-H2HeadBytes], c)
		end = from
	}
	h.Length, h.Flags = H2FrameMax, h.Flags&^H2EndHeaders
	AppendH2Head(out[:at], h)
	return out
}

// appendH2Fields is appendFields for a header block.
func appendH2Fields(dst []byte, fields []Field, trailer bool) (_ []byte, ok bool) {
	for i := range fields {
		f := &fields[i]
		id, passes := passing(f, trailer)
		if !passes {
			continue
		}
		if !sendableField(f) {
			return dst, false
		}
		if index := h2Static[id]; index != 0 {
			dst = appendLiteral(dst, index, nil, trim(f.Value))
		} else {
			dst = appendLiteral(dst, 0, f.Name, trim(f.Value))
		}
	}
	return dst, true
}

// h2Static are the places of names with an ID in the static table (RFC 7541 A). A set top bit has the field never indexed,
// by nobody on the way: a credential (RFC 7541 7.1.3).
var h2Static = [fieldCount]uint8{
	FieldAccept: 19, FieldAcceptEncoding: 16, FieldAccessControlAllowOrigin: 20, FieldAuthorization: 23 | h2Secret, FieldContentEncoding: 26,
	FieldContentType: 31, FieldCookie: 32 | h2Secret, FieldDate: 33, FieldETag: 34, FieldLocation: 46, FieldReferer: 51,
	FieldServer: 54, FieldSetCookie: 55 | h2Secret, FieldStrictTransportSecurity: 56, FieldUserAgent: 58, FieldVary: 59,
}

const h2Secret = 0x80

// appendLiteral appends a field without indexing it; index is its name's place in the static table, or 0 and name is spelled.
func appendLiteral(dst []byte, index uint8, name, value []byte) []byte {
	first := byte(0)
	if index&h2Secret != 0 {
		first, index = 0x10, index&^h2Secret
	}
	dst = appendInteger(dst, first, 4, uint64(index))
	if index == 0 {
		dst = appendInteger(dst, 0, 7, uint64(len(name)))
		for _, c := range name {
			dst = append(dst, lower[c])
		}
	}
	dst = appendInteger(dst, 0, 7, uint64(len(value)))
	return append(dst, value...)
}

// appendInteger appends n with a prefix of that many bits in a byte that begins with first (RFC 7541 5.1).
func appendInteger(dst []byte, first byte, prefix uint, n uint64) []byte {
	most := uint64(1)<<prefix - 1
	if n < most {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

func appendStatus(dst []byte, status int) []byte {
	switch status {
	case 200:
		return append(dst, 0x80|8)
	case 204:
		return append(dst, 0x80|9)
	case 206:
		return append(dst, 0x80|10)
	case 304:
		return append(dst, 0x80|11)
	case 400:
		return append(dst, 0x80|12)
	case 404:
		return append(dst, 0x80|13)
	case 500:
		return append(dst, 0x80|14)
	}
	dst = append(dst, 8, 3)
	return strconv.AppendInt(dst, int64(status), 10)
}

// appendH2Length appends content-length.
func appendH2Length(dst []byte, n int64) []byte {
	at := len(dst) + 3
	dst = append(dst, 0x0f, 28-15, 0)
	dst = strconv.AppendInt(dst, n, 10)
	dst[at-1] = byte(len(dst) - at)
	return dst
}
