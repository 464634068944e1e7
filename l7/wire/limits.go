package wire

// Defaults of everything that input can stretch.
const (
	RequestLineMax    = 8 << 10  // bytes of a request line, without its CRLF
	HeadMax           = 32 << 10 // bytes of a request head, with its empty line
	LineMax           = 16 << 10 // bytes of one field line or status line, without its CRLF
	FieldsMax         = 100      // field lines of a request
	ResponseHeadMax   = 64 << 10
	ResponseFieldsMax = 200

	ConnectionOptionsMax = 32 // names that Connection may list: each is compared with every field

	ChunkExtensionMax  = 256      // bytes of one chunk's extensions
	ChunkExtensionsMax = 16 << 10 // … and of all of a body's
	TrailerBytesMax    = 8 << 10
	TrailersMax        = 32

	emptyLinesMax = 2   // before a request line (RFC 9112 2.2)
	hostMax       = 255 // bytes of a host name
)

// Limits bound a head. A zero member means its default, so the zero value is useful.
type Limits struct {
	RequestLine int
	Head        int
	Line        int
	Fields      int

	Underscores        bool // keep request fields whose name has "_", but never one that reads like a Reserved name
	OddNames           bool // … whose name is any token, not of letters, digits and hyphens alone; likewise
	RejectEncodedSlash bool // refuse %2F and %5C in a path

	Trusted [2]string // names of the fields by which trusted peers tell the client's address and Host: they are as Reserved
}

// The limits with every default spelled out; a nil *Limits means these.
var (
	DefaultLimits = Limits{RequestLine: RequestLineMax, Head: HeadMax, Line: LineMax, Fields: FieldsMax,
		Trusted: [2]string{fieldNames[FieldXForwardedFor], fieldNames[FieldXForwardedHost]}}
	DefaultResponseLimits = Limits{RequestLine: LineMax, Head: ResponseHeadMax, Line: LineMax, Fields: ResponseFieldsMax}
)

// HeadMax is the limit of a head's bytes, or its default.
func (l *Limits) HeadMax() int { return or(l.Head, HeadMax) }

// isOdd tells whether a name, a token, has another character than letters, digits and hyphens.
func isOdd(name []byte) bool {
	for _, c := range name {
		if chars[c]&charOdd != 0 {
			return true
		}
	}
	return false
}

// keeps tells whether a request field of that odd name is kept. nginx drops one that has other characters than
// letters, digits and hyphens unless told otherwise, and a backend that makes variables of names (CGI) reads each of these
// characters as it reads a hyphen.
func (l *Limits) keeps(name []byte) bool {
	for _, c := range name {
		if chars[c]&charOdd != 0 && !l.OddNames && (c != '_' || !l.Underscores) {
			return false
		}
	}
	return !l.reserved(name)
}

// reserved tells whether a name is Reserved, here also for being Trusted.
func (l *Limits) reserved(name []byte) bool {
	return Reserved(name) || l.Trusts(name)
}

// Trusts tells whether a name reads as one that is Trusted.
func (l *Limits) Trusts(name []byte) bool {
	return reads(name, l.Trusted[0], true) || reads(name, l.Trusted[1], true)
}

// or gives the limit v, or its default d.
func or(v, d int) int {
	if v > 0 {
		return v
	}
	return d
}

// bounds are the limits that delimiting a head needs.
type bounds struct {
	first, line, head int
	request           bool
}

func requestBounds(lim *Limits) bounds {
	if lim == nil {
		lim = &DefaultLimits
	}
	return bounds{or(lim.RequestLine, RequestLineMax), or(lim.Line, LineMax), or(lim.Head, HeadMax), true}
}

func responseBounds(lim *Limits) bounds {
	if lim == nil {
		lim = &DefaultResponseLimits
	}
	line := or(lim.Line, LineMax)
	return bounds{line, line, or(lim.Head, ResponseHeadMax), false}
}
