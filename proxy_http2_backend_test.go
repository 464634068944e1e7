package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Application serves HTTP/2 only: h2c, or over TLS.
func http2Application(t *testing.T, secure bool, h http.HandlerFunc) int {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	if s.EnableHTTP2 = secure; secure {
		s.Config.Protocols.SetHTTP2(true)
		s.StartTLS()
	} else {
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

// clientsOf are clients of the proxy by what they speak, and the URL that they begin with.
func clientsOf(t *testing.T, p *testProxy, host string) map[string]*http.Client {
	t.Helper()
	clients := map[string]*http.Client{}
	for name, set := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(v *http.Protocols) { v.SetHTTP1(true) },
		"h2c":      func(v *http.Protocols) { v.SetUnencryptedHTTP2(true) },
		"h2":       func(v *http.Protocols) { v.SetHTTP2(true) },
	} {
		transport := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: trusting(t, host), DisableCompression: true}
		set(transport.Protocols)
		t.Cleanup(transport.CloseIdleConnections)
		clients[name] = &http.Client{Transport: transport, Timeout: time.Minute}
	}
	return clients
}

// TestHTTP2Backends: bodies, trailers and heads pass between every pair of protocols, many at a time.
func TestHTTP2Backends(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Sum")
		w.Header().Set("Seen", fmt.Sprint(r.Proto, " ", r.Host, " ", r.Header.Get("X-Forwarded-Proto")))
		w.WriteHeader(200)
		sum := sha256.New()
		_, err := io.Copy(io.MultiWriter(w, sum), r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Sum", fmt.Sprintf("%x", sum.Sum(nil)))
	}
	p := startProxy(t, secretOf(t, "tls", issue(t, "shop.example"))+
		site{name: "plain", host: "shop.example", path: "/plain", secret: "tls", ports: []int{http2Application(t, false, answer)},
			annotations: map[string]string{"backend-protocol": "GRPC", "proxy-body-size": "0", "ssl-redirect": "false"}}.yaml()+
		site{name: "secure", host: "shop.example", path: "/secure", secret: "tls", ports: []int{http2Application(t, true, answer)},
			annotations: map[string]string{"backend-protocol": "GRPCS", "proxy-body-size": "0", "ssl-redirect": "false"}}.yaml())
	var all sync.WaitGroup
	for name, client := range clientsOf(t, p, "shop.example") {
		base := "http://" + p.HTTP
		if name == "h2" {
			base = "https://" + p.HTTPS
		}
		for _, path := range []string{"/plain", "/secure"} {
			for _, size := range []int{0, 1, 100_000, 6 << 20} {
				all.Go(func() {
					body := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
					r, _ := http.NewRequest("POST", base+path, bytes.NewReader(body))
					r.Host = "shop.example"
					r.Header.Set("TE", "trailers")
					res, err := client.Do(r)
					if err != nil {
						t.Errorf("%s %s %d: %v", name, path, size, err)
						return
					}
					defer res.Body.Close()
					got, err := io.ReadAll(res.Body)
					scheme := strings.SplitN(base, ":", 2)[0]
					sum := res.Trailer.Get("Sum")
					if name == "HTTP/1.1" && res.ContentLength >= 0 { // a body of known length has no trailers there
						sum = fmt.Sprintf("%x", sha256.Sum256(body))
					}
					if want := "HTTP/2.0 shop.example " + scheme; err != nil || res.StatusCode != 200 || res.Header.Get("Seen") != want ||
						!bytes.Equal(got, body) || sum != fmt.Sprintf("%x", sha256.Sum256(body)) {
						t.Errorf("%s %s %d: %d %q, %d bytes, trailers %v, %v", name, path, size, res.StatusCode, res.Header.Get("Seen"), len(got), res.Trailer, err)
					}
				})
			}
		}
	}
	all.Wait()
}

// TestHTTP2SmallPieces: Go's clients and servers give a window back for every 4 KiB that they read, twice, and long after the
// last byte was sent. That is no flood.
func TestHTTP2SmallPieces(t *testing.T) {
	const size = 32 << 20
	read := func(r io.Reader) (n int64) {
		n, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 4<<10))
		return n
	}
	port := http2Application(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Got", fmt.Sprint(read(r.Body)))
		_, _ = w.Write(make([]byte, size))
	})
	p := startProxy(t, secretOf(t, "tls", issue(t, "shop.example"))+site{name: "shop", host: "shop.example", secret: "tls", ports: []int{port},
		annotations: map[string]string{"backend-protocol": "GRPC", "proxy-body-size": "0"}}.yaml())
	r, _ := http.NewRequest("POST", "https://"+p.HTTPS+"/", bytes.NewReader(make([]byte, size)))
	r.Host = "shop.example"
	res, err := clientsOf(t, p, "shop.example")["h2"].Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n := read(res.Body); n != size || res.Header.Get("Got") != fmt.Sprint(size) {
		t.Errorf("the backend got %s bytes, the client %d; want %d", res.Header.Get("Got"), n, size)
	}
}

// TestHTTP2BackendRefuses: what a backend says that it has not looked at is sent again, a POST of HTTP/1.1 too; a client that
// leaves cancels its stream.
func TestHTTP2BackendRefuses(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cancelled := make(chan http2.ErrCode, 1)
	go func() {
		for refused := false; ; {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			first := !refused
			refused = true
			go refuseFirst(c, first, cancelled)
		}
	}()
	p := startProxy(t, site{name: "any", host: "shop.example", ports: []int{listener.Addr().(*net.TCPAddr).Port},
		annotations: map[string]string{"backend-protocol": "GRPC"}}.yaml())
	ask(t, p.HTTP, nil, "shop.example", "/", "Content-Length: 0").want(t, 200, "")
	r, _ := http.NewRequest("POST", "http://"+p.HTTP+"/", strings.NewReader("body"))
	r.Host = "shop.example"
	res, err := http.DefaultClient.Do(r)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	res.Body.Close()
	c, err := net.Dial("tcp", p.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /hang HTTP/1.1\r\nHost: shop.example\r\n\r\n")
	within(t, 30*time.Second, "the request is there", func() bool { return len(cancelled) == 1 })
	<-cancelled
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	select {
	case code := <-cancelled:
		if code != http2.ErrCodeCancel {
			t.Errorf("reset with %v", code)
		}
	case <-time.After(30 * time.Second):
		t.Error("the backend was not told that the client has left")
	}
}

// refuseFirst is a backend that refuses a connection's first stream, if first; /hang is never answered: cancelled hears of it,
// and of its reset.
func refuseFirst(c net.Conn, first bool, cancelled chan<- http2.ErrCode) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(c, c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			switch {
			case first:
				first = false
				_ = f.WriteRSTStream(frame.StreamID, http2.ErrCodeRefusedStream)
			case frame.PseudoValue("path") == "/hang":
				cancelled <- 0
			default:
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
			}
		case *http2.RSTStreamFrame:
			select {
			case cancelled <- frame.ErrCode:
			default:
			}
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				_ = f.WritePing(true, frame.Data)
			}
		}
	}
}

// readWhole sends a request and reads its answer to the end.
func readWhole(t *testing.T, client *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// TestGRPCErrors: what the proxy answers a call, it says in gRPC's words; other requests hear HTTP's.
func TestGRPCErrors(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	port := http2Application(t, false, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begin" {
			w.Header().Set("Content-Type", "application/grpc")
			w.(http.Flusher).Flush()
		}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	p := startProxy(t, site{name: "calls", host: "calls.example", ports: []int{port}, annotations: map[string]string{"backend-protocol": "GRPC"}}.yaml()+
		site{name: "none", host: "none.example", annotations: map[string]string{"backend-protocol": "GRPC"}}.yaml()+
		site{name: "denied", host: "denied.example", ports: []int{port}, annotations: map[string]string{"backend-protocol": "GRPC", "denylist-source-range": "0.0.0.0/0"}}.yaml())
	client := clientsOf(t, p, "calls.example")["h2c"]
	for name, c := range map[string]struct{ host, path, timeout, status string }{
		"no route":               {"other.example", "/", "", "12"},
		"no endpoint":            {"none.example", "/", "", "14"},
		"forbidden":              {"denied.example", "/", "", "7"},
		"deadline":               {"calls.example", "/", "50m", "4"},
		"deadline in the answer": {"calls.example", "/begin", "100m", "4"},
	} {
		t.Run(name, func(t *testing.T) {
			call := func(contentType string) (*http.Response, string) {
				r, _ := http.NewRequest("POST", "http://"+p.HTTP+c.path, strings.NewReader("\x00\x00\x00\x00\x00"))
				r.Host = c.host
				r.Header.Set("Content-Type", contentType)
				r.Header.Set("TE", "trailers")
				if c.timeout != "" {
					r.Header.Set("Grpc-Timeout", c.timeout)
				}
				return readWhole(t, client, r)
			}
			res, body := call("application/grpc+proto")
			status := res.Header.Get("Grpc-Status") + res.Trailer.Get("Grpc-Status")
			if res.StatusCode != 200 || status != c.status || body != "" || res.Header.Get("Content-Type") != "application/grpc" {
				t.Errorf("%d %v %v %q, want status %s", res.StatusCode, res.Header, res.Trailer, body, c.status)
			}
			if c.timeout == "" {
				if res, _ := call("text/plain"); res.StatusCode < 400 || res.Header.Get("Grpc-Status") != "" {
					t.Errorf("no call: %d %v", res.StatusCode, res.Header)
				}
			}
		})
	}
}
