package l7

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// TestConnectRefused: a connect that fails is tried elsewhere, whatever the method; nothing was sent.
func TestConnectRefused(t *testing.T) {
	for _, method := range []string{"GET", "POST", "PATCH"} {
		t.Run(method, func(t *testing.T) {
			r := newRig(t)
			r.refusing()
			r.refusing()
			r.backend(mirror)
			c := r.dial()
			for range 6 {
				c.send(method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
				c.expect(method, 200, method+" / body")
			}
		})
	}
}

func TestAllRefuse(t *testing.T) {
	r := newRig(t)
	r.probeless = true
	r.refusing()
	r.refusing()
	c := r.dial()
	for range 4 {
		c.get("/")
		c.status("GET", 502)
	}
}

func TestNoEndpoint(t *testing.T) {
	r := newRig(t)
	r.probeless = true
	c := r.dial()
	c.get("/")
	if a := c.status("GET", 503); a.Close {
		t.Error("the connection ends with a 503")
	}
	r.on(func() { r.route.Cluster = nil })
	c.get("/")
	c.status("GET", 503)
}

// TestConnectTimeout: a backend that does not answer the dial costs proxy-connect-timeout; then another is asked.
func TestConnectTimeout(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.ConnectTimeout = short })
	r.endpoint(fullBacklog(t))
	r.backend(mirror)
	c := r.dial()
	for range 2 { // one of them meets the silent endpoint first
		c.post("/", "body")
		c.expect("POST", 200, "POST / body")
	}
	if n := r.cluster.Stats().ConnectFailures; n == 0 {
		t.Error("the silent endpoint was not tried")
	}
}

// TestEndpointRemovedWhileDialling: who waits for a connection to an endpoint that the configuration removes asks another one at
// once, even where nothing may be tried again; without another he waits on.
func TestEndpointRemovedWhileDialling(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.Tries, r.route.Policy.NextUpstream = 1, 0 })
	r.endpoint(fullBacklog(t))
	c := r.dial()
	c.post("/", "body")
	r.eventually("the silent endpoint is dialled", func() bool { return r.cluster.Stats().Active == 1 })
	began := time.Now()
	r.addresses = nil
	r.backend(mirror)
	c.expect("POST", 200, "POST / body")
	if took := time.Since(began); took >= r.settings.ConnectTimeout {
		t.Errorf("answered after %v, as if the dial had come to its end", took)
	}
	r.recorded(wire.MethodPost, 200, 1)
	if c := r.stats.Snapshot(); c.Retries != 0 || c.BackendErrors != [len(c.BackendErrors)]uint64{} || r.cluster.Stats().ConnectFailures != 0 {
		t.Errorf("%d retries, errors %v, %d failures of connecting, although nothing failed", c.Retries, c.BackendErrors, r.cluster.Stats().ConnectFailures)
	}
}

// fullBacklog is a listener that accepts nobody and whose queue is full: to who dials it, it is silent.
func fullBacklog(t *testing.T) netip.AddrPort {
	t.Helper()
	socket := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	fd := socket()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		_ = unix.Connect(socket(), sa) // EINPROGRESS, connected or not
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
}

// asksLog is a backend's log of what it was asked, by body or target.
type asksLog struct {
	mu sync.Mutex
	of map[string]int
}

func (l *asksLog) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[string]int{}
	}
	l.of[what]++
}

func (l *asksLog) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[what]
}

// TestReusedAndClosed: a backend that closes a kept connection just when the next request comes. A GET is sent again; a
// POST that it may have seen is not.
func TestReusedAndClosed(t *testing.T) {
	for _, c := range []struct {
		method string
		status int
		asked  int
	}{{"GET", 200, 2}, {"HEAD", 200, 2}, {"PUT", 200, 2}, {"DELETE", 200, 2}, {"POST", 502, 1}, {"PATCH", 502, 1}, {"BREW", 502, 1}} {
		t.Run(c.method, func(t *testing.T) {
			r := newRig(t)
			var asks asksLog
			r.backend(func(p *peer) {
				for i := 0; ; i++ {
					q := p.request()
					if q == nil {
						return
					}
					asks.note(q.RequestURI)
					if p.n == 0 && i == 1 {
						return
					}
					p.answer("200 OK", "")
				}
			})
			cl := r.dial()
			cl.post("/first", "")
			cl.expect("POST", 200, "")
			cl.send(c.method + " /second HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
			cl.status(c.method, c.status)
			if n := asks.count("/second"); n != c.asked {
				t.Errorf("the backend got %d requests, want %d", n, c.asked)
			}
		})
	}
}

// idleCloser answers requests and closes a connection on which none has begun for limit. It looks once more before it
// closes, as servers do whose clock and poller are one.
func idleCloser(limit time.Duration, got func(q *asked)) func(*peer) {
	return func(p *peer) {
		raw, err := p.SyscallConn()
		if err != nil {
			return
		}
		for {
			_ = p.SetReadDeadline(time.Now().Add(limit))
			if _, err := p.r.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
				waiting := false
				_ = raw.Control(func(fd uintptr) {
					n, _, _ := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
					waiting = n > 0
				})
				if !waiting {
					return
				}
				continue
			}
			_ = p.SetReadDeadline(time.Time{})
			q := p.request()
			if q == nil {
				return
			}
			got(q)
			p.answer("200 OK", q.body)
		}
	}
}

// TestPostsAgainstIdleLimit: 300 POSTs to a backend that closes what has been idle for a while. None is lost, none doubled.
// On a machine that stops for a good part of the limit a POST can be lost: whoever was stopped has a wrong idea of how
// long the connection was idle. Then it shows nothing, and is done again.
func TestPostsAgainstIdleLimit(t *testing.T) {
	const limit = 60 * time.Millisecond
	for range 3 {
		stop := make(chan bool)
		pause := longestPause(stop)
		lost, doubled := postsAgainst(t, limit)
		close(stop)
		longest := <-pause
		if doubled > 0 {
			t.Fatalf("%d POSTs were doubled", doubled)
		}
		if lost == 0 {
			return
		}
		t.Logf("%d POSTs were lost; the machine stopped for up to %v", lost, longest)
		if longest < limit/8 {
			t.Fatal("that is no excuse")
		}
	}
	t.Skip("this machine stops too often for a test of races")
}

// longestPause watches how long the scheduler lets a goroutine wait, until stop is closed.
func longestPause(stop chan bool) chan time.Duration {
	result := make(chan time.Duration, 1)
	go func() {
		var longest time.Duration
		for last := time.Now(); ; {
			select {
			case <-stop:
				result <- longest
				return
			case <-time.After(time.Millisecond):
			}
			now := time.Now()
			longest, last = max(longest, now.Sub(last)), now
		}
	}()
	return result
}

func postsAgainst(t *testing.T, limit time.Duration) (lost, doubled int64) {
	const clients, each = 15, 20
	r := newRig(t)
	var asks asksLog
	b := r.backend(idleCloser(limit, func(q *asked) { asks.note(q.body) }))
	c := r.dial()
	c.get("/") // so that the limit has been seen once
	c.expect("GET", 200, "")
	r.eventually("the backend closes the idle connection", func() bool { return r.cluster.Stats().Open == 0 })
	var running sync.WaitGroup
	var failed atomic.Int64
	for i := range clients {
		c := r.dial()
		running.Add(1)
		go func() {
			defer running.Done()
			for k := range each {
				time.Sleep(rand.N(2 * limit))
				body := fmt.Sprint(i, ".", k)
				c.post("/", body)
				if a := c.response("POST"); a.StatusCode != 200 || a.body != body {
					failed.Add(1)
				}
			}
		}()
	}
	running.Wait()
	for i := range clients {
		for k := range each {
			if asks.count(fmt.Sprint(i, ".", k)) > 1 {
				doubled++
			}
		}
	}
	t.Logf("%d POSTs over %d connections", clients*each, b.accepted.Load())
	return failed.Load(), doubled
}

// TestNextUpstreamStatus: a status that proxy-next-upstream names sends the request to another endpoint.
func TestNextUpstreamStatus(t *testing.T) {
	for status, next := range map[int]NextUpstream{500: Next500, 502: Next502, 503: Next503, 504: Next504, 403: Next403, 404: Next404, 429: Next429} {
		for _, c := range []struct {
			name, method string
			next         NextUpstream
			want, asked  int
		}{
			{"GET", "GET", NextDefault | next, 200, 2},
			{"POST", "POST", NextDefault | next, status, 1},
			{"POST with the waiver", "POST", NextDefault | next | NextNonIdempotent, 200, 2},
			{"not named", "GET", ^next, status, 1},
		} {
			if c.method != "GET" && status != 503 {
				continue // one status is enough for what does not depend on it
			}
			t.Run(fmt.Sprint(status, " ", c.name), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, func(r *rig) { r.route.Policy.NextUpstream = c.next })
				var asks asksLog
				for range 2 {
					r.backend(func(p *peer) {
						for q := p.request(); q != nil; q = p.request() {
							asks.note(q.body)
							if asks.count(q.body) == 1 {
								p.answer(fmt.Sprint(status, " x"), "refused")
								continue
							}
							p.answer("200 OK", q.body)
						}
					})
				}
				cl := r.dial()
				cl.send(c.method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
				cl.status(c.method, c.want)
				if n := asks.count("body"); n != c.asked {
					t.Errorf("asked %d times, want %d", n, c.asked)
				}
			})
		}
	}
}

// TestLastStatusIsPassedOn: when no try is left, the client gets what the last endpoint said.
func TestLastStatusIsPassedOn(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.NextUpstream |= Next503 })
	var asks asksLog
	for range 2 {
		r.backend(func(p *peer) {
			for p.request() != nil {
				asks.note("")
				p.answer("503 x", "over")
			}
		})
	}
	c := r.dial()
	c.get("/")
	c.expect("GET", 503, "over")
	if n := asks.count(""); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
}

// TestTries: how often endpoints are asked that take the request and say nothing.
func TestTries(t *testing.T) {
	for _, c := range []struct {
		name, method string
		policy       Policy
		waived       bool // retry-non-idempotent
		want         int
	}{
		{name: "default", method: "GET", policy: Policy{Tries: 3, NextUpstream: NextDefault}, want: 3},
		{name: "one", method: "GET", policy: Policy{Tries: 1, NextUpstream: NextDefault}, want: 1},
		{name: "unlimited has a limit", method: "GET", policy: Policy{NextUpstream: NextDefault}, want: triesMax},
		{name: "more than the limit", method: "GET", policy: Policy{Tries: 100, NextUpstream: NextDefault}, want: triesMax},
		{name: "off", method: "GET", policy: Policy{Tries: 3}, want: 1},
		{name: "errors are not named", method: "GET", policy: Policy{Tries: 3, NextUpstream: NextTimeout}, want: 1},
		{name: "POST", method: "POST", policy: Policy{Tries: 3, NextUpstream: NextDefault}, want: 1},
		{name: "POST with the waiver", method: "POST", policy: Policy{Tries: 3, NextUpstream: NextDefault | NextNonIdempotent}, want: 3},
		{name: "POST with retry-non-idempotent", method: "POST", policy: Policy{Tries: 3, NextUpstream: NextDefault}, waived: true, want: 3},
		{name: "time is up", method: "GET", policy: Policy{Tries: 3, NextUpstream: NextDefault, TriesTimeout: short / 5}, want: 1},
		{name: "time is left", method: "GET", policy: Policy{Tries: 3, NextUpstream: NextDefault, TriesTimeout: patience}, want: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) {
				r.route.Policy, r.settings.RetryNonIdempotent = c.policy, c.waived
				r.route.Policy.BufferRequest = true
			})
			var asks asksLog
			for range 4 {
				r.backend(func(p *peer) {
					if q := p.request(); q != nil {
						asks.note(q.body)
						if c.policy.TriesTimeout == short/5 {
							time.Sleep(short / 3)
						}
					}
				})
			}
			cl := r.dial()
			cl.send(c.method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
			cl.status(c.method, 502)
			if n := asks.count("body"); n != c.want {
				t.Errorf("asked %d times, want %d", n, c.want)
			}
		})
	}
}

// TestTriesTimeoutCountsTries: the time that the client took over its body is not counted.
func TestTriesTimeoutCountsTries(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.TriesTimeout = 3 * short })
	r.refusing()
	r.backend(mirror)
	c := r.dial()
	for range 2 {
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
		time.Sleep(4 * short)
		c.send("dy")
		c.expect("POST", 200, "POST / body")
	}
}

// TestReplay: the body of a request that is sent again is the same, as far as it was kept; one that was not kept whole
// ends the request.
func TestReplay(t *testing.T) {
	for _, c := range []struct {
		name, framing string
		size          int
		buffered      bool
		status        int
	}{
		{"small", "length", 10, true, 200},
		{"nearly the buffer", "length", requestBuffer - 1, true, 200},
		{"chunked", "chunked", 40_000, true, 200},
		{"more than the buffer", "length", 3 * requestBuffer, true, 502},
		{"more than the buffer, chunked", "chunked", 3 * requestBuffer, true, 502},
		{"unbuffered", "length", 10, false, 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.BufferRequest = c.buffered })
			var first atomic.Bool
			for range 2 {
				r.backend(func(p *peer) {
					for q := p.request(); q != nil; q = p.request() {
						if first.CompareAndSwap(false, true) {
							p.reset()
							return
						}
						p.answer("200 OK", q.body)
					}
				})
			}
			body := strings.Repeat("0123456789abcdef", c.size/16+1)[:c.size]
			cl := r.dial()
			if c.framing == "length" {
				cl.send(fmt.Sprintf("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
			} else {
				cl.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
				_, err := chunks{cl}.Write([]byte(body))
				r.must(err)
				cl.send("0\r\n\r\n")
			}
			if c.status == 200 {
				cl.expect("PUT", 200, body)
			} else {
				cl.status("PUT", c.status)
			}
		})
	}
}

// TestHangingIsTriedElsewhere: proxy-read-timeout is a reason to ask another endpoint if "timeout" is named, and a 504
// when no try is left.
func TestHangingIsTriedElsewhere(t *testing.T) {
	for _, c := range []struct {
		name, method string
		next         NextUpstream
		status       int
	}{
		{"GET", "GET", NextDefault, 200},
		{"POST", "POST", NextDefault, 504},
		{"not named", "GET", NextError, 504},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(r *rig) {
				r.route.Policy.ReadTimeout, r.route.Policy.NextUpstream = 2*short, c.next
			})
			var first atomic.Bool
			for range 2 {
				r.backend(func(p *peer) {
					for q := p.request(); q != nil; q = p.request() {
						if first.CompareAndSwap(false, true) {
							p.gone(patience)
							return
						}
						p.answer("200 OK", "")
					}
				})
			}
			cl := r.dial()
			cl.send(c.method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
			cl.status(c.method, c.status)
		})
	}
}

// TestInvalidHeader: garbage instead of a head is a 502, and another try only where "invalid_header" is named.
func TestInvalidHeader(t *testing.T) {
	for _, c := range []struct {
		name   string
		next   NextUpstream
		status int
	}{{"default", NextDefault, 502}, {"named", NextDefault | NextInvalidHeader, 200}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.NextUpstream = c.next })
			var first atomic.Bool
			for range 2 {
				r.backend(func(p *peer) {
					for p.request() != nil {
						if first.CompareAndSwap(false, true) {
							p.send("HTTP/1.1 what?\r\n\r\n")
							continue
						}
						p.answer("200 OK", "")
					}
				})
			}
			cl := r.dial()
			cl.get("/")
			cl.status("GET", c.status)
		})
	}
}

// TestFallback: the controller's default backend answers where a cluster has no endpoint at all.
func TestFallback(t *testing.T) {
	r := newRig(t)
	r.backend(mirror)
	empty := upstream.NewCluster("shop/none:80", r.env, upstream.Settings{AllowLoopback: true})
	defer empty.Close()
	r.route.Cluster, r.route.Fallback = empty, r.cluster
	c := r.dial()
	c.get("/a")
	c.expect("GET", 200, "GET /a ")
}

// TestDeadEndpoint: one of two endpoints dies under load; no GET fails.
func TestDeadEndpoint(t *testing.T) {
	r := newRig(t)
	dying := r.backend(mirror)
	r.backend(mirror)
	var running sync.WaitGroup
	var failed atomic.Int64
	var done atomic.Int64
	for range 8 {
		c := r.dial()
		running.Add(1)
		go func() {
			defer running.Done()
			for range 100 {
				c.get("/")
				if a := c.response("GET"); a.StatusCode != 200 {
					failed.Add(1)
				}
				if done.Add(1) == 200 {
					go dying.stop()
				}
			}
		}()
	}
	running.Wait()
	if n := failed.Load(); n != 0 {
		t.Errorf("%d of 800 requests failed", n)
	}
}

// TestOverdueFailure: a backend that gives up when the request's time is over, a moment before the proxy's own timer, is a
// timeout as well: 504, and no other endpoint is asked.
func TestOverdueFailure(t *testing.T) {
	var asked *Exchange
	r := newRig(t, func(r *rig) {
		r.route.Policy.Timeout = time.Hour
		r.pick = func(x *Exchange) *Route {
			asked = x
			return r.route
		}
	})
	b := r.backend(func(p *peer) {
		if p.request() != nil {
			r.on(func() { asked.started -= int64(2 * time.Hour) })
			p.reset()
		}
	})
	cl := r.dial()
	cl.get("/")
	cl.status("GET", 504)
	if n := b.accepted.Load(); n != 1 {
		t.Errorf("%d connections to the backend", n)
	}
}

// TestRetriesEndWithTheHead: once an answer stands, its body may last for hours, and the retry that it took is another's.
func TestRetriesEndWithTheHead(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.NextUpstream |= Next503 })
	r.on(func() {
		r.cluster.SetSettings(upstream.Settings{AllowLoopback: true, Breaker: upstream.Breaker{Retries: 1}})
	})
	ended := make(chan struct{})
	end := sync.OnceFunc(func() { close(ended) })
	t.Cleanup(end) // before the rig's, which waits for backends
	var asks asksLog
	for range 2 {
		r.backend(func(p *peer) {
			for p.request() != nil {
				if asks.note(""); asks.count("")%2 == 1 {
					p.answer("503 x", "over")
					continue
				}
				p.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlo")
				<-ended
				p.send("ong")
			}
		})
	}
	var clients []*client
	for range 4 {
		c := r.dial()
		c.get("/")
		if line, err := c.r.Peek(len("HTTP/1.1 200")); err != nil || string(line) != "HTTP/1.1 200" {
			t.Fatalf("%q, %v: what others do is no reason to refuse a retry", line, err)
		}
		clients = append(clients, c)
	}
	end()
	for _, c := range clients {
		c.expect("GET", 200, "loong")
	}
}
