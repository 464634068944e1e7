package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file are about TLS that does not end at the proxy: it reads the server name, and passes everything on.

// rawBackend leads every TCP connection by a function of the test.
type rawBackend struct{ net.Listener }

func newRawBackend(t testing.TB, lead func(c *net.TCPConn)) *rawBackend {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(callTimeout))
				lead(c.(*net.TCPConn))
			}()
		}
	}()
	return &rawBackend{ln}
}

func (b *rawBackend) port() int { return b.Addr().(*net.TCPAddr).Port }

// passSite is a host that is passed through.
func passSite(name, host string, ports ...int) string {
	return site{name: name, host: host, ports: ports, annotations: map[string]string{"ssl-passthrough": "true"}}.yaml()
}

// TestPassThrough has hosts that are passed through and hosts that are not on one port, and looks whose certificate is
// shown.
func TestPassThrough(t *testing.T) {
	own := issue(t, "pass.example", "*.apps.example", "under.example")
	secured, plain := newBackend(t, "secured", own), newBackend(t, "plain", nil)
	p := startProxy(t, passSite("pass", "pass.example", secured.port())+passSite("apps", "*.apps.example", secured.port())+
		site{name: "under", host: "under.example", ports: []int{plain.port()}, secret: "under"}.yaml()+secretOf(t, "under", issue(t, "under.example")))
	var group sync.WaitGroup
	for i := range 60 {
		host, want := "pass.example", "secured"
		switch i % 3 {
		case 1:
			host = "green.apps.example"
		case 2:
			host, want = "under.example", "plain"
		}
		group.Go(func() {
			c := &caller{address: p.HTTPS, tls: trusting(t, host)}
			defer c.hangUp()
			for range 5 {
				a, err := c.call(request(host, "/"))
				if err != nil {
					t.Error(err)
					return
				}
				if line, _, _ := strings.Cut(a.body, "\n"); line != want {
					t.Errorf("%s: %s answered", host, line)
				}
				if forwarded := strings.Contains(a.body, "X-Forwarded-For"); forwarded != (want == "plain") {
					t.Errorf("%s: the backend got\n%s", host, a.body)
				}
			}
			if shown := c.conn.(*tls.Conn).ConnectionState().PeerCertificates[0]; shown.Equal(own.certificate) != (want == "secured") {
				t.Errorf("%s is shown the certificate of %s", host, shown.Subject)
			}
		})
	}
	group.Wait()
	within(t, callTimeout, "the tunnels' end", func() bool { return p.passing() == 0 })
	if n := p.door("https").Stats.Passed.Load(); n != 40 {
		t.Errorf("%d connections were passed through, want 40", n)
	}
}

func (p *testProxy) door(name string) *door {
	for _, d := range p.doors {
		if d.name == name {
			return d
		}
	}
	p.t.Fatalf("there is no door %s", name)
	return nil
}

// TestPassThroughUntouched compares what the backend gets with what the client sent, byte for byte, in every shape that
// a hello can have on its way.
func TestPassThroughUntouched(t *testing.T) {
	got := make(chan []byte, 100)
	b := newRawBackend(t, func(c *net.TCPConn) {
		all, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		got <- all
		fmt.Fprintf(c, "%d bytes", len(all))
	})
	p := startProxy(t, passSite("pass", "pass.example", b.port()))
	for name, shape := range helloShapes {
		for _, server := range []string{"pass.example", "PASS.Example", "pass.exampleX"} {
			for _, protos := range [][]string{nil, largeProtos(3 << 10), largeProtos(50 << 10)} {
				if len(protos) > 100 && name != "as it is" && name != "in records of 100 bytes" {
					continue
				}
				hello := helloOf(t, &tls.Config{ServerName: server, NextProtos: protos, InsecureSkipVerify: true})
				hello = bytes.ReplaceAll(hello, []byte("pass.exampleX"), []byte("pass.example."))
				conn, err := net.Dial("tcp", p.HTTPS)
				if err != nil {
					t.Fatal(err)
				}
				var sent bytes.Buffer
				shaped := shape(&teeConn{conn, &sent})
				for _, part := range [][]byte{hello, []byte("and what follows, which is no TLS")} {
					if _, err := shaped.Write(part); err != nil {
						t.Fatal(err)
					}
				}
				_ = conn.(*net.TCPConn).CloseWrite()
				answer, err := ended(conn)
				if all := <-got; !bytes.Equal(all, sent.Bytes()) || err != nil || answer != fmt.Sprintf("%d bytes", len(all)) {
					t.Errorf("%s, %s, hello of %d bytes: %d bytes were sent, %d came, they differ or %v", name, server, len(hello), sent.Len(), len(all), err)
				}
				_ = conn.Close()
			}
		}
	}
}

// teeConn keeps what is written.
type teeConn struct {
	net.Conn
	sent *bytes.Buffer
}

func (c *teeConn) Write(b []byte) (int, error) {
	c.sent.Write(b)
	return c.Conn.Write(b)
}

// dialPass opens a connection that is passed through: its hello is on its way.
func dialPass(t testing.TB, p *testProxy) (*net.TCPConn, []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", p.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(callTimeout))
	hello := helloOf(t, &tls.Config{ServerName: "pass.example"})
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), hello
}

// TestPassThroughHalfClose ends one direction, in either order, while bytes still flow in the other.
func TestPassThroughHalfClose(t *testing.T) {
	rest := make(chan string, 1)
	b := newRawBackend(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "first")
		_ = c.CloseWrite()
		all, err := io.ReadAll(c)
		rest <- fmt.Sprintf("%s, %v", all, err)
	})
	p := startProxy(t, passSite("pass", "pass.example", b.port()))
	conn, hello := dialPass(t, p)
	if got, err := ended(conn); got != "first" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	for range 3 { // the other direction goes on
		time.Sleep(20 * time.Millisecond)
		if _, err := io.WriteString(conn, "more"); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.CloseWrite()
	if got := <-rest; got != string(hello)+"moremoremore, <nil>" {
		t.Errorf("the backend got %.100q after its own end", got)
	}
	within(t, time.Second, "the tunnel's end", func() bool { return p.passing() == 0 })
}

// TestPassThroughReset has either side reset: the other one sees a reset too, never a clean end.
func TestPassThroughReset(t *testing.T) {
	for _, side := range []string{"backend", "client"} {
		t.Run(side, func(t *testing.T) {
			up, seen := make(chan *net.TCPConn, 1), make(chan error, 1)
			b := newRawBackend(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "hello")
				up <- c
				_, err := io.ReadAll(c)
				seen <- err
			})
			p := startProxy(t, passSite("pass", "pass.example", b.port()))
			conn, _ := dialPass(t, p)
			if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			behind := <-up
			if side == "backend" {
				_ = behind.SetLinger(0)
				_ = behind.Close()
				if _, err := io.ReadAll(conn); !isReset(err) {
					t.Errorf("the client sees %v, want a reset", err)
				}
			} else {
				_ = conn.SetLinger(0)
				_ = conn.Close()
				if err := <-seen; !isReset(err) {
					t.Errorf("the backend sees %v, want a reset", err)
				}
			}
			within(t, time.Second, "the tunnel's end", func() bool { return p.passing() == 0 })
		})
	}
}

// TestPassThroughBulk moves much in both directions at once on many connections.
func TestPassThroughBulk(t *testing.T) {
	b := newRawBackend(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c) // an echo
		_ = c.CloseWrite()
	})
	p := startProxy(t, passSite("pass", "pass.example", b.port()))
	payload := make([]byte, 2<<20)
	_, _ = rand.Read(payload)
	var group sync.WaitGroup
	for range 16 {
		conn, hello := dialPass(t, p)
		group.Go(func() {
			_, err := conn.Write(payload)
			if err != nil {
				t.Error(err)
			}
			_ = conn.CloseWrite()
		})
		group.Go(func() {
			all, err := io.ReadAll(conn)
			if want := append(bytes.Clone(hello), payload...); err != nil || sha256.Sum256(all) != sha256.Sum256(want) {
				t.Errorf("%d bytes came back of %d, or others: %v", len(all), len(want), err)
			}
		})
	}
	group.Wait()
}

// TestPassThroughManyConnections opens more than a loop can have forgotten about, one after another and at once.
func TestPassThroughManyConnections(t *testing.T) {
	secured := newBackend(t, "secured", issue(t, "pass.example"))
	p := startProxy(t, passSite("pass", "pass.example", secured.port()))
	config := trusting(t, "pass.example")
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			for range 10 {
				c := &caller{address: p.HTTPS, tls: config}
				if a, err := c.call(request("pass.example", "/")); err != nil || a.status != 200 {
					t.Error(a, err)
				}
				c.hangUp()
			}
		})
	}
	group.Wait()
	within(t, callTimeout, "the tunnels' end", func() bool { return p.passing() == 0 && p.conns() == 0 })
}

// conns is how many descriptors the loops have: clients and backends.
func (p *testProxy) conns() (n int64) {
	for _, l := range p.loops {
		n += l.Stats.Conns.Load() + l.Stats.Pending.Load()
	}
	return n
}

// TestPassThroughFailover has endpoints of which some do not listen.
func TestPassThroughFailover(t *testing.T) {
	secured := newBackend(t, "secured", issue(t, "pass.example"))
	dead := freePort(t)
	p := startProxy(t, passSite("pass", "pass.example", dead, secured.port())+passSite("gone", "gone.example", dead)+passSite("none", "none.example"))
	config := trusting(t, "pass.example")
	for range 20 {
		ask(t, p.HTTPS, config, "pass.example", "/").want(t, 200, "secured")
	}
	for _, host := range []string{"gone.example", "none.example"} {
		before := p.door("https").Stats.PassErrors.Load()
		conn, err := tls.Dial("tcp", p.HTTPS, &tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err == nil {
			_ = conn.Close()
			t.Errorf("%s: a handshake without a backend", host)
		}
		if p.door("https").Stats.PassErrors.Load() != before+1 {
			t.Errorf("%s: the failure is not counted", host)
		}
	}
}

// TestPassThroughOff has the annotation without its flag: TLS ends here, and a Problem says so.
func TestPassThroughOff(t *testing.T) {
	secured := newBackend(t, "secured", issue(t, "pass.example"))
	p := startProxy(t, passSite("pass", "pass.example", secured.port()), "--enable-ssl-passthrough=false")
	if problems := p.problems(t); !strings.Contains(problems, "ssl-passthrough") || !strings.Contains(problems, "needs --enable-ssl-passthrough") {
		t.Errorf("problems are\n%s", problems)
	}
	if got := p.shown(t, "pass.example"); got != "Sluice default certificate" {
		t.Errorf("the certificate is that of %s", got)
	}
}

// TestPassThroughClientLeaves has a client that is gone before its backend is reached.
func TestPassThroughClientLeaves(t *testing.T) {
	var open sync.WaitGroup
	b := newRawBackend(t, func(c *net.TCPConn) {
		open.Add(1)
		defer open.Done()
		_, _ = io.ReadAll(c)
	})
	p := startProxy(t, passSite("pass", "pass.example", b.port()))
	for i := range 100 {
		conn, _ := dialPass(t, p)
		if i%2 == 0 {
			_ = conn.SetLinger(0)
		}
		_ = conn.Close()
	}
	within(t, callTimeout, "the end of all connections", func() bool {
		return p.door("https").Stats.Accepted.Load() == 100 && p.conns() == 0 && p.passing() == 0
	})
	open.Wait()
}
