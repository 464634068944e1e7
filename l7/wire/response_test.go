package wire_test

import (
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

func answer(lines ...string) string {
	return "HTTP/1.1 200 OK\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
}

var responsesRefused = []struct {
	name, input string
	want        *fastpath.Error
}{
	{"garbage", "220 smtp.example ESMTP\r\n", wire.ErrResponseLine},
	{"HTTP/0.9", "<html>", wire.ErrResponseLine},
	{"HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n", wire.ErrResponseLine},
	{"1.2", "HTTP/1.2 200 OK\r\n\r\n", wire.ErrResponseLine},
	{"empty line in front", "\r\nHTTP/1.1 200 OK\r\n\r\n", wire.ErrResponseLine},
	{"two blanks", "HTTP/1.1  200 OK\r\n\r\n", wire.ErrResponseLine},
	{"two digits", "HTTP/1.1 20 OK\r\n\r\n", wire.ErrResponseLine},
	{"four digits", "HTTP/1.1 2000 OK\r\n\r\n", wire.ErrResponseLine},
	{"no status", "HTTP/1.1 OK\r\n\r\n", wire.ErrResponseLine},
	{"sign", "HTTP/1.1 +20 OK\r\n\r\n", wire.ErrResponseLine},
	{"control in reason", "HTTP/1.1 200 O\x01K\r\n\r\n", wire.ErrResponseLine},
	{"under 100", "HTTP/1.1 099 OK\r\n\r\n", wire.ErrResponseStatus},
	{"over 599", "HTTP/1.1 600 OK\r\n\r\n", wire.ErrResponseStatus},
	{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", wire.ErrResponseBareLF},
	{"bare CR", answer("X: a\rb"), wire.ErrResponseBareCR},
	{"NUL", answer("X: \x00"), wire.ErrResponseNUL},
	{"control in value", answer("X: \x02"), wire.ErrResponseFieldValue},
	{"obs-fold", answer("X: a", " b"), wire.ErrResponseFieldFolded},
	{"blank before colon", answer("X : a"), wire.ErrResponseFieldName},
	{"no colon", answer("X"), wire.ErrResponseFieldName},
	{"CL invalid", answer("Content-Length: 5x"), wire.ErrResponseContentLength},
	{"CL list", answer("Content-Length: 5, 5"), wire.ErrResponseContentLength},
	{"CL empty", answer("Content-Length:"), wire.ErrResponseContentLength},
	{"CL two different", answer("Content-Length: 5", "Content-Length: 6"), wire.ErrResponseContentLength},
	{"CL two equal", answer("Content-Length: 5", "Content-Length: 5"), wire.ErrResponseContentLength},
	{"CL + TE", answer("Content-Length: 5", "Transfer-Encoding: chunked"), wire.ErrResponseLengthAndTE},
	{"TE unknown", answer("Transfer-Encoding: gzip, chunked"), wire.ErrResponseTransferEncoding},
	{"TE identity", answer("Transfer-Encoding: identity"), wire.ErrResponseTransferEncoding},
	{"TE list", answer("Transfer-Encoding: ,chunked"), wire.ErrResponseTransferEncoding},
	{"TE two lines", answer("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), wire.ErrResponseTransferEncoding},
	{"TE in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", wire.ErrResponseTransferEncoding},
	{"head too large", answer(strings.Repeat("X: "+strings.Repeat("a", 1000)+"\r\n", 66)), wire.ErrResponseHeadTooLarge},
	{"line too long", answer("X: " + strings.Repeat("a", wire.LineMax)), wire.ErrResponseLineTooLong},
	{"too many fields", answer(strings.Repeat("X: a\r\n", wire.ResponseFieldsMax) + "X: a"), wire.ErrResponseFields},
	{"Connection lists too many", answer("Connection: " + strings.Repeat("a,", 33)), wire.ErrResponseConnection},
}

func TestResponseRefused(t *testing.T) {
	for _, c := range responsesRefused {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := parseResponse([]byte(c.input), wire.MethodGet)
			if err != c.want {
				t.Fatalf("%s, want %s", text(err), c.want)
			}
			if err.Fault != fastpath.FaultBackend {
				t.Fatalf("fault %v", err.Fault)
			}
		})
	}
}

var responsesAccepted = []struct {
	name, input string
	method      wire.Method
	want        string // as showResponse spells it
}{
	{"length", answer("Content-Length: 5"), wire.MethodGet, `200 "OK" length 5 minor 1 keep true hint 0 upgrade "" listed []`},
	{"chunked", answer("transfer-encoding: Chunked"), wire.MethodGet, `200 "OK" chunked -1 minor 1 keep true hint 0 upgrade "" listed []`},
	{"until close", answer("X: y"), wire.MethodGet, `200 "OK" close -1 minor 1 keep false hint 0 upgrade "" listed []` + "\n0 \"X\": \"y\""},
	{"close", answer("Content-Length: 0", "Connection: close"), wire.MethodGet, `200 "OK" length 0 minor 1 keep false hint 0 upgrade "" listed []`},
	{"1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", wire.MethodGet, `200 "OK" length 0 minor 0 keep false hint 0 upgrade "" listed []`},
	{"1.0 keep-alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: max=5, Timeout=15\r\nContent-Length: 0\r\n\r\n", wire.MethodGet,
		`200 "OK" length 0 minor 0 keep true hint 15 upgrade "" listed []`},
	{"no reason", "HTTP/1.1 204 \r\n\r\n", wire.MethodGet, `204 "" none -1 minor 1 keep true hint 0 upgrade "" listed []`},
	{"no reason, no blank", "HTTP/1.1 204\r\n\r\n", wire.MethodGet, `204 "" none -1 minor 1 keep true hint 0 upgrade "" listed []`},
	{"odd reason", "HTTP/1.1 404 \t\xe4 b\r\nContent-Length: 0\r\n\r\n", wire.MethodGet, `404 "\xe4 b" length 0 minor 1 keep true hint 0 upgrade "" listed []`},
	{"HEAD", answer("Content-Length: 5"), wire.MethodHead, `200 "OK" none 5 minor 1 keep true hint 0 upgrade "" listed []`},
	{"HEAD chunked", answer("Transfer-Encoding: chunked"), wire.MethodHead, `200 "OK" none -1 minor 1 keep true hint 0 upgrade "" listed []`},
	{"HEAD without length", answer("X: y"), wire.MethodHead, `200 "OK" none -1 minor 1 keep true hint 0 upgrade "" listed []` + "\n0 \"X\": \"y\""},
	{"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", wire.MethodGet, `304 "Not Modified" none 5 minor 1 keep true hint 0 upgrade "" listed []`},
	{"204 announces a body", "HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", wire.MethodGet, `204 "x" none 5 minor 1 keep false hint 0 upgrade "" listed []`},
	{"204 chunked", "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", wire.MethodGet, `204 "x" none -1 minor 1 keep false hint 0 upgrade "" listed []`},
	{"204 of length 0", "HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n", wire.MethodGet, `204 "x" none 0 minor 1 keep true hint 0 upgrade "" listed []`},
	{"100", "HTTP/1.1 100 Continue\r\n\r\n", wire.MethodGet, `100 "Continue" none -1 minor 1 keep true hint 0 upgrade "" listed []`},
	{"101", "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", wire.MethodGet, `101 "x" none -1 minor 1 keep true hint 0 upgrade "websocket" listed []`},
	{"101 not listed", "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n", wire.MethodGet, `101 "x" none -1 minor 1 keep true hint 0 upgrade "" listed []`},
	{"101 twice", "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: foo\r\n\r\n", wire.MethodGet,
		`101 "x" none -1 minor 1 keep true hint 0 upgrade "" listed []`},
	{"Connection-listed", answer("Connection: x-hop", "X-Hop: 1", "X-Kept: 2", "Content-Length: 0"), wire.MethodGet,
		`200 "OK" length 0 minor 1 keep true hint 0 upgrade "" listed ["x-hop"]` + "\n0 \"X-Kept\": \"2\""},
	{"underscore stays", answer("X_A: 1", "Content-Length: 0"), wire.MethodGet, `200 "OK" length 0 minor 1 keep true hint 0 upgrade "" listed []` + "\n0 \"X_A\": \"1\""},
	{"hop by hop", answer("Proxy-Connection: x", "TE: x", "Upgrade: h2c", "Content-Length: 0"), wire.MethodGet,
		`200 "OK" length 0 minor 1 keep true hint 0 upgrade "" listed []`},
}

func TestResponseAccepted(t *testing.T) {
	for _, c := range responsesAccepted {
		t.Run(c.name, func(t *testing.T) {
			r, rest, err := parseResponse([]byte(c.input), c.method)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(showResponse(r)); got != c.want || len(rest) > 0 {
				t.Errorf("%s, want\n%s; rest %q", got, c.want, rest)
			}
		})
	}
}

func TestSwitchesTo(t *testing.T) {
	r, _, _ := parseResponse([]byte("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n"), wire.MethodGet)
	if !r.SwitchesTo([]byte("websocket")) || r.SwitchesTo([]byte("foo")) || r.SwitchesTo(nil) {
		t.Fatal("101")
	}
	r.Status = 200
	if r.SwitchesTo([]byte("websocket")) {
		t.Fatal("200")
	}
}

func TestResponseSplitInvariance(t *testing.T) {
	check := func(input string) {
		b := []byte(input)
		n, err := wire.ResponseHeadEnd(b, 0, nil)
		for cut := range b {
			if m, e := responseHeadEndSplit(b, cut); m != n || e != err {
				t.Fatalf("cut at %d of %q: %d, %s; whole: %d, %s", cut, b, m, text(e), n, text(err))
			}
		}
		if m, e := responseHeadEndSplit(b, everyByte(len(b))...); m != n || e != err {
			t.Fatalf("byte by byte: %q: %d, %s; whole: %d, %s", b, m, text(e), n, text(err))
		}
	}
	for _, c := range responsesRefused {
		check(c.input[:min(len(c.input), 2000)])
	}
	for _, c := range responsesAccepted {
		check(c.input)
	}
}
