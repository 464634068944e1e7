package upstream

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/sluiceproxy/sluice/fastpath"
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
	s, ready, err := r.e.Open(r.loop, r, OpenOptions{})
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
	if err := r.stream.ReadHead(&r.response, &r.arena); err != nil {
		if err == fastpath.ErrWouldBlock {
			return
		}
		panic(err)
	}
	for {
		_, err := r.stream.ReadBody(64 << 10)
		if err == nil {
			continue
		}
		if err != fastpath.ErrEOF {
			panic(err)
		}
		break
	}
	r.stream.Release()
	r.again()
}

// BenchmarkRoundTrip is a request and its answer over loopback, the backend's work and both switches of threads included.
// The figure that matters is its allocations; its time is a bound.
func BenchmarkRoundTrip(b *testing.B) {
	for _, bb := range []struct{ name, answer string }{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			env := newEnv(b, 1)
			c := cluster(b, env, Settings{RequestsMax: 1 << 30}, newServer(b, canned(bb.answer)).addr())
			r := newLooper(env, c.current.Load().ready[0])
			r.run(100)
			b.ReportAllocs()
			b.ResetTimer()
			r.run(b.N)
		})
	}
}
