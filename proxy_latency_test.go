package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// prober asks at a constant rate, whatever becomes of the answers: what a request waits for a late one before it counts.
type prober struct {
	address, text string
	conns         int
	interval      time.Duration // between two requests of all connections together
}

// window is what a prober saw in a span of time.
type window struct {
	p50, p99, most time.Duration
	samples        int
}

// run asks for a while.
func (p *prober) run(t *testing.T, length time.Duration) window {
	t.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var group sync.WaitGroup
	every := p.interval * time.Duration(p.conns)
	start := time.Now().Add(20 * time.Millisecond)
	for i := range p.conns {
		c := &caller{address: p.address}
		if err := c.dial(); err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			defer c.hangUp()
			var mine []time.Duration
			for at := start.Add(time.Duration(i) * p.interval); at.Sub(start) < length; at = at.Add(every) {
				time.Sleep(time.Until(at))
				if a, err := c.call(p.text); err != nil || a.status != 200 {
					t.Errorf("a request failed: %v, %v", a, err)
					return
				}
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	group.Wait()
	slices.Sort(all)
	if len(all) == 0 {
		t.Fatal("no request was answered")
	}
	return window{all[len(all)/2], all[len(all)*99/100], all[len(all)-1], len(all)}
}

// startNice starts a process whose threads give way to all others: priorities are inherited from the thread that forks.
func startNice(c *exec.Cmd, nice int) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine, as it cannot be raised again
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nice); err != nil {
			done <- err
			return
		}
		done <- c.Start()
	}()
	return <-done
}

// TestFloodProcess is no test but the flood of TestLatencyHandshakes, in a process of its own.
func TestFloodProcess(t *testing.T) {
	address := os.Getenv("SLUICE_TEST_FLOOD")
	if address == "" {
		t.Skip("this is a part of TestLatencyHandshakes")
	}
	hello := helloOf(t, &tls.Config{ServerName: "latency.example"})
	for range 32 {
		go func() {
			for {
				flood(address, hello)
			}
		}()
	}
	time.Sleep(time.Hour) // the parent kills it
}

// flood begins a handshake and leaves when the server has done its part: no client could cost a server more at so small
// a price.
func flood(address string, hello []byte) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		time.Sleep(time.Millisecond)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_ = conn.(*net.TCPConn).SetLinger(0)
	if _, err := conn.Write(hello); err == nil {
		_, _ = io.ReadFull(conn, make([]byte, 200))
	}
	_ = conn.Close()
}

func TestLatencyHandshakes(t *testing.T) {
	b := newBackend(t, "one", nil)
	dir := t.TempDir()
	text := site{name: "latency", host: "latency.example", ports: []int{b.port()}, secret: "latency", annotations: map[string]string{"ssl-redirect": "false"}}.yaml() +
		secretOf(t, "latency", issue(t, "latency.example"))
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	port, https := freePort(t), freePort(t)
	c := startChild(t, "--manifests="+dir, "--bind-address=127.0.0.1", fmt.Sprint("--http-port=", port), fmt.Sprint("--https-port=", https),
		"--admin-address=127.0.0.1:0", "--loops=2")
	admin := c.logged(`msg="the admin page is open" address=(\S+)`)[1]
	c.logged("msg=serving")
	p := &prober{address: fmt.Sprint("127.0.0.1:", port), text: request("latency.example", "/"), conns: 16, interval: 2 * time.Millisecond}
	p.run(t, time.Second)
	handshakes := func() float64 {
		q := &testProxy{}
		_ = q
		a := ask(t, admin, nil, "admin", "/metrics")
		for line := range strings.Lines(a.body) {
			if strings.HasPrefix(line, `sluice_tls_handshakes_total{door="https"}`) {
				var v float64
				fmt.Sscan(strings.Fields(line)[1], &v)
				return v
			}
		}
		return 0
	}
	var ratios []float64
	for range 6 {
		quiet := p.run(t, 2*time.Second)
		f := exec.Command(os.Args[0], "-test.run=^TestFloodProcess$")
		f.Env = append(os.Environ(), fmt.Sprint("SLUICE_TEST_FLOOD=127.0.0.1:", https))
		if err := startNice(f, 19); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		before := handshakes()
		loaded := p.run(t, 2*time.Second)
		n := handshakes() - before
		_ = f.Process.Kill()
		_ = f.Wait()
		t.Logf("quiet %v %v %v, flood %v %v %v: %.2f; %v handshakes/s", quiet.p50, quiet.p99, quiet.most, loaded.p50, loaded.p99, loaded.most, float64(loaded.p99)/float64(quiet.p99), n/2)
		ratios = append(ratios, float64(loaded.p99)/float64(quiet.p99))
		time.Sleep(200*time.Millisecond)
	}
	slices.Sort(ratios)
	t.Logf("ratios %.2f", ratios)
	_ = syscall.SIGTERM
}
