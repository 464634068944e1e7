package filter

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// Compress compresses what backends answer, for clients that accept it: as nginx's gzip filter does, with status 200, 403
// and 404, to requests of HTTP/1.1 and later, and not where a coding stands already or the answer says no-transform. The
// best coding that both sides have is taken: brotli, then zstd, then gzip.
type Compress struct {
	Gzip, Brotli, Zstd Coding
	NoGzip             string // user agents for which gzip is not used: an expression (RE2), in any case, or "msie6"; "": none
}

// Coding is one of Compress's.
type Coding struct {
	On        bool
	Level     int
	MinLength int64  // of bodies whose length is known
	Types     string // media types separated by blanks, "*": all; text/html always
}

// Stage is the body stage.
func (Compress) Stage() Stage { return Body }

// Bounds of encoders' memory.
const (
	brotliWindowBits = 18
	zstdWindowBytes  = 256 << 10
)

// A codingKind is what a coding's levels are, and what an encoder of each holds, measured with the windows above
// (TestEncodersHold). From the level slow on no loop computes it.
type codingKind struct {
	name      string
	low, high int
	slow      int
	bytes     func(level int) int
	make      func(level int) l7.Encoder
}

const mebibyte = 1 << 20

var brotliKind = codingKind{name: "br", low: 0, high: 11, slow: 5,
	bytes: func(level int) int {
		return [...]int{mebibyte, mebibyte, 3 * mebibyte, 3 * mebibyte, 3 * mebibyte, 5 * mebibyte, 5 * mebibyte, 12 * mebibyte, 24 * mebibyte, 40 * mebibyte,
			24 * mebibyte, 24 * mebibyte}[level]
	},
	make: func(level int) l7.Encoder {
		return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: level, LGWin: brotliWindowBits})
	}}

var zstdKind = codingKind{name: "zstd", low: 1, high: 22, slow: 7,
	bytes: func(level int) int {
		return [...]int{0, 2 * mebibyte, 3 * mebibyte, 6 * mebibyte, 40 * mebibyte}[zstd.EncoderLevelFromZstd(level)]
	},
	make: func(level int) l7.Encoder {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstdWindowBytes), zstd.WithLowerEncoderMem(true),
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)))
		if err != nil {
			panic(err) // the options are constants
		}
		return w
	}}

var gzipKind = codingKind{name: "gzip", low: 1, high: 9, slow: 7,
	bytes: func(int) int { return 3 * mebibyte / 2 },
	make: func(level int) l7.Encoder {
		w, err := gzip.NewWriterLevel(nil, level)
		if err != nil {
			panic(err) // the level was checked
		}
		return w
	}}

// Compile refuses levels that the coding does not have, and an expression that RE2 lacks.
func (c Compress) Compile(*State) (l7.Filter, error) {
	f := &compress{}
	for _, k := range []struct {
		kind *codingKind
		Coding
	}{{&brotliKind, c.Brotli}, {&zstdKind, c.Zstd}, {&gzipKind, c.Gzip}} { // the best one first
		if !k.On {
			continue
		}
		if k.Level < k.kind.low || k.Level > k.kind.high {
			return l7.Filter{}, fmt.Errorf("compress: %s has levels %d to %d, not %d", k.kind.name, k.kind.low, k.kind.high, k.Level)
		}
		one := coding{codec: codecOf(k.kind, k.Level), min: k.MinLength, types: [][]byte{[]byte("text/html")}}
		for _, t := range strings.Fields(k.Types) {
			one.all = one.all || t == "*"
			one.types = append(one.types, []byte(t))
		}
		if k.kind == &gzipKind && c.NoGzip != "" {
			e := NewExpression("(?i)" + c.NoGzip)
			if err := e.Compile(); err != nil {
				return l7.Filter{}, fmt.Errorf("compress: %q: %w", c.NoGzip, err)
			}
			if one.notFor = e.Match; c.NoGzip == "msie6" {
				one.notFor = oldExplorer
			}
		}
		f.codings = append(f.codings, one)
	}
	return l7.Filter{Response: f}, nil
}

// codecs are shared by all filters: there are as many as codings have levels.
var codecs sync.Map // codecKey → *l7.Codec

type codecKey struct {
	name  string
	level int
}

func codecOf(k *codingKind, level int) *l7.Codec {
	c, _ := codecs.LoadOrStore(codecKey{k.name, level}, &l7.Codec{Name: []byte(k.name), Bytes: k.bytes(level), Slow: level >= k.slow,
		New: func() l7.Encoder { return k.make(level) }})
	return c.(*l7.Codec)
}

type compress struct{ codings []coding }

type coding struct {
	codec  *l7.Codec
	min    int64
	types  [][]byte
	all    bool
	notFor func(agent []byte) bool // nil: for all
}

var (
	nameVary            = []byte("Vary")
	nameETag            = []byte("ETag")
	nameContentEncoding = []byte("Content-Encoding")
	wordAcceptEncoding  = []byte("Accept-Encoding")
	wordNoTransform     = []byte("no-transform")
)

func (f *compress) Response(x *l7.Exchange) {
	r := &x.Resp
	if r.Status != 200 && r.Status != 403 && r.Status != 404 || x.Req.Method == wire.MethodHead || r.Framing == wire.FramingNone ||
		r.Framing == wire.FramingLength && r.ContentLength == 0 || wire.Get(r.Fields, wire.FieldContentEncoding) != nil || listHas(r.Fields, "Cache-Control", wordNoTransform) {
		return
	}
	mediaType, _, _ := bytes.Cut(wire.Get(r.Fields, wire.FieldContentType), semicolon)
	mediaType = bytes.TrimSpace(mediaType)
	varies := false
	for i := range f.codings {
		k := &f.codings[i]
		if !k.takes(mediaType) || r.Framing == wire.FramingLength && r.ContentLength < k.min {
			continue
		}
		varies = true
		if x.Req.Minor == 0 || !accepts(x.Req.Fields, k.codec.Name) ||
			k.notFor != nil && k.notFor(wire.Get(x.Req.Fields, wire.FieldUserAgent)) || !x.Encode(k.codec) {
			continue
		}
		x.SetResponse(wire.FieldContentEncoding, nameContentEncoding, k.codec.Name)
		r.Fields = wire.DeleteName(r.Fields, "accept-ranges")
		if tag := wire.Get(r.Fields, wire.FieldETag); len(tag) > 0 && tag[0] == '"' {
			x.SetResponse(wire.FieldETag, nameETag, x.Arena.Commit(append(append(x.Arena.Reserve(2+len(tag)), "W/"...), tag...)))
		} else if len(tag) > 0 && tag[0] != 'W' {
			r.Fields = wire.Delete(r.Fields, wire.FieldETag)
		}
		break
	}
	if varies {
		varyBy(x, wordAcceptEncoding)
	}
}

// varyBy says that the answer depends on a field of the request (RFC 9110 12.5.5), if the backend has not.
func varyBy(x *l7.Exchange, field []byte) {
	r := &x.Resp
	if wire.Get(r.Fields, wire.FieldVary) != nil && (listHas(r.Fields, "Vary", field) || listHas(r.Fields, "Vary", wordStar)) {
		return
	}
	r.Fields = append(r.Fields, wire.Field{Name: nameVary, Value: field, ID: wire.FieldVary})
}

var semicolon = []byte(";")

func (k *coding) takes(mediaType []byte) bool {
	if len(mediaType) == 0 {
		return false
	}
	if k.all {
		return true
	}
	for _, t := range k.types {
		if wire.EqualFold(t, mediaType) {
			return true
		}
	}
	return false
}

// oldExplorer tells Internet Explorer 4, 5 and 6, but for 6 with Windows XP's second service pack: nginx's "msie6".
func oldExplorer(agent []byte) bool {
	i := bytes.Index(agent, wordExplorer)
	if i < 0 || i+7 >= len(agent) || agent[i+6] != '.' {
		return false
	}
	version := agent[i+5]
	return version == '4' || version == '5' || version == '6' && !bytes.Contains(agent[i+8:], wordServicePack)
}

var wordExplorer, wordServicePack = []byte("MSIE "), []byte("SV1")

// listHas tells whether a list has a member, in any case.
func listHas(fields []wire.Field, name string, member []byte) bool {
	for i := range fields {
		if len(fields[i].Name) != len(name) || !wire.EqualFold(fields[i].Name, []byte(name)) {
			continue
		}
		for rest, item := fields[i].Value, []byte(nil); len(rest) > 0; {
			item, rest, _ = bytes.Cut(rest, comma)
			if wire.EqualFold(bytes.TrimSpace(item), member) {
				return true
			}
		}
	}
	return false
}

var comma = []byte(",")

// accepts tells whether Accept-Encoding takes a coding (RFC 9110 12.5.3). Its own weight counts before that of "*".
func accepts(fields []wire.Field, name []byte) bool {
	any := false
	for i := range fields {
		if fields[i].ID != wire.FieldAcceptEncoding {
			continue
		}
		for rest, item := fields[i].Value, []byte(nil); len(rest) > 0; {
			item, rest, _ = bytes.Cut(rest, comma)
			word, weight, _ := bytes.Cut(item, semicolon)
			word = bytes.TrimSpace(word)
			switch {
			case wire.EqualFold(word, name):
				return !zeroWeight(weight)
			case len(word) == 1 && word[0] == '*':
				any = !zeroWeight(weight)
			}
		}
	}
	return any
}

// zeroWeight tells q=0, q=0.0 and so on.
func zeroWeight(b []byte) bool {
	b = bytes.TrimSpace(b)
	if len(b) < 3 || b[0]|0x20 != 'q' || b[1] != '=' {
		return false
	}
	for _, c := range b[2:] {
		if c != '0' && c != '.' {
			return false
		}
	}
	return true
}
