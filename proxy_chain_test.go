package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of this file are about what a typical chain of filters costs: CORS, a rate limit, a rewrite with captures, the
// access log; beside a route of the same process that has none of them.

// chainSites are both routes; the log is switched off for the bare one.
func chainSites(port int) string {
	return site{name: "bare", host: "bare.example", ports: []int{port}, annotations: map[string]string{"enable-access-log": "false"}}.yaml() +
		typed(site{name: "chain", host: "chain.example", path: "/api(/|$)(.*)", ports: []int{port}, annotations: map[string]string{
			"rewrite-target": "/$2", "enable-cors": "true", "cors-allow-origin": "https://app.example", "limit-rps": "100000"}}, "ImplementationSpecific") +
		configMapOf("keep-alive-requests", "1000000")
}

// chainRequest is what both get, but for the host.
func chainRequest(host string) []byte {
	return []byte("GET /api/small HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench\r\nAccept: */*\r\nOrigin: https://app.example\r\n\r\n")
}

// cannedBackend answers every request alike, and allocates nothing.
func cannedBackend(t testing.TB) int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 128\r\nContent-Type: text/plain\r\n\r\n" + strings.Repeat("x", 128))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in, end := make([]byte, 64<<10), []byte("\r\n\r\n")
				for n := 0; ; {
					k, err := c.Read(in[n:])
					if err != nil {
						return
					}
					for n += k; ; {
						at := bytes.Index(in[:n], end)
						if at < 0 {
							break
						}
						n = copy(in, in[at+len(end):n])
						if _, err := c.Write(answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// chainCaller sends one request again and again over a connection, and allocates nothing once it knows the answer's length.
type chainCaller struct {
	conn        net.Conn
	request, in []byte
	answer      int
}

func newChainCaller(t testing.TB, address, host, field string) *chainCaller {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &chainCaller{conn: conn, request: chainRequest(host), in: make([]byte, 4<<10)}
	if _, err := conn.Write(c.request); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for !bytes.HasSuffix(c.in[:c.answer], bytes.Repeat([]byte("x"), 128)) {
		n, err := conn.Read(c.in[c.answer:])
		if err != nil {
			t.Fatalf("%v after %q", err, c.in[:c.answer])
		}
		c.answer += n
	}
	_ = conn.SetReadDeadline(time.Time{})
	if head := string(c.in[:c.answer]); !strings.HasPrefix(head, "HTTP/1.1 200 ") || strings.Contains(head, "Access-Control-Allow-Origin: https://app.example") != (field != "") {
		t.Fatalf("%s answers %q", host, head)
	}
	return c
}

func (c *chainCaller) call(n int) error {
	for range n {
		if _, err := c.conn.Write(c.request); err != nil {
			return err
		}
		if _, err := io.ReadFull(c.conn, c.in[:c.answer]); err != nil {
			return err
		}
	}
	return nil
}

// TestChainAllocatesNothing counts the allocations of the whole process.
func TestChainAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	log := &lockedBuffer{}
	p := startProxyLogging(t, log, chainSites(cannedBackend(t)), "--loops=1", configMapFlag)
	c := newChainCaller(t, p.HTTP, "chain.example", "CORS")
	if err := c.call(500); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, "the chain's requests are logged", func() bool { return strings.Count(log.String(), "GET /api/small") >= 100 })
	least := uint64(1 << 62)
	for range 5 { // the proxy's own clockwork allocates now and then: the calmest of some rounds is the chain's
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := c.call(1000); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	if least > 100 {
		t.Errorf("%d allocations in 1,000 requests", least)
	}
}

// BenchmarkChainRequest is a request on either route, the proxy in this process: what it allocates is in the rows of -benchmem.
func BenchmarkChainRequest(b *testing.B) {
	p := startProxyLogging(b, io.Discard, chainSites(cannedBackend(b)), "--loops=1", configMapFlag)
	for _, c := range []struct{ name, field string }{{"bare", ""}, {"chain", "CORS"}} {
		b.Run(c.name, func(b *testing.B) {
			caller := newChainCaller(b, p.HTTP, c.name+".example", c.field)
			if err := caller.call(500); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			if err := caller.call(b.N); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkChain runs the program, and tells what a request costs it on either route, in rounds that take turns; the ratio
// is the median of the rounds'. Goal: at most 1.15.
func BenchmarkChain(b *testing.B) {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(chainSites(cannedBackend(b))), 0o600); err != nil {
		b.Fatal(err)
	}
	port := freePort(b)
	command := program("--manifests="+dir, "--bind-address=127.0.0.1", fmt.Sprintf("--http-port=%d", port), "--https-port=0", "--admin-address=", "--loops=1", configMapFlag)
	if err := command.Start(); err != nil { // the access log goes to the null device
		b.Fatal(err)
	}
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			break
		}
		if time.Since(began) > 30*time.Second {
			b.Fatal(err)
		}
	}
	var bare, chain []*chainCaller
	for range 16 {
		bare, chain = append(bare, newChainCaller(b, address, "bare.example", "")), append(chain, newChainCaller(b, address, "chain.example", "CORS"))
	}
	round := func(callers []*chainCaller) float64 {
		const each = 500
		before := processTime(b, command.Process.Pid)
		var all sync.WaitGroup
		for _, c := range callers {
			all.Go(func() {
				if err := c.call(each); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
		return float64(processTime(b, command.Process.Pid)-before) / float64(each*len(callers))
	}
	round(bare)
	round(chain)
	var ratios, costs []float64
	for i := 0; b.Loop(); i++ {
		first, second := bare, chain
		if i%2 == 1 {
			first, second = chain, bare
		}
		one, two := round(first), round(second)
		if i%2 == 1 {
			one, two = two, one
		}
		ratios, costs = append(ratios, two/one), append(costs, one)
	}
	slices.Sort(ratios)
	slices.Sort(costs)
	b.ReportMetric(ratios[len(ratios)/2], "chain/bare")
	b.ReportMetric(costs[len(costs)/2], "cpu-ns/bare-request")
	b.ReportMetric(0, "ns/op")
}

// processTime is the processor time of a process, by its threads, in nanoseconds.
func processTime(t testing.TB, pid int) (sum int64) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		t.Skip("this kernel does not tell schedstat")
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue // a thread that has ended
		}
		line, _ := bufio.NewReader(f).ReadString('\n')
		f.Close()
		if fields := strings.Fields(line); len(fields) > 0 {
			n, _ := strconv.ParseInt(fields[0], 10, 64)
			sum += n
		}
	}
	return sum
}
