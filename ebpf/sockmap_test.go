package ebpf

import (
	"testing"
)

func TestOpen(t *testing.T) {
	s, u := Open(Options{})
	if u != nil {
		t.Fatal(u)
	}
	if !s.Attached() {
		t.Fatal("not attached")
	}
	s.Close()
}
