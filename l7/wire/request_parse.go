package wire

import "github.com/sluiceproxy/sluice/fastpath"

// Parse parses a head that RequestHeadEnd delimited and that the caller copied into the arena: every member of r is a view
// of head, or of what normalising added to the arena. A nil lim means the defaults. Nothing of an earlier request is
// left in r. After an error r is half filled, except after ErrExpectation: then r is whole, so that the engine can pass
// over the body and keep the connection.
func (r *Request) Parse(head []byte, arena *Arena, lim *Limits) *fastpath.Error {
	r.Reset()
	if lim == nil {
		lim = &DefaultLimits
	}
	next, err := r.parseLine(head, arena, lim)
	if err != nil {
		return err
	}
	s := requestState{length: -1}
	s.options.listed = r.Listed
	err = r.parseFields(head, next, lim, &s)
	r.Listed = s.options.listed
	if err != nil {
		return err
	}
	if err := r.finishHost(arena, &s); err != nil {
		return err
	}
	if err := r.finishFraming(&s); err != nil {
		return err
	}
	r.finishFields(&s, lim)
	if err := r.finishUpgrade(&s); err != nil {
		return err
	}
	return r.finishExpect(&s)
}

// requestState is what the fields leave to be judged once all are known.
type requestState struct {
	host, transferEncoding, upgrade, key, version []byte

	length   int64
	options  options
	hosts    uint8 // these count up to 2, which says "too many" as well as any other number
	upgrades uint8
	keys     uint8
	versions uint8

	trailer, expect, unexpected bool
}

// parseLine parses the request line and gives the offset of the first field line.
func (r *Request) parseLine(head []byte, a *Arena, lim *Limits) (next int, err *fastpath.Error) {
	i := 0
	for i < len(head) && chars[head[i]]&charToken != 0 {
		i++
	}
	if i == 0 || i == len(head) || head[i] != ' ' {
		return 0, ErrRequestLine
	}
	r.MethodText = head[:i:i]
	r.Method = MethodOf(r.MethodText)
	start := i + 1
	end := indexBlank(head, start)
	if end == start || end == len(head) {
		return 0, ErrRequestLine
	}
	if head[end] != ' ' {
		return 0, notBlank(head[end])
	}
	rest := head[end+1:]
	if len(rest) < 10 || rest[8] != '\r' || rest[9] != '\n' {
		return 0, ErrRequestLine
	}
	if string(rest[:7]) != statusPrefix || rest[7]>>1 != '0'>>1 {
		return 0, versionError(rest[:8])
	}
	r.Minor = rest[7] - '0'
	return end + 11, r.parseTarget(head[start:end:end], a, lim)
}

// notBlank says what the control character at a target's end means.
func notBlank(c byte) *fastpath.Error {
	if c == '\r' || c == '\n' {
		return ErrNoVersion
	}
	return ErrTarget
}

// versionError tells a version that we do not speak from bytes that are none. HTTP/0.9 had no version in its request line.
func versionError(v []byte) *fastpath.Error {
	if string(v[:5]) != "HTTP/" || v[6] != '.' || unhex[v[5]] > 9 || unhex[v[7]] > 9 || v[5] == '0' {
		return ErrRequestLine
	}
	return ErrVersion
}

// parseFields reads all field lines.
func (r *Request) parseFields(head []byte, next int, lim *Limits, s *requestState) *fastpath.Error {
	most := or(lim.Fields, FieldsMax)
	for count := 0; next < len(head) && head[next] != '\r'; count++ {
		if count == most {
			return ErrTooManyFields
		}
		nameEnd, start, end, after, class, flaw := fieldLine(head, next)
		if flaw != flawNone {
			return clientFlaws[flaw]
		}
		name, value, id := head[next:nameEnd:nameEnd], head[start:end:end], FieldOther
		next = after
		if class&charOdd == 0 {
			id = IDOf(name)
		} else if !lim.keeps(name) {
			continue
		}
		if use := fieldUse[id]; use != useKeep {
			if err := s.note(id, value, r); err != nil {
				return err
			}
			if use == useTyped {
				continue
			}
		}
		var f *Field
		r.Fields, f = addField(r.Fields)
		f.Name, f.Value, f.ID, f.Odd = name, value, id, class&charOdd != 0
	}
	if next+2 != len(head) || head[next+1] != '\n' {
		return ErrHeadEnd
	}
	return nil
}

// note takes a field that the parser understands.
func (s *requestState) note(id FieldID, value []byte, r *Request) *fastpath.Error {
	switch id {
	case FieldHost:
		s.host = value
		if s.hosts++; s.hosts > 1 {
			return ErrHosts
		}
	case FieldConnection:
		return clientFlaws[s.options.add(value)]
	case FieldContentLength:
		if s.length >= 0 {
			return ErrContentLengths
		}
		if s.length = contentLength(value); s.length < 0 {
			return ErrContentLength
		}
	case FieldTransferEncoding:
		if s.transferEncoding != nil {
			return ErrTransferEncodings
		}
		s.transferEncoding = value
	case FieldExpect:
		if equalFold(value, "100-continue") {
			s.expect = true
		} else {
			s.unexpected = true
		}
	case FieldTE:
		r.TETrailers = r.TETrailers || listsTrailers(value)
	case FieldTrailer:
		s.trailer = true
	case FieldUpgrade:
		s.upgrade = value
		s.upgrades = min(s.upgrades+1, 2)
	case FieldSecWebSocketKey:
		s.key = value
		s.keys = min(s.keys+1, 2)
	case FieldSecWebSocketVersion:
		s.version = value
		s.versions = min(s.versions+1, 2)
	}
	return nil
}

func listsTrailers(te []byte) bool {
	for rest, more := te, true; more; {
		var coding []byte
		if coding, rest, more = element(rest); equalFold(coding, "trailers") {
			return true
		}
	}
	return false
}

// finishHost lets the target's authority win over Host (RFC 9112 3.2.2), but never lets a bad Host pass.
func (r *Request) finishHost(a *Arena, s *requestState) *fastpath.Error {
	if s.hosts == 0 {
		if r.Minor > 0 {
			return ErrNoHost
		}
		return nil
	}
	if r.Authority != nil {
		_, _, err := ParseAuthority(s.host)
		return err
	}
	return r.setAuthority(s.host, a)
}

func (r *Request) finishFraming(s *requestState) *fastpath.Error {
	if s.transferEncoding == nil {
		if s.length >= 0 {
			r.Framing, r.ContentLength = FramingLength, s.length
		}
		return nil
	}
	if s.length >= 0 {
		return ErrContentLengthAndTE
	}
	if r.Minor == 0 {
		return ErrTransferEncodingIn10
	}
	switch transferCodings(s.transferEncoding) {
	case codingsMalformed:
		return ErrTransferEncoding
	case codingsUnknown:
		return ErrTransferCoding
	}
	r.Framing = FramingChunked
	return nil
}

// finishFields takes out what only the whole head could tell to be out of place.
func (r *Request) finishFields(s *requestState, lim *Limits) {
	r.KeepAlive = s.options.persistent(r.Minor)
	if len(r.Listed) > 0 {
		r.Fields = dropListed(r.Fields, r.Listed, lim)
	}
	if s.trailer && !r.TETrailers {
		r.Fields = Delete(r.Fields, FieldTrailer)
	}
}

// finishUpgrade decides whether a protocol is asked for. HTTP/1.0 cannot ask (RFC 9110 7.8), and two Upgrade lines ask for
// nothing that all readers would agree upon.
func (r *Request) finishUpgrade(s *requestState) *fastpath.Error {
	if !s.options.upgrade || s.upgrades != 1 || r.Minor == 0 {
		return nil
	}
	r.Upgrade = protocol(s.upgrade)
	switch {
	case !r.WebSocket():
		return nil
	case r.Method != MethodGet:
		return ErrWebSocketMethod
	case s.versions != 1 || string(s.version) != "13":
		return ErrWebSocketVersion
	case s.keys != 1 || !validKey(s.key):
		return ErrWebSocketKey
	}
	return nil
}

// validKey accepts base64 of 16 bytes: 22 digits and two pads.
func validKey(key []byte) bool {
	if len(key) != 24 || key[22] != '=' || key[23] != '=' {
		return false
	}
	for _, c := range key[:22] {
		if c != '+' && c != '/' && (chars[c]&charReg == 0 || c == '-' || c == '.' || c == '_' || c == '~') {
			return false
		}
	}
	return true
}

// finishExpect comes last: its error leaves a whole request behind.
func (r *Request) finishExpect(s *requestState) *fastpath.Error {
	if r.Minor == 0 {
		return nil
	}
	if s.unexpected {
		return ErrExpectation
	}
	r.Expect100 = s.expect
	return nil
}
