package main

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// What the origin serves: three sizes, by path, and one of them late. Any other path is answered like pathSmall.
const (
	pathSmall  = "/128"
	pathSlow   = "/slow" // as pathSmall, after slowAfter; in HTTP/1.1
	slowAfter  = 300 * time.Millisecond
	pathBulk   = "/1m"
	pathHuge   = "/100m" // in HTTP/1.1
	sizeSmall  = 128
	sizeBulk   = 1 << 20
	sizeHuge   = 100 << 20
	headMax    = 16 << 10 // of a request or an answer; more is an error
	answerHead = "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: application/octet-stream\r\nContent-Length: "
)

var (
	bodySmall     = body(sizeSmall)
	bodyBulk      = body(sizeBulk)
	answerSmall   = buildAnswer(sizeSmall)
	answerBulk    = buildAnswer(sizeBulk)
	answerRefused = []byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	endOfHead     = []byte("\r\n\r\n")
)

// answerHuge is built when somebody asks for it.
var answerHuge = sync.OnceValue(func() []byte { return buildAnswer(sizeHuge) })

// body is what an answer of size n carries: a pattern, so that the probe notices shifted bytes.
func body(n int) []byte {
	return bytes.Repeat([]byte(pattern), n/len(pattern))
}

const pattern = "0123456789abcdef"

func buildAnswer(size int) []byte {
	b := append(make([]byte, 0, size+headMax), answerHead...)
	b = strconv.AppendInt(b, int64(size), 10)
	b = append(b, endOfHead...)
	for range size / len(pattern) {
		b = append(b, pattern...)
	}
	return b
}

// answerTo chooses the answer to a request by its head. The peers are proxies and the head is well-formed or the
// measurement is void, so this looks no further than at the request line and, for POST, the length.
func answerTo(head []byte) []byte {
	if path, ok := bytes.CutPrefix(head, []byte("GET ")); ok {
		if bytes.HasPrefix(path, []byte(pathBulk+" ")) {
			return answerBulk
		}
		if bytes.HasPrefix(path, []byte(pathHuge+" ")) {
			return answerHuge()
		}
		return answerSmall
	}
	if bytes.HasPrefix(head, []byte("POST ")) && bodyOf(head) > 0 {
		return answerSmall
	}
	return answerRefused
}

// bodyOf is the length of a POST's body. One without a Content-Length is refused: no proxy has a reason to take the
// client's away.
func bodyOf(head []byte) int64 {
	if !bytes.HasPrefix(head, []byte("POST ")) {
		return 0
	}
	n, err := strconv.ParseInt(string(fieldOf(head, "content-length")), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// fieldOf finds a field of a head by its name in lower case; nil when it is not there.
func fieldOf(head []byte, name string) []byte {
	for line := range bytes.Lines(head) {
		if field, value, _ := bytes.Cut(line, []byte(":")); len(field) == len(name) && bytes.EqualFold(field, []byte(name)) {
			return bytes.TrimSpace(value)
		}
	}
	return nil
}

func sizeOf(path string) int {
	switch path {
	case pathBulk:
		return sizeBulk
	case pathHuge:
		return sizeHuge
	}
	return sizeSmall
}

// request is what clients of the bench send for path in HTTP/1.1.
func request(host, path string) []byte {
	return requestOf(load{host: host, path: path})
}

func requestOf(l load) []byte {
	method := "GET "
	if l.upload > 0 {
		method = "POST "
	}
	b := []byte(method + l.path + " HTTP/1.1\r\nHost: " + l.host + "\r\nUser-Agent: bench\r\nAccept: */*\r\n")
	if l.origin != "" {
		b = append(b, "Origin: "+l.origin+"\r\n"...)
	}
	if l.upload > 0 {
		b = fmt.Appendf(b, "Content-Length: %d\r\n", l.upload)
	}
	return append(append(b, "\r\n"...), body(l.upload)...)
}
