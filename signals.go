package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signalEcho is how soon after the first a signal is not a second one: who signals a process and its group sends two.
const signalEcho = 300 * time.Millisecond

// life is a proxy's way from its start to its end, as signals lead it. One goroutine has it.
type life struct {
	*proxy
	ctx    context.Context // of all that is done to the proxy
	giveUp context.CancelFunc

	starting  bool
	stopStart context.CancelFunc
	started   chan error
	draining  bool
	first     time.Time // signal to end
	drained   chan error
	upgrading context.CancelFunc // nil: no successor is starting
	upgraded  chan error
}

// serve runs a proxy until a signal has ended it.
func (p *proxy) serve() error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	signal.Ignore(syscall.SIGPIPE) // who reads the access log may go; the traffic stays
	defer signal.Stop(signals)

	l := &life{proxy: p, starting: true, started: make(chan error, 1), drained: make(chan error, 1), upgraded: make(chan error, 1)}
	l.ctx, l.giveUp = context.WithCancel(context.Background())
	var starting context.Context
	starting, l.stopStart = context.WithCancel(l.ctx)
	go func() { l.started <- p.start(starting) }()
	defer p.stop()
	defer l.giveUp()
	for {
		select {
		case s := <-signals:
			if over, err := l.signalled(s); over {
				return err
			}
		case err := <-l.started:
			if err != nil {
				return err
			}
			l.starting = false
			p.tellServing() // who is told may upgrade at once
		case err := <-l.upgraded:
			l.succession(err)
		case err := <-l.drained:
			return err
		case err := <-p.watched:
			if err == nil {
				err = errors.New("it gives no reason; please report this")
			}
			return fmt.Errorf("the source of the configuration ended: %w", err)
		}
	}
}

// signalled does what a signal asks for; over: the process is to end.
func (l *life) signalled(s os.Signal) (over bool, err error) {
	switch {
	case s == syscall.SIGHUP:
		l.log.Info("SIGHUP: all manifests are read again")
		l.source.Rescan()
	case s == syscall.SIGUSR1:
		l.log.Info("SIGUSR1: the access log's files are opened again")
		l.access.Reopen()
	case s == syscall.SIGUSR2:
		l.upgrade()
	case l.starting:
		return l.endStart()
	case l.draining && time.Since(l.first) < signalEcho:
	case l.draining:
		l.log.Warn("a second signal: ending at once", "signal", s.String())
		l.giveUp()
		return true, <-l.drained
	default:
		if l.upgrading != nil {
			l.upgrading()
		}
		l.end()
	}
	return false, nil
}

// endStart gives a start up. If the doors are open by then, what came in is drained; over: they are not.
func (l *life) endStart() (over bool, err error) {
	l.stopStart()
	if err := <-l.started; err != nil || l.phase.Load() != phaseServing {
		return true, err
	}
	l.starting = false
	l.end()
	return false, nil
}

// end begins the drain.
func (l *life) end() {
	l.draining, l.first = true, time.Now()
	go func() {
		err := l.drain(l.ctx)
		l.linger(l.ctx)
		l.drained <- err
	}()
}
