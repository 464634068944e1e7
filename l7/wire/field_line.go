package wire

import "slices"

// fieldLine reads the field line that begins at head[start], as offsets: its name is head[start:name], its value
// head[value:end], the line after it begins at next. The name is looked at byte by byte, and class says what bytes it has;
// the value is looked at eight bytes at a time, and the first control character that is not HTAB must be the line's CRLF.
func fieldLine(head []byte, start int) (name, value, end, next int, class uint8, f flaw) {
	i := start
	for i < len(head) {
		c := chars[head[i]]
		if c&charToken == 0 {
			break
		}
		class |= c
		i++
	}
	if i == start || i >= len(head) || head[i] != ':' {
		return 0, 0, 0, 0, 0, nameFlaw(head, start, i)
	}
	name = i
	i++
	for i < len(head) && (head[i] == ' ' || head[i] == '\t') {
		i++
	}
	value = i
	for i = indexControl(head, i); i < len(head) && head[i] == '\t'; {
		i = indexControl(head, i+1)
	}
	if i+1 >= len(head) || head[i] != '\r' || head[i+1] != '\n' {
		return 0, 0, 0, 0, 0, flawValue
	}
	end = i
	for end > value && (head[end-1] == ' ' || head[end-1] == '\t') {
		end--
	}
	return name, value, end, i + 2, class, flawNone
}

// addField makes room for one more field and gives it to be filled: writing the members one by one is much faster than
// appending a whole Field.
func addField(fields []Field) ([]Field, *Field) {
	n := len(fields)
	if n == cap(fields) {
		fields = slices.Grow(fields, 1)
	}
	fields = fields[:n+1]
	return fields, &fields[n]
}

// nameFlaw says what is wrong with the line from start, whose byte at i neither belongs to a name nor ends one.
func nameFlaw(head []byte, start, i int) flaw {
	if i >= len(head) || head[i] == '\r' || head[i] == '\n' {
		return flawColon
	}
	blank := head[i] == ' ' || head[i] == '\t'
	switch {
	case blank && i == start:
		return flawFolded
	case blank:
		return flawNameBlank
	case head[i] == ':':
		return flawNameEmpty
	}
	return flawName
}

// contentLength reads 1*DIGIT up to 2^63-1; -1 when it is anything else.
func contentLength(b []byte) int64 {
	if len(b) == 0 {
		return -1
	}
	n := int64(0)
	for _, c := range b {
		d := int64(c) - '0'
		if d < 0 || d > 9 || n > (1<<63-1-d)/10 {
			return -1
		}
		n = n*10 + d
	}
	return n
}

// codings is what a Transfer-Encoding asks for.
type codings uint8

const (
	codingsMalformed codings = iota
	codingsChunked           // exactly one chunked
	codingsUnknown           // well formed, but of codings that are not served
)

// transferCodings reads a Transfer-Encoding's value. Anything that two readers could understand in two ways is
// malformed: empty elements, parameters, chunked twice or not last.
func transferCodings(b []byte) codings {
	if equalFold(b, "chunked") {
		return codingsChunked
	}
	for rest, more := b, true; more; {
		var coding []byte
		coding, rest, more = element(rest)
		if !IsToken(coding) || more && equalFold(coding, "chunked") {
			return codingsMalformed
		}
	}
	return codingsUnknown
}

// options is what Connection fields ask for.
type options struct {
	close, keepAlive, upgrade bool
	listed                    [][]byte // the other names, views of the head
}

// add reads one Connection field. Elements that are no token can name no field and are passed over.
func (o *options) add(value []byte) flaw {
	for rest, more := value, true; more; {
		var option []byte
		option, rest, more = element(rest)
		switch {
		case equalFold(option, "keep-alive"):
			o.keepAlive = true
		case equalFold(option, "close"):
			o.close = true
		case equalFold(option, "upgrade"):
			o.upgrade = true
		case equalFold(option, "te"), !IsToken(option):
		case len(o.listed) == ConnectionOptionsMax:
			return flawOptions
		default:
			o.listed = append(o.listed, option)
		}
	}
	return flawNone
}

// persistent tells whether a sender of HTTP/1.minor lets the connection live on.
func (o *options) persistent(minor uint8) bool {
	return !o.close && (minor > 0 || o.keepAlive)
}

// dropListed removes the fields that Connection listed, in place, but none that is reserved: a client must not strip
// what others rely upon.
func dropListed(fields []Field, listed [][]byte, lim *Limits) []Field {
	kept := fields[:0]
	for i := range fields {
		f := &fields[i]
		if f.ID != FieldOther || !isListed(f.Name, listed) || lim.reserved(f.Name) {
			kept = append(kept, *f)
		}
	}
	return kept
}

func isListed(name []byte, listed [][]byte) bool {
	for _, l := range listed {
		if EqualFold(name, l) {
			return true
		}
	}
	return false
}

// protocol picks what an Upgrade field asks for: the first well-formed protocol of its list but HTTP itself. nil: none.
func protocol(value []byte) []byte {
	for rest, more := value, true; more; {
		var p []byte
		p, rest, more = element(rest)
		if name := protocolName(p); name != nil && !isHTTP(name) {
			return p
		}
	}
	return nil
}

// isHTTP tells a protocol that is HTTP itself: a tunnel of it, h2c, would lead past the proxy.
func isHTTP(name []byte) bool {
	return equalFold(name, "h2c") || equalFold(name, "h2") || equalFold(name, "http")
}

// protocolName cuts the version off token["/"token]; nil when p is not of that form.
func protocolName(p []byte) []byte {
	for i, c := range p {
		if c == '/' {
			if !IsToken(p[:i]) || !IsToken(p[i+1:]) {
				return nil
			}
			return p[:i]
		}
	}
	if !IsToken(p) {
		return nil
	}
	return p
}
