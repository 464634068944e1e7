//go:build cluster

package clustertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tunnels are WebSockets through a proxy, which are used all the time.
type tunnels struct {
	began time.Time
	all   sync.WaitGroup
	lived []time.Duration // of each, once it was cut
}

// openTunnels opens n WebSockets to an echo, and sends through each until it is cut.
func openTunnels(t *testing.T, address, host string, n int) *tunnels {
	t.Helper()
	w := &tunnels{lived: make([]time.Duration, n)}
	for i := range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host)
		reader := bufio.NewReader(conn)
		if answer, err := http.ReadResponse(reader, nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("no upgrade: %v %v", answer, err)
		}
		w.all.Go(func() {
			for echoes(conn, reader) == nil {
				time.Sleep(100 * time.Millisecond)
			}
			w.lived[i] = time.Since(w.began)
		})
	}
	w.began = time.Now()
	return w
}

func echoes(conn net.Conn, reader io.Reader) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	const text = "are you there?"
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(reader, b); err != nil || string(b) != text {
		return fmt.Errorf("%q, %w", b, err)
	}
	return nil
}

// cut waits until all were cut, and answers how long they lived.
func (w *tunnels) cut(t *testing.T) (first, last time.Duration) {
	t.Helper()
	done := make(chan struct{})
	go func() { w.all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the drain limit does not end WebSockets")
	}
	return slices.Min(w.lived), slices.Max(w.lived)
}

// askOnce sends requests to an address, each on a connection of its own, until the answer is called.
func askOnce(t *testing.T, address, host string, clients int) (stop func() (requests, failed int64)) {
	ctx, cancel := context.WithCancel(t.Context())
	var requests, failed atomic.Int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
				requests.Add(1)
				if err := askAlone(address, host); err != nil {
					if failed.Add(1) <= 5 {
						t.Errorf("a request failed: %v", err)
					}
				}
			}
		})
	}
	return func() (int64, int64) {
		cancel()
		all.Wait()
		return requests.Load(), failed.Load()
	}
}

func askAlone(address, host string) error {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequest(http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	req.Host = host
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	r, err := readReply(answer)
	if err == nil && r.Status != http.StatusOK {
		err = fmt.Errorf("status %d", r.Status)
	}
	return err
}
