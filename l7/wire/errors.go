package wire

import "github.com/sluiceproxy/sluice/fastpath"

func client(kind fastpath.Kind, text string) *fastpath.Error {
	return &fastpath.Error{Fault: fastpath.FaultClient, Kind: kind, Text: text}
}

func backend(kind fastpath.Kind, text string) *fastpath.Error {
	return &fastpath.Error{Fault: fastpath.FaultBackend, Kind: kind, Text: text}
}

// ErrSerialise: a message that an earlier stage should never have built; nothing of it was written.
var ErrSerialise = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindInternal, Text: "message breaks the serialiser's assertions"}

// Errors of a request's head as bytes: RequestHeadEnd and Request.Parse.
var (
	ErrNotHTTP            = client(fastpath.KindMalformed, "first byte cannot begin a request")
	ErrEmptyLines         = client(fastpath.KindMalformed, "more than two empty lines before the request line")
	ErrBareLF             = client(fastpath.KindMalformed, "line feed without carriage return")
	ErrBareCR             = client(fastpath.KindMalformed, "carriage return without line feed")
	ErrNUL                = client(fastpath.KindMalformed, "NUL in the head")
	ErrRequestLine        = client(fastpath.KindMalformed, "request line is not method, target, version")
	ErrRequestLineTooLong = client(fastpath.KindURITooLong, "request line over its limit")
	ErrNoVersion          = client(fastpath.KindMalformed, "request line without a version")
	ErrVersion            = client(fastpath.KindVersion, "HTTP version is neither 1.0 nor 1.1")
	ErrHeadTooLarge       = client(fastpath.KindHeadTooLarge, "head over its limit")
	ErrLineTooLong        = client(fastpath.KindHeadTooLarge, "field line over its limit")
	ErrTooManyFields      = client(fastpath.KindHeadTooLarge, "more fields than allowed")
	ErrFieldFolded        = client(fastpath.KindMalformed, "field line begins with white space")
	ErrFieldName          = client(fastpath.KindMalformed, "field name is not a token")
	ErrFieldNameEmpty     = client(fastpath.KindMalformed, "field name is empty")
	ErrFieldNameBlank     = client(fastpath.KindMalformed, "white space between field name and colon")
	ErrFieldColon         = client(fastpath.KindMalformed, "field line without a colon")
	ErrFieldValue         = client(fastpath.KindMalformed, "control character in a field value")
	ErrHeadEnd            = client(fastpath.KindMalformed, "head does not end with one empty line")
)

// Errors of a request's target.
var (
	ErrTarget        = client(fastpath.KindMalformed, "target has a byte that no target may have")
	ErrTargetForm    = client(fastpath.KindMalformed, "target is of no form that its method allows")
	ErrConnect       = client(fastpath.KindMethod, "CONNECT is not served")
	ErrAuthorityForm = client(fastpath.KindMethod, "authority-form is for CONNECT only")
	ErrPathBackslash = client(fastpath.KindMalformed, "backslash in the path")
	ErrPathEscape    = client(fastpath.KindMalformed, "bad percent-encoding in the path")
	ErrPathNUL       = client(fastpath.KindMalformed, "encoded NUL in the path")
	ErrPathOverlong  = client(fastpath.KindMalformed, "overlong UTF-8 in the path")
	ErrPathAboveRoot = client(fastpath.KindMalformed, "path leads above the root")
	ErrEncodedSlash  = client(fastpath.KindMalformed, "encoded slash in the path")
)

// Errors of a request's fields that the proxy itself understands.
var (
	ErrNoHost                 = client(fastpath.KindMalformed, "HTTP/1.1 without Host")
	ErrHosts                  = client(fastpath.KindMalformed, "more than one Host")
	ErrHost                   = client(fastpath.KindMalformed, "Host or authority is not host[:port]")
	ErrContentLength          = client(fastpath.KindMalformed, "Content-Length is not a number in range")
	ErrContentLengths         = client(fastpath.KindMalformed, "more than one Content-Length")
	ErrContentLengthAndTE     = client(fastpath.KindMalformed, "Content-Length and Transfer-Encoding")
	ErrTransferEncoding       = client(fastpath.KindMalformed, "Transfer-Encoding is not one chunked")
	ErrTransferEncodings      = client(fastpath.KindMalformed, "more than one Transfer-Encoding")
	ErrTransferEncodingIn10   = client(fastpath.KindMalformed, "Transfer-Encoding in HTTP/1.0")
	ErrTransferCoding         = client(fastpath.KindUnsupported, "Transfer-Encoding has a coding that is not served")
	ErrConnectionOptions      = client(fastpath.KindMalformed, "Connection lists too many names")
	ErrExpectation            = client(fastpath.KindExpectation, "Expect is not 100-continue")
	ErrWebSocketMethod        = client(fastpath.KindMalformed, "WebSocket handshake is not a GET")
	ErrWebSocketKey           = client(fastpath.KindMalformed, "Sec-WebSocket-Key is not one base64 of 16 bytes")
	ErrWebSocketVersion       = client(fastpath.KindUpgrade, "Sec-WebSocket-Version is not 13")
	ErrForwarded              = client(fastpath.KindMalformed, "Forwarded is not a list of elements")
	errRequestHeadUnspecified = client(fastpath.KindMalformed, "head is malformed")
)

// Errors of a response's head.
var (
	ErrResponseLine             = backend(fastpath.KindMalformed, "answer does not begin with an HTTP/1 status line")
	ErrResponseStatus           = backend(fastpath.KindMalformed, "answer's status is not 100 to 599")
	ErrResponseHeadTooLarge     = backend(fastpath.KindHeadTooLarge, "answer's head over its limit")
	ErrResponseLineTooLong      = backend(fastpath.KindHeadTooLarge, "answer's field line over its limit")
	ErrResponseFields           = backend(fastpath.KindHeadTooLarge, "answer has more fields than allowed")
	ErrResponseBareLF           = backend(fastpath.KindMalformed, "answer has a line feed without carriage return")
	ErrResponseBareCR           = backend(fastpath.KindMalformed, "answer has a carriage return without line feed")
	ErrResponseNUL              = backend(fastpath.KindMalformed, "answer has a NUL in its head")
	ErrResponseFieldName        = backend(fastpath.KindMalformed, "answer has a field name that is not a token")
	ErrResponseFieldFolded      = backend(fastpath.KindMalformed, "answer has a folded field")
	ErrResponseFieldValue       = backend(fastpath.KindMalformed, "answer has a control character in a field value")
	ErrResponseHeadEnd          = backend(fastpath.KindMalformed, "answer's head does not end with one empty line")
	ErrResponseContentLength    = backend(fastpath.KindMalformed, "answer's Content-Length is not one number in range")
	ErrResponseLengthAndTE      = backend(fastpath.KindMalformed, "answer has Content-Length and Transfer-Encoding")
	ErrResponseTransferEncoding = backend(fastpath.KindMalformed, "answer's Transfer-Encoding is not one chunked")
	ErrResponseConnection       = backend(fastpath.KindMalformed, "answer's Connection lists too many names")
)

// Errors of a client's chunked body.
var (
	ErrChunkSize       = client(fastpath.KindMalformed, "chunk size is not a hexadecimal number in range")
	ErrChunkLine       = client(fastpath.KindMalformed, "chunk line does not end with CRLF")
	ErrChunkExtension  = client(fastpath.KindMalformed, "control character in a chunk extension")
	ErrChunkExtensions = client(fastpath.KindMalformed, "chunk extensions over their limit")
	ErrChunkEnd        = client(fastpath.KindMalformed, "chunk data is not followed by CRLF")
	ErrTrailer         = client(fastpath.KindMalformed, "trailer is not a field line")
	ErrTrailers        = client(fastpath.KindMalformed, "trailers over their limit")
)

// The same of a backend's.
var (
	ErrResponseChunkSize       = backend(fastpath.KindMalformed, "answer's chunk size is not a hexadecimal number in range")
	ErrResponseChunkLine       = backend(fastpath.KindMalformed, "answer's chunk line does not end with CRLF")
	ErrResponseChunkExtension  = backend(fastpath.KindMalformed, "answer has a control character in a chunk extension")
	ErrResponseChunkExtensions = backend(fastpath.KindMalformed, "answer's chunk extensions over their limit")
	ErrResponseChunkEnd        = backend(fastpath.KindMalformed, "answer's chunk data is not followed by CRLF")
	ErrResponseTrailer         = backend(fastpath.KindMalformed, "answer's trailer is not a field line")
	ErrResponseTrailers        = backend(fastpath.KindMalformed, "answer's trailers over their limit")
)

// A flaw is what is wrong with bytes that requests and responses share; the tables below say whose error it is.
type flaw uint8

const (
	flawNone flaw = iota
	flawStart
	flawBareLF
	flawBareCR
	flawNUL
	flawFirstLine
	flawLine
	flawHead
	flawNoVersion
	flawFolded
	flawName
	flawNameEmpty
	flawNameBlank
	flawColon
	flawValue
	flawOptions
	flawChunkSize
	flawChunkLine
	flawChunkExtension
	flawChunkExtensions
	flawChunkEnd
	flawTrailer
	flawTrailers
	flawUnknown
	flawCount
)

var clientFlaws = [flawCount]*fastpath.Error{
	flawStart: ErrNotHTTP, flawBareLF: ErrBareLF, flawBareCR: ErrBareCR, flawNUL: ErrNUL,
	flawFirstLine: ErrRequestLineTooLong, flawLine: ErrLineTooLong, flawHead: ErrHeadTooLarge, flawNoVersion: ErrNoVersion,
	flawFolded: ErrFieldFolded, flawName: ErrFieldName, flawNameEmpty: ErrFieldNameEmpty, flawNameBlank: ErrFieldNameBlank,
	flawColon: ErrFieldColon, flawValue: ErrFieldValue, flawOptions: ErrConnectionOptions,
	flawChunkSize: ErrChunkSize, flawChunkLine: ErrChunkLine, flawChunkExtension: ErrChunkExtension,
	flawChunkExtensions: ErrChunkExtensions, flawChunkEnd: ErrChunkEnd, flawTrailer: ErrTrailer, flawTrailers: ErrTrailers,
	flawUnknown: errRequestHeadUnspecified,
}

var backendFlaws = [flawCount]*fastpath.Error{
	flawStart: ErrResponseLine, flawBareLF: ErrResponseBareLF, flawBareCR: ErrResponseBareCR, flawNUL: ErrResponseNUL,
	flawFirstLine: ErrResponseLineTooLong, flawLine: ErrResponseLineTooLong, flawHead: ErrResponseHeadTooLarge,
	flawNoVersion: ErrResponseLine, flawFolded: ErrResponseFieldFolded, flawName: ErrResponseFieldName,
	flawNameEmpty: ErrResponseFieldName, flawNameBlank: ErrResponseFieldName, flawColon: ErrResponseFieldName,
	flawValue: ErrResponseFieldValue, flawOptions: ErrResponseConnection,
	flawChunkSize: ErrResponseChunkSize, flawChunkLine: ErrResponseChunkLine, flawChunkExtension: ErrResponseChunkExtension,
	flawChunkExtensions: ErrResponseChunkExtensions, flawChunkEnd: ErrResponseChunkEnd, flawTrailer: ErrResponseTrailer,
	flawTrailers: ErrResponseTrailers, flawUnknown: ErrResponseHeadEnd,
}
