package l7

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// noise is a body that nothing can be mistaken for: n bytes that follow from a seed.
type noise struct {
	random *rand.ChaCha8
	left   int64
	sum    hash.Hash
}

func newNoise(n int64) *noise {
	return &noise{random: rand.NewChaCha8([32]byte{7}), left: n, sum: sha256.New()}
}

func (s *noise) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), s.left)]
	_, _ = s.random.Read(b)
	s.left -= int64(len(b))
	s.sum.Write(b)
	return len(b), nil
}

// noiseSum is the checksum of n bytes of noise.
func noiseSum(n int64) string {
	s := newNoise(n)
	_, _ = io.Copy(io.Discard, s)
	return fmt.Sprintf("%x", s.sum.Sum(nil))
}

// digest reads r to its end.
func digest(r io.Reader) (sum string, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	return fmt.Sprintf("%x", h.Sum(nil)), n, err
}

// slowly passes on at most size bytes a millisecond.
type slowly struct {
	r    io.Reader
	size int
}

func (s slowly) Read(b []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return s.r.Read(b[:min(len(b), s.size)])
}

// chunks writes everything that it is given as chunks of odd sizes.
type chunks struct{ w io.Writer }

func (c chunks) Write(b []byte) (int, error) {
	for rest, size := b, 1; len(rest) > 0; size = size*5 + 3 {
		n := min(size, len(rest), 200_000)
		_, _ = fmt.Fprintf(c.w, "%x\r\n", n)
		_, _ = c.w.Write(rest[:n])
		if _, err := io.WriteString(c.w, "\r\n"); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// write sends a whole body in a framing.
func write(w io.Writer, framing wire.Framing, body io.Reader) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	var to io.Writer = bw
	if framing == wire.FramingChunked {
		to = chunks{bw}
	}
	if _, err := io.CopyBuffer(to, struct{ io.Reader }{body}, make([]byte, 256<<10)); err != nil {
		return err
	}
	if framing == wire.FramingChunked {
		_, _ = bw.WriteString(wire.LastChunk)
	}
	return bw.Flush()
}

// framingField is the head's line for a framing.
func framingField(framing wire.Framing, n int64) string {
	switch framing {
	case wire.FramingLength:
		return fmt.Sprintf("Content-Length: %d\r\n", n)
	case wire.FramingChunked:
		return "Transfer-Encoding: chunked\r\n"
	}
	return ""
}

// spliced tells whether the loop has had pipes: some body was moved by splice(2).
func (r *rig) spliced() (yes bool) {
	r.Helper()
	r.on(func() {
		pipes := reflect.ValueOf(r.loops[0]).Elem().FieldByName("pipes")
		yes = pipes.FieldByName("idle").Len()+pipes.FieldByName("large").Len() > 0
	})
	return yes
}

// bigBytes is a large body's size: more than sockets, pipes and buffers hold at first.
var bigBytes = map[bool]int64{false: 6<<20 + 12345, true: 2<<20 + 12345}[raceEnabled]

var bigCases = []struct {
	name               string
	framing            wire.Framing
	slowFrom, slowTo   bool
	splices, unbounded bool
}{
	{name: "length", framing: wire.FramingLength, splices: true},
	{name: "length, slow source", framing: wire.FramingLength, slowFrom: true, splices: true},
	{name: "length, slow sink", framing: wire.FramingLength, slowTo: true, splices: true},
	{name: "chunked", framing: wire.FramingChunked},
	{name: "chunked, slow source", framing: wire.FramingChunked, slowFrom: true},
	{name: "chunked, slow sink", framing: wire.FramingChunked, slowTo: true},
}

func TestBigResponses(t *testing.T) {
	want := noiseSum(bigBytes)
	cases := append(bigCases[:len(bigCases):len(bigCases)], bigCases[3])
	cases[len(cases)-1].name, cases[len(cases)-1].framing = "close", wire.FramingClose
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.backend(func(p *peer) {
				for p.request() != nil {
					var body io.Reader = newNoise(bigBytes)
					if c.slowFrom {
						body = slowly{body, 96 << 10}
					}
					p.send("HTTP/1.1 200 OK\r\n" + framingField(c.framing, bigBytes) + "\r\n")
					if write(p, c.framing, body) != nil || c.framing == wire.FramingClose {
						return
					}
				}
			})
			cl := r.dial()
			for range 2 {
				cl.get("/")
				res, err := http.ReadResponse(cl.r, nil)
				r.must(err)
				var body io.Reader = res.Body
				if c.slowTo {
					body = slowly{body, 96 << 10}
				}
				if sum, n, err := digest(body); sum != want || err != nil {
					t.Fatalf("%d bytes of %d, %v; the right ones: %v", n, bigBytes, err, sum == want)
				}
			}
			if r.spliced() != c.splices {
				t.Errorf("splice(2) used: %v, want %v", !c.splices, c.splices)
			}
		})
	}
}

func TestBigRequests(t *testing.T) {
	want := noiseSum(bigBytes)
	for _, c := range bigCases {
		for _, buffered := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, buffered %v", c.name, buffered), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(r *rig) { r.route.Policy.BodyMax, r.route.Policy.BufferRequest = 0, buffered })
				r.backend(func(p *peer) {
					for q := p.head(); q != nil; q = p.head() {
						var body io.Reader = q.Body
						if c.slowTo {
							body = slowly{body, 96 << 10}
						}
						sum, n, err := digest(body)
						if err != nil {
							return
						}
						p.answer("200 OK", fmt.Sprint(sum, " ", n))
					}
				})
				cl := r.dial()
				for range 2 {
					cl.send("POST / HTTP/1.1\r\nHost: a\r\n" + framingField(c.framing, bigBytes) + "\r\n")
					var body io.Reader = newNoise(bigBytes)
					if c.slowFrom {
						body = slowly{body, 96 << 10}
					}
					r.must(write(cl, c.framing, body))
					cl.expect("POST", 200, fmt.Sprint(want, " ", bigBytes))
				}
				if r.spliced() != c.splices {
					t.Errorf("splice(2) used: %v, want %v", !c.splices, c.splices)
				}
			})
		}
	}
}

// TestUploadReceivedAhead: what was received ahead of a client's turn goes before what splice(2) finds in the socket.
func TestUploadReceivedAhead(t *testing.T) {
	const n, first = 256 << 10, 32 << 10
	want := fmt.Sprint(noiseSum(n), " ", n)
	r := newRig(t, func(r *rig) {
		r.settings.Buffer = 4 << 10 // less than is received ahead
		r.route.Policy.BodyMax, r.route.Policy.BufferRequest = 0, false
	})
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			sum, n, err := digest(q.Body)
			if err != nil {
				return
			}
			p.answer("200 OK", fmt.Sprint(sum, " ", n))
		}
	})
	clients := []*client{r.dial(), r.dial()}
	for _, c := range clients {
		c.get("/") // who awaits a second head is received from ahead
		c.status("GET", 200)
	}
	busy, over := make(chan struct{}), make(chan struct{})
	r.loops[0].Post(func() {
		close(busy)
		<-over
	})
	<-busy
	bodies := []io.Reader{newNoise(n), newNoise(n)}
	for i, c := range clients { // both in one batch of events
		head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", n)
		_, err := io.Copy(c, io.MultiReader(strings.NewReader(head), io.LimitReader(bodies[i], first)))
		r.must(err)
	}
	close(over)
	for i, c := range clients {
		_, err := io.Copy(c, bodies[i])
		r.must(err)
		c.expect("POST", 200, want)
	}
	if !r.spliced() {
		t.Error("splice(2) was not used")
	}
}

// endlessMax is what the kernel may hold of a body that nobody takes: the buffers of two connections, of up to 32 MiB
// each. What we hold ourselves the heap tells.
const (
	endless    = 100 << 20
	endlessMax = 80 << 20
)

// heap is how much memory is in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// still waits until n has not grown for a while, and returns it.
func still(n *atomic.Int64) int64 {
	for last := int64(-1); ; {
		now := n.Load()
		if now == last {
			return now
		}
		last = now
		time.Sleep(100 * time.Millisecond)
	}
}

// counted counts the bytes that were written through it.
type counted struct {
	w io.Writer
	n *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// TestClientReadsNothing: 100 MiB for a client that does not read stay where they are.
func TestClientReadsNothing(t *testing.T) {
	for _, framing := range []wire.Framing{wire.FramingLength, wire.FramingChunked} {
		t.Run(framing.String(), func(t *testing.T) {
			r := newRig(t)
			var sent atomic.Int64
			r.backend(func(p *peer) {
				for p.request() != nil {
					p.send("HTTP/1.1 200 OK\r\n" + framingField(framing, endless) + "\r\n")
					if write(counted{p, &sent}, framing, io.LimitReader(zeros{}, endless)) != nil {
						return
					}
				}
			})
			before := heap()
			c := r.dial()
			c.get("/")
			r.eventually("something was sent", func() bool { return sent.Load() > 0 })
			if n := still(&sent); n > endlessMax {
				t.Errorf("the backend could send %d MiB", n>>20)
			}
			if now := heap(); now > before+4<<20 {
				t.Errorf("the heap grew by %d KiB", (now-before)>>10)
			}
			res, err := http.ReadResponse(c.r, nil)
			r.must(err)
			if n, err := io.Copy(io.Discard, res.Body); n != endless || err != nil {
				t.Errorf("then the client read %d bytes, %v", n, err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestBackendReadsNothing: neither is a request's body taken from the client for a backend that does not read; past
// proxy-send-timeout it is given up.
func TestBackendReadsNothing(t *testing.T) {
	for _, framing := range []wire.Framing{wire.FramingLength, wire.FramingChunked} {
		t.Run(framing.String(), func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.BodyMax, r.route.Policy.SendTimeout = 0, 5*short })
			r.backend(func(p *peer) {
				if p.head() != nil && p.n == 0 {
					time.Sleep(8 * short)
					return
				}
				mirror(p)
			})
			before := heap()
			var sent atomic.Int64
			c := r.dial()
			go func() {
				_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+framingField(framing, endless)+"\r\n")
				_ = write(counted{c, &sent}, framing, io.LimitReader(zeros{}, endless))
			}()
			r.eventually("something was sent", func() bool { return sent.Load() > 0 })
			if n := still(&sent); n > endlessMax {
				t.Errorf("the client could send %d MiB", n>>20)
			}
			if now := heap(); now > before+4<<20 {
				t.Errorf("the heap grew by %d KiB", (now-before)>>10)
			}
			if a := c.status("POST", 504); !a.Close {
				t.Error("the connection is to go on, within a body")
			}
		})
	}
}

// requestBuffer is that of the default settings.
const requestBuffer = 64 << 10

// TestRequestBuffering: with it, a backend is asked once the body is complete or the buffer full; without, at once.
func TestRequestBuffering(t *testing.T) {
	const requestBuffer = 10_000 // client-body-buffer-size
	const size = requestBuffer + 1000
	for _, c := range []struct {
		name     string
		buffered bool
		total    int
		first    int // bytes that are sent before the backend is looked at
		asked    bool
	}{
		{"small and incomplete", true, 1000, 500, false},
		{"buffer not full", true, size, requestBuffer - 1, false},
		{"buffer full", true, size, requestBuffer, true},
		{"unbuffered", false, 1000, 500, true},
		{"unbuffered, only the head", false, 1000, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) {
				r.route.Policy.BufferRequest = c.buffered
				r.settings.RequestBuffer = requestBuffer
			})
			b := r.backend(mirror)
			body := strings.Repeat("0123456789", size)[:c.total]
			cl := r.dial()
			cl.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", c.total, body[:c.first]))
			if c.asked {
				r.eventually("the backend is asked", func() bool { return b.accepted.Load() == 1 })
			} else {
				time.Sleep(short / 3)
				if b.accepted.Load() != 0 {
					t.Error("the backend was asked before the body had come")
				}
			}
			cl.send(body[c.first:])
			cl.expect("POST", 200, "POST / "+body)
		})
	}
}

// TestErrorPageLeavesTheBody: the rest of a body that nobody reads, once an error page was asked for without it, is not the
// connection's next request.
func TestErrorPageLeavesTheBody(t *testing.T) {
	smuggled := strings.Repeat("x", 100) + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, body := range map[string]string{
		"chunked": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled),
		"length":  fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(smuggled), smuggled),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.settings.RequestBuffer = 100 })
			r.refusing()
			dead := r.cluster
			t.Cleanup(dead.Close)
			r.cluster, r.addresses = upstream.NewCluster("shop/alive:80", r.env, upstream.Settings{AllowLoopback: true}), nil
			r.backend(mirror)
			r.route.Errors = NewErrorPages(dead, false, []int{502})
			r.pick = func(x *Exchange) *Route {
				if x.Req.Method == wire.MethodPost {
					return r.route
				}
				return &Route{Cluster: r.cluster, Stats: r.stats, Policy: DefaultPolicy()}
			}
			c := r.dial()
			c.send("POST / HTTP/1.1\r\nHost: a\r\n" + body + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
			c.status("POST", 502)
			c.expect("GET", 200, "GET /next ")
		})
	}
}

// TestBodyMax: a body over proxy-body-size is a 413 and a close; no backend gets a whole request of it.
func TestBodyMax(t *testing.T) {
	const limit = 1000
	for _, c := range []struct {
		name     string
		framing  wire.Framing
		size     int
		buffered bool
		status   int
	}{
		{"length at the limit", wire.FramingLength, limit, true, 200},
		{"length over it", wire.FramingLength, limit + 1, true, 413},
		{"chunked at the limit", wire.FramingChunked, limit, true, 200},
		{"chunked over it, buffered", wire.FramingChunked, limit + 1, true, 413},
		{"chunked over it, unbuffered", wire.FramingChunked, limit + 1, false, 413},
		{"chunked far over it", wire.FramingChunked, 200 << 10, false, 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.BodyMax, r.route.Policy.BufferRequest = limit, c.buffered })
			var whole atomic.Int32
			r.backend(func(p *peer) {
				for q := p.request(); q != nil; q = p.request() {
					whole.Add(1)
					p.answer("200 OK", "")
				}
			})
			cl := r.dial()
			cl.send("POST / HTTP/1.1\r\nHost: a\r\n" + framingField(c.framing, int64(c.size)) + "\r\n")
			go func() { _ = write(cl, c.framing, io.LimitReader(zeros{}, int64(c.size))) }()
			cl.status("POST", c.status)
			if c.status == 413 {
				_, _ = io.Copy(io.Discard, cl.r)
				if n := whole.Load(); n != 0 {
					t.Errorf("the backend received %d requests", n)
				}
			}
		})
	}
}
