package ebpf

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open is a sockmap, or the reason for which the test does not run.
func open(t *testing.T, o Options) *Sockmap {
	t.Helper()
	if u := Probe(); u != nil {
		t.Skipf("no sockmap here: %v", u)
	}
	s, u := Open(o)
	if u != nil {
		t.Fatal(u)
	}
	t.Cleanup(s.Close)
	return s
}

// TestOpen loads, tests at start, and leaves nothing behind.
func TestOpen(t *testing.T) {
	open(t, Options{}).Close()
	var own []uint32
	for range 5 {
		s, u := Open(Options{Tunnels: 10, Queued: 64 << 10})
		if u != nil {
			t.Fatal(u)
		}
		if !s.Attached() || s.Gone() || s.Entries() != [3]int{} || s.Repeated() != 0 {
			t.Errorf("after the test at start: attached %v, entries %v, %d bytes that came again", s.Attached(), s.Entries(), s.Repeated())
		}
		if n := s.objects.Sources.MaxEntries(); n != 20 {
			t.Errorf("the map holds %d sockets", n)
		}
		info, err := s.objects.SluiceVerdict.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		if own = append(own, uint32(id)); !slices.Contains(loaded(t), uint32(id)) {
			t.Errorf("program %d is not among those that are loaded", id)
		}
		s.Close()
	}
	for end := time.Now().Add(30 * time.Second); slices.ContainsFunc(loaded(t), func(id uint32) bool { return slices.Contains(own, id) }); time.Sleep(testPoll) {
		if time.Now().After(end) {
			t.Fatalf("of programs %v some are still loaded: %v", own, loaded(t))
		}
	}
}

// loaded are the programs that the kernel has: other processes of this machine may run the same tests.
func loaded(t *testing.T) []uint32 {
	t.Helper()
	ids, err := Loaded()
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestSelfTestFinds: a program that does not take off what comes again, and one that is not attached and moves nothing: the
// test at start says so.
func TestSelfTestFinds(t *testing.T) {
	s := open(t, Options{Repeats: 100})
	if err := s.test(); err == nil || !strings.Contains(err.Error(), "a segment that repeats: ") {
		t.Errorf("where only 100 bytes are taken off: %v", err)
	}
	if err := s.Detach(); err != nil {
		t.Fatal(err)
	}
	if err := s.test(); err == nil || !errors.Is(err, ErrRefused) {
		t.Errorf("without a program: %v", err)
	}
}

// TestJoinQueued is 1,000 times: bytes that waited before the sockets were joined are moved by the kick, with nothing behind
// them.
func TestJoinQueued(t *testing.T) {
	s := open(t, Options{})
	for i := range 1000 {
		c, err := newTunnel(s)
		if err != nil {
			t.Fatal(err)
		}
		up, down := pattern(byte(i), 1+i%3000), pattern(byte(i+1), 1+i%50)
		err = errors.Join(sendAll(c.peerA, up), sendAll(c.peerB, down), c.join(), expect(c.peerB, up), expect(c.peerA, down))
		c.close()
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	if n := s.Entries(); n != [3]int{} {
		t.Errorf("entries are left: %v", n)
	}
}

// TestJoinRefused: what cannot be joined is as it was.
func TestJoinRefused(t *testing.T) {
	s := open(t, Options{Tunnels: 1})
	first, err := newTunnel(s)
	if err != nil {
		t.Fatal(err)
	}
	defer first.close()
	if err := first.join(); err != nil {
		t.Fatal(err)
	}
	again, err := newTunnel(s)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if err := again.join(); !errors.Is(err, ErrRefused) || !Full(err) {
		t.Errorf("a full map: %v", err)
	}
	if n := s.Entries(); n != [3]int{2, 2, 2} {
		t.Errorf("entries: %v", n)
	}
	big := open(t, Options{})
	ended, err := newTunnel(big)
	if err != nil {
		t.Fatal(err)
	}
	defer ended.close()
	if err := unix.Shutdown(ended.peerA, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if err := until("the end to arrive", func() bool {
		c, err := Count(ended.a, false)
		return err == nil && !c.Established
	}); err != nil {
		t.Fatal(err)
	}
	if err := ended.join(); !errors.Is(err, ErrRefused) {
		t.Errorf("an ended socket: %v", err)
	}
	if n := big.Entries(); n != [3]int{} {
		t.Errorf("entries are left: %v", n)
	}
}

func TestRecentKernels(t *testing.T) {
	for release, want := range map[string]bool{"6.18.44": true, "6.12.0-rc1": true, "7.0": true, "6.11.9": false, "5.15.0-1-amd64": false, "": false, "six": false} {
		if recent(release) != want {
			t.Errorf("%q: %v", release, !want)
		}
	}
}
