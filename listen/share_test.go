package listen

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// server accepts on a socket and greets everybody with its name.
type server struct {
	*Socket
	accepted atomic.Uint64
	group    sync.WaitGroup
}

func serve(t *testing.T, name, address string) *server {
	t.Helper()
	socket, err := Open(Options{Name: name, Address: address, Share: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Socket: socket}
	ln, err := socket.Listener()
	if err != nil {
		t.Fatal(err)
	}
	s.group.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			_, _ = c.Write([]byte(name))
			_ = c.Close()
		}
	})
	t.Cleanup(s.end)
	return s
}

func (s *server) end() {
	_ = s.Close()
	s.group.Wait()
}

// greeting is who accepted a new connection.
func greeting(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var b [1]byte
	_, err = c.Read(b[:])
	return string(b[:]), err
}

// all checks that one server gets every connection.
func all(t *testing.T, name string, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		for range 30 {
			if got, err := greeting(address); got != name || err != nil {
				t.Fatalf("%s was answered by %q, %v; want %s", address, got, err, name)
			}
		}
	}
}

// TestClaim: whoever comes last gets the port, however the ones before it stand in the group.
func TestClaim(t *testing.T) {
	for _, c := range []struct {
		name, address string
		reached       []string // hosts
	}{
		{"IPv4", "127.0.0.1:0", []string{"127.0.0.1"}},
		{"IPv6", "[::1]:0", []string{"::1"}},
		{"all", ":0", []string{"127.0.0.1", "::1"}},
		{"all of IPv4", "0.0.0.0:0", []string{"127.0.0.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := serve(t, "a", c.address)
			host, _, _ := net.SplitHostPort(c.address)
			_, port, _ := net.SplitHostPort(a.String())
			address := net.JoinHostPort(host, port)
			var reached []string
			for _, h := range c.reached {
				reached = append(reached, net.JoinHostPort(h, port))
			}
			claim := func(s *server) {
				t.Helper()
				if err := s.Claim(t.Context()); err != nil {
					t.Fatal(err)
				}
				all(t, s.Name, reached...)
			}
			claim(a)
			claim(serve(t, "b", address))
			c := serve(t, "c", address)
			claim(c)
			a.end() // the order of the group changes: c, b
			claim(c)
			claim(serve(t, "d", address))
			c.end()
			d := serve(t, "e", address)
			claim(d)
		})
	}
}

// TestStepAside closes sockets under load: nobody's connection is lost, although nobody steered before.
func TestStepAside(t *testing.T) {
	old := []*server{serve(t, "a", "127.0.0.1:0")}
	address := old[0].String()
	old = append(old, serve(t, "b", address))
	stays := serve(t, "c", address)

	var stop atomic.Bool
	var failed, asked atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				if _, err := greeting(address); err != nil {
					failed.Add(1)
					t.Log(err)
				}
				asked.Add(1)
				time.Sleep(200 * time.Microsecond)
			}
		})
	}
	var leaving sync.WaitGroup
	for _, s := range old { // both at once: each may send to the other at first
		leaving.Go(func() {
			if !s.StepAside(t.Context(), s.accepted.Load) {
				t.Errorf("connections came to %s all the time", s.Name)
			}
			_ = s.TurnAway() // as the doors do: what another one's tries send here now
			time.Sleep(100 * time.Millisecond)
			s.end()
		})
	}
	leaving.Wait()
	all(t, "c", address)
	stop.Store(true)
	clients.Wait()
	if failed.Load() > 0 || asked.Load() < 100 {
		t.Errorf("%d of %d connections failed", failed.Load(), asked.Load())
	}
	began := time.Now()
	if stays.StepAside(t.Context(), stays.accepted.Load) {
		t.Error("the last one found somebody else")
	}
	if d := time.Since(began); d > settleQuiet {
		t.Errorf("the last one waited %v for nobody", d)
	}
}

// TestQueued sees a connection that nobody accepts.
func TestQueued(t *testing.T) {
	s, err := Open(Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.queued() {
		t.Error("a new socket has a queue")
	}
	c, err := net.Dial("tcp", s.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(5 * time.Second); !s.queued(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection in the queue is not seen")
		}
	}
}

// TestClaimWithoutAcceptor: a socket that does not accept cannot tell its place, and says so.
func TestClaimWithoutAcceptor(t *testing.T) {
	s, err := Open(Options{Address: "127.0.0.1:0", Share: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	if err := s.Claim(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("claimed: %v", err)
	}
	alone, err := Open(Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	if err := alone.Claim(t.Context()); err != nil {
		t.Errorf("a port that is not shared needs no claim: %v", err)
	}
	if _, err := Open(Options{Address: alone.String(), Share: true}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that is not shared was opened again: %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	open := func() (*Socket, error) { return Open(Options{Address: "unix://" + path}) }
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.String(); got != "unix://"+path || s.Addr().IsValid() {
		t.Errorf("the address is %s, %v", got, s.Addr())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has the mode %v, %v", info.Mode(), err)
	}
	if _, err := open(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a socket in use was taken: %v", err)
	}
	_ = s.Close() // as when the process is killed: the path stays
	if s, err = open(); err != nil {
		t.Fatalf("a path that nobody listens at was not taken over: %v", err)
	}
	_ = s.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil {
		t.Error("a file was replaced by a socket")
	}
	if b, err := os.ReadFile(path); string(b) != "precious" {
		t.Errorf("the file has gone: %v", err)
	}
}

// TestCheck: what Open would not get is told without listening.
func TestCheck(t *testing.T) {
	shared := serve(t, "a", "127.0.0.1:0")
	at := shared.Addr().String()
	if err := Check(Options{Address: at, Share: true}); err != nil {
		t.Errorf("a port that is shared: %v", err)
	}
	if err := Check(Options{Address: at}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that is not to be shared: %v", err)
	}
	alone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	_, port, _ := net.SplitHostPort(alone.Addr().String())
	for _, address := range []string{"127.0.0.1:" + port, "0.0.0.0:" + port, ":" + port} {
		if err := Check(Options{Address: address, Share: true}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s, which somebody has: %v", address, err)
		}
	}
	for range 50 { // nothing comes to who only checks
		if err := Check(Options{Address: at, Share: true}); err != nil {
			t.Fatal(err)
		}
		if who, err := greeting(at); who != "a" || err != nil {
			t.Fatalf("%q answers, %v", who, err)
		}
	}
	if err := Check(Options{Address: "127.0.0.1:0", Share: true}); err != nil {
		t.Errorf("any port: %v", err)
	}
}
