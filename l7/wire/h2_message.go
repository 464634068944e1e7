package wire

import "github.com/sluiceproxy/sluice/fastpath"

// This file makes of a decoded header list what HTTP/1.1's parsers make of a head: the same typed model, so that all
// that follows (routing, filters, either serialiser) knows no version.

var h2ClientFlaws = [h2FlawCount]*fastpath.Error{
	h2FlawName: ErrH2FieldName, h2FlawValue: ErrH2FieldValue, h2FlawConn: ErrH2ConnField, h2FlawTE: ErrH2TE,
	h2FlawPseudo: ErrH2Pseudo, h2FlawPseudoTwice: ErrH2PseudoTwice, h2FlawPseudoLate: ErrH2PseudoLate,
	h2FlawHost: ErrHosts, h2FlawLength: ErrH2Length,
}

// Request makes r of the list. end: the request has no body (END_STREAM). malformed tells that err is a breach of RFC 9113
// 8, to be answered by RST_STREAM with PROTOCOL_ERROR; any other err has a status. As with Parse, r is whole after
// ErrExpectation.
//
// An extended CONNECT (RFC 8441) becomes the GET with Upgrade that HTTP/1.1 would have sent, without its
// Sec-WebSocket-Key; r.Connect tells. A body of unknown length is chunked.
func (l *H2List) Request(r *Request, a *Arena, end bool) (malformed bool, err *fastpath.Error) {
	r.Reset()
	if l.flaw != h2FlawNone {
		return true, h2ClientFlaws[l.flaw]
	}
	if l.over() {
		return false, ErrHeadTooLarge
	}
	p := &l.pseudo
	r.Minor, r.KeepAlive = 1, true
	if err := l.checkPseudo(end); err != nil {
		return true, err
	}
	r.MethodText = p[h2Method]
	r.Method = MethodOf(r.MethodText)
	if l.has(h2Protocol) { // checkPseudo saw that it is a CONNECT, and the protocol well formed
		if isHTTP(protocolName(p[h2Protocol])) {
			return false, ErrH2Protocol
		}
		r.Connect, r.Upgrade = true, p[h2Protocol]
		r.Method, r.MethodText = MethodGet, methodNameBytes[MethodGet]
	} else if r.Method == MethodConnect {
		return false, ErrConnect
	}
	if err := l.checkSizes(); err != nil {
		return false, err
	}
	if malformed, err := l.finishTarget(r, a); err != nil {
		return malformed, err
	}
	l.finishFields(r, a)
	if err := l.finishBody(r, end); err != nil {
		return true, err
	}
	if r.Connect && r.WebSocket() && (l.state.versions != 1 || string(l.state.version) != "13") {
		return false, ErrWebSocketVersion
	}
	return false, r.finishExpect(&l.state)
}

// checkPseudo judges which pseudo-headers there are, and those that are never more than malformed (RFC 9113 8.3.1).
func (l *H2List) checkPseudo(end bool) *fastpath.Error {
	method := l.pseudo[h2Method]
	switch {
	case l.has(h2Status):
		return ErrH2Pseudo
	case !l.has(h2Method):
		return ErrH2PseudoMissing
	case !IsToken(method):
		return ErrH2Method
	}
	connect := MethodOf(method) == MethodConnect
	switch {
	case l.has(h2Protocol) && (!connect || end || protocolName(l.pseudo[h2Protocol]) == nil):
		return ErrH2Pseudo
	case connect && !l.has(h2Protocol): // RFC 9113 8.5
		if l.has(h2Scheme) || l.has(h2Path) {
			return ErrH2Pseudo
		}
		if !l.has(h2Authority) {
			return ErrH2PseudoMissing
		}
		return nil
	case !l.has(h2Scheme) || !l.has(h2Path):
		return ErrH2PseudoMissing
	}
	if scheme := l.pseudo[h2Scheme]; !equalFold(scheme, "http") && !equalFold(scheme, "https") {
		return ErrH2Scheme
	}
	return nil
}

// checkSizes holds the limits that a head of HTTP/1.1 has line by line.
func (l *H2List) checkSizes() *fastpath.Error {
	if len(l.pseudo[h2Method])+len(l.pseudo[h2Path])+len("  HTTP/2.0") > or(l.lim.RequestLine, RequestLineMax) {
		return ErrRequestLineTooLong
	}
	return l.checkLines()
}

func (l *H2List) checkLines() *fastpath.Error {
	most := or(l.lim.Line, LineMax)
	if l.size <= most {
		return nil
	}
	for i := range l.fields {
		if f := &l.fields[i]; len(f.Name)+len(f.Value)+len(": ") > most {
			return ErrLineTooLong
		}
	}
	return nil
}

// finishTarget takes path and authority.
func (l *H2List) finishTarget(r *Request, a *Arena) (malformed bool, err *fastpath.Error) {
	path, authority, host := l.pseudo[h2Path], l.pseudo[h2Authority], l.state.host
	switch {
	case len(path) == 1 && path[0] == '*' && r.Method == MethodOptions:
		r.Target, r.Path = pathAsterisk, pathAsterisk
	case len(path) == 0 || path[0] != '/':
		return true, ErrH2Path
	case indexBlank(path, 0) != len(path):
		return false, ErrTarget
	default:
		if err := r.setTarget(path, a, l.lim); err != nil {
			return false, err
		}
	}
	switch {
	case !l.has(h2Authority) && l.state.hosts == 0:
		return false, ErrNoHost
	case !l.has(h2Authority):
		authority = host
	case l.state.hosts > 0 && !EqualFold(authority, host):
		return true, ErrH2Authority
	}
	for _, c := range authority {
		if c == '@' {
			return true, ErrH2UserInfo
		}
	}
	return false, r.setAuthority(authority, a)
}

// finishFields gives the fields to r, and r's to the next list.
func (l *H2List) finishFields(r *Request, a *Arena) {
	r.TETrailers = l.state.trailer
	if l.cookie > 1 {
		l.joinCookies(a)
	}
	if l.odd {
		l.fields = dropOdd(l.fields, l.lim)
	}
	if !r.TETrailers {
		l.fields = Delete(l.fields, FieldTrailer)
	}
	r.Fields, l.fields = l.fields, r.Fields
}

// dropOdd removes the fields with an odd name that are not kept, and notes which ones are.
func dropOdd(fields []Field, lim *Limits) []Field {
	kept := fields[:0]
	for i := range fields {
		f := &fields[i]
		if f.Odd = f.ID == FieldOther && isOdd(f.Name); !f.Odd || lim.keeps(f.Name) {
			kept = append(kept, *f)
		}
	}
	return kept
}

// joinCookies makes one Cookie field of its crumbs (RFC 9113 8.2.3), at the first one's place. Empty ones say nothing.
func (l *H2List) joinCookies(a *Arena) {
	n := 0
	for i := range l.fields {
		if f := &l.fields[i]; f.ID == FieldCookie {
			n += len(f.Value) + len("; ")
		}
	}
	joined := a.Reserve(n)
	for i := range l.fields {
		if f := &l.fields[i]; f.ID == FieldCookie && len(f.Value) > 0 { // after an empty one the value would end in a space
			if len(joined) > 0 {
				joined = append(joined, "; "...)
			}
			joined = append(joined, f.Value...)
		}
	}
	l.fields = Set(l.fields, FieldCookie, a.Commit(joined))
}

func (l *H2List) finishBody(r *Request, end bool) *fastpath.Error {
	switch {
	case r.Connect && l.length >= 0:
		return ErrH2Length // its DATA is the tunnel's
	case r.Connect:
	case end && l.length > 0:
		return ErrH2Length
	case l.length >= 0:
		r.Framing, r.ContentLength = FramingLength, l.length
	case !end:
		r.Framing = FramingChunked
	}
	return nil
}

// Response makes r of the list of an answer's head. end: it has no body (END_STREAM). Every error is the backend's, for
// which the stream is reset.
func (l *H2List) Response(r *Response, requestMethod Method, end bool) *fastpath.Error {
	r.Reset()
	switch {
	case l.flaw == h2FlawLength:
		return ErrResponseContentLength
	case l.flaw != h2FlawNone:
		return ErrH2ResponseFields
	case l.over():
		return ErrH2ResponseList
	}
	if l.seen != 1<<h2Status {
		return ErrH2ResponseStatus
	}
	status := contentLength(l.pseudo[h2Status])
	if len(l.pseudo[h2Status]) != 3 || status < 100 || status > 599 || status == 101 {
		return ErrH2ResponseStatus
	}
	r.Status, r.Minor, r.KeepAlive, r.ContentLength = int(status), 1, true, l.length
	r.Fields, l.fields = l.fields, r.Fields
	switch {
	case r.Status < 200 && (end || l.length > 0):
		return ErrH2ResponseEnd
	case !BodyAllowed(r.Status, requestMethod):
	case end && l.length > 0:
		return ErrH2ResponseLength
	case end:
		r.Unsaid = l.length < 0
		r.Framing, r.ContentLength = FramingLength, 0
	case l.length >= 0:
		r.Framing = FramingLength
	default:
		r.Framing = FramingChunked
	}
	return nil
}

// Trailers gives the list as trailers: views of the arena, in an array that the next list uses again. ok is false when
// they are malformed or too many. Forbidden ones are among them: whoever sends them on drops those.
func (l *H2List) Trailers() (fields []Field, ok bool) {
	if l.flaw != h2FlawNone || l.pseudos() > 0 || l.size-h2EntryOverhead*l.count > TrailerBytesMax || l.count > TrailersMax {
		return nil, false
	}
	return l.fields, true
}
