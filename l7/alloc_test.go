package l7

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// canned is a backend that answers each request of known size with the same bytes, and allocates nothing.
func canned(size int, answer string) func(*peer) {
	return func(p *peer) {
		buf, out := make([]byte, 64<<10), []byte(answer)
		for n := 0; ; {
			k, err := p.Read(buf[n:])
			if err != nil {
				return
			}
			n += k
			for {
				end := bytes.Index(buf[:n], []byte("\r\n\r\n"))
				if end < 0 || n < end+4+size {
					break
				}
				n = copy(buf, buf[end+4+size:n])
				if _, err := p.Write(out); err != nil {
					return
				}
			}
		}
	}
}

// asker sends one request again and again over a connection, and allocates nothing.
type asker struct {
	c           net.Conn
	request, in []byte
	answer      int // its length; 0: not known yet
}

func (a *asker) ask(n int) error {
	for range n {
		if _, err := a.c.Write(a.request); err != nil {
			return err
		}
		if a.answer == 0 {
			k, err := a.c.Read(a.in)
			if err != nil {
				return err
			}
			a.answer = k
			continue
		}
		if _, err := io.ReadFull(a.c, a.in[:a.answer]); err != nil {
			return err
		}
	}
	return nil
}

const (
	plainGet  = "GET /a/path?with=query HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\n\r\n"
	smallPost = "POST /form HTTP/1.1\r\nHost: shop.example\r\nContent-Type: text/plain\r\nContent-Length: 26\r\n\r\nabcdefghijklmnopqrstuvwxyz"
	okAnswer  = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
	okChunked = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)

// measured is a rig without poison and without probes: nothing runs in it but what is measured.
func measured(t testing.TB, size int, answer string) (*rig, *asker) {
	r := newRig(t, func(r *rig) { r.settings.KeepAliveRequests = 1 << 30 })
	r.probeless = true
	r.on(func() { poison(r.loops[0], false) })
	r.backend(canned(size, answer))
	c := r.dial()
	r.must(c.SetDeadline(time.Time{}))
	return r, &asker{c: c.TCPConn, in: make([]byte, 64<<10)}
}

// TestExchangeAllocatesNothing counts every allocation of the process over 1,000 requests: engine, exchange, forwarding,
// session, statistics and access log together have none.
func TestExchangeAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	for _, c := range []struct {
		name, request, answer string
		size                  int
		log                   bool
		prepare               func(*rig)
	}{
		{name: "GET", request: plainGet, answer: okAnswer},
		{name: "GET, chunked", request: plainGet, answer: okChunked},
		{name: "POST", request: smallPost, size: 26, answer: okAnswer},
		{name: "GET, logged", request: plainGet, answer: okAnswer, log: true},
		{name: "affinity", request: plainGet, answer: okAnswer, prepare: func(r *rig) {
			r.route.Policy.SetsAffinity = true
			r.cluster.SetSettings(upstream.Settings{AllowLoopback: true, Affinity: &upstream.Affinity{Cookie: "a"}})
		}},
		{name: "a new session each time", request: plainGet, answer: okAnswer, prepare: func(r *rig) {
			r.route.Policy.SetsAffinity = true
			r.cluster.SetSettings(upstream.Settings{AllowLoopback: true, Affinity: &upstream.Affinity{Cookie: "none", Persistent: true, MaxAge: 60, HasMaxAge: true}})
		}},
		{name: "hash, breaker, outliers, timeout", request: plainGet, answer: okAnswer, prepare: func(r *rig) {
			r.route.Policy.Timeout = time.Minute
			r.cluster.SetSettings(upstream.Settings{AllowLoopback: true, Algorithm: upstream.ConsistentHash, HashBy: "$request_uri$http_accept$cookie_a",
				HashBalance: 150, Breaker: upstream.Breaker{Connections: 10, Requests: 10, Pending: 10, RetryBudget: 20}, Outlier: upstream.Outlier{Errors: 5}})
		}},
		{name: "canary", request: plainGet, answer: okAnswer, prepare: func(r *rig) {
			c, err := NewCanary(r.cluster, "c", true, CanaryRule{Header: "Accept", Pattern: "^text/.*x$", Cookie: "a", Weight: 50})
			r.must(err)
			r.route.Canaries = []Canary{c}
		}},
		// a POST would dial anew when the test is slow
		{name: "mirror", request: strings.Replace(smallPost, "POST", "PUT", 1), size: 26, answer: okAnswer, prepare: func(r *rig) {
			parts, err := upstream.ParseKey("/copy$request_uri")
			r.must(err)
			r.route.Mirror = &Mirror{Cluster: r.cluster, Host: []byte("copy.example"), Target: parts, Body: true}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a := measured(t, c.size, c.answer)
			if c.log {
				log := NewAccessLog(io.Discard, 1)
				defer log.Close()
				r.on(func() { r.settings.AccessLog, r.srv.Log = true, log })
				defer r.on(func() { r.srv.Log = nil })
			}
			if c.prepare != nil {
				r.on(func() {})
				c.prepare(r)
			}
			a.request = []byte(c.request)
			r.must(a.ask(500))
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			r.must(a.ask(1000))
			runtime.ReadMemStats(&after)
			if n := after.Mallocs - before.Mallocs; n > 100 { // the Date of each second, copies that a mirror held up at a time, and strays of the runtime; one a request would be 1,000
				t.Errorf("%d allocations in 1,000 requests", n)
			}
		})
	}
}

// h2Frames are requests on streams from id on, whose fields are in the client's table already, and what an asker sends first.
func h2Frames(id, n int) (b []byte) {
	indexed := []byte{0x82, 0x86, 0x84, 0x80 | 64, 0x80 | 63, 0x80 | 62}
	for range n {
		b = append(wire.AppendH2Head(b, wire.H2Head{Length: len(indexed), Type: wire.H2Headers, Flags: wire.H2EndStream | wire.H2EndHeaders, Stream: uint32(id)}), indexed...)
		id += 2
	}
	return b
}

// h2asker sends batches of requests on streams of one connection, and allocates nothing.
type h2asker struct {
	c       net.Conn
	out, in []byte
	id      int
	have    int
}

func newH2asker(r *rig, batch int) *h2asker {
	c := r.dial()
	r.must(c.SetDeadline(time.Time{}))
	a := &h2asker{c: c.TCPConn, id: 3, out: h2Frames(3, batch), in: make([]byte, 64<<10)}
	first := []byte{0x82, 0x86, 0x84, 0x41, 12}
	first = append(first, "shop.example"...)
	first = append(append(append(first, 0x40, 10), "user-agent"...), append([]byte{4}, "test"...)...)
	first = append(append(append(first, 0x40, 1), 'x'), append([]byte{1}, 'y')...)
	b := append([]byte(wire.H2Preface), wire.AppendH2Settings(nil, nil)...)
	b = wire.AppendH2WindowUpdate(b, 0, 1<<30)
	b = append(wire.AppendH2Head(b, wire.H2Head{Length: len(first), Type: wire.H2Headers, Flags: wire.H2EndStream | wire.H2EndHeaders, Stream: 1}), first...)
	_, err := a.c.Write(b)
	r.must(err)
	r.must(a.answers(1))
	return a
}

// ask sends one batch and reads its answers.
func (a *h2asker) ask() error {
	n := 0
	for b := a.out; len(b) > 0; n++ {
		b[5], b[6], b[7], b[8] = byte(a.id>>24), byte(a.id>>16), byte(a.id>>8), byte(a.id)
		a.id += 2
		b = b[wire.H2HeadBytes+wire.ParseH2Head(b).Length:]
	}
	if _, err := a.c.Write(a.out); err != nil {
		return err
	}
	return a.answers(n)
}

// answers reads until n streams have ended.
func (a *h2asker) answers(n int) error {
	for n > 0 {
		k, err := a.c.Read(a.in[a.have:])
		if err != nil {
			return err
		}
		b := a.in[:a.have+k]
		for len(b) >= wire.H2HeadBytes {
			h := wire.ParseH2Head(b)
			if len(b) < wire.H2HeadBytes+h.Length {
				break
			}
			b = b[wire.H2HeadBytes+h.Length:]
			if h.Stream != 0 && (h.Type == wire.H2Data || h.Type == wire.H2Headers) && h.Has(wire.H2EndStream) {
				n--
			}
		}
		a.have = copy(a.in, b)
	}
	return nil
}

// TestH2AllocatesNothing: neither do requests over HTTP/2, once their fields are in the table.
func TestH2AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	r, _ := measured(t, 0, okAnswer)
	a := newH2asker(r, 10)
	for range 50 {
		r.must(a.ask())
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 100 {
		r.must(a.ask())
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 20 {
		t.Errorf("%d allocations in 1,000 requests", n)
	}
}

// BenchmarkExchange2 is a request over HTTP/2, alone and ten at a time.
func BenchmarkExchange2(b *testing.B) {
	for _, batch := range []int{1, 10} {
		b.Run(fmt.Sprintf("streams=%d", batch), func(b *testing.B) {
			r, _ := measured(b, 0, okAnswer)
			a := newH2asker(r, batch)
			for range 20 {
				r.must(a.ask())
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += batch {
				r.must(a.ask())
			}
		})
	}
}

// TestIdleConnectionIsSmall: a connection between two requests holds no exchange and no buffer.
func TestIdleConnectionIsSmall(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory of its own")
	}
	r := newRig(t)
	r.backend(mirror)
	ask := func() {
		c := r.dial()
		c.get("/")
		c.expect("GET", 200, "GET / ")
	}
	ask()
	r.on(func() {
		if n := len(r.srv.local(r.loops[0]).free); n != 1 {
			t.Errorf("%d exchanges wait for use, want 1", n)
		}
	})
	for range 50 {
		ask()
	}
	r.on(func() {
		if n := len(r.srv.local(r.loops[0]).free); n != 1 {
			t.Errorf("51 idle connections: %d exchanges", n)
		}
	})
}

// BenchmarkExchange is a request through engine, exchange and session over loopback, with client and backend in the same
// process.
func BenchmarkExchange(b *testing.B) {
	for _, c := range []struct {
		name, request, answer string
		size                  int
	}{
		{"GET", plainGet, okAnswer, 0},
		{"POST", smallPost, okAnswer, 26},
		{"GETChunked", plainGet, okChunked, 0},
		{"GET64KiB", plainGet, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 64<<10, make([]byte, 64<<10)), 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			r, a := measured(b, c.size, c.answer)
			a.in = make([]byte, 128<<10)
			a.request = []byte(c.request)
			if c.name == "GET64KiB" {
				a.answer = 64<<10 + len("HTTP/1.1 200 OK\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 65536\r\n\r\n")
				b.SetBytes(64 << 10)
			}
			r.must(a.ask(100))
			b.ReportAllocs()
			b.ResetTimer()
			r.must(a.ask(b.N))
			b.StopTimer()
		})
	}
}

// BenchmarkPipelined is the same without the round trips of the client: 16 requests in a segment.
func BenchmarkPipelined(b *testing.B) {
	r, a := measured(b, 0, okAnswer)
	a.request = []byte(plainGet)
	r.must(a.ask(1))
	one := a.answer
	a.request, a.answer = bytes.Repeat(a.request, 16), 16*one
	r.must(a.ask(10))
	b.ReportAllocs()
	b.ResetTimer()
	r.must(a.ask((b.N + 15) / 16))
}
