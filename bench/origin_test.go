package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startTestOrigin serves both origins in this process and answers their addresses.
func startTestOrigin(t *testing.T) (plain, secured string, c *certificate, counts *os.File) {
	t.Helper()
	c, err := newCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	counts, err = newTallyFile()
	if err != nil {
		t.Fatal(err)
	}
	var ports [2]int
	var fds [2]int
	for i := range ports {
		file, err := listenFile(loopback, &ports[i])
		if err != nil {
			t.Fatal(err)
		}
		fds[i] = int(file.Fd())
		t.Cleanup(func() { file.Close() })
	}
	go servePlain(fds[0], tallyFile{counts, slotPlain})
	go serveTLS(fds[1], c.certFile, c.keyFile, tallyFile{counts, slotTLS})
	return local(ports[0]), local(ports[1]), c, counts
}

// startDatagrams runs the origin of datagrams, and answers its address.
func startDatagrams(t *testing.T, counts *os.File) string {
	t.Helper()
	var port int
	file, err := datagramFile(loopback, &port)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(file.Fd()))
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	go serveDatagrams(fd, tallyFile{counts, slotUDP})
	return local(port)
}

func TestOriginAnswers(t *testing.T) {
	plain, secured, c, counts := startTestOrigin(t)
	for _, path := range []string{pathSmall, pathBulk, "/else"} {
		if _, err := probe(t.Context(), load{address: plain, host: hostBench, path: path}); err != nil {
			t.Errorf("plain %s: %v", path, err)
		}
		seen, err := probe(t.Context(), load{address: secured, host: hostPass, path: path, tls: c.client(hostPass, false)})
		if err != nil {
			t.Errorf("TLS %s: %v", path, err)
		}
		if seen.curve != "X25519" {
			t.Errorf("TLS %s: curve %s", path, seen.curve)
		}
	}
	want := tally{3, uint64(len(answerSmall)*2 + len(answerBulk))}
	for _, slot := range []int64{slotPlain, slotTLS} {
		waitFor(t, func() bool { got, err := tallyFile{counts, slot}.read(); return err == nil && got == want })
	}
}

// waitFor polls, as the origin counts after it has written.
func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for range 200 {
		if what() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("did not come true in 2 s")
}

func TestPlainOriginOnTheWire(t *testing.T) {
	plain, _, _, _ := startTestOrigin(t)
	small := string(request(hostBench, pathSmall))
	bulk := string(request(hostBench, pathBulk))
	slow := string(request(hostBench, pathSlow))
	tests := []struct {
		name   string
		pieces []string
		want   []byte
	}{
		{"in pieces", []string{small[:3], small[3:9], small[9 : len(small)-1], small[len(small)-1:]}, answerSmall},
		{"pipelined", []string{small + small + small[:5], small[5:]}, bytes.Repeat(answerSmall, 3)},
		{"pipelined behind a body that blocks", []string{bulk + bulk + bulk + bulk + small},
			append(bytes.Repeat(answerBulk, 4), answerSmall...)},
		{"slow, and pipelined behind it", []string{slow + small + slow[:5], slow[5:]}, bytes.Repeat(answerSmall, 3)},
		{"not GET", []string{"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"}, answerRefused},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", plain)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			for _, piece := range test.pieces {
				io.WriteString(conn, piece)
				time.Sleep(time.Millisecond) // let it arrive as a piece; the outcome does not hang on it
			}
			got := make([]byte, len(test.want))
			if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, test.want) {
				t.Errorf("%v; equal: %v", err, bytes.Equal(got, test.want))
			}
		})
	}
}

func TestPlainOriginEndsEndlessHeads(t *testing.T) {
	plain, _, _, _ := startTestOrigin(t)
	conn, err := net.Dial("tcp", plain)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	conn.Write(bytes.Repeat([]byte("a"), 2*headMax))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes; want the end", n)
	}
}

func TestLoadsAgainstTheOrigin(t *testing.T) {
	plain, secured, c, counts := startTestOrigin(t)
	datagrams := startDatagrams(t, counts)
	const duration = 100 * time.Millisecond
	tests := []struct {
		name string
		by   loadFunc
		load load
		slot int64
	}{
		{"plain", loadKept, load{address: plain, host: hostBench, path: pathSmall, conns: 8}, slotPlain},
		{"plain bulk", loadKept, load{address: plain, host: hostBench, path: pathBulk, conns: 2}, slotPlain},
		{"plain, sent up", loadKept, load{address: plain, host: hostBench, path: pathSmall, conns: 2, upload: sizeBulk}, slotPlain},
		{"kept TLS", loadKept, load{address: secured, host: hostPass, path: pathSmall, conns: 4, tls: c.client(hostPass, false)}, slotTLS},
		{"kept TLS bulk", loadKept, load{address: secured, host: hostPass, path: pathBulk, conns: 2, tls: c.client(hostPass, false)}, slotTLS},
		{"WebSocket", loadKept, load{address: plain, host: hostBench, conns: 4, speaks: speakWebSocket}, slotPlain},
		{"HTTP/2", loadKept, load{address: plain, host: hostBench, path: pathSmall, conns: 2, speaks: speakHTTP2, streams: 10}, slotPlain},
		{"HTTP/2 bulk", loadKept, load{address: plain, host: hostBench, path: pathBulk, conns: 2, speaks: speakHTTP2, streams: 2}, slotPlain},
		{"HTTP/2, sent up", loadKept, load{address: plain, host: hostBench, path: pathSmall, conns: 2, speaks: speakHTTP2, upload: sizeBulk}, slotPlain},
		{"gRPC", loadKept, load{address: plain, host: hostBench, conns: 2, speaks: speakGRPC, streams: 10}, slotPlain},
		{"TLS", loadConns, load{address: secured, host: hostPass, path: pathSmall, conns: 4, tls: c.client(hostPass, false)}, slotTLS},
		{"new TLS", loadConns, load{address: secured, host: hostPass, path: pathSmall, conns: 4, fresh: true, tls: c.client(hostPass, true)}, slotTLS},
		{"datagrams", loadDatagrams, load{address: datagrams, conns: 4}, slotUDP},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := tallyFile{counts, test.slot}
			before, _ := file.read()
			got, err := test.by(t.Context(), test.load, duration)
			for longer := 4 * duration; err == nil && got.requests == 0 && longer < 10*time.Second; longer *= 4 { // a busy machine
				before, _ = file.read()
				got, err = test.by(t.Context(), test.load, longer)
			}
			if err != nil || got.errors != 0 || got.bad != 0 || got.requests == 0 || got.latencies.p99 < got.latencies.p50 || got.latencies.p50 == 0 {
				t.Errorf("%+v, %v", got, err)
			}
			var served int64
			waitFor(t, func() bool { // the origin counts after it has written
				after, _ := file.read()
				served = int64(after.Requests - before.Requests)
				return served >= got.requests
			})
			if served > got.requests+int64(test.load.conns*max(1, test.load.streams))+20 { // the former test's last ones
				t.Errorf("clients saw %d answers, the origin gave %d", got.requests, served)
			}
		})
	}
}

func TestLoadCountsFailures(t *testing.T) {
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	l := load{address: local(ports[0]), host: hostBench, path: pathSmall, conns: 2}
	for name, by := range map[string]loadFunc{"epoll": loadKept, "conns": loadConns} {
		got, err := by(t.Context(), l, 5*time.Second)
		if err == nil || got.errors < errorsMax || got.example == "" {
			t.Errorf("%s: nobody listens: %+v, %v", name, got, err)
		}
	}
}

func TestSlowAnswersAreSlow(t *testing.T) {
	plain, _, _, _ := startTestOrigin(t)
	start := time.Now()
	if _, err := probe(t.Context(), load{address: plain, host: hostBench, path: pathSlow}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < slowAfter {
		t.Errorf("answered after %v", took)
	}
}

// TestOpenLoopKeepsItsPace wants as many requests as are due, at a rate far below what the origin can do.
func TestOpenLoopKeepsItsPace(t *testing.T) {
	plain, _, _, _ := startTestOrigin(t)
	for _, l := range []load{
		{conns: 4, path: pathSmall},
		{conns: 2, path: pathSmall, speaks: speakHTTP2, streams: 4},
		{conns: 2, speaks: speakWebSocket},
	} {
		l.address, l.host, l.rate = plain, hostBench, 500
		got, err := loadKept(t.Context(), l, 400*time.Millisecond)
		if err != nil || got.errors+got.bad > 0 {
			t.Fatalf("%+v, %v", got, err)
		}
		if got.requests+got.late > 200 || got.requests < 10 { // a machine under load may start late, never early
			t.Errorf("%d requests and %d late ones in 0.4 s at 500/s", got.requests, got.late)
		}
	}
}

// TestOpenLoopCountsWaiting stalls a server: requests that were due meanwhile have waited, sent or not.
func TestOpenLoopCountsWaiting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.ReadAll(conn) // and never an answer
	}()
	got, err := loadKept(t.Context(), load{address: l.Addr().String(), host: hostBench, path: pathSmall, conns: 1, rate: 200}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got.requests != 0 || got.late < 100 || got.late > 200 {
		t.Errorf("%d answers, %d late; want none and about 199", got.requests, got.late)
	}
	if p50 := got.latencies.p50; p50 < 300*time.Millisecond || p50 > time.Second {
		t.Errorf("p50 is %v; half of them waited half a second", p50)
	}
}
