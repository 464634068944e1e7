package l7

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// guarded is a buffer that several goroutines have.
type guarded struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (g *guarded) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.Write(b)
}

func (g *guarded) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

// fileLog is an access log to files, with what tests ask of it.
type fileLog struct {
	*testing.T
	*AccessLog
	out, told guarded
	dir       string
}

func newFileLog(t *testing.T) *fileLog {
	f := &fileLog{T: t, dir: t.TempDir()}
	f.AccessLog = NewAccessLog(&f.out, 1)
	f.Logger = slog.New(slog.NewTextHandler(&f.told, nil))
	return f
}

func (f *fileLog) path(name string) string { return filepath.Join(f.dir, name) }

// request logs a line about a request for path.
func (f *fileLog) request(path string) {
	f.AccessLog.Write(0, with(func(r *Record) { r.Target = []byte(path) }))
	f.Tick(0)
}

// connection logs a line about a connection to a TCP service, which sent n bytes.
func (f *fileLog) connection(n int64) {
	f.WriteStream(0, &StreamRecord{Now: time.Now(), Protocol: "TCP", Remote: netip.MustParseAddrPort("192.0.2.1:1"), Sent: n, Status: 200})
	f.Tick(0)
}

// has waits for a file that holds text; name "": standard output.
func (f *fileLog) has(name, text string) {
	f.Helper()
	f.until(fmt.Sprintf("%q in %q", text, name), func() bool { return strings.Contains(f.read(name), text) })
}

func (f *fileLog) read(name string) string {
	if name == "" {
		return f.out.String()
	}
	b, _ := os.ReadFile(f.path(name))
	return string(b)
}

func (f *fileLog) until(what string, met func() bool) {
	f.Helper()
	for end := time.Now().Add(30 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.Fatalf("there never was %s; told: %s", what, f.told.String())
		}
	}
}

// TestAccessLogFiles leads the lines of both kinds from standard output to one file, to two, and back.
func TestAccessLogFiles(t *testing.T) {
	f := newFileLog(t)
	f.request("/a")
	f.connection(111)
	f.has("", "TCP 200 111 ")
	if err := os.WriteFile(f.path("one"), []byte("kept\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Open(LogPaths{HTTP: f.path("one"), Stream: f.path("one")})
	f.request("/b")
	f.connection(222)
	f.has("one", "TCP 200 222 ")
	f.Open(LogPaths{HTTP: f.path("one"), Stream: f.path("two")})
	f.request("/c")
	f.connection(333)
	f.has("two", "TCP 200 333 ")
	f.has("one", "/c")
	f.Open(LogPaths{HTTP: logStdout})
	f.request("/d")
	f.connection(444)
	f.has("", "TCP 200 444 ")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	marks := func(text string) (list []string) {
		for line := range strings.Lines(text) {
			for _, mark := range []string{"kept", "/a", "/b", "/c", "/d", " 111 ", " 222 ", " 333 ", " 444 "} {
				if strings.Contains(line, mark) {
					list = append(list, strings.TrimSpace(mark))
				}
			}
		}
		return list
	}
	for name, want := range map[string]string{"": "[/a 111 /d 444]", "one": "[kept /b 222 /c]", "two": "[333]"} {
		if got := fmt.Sprint(marks(f.read(name))); got != want {
			t.Errorf("%q has %s, want %s", name, got, want)
		}
	}
	if f.Dropped() != 0 || f.Errors() != 0 || f.told.String() != "" {
		t.Errorf("%d lines dropped, %d errors, told %q", f.Dropped(), f.Errors(), f.told.String())
	}
}

// TestAccessLogRotates renames the file: the lines go on in it until the log is told to reopen, or finds that its path leads
// elsewhere. No line is lost.
func TestAccessLogRotates(t *testing.T) {
	f := newFileLog(t)
	defer f.Close()
	f.Open(LogPaths{HTTP: f.path("log"), Stream: f.path("log")})
	f.request("/first")
	f.has("log", "/first")
	move := func(to string) {
		if err := os.Rename(f.path("log"), f.path(to)); err != nil {
			t.Fatal(err)
		}
	}
	move("old")
	f.Reopen()
	f.until("the new file, without a line to write", func() bool { _, err := os.Stat(f.path("log")); return err == nil })
	f.request("/second")
	f.has("log", "/second")

	move("older") // and nobody says so
	n := 0
	f.until("a new file", func() bool {
		n++
		f.request(fmt.Sprintf("/third-%d.", n))
		_, err := os.Stat(f.path("log"))
		return err == nil
	})
	f.until("each line, in a file or counted as dropped", func() bool { // opening takes longer than there are buffers for
		all, written := f.read("old")+f.read("older")+f.read("log"), 0
		for i := range n {
			written += strings.Count(all, fmt.Sprintf("/third-%d.", i+1))
		}
		return written+int(f.Dropped()) == n && strings.Contains(f.read("log"), "/third-")
	})
	if strings.Contains(f.read("old"), "/second") || strings.Contains(f.read("log"), "/second") {
		t.Error("a line stands in a wrong file")
	}
}

// TestAccessLogUnopenable: what cannot be opened is told of once; standard output has its lines until it can be.
func TestAccessLogUnopenable(t *testing.T) {
	f := newFileLog(t)
	defer f.Close()
	deep := f.path("later/log")
	f.Open(LogPaths{HTTP: deep, Stream: deep})
	f.request("/early")
	f.has("", "/early")
	f.Reopen()
	f.request("/again")
	f.has("", "/again")
	if n := strings.Count(f.told.String(), "cannot be opened"); n != 1 || !strings.Contains(f.told.String(), deep) {
		t.Errorf("told %d times: %s", n, f.told.String())
	}
	if err := os.Mkdir(f.path("later"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.until("the file", func() bool { f.request("/late"); return strings.Contains(f.read("later/log"), "/late") })
}

// TestAccessLogRefusesWhatIsNoFile: a directory, a pipe without a reader and a device are not written to, nor waited for.
func TestAccessLogRefusesWhatIsNoFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{t.TempDir(), pipe, "/dev/null"} {
		if file, err := openLogFile(path); err == nil {
			file.Close()
			t.Errorf("%s is opened", path)
		}
	}
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if file, err := openLogFile(pipe); err == nil {
		file.Close()
		t.Error("a pipe with a reader is opened")
	}
}

// TestAccessLogFullDisk: lines that find no room are counted; nobody waits, and the next ones are tried again.
func TestAccessLogFullDisk(t *testing.T) {
	f := newFileLog(t)
	defer f.Close()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full: ", err)
	}
	f.open = func(path string) (*os.File, error) {
		if strings.HasSuffix(path, "full") {
			return full, nil
		}
		return openLogFile(path)
	}
	if err := os.WriteFile(f.path("full"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.Open(LogPaths{HTTP: f.path("full"), Stream: f.path("full")})
	f.request("/lost")
	f.until("a failed write", func() bool { return f.Errors() == 1 && f.Dropped() == 1 })
	f.Open(LogPaths{HTTP: f.path("room"), Stream: f.path("room")})
	f.request("/found")
	f.has("room", "/found")
	if f.Errors() != 1 || f.Dropped() != 1 || f.out.String() != "" {
		t.Errorf("%d errors, %d lines dropped, standard output has %q", f.Errors(), f.Dropped(), f.out.String())
	}
}

func TestCheckLogPath(t *testing.T) {
	for path, want := range map[string]string{
		"": "", "/dev/stdout": "", "/dev/stderr": "", "/var/log/sluice/access.log": "",
		"off": `"off" is no absolute path`, "syslog:server=10.0.0.1": `"syslog:server=10.0.0.1" is no absolute path`,
		"/a\x00b": "holds control characters", "/" + strings.Repeat("a", logPathMax): "is longer than 4095 bytes",
	} {
		got := ""
		if err := CheckLogPath(path); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%.40q: %q, want %q", path, got, want)
		}
	}
}
