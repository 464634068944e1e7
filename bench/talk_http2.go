package main

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// grpcPrefix is what stands before each message of gRPC: a flag and its length.
const grpcPrefix = 5

// grpcPath is the method that calls are made of; the origin answers every call with sizeSmall bytes.
const grpcPath = "/bench.Origin/Small"

// http2Talk asks up to so many requests at once, each on a stream of its own.
type http2Talk struct {
	*http2Conn
	count  *clientCount
	load   load
	most   int
	size   int // of the answer's body
	nextID uint32
	active map[uint32]*http2Answer
	spare  []*http2Answer
	fields []hpack.HeaderField
	told   bool   // the head has been sent once
	short  []byte // the head, compressed, once the peer's table holds its fields
	body   []byte
	last   http2Answer // that was not right
}

// An http2Answer is one under way.
type http2Answer struct {
	since  time.Time
	moved  time.Time
	status int
	grpc   int // status of the call; -1 before it came
	length int64
}

func newHTTP2Talk(l load, count *clientCount) *http2Talk {
	t := &http2Talk{count: count, load: l, most: max(1, l.streams), size: answerSize(l), nextID: 1, active: map[uint32]*http2Answer{}}
	t.http2Conn = newHTTP2Conn(t)
	method, path, scheme := "GET", l.path, "http"
	if l.tls != nil {
		scheme = "https"
	}
	if l.upload > 0 {
		method, t.body = "POST", body(l.upload)
	}
	if l.speaks == speakGRPC {
		method, path = "POST", grpcPath
		t.body = grpcMessage(sizeSmall)
		t.size = grpcPrefix + sizeSmall
	}
	t.fields = []hpack.HeaderField{
		{Name: ":method", Value: method}, {Name: ":scheme", Value: scheme},
		{Name: ":authority", Value: l.host}, {Name: ":path", Value: path},
		{Name: "user-agent", Value: "bench"}, {Name: "accept", Value: "*/*"},
	}
	switch {
	case l.speaks == speakGRPC:
		t.fields = append(t.fields[:5], hpack.HeaderField{Name: "content-type", Value: "application/grpc"},
			hpack.HeaderField{Name: "te", Value: "trailers"})
	case l.upload > 0:
		t.fields = append(t.fields, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(l.upload)})
	}
	return t
}

// grpcMessage is one message of n bytes with its prefix.
func grpcMessage(n int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(n))
	return append(b, body(n)...)
}

func (t *http2Talk) greet(out []byte) []byte { return appendSettings(append(out, clientPreface...)) }

func (t *http2Talk) room() int {
	if !t.settled || t.leaving || t.nextID > windowMost-2 {
		return 0
	}
	return min(t.most, int(t.streamsMost)) - len(t.active)
}

func (t *http2Talk) ask(out []byte, since time.Time) []byte {
	id := t.nextID
	t.nextID += 2
	t.active[id] = t.answer(since)
	flags := http2.FlagHeadersEndHeaders
	if len(t.body) == 0 {
		flags |= http2.FlagHeadersEndStream
	}
	head := t.requestHead()
	out = append(appendFrame(out, len(head), http2.FrameHeaders, flags, id), head...)
	if len(t.body) > 0 {
		out = t.send(id, t.body, nil, out)
	}
	return out
}

// requestHead is the request's head: in full the first time, then as references to what the peer has kept.
func (t *http2Talk) requestHead() []byte {
	if t.short != nil {
		return t.short
	}
	head := t.encode(t.fields)
	if t.told {
		t.short = head
	}
	t.told = true
	return head
}

func (t *http2Talk) answer(since time.Time) *http2Answer {
	if n := len(t.spare); n > 0 {
		a := t.spare[n-1]
		t.spare = t.spare[:n-1]
		*a = http2Answer{since: since, moved: t.count.now, grpc: -1}
		return a
	}
	return &http2Answer{since: since, moved: t.count.now, grpc: -1}
}

func (t *http2Talk) head(id uint32, fields []hpack.HeaderField, last bool, out []byte) ([]byte, error) {
	a := t.active[id]
	if a == nil {
		return out, fmt.Errorf("HTTP/2: a head on stream %d, which is not open", id)
	}
	a.moved = t.count.now
	for _, f := range fields {
		switch f.Name {
		case ":status":
			a.status, _ = strconv.Atoi(f.Value) // 0 is wrong as well
		case "grpc-status":
			a.grpc, _ = strconv.Atoi(f.Value)
			if f.Value != "0" && a.grpc == 0 {
				a.grpc = -1
			}
		}
	}
	t.done(id, a, last)
	return out, nil
}

func (t *http2Talk) data(id uint32, b []byte, last bool, out []byte) ([]byte, error) {
	a := t.active[id]
	if a == nil {
		return out, fmt.Errorf("HTTP/2: data on stream %d, which is not open", id)
	}
	a.moved = t.count.now
	a.length += int64(len(b))
	if t.count.seen != nil {
		t.count.seen.Write(b)
	}
	t.done(id, a, last)
	return out, nil
}

// done books an answer that is whole.
func (t *http2Talk) done(id uint32, a *http2Answer, last bool) {
	if !last {
		return
	}
	right := a.status == 200 && a.length == int64(t.size) && (t.load.speaks != speakGRPC || a.grpc == 0)
	if !right {
		t.last = *a
	}
	t.count.answered(right, a.since)
	t.drop(id) // an answer may come before its request has been sent whole
	delete(t.active, id)
	t.spare = append(t.spare, a)
}

func (t *http2Talk) reset(id uint32) error {
	if t.active[id] == nil {
		return nil // after its answer: the peer needs no more of the request
	}
	return fmt.Errorf("HTTP/2: stream %d was reset", id)
}

func (t *http2Talk) underWay(tell func(since, moved time.Time)) {
	for _, a := range t.active {
		tell(a.since, a.moved)
	}
}

func (t *http2Talk) leaves() bool { return t.leaving && len(t.active) == 0 }
