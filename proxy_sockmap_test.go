package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/ebpf"
)

// The tests of this file are about tunnels that the kernel moves, through the whole program.

// needSockmap skips where sockets cannot be joined, with the reason.
func needSockmap(t *testing.T) {
	t.Helper()
	m, u := ebpf.Open(ebpf.Options{})
	if u != nil {
		t.Skipf("no sockmap here: %v", u)
	}
	m.Close()
}

// chatSites are a host for WebSocket, and one that is passed through, on one process.
func chatSites(chat, pass int, annotations map[string]string) string {
	web := map[string]string{"ssl-redirect": "false"}
	through := map[string]string{"ssl-passthrough": "true"}
	maps.Copy(web, annotations)
	maps.Copy(through, annotations)
	return site{name: "chat", host: "chat.example", ports: []int{chat}, annotations: web}.yaml() +
		site{name: "pass", host: "pass.example", ports: []int{pass}, annotations: through}.yaml()
}

// echoBackend sends back what comes, and ends when its client has.
func echoBackend(t *testing.T) *rawBackend {
	return newRawBackend(t, func(c *net.TCPConn) {
		_, _ = io.Copy(onlyWriter{c}, onlyReader{c})
		_ = c.CloseWrite()
	})
}

type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

// tunnelled opens a connection that is passed through to an echo: the hello comes back.
func tunnelled(t *testing.T, address string) net.Conn {
	t.Helper()
	hello := helloOf(t, &tls.Config{ServerName: "pass.example", InsecureSkipVerify: true})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	if err := expectText(conn, string(hello)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestSockmapProcess has the same tunnels with --sockmap=off and on, and with the annotation against the flag: what users see
// in the access log and the metrics is the same, and only the sockmap's own metrics tell who moved the bytes.
func TestSockmapProcess(t *testing.T) {
	needSockmap(t)
	chat, pass := upgrader(t), echoBackend(t)
	lines := map[string]string{}
	for _, c := range []struct {
		name, flag  string
		annotations map[string]string
		joined      float64
	}{
		{name: "off", flag: "--sockmap=off"},
		{name: "on", flag: "--sockmap=on", joined: 2},
		{name: "annotated off", flag: "--sockmap=on", annotations: map[string]string{"sluice.dev/sockmap": "off"}},
		{name: "annotated on", flag: "--sockmap=auto", annotations: map[string]string{"sluice.dev/sockmap": "on"}, joined: 2},
		{name: "auto, short", flag: "--sockmap=auto"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startProcess(t, nil, "", chatSites(chat.port(), pass.port(), c.annotations), c.flag)
			within(t, editLimit, "the route", func() bool {
				return ask(t, p.http, nil, "chat.example", "/no", strings.TrimSuffix(upgradeFields, "\r\n")).status == 403
			})
			web, reader := upgraded(t, p.http, nil, "chat.example")
			through := tunnelled(t, p.https)
			for i := range 100 {
				echoes(t, web, reader, fmt.Sprint("message ", i))
				echoes(t, through, through, fmt.Sprint("message ", i))
			}
			if n := p.metric("sluice_sockmap_tunnels_active", ""); n != c.joined {
				t.Errorf("%v tunnels are the kernel's, want %v", n, c.joined)
			}
			_ = web.(*net.TCPConn).CloseWrite()
			_ = through.(*net.TCPConn).CloseWrite()
			for _, r := range []io.Reader{reader, through} {
				if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
					t.Errorf("after our end came %q, %v", rest, err)
				}
			}
			within(t, callTimeout, "the tunnels' end", func() bool {
				return p.metric("sluice_tunnels_active", "") == 0 && p.metric("sluice_passthrough_tunnels_active", "") == 0
			})
			if n := p.metric("sluice_sockmap_tunnels_active", ""); n != 0 {
				t.Errorf("%v tunnels are still the kernel's", n)
			}
			up, down := p.metric("sluice_tunnel_bytes_total", "received"), p.metric("sluice_tunnel_bytes_total", "sent")
			if least := float64(100 * len("message 0")); up < least || down < least {
				t.Errorf("%v bytes were received and %v sent", up, down)
			}
			p.stopChild(t)
			lines[c.name] = fmt.Sprintf("%s%v bytes received, %v sent", tunnelLine(p.out.String()), up, down)
		})
	}
	for name, line := range lines {
		if line != lines["off"] || !strings.Contains(line, " 101 ") {
			t.Errorf("access log and metrics say with %s\n%s\nwith off\n%s", name, line, lines["off"])
		}
	}
}

// stopChild ends a process and waits for it.
func (p *process) stopChild(t *testing.T) {
	t.Helper()
	_ = p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("SIGTERM does not end the process")
	}
}

// tunnelLine is the access log's line of an upgrade, without what differs from run to run.
func tunnelLine(log string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, " 101 ") {
			line = regexp.MustCompile(`\[[^\]]*\d{4}:[^\]]*\]`).ReplaceAllString(line, "[time]")
			line = regexp.MustCompile(`\b\d+\.\d{3}\b`).ReplaceAllString(line, "0")
			line = regexp.MustCompile(`\b[0-9a-f]{32}\b`).ReplaceAllString(line, "id")
			return line
		}
	}
	return ""
}

// TestSockmapCapabilities takes the capabilities away one by one: the process serves all the same, and says what it lacks.
func TestSockmapCapabilities(t *testing.T) {
	needSockmap(t)
	if _, err := exec.LookPath("setpriv"); err != nil || os.Getuid() != 0 {
		t.Skip("needs setpriv, and root to drop rights from")
	}
	pass := echoBackend(t)
	for rights, want := range map[string]string{
		"":                         "lacks CAP_BPF .*, CAP_NET_ADMIN .*, CAP_PERFMON",
		"+net_admin,+perfmon":      "lacks CAP_BPF ",
		"+bpf,+perfmon":            "lacks CAP_NET_ADMIN ",
		"+bpf,+net_admin":          "lacks CAP_PERFMON ",
		"+bpf,+net_admin,+perfmon": "",
	} {
		t.Run(rights, func(t *testing.T) {
			only := "-all"
			if rights != "" {
				only += "," + rights
			}
			p := startProcess(t, nil, fmt.Sprintf(`exec setpriv --bounding-set=%s --inh-caps=%s --ambient-caps=-all "$0" "$@"`, only, only),
				chatSites(1, pass.port(), nil), "--sockmap=on")
			c := tunnelled(t, p.https)
			echoes(t, c, c, "served all the same")
			state := p.metric("sluice_sockmap_available", "")
			if want == "" {
				if state != 1 {
					t.Error("with all three it is not available")
				}
				within(t, callTimeout, "the tunnel to be the kernel's", func() bool { return p.metric("sluice_sockmap_tunnels_active", "") == 1 })
				return
			}
			p.logged("tunnels are not joined in the kernel.*reason=capability.*" + want)
			if state != 0 || !strings.Contains(metricsOf(t, p.admin), `sluice_sockmap_available{reason="capability"} 0`) {
				t.Error("the metric does not tell")
			}
		})
	}
}

// TestSockmapKilled: when the process is killed both peers see the end, and nothing stays in the kernel.
func TestSockmapKilled(t *testing.T) {
	needSockmap(t)
	ended := make(chan error, 1)
	pass := newRawBackend(t, func(c *net.TCPConn) {
		_, err := io.Copy(onlyWriter{c}, onlyReader{c})
		ended <- err
	})
	p := startProcess(t, nil, "", chatSites(1, pass.port(), nil), "--sockmap=on")
	c := tunnelled(t, p.https)
	echoes(t, c, c, "alive")
	own := sockmapsOf(t, p.Process.Pid)
	if len(own) != 1 {
		t.Errorf("the process has the programs %v", own)
	}
	within(t, callTimeout, "the tunnel to be the kernel's", func() bool { return p.metric("sluice_sockmap_tunnels_active", "") == 1 })
	_ = p.Process.Kill()
	<-p.ended
	if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the client saw %v", err)
	}
	select {
	case <-ended:
	case <-time.After(callTimeout):
		t.Error("the backend sees no end")
	}
	within(t, 30*time.Second, "the program to leave the kernel", func() bool {
		return !slices.ContainsFunc(sockmapsLoaded(t), func(id uint32) bool { return slices.Contains(own, id) })
	})
}

// sockmapsOf are the IDs of the program as a process holds it; other processes of this machine may have theirs.
func sockmapsOf(t *testing.T, pid int) (ids []uint32) {
	t.Helper()
	loaded := sockmapsLoaded(t)
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // one that was closed meanwhile is no program's
		for line := range strings.Lines(string(text)) {
			var id uint32
			if n, _ := fmt.Sscanf(line, "prog_id: %d", &id); n == 1 && slices.Contains(loaded, id) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// sockmapsLoaded are the IDs of the program in the kernel, of all processes.
func sockmapsLoaded(t *testing.T) []uint32 {
	t.Helper()
	ids, err := ebpf.Loaded()
	if err != nil {
		t.Fatal(err)
	}
	return ids
}
