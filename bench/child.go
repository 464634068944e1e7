package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	childTailBytes = 4 << 10         // what is kept of a child's output
	childStopLimit = 5 * time.Second // between the polite signal and the other one
)

// A child is a process that the harness started. It leads a session and a process group of its own: the terminal's
// Ctrl-C reaches the harness only, stop reaches the child's children too, and where the kernel schedules each session
// as a group (CONFIG_SCHED_AUTOGROUP), proxy, origin and load share the processors as pods do and not as the threads of
// one program.
type child struct {
	name string
	cmd  *exec.Cmd
	tail *tail
	done chan struct{} // closed when the process has ended and err is set
	err  error
	once sync.Once
}

// startChild starts cmd. The kernel ends the child if the harness is killed: Go never ends the threads that
// fork here, so Pdeathsig means the process. SIGTERM, for nginx's master takes its workers along on that only.
func startChild(name string, cmd *exec.Cmd) (*child, error) {
	c := &child{name: name, cmd: cmd, tail: &tail{}, done: make(chan struct{})}
	if cmd.Stdout == nil { // or it is an access log's file
		cmd.Stdout = c.tail
	}
	cmd.Stderr = c.tail
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = time.Second // a grandchild that keeps the output open must not keep us
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// signal tells the child, and only it, something.
func (c *child) signal(s syscall.Signal) error {
	if err := c.ended(); err != nil {
		return err
	}
	return syscall.Kill(c.pid(), s)
}

// stop ends the child and its group, politely first, and returns when they are gone. It may be called twice.
func (c *child) stop() {
	c.once.Do(func() {
		_ = syscall.Kill(-c.pid(), syscall.SIGTERM) // an error means it is gone already
		select {
		case <-c.done:
		case <-time.After(childStopLimit):
		}
		_ = syscall.Kill(-c.pid(), syscall.SIGKILL)
		<-c.done
	})
}

// ended is the error of a child that was expected to live, with the last it said; nil while it lives.
func (c *child) ended() error {
	select {
	case <-c.done:
		return fmt.Errorf("%s ended: %w\n%s", c.name, orExited(c.err), c.tail)
	default:
		return nil
	}
}

func orExited(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// waitReady asks ready every 20 ms until it answers nil, the child ends, or limit has passed.
func (c *child) waitReady(ctx context.Context, limit time.Duration, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return c.ended()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v: %w\n%s", c.name, limit, err, c.tail)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tail keeps the last childTailBytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - childTailBytes; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
