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
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sample is one request: when it was due, and how long after that its answer was there.
type sample struct {
	due  time.Time
	took time.Duration
}

// prober asks at a constant rate, whatever becomes of the answers: a request that has to wait for a late one before it
// is late itself. Its connections are established before anything is measured.
type prober struct {
	address, text string
	conns         int
	interval      time.Duration // between two requests of all connections together

	stop    atomic.Bool
	group   sync.WaitGroup
	samples [][]sample // by connection
}

func (p *prober) start(t *testing.T) {
	t.Helper()
	p.samples = make([][]sample, p.conns)
	every := p.interval * time.Duration(p.conns)
	start := time.Now().Add(50 * time.Millisecond)
	for i := range p.conns {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		p.group.Go(func() {
			fd := blocking(conn)
			defer unix.Close(fd)
			punctual()
			b := make([]byte, 4096)
			free := start
			for due := start.Add(time.Duration(i) * p.interval); !p.stop.Load(); due = due.Add(every) {
				if wait := time.Until(due); wait > 0 {
					ts := unix.NsecToTimespec(int64(wait))
					_ = unix.Nanosleep(&ts, nil)
				}
				began := due
				if free.Before(due) {
					began = time.Now() // the client's own lateness is not the proxy's
				}
				if _, err := unix.Write(fd, []byte(p.text)); err != nil {
					t.Error(err)
					return
				}
				n, err := unix.Read(fd, b)
				free = time.Now()
				if err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") || !strings.HasSuffix(string(b[:n]), "\r\n\r\nok") {
					t.Errorf("a request failed: %q, %v", b[:n], err)
					return
				}
				p.samples[i] = append(p.samples[i], sample{began, free.Sub(began)})
			}
		})
	}
}

// blocking takes a connection's descriptor out of the Go runtime's hands.
func blocking(conn net.Conn) int {
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		panic(err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		panic(err)
	}
	_ = f.Close()
	_ = conn.Close()
	return fd
}

// punctual locks the goroutine to a thread that gets the processor when it asks for it.
func punctual() {
	runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
}

// punctualBackend answers at once.
func punctualBackend(t *testing.T) int {
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
			go func() {
				fd := blocking(conn)
				defer unix.Close(fd)
				punctual()
				b := make([]byte, 4096)
				for {
					n, err := unix.Read(fd, b)
					if n <= 0 || err != nil {
						return
					}
					_, _ = unix.Write(fd, []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

func (p *prober) end() (all []sample) {
	p.stop.Store(true)
	p.group.Wait()
	return slices.Concat(p.samples...)
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

// ticks are what the machine and some processes have computed so far, in clock ticks.
func machineTicks() (busy int) {
	b, _ := os.ReadFile("/proc/stat")
	f := strings.Fields(strings.SplitN(string(b), "\n", 2)[0])
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, _ := strconv.Atoi(f[i])
		busy += n
	}
	return busy
}

func processTicks(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	u, _ := strconv.Atoi(f[11])
	s, _ := strconv.Atoi(f[12])
	return u + s
}

type span struct {
	from, to time.Time
	loaded   bool
	others   int
}

func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[int(float64(len(all)-1)*p)]
}

func TestLatencyHandshakes(t *testing.T) {
	runtime.GOMAXPROCS(16)
	dir := t.TempDir()
	text := site{name: "latency", host: "latency.example", ports: []int{punctualBackend(t)}, secret: "latency", annotations: map[string]string{"ssl-redirect": "false"}}.yaml() +
		secretOf(t, "latency", issue(t, "latency.example")) + configMapOf("keep-alive-requests", "1000000")
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	port, https := freePort(t), freePort(t)
	c := startChild(t, "--manifests="+dir, "--bind-address=127.0.0.1", fmt.Sprint("--http-port=", port), fmt.Sprint("--https-port=", https),
		"--admin-address=127.0.0.1:0", "--loops=2", configMapFlag)
	admin := c.logged(`msg="the admin page is open" address=(\S+)`)[1]
	c.logged("msg=serving")
	f := exec.Command(os.Args[0], "-test.run=^TestFloodProcess$")
	f.Env = append(os.Environ(), fmt.Sprint("SLUICE_TEST_FLOOD=127.0.0.1:", https))
	if err := startNice(f, 19); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Process.Kill(); _ = f.Wait() }()
	time.Sleep(300 * time.Millisecond)
	handshakes := func() (v float64) {
		a := ask(t, admin, nil, "admin", "/metrics")
		for line := range strings.Lines(a.body) {
			if strings.HasPrefix(line, `sluice_tls_handshakes_total{door="https"}`) {
				fmt.Sscan(strings.Fields(line)[1], &v)
			}
		}
		return v
	}
	p := &prober{address: fmt.Sprint("127.0.0.1:", port), text: request("latency.example", "/"), conns: 16, interval: 2 * time.Millisecond}
	p.start(t)
	secs := 40
	if s := os.Getenv("SECS"); s != "" {
		secs, _ = strconv.Atoi(s)
	}
	limit := 4
	if s := os.Getenv("LIMIT"); s != "" {
		limit, _ = strconv.Atoi(s)
	}
	var spans []span
	before, began := handshakes(), time.Now()
	var floodTime time.Duration
	for n := 0; time.Since(began) < time.Duration(secs)*time.Second; n++ {
		loaded := n%2 == 1
		if loaded {
			_ = f.Process.Signal(syscall.SIGCONT)
		} else {
			_ = f.Process.Signal(syscall.SIGSTOP)
		}
		time.Sleep(60 * time.Millisecond)
		m, mine := machineTicks(), processTicks(os.Getpid())+processTicks(c.Process.Pid)+processTicks(f.Process.Pid)
		s := span{from: time.Now(), loaded: loaded}
		time.Sleep(300 * time.Millisecond)
		s.to = time.Now()
		if loaded {
			floodTime += s.to.Sub(s.from)
		}
		s.others = machineTicks() - m - (processTicks(os.Getpid()) + processTicks(c.Process.Pid) + processTicks(f.Process.Pid) - mine)
		spans = append(spans, s)
	}
	n := handshakes() - before
	all := p.end()
	for _, limit := range []int{2, 3, limit, 8, 1000} {
		var got [2][]time.Duration
		count := [2]int{}
		var p99s [2][]time.Duration
		for _, s := range spans {
			if s.others > limit {
				continue
			}
			k := 0
			if s.loaded {
				k = 1
			}
			count[k]++
			var w []time.Duration
			for _, x := range all {
				if x.due.After(s.from) && x.due.Before(s.to) {
					w = append(w, x.took)
				}
			}
			got[k] = append(got[k], w...)
			p99s[k] = append(p99s[k], percentile(w, 0.99))
		}
		t.Logf("others ≤ %d: %v windows; quiet p50 %v p99 %v (median of windows' p99 %v), flood p50 %v p99 %v (%v): ratio %.2f, of medians %.2f", limit, count,
			percentile(got[0], .5), percentile(got[0], .99), percentile(p99s[0], .5), percentile(got[1], .5), percentile(got[1], .99), percentile(p99s[1], .5),
			float64(percentile(got[1], .99))/float64(percentile(got[0], .99)+1), float64(percentile(p99s[1], .5))/float64(percentile(p99s[0], .5)+1))
	}
	t.Logf("%.0f handshakes/s", n/floodTime.Seconds())
}
