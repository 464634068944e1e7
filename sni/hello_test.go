package sni

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// realHello is the first flight of crypto/tls's own client, as one record.
func realHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		tls.Client(client, config).Handshake() // fails when the test has what it came for
		client.Close()
	}()
	stream := make([]byte, recordHeaderBytes)
	if _, err := io.ReadFull(server, stream); err != nil {
		t.Fatal(err)
	}
	stream = append(stream, make([]byte, binary.BigEndian.Uint16(stream[3:]))...)
	if _, err := io.ReadFull(server, stream[recordHeaderBytes:]); err != nil {
		t.Fatal(err)
	}
	return stream
}

// shopHello is a hello as browsers send it today: a post-quantum key share, h2 before http/1.1.
func shopHello(t testing.TB) []byte {
	return realHello(t, &tls.Config{ServerName: "shop.example.com", NextProtos: []string{"h2", "http/1.1"}})
}

// The builders below make hellos that no sane client sends.

func vector8(b ...[]byte) []byte {
	body := slices.Concat(b...)
	return append([]byte{byte(len(body))}, body...)
}

func vector16(b ...[]byte) []byte {
	body := slices.Concat(b...)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...)
}

func extension(kind uint16, body ...[]byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, kind), vector16(body...)...)
}

func hostName(name string) []byte { return append([]byte{nameTypeHost}, vector16([]byte(name))...) }

func serverName(name string) []byte { return extension(extensionServerName, vector16(hostName(name))) }

func alpn(protocols ...string) []byte {
	var list []byte
	for _, p := range protocols {
		list = append(list, vector8([]byte(p))...)
	}
	return extension(extensionALPN, vector16(list))
}

func messageOf(body []byte) []byte {
	n := len(body)
	return append([]byte{messageClientHello, byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}

var (
	bodyStart = append([]byte{3, 3}, bytes.Repeat([]byte{0xaa}, randomBytes)...)
	bodySuite = slices.Concat(vector8(), vector16([]byte{0x13, 0x01}), vector8([]byte{0}))
)

// message is a whole ClientHello with these extensions.
func message(extensions ...[]byte) []byte {
	return messageOf(slices.Concat(bodyStart, bodySuite, vector16(extensions...)))
}

// records cuts a message into records of the given payload lengths, over and over.
func records(message []byte, lengths ...int) (stream []byte) {
	for i := 0; len(message) > 0; i++ {
		n := min(len(message), recordPayloadMax)
		if len(lengths) > 0 {
			n = min(n, lengths[i%len(lengths)])
		}
		stream = append(stream, recordHandshake, 3, 1, byte(n>>8), byte(n))
		stream = append(stream, message[:n]...)
		message = message[n:]
	}
	return stream
}

// joined is the message that well-formed records carry.
func joined(stream []byte) (message []byte) {
	for len(stream) > 0 {
		n := recordHeaderBytes + int(binary.BigEndian.Uint16(stream[3:]))
		message = append(message, stream[recordHeaderBytes:n]...)
		stream = stream[n:]
	}
	return message
}

// protocols lists what Offers looks through.
func (h *Hello) protocols() (list []string) {
	for all := h.alpn; all.left > 0; {
		p, ok := all.vector(1)
		if !ok {
			panic("ALPN list was not validated")
		}
		b := make([]byte, p.left)
		p.copyTo(b)
		list = append(list, string(b))
	}
	return list
}

type helloCase struct {
	name      string
	stream    []byte
	server    string
	protocols []string
	err       error
}

var longName = strings.Repeat(strings.Repeat("a", 49)+".", 5) + "eu.io" // 255 bytes

var helloCases = []helloCase{
	{"no extensions at all", records(messageOf(slices.Concat(bodyStart, bodySuite))), "", nil, nil},
	{"empty extensions", records(message()), "", nil, nil},
	{"bytes after the hello", append(records(message(serverName("a"))), "\x14\x03\x03\x00\x01\x01"...), "a", nil, nil},
	{"hello over two full records", records(message(serverName("a"), extension(21, make([]byte, 20000)))), "a", nil, nil},
	{"GREASE and ECH", records(message(extension(0x0a0a), serverName("a"), extension(0xfe0d, make([]byte, 200)), extension(0x1a1a, []byte{0}))), "a", nil, nil},
	{"other name types beside the host", records(message(extension(0, vector16([]byte{7}, vector16([]byte("x")), hostName("a"))))), "a", nil, nil},
	{"only another name type", records(message(extension(0, vector16([]byte{7}, vector16([]byte("x")))))), "", nil, nil},

	{"one label", records(message(serverName("localhost"))), "localhost", nil, nil},
	{"upper case", records(message(serverName("SHOP.Example.COM"))), "SHOP.Example.COM", nil, nil},
	{"trailing dot", records(message(serverName("a.example."))), "a.example.", nil, nil},
	{"underscore, digits, hyphen", records(message(serverName("_x.1-2.example"))), "_x.1-2.example", nil, nil},
	{"punycode", records(message(serverName("xn--bcher-kva.example"))), "xn--bcher-kva.example", nil, nil},
	{"name of 255 bytes", records(message(serverName(longName))), longName, nil, nil},
	{"name of 255 bytes, straddling", records(message(serverName(longName)), 100), longName, nil, nil},
	{"label of 63 bytes", records(message(serverName(strings.Repeat("a", 63)))), strings.Repeat("a", 63), nil, nil},
	{"almost an address", records(message(serverName("1.2.3.256"))), "1.2.3.256", nil, nil},
	{"IPv4", records(message(serverName("192.0.2.1"))), "", nil, nil},
	{"IPv4, straddling", records(message(serverName("192.0.2.1")), 2), "", nil, nil},
	{"IPv4 with a dot", records(message(serverName("192.0.2.1."))), "", nil, nil},
	{"IPv6", records(message(serverName("2001:db8::1"))), "", nil, nil},
	{"IPv6 in brackets", records(message(serverName("[::1]"))), "", nil, nil},

	{"name of 256 bytes", records(message(serverName("a" + longName))), "", nil, ErrMalformed},
	{"label of 64 bytes", records(message(serverName(strings.Repeat("a", 64)))), "", nil, ErrMalformed},
	{"name with a port", records(message(serverName("a.example:443"))), "", nil, ErrMalformed},
	{"IPv6 with a zone", records(message(serverName("fe80::1%eth0"))), "", nil, ErrMalformed},
	{"NUL in the name", records(message(serverName("a\x00.example"))), "", nil, ErrMalformed},
	{"new line in the name", records(message(serverName("a\r\n"))), "", nil, ErrMalformed},
	{"blank in the name", records(message(serverName("a b"))), "", nil, ErrMalformed},
	{"wildcard", records(message(serverName("*.example"))), "", nil, ErrMalformed},
	{"UTF-8", records(message(serverName("bücher.example"))), "", nil, ErrMalformed},
	{"only a dot", records(message(serverName("."))), "", nil, ErrMalformed},
	{"two dots at the end", records(message(serverName("a.."))), "", nil, ErrMalformed},
	{"empty label", records(message(serverName("a..b"))), "", nil, ErrMalformed},
	{"dot in front", records(message(serverName(".a"))), "", nil, ErrMalformed},
	{"hyphen in front", records(message(serverName("-a.b"))), "", nil, ErrMalformed},
	{"hyphen at a label's end", records(message(serverName("a-.b"))), "", nil, ErrMalformed},
	{"empty name", records(message(serverName(""))), "", nil, ErrMalformed},
	{"empty name of another type", records(message(extension(0, vector16(hostName("a"), []byte{7}, vector16())))), "", nil, ErrMalformed},
	{"empty name list", records(message(extension(0, vector16()))), "", nil, ErrMalformed},
	{"empty server_name", records(message(extension(0))), "", nil, ErrMalformed},
	{"two host names", records(message(extension(0, vector16(hostName("a"), hostName("b"))))), "", nil, ErrMalformed},
	{"an address, then a host name", records(message(extension(0, vector16(hostName("::1"), hostName("b"))))), "", nil, ErrMalformed},
	{"byte after the name list", records(message(extension(0, vector16(hostName("a")), []byte{0}))), "", nil, ErrMalformed},
	{"name list too long", records(message(extension(0, []byte{0, 9}, hostName("a")))), "", nil, ErrMalformed},
	{"name too long for its list", records(message(extension(0, vector16([]byte{0, 0, 9, 'a'})))), "", nil, ErrMalformed},
	{"two server_name extensions", records(message(serverName("a"), serverName("b"))), "", nil, ErrMalformed},
	{"two unknown extensions alike", records(message(extension(0x4242), serverName("b"), extension(0x4242))), "", nil, ErrMalformed},

	{"protocol of 255 bytes", records(message(alpn(strings.Repeat("p", 255)))), "", []string{strings.Repeat("p", 255)}, nil},
	{"empty ALPN list", records(message(alpn())), "", nil, ErrMalformed},
	{"empty protocol", records(message(alpn("h2", ""))), "", nil, ErrMalformed},
	{"byte after the ALPN list", records(message(extension(16, vector16(vector8([]byte("h2"))), []byte{0}))), "", nil, ErrMalformed},
	{"protocol too long for its list", records(message(extension(16, vector16([]byte{9, 'h'})))), "", nil, ErrMalformed},

	{"extension too long", records(messageOf(slices.Concat(bodyStart, bodySuite, vector16([]byte{0, 0, 0, 9})))), "", nil, ErrMalformed},
	{"half an extension", records(messageOf(slices.Concat(bodyStart, bodySuite, vector16([]byte{0, 0, 0})))), "", nil, ErrMalformed},
	{"byte after the extensions", records(messageOf(slices.Concat(bodyStart, bodySuite, vector16(), []byte{0}))), "", nil, ErrMalformed},
	{"as many extensions as allowed", records(message(numbered(helloExtensionsMax)...)), "", nil, nil},
	{"too many extensions", records(message(numbered(helloExtensionsMax + 1)...)), "", nil, ErrMalformed},
	{"session id of 33 bytes", records(messageOf(slices.Concat(bodyStart, vector8(make([]byte, 33)), bodySuite[1:]))), "", nil, ErrMalformed},
	{"no cipher suite", records(messageOf(slices.Concat(bodyStart, vector8(), vector16(), vector8([]byte{0}), []byte{0, 0}))), "", nil, ErrMalformed},
	{"half a cipher suite", records(messageOf(slices.Concat(bodyStart, vector8(), vector16([]byte{1, 2, 3}), vector8([]byte{0})))), "", nil, ErrMalformed},
	{"no compression method", records(messageOf(slices.Concat(bodyStart, vector8(), vector16([]byte{1, 2}), vector8(), []byte{0, 0}))), "", nil, ErrMalformed},
	{"version 2.3 inside", records(messageOf(append([]byte{2}, message()[5:]...))), "", nil, ErrMalformed},
	{"message shorter than any", []byte{22, 3, 1, 0, 4, 1, 0, 0, 40}, "", nil, ErrMalformed},

	{"empty record", []byte{22, 3, 1, 0, 0}, "", nil, ErrMalformed},
	{"empty record between", emptyRecordWithin(message(serverName("a"))), "", nil, ErrMalformed},
	{"record of 16385 bytes", []byte{22, 3, 1, 0x40, 1}, "", nil, ErrMalformed},
	{"ServerHello", []byte{22, 3, 3, 0, 90, 2}, "", nil, ErrMalformed},
	{"byte after the hello in its record", records(append(message(serverName("a")), 0)), "", nil, ErrMalformed},
	{"second message in the record", records(append(message(), 16, 0, 0, 0)), "", nil, ErrMalformed},
	{"alert between the records", append(records(message(serverName("a"))[:20]), 21, 3, 1, 0, 2, 1, 0), "", nil, ErrMalformed},
	{"HTTP between the records", append(records(message(serverName("a"))[:20]), "GET /"...), "", nil, ErrMalformed},

	{"largest hello", records(messageFilling(helloBytesMax)), "a", nil, nil},
	{"hello one byte larger", records(messageFilling(helloBytesMax + 1)), "", nil, ErrTooLarge},
	{"announced 16 MiB", []byte{22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff}, "", nil, ErrTooLarge},
	{"records that make it too large", records(messageFilling(helloBytesMax/2), 4), "", nil, ErrTooLarge},

	{"nothing", nil, "", nil, ErrShort},
	{"one byte", []byte{22}, "", nil, ErrShort},

	{"HTTP", []byte("GET / HTTP/1.1\r\n"), "", nil, ErrNotTLS},
	{"HTTP, one byte", []byte("P"), "", nil, ErrNotTLS},
	{"HTTP/2 with prior knowledge", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "", nil, ErrNotTLS},
	{"SSLv2 hello", []byte{0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10}, "", nil, ErrNotTLS},
	{"DTLS", []byte{22, 0xfe, 0xff}, "", nil, ErrNotTLS},
	{"alert first", []byte{21, 3, 1, 0, 2, 1, 0}, "", nil, ErrNotTLS},
	{"PROXY header", []byte("PROXY TCP4 "), "", nil, ErrNotTLS},
}

func TestParse(t *testing.T) {
	captured := []helloCase{
		{"crypto/tls", shopHello(t), "shop.example.com", []string{"h2", "http/1.1"}, nil},
		{"crypto/tls, TLS 1.2", realHello(t, &tls.Config{ServerName: "a.b", MaxVersion: tls.VersionTLS12}), "a.b", nil, nil},
		{"crypto/tls, no name", realHello(t, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}), "", []string{"h2"}, nil},
		{"records of one byte", records(joined(shopHello(t)), 1), "shop.example.com", []string{"h2", "http/1.1"}, nil},
		{"records of 7 and 300 bytes", records(joined(shopHello(t)), 7, 300), "shop.example.com", []string{"h2", "http/1.1"}, nil},
		{"record header only", shopHello(t)[:5], "", nil, ErrShort},
		{"all but the last byte", shopHello(t)[:len(shopHello(t))-1], "", nil, ErrShort},
	}
	for _, c := range append(captured, helloCases...) {
		t.Run(c.name, func(t *testing.T) {
			h, err := Parse(c.stream)
			if err != c.err {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if got := string(h.ServerName()); got != c.server {
				t.Errorf("server name %q, want %q", got, c.server)
			}
			if got := h.protocols(); !slices.Equal(got, c.protocols) {
				t.Errorf("protocols %q, want %q", got, c.protocols)
			}
			checkPrefixes(t, c.stream)
		})
	}
}

func numbered(n int) (extensions [][]byte) {
	for i := range n {
		extensions = append(extensions, extension(uint16(0x4000+i)))
	}
	return extensions
}

// messageFilling makes a hello for "a" that is n bytes long in the largest records.
func messageFilling(n int) []byte {
	headers := (n + recordPayloadMax + recordHeaderBytes - 1) / (recordPayloadMax + recordHeaderBytes) * recordHeaderBytes
	padding := n - headers - len(message(serverName("a"), extension(21), extension(23)))
	return message(serverName("a"), extension(21, make([]byte, padding/2)), extension(23, make([]byte, padding-padding/2)))
}

func emptyRecordWithin(message []byte) []byte {
	stream := append(records(message[:30]), recordHandshake, 3, 1, 0, 0)
	return append(stream, records(message[30:])...)
}

func TestOffers(t *testing.T) {
	m := message(serverName("a"), alpn("http/1.1", "h2", "h2c"))
	for _, stream := range [][]byte{records(m), records(m, 1), records(m, 40, 3)} {
		h, err := Parse(stream)
		if err != nil {
			t.Fatal(err)
		}
		for protocol, want := range map[string]bool{"h2": true, "http/1.1": true, "h2c": true, "h": false, "h3": false, "": false, "http/1.1\x02h2": false} {
			if got := h.Offers(protocol); got != want {
				t.Errorf("Offers(%q) = %v", protocol, got)
			}
		}
	}
	if none := (Hello{}); none.Offers("h2") || none.Offers("") {
		t.Error("a hello without ALPN offers a protocol")
	}
}

// TestPostQuantum is here because such a hello exceeds a TCP segment, which hellos did not before.
func TestPostQuantum(t *testing.T) {
	stream := realHello(t, &tls.Config{ServerName: "pq.example", CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}})
	if len(stream) < 1216 {
		t.Fatalf("hello of %d bytes has no ML-KEM key share", len(stream))
	}
	h, err := Parse(stream)
	if err != nil || string(h.ServerName()) != "pq.example" || h.Need != len(stream) {
		t.Errorf("%q, need %d of %d, %v", h.ServerName(), h.Need, len(stream), err)
	}
}

// TestZeroCopy: within one record the name is a view of the stream, whose capacity does not reach past it.
func TestZeroCopy(t *testing.T) {
	whole := message(serverName("shop.example.com"))
	for _, stream := range [][]byte{shopHello(t), records(whole), records(whole, len(whole)-16)} {
		h, err := Parse(stream)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(stream, []byte("shop.example.com"))
		if name := h.ServerName(); &name[0] != &stream[at] || cap(name) != len(name) {
			t.Error("server name is not a view of exactly its bytes")
		}
	}
}

// TestCopiesOfHello: a straddling name lies in the Hello, so each copy must show its own.
func TestCopiesOfHello(t *testing.T) {
	a, _ := Parse(records(message(serverName("first.example")), 60))
	b := a
	a, _ = Parse(records(message(serverName("other.example")), 60))
	if string(a.ServerName()) != "other.example" || string(b.ServerName()) != "first.example" {
		t.Errorf("%q, %q", a.ServerName(), b.ServerName())
	}
}

// TestNeed plays a caller that sleeps until Need bytes are there. What a peer can make it do is bounded by the logarithm of
// the hello's size, however small records and segments are.
func TestNeed(t *testing.T) {
	cases := []struct {
		name   string
		stream []byte
		calls  int
	}{
		{"one record", shopHello(t), 4},
		{"two full records", records(message(extension(21, make([]byte, 20000)))), 5},
		{"largest hello", records(messageFilling(helloBytesMax)), 7},
		{"tiny records", records(joined(shopHello(t)), 1), 48},
		{"as many tiny records as fit", records(messageFilling(helloBytesMax/6), 1), 64},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			calls, peeked := 1, 0
			h, err := Parse(nil)
			if h.Need != 1 {
				t.Errorf("need %d to tell TLS from HTTP, want 1", h.Need)
			}
			for err == ErrShort {
				if h.Need <= peeked || h.Need > len(c.stream) {
					t.Fatalf("need %d with %d of %d bytes", h.Need, peeked, len(c.stream))
				}
				peeked = h.Need
				h, err = Parse(c.stream[:peeked])
				calls++
			}
			if err != nil || h.Need != len(c.stream) {
				t.Fatalf("need %d of %d, %v", h.Need, len(c.stream), err)
			}
			if calls > c.calls {
				t.Errorf("%d calls, want at most %d", calls, c.calls)
			}
		})
	}
}

func TestLooksLikeTLS(t *testing.T) {
	for stream, want := range map[string]bool{"": true, "\x16": true, "\x16\x03": true, "\x16\x03\x01": true, "\x16\x02": false, "\x80": false, "G": false, "\x15\x03": false} {
		if got := looksLikeTLS([]byte(stream)); got != want {
			t.Errorf("looksLikeTLS(%q) = %v", stream, got)
		}
	}
}

// checkPrefixes cuts a stream everywhere: each beginning must be ErrShort with a Need that is kept, or already the result of
// the whole. Bytes that follow must change nothing.
func checkPrefixes(t *testing.T, stream []byte) {
	t.Helper()
	whole, wholeErr := Parse(stream[:len(stream):len(stream)])
	need := 0
	for n := 0; n <= len(stream); n += 1 + n/512 { // each of the first 512, then ever fewer
		h, err := Parse(stream[:n:n])
		if (err == ErrNotTLS) == looksLikeTLS(stream[:n]) {
			t.Fatalf("%d bytes: %v, but looksLikeTLS says %v", n, err, looksLikeTLS(stream[:n]))
		}
		if err == ErrShort {
			if h.Need <= n || h.Need < need || wholeErr == nil && h.Need > whole.Need {
				t.Fatalf("%d bytes need %d, the whole %d", n, h.Need, whole.Need)
			}
			need = h.Need
			continue
		}
		if err != wholeErr || !bytes.Equal(h.ServerName(), whole.ServerName()) || !slices.Equal(h.protocols(), whole.protocols()) || h.Need != whole.Need {
			t.Fatalf("%d bytes: %q %v, the whole: %q %v", n, h.ServerName(), err, whole.ServerName(), wholeErr)
		}
		if err == nil && n < need { // a refusal may come before
			t.Fatalf("%d bytes needed, %d were enough", need, n)
		}
	}
	if wholeErr == ErrShort {
		return
	}
	longer, err := Parse(append(slices.Clone(stream), "\x16\x03\x01\x00\x01\x01GET"...))
	if err != wholeErr || !bytes.Equal(longer.ServerName(), whole.ServerName()) || longer.Need != whole.Need {
		t.Fatalf("with more bytes behind: %q %v, alone: %q %v", longer.ServerName(), err, whole.ServerName(), wholeErr)
	}
}

// replay is a connection that has said all it will say.
type replay struct{ io.Reader }

func (replay) Write(b []byte) (int, error)      { return len(b), nil }
func (replay) Close() error                     { return nil }
func (replay) LocalAddr() net.Addr              { return nil }
func (replay) RemoteAddr() net.Addr             { return nil }
func (replay) SetDeadline(time.Time) error      { return nil }
func (replay) SetReadDeadline(time.Time) error  { return nil }
func (replay) SetWriteDeadline(time.Time) error { return nil }

// seenByCryptoTLS is crypto/tls's own view of a stream; nil if it refuses it.
func seenByCryptoTLS(stream []byte) (seen *tls.ClientHelloInfo) {
	enough := errors.New("enough")
	tls.Server(replay{bytes.NewReader(stream)}, &tls.Config{
		GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			seen = info
			return nil, enough
		},
	}).Handshake()
	return seen
}

func checkAgainstCryptoTLS(t *testing.T, stream []byte, h *Hello) {
	t.Helper()
	seen := seenByCryptoTLS(stream)
	if seen == nil {
		return
	}
	want := seen.ServerName
	if _, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(want, "["), "]")); err == nil {
		want = ""
	}
	if got := string(h.ServerName()); got != want {
		t.Fatalf("server name %q, crypto/tls sees %q", got, want)
	}
	if got := h.protocols(); !slices.Equal(got, seen.SupportedProtos) {
		t.Fatalf("protocols %q, crypto/tls sees %q", got, seen.SupportedProtos)
	}
	for _, p := range seen.SupportedProtos {
		if !h.Offers(p) {
			t.Fatalf("does not offer %q", p)
		}
	}
}

// FuzzClientHello: arbitrary bytes never panic, beginnings are consistent, and what is accepted reads as crypto/tls reads it,
// also after it is cut into other records (cuts: one payload length each, less one). Run it with -fuzzminimizetime=20x: by
// default the fuzzer spends its whole time on shortening the first interesting hello, byte by byte.
func FuzzClientHello(f *testing.F) {
	real := shopHello(f)
	f.Add(real, []byte{0})
	f.Add(real, []byte{9, 255, 31})
	f.Add(realHello(f, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}), []byte{3})
	f.Add(records(joined(real), 100), []byte{63})
	f.Add(records(message(serverName("Shop.Example"), alpn("h2", "http/1.1"))), []byte{1})
	f.Add(records(message(serverName("a.example."), extension(0x2a2a)), 1), []byte{})
	f.Add(records(message(extension(0, vector16([]byte{7}, vector16([]byte("x")), hostName("a"))))), []byte{50, 2})
	f.Add(records(message(serverName("192.0.2.1")), 5), []byte{4})
	f.Add(records(message(serverName("[2001:db8::1]"))), []byte{4})
	f.Add(records(message(serverName("a"), serverName("b"))), []byte{4})
	f.Add(emptyRecordWithin(message(serverName("a"))), []byte{4})
	f.Add([]byte{0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10}, []byte{})
	f.Add([]byte("GET / HTTP/1.1\r\n"), []byte{})
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		checkPrefixes(t, stream)
		h, err := Parse(stream)
		if err != nil {
			return
		}
		checkAgainstCryptoTLS(t, stream, &h)

		lengths := make([]int, len(cuts))
		for i, c := range cuts {
			lengths[i] = int(c) + 1
		}
		recut := records(joined(stream[:h.Need]), lengths...)
		again, err := Parse(recut)
		if len(recut) > helloBytesMax {
			if err != ErrTooLarge {
				t.Fatalf("%d bytes: %v", len(recut), err)
			}
			return
		}
		if err != nil || !bytes.Equal(again.ServerName(), h.ServerName()) || !slices.Equal(again.protocols(), h.protocols()) {
			t.Fatalf("cut anew: %q %q %v, before: %q %q", again.ServerName(), again.protocols(), err, h.ServerName(), h.protocols())
		}
		checkPrefixes(t, recut)
		checkAgainstCryptoTLS(t, recut, &again)
	})
}

// TestRealHellosAreAccepted is the half that FuzzClientHello cannot ask for: strictness must not cost a real client.
func TestRealHellosAreAccepted(t *testing.T) {
	stream := shopHello(t)
	for n := 1; n < len(stream); n += 13 {
		recut := records(joined(stream), n)
		h, err := Parse(recut)
		if err != nil {
			t.Fatalf("records of %d: %v", n, err)
		}
		if seenByCryptoTLS(recut) == nil {
			t.Fatalf("records of %d: refused by crypto/tls", n)
		}
		checkAgainstCryptoTLS(t, recut, &h)
	}
}
