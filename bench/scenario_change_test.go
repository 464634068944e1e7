package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestQuietFaultsCount: a row that compares two loads of one process is void if either of them went wrong.
func TestQuietFaultsCount(t *testing.T) {
	counts, err := newTallyFile()
	if err != nil {
		t.Fatal(err)
	}
	defer counts.Close()
	work := tallyFile{counts, slotPlain}
	served := sharedTally{tallyFile: work}
	var asked, changed atomic.Int64 // requests; versions in place
	changed.Store(1)
	plain := serveTest(t, func(conn net.Conn) {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			served.add(1, sizeSmall)
			answer := answerSmall
			if n := asked.Add(1); n > 1 && changed.Load() == 1 { // the probe is right, the rest of the quiet time is not
				answer = []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
			}
			conn.Write(bytes.Repeat(answer, bytes.Count(buf[:n], endOfHead)))
		}
	})
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "sluice_applies_total{result=\"applied\"} %d\n", changed.Add(1)) // so the quiet time is over
	}))
	defer admin.Close()
	host, port, _ := strings.Cut(strings.TrimPrefix(admin.URL, "http://"), ":")
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	p := &running{
		child: &child{cmd: &exec.Cmd{Process: self}, done: make(chan struct{})}, plain: plain,
		candidate: candidate{change: func(*running) error { return nil }},
	}
	p.deployment.Address = host
	p.deployment.Admin, _ = strconv.Atoi(port)
	r := &rig{options: options{duration: 40 * time.Millisecond}, origin: &origin{plain: work}, fixedRate: 200}
	m, err := duringChanges(1)(t.Context(), r, p)
	if err != nil {
		t.Fatal(err)
	}
	if m.Bad == 0 || m.NotHeld == "" {
		t.Errorf("%d bad answers, not held: %q; the quiet time had none that was right", m.Bad, m.NotHeld)
	}
}
