package wire

// line is one field line of a head, as offsets: name is head[start:name], value head[value:valueEnd].
type line struct {
	name, value, valueEnd, next int
	class                       uint8
	flaw                        flaw
}

// fieldLine reads the field line that begins at head[i]. The name is looked at byte by byte, the value eight bytes at a
// time; the first control character that is not HTAB must be the line's CRLF.
func fieldLine(head []byte, i int) (l line) {
	start := i
	for i < len(head) {
		class := chars[head[i]]
		if class&charToken == 0 {
			break
		}
		l.class |= class
		i++
	}
	if i == start || i >= len(head) || head[i] != ':' {
		l.flaw = nameFlaw(head, start, i)
		return l
	}
	l.name = i
	i++
	for i < len(head) && (head[i] == ' ' || head[i] == '\t') {
		i++
	}
	l.value = i
	for i = indexControl(head, i); i < len(head) && head[i] == '\t'; {
		i = indexControl(head, i+1)
	}
	if i+1 >= len(head) || head[i] != '\r' || head[i+1] != '\n' {
		l.flaw = flawValue
		return l
	}
	l.next = i + 2
	for i > l.value && (head[i-1] == ' ' || head[i-1] == '\t') {
		i--
	}
	l.valueEnd = i
	return l
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

// dropListed removes the fields that Connection listed, in place, but none that is Reserved: a client must not strip
// what others rely upon.
func dropListed(fields []Field, listed [][]byte) []Field {
	kept := fields[:0]
	for i := range fields {
		f := &fields[i]
		if f.ID != FieldOther || !isListed(f.Name, listed) || Reserved(f.Name) {
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

// protocol picks what an Upgrade field asks for: the first well-formed protocol of its list but HTTP itself, since h2c
// would lead past the proxy. nil: none.
func protocol(value []byte) []byte {
	for rest, more := value, true; more; {
		var p []byte
		p, rest, more = element(rest)
		if name := protocolName(p); name != nil && !equalFold(name, "h2c") && !equalFold(name, "h2") && !equalFold(name, "http") {
			return p
		}
	}
	return nil
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
