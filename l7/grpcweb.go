package l7

import (
	"bytes"
	"encoding/binary"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// This file translates gRPC-Web (PROTOCOL-WEB.md of grpc/grpc) for routes whose policy asks for it. To the backend the call is
// gRPC, over HTTP/2. To the client, which sees no trailers, the call's end is the last message of the body, marked by a bit of its
// flags. The messages before it are the same in both, and in the text form all is base64:
//
//	client                                                backend
//	POST application/grpc-web[-text] ──► web.readText ──► POST application/grpc, te: trailers
//	200, messages, trailers' message ◄──── relayWeb ◄──── 200, messages, trailers
//
// docs/decisions/0035-grpc-web.md.

// Limits of translation.
const (
	webTextBytes = 12 << 10 // of a body that are turned into base64, or out of it, in one go
	webBufKept   = 32 << 10 // a larger buffer is not kept
	websIdleMax  = 64       // translations that a loop keeps for reuse
)

// webTrailers is the flag of the message that holds the trailers.
const webTrailers = 0x80

// A web is the translation of one gRPC-Web call. It belongs to its exchange, or waits in its loop's pool.
type web struct {
	kind    []byte // the request's content type
	textIn  bool   // the request's body is base64
	textOut bool   // the response's shall be
	te      bool   // the client's own TE: trailers
	begun   bool   // the answer is a call's, its head has been translated
	last    bool   // the call's end stands in out

	req  wire.Request // textIn: what the backend is sent
	from base64Reader
	in   []byte

	to       base64Writer
	out      []byte // what the client gets next, of which sent bytes have gone
	sent     int
	messages messageScanner
	held     []wire.Field // of the end, that came in the head
}

// web gives an empty translation.
func (p *local) web() *web {
	if n := len(p.webs); n > 0 {
		w := p.webs[n-1]
		p.webs = p.webs[:n-1]
		return w
	}
	return new(web)
}

// releaseWeb takes a translation back.
func (p *local) releaseWeb(w *web) {
	if cap(w.in) > webBufKept {
		w.in = nil
	}
	if cap(w.out) > webBufKept {
		w.out = nil
	}
	clear(w.held)
	*w = web{in: w.in[:0], out: w.out[:0], held: w.held[:0]}
	if len(p.webs) < websIdleMax {
		p.webs = append(p.webs, w)
	}
}

var (
	webType     = []byte("application/grpc-web")
	webTextType = []byte("application/grpc-web-text")
	wordText    = []byte("-text")
)

// isWeb tells whether a content type is gRPC-Web's, and whether the text form's. suffix is what says how its messages are encoded.
func isWeb(v []byte) (suffix []byte, text, ok bool) {
	n := len(webType)
	if len(v) < n || !wire.EqualFold(v[:n], webType) {
		return nil, false, false
	}
	suffix = v[n:]
	if m := len(wordText); len(suffix) >= m && wire.EqualFold(suffix[:m], wordText) {
		suffix, text = suffix[m:], true
	}
	return suffix, text, len(suffix) == 0 || suffix[0] == '+' || suffix[0] == ';'
}

// callWeb makes a gRPC call of a gRPC-Web one. What a backend of HTTP/1.1 is sent stays as it is: it may speak gRPC-Web itself.
func (x *Exchange) callWeb() {
	kind := wire.Get(x.Req.Fields, wire.FieldContentType)
	suffix, text, ok := isWeb(kind)
	if !ok || x.Req.Method != wire.MethodPost || x.Route.Cluster != nil && !x.Route.Cluster.HTTP2() {
		return
	}
	w := x.local.web()
	x.web, x.grpc = w, true
	w.kind, w.textIn, w.textOut, w.te = kind, text, text, x.Req.TETrailers
	if accept := wire.Get(x.Req.Fields, wire.FieldAccept); accept != nil {
		w.textOut = acceptsText(accept, text)
	}
	if v := wire.GetName(x.Req.Fields, "grpc-timeout"); v != nil {
		x.callTimeout = grpcTimeout(v)
	}
	x.SetRequest(wire.FieldContentType, nameContentType, x.webKind(grpcType, suffix))
	x.Req.Fields = wire.DeleteName(wire.Delete(x.Req.Fields, wire.FieldAccept), "x-grpc-web")
	x.Req.TETrailers = true
}

// webKind puts a content type together.
func (x *Exchange) webKind(base, suffix []byte) []byte {
	return x.Arena.Commit(append(append(x.Arena.Reserve(len(base)+len(suffix)), base...), suffix...))
}

// acceptsText tells by an Accept field whether the text form is wanted; usual holds where it does not speak of gRPC-Web.
func acceptsText(accept []byte, usual bool) bool {
	for item := []byte(nil); len(accept) > 0; {
		item, accept, _ = bytes.Cut(accept, comma)
		if _, text, ok := isWeb(bytes.TrimSpace(item)); ok {
			return text
		}
	}
	return usual
}

var comma = []byte(",")

// duplex tells whether the exchange is a call in which either side may speak at any time. In a call of gRPC-Web the client says
// all before it hears anything.
func (x *Exchange) duplex() bool { return x.grpc && x.web == nil }

// outgoing is the request as the backend is sent it. A body in base64 goes decoded, so its length is not known.
func (x *Exchange) outgoing() *wire.Request {
	w := x.web
	if w == nil || !w.textIn || x.Req.Framing == wire.FramingNone {
		return &x.Req
	}
	w.req = x.Req
	w.req.Framing, w.req.ContentLength = wire.FramingChunked, 0
	return &w.req
}

// readText is the client's ReadBody for a body in base64.
func (x *Exchange) readText(most int) ([]byte, *fastpath.Error) {
	w := x.web
	for {
		b, err := x.client.ReadBody(min(most, webTextBytes))
		if err == fastpath.ErrEOF && w.from.n > 0 {
			err = errWebText
		}
		ok := true
		if w.in, ok = w.from.append(w.in[:0], b); !ok {
			err = errWebText
		}
		if err == errWebText {
			x.bodies.keep = false
			return nil, err
		}
		if len(w.in) > 0 || err != nil {
			return w.in, err
		}
	}
}

var errWebText = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindMalformed, Text: "a body of application/grpc-web-text is not base64"}

var messageWebText = []byte(errWebText.Text)

// beginWeb translates the head of a backend's answer. What is no answer to a call (a status or a content type that gRPC does not
// have) goes as it is: the client makes a status of its own of it, as one of gRPC does.
func (x *Exchange) beginWeb() {
	w, r := x.web, &x.Resp
	x.Req.TETrailers = w.te
	kind := wire.Get(r.Fields, wire.FieldContentType)
	if r.Status != 200 || !isGRPC(kind) {
		x.grpc = false
		return
	}
	w.begun = true
	base := webType
	if w.textOut {
		base = webTextType
	}
	only := wire.GetName(r.Fields, "grpc-status") != nil
	fields := r.Fields[:0]
	for _, f := range r.Fields {
		switch {
		case f.ID == wire.FieldContentType:
			f.Value = x.webKind(base, kind[len(grpcType):])
		case f.ID == wire.FieldTrailer:
			continue
		case only && isEnd(f.Name):
			w.held = append(w.held, f)
			continue
		case only && f.ID == wire.FieldOther && !hasPrefixFold(f.Name, "access-control-"):
			w.held = append(w.held, f) // such a head is the call's trailers, too
		}
		fields = append(fields, f)
	}
	r.Fields = fields
	r.Framing, r.ContentLength, r.Unsaid = wire.FramingChunked, -1, false
}

// isEnd tells the names that say how a call ended.
func isEnd(name []byte) bool {
	return wire.EqualFold(name, nameGRPCStatus) || wire.EqualFold(name, nameGRPCMessage) || wire.EqualFold(name, nameGRPCDetails)
}

var nameGRPCDetails = []byte("grpc-status-details-bin")

func hasPrefixFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && wire.EqualFold(b[:len(prefix)], []byte(prefix))
}

// relayWeb is relay for an answer that is translated.
func (x *Exchange) relayWeb() {
	f, w := &x.fwd, x.web
	for moved := 0; f.stream != nil; {
		room := x.client.Room()
		if room == 0 {
			f.stream.SetTimeout(x.within(0)) // it is the client that is waited for
			return
		}
		if n := len(w.out) - w.sent; n > 0 || w.last {
			if x.sendWeb(min(n, room)); w.last && w.sent == len(w.out) {
				x.endResponse()
				return
			}
			continue
		}
		if x.Route.Policy.Rate > 0 {
			if room = x.paced(room); room == 0 {
				return
			}
		}
		if moved >= relayBytes {
			x.relayAgain()
			return
		}
		if w.textOut {
			room = min(room, webTextBytes)
		}
		b, err := f.stream.ReadBody(room)
		if len(b) > 0 {
			moved += len(b)
			f.got += int64(len(b))
			x.passWeb(b)
			continue
		}
		switch {
		case err == fastpath.ErrEOF:
			x.lastWeb(f.stream.Trailers())
		case err != fastpath.ErrWouldBlock:
			x.failed(err)
			return
		case w.textOut && w.to.n > 0: // the client shall have all that is there
			w.out = w.to.end(w.out)
		default:
			f.stream.SetTimeout(x.within(x.readTimeout()))
			return
		}
	}
}

// passWeb moves messages on: as they are, or into out as base64.
func (x *Exchange) passWeb(b []byte) {
	w := x.web
	w.messages.pass(b)
	if w.textOut {
		w.out = w.to.append(w.out, b)
		return
	}
	if err := x.client.WriteBody(b); err != nil {
		x.failed(err)
	}
}

// sendWeb writes n bytes of out, which the client has room for.
func (x *Exchange) sendWeb(n int) {
	w := x.web
	b := w.out[w.sent : w.sent+n]
	if w.sent += n; w.sent == len(w.out) && !w.last {
		w.out, w.sent = w.out[:0], 0
	}
	if n == 0 {
		return
	}
	if err := x.client.WriteBody(b); err != nil {
		x.failed(err)
	}
}

// lastWeb is the end of a backend's answer: its trailers are the last message. A call that ends without a status is one that gRPC
// does not know.
func (x *Exchange) lastWeb(trailers []wire.Field) {
	w := x.web
	w.held = append(w.held, trailers...)
	if wire.GetName(w.held, "grpc-status") == nil {
		w.held = append(w.held, wire.Field{Name: nameGRPCStatus, Value: statusInternal}, wire.Field{Name: nameGRPCMessage, Value: messageNoStatus})
	}
	x.endWeb(w.held)
}

var (
	statusInternal  = []byte("13")
	messageNoStatus = []byte("the backend ended the call without a status")
)

// endWeb puts the call's end behind what waits in out.
func (x *Exchange) endWeb(trailers []wire.Field) {
	w := x.web
	if w.last = true; !w.textOut {
		w.out = appendWebTrailers(w.out, trailers)
		return
	}
	w.in = appendWebTrailers(w.in[:0], trailers) // nobody reads what was in it any more
	w.out = w.to.end(w.to.append(w.out, w.in))
}

// appendWebTrailers appends the message that holds the trailers: lines as in a head, names in lower case. Those that must never
// come late are left out.
func appendWebTrailers(dst []byte, trailers []wire.Field) []byte {
	at := len(dst)
	dst = append(dst, webTrailers, 0, 0, 0, 0)
	for i := range trailers {
		f := &trailers[i]
		if wire.ForbiddenTrailer(f.Name) {
			continue
		}
		for _, c := range f.Name {
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			dst = append(dst, c)
		}
		dst = append(append(append(dst, ": "...), f.Value...), lineEnd...)
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-messageHead))
	return dst
}

// answerWeb turns an error of the proxy's own into an answer whose body is the call's end alone, and returns that body.
func (x *Exchange) answerWeb(status int) []byte {
	w, r := x.web, &x.Resp
	base := webType
	if w.textOut {
		base = webTextType
	}
	suffix, _, _ := isWeb(w.kind)
	r.Fields = wire.Set(r.Fields, wire.FieldContentType, x.webKind(base, suffix))
	w.out, w.sent, w.to = w.out[:0], 0, base64Writer{}
	w.held = x.appendGRPCStatus(w.held[:0], status, x.err)
	x.endWeb(w.held)
	r.ContentLength = int64(len(w.out))
	return w.out
}

// endWebCall ends a call whose answer has begun; false: it stands within a message, or its end is under way already.
func (x *Exchange) endWebCall(err *fastpath.Error) bool {
	w := x.web
	if w.last || !w.messages.whole() {
		return false
	}
	w.held = x.appendGRPCStatus(w.held[:0], statusOf(err), err)
	x.endWeb(w.held)
	return x.client.WriteBody(w.out[w.sent:]) == nil && x.client.EndBody(nil) == nil
}

// messageHead is what stands before each message: flags and its length.
const messageHead = 5

// A messageScanner follows the messages of a call, to know whether one is complete.
type messageScanner struct {
	head [messageHead]byte
	n    int    // bytes of the head that have come
	left uint32 // bytes of the message that have not
}

func (s *messageScanner) pass(b []byte) {
	for len(b) > 0 {
		if s.left > 0 {
			n := min(uint64(s.left), uint64(len(b)))
			s.left -= uint32(n)
			b = b[n:]
			continue
		}
		n := copy(s.head[s.n:], b)
		b = b[n:]
		if s.n += n; s.n == messageHead {
			s.n, s.left = 0, binary.BigEndian.Uint32(s.head[1:])
		}
	}
}

func (s *messageScanner) whole() bool { return s.n == 0 && s.left == 0 }
