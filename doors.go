package main

import (
	"sync/atomic"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/sni"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

func (p *proxy) makeDoors() {
	var rules doorRules
	acceptor, census := new(sni.Acceptor), new(sni.Census)
	for _, d := range []*door{{name: "http", port: p.httpPort}, {name: "https", port: p.httpsPort}} {
		if d.port == 0 {
			continue
		}
		d.Door = sni.NewDoor(sni.DoorConfig{
			Loops:    p.loops,
			Porches:  p.porches,
			HTTP:     p.http,
			Store:    p.store,
			Work:     p.work,
			TLS:      d.name == "https",
			Proxy:    func() *sni.ProxyPolicy { return rules.of(p).proxy },
			Limits:   func() *sni.Limits { return rules.of(p).limits },
			Acceptor: acceptor,
			Census:   census,
		})
		p.doors = append(p.doors, d)
	}
	p.services.udp = func(service func() *route.BoundService) *sni.UDP {
		return sni.NewUDP(sni.UDPConfig{Loop: p.nextLoop(), Loops: p.loops, HTTP: p.http, Service: service,
			Limits: func() *sni.Limits { return rules.of(p).limits }})
	}
	p.services.tcp = func(service func() *route.BoundService) *sni.Door {
		return sni.NewDoor(sni.DoorConfig{
			Loops: p.loops,
			HTTP:  p.http,
			Store: p.store,
			Proxy: func() *sni.ProxyPolicy {
				if b := service(); b == nil || !b.ProxyFrom {
					return nil
				}
				return rules.of(p).trusted
			},
			Limits:   func() *sni.Limits { return rules.of(p).limits },
			Acceptor: acceptor,
			Census:   census,
			Service:  service,
		})
	}
}

// doorRules are what the ConfigMap says to the doors, in their own words, as long as it says the same. Doors ask at every
// step of every connection. The first state that is applied is new to it, so the limit of open files is the raised one.
type doorRules struct{ last atomic.Pointer[doorRule] }

type doorRule struct {
	said   *translate.Process
	limits *sni.Limits
	proxy  *sni.ProxyPolicy // of HTTP's ports; nil: no PROXY headers

	trusted *sni.ProxyPolicy // of TCP services that ask for PROXY headers
}

func (r *doorRules) of(p *proxy) *doorRule {
	said := p.controller.Process()
	if last := r.last.Load(); last != nil && last.said == said {
		return last
	}
	rule := &doorRule{said: said, limits: &sni.Limits{
		HelloTimeout: said.HelloTimeout, HelloBytesMax: said.HelloBytesMax,
		HandshakeTimeout: said.HandshakeTimeout, HandshakesMax: said.HandshakesMax,
		TLSMin: said.TLSMin, TLSMax: said.TLSMax,
		TLSCurves: said.Curves, TLSNoTickets: said.NoTickets, RejectUnknown: said.RejectUnknown,
		ProxyHeaderTimeout: said.ProxyProtocol.HeaderTimeout, ProxyHeaderBytesMax: said.ProxyProtocol.HeaderMax,
		ConnectionsMax: said.ConnectionsMax, ConnectionsSourceMax: said.ConnectionsSourceMax,
		OpenFilesMax: openFilesMax(),
	}}
	if said.Ciphers != "" {
		rule.limits.TLSCiphers, _ = fastpath.CipherSuites(said.Ciphers) // ssl-ciphers' row has read it
	}
	if said.TicketKey != (translate.TicketKey{}) {
		rule.limits.TLSTicketKey = (*[32]byte)(&said.TicketKey)
	}
	rule.trusted = &sni.ProxyPolicy{Trusted: said.ProxyProtocol.Trusted}
	if said.ProxyProtocol.Enabled {
		rule.proxy = rule.trusted
	}
	r.last.Store(rule)
	return rule
}

// nextLoop has UDP services, each of which is one loop's, spread over the loops.
func (p *proxy) nextLoop() *fastpath.Loop {
	return p.loops[int(p.udpPorts.Add(1)-1)%len(p.loops)]
}
