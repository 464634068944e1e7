package wire

import "github.com/sluiceproxy/sluice/fastpath"

// H2Code is an error code of RST_STREAM and GOAWAY (RFC 9113 7).
type H2Code uint32

// The codes.
const (
	H2NoError            H2Code = 0x0
	H2ProtocolError      H2Code = 0x1
	H2InternalError      H2Code = 0x2
	H2FlowControlError   H2Code = 0x3
	H2SettingsTimeout    H2Code = 0x4
	H2StreamClosed       H2Code = 0x5
	H2FrameSizeError     H2Code = 0x6
	H2RefusedStream      H2Code = 0x7
	H2Cancel             H2Code = 0x8
	H2CompressionError   H2Code = 0x9
	H2ConnectError       H2Code = 0xa
	H2EnhanceYourCalm    H2Code = 0xb
	H2InadequateSecurity H2Code = 0xc
	H2HTTP11Required     H2Code = 0xd
)

var h2CodeNames = [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
	"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR",
	"ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"}

func (c H2Code) String() string {
	if int(c) < len(h2CodeNames) {
		return h2CodeNames[c]
	}
	return "unknown"
}

// H2Error is a peer's breach of the framing. They are package-level values; compare them by identity.
type H2Error struct {
	Code   H2Code
	Stream bool // the stream's error: RST_STREAM; else the connection's: GOAWAY and its end
	Text   string
}

func (e *H2Error) Error() string { return e.Text }

// Errors of frames.
var (
	ErrH2Preface      = &H2Error{H2ProtocolError, false, "connection preface is malformed"}
	ErrH2FrameSize    = &H2Error{H2FrameSizeError, false, "frame has a length that its type or the settings forbid"}
	ErrH2StreamZero   = &H2Error{H2ProtocolError, false, "frame of a stream on stream 0"}
	ErrH2StreamSet    = &H2Error{H2ProtocolError, false, "frame of the connection on a stream"}
	ErrH2Push         = &H2Error{H2ProtocolError, false, "PUSH_PROMISE that nobody may send"}
	ErrH2Padding      = &H2Error{H2ProtocolError, false, "padding is longer than its frame"}
	ErrH2SelfDepend   = &H2Error{H2ProtocolError, true, "stream depends on itself"}
	ErrH2Setting      = &H2Error{H2ProtocolError, false, "setting is out of its range"}
	ErrH2WindowZero   = &H2Error{H2ProtocolError, false, "WINDOW_UPDATE of 0"}
	ErrH2Window       = &H2Error{H2FlowControlError, false, "connection's window beyond 2^31-1"}
	ErrH2WindowStream = &H2Error{H2FlowControlError, true, "stream's window beyond 2^31-1"}
	ErrH2FlowControl  = &H2Error{H2FlowControlError, false, "more DATA than the windows allow"}

	ErrH2Block        = &H2Error{H2ProtocolError, false, "header block is interrupted, or CONTINUATION continues none"}
	ErrH2StreamID     = &H2Error{H2ProtocolError, false, "client opens a stream of an even number"}
	ErrH2StreamIdle   = &H2Error{H2ProtocolError, false, "frame on a stream that was never opened"}
	ErrH2StreamClosed = &H2Error{H2StreamClosed, false, "header block on a closed stream"}
	ErrH2DataClosed   = &H2Error{H2StreamClosed, true, "DATA on a closed stream"}
	ErrH2HalfClosed   = &H2Error{H2StreamClosed, true, "message goes on behind its end"}
	ErrH2FlowStream   = &H2Error{H2FlowControlError, true, "more DATA than the stream's window allows"}
	ErrH2DataLength   = &H2Error{H2ProtocolError, true, "DATA is not as long as content-length says"}
	ErrH2Trailers     = &H2Error{H2ProtocolError, true, "trailers are malformed, too many, or do not end their stream"}

	ErrH2SettingWindow    = &H2Error{H2FlowControlError, false, "initial window beyond 2^31-1"}
	errH2WindowZeroStream = &H2Error{H2ProtocolError, true, "WINDOW_UPDATE of 0"}
	errH2SizeStream       = &H2Error{H2FrameSizeError, true, "frame has a length that its type forbids"}
)

// Errors of header blocks: the compression's state is lost, or not worth its keep, so they are the connection's.
var (
	ErrH2Compression = &H2Error{H2CompressionError, false, "header block cannot be decompressed"}
	ErrH2ListTooLong = &H2Error{H2EnhanceYourCalm, false, "header list far over its limit"}
)

// ErrH2Protocol is not malformed, and not served either.
var ErrH2Protocol = client(fastpath.KindUnsupported, ":protocol is HTTP itself")

// What is wrong with a request, a response or trailers as a list of fields: the message is malformed (RFC 9113 8.1.1). On
// a request the error is the client's, on a response the backend's.
var (
	ErrH2FieldName     = client(fastpath.KindMalformed, "field name is not a token in lower case")
	ErrH2FieldValue    = client(fastpath.KindMalformed, "field value has a control character or white space at an end")
	ErrH2ConnField     = client(fastpath.KindMalformed, "field of a connection in HTTP/2")
	ErrH2TE            = client(fastpath.KindMalformed, "te is not trailers")
	ErrH2Pseudo        = client(fastpath.KindMalformed, "pseudo-header is unknown or out of place")
	ErrH2PseudoTwice   = client(fastpath.KindMalformed, "pseudo-header comes twice")
	ErrH2PseudoLate    = client(fastpath.KindMalformed, "pseudo-header behind a field")
	ErrH2PseudoMissing = client(fastpath.KindMalformed, "pseudo-header is missing")
	ErrH2Method        = client(fastpath.KindMalformed, ":method is not a token")
	ErrH2Scheme        = client(fastpath.KindMalformed, ":scheme is neither http nor https")
	ErrH2Path          = client(fastpath.KindMalformed, ":path does not begin with a slash")
	ErrH2UserInfo      = client(fastpath.KindMalformed, "user information in :authority")
	ErrH2Authority     = client(fastpath.KindMalformed, ":authority is not what Host says")
	ErrH2Length        = client(fastpath.KindMalformed, "content-length is not the length of DATA")

	ErrH2ResponseStatus = backend(fastpath.KindMalformed, "answer's :status is missing or malformed")
	ErrH2ResponseFields = backend(fastpath.KindMalformed, "answer has a field that HTTP/2 forbids")
	ErrH2ResponseLength = backend(fastpath.KindMalformed, "answer's content-length is not the length of DATA")
	ErrH2ResponseEnd    = backend(fastpath.KindMalformed, "interim answer ends its stream")
	ErrH2ResponseList   = backend(fastpath.KindHeadTooLarge, "answer's header list over its limit")
)
