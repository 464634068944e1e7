package main

import (
	"bytes"
	"errors"
	"strconv"
)

// An answerParser takes one HTTP/1.1 answer in pieces of any size. It knows what the origin's answers need and
// no more: a Content-Length is required, for a proxy has no reason to take it away.
type answerParser struct {
	head   []byte // of an answer that came in pieces
	inBody bool
	status int
	length int64
	rest   int64 // of the body, still to come
	size   int64 // head and body
	close  bool  // the proxy said it will close
}

var (
	errHeadLong    = errors.New("the answer's head is too long")
	errNoAnswer    = errors.New("the answer is not HTTP/1.1")
	errNoLength    = errors.New("the answer has no usable Content-Length")
	errAnswerLong  = errors.New("more bytes than the answer has")
	httpVersion    = []byte("HTTP/1.1 ")
	lengthField    = []byte("content-length")
	closeField     = []byte("connection")
	closeToken     = []byte("close")
	bytesEndOfLine = []byte("\r\n")
)

// reset makes p ready for the next answer.
func (p *answerParser) reset() {
	*p = answerParser{head: p.head[:0]}
}

// right says whether a whole answer is the one that was asked for.
func (p *answerParser) right(size int) bool {
	return p.status == 200 && p.length == int64(size)
}

// feed takes the next bytes and answers true when they complete the answer.
func (p *answerParser) feed(b []byte) (bool, error) {
	if !p.inBody {
		var err error
		if b, err = p.feedHead(b); err != nil || !p.inBody {
			return false, err
		}
	}
	p.rest -= int64(len(b))
	if p.rest < 0 {
		return false, errAnswerLong
	}
	return p.rest == 0, nil
}

// feedHead takes bytes up to the end of the head and answers those behind it.
func (p *answerParser) feedHead(b []byte) ([]byte, error) {
	head := b
	if len(p.head) > 0 {
		p.head = append(p.head, b...)
		head = p.head
	}
	end := bytes.Index(head, endOfHead)
	switch {
	case end > headMax || end < 0 && len(head) > headMax:
		return nil, errHeadLong
	case end < 0 && len(p.head) == 0:
		p.head = append(p.head, b...)
		return nil, nil
	case end < 0:
		return nil, nil
	}
	p.inBody = true
	behind := head[end+len(endOfHead):]
	if err := p.parseHead(head[:end]); err != nil {
		return nil, err
	}
	p.size = int64(end+len(endOfHead)) + p.length
	p.rest = p.length
	return behind, nil
}

func (p *answerParser) parseHead(head []byte) error {
	status, found := bytes.CutPrefix(head, httpVersion)
	if !found || len(status) < 3 {
		return errNoAnswer
	}
	var err error
	if p.status, err = strconv.Atoi(string(status[:3])); err != nil {
		return errNoAnswer
	}
	p.length = -1
	_, rest, _ := bytes.Cut(head, bytesEndOfLine)
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, bytesEndOfLine)
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case len(name) == len(lengthField) && bytes.EqualFold(name, lengthField):
			if p.length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return errNoLength
			}
		case len(name) == len(closeField) && bytes.EqualFold(name, closeField):
			p.close = bytes.EqualFold(value, closeToken)
		}
	}
	if p.length < 0 {
		return errNoLength
	}
	return nil
}
