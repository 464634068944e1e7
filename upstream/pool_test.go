package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

const empty = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// counting is a backend's serve around another one that counts connections.
func counting(n *atomic.Int32, serve func(net.Conn, int)) func(net.Conn, int) {
	return func(c net.Conn, i int) {
		n.Add(1)
		serve(c, i)
	}
}

func TestReuse(t *testing.T) {
	var conns atomic.Int32
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, counting(&conns, answering(empty))).addr()))
	for i := range 5 {
		if c := get("/").do(t, env, e).ok(t, 200, ""); c.reused != (i > 0) {
			t.Errorf("request %d: reused is %v", i, c.reused)
		}
	}
	c := get("/")
	c.options.Fresh = true
	if c.do(t, env, e).ok(t, 200, ""); c.reused || conns.Load() != 2 {
		t.Errorf("asked for a fresh session: reused %v, %d connections", c.reused, conns.Load())
	}
	if s := e.Stats(); s != (Stats{Open: 2, Idle: 2, Requests: 6, Reused: 4, Connects: 2}) {
		t.Errorf("%+v", s)
	}
}

// The session that was used last is taken first, so that the others can age.
func TestReuseIsLIFO(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, answering(empty)).addr()))
	a, b := get("/"), get("/")
	b.options.Fresh = true
	a.do(t, env, e).ok(t, 200, "")
	b.do(t, env, e).ok(t, 200, "")
	var first, last *session
	on(t, env.Loops[0], func() { first, last = e.loops[0].idle[0], e.loops[0].idle[1] })
	c := get("/")
	c.keep = true
	c.do(t, env, e)
	if c.stream != last || c.stream == first {
		t.Error("not the session that was used last")
	}
	on(t, env.Loops[0], func() { c.stream.Release() })
}

func TestPoolLimits(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings Settings
		answer   string
		idle     int
		said     string // Connection of the last request
	}{
		{"requests a session", Settings{RequestsMax: 2}, empty, 0, "close"},
		{"age of a session", Settings{AgeMax: 1}, empty, 0, ""},
		{"no idle sessions", Settings{IdleMax: -1}, empty, 0, "close"},
		{"the backend's hint", Settings{}, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n", 0, ""},
		{"a longer hint", Settings{}, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=9\r\nContent-Length: 0\r\n\r\n", 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, said := newEnv(t, 1), make(chan string, 8)
			serve := func(c net.Conn, _ int) {
				r := bufio.NewReader(c)
				for request := readRequest(r); request != ""; request = readRequest(r) {
					said <- request
					_, _ = io.WriteString(c, tt.answer)
				}
			}
			e := only(t, cluster(t, env, tt.settings, newServer(t, serve).addr()))
			var last string
			for range 2 {
				get("/").do(t, env, e).ok(t, 200, "")
				last = wait(t, said, "the request")
			}
			if n := idle(t, env, e); n != tt.idle {
				t.Errorf("%d idle sessions, want %d", n, tt.idle)
			}
			want := "GET / HTTP/1.1\r\nHost: shop.example\r\n"
			if tt.said != "" {
				want += "Connection: " + tt.said + "\r\n"
			}
			if last != want+"\r\n" {
				t.Errorf("the last request was %q", last)
			}
		})
	}
}

// Sessions beyond IdleMax are kept for a moment only, those within it for their time.
func TestIdleOverflow(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{IdleMax: 2}, newServer(t, answering(empty)).addr()))
	var held []*caller
	for range 4 {
		c := get("/")
		c.keep, c.options.Fresh = true, true
		held = append(held, c.do(t, env, e).ok(t, 200, ""))
	}
	on(t, env.Loops[0], func() {
		for _, c := range held {
			c.stream.Release()
		}
		for i, s := range e.loops[0].idle {
			long := s.expires-s.idleSince > int64(idleOverflow)
			if long != (i < 2) {
				t.Errorf("session %d is kept for %v", i, time.Duration(s.expires-s.idleSince))
			}
		}
	})
	if n := idle(t, env, e); n != 4 {
		t.Errorf("%d idle sessions, want all 4 for now", n)
	}
	eventually(t, "the overflow is closed", func() bool { return idle(t, env, e) == 2 })
}

func TestIdleTimeout(t *testing.T) {
	env, ended := newEnv(t, 1), make(chan struct{})
	serve := func(c net.Conn, i int) {
		answering(empty)(c, i)
		close(ended)
	}
	e := only(t, cluster(t, env, Settings{IdleTimeout: 30 * time.Millisecond}, newServer(t, serve).addr()))
	get("/").do(t, env, e).ok(t, 200, "")
	wait(t, ended, "the close")
	if s := e.Stats(); s.Open != 0 {
		t.Errorf("%+v, want no open session", s)
	}
}

// talking is a backend's serve that answers once and then does what end says.
func talking(end func(net.Conn)) func(net.Conn, int) {
	return func(c net.Conn, i int) {
		r := bufio.NewReader(c)
		readRequest(r)
		_, _ = io.WriteString(c, empty)
		if i > 0 {
			wait10(c)
			return
		}
		end(c)
	}
}

// An idle session on which the backend said or did anything is gone, and nobody gets it.
func TestIdleSessionThatIsTouched(t *testing.T) {
	for _, tt := range []struct {
		name  string
		end   func(net.Conn)
		shown bool
	}{
		{"closed", fin, true},
		{"reset", rst, true},
		{"half-closed", func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite(); wait10(c) }, true},
		{"an answer nobody asked for", func(c net.Conn) { _, _ = io.WriteString(c, empty); wait10(c) }, false},
		{"one byte", func(c net.Conn) { _, _ = c.Write([]byte("\n")); wait10(c) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, do := newEnv(t, 1), make(chan struct{})
			serve := talking(func(c net.Conn) {
				<-do
				tt.end(c)
			})
			e := only(t, cluster(t, env, Settings{}, newServer(t, serve).addr()))
			get("/").do(t, env, e).ok(t, 200, "")
			if n := idle(t, env, e); n != 1 {
				t.Fatalf("%d idle sessions, want 1", n)
			}
			close(do)
			eventually(t, "the session is closed", func() bool { return e.Stats().Open == 0 })
			if shown := e.idle.shown.Load() != 0; shown != tt.shown {
				t.Errorf("an idle limit was noted: %v, want %v", shown, tt.shown)
			}
			if c := get("/").do(t, env, e).ok(t, 200, ""); c.reused {
				t.Error("the next request got a used session")
			}
		})
	}
}

// The event of what a backend said may still be on its way when the session is asked for: before a request that must not
// be lost goes on it, the socket itself is looked at.
func TestStaleSessionBeforeItsEvent(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(net.Conn)
	}{
		{"closed", fin},
		{"said something", func(c net.Conn) { _, _ = io.WriteString(c, empty) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, do, did := newEnv(t, 1), make(chan struct{}), make(chan struct{})
			serve := talking(func(c net.Conn) {
				<-do
				tt.end(c)
				close(did) // loopback has delivered it; the loop was held up until now
				wait10(c)
			})
			e := only(t, cluster(t, env, Settings{}, newServer(t, serve).addr()))
			get("/").do(t, env, e).ok(t, 200, "")
			c := post("hello")
			c.done = make(chan struct{})
			env.Loops[0].Post(func() { // the loop sees no event while this runs
				close(do)
				<-did
				c.start(env.Loops[0], e)
			})
			wait(t, c.done, "the answer")
			if c.ok(t, 200, ""); c.reused {
				t.Error("a stale session was handed out")
			}
		})
	}
}

// A backend that closes between the look at the session and the sending has not seen the request: it may be repeated.
func TestResetBeforeSending(t *testing.T) {
	env, do, did := newEnv(t, 1), make(chan struct{}), make(chan struct{})
	serve := talking(func(c net.Conn) {
		<-do
		rst(c)
		close(did)
	})
	e := only(t, cluster(t, env, Settings{}, newServer(t, serve).addr()))
	get("/").do(t, env, e).ok(t, 200, "")
	c := post("x")
	c.began = func(s Stream) {
		if s.Sent() {
			t.Error("sent before the turn's end")
		}
		close(do)
		<-did
	}
	if c.do(t, env, e).failed(t, ErrUnsent); !c.reused || !c.err.Retry {
		t.Errorf("reused %v, retry %v", c.reused, c.err.Retry)
	}
}

// A request that must not be lost takes a session only if it was idle for a moment.
func TestNonIdempotent(t *testing.T) {
	const unknown = idleLimitAssumed / idleLimitShare
	for _, tt := range []struct {
		name             string
		shown, announced time.Duration
		idled            time.Duration
		reused           bool
	}{
		{"nothing known, just used", 0, 0, 0, true},
		{"nothing known, within the assumed", 0, 0, unknown - 1, true},
		{"nothing known, beyond it", 0, 0, unknown, false},
		{"shown, within", 4 * time.Second, 0, time.Second - 1, true},
		{"shown, beyond", 4 * time.Second, 0, time.Second, false},
		{"announced, within", 0, 4 * time.Second, time.Second - 1, true},
		{"announced, beyond", 0, 4 * time.Second, time.Second, false},
		{"the shorter counts", 8 * time.Second, 4 * time.Second, time.Second, false},
		{"the shorter counts, other way round", 4 * time.Second, 8 * time.Second, time.Second, false},
		{"shown at once", 1, 0, 1, false},
		{"never idle", 1, 0, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := newEnv(t, 1)
			e := only(t, cluster(t, env, Settings{}, newServer(t, answering(empty)).addr()))
			get("/").do(t, env, e).ok(t, 200, "")
			c := post("x")
			c.done = make(chan struct{})
			env.Loops[0].Post(func() {
				e.idle.shown.Store(int64(tt.shown))
				e.idle.announced.Store(int64(tt.announced))
				e.loops[0].idle[0].idleSince = env.Loops[0].Now() - int64(tt.idled)
				c.start(env.Loops[0], e)
			})
			wait(t, c.done, "the answer")
			if c.ok(t, 200, ""); c.reused != tt.reused {
				t.Errorf("reused is %v", c.reused)
			}
		})
	}
}

// A backend whose idle limit is constant never loses a POST, however badly the requests are timed.
func TestNoPostIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: it waits for a backend's idle limit")
	}
	const limit = 100 * time.Millisecond
	var requests atomic.Int32
	serve := func(c net.Conn, _ int) {
		r := bufio.NewReader(c)
		for {
			_ = c.SetReadDeadline(time.Now().Add(limit))
			if readRequest(r) == "" {
				return
			}
			requests.Add(1)
			_, _ = io.WriteString(c, empty)
		}
	}
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, serve).addr()))
	const posts = 30
	for i := range posts {
		post("x").do(t, env, e).ok(t, 200, "")
		time.Sleep(limit + time.Duration(i-posts/2)*time.Millisecond)
	}
	if n := requests.Load(); n != posts {
		t.Errorf("the backend saw %d requests, want %d", n, posts)
	}
}

// The idle race with an idempotent request: lost, it is told apart by Reused, and teaches the endpoint's limit.
func TestIdleRaceIsLearnt(t *testing.T) {
	env := newEnv(t, 1)
	serve := func(c net.Conn, i int) {
		r := bufio.NewReader(c)
		readRequest(r)
		_, _ = io.WriteString(c, empty)
		readRequest(r) // the second one is not answered any more
	}
	e := only(t, cluster(t, env, Settings{}, newServer(t, serve).addr()))
	get("/").do(t, env, e).ok(t, 200, "")
	c := get("/")
	c.done = make(chan struct{})
	env.Loops[0].Post(func() {
		e.loops[0].idle[0].idleSince -= int64(time.Second)
		c.start(env.Loops[0], e)
	})
	wait(t, c.done, "the end")
	if c.failed(t, ErrCut); !c.reused {
		t.Error("the session was fresh")
	}
	if shown := time.Duration(e.idle.shown.Load()); shown < time.Second {
		t.Errorf("shown is %v, want at least 1s", shown)
	}
}

func TestIdleLimit(t *testing.T) {
	var i idleLimit
	step := func(what string, f func(), want time.Duration) {
		t.Helper()
		f()
		if got := time.Duration(i.safe()); got != want {
			t.Errorf("%s: safe for %v, want %v", what, got, want)
		}
	}
	step("nothing known", func() {}, 50*time.Millisecond)
	step("announced", func() { i.announce(int64(8 * time.Second)) }, 2*time.Second)
	step("a longer announcement", func() { i.announce(int64(80 * time.Second)) }, 2*time.Second)
	step("a longer close", func() { i.closedAfter(int64(12 * time.Second)) }, 2*time.Second)
	step("a shorter close", func() { i.closedAfter(int64(4 * time.Second)) }, time.Second)
	step("alive a little longer", func() { i.survived(int64(8 * time.Second)) }, time.Second)
	step("alive much longer", func() { i.survived(int64(8*time.Second) + 1) }, 2*time.Second)
}

// A stream that is released while it is being dialled is cancelled: no callback comes, nothing stays open.
func TestReleaseWhileDialling(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls %v", secure), func(t *testing.T) {
			env := newEnv(t, 1)
			s := Settings{}
			serve := answering(empty)
			if secure {
				s.TLS, serve = &TLS{}, func(c net.Conn, _ int) { wait10(c) } // a handshake that never ends
			}
			e := only(t, cluster(t, env, s, newServer(t, serve).addr()))
			c := get("/")
			c.done = make(chan struct{})
			on(t, env.Loops[0], func() {
				if c.start(env.Loops[0], e); !secure {
					c.stream.Release()
				}
			})
			if secure {
				eventually(t, "the handshake begins", func() bool { return env.Work.Running(fastpath.WorkHandshake) == 1 })
				on(t, env.Loops[0], func() { c.stream.Release() })
			}
			if secure {
				eventually(t, "the handshake ends", func() bool { return env.Work.Running(fastpath.WorkHandshake) == 0 })
			}
			on(t, env.Loops[0], func() {})
			if s := e.Stats(); s != (Stats{Requests: 1, Connects: s.Connects}) || c.closed {
				t.Errorf("%+v, want nothing open", s)
			}
		})
	}
}

// Released streams hear nothing more, whatever their backend does.
func TestNoCallbackAfterRelease(t *testing.T) {
	env, do := newEnv(t, 1), make(chan struct{})
	serve := func(c net.Conn, _ int) {
		<-do
		_, _ = io.WriteString(c, empty)
		wait10(c)
	}
	e := only(t, cluster(t, env, Settings{}, newServer(t, serve).addr()))
	c := get("/")
	c.done = make(chan struct{})
	released := make(chan struct{})
	c.began = func(s Stream) {
		c.loop.Post(func() {
			s.Release()
			c.keep, c.stream = true, nil // any callback would panic now
			close(do)
			close(released)
		})
	}
	env.Loops[0].Post(func() { c.start(env.Loops[0], e) })
	wait(t, released, "the release")
	on(t, env.Loops[0], func() {})
	if s := e.Stats(); s.Open != 0 || s.Active != 0 {
		t.Errorf("%+v, want nothing open", s)
	}
	if n := env.Loops[0].Stats.Panics.Load(); n != 0 {
		t.Errorf("%d panics", n)
	}
}

// A stream is released once; the session's next life is not touched by a second call before it begins.
func TestReleaseTwice(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, answering(empty)).addr()))
	c := get("/").do(t, env, e).ok(t, 200, "")
	on(t, env.Loops[0], func() { c.stream.Release() })
	if s := e.Stats(); s != (Stats{Open: 1, Idle: 1, Requests: 1, Connects: 1}) {
		t.Errorf("%+v", s)
	}
}

// A backend that speaks first, or leaves at once, gets no request: an answer must follow its question.
func TestSpokeFirst(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(net.Conn)
		err   *fastpath.Error
	}{
		{"an answer", func(c net.Conn) { _, _ = io.WriteString(c, empty) }, ErrSpokeFirst},
		{"gone", fin, ErrUnsent},
		{"reset", rst, fastpath.ErrRefused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env, did := newEnv(t, 1), make(chan struct{})
			serve := func(c net.Conn, i int) {
				tt.serve(c)
				close(did) // loopback has delivered it; the loop was held up until now
				wait10(c)
			}
			e := only(t, cluster(t, env, Settings{}, newServer(t, serve).addr()))
			c := post("x")
			c.done = make(chan struct{})
			env.Loops[0].Post(func() {
				c.start(env.Loops[0], e)
				<-did
			})
			wait(t, c.done, "the end")
			if c.failed(t, tt.err); !c.err.Retry {
				t.Error("nothing was sent, but the error forbids a retry")
			}
			if s := e.Stats(); s.Open != 0 || s.Active != 0 || s.ConnectFailures != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// An address that the kernel refuses at once is an error at once.
func TestUnreachable(t *testing.T) {
	env := newEnv(t, 1)
	env.AllowCIDRs = []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4")}
	e := only(t, cluster(t, env, Settings{}, netip.MustParseAddrPort("224.0.0.1:80")))
	on(t, env.Loops[0], func() {
		c := get("/")
		if s, ready, err := e.Open(env.Loops[0], c, OpenOptions{}); s != nil || ready || err != fastpath.ErrRefused {
			t.Errorf("stream %v, ready %v, error %v", s, ready, err)
		}
		if c, _, err := e.Dial(env.Loops[0], new(Dial), nil, 0, nil); c != nil || err != fastpath.ErrRefused {
			t.Errorf("connection %v, error %v", c, err)
		}
	})
	if s := e.Stats(); s != (Stats{ConnectFailures: 2}) {
		t.Errorf("%+v", s)
	}
}

// Again is another turn for a stream that stopped reading before its peer had all.
func TestAgain(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")).addr()))
	c := get("/")
	turns := 0
	c.onResponse = func() {
		turns++
		b, err := c.stream.ReadBody(1)
		if c.got = append(c.got, b...); err == fastpath.ErrEOF {
			c.finish(nil)
			return
		}
		c.stream.Again()
	}
	if c.do(t, env, e).ok(t, 200, "hello"); turns < 6 {
		t.Errorf("%d turns for 5 bytes and an end", turns)
	}
}

// A raw connection for a tunnel, and what balancers see of it.
func TestDial(t *testing.T) {
	env := newEnv(t, 1)
	c := cluster(t, env, Settings{Algorithm: LeastConnections}, newServer(t, answering(empty)).addr(), newServer(t, answering(empty)).addr())
	l, first, second := env.Loops[0], c.current.Load().ready[0], c.current.Load().ready[1]
	tunnel := &side{caller: get("/"), ready: make(chan struct{})}
	on(t, l, func() {
		if _, _, err := first.Dial(l, &tunnel.dial, tunnel, 0, nil); err != nil {
			t.Error(err)
		}
	})
	wait(t, tunnel.ready, "the connection")
	picked := func() map[*Endpoint]int {
		m := map[*Endpoint]int{}
		on(t, l, func() {
			for range 4 {
				m[c.Pick(Wish{})]++
			}
		})
		return m
	}
	on(t, l, func() {
		if tunnel.conn.Remote() != first.Addr() {
			t.Errorf("connected to %v, want %v", tunnel.conn.Remote(), first.Addr())
		}
		first.Connected(l)
		first.TunnelBegan()
	})
	if m := picked(); m[second] != 4 {
		t.Errorf("with a tunnel to the first endpoint the second got %d of 4 picks", m[second])
	}
	on(t, l, func() {
		first.TunnelEnded()
		tunnel.conn.Close()
	})
	if m := picked(); m[first] != 2 {
		t.Errorf("after the tunnel the first got %d of 4 picks", m[first])
	}
	if s := first.Stats(); s != (Stats{Connects: 1}) {
		t.Errorf("%+v", s)
	}
	if first.Cluster() != c || c.ID() != "shop/web:80" {
		t.Errorf("of cluster %v, %q", first.Cluster(), c.ID())
	}
}

// A session's time may be over before the wheel comes round.
func TestExpiredSession(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, answering(empty)).addr()))
	get("/").do(t, env, e).ok(t, 200, "")
	c := get("/")
	c.done = make(chan struct{})
	env.Loops[0].Post(func() {
		e.loops[0].idle[0].expires = env.Loops[0].Now()
		c.start(env.Loops[0], e)
	})
	wait(t, c.done, "the answer")
	if c.ok(t, 200, ""); c.reused || e.Stats().Open != 1 {
		t.Errorf("reused %v, %+v", c.reused, e.Stats())
	}
}

// A session that outlives the endpoint's presumed idle limit by far contradicts it, in use or at our own timeout.
func TestSurvivalIsLearnt(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{IdleTimeout: 50 * time.Millisecond}, newServer(t, answering(empty)).addr()))
	get("/").do(t, env, e).ok(t, 200, "")
	c := get("/")
	c.done = make(chan struct{})
	env.Loops[0].Post(func() {
		e.idle.shown.Store(int64(time.Second))
		e.loops[0].idle[0].idleSince -= int64(3 * time.Second)
		c.start(env.Loops[0], e)
	})
	wait(t, c.done, "the answer")
	if c.ok(t, 200, ""); !c.reused || e.idle.shown.Load() != 0 {
		t.Errorf("reused %v, shown %v", c.reused, time.Duration(e.idle.shown.Load()))
	}
	e.idle.shown.Store(int64(time.Millisecond))
	eventually(t, "our own timeout", func() bool { return e.Stats().Open == 0 })
	if shown := e.idle.shown.Load(); shown != 0 {
		t.Errorf("after our own timeout: shown %v", time.Duration(shown))
	}
}

// Room that was asked for before the request was complete is no news afterwards.
func TestNoRoomAfterTheRequest(t *testing.T) {
	env := newEnv(t, 1)
	e := only(t, cluster(t, env, Settings{}, newServer(t, answering(empty)).addr()))
	c := post("hello")
	c.head = func(c *caller) bool {
		s := c.stream.(*session)
		s.OnWritable(s.conn)
		return false
	}
	if c.do(t, env, e).ok(t, 200, ""); c.late > 0 {
		t.Errorf("%d calls of OnRoom", c.late)
	}
}

// Whose dial for a tunnel goes to an endpoint that is removed is told at once, if there is another one; until then the endpoint
// is kept for it.
func TestDialToARemovedEndpoint(t *testing.T) {
	env, addr := newEnv(t, 1), fullBacklog(t)
	c, l := cluster(t, env, Settings{}, addr), env.Loops[0]
	dial := func(e *Endpoint) *side {
		s := &side{caller: get("/"), ready: make(chan struct{})}
		on(t, l, func() {
			conn, sent, err := e.Dial(l, &s.dial, s, 0, nil)
			if s.conn = conn; sent != 0 || err != nil {
				t.Errorf("%d bytes sent, %v", sent, err)
			}
		})
		return s
	}
	kept := func() (n int) {
		on(t, l, func() {}) // what Apply has posted is done
		c.Stats()
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.gone)
	}
	told := func(s *side) {
		t.Helper()
		wait(t, s.ready, "the word of the removal")
		on(t, l, func() {
			if s.err != ErrRemoved || !s.conn.Closed() {
				t.Errorf("told %v, closed %v", s.err, s.conn.Closed())
			}
		})
	}
	e := only(t, c)
	first, gone, last := dial(e), dial(e), dial(e)
	on(t, l, func() { // of those that stay none is lost by it
		gone.dial.End()
		gone.dial.End()
		gone.conn.Close()
	})
	c.Apply(nil)
	if n := kept(); n != 1 {
		t.Errorf("%d endpoints kept for their dials, want 1", n)
	}
	select {
	case <-first.ready:
		t.Error("given up although there is nobody else")
	default:
	}
	c.Apply(addresses(addr))
	told(first)
	told(last)
	if n := kept(); n != 0 {
		t.Errorf("%d endpoints kept for nothing", n)
	}
	select {
	case <-gone.ready:
		t.Error("told although its owner had ended it")
	default:
	}
	again := dial(only(t, c))
	c.Apply(addresses(netip.MustParseAddrPort("127.0.0.1:9")))
	told(again)
	if s, n := c.Stats(), l.Stats.Panics.Load(); s != (Stats{}) || n != 0 {
		t.Errorf("%+v and %d panics, want no failure", s, n)
	}
}
