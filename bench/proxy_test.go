package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestNginxStream(t *testing.T) {
	dir := t.TempDir()
	module := filepath.Join(dir, "ngx_stream_module.so")
	if err := os.WriteFile(module, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const preread = " --with-stream_ssl_preread_module"
	tests := []struct {
		name, arguments, modules, file string
		err                            error
	}{
		{"built in", "--with-stream" + preread, "", "", nil},
		{"dynamic, at its place", "--modules-path=" + dir + " --with-stream=dynamic" + preread, "", module, nil},
		{"dynamic, at a given place", "--modules-path=/nowhere --with-stream=dynamic" + preread, dir, module, nil},
		{"dynamic, not installed", "--modules-path=/nowhere --with-stream=dynamic" + preread, "", "", errNoStream},
		{"no preread", "--with-stream", "", "", errNoStream},
		{"none", "--with-threads", "", "", errNoStream},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file, err := nginxStream("nginx version: nginx/1.22.1\nconfigure arguments: "+test.arguments, test.modules)
			if file != test.file || !errors.Is(err, test.err) {
				t.Errorf("%q, %v", file, err)
			}
		})
	}
}

func TestCurvesFor(t *testing.T) {
	const hybrid = "X25519MLKEM768:X25519"
	tests := []struct {
		name, printed string
		modern        bool
		want          string
	}{
		{"old nginx", "built with OpenSSL 3.0.22 25 Aug 2026 (running with OpenSSL 3.0.19 27 Jan 2026)", true, "X25519"},
		{"new nginx, what runs counts", "built with OpenSSL 3.0.2 1 Jan (running with OpenSSL 3.5.1 1 Jul)", true, hybrid},
		{"new nginx, one number", "built with OpenSSL 3.6.0 1 Oct 2025", true, hybrid},
		{"new HAProxy", "Built with OpenSSL version : OpenSSL 3.5.0 8 Apr\nRunning on OpenSSL version : OpenSSL 3.5.0 8 Apr", true, hybrid},
		{"not asked for", "built with OpenSSL 3.6.0 1 Oct 2025", false, "X25519"},
		{"another library", "built with LibreSSL 4.0.0", true, "X25519"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := curvesFor(test.printed, test.modern); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestTemplatesRender(t *testing.T) {
	dir := t.TempDir()
	c, err := newCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := deployment{
		Dir: dir, Address: loopback, OriginAddress: loopback, Plain: 1, TLS: 2, Pass: 3, Admin: 4, OriginPlain: 5, OriginTLS: 6,
		HostBench: hostBench, HostPass: hostPass, HostGRPC: hostGRPC, Certificate: c,
	}
	tests := []struct {
		template string
		data     any
		wants    []string
	}{
		{"rivals/nginx.conf.tmpl", nginxConfig{deployment: d, Curves: "X25519", Stream: true, Module: "m.so"},
			[]string{"load_module m.so;", "127.0.0.1:1 ", "ssl_preread on;", c.keyFile, "NumTickets 0"}},
		{"rivals/haproxy.cfg.tmpl", haproxyConfig{d, "X25519"}, []string{"bind 127.0.0.1:1", c.bothFile, "no-tls-tickets"}},
		{"rivals/caddy.json.tmpl", caddyConfig{deployment: d}, []string{`"127.0.0.1:1"`, c.keyFile, `["1"]`, `["2"]`}},
		{"rivals/traefik.yml.tmpl", d, []string{"127.0.0.1:1", "127.0.0.1:2"}},
		{"rivals/traefik-routes.yml.tmpl", d, []string{"h2c://127.0.0.1:5", "passthrough: true", "[X25519]"}},
		{"rivals/envoy.yaml.tmpl", d, []string{"port_value: 5", hostGRPC, c.certFile}},
		{"manifests/bench.yaml.tmpl", d, []string{hostBench, "targetPort: 5", "port: 6", c.CertBase64(), `ssl-session-tickets: "false"`}},
	}
	for _, test := range tests {
		file := filepath.Join(dir, "out")
		if err := render(test.template, test.data, file); err != nil {
			t.Errorf("%s: %v", test.template, err)
			continue
		}
		text, _ := os.ReadFile(file)
		checkSyntax(t, test.template, text)
		for _, want := range test.wants {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: no %q", test.template, want)
			}
		}
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := freePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, port := range ports {
		l, err := net.Listen("tcp", local(port))
		if err != nil || seen[port] || port < portLow || port >= portHigh {
			t.Errorf("port %d: %v", port, err)
			continue
		}
		defer l.Close()
		seen[port] = true
	}
}

// checkSyntax reads what is YAML, or JSON, which is YAML too: rivals that are not installed here cannot.
func checkSyntax(t *testing.T, template string, text []byte) {
	t.Helper()
	if !strings.Contains(template, ".y") && !strings.Contains(template, ".json") {
		return
	}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var any map[string]any
		if err := yaml.Unmarshal([]byte(document), &any); err != nil || len(any) == 0 {
			t.Errorf("%s: %v", template, err)
		}
	}
}

// TestAllHaveTwoWorkers: on a machine of many processors one that takes them all would be compared with others on two.
func TestAllHaveTwoWorkers(t *testing.T) {
	file := func(name string) string {
		text, err := configurations.ReadFile("rivals/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for who, is := range map[string]struct{ said, want string }{
		"sluice":            {strings.Join(sluiceArguments(deployment{}, ""), "\n"), "--loops=2"},
		"nginx":             {file("nginx.conf.tmpl"), "worker_processes 2;"},
		"haproxy":           {file("haproxy.cfg.tmpl"), "nbthread 2"},
		"caddy":             {commandOf(t, findCaddy), "GOMAXPROCS=2"},
		"traefik":           {commandOf(t, findTraefik), "GOMAXPROCS=2"},
		"envoy":             {commandOf(t, findEnvoy), "--concurrency\n2"},
		"sluice, tunnels":   {tunnelCommand(t, nameSluice), "--loops=2"},
		"joined, tunnels":   {tunnelCommand(t, nameJoined), "--loops=2"},
		"haproxy's tunnels": {tunnelHAProxy, "nbthread 2"},
		"nginx's tunnels":   {tunnelNginx, "worker_processes 2;"},
	} {
		if !strings.Contains(is.said, is.want) {
			t.Errorf("%s is not given %q", who, is.want)
		}
	}
}

// commandOf is how a rival is started, with what it is told by its environment; one that tells its version is enough.
func commandOf(t *testing.T, find func(context.Context, options) (candidate, error)) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 1.2.3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := find(t.Context(), options{caddy: program, traefik: program, envoy: program})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := newCertificate(dir)
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := c.command(deployment{Dir: dir, Address: loopback, OriginAddress: loopback, Certificate: certificate})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(append(cmd.Args, cmd.Env...), "\n")
}

func tunnelCommand(t *testing.T, name string) string {
	t.Helper()
	relays := tunnelRelays("sluice", "haproxy", "nginx")
	i := slices.IndexFunc(relays, func(r tunnelRelay) bool { return r.name == name })
	args, err := relays[i].start(&tunnelBench{dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(args, "\n")
}
