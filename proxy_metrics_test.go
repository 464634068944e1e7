package main

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStaysAfterTheDrain: with --post-shutdown-grace-period a process answers probes when it has drained, until the period
// is over or a second signal comes.
func TestStaysAfterTheDrain(t *testing.T) {
	t.Parallel()
	c := startServing(t, 1, "--post-shutdown-grace-period=86400")
	c.signal(syscall.SIGTERM)
	c.logged(`msg="staying: a second signal ends the process at once" period=24h0m0s`)
	if !strings.Contains(c.logText(), "msg=drained") {
		t.Errorf("it stays before it has drained:\n%s", c.logText())
	}
	if conn, err := net.Dial("tcp", c.http); err == nil {
		_ = conn.Close()
		t.Error("the port is open after the drain")
	}
	if r, h := probe(t, "http://"+c.admin+"/readyz"), probe(t, "http://"+c.admin+"/healthz"); r != 503 || h != 500 {
		t.Errorf("after the drain, /readyz is %d and /healthz %d", r, h)
	}
	time.Sleep(signalEcho + 50*time.Millisecond)
	c.signal(syscall.SIGTERM)
	c.ends(30*time.Second, 0)
	c.logged("a second signal: ending at once")

	const period = 1200 * time.Millisecond
	c = startServing(t, 1, fmt.Sprint("--post-shutdown-grace-period=", period))
	began := time.Now()
	c.signal(syscall.SIGTERM)
	c.ends(30*time.Second, 0)
	if took := time.Since(began); took < period {
		t.Errorf("the process ended after %v", took)
	}
}

// TestMetricsOff: with --enable-metrics=false neither address has metrics, and both have their probes.
func TestMetricsOff(t *testing.T) {
	t.Parallel()
	port, _, answer := slowBackend(t)
	answer()
	c := startServing(t, port, "--enable-metrics=false", "--metrics-address=127.0.0.1:0")
	network := c.logged(`msg="metrics are open" address=(\S+)`)[1]
	if got := askSlow(t, c.http)(); !strings.HasPrefix(got, "200 done") {
		t.Error(got)
	}
	for path, want := range map[string]int{"/metrics": 404, "/healthz": 200, "/readyz": 200} {
		for _, address := range []string{c.admin, network} {
			if status := probe(t, "http://"+address+path); status != want {
				t.Errorf("%s%s answers %d, want %d", address, path, status, want)
			}
		}
	}
}

// TestMetricFlags: statuses are shown by their classes, metrics that are excluded are not, and histograms have the buckets
// that were asked for.
func TestMetricFlags(t *testing.T) {
	t.Parallel()
	port, _, answer := slowBackend(t)
	answer()
	c := startServing(t, port, "--report-status-classes", "--exclude-socket-metrics=nginx_ingress_controller_bytes_sent,response_size,nginx_ingress_controller_success",
		"--time-buckets=0.125,3600", "--length-buckets=7,70000")
	c.logged("--exclude-socket-metrics=success does nothing here")
	if got := askSlow(t, c.http)(); !strings.HasPrefix(got, "200 done") {
		t.Error(got)
	}
	const bucket = `(?m)^nginx_ingress_controller_%s_bucket\{.*ingress="wire".*le="%s"\} %d$`
	wanted := []*regexp.Regexp{regexp.MustCompile(`status="2xx"`)}
	for _, name := range []string{"request_duration_seconds", "response_duration_seconds"} {
		wanted = append(wanted, regexp.MustCompile(fmt.Sprintf(bucket, name, "3600", 1)))
	}
	wanted = append(wanted, regexp.MustCompile(fmt.Sprintf(bucket, "request_size", "7", 0)), regexp.MustCompile(fmt.Sprintf(bucket, "request_size", "70000", 1)))
	text, deadline := "", time.Now().Add(30*time.Second)
	for ; len(wanted) > 0; time.Sleep(5 * time.Millisecond) { // the numbers of an exchange do not come all at once
		text = metricsOf(t, c.admin)
		if wanted = slices.DeleteFunc(wanted, func(w *regexp.Regexp) bool { return w.MatchString(text) }); time.Now().After(deadline) {
			t.Fatalf("no %v in\n%s", wanted, text)
		}
	}
	if strings.Contains(text, `status="200"`) {
		t.Errorf("a status is shown beside its class:\n%s", text)
	}
	for name, want := range map[string]bool{"bytes_sent": false, "response_size": false, "request_size": true, "success": true} {
		if got := strings.Contains(text, "\nnginx_ingress_controller_"+name); got != want {
			t.Errorf("%s is shown: %v, want %v", name, got, want)
		}
	}
}
