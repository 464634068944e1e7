package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/sluiceproxy/sluice/listen"
)

// upgradeTimeout is how long a successor may take until it serves. It reads the whole configuration first.
const upgradeTimeout = 5 * time.Minute

// programPath is where the program of this process was found, so that SIGUSR2 starts what stands there by then.
func programPath() string {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return ""
	}
	return path
}

// upgrade starts a successor, which is passed the ports. This process serves on until the successor does.
func (l *life) upgrade() {
	if err := l.upgradable(); err != nil {
		l.log.Error("SIGUSR2: no upgrade: " + err.Error())
		return
	}
	successor, err := listen.Succeed(l.program, os.Args[1:], l.sockets())
	if err != nil {
		l.succession(err)
		return
	}
	l.log.Info("SIGUSR2: a successor starts; this process serves until it does", "program", l.program, "pid", successor.PID)
	ctx, cancel := context.WithTimeoutCause(l.ctx, upgradeTimeout, fmt.Errorf("%v have passed", upgradeTimeout))
	l.upgrading = cancel
	go func() { l.upgraded <- successor.Wait(ctx) }()
}

// upgradable says what stands in the way of a successor.
func (l *life) upgradable() error {
	switch {
	case l.program == "":
		return errors.New("it is not known what to start, or the demo runs, which has backends of its own")
	case os.Getpid() == 1:
		return errors.New("this is the first process of its container, which ends with it: roll out a new container instead")
	case l.phase.Load() == phaseStarting:
		return errors.New("this process does not serve yet; send the signal again when it does")
	case l.draining:
		return errors.New("this process ends already")
	case l.upgrading != nil:
		return errors.New("a successor is starting already")
	}
	return nil
}

// succession is what became of a successor.
func (l *life) succession(err error) {
	if l.upgrading != nil {
		l.upgrading()
		l.upgrading = nil
	}
	switch {
	case err != nil:
		l.log.Error("the successor did not take over; this process serves on as before", "program", l.program, "error", err)
	case l.draining:
	default:
		l.succeeded.Store(true)
		l.log.Info("the successor serves")
		l.end()
	}
}

// sockets are all that the process listens on.
func (p *proxy) sockets() []*listen.Socket {
	list := p.doorSockets()
	if p.admin != nil {
		list = append(list, p.admin.Sockets()...)
	}
	if p.webhook != nil {
		list = append(list, p.webhook.socket)
	}
	return list
}

// doorSockets are those of the doors and of the services.
func (p *proxy) doorSockets() (list []*listen.Socket) {
	for _, d := range p.doors {
		if s := d.Socket(); s != nil {
			list = append(list, s)
		}
	}
	for _, d := range p.services.all() {
		list = append(list, d.Socket())
	}
	return list
}

// claimPorts has new connections of the doors come to this process, and no longer to one that is to go.
func (p *proxy) claimPorts(ctx context.Context) {
	var all sync.WaitGroup
	for _, d := range p.doors {
		all.Go(func() { p.claim(ctx, d.Socket()) })
	}
	for _, d := range p.services.all() {
		all.Go(func() { p.claim(ctx, d.Socket()) })
	}
	all.Wait()
}

// claimMetrics does the same for the port of the metrics.
func (p *proxy) claimMetrics(ctx context.Context) {
	if p.admin == nil {
		return
	}
	for _, s := range p.admin.Sockets() {
		p.claim(ctx, s)
	}
}

func (p *proxy) claim(ctx context.Context, s *listen.Socket) {
	if err := s.Claim(ctx); err != nil && ctx.Err() == nil {
		p.log.Warn("new connections may go to another process that listens on the same port, until that one goes", "port", s.Name, "error", err)
	}
}

// leaveMetrics leaves the port of the metrics at once to another process that shares it. Without one, load balancers
// that ask there are told that this process ends.
func (p *proxy) leaveMetrics(ctx context.Context) {
	if p.admin == nil || !p.reusePort || !p.admin.StepAside(ctx) {
		p.lonely.Store(true)
	}
}

// stepAside leaves shared ports to the process that comes after this one, if there is one.
func (p *proxy) stepAside(ctx context.Context) {
	if !p.reusePort {
		return
	}
	var all sync.WaitGroup
	for _, d := range p.doors {
		if d.open {
			all.Go(func() {
				if d.Socket().StepAside(ctx, d.Stats.Accepted.Load) {
					p.log.Info("another process has the port", "port", d.name)
				} else {
					p.log.Info("the port closes: no other process has it, or connections came to the last", "port", d.name)
				}
			})
		}
	}
	for _, d := range p.services.all() {
		all.Go(func() { d.Socket().StepAside(ctx, d.Accepted) })
	}
	all.Wait()
}

// tellServing tells those that wait for it that this process serves: the predecessor, and systemd
// (sd_notify(3), Type=notify with NotifyAccess=all; the main process is another one after an upgrade).
func (p *proxy) tellServing() {
	if err := p.legacy.Serving(); err != nil {
		p.log.Warn("the predecessor cannot be told to go", "error", err)
	}
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return
	}
	conn, err := net.Dial("unixgram", address)
	if err == nil {
		_, err = fmt.Fprintf(conn, "READY=1\nMAINPID=%d", os.Getpid())
		_ = conn.Close()
	}
	if err != nil {
		p.log.Warn("systemd cannot be told that this process serves", "error", err)
	}
}
