package wire_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/valyala/fasthttp"
)

func validIPv6(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6() && a.Zone() == ""
}

// seeds are all rows of the tables, whole; the largest only cost time.
func seeds(f *testing.F) {
	for _, c := range refused {
		if len(c.input) < 2000 {
			f.Add([]byte(c.input))
		}
	}
	for _, c := range accepted {
		if len(c.input) < 2000 {
			f.Add([]byte(c.input))
		}
	}
	f.Add([]byte(browserHead))
	f.Add([]byte(head("Connection: access-control-max-age", "Access-Control-Max-Age: 1")))
}

// oracleModel spells a request as the oracle does.
func oracleModel(r *wire.Request) string {
	o := oracle{method: string(r.MethodText), target: string(r.Target), path: string(r.Path), query: "none", authority: string(r.Authority),
		keep: r.KeepAlive, trailers: r.TETrailers, upgrade: string(r.Upgrade), framing: r.Framing.String()}
	if r.Query != nil {
		o.query = "?" + string(r.Query)
	}
	if r.Framing == wire.FramingLength {
		o.framing = strconv.FormatInt(r.ContentLength, 10)
	}
	for _, f := range r.Fields {
		o.fields += fmt.Sprintf("%q: %q\n", f.Name, f.Value)
	}
	return o.String()
}

// FuzzRequestHead: the plain parser accepts and refuses the same bytes and reads the same; what we send is read by it as
// what we meant; the way the bytes were cut does not matter.
func FuzzRequestHead(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4000 {
			return
		}
		wantSplitInvariant(t, b, nil)
		wantSplitInvariant(t, b, &wire.Limits{RequestLine: 40, Line: 30, Head: 200})
		r, rest, err := parseRequest(b, nil)
		model, oracleRest, ok := oracleRequest(string(b))
		if (r != nil) != ok {
			t.Fatalf("we: %s; oracle: %t", text(err), ok)
		}
		if r == nil {
			return
		}
		if got := oracleModel(r); got != model || string(rest) != oracleRest {
			t.Fatalf("we:\n%s, rest %q; oracle:\n%s, rest %q", got, rest, model, oracleRest)
		}
		wantRoundTrip(t, r)
	})
}

// wantRoundTrip sends r and reads it back, twice.
func wantRoundTrip(t *testing.T, r *wire.Request) {
	sent, err := wire.AppendRequest(nil, r, wire.RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Authority) == 0 { // an HTTP/1.0 client without Host: the engine has to choose one
		r.Authority = []byte("h")
		sent, _ = wire.AppendRequest(nil, r, wire.RequestOptions{})
	}
	r.Minor, r.KeepAlive = 1, true // on the way out it is HTTP/1.1
	want := oracleModel(r)
	model, rest, ok := oracleRequest(string(sent))
	if !ok || rest != "" || model != want {
		t.Fatalf("sent %q\nthe oracle reads %s\nwe meant %s", sent, model, want)
	}
	again, _, err := parseRequest(sent, nil)
	if err != nil {
		t.Fatalf("sent %q: %s", sent, err)
	}
	if got := oracleModel(again); got != want {
		t.Fatalf("sent %q\nwe read %s\nwe meant %s", sent, got, want)
	}
}

// FuzzChunked: the reference decoder reads the same body, however it was cut, and nothing behind it is touched.
func FuzzChunked(f *testing.F) {
	for _, c := range chunked {
		f.Add([]byte(c.input), uint16(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint16) {
		var c wire.ChunkReader
		var a wire.Arena
		body, used, done, err := decode(&c, b, int(step)+1, &a)
		want, rest, trailers, ok := oracleChunked(string(b))
		if done != ok || done && (string(body) != want || string(b[used:]) != rest || len(c.Trailers()) != trailers) {
			t.Fatalf("%q, %d, %t, %s; reference: %q, rest %q, %d trailers, %t", body, used, done, text(err), want, rest, trailers, ok)
		}
		if _, _, _, whole := decode(new(wire.ChunkReader), b, len(b)+1, nil); whole != err {
			t.Fatalf("cut: %s; whole: %s", text(err), text(whole))
		}
	})
}

// FuzzDifferential: where net/http or fasthttp accept what we accept, they read the same request, and take as many bytes.
func FuzzDifferential(f *testing.F) {
	seeds(f)
	for _, c := range chunked {
		f.Add([]byte(head("Transfer-Encoding: chunked") + c.input))
	}
	f.Add([]byte(head("Content-Length: 5") + "helloGET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, rest, err := parseRequest(b, nil)
		if r == nil || err != nil {
			return
		}
		body, after, ok := readBody(r, rest)
		if !ok {
			return
		}
		compareNetHTTP(t, b, r, body, after)
		compareFastHTTP(t, b, r, body, after)
	})
}

// readBody reads the body of r as our engine would.
func readBody(r *wire.Request, b []byte) (body, rest []byte, ok bool) {
	switch r.Framing {
	case wire.FramingLength:
		if r.ContentLength > int64(len(b)) {
			return nil, nil, false
		}
		return b[:r.ContentLength], b[r.ContentLength:], true
	case wire.FramingChunked:
		body, used, done, err := decode(new(wire.ChunkReader), b, len(b)+1, nil)
		return body, b[used:], done && err == nil
	}
	return nil, b, true
}

func compareNetHTTP(t *testing.T, b []byte, r *wire.Request, body, after []byte) {
	source := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(b, "\r\n")))
	q, err := http.ReadRequest(source)
	if err != nil {
		return
	}
	theirs, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	rest, _ := io.ReadAll(source)
	path := string(r.Path) // where net/http has none: "*", or an absolute target without one
	if strings.HasPrefix(q.URL.Path, "/") {
		path, _, _ = oraclePath(escape(q.URL.Path, "/"))
	}
	if q.Method != string(r.MethodText) || strings.TrimSuffix(q.Host, ":") != string(r.Authority) || path != string(r.Path) ||
		q.URL.RawQuery != string(r.Query) {
		t.Fatalf("net/http: %s %q %q %q; we: %s", q.Method, q.Host, path, q.URL.RawQuery, show(r))
	}
	if !bytes.Equal(theirs, body) || !bytes.Equal(rest, after) {
		t.Fatalf("net/http: body %q, rest %q; we: %q, %q", theirs, rest, body, after)
	}
}

func compareFastHTTP(t *testing.T, b []byte, r *wire.Request, body, after []byte) {
	source := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(b, "\r\n")))
	var q fasthttp.Request
	if err := q.Read(source); err != nil {
		return
	}
	rest, _ := io.ReadAll(source)
	if string(q.Header.Method()) != string(r.MethodText) {
		t.Fatalf("fasthttp: %s; we: %s", q.Header.Method(), show(r))
	}
	if host := string(q.Header.Host()); afterScheme(string(q.RequestURI())) == "" && strings.TrimSuffix(host, ":") != string(r.Authority) {
		t.Fatalf("fasthttp: host %q; we: %s", host, show(r))
	}
	// fasthttp leaves the body of GET and HEAD unread: that is its engine's business.
	if r.Method != wire.MethodGet && r.Method != wire.MethodHead && (!bytes.Equal(q.Body(), body) || !bytes.Equal(rest, after)) {
		t.Fatalf("fasthttp: body %q, rest %q; we: %q, %q", q.Body(), rest, body, after)
	}
}

func afterScheme(s string) string {
	if m := oracleForm.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

// FuzzResponseHead: cuts do not matter, and what we send is read back as the same by us and, where it accepts, by net/http.
func FuzzResponseHead(f *testing.F) {
	for _, c := range responsesRefused {
		if len(c.input) < 2000 {
			f.Add([]byte(c.input), false)
		}
	}
	for _, c := range responsesAccepted {
		f.Add([]byte(c.input), c.method == wire.MethodHead)
	}
	f.Fuzz(func(t *testing.T, b []byte, head bool) {
		n, err := wire.ResponseHeadEnd(b, 0, nil)
		for cut := range min(len(b), 4000) {
			if m, e := responseHeadEndSplit(b, cut); m != n || e != err {
				t.Fatalf("cut at %d: %d, %s; whole: %d, %s", cut, m, text(e), n, text(err))
			}
		}
		method := wire.MethodGet
		if head {
			method = wire.MethodHead
		}
		r, _, err := parseResponse(b, method)
		if r == nil || err != nil || r.Status == 101 && r.Upgrade == nil {
			return
		}
		keep := r.KeepAlive
		sent, err := wire.AppendResponse(nil, r, wire.ResponseOptions{KeepAlive: keep, ClientMinor: 1, Head: head, Trailers: true})
		if err != nil {
			t.Fatalf("%s: %s", showResponse(r), err)
		}
		again, rest, err := parseResponse(sent, method)
		if err != nil || len(rest) > 0 {
			t.Fatalf("sent %q: %s, rest %q", sent, text(err), rest)
		}
		r.Reason, r.Minor, r.KeepAliveHint, r.Listed = again.Reason, 1, 0, nil
		if r.Status < 200 || r.Status == 204 { // these announce nothing on the way out
			r.ContentLength = -1
		}
		if r.Status < 200 { // nor have they a word about the connection
			r.KeepAlive = true
		}
		if showResponse(again) != showResponse(r) {
			t.Fatalf("sent %q\nread %s\nmeant %s", sent, showResponse(again), showResponse(r))
		}
	})
}

// FuzzResponseBody: a sequence of answers on one connection, as net/http reads it where it accepts it.
func FuzzResponseBody(f *testing.F) {
	f.Add([]byte(answer("Content-Length: 5")+"hello"+answer("Transfer-Encoding: chunked")+"1\r\na\r\n0\r\n\r\n"), uint8(0))
	f.Add([]byte("HTTP/1.1 204 No Content\r\n\r\n"+answer("Content-Length: 0")), uint8(0))
	f.Add([]byte("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"+answer("Content-Length: 1")+"a"), uint8(0))
	f.Add([]byte("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"+answer("X: y")+"until the end"), uint8(0))
	f.Add([]byte(answer("Content-Length: 5")+answer("Content-Length: 5")+"hello"), uint8(1))
	f.Add([]byte(answer("Transfer-Encoding: chunked")+answer("Content-Length: 0")), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, heads uint8) {
		source := bufio.NewReader(bytes.NewReader(b))
		for i := range 4 {
			method := wire.MethodGet
			if heads>>i&1 == 1 {
				method = wire.MethodHead
			}
			r, rest, err := parseResponse(b, method)
			if r == nil || err != nil {
				return
			}
			body, after, ok := readResponseBody(r, rest)
			if !ok {
				return
			}
			q, err2 := http.ReadResponse(source, &http.Request{Method: method.Name()})
			if err2 != nil {
				return
			}
			theirs, err2 := io.ReadAll(q.Body)
			if err2 != nil || q.StatusCode == 101 {
				return
			}
			if q.StatusCode != r.Status || !bytes.Equal(theirs, body) {
				t.Fatalf("net/http: %d, body %q; we: %s%q", q.StatusCode, theirs, showResponse(r), body)
			}
			if b = after; !r.KeepAlive {
				return
			}
		}
	})
}

func readResponseBody(r *wire.Response, b []byte) (body, rest []byte, ok bool) {
	switch r.Framing {
	case wire.FramingClose:
		return b, nil, true
	case wire.FramingNone:
		return nil, b, true
	}
	return readBody(&wire.Request{Framing: r.Framing, ContentLength: r.ContentLength}, b)
}

// FuzzPath: what is normalised stays as it is, leads nowhere else and has no dot segment left; the plain parser agrees.
func FuzzPath(f *testing.F) {
	for _, c := range append(refusedTargets(), "/", "/a/./b/../c", "/%2e%2e/", "/a%2f%2e./b", "/%25%32%65", "/a//b/%2F/c", "/%c3%a4\xc3\xa4", "/...", "/a/..%2f") {
		f.Add([]byte(c))
	}
	f.Fuzz(func(t *testing.T, spelling []byte) {
		out, dots, err := wire.NormalisePath([]byte("before"), spelling)
		if !bytes.HasPrefix(out, []byte("before")) || err != nil && len(out) != 6 {
			t.Fatalf("%q", out)
		}
		out = out[6:]
		want, wantDots, ok := "", false, false
		if len(spelling) > 0 && spelling[0] == '/' && !bytes.ContainsAny(spelling, "?#\x7f") && !bytes.ContainsFunc(spelling, func(c rune) bool { return c <= ' ' }) {
			want, wantDots, ok = oraclePath(string(spelling))
		}
		if ok != (err == nil) || ok && (string(out) != want || dots != wantDots) {
			t.Fatalf("%q, %t, %s; oracle: %q, %t, %t", out, dots, text(err), want, wantDots, ok)
		}
		if !ok {
			return
		}
		if s := string(out) + "/"; s[0] != '/' || strings.Contains(s, "/../") || strings.Contains(s, "/./") || strings.Contains(string(out), "//") {
			t.Fatalf("%q escapes", out)
		}
		again, dots, err := wire.NormalisePath(nil, wire.AppendPath(nil, out))
		if err != nil || dots || !bytes.Equal(again, out) {
			t.Fatalf("%q is sent as %q and read as %q, %t, %s", out, wire.AppendPath(nil, out), again, dots, text(err))
		}
	})
}

func refusedTargets() (targets []string) {
	for _, c := range refused {
		if p := strings.SplitN(c.input, " ", 3); c.row == "path" && len(p) == 3 {
			targets = append(targets, p[1])
		}
	}
	return targets
}

// FuzzHostPort: the plain parser agrees, normalising is idempotent, and what is accepted stays accepted.
func FuzzHostPort(f *testing.F) {
	for _, c := range refused {
		if _, value, ok := strings.Cut(c.input, "Host: "); ok && c.row == "Host" {
			f.Add([]byte(strings.TrimRight(value, "\r\n")))
		}
	}
	for _, s := range []string{"a", "A.b.:80", "[::1]:443", "[::ffff:1.2.3.4]", "1.2.3.4:1", "a:", "[1:2:3:4:5:6:7::]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		host, port, err := wire.ParseAuthority(b)
		if ok := validAuthority(string(b)); ok != (err == nil) {
			t.Fatalf("%s; oracle: %t", text(err), ok)
		}
		if err != nil {
			return
		}
		if len(port) > 0 && string(host)+":"+string(port) != string(b) {
			t.Fatalf("%q %q", host, port)
		}
		once := wire.NormaliseHost(nil, host)
		if twice := wire.NormaliseHost(nil, once); !bytes.Equal(once, twice) || len(once) == 0 {
			t.Fatalf("%q, %q", once, twice)
		}
	})
}

// FuzzXFF: addresses are those that net/netip reads from the same texts.
func FuzzXFF(f *testing.F) {
	for _, s := range []string{"192.0.2.1, [2001:db8::1]:80,::1", "1.2.3.4:5", "::ffff:1.2.3.4", "a, 1.2.3.4", ",", "1::2::3", "1.2.3.4,\t5.6.7.8 "} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		walk := wire.LastForwardedFor([]wire.Field{wire.NewField(wire.FieldXForwardedFor, b)})
		parts := strings.Split(string(b), ",")
		for i := len(parts) - 1; ; i-- {
			got, ok := walk.Next()
			if i < 0 {
				if ok {
					t.Fatalf("more: %v", got)
				}
				return
			}
			want, valid := plainAddr(strings.Trim(parts[i], " \t"))
			if ok != valid || got != want {
				t.Fatalf("%q: %v %t, want %v %t", parts[i], got, ok, want, valid)
			}
			if !ok {
				return
			}
		}
	})
}

// plainAddr tries one text form after the other.
func plainAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		var p netip.AddrPort
		p, err = netip.ParseAddrPort(s)
		a = p.Addr()
	}
	if inner, found := strings.CutPrefix(s, "["); err != nil && found && strings.HasSuffix(inner, "]") {
		if a, err = netip.ParseAddr(inner[:len(inner)-1]); a.Is4() {
			return netip.Addr{}, false
		}
	}
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// FuzzForwarded: it ends, and what it gives is text of the field, without a control character.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{`for=192.0.2.60;proto=http;by=203.0.113.43`, `For="[2001:db8::1]:4711"`, `for=a, for=b;host="h:80"`, `for="a\"b"`, `for=a;`, `=`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		elements := 0
		for rest := b; rest != nil; elements++ {
			var e wire.ForwardedElement
			var err *fastpath.Error
			before := len(rest)
			if e, rest, err = wire.NextForwarded(rest); err != nil {
				return
			}
			if rest != nil && len(rest) >= before {
				t.Fatal("no progress")
			}
			for _, v := range [][]byte{e.For, e.By, e.Host, e.Proto} {
				if !wire.ValidValue(v) || bytes.ContainsAny(v, "\"\\\t") || !bytes.Contains(b, v) {
					t.Fatalf("%q", v)
				}
			}
		}
		if quotes := bytes.Count(b, []byte(`"`)); quotes == 0 && elements != bytes.Count(b, []byte(","))+1 {
			t.Fatalf("%d elements", elements)
		}
	})
}
