package l7

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

const (
	webSocket = "GET /ws HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)

// echoing is a backend that upgrades who asks, says hello in the same segment as its 101, and then echoes.
func echoing(p *peer) {
	for q := p.request(); q != nil; q = p.request() {
		if q.Header.Get("Upgrade") == "" {
			p.answer("200 OK", q.RequestURI)
			continue
		}
		p.send(switching + "hello ")
		p.echo()
		_ = p.CloseWrite()
		return
	}
}

// echo sends everything back, to the client's end. The library must not splice: its pipes stay open until garbage is collected,
// and descriptors are counted.
func (p *peer) echo() {
	_, _ = io.Copy(struct{ io.Writer }{p}, struct{ io.Reader }{p.r})
}

// upgraded reads a 101 and gives what follows it.
func (c *client) upgraded() {
	c.t.Helper()
	if a := c.status("GET", 101); a.Header.Get("Upgrade") != "websocket" || a.Header.Get("Connection") != "Upgrade" || a.Header.Get("Sec-Websocket-Accept") == "" {
		c.t.Errorf("101 with %v", a.Header)
	}
}

// wants reads exactly s.
func (c *client) wants(s string) {
	c.t.Helper()
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c.r, b); err != nil || string(b) != s {
		c.t.Fatalf("%.100q, %v; want %.100q", b, err, s)
	}
}

// TestUpgrade: after a 101 bytes go both ways, also those that either side sent along with its head.
func TestUpgrade(t *testing.T) {
	for name, dial := range map[string]func(*rig) (*client, func(string)){
		"plain": func(r *rig) (*client, func(string)) { c := r.dial(); return c, c.send },
		"TLS":   func(r *rig) (*client, func(string)) { c := r.dialTLS(); return &c.client, c.send },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.backend(echoing)
			c, send := dial(r)
			send("GET /before HTTP/1.1\r\nHost: shop.example\r\n\r\n")
			c.expect("GET", 200, "/before")
			send(webSocket + "early ")
			c.upgraded()
			c.wants("hello early ")
			for i := range 20 {
				word := strings.Repeat(fmt.Sprint(i), 1+i*1000)
				send(word)
				c.wants(word)
			}
			if n, active := r.srv.Stats.Tunnels(), r.srv.Stats.Active(); n != 1 || active != 1 || r.srv.Idle() {
				t.Errorf("%d tunnels, %d exchanges", n, active)
			}
			c.reset()
			r.recorded(wire.MethodGet, 101, 1)
			s := &r.srv.Stats.Loops()[0]
			if up, down, n := s.TunnelBytesUp.Load(), s.TunnelBytesDown.Load(), s.Upgraded.Load(); up < 190_000 || down < 190_000 || n != 1 {
				t.Errorf("counted %d bytes up, %d down, %d tunnels", up, down, n)
			}
		})
	}
}

// TestUpgradeBulk: a tunnel carries as much as it is given, and both half-closes.
func TestUpgradeBulk(t *testing.T) {
	r := newRig(t)
	r.backend(echoing)
	c := r.dial()
	c.send(webSocket)
	c.upgraded()
	c.wants("hello ")
	go func() {
		_, _ = io.Copy(c, newNoise(bigBytes))
		_ = c.CloseWrite()
	}()
	if sum, n, err := digest(c.r); sum != noiseSum(bigBytes) || err != nil {
		t.Errorf("%d bytes came back, %v", n, err)
	}
	r.recorded(wire.MethodGet, 101, 1)
}

// TestUpgradeRefused: any answer but a 101 is an answer like any other, and the client goes on.
func TestUpgradeRefused(t *testing.T) {
	for _, status := range []string{"200 OK", "400 Bad Request", "403 Forbidden", "426 Upgrade Required", "503 Service Unavailable"} {
		t.Run(status, func(t *testing.T) {
			r := newRig(t)
			b := r.backend(func(p *peer) {
				for q := p.request(); q != nil; q = p.request() {
					if q.Header.Get("Upgrade") != "" {
						p.answer(status, "no")
					} else {
						p.answer("200 OK", "yes")
					}
				}
			})
			c := r.dial()
			for range 2 {
				c.send(webSocket)
				if a := c.response("GET"); a.Status != status || a.body != "no" || a.Close {
					t.Errorf("%s %q, close %v", a.Status, a.body, a.Close)
				}
				c.get("/")
				c.expect("GET", 200, "yes")
			}
			if r.srv.Stats.Loops()[0].Upgraded.Load() != 0 || b.accepted.Load() < 2 {
				t.Error("a tunnel was begun, or the refusing connection used again")
			}
		})
	}
}

// TestUpgradeWrong: a 101 that nobody can have asked for is a backend's fault.
func TestUpgradeWrong(t *testing.T) {
	for name, c := range map[string]struct{ send, answer string }{
		"another protocol": {webSocket, strings.Replace(switching, "websocket", "h2c", 1)},
		"no protocol":      {webSocket, "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
		"not asked":        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", switching},
		"HTTP/1.0":         {strings.Replace(webSocket, "HTTP/1.1", "HTTP/1.0", 1), switching},
		"within the body":  {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 10\r\n\r\nhalf", switching},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.backend(func(p *peer) {
				if p.n > 0 {
					mirror(p)
					return
				}
				if _, err := http.ReadRequest(p.r); err == nil {
					p.send(c.answer + "smuggled")
					p.gone(patience)
				}
			})
			cl := r.dial()
			cl.send(c.send)
			cl.status("GET", 502)
			if r.srv.Stats.Loops()[0].Upgraded.Load() != 0 {
				t.Error("a tunnel was begun")
			}
		})
	}
}

// TestTunnelIdle: a silent tunnel is closed; one in use is not.
func TestTunnelIdle(t *testing.T) {
	r := newRig(t, func(r *rig) { r.settings.TunnelIdle = 4 * short })
	r.backend(echoing)
	c := r.dial()
	c.send(webSocket)
	c.upgraded()
	c.wants("hello ")
	for range 6 {
		time.Sleep(short)
		c.send("x")
		c.wants("x")
	}
	began := time.Now()
	_, _ = io.Copy(io.Discard, c.r)
	if took := time.Since(began); took < 2*short || took > 30*short {
		t.Errorf("closed after %v of silence, the limit is %v", took, 4*short)
	}
	r.recorded(wire.MethodGet, 101, 1)
}

// TestTunnelEnds: the end of one side is the end of the other.
func TestTunnelEnds(t *testing.T) {
	for name, end := range map[string]func(*peer){"end": func(p *peer) { p.Close() }, "reset": (*peer).reset} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.backend(once(func(p *peer) {
				p.send(switching)
				_, _ = p.r.ReadByte()
				end(p)
			}))
			c := r.dial()
			c.send(webSocket)
			c.upgraded()
			c.send("x")
			if name == "reset" {
				c.cut()
			} else {
				c.ends()
				c.Close()
			}
			r.recorded(wire.MethodGet, 101, 1)
		})
	}
}

// TestTunnelsCountForBalancing: a backend that holds a tunnel is not the least used one.
func TestTunnelsCountForBalancing(t *testing.T) {
	r := newRig(t)
	r.cluster.SetSettings(upstream.Settings{AllowLoopback: true, Algorithm: upstream.LeastConnections})
	var asks [2]asksLog
	for i := range asks {
		r.backend(func(p *peer) {
			for q := p.request(); q != nil; q = p.request() {
				if q.Header.Get("Upgrade") != "" {
					asks[i].note("tunnel")
					p.send(switching)
					_, _ = io.Copy(io.Discard, p.r)
					return
				}
				asks[i].note("request")
				p.answer("200 OK", "")
			}
		})
	}
	ws := r.dial()
	ws.send(webSocket)
	ws.upgraded()
	c := r.dial()
	for range 8 {
		c.get("/")
		c.expect("GET", 200, "")
	}
	for i := range asks {
		if asks[i].count("tunnel") == 1 && asks[i].count("request") > 0 {
			t.Errorf("the endpoint with the tunnel got %d of 8 requests", asks[i].count("request"))
		}
	}
	ws.Close()
	r.recorded(wire.MethodGet, 101, 1)
	for range 8 {
		c.get("/")
		c.expect("GET", 200, "")
	}
	if a, b := asks[0].count("request"), asks[1].count("request"); a < 3 || b < 3 {
		t.Errorf("%d and %d requests: the tunnel still counts", a, b)
	}
}

// TestUpgradeReadsAhead: more than one read's worth stands behind both heads before the tunnel is there.
func TestUpgradeReadsAhead(t *testing.T) {
	r := newRig(t)
	down := bytes.Repeat([]byte("down"), 30_000)
	up := bytes.Repeat([]byte("up"), 60_000)
	got := make(chan bool, 1)
	r.backend(once(func(p *peer) {
		p.send(switching + string(down))
		b := make([]byte, len(up))
		_, err := io.ReadFull(p.r, b)
		got <- err == nil && bytes.Equal(b, up)
		p.gone(patience)
	}))
	c := r.dial()
	c.r = bufio.NewReaderSize(c, 200_000)
	go func() { _, _ = io.WriteString(c, webSocket+string(up)) }()
	c.upgraded()
	c.wants(string(down))
	if !receive(t, "what the client sent", got) {
		t.Error("the backend got something else")
	}
}
