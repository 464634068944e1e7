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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests of this file measure what connections that are established notice of other work of the process: their p99 stays
// within twice its quiet value (docs/decisions/0003-performance-goals.md). They want the machine for themselves, a processor for the
// proxy's one loop and one for its clients, which get it when they ask for it, or they would measure how the kernel shares
// processors out (docs/decisions/0015-latency-beside-work.md): `make latency`.

// latencyEnv tells how long a round is.
const latencyEnv = "SLUICE_LATENCY"

const (
	latencyFactor = 2
	latencyRounds = 5                      // p99 of a quiet round alone differs by a factor of three, and what is judged is the median
	latencyWindow = 300 * time.Millisecond // quiet and busy ones take turns
	latencyLook   = 50 * time.Millisecond  // how long the proxy is watched to see whether it works …
	latencyWork   = 8                      // … which takes this part of a processor: compiles make pauses
	latencyEvery  = 2 * time.Millisecond   // a request, on all connections together
	latencyLooks  = 4                      // … in a row
	latencyConns  = 16
)

// A timed request is when it was sent, and how long after that its answer was there.
type timed struct {
	sent time.Time
	took time.Duration
}

// A prober asks at a constant rate on connections that are kept.
type prober struct {
	stop    atomic.Bool
	group   sync.WaitGroup
	samples [latencyConns][]timed
}

func startProber(t *testing.T, address string) *prober {
	t.Helper()
	p := &prober{}
	start := time.Now().Add(100 * time.Millisecond)
	for i := range latencyConns {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		fd := ownDescriptor(t, conn)
		p.group.Go(func() {
			defer unix.Close(fd)
			punctual()
			if err := p.ask(i, fd, start.Add(time.Duration(i)*latencyEvery)); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { p.stop.Store(true); p.group.Wait() })
	return p
}

// ask sends what is due on one connection. A client that is late itself counts from when it sent.
func (p *prober) ask(i, fd int, due time.Time) error {
	text, b := []byte(request("latency.example", "/")), make([]byte, 4096)
	for ; !p.stop.Load(); due = due.Add(latencyConns * latencyEvery) {
		if wait := time.Until(due); wait > 0 {
			ts := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&ts, nil)
		}
		sent := time.Now()
		if _, err := unix.Write(fd, text); err != nil {
			return err
		}
		n, err := unix.Read(fd, b)
		if err != nil || !strings.HasPrefix(string(b[:max(n, 0)]), "HTTP/1.1 200") {
			return fmt.Errorf("a request failed: %q, %v", b[:max(n, 0)], err)
		}
		p.samples[i] = append(p.samples[i], timed{sent, time.Since(sent)})
	}
	return nil
}

func (p *prober) end() []timed {
	p.stop.Store(true)
	p.group.Wait()
	return slices.Concat(p.samples[:]...)
}

// ownDescriptor takes a connection out of the hands of Go's runtime: reads of it block their thread.
func ownDescriptor(t *testing.T, conn net.Conn) int {
	f, err := conn.(*net.TCPConn).File() // blocks, in distinction to the connection
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	_ = conn.Close()
	return fd
}

// punctual gives the goroutine a thread that gets the processor when it asks for it.
func punctual() {
	runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
}

// punctualBackend answers at once.
func punctualBackend(t *testing.T) (port int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			fd := ownDescriptor(t, conn)
			go func() {
				defer unix.Close(fd)
				punctual()
				for b := make([]byte, 4096); ; {
					if n, err := unix.Read(fd, b); n <= 0 || err != nil {
						return
					}
					_, _ = unix.Write(fd, []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// A latencyRound is the begins of its windows, quiet ones and busy ones, and the processor time that the proxy used in them.
type latencyRound struct {
	begins [2][]time.Time
	used   [2]int64
}

// besideWork compares the prober's p99 in windows with work and without: the median of the rounds' ratios is judged.
func besideWork(t *testing.T, c *child, what string, work func(on bool)) {
	t.Helper()
	span, err := time.ParseDuration(os.Getenv(latencyEnv))
	if err != nil {
		t.Fatalf("%s: %v", latencyEnv, err)
	}
	p := startProber(t, c.http)
	time.Sleep(500 * time.Millisecond)
	rounds := make([]latencyRound, latencyRounds)
	for i := range rounds {
		for began := time.Now(); time.Since(began) < span; {
			rounds[i].windows(t, c, work)
		}
	}
	work(false)
	all := p.end()
	ratios := make([]float64, len(rounds))
	for i := range rounds {
		ratios[i] = rounds[i].ratio(t, what, all)
	}
	middle := median(ratios, func(r float64) float64 { return r })
	t.Logf("%s: p99 is %.2f times its quiet value, the median of %.2f", what, middle, ratios)
	if middle > latencyFactor {
		t.Errorf("%s: p99 is %.2f times its quiet value, more than %d", what, middle, latencyFactor)
	}
}

// windows has a quiet window and a busy one pass.
func (r *latencyRound) windows(t *testing.T, c *child, work func(on bool)) {
	t.Helper()
	for i, on := range []bool{false, true} {
		work(on)
		in := 0
		within(t, 30*time.Second, map[bool]string{true: "work", false: "quiet"}[on], func() bool {
			before := processTime(t, c.Process.Pid)
			time.Sleep(latencyLook)
			if in++; (processTime(t, c.Process.Pid)-before > int64(latencyLook)/latencyWork) != on {
				in = 0
			}
			return in == latencyLooks
		})
		r.begins[i] = append(r.begins[i], time.Now())
		before := processTime(t, c.Process.Pid)
		time.Sleep(latencyWindow)
		r.used[i] += processTime(t, c.Process.Pid) - before
	}
}

// ratio is p99 of what was asked in the round's busy windows by that of its quiet ones.
func (r *latencyRound) ratio(t *testing.T, what string, all []timed) float64 {
	t.Helper()
	var p99 [2]time.Duration
	for i, begins := range r.begins {
		var took []time.Duration
		for _, s := range all {
			if slices.ContainsFunc(begins, func(b time.Time) bool { return !s.sent.Before(b) && s.sent.Before(b.Add(latencyWindow)) }) {
				took = append(took, s.took)
			}
		}
		slices.Sort(took)
		p99[i] = took[len(took)*99/100]
		t.Logf("%s: %s: %.0f %% of a processor, %d requests, p50 %v, p99 %v, p99.9 %v, most %v", what, []string{"quiet", "busy"}[i],
			100*float64(r.used[i])/float64(len(begins)*int(latencyWindow)), len(took), took[len(took)/2], p99[i], took[len(took)*999/1000], took[len(took)-1])
	}
	return float64(p99[1]) / float64(p99[0])
}

// latencyProxy starts a proxy of its own for the prober.
func latencyProxy(t *testing.T, more string) (c *child, dir, https string) {
	t.Helper()
	if os.Getenv(latencyEnv) == "" {
		t.Skipf("a measurement that wants the machine for itself: make latency (%s=30s)", latencyEnv)
	}
	if os.Geteuid() != 0 {
		t.Skip("its threads ask for SCHED_FIFO, which wants root")
	}
	runtime.GOMAXPROCS(16) // the prober's threads block in system calls that Go does not know to be short
	dir = t.TempDir()
	text := site{name: "latency", host: "latency.example", ports: []int{punctualBackend(t)}, secret: "latency", annotations: map[string]string{"ssl-redirect": "false"}}.yaml() +
		secretOf(t, "latency", issue(t, "latency.example")) + more
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	setKeys(t, dir, 0)
	http, port := freePort(t), freePort(t)
	c = startChild(t, "--manifests="+dir, "--bind-address=127.0.0.1", fmt.Sprint("--http-port=", http), fmt.Sprint("--https-port=", port),
		"--admin-address=127.0.0.1:0", "--loops=1", configMapFlag)
	c.admin = c.logged(`msg="the admin page is open" address=(\S+)`)[1]
	c.logged("msg=serving")
	c.http = fmt.Sprint("127.0.0.1:", http)
	return c, dir, fmt.Sprint("127.0.0.1:", port)
}

// setKeys writes the ConfigMap, which differs for each n in what all Ingresses take from it: everything is translated and compiled anew.
func setKeys(t *testing.T, dir string, n int) {
	text := configMapOf("keep-alive-requests", "1000000", "hsts-max-age", fmt.Sprint(1000+n))
	next := filepath.Join(dir, ".next")
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "keys.yaml")); err != nil {
		t.Fatal(err)
	}
}

// counted reads a metric of a child.
func (c *child) counted(name string) (v float64) {
	c.t.Helper()
	a := ask(c.t, c.admin, nil, "admin", "/metrics")
	for line := range strings.Lines(a.body) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			_, _ = fmt.Sscan(rest, &v)
		}
	}
	return v
}

// TestLatencyHandshakes: a flood of handshakes, by a process that gives way to all others.
func TestLatencyHandshakes(t *testing.T) {
	c, _, https := latencyProxy(t, "")
	flood := exec.Command("nice", "-n", "19", os.Args[0], "-test.run=^TestLatencyFlood$")
	flood.Env = append(os.Environ(), floodEnv+"="+https)
	if err := flood.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = flood.Process.Kill(); _ = flood.Wait() }()
	const metric = `sluice_tls_handshakes_total{door="https"}`
	before := c.counted(metric)
	besideWork(t, c, "a flood of handshakes", func(on bool) {
		_ = flood.Process.Signal(map[bool]syscall.Signal{true: syscall.SIGCONT, false: syscall.SIGSTOP}[on])
	})
	n := c.counted(metric) - before
	if t.Logf("%.0f handshakes", n); n < 1000 {
		t.Error("that was no flood")
	}
}

const floodEnv = "SLUICE_LATENCY_FLOOD"

// TestLatencyFlood is no test but the flood, in a process of its own: handshakes that end when the server has done its part, so that
// they cost it most.
func TestLatencyFlood(t *testing.T) {
	address := os.Getenv(floodEnv)
	if address == "" {
		t.Skip("a part of TestLatencyHandshakes")
	}
	hello := helloOf(t, &tls.Config{ServerName: "latency.example"})
	for range 32 {
		go func() {
			for {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				_ = conn.(*net.TCPConn).SetLinger(0)
				if _, err := conn.Write(hello); err == nil {
					_, _ = io.ReadFull(conn, make([]byte, 200))
				}
				_ = conn.Close()
			}
		}()
	}
	select {} // until the parent kills it
}

// TestLatencyCompile: 100,000 paths are translated and compiled, one time after another.
func TestLatencyCompile(t *testing.T) {
	var more strings.Builder
	for i := range 10_000 {
		more.WriteString(tenPaths(i))
	}
	c, dir, _ := latencyProxy(t, more.String())
	const metric = `sluice_applies_total{result="applied"}`
	before := c.counted(metric)
	var off chan struct{}
	n := 0
	besideWork(t, c, "compiles of 100,000 paths", func(on bool) {
		if off != nil {
			off <- struct{}{}
			off = nil
		}
		if !on {
			return
		}
		off = make(chan struct{})
		go func() {
			for stop := false; !stop; {
				n++
				setKeys(t, dir, n)
				select {
				case <-off:
					stop = true
				case <-time.After(latencyLook):
				}
			}
		}()
	})
	if n := c.counted(metric) - before; n < 3 {
		t.Errorf("%.0f compiles", n)
	} else {
		t.Logf("%.0f compiles, %.2f s each", n, c.counted("sluice_apply_duration_seconds_sum")/c.counted("sluice_apply_duration_seconds_count"))
	}
}

// tenPaths is an Ingress of a host of its own.
func tenPaths(i int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: many-%d, namespace: default}\nspec:\n  ingressClassName: nginx\n  rules:\n  - host: many-%d.example\n    http:\n      paths:\n", i, i)
	for k := range 10 {
		fmt.Fprintf(&b, "      - {path: /p%d, pathType: Prefix, backend: {service: {name: latency, port: {number: 80}}}}\n", k)
	}
	return b.String()
}
