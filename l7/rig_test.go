package l7

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// short is a timeout that a test waits for. The race detector makes everything slower but the clock.
var short = map[bool]time.Duration{false: 150 * time.Millisecond, true: 250 * time.Millisecond}[raceEnabled]

// stall is longer than what loopback sometimes needs to go on: its segments are larger than small windows, and then only
// the kernel's persist timer moves them, after 200 ms and more.
const stall = time.Second

// patience bounds every wait of these tests. It is long, because only a failing test waits that long.
const patience = time.Minute

// far is a timeout that no test waits for, however busy the machine: who wants it to pass sets the loop's time forward.
const far = patience / 6

// rig is a Server on a loop of its own, between clients and backends of the test. When the test ends it checks that a
// following request is answered rightly by the same loop and backends, and that everything that was taken came back.
type rig struct {
	testing.TB
	loops    []*fastpath.Loop
	env      *upstream.Env
	cluster  *upstream.Cluster
	srv      *Server
	settings *Settings
	route    *Route                 // what every request leads to
	pick     func(*Exchange) *Route // in place of route; set before the first connection
	stats    *RouteStats
	door     net.Listener

	ended     bool   // the test has seen to the end itself
	panics    uint64 // that the test has provoked
	backends  []*backend
	dialling  sync.Mutex
	conns     []net.Conn
	addresses []upstream.Address
	probeless bool // no backend of the test's can answer the last request
	files     int  // descriptors at the start; -1: other rigs have some too
	stopped   sync.WaitGroup
}

func newRig(t testing.TB, change ...func(*rig)) *rig {
	t.Helper()
	r := &rig{TB: t, files: -1, settings: DefaultSettings(), stats: NewRouteStats(Identity{}, 1)}
	r.settings.AccessLog = false
	if rigs.Add(1) == 1 {
		r.files = countFiles(t)
	}
	l, err := fastpath.NewLoop(0)
	r.must(err)
	r.loops = []*fastpath.Loop{l}
	r.env = &upstream.Env{Loops: r.loops, Work: fastpath.NewWork(2), Log: slog.New(slog.DiscardHandler)}
	r.cluster = upstream.NewCluster("shop/web:80", r.env, upstream.Settings{AllowLoopback: true})
	r.route = &Route{Cluster: r.cluster, Stats: r.stats, Policy: DefaultPolicy()}
	r.srv = NewServer(r, nil, NewStats(1))
	r.door, err = net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	for _, f := range change {
		f(r)
	}
	poison(l, !raceEnabled) // each byte written costs a look-up there
	r.stopped.Add(1)
	go func() {
		defer r.stopped.Done()
		l.Run()
	}()
	t.Cleanup(r.end)
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// poison has the loop overwrite its shared read buffer after every event, so that a view which is kept too long shows.
func poison(l *fastpath.Loop, on bool) {
	*(*bool)(reflect.ValueOf(l).Elem().FieldByName("poison").Addr().UnsafePointer()) = on
}

// countFiles is how many descriptors the process has open.
func countFiles(t testing.TB) int {
	t.Helper()
	warm.Do(func() { // the runtime's own poller
		if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
			ln.Close()
		}
	})
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

var warm sync.Once

// Route implements Router. Requests for /probe go past filters: they are what follows a scenario.
func (r *rig) Route(x *Exchange) *Route {
	if strings.HasPrefix(string(x.Req.Path), "/probe") {
		return &Route{Cluster: r.cluster, Stats: NewRouteStats(Identity{}, 1), Policy: DefaultPolicy()}
	}
	if r.pick != nil {
		return r.pick(x)
	}
	return r.route
}

// Settings implements Router.
func (r *rig) Settings() *Settings { return r.settings }

// end checks what every scenario has to leave behind.
func (r *rig) end() {
	for _, c := range r.conns {
		c.Close()
	}
	if r.Failed() {
		r.report()
	}
	if !r.ended && !r.Failed() {
		r.settle()
		if !r.probeless {
			r.probe()
		}
		r.settle()
		r.checkPool()
	}
	r.door.Close()
	r.loops[0].Stop()
	r.stopped.Wait()
	r.cluster.Close()
	for _, b := range r.backends {
		b.stop()
	}
	if n := r.loops[0].Stats.Panics.Load(); n != r.panics {
		r.Errorf("%d panics, want %d", n, r.panics)
	}
	if r.files >= 0 && !r.Failed() {
		r.eventually("all descriptors are closed", func() bool { return countFiles(r) <= r.files || rigs.Load() > 1 })
	}
	rigs.Add(-1)
}

// rigs is how many there are now: subtests that mostly wait run side by side.
var rigs atomic.Int32

// settle waits until nothing is under way.
func (r *rig) settle() {
	r.Helper()
	open := func() (n int64) {
		for i := range r.srv.Stats.Loops() {
			n += r.srv.Stats.Loops()[i].Open.Load()
		}
		return n
	}
	r.eventually("no exchange, tunnel, stream or connection is left", func() bool {
		return r.srv.Idle() && open() == 0 && r.cluster.Stats().Active == 0
	})
}

// probe sends a few requests more.
func (r *rig) probe() {
	r.Helper()
	r.on(func() { r.settings = DefaultSettings() })
	c := r.dial()
	for i := range 3 {
		text := fmt.Sprintf("%d-%d", i, time.Now().UnixNano())
		c.send("GET /probe?" + text + " HTTP/1.1\r\nHost: probe.example\r\n\r\n")
		c.expect("GET", 200, "probe "+text)
		c.send(fmt.Sprintf("POST /probe?b HTTP/1.1\r\nHost: probe.example\r\nContent-Length: %d\r\n\r\n%s", len(text), text))
		c.expect("POST", 200, "probe b"+text)
	}
	c.Close()
}

// checkPool looks at the exchanges that wait for their next use: each is there once, and empty.
func (r *rig) checkPool() {
	r.Helper()
	r.on(func() {
		p, ok := r.loops[0].Local[fastpath.LocalExchanges].(*local)
		if !ok {
			return
		}
		seen := map[*Exchange]bool{}
		for _, x := range p.free {
			if seen[x] {
				r.Error("an exchange is twice in the pool")
			}
			seen[x] = true
			if x.client != nil || x.Route != nil || x.fwd.stream != nil || x.fwd.splice.Active() || x.fwd.upload.Active() || x.stage != stageHead || x.ticket != (fastpath.Ticket{}) {
				r.Errorf("an exchange in the pool is not empty: %+v", x)
			}
		}
	})
}

// skip sets the loop's time forward by d, from inside the loop: it is d later from its next turn on.
func (r *rig) skip(d time.Duration) {
	*(*int64)(reflect.ValueOf(r.loops[0]).Elem().FieldByName("skew").Addr().UnsafePointer()) += int64(d)
}

// on runs f on the loop and waits for it.
func (r *rig) on(f func()) {
	r.Helper()
	done := make(chan struct{})
	r.loops[0].Post(func() {
		defer close(done)
		f()
	})
	receive(r, "the loop's turn", done)
}

func (r *rig) eventually(what string, f func() bool) {
	r.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func receive[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
	return v
}

// recorded waits until an exchange with that method and status has been recorded n times.
func (r *rig) recorded(m wire.Method, status int, n uint64) {
	r.Helper()
	r.eventually(fmt.Sprintf("%d times %s → %d in %v", n, m.Name(), status, r.stats.Snapshot().Requests), func() bool {
		return r.stats.Snapshot().Requests[Outcome{m, status}] == n
	})
}

// errors is how many exchanges ended badly by that fault.
func (r *rig) errors(f fastpath.Fault) (n uint64) {
	for k := range kindCount {
		n += r.srv.Stats.Loops()[0].Errors[f][k].Load()
	}
	return n
}

// report logs why exchanges ended badly, for a test that fails.
func (r *rig) report() {
	for f := range faultCount {
		for k := range kindCount {
			if n := r.srv.Stats.Loops()[0].Errors[f][k].Load(); n > 0 {
				r.Logf("%d errors: %v %v", n, fastpath.Fault(f), fastpath.Kind(k))
			}
		}
	}
}

// quietly drops the log of panics that the test provokes.
func (r *rig) quietly(panics uint64) {
	r.panics = panics
	was := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	r.Cleanup(func() { slog.SetDefault(was) })
}

// ---- backends

// backend is a server on loopback whose connections the test leads.
type backend struct {
	net.Listener
	accepted atomic.Int64
	mu       sync.Mutex
	conns    map[net.Conn]bool
	running  sync.WaitGroup
}

// peer is a backend's end of a connection.
type peer struct {
	*net.TCPConn
	r *bufio.Reader
	n int // its number, from 0
}

// backend adds an endpoint whose connections are led by serve.
func (r *rig) backend(serve func(*peer)) *backend {
	r.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	b := &backend{Listener: ln, conns: map[net.Conn]bool{}}
	r.backends = append(r.backends, b)
	b.running.Add(1)
	go func() {
		defer b.running.Done()
		b.run(serve)
	}()
	r.endpoint(ln.Addr().(*net.TCPAddr).AddrPort())
	return b
}

// endpoint adds an address to the cluster.
func (r *rig) endpoint(a netip.AddrPort) {
	r.Helper()
	r.addresses = append(r.addresses, upstream.Address{Addr: a})
	if refused := r.cluster.Apply(r.addresses); len(refused) > 0 {
		r.Fatal(refused)
	}
}

// refusing adds an address where nobody listens. A socket holds the port, so that nobody else begins to.
func (r *rig) refusing() {
	r.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	r.must(err)
	r.files++
	r.Cleanup(func() { _ = unix.Close(fd) })
	r.must(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, err := unix.Getsockname(fd)
	r.must(err)
	r.endpoint(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(at.(*unix.SockaddrInet4).Port)))
}

func (b *backend) run(serve func(*peer)) {
	for {
		c, err := b.Accept()
		if errors.Is(err, unix.EMFILE) { // a test has taken the descriptors away
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return
		}
		b.mu.Lock()
		b.conns[c] = true
		b.mu.Unlock()
		p := &peer{TCPConn: c.(*net.TCPConn), r: bufio.NewReader(c), n: int(b.accepted.Add(1)) - 1}
		b.running.Add(1)
		go func() {
			defer b.running.Done()
			defer b.drop(c)
			serve(p)
		}()
	}
}

func (b *backend) drop(c net.Conn) {
	c.Close()
	b.mu.Lock()
	delete(b.conns, c)
	b.mu.Unlock()
}

func (b *backend) stop() {
	b.Close()
	b.mu.Lock()
	for c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.running.Wait()
}

// asked is a request as a backend received it.
type asked struct {
	*http.Request
	body string
}

// head reads one request's head; probes are answered on the way. nil: the connection ended, or what came is no request.
func (p *peer) head() *http.Request {
	for {
		q, err := http.ReadRequest(p.r)
		if err != nil {
			return nil
		}
		if q.URL.Path != "/probe" {
			return q
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return nil
		}
		p.answer("200 OK", "probe "+q.URL.RawQuery+string(body))
	}
}

// request reads one request with its body.
func (p *peer) request() *asked {
	q := p.head()
	if q == nil {
		return nil
	}
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil
	}
	return &asked{q, string(body)}
}

func (p *peer) send(s string) { _, _ = io.WriteString(p, s) }

// answer sends a whole response of known length.
func (p *peer) answer(status, body string) {
	p.send(fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body))
}

// reset closes so that the other side sees RST.
func (p *peer) reset() {
	_ = p.SetLinger(0)
	p.Close()
}

// silent says bytes and then nothing more, and lets the time that the proxy has for it pass: more than far, again and
// again, until it gives the connection up.
func (r *rig) silent(bytes string) func(*peer) {
	return func(p *peer) {
		for p.send(bytes); !p.gone(20 * time.Millisecond); {
			r.loops[0].Post(func() { r.skip(far + far/10) })
		}
	}
}

// gone waits until the proxy has closed the connection; false: it did not within d.
func (p *peer) gone(d time.Duration) bool {
	_ = p.SetReadDeadline(time.Now().Add(d))
	_, err := io.Copy(io.Discard, p.r)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return false
	}
	return true
}

// answering is a serve that answers every request with the same bytes.
func answering(answer string) func(*peer) {
	return func(p *peer) {
		for p.request() != nil {
			p.send(answer)
		}
	}
}

// mirror answers with what it got: method, target and body.
func mirror(p *peer) {
	for q := p.request(); q != nil; q = p.request() {
		p.answer("200 OK", q.Method+" "+q.RequestURI+" "+q.body)
	}
}

// ---- clients

// client is a raw client connection.
type client struct {
	*net.TCPConn
	r *bufio.Reader
	t testing.TB
}

// dial connects a client.
func (r *rig) dial() *client {
	r.Helper()
	return r.dialAs(&Accepted{Local: netip.MustParseAddrPort("192.0.2.1:80")})
}

func (r *rig) dialAs(a *Accepted) *client {
	r.Helper()
	return r.connect(func(c *fastpath.Conn) { r.srv.ServeHTTP1(c, a) })
}

// connect makes a TCP connection; serve is given its other end, on the loop.
func (r *rig) connect(serve func(*fastpath.Conn)) *client {
	r.Helper()
	r.dialling.Lock()
	defer r.dialling.Unlock()
	c, err := net.Dial("tcp", r.door.Addr().String())
	r.must(err)
	r.conns = append(r.conns, c)
	_ = c.SetDeadline(time.Now().Add(patience))
	a, err := r.door.Accept()
	r.must(err)
	fd := descriptor(r, a.(*net.TCPConn))
	remote := a.RemoteAddr().(*net.TCPAddr).AddrPort()
	r.loops[0].Post(func() {
		if conn, err := r.loops[0].Adopt(fd, remote, nil); err == nil {
			serve(conn)
		}
	})
	return &client{TCPConn: c.(*net.TCPConn), r: bufio.NewReader(c), t: r}
}

// descriptor takes the non-blocking descriptor out of c.
func descriptor(t testing.TB, c *net.TCPConn) (fd int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	c.Close()
	return fd
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatalf("sending %.80q: %v", s, err)
	}
}

// get sends a usual request.
func (c *client) get(target string) {
	c.t.Helper()
	c.send("GET " + target + " HTTP/1.1\r\nHost: shop.example\r\n\r\n")
}

// post sends one with a body of known length.
func (c *client) post(target, body string) {
	c.t.Helper()
	c.send(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: shop.example\r\nContent-Length: %d\r\n\r\n%s", target, len(body), body))
}

// answered is a response as a client received it.
type answered struct {
	*http.Response
	body string
	err  error // of the body
}

// response reads the next response, interim ones too.
func (c *client) response(method string) *answered {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("no response to %s: %v", method, err)
	}
	a := &answered{Response: res}
	if res.StatusCode >= 200 {
		var b []byte
		b, a.err = io.ReadAll(res.Body)
		a.body = string(b)
	}
	return a
}

// expect reads a response and compares.
func (c *client) expect(method string, status int, body string) *answered {
	c.t.Helper()
	a := c.response(method)
	if a.StatusCode != status || a.body != body || a.err != nil {
		c.t.Fatalf("response %d %.200q (%v), want %d %.200q", a.StatusCode, a.body, a.err, status, body)
	}
	return a
}

// status reads a response and compares its status; the body is the proxy's own.
func (c *client) status(method string, status int) *answered {
	c.t.Helper()
	a := c.response(method)
	if a.StatusCode != status || a.err != nil {
		c.t.Fatalf("response %d %.200q (%v), want status %d", a.StatusCode, a.body, a.err, status)
	}
	return a
}

// ends wants the proxy to close the connection in order, with nothing more on it.
func (c *client) ends() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Fatalf("the connection went on with %.200q, %v; want its end", rest, err)
	}
}

// cut wants the connection to be reset, and gives what came before.
func (c *client) cut() string {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if err == nil || !strings.Contains(err.Error(), "reset") {
		c.t.Fatalf("after %d bytes the connection ended with %v, want a reset", len(rest), err)
	}
	return string(rest)
}

// reset closes so that the proxy sees RST.
func (c *client) reset() {
	_ = c.SetLinger(0)
	c.Close()
}
