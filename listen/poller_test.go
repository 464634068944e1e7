package listen

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGoDoesNotPoll: whoever accepts by system call waits by himself. Where Go's poller knows the socket, too, each connection
// and datagram wakes a thread besides, which finds nothing to do.
func TestGoDoesNotPoll(t *testing.T) {
	left := func(name string, o Options) *Inheritance {
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		fd, err := unix.FcntlInt(uintptr(s.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return &Inheritance{sockets: map[string]*os.File{name: os.NewFile(uintptr(fd), name)}}
	}
	path := unixScheme + filepath.Join(t.TempDir(), "s")
	tcp, udp := Options{Address: "127.0.0.1:0"}, Options{Address: "127.0.0.1:0", Datagrams: true}
	for name, o := range map[string]Options{
		"TCP": tcp, "UDP": udp, "shared": {Address: "127.0.0.1:0", Share: true}, "a path": {Address: path},
		"TCP of a predecessor": {Name: "http", Legacy: left("http", tcp)},
		"UDP of a predecessor": {Name: "dns", Datagrams: true, Legacy: left("dns", udp)},
	} {
		s, err := Open(o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if polled(t, s.FD()) {
			t.Errorf("%s: Go's poller has the socket", name)
		}
		if !o.Datagrams { // the test sees what it looks for
			if _, err := s.Listener(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !polled(t, s.FD()) {
				t.Errorf("%s: Go's poller does not have the listener", name)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// polled tells whether an epoll instance of the process has the socket, under whatever descriptor.
func polled(t *testing.T, fd int) bool {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	watched := regexp.MustCompile(fmt.Sprintf(`(?m)^tfd:.* ino:%x\b`, st.Ino))
	all, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range all {
		text, err := os.ReadFile(info)
		if err == nil && strings.Contains(string(text), "tfd:") && watched.Match(text) {
			return true
		}
	}
	return false
}
