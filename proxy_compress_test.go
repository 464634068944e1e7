package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// decoded takes an answer's coding off.
func decoded(t testing.TB, coding string, body string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(body)
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "br":
		r = brotli.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v after %d bytes", coding, err, len(plain))
	}
	return string(plain)
}

var prose = strings.Repeat("It was the best of times, it was the worst of times. ", 400)

// compressible answers /SIZE with fields that the query names.
func compressible(w http.ResponseWriter, r *http.Request) {
	size := 0
	fmt.Sscanf(r.URL.Path, "/%d", &size)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Accept-Ranges", "bytes")
	for name, values := range r.URL.Query() {
		if name != "status" && name != "chunked" {
			w.Header().Set(name, values[0])
		}
	}
	body := strings.Repeat(prose, size/len(prose)+1)[:size]
	if !r.URL.Query().Has("chunked") {
		w.Header().Set("Content-Length", fmt.Sprint(size))
	}
	status := 200
	fmt.Sscan(r.URL.Query().Get("status"), &status)
	w.WriteHeader(status)
	if r.Method != "HEAD" {
		_, _ = io.WriteString(w, body)
	}
}

func compressingProxy(t *testing.T, port int, keys ...string) *testProxy {
	return startProxy(t, configMapOf(keys...)+site{name: "web", host: "web.example", ports: []int{port}}.yaml(), configMapFlag)
}

// TestCompressOnTheWire has each coding, small and large, with a length and without.
func TestCompressOnTheWire(t *testing.T) {
	port := application(t, compressible)
	p := compressingProxy(t, port, "use-gzip", "true", "enable-brotli", "true", "sluice-enable-zstd", "true")
	for _, coding := range []string{"gzip", "br", "zstd"} {
		for _, size := range []int{256, 4000, 40_000, 3_000_000} {
			for _, query := range []string{"", "?chunked"} {
				path := fmt.Sprintf("/%d%s", size, query)
				a := ask(t, p.HTTP, nil, "web.example", path, "Accept-Encoding: "+coding)
				want := ask(t, p.HTTP, nil, "web.example", path)
				if a.status != 200 || a.header.Get("Content-Encoding") != coding || decoded(t, coding, a.body) != want.body || len(a.body) > size*3/4 {
					t.Errorf("%s of %s: %d %v, %d bytes", coding, path, a.status, a.header, len(a.body))
				}
				if want.header.Get("Content-Encoding") != "" || want.header.Get("Vary") != "Accept-Encoding" || len(want.body) != size {
					t.Errorf("without Accept-Encoding %s: %v", path, want.header)
				}
			}
		}
	}
	for accept, want := range map[string]string{"gzip, br": "br", "gzip, zstd": "zstd", "*": "br", "br;q=0, *": "zstd", "br;q=0, gzip;q=0.5": "gzip",
		"gzip;q=0": "", "gzip;q=0.000": "", "identity": "", "x-gzip": "", "": ""} {
		if a := ask(t, p.HTTP, nil, "web.example", "/4000", "Accept-Encoding: "+accept); a.header.Get("Content-Encoding") != want {
			t.Errorf("%q: %q, want %q", accept, a.header.Get("Content-Encoding"), want)
		}
	}
	a := ask(t, p.HTTP, nil, "web.example", `/4000?ETag="x"`, "Accept-Encoding: gzip")
	if a.header.Get("ETag") != `W/"x"` || a.header.Get("Accept-Ranges") != "" || a.header.Get("Content-Length") != "" {
		t.Errorf("%v", a.header)
	}
	if a = ask(t, p.HTTP, nil, "web.example", "/4000?Cache-Control=public,no-transform", "Accept-Encoding: gzip"); a.header.Get("Content-Encoding") != "" {
		t.Errorf("no-transform: %v", a.header)
	}
}

// TestCompressBeyondItsMemory: what does not fit goes as it is.
func TestCompressBeyondItsMemory(t *testing.T) {
	p := compressingProxy(t, application(t, compressible), "use-gzip", "true", "sluice-compress-memory", "1m")
	a := ask(t, p.HTTP, nil, "web.example", "/4000", "Accept-Encoding: gzip")
	if a.header.Get("Content-Encoding") != "" || len(a.body) != 4000 || a.header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("%v, %d bytes", a.header, len(a.body))
	}
}

// TestCompressOff: no key, no compression.
func TestCompressOff(t *testing.T) {
	p := compressingProxy(t, application(t, compressible))
	if a := ask(t, p.HTTP, nil, "web.example", "/4000", "Accept-Encoding: gzip, br, zstd"); a.header.Get("Content-Encoding") != "" || a.header.Get("Vary") != "" {
		t.Errorf("%v", a.header)
	}
}

// TestCompressKeys: levels, lengths and media types of each coding have an effect on it.
func TestCompressKeys(t *testing.T) {
	port := application(t, compressible)
	for coding, keys := range map[string]struct{ on, level, low, high, length, types string }{
		"gzip": {"use-gzip", "gzip-level", "1", "9", "gzip-min-length", "gzip-types"},
		"br":   {"enable-brotli", "brotli-level", "1", "9", "brotli-min-length", "brotli-types"},
		"zstd": {"sluice-enable-zstd", "sluice-zstd-level", "1", "19", "", ""},
	} {
		compressed := func(path string, more ...string) *answer {
			p := compressingProxy(t, port, append([]string{keys.on, "true"}, more...)...)
			a := ask(t, p.HTTP, nil, "web.example", path, "Accept-Encoding: "+coding)
			if got := a.header.Get("Content-Encoding"); a.status != 200 || got != "" && got != coding {
				t.Errorf("%s with %v: %d %v", coding, more, a.status, a.header)
			}
			return a
		}
		quick, thorough := compressed("/400000", keys.level, keys.low), compressed("/400000", keys.level, keys.high)
		if len(thorough.body) >= len(quick.body) || len(quick.body) > 100_000 {
			t.Errorf("%s is %d and %d, %s %d bytes", keys.level, len(quick.body), len(thorough.body), keys.high, len(thorough.body))
		}
		if keys.length == "" {
			continue
		}
		for value, want := range map[string]string{"4000": coding, "4001": ""} {
			if got := compressed("/4000", keys.length, value).header.Get("Content-Encoding"); got != want {
				t.Errorf("%s: %s of 4000 bytes: %q, want %q", keys.length, value, got, want)
			}
		}
		for value, want := range map[string]string{"text/plain": coding, "text/css": "", "*": coding} {
			if got := compressed("/4000", keys.types, value).header.Get("Content-Encoding"); got != want {
				t.Errorf("%s: %s of text/plain: %q, want %q", keys.types, value, got, want)
			}
		}
	}
}

// compressibles are requests whose answers may be compressed, or may not, with a coding beside another one that is off.
func compressibles(coding, off string) (requests [][]string) {
	for _, path := range []string{"/4000", "/255", "/256", "/10?chunked", "/4000?status=403", "/4000?status=404", "/4000?status=500", "/4000?status=201", "/4000?status=206",
		"/0?status=204", "/0?status=304", "/4000?Content-Encoding=deflate", "/4000?Content-Type=image/png", "/4000?Content-Type=text/html", "/4000?Content-Type=TEXT/CSS",
		`/4000?ETag="x"`, `/4000?ETag=W/"x"`, "/4000?ETag=x", "/4000?Content-Type="} {
		for _, accept := range []string{coding, strings.ToUpper(coding), off + ", " + coding + ";q=0.1", coding + ";q=0", "identity"} {
			requests = append(requests, []string{path, "Accept-Encoding: " + accept})
		}
	}
	return requests
}

// TestOracleCompress compares what is compressed, and its fields, with nginx.
func TestOracleCompress(t *testing.T) {
	port := application(t, compressible)
	theirs := nginx(t, fmt.Sprintf(`gzip on; gzip_comp_level 1; gzip_http_version 1.1; gzip_min_length 256; gzip_types text/css application/json text/plain; gzip_proxied any; gzip_vary on;
 location / { proxy_http_version 1.1; proxy_pass http://127.0.0.1:%d; }`, port))
	p := compressingProxy(t, port, "use-gzip", "true", "gzip-types", "text/css application/json text/plain")
	sameAnswers(t, p.HTTP, theirs, []string{"Content-Encoding", "Vary", "ETag", "Accept-Ranges"}, nil, compressibles("gzip", "br")...)
}

// TestOracleBrotli compares what is compressed by brotli, and its fields, with Debian's module for nginx.
func TestOracleBrotli(t *testing.T) {
	const module = "/usr/lib/nginx/modules/ngx_http_brotli_filter_module.so"
	if _, err := os.Stat(module); err != nil {
		t.Skip("nginx's brotli module is not installed: apt-get install libnginx-mod-http-brotli-filter")
	}
	port := application(t, compressible)
	sizes := map[string]int{}
	for _, level := range []string{"1", "9"} {
		theirs := nginx(t, fmt.Sprintf(`brotli on; brotli_comp_level %s; brotli_min_length 256; brotli_types text/css application/json text/plain; gzip_vary on;
 location / { proxy_http_version 1.1; proxy_pass http://127.0.0.1:%d; }`, level, port), "main", "load_module "+module+";")
		p := compressingProxy(t, port, "enable-brotli", "true", "brotli-level", level, "brotli-min-length", "256", "brotli-types", "text/css application/json text/plain")
		sameAnswers(t, p.HTTP, theirs, []string{"Content-Encoding", "Vary", "ETag", "Accept-Ranges"}, nil, compressibles("br", "gzip")...)
		want := ask(t, p.HTTP, nil, "web.example", "/400000").body
		for name, address := range map[string]string{"sluice": p.HTTP, "nginx": theirs} {
			a := ask(t, address, nil, "web.example", "/400000", "Accept-Encoding: br")
			if sizes[name+level] = len(a.body); decoded(t, "br", a.body) != want {
				t.Errorf("%s, level %s: what is compressed is not what was", name, level)
			}
		}
	}
	if sizes["sluice1"] <= sizes["sluice9"] || sizes["nginx1"] <= sizes["nginx9"] {
		t.Errorf("sizes by levels: %v", sizes)
	}
}

// TestOracleCompressUserAgents compares gzip-disable with nginx's gzip_disable.
func TestOracleCompressUserAgents(t *testing.T) {
	port := application(t, compressible)
	for _, disable := range []string{"msie6", "^curl/[0-7]\\.|wget"} {
		theirs := nginx(t, fmt.Sprintf(`gzip on; gzip_http_version 1.1; gzip_min_length 256; gzip_types text/plain; gzip_proxied any; gzip_vary on; gzip_disable "%s";
 location / { proxy_http_version 1.1; proxy_pass http://127.0.0.1:%d; }`, disable, port))
		p := compressingProxy(t, port, "use-gzip", "true", "gzip-disable", disable)
		var requests [][]string
		for _, agent := range []string{"", "curl/7.1", "Curl/8.0", "a WGET", "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)",
			"Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", "MSIE 5.5; x", "MSIE 7.0; x", "MSIE 6", "MSIE 4.01"} {
			requests = append(requests, []string{"/4000", "Accept-Encoding: gzip", "User-Agent: " + agent})
		}
		sameAnswers(t, p.HTTP, theirs, []string{"Content-Encoding", "Vary"}, nil, requests...)
	}
}

// TestCompressHEAD: a HEAD's answer is as the backend made it.
func TestCompressHEAD(t *testing.T) {
	p := compressingProxy(t, application(t, compressible), "use-gzip", "true")
	c := &caller{address: p.HTTP}
	if err := c.dial(); err != nil {
		t.Fatal(err)
	}
	defer c.hangUp()
	fmt.Fprint(c.conn, "HEAD /4000 HTTP/1.1\r\nHost: web.example\r\nAccept-Encoding: gzip\r\n\r\n")
	r, _ := http.NewRequest("HEAD", "/", nil)
	res, err := http.ReadResponse(c.reader, r)
	if err != nil || res.Header.Get("Content-Encoding") != "" || res.ContentLength != 4000 {
		t.Errorf("%v %v", res, err)
	}
}

// TestCompressStreams: what a backend says between two pauses arrives before the next one ends.
func TestCompressStreams(t *testing.T) {
	next := make(chan int)
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n := range next {
			fmt.Fprintf(w, "data: %s\n\n", strings.Repeat("x", n))
			w.(http.Flusher).Flush()
		}
	})
	p := compressingProxy(t, port, "use-gzip", "true", "gzip-types", "text/event-stream")
	c := &caller{address: p.HTTP}
	if err := c.dial(); err != nil {
		t.Fatal(err)
	}
	defer c.hangUp()
	fmt.Fprint(c.conn, request("web.example", "/", "Accept-Encoding: gzip"))
	go func() { next <- 1 }()
	res, err := http.ReadResponse(c.reader, nil)
	if err != nil || res.Header.Get("Content-Encoding") != "gzip" {
		t.Fatal(err, res)
	}
	plain, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReaderSize(plain, 64<<10)
	for i, n := range []int{1, 10, 20_000, 30_000, 5} { // some are compressed off the loop
		if i > 0 {
			next <- n
		}
		_ = c.conn.SetDeadline(time.Now().Add(30 * time.Second))
		if l, err := lines.ReadString('\n'); err != nil || l != "data: "+strings.Repeat("x", n)+"\n" {
			t.Fatalf("event %d: %d bytes, %v", i, len(l), err)
		}
		_, _ = lines.ReadString('\n')
	}
	close(next)
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("the end: %q, %v", rest, err)
	}
}

// compressed asks for so many bytes with gzip.
func compressed(p *testProxy, size int) *http.Request {
	r, _ := http.NewRequest("GET", fmt.Sprintf("https://%s/%d", p.HTTPS, size), nil)
	r.Host = "web.example"
	r.Header.Set("Accept-Encoding", "gzip")
	return r
}

// TestCompressHTTP2AndCrowd has many HTTP/2 streams at once, and clients that leave in the middle: no encoder is lost, or two
// bodies mixed.
func TestCompressHTTP2AndCrowd(t *testing.T) {
	port := application(t, compressible)
	p := startProxy(t, configMapOf("use-gzip", "true", "sluice-compress-memory", "40m")+secretOf(t, "pair", issue(t, "web.example"))+
		site{name: "web", host: "web.example", secret: "pair", ports: []int{port}}.yaml(), configMapFlag)
	// Four connections that stand before the crowd comes: hundreds of handshakes at once are another test, and on a busy machine
	// they take longer than the limits of a handshake.
	var transports [4]*http.Transport
	for i := range transports {
		transports[i] = &http.Transport{TLSClientConfig: trusting(t, "web.example"), ForceAttemptHTTP2: true,
			HTTP2: &http.HTTP2Config{StrictMaxConcurrentRequests: true}}
		defer transports[i].CloseIdleConnections()
		res, err := transports[i].RoundTrip(compressed(p, 10))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			size := 1000 + 997*(i%100)
			res, err := transports[i%len(transports)].RoundTrip(compressed(p, size))
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if i%10 == 0 { // a client may reset 100 streams in 10 s
				_, _ = io.CopyN(io.Discard, res.Body, 10)
				return
			}
			var b bytes.Buffer
			if _, err := b.ReadFrom(res.Body); err != nil {
				t.Error(err)
				return
			}
			body := b.String()
			if coding := res.Header.Get("Content-Encoding"); coding != "" { // beyond sluice-compress-memory it is plain
				plain, err := gzip.NewReader(&b)
				if err == nil {
					var whole []byte
					whole, err = io.ReadAll(plain)
					body = string(whole)
				}
				if err != nil || coding != "gzip" {
					t.Errorf("%s of %d bytes: %v", coding, size, err)
					return
				}
			}
			if body != strings.Repeat(prose, size/len(prose)+1)[:size] {
				t.Errorf("%d bytes are others", size)
			}
		})
	}
	all.Wait()
	for range 100 { // none of the 40 whose clients left holds memory any more, which is that of 25
		a := ask(t, p.HTTPS, trusting(t, "web.example"), "web.example", "/4000", "Accept-Encoding: gzip")
		if a.header.Get("Content-Encoding") != "gzip" {
			t.Fatal("an encoder was lost")
		}
	}
}
