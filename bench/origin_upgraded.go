package main

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What the plain origin serves beyond HTTP/1.1: WebSocket, which sends back what it gets, and HTTP/2 by prior
// knowledge, which answers GET as HTTP/1.1 does and any call of gRPC with a message of sizeSmall bytes.

// webSocketKeyOf answers the key of a request for WebSocket, "" for any other.
func webSocketKeyOf(head []byte) string {
	if !bytes.HasPrefix(head, []byte("GET "+webSocketPath+" ")) || !bytes.EqualFold(fieldOf(head, "upgrade"), []byte("websocket")) {
		return ""
	}
	return string(fieldOf(head, "sec-websocket-key"))
}

func upgradeAnswer(key string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		webSocketAccept(key))
}

// webSocketOrigin sends every message back.
type webSocketOrigin struct{ partial []byte }

func (w *webSocketOrigin) take(b, out []byte, sum *tally) ([]byte, error) {
	w.partial = append(w.partial, b...)
	rest := w.partial
	for {
		m, err := parseMessage(rest)
		if err != nil || m.opcode == opcodeClose {
			return out, errWebSocket // the connection ends either way
		}
		if m.size == 0 {
			break
		}
		sum.Requests++
		sum.Bytes += uint64(len(m.payload))
		out = appendMessage(out, m.payload, nil)
		rest = rest[m.size:]
	}
	w.partial = append(w.partial[:0], rest...)
	return out, nil
}

// http2Origin is one connection of HTTP/2.
type http2Origin struct {
	*http2Conn
	greeted bool
	sum     *tally
	active  map[uint32]*http2Request
	heads   map[*savedHead][]byte // of answers, compressed; complete once each was sent twice
	sentTo  map[*savedHead]int
}

// An http2Request is one whose end has not come.
type http2Request struct {
	grpc bool
	bulk bool
}

// A savedHead is a head that the origin sends again and again.
type savedHead []hpack.HeaderField

var (
	headSmall   = savedHead{{Name: ":status", Value: "200"}, {Name: "server", Value: "origin"}, {Name: "content-length", Value: strconv.Itoa(sizeSmall)}}
	headBulk    = savedHead{{Name: ":status", Value: "200"}, {Name: "server", Value: "origin"}, {Name: "content-length", Value: strconv.Itoa(sizeBulk)}}
	headCall    = savedHead{{Name: ":status", Value: "200"}, {Name: "server", Value: "origin"}, {Name: "content-type", Value: "application/grpc"}}
	headCallEnd = savedHead{{Name: "grpc-status", Value: "0", Sensitive: true}} // never indexed: it may be sent out of turn, behind a window
	callSmall   = grpcMessage(sizeSmall)
)

func newHTTP2Origin() *http2Origin {
	o := &http2Origin{active: map[uint32]*http2Request{}, heads: map[*savedHead][]byte{}, sentTo: map[*savedHead]int{}}
	o.http2Conn = newHTTP2Conn(o)
	return o
}

func (o *http2Origin) take(b, out []byte, sum *tally) ([]byte, error) {
	if !o.greeted {
		o.greeted = true
		out = appendSettingsOf(out, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: windowOurs}})
	}
	o.sum = sum
	return o.feed(b, out)
}

func (o *http2Origin) head(id uint32, fields []hpack.HeaderField, last bool, out []byte) ([]byte, error) {
	r := o.active[id]
	if r == nil {
		r = &http2Request{}
		o.active[id] = r
	}
	for _, f := range fields {
		switch {
		case f.Name == "content-type":
			r.grpc = f.Value == "application/grpc"
		case f.Name == ":path":
			r.bulk = f.Value == pathBulk
		}
	}
	return o.answer(id, r, last, out), nil
}

func (o *http2Origin) data(id uint32, b []byte, last bool, out []byte) ([]byte, error) {
	o.sum.Bytes += uint64(len(b))
	if r := o.active[id]; r != nil {
		out = o.answer(id, r, last, out)
	}
	return out, nil
}

// answer answers a request that has come whole.
func (o *http2Origin) answer(id uint32, r *http2Request, last bool, out []byte) []byte {
	if !last {
		return out
	}
	delete(o.active, id)
	o.sum.Requests++
	switch {
	case r.grpc:
		end := o.frameOf(id, &headCallEnd, true)
		o.sum.Bytes += uint64(len(callSmall))
		return o.send(id, callSmall, end, append(out, o.frameOf(id, &headCall, false)...))
	case r.bulk:
		o.sum.Bytes += sizeBulk
		return o.send(id, bodyBulk, nil, append(out, o.frameOf(id, &headBulk, false)...))
	}
	o.sum.Bytes += sizeSmall
	return o.send(id, bodySmall, nil, append(out, o.frameOf(id, &headSmall, false)...))
}

// frameOf is the frame of a head: compressed in full the first time, then as references to the peer's table.
func (o *http2Origin) frameOf(id uint32, head *savedHead, last bool) []byte {
	flags := http2.FlagHeadersEndHeaders
	if last {
		flags |= http2.FlagHeadersEndStream
	}
	block := o.heads[head]
	if o.sentTo[head] < 2 {
		o.sentTo[head]++
		block = o.encode(*head)
		o.heads[head] = block
	}
	return append(appendFrame(make([]byte, 0, frameHeadBytes+len(block)), len(block), http2.FrameHeaders, flags, id), block...)
}

func (o *http2Origin) reset(id uint32) error {
	delete(o.active, id)
	return nil
}
