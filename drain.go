package main

import (
	"context"
	"slices"
	"time"

	"github.com/sluiceproxy/sluice/listen"
)

const (
	drainPoll    = 20 * time.Millisecond // how often a drain looks whether it is over
	newcomerWait = 3 * time.Second       // who was accepted in the last moment has so long for a TLS handshake and a request
	leaveTimeout = 5 * time.Second       // how long a drain waits for a cluster to be told
	stopTimeout  = 5 * time.Second       // how long closing one part may take when everything is over
)

// drain ends the work as docs/hardening.md 3.4 says: probes say no, the grace period passes in which others learn it,
// accepting ends, and what is under way has until the drain limit. Whoever cancels ctx ends it at once.
func (p *proxy) drain(ctx context.Context) error {
	p.phase.Store(phaseDraining)
	limit := p.controller.Process().DrainTimeout
	p.log.Info("draining: a second signal ends the process at once", "grace", p.gracePeriod, "limit", limit)
	defer p.leaving.Wait() // the end of the process would reset who is there
	if !p.leavePorts(ctx) {
		return nil
	}
	p.closeWebhook(ctx)
	p.closeDoors(ctx)
	p.http.Drain(p.loops)
	var idleSince time.Time
	for deadline := time.Now().Add(limit); ; {
		now := time.Now()
		switch {
		case !p.idle():
			idleSince = time.Time{}
		case idleSince.IsZero():
			idleSince = now
		case p.clients() == 0 || now.Sub(idleSince) >= newcomerWait:
			p.log.Info("drained")
			return nil
		}
		if now.After(deadline) {
			p.log.Warn("the drain limit is reached: what is still open is closed", "requests", p.http.Stats.Active(),
				"tunnels", p.http.Stats.Tunnels()+p.passing())
			p.http.CloseTunnels(p.loops)
			return nil
		}
		if !sleep(ctx, drainPoll) {
			return nil
		}
	}
}

// linger stays when the drain is over, as long as the flag says, with what the process still does: probes, metrics. A
// successor does all that.
func (p *proxy) linger(ctx context.Context) {
	if p.lingerPeriod == 0 || p.succeeded.Load() || ctx.Err() != nil {
		return
	}
	p.log.Info("staying: a second signal ends the process at once", "period", p.lingerPeriod)
	sleep(ctx, p.lingerPeriod)
}

// leave takes this proxy's addresses out of what a cluster is told, so that nobody is sent here who can be sent elsewhere.
func (p *proxy) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	p.controller.Leave(ctx)
}

// leavePorts sees to it that nothing is lost when the ports close; false: there is no time for that.
func (p *proxy) leavePorts(ctx context.Context) bool {
	if p.succeeded.Load() { // the successor has the very sockets, and what stands in their queues
		p.closeAdmin(ctx)
		return true
	}
	p.leave(ctx)
	p.leaving.Go(func() { p.leaveMetrics(ctx) })
	if !sleep(ctx, p.gracePeriod) {
		return false
	}
	p.stepAside(ctx)
	p.turnAway()
	return listen.Emptied(ctx, p.doorSockets()...)
}

// turnAway lets nobody begin a connection any more. Without it a port closes all the same, less gently.
func (p *proxy) turnAway() {
	for _, d := range p.doors {
		if err := d.TurnAway(); d.open && err != nil {
			p.log.Debug("clients that are connecting while a port closes may see a reset", "port", d.name, "error", err)
		}
	}
	for _, d := range p.services.all() {
		_ = d.TurnAway()
	}
}

func (p *proxy) closeAdmin(ctx context.Context) {
	if p.admin == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if err := p.admin.Shutdown(ctx); err != nil {
		p.log.Warn("the admin page did not close in time", "error", err)
	}
}

func (p *proxy) closeDoors(ctx context.Context) {
	for _, d := range p.doors {
		if !d.open {
			continue
		}
		d.open = false
		if err := d.Close(ctx); err != nil {
			p.log.Warn("a port did not close in time", "port", d.name, "error", err)
		}
	}
	for _, d := range p.services.stop() {
		if err := d.Close(ctx); err != nil {
			p.log.Warn("a port did not close in time", "port", d.name, "error", err)
		}
	}
}

// idle tells whether no request and no tunnel is under way.
func (p *proxy) idle() bool { return p.http.Idle() && p.passing() == 0 }

// passing is how many tunnels of pass-through and of services are open.
func (p *proxy) passing() (n int64) {
	n = p.services.passing()
	for _, d := range p.doors {
		n += d.Stats.Tunnels.Load()
	}
	return n
}

// clients is how many client connections are open, those included that are still in their TLS handshakes.
func (p *proxy) clients() int64 {
	for _, d := range p.doors {
		return d.Census.Connections() // of all doors
	}
	return 0
}

// sleep waits; false: ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// stop closes everything, in reverse order of start.
func (p *proxy) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	p.closeWebhook(ctx)
	p.closeDoors(ctx)
	if p.cancel != nil {
		p.cancel()
		select {
		case <-p.watched:
		case <-ctx.Done():
		}
	}
	p.closeAdmin(ctx)
	for _, l := range slices.Concat(p.porches, p.loops) {
		l.Stop()
	}
	p.running.Wait()
	if p.sockmap.maps != nil {
		p.sockmap.maps.Close()
	}
	if err := p.access.Close(); err != nil {
		p.log.Warn("lines of the access log are lost", "error", err)
	}
}
