package wire

// FieldID names the header fields that the proxy itself reads, sets or removes. Filters compare IDs, never bytes.
type FieldID uint8

// The list is short on purpose: a field belongs here when code asks for it on a usual request.
const (
	FieldOther FieldID = iota
	FieldAccept
	FieldAcceptEncoding
	FieldAccessControlRequestMethod
	FieldAuthorization
	FieldConnection
	FieldContentEncoding
	FieldContentLength
	FieldContentType
	FieldCookie
	FieldDate
	FieldETag
	FieldExpect
	FieldForwarded
	FieldHost
	FieldHTTP2Settings
	FieldKeepAlive
	FieldLocation
	FieldOrigin
	FieldProxyConnection
	FieldReferer
	FieldSecWebSocketKey
	FieldSecWebSocketVersion
	FieldServer
	FieldSetCookie
	FieldStrictTransportSecurity
	FieldTE
	FieldTrailer
	FieldTransferEncoding
	FieldUpgrade
	FieldUserAgent
	FieldVary
	FieldXForwardedFor
	FieldXForwardedHost
	FieldXForwardedPort
	FieldXForwardedProto
	FieldXForwardedScheme
	FieldXOriginalForwardedFor
	FieldXRealIP
	FieldXRequestID
	FieldXScheme
)
