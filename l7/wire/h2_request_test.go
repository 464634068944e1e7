package wire_test

import (
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// h2Get is a request for / with more lines behind its pseudo-headers.
func h2Get(lines ...string) string {
	return ":method: GET\n:scheme: https\n:path: /\n:authority: h.test\n" + strings.Join(lines, "\n")
}

// h2Connect is an extended CONNECT for a protocol.
func h2Connect(protocol string) string {
	return ":method: CONNECT\n:protocol: " + protocol + "\n:scheme: https\n:path: /\n:authority: h.test"
}

// TestH2Malformed is the paragraph "HTTP/2" of docs/hardening.md 3.2: RST_STREAM with PROTOCOL_ERROR, and nobody hears of it.
func TestH2Malformed(t *testing.T) {
	for name, c := range map[string]struct {
		lines string
		end   bool
		err   *fastpath.Error
	}{
		"connection":                   {h2Get("connection: close"), true, wire.ErrH2ConnField},
		"keep-alive":                   {h2Get("keep-alive: timeout=5"), true, wire.ErrH2ConnField},
		"proxy-connection":             {h2Get("proxy-connection: close"), true, wire.ErrH2ConnField},
		"transfer-encoding":            {h2Get("transfer-encoding: chunked"), false, wire.ErrH2ConnField},
		"upgrade":                      {h2Get("upgrade: websocket"), true, wire.ErrH2ConnField},
		"http2-settings":               {h2Get("http2-settings: AAMAAABk"), true, wire.ErrH2ConnField},
		"te gzip":                      {h2Get("te: gzip"), true, wire.ErrH2TE},
		"te trailers, gzip":            {h2Get("te: trailers, gzip"), true, wire.ErrH2TE},
		"upper case":                   {h2Get("X-A: b"), true, wire.ErrH2FieldName},
		"blank in a name":              {h2Get("x a: b"), true, wire.ErrH2FieldName},
		"CR in a name":                 {h2Get("x\r: b"), true, wire.ErrH2FieldName},
		"CR in a value":                {h2Get("x: a\rb"), true, wire.ErrH2FieldValue},
		"NUL in a value":               {h2Get("x: a\x00b"), true, wire.ErrH2FieldValue},
		"DEL in a value":               {h2Get("x: a\x7fb"), true, wire.ErrH2FieldValue},
		"blank before a value":         {h2Get("x:  a"), true, wire.ErrH2FieldValue},
		"tab behind a value":           {h2Get("x: a\t"), true, wire.ErrH2FieldValue},
		"control in :path":             {":method: GET\n:scheme: https\n:path: /\x01\n:authority: h.test", true, wire.ErrH2FieldValue},
		"no :method":                   {":scheme: https\n:path: /\n:authority: h.test", true, wire.ErrH2PseudoMissing},
		"no :scheme":                   {":method: GET\n:path: /\n:authority: h.test", true, wire.ErrH2PseudoMissing},
		"no :path":                     {":method: GET\n:scheme: https\n:authority: h.test", true, wire.ErrH2PseudoMissing},
		"two :path":                    {":method: GET\n:scheme: https\n:path: /\n:path: /\n:authority: h.test", true, wire.ErrH2PseudoTwice},
		"unknown":                      {":method: GET\n:scheme: https\n:path: /\n:authority: h.test\n:test: a", true, wire.ErrH2Pseudo},
		"late":                         {":method: GET\n:scheme: https\n:path: /\nx: a\n:authority: h.test", true, wire.ErrH2PseudoLate},
		":status":                      {h2Get(":status: 200"), true, wire.ErrH2Pseudo},
		"empty :path":                  {":method: GET\n:scheme: https\n:path: \n:authority: h.test", true, wire.ErrH2Path},
		":path without a slash":        {":method: GET\n:scheme: https\n:path: a/b\n:authority: h.test", true, wire.ErrH2Path},
		":path absolute":               {":method: GET\n:scheme: https\n:path: https://h.test/\n:authority: h.test", true, wire.ErrH2Path},
		"* with GET":                   {":method: GET\n:scheme: https\n:path: *\n:authority: h.test", true, wire.ErrH2Path},
		"method no token":              {":method: G T\n:scheme: https\n:path: /\n:authority: h.test", true, wire.ErrH2Method},
		"empty method":                 {":method: \n:scheme: https\n:path: /\n:authority: h.test", true, wire.ErrH2Method},
		"scheme ftp":                   {":method: GET\n:scheme: ftp\n:path: /\n:authority: h.test", true, wire.ErrH2Scheme},
		"user information":             {":method: GET\n:scheme: https\n:path: /\n:authority: u@h.test", true, wire.ErrH2UserInfo},
		"host unequal":                 {h2Get("host: other.test"), true, wire.ErrH2Authority},
		"host unequal by its port":     {h2Get("host: h.test:80"), true, wire.ErrH2Authority},
		"two hosts":                    {h2Get("host: h.test\nhost: h.test"), true, wire.ErrHosts},
		"content-length -5":            {h2Get("content-length: -5"), false, wire.ErrH2Length},
		"content-length empty":         {h2Get("content-length: "), false, wire.ErrH2Length},
		"two content-length":           {h2Get("content-length: 5\ncontent-length: 5"), false, wire.ErrH2Length},
		"content-length without DATA":  {h2Get("content-length: 5"), true, wire.ErrH2Length},
		":protocol with GET":           {h2Get(":protocol: websocket"), false, wire.ErrH2Pseudo},
		"CONNECT with :path":           {":method: CONNECT\n:scheme: https\n:path: /\n:authority: h.test", false, wire.ErrH2Pseudo},
		"CONNECT without an authority": {":method: CONNECT", false, wire.ErrH2PseudoMissing},
		"extended CONNECT that ends":   {":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /\n:authority: h.test\nsec-websocket-version: 13", true, wire.ErrH2Pseudo},
		"extended CONNECT, no scheme":  {":method: CONNECT\n:protocol: websocket\n:path: /\n:authority: h.test", false, wire.ErrH2PseudoMissing},
		"extended CONNECT with length": {":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /\n:authority: h.test\ncontent-length: 0", false, wire.ErrH2Length},
	} {
		_, malformed, err, conn := parseH2(compress(c.lines), c.end, nil)
		if conn != nil || err != c.err || !malformed {
			t.Errorf("%s: %s, malformed %t, %v; want %s", name, text(err), malformed, conn, text(c.err))
		}
	}
}

// TestH2Refused: what the other rows of the table answer with a status.
func TestH2Refused(t *testing.T) {
	for name, c := range map[string]struct {
		lines string
		err   *fastpath.Error
	}{
		"CONNECT":            {":method: CONNECT\n:authority: h.test:443", wire.ErrConnect},
		"blank in the path":  {":method: GET\n:scheme: https\n:path: /a b\n:authority: h.test", wire.ErrTarget},
		"fragment":           {":method: GET\n:scheme: https\n:path: /a#b\n:authority: h.test", wire.ErrTarget},
		"fragment in query":  {":method: GET\n:scheme: https\n:path: /a?b#c\n:authority: h.test", wire.ErrTarget},
		"backslash":          {":method: GET\n:scheme: https\n:path: /a\\b\n:authority: h.test", wire.ErrPathBackslash},
		"above the root":     {":method: GET\n:scheme: https\n:path: /../a\n:authority: h.test", wire.ErrPathAboveRoot},
		"no authority":       {":method: GET\n:scheme: https\n:path: /", wire.ErrNoHost},
		"empty authority":    {":authority: \n:method: GET\n:scheme: https\n:path: /", wire.ErrHost},
		"port out of range":  {":method: GET\n:scheme: https\n:path: /\n:authority: h.test:70000", wire.ErrHost},
		"list of hosts":      {":method: GET\n:scheme: https\n:path: /\n:authority: a,b", wire.ErrHost},
		"Expect":             {h2Get("expect: 200-ok"), wire.ErrExpectation},
		"long path":          {":method: GET\n:scheme: https\n:path: /" + strings.Repeat("a", wire.RequestLineMax) + "\n:authority: h.test", wire.ErrRequestLineTooLong},
		"long field":         {h2Get("x: " + strings.Repeat("a", wire.LineMax)), wire.ErrLineTooLong},
		"list over its size": {h2Get(strings.Repeat("x: "+strings.Repeat("a", 10<<10)+"\n", 4)), wire.ErrHeadTooLarge},
		"101 fields":         {h2Get(strings.Repeat("x: a\n", 101)), wire.ErrHeadTooLarge},
		"200 fields":         {h2Get(strings.Repeat("x: a\n", 200)), wire.ErrHeadTooLarge},
		"WebSocket version":  {":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /\n:authority: h.test\nsec-websocket-version: 8", wire.ErrWebSocketVersion},
		"h2c":                {h2Connect("h2c"), wire.ErrH2Protocol},
		"H2C with a version": {h2Connect("H2C/2"), wire.ErrH2Protocol},
		"h2":                 {h2Connect("h2"), wire.ErrH2Protocol},
		"HTTP/2.0":           {h2Connect("HTTP/2.0"), wire.ErrH2Protocol},
	} {
		_, malformed, err, conn := parseH2(compress(c.lines), false, nil)
		if conn != nil || err != c.err || malformed {
			t.Errorf("%s: %s, malformed %t, %v; want %s", name, text(err), malformed, conn, text(c.err))
		}
	}
}

// TestH2ConnectionErrors: blocks that leave the two tables apart.
func TestH2ConnectionErrors(t *testing.T) {
	for name, c := range map[string]struct {
		block []byte
		err   *wire.H2Error
	}{
		"index 0":             {[]byte{0x80}, wire.ErrH2Compression},
		"index beyond":        {[]byte{0xff, 0x00}, wire.ErrH2Compression},
		"cut string":          {[]byte{0x00, 5, 'a'}, wire.ErrH2Compression},
		"cut integer":         {[]byte{0xff, 0xff}, wire.ErrH2Compression},
		"long integer":        {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, wire.ErrH2Compression},
		"table over its size": {[]byte{0x3f, 0xe2, 0x1f}, wire.ErrH2Compression},
		"bad Huffman padding": {[]byte{0x00, 0x81, 0x00, 0x00}, wire.ErrH2Compression},
		"bomb":                {bomb(), wire.ErrH2ListTooLong},
		"block over its size": {make([]byte, wire.H2BlockMax+1), wire.ErrH2ListTooLong},
	} {
		if _, _, _, err := parseH2(c.block, true, nil); err != c.err {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
	}
}

// bomb is an entry of nearly the whole table, and then its index again and again (CVE-2016-6581).
func bomb() []byte {
	b := append([]byte{0x40, 1, 'x', 0x7f, 0x80, 0x1e}, make([]byte, 0)...)
	value := 127 + 30<<7
	b = append(b, []byte(strings.Repeat("a", value))...)
	for range 100 {
		b = append(b, 0x80|62)
	}
	return b
}

// TestH2Request: what is accepted, as the model that HTTP/1.1 would give, and as the request that a backend of HTTP/1.1 gets.
func TestH2Request(t *testing.T) {
	for name, c := range map[string]struct {
		lines string
		end   bool
		sent  string
	}{
		"get":                 {h2Get("user-agent: t\nx-a: b"), true, "GET / HTTP/1.1\r\nHost: h.test\r\nUser-Agent: t\r\nx-a: b\r\n\r\n"},
		"only host":           {":method: GET\n:scheme: http\n:path: /a?b\nhost: H.test:80", true, "GET /a?b HTTP/1.1\r\nHost: H.test:80\r\n\r\n"},
		"host and authority":  {h2Get("host: H.TEST"), true, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n"},
		"empty cookies":       {h2Get("cookie:\ncookie: a=1\ncookie:\ncookie: b=2\ncookie:"), true, "GET / HTTP/1.1\r\nHost: h.test\r\nCookie: a=1; b=2\r\n\r\n"},
		"cookies":             {h2Get("cookie: a=1\nx: y\ncookie: b=2\ncookie: c=3"), true, "GET / HTTP/1.1\r\nHost: h.test\r\nCookie: a=1; b=2; c=3\r\nx: y\r\n\r\n"},
		"OPTIONS *":           {":method: OPTIONS\n:scheme: https\n:path: *\n:authority: h.test", true, "OPTIONS * HTTP/1.1\r\nHost: h.test\r\n\r\n"},
		"unknown method":      {":method: FROB\n:scheme: https\n:path: /\n:authority: h.test", true, "FROB / HTTP/1.1\r\nHost: h.test\r\n\r\n"},
		"length":              {h2Get("content-length: 5"), false, "GET / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\n"},
		"length 0":            {h2Get("content-length: 0"), true, "GET / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 0\r\n\r\n"},
		"unknown length":      {h2Get(), false, "GET / HTTP/1.1\r\nHost: h.test\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"te, trailer":         {h2Get("te: trailers\ntrailer: x"), false, "GET / HTTP/1.1\r\nHost: h.test\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\nConnection: TE\r\nTE: trailers\r\n\r\n"},
		"trailer alone":       {h2Get("trailer: x"), true, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n"},
		"odd name":            {h2Get("a.b: c\nx!y: z\na: b"), true, "GET / HTTP/1.1\r\nHost: h.test\r\na: b\r\n\r\n"},
		"underscore":          {h2Get("x_forwarded_for: 1\na_b: c"), true, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n"},
		"dots":                {":method: GET\n:scheme: https\n:path: /a/../b%2fc\n:authority: h.test", true, "GET /b/c HTTP/1.1\r\nHost: h.test\r\n\r\n"},
		"expect":              {h2Get("expect: 100-continue\ncontent-length: 1"), false, "GET / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 1\r\n\r\n"},
		"pseudo in any order": {":path: /\n:authority: h.test\n:scheme: https\n:method: GET", true, "GET / HTTP/1.1\r\nHost: h.test\r\n\r\n"},
		"100 fields":          {h2Get(strings.Repeat("x: a\n", 100)), true, "GET / HTTP/1.1\r\nHost: h.test\r\n" + strings.Repeat("x: a\r\n", 100) + "\r\n"},
		"WebSocket": {":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /chat\n:authority: h.test\nsec-websocket-version: 13", false,
			"GET /chat HTTP/1.1\r\nHost: h.test\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		"another protocol": {h2Connect("h2cx"), false, "GET / HTTP/1.1\r\nHost: h.test\r\nConnection: Upgrade\r\nUpgrade: h2cx\r\n\r\n"},
	} {
		r, malformed, err, conn := parseH2(compress(c.lines), c.end, nil)
		if conn != nil || err != nil {
			t.Errorf("%s: %s, malformed %t, %v", name, text(err), malformed, conn)
			continue
		}
		sent, err := wire.AppendRequest(nil, r, wire.RequestOptions{})
		if string(sent) != c.sent || err != nil {
			t.Errorf("%s: sent %q, %s\nwant %q", name, sent, text(err), c.sent)
		}
		var e wire.H2Encoder
		out, err := e.AppendRequest(nil, 1, r, true, c.end)
		b, end := block(out)
		again, _, second, conn := parseH2(b, end, nil)
		if err != nil || second != nil || conn != nil {
			t.Errorf("%s as HTTP/2 again: %s, %s, %v", name, text(err), text(second), conn)
			continue
		}
		r.Expect100, r.Resolved = false, false // the one is answered by us, the other done
		if got, want := show(again), show(r); got != want {
			t.Errorf("%s as HTTP/2 again:\n%s\nwant %s", name, got, want)
		}
	}
	r, _, _, _ := parseH2(compress(h2Get("x_forwarded_for: 1\na_b: c")), true, &wire.Limits{Underscores: true})
	if len(r.Fields) != 1 || string(r.Fields[0].Name) != "a_b" {
		t.Errorf("with Underscores: %s", showFields(r.Fields))
	}
	for lim, want := range map[wire.Limits]string{{}: "0 \"x\": \"4\"\n", {Underscores: true}: "0 \"a_b\": \"3\"\n0 \"x\": \"4\"\n",
		{OddNames: true}: "0 \"a.b\": \"2\"\n0 \"a_b\": \"3\"\n0 \"x\": \"4\"\n"} {
		r, _, err, _ := parseH2(compress(h2Get("x.forwarded.for: 1\na.b: 2\na_b: 3\nx: 4")), true, &lim)
		if err != nil || showFields(r.Fields) != want {
			t.Errorf("%+v: %s, %s, want %s", lim, text(err), showFields(r.Fields), want)
		}
	}
}

// TestH2Trailers: the request's, on their way to a decoder's list and out again.
func TestH2Trailers(t *testing.T) {
	var d wire.H2Decoder
	var l wire.H2List
	a := new(wire.Arena)
	for lines, good := range map[string]bool{
		"grpc-status: 0\nx-checksum: 1\ncontent-length: 5\ntrailer: x": true,
		":path: /": false, "connection: close": false, "X: y": false, "te: gzip": false,
		strings.Repeat("x: a\n", 33):             false,
		"x: " + strings.Repeat("a", 8<<10):       false,
		strings.Repeat("x: a\n", 32):             true,
		"x: " + strings.Repeat("a", 8<<10-1)[1:]: true,
	} {
		if err := d.Decode(compress(lines), &l, a, nil); err != nil {
			t.Fatal(err)
		}
		d = wire.H2Decoder{} // compress begins anew
		if _, ok := l.Trailers(); ok != good {
			t.Errorf("%.60q: %t", lines, ok)
		}
	}
	d.Decode(compress("grpc-status: 0\nauthorization: x\nx-checksum: 1\nhost: h\ncontent-length: 5"), &l, a, nil)
	trailers, _ := l.Trailers()
	var e wire.H2Encoder
	out, sent, err := e.AppendTrailers(nil, 3, trailers)
	b, end := block(out)
	if got := decompress(b); !sent || err != nil || !end || got != "grpc-status: 0\nx-checksum: 1\n" {
		t.Errorf("trailers sent: %q, end %t, %s", got, end, text(err))
	}
	if out, sent, _ := e.AppendTrailers(nil, 3, trailers[:0]); sent || len(out) > 0 {
		t.Errorf("no trailers: %q", out)
	}
}
