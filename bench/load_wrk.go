package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed load_wrk.lua
var wrkScript []byte

// wrkSlack is how long wrk may take beyond its duration to connect, to end and to print.
const wrkSlack = 10 * time.Second

// wrkLoad answers a loadFunc that runs wrk with one thread, which is faster than any proxy can answer on the
// cores that are left. Its latencies are corrected for coordinated omission by wrk itself.
func wrkLoad(dir string) (loadFunc, error) {
	script := filepath.Join(dir, "wrk.lua")
	if err := os.WriteFile(script, wrkScript, 0o600); err != nil {
		return nil, err
	}
	return func(ctx context.Context, l load, duration time.Duration) (loadResult, error) {
		ctx, cancel := context.WithTimeout(ctx, duration+wrkSlack)
		defer cancel()
		c, err := startChild("wrk", exec.Command("wrk", wrkArguments(l, duration, script)...))
		if err != nil {
			return loadResult{}, err
		}
		defer c.stop()
		select {
		case <-c.done:
		case <-ctx.Done():
			return loadResult{}, fmt.Errorf("wrk: %w", ctx.Err())
		}
		if c.err != nil {
			return loadResult{}, c.ended()
		}
		report, err := parseWrk([]byte(c.tail.String()))
		if err != nil {
			return loadResult{}, err
		}
		return report.result(l), nil
	}, nil
}

func wrkArguments(l load, duration time.Duration, script string) []string {
	scheme := "http"
	if l.tls != nil {
		scheme = "https"
	}
	_, port, _ := net.SplitHostPort(l.address)
	seconds := int((duration + time.Second - 1) / time.Second) // wrk knows no fractions
	return []string{
		"-t1", "-c" + strconv.Itoa(l.conns), fmt.Sprintf("-d%ds", seconds), "--timeout", "5s", "-s", script,
		"-H", "Host: " + l.host, "-H", "User-Agent: bench", "-H", "Accept: */*",
		scheme + "://" + net.JoinHostPort(l.host, port) + l.path,
	}
}

// A wrkReport is the line that load_wrk.lua prints.
type wrkReport struct {
	requests, bytes                        int64
	p50, p90, p99, p999                    int64 // microseconds
	connect, read, write, timeout, refused int64 // refused: status above 399
}

var errWrkOutput = errors.New("wrk printed no report")

// parseWrk finds the report in wrk's output.
func parseWrk(output []byte) (wrkReport, error) {
	var r wrkReport
	_, rest, found := bytes.Cut(output, []byte("bench: "))
	if !found {
		return r, fmt.Errorf("%w: %s", errWrkOutput, bytes.TrimSpace(output))
	}
	line, _, _ := strings.Cut(string(rest), "\n")
	fields := map[string]*int64{
		"requests": &r.requests, "bytes": &r.bytes, "p50": &r.p50, "p90": &r.p90, "p99": &r.p99, "p999": &r.p999,
		"connect": &r.connect, "read": &r.read, "write": &r.write, "timeout": &r.timeout, "status": &r.refused,
	}
	for _, field := range strings.Fields(line) {
		name, value, _ := strings.Cut(field, "=")
		to := fields[name]
		if to == nil {
			return r, fmt.Errorf("%w: unknown %q", errWrkOutput, field)
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return r, fmt.Errorf("%w: %q is not a number", errWrkOutput, field)
		}
		*to = n
		delete(fields, name)
	}
	if len(fields) > 0 {
		return r, fmt.Errorf("%w: %q lacks fields", errWrkOutput, line)
	}
	return r, nil
}

// result judges the report. wrk does not look at lengths, so the sum of bytes is compared with what right
// answers weigh. Each connection may have one answer under way.
func (r wrkReport) result(l load) loadResult {
	bad := r.refused
	off := r.bytes - r.requests*l.wire
	if off < 0 {
		off = -off
	}
	if slack := int64(l.conns+1) * l.wire; off > slack {
		bad = max(bad, (off-slack)/l.wire+1)
	}
	failed, example := r.connect+r.read+r.write+r.timeout, ""
	if failed > 0 {
		example = fmt.Sprintf("wrk: connect %d, read %d, write %d, timeout %d", r.connect, r.read, r.write, r.timeout)
	}
	return loadResult{
		requests: r.requests - r.refused,
		errors:   failed,
		bad:      bad,
		example:  example,
		latencies: quantiles{
			p50: time.Duration(r.p50) * time.Microsecond, p90: time.Duration(r.p90) * time.Microsecond,
			p99: time.Duration(r.p99) * time.Microsecond, p999: time.Duration(r.p999) * time.Microsecond,
		},
	}
}
