package wire

import (
	"math/bits"

	"golang.org/x/net/http2/hpack"
)

// Limits of header blocks.
const (
	H2TableBytes       = 4096     // of a decoder's dynamic table: SETTINGS_HEADER_TABLE_SIZE's initial value
	H2BlockMax         = 64 << 10 // compressed bytes of one block
	H2ContinuationsMax = 8        // frames that continue one block
	h2ListFactor       = 4        // times its limit that a list is read for the table's sake; beyond it the connection ends
)

// H2Decoder decompresses the header blocks of one connection, in their order, each whole: HPACK (RFC 7541). The zero value
// is ready; what it needs of memory comes with the first block.
type H2Decoder struct {
	hpack *hpack.Decoder
	list  *H2List // of the block that is being decoded
}

// Decode reads a whole header block into list. Names and values are views of a. The limits of fields bound what is kept:
// a list beyond them is noted and refused by whoever converts it, but still read, since later blocks refer to it. An
// error is the connection's end.
func (d *H2Decoder) Decode(block []byte, list *H2List, a *Arena, lim *Limits) *H2Error {
	if d.hpack == nil {
		d.hpack = hpack.NewDecoder(H2TableBytes, func(f hpack.HeaderField) { d.list.add(f.Name, f.Value) })
	}
	if lim == nil {
		lim = &DefaultLimits
	}
	list.reset(a, lim)
	if len(block) > H2BlockMax {
		return ErrH2ListTooLong
	}
	d.list = list
	d.hpack.SetMaxStringLength(list.most * h2ListFactor)
	_, err := d.hpack.Write(block)
	if e := d.hpack.Close(); err == nil {
		err = e
	}
	d.list, list.arena = nil, nil
	switch {
	case err == hpack.ErrStringLength || list.size > list.most*h2ListFactor:
		return ErrH2ListTooLong
	case err != nil:
		return ErrH2Compression
	}
	return nil
}

// H2List is one decoded header list, before it is a request, a response or trailers. One of them serves a whole loop.
type H2List struct {
	fields []Field // without pseudo-headers
	pseudo [h2PseudoCount][]byte
	state  requestState
	flaw   h2Flaw // the first one found
	length int64  // content-length; -1: none
	seen   uint8  // a bit for each pseudo-header that there is
	odd    bool   // a name has charOdd
	cookie int    // crumbs
	count  int    // fields, pseudo-headers among them
	size   int    // … as SETTINGS_MAX_HEADER_LIST_SIZE counts
	most   int    // the limit of size
	lim    *Limits
	arena  *Arena
}

// Pseudo-headers.
const (
	h2Method uint8 = iota
	h2Scheme
	h2Path
	h2Authority
	h2Protocol
	h2Status
	h2PseudoCount
	h2PseudoUnknown = h2PseudoCount
)

// A h2Flaw is what is wrong with a list, whoever sent it.
type h2Flaw uint8

const (
	h2FlawNone h2Flaw = iota
	h2FlawName
	h2FlawValue
	h2FlawConn
	h2FlawTE
	h2FlawPseudo
	h2FlawPseudoTwice
	h2FlawPseudoLate
	h2FlawHost
	h2FlawLength
	h2FlawCount
)

func (l *H2List) reset(a *Arena, lim *Limits) {
	listed := l.state.options.listed[:0]
	*l = H2List{fields: l.fields[:0], length: -1, lim: lim, arena: a, most: or(lim.Head, HeadMax)}
	l.state.length, l.state.options.listed = -1, listed
}

const h2EntryOverhead = 32 // of each field in a list's size (RFC 9113 6.5.2)

// add takes the next field. Once a flaw was found only the size counts on.
func (l *H2List) add(name, value string) {
	l.size += len(name) + len(value) + h2EntryOverhead
	l.count++
	if l.flaw != h2FlawNone || l.size > l.most || l.count > or(l.lim.Fields, FieldsMax)+int(h2PseudoCount) {
		return
	}
	if len(name) > 0 && name[0] == ':' {
		l.addPseudo(name, value)
		return
	}
	v := l.arena.Alloc(len(value))
	copy(v, value)
	if !ValidValue(v) || len(trim(v)) != len(v) {
		l.flaw = h2FlawValue
		return
	}
	n, id := l.name(name)
	if n == nil {
		l.flaw = h2FlawName
		return
	}
	if l.note(id, v) {
		var f *Field
		l.fields, f = addField(l.fields)
		f.Name, f.Value, f.ID, f.Odd = n, v, id, false
	}
}

// name checks a field's name; nil: it is malformed. One that has an ID comes back in its canonical spelling, of which no
// copy is kept.
func (l *H2List) name(name string) ([]byte, FieldID) {
	if len(name) == 0 {
		return nil, FieldOther
	}
	b := append(l.arena.Reserve(len(name)), name...)
	for _, c := range b {
		if chars[c]&(charToken|charUpper) != charToken {
			return nil, FieldOther
		}
		l.odd = l.odd || chars[c]&charOdd != 0
	}
	if id := IDOf(b); id != FieldOther {
		return fieldNameBytes[id], id
	}
	return l.arena.Commit(b), FieldOther
}

// note looks at a field that has a meaning here; false: it is no field of the message.
func (l *H2List) note(id FieldID, v []byte) bool {
	s := &l.state
	switch id {
	case FieldConnection, FieldKeepAlive, FieldProxyConnection, FieldTransferEncoding, FieldUpgrade, FieldHTTP2Settings:
		l.flaw = h2FlawConn
	case FieldTE:
		if string(v) != "trailers" {
			l.flaw = h2FlawTE
		}
		s.trailer = true
	case FieldHost:
		if s.hosts++; s.hosts > 1 {
			l.flaw = h2FlawHost
		}
		s.host = v
	case FieldContentLength:
		if l.length >= 0 {
			l.flaw = h2FlawLength
		}
		if l.length = contentLength(v); l.length < 0 {
			l.flaw = h2FlawLength
		}
	case FieldExpect:
		if equalFold(v, "100-continue") {
			s.expect = true
		} else {
			s.unexpected = true
		}
	case FieldCookie:
		l.cookie++
		return true
	case FieldSecWebSocketVersion:
		s.version = v
		s.versions = min(s.versions+1, 2)
		return true
	default:
		return true
	}
	return false
}

func (l *H2List) addPseudo(name, value string) {
	id := pseudoOf(name)
	bit := uint8(1) << id
	switch {
	case id == h2PseudoUnknown:
		l.flaw = h2FlawPseudo
		return
	case l.seen&bit != 0:
		l.flaw = h2FlawPseudoTwice
		return
	case l.count > l.pseudos()+1:
		l.flaw = h2FlawPseudoLate
		return
	}
	v := l.arena.Alloc(len(value))
	copy(v, value)
	if !ValidValue(v) {
		l.flaw = h2FlawValue
	}
	l.pseudo[id] = v
	l.seen |= bit
}

// pseudos counts the pseudo-headers so far: as long as each field was one, none has come late.
func (l *H2List) pseudos() int { return bits.OnesCount8(l.seen) }

func (l *H2List) has(pseudo uint8) bool { return l.seen>>pseudo&1 != 0 }

func pseudoOf(name string) uint8 {
	switch name {
	case ":method":
		return h2Method
	case ":scheme":
		return h2Scheme
	case ":path":
		return h2Path
	case ":authority":
		return h2Authority
	case ":protocol":
		return h2Protocol
	case ":status":
		return h2Status
	}
	return h2PseudoUnknown
}

// over tells whether the list is beyond its limits. Pseudo-headers are no fields.
func (l *H2List) over() bool {
	return l.size > l.most || l.count-l.pseudos() > or(l.lim.Fields, FieldsMax)
}
