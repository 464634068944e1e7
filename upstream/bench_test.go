package upstream

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"runtime"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

func BenchmarkPick(b *testing.B) {
	for _, a := range algorithms {
		for _, n := range []int{3, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", a.name, n), func(b *testing.B) {
				c := still(b, 1, a.Algorithm, n)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					c.Pick(Wish{Hash: uint32(i) * 2654435761})
				}
			})
		}
	}
	b.Run("sticky/100", func(b *testing.B) {
		c := still(b, 1, RoundRobin, 100)
		w := Wish{Sticky: c.current.Load().ready[50].StickyID("")}
		b.ReportAllocs()
		for b.Loop() {
			c.Pick(w)
		}
	})
	b.Run("retry/100", func(b *testing.B) {
		c := still(b, 1, RoundRobin, 100)
		eject(c, 10, 20, 30)
		w := Wish{Tried: c.current.Load().ready[40:42]}
		b.ReportAllocs()
		for b.Loop() {
			c.Pick(w)
		}
	})
}

// BenchmarkPickParallel shows what loops cost each other.
func BenchmarkPickParallel(b *testing.B) {
	c := still(b, runtime.GOMAXPROCS(0), RoundRobin, 10)
	loops := make(chan int, len(c.loops))
	for i := range c.loops {
		loops <- i
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := Wish{Loop: <-loops}
		for pb.Next() {
			c.Pick(w)
		}
	})
}

func BenchmarkNewRing(b *testing.B) {
	v := still(b, 1, RoundRobin, 100).current.Load()
	for b.Loop() {
		v.hash()
	}
}

// canned is a backend that answers without looking: each read of a request's end gets the same bytes.
func canned(answer string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		buf, out := make([]byte, 64<<10), []byte(answer)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
				if _, err := c.Write(out); err != nil {
					return
				}
			}
		}
	}
}

// looper sends requests one after the other without leaving the loop, and keeps all memory for the next one.
type looper struct {
	caller
	e    *Endpoint
	left int
	end  chan struct{}
	next func() // again, bound once
}

// canned2 is canned in HTTP/2: each request's head gets an answer of 5 bytes, or one with trailers that the table comes to hold.
func canned2(trailers bool) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		in, out := bufio.NewReaderSize(c, 64<<10), make([]byte, 0, 4<<10)
		if _, err := in.Discard(len(wire.H2Preface)); err != nil {
			return
		}
		var block bytes.Buffer
		var sums [2][]byte
		enc := hpack.NewEncoder(&block)
		for i := range sums {
			block.Reset()
			_ = enc.WriteField(hpack.HeaderField{Name: "sum", Value: "1"})
			sums[i] = bytes.Clone(block.Bytes())
		}
		heads := func(stream uint32, block []byte, flags uint8) {
			out = append(wire.AppendH2Head(out, wire.H2Head{Length: len(block), Type: wire.H2Headers, Flags: flags | wire.H2EndHeaders, Stream: stream}), block...)
		}
		status := []byte{0x88}
		out = wire.AppendH2Settings(out, nil)
		for {
			if in.Buffered() < wire.H2HeadBytes && len(out) > 0 {
				if _, err := c.Write(out); err != nil {
					return
				}
				out = out[:0]
			}
			b, err := in.Peek(wire.H2HeadBytes)
			if err != nil {
				return
			}
			head := wire.ParseH2Head(b)
			if _, err := in.Discard(wire.H2HeadBytes + head.Length); err != nil {
				return
			}
			switch {
			case head.Type == wire.H2Settings && !head.Has(wire.H2Ack):
				out = wire.AppendH2SettingsAck(out)
			case head.Type == wire.H2Headers:
				heads(head.Stream, status, 0)
				out = append(wire.AppendH2DataHead(out, head.Stream, 5, !trailers), "hello"...)
				if trailers {
					heads(head.Stream, sums[min(head.Stream/2, 1)], wire.H2EndStream)
				}
			}
		}
	}
}

func newLooper(env *Env, e *Endpoint) *looper {
	r := &looper{caller: *get("/"), e: e, end: make(chan struct{})}
	r.loop, r.next = env.Loops[0], r.again
	return r
}

// run sends n requests and waits for their end.
func (r *looper) run(n int) {
	r.left = n
	r.loop.Post(r.next)
	<-r.end
}

func (r *looper) again() {
	if r.left == 0 {
		r.end <- struct{}{}
		return
	}
	r.left--
	r.arena.Reset()
	s, ready, err := r.e.Open(r.loop, r, OpenOptions{Arena: &r.arena})
	if ready || err != nil {
		r.OnStream(s, err)
	}
}

func (r *looper) OnStream(s Stream, err *fastpath.Error) {
	if err != nil {
		panic(err)
	}
	r.stream = s
	if err := s.Send(&r.request); err != nil {
		panic(err)
	}
	s.SetTimeout(patience)
}

func (r *looper) OnResponse() {
	if !r.headed {
		if err := r.stream.ReadHead(&r.response, &r.arena); err == fastpath.ErrWouldBlock {
			return
		} else if err != nil {
			panic(err)
		}
		r.headed = true
	}
	for {
		_, err := r.stream.ReadBody(64 << 10)
		if err == fastpath.ErrEOF {
			break
		} else if err == fastpath.ErrWouldBlock { // a stream of HTTP/2 tells of its head before the body has come
			return
		} else if err != nil {
			panic(err)
		}
	}
	r.headed = false
	r.stream.Release()
	r.again()
}

// BenchmarkRoundTrip is a request and its answer over loopback, the backend's work and both switches of threads included.
// The figure that matters is its allocations; its time is a bound.
func BenchmarkRoundTrip(b *testing.B) {
	for _, bb := range []struct {
		name  string
		serve func(net.Conn, int)
		http2 bool
	}{
		{"length", canned("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"), false},
		{"chunked", canned("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), false},
		{"HTTP2", canned2(false), true},
	} {
		b.Run(bb.name, func(b *testing.B) {
			env := newEnv(b, 1)
			c := cluster(b, env, Settings{RequestsMax: 1 << 30, HTTP2: bb.http2}, newServer(b, bb.serve).addr())
			r := newLooper(env, c.current.Load().ready[0])
			r.run(100)
			b.ReportAllocs()
			b.ResetTimer()
			r.run(b.N)
		})
	}
}
