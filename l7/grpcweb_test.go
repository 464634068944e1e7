package l7

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

//lint:file-ignore SA1019 a connection that the rig has accepted is given to a server of HTTP/2; net/http's takes listeners

// webRig has a backend of HTTP/2 behind a route that translates gRPC-Web.
func webRig(t *testing.T, serve http.HandlerFunc, change ...func(*rig)) *rig {
	r := newRig(t, append([]func(*rig){func(r *rig) {
		r.cluster = upstream.NewCluster("shop/calls:80", r.env, upstream.Settings{AllowLoopback: true, HTTP2: true})
		r.route.Cluster = r.cluster
		r.route.Policy.GRPCWeb = true
	}}, change...)...)
	if serve == nil {
		r.probeless = true
		return r
	}
	r.backend(func(p *peer) {
		new(h2.Server).ServeConn(p.TCPConn, &h2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/probe" {
				body, _ := io.ReadAll(q.Body)
				fmt.Fprintf(w, "probe %s%s", q.URL.RawQuery, body)
				return
			}
			serve(w, q)
		})})
	})
	return r
}

// A webForm is how a client speaks gRPC-Web, and over which version of HTTP.
type webForm struct {
	name string
	kind string
	h2   bool
}

func (f webForm) text() bool { return strings.HasPrefix(f.kind, "application/grpc-web-text") }

// encode is a body in the form's coding.
func (f webForm) encode(b []byte) string {
	if f.text() {
		return base64.StdEncoding.EncodeToString(b)
	}
	return string(b)
}

var webForms = []webForm{
	{"binary over HTTP/1.1", "application/grpc-web+proto", false},
	{"binary over HTTP/2", "application/grpc-web+proto", true},
	{"text over HTTP/1.1", "application/grpc-web-text+proto", false},
	{"text over HTTP/2", "application/grpc-web-text+proto", true},
}

// eachForm runs a scenario in each form.
func eachForm(t *testing.T, f func(t *testing.T, form webForm)) {
	for _, form := range webForms {
		t.Run(form.name, func(t *testing.T) { f(t, form) })
	}
}

// open sends a call.
func (f webForm) open(r *rig, path string, body io.Reader, fields ...string) *http.Response {
	r.Helper()
	a, err := f.try(r, path, body, fields...)
	r.must(err)
	return a
}

func (f webForm) try(r *rig, path string, body io.Reader, fields ...string) (*http.Response, error) {
	r.Helper()
	tr := r.transport()
	if !f.h2 {
		tr.Protocols = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.Cleanup(cancel)
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://shop.example"+path, body)
	r.must(err)
	q.Header.Set("Content-Type", f.kind)
	q.Header.Set("X-Grpc-Web", "1")
	for i := 0; i < len(fields); i += 2 {
		q.Header.Set(fields[i], fields[i+1])
	}
	r.Cleanup(tr.CloseIdleConnections)
	return tr.RoundTrip(q)
}

// A webReader reads what gRPC-Web's document says that a client gets.
type webReader struct {
	t testing.TB
	r io.Reader
}

func (f webForm) reader(t testing.TB, a *http.Response) *webReader {
	t.Helper()
	if got := a.Header.Get("Content-Type"); a.StatusCode != 200 || got != f.kind {
		t.Fatalf("status %d, content type %q, want %q", a.StatusCode, got, f.kind)
	}
	if len(a.Trailer) > 0 {
		t.Errorf("trailers %v are announced", a.Trailer)
	}
	if f.text() {
		return &webReader{t, &paddedReader{r: bufio.NewReaderSize(a.Body, 64<<10)}}
	}
	return &webReader{t, a.Body}
}

// next is the next message, and whether it is the trailers.
func (w *webReader) next() (string, bool) {
	w.t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		w.t.Fatalf("no message: %v", err)
	}
	b := make([]byte, binary.BigEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(w.r, b); err != nil {
		w.t.Fatalf("a message in part: %v", err)
	}
	return string(b), head[0] == 0x80
}

// message wants a message.
func (w *webReader) message(want string) {
	w.t.Helper()
	if got, last := w.next(); last || got != want {
		w.t.Fatalf("%.200q (trailers: %v), want %.200q", got, last, want)
	}
}

// end wants the trailers, in any order, and nothing behind them.
func (w *webReader) end(want ...string) {
	w.t.Helper()
	text, last := w.next()
	got := strings.SplitAfter(text, "\r\n")
	slices.Sort(got)
	slices.Sort(want)
	if !last || strings.Join(got, "") != strings.Join(append(want, ""), "\r\n") {
		w.t.Fatalf("%.500q (trailers: %v), want the trailers %q", text, last, want)
	}
	if rest, err := io.ReadAll(w.r); err != nil || len(rest) > 0 {
		w.t.Fatalf("%q and %v follow the trailers", rest, err)
	}
}

// paddedReader decodes base64 of pieces that are padded each.
type paddedReader struct {
	r    io.Reader
	left []byte
}

func (p *paddedReader) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		four := make([]byte, 4)
		if _, err := io.ReadFull(p.r, four); err != nil {
			return 0, err
		}
		var err error
		if p.left, err = base64.StdEncoding.Strict().DecodeString(string(four)); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

// framed is a message with its head.
func framed(s string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(s)))
	return append(b, s...)
}

// TestWebUnary: the backend sees a call of gRPC and nothing of its translation; the client gets messages and trailers in the body.
func TestWebUnary(t *testing.T) {
	seen := make(chan *asked, 1)
	r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		seen <- &asked{q, string(body)}
		w.Header().Set("Content-Type", "application/grpc+proto")
		w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
		w.Header().Set("X-Meta", "kept")
		_, _ = w.Write(framed("hello"))
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("Grpc-Message", "all%20well")
		w.Header().Set(http.TrailerPrefix+"X-Forwarded-For", "a trailer may not say so")
		w.Header().Set(http.TrailerPrefix+"X-Count", "1")
	})
	eachForm(t, func(t *testing.T, f webForm) {
		a := f.open(r, "/shop.Cart/Add", strings.NewReader(f.encode(framed("ask"))), "Accept", f.kind, "Grpc-Timeout", "30S", "X-User-Agent", "grpc-web-javascript/0.1")
		q := receive(t, "the call", seen)
		for name, want := range map[string]string{"Content-Type": "application/grpc+proto", "Te": "trailers", "X-Grpc-Web": "", "Accept": "",
			"Grpc-Timeout": "30S", "X-User-Agent": "grpc-web-javascript/0.1"} {
			if got := q.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if q.Method != "POST" || q.URL.Path != "/shop.Cart/Add" || q.body != string(framed("ask")) || f.text() != (q.ContentLength < 0) {
			t.Errorf("%s %s, length %d, body %q", q.Method, q.URL, q.ContentLength, q.body)
		}
		w := f.reader(t, a)
		w.message("hello")
		w.end("grpc-message: all%20well", "grpc-status: 0", "x-count: 1")
		if a.Header.Get("X-Meta") != "kept" || a.Header.Get("Trailer") != "" || a.ContentLength >= 0 {
			t.Errorf("head %v", a.Header)
		}
	})
}

// TestWebAccept: what the client wants to read decides about the answer, and where it does not say, what it has sent.
func TestWebAccept(t *testing.T) {
	r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		w.Header().Set("Grpc-Status", "0")
	})
	const text, binary = "application/grpc-web-text", "application/grpc-web"
	for _, c := range []struct{ kind, accept, want string }{
		{text, "*/*", text}, {binary, "*/*", binary}, {binary, "", binary}, {text, "", text},
		{binary, text, text}, {text, binary, binary}, {binary, "application/json, application/grpc-web-text+proto ,*/*", text},
		{binary, "application/grpc-webby", binary}, {"Application/GRPC-Web", "", binary},
	} {
		f := webForm{kind: c.kind}
		fields := []string{"X-Any", "1"}
		if c.accept != "" {
			fields = append(fields, "Accept", c.accept)
		}
		a := f.open(r, "/a", strings.NewReader(f.encode(framed(""))), fields...)
		webForm{kind: c.want}.reader(t, a).end("grpc-status: 0")
	}
}

// TestWebStreams: each message is there when the backend has said it, long before the call's end.
func TestWebStreams(t *testing.T) {
	eachForm(t, func(t *testing.T, f webForm) {
		more := make(chan bool, 1)
		r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/grpc+proto")
			w.Header().Set("Trailer", "Grpc-Status")
			for n := 0; <-more; n++ {
				_, _ = w.Write(framed(strings.Repeat("x", n)))
				w.(http.Flusher).Flush()
			}
			w.Header().Set("Grpc-Status", "5")
		})
		more <- true
		w := f.reader(t, f.open(r, "/stream", strings.NewReader(f.encode(framed("ask")))))
		w.message("")
		for n := range 7 {
			more <- true
			w.message(strings.Repeat("x", n+1))
		}
		more <- false
		w.end("grpc-status: 5")
	})
}

// TestWebTrailersOnly: an answer whose head is its trailers tells them in the body, where a script of another origin sees them. What
// is no metadata stays in the head alone.
func TestWebTrailersOnly(t *testing.T) {
	r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "7")
		w.Header().Set("Grpc-Message", "not you")
		w.Header().Set("Grpc-Status-Details-Bin", "AAEC")
		w.Header().Set("X-Meta", "seen")
		w.Header().Set("Access-Control-Allow-Origin", "https://shop.example")
		w.Header().Set("Set-Cookie", "a=b")
	})
	eachForm(t, func(t *testing.T, f webForm) {
		f.kind = strings.TrimSuffix(f.kind, "+proto")
		a := f.open(r, "/only", strings.NewReader(f.encode(framed("ask"))))
		f.reader(t, a).end("grpc-message: not you", "grpc-status: 7", "grpc-status-details-bin: AAEC", "x-meta: seen")
		if a.Header.Get("Grpc-Status") != "" || a.Header.Get("X-Meta") != "seen" || a.Header.Get("Set-Cookie") != "a=b" ||
			a.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
			t.Errorf("head %v", a.Header)
		}
	})
}

// TestWebBackendFaults: what ends a call badly is told as far as the client can understand it: by trailers between two messages,
// by a cut within one.
func TestWebBackendFaults(t *testing.T) {
	r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/html":
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(503)
			_, _ = io.WriteString(w, "<p>closed")
			return
		case "/plain":
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, "no call")
			return
		}
		w.Header().Set("Content-Type", "application/grpc+proto")
		_, _ = w.Write(framed("one"))
		switch q.URL.Path {
		case "/whole":
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/within":
			_, _ = w.Write(framed("two")[:6])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/head":
			_, _ = w.Write(framed("two")[:3])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		} // /silent says no status
	})
	eachForm(t, func(t *testing.T, f webForm) {
		ask := func(path string) *http.Response { return f.open(r, path, strings.NewReader(f.encode(framed("ask")))) }
		w := f.reader(t, ask("/whole"))
		w.message("one")
		w.end("grpc-status: 14", "grpc-message: 502 Bad Gateway")
		w = f.reader(t, ask("/silent"))
		w.message("one")
		w.end("grpc-status: 13", "grpc-message: the backend ended the call without a status")
		for _, path := range []string{"/within", "/head"} {
			if a, err := f.try(r, path, strings.NewReader(f.encode(framed("ask")))); err == nil { // a reset overtakes what came before it
				if rest, err := io.ReadAll(a.Body); err == nil {
					t.Errorf("%s: the answer ends well, with %q", path, rest)
				}
			}
		}
		for path, want := range map[string]string{"/html": "503 text/html <p>closed", "/plain": "200 text/plain no call"} {
			a := ask(path)
			body, err := io.ReadAll(a.Body)
			if got := fmt.Sprintf("%d %s %s", a.StatusCode, a.Header.Get("Content-Type"), body); err != nil || got != want {
				t.Errorf("%s: %s (%v), want %s", path, got, err, want)
			}
		}
	})
}

// TestWebProxyFaults: what the proxy itself answers is an end of the call too, with HTTP's status in log and metrics.
func TestWebProxyFaults(t *testing.T) {
	t.Run("no backend", func(t *testing.T) {
		r := webRig(t, nil)
		for i, f := range webForms {
			f.reader(t, f.open(r, "/none", strings.NewReader(f.encode(framed("ask"))))).end("grpc-status: 14", "grpc-message: 503 Service Unavailable")
			r.recorded(wire.MethodPost, 503, uint64(i+1))
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		r := webRig(t, nil)
		r.refusing()
		f := webForms[2]
		f.reader(t, f.open(r, "/none", strings.NewReader(f.encode(framed("ask"))))).end("grpc-status: 14", "grpc-message: 502 Bad Gateway")
	})
	t.Run("too late", func(t *testing.T) {
		gone := make(chan bool, len(webForms))
		r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
			<-q.Context().Done()
			gone <- true
		})
		eachForm(t, func(t *testing.T, f webForm) {
			f.reader(t, f.open(r, "/late", strings.NewReader(f.encode(framed("ask"))), "Grpc-Timeout", "20m")).end("grpc-status: 4", "grpc-message: 504 Gateway Timeout")
			receive(t, "the backend is told", gone)
		})
	})
	t.Run("too late for the rest", func(t *testing.T) {
		r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/grpc+proto")
			_, _ = w.Write(framed("one"))
			w.(http.Flusher).Flush()
			<-q.Context().Done()
		}, func(r *rig) { r.route.Policy.ReadTimeout = far })
		eachForm(t, func(t *testing.T, f webForm) {
			w := f.reader(t, f.open(r, "/late", strings.NewReader(f.encode(framed("ask")))))
			w.message("one")
			r.on(func() { r.skip(far + far/10) })
			w.end("grpc-status: 14", "grpc-message: 504 Gateway Timeout")
		})
	})
}

// TestWebNotAsked: without the policy, by another method, of another type, or towards HTTP/1.1, nothing is translated.
func TestWebNotAsked(t *testing.T) {
	answer := func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		fmt.Fprintf(w, "%s %s %s %s %s", q.Method, q.Header.Get("Content-Type"), q.Header.Get("Te"), q.Header.Get("X-Grpc-Web"), body)
	}
	ask := func(r *rig, method, kind string) string {
		c := r.dial()
		c.send(fmt.Sprintf("%s /a HTTP/1.1\r\nHost: shop.example\r\nContent-Type: %s\r\nX-Grpc-Web: 1\r\nContent-Length: 4\r\n\r\nbody", method, kind))
		return c.status(method, 200).body
	}
	r := webRig(t, answer)
	for _, c := range [][2]string{{"PUT", "application/grpc-web"}, {"POST", "application/grpc-webx"}, {"POST", "application/grpc"}, {"POST", "application/json"}} {
		if got, want := ask(r, c[0], c[1]), c[0]+" "+c[1]+"  1 body"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	r = webRig(t, answer, func(r *rig) { r.route.Policy.GRPCWeb = false })
	if got, want := ask(r, "POST", "application/grpc-web"), "POST application/grpc-web  1 body"; got != want {
		t.Errorf("without the policy %q, want %q", got, want)
	}
	r = newRig(t, func(r *rig) { r.route.Policy.GRPCWeb = true })
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			p.answer("200 OK", q.Header.Get("Content-Type")+" "+q.body)
		}
	})
	if got, want := ask(r, "POST", "application/grpc-web"), "application/grpc-web body"; got != want {
		t.Errorf("towards HTTP/1.1 %q, want %q", got, want)
	}
}

// TestWebText: a body in base64 may be cut and padded anywhere; what is no base64 is refused, before and after the answer's head.
func TestWebText(t *testing.T) {
	r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		if q.URL.Path == "/early" {
			w.(http.Flusher).Flush()
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		_, _ = w.Write(framed(string(body)))
		w.Header().Set("Grpc-Status", "0")
	})
	f := webForm{kind: "application/grpc-web-text"}
	long := bytes.Repeat([]byte("0123456789abcdef"), 10<<10)
	pieces := base64.StdEncoding.EncodeToString(long[:1]) + base64.StdEncoding.EncodeToString(long[1:3]) + base64.StdEncoding.EncodeToString(long[3:])
	for _, h2 := range []bool{false, true} {
		f.h2 = h2
		for _, size := range []int{1, 2, 3, 5, 1 << 20} {
			text, want := pieces, long
			if size < 5 {
				text, want = base64.StdEncoding.EncodeToString(long[:1])+base64.StdEncoding.EncodeToString(long[1:90]), long[:90]
			}
			w := f.reader(t, f.open(r, "/text", pieced{strings.NewReader(text), size}))
			w.message(string(want))
			w.end("grpc-status: 0")
		}
		for _, bad := range []string{"AAAAAA", "AAA", "A===", "AA=A", "AAB=", "AB==", "AAAA=AAA", "AAAA\r\n", "AA A", "AAA-", "AAA_", "AAAA====", "\x00AAA"} {
			f.reader(t, f.open(r, "/text", pieced{strings.NewReader(bad), 2})).end("grpc-status: 13", "grpc-message: "+errWebText.Text)
		}
	}
	// after the head: the answer has begun when the text turns out to be none
	for _, h2 := range []bool{false, true} {
		f.h2 = h2
		in, out := io.Pipe()
		a := f.open(r, "/early", in)
		w := f.reader(t, a)
		_, _ = io.WriteString(out, "no base64!")
		w.end("grpc-status: 13", "grpc-message: "+errWebText.Text)
		out.Close()
	}
	// the connection of HTTP/1.1 ends with what could not be read
	c := r.dial()
	c.send("POST /text HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/grpc-web-text\r\nContent-Length: 40\r\n\r\n!!!!")
	if a := c.status("POST", 200); !a.Close || !strings.HasPrefix(a.body, "gAAA") {
		t.Errorf("%v, body %q", a.Header, a.body)
	}
	c.ends()
}

// pieced reads at most size bytes at a time, and lets each stand alone.
type pieced struct {
	r    io.Reader
	size int
}

func (p pieced) Read(b []byte) (int, error) {
	runtime.Gosched()
	return p.r.Read(b[:min(len(b), p.size)])
}

// TestWebBackPressure: a client that does not read stops its backend, and little is held for it.
func TestWebBackPressure(t *testing.T) {
	eachForm(t, func(t *testing.T, f webForm) {
		const messages, size = 120, 100_000
		message := strings.Repeat("m", size)
		r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/grpc+proto")
			w.Header().Set("Trailer", "Grpc-Status")
			for range messages {
				if _, err := w.Write(framed(message)); err != nil {
					return
				}
			}
			w.Header().Set("Grpc-Status", "0")
		})
		a := f.open(r, "/much", strings.NewReader(f.encode(framed("ask"))))
		w := f.reader(t, a)
		w.message(message)
		held := 0
		stalled := false
		r.eventually("the client is waited for", func() bool {
			r.on(func() { held, stalled = heldForWeb(r) })
			return stalled
		})
		if held > 64<<10 {
			t.Errorf("%d bytes are held in the translation", held)
		}
		for range messages - 1 {
			w.message(message)
		}
		w.end("grpc-status: 0")
	})
}

// heldForWeb is what the one translation under way holds, and whether its client is waited for. On the loop.
func heldForWeb(r *rig) (held int, stalled bool) {
	r.loops[0].Each(func(h fastpath.Handler) {
		switch c := h.(type) {
		case *http1:
			if c.x != nil && c.x.web != nil {
				held, stalled = cap(c.x.web.out)+cap(c.x.web.in), c.stalled
			}
		case *http2:
			for _, s := range c.streams {
				if s.x != nil && s.x.web != nil {
					held, stalled = cap(s.x.web.out)+cap(s.x.web.in), s.starved || s.waits || c.stalled
				}
			}
		}
	})
	return held, stalled
}

// TestWebMemoryComesBack: a translation is used again and again, and keeps nothing of a call.
func TestWebMemoryComesBack(t *testing.T) {
	r := webRig(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/grpc+proto")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write(framed("hello"))
		w.Header().Set("Grpc-Status", "0")
	})
	for range 20 {
		for _, f := range webForms {
			w := f.reader(t, f.open(r, "/a", strings.NewReader(f.encode(framed("ask")))))
			w.message("hello")
			w.end("grpc-status: 0")
		}
	}
	r.eventually("the calls are over", r.srv.Idle)
	r.on(func() {
		p := r.srv.local(r.loops[0])
		if len(p.webs) != 1 {
			t.Errorf("%d translations are kept, want the one that was used again and again", len(p.webs))
		}
		for _, w := range p.webs {
			if w.kind != nil || w.begun || w.last || len(w.held) > 0 || len(w.out) > 0 || w.req.Fields != nil || w.from.n > 0 || w.to.n > 0 {
				t.Errorf("a translation in the pool is not empty: %+v", w)
			}
		}
	})
}

func TestMessageScanner(t *testing.T) {
	stream := append(append(framed(""), framed(strings.Repeat("a", 300))...), framed("b")...)
	ends := map[int]bool{0: true, 5: true, 310: true, 316: true}
	for step := 1; step < 12; step++ {
		var s messageScanner
		for at := 0; at < len(stream); at += step {
			if s.whole() != ends[at] {
				t.Errorf("in steps of %d: whole %v at %d", step, s.whole(), at)
			}
			s.pass(stream[at:min(at+step, len(stream))])
		}
		if !s.whole() {
			t.Errorf("in steps of %d: not whole at the end", step)
		}
	}
}

// FuzzBase64 compares the reader with encoding/base64, four characters by four, over any cut; and what the writer makes of any
// bytes, padded anywhere, is read again.
func FuzzBase64(f *testing.F) {
	for _, s := range []string{"", "AAAA", "QQ==", "QUI=", "QUJD", "QQ==QUI=QUJD", "QR==", "QUJ=", "=", "A===", "AA=A", "AA\n==", "-_-_", "QUJDRA"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		step := int(cut)%7 + 1
		var r base64Reader
		var got []byte
		good := true
		for at := 0; at < len(text) && good; at += step {
			got, good = r.append(got, text[at:min(at+step, len(text))])
		}
		good = good && r.n == 0
		want, wanted := simpleBase64(text)
		if good != wanted || good && !bytes.Equal(got, want) {
			t.Fatalf("%q: %q %v, want %q %v", text, got, good, want, wanted)
		}
		var w base64Writer
		var encoded []byte
		for at := 0; at < len(text); at += step {
			if encoded = w.append(encoded, text[at:min(at+step, len(text))]); at%2 == 1 {
				encoded = w.end(encoded)
			}
		}
		encoded = w.end(encoded)
		if back, ok := simpleBase64(encoded); !ok || !bytes.Equal(back, text) {
			t.Fatalf("%q was written as %q", text, encoded)
		}
	})
}

// simpleBase64 is the plain version.
func simpleBase64(text []byte) (out []byte, ok bool) {
	for ; len(text) > 0; text = text[4:] {
		if len(text) < 4 || bytes.ContainsAny(text[:4], "\r\n") {
			return nil, false
		}
		b, err := base64.StdEncoding.Strict().DecodeString(string(text[:4]))
		if err != nil {
			return nil, false
		}
		out = append(out, b...)
	}
	return out, true
}
