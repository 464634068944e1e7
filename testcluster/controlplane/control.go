package main

import (
	"fmt"
	"net"
	"net/http"
	"syscall"
)

// openControl serves, on the Unix socket DIR/control,
//
//	POST /kill/NAME     SIGKILL to a server; answers once it is gone
//	POST /start/NAME    starts it again, with the same flags and state; answers once the process runs
//
// so that tests can see what happens when a server fails. NAME is etcd, kube-apiserver, kube-controller-manager or
// kubelet.
func (p *plane) openControl() error {
	l, err := net.Listen("unix", p.file("control"))
	if err != nil {
		return err
	}
	p.control = l
	mux := http.NewServeMux()
	mux.HandleFunc("POST /kill/{name}", p.handle(p.kill))
	mux.HandleFunc("POST /start/{name}", p.handle(p.restart))
	go func() { _ = http.Serve(l, mux) }() // until stop closes it
	return nil
}

func (p *plane) handle(do func(*server) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := p.find(r.PathValue("name"))
		if s == nil {
			http.Error(w, "no such server", http.StatusNotFound)
			return
		}
		if err := do(s); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	}
}

func (p *plane) find(name string) *server {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.servers {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (p *plane) kill(s *server) error {
	p.mu.Lock()
	if !s.want {
		p.mu.Unlock()
		return fmt.Errorf("%s does not run", s.name)
	}
	s.want = false
	done := s.done
	err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	<-done
	return nil
}

func (p *plane) restart(s *server) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.want {
		return fmt.Errorf("%s runs", s.name)
	}
	return p.launch(s)
}
