package wire

import "encoding/binary"

// H2Preface is what a client of HTTP/2 begins with (RFC 9113 3.4). Its first SETTINGS frame follows.
const H2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// H2Type is a frame's type (RFC 9113 6).
type H2Type uint8

// The types that are known. Frames of others are passed over.
const (
	H2Data           H2Type = 0x0
	H2Headers        H2Type = 0x1
	H2Priority       H2Type = 0x2 // without meaning since RFC 9113, but checked
	H2Reset          H2Type = 0x3
	H2Settings       H2Type = 0x4
	H2PushPromise    H2Type = 0x5
	H2Ping           H2Type = 0x6
	H2GoAway         H2Type = 0x7
	H2WindowUpdate   H2Type = 0x8
	H2Continuation   H2Type = 0x9
	H2PriorityUpdate H2Type = 0x10 // RFC 9218 7.1
)

// Flags of frames. A flag that a type does not define is ignored.
const (
	H2EndStream  = 0x01 // DATA, HEADERS
	H2Ack        = 0x01 // SETTINGS, PING
	H2EndHeaders = 0x04 // HEADERS, CONTINUATION
	H2Padded     = 0x08 // DATA, HEADERS
	H2HasDepend  = 0x20 // HEADERS: the obsolete dependency and weight stand before the block
)

// Sizes of frames.
const (
	H2HeadBytes     = 9        // of every frame's head
	H2FrameMax      = 16 << 10 // payload that every peer takes: SETTINGS_MAX_FRAME_SIZE's smallest and initial value
	H2WindowInitial = 1<<16 - 1
	H2WindowMax     = 1<<31 - 1
	H2StreamMax     = 1<<31 - 1 // the last stream's identifier
)

// H2Head is a frame's head.
type H2Head struct {
	Length int // of the payload
	Type   H2Type
	Flags  uint8
	Stream uint32 // 0: the connection
}

// ParseH2Head reads the first H2HeadBytes of b. The reserved bit is ignored.
func ParseH2Head(b []byte) H2Head {
	_ = b[H2HeadBytes-1]
	return H2Head{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		Type:   H2Type(b[3]),
		Flags:  b[4],
		Stream: binary.BigEndian.Uint32(b[5:]) & H2StreamMax,
	}
}

// Has tells whether all bits of flags are set.
func (h H2Head) Has(flags uint8) bool { return h.Flags&flags == flags }

// Check judges a head before its payload is read: whether the frame may stand on its stream and be so long. max is the
// SETTINGS_MAX_FRAME_SIZE that we announced. Both sides of a connection use it; which streams exist is the owner's to know.
func (h H2Head) Check(max int) *H2Error {
	if h.Length > max {
		return ErrH2FrameSize // RFC 9113 4.2 lets some be the stream's error; nobody who read our SETTINGS sends one
	}
	switch h.Type {
	case H2Data, H2Headers, H2Priority, H2Reset, H2Continuation:
		if h.Stream == 0 {
			return ErrH2StreamZero
		}
	case H2Settings, H2Ping, H2GoAway, H2PriorityUpdate:
		if h.Stream != 0 {
			return ErrH2StreamSet
		}
	case H2PushPromise:
		return ErrH2Push // clients may not, and servers were told not to
	}
	switch h.Type {
	case H2Priority:
		if h.Length != 5 {
			return errH2SizeStream
		}
	case H2Reset, H2WindowUpdate:
		if h.Length != 4 {
			return ErrH2FrameSize
		}
	case H2Ping:
		if h.Length != 8 {
			return ErrH2FrameSize
		}
	case H2GoAway:
		if h.Length < 8 {
			return ErrH2FrameSize
		}
	case H2PriorityUpdate:
		if h.Length < 4 {
			return ErrH2FrameSize
		}
	case H2Settings:
		if h.Has(H2Ack) && h.Length != 0 || h.Length%6 != 0 {
			return ErrH2FrameSize
		}
	}
	return nil
}

// Unpad cuts the padding off a whole DATA or HEADERS payload.
func (h H2Head) Unpad(payload []byte) ([]byte, *H2Error) {
	if !h.Has(H2Padded) {
		return payload, nil
	}
	if len(payload) == 0 {
		return nil, ErrH2FrameSize
	}
	pad := int(payload[0])
	if pad >= len(payload) {
		return nil, ErrH2Padding
	}
	return payload[1 : len(payload)-pad], nil
}

// Block is the part of a whole HEADERS payload that is the header block: padding and the obsolete priority are cut off.
func (h H2Head) Block(payload []byte) ([]byte, *H2Error) {
	b, err := h.Unpad(payload)
	if err != nil || !h.Has(H2HasDepend) {
		return b, err
	}
	if len(b) < 5 {
		return nil, ErrH2FrameSize
	}
	if binary.BigEndian.Uint32(b)&H2StreamMax == h.Stream {
		return b[5:], ErrH2SelfDepend // the block has to be decoded all the same
	}
	return b[5:], nil
}

// CheckPriority judges a PRIORITY frame's payload: a stream cannot depend on itself.
func (h H2Head) CheckPriority(payload []byte) *H2Error {
	if binary.BigEndian.Uint32(payload)&H2StreamMax == h.Stream {
		return ErrH2SelfDepend
	}
	return nil
}

// ParseH2Uint reads the one number of a RST_STREAM (a code).
func ParseH2Uint(payload []byte) uint32 { return binary.BigEndian.Uint32(payload) }

// ParseWindow reads a WINDOW_UPDATE. An increment of 0 is an error of the stream, or of the connection on stream 0.
func (h H2Head) ParseWindow(payload []byte) (uint32, *H2Error) {
	n := binary.BigEndian.Uint32(payload) & H2WindowMax
	if n == 0 {
		if h.Stream == 0 {
			return 0, ErrH2WindowZero
		}
		return 0, errH2WindowZeroStream
	}
	return n, nil
}

// ParseH2GoAway reads a GOAWAY: the last stream that the peer has or will look at, and why.
func ParseH2GoAway(payload []byte) (last uint32, code H2Code) {
	return binary.BigEndian.Uint32(payload) & H2StreamMax, H2Code(binary.BigEndian.Uint32(payload[4:]))
}

// ParseH2PriorityUpdate reads a PRIORITY_UPDATE (RFC 9218 7.1): the stream meant and its Priority field's value.
func ParseH2PriorityUpdate(payload []byte) (stream uint32, value []byte, err *H2Error) {
	stream = binary.BigEndian.Uint32(payload) & H2StreamMax
	if stream == 0 {
		return 0, nil, ErrH2StreamZero
	}
	return stream, payload[4:], nil
}

// H2Window is a flow-control window: how many bytes may still go. The peer can make it negative by its settings.
type H2Window int32

// Grow adds n; false: the window would pass 2^31-1 (RFC 9113 6.9.1), and stays.
func (w *H2Window) Grow(n int64) bool {
	sum := int64(*w) + n
	if sum > H2WindowMax || sum < -H2WindowMax {
		return false
	}
	*w = H2Window(sum)
	return true
}

// H2PriorityOf reads urgency and incremental from a Priority field or PRIORITY_UPDATE (RFC 9218 4), as far as they can be
// understood: whatever is not well formed leaves the default, u=3.
func H2PriorityOf(value []byte) (urgency uint8, incremental bool) {
	urgency = H2Urgency
	for rest, more := value, true; more; {
		var p []byte
		p, rest, more = element(rest)
		switch {
		case len(p) == 3 && p[0] == 'u' && p[1] == '=' && p[2] >= '0' && p[2] <= '7':
			urgency = p[2] - '0'
		case string(p) == "i" || string(p) == "i=?1":
			incremental = true
		case string(p) == "i=?0":
			incremental = false
		}
	}
	return urgency, incremental
}

// H2Urgency is the urgency of a stream that names none; 0 is the most, 7 the least urgent.
const H2Urgency = 3
