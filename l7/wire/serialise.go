package wire

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"

	"github.com/sluiceproxy/sluice/fastpath"
)

// RequestOptions are what a client-side connection adds to a request.
type RequestOptions struct {
	Close     bool // send Connection: close; an upgrade keeps its Connection: Upgrade instead
	KeepAlive bool // send Connection: keep-alive, which says nothing that HTTP/1.1 does not, but some backends ask for it
	HTTP10    bool // an HTTP/1.0 request: Close holds, trailers are not offered, chunks and an upgrade are ErrSerialise
}

// ResponseOptions are what a server-side connection adds to an answer.
type ResponseOptions struct {
	KeepAlive   bool  // the connection lives on; else Connection: close is sent
	ClientMinor uint8 // the client's HTTP/1.Minor; the answer's line says HTTP/1.1 whatever it is
	Head        bool  // the answer to a HEAD request: it may lack any framing
	Trailers    bool  // trailers follow the body: the Trailer field is sent
}

// AppendRequest appends r canonically: request line, Host, r.Fields in their order without those that are hop by hop or
// framing (which never should be there), then framing and connection control from the typed members. It asserts that
// names are tokens, that nothing holds a control character, and that there is one framing; when an assertion fails it
// answers ErrSerialise and dst as it was. An r that no parser made needs Method or MethodText, Target and Authority.
func AppendRequest(dst []byte, r *Request, o RequestOptions) ([]byte, *fastpath.Error) {
	method := r.MethodText
	if r.Method != MethodOther {
		method = methodNameBytes[r.Method]
	}
	if !IsToken(method) || r.Method == MethodConnect || !sendableTarget(r) || !sendableAuthority(r.Authority) {
		return dst, ErrSerialise
	}
	if r.Upgrade != nil && protocolName(r.Upgrade) == nil {
		return dst, ErrSerialise
	}
	trailers, minor := r.TETrailers, 1
	if o.HTTP10 {
		if r.Framing == FramingChunked || r.Upgrade != nil {
			return dst, ErrSerialise
		}
		trailers, minor, o.Close = false, 0, true
	}
	out := slices.Grow(dst, len(method)+len(r.Target)+len(r.Authority)+len(r.Upgrade)+fieldsSize(r.Fields)+requestFixed)
	out = append(out, method...)
	out = append(out, ' ')
	out = append(out, r.Target...)
	out = append(out, requestVersions[minor]...)
	out = append(out, r.Authority...)
	out = append(out, "\r\n"...)
	out, ok := appendFields(out, r.Fields, trailers)
	if ok {
		out, ok = appendFraming(out, r.Framing, r.ContentLength)
	}
	if !ok || r.Framing == FramingClose {
		return dst, ErrSerialise
	}
	if o.Close || o.KeepAlive || trailers || r.Upgrade != nil {
		out = appendRequestOptions(out, r.Upgrade, trailers, o)
	}
	return append(out, "\r\n"...), nil
}

// AppendResponse appends r canonically: an HTTP/1.1 status line with the usual reason, r.Fields as AppendRequest does,
// then framing and connection control. Date and Server are fields like any other: the caller sets them. A 1xx has no
// framing and no connection control, a 101 announces r.Upgrade. Asserted beside what AppendRequest asserts: a body's end
// that this client can see.
func AppendResponse(dst []byte, r *Response, o ResponseOptions) ([]byte, *fastpath.Error) {
	if !sendableResponse(r, o) {
		return dst, ErrSerialise
	}
	line := statusLines[r.Status-100]
	out := slices.Grow(dst, len(line)+len(r.Upgrade)+fieldsSize(r.Fields)+responseFixed)
	out = append(out, line...)
	out, ok := appendFields(out, r.Fields, o.Trailers)
	if !ok {
		return dst, ErrSerialise
	}
	switch {
	case r.Status == 101:
		out = appendUpgrade(append(out, "Connection: Upgrade\r\n"...), r.Upgrade)
	case r.Status >= 200:
		if out, ok = appendResponseFraming(out, r); !ok {
			return dst, ErrSerialise
		}
		if !o.KeepAlive {
			out = append(out, "Connection: close\r\n"...)
		} else if o.ClientMinor == 0 {
			out = append(out, "Connection: keep-alive\r\n"...)
		}
	}
	return append(out, "\r\n"...), nil
}

// requestVersions are what stands between a request's target and its Host, by HTTP/1's minor version.
var requestVersions = [2]string{" HTTP/1.0\r\nHost: ", " HTTP/1.1\r\nHost: "}

// Bytes of a head that do not depend on the message: blanks, version, Host, the longest framing and connection control.
const (
	requestFixed  = 160
	responseFixed = 128
)

var methodNameBytes = func() (t [methodCount][]byte) {
	for m, name := range methodNames {
		t[m] = []byte(name)
	}
	return t
}()

// statusLines are "HTTP/1.1 200 OK\r\n" and so on, by status less 100.
var statusLines = func() (t [500][]byte) {
	for i := range t {
		status := 100 + i
		t[i] = []byte("HTTP/1.1 " + strconv.Itoa(status) + " " + http.StatusText(status) + "\r\n")
	}
	return t
}()

// StatusText is the canonical reason of a status from 100 to 599; empty where none is registered.
func StatusText(status int) string {
	if status < 100 || status > 599 {
		return ""
	}
	return http.StatusText(status)
}

// sendableTarget accepts origin-form, and "*" for OPTIONS.
func sendableTarget(r *Request) bool {
	t := r.Target
	if len(t) == 0 || indexBlank(t, 0) != len(t) {
		return false
	}
	return t[0] == '/' || len(t) == 1 && t[0] == '*' && r.Method == MethodOptions
}

// sendableAuthority accepts what ParseAuthority accepts, and nothing at all: what an HTTP/1.0 client sent.
func sendableAuthority(a []byte) bool {
	if len(a) == 0 {
		return true
	}
	_, _, err := ParseAuthority(a)
	return err == nil
}

func sendableResponse(r *Response, o ResponseOptions) bool {
	switch {
	case r.Status < 100 || r.Status > 599:
		return false
	case r.Status == 101:
		return r.Framing == FramingNone && protocolName(r.Upgrade) != nil
	case r.Upgrade != nil:
		return false
	}
	switch r.Framing {
	case FramingChunked:
		return o.ClientMinor > 0 && !o.Head && BodyAllowed(r.Status, MethodOther)
	case FramingClose:
		return !o.KeepAlive && !o.Head && BodyAllowed(r.Status, MethodOther)
	case FramingLength:
		return !o.Head && BodyAllowed(r.Status, MethodOther)
	}
	return o.Head || !BodyAllowed(r.Status, MethodOther)
}

// fieldsSize is room enough for all fields.
func fieldsSize(fields []Field) int {
	n := 0
	for i := range fields {
		n += len(fields[i].Name) + len(fields[i].Value) + len(": \r\n")
	}
	return n
}

// passing tells whether a field is sent at all, and as what. One without an ID is looked up, so that a filter that forgot
// the ID cannot bring in a second framing.
func passing(f *Field, trailer bool) (id FieldID, passes bool) {
	id = f.ID
	if id == FieldOther && len(f.Name) > 0 && hopLetters>>(f.Name[0]&31)&1 != 0 {
		id = IDOf(f.Name)
	}
	return id, !id.HopByHop() && (id != FieldTrailer || trailer)
}

// appendFields appends the fields that may pass, into room that fieldsSize made; ok is false when one breaks an assertion.
func appendFields(dst []byte, fields []Field, trailer bool) (_ []byte, ok bool) {
	for i := range fields {
		f := &fields[i]
		if _, passes := passing(f, trailer); !passes {
			continue
		}
		if !sendableField(f) {
			return dst, false
		}
		dst = appendField(dst, f.Name, f.Value)
	}
	return dst, true
}

// hopLetters has a bit for each first letter of the names that never pass: for others there is nothing to look up.
var hopLetters = func() (set uint32) {
	for id, name := range fieldNames {
		if id := FieldID(id); id.HopByHop() || id == FieldTrailer {
			set |= 1 << (name[0] & 31)
		}
	}
	return set
}()

// sendableField need not look at the letters of a name that NewField gave: equal slices of the same array are equal.
func sendableField(f *Field) bool {
	return (f.ID != FieldOther && bytes.Equal(f.Name, fieldNameBytes[f.ID]) || IsToken(f.Name)) && ValidValue(f.Value)
}

// appendField appends one line; dst has the room.
func appendField(dst, name, value []byte) []byte {
	start := len(dst)
	dst = dst[:start+len(name)+len(value)+4]
	line := dst[start:]
	n := copy(line, name)
	line[n], line[n+1] = ':', ' '
	n += 2
	n += copy(line[n:], value)
	line[n], line[n+1] = '\r', '\n'
	return dst
}

func appendFraming(dst []byte, f Framing, length int64) ([]byte, bool) {
	switch f {
	case FramingLength:
		if length < 0 {
			return dst, false
		}
		return appendLength(dst, length), true
	case FramingChunked:
		return append(dst, "Transfer-Encoding: chunked\r\n"...), true
	}
	return dst, f == FramingNone || f == FramingClose
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, "\r\n"...)
}

// appendResponseFraming also tells the length that a HEAD's or a 304's answer would have had; a 204 has none.
func appendResponseFraming(dst []byte, r *Response) ([]byte, bool) {
	if r.Framing == FramingNone {
		if r.ContentLength >= 0 && r.Status != 204 {
			dst = appendLength(dst, r.ContentLength)
		}
		return dst, true
	}
	return appendFraming(dst, r.Framing, r.ContentLength)
}

// appendRequestOptions appends TE, Upgrade and the Connection field that names them (RFC 9110 7.6.1).
func appendRequestOptions(dst, upgrade []byte, trailers bool, o RequestOptions) []byte {
	switch {
	case upgrade != nil && trailers:
		dst = append(dst, "Connection: Upgrade, TE\r\n"...)
	case upgrade != nil:
		dst = append(dst, "Connection: Upgrade\r\n"...)
	case o.Close && trailers:
		dst = append(dst, "Connection: close, TE\r\n"...)
	case o.Close:
		dst = append(dst, "Connection: close\r\n"...)
	case o.KeepAlive && trailers:
		dst = append(dst, "Connection: keep-alive, TE\r\n"...)
	case o.KeepAlive:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	default:
		dst = append(dst, "Connection: TE\r\n"...)
	}
	if trailers {
		dst = append(dst, "TE: trailers\r\n"...)
	}
	if upgrade != nil {
		dst = appendUpgrade(dst, upgrade)
	}
	return dst
}

func appendUpgrade(dst, protocol []byte) []byte {
	dst = append(dst, "Upgrade: "...)
	dst = append(dst, protocol...)
	return append(dst, "\r\n"...)
}
