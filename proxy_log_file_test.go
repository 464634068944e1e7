package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAccessLogPath is the life of a log file: the ConfigMap moves the log there and away, whoever rotates it renames it and
// sends SIGUSR1, and what cannot be opened costs no request.
func TestAccessLogPath(t *testing.T) {
	b := newBackend(t, "one", nil)
	stdoutPath, logPath := filepath.Join(t.TempDir(), "stdout"), filepath.Join(t.TempDir(), "access.log")
	stdout, err := os.Create(stdoutPath)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	rest := site{name: "shop", host: "shop.example", ports: []int{b.port()}}.yaml()
	p := startProcess(t, stdout, "", rest+configMapOf("access-log-path", logPath), configMapFlag)
	seen := func(path, text string) {
		t.Helper()
		within(t, 30*time.Second, text+" in "+path, func() bool {
			ask(t, p.http, nil, "shop.example", "/"+text).want(t, 200, "one")
			all, _ := os.ReadFile(path)
			return strings.Contains(string(all), "GET /"+text+" ")
		})
	}
	seen(logPath, "first")
	if all, _ := os.ReadFile(stdoutPath); len(all) > 0 {
		t.Errorf("standard output has %q from before the file was open", all)
	}
	if err := os.Rename(logPath, logPath+".1"); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGUSR1)
	p.logged("SIGUSR1")
	seen(logPath, "second")
	if all, _ := os.ReadFile(logPath + ".1"); strings.Contains(string(all), "GET /second ") && !strings.Contains(string(all), "GET /first ") {
		t.Errorf("the renamed file has %q", all)
	}

	p.write("all.yaml", rest)
	seen(stdoutPath, "third")
	p.write("all.yaml", rest+configMapOf("access-log-path", filepath.Join(logPath, "below-a-file")))
	p.logged("the access log's file cannot be opened: standard output has its lines until it can be opened.*below-a-file.*not a directory")
	seen(stdoutPath, "fourth")
	p.write("all.yaml", rest+configMapOf("http-access-log-path", logPath))
	seen(logPath, "fifth")
	p.signal(syscall.SIGTERM)
	p.ends(30*time.Second, 0)
}

// TestStreamLogPath: connections of TCP services are logged to a file of their own.
func TestStreamLogPath(t *testing.T) {
	dir := t.TempDir()
	one := named(t, "one")
	port := freePort(t)
	streams, requests := filepath.Join(dir, "streams"), filepath.Join(dir, "requests")
	web := site{name: "web", host: "web.example", ports: []int{application(t, told)}}.yaml()
	p := startProxy(t, web+serviceOf("one", one.port())+portMap("tcp", strconv.Itoa(port), "default/one:80")+
		configMapOf("access-log-path", requests, "stream-access-log-path", streams), tcpFlag, configMapFlag)
	if answer, err := talk(port, "hello"); err != nil || answer != "onehello" {
		t.Fatalf("%q, %v", answer, err)
	}
	ask(t, p.HTTP, nil, "web.example", "/asked")
	read := func(path string) string { all, _ := os.ReadFile(path); return string(all) }
	within(t, 30*time.Second, "the lines", func() bool {
		return strings.Contains(read(streams), "] TCP 200 ") && strings.Contains(read(requests), "GET /asked ")
	})
	if strings.Contains(read(streams), "GET") || strings.Contains(read(requests), "] TCP ") || p.Log.String() != "" {
		t.Errorf("services: %q; requests: %q; standard output: %q", read(streams), read(requests), p.Log.String())
	}
}
