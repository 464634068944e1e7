package sni

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// patience bounds every wait of these tests; only a failing one waits so long.
const patience = 10 * time.Second

// short is how long a test waits for what must not come.
const short = 150 * time.Millisecond

// house is a door with loops and engines behind it, and no routes: every request is answered 404.
type house struct {
	testing.TB
	door    *Door
	address string
	limits  atomic.Pointer[Limits]
	proxied atomic.Bool
}

// open makes a house; change may alter the default limits.
func open(t testing.TB, speaksTLS bool, change func(*Limits)) *house {
	t.Helper()
	h := &house{TB: t}
	h.change(change)
	config := DoorConfig{Store: route.NewStore(), Work: fastpath.NewWork(2), TLS: speaksTLS, Limits: h.limits.Load, Proxy: h.policy}
	var running sync.WaitGroup
	for id := range 2 {
		l, err := fastpath.NewLoop(id)
		h.must(err)
		config.Loops = append(config.Loops, l)
		running.Go(l.Run)
	}
	config.HTTP = l7.NewServer(config.Store, nil, l7.NewStats(2))
	h.door = NewDoor(config)
	h.serve(&route.Config{})
	at, err := h.door.Listen(listen.Options{Address: "127.0.0.1:0"})
	h.must(err)
	h.address = at.String()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		h.must(h.door.Close(ctx))
		h.eventually("everything that was counted is gone", func() bool {
			return h.door.Census.Connections() == 0 && h.door.Census.handshakes.all.Load() == 0 && h.open() == 0
		})
		for i := range tallyShards {
			if n := len(h.door.Census.connections.shards[i].by) + len(h.door.Census.handshakes.shards[i].by); n > 0 {
				t.Errorf("%d sources are kept without a connection", n)
			}
		}
		for _, l := range config.Loops {
			l.Stop()
		}
		running.Wait()
	})
	return h
}

// serve puts a configuration in place.
func (h *house) serve(c *route.Config) {
	h.Helper()
	backends := &upstream.Env{Loops: h.door.Loops, Work: h.door.Work}
	next, problems := route.Compile(c, h.door.Store.Load(), route.Env{Loops: len(h.door.Loops), SelfSigned: selfSigned(h),
		NewCluster: func(id string, s upstream.Settings) *upstream.Cluster { return upstream.NewCluster(id, backends, s) }})
	if len(problems) > 0 {
		h.Fatal(problems)
	}
	h.door.Store.Swap(next)
}

func (h *house) change(f func(*Limits)) {
	l := DefaultLimits()
	f(l)
	h.limits.Store(l)
}

func (h *house) policy() *ProxyPolicy {
	if h.proxied.Load() {
		return &ProxyPolicy{}
	}
	return nil
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) eventually(what string, f func() bool) {
	h.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// open is how many connections the loops have.
func (h *house) open() (n int64) {
	for _, l := range h.door.Loops {
		n += l.Stats.Conns.Load() + l.Stats.Pending.Load()
	}
	return n
}

// begin opens n connections that are within a request's head, and returns once the loops have read it: until then they are
// idle, and may be closed to make room.
func (h *house) begin(n int) []*guestConn {
	h.Helper()
	var all []*guestConn
	for range n {
		c := h.dial("127.0.0.1")
		c.send(begun)
		all = append(all, c)
	}
	h.eventually("all are open", func() bool { return h.open() == int64(n) })
	for range 2 { // what has come before a turn is read by the end of the next
		for _, l := range h.door.Loops {
			turn := make(chan struct{})
			l.Post(func() { close(turn) })
			<-turn
		}
	}
	return all
}

// shed is how many idle connections were closed to make room.
func (h *house) shed() (n uint64) {
	for i := range h.door.HTTP.Stats.Loops() {
		n += h.door.HTTP.Stats.Loops()[i].Shed.Load()
	}
	return n
}

// selfSigned is a certificate for shop.example.com.
func selfSigned(t testing.TB) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"shop.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// guestConn is a client of the door.
type guestConn struct {
	*house
	net.Conn
	r *bufio.Reader
}

// dial connects from an address of the loopback network.
func (h *house) dial(from string) *guestConn {
	h.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), Timeout: patience}
	c, err := d.Dial("tcp", h.address)
	h.must(err)
	h.Cleanup(func() { _ = c.Close() })
	return &guestConn{h, c, bufio.NewReader(c)}
}

func (g *guestConn) send(text string) {
	g.Helper()
	_ = g.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(g.Conn, text); err != nil {
		g.Fatal(err)
	}
}

const (
	request = "GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"
	begun   = "GET / HTTP/1.1\r\nHost: shop"
)

// ask sends a request and reads its answer.
func (g *guestConn) ask() {
	g.Helper()
	g.send(request)
	g.answered()
}

func (g *guestConn) answered() {
	g.Helper()
	res, err := http.ReadResponse(g.r, nil)
	if err != nil {
		g.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusNotFound {
		g.Fatalf("status %d, %v", res.StatusCode, err)
	}
}

// closed waits for the proxy's end of the connection; d: until when it must have come.
func (g *guestConn) closed(d time.Duration) {
	g.Helper()
	_ = g.SetReadDeadline(time.Now().Add(d))
	if _, err := io.Copy(io.Discard, g.r); errors.Is(err, os.ErrDeadlineExceeded) {
		g.Fatalf("not closed within %v", d)
	}
}

// silent tells that nothing comes for a while.
func (g *guestConn) silent() {
	g.Helper()
	_ = g.SetReadDeadline(time.Now().Add(short))
	if b, err := g.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		g.Fatalf("got %q, %v", b, err)
	}
}

// TestIdleConnectionsMakeRoom: near the limit idle connections are closed for new ones, and all of those are served.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	cases := map[string]func(*Limits){
		"configured":          func(l *Limits) { l.ConnectionsMax, l.ConnectionsSourceMax = 10, 1000 },
		"from the open files": func(l *Limits) { l.OpenFilesMax, l.ConnectionsSourceMax = 12, 1000 },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			h := open(t, false, change)
			for range 60 {
				h.dial("127.0.0.1").ask()
				if n := h.open(); n > 10 {
					t.Fatalf("%d connections are open", n)
				}
			}
			if n := h.shed(); n < 45 || n > 60 {
				t.Errorf("%d idle connections were closed", n)
			}
		})
	}
}

// TestBusyConnectionsKeepOthersOut: who is being served is not closed; new connections wait in the kernel's queue.
func TestBusyConnectionsKeepOthersOut(t *testing.T) {
	const most = 5
	h := open(t, false, func(l *Limits) { l.ConnectionsMax, l.ConnectionsSourceMax = most, 1000 })
	busy := h.begin(most)
	late := h.dial("127.0.0.1")
	late.send(request)
	late.silent()
	if h.door.Stats.Full.Load() == 0 || h.shed() > 0 || h.open() != most {
		t.Errorf("accepting paused %d times, %d were closed, %d are open", h.door.Stats.Full.Load(), h.shed(), h.open())
	}
	busy[0].Close()
	_ = late.SetDeadline(time.Now().Add(patience))
	late.answered()
	for _, c := range busy[1:] {
		c.send(".example.com\r\n\r\n")
		c.answered()
	}
}

// TestConnectionsOfASource: one source cannot have all connections, and others are not touched by its attempts.
func TestConnectionsOfASource(t *testing.T) {
	cases := map[string]func(*Limits){
		"configured":             func(l *Limits) { l.ConnectionsSourceMax = 3 },
		"half of all":            func(l *Limits) { l.ConnectionsMax = 7 },
		"half of the open files": func(l *Limits) { l.OpenFilesMax = 7 },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			h := open(t, false, change)
			first := h.begin(3)[0]
			h.dial("127.0.0.1").closed(patience)
			h.dial("127.0.0.2").ask()
			if n := h.door.Stats.SourceFull.Load(); n != 1 {
				t.Errorf("%d were closed for their source", n)
			}
			first.Close()
			h.eventually("a place is free", func() bool { return h.open() <= 3 })
			h.dial("127.0.0.1").ask()
		})
	}
}

// TestSourceBehindABalancer: with the PROXY protocol the source is the one that the header names.
func TestSourceBehindABalancer(t *testing.T) {
	h := open(t, false, func(l *Limits) { l.ConnectionsSourceMax = 2 })
	h.proxied.Store(true)
	header := func(source string) string { return "PROXY TCP4 " + source + " 127.0.0.1 4711 80\r\n" }
	for range 5 {
		h.dial("127.0.0.1") // and says nothing yet
	}
	for range 2 {
		c := h.dial("127.0.0.1")
		c.send(header("192.0.2.1") + request)
		c.answered()
	}
	full := h.dial("127.0.0.1")
	full.send(header("192.0.2.1"))
	full.closed(patience)
	other := h.dial("127.0.0.1")
	other.send(header("192.0.2.2") + request)
	other.answered()
	local := h.dial("127.0.0.1")
	local.send("PROXY UNKNOWN\r\n" + request) // the balancer's own
	local.answered()
	if n := h.door.Stats.SourceFull.Load(); n != 1 {
		t.Errorf("%d were closed for their source", n)
	}
}

func TestSourceOf(t *testing.T) {
	for _, c := range []struct{ a, want string }{
		{"192.0.2.1", "192.0.2.1"}, {"::ffff:192.0.2.1", "192.0.2.1"}, {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"2001:db8:1:2::", "2001:db8:1:2::"}, {"fe80::1%lo", "fe80::"}, {"::1", "::"},
	} {
		if got := sourceOf(netip.MustParseAddr(c.a)); got.String() != c.want {
			t.Errorf("%s belongs to %s, want %s", c.a, got, c.want)
		}
	}
	if got := sourceOf(netip.Addr{}); got.IsValid() {
		t.Errorf("no address belongs to %s", got)
	}
}

// TestHandshakesOfASource: once half of all handshakes are taken, a source has a quarter; all together have no more than
// there are, and an end of any kind makes room again.
func TestHandshakesOfASource(t *testing.T) {
	h := open(t, true, func(l *Limits) { l.HandshakesMax = 8 })
	hello := string(shopHello11(t))
	var stalled []*guestConn
	begin := func(from string, n int) {
		t.Helper()
		for range n {
			c := h.dial(from)
			c.send(hello)
			stalled = append(stalled, c)
		}
		h.eventually("they begin", func() bool { return h.door.Stats.Handshakes.Load() == uint64(len(stalled)) })
	}
	refused := func(from string) {
		t.Helper()
		c := h.dial(from)
		c.send(hello)
		c.closed(patience)
	}
	begin("127.0.0.1", 4) // half of all, while nobody else wants any
	refused("127.0.0.1")
	begin("127.0.0.2", 2)
	refused("127.0.0.2")
	begin("127.0.0.3", 2)
	refused("127.0.0.4") // none is left
	if n := h.door.Stats.Overload.Load(); n != 3 {
		t.Errorf("%d handshakes were refused, want 3", n)
	}
	for _, c := range stalled[:3] {
		c.Close()
	}
	h.eventually("they end", func() bool { return h.door.Census.handshakes.all.Load() == 5 })
	for range 12 { // one after the other
		c := tls.Client(h.dial("127.0.0.1").Conn, shopClient())
		h.must(c.Handshake())
		defer c.Close()
		h.eventually("only the stalled ones are under way", func() bool { return h.door.Census.handshakes.all.Load() == 5 })
	}
}

func shopClient() *tls.Config {
	return &tls.Config{ServerName: "shop.example.com", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
}

func shopHello11(t testing.TB) []byte { return realHello(t, shopClient()) }

// TestLimitsHold: every configured limit has its effect, and whoever passes it is closed.
func TestLimitsHold(t *testing.T) {
	hello := string(shopHello11(t))
	header := func(b []byte) string {
		return string(version2(proxyV2CommandProxy, proxyV2TCP4, addresses("192.0.2.1:1", "192.0.2.2:2"), b))
	}
	cases := []struct {
		name    string
		change  func(*Limits)
		proxied bool
		sends   string
		survive string // what goes well under the same limits; "": nothing is tried
	}{
		{"hello in time", func(l *Limits) { l.HelloTimeout = short }, false, hello[:50], hello},
		{"hello's size", func(l *Limits) { l.HelloBytesMax = len(hello) - 1 }, false, hello, ""},
		{"hello's size, in pieces", func(l *Limits) { l.HelloBytesMax = len(hello) - 1 }, false, hello[:200], ""},
		{"hello of just that size", func(l *Limits) { l.HelloBytesMax, l.HandshakeTimeout = len(hello), short }, false, "", hello},
		{"handshake in time", func(l *Limits) { l.HandshakeTimeout = short }, false, hello, ""},
		{"header in time", func(l *Limits) { l.ProxyHeaderTimeout = short }, true, "PROXY TCP4 ", header(nil) + hello},
		{"header's size", func(l *Limits) { l.ProxyHeaderBytesMax = 100 }, true, header(typed(4, make([]byte, 100))), header(nil) + hello},
		{"a larger header", func(l *Limits) { l.ProxyHeaderBytesMax = 10_000 }, true, "", header(typed(4, make([]byte, 9000))) + hello},
	}
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			h := open(t, true, k.change)
			h.proxied.Store(k.proxied)
			if k.sends != "" {
				c := h.dial("127.0.0.1")
				c.send(k.sends)
				c.closed(2 * time.Second) // the defaults are longer
				if n := h.door.Stats.Refused.Load(); n != 1 {
					t.Errorf("%d connections were refused, want 1", n)
				}
			}
			if k.survive != "" {
				c := h.dial("127.0.0.1")
				c.send(k.survive)
				if b, err := c.r.ReadByte(); err != nil || b != recordHandshake {
					t.Errorf("the server's flight begins with %d, %v", b, err)
				}
			}
		})
	}
}

// TestVersionsChange: ssl-protocols holds for the next connection, and sessions live on where their version does.
func TestVersionsChange(t *testing.T) {
	h := open(t, true, func(*Limits) {})
	client := shopClient()
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	shake := func() (tls.ConnectionState, error) {
		c := tls.Client(h.dial("127.0.0.1").Conn, client)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if err := c.Handshake(); err != nil {
			return tls.ConnectionState{}, err
		}
		if _, err := io.WriteString(c, strings.Replace(request, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)); err != nil {
			return tls.ConnectionState{}, err
		}
		_, err := io.ReadAll(c) // a ticket comes with the answer
		return c.ConnectionState(), err
	}
	for _, step := range []struct {
		low, high, want uint16
		resumed         bool
	}{
		{tls.VersionTLS12, tls.VersionTLS13, tls.VersionTLS13, false},
		{tls.VersionTLS13, tls.VersionTLS13, tls.VersionTLS13, true},
		{tls.VersionTLS12, tls.VersionTLS12, tls.VersionTLS12, false},
	} {
		h.change(func(l *Limits) { l.TLSMin, l.TLSMax = step.low, step.high })
		state, err := shake()
		h.must(err)
		if state.Version != step.want || state.DidResume != step.resumed {
			t.Errorf("%s, resumed %v; want %+v", tls.VersionName(state.Version), state.DidResume, step)
		}
	}
	h.change(func(l *Limits) { l.TLSMin = tls.VersionTLS13 })
	client.MaxVersion = tls.VersionTLS12
	if _, err := shake(); err == nil {
		t.Error("TLS 1.2 was spoken although only TLS 1.3 is allowed")
	}
}
