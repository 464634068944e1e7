package main

import (
	"bytes"
	"strconv"
)

// What the origin serves: two sizes, by path. Any other path is answered like pathSmall.
const (
	pathSmall  = "/128"
	pathBulk   = "/1m"
	sizeSmall  = 128
	sizeBulk   = 1 << 20
	headMax    = 16 << 10 // of a request or an answer; more is an error
	answerHead = "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: application/octet-stream\r\nContent-Length: "
)

var (
	answerSmall   = buildAnswer(sizeSmall)
	answerBulk    = buildAnswer(sizeBulk)
	answerRefused = []byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	endOfHead     = []byte("\r\n\r\n")
)

// body is what an answer of size n carries: a pattern, so that the probe notices shifted bytes.
func body(n int) []byte {
	return bytes.Repeat([]byte("0123456789abcdef"), n/16)
}

func buildAnswer(size int) []byte {
	b := []byte(answerHead)
	b = strconv.AppendInt(b, int64(size), 10)
	b = append(b, endOfHead...)
	return append(b, body(size)...)
}

// answerTo chooses the answer to a request by its head. The peers are proxies and the head is well-formed or the
// measurement is void, so this looks no further than at the request line.
func answerTo(head []byte) []byte {
	path, ok := bytes.CutPrefix(head, []byte("GET "))
	switch {
	case !ok:
		return answerRefused
	case bytes.HasPrefix(path, []byte(pathBulk+" ")):
		return answerBulk
	}
	return answerSmall
}

func sizeOf(path string) int {
	if path == pathBulk {
		return sizeBulk
	}
	return sizeSmall
}

// request is what every client of the bench sends for path.
func request(host, path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
}
