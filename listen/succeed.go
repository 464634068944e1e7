package listen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inheritance names the environment variable by which a process tells its successor what it leaves:
//
//	PID:NAME,NAME,…
//
// PID is the predecessor's. The sockets are the descriptors from 3 on, in this order; after the last one comes the pipe
// on which the successor says that it serves.
const inheritance = "SLUICE_SOCKETS"

const firstPassed = 3 // after standard input, output and error

// Bounds of a succession.
const (
	inheritedMax = 16 + 256        // TCP and UDP services included
	killWait     = 5 * time.Second // for a successor that has to end
)

// Inheritance is what a predecessor left. Its zero and nil are an empty one.
type Inheritance struct {
	mu      sync.Mutex
	sockets map[string]*os.File
	serving *os.File // nil: nobody waits, or it was told
}

// Inherit takes what the process that started this one left, once: the environment does not tell of it afterwards.
// nil: nothing.
func Inherit() (*Inheritance, error) {
	value, ok := os.LookupEnv(inheritance)
	if !ok {
		return nil, nil
	}
	_ = os.Unsetenv(inheritance)
	pid, list, ok := strings.Cut(value, ":")
	if n, err := strconv.Atoi(pid); !ok || err != nil || n != os.Getppid() {
		return nil, nil // a grandparent's
	}
	names := strings.Split(list, ",")
	if len(names) > inheritedMax {
		return nil, fmt.Errorf("%s names more than %d sockets", inheritance, inheritedMax)
	}
	i := &Inheritance{sockets: map[string]*os.File{}}
	for n, name := range append(names, "") {
		fd := firstPassed + n
		syscall.CloseOnExec(fd)
		file := os.NewFile(uintptr(fd), name)
		if _, err := file.Stat(); err != nil {
			return nil, fmt.Errorf("%s promises descriptor %d: %w", inheritance, fd, err)
		}
		if name == "" {
			i.serving = file
		} else {
			i.sockets[name] = file
		}
	}
	return i, nil
}

// take hands out a socket; nil: there is none of that name.
func (i *Inheritance) take(name string) *os.File {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	file := i.sockets[name]
	delete(i.sockets, name)
	return file
}

// Has tells whether a predecessor left a socket of a name that was not taken yet.
func (i *Inheritance) Has(name string) bool {
	if i == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.sockets[name] != nil
}

// Serving tells the predecessor that it may go. Sockets that were not taken are closed.
func (i *Inheritance) Serving() error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, file := range i.sockets {
		_ = file.Close()
	}
	clear(i.sockets)
	if i.serving == nil {
		return nil
	}
	_, err := i.serving.Write([]byte{1})
	_ = i.serving.Close()
	i.serving = nil
	return err
}

// Successor is a process that is to take the place of this one.
type Successor struct {
	PID     int
	sockets []*Socket
	ended   chan string // how, once
	serving chan error
}

// Succeed starts program with args (its name excluded), this process's environment, output and working directory, and the
// sockets. Wait tells what became of it.
func Succeed(program string, args []string, sockets []*Socket) (*Successor, error) {
	told, tells, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer tells.Close()
	var names []string
	files := []uintptr{0, 1, 2}
	for _, s := range sockets {
		names = append(names, s.Name)
		files = append(files, uintptr(s.fd))
		s.kept.Store(true)
	}
	// netpoll's descriptors are not closed by exec. Without this kernels before 5.11 leave them to the successor, unused.
	_ = unix.CloseRange(firstPassed, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	// Not by os/exec: that makes the descriptors blocking, which are this process's, too.
	raw, err := tells.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Successor{sockets: sockets, ended: make(chan string, 1), serving: make(chan error, 1)}
	environment := append(os.Environ(), fmt.Sprintf("%s=%d:%s", inheritance, os.Getpid(), strings.Join(names, ",")))
	if e := raw.Control(func(fd uintptr) {
		s.PID, _, err = syscall.StartProcess(program, append([]string{program}, args...),
			&syscall.ProcAttr{Env: environment, Files: append(files, fd)})
	}); e != nil {
		err = e
	}
	if err != nil {
		_ = told.Close()
		s.keep()
		return nil, &os.PathError{Op: "start", Path: program, Err: err}
	}
	go s.listen(told)
	return s, s.watch()
}

// listen waits for the successor's word.
func (s *Successor) listen(told *os.File) {
	defer told.Close()
	var b [1]byte
	_, err := io.ReadFull(told, b[:])
	s.serving <- err
}

// watch waits for the successor's end, so that it leaves no zombie.
func (s *Successor) watch() error {
	process, err := os.FindProcess(s.PID)
	if err != nil {
		return err
	}
	go func() {
		state, err := process.Wait()
		if err != nil {
			s.ended <- err.Error()
			return
		}
		s.ended <- state.String()
	}()
	return nil
}

// keep says that the sockets are this process's alone.
func (s *Successor) keep() {
	for _, one := range s.sockets {
		one.kept.Store(false)
	}
}

// Wait returns nil once the successor serves. On an error it has ended, by itself or because ctx was done, and this
// process is as it was before.
func (s *Successor) Wait(ctx context.Context) error {
	var err error
	select {
	case e := <-s.serving:
		if e == nil {
			return nil
		}
		err = errors.New("it closed the pipe on which it was to say that it serves")
	case <-ctx.Done():
		err = fmt.Errorf("it did not serve in time: %w", context.Cause(ctx))
	}
	select {
	case how := <-s.ended: // it ended by itself, and its pipe with it
		err = errors.New("it ended: " + how)
	case <-time.After(100 * time.Millisecond):
		_ = syscall.Kill(s.PID, syscall.SIGKILL)
		select {
		case <-s.ended:
		case <-time.After(killWait):
		}
	}
	s.keep()
	return err
}
