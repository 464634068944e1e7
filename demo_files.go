package main

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// demoManifests are written to a directory, where people can edit them.
//
//go:embed demo/manifests
var demoManifests embed.FS

// writeDemo writes the demo's files and answers their directory. In a directory that the user names, what is there
// already stays, but for the files that tell where this process's backends are.
func writeDemo(named string, b *demoBackends) (dir string, err error) {
	dir = named
	if dir == "" {
		dir, err = demoDirectory()
	} else {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return "", err
	}
	entries, err := fs.ReadDir(demoManifests, "demo/manifests")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		target := filepath.Join(dir, e.Name())
		if _, err := os.Stat(target); err == nil && named != "" {
			continue
		}
		text, err := demoManifests.ReadFile(path.Join("demo/manifests", e.Name()))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(target, text, 0o644); err != nil {
			return "", err
		}
	}
	for name, text := range b.files() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// demoDirectory is the same for every demo, so that its lines can be repeated; but not if somebody else has made it.
func demoDirectory() (string, error) {
	dir := filepath.Join(os.TempDir(), "sluice-demo")
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err == nil && info.IsDir() && info.Mode().Perm()&0o022 == 0 {
		if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) == os.Getuid() {
			return dir, nil
		}
	}
	return os.MkdirTemp("", "sluice-demo-")
}

// files are those that differ from start to start: where the backends listen, and certificates.
func (b *demoBackends) files() map[string]string {
	var slices, secrets strings.Builder
	slices.WriteString("# Where the demo's own backends listen. Written anew at every start.\n")
	for _, s := range b.servers {
		fmt.Fprintf(&slices, demoSlice, s.name, s.name, s.portName, s.port())
	}
	secrets.WriteString("# Certificates of the demo's own authority, ca.pem. Written anew at every start.\n")
	for _, c := range b.certificates {
		fmt.Fprintf(&secrets, demoSecret, c.secret, indent(c.certificate), indent(c.key))
	}
	return map[string]string{"backends.yaml": slices.String(), "certificates.yaml": secrets.String(), "ca.pem": b.authority}
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}

const demoSlice = `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: %s-1
  namespace: demo
  labels:
    kubernetes.io/service-name: %s
addressType: IPv4
ports:
  - name: %s
    port: %d
endpoints:
  - addresses: ["127.0.0.1"]
`

const demoSecret = `---
apiVersion: v1
kind: Secret
metadata:
  name: %s
  namespace: demo
type: kubernetes.io/tls
stringData:
  tls.crt: |
%s
  tls.key: |
%s
`
