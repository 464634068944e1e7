package wire_test

import (
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
)

const wrkHead = "GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n"

const wrkHead2 = "GET /index.html HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: wrk/4.2\r\n\r\n"

const browserHead = "GET /shop/items?page=2&sort=price HTTP/1.1\r\n" +
	"Host: www.example.com\r\n" +
	"Connection: keep-alive\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: de-DE,de;q=0.9,en;q=0.8\r\n" +
	"Referer: https://www.example.com/shop\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; lang=de\r\n" +
	"Upgrade-Insecure-Requests: 1\r\n" +
	"Sec-Fetch-Mode: navigate\r\n\r\n"

const usualAnswer = "HTTP/1.1 200 OK\r\n" +
	"Date: Sun, 22 Nov 2026 10:00:00 GMT\r\n" +
	"Content-Type: text/html; charset=utf-8\r\n" +
	"Content-Length: 12345\r\n" +
	"Cache-Control: max-age=60\r\n" +
	"Server: nginx\r\n\r\n"

func benchRequest(b *testing.B, text string) {
	input, arena, r := []byte(text), &wire.Arena{}, &wire.Request{}
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		arena.Reset()
		skip, n, err := wire.RequestHeadEnd(input, 0, nil)
		if err != nil || n == 0 {
			b.Fatal(n, err)
		}
		if err := r.Parse(arena.Copy(input[skip:skip+n]), arena, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRequestWrk(b *testing.B)     { benchRequest(b, wrkHead) }
func BenchmarkRequestWrk2(b *testing.B)    { benchRequest(b, wrkHead2) }
func BenchmarkRequestBrowser(b *testing.B) { benchRequest(b, browserHead) }

// A path that must be normalised and re-encoded.
func BenchmarkRequestDots(b *testing.B) {
	benchRequest(b, "GET /a/b/../c%20d/%2e/e?q=1 HTTP/1.1\r\nHost: Example.COM.\r\n\r\n")
}

func BenchmarkRequestHeadEnd(b *testing.B) {
	input := []byte(browserHead)
	b.ReportAllocs()
	for b.Loop() {
		if _, n, _ := wire.RequestHeadEnd(input, 0, nil); n == 0 {
			b.Fatal()
		}
	}
}

func BenchmarkResponse(b *testing.B) {
	input, r := []byte(usualAnswer), &wire.Response{}
	b.ReportAllocs()
	b.SetBytes(int64(len(input)))
	for b.Loop() {
		n, err := wire.ResponseHeadEnd(input, 0, nil)
		if err != nil || n == 0 {
			b.Fatal(n, err)
		}
		if err := r.Parse(input[:n], wire.MethodGet, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func benchAppendRequest(b *testing.B, text string) {
	arena, r := &wire.Arena{}, &wire.Request{}
	if err := r.Parse([]byte(text), arena, nil); err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.AppendRequest(dst, r, wire.RequestOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRequestWrk(b *testing.B)     { benchAppendRequest(b, wrkHead2) }
func BenchmarkAppendRequestBrowser(b *testing.B) { benchAppendRequest(b, browserHead) }

func BenchmarkAppendResponse(b *testing.B) {
	r := &wire.Response{}
	if err := r.Parse([]byte(usualAnswer), wire.MethodGet, nil); err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.AppendResponse(dst, r, wire.ResponseOptions{KeepAlive: true, ClientMinor: 1}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChunkReader(b *testing.B) {
	body := wire.AppendChunkHeader(nil, 4096)
	body = append(append(body, make([]byte, 4096)...), wire.ChunkEnd...)
	body = append(body, wire.LastChunk...)
	var c wire.ChunkReader
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		c.Reset()
		for rest, done := body, false; !done; {
			var n int
			_, n, done, _ = c.Decode(rest, nil)
			rest = rest[n:]
		}
	}
}

func BenchmarkIDOf(b *testing.B) {
	names := [][]byte{[]byte("Accept-Encoding"), []byte("user-agent"), []byte("Sec-Fetch-Mode"), []byte("X-Forwarded-For")}
	for i := 0; b.Loop(); i++ {
		wire.IDOf(names[i&3])
	}
}
