package wire

import "github.com/sluiceproxy/sluice/fastpath"

// Parse parses an answer's head that ResponseHeadEnd delimited, and which outlives r. requestMethod is what was asked:
// the answer to HEAD has no body, whatever it says. A nil lim means the defaults of responses.
func (r *Response) Parse(head []byte, requestMethod Method, lim *Limits) *fastpath.Error {
	r.Reset()
	if lim == nil {
		lim = &DefaultResponseLimits
	}
	next, err := r.parseLine(head)
	if err != nil {
		return err
	}
	var s responseState
	s.options.listed = r.Listed
	err = r.parseFields(head, next, lim, &s)
	r.Listed = s.options.listed
	if err != nil {
		return err
	}
	if len(r.Listed) > 0 {
		r.Fields = dropListed(r.Fields, r.Listed, lim)
	}
	r.KeepAlive = s.options.persistent(r.Minor)
	if r.Status == 101 && r.Minor > 0 && s.options.upgrade && protocolName(s.upgrade) != nil {
		r.Upgrade = s.upgrade
	}
	return r.finishFraming(requestMethod, &s)
}

type responseState struct {
	transferEncoding, upgrade []byte
	options                   options
}

// parseLine parses "HTTP/1." minor SP 3DIGIT [SP reason]. Some servers leave out the last blank with the reason.
func (r *Response) parseLine(head []byte) (next int, err *fastpath.Error) {
	if len(head) < 14 || string(head[:7]) != statusPrefix || head[7]>>1 != '0'>>1 || head[8] != ' ' {
		return 0, ErrResponseLine
	}
	for _, c := range head[9:12] {
		if c < '0' || c > '9' {
			return 0, ErrResponseLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	r.Minor = head[7] - '0'
	end := indexControl(head, 12)
	for end < len(head) && head[end] == '\t' {
		end = indexControl(head, end+1)
	}
	if end+1 >= len(head) || head[end] != '\r' || head[end+1] != '\n' || head[12] != ' ' && end != 12 {
		return 0, ErrResponseLine
	}
	if r.Status < 100 || r.Status > 599 {
		return 0, ErrResponseStatus
	}
	r.Reason = trim(head[12:end])
	return end + 2, nil
}

func (r *Response) parseFields(head []byte, next int, lim *Limits, s *responseState) *fastpath.Error {
	most := or(lim.Fields, ResponseFieldsMax)
	for count := 0; next < len(head) && head[next] != '\r'; count++ {
		if count == most {
			return ErrResponseFields
		}
		nameEnd, start, end, after, _, flaw := fieldLine(head, next)
		if flaw != flawNone {
			return backendFlaws[flaw]
		}
		name, value := head[next:nameEnd:nameEnd], head[start:end:end]
		next = after
		id := IDOf(name)
		if fieldUse[id] == useTyped {
			if err := r.note(id, value, s); err != nil {
				return err
			}
			continue
		}
		var f *Field
		r.Fields, f = addField(r.Fields)
		f.Name, f.Value, f.ID, f.Odd = name, value, id, false
	}
	if next+2 != len(head) || head[next+1] != '\n' {
		return ErrResponseHeadEnd
	}
	return nil
}

// note takes a field that does not go to Fields.
func (r *Response) note(id FieldID, value []byte, s *responseState) *fastpath.Error {
	switch id {
	case FieldConnection:
		return backendFlaws[s.options.add(value)]
	case FieldContentLength:
		if r.ContentLength >= 0 {
			return ErrResponseContentLength
		}
		if r.ContentLength = contentLength(value); r.ContentLength < 0 {
			return ErrResponseContentLength
		}
	case FieldTransferEncoding:
		if s.transferEncoding != nil || transferCodings(value) != codingsChunked {
			return ErrResponseTransferEncoding
		}
		s.transferEncoding = value
	case FieldKeepAlive:
		r.KeepAliveHint = keepAliveTimeout(value)
	case FieldUpgrade:
		if s.upgrade != nil {
			value = value[:0] // two answers are none
		}
		s.upgrade = value
	}
	return nil
}

// keepAliveTimeout reads the N of "timeout=N"; 0 when there is none of use.
func keepAliveTimeout(value []byte) int {
	for rest, more := value, true; more; {
		var p []byte
		p, rest, more = element(rest)
		if !hasPrefixFold(p, "timeout=") {
			continue
		}
		if n := contentLength(p[len("timeout="):]); n > 0 && n <= 1<<30 {
			return int(n)
		}
	}
	return 0
}

// BodyAllowed tells whether an answer of that status, to that method, can have a body (RFC 9112 6.3).
func BodyAllowed(status int, requestMethod Method) bool {
	return status >= 200 && status != 204 && status != 304 && requestMethod != MethodHead
}

func (r *Response) finishFraming(requestMethod Method, s *responseState) *fastpath.Error {
	chunked := s.transferEncoding != nil
	if chunked && r.ContentLength >= 0 {
		return ErrResponseLengthAndTE
	}
	if chunked && r.Minor == 0 {
		return ErrResponseTransferEncoding
	}
	switch {
	case !BodyAllowed(r.Status, requestMethod):
		// A 204 or 1xx that announces a body may go on to send it: nothing more is taken from that connection.
		if (r.Status < 200 || r.Status == 204) && (chunked || r.ContentLength > 0) {
			r.KeepAlive = false
		}
	case chunked:
		r.Framing = FramingChunked
	case r.ContentLength >= 0:
		r.Framing = FramingLength
	default:
		r.Framing, r.KeepAlive = FramingClose, false
	}
	return nil
}
