package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// interopCases are grpc-go's own, but for those that its server does not pass without a proxy either: pick_first_unary and
// the ORCA cases, and those that need accounts of a cloud.
var interopCases = []string{"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
	"special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
	"rpc_soak", "channel_soak"}

// TestGRPCInterop: each case of grpc-go's interop client that its server passes without a proxy passes through the whole
// program too, in TLS and without, towards backends of h2c and of HTTP/2 over TLS.
func TestGRPCInterop(t *testing.T) {
	client, server := builtTool(t, "interop-client"), builtTool(t, "interop-server")
	authority, err := testAuthority()
	if err != nil {
		t.Fatal(err)
	}
	certificate, _, err := authority.pem()
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	plain, secure := startInterop(t, server), startInterop(t, server, "--use_tls")
	pair := secretOf(t, "tls", issue(t, "calls.example", "secure.example"))
	p := startProxy(t, pair+
		site{name: "calls", host: "calls.example", secret: "tls", ports: []int{plain}, annotations: map[string]string{"backend-protocol": "GRPC"}}.yaml()+
		site{name: "any", host: "localhost", ports: []int{plain}, annotations: map[string]string{"backend-protocol": "GRPC"}}.yaml()+
		site{name: "secure", host: "secure.example", secret: "tls", ports: []int{secure}, annotations: map[string]string{"backend-protocol": "GRPCS"}}.yaml())
	_, port, _ := net.SplitHostPort(p.HTTP)
	ways := map[string]func(string) (string, error){
		"without a proxy": interop(client, "127.0.0.1:"+strconv.Itoa(plain)),
		"h2c to h2c":      interop(client, "localhost:"+port),
		"TLS to h2c":      interop(client, p.HTTPS, "--use_tls", "--use_test_ca", "--ca_file="+ca, "--server_host_override=calls.example"),
		"TLS to TLS":      interop(client, p.HTTPS, "--use_tls", "--use_test_ca", "--ca_file="+ca, "--server_host_override=secure.example"),
	}
	var all sync.WaitGroup
	for how, run := range ways {
		all.Go(func() {
			for _, name := range interopCases {
				out, err := run(name)
				for tries := 1; err != nil && tries < 3 && strings.Contains(out, overtaken); tries++ {
					out, err = run(name)
				}
				if err != nil {
					t.Errorf("%s, %s: %v\n%.400s", name, how, err, out)
				}
			}
		})
	}
	all.Wait()
}

// overtaken is what the client says when its own call ended before it had cancelled it, which happens without a proxy, too.
const overtaken = "CloseAndRecv() got error code 0, want 1"

// builtTool is a program of tools/go.mod, which make test builds.
func builtTool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("bin/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("bin/%s is not there: make bin/%s builds it", name, name)
	}
	return path
}

// startInterop starts grpc-go's interop server and gives its port.
func startInterop(t *testing.T, program string, args ...string) int {
	t.Helper()
	port := freePort(t)
	var out lockedBuffer
	cmd := exec.Command(program, append(args, "--port="+strconv.Itoa(port))...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	within(t, 30*time.Second, "the interop server listens", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return port
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// interop gives what runs one case against an address.
func interop(program, address string, args ...string) func(name string) (string, error) {
	host, port, _ := net.SplitHostPort(address)
	return func(name string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		all := append([]string{"--server_host=" + host, "--server_port=" + port, "--test_case=" + name,
			"--soak_iterations=5", "--soak_per_iteration_max_acceptable_latency_ms=20000", "--soak_overall_timeout_seconds=50"}, args...)
		out, err := exec.CommandContext(ctx, program, all...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
}
