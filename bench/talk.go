package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// A talk is the client's side of one connection in some protocol. It does no I/O: it is fed what the peer said and
// appends what to say to a buffer. Whole answers are booked in a clientCount.
type talk interface {
	// greet appends what is said before the first request.
	greet(out []byte) []byte
	// room is how many requests may be asked now; 0 before the peer has said that it is ready.
	room() int
	// ask appends a request. Its latency is counted from since.
	ask(out []byte, since time.Time) []byte
	// feed takes what the peer said and appends what the protocol wants said in return.
	feed(b, out []byte) ([]byte, error)
	// underWay tells of each request without a whole answer since when its latency counts, and when it was sent or, if
	// that is later, something of its answer came.
	underWay(tell func(since, moved time.Time))
	// leaves tells that the peer wants to end the connection and nothing is under way.
	leaves() bool
}

func newTalk(l load, count *clientCount) talk {
	switch l.speaks {
	case speakHTTP2, speakGRPC:
		return newHTTP2Talk(l, count)
	case speakWebSocket:
		return &webSocketTalk{count: count, host: l.host}
	}
	t := &http1Talk{count: count, message: requestOf(l), size: answerSize(l)}
	for _, target := range l.targets {
		t.messages = append(t.messages, request(target.host, target.path))
	}
	return t
}

// answerSize is the length of the body that the origin answers with.
func answerSize(l load) int {
	if l.upload > 0 {
		return sizeSmall
	}
	return sizeOf(l.path)
}

// http1Talk asks one request at a time.
type http1Talk struct {
	count    *clientCount
	message  []byte
	messages [][]byte // of several targets
	size     int
	answer   answerParser
	since    time.Time
	moved    time.Time
	busy     bool
}

func (t *http1Talk) greet(out []byte) []byte { return out }

func (t *http1Talk) room() int {
	if t.busy || t.answer.close {
		return 0
	}
	return 1
}

func (t *http1Talk) ask(out []byte, since time.Time) []byte {
	t.answer.reset()
	t.busy, t.since, t.moved = true, since, t.count.now
	if len(t.messages) > 0 {
		return append(out, t.messages[rand.IntN(len(t.messages))]...)
	}
	return append(out, t.message...)
}

func (t *http1Talk) feed(b, out []byte) ([]byte, error) {
	if !t.busy {
		return out, errAnswerLong
	}
	t.moved = t.count.now
	done, err := t.answer.feed(b)
	if t.count.seen != nil {
		t.count.seen.Write(b)
	}
	if done {
		t.busy = false
		t.count.answered(t.answer.right(t.size), t.since)
	}
	return out, err
}

func (t *http1Talk) underWay(tell func(since, moved time.Time)) {
	if t.busy {
		tell(t.since, t.moved)
	}
}

func (t *http1Talk) leaves() bool { return t.answer.close && !t.busy }

// converse makes one request of l on an open connection and reads its answer to the end, whatever the protocol. It
// answers an error unless the answer is the origin's.
func converse(conn net.Conn, l load, count *clientCount) error {
	t := newTalk(l, count)
	right, bad := count.requests, count.bad
	asked := false
	out := t.greet(nil)
	buf := make([]byte, clientReadBytes)
	for {
		if !asked && t.room() > 0 {
			asked = true
			out = t.ask(out, time.Now())
		}
		if len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return err
			}
		}
		n, err := conn.Read(buf)
		if n == 0 && err != nil {
			return unexpected(err)
		}
		if out, err = t.feed(buf[:n], out[:0]); err != nil {
			return err
		}
		switch {
		case count.requests > right:
			return nil
		case count.bad > bad:
			return fmt.Errorf("%w: %w", errNotTheOrigin, describe(t))
		}
	}
}

var errNotTheOrigin = errors.New("not the origin's answer")

// A refusal is an answer with a status that says no.
type refusal struct{ status int }

func (r refusal) Error() string { return fmt.Sprintf("status %d", r.status) }

// describe says what the last bad answer was.
func describe(t talk) error {
	status, length := 0, int64(0)
	switch t := t.(type) {
	case *http1Talk:
		status, length = t.answer.status, t.answer.length
	case *http2Talk:
		status, length = t.last.status, t.last.length
	}
	if status >= 400 {
		return refusal{status}
	}
	return fmt.Errorf("status %d with %d bytes", status, length)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// holds says whether what a probe saw ends with the body of an answer of that size.
func holds(seen *bytes.Buffer, size int) bool { return bytes.HasSuffix(seen.Bytes(), body(size)) }
