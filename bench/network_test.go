package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestNetwork puts nginx into a namespace of its own and asks it over the veth pair. It needs root.
func TestNetwork(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip(8) is not installed")
	}
	c := rival(t, "nginx")
	n, err := newNetwork(t.Context())
	if err != nil {
		t.Skipf("namespaces are not to be had here: %v", err)
	}
	closed := false
	defer func() {
		if !closed {
			n.close()
		}
	}()
	r, _ := testRig(t)
	r.network = n
	if r.origin, err = startOrigin(r.certificate, n.origin()); err != nil {
		t.Fatal(err)
	}
	defer r.origin.stop()
	p, err := r.launch(t.Context(), c, shape{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if !strings.HasPrefix(p.plain, networkProxy+":") {
		t.Errorf("nginx is at %s", p.plain)
	}
	l := load{address: p.tls, host: hostBench, path: pathBulk, fresh: true, tls: r.certificate.client(hostBench, false)}
	if _, err := probe(t.Context(), l); err != nil {
		t.Error(err)
	}
	if _, err := readUsage(p.pid()); err != nil {
		t.Errorf("its usage: %v", err)
	}
	if command, _ := os.ReadFile(procFile(p.pid(), "comm")); strings.TrimSpace(string(command)) != "nginx" {
		t.Errorf("process %d is %s: its CPU would not be nginx's", p.pid(), command)
	}
	p.stop()
	n.close()
	closed = true
	if printed, _ := output(t.Context(), "ip", "link", "show", n.device); !strings.Contains(printed, "does not exist") {
		t.Errorf("the device is still there: %s", printed)
	}
}
