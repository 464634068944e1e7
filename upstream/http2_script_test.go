package upstream

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// frames is a backend of HTTP/2 that does what a test says, frame by frame.
type frames struct {
	*xhttp2.Framer
	conn   net.Conn
	number int // of the connection
	buf    bytes.Buffer
	enc    *hpack.Encoder
}

// scripted listens, greets each connection with settings, and leads it through play.
func scripted(t testing.TB, play func(f *frames), settings ...xhttp2.Setting) *server {
	return newServer(t, func(c net.Conn, number int) {
		preface := make([]byte, len(xhttp2.ClientPreface))
		if _, err := io.ReadFull(c, preface); err != nil {
			return
		}
		f := &frames{Framer: xhttp2.NewFramer(c, c), conn: c, number: number}
		f.enc = hpack.NewEncoder(&f.buf)
		if f.WriteSettings(settings...) == nil {
			play(f)
		}
	})
}

// next gives the next frame of that type; nil: there is none.
func next[T xhttp2.Frame](f *frames) (frame T) {
	for {
		got, err := f.ReadFrame()
		if err != nil {
			return frame
		}
		if s, ok := got.(*xhttp2.SettingsFrame); ok && !s.IsAck() {
			_ = f.WriteSettingsAck()
		}
		if frame, ok := got.(T); ok {
			return frame
		}
	}
}

// request is the next request's stream; 0: none comes.
func (f *frames) request() uint32 {
	if h := next[*xhttp2.HeadersFrame](f); h != nil {
		return h.StreamID
	}
	return 0
}

// head writes a head: names and values in turns.
func (f *frames) head(stream uint32, end bool, fields ...string) {
	f.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: stream, BlockFragment: f.buf.Bytes(), EndHeaders: true, EndStream: end})
}

// serve answers every request with its body until the connection ends.
func (f *frames) serve(body string) {
	for id := f.request(); id != 0; id = f.request() {
		f.head(id, false, ":status", "200")
		_ = f.WriteData(id, true, []byte(body))
	}
}

// held keeps its stream at the end, so that a test may ask it.
func held(c *caller) *caller {
	c.keep = true
	return c
}

// What a backend says that it has not looked at may be sent again, whatever the method is.
func TestHTTP2NotLookedAt(t *testing.T) {
	for name, c := range map[string]struct {
		play func(f *frames, id uint32)
		want *fastpath.Error
	}{
		"refused":                   {func(f *frames, id uint32) { _ = f.WriteRSTStream(id, xhttp2.ErrCodeRefusedStream) }, ErrRefusedStream},
		"behind the last of GOAWAY": {func(f *frames, id uint32) { _ = f.WriteGoAway(0, xhttp2.ErrCodeNo, nil) }, ErrGoAway},
	} {
		t.Run(name, func(t *testing.T) {
			b := scripted(t, func(f *frames) {
				c.play(f, f.request())
				io.Copy(io.Discard, f.conn)
			})
			env := newEnv(t, 1)
			p := held(post("x")).do(t, env, only(t, cluster(t, env, http2(false), b.addr()))).failed(t, c.want)
			on(t, env.Loops[0], func() {
				if p.stream.Sent() {
					t.Error("the stream counts as sent")
				}
				p.stream.Release()
			})
		})
	}
}

// A GOAWAY lets the streams end that it names, and the next request takes another connection.
func TestHTTP2GoAway(t *testing.T) {
	b := scripted(t, func(f *frames) {
		if f.number > 0 {
			f.serve("second")
			return
		}
		id := f.request()
		_ = f.WriteGoAway(id, xhttp2.ErrCodeNo, nil)
		f.head(id, false, ":status", "200")
		_ = f.WriteData(id, true, []byte("first"))
		io.Copy(io.Discard, f.conn)
	})
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, http2(false), b.addr()))
	get("/").do(t, env, e).ok(t, 200, "first")
	get("/").do(t, env, e).ok(t, 200, "second")
	eventually(t, "the first session has gone", func() bool { return e.Stats().Open == 1 })
}

// A backend that takes one stream at a time gets as many connections as there are requests.
func TestHTTP2FewStreams(t *testing.T) {
	go1 := make(chan struct{})
	b := scripted(t, func(f *frames) {
		id := f.request()
		<-go1
		f.head(id, true, ":status", "204")
		f.serve("")
	}, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 1})
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, http2(false), b.addr()))
	var all []*caller
	for range 5 {
		c := get("/")
		c.done = make(chan struct{})
		all = append(all, c)
		env.Loops[0].Post(func() { c.start(env.Loops[0], e) })
	}
	eventually(t, "five sessions", func() bool { return e.Stats().Open == 5 })
	close(go1)
	for _, c := range all {
		wait(t, c.done, "an answer")
		c.ok(t, 204, "")
	}
	none := scripted(t, func(f *frames) { f.serve("") }, xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0})
	get("/").do(t, env, only(t, cluster(t, env, http2(false), none.addr()))).failed(t, ErrNoStreams)
}

// A request that must not be lost goes out on a session that has rested once the backend has answered PING, and on another
// when it does not.
func TestHTTP2Asks(t *testing.T) {
	pinged := make(chan int, 4)
	b := scripted(t, func(f *frames) {
		for {
			switch fr, err := f.ReadFrame(); fr := fr.(type) {
			case *xhttp2.PingFrame:
				pinged <- f.number
				if f.number == 1 {
					return // the end, in place of an answer
				}
				_ = f.WritePing(true, fr.Data)
			case *xhttp2.DataFrame:
				f.head(fr.StreamID, true, ":status", "204")
			default:
				if err != nil {
					return
				}
			}
		}
	})
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, http2(false), b.addr()))
	e.idle.announce(4) // nanoseconds: every rest is a long one that the loop's clock sees
	rested := func() {
		eventually(t, "time passes on the loop", func() (passed bool) {
			on(t, env.Loops[0], func() { passed = env.Loops[0].Now() > e.loops[0].sessions[0].idleSince })
			return passed
		})
	}
	post("x").do(t, env, e).ok(t, 204, "")
	rested()
	p := post("x").do(t, env, e).ok(t, 204, "")
	if n := wait(t, pinged, "PING"); n != 0 || !p.reused {
		t.Errorf("PING on connection %d, reused %v", n, p.reused)
	}
	on(t, env.Loops[0], func() { e.loops[0].sessions[0].drain() })
	post("x").do(t, env, e).ok(t, 204, "")
	rested()
	post("x").do(t, env, e).failed(t, ErrUnsent)
}

// The windows hold, both ways: a peer that does not read gets no more than its window, others go on.
func TestHTTP2BackPressure(t *testing.T) {
	sent := make(chan int, 1)
	b := scripted(t, func(f *frames) {
		slow := f.request()
		f.head(slow, false, ":status", "200")
		piece := make([]byte, 16<<10)
		for left := wire.H2WindowInitial; left > 0; left -= len(piece) {
			piece = piece[:min(len(piece), left)]
			_ = f.WriteData(slow, false, piece)
		}
		sent <- 1
		fast := f.request()
		f.head(fast, false, ":status", "200")
		_ = f.WriteData(fast, true, []byte("fast"))
		for {
			if u := next[*xhttp2.WindowUpdateFrame](f); u == nil || u.StreamID == slow {
				break
			}
		}
		_ = f.WriteData(slow, true, []byte("!"))
		io.Copy(io.Discard, f.conn)
	})
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, http2(false), b.addr()))
	l := env.Loops[0]
	slow := get("/")
	slow.done = make(chan struct{})
	slow.onResponse = func() {}
	l.Post(func() { slow.start(l, e) })
	wait(t, sent, "a window full")
	get("/").do(t, env, e).ok(t, 200, "fast")
	on(t, l, func() {
		slow.onResponse = nil
		slow.readBody()
	})
	wait(t, slow.done, "the rest")
	if len(slow.got) != wire.H2WindowInitial+1 || slow.err != nil {
		t.Errorf("%d bytes, error %v", len(slow.got), slow.err)
	}
}

// What a request's window does not let out waits, and nothing else does.
func TestHTTP2UploadWindow(t *testing.T) {
	got := make(chan int, 1)
	b := scripted(t, func(f *frames) {
		id := f.request()
		n := 0
		for n < 1000 {
			n += len(next[*xhttp2.DataFrame](f).Data())
		}
		_ = f.WritePing(false, [8]byte{})
		for { // no DATA comes before the PING's answer
			fr, err := f.ReadFrame()
			if d, ok := fr.(*xhttp2.DataFrame); ok {
				n += len(d.Data())
			}
			if _, ok := fr.(*xhttp2.PingFrame); ok || err != nil {
				break
			}
		}
		got <- n
		_ = f.WriteWindowUpdate(id, 1<<20)
		for d := next[*xhttp2.DataFrame](f); d != nil && !d.StreamEnded(); d = next[*xhttp2.DataFrame](f) {
		}
		f.head(id, true, ":status", "204")
		io.Copy(io.Discard, f.conn)
	}, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1000})
	env := newEnv(t, 1)
	p := post(strings.Repeat("x", 50_000)).do(t, env, only(t, cluster(t, env, http2(false), b.addr()))).ok(t, 204, "")
	if n := wait(t, got, "the window's bytes"); n != 1000 || p.sent != 50_000 {
		t.Errorf("%d bytes within a window of 1000, %d in all", n, p.sent)
	}
}

// A backend that takes nothing any more gets so much and no further, however many clients ask and leave: others' requests take
// another connection, and the silence is not forgotten for what only waits here.
func TestHTTP2BackendReadsNothing(t *testing.T) {
	const head = 16 << 10
	for _, waits := range []bool{false, true} { // a client that does not leave
		t.Run(fmt.Sprintf("a stream waits %v", waits), func(t *testing.T) {
			over := make(chan struct{})
			defer close(over)
			b := scripted(t, func(f *frames) {
				_ = f.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
				<-over
			})
			env := newEnv(t, 1)
			e := only(t, cluster(t, env, http2(false), b.addr()))
			l := env.Loops[0]
			ask := func(leaves bool) *caller {
				began := make(chan struct{})
				c := get("/" + strings.Repeat("x", head))
				c.done = make(chan struct{})
				c.began = func(Stream) {
					if leaves {
						c.finish(nil)
					}
					close(began)
				}
				l.Post(func() { c.start(l, e) })
				wait(t, began, "a request")
				return c
			}
			waiting := ask(!waits)
			var s *session2
			on(t, l, func() { s = e.loops[0].sessions[0] })
			var queued int
			var heard int64
			for n, taken := 0, true; taken; n++ {
				if n == 2000 {
					t.Fatalf("%d requests stand on the connection, %d bytes of them in the proxy", n, queued)
				}
				ask(true)
				on(t, l, func() {
					if taken = slices.Contains(e.loops[0].sessions, s); !taken {
						return
					}
					queued = max(queued, s.conn.Queued())
					if heard != 0 && s.heard != heard {
						t.Error("a request that waits counts as a sign of life")
					}
					if s.conn.Blocked() {
						heard = s.heard
					}
				})
			}
			if queued > h2OutputMax+2*head || queued < h2OutputMax-2*head {
				t.Errorf("%d bytes wait, want %d", queued, h2OutputMax)
			}
			if !waits {
				if s.state != closed2 {
					t.Error("the session has not ended, and carries nothing")
				}
				return
			}
			on(t, l, func() {
				s.heard -= h2PingAfter // what the clock would do
				s.OnDeadline(s.conn)
				s.pingBy = l.Now()
				s.OnDeadline(s.conn)
			})
			wait(t, waiting.done, "the end")
			waiting.failed(t, ErrPing)
		})
	}
}

// An answer that came whole is read after its session has gone: then the stream itself keeps time and turns, and neither is in
// the other's way.
func TestHTTP2TimeoutWithoutSession(t *testing.T) {
	b := scripted(t, func(f *frames) {
		id := f.request()
		f.head(id, false, ":status", "200")
		_ = f.WriteData(id, true, []byte("hello"))
	})
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, http2(false), b.addr()))
	l := env.Loops[0]
	c := held(get("/"))
	c.done = make(chan struct{})
	turns := 0
	c.onResponse = func() { turns++ }
	l.Post(func() { c.start(l, e) })
	eventually(t, "the session has gone", func() (gone bool) {
		on(t, l, func() { gone = c.headed && e.Stats().Open == 0 })
		return gone
	})
	on(t, l, func() {
		st := c.stream.(*stream2)
		turns = 0
		st.SetTimeout(time.Hour)
		overdue := st.timer
		st.Again()
		st.SetTimeout(0)
		overdue.Resume(true) // what the clock would do
	})
	on(t, l, func() {
		if c.closed || turns != 1 {
			t.Errorf("ended %v, error %v, %d turns, want one", c.closed, c.err, turns)
		}
		st := c.stream.(*stream2)
		st.SetTimeout(time.Hour)
		st.Again()
		st.timer.Resume(true)
	})
	wait(t, c.done, "the end of the time")
	c.failed(t, fastpath.ErrTimeout)
	on(t, l, c.stream.Release)
}

// An answer that breaks the rules costs its stream; framing that does, the session.
func TestHTTP2Defects(t *testing.T) {
	for name, c := range map[string]struct {
		play func(f *frames, id uint32)
		want *fastpath.Error
	}{
		"DATA first": {func(f *frames, id uint32) { _ = f.WriteData(id, true, []byte("x")) }, ErrHTTP2},
		"too little DATA": {func(f *frames, id uint32) {
			f.head(id, false, ":status", "200", "content-length", "5")
			_ = f.WriteData(id, true, []byte("x"))
		}, wire.ErrH2ResponseLength},
		"too much DATA": {func(f *frames, id uint32) {
			f.head(id, false, ":status", "200", "content-length", "1")
			_ = f.WriteData(id, true, []byte("xy"))
		}, ErrHTTP2},
		"no status":               {func(f *frames, id uint32) { f.head(id, true, "a", "b") }, wire.ErrH2ResponseStatus},
		"101":                     {func(f *frames, id uint32) { f.head(id, true, ":status", "101") }, wire.ErrH2ResponseStatus},
		"a name in upper case":    {func(f *frames, id uint32) { f.head(id, true, ":status", "200", "A", "b") }, wire.ErrH2ResponseFields},
		"a field of connections":  {func(f *frames, id uint32) { f.head(id, true, ":status", "200", "connection", "close") }, wire.ErrH2ResponseFields},
		"CR in a value":           {func(f *frames, id uint32) { f.head(id, true, ":status", "200", "a", "b\rc") }, wire.ErrH2ResponseFields},
		"trailers without an end": {func(f *frames, id uint32) { f.head(id, false, ":status", "200"); f.head(id, false, "a", "b") }, ErrHTTP2},
		"reset": {func(f *frames, id uint32) {
			f.head(id, false, ":status", "200")
			_ = f.WriteRSTStream(id, xhttp2.ErrCodeCancel)
		}, ErrStreamReset},
		"a stream never opened": {func(f *frames, id uint32) { f.head(99, true, ":status", "200") }, ErrHTTP2},
		"PUSH_PROMISE": {func(f *frames, id uint32) {
			_ = f.WritePushPromise(xhttp2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true})
		}, ErrHTTP2},
		"compression broken": {func(f *frames, id uint32) {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0x0f}, EndHeaders: true})
		}, ErrHTTP2},
		"too many interim answers": {func(f *frames, id uint32) {
			for range 11 {
				f.head(id, false, ":status", "103")
			}
		}, ErrInterims},
		"the end": {func(f *frames, id uint32) { f.head(id, false, ":status", "200"); f.conn.Close() }, ErrCut},
		"an endless header block": {func(f *frames, id uint32) {
			_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}})
			for f.WriteContinuation(id, false, make([]byte, 10)) == nil {
			}
		}, ErrHTTP2},
		"a flood of PINGs": {func(f *frames, id uint32) {
			for f.WritePing(false, [8]byte{}) == nil {
			}
		}, ErrHTTP2},
		"a flood of SETTINGS": {func(f *frames, id uint32) {
			for f.WriteSettings() == nil {
			}
		}, ErrHTTP2},
		"a flood of empty DATA": {func(f *frames, id uint32) {
			f.head(id, false, ":status", "200")
			for f.WriteData(id, false, nil) == nil {
			}
		}, ErrHTTP2},
		"more than the window": {func(f *frames, id uint32) {
			f.head(id, false, ":status", "200")
			for f.WriteData(id, false, make([]byte, 16<<10)) == nil {
			}
		}, ErrHTTP2},
	} {
		t.Run(name, func(t *testing.T) {
			b := scripted(t, func(f *frames) {
				f.AllowIllegalWrites = true
				go func(id uint32) {
					c.play(f, id)
				}(f.request())
				io.Copy(io.Discard, f.conn)
			})
			env := newEnv(t, 1)
			e := only(t, cluster(t, env, http2(false), b.addr()))
			p := get("/")
			if name == "more than the window" {
				p.onResponse = func() { // it takes nothing, and looks only whether the stream is lost
					if err := p.stream.(*stream2).err; err != nil {
						p.finish(err)
					}
				}
			}
			p.do(t, env, e).failed(t, c.want)
			eventually(t, "nothing is left", func() bool { s := e.Stats(); return s.Active == 0 && s.Open == s.Idle })
		})
	}
}

// A backend that falls silent while streams wait is asked, and given up when it does not answer; one that never says its
// SETTINGS was never asked for anything.
func TestHTTP2Silent(t *testing.T) {
	pings := make(chan bool, 4)
	b := scripted(t, func(f *frames) {
		f.request()
		for next[*xhttp2.PingFrame](f) != nil {
			pings <- true
		}
	})
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, http2(false), b.addr()))
	p := get("/")
	p.done = make(chan struct{})
	l := env.Loops[0]
	began := make(chan struct{})
	p.began = func(Stream) { close(began) }
	l.Post(func() { p.start(l, e) })
	wait(t, began, "the request")
	on(t, l, func() { // what the clock would do
		s := e.loops[0].sessions[0]
		s.heard -= h2PingAfter
		s.OnDeadline(s.conn)
	})
	wait(t, pings, "PING")
	on(t, l, func() {
		s := e.loops[0].sessions[0]
		s.pingBy = l.Now()
		s.OnDeadline(s.conn)
	})
	wait(t, p.done, "the end")
	p.failed(t, ErrPing)

	mute := newServer(t, func(c net.Conn, _ int) { io.Copy(io.Discard, c) })
	q := get("/")
	q.options.ConnectTimeout = 50 * time.Millisecond
	q.do(t, env, only(t, cluster(t, env, http2(false), mute.addr()))).failed(t, ErrNoSettings)
}
