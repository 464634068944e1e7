package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain lets the test's binary be the program: its tests of signals, exit statuses and the demo start it as a process.
func TestMain(m *testing.M) {
	if os.Getenv("SLUICE_TEST_MAIN") != "" {
		os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// program is sluice as a process, with an environment that names no cluster.
func program(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "KUBE") {
			c.Env = append(c.Env, v)
		}
	}
	c.Env = append(c.Env, "SLUICE_TEST_MAIN=1")
	return c
}

// runProgram answers what a short-lived process printed, and its exit status.
func runProgram(t *testing.T, environment []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	c := program(args...)
	c.Env = append(c.Env, environment...)
	var out, errors bytes.Buffer
	c.Stdout, c.Stderr = &out, &errors
	if err := c.Run(); err != nil {
		if _, ok := err.(*exec.ExitError); !ok {
			t.Fatal(err)
		}
	}
	return out.String(), errors.String(), c.ProcessState.ExitCode()
}

func TestExitStatuses(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name        string
		args        []string
		environment []string
		status      int
		stderr      string // holds
	}{
		{"no source", nil, nil, 2, "--manifests=DIR, or --kubeconfig=FILE (or $KUBECONFIG)"},
		{"two sources", []string{"--manifests=" + dir, "--kubeconfig=x"}, nil, 2, "two sources"},
		{"a cluster", []string{"--kubeconfig=x"}, nil, 1, "kubeconfig x: stat x: no such file"},
		{"a cluster by environment", nil, []string{"KUBECONFIG=x"}, 1, "kubeconfig x: stat x: no such file"},
		{"clusters by environment", nil, []string{"KUBECONFIG=x:y"}, 1, "kubeconfig x:y: "},
		{"two ways to name namespaces", []string{"--kubeconfig=x", "--watch-namespace=a", "--watch-namespace-selector=b"}, nil, 2, "two ways"},
		{"unknown flag", []string{"--htp-port=80"}, nil, 2, "unknown flag --htp-port: did you mean --http-port?"},
		{"bad value", []string{"--http-port=http"}, nil, 2, "--http-port=http: give a number from 0 to 65535"},
		{"unknown command", []string{"serve"}, nil, 2, "unknown command serve"},
		{"everything off", []string{"--manifests=" + dir, "--http-port=0", "--https-port=0"}, nil, 2, "switch everything off"},
		{"admin address in use", []string{"--manifests=" + dir, "--admin-address=256.0.0.1:1"}, nil, 1, "choose another --admin-address"},
		{"demo with manifests", []string{"demo", "--manifests=" + dir}, nil, 2, "brings its own manifests"},
		{"lint without a directory", []string{"lint", "--manifests=" + dir + "/gone"}, nil, 1, "no such file"},
		{"version with arguments", []string{"version", "please"}, nil, 2, "takes none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, stderr, status := runProgram(t, c.environment, c.args...)
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			if last := lines[len(lines)-1]; status != c.status || !strings.HasPrefix(last, "sluice: ") || !strings.Contains(last, c.stderr) {
				t.Errorf("status %d, want %d; standard error is\n%s\nwant %q", status, c.status, stderr, c.stderr)
			}
			if c.status == 2 && len(lines) != 1 {
				t.Errorf("a mistake on the command line takes %d lines:\n%s", len(lines), stderr)
			}
		})
	}
}

func TestTextCommands(t *testing.T) {
	for command, want := range map[string]string{
		"version": "sluice ", "--help": "--manifests=DIR", "-h": "--manifests=DIR", "help": "--manifests=DIR", "annotations": "rewrite-target",
	} {
		if stdout, stderr, status := runProgram(t, nil, command); status != 0 || !strings.Contains(stdout, want) || stderr != "" {
			t.Errorf("%s: status %d, standard error %q, standard output\n%s", command, status, stderr, stdout)
		}
	}
}

func TestLint(t *testing.T) {
	p := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(p+"/a.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
	if stdout, _, status := runProgram(t, nil, "lint", "--manifests="+p); status != 0 || stdout != "0 Ingresses: no problem\n" {
		t.Errorf("status %d, %q", status, stdout)
	}
	write("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web, namespace: shop}\nspec: {ingressClassName: nginx, rules: " +
		"[{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: gone, port: {number: 80}}}}]}}]}\n" +
		"---\napiVersion: v1\nkind: Service\nmetadata: {name: x}\nspecs: {}\n")
	stdout, stderr, status := runProgram(t, nil, "lint", "--manifests="+p)
	if status != 1 || stderr != "" || !strings.Contains(stdout, "Ingress shop/web: ") || !strings.Contains(stdout, "specs: unknown field") ||
		!strings.Contains(stdout, "a.yaml, document 1)") {
		t.Errorf("status %d, standard error %q, standard output\n%s", status, stderr, stdout)
	}
}
