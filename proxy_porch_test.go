package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestPorch: while the loops serve connections that last, all that comes to the TLS port is greeted on the porches, and served on
// the loops: HTTP/1.1, HTTP/2, clients with certificates, what is passed through, what is no TLS, and hellos that end early.
func TestPorch(t *testing.T) {
	plain, secured := newBackend(t, "plain", nil), newBackend(t, "secured", issue(t, "pass.example"))
	known := newClients(t)
	p := startProxy(t, passSite("pass", "pass.example", secured.port())+
		site{name: "open", host: "open.example", ports: []int{plain.port()}, secret: "open"}.yaml()+secretOf(t, "open", issue(t, "open.example"))+
		site{name: "closed", host: "closed.example", ports: []int{plain.port()}, secret: "closed", annotations: map[string]string{"auth-tls-secret": "default/ca"}}.yaml()+
		secretOf(t, "closed", issue(t, "closed.example"))+
		authoritySecret("ca", certificatePEM(known.root.keyPair), ""))
	var stop atomic.Bool
	var lasting, group sync.WaitGroup
	for range 8 * len(p.loops) {
		lasting.Go(func() {
			c := &caller{address: p.HTTPS, tls: trusting(t, "open.example")}
			defer c.hangUp()
			for ; !stop.Load(); time.Sleep(5 * time.Millisecond) {
				if a, err := c.call(request("open.example", "/")); err != nil || a.status != 200 {
					t.Errorf("a connection that lasts: %v", err)
					return
				}
			}
		})
	}
	within(t, callTimeout, "every loop to serve", func() bool {
		for _, l := range p.loops {
			if !l.Serves() {
				return false
			}
		}
		return true
	})
	events := func() (n uint64) {
		for _, l := range p.porches {
			n += l.Stats.Events.Load()
		}
		return n
	}
	before := events()
	asks := map[string]func() error{
		"HTTP/1.1": func() error {
			return answered(p.HTTPS, trusting(t, "open.example"), "open.example", "plain")
		},
		"HTTP/2": func() error {
			config := trusting(t, "open.example")
			config.NextProtos = nil // the transport's
			transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			for range 3 {
				res, err := (&http.Client{Transport: transport}).Do(&http.Request{Method: "GET", Host: "open.example", URL: &url.URL{Scheme: "https", Host: p.HTTPS, Path: "/"}})
				if err != nil {
					return err
				}
				_, _ = io.Copy(io.Discard, res.Body)
				if _ = res.Body.Close(); res.StatusCode != 200 || res.ProtoMajor != 2 {
					return fmt.Errorf("%s, status %d", res.Proto, res.StatusCode)
				}
			}
			return nil
		},
		"a client's certificate": func() error {
			return answered(p.HTTPS, known.configs["good"]("closed.example"), "closed.example", "plain")
		},
		"TLS 1.2": func() error {
			config := trusting(t, "open.example")
			config.MaxVersion = tls.VersionTLS12
			return answered(p.HTTPS, config, "open.example", "plain")
		},
		"passed through": func() error { return answered(p.HTTPS, trusting(t, "pass.example"), "pass.example", "secured") },
		"no TLS": func() error {
			conn, err := net.Dial("tcp", p.HTTPS)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, request("open.example", "/"))
			if all, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 400 ") {
				return fmt.Errorf("%q, %v", all, err)
			}
			return nil
		},
		"half a hello": func() error {
			conn, err := net.Dial("tcp", p.HTTPS)
			if err != nil {
				return err
			}
			_, _ = conn.Write([]byte{22, 3, 1, 2, 0, 1})
			return conn.Close()
		},
	}
	const rounds = 12
	for what, ask := range asks {
		for range rounds {
			group.Go(func() {
				if err := ask(); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
	}
	group.Wait()
	if n := events() - before; n < uint64(rounds*len(asks)) {
		t.Errorf("the porches had %d events", n)
	}
	stop.Store(true)
	lasting.Wait()
	within(t, callTimeout, "the porches to be empty", func() bool {
		for _, l := range p.porches {
			if l.Stats.Conns.Load()+l.Stats.Pending.Load() > 0 {
				return false
			}
		}
		return true
	})
}

// answered asks some times on one connection, and tells whether the named backend answers.
func answered(address string, config *tls.Config, host, backend string) error {
	c := &caller{address: address, tls: config}
	defer c.hangUp()
	for range 3 {
		a, err := c.call(request(host, "/"))
		if err != nil {
			return err
		}
		if line, _, _ := strings.Cut(a.body, "\n"); a.status != 200 || line != backend {
			return fmt.Errorf("status %d, %q answered", a.status, line)
		}
	}
	return nil
}
