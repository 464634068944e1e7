package wire

// H2Block gathers the header block that HEADERS and CONTINUATION of one connection carry. The zero value is ready, for
// either side.
type H2Block struct {
	buf  []byte
	part H2Part
	more int // frames of CONTINUATION so far
	open bool
}

// H2Part is a whole header block, before it is decompressed.
type H2Part struct {
	Stream uint32
	Block  []byte   // a view of the last frame's payload, or a buffer that nobody else holds
	End    bool     // END_STREAM
	Bad    *H2Error // the stream's error, found in its HEADERS: the block has to be decompressed all the same
}

// Open tells whether CONTINUATION is due.
func (b *H2Block) Open() bool { return b.open }

// Order judges whether a frame may come now: nothing comes within a header block (RFC 9113 6.10).
func (b *H2Block) Order(h H2Head) *H2Error {
	if b.open != (h.Type == H2Continuation) || b.open && h.Stream != b.part.Stream {
		return ErrH2Block
	}
	return nil
}

// Take leads a HEADERS or CONTINUATION that Order let pass. whole: the block is complete, and p is it. It is bounded: a
// block that never ends costs whoever collects it (CVE-2024-27316). Every error is the connection's.
func (b *H2Block) Take(h H2Head, payload []byte) (p H2Part, whole bool, err *H2Error) {
	if h.Type == H2Headers {
		block, err := h.Block(payload)
		if err != nil && !err.Stream {
			return p, false, err
		}
		p = H2Part{Stream: h.Stream, Block: block, End: h.Has(H2EndStream), Bad: err}
		if h.Has(H2EndHeaders) {
			return p, true, nil
		}
		b.open, b.more, b.part = true, 0, p
		b.buf = append(b.buf[:0], block...)
		return p, false, nil
	}
	if b.more++; b.more > H2ContinuationsMax || len(b.buf)+len(payload) > H2BlockMax {
		return p, false, ErrH2ListTooLong
	}
	b.buf = append(b.buf, payload...)
	if !h.Has(H2EndHeaders) {
		return p, false, nil
	}
	p = b.part
	p.Block = b.buf
	*b = H2Block{} // long heads are rare: their buffer is not kept
	return p, true, nil
}
