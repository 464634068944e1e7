package wire_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// refused are the rows of docs/hardening.md that a request's bytes alone decide, named as there.
var refused = []struct {
	row, name, input string
	want             *fastpath.Error
}{
	{"CL + TE", "both", head("Content-Length: 3", "Transfer-Encoding: chunked"), wire.ErrContentLengthAndTE},
	{"CL + TE", "other order", head("Transfer-Encoding: chunked", "Content-Length: 3"), wire.ErrContentLengthAndTE},
	{"CL + TE", "before the coding is judged", head("Transfer-Encoding: gzip", "Content-Length: 3"), wire.ErrContentLengthAndTE},
	{"TE", "two lines", head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), wire.ErrTransferEncodings},
	{"TE", "chunked twice", head("Transfer-Encoding: chunked, chunked"), wire.ErrTransferEncoding},
	{"TE", "empty", head("Transfer-Encoding:"), wire.ErrTransferEncoding},
	{"TE", "empty element first", head("Transfer-Encoding: ,chunked"), wire.ErrTransferEncoding},
	{"TE", "empty element last", head("Transfer-Encoding: chunked,"), wire.ErrTransferEncoding},
	{"TE", "chunked not last", head("Transfer-Encoding: chunked, identity"), wire.ErrTransferEncoding},
	{"TE", "parameters", head("Transfer-Encoding: chunked;q=1"), wire.ErrTransferEncoding},
	{"TE", "quoted", head(`Transfer-Encoding: "chunked"`), wire.ErrTransferEncoding},
	{"TE", "vertical tab", head("Transfer-Encoding: \vchunked"), wire.ErrFieldValue},
	{"TE", "tab inside", head("Transfer-Encoding: chun\tked"), wire.ErrTransferEncoding},
	{"TE", "unknown coding", head("Transfer-Encoding: gzip, chunked"), wire.ErrTransferCoding},
	{"TE", "unknown coding alone", head("Transfer-Encoding: xchunked"), wire.ErrTransferCoding},
	{"TE", "identity", head("Transfer-Encoding: identity"), wire.ErrTransferCoding},
	{"TE in 1.0", "chunked", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", wire.ErrTransferEncodingIn10},
	{"CL", "empty", head("Content-Length:"), wire.ErrContentLength},
	{"CL", "sign", head("Content-Length: +5"), wire.ErrContentLength},
	{"CL", "minus", head("Content-Length: -5"), wire.ErrContentLength},
	{"CL", "hex", head("Content-Length: 0x5"), wire.ErrContentLength},
	{"CL", "underscore", head("Content-Length: 1_0"), wire.ErrContentLength},
	{"CL", "blank inside", head("Content-Length: 1 0"), wire.ErrContentLength},
	{"CL", "2^63", head("Content-Length: 9223372036854775808"), wire.ErrContentLength},
	{"CL", "2^64", head("Content-Length: 18446744073709551616"), wire.ErrContentLength},
	{"CL", "2^64 + 5", head("Content-Length: 18446744073709551621"), wire.ErrContentLength},
	{"CL", "list", head("Content-Length: 5, 5"), wire.ErrContentLength},
	{"CL", "two different", head("Content-Length: 5", "Content-Length: 6"), wire.ErrContentLengths},
	{"CL", "two equal", head("Content-Length: 5", "Content-Length: 5"), wire.ErrContentLengths},
	{"bare LF", "whole head", "GET / HTTP/1.1\nHost: a\n\n", wire.ErrBareLF},
	{"bare LF", "request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", wire.ErrBareLF},
	{"bare LF", "field line", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", wire.ErrBareLF},
	{"bare LF", "empty line", "GET / HTTP/1.1\r\nHost: a\r\n\n", wire.ErrBareLF},
	{"bare LF", "in front", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrBareLF},
	{"bare CR", "value", head("X: a\rb"), wire.ErrBareCR},
	{"bare CR", "end of value", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", wire.ErrBareCR},
	{"bare CR", "request line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrBareCR},
	{"bare CR", "in front", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrBareCR},
	{"NUL", "value", head("X: a\x00b"), wire.ErrNUL},
	{"NUL", "name", head("X\x00: b"), wire.ErrNUL},
	{"NUL", "target", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrNUL},
	{"control in value", "0x01", head("X: \x01"), wire.ErrFieldValue},
	{"control in value", "0x1f", head("X: abcdefghij\x1fk"), wire.ErrFieldValue},
	{"control in value", "0x7f", head("X: abcdefgh\x7f"), wire.ErrFieldValue},
	{"obs-fold", "blank", head("X: a\r\n b"), wire.ErrFieldFolded},
	{"obs-fold", "tab", head("X: a\r\n\tb"), wire.ErrFieldFolded},
	{"obs-fold", "first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", wire.ErrFieldFolded},
	{"obs-fold", "blank line", head("X: a\r\n "), wire.ErrFieldFolded},
	{"name", "blank before colon", head("X : a"), wire.ErrFieldNameBlank},
	{"name", "tab before colon", head("X\t: a"), wire.ErrFieldNameBlank},
	{"name", "no colon", head("X"), wire.ErrFieldColon},
	{"name", "empty", head(": a"), wire.ErrFieldNameEmpty},
	{"name", "parenthesis", head("X(A): a"), wire.ErrFieldName},
	{"name", "blank inside", head("X A: a"), wire.ErrFieldNameBlank},
	{"name", "0x80", head("X\x80: a"), wire.ErrFieldName},
	{"request line", "two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrRequestLine},
	{"request line", "blank at end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", wire.ErrNoVersion},
	{"request line", "blank in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrRequestLine},
	{"request line", "tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrRequestLine},
	{"request line", "tab in target", "GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrTarget},
	{"request line", "method not a token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrRequestLine},
	{"request line", "blank in front", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrNotHTTP},
	{"request line", "no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrNoVersion},
	{"request line", "HTTP/0.9", "GET /\r\n", wire.ErrNoVersion},
	{"request line", "HTTP/0.9 named", "GET / HTTP/0.9\r\n\r\n", wire.ErrRequestLine},
	{"request line", "lower case version", "GET / http/1.1\r\nHost: a\r\n\r\n", wire.ErrNoVersion},
	{"request line", "two digits", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", wire.ErrNoVersion},
	{"request line", "other letter", "GET / HTTP/1.a\r\nHost: a\r\n\r\n", wire.ErrRequestLine},
	{"request line", "no minor", "GET / HTTP/2\r\nHost: a\r\n\r\n", wire.ErrNoVersion},
	{"request line", "1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", wire.ErrVersion},
	{"request line", "2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", wire.ErrVersion},
	{"request line", "3.0", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", wire.ErrVersion},
	{"request line", "preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", wire.ErrVersion},
	{"request line", "three empty lines", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrEmptyLines},
	{"request line", "TLS on a plain port", "\x16\x03\x01\x02", wire.ErrNotHTTP},
	{"target", "0x7f", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrTarget},
	{"target", "control", "GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrTarget},
	{"target", "fragment", get("/a#b"), wire.ErrTarget},
	{"target", "fragment in query", get("/a?b#c"), wire.ErrTarget},
	{"target", "fragment in absolute form", get("http://h#/a"), wire.ErrTarget},
	{"target", "backslash", get(`/a\b`), wire.ErrPathBackslash},
	{"target form", "asterisk for GET", get("*"), wire.ErrTargetForm},
	{"target form", "asterisk with more", "OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrTargetForm},
	{"target form", "authority", get("example.com:80"), wire.ErrAuthorityForm},
	{"target form", "authority without port", get("example.com"), wire.ErrTargetForm},
	{"target form", "CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrConnect},
	{"target form", "CONNECT, IPv6", "CONNECT [::1]:443 HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrConnect},
	{"target form", "CONNECT without port", "CONNECT example.com HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrTargetForm},
	{"target form", "CONNECT of a path", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrTargetForm},
	{"target form", "other scheme", get("ftp://h/a"), wire.ErrTargetForm},
	{"target form", "userinfo", get("http://u:p@h/a"), wire.ErrHost},
	{"target form", "no authority", get("http:///a"), wire.ErrHost},
	{"target form", "relative", get("a/b"), wire.ErrTargetForm},
	{"Host", "none", "GET / HTTP/1.1\r\n\r\n", wire.ErrNoHost},
	{"Host", "none, absolute form", "GET http://h/ HTTP/1.1\r\n\r\n", wire.ErrNoHost},
	{"Host", "bad, absolute form", "GET http://h/ HTTP/1.1\r\nHost: a b\r\n\r\n", wire.ErrHost},
	{"Host", "two", head("Host: b"), wire.ErrHosts},
	{"Host", "two equal", head("Host: a"), wire.ErrHosts},
	{"Host", "two, in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", wire.ErrHosts},
	{"Host", "empty", host(""), wire.ErrHost},
	{"Host", "port over 65535", host("a:65536"), wire.ErrHost},
	{"Host", "port not a number", host("a:8o"), wire.ErrHost},
	{"Host", "port too long", host("a:000080"), wire.ErrHost},
	{"Host", "two ports", host("a:80:80"), wire.ErrHost},
	{"Host", "only a port", host(":80"), wire.ErrHost},
	{"Host", "userinfo", host("u@a"), wire.ErrHost},
	{"Host", "list", host("a, b"), wire.ErrHost},
	{"Host", "path", host("a/b"), wire.ErrHost},
	{"Host", "empty label", host("a..b"), wire.ErrHost},
	{"Host", "dot", host("."), wire.ErrHost},
	{"Host", "IPv6 without brackets", host("::1"), wire.ErrHost},
	{"Host", "IPv6 bad", host("[::g]"), wire.ErrHost},
	{"Host", "IPv6 zone", host("[fe80::1%25eth0]"), wire.ErrHost},
	{"Host", "IPv6 open", host("[::1"), wire.ErrHost},
	{"Host", "after the literal", host("[::1]a"), wire.ErrHost},
	{"Host", "0x80", host("\xc3\xa4.example"), wire.ErrHost},
	{"Host", "too long", host(strings.Repeat("a", 256)), wire.ErrHost},
	{"Connection-listed", "too many", head("Connection: " + strings.Repeat("a,", 33)), wire.ErrConnectionOptions},
	{"Expect", "other", head("Expect: 200-ok"), wire.ErrExpectation},
	{"Expect", "two, one other", head("Expect: 100-continue", "Expect: x"), wire.ErrExpectation},
	{"path", "above the root", get("/../a"), wire.ErrPathAboveRoot},
	{"path", "above the root, encoded", get("/a/%2e%2E/.%2e/b"), wire.ErrPathAboveRoot},
	{"path", "above the root, encoded slash", get("/a%2f..%2F../b"), wire.ErrPathAboveRoot},
	{"path", "above the root at its end", get("/.."), wire.ErrPathAboveRoot},
	{"path", "NUL", get("/a%00b"), wire.ErrPathNUL},
	{"path", "bad escape", get("/a%zz"), wire.ErrPathEscape},
	{"path", "cut escape", get("/a%2"), wire.ErrPathEscape},
	{"path", "overlong slash", get("/a%c0%afb"), wire.ErrPathOverlong},
	{"path", "overlong dot", get("/%c0%ae%c0%ae/b"), wire.ErrPathOverlong},
	{"path", "overlong, three bytes", get("/%e0%80%af"), wire.ErrPathOverlong},
	{"path", "overlong, raw", get("/\xc0\xaf"), wire.ErrPathOverlong},
	{"path", "overlong, half raw", get("/\xc0%af"), wire.ErrPathOverlong},
	{"WebSocket", "not GET", "POST / HTTP/1.1\r\nHost: a\r\n" + webSocket + "\r\n", wire.ErrWebSocketMethod},
	{"WebSocket", "version", get("/", strings.Replace(webSocket, "13", "8", 1)), wire.ErrWebSocketVersion},
	{"WebSocket", "no version", get("/", strings.Replace(webSocket, "Sec-WebSocket-Version", "X-Version", 1)), wire.ErrWebSocketVersion},
	{"WebSocket", "short key", get("/", strings.Replace(webSocket, "dGhl", "", 1)), wire.ErrWebSocketKey},
	{"WebSocket", "key not base64", get("/", strings.Replace(webSocket, "dGhl", "-Ghl", 1)), wire.ErrWebSocketKey},
	{"WebSocket", "two keys", get("/", webSocket+"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), wire.ErrWebSocketKey},
	{"limits", "request line", get("/" + strings.Repeat("a", wire.RequestLineMax)), wire.ErrRequestLineTooLong},
	{"limits", "request line without end", "GET /" + strings.Repeat("a", wire.RequestLineMax), wire.ErrRequestLineTooLong},
	{"limits", "field line", head("X: " + strings.Repeat("a", wire.LineMax)), wire.ErrLineTooLong},
	{"limits", "head", head("X: "+strings.Repeat("a", wire.LineMax-3), "Y: "+strings.Repeat("a", wire.LineMax-3)), wire.ErrHeadTooLarge},
	{"limits", "fields", head(strings.Repeat("X: a\r\n", wire.FieldsMax-1) + "X: a"), wire.ErrTooManyFields},
}

const webSocket = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// head is a POST with those field lines.
func head(lines ...string) string {
	return "POST / HTTP/1.1\r\nHost: a\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
}

func get(target string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: a\r\n" + strings.Join(fields, "") + "\r\n"
}

func host(value string) string { return "GET / HTTP/1.1\r\nHost: " + value + "\r\n\r\n" }

func TestRequestRefused(t *testing.T) {
	for _, c := range refused {
		t.Run(c.row+"/"+c.name, func(t *testing.T) {
			_, _, err := parseRequest([]byte(c.input), nil)
			if err != c.want {
				t.Fatalf("%s, want %s", text(err), c.want)
			}
			if err.Fault != fastpath.FaultClient {
				t.Fatalf("fault %v", err.Fault)
			}
		})
	}
}

// accepted are requests with what comes of them, as its canonical bytes and the views that routing takes.
var accepted = []struct {
	row, name, input string
	sent             string // request line and fields as AppendRequest writes them, without the empty line
	view             string // path, query, host, as routing sees them
}{
	{"plain", "1.1", wrkHead2, "GET /index.html HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: wrk/4.2\r\n", "/index.html - localhost"},
	{"plain", "1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"plain", "other method", "PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", "PURGE / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"plain", "methods are case-sensitive", "get / HTTP/1.1\r\nHost: a\r\n\r\n", "get / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"plain", "values trimmed", get("/", "X: \t a b\t \r\n"), "GET / HTTP/1.1\r\nHost: a\r\nX: a b\r\n", "/ - a"},
	{"plain", "empty value", get("/", "X:\r\n"), "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n", "/ - a"},
	{"plain", "tab and 0x80 in a value", get("/", "X: a\tb\xff\r\n"), "GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\xff\r\n", "/ - a"},
	{"request line", "two empty lines", "\r\n\r\n" + get("/"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"TE", "chunked", head("Transfer-Encoding: \tChUnKeD "), "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", "/ - a"},
	{"CL", "zero", head("Content-Length: 0"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n", "/ - a"},
	{"CL", "leading zeros", head("content-length: 007"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n", "/ - a"},
	{"CL", "2^63-1", head("Content-Length: 9223372036854775807"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n", "/ - a"},
	{"GET with body", "framed alike", get("/", "Content-Length: 5\r\n"), "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n", "/ - a"},
	{"name with _", "dropped", get("/", "X_A: b\r\n"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"name with _", "framing", get("/", "Content_Length: 5\r\nTransfer_Encoding: chunked\r\n"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"target", "path percent-encoded", get("/\"<>^`{|}\xc3\xa4?\"<>^`{|}\\\xc3\xa4"),
		"GET /%22%3C%3E%5E%60%7B%7C%7D%C3%A4?\"<>^`{|}\\\xc3\xa4 HTTP/1.1\r\nHost: a\r\n", "/\"<>^`{|}\xc3\xa4 \"<>^`{|}\\\xc3\xa4 a"},
	{"target", "query with /../", get("/a?/../b//c"), "GET /a?/../b//c HTTP/1.1\r\nHost: a\r\n", "/a /../b//c a"},
	{"target", "empty query", get("/a?"), "GET /a? HTTP/1.1\r\nHost: a\r\n", "/a  a"},
	{"target form", "asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n", "* - a"},
	{"target form", "absolute", get("HTTP://B.example:81/x?y"), "GET /x?y HTTP/1.1\r\nHost: B.example:81\r\n", "/x y b.example"},
	{"target form", "absolute without path", get("https://b"), "GET / HTTP/1.1\r\nHost: b\r\n", "/ - b"},
	{"target form", "absolute with query only", get("https://b?c"), "GET /?c HTTP/1.1\r\nHost: b\r\n", "/ c b"},
	{"target form", "absolute for OPTIONS", "OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: b\r\n", "* - b"},
	{"target form", "absolute in 1.0 without Host", "GET http://b/ HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: b\r\n", "/ - b"},
	{"Host", "none in 1.0", "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: \r\n", "/ - "},
	{"Host", "normalised", host("WWW.Example.COM.:8080"), "GET / HTTP/1.1\r\nHost: WWW.Example.COM.:8080\r\n", "/ - www.example.com"},
	{"Host", "empty port", host("a:"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"Host", "IPv6", host("[2001:DB8::1]:80"), "GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n", "/ - 2001:db8::1"},
	{"Host", "underscore", host("my_app.example"), "GET / HTTP/1.1\r\nHost: my_app.example\r\n", "/ - my_app.example"},
	{"Connection-listed", "removed", get("/", "X-Hop: 1\r\nConnection: x-hop, X-Other\r\nX-Other: 2\r\nX-Kept: 3\r\n"),
		"GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 3\r\n", "/ - a"},
	{"Connection-listed", "several lines", get("/", "Connection: x-a\r\nConnection: x-b\r\nX-A: 1\r\nX-B: 2\r\n"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"Connection-listed", "what others rely upon stays", get("/", "Connection: Host, Content-Length, X-Forwarded-For, X-Forwarded-Prefix, Authorization, Cookie\r\n"+
		"Content-Length: 5\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Prefix: /p\r\nAuthorization: x\r\nCookie: y\r\n"),
		"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Prefix: /p\r\nAuthorization: x\r\nCookie: y\r\nContent-Length: 5\r\n", "/ - a"},
	{"hop by hop", "removed", get("/", "Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nUpgrade: x\r\nHTTP2-Settings: x\r\nConnection: close\r\n"),
		"GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"hop by hop", "TE: trailers", get("/", "TE: gzip;q=1, Trailers\r\nTrailer: X-Sum\r\n"),
		"GET / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nConnection: TE\r\nTE: trailers\r\n", "/ - a"},
	{"hop by hop", "Trailer without TE: trailers", get("/", "Trailer: X-Sum\r\n"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"hop by hop", "h2c", get("/", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"hop by hop", "HTTP/2.0", get("/", "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"hop by hop", "Upgrade not listed", get("/", "Upgrade: websocket\r\n"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"hop by hop", "two Upgrade lines", get("/", "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n"), "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"WebSocket", "valid", get("/", webSocket), "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
		"Connection: Upgrade\r\nUpgrade: WebSocket\r\n", "/ - a"},
	{"WebSocket", "in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"WebSocket", "after h2c", get("/", strings.Replace(webSocket, "WebSocket\r", "h2c, websocket\r", 1)), "GET / HTTP/1.1\r\nHost: a\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", "/ - a"},
	{"upgrade", "other protocol", get("/", "Connection: upgrade\r\nUpgrade: SPDY/3.1\r\n"),
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n", "/ - a"},
	{"Expect", "100-continue", head("Expect: 100-Continue", "Content-Length: 5"), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n", "/ - a"},
	{"Expect", "other in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nExpect: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", "/ - a"},
	{"path", "%2F kept", get("/private%2fx"), "GET /private%2fx HTTP/1.1\r\nHost: a\r\n", "/private/x - a"},
	{"path", "decoded once", get("/a%252e%2525"), "GET /a%252e%2525 HTTP/1.1\r\nHost: a\r\n", "/a%2e%25 - a"},
	{"path", "%3F is no query", get("/a%3Fb?c"), "GET /a%3Fb?c HTTP/1.1\r\nHost: a\r\n", "/a?b c a"},
	{"path", "merged for routing only", get("//a///b"), "GET //a///b HTTP/1.1\r\nHost: a\r\n", "/a/b - a"},
	{"path", "dots", get("/a/./b/../c?d"), "GET /a/c?d HTTP/1.1\r\nHost: a\r\n", "/a/c d a"},
	{"path", "dots at the end", get("/a/b/.."), "GET /a/ HTTP/1.1\r\nHost: a\r\n", "/a/ - a"},
	{"path", "dots encoded", get("/pub/%2e%2E/private%20x"), "GET /private%20x HTTP/1.1\r\nHost: a\r\n", "/private x - a"},
	{"path", "dots behind an encoded slash", get("/a%2F../b%25"), "GET /b%25 HTTP/1.1\r\nHost: a\r\n", "/b% - a"},
	{"path", "dots and merged", get("/a//../b"), "GET /b HTTP/1.1\r\nHost: a\r\n", "/b - a"},
	{"path", "dots resolved in full", get("/a/../b|\xff%3f/x"), "GET /b%7C%FF%3F/x HTTP/1.1\r\nHost: a\r\n", "/b|\xff?/x - a"},
	{"path", "hidden files are no dots", get("/.well-known/..a/.../b."), "GET /.well-known/..a/.../b. HTTP/1.1\r\nHost: a\r\n", "/.well-known/..a/.../b. - a"},
	{"path", "not UTF-8", get("/%e4/\xe4"), "GET /%e4/%E4 HTTP/1.1\r\nHost: a\r\n", "/\xe4/\xe4 - a"},
	{"path", "encoded backslash", get("/a%5c..%5cb"), "GET /a%5c..%5cb HTTP/1.1\r\nHost: a\r\n", "/a\\..\\b - a"},
	{"limits", "request line", get("/" + strings.Repeat("a", wire.RequestLineMax-14)), "GET /" + strings.Repeat("a", wire.RequestLineMax-14) +
		" HTTP/1.1\r\nHost: a\r\n", "/" + strings.Repeat("a", wire.RequestLineMax-14) + " - a"},
	{"limits", "field line", get("/", "X: "+strings.Repeat("a", wire.LineMax-3)+"\r\n"), "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", wire.LineMax-3) +
		"\r\n", "/ - a"},
	{"limits", "fields", get("/", strings.Repeat("X: a\r\n", wire.FieldsMax-1)), "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: a\r\n", wire.FieldsMax-1), "/ - a"},
}

func TestRequestAccepted(t *testing.T) {
	for _, c := range accepted {
		t.Run(c.row+"/"+c.name, func(t *testing.T) {
			r, rest, err := parseRequest([]byte(c.input), nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(rest) > 0 {
				t.Errorf("rest %q", rest)
			}
			sent, err := wire.AppendRequest(nil, r, wire.RequestOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if string(sent) != c.sent+"\r\n" {
				t.Errorf("sent\n%q, want\n%q", sent, c.sent+"\r\n")
			}
			query := string(r.Query)
			if r.Query == nil {
				query = "-"
			}
			if view := fmt.Sprintf("%s %s %s", r.Path, query, r.Host); view != c.view {
				t.Errorf("view %q, want %q", view, c.view)
			}
		})
	}
}

func TestRequestMembers(t *testing.T) {
	type members struct {
		keep, expect, resolved bool
		framing                wire.Framing
	}
	cases := []struct {
		name, input string
		want        members
	}{
		{"1.1 lives", get("/"), members{keep: true}},
		{"1.1 close", get("/", "Connection: foo, CLOSE\r\n"), members{}},
		{"1.1 both", get("/", "Connection: keep-alive\r\nConnection: close\r\n"), members{}},
		{"1.0 closes", "GET / HTTP/1.0\r\n\r\n", members{}},
		{"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", members{keep: true}},
		{"expect", head("Expect: 100-continue", "Transfer-Encoding: chunked"), members{keep: true, expect: true, framing: wire.FramingChunked}},
		{"expect in 1.0", "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", members{framing: wire.FramingLength}},
		{"resolved", get("/a/../b"), members{keep: true, resolved: true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, _, err := parseRequest([]byte(c.input), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := (members{r.KeepAlive, r.Expect100, r.Resolved, r.Framing}); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// After 417 the connection may live, so the engine has to know the body.
func TestExpectationLeavesWholeRequest(t *testing.T) {
	input := []byte(head("Expect: x", "Content-Length: 5"))
	var r wire.Request
	if err := r.Parse(input, &wire.Arena{}, nil); err != wire.ErrExpectation {
		t.Fatal(err)
	}
	if r.Framing != wire.FramingLength || r.ContentLength != 5 || !r.KeepAlive || string(r.Host) != "a" {
		t.Fatal(show(&r))
	}
}

func TestUnderscores(t *testing.T) {
	lim := &wire.Limits{Underscores: true}
	input := get("/", "X_A: 1\r\nX_Forwarded_For: 2\r\nx-forwarded_prefix: 3\r\nContent_Length: 4\r\nSSL_Client_Cert: 5\r\n")
	r, _, err := parseRequest([]byte(input), lim)
	if err != nil {
		t.Fatal(err)
	}
	if got := showFields(r.Fields); got != "0 \"X_A\": \"1\"\n" || r.Framing != wire.FramingNone {
		t.Fatal(got)
	}
	// what is kept goes by the names of which it may be a twin, whichever version it came in; no plain name does
	twins, plain := "x_a-b: 1\r\nx_a_b: 2\r\n", "x-a-b: 3\r\nx-ab_: 4\r\n"
	r, _, _ = parseRequest([]byte(get("/", twins+plain)), lim)
	h2, _, _, _ := parseH2(compress(h2Get(strings.ReplaceAll(twins+plain, "\r", ""))), true, lim)
	for _, r := range []*wire.Request{r, h2} {
		if got := showFields(wire.DeleteName(r.Fields, "X-A-B")); len(r.Fields) != 4 || got != "0 \"x-ab_\": \"4\"\n" {
			t.Errorf("beside X-A-B: %s", got)
		}
	}
	r, _, _ = parseRequest([]byte(get("/", plain)), lim)
	if got := showFields(wire.DeleteName(r.Fields, "x_a_b")); got != "0 \"x-a-b\": \"3\"\n0 \"x-ab_\": \"4\"\n" {
		t.Errorf("beside x_a_b: %s", got)
	}
}

// TestTrusted: a field by which the proxy is told of the client is no more removed, or had beside it as a twin, than a
// reserved one.
func TestTrusted(t *testing.T) {
	lim := &wire.Limits{Underscores: true, Trusted: [2]string{"CF-Connecting-IP", "x-edge-host"}}
	const input = "Connection: cf-connecting-ip, X-Edge-Host, CF-Ray\r\nCF-Connecting-IP: 1\r\nX-Edge-Host: 2\r\nCF-Ray: 3\r\ncf_connecting-ip: 4\r\nX_Edge_Host: 5\r\nCF_Ray: 6\r\n"
	r, _, err := parseRequest([]byte(get("/", input)), lim)
	if err != nil || showFields(r.Fields) != "0 \"CF-Connecting-IP\": \"1\"\n0 \"X-Edge-Host\": \"2\"\n0 \"CF_Ray\": \"6\"\n" {
		t.Errorf("%s, %s", text(err), showFields(r.Fields))
	}
}

// TestOddNames: names of tokens that nginx calls invalid are dropped, or kept with OddNames, but not those that read like one
// of the proxy's own; what is no token is refused either way. As in nginx, OddNames keeps underscores too.
func TestOddNames(t *testing.T) {
	const input = "X.A: 1\r\nX!b: 2\r\nX_C: 3\r\nX.Forwarded.For: 4\r\nx~forwarded-host: 5\r\nContent.Length: 6\r\nSSL`Client_Cert: 7\r\nX-D: 8\r\n"
	for lim, want := range map[wire.Limits]string{
		{}:                                  "0 \"X-D\": \"8\"\n",
		{Underscores: true}:                 "0 \"X_C\": \"3\"\n0 \"X-D\": \"8\"\n",
		{OddNames: true}:                    "0 \"X.A\": \"1\"\n0 \"X!b\": \"2\"\n0 \"X_C\": \"3\"\n0 \"X-D\": \"8\"\n",
		{OddNames: true, Underscores: true}: "0 \"X.A\": \"1\"\n0 \"X!b\": \"2\"\n0 \"X_C\": \"3\"\n0 \"X-D\": \"8\"\n",
	} {
		r, _, err := parseRequest([]byte(get("/", input)), &lim)
		if err != nil || showFields(r.Fields) != want || r.Framing != wire.FramingNone {
			t.Errorf("%+v: %s, %s, want %s", lim, text(err), showFields(r.Fields), want)
		}
		for c := range 256 {
			name := "X" + string([]byte{byte(c)}) + "Y"
			r, _, err := parseRequest([]byte(get("/", name+": 1\r\n")), &lim)
			switch {
			case c == ':':
			case !wire.IsToken([]byte(name)):
				if err == nil {
					t.Errorf("%+v: %q was taken", lim, name)
				}
			case err != nil:
				t.Errorf("%+v: %q: %s", lim, name, text(err))
			default:
				plain := c == '-' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
				if kept := plain || lim.OddNames || c == '_' && lim.Underscores; kept != (len(r.Fields) == 1) {
					t.Errorf("%+v: %q: %s", lim, name, showFields(r.Fields))
				}
			}
		}
	}
}

func TestRejectEncodedSlash(t *testing.T) {
	lim := &wire.Limits{RejectEncodedSlash: true}
	for target, want := range map[string]*fastpath.Error{"/a%2fb": wire.ErrEncodedSlash, "/a%5Cb": wire.ErrEncodedSlash, "/a%20b?%2f": nil, "/a%252f": nil} {
		if _, _, err := parseRequest([]byte(get(target)), lim); err != want {
			t.Errorf("%s: %s", target, text(err))
		}
	}
}

// The next request on the connection must not be touched, and what is wrong in it must not matter.
func TestHeadEndStopsAtTheHead(t *testing.T) {
	input := "\r\n" + wrkHead + "\x00\n\rjunk"
	skip, n, err := wire.RequestHeadEnd([]byte(input), 0, nil)
	if skip != 2 || n != len(wrkHead) || err != nil {
		t.Fatal(skip, n, err)
	}
}

func TestSplitInvariance(t *testing.T) {
	lim := &wire.Limits{RequestLine: 64, Line: 80, Head: 400}
	for _, c := range refused {
		if len(c.input) < 2000 {
			wantSplitInvariant(t, []byte(c.input), nil)
			wantSplitInvariant(t, []byte(c.input), lim)
		}
	}
	for _, c := range accepted {
		if len(c.input) < 2000 {
			wantSplitInvariant(t, []byte(c.input), nil)
			wantSplitInvariant(t, []byte(c.input), lim)
		}
	}
	wantSplitInvariant(t, []byte(browserHead), lim)
	wantSplitInvariant(t, []byte(browserHead), &wire.Limits{RequestLine: 32, Line: 300, Head: 500})
}

// Parse refuses by itself what HeadEnd would have kept from it.
func TestParseStandsAlone(t *testing.T) {
	for _, input := range []string{"", "GET", "GET ", "GET / HTTP/1.1", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a", "GET / HTTP/1.1\r\nHost: a\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n\r", "GET / HTTP/1.1\nHost: a\n\n", wrkHead + "x", "GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", "\r\n" + wrkHead} {
		var r wire.Request
		if err := r.Parse([]byte(input), &wire.Arena{}, nil); err == nil {
			t.Errorf("%q accepted", input)
		}
	}
	for _, input := range []string{"", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r", "HTTP/1.1 200 OK\n\n", usualAnswer + "x"} {
		var r wire.Response
		if err := r.Parse([]byte(input), wire.MethodGet, nil); err == nil {
			t.Errorf("%q accepted", input)
		}
	}
}

// A request is a value of its own: nothing of it may move when the arena grows or the next bytes arrive.
func TestViewsStay(t *testing.T) {
	buffer := []byte(get("/a/../b%20c?d", "X: y\r\n"))
	arena, r := &wire.Arena{}, &wire.Request{}
	if err := r.Parse(arena.Copy(buffer), arena, nil); err != nil {
		t.Fatal(err)
	}
	before := show(r)
	for i := range buffer {
		buffer[i] = 'Z'
	}
	for range 100 {
		copy(arena.Alloc(1000), bytes.Repeat([]byte("Z"), 1000))
	}
	if after := show(r); after != before {
		t.Fatalf("%s, before %s", after, before)
	}
}
