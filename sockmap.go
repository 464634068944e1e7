package main

import (
	"github.com/sluiceproxy/sluice/admin"
	"github.com/sluiceproxy/sluice/ebpf"
	"github.com/sluiceproxy/sluice/fastpath"
)

// sockmap is what became of --sockmap.
type sockmap struct {
	maps *ebpf.Sockmap // nil: not asked for, or not to be had
	why  *ebpf.Unavailable
}

// openSockmap loads the program that joins tunnels, if it is wanted. Where it cannot be had tunnels go through user space.
func (p *proxy) openSockmap() {
	if p.options.sockmap == fastpath.SockmapOff {
		return
	}
	p.sockmap.maps, p.sockmap.why = ebpf.Open(ebpf.Options{Queued: p.sockmapQueued << 10})
	if p.sockmap.why != nil {
		p.log.Warn("tunnels are not joined in the kernel, --sockmap does nothing here", "reason", p.sockmap.why.Reason, "error", p.sockmap.why.Text)
		return
	}
	for _, l := range p.loops {
		l.UseSockmap(p.sockmap.maps, p.options.sockmap)
	}
	p.log.Info("tunnels are joined in the kernel: the program is loaded and has passed its test")
}

// sockmapState is what the admin page tells.
func (p *proxy) sockmapState() (s admin.Sockmap) {
	s.Wanted = p.options.sockmap != fastpath.SockmapOff
	switch {
	case p.sockmap.why != nil:
		s.Reason = string(p.sockmap.why.Reason)
	case p.sockmap.maps == nil:
	case p.sockmap.maps.Gone():
		s.Reason = string(ebpf.ReasonDetached)
	default:
		s.Available = true
	}
	if p.sockmap.maps != nil {
		s.Repeated = p.sockmap.maps.Repeated()
	}
	return s
}
