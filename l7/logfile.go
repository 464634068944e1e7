package l7

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	logFileLook = time.Second // how often it is looked whether a file is still the one of its path
	logFileMode = 0o644       // before the umask, as nginx creates its logs
	logPathMax  = 4095        // bytes: Linux's PATH_MAX without the zero
)

// Paths that are no files of the log's.
const (
	logStdout = "/dev/stdout"
	logStderr = "/dev/stderr"
)

// LogPaths are where the access log's lines go: a file that is appended to, "/dev/stderr", or standard output, which is ""
// and "/dev/stdout".
type LogPaths struct {
	HTTP   string
	Stream string // lines of TCP and UDP services
}

// CheckLogPath says why lines cannot be written to path, as far as the path alone tells that.
func CheckLogPath(path string) error {
	switch {
	case path == "", path == logStdout, path == logStderr:
		return nil
	case len(path) > logPathMax:
		return fmt.Errorf("is longer than %d bytes", logPathMax)
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q is no absolute path", path)
	}
	for i := range len(path) {
		if path[i] < ' ' || path[i] == 0x7f {
			return errors.New("holds control characters")
		}
	}
	return nil
}

// logKind is what a line is about.
type logKind uint8

const (
	logHTTP logKind = iota
	logStream
	logKinds
)

// logSink is one place where lines go. The writer goroutine's.
type logSink struct {
	path   string
	out    io.Writer // nil: the file cannot be opened, and standard output has the lines
	file   *os.File  // nil: out is no file of ours
	torn   bool      // the last write ended within a line
	looked time.Time
	told   bool // that it cannot be opened
}

// Open has lines go where paths say, from the next ones that are written on. A path that cannot be opened is told of once
// and tried again; standard output has its lines meanwhile. From any goroutine, but one at a time.
func (a *AccessLog) Open(paths LogPaths) {
	if p := a.paths.Load(); p == nil && paths == (LogPaths{}) || p != nil && *p == paths {
		return
	}
	a.paths.Store(&paths)
	if paths.HTTP != paths.Stream && !a.split {
		a.split = true // the first time; who never asks for it has no memory for it
		a.addBuffers(logStream)
	}
	a.apart.Store(paths.HTTP != paths.Stream)
	a.wake()
}

// Reopen has all files opened again by their paths, after whoever rotates logs has renamed them. From any goroutine.
func (a *AccessLog) Reopen() {
	a.again.Store(true)
	a.wake()
}

func (a *AccessLog) wake() {
	select {
	case a.woken <- struct{}{}:
	default: // it has not looked yet
	}
}

// follow makes the sinks what Open and Reopen have asked for.
func (a *AccessLog) follow() {
	again := a.again.Swap(false)
	if p := a.paths.Load(); p != a.followed {
		before := a.sinks
		a.followed = p
		a.sinks[logHTTP], a.sinks[logStream] = nil, nil
		for kind, path := range [logKinds]string{p.HTTP, p.Stream} {
			a.sinks[kind] = a.sinkOf(path, before)
		}
		for _, s := range before {
			if s != a.sinks[logHTTP] && s != a.sinks[logStream] {
				s.close()
			}
		}
	}
	now := time.Now()
	for _, s := range a.sinks {
		a.look(s, now, again)
	}
}

// sinkOf finds the sink of a path, or makes it. Kinds with one path share one.
func (a *AccessLog) sinkOf(path string, before [logKinds]*logSink) *logSink {
	switch path {
	case "", logStdout:
		return &a.standard
	case logStderr:
		return &a.errors
	}
	for _, list := range [2][logKinds]*logSink{a.sinks, before} {
		for _, s := range list {
			if s != nil && s.path == path {
				return s
			}
		}
	}
	return &logSink{path: path}
}

// look opens a sink's file, again where it is asked for or where another file has its path, or none. Where that fails the
// file that is open stays.
func (a *AccessLog) look(s *logSink, now time.Time, again bool) {
	if s.path == "" || !again && now.Sub(s.looked) < logFileLook {
		return
	}
	s.looked = now
	if s.file != nil && !again && s.inPlace() {
		return
	}
	file, err := a.open(s.path)
	switch {
	case err == nil:
		s.close()
		s.out, s.file, s.torn, s.told = file, file, false, false
	case !s.told:
		s.told = true
		held := "standard output has its lines until it can be opened"
		if s.file != nil {
			held = "the file that was open before has its lines until then"
		}
		a.logger().Error("the access log's file cannot be opened: "+held, "path", s.path, "error", err)
	}
}

func (a *AccessLog) logger() *slog.Logger {
	if a.Logger != nil {
		return a.Logger
	}
	return slog.Default()
}

// inPlace tells whether the file still is the one of its path.
func (s *logSink) inPlace() bool {
	at, err := os.Stat(s.path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	held, err := s.file.Stat()
	return err == nil && os.SameFile(at, held)
}

func (s *logSink) close() {
	if s.file == nil {
		return
	}
	_ = s.file.Close() // what was written is the kernel's already
	s.out, s.file = nil, nil
}

var errNoLogFile = errors.New("it is no regular file")

// openLogFile opens a file to be appended to, and makes one where there is none. It never waits for a pipe's reader.
func openLogFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK|syscall.O_NOCTTY, logFileMode)
	if err != nil {
		return nil, err
	}
	if at, err := file.Stat(); err != nil || !at.Mode().IsRegular() {
		_ = file.Close()
		return nil, errNoLogFile
	}
	return file, nil
}
