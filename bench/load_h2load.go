package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// h2load is a cross-check of our own clients of HTTP/2: it is another's program, and the cost of the same work has to
// be the same. It prints no percentiles.

var errNoH2load = errors.New("h2load is not installed")

func noH2load(candidate) error {
	if _, err := exec.LookPath("h2load"); err != nil {
		return errNoH2load
	}
	return nil
}

// loadH2load is a loadFunc for HTTP/2 over TLS.
func loadH2load(ctx context.Context, l load, duration time.Duration) (loadResult, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+wrkSlack)
	defer cancel()
	c, err := startChild("h2load", exec.Command("h2load", h2loadArguments(l, duration)...))
	if err != nil {
		return loadResult{}, err
	}
	defer c.stop()
	select {
	case <-c.done:
	case <-ctx.Done():
		return loadResult{}, fmt.Errorf("h2load: %w", ctx.Err())
	}
	if c.err != nil {
		return loadResult{}, c.ended()
	}
	return parseH2load(c.tail.String())
}

func h2loadArguments(l load, duration time.Duration) []string {
	seconds := int((duration + time.Second - 1) / time.Second)
	_, port, _ := net.SplitHostPort(l.address)
	return []string{
		"-D", strconv.Itoa(seconds), "-c", strconv.Itoa(l.conns), "-m", strconv.Itoa(max(1, l.streams)), "-t", "1",
		"--connect-to=" + l.address, "-H", ":authority: " + l.host, "-H", "user-agent: bench", "-H", "accept: */*",
		"https://" + net.JoinHostPort(l.host, port) + l.path,
	}
}

var (
	h2loadRequests = regexp.MustCompile(`requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadStatuses = regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`)
	errH2load      = errors.New("h2load printed no report")
)

// parseH2load reads the two lines that count. What was under way at the end is neither done nor failed.
func parseH2load(printed string) (loadResult, error) {
	requests, statuses := h2loadRequests.FindStringSubmatch(printed), h2loadStatuses.FindStringSubmatch(printed)
	if requests == nil || statuses == nil {
		return loadResult{}, fmt.Errorf("%w: %s", errH2load, printed)
	}
	number := func(s string) int64 {
		n, _ := strconv.ParseInt(s, 10, 64) // digits by the pattern
		return n
	}
	result := loadResult{
		requests: number(statuses[1]),
		bad:      number(statuses[2]) + number(statuses[3]) + number(statuses[4]),
		errors:   number(requests[5]) + number(requests[6]),
	}
	if result.errors > 0 {
		result.example = fmt.Sprintf("h2load: %s errored, %s timeout", requests[5], requests[6])
	}
	return result, nil
}
