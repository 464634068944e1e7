package wire

// FieldID names the header fields that the proxy itself reads, sets or removes. Filters compare IDs, never bytes.
type FieldID uint8

// The list is short on purpose: a field belongs here when code asks for it on a usual request.
const (
	FieldOther FieldID = iota
	FieldAccept
	FieldAcceptEncoding
	FieldAccessControlAllowCredentials
	FieldAccessControlAllowHeaders
	FieldAccessControlAllowMethods
	FieldAccessControlAllowOrigin
	FieldAccessControlExposeHeaders
	FieldAccessControlMaxAge
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
	FieldXOriginalForwardedHost
	FieldXRealIP
	FieldXRequestID
	FieldXScheme
	fieldCount
)

const _ = uint(64 - fieldCount) // sets of IDs are words of 64 bits

// fieldNames are the canonical spellings, by ID.
var fieldNames = [fieldCount]string{
	FieldAccept:                        "Accept",
	FieldAcceptEncoding:                "Accept-Encoding",
	FieldAccessControlAllowCredentials: "Access-Control-Allow-Credentials",
	FieldAccessControlAllowHeaders:     "Access-Control-Allow-Headers",
	FieldAccessControlAllowMethods:     "Access-Control-Allow-Methods",
	FieldAccessControlAllowOrigin:      "Access-Control-Allow-Origin",
	FieldAccessControlExposeHeaders:    "Access-Control-Expose-Headers",
	FieldAccessControlMaxAge:           "Access-Control-Max-Age",
	FieldAccessControlRequestMethod:    "Access-Control-Request-Method",
	FieldAuthorization:                 "Authorization",
	FieldConnection:                    "Connection",
	FieldContentEncoding:               "Content-Encoding",
	FieldContentLength:                 "Content-Length",
	FieldContentType:                   "Content-Type",
	FieldCookie:                        "Cookie",
	FieldDate:                          "Date",
	FieldETag:                          "ETag",
	FieldExpect:                        "Expect",
	FieldForwarded:                     "Forwarded",
	FieldHost:                          "Host",
	FieldHTTP2Settings:                 "HTTP2-Settings",
	FieldKeepAlive:                     "Keep-Alive",
	FieldLocation:                      "Location",
	FieldOrigin:                        "Origin",
	FieldProxyConnection:               "Proxy-Connection",
	FieldReferer:                       "Referer",
	FieldSecWebSocketKey:               "Sec-WebSocket-Key",
	FieldSecWebSocketVersion:           "Sec-WebSocket-Version",
	FieldServer:                        "Server",
	FieldSetCookie:                     "Set-Cookie",
	FieldStrictTransportSecurity:       "Strict-Transport-Security",
	FieldTE:                            "TE",
	FieldTrailer:                       "Trailer",
	FieldTransferEncoding:              "Transfer-Encoding",
	FieldUpgrade:                       "Upgrade",
	FieldUserAgent:                     "User-Agent",
	FieldVary:                          "Vary",
	FieldXForwardedFor:                 "X-Forwarded-For",
	FieldXForwardedHost:                "X-Forwarded-Host",
	FieldXForwardedPort:                "X-Forwarded-Port",
	FieldXForwardedProto:               "X-Forwarded-Proto",
	FieldXForwardedScheme:              "X-Forwarded-Scheme",
	FieldXOriginalForwardedFor:         "X-Original-Forwarded-For",
	FieldXOriginalForwardedHost:        "X-Original-Forwarded-Host",
	FieldXRealIP:                       "X-Real-IP",
	FieldXRequestID:                    "X-Request-ID",
	FieldXScheme:                       "X-Scheme",
}

// What a parser does with a field that has an ID.
const (
	useKeep  uint8 = iota
	useNote        // goes to Fields, and the parser looks at it
	useTyped       // never in Fields: hop by hop, framing, or a typed member
)

var fieldUse = [fieldCount]uint8{
	FieldConnection:          useTyped,
	FieldContentLength:       useTyped,
	FieldExpect:              useTyped,
	FieldHost:                useTyped,
	FieldHTTP2Settings:       useTyped,
	FieldKeepAlive:           useTyped,
	FieldProxyConnection:     useTyped,
	FieldTE:                  useTyped,
	FieldTransferEncoding:    useTyped,
	FieldUpgrade:             useTyped,
	FieldTrailer:             useNote,
	FieldSecWebSocketKey:     useNote,
	FieldSecWebSocketVersion: useNote,
}

// Name is the canonical spelling; empty for FieldOther.
func (id FieldID) Name() string { return fieldNames[id] }

// HopByHop tells whether the field never passes the proxy as a field: framing, connection control and Host, which the
// serialiser writes from typed members.
func (id FieldID) HopByHop() bool { return fieldUse[id] == useTyped }

// fieldHash is a perfect hash of fieldNames: each name alone in its slot. Its two factors are searched at start (a few
// microseconds), so that adding a field is adding two lines above.
var fieldHash = newFieldTable()

type fieldTable struct {
	slots [256]FieldID
	first uint8
	last  uint8
}

func newFieldTable() fieldTable {
	for seed := 1; seed < 1<<16; seed += 2 {
		t := fieldTable{first: uint8(seed), last: uint8(seed >> 8)}
		if t.fill() {
			return t
		}
	}
	panic("wire: field names have no perfect hash; widen the table")
}

func (t *fieldTable) fill() bool {
	for id := FieldOther + 1; id < fieldCount; id++ {
		name := fieldNames[id]
		slot := &t.slots[t.hash(len(name), name[0], name[len(name)-2])]
		if *slot != FieldOther {
			return false
		}
		*slot = id
	}
	return true
}

// hash looks at what tells the names apart: length, first and last but one letter, whatever their case.
func (t *fieldTable) hash(n int, first, last byte) uint8 {
	return uint8(n) + (first|0x20)*t.first + (last|0x20)*t.last
}

// IDOf gives a field name's ID, whatever its case.
func IDOf(name []byte) FieldID {
	n := len(name)
	if n < 2 {
		return FieldOther
	}
	id := fieldHash.slots[fieldHash.hash(n, name[0], name[n-2])]
	canonical := fieldNames[id]
	if len(canonical) != n {
		return FieldOther
	}
	if string(name) == canonical {
		return id
	}
	for i := range n {
		if lower[name[i]] != lower[canonical[i]] {
			return FieldOther
		}
	}
	return id
}

// Reserved tells whether a name is, or with each character that is no letter or digit read as "-" would be (CGI-like
// applications read them all as one), a name that the proxy or those behind it act upon: every name with an ID and the
// families that a proxy sets. Such a name is not dropped on a client's wish (Connection), not taken from one with such
// characters in it, and not taken from trailers.
func Reserved(name []byte) bool {
	var dashed [40]byte
	n := copy(dashed[:], name)
	for i, c := range dashed[:n] {
		if chars[c]&charOdd != 0 {
			dashed[i] = '-'
		}
	}
	if n == len(name) && IDOf(dashed[:n]) != FieldOther {
		return true
	}
	return forwarding(dashed[:n]) || hasPrefixFold(dashed[:n], "ssl-client-")
}

// Forwarding tells whether a name, likewise, is of the families by which proxies tell of a request that they pass on, or Proxy,
// which CGI-like applications take for a setting of theirs.
func Forwarding(name []byte) bool {
	var dashed [12]byte // as long as what is compared
	n := copy(dashed[:], name)
	for i, c := range dashed[:n] {
		if chars[c]&charOdd != 0 {
			dashed[i] = '-'
		}
	}
	return forwarding(dashed[:n]) || equalFold(name, "proxy")
}

func forwarding(dashed []byte) bool {
	return hasPrefixFold(dashed, "x-forwarded-") || hasPrefixFold(dashed, "x-original-")
}

// NewField makes a field of a known name.
func NewField(id FieldID, value []byte) Field {
	return Field{Name: fieldNameBytes[id], Value: value, ID: id}
}

var fieldNameBytes = func() (t [fieldCount][]byte) {
	for id, name := range fieldNames {
		t[id] = []byte(name)
	}
	return t
}()

// Index finds the first field of that ID, else -1.
func Index(fields []Field, id FieldID) int {
	for i := range fields {
		if fields[i].ID == id {
			return i
		}
	}
	return -1
}

// Get gives the value of the first field of that ID; nil when there is none (an empty value is not nil).
func Get(fields []Field, id FieldID) []byte {
	if i := Index(fields, id); i >= 0 {
		return fields[i].Value
	}
	return nil
}

// GetName is Get by name, whatever its case; for names without an ID.
func GetName(fields []Field, name string) []byte {
	for i := range fields {
		if f := &fields[i]; len(f.Name) == len(name) && sameFold(f.Name, name) {
			return f.Value
		}
	}
	return nil
}

// Set makes value the only one of that ID.
func Set(fields []Field, id FieldID, value []byte) []Field {
	i := Index(fields, id)
	if i < 0 {
		return append(fields, NewField(id, value))
	}
	fields[i].Value = value
	return append(fields[:i+1], Delete(fields[i+1:], id)...)
}

// Delete removes all fields of that ID, in place.
func Delete(fields []Field, id FieldID) []Field {
	kept := fields[:0]
	for i := range fields {
		if fields[i].ID != id {
			kept = append(kept, fields[i])
		}
	}
	return kept
}

// Is is Named for a text.
func (f *Field) Is(name string) bool { return reads(f.Name, name, f.Odd) }

// Named tells whether the field, which has no ID, goes by that name, whatever its case. An odd one also goes by the names
// that an application reads as its own (see Reserved): whoever sets or removes a field does not leave its twin beside it.
func (f *Field) Named(name []byte) bool { return reads(f.Name, name, f.Odd) }

// reads tells whether a reads as b, whatever the case and, if odd, whatever stands for "-".
func reads[T string | []byte](a []byte, b T, odd bool) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if d := b[i]; lower[c] != lower[d] && !(odd && isDash(c) && isDash(d)) {
			return false
		}
	}
	return true
}

// isDash tells the characters that are read as "-".
func isDash(c byte) bool { return c == '-' || chars[c]&charOdd != 0 }

// DeleteName removes all fields that go by that name, in place.
func DeleteName(fields []Field, name string) []Field {
	kept := fields[:0]
	for i := range fields {
		if f := &fields[i]; !reads(f.Name, name, f.Odd) {
			kept = append(kept, *f)
		}
	}
	return kept
}

// sameFold is EqualFold with a string of the same length.
func sameFold(b []byte, text string) bool {
	for i, c := range b {
		if lower[c] != lower[text[i]] {
			return false
		}
	}
	return true
}
