package main

import (
	"errors"
	"strings"
	"testing"
)

func TestAnswerParser(t *testing.T) {
	tests := []struct {
		name   string
		answer string
		status int
		length int64
		close  bool
		err    error
	}{
		{"usual", "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 3\r\n\r\nabc", 200, 3, false, nil},
		{"case, no blanks", "HTTP/1.1 200 OK\r\nCONTENT-LENGTH:3\r\nconnection:Close\r\n\r\nabc", 200, 3, true, nil},
		{"no body", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", 502, 0, false, nil},
		{"no reason", "HTTP/1.1 204\r\nContent-Length: 0\r\n\r\n", 204, 0, false, nil},
		{"other field of that ending", "HTTP/1.1 200 OK\r\nX-Content-Length: 9\r\nContent-Length: 0\r\n\r\n", 200, 0, false, nil},
		{"other protocol", "SSH-2.0-x\r\n\r\n", 0, 0, false, errNoAnswer},
		{"letters for a status", "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", 0, 0, false, errNoAnswer},
		{"no length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, 0, false, errNoLength},
		{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 200, 0, false, errNoLength},
		{"endless head", strings.Repeat("a", headMax+2), 0, 0, false, errHeadLong},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, step := range []int{len(test.answer), 1, 7} {
				p, err := feedInSteps(test.answer, step)
				if !errors.Is(err, test.err) {
					t.Fatalf("steps of %d: error %v, want %v", step, err, test.err)
				}
				if err == nil && (p.status != test.status || p.length != test.length || p.close != test.close) {
					t.Errorf("steps of %d: %+v", step, p)
				}
				if err == nil && p.size != int64(len(test.answer)) {
					t.Errorf("steps of %d: size %d of %d", step, p.size, len(test.answer))
				}
			}
		})
	}
}

// feedInSteps feeds an answer in pieces and expects it to be done at its end and not before.
func feedInSteps(answer string, step int) (answerParser, error) {
	var p answerParser
	p.reset()
	for from := 0; from < len(answer); from += step {
		to := min(from+step, len(answer))
		done, err := p.feed([]byte(answer[from:to]))
		if err != nil {
			return p, err
		}
		if done != (to == len(answer)) {
			return p, errors.New("done at the wrong byte")
		}
	}
	return p, nil
}

func TestAnswerParserRefusesMoreThanTheAnswer(t *testing.T) {
	var p answerParser
	if _, err := p.feed([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc")); err != errAnswerLong {
		t.Errorf("error %v", err)
	}
}

func TestAnswerRight(t *testing.T) {
	for name, p := range map[string]answerParser{
		"status": {status: 404, length: 128},
		"length": {status: 200, length: 127},
	} {
		if p.right(128) {
			t.Errorf("a wrong %s is right", name)
		}
	}
	if p := (answerParser{status: 200, length: 128}); !p.right(128) {
		t.Error("a right answer is wrong")
	}
}
