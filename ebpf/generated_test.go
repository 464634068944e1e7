package ebpf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clangVersion writes the objects that are committed; another one may write others that do the same.
const clangVersion = "clang version 14."

// TestGenerated compiles the program anew and compares objects and bindings with those that are committed.
func TestGenerated(t *testing.T) {
	version, err := exec.Command("clang", "--version").Output()
	if err != nil || !strings.Contains(string(version), clangVersion) {
		t.Skipf("needs %s (apt-get install clang llvm libbpf-dev): %v %.40q", clangVersion, err, version)
	}
	if _, err := os.Stat("/usr/include/bpf/bpf_helpers.h"); err != nil {
		t.Skipf("needs libbpf's headers: %v", err)
	}
	source, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, found := strings.Cut(string(source), "//go:generate ")
	line, _, _ = strings.Cut(line, "\n")
	if !found {
		t.Fatal("generate.go generates nothing")
	}
	dir := t.TempDir()
	words := strings.Fields(strings.Replace(line, "bpf2go ", "bpf2go -output-dir "+dir+" ", 1))
	c := exec.Command(words[0], words[1:]...)
	c.Env = append(os.Environ(), "GOPACKAGE=ebpf")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	for _, name := range []string{"verdict_bpfel.o", "verdict_bpfeb.o", "verdict_bpfel.go", "verdict_bpfeb.go"} {
		now, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(now, committed) {
			t.Errorf("%s is not what sockmap.c compiles to (%v): make generate", name, err)
		}
	}
}
