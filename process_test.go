package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// process is sluice as a process with both ports, whose memory and descriptors a test watches.
type process struct {
	*child
	https string
}

// startProcess serves manifests. limits is a shell's ulimit and environment before the program; "": as they are.
func startProcess(t *testing.T, stdout *os.File, limits, manifests string, flags ...string) *process {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	http, https := freePort(t), freePort(t)
	args := append([]string{"--manifests=" + dir, "--bind-address=127.0.0.1", fmt.Sprint("--http-port=", http), fmt.Sprint("--https-port=", https),
		"--admin-address=127.0.0.1:0", "--loops=2", "--enable-ssl-passthrough"}, flags...)
	p := &process{child: startLimited(t, stdout, limits, args...), https: fmt.Sprint("127.0.0.1:", https)}
	p.dir, p.http = dir, fmt.Sprint("127.0.0.1:", http)
	p.admin = p.logged(`msg="the admin page is open" address=(\S+)`)[1]
	p.logged(`msg=serving`)
	return p
}

func (p *process) write(name, text string) {
	p.t.Helper()
	whole, part := filepath.Join(p.dir, name), filepath.Join(p.dir, "."+name)
	if err := os.WriteFile(part, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(part, whole); err != nil {
		p.t.Fatal(err)
	}
}

// memory is what the process has resident, in bytes.
func (p *process) memory() int64 {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// files is how many descriptors the process has open.
func (p *process) files() int {
	p.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(list)
}

// metric is the sum of a metric's series; labels is a part of theirs.
func (p *process) metric(name, labels string) (sum float64) {
	p.t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:\{(.*)\})? (\S+)$`).FindAllStringSubmatch(metricsOf(p.t, p.admin), -1) {
		if v, err := strconv.ParseFloat(m[2], 64); err == nil && strings.Contains(m[1], labels) {
			sum += v
		}
	}
	return sum
}

// dialFrom connects from an address of loopback's, so that many clients are many sources.
func dialFrom(source, address string) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}
