package wire

import (
	"bytes"

	"github.com/sluiceproxy/sluice/fastpath"
)

// ChunkReader decodes a chunked body strictly and bit by bit. The zero value is ready to read a client's body.
//
//	size ──ext──┐
//	  │  ◄──────┘
//	  ├─ > 0: data ─► CR ─► LF ─► size
//	  └─ = 0: trailer lines ─► empty line: done
type ChunkReader struct {
	Response bool // the body is a backend's: its errors are the backend's. Survives Reset

	at         chunkState
	digits     uint8  // of the size
	left       int64  // the size as far as read, then what is left of the data
	extension  int    // bytes of this chunk's extensions
	extensions int    // … and of all
	trailing   int    // bytes of trailers
	count      int    // trailers, kept or not
	line       []byte // the begun trailer line that was cut by the end of a segment
	trailers   []Field
}

type chunkState uint8

const (
	atSize chunkState = iota
	atExtension
	atSizeLF
	atData
	atDataCR
	atDataLF
	atTrailer
	atDone
)

// Reset makes the reader ready for the next body.
func (c *ChunkReader) Reset() {
	line := c.line[:0]
	if cap(line) > arenaBlockMin {
		line = nil
	}
	*c = ChunkReader{Response: c.Response, line: line, trailers: c.trailers[:0]}
}

// Trailers are the trailers, once Decode said done; names and values are views of its arena. Forbidden ones are among
// them: AppendLastChunk drops those.
func (c *ChunkReader) Trailers() []Field { return c.trailers }

// Decode reads from src. data is a view of src with body bytes, perhaps none; n is how many bytes of src were consumed,
// data included; done tells that the last chunk and its trailers are complete, and nothing behind them was looked at.
// Call again with src[n:] while there is any, and with more bytes when there is none. a keeps the trailers; with a nil
// arena they are checked and dropped.
func (c *ChunkReader) Decode(src []byte, a *Arena) (data []byte, n int, done bool, err *fastpath.Error) {
	for n < len(src) {
		f := flawNone
		switch c.at {
		case atData:
			end := n + int(min(c.left, int64(len(src)-n)))
			if c.left -= int64(end - n); c.left == 0 {
				c.at = atDataCR
			}
			return src[n:end], end, false, nil
		case atTrailer:
			n, f = c.trailerLine(src, n, a)
		case atDone:
			return nil, n, true, nil
		case atExtension:
			n, f = c.skipExtension(src, n)
		default:
			f = c.step(src[n])
			n++
		}
		if f != flawNone {
			return nil, n, false, c.err(f)
		}
	}
	return nil, n, c.at == atDone, nil
}

func (c *ChunkReader) err(f flaw) *fastpath.Error {
	if c.Response {
		return backendFlaws[f]
	}
	return clientFlaws[f]
}

// step takes one byte of a chunk's size line or of the CRLF behind its data.
func (c *ChunkReader) step(b byte) flaw {
	switch c.at {
	case atSize:
		return c.stepSize(b)
	case atSizeLF:
		if b != '\n' {
			return flawChunkLine
		}
		c.at = atData
		if c.left == 0 {
			c.at = atTrailer
		}
	case atDataCR:
		if b != '\r' {
			return flawChunkEnd
		}
		c.at = atDataLF
	case atDataLF:
		if b != '\n' {
			return flawChunkEnd
		}
		c.at, c.digits, c.extension = atSize, 0, 0
	}
	return flawNone
}

func (c *ChunkReader) stepSize(b byte) flaw {
	if d := unhex[b]; d < 16 {
		if c.digits == 16 || c.left >= 1<<59 {
			return flawChunkSize
		}
		c.digits++
		c.left = c.left<<4 | int64(d)
		return flawNone
	}
	switch {
	case c.digits == 0:
		return flawChunkSize
	case b == '\r':
		c.at = atSizeLF
	case b == ';':
		c.at = atExtension
	case b == '\n':
		return flawChunkLine
	default:
		return flawChunkSize
	}
	return flawNone
}

// skipExtension passes over extensions up to the CR that ends them.
func (c *ChunkReader) skipExtension(src []byte, n int) (int, flaw) {
	for ; n < len(src); n++ {
		b := src[n]
		if b == '\r' {
			c.at = atSizeLF
			return n + 1, flawNone
		}
		if b == '\n' {
			return n, flawChunkLine
		}
		if b < ' ' && b != '\t' || b == 0x7f {
			return n, flawChunkExtension
		}
		c.extension++
		c.extensions++
		if c.extension > ChunkExtensionMax || c.extensions > ChunkExtensionsMax {
			return n, flawChunkExtensions
		}
	}
	return n, flawNone
}

// trailerLine takes one line of the trailers, or what there is of it.
func (c *ChunkReader) trailerLine(src []byte, n int, a *Arena) (int, flaw) {
	rest := src[n:]
	end := bytes.IndexByte(rest, '\n') + 1
	part := rest
	if end > 0 {
		part = rest[:end]
	}
	if c.trailing+len(part) > TrailerBytesMax {
		return n, flawTrailers
	}
	c.trailing += len(part)
	if end == 0 {
		c.line = append(c.line, part...)
		return len(src), flawNone
	}
	if len(c.line) > 0 {
		c.line = append(c.line, part...)
		part = c.line
		c.line = c.line[:0]
	}
	return n + end, c.takeTrailer(part, a)
}

// takeTrailer takes a whole line.
func (c *ChunkReader) takeTrailer(b []byte, a *Arena) flaw {
	if len(b) == 2 && b[0] == '\r' {
		c.at = atDone
		return flawNone
	}
	if c.count++; c.count > TrailersMax {
		return flawTrailers
	}
	nameEnd, start, end, next, _, f := fieldLine(b, 0)
	if f != flawNone || next != len(b) {
		return flawTrailer
	}
	if a == nil {
		return flawNone
	}
	b = a.Copy(b)
	name := b[:nameEnd:nameEnd]
	c.trailers = append(c.trailers, Field{Name: name, Value: b[start:end:end], ID: IDOf(name)})
	return flawNone
}

// LastChunk ends a chunked body without trailers, ChunkEnd the data of each chunk.
const (
	LastChunk = "0\r\n\r\n"
	ChunkEnd  = "\r\n"
)

// ChunkHeaderMax is room enough for any chunk's header.
const ChunkHeaderMax = 16 + len(ChunkEnd)

// AppendChunkHeader appends the line before n bytes of data; ChunkEnd goes behind them. For n <= 0 it appends nothing,
// since an empty chunk would end the body.
func AppendChunkHeader(dst []byte, n int) []byte {
	if n <= 0 {
		return dst
	}
	shift := 0
	for n>>shift > 15 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[n>>shift&15])
	}
	return append(dst, '\r', '\n')
}

// AppendLastChunk ends a chunked body with trailers, without those that must never come late (RFC 9110 6.5.1): every
// Reserved name, some that control caches or authenticate, and the caller's own, such as those that Connection listed.
func AppendLastChunk(dst []byte, trailers []Field, forbidden ...[]byte) ([]byte, *fastpath.Error) {
	out := append(dst, "0\r\n"...)
	for i := range trailers {
		f := &trailers[i]
		if ForbiddenTrailer(f.Name) || forbids(forbidden, f.Name) {
			continue
		}
		if !sendableField(f) {
			return dst, ErrSerialise
		}
		out = append(out, f.Name...)
		out = append(out, ": "...)
		out = append(out, f.Value...)
		out = append(out, "\r\n"...)
	}
	return append(out, "\r\n"...), nil
}

// ForbiddenTrailer tells whether a name is never forwarded as a trailer.
func ForbiddenTrailer(name []byte) bool {
	if Reserved(name) {
		return true
	}
	for _, n := range forbiddenTrailers {
		if equalFold(name, n) {
			return true
		}
	}
	return false
}

// forbids tells whether a name is one of the forbidden, or may be read as one.
func forbids(forbidden [][]byte, name []byte) bool {
	for _, n := range forbidden {
		if reads(name, n, true) {
			return true
		}
	}
	return false
}

// forbiddenTrailers are those without an ID.
var forbiddenTrailers = [...]string{"age", "cache-control", "content-range", "expires", "max-forwards", "pragma",
	"proxy-authenticate", "proxy-authorization", "range", "retry-after", "www-authenticate"}
