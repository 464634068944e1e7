package sni

import (
	"bytes"

	"github.com/sluiceproxy/sluice/fastpath"
)

// ErrShort is the answer of Parse and ParseProxy to a beginning that breaks no rule so far. It is no failure: ask again with
// more bytes of the same stream.
var ErrShort = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindNone, Text: "more bytes needed"}

// Errors of a ClientHello. Except for ErrNotTLS, which the door answers with plain HTTP, they close the connection.
var (
	ErrNotTLS    = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindTLS, Text: "not a TLS handshake"}
	ErrMalformed = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindTLS, Text: "malformed ClientHello"}
	ErrTooLarge  = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindTLS, Text: "ClientHello over its limit"}
)

// What RFC 8446 (sections 4 and 5.1), RFC 6066 (3) and RFC 7301 (3.1) fix.
const (
	recordHeaderBytes  = 5
	recordPayloadMax   = 1 << 14
	recordHandshake    = 22
	versionMajor       = 3
	messageHeaderBytes = 4
	messageClientHello = 1
	messageBytesMin    = messageHeaderBytes + 2 + randomBytes + 1 + 2 + 2 + 1 + 1 // one cipher suite, one compression method
	randomBytes        = 32
	sessionIDBytesMax  = 32

	extensionServerName = 0
	extensionALPN       = 16
	nameTypeHost        = 0
)

// Hello is what the door asks of a ClientHello. It borrows the bytes that it was parsed from and is valid as long as they
// are; the server name may lie in the Hello itself, so it lives no longer than the Hello either.
type Hello struct {
	// Need counts bytes from the start of the stream. With ErrShort no hello that begins like this one ends before Need, so
	// the caller sleeps until so many can be peeked (SO_RCVLOWAT) and does not call before: a hello cut into tiny records then
	// costs some dozen calls, not one a byte (a refusal is then seen no earlier either; the deadline stands for it). Without
	// error Need is where the hello ends.
	Need int

	name          []byte                   // view of the stream, when the name lies within one record
	straddling    [serverNameBytesMax]byte // copy of a name that continues in another record
	straddlingLen int
	alpn          cursor // protocol names, each with its length before it
}

// ServerName is the host name that the client asks for, as sent: any case, perhaps with one trailing dot. It is empty when
// there is none or when the client sent an IP address, which RFC 6066 does not count as a name.
func (h *Hello) ServerName() []byte {
	if h.straddlingLen > 0 {
		return h.straddling[:h.straddlingLen]
	}
	return h.name
}

// Offers tells whether the client's ALPN list has this protocol.
func (h *Hello) Offers(protocol string) bool {
	list := h.alpn
	for list.left > 0 {
		offered, ok := list.vector(1)
		if !ok {
			return false
		}
		if offered.equal(protocol) {
			return true
		}
	}
	return false
}

// Parse reads the ClientHello at the start of b, the first bytes of a stream in whatever segments and records they came.
// Bytes after the hello do not matter. It allocates nothing and keeps b in the Hello.
func Parse(b []byte) (h Hello, err error) {
	if len(b) == 0 {
		h.Need = 1 // the first byte may already tell that this is not TLS
		return h, ErrShort
	}
	f := framing{size: messageBytesMin}
	if err = f.scan(b); err == ErrShort {
		h.Need = f.need()
	}
	if err != nil {
		return h, err
	}
	if !h.read(cursor{b: b[:f.end:f.end], left: f.size}) {
		return Hello{}, ErrMalformed
	}
	h.Need = f.end
	return h, nil
}

// looksLikeTLS tells that nothing in b contradicts TLS so far, b being the first bytes of a stream; no byte contradicts
// nothing. Parse answers ErrNotTLS exactly when this is false: at the first byte for SSLv2 and for every HTTP method.
func looksLikeTLS(b []byte) bool {
	if len(b) > 0 && b[0] != recordHandshake {
		return false
	}
	return len(b) < 2 || b[1] == versionMajor
}

// framing walks from record header to record header until the message is whole. It looks at nothing else, so a hello that
// arrives in pieces is not parsed again for each.
//
//	| type 3.x len | 1 size(3) body...  | type 3.x len | ...body |
//	               '--- have counts ----'              '-- and --'
//	                                                           end
type framing struct {
	end  int // where the last record whose header is there ends, also when its payload is not there yet
	have int // message bytes up to end
	size int // message bytes in all; the least possible ones until its header is there

	header    uint32 // the message's type and size, as far as seen: it may straddle records, too
	headerLen int
}

// scan answers nil when b holds the whole message.
func (f *framing) scan(b []byte) error {
	for f.have < f.size {
		payload, err := recordLength(b[f.end:])
		if err == ErrNotTLS && f.end > 0 {
			return ErrMalformed // it began as TLS; alerts and other records do not belong into a hello
		}
		if err != nil {
			return err
		}
		start := f.end + recordHeaderBytes
		f.end, f.have = start+payload, f.have+payload
		if err := f.readHeader(b[min(start, len(b)):min(f.end, len(b))]); err != nil {
			return err
		}
		if f.need() > helloBytesMax {
			return ErrTooLarge
		}
		if f.end > len(b) {
			return ErrShort
		}
	}
	return nil
}

// recordLength reads the record header at the start of b.
func recordLength(b []byte) (int, error) {
	if !looksLikeTLS(b) {
		return 0, ErrNotTLS
	}
	if len(b) < recordHeaderBytes {
		return 0, ErrShort
	}
	n := int(b[3])<<8 | int(b[4])
	if n == 0 || n > recordPayloadMax {
		return 0, ErrMalformed // an empty handshake record is forbidden, and would let a peer stretch the hello for nothing
	}
	return n, nil
}

// readHeader takes what is still missing of the message's header from one record's payload and holds the records' length
// against it: nothing may follow a ClientHello in its record, because the client has nothing to say before the answer.
func (f *framing) readHeader(payload []byte) error {
	for f.headerLen < messageHeaderBytes && len(payload) > 0 {
		if f.headerLen == 0 && payload[0] != messageClientHello {
			return ErrMalformed
		}
		f.header = f.header<<8 | uint32(payload[0])
		f.headerLen++
		payload = payload[1:]
	}
	if f.headerLen < messageHeaderBytes {
		return nil
	}
	f.size = messageHeaderBytes + int(f.header&0xffffff)
	if f.size < messageBytesMin || f.have > f.size {
		return ErrMalformed
	}
	return nil
}

// need is the least end that the hello can have: what is missing, in records as large as allowed.
func (f *framing) need() int {
	missing := max(f.size-f.have, 0)
	records := (missing + recordPayloadMax - 1) / recordPayloadMax
	return f.end + missing + records*recordHeaderBytes
}

// read takes a whole message apart. Every length must be exact; what the door does not use is measured, not judged.
func (h *Hello) read(message cursor) bool {
	message.skip(messageHeaderBytes) // framing has read it
	version, ok := message.uint(2)
	if !ok || version>>8 != versionMajor || !message.skip(randomBytes) {
		return false
	}
	if sessionID, ok := message.vector(1); !ok || sessionID.left > sessionIDBytesMax {
		return false
	}
	if suites, ok := message.vector(2); !ok || suites.left == 0 || suites.left%2 != 0 {
		return false
	}
	if compressions, ok := message.vector(1); !ok || compressions.left == 0 {
		return false
	}
	if message.left == 0 {
		return true // before TLS 1.3 a hello may end without extensions
	}
	extensions, ok := message.vector(2)
	return ok && message.left == 0 && h.readExtensions(extensions)
}

func (h *Hello) readExtensions(extensions cursor) bool {
	var types [helloExtensionsMax]uint16
	for n := 0; extensions.left > 0; n++ {
		extension, ok := extensions.uint(2)
		if !ok || n == len(types) || isAmong(types[:n], uint16(extension)) {
			return false // of two equal extensions each reader could take another one
		}
		types[n] = uint16(extension)
		body, ok := extensions.vector(2)
		if !ok {
			return false
		}
		switch extension {
		case extensionServerName:
			ok = h.readServerNames(body)
		case extensionALPN:
			ok = h.readALPN(body)
		}
		if !ok {
			return false
		}
	}
	return true
}

func isAmong(types []uint16, t uint16) bool {
	for _, other := range types {
		if other == t {
			return true
		}
	}
	return false
}

// readServerNames takes the one host_name of the list. Other types of names were never assigned and are passed over.
func (h *Hello) readServerNames(body cursor) bool {
	list, ok := body.vector(2)
	if !ok || body.left != 0 || list.left == 0 {
		return false
	}
	for hosts := 0; list.left > 0; {
		nameType, _ := list.uint(1)
		name, ok := list.vector(2)
		if !ok || name.left == 0 {
			return false
		}
		if nameType != nameTypeHost {
			continue
		}
		if hosts++; hosts > 1 || !h.setServerName(name) {
			return false
		}
	}
	return true
}

func (h *Hello) setServerName(c cursor) bool {
	if c.left > serverNameBytesMax {
		return false
	}
	view, whole := c.view()
	name, copied := view, 0
	if !whole {
		copied = c.copyTo(h.straddling[:])
		name = h.straddling[:copied] // never kept as a slice: a Hello that points into itself would have to be on the heap
	}
	if isIPLiteral(name) {
		return true
	}
	h.name, h.straddlingLen = view, copied
	return isDNSName(name)
}

func (h *Hello) readALPN(body cursor) bool {
	list, ok := body.vector(2)
	if !ok || body.left != 0 || list.left == 0 {
		return false
	}
	h.alpn = list
	for list.left > 0 {
		if protocol, ok := list.vector(1); !ok || protocol.left == 0 {
			return false
		}
	}
	return true
}

// isDNSName holds a name against RFC 1123, with the underscores that names outside the public web have.
func isDNSName(name []byte) bool {
	name = withoutDot(name)
	for {
		dot := bytes.IndexByte(name, '.')
		if dot < 0 {
			return isDNSLabel(name)
		}
		if !isDNSLabel(name[:dot]) {
			return false
		}
		name = name[dot+1:]
	}
}

func isDNSLabel(label []byte) bool {
	if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for _, c := range label {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && !isDigit(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isIPLiteral tells an address from a name. Nothing is dialled by a server name, so only the forms that clients are known to
// send count: dotted decimal, and IPv6 with or without brackets.
func isIPLiteral(name []byte) bool {
	if len(name) > 2 && name[0] == '[' && name[len(name)-1] == ']' {
		_, ok := parseIPv6(name[1 : len(name)-1])
		return ok
	}
	if bytes.IndexByte(name, ':') >= 0 {
		_, ok := parseIPv6(name)
		return ok
	}
	_, ok := parseIPv4(withoutDot(name))
	return ok
}

func withoutDot(name []byte) []byte {
	if n := len(name); n > 0 && name[n-1] == '.' {
		return name[:n-1]
	}
	return name
}

// cursor reads a message, or one vector within it, across record headers. framing has proved that b holds every byte of it.
// Copies are independent: a vector is read while its parent already stands behind it.
type cursor struct {
	b      []byte // the stream
	at     int    // the next byte; at a record's end, that of the next record's header
	record int    // where the current record ends
	left   int    // bytes to the end of the message or vector
}

// enter makes sure that at is a message byte. Call it with left > 0 only.
func (c *cursor) enter() {
	if c.at == c.record {
		c.record = c.at + recordHeaderBytes + (int(c.b[c.at+3])<<8 | int(c.b[c.at+4]))
		c.at += recordHeaderBytes
	}
}

func (c *cursor) skip(n int) bool {
	if n > c.left {
		return false
	}
	c.left -= n
	for n > 0 {
		c.enter()
		step := min(n, c.record-c.at)
		c.at += step
		n -= step
	}
	return true
}

// uint reads a number of n bytes.
func (c *cursor) uint(n int) (v int, ok bool) {
	if n > c.left {
		return 0, false
	}
	c.left -= n
	for ; n > 0; n-- {
		c.enter()
		v = v<<8 | int(c.b[c.at])
		c.at++
	}
	return v, true
}

// vector reads a length of n bytes and steps over the vector that follows, which it returns.
func (c *cursor) vector(n int) (cursor, bool) {
	length, ok := c.uint(n)
	if !ok {
		return cursor{}, false
	}
	v := *c
	v.left = length
	return v, c.skip(length)
}

// view is what is left, where it lies, if that is within one record.
func (c cursor) view() ([]byte, bool) {
	if c.left == 0 {
		return nil, true
	}
	c.enter()
	if c.left > c.record-c.at {
		return nil, false
	}
	return c.b[c.at : c.at+c.left : c.at+c.left], true
}

// copyTo gathers what is left into dst, which has room for it.
func (c cursor) copyTo(dst []byte) (n int) {
	for n < c.left {
		c.enter()
		step := copy(dst[n:c.left], c.b[c.at:c.record])
		n += step
		c.at += step
	}
	return n
}

func (c cursor) equal(s string) bool {
	if c.left != len(s) {
		return false
	}
	if view, whole := c.view(); whole {
		return string(view) == s
	}
	for i := range len(s) {
		if v, _ := c.uint(1); byte(v) != s[i] {
			return false
		}
	}
	return true
}
