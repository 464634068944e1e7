package upstream

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// h2Backend is net/http's own HTTP/2 server: h2c, or over TLS.
func h2Backend(t testing.TB, secure bool, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	if secure {
		s.Config.Protocols.SetHTTP2(true)
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).AddrPort()
}

// http2 are the settings of a cluster whose backends speak HTTP/2.
func http2(secure bool) Settings {
	s := Settings{HTTP2: true}
	if secure {
		s.TLS = &TLS{}
	}
	return s
}

func TestHTTP2Exchanges(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			addr := h2Backend(t, secure, func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 2 || r.Host != "shop.example" || (r.TLS != nil) != secure {
					http.Error(w, fmt.Sprint(r.Proto, r.Host), 500)
					return
				}
				w.Header().Set("Trailer", "Sum")
				w.WriteHeader(103)
				b, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				w.Write(b)
				w.Header().Set("Sum", fmt.Sprint(len(b), r.Trailer.Get("Asked")))
			})
			env := newEnv(t, 1)
			c := cluster(t, env, http2(secure), addr)
			e := only(t, c)
			for _, size := range []int{0, 1, 70_000, 5 << 20} {
				body := strings.Repeat("x", size)
				p := post(body)
				p.request.Framing, p.request.ContentLength = wire.FramingChunked, 0
				p.request.TETrailers = true
				p.request.Fields = []wire.Field{wire.NewField(wire.FieldTrailer, []byte("Asked"))}
				p.trailer = []wire.Field{{Name: []byte("Asked"), Value: []byte("!")}}
				p.do(t, env, e).ok(t, 200, body)
				if want := fmt.Sprintf("Sum: %d!\n", size); !strings.EqualFold(p.trailers, want) {
					t.Errorf("trailers %q, want %q", p.trailers, want)
				}
				if len(p.interims) != 1 || p.interims[0] != 103 {
					t.Errorf("interim heads %v", p.interims)
				}
			}
			get("/").do(t, env, e).ok(t, 200, "")
			if s := e.Stats(); s.Connects != 1 || s.Open != 1 || s.Idle != 1 || s.Active != 0 {
				t.Errorf("one session carries one request after the other: %+v", s)
			}
		})
	}
}

// Streams wait for the connection together and share it; one too many opens the next.
func TestHTTP2Multiplexes(t *testing.T) {
	hold := make(chan struct{})
	addr := h2Backend(t, false, func(w http.ResponseWriter, r *http.Request) {
		<-hold
		io.WriteString(w, r.URL.Path)
	})
	env := newEnv(t, 1)
	c := cluster(t, env, http2(false), addr)
	e := only(t, c)
	var all []*caller
	for i := range h2StreamsMax + 20 {
		p := get(fmt.Sprintf("/%d", i))
		p.done = make(chan struct{})
		all = append(all, p)
		env.Loops[0].Post(func() { p.start(env.Loops[0], e) })
	}
	eventually(t, "two sessions", func() bool { return e.Stats().Open == 2 })
	close(hold)
	for i, p := range all {
		wait(t, p.done, "an answer")
		p.ok(t, 200, fmt.Sprintf("/%d", i))
	}
	if s := e.Stats(); s.Connects != 2 || s.Active != 0 || s.Idle != 2 {
		t.Errorf("%+v", s)
	}
}

// A backend that speaks HTTP/1.1 only is told from one that is broken, and nothing was asked of it.
func TestHTTP2NotSpoken(t *testing.T) {
	plain := newServer(t, func(c net.Conn, _ int) {
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	env := newEnv(t, 1)
	get("/").do(t, env, only(t, cluster(t, env, http2(false), plain.addr()))).failed(t, ErrNotHTTP2)

	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	addr := secure.Listener.Addr().(*net.TCPAddr).AddrPort()
	get("/").do(t, env, only(t, cluster(t, env, http2(true), addr))).failed(t, ErrHandshake)
}

var _ fastpath.Handler = (*session2)(nil)

// gRPC's health protocol, over h2c and TLS.
func TestHealthCheckGRPC(t *testing.T) {
	for _, secure := range []bool{false, true} {
		var answer atomic.Value
		addr := h2Backend(t, secure, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Te") != "trailers" || string(b) != "\x00\x00\x00\x00\x06\x0a\x04shop" {
				http.Error(w, "no", 404)
				return
			}
			a := answer.Load().([2]string)
			w.Header().Set("Trailer", "Grpc-Status")
			io.WriteString(w, a[0])
			w.Header().Set("Grpc-Status", a[1])
		})
		env := newEnv(t, 1)
		e := only(t, cluster(t, env, http2(secure), addr))
		for _, c := range []struct{ body, status, want string }{
			{"\x00\x00\x00\x00\x02\x08\x01", "0", ""},
			{"\x00\x00\x00\x00\x02\x08\x02", "0", "NOT_SERVING"},
			{"\x00\x00\x00\x00\x00", "0", "UNKNOWN"},
			{"", "5", "gRPC status"},
			{"\x00\x00\x00\x00\x01\x08\x01", "0", "no message"},
			{"\x00\x00\x00\x00\x01\x08", "0", "malformed"},
		} {
			answer.Store([2]string{c.body, c.status})
			k := Check{Kind: CheckGRPC, Service: "shop"}
			k.fill()
			err := e.check(t.Context(), e.cluster.current.Load(), &k)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("TLS %v, %q, status %s: %v, want %q", secure, c.body, c.status, err, c.want)
			}
		}
	}
}

// FuzzH2Session: whatever a backend says, in whatever pieces, every request ends and nothing is left.
func FuzzH2Session(f *testing.F) {
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	f.Add([]byte(settings+"\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88"), uint8(3))
	f.Add([]byte(settings+"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88\x00\x00\x02\x00\x01\x00\x00\x00\x01hi"), uint8(9))
	f.Add([]byte(settings+"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x07"), uint8(1))
	f.Add([]byte(settings+"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), uint8(200))
	f.Add([]byte("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x08\x06\x00\x00\x00\x00\x00pingping"), uint8(0))
	f.Add([]byte(settings+"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88\x00\x00\x05\x00\x08\x00\x00\x00\x01\x02a\x00\x00\x00\x00\x00\x01\x01\x05\x00\x00\x00\x01\x10"), uint8(5))
	env := newEnv(f, 1)
	var script atomic.Value
	b := newServer(f, func(c net.Conn, _ int) {
		s := script.Load().([2]any)
		said, step := s[0].([]byte), int(s[1].(uint8))+1
		go io.Copy(io.Discard, c)
		for len(said) > 0 {
			n := min(step, len(said))
			if _, err := c.Write(said[:n]); err != nil {
				return
			}
			said = said[n:]
		}
	})
	c := cluster(f, env, http2(false), b.addr())
	f.Fuzz(func(t *testing.T, said []byte, step uint8) {
		script.Store([2]any{bytes.Clone(said), step}) // a connection may outlast this call, and said is the fuzzer's
		e := only(t, c)
		l := env.Loops[0]
		var all []*caller
		for i := range 3 {
			p := get("/")
			if i == 1 {
				p = post("body")
			}
			p.done = make(chan struct{})
			all = append(all, p)
			l.Post(func() { p.start(l, e) })
		}
		for _, p := range all {
			wait(t, p.done, "an end")
		}
		eventually(t, "nothing is left", func() bool { s := e.Stats(); return s.Active == 0 && s.Open == 0 })
		if l.Stats.Panics.Load() > 0 {
			t.Error("a session panicked")
		}
	})
}

// A panic while a session is led costs the session and those on it, each of which is told; the next request has a new one.
func TestHTTP2Panics(t *testing.T) {
	was := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	defer slog.SetDefault(was)
	release := make(chan struct{})
	defer close(release)
	addr := h2Backend(t, false, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	})
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, http2(false), addr))
	l := env.Loops[0]
	var hanging [3]*caller
	for i := range hanging {
		c := get("/hang")
		c.done = make(chan struct{})
		l.Post(func() { c.start(l, e) })
		hanging[i] = c
	}
	eventually(t, "all are under way", func() (all bool) {
		on(t, l, func() { s := e.loops[0].sessions; all = len(s) == 1 && len(s[0].streams) == len(hanging) })
		return all
	})
	bomb := get("/")
	bomb.head = func(*caller) bool {
		bomb.head = nil
		panic("boom")
	}
	bomb.do(t, env, e).ok(t, 200, "") // it had come whole
	for _, c := range hanging {
		wait(t, c.done, "the end of a stream")
		c.failed(t, ErrPanic)
	}
	eventually(t, "the panic is counted", func() bool { return l.Stats.Panics.Load() == 1 })
	get("/").do(t, env, e).ok(t, 200, "")
	if n := e.loops[0].dials.n.Load(); n != 2 {
		t.Errorf("%d sessions were dialled, want 2", n)
	}
}
