package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/sluiceproxy/sluice/admin"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/sni"
)

// servicePorts are the doors of TCP and UDP services. They come and go with the snapshots, while those of HTTP stay.
type servicePorts struct {
	proxy *proxy
	tcp   func(service func() *route.BoundService) *sni.Door
	udp   func(service func() *route.BoundService) *sni.UDP

	mu      sync.Mutex
	state   portsState
	open    map[string]*servicePort // by name
	past    doorSum                 // of retired ones that are no longer kept
	retired []*servicePort          // closed ones whose connections may still be open
	failed  map[string]route.Problem
	retry   bool // one is due
}

type portsState uint8

const (
	portsEarly  portsState = iota // HTTP's doors are not open yet
	portsOpen                     // snapshots are followed
	portsClosed                   // the process ends
)

// How often a port that could not be opened is tried again: while its own former door closes, and else.
const (
	serviceReopen = 100 * time.Millisecond
	serviceRetry  = 2 * time.Second
)

// servicePort is the open port of one service.
type servicePort struct {
	portDoor
	name     string
	protocol route.Protocol
	port     uint16
	closing  time.Time // since when; zero: it is open
}

// portDoor is a door as its owner sees it, whatever it speaks.
type portDoor interface {
	Socket() *listen.Socket
	TurnAway() error
	Close(ctx context.Context) error
	EndTunnels() // closes what is still open
	Open() int64 // tunnels and sessions that are
	Accepted() uint64
}

// Follow implements watcher.Ports.
func (s *servicePorts) Follow(snapshot *route.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == portsOpen {
		s.follow(snapshot)
	}
}

// start opens the ports of the present snapshot, and follows it from now on.
func (s *servicePorts) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = portsOpen
	s.follow(s.proxy.store.Load())
}

// Problems implements watcher.Ports.
func (s *servicePorts) Problems() (list []route.Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.failed {
		list = append(list, p)
	}
	return list
}

// follow closes what the snapshot does not name any more and opens what it names anew. s.mu is held.
func (s *servicePorts) follow(snapshot *route.Snapshot) {
	wanted := map[string]*route.BoundService{}
	for b := range snapshot.Services() {
		wanted[b.Name()] = b
	}
	for name, p := range s.open {
		if wanted[name] == nil {
			delete(s.open, name)
			s.retire(p)
		}
	}
	s.failed = map[string]route.Problem{}
	retry := serviceRetry
	for name, b := range wanted {
		if s.open[name] != nil {
			continue
		}
		err := s.openPort(name, b.Service)
		if err == nil {
			continue
		}
		reason := portReason(b.Service, err)
		if errors.Is(err, syscall.EADDRINUSE) && s.reclaim(name) {
			retry, reason = serviceReopen, "the port closes, and is opened again in a moment"
		}
		s.failed[name] = route.Problem{Object: b.Owner, Field: fmt.Sprintf("data[%d]", b.Port), Reason: reason}
	}
	if len(s.failed) > 0 && !s.retry {
		s.retry = true
		time.AfterFunc(retry, s.tryAgain)
	}
}

// reclaim tells whether a door of ours is about to let go of a port that is wanted again. One of UDP stays for the answers
// that its sessions wait for; it does so no longer. s.mu is held.
func (s *servicePorts) reclaim(name string) (found bool) {
	for _, d := range s.retired {
		if d.name != name || time.Since(d.closing) > stopTimeout {
			continue
		}
		found = true
		if d.protocol == route.UDP {
			d.EndTunnels()
		}
	}
	return found
}

// tryAgain opens ports that could not be opened before: another process may have gone.
func (s *servicePorts) tryAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retry = false
	if s.state == portsOpen {
		s.follow(s.proxy.store.Load())
	}
}

func portReason(b *route.Service, err error) string {
	remedy := "it is tried again"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		remedy = "another process has it: choose another port, or stop that one; it is tried again"
	case errors.Is(err, syscall.EACCES):
		remedy = "ports below 1024 need the capability CAP_NET_BIND_SERVICE"
	}
	return fmt.Sprintf("the %s port cannot be opened: %v: %s", b.Protocol, err, remedy)
}

// openPort opens one. Its door asks the store at each connection, so that a changed entry needs no other door.
func (s *servicePorts) openPort(name string, b *route.Service) error {
	p := s.proxy
	protocol, port := b.Protocol, b.Port
	host := ""
	if p.bound.IsValid() {
		host = p.bound.String()
	}
	options := listen.Options{Name: name, Address: net.JoinHostPort(host, strconv.Itoa(int(port))), Share: p.reusePort, Legacy: p.legacy}
	service := func() *route.BoundService { return p.store.Load().Service(protocol, port) }
	opened := &servicePort{name: name, protocol: protocol, port: port}
	if protocol == route.UDP {
		d := s.udp(service)
		if err := d.Listen(options); err != nil {
			return err
		}
		opened.portDoor = d
	} else {
		d := s.tcp(service)
		if _, err := d.Listen(options); err != nil {
			return err
		}
		opened.portDoor = tcpPort{d}
	}
	s.open[name] = opened
	p.log.Info("a port of a service is open", "port", name, "address", opened.Socket().String())
	if p.phase.Load() == phaseServing && p.reusePort {
		go p.claim(context.Background(), opened.Socket())
	}
	return nil
}

// tcpPort is the door of a TCP service.
type tcpPort struct{ *sni.Door }

func (t tcpPort) Open() int64      { return t.Stats.Tunnels.Load() }
func (t tcpPort) Accepted() uint64 { return t.Stats.Accepted.Load() }

// retire closes a port that no entry names any more. Connections that are open have as long as in a drain. s.mu is held.
func (s *servicePorts) retire(d *servicePort) {
	p := s.proxy
	p.log.Info("a port of a service is closed", "port", d.name)
	d.closing = time.Now()
	s.retired = append(s.retired, d)
	_ = d.TurnAway() // without it the port closes all the same, less gently
	limit := p.controller.Process().DrainTimeout
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		listen.Emptied(ctx, d.Socket())
		_ = d.Close(ctx)
	}()
	time.AfterFunc(limit, d.EndTunnels)
	s.forget()
}

// forget drops retired doors that nothing goes through any more. s.mu is held.
func (s *servicePorts) forget() {
	keep := s.retired[:0]
	for _, d := range s.retired {
		if d.Open() > 0 || d == s.retired[len(s.retired)-1] {
			keep = append(keep, d)
		} else {
			s.past.add(d)
		}
	}
	clear(s.retired[len(keep):])
	s.retired = keep
}

// doors are the open ports of TCP, and what retired ones have accepted and refused since the start, of one moment.
func (s *servicePorts) doors() (open []*door, closed admin.Door) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.open {
		if t, ok := d.portDoor.(tcpPort); ok {
			open = append(open, &door{Door: t.Door, name: d.name})
		}
	}
	sum := s.past
	for _, d := range s.retired {
		sum.add(d)
	}
	return open, admin.Door(sum)
}

// doorSum is figures of several doors.
type doorSum admin.Door

func (s *doorSum) add(d *servicePort) {
	if t, ok := d.portDoor.(tcpPort); ok {
		s.Accepted += t.Stats.Accepted.Load()
		s.Refused += t.Stats.Refused.Load()
		s.SourceFull += t.Stats.SourceFull.Load()
		s.Tunnels += t.Stats.Tunnels.Load()
	}
}

// all are the open ports.
func (s *servicePorts) all() (list []*servicePort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.open {
		list = append(list, d)
	}
	return list
}

// passing is how many tunnels and sessions are open, those of retired doors included.
func (s *servicePorts) passing() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.open {
		n += d.Open()
	}
	for _, d := range s.retired {
		n += d.Open()
	}
	return n
}

// stop ends following snapshots, and answers what is to be closed. After the first call: nothing.
func (s *servicePorts) stop() (list []*servicePort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = portsClosed
	for _, d := range s.open {
		list = append(list, d)
	}
	s.retired = append(s.retired, list...)
	clear(s.open)
	return list
}
