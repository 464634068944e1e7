package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startSleepers starts a shell with a child of its own.
func startSleepers(t *testing.T) *child {
	t.Helper()
	c, err := startChild("sleepers", exec.Command("sh", "-c", "sleep 60 & echo up; wait"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	if err := c.waitReady(t.Context(), 5*time.Second, func() error {
		if c.tail.String() != "up" {
			return context.DeadlineExceeded
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWaitReadyTellsWhyAChildEnded(t *testing.T) {
	c, err := startChild("shell", exec.Command("sh", "-c", "echo because >&2; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.stop()
	err = c.waitReady(t.Context(), 5*time.Second, func() error { return context.DeadlineExceeded })
	if err == nil || !strings.Contains(err.Error(), "because") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var b tail
	for range 1000 {
		b.Write([]byte("0123456789"))
	}
	b.Write([]byte("the end"))
	if s := b.String(); len(s) != childTailBytes || !strings.HasSuffix(s, "the end") {
		t.Errorf("%d bytes, ends %q", len(s), s[len(s)-10:])
	}
}

func TestChildLeadsASession(t *testing.T) {
	c := startSleepers(t)
	if sid, err := unix.Getsid(c.pid()); err != nil || sid != c.pid() {
		t.Errorf("session %d of process %d, %v: it shares a scheduling group with others", sid, c.pid(), err)
	}
}

func TestChildStopsItsGroup(t *testing.T) {
	c := startSleepers(t)
	pid := c.pid()
	tree, err := processTree(pid)
	if err != nil || len(tree) < 2 {
		t.Fatalf("tree %v, %v", tree, err)
	}
	c.stop()
	c.stop() // twice is once
	for _, pid := range tree {
		waitFor(t, func() bool {
			text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			return errors.Is(err, os.ErrNotExist) || err == nil && strings.Contains(string(text), ") Z ")
		})
	}
}
