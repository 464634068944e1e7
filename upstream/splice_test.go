package upstream

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// side is a plain connection to a raw server of the test's, and the splice that leads into or out of it.
type side struct {
	caller *caller
	conn   *fastpath.Conn
	dial   Dial
	err    *fastpath.Error // of the dial
	ready  chan struct{}
	pump   func()
}

func newSide(t *testing.T, env *Env, c *caller, serve func(net.Conn, int)) *side {
	s := &side{caller: c, ready: make(chan struct{})}
	addr := newServer(t, serve).addr()
	on(t, env.Loops[0], func() {
		if _, err := env.Loops[0].Dial(addr, time.Second, s); err != nil {
			t.Error(err)
		}
	})
	wait(t, s.ready, "the connection")
	return s
}

func (s *side) OnConnect(c *fastpath.Conn, err *fastpath.Error) {
	s.dial.End()
	s.conn, s.err = c, err
	close(s.ready)
}
func (s *side) OnReadable(*fastpath.Conn) { s.go1() }
func (s *side) OnWritable(*fastpath.Conn) { s.go1() }
func (s *side) OnDeadline(*fastpath.Conn) {}

func (s *side) go1() {
	if s.pump != nil && !s.caller.closed {
		s.pump()
	}
}

const large = 1 << 20

var largeBody = bytes.Repeat([]byte("0123456789abcdef"), large/16)

// The rest of a large answer leaves by splice(2), and the session is clean afterwards.
func TestRaw(t *testing.T) {
	env, got := newEnv(t, 1), make(chan []byte, 1)
	answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", large, largeBody)
	e := only(t, cluster(t, env, Settings{}, newServer(t, answering(answer)).addr()))
	c := get("/")
	sink := newSide(t, env, c, func(c net.Conn, _ int) {
		b, _ := io.ReadAll(c)
		got <- b
	})
	var splice fastpath.Splicer
	pump := func() {
		if !splice.Active() {
			raw := c.stream.Raw()
			if raw == nil {
				return
			}
			if left := c.stream.BodyLeft(); left != int64(large-len(c.got)) {
				t.Errorf("%d bytes are left after %d", left, len(c.got))
			}
			splice.Start(raw, sink.conn, c.stream.BodyLeft())
		}
		_, err := splice.Pump()
		if err == fastpath.ErrWouldBlock {
			return
		}
		c.stream.Spliced(splice.Moved())
		splice.Stop()
		sink.conn.CloseWrite()
		c.finish(err)
	}
	on(t, env.Loops[0], func() { sink.pump = pump })
	c.onResponse = func() { // in place of reading the body to its end
		for c.headed && !splice.Active() && c.stream.Raw() == nil {
			b, err := c.stream.ReadBody(100)
			if err != nil {
				break
			}
			c.got = append(c.got, b...)
		}
		sink.go1()
	}
	c.do(t, env, e)
	if c.err != nil {
		t.Fatal(c.err)
	}
	if all := append(c.got, wait(t, got, "the spliced bytes")...); !bytes.Equal(all, largeBody) {
		t.Errorf("%d bytes, or others than were sent", len(all))
	}
	if n := idle(t, env, e); n != 1 {
		t.Errorf("%d idle sessions, want 1", n)
	}
	if c := get("/").do(t, env, e).ok(t, 200, string(largeBody)); !c.reused {
		t.Error("the session was not used again")
	}
}

// A large request goes in by splice(2).
func TestRawOut(t *testing.T) {
	env, got := newEnv(t, 1), make(chan string, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, recording(got)).addr()))
	c := post("")
	c.request.ContentLength, c.body = large, nil
	source := newSide(t, env, c, func(c net.Conn, _ int) {
		_, _ = c.Write(largeBody)
		wait10(c)
	})
	var splice fastpath.Splicer
	begun := false
	pump := func() {
		if !begun {
			return
		}
		if !splice.Active() {
			raw := c.stream.RawOut()
			if raw == nil {
				t.Error("no RawOut after the head was sent")
				c.finish(ErrFraming)
				return
			}
			splice.Start(source.conn, raw, large)
		}
		n, err := splice.Pump()
		c.stream.SplicedOut(n)
		if err == nil {
			splice.Stop()
			if err := c.stream.EndBody(nil); err != nil {
				c.finish(err)
			}
			if c.stream.RawOut() != nil {
				t.Error("RawOut after the body's end")
			}
			source.pump = nil
		} else if err != fastpath.ErrWouldBlock {
			c.finish(err)
		}
	}
	on(t, env.Loops[0], func() { source.pump = pump })
	c.began = func(Stream) {
		begun = true
		source.go1()
	}
	c.onRoom = source.go1
	c.do(t, env, e).ok(t, 204, "")
	want := fmt.Sprintf("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: %d\r\n\r\n%s", large, largeBody)
	if s := wait(t, got, "the request"); s != want {
		t.Errorf("the backend got %d bytes, want %d", len(s), len(want))
	}
	if n := idle(t, env, e); n != 1 {
		t.Errorf("%d idle sessions, want 1", n)
	}
}

// Chunked bodies, bodies of unknown length and TLS have no raw form.
func TestNoRaw(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nhello",
		"HTTP/1.1 204 No Content\r\n\r\n",
	} {
		env := newEnv(t, 1)
		e := only(t, cluster(t, env, Settings{}, newServer(t, func(c net.Conn, _ int) {
			readRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, answer)
		}).addr()))
		c := get("/")
		c.head = func(c *caller) bool {
			if c.stream.Raw() != nil || c.stream.BodyLeft() != -1 || c.stream.RawOut() != nil {
				t.Errorf("%q: Raw %v, RawOut %v, %d left", answer, c.stream.Raw(), c.stream.RawOut(), c.stream.BodyLeft())
			}
			return false
		}
		c.do(t, env, e).failed(t, nil)
	}
}
