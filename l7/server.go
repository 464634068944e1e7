package l7

import (
	"crypto/x509"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// exchangesIdleMax is how many exchanges a loop keeps for reuse.
const exchangesIdleMax = 512

// Server is what the HTTP engines of a process share.
type Server struct {
	Router Router
	Log    *AccessLog // nil: no access log
	Stats  *Stats
	Work   *fastpath.Work // computing that filters do off the loops; nil: they do it where they stand

	passwords passwords
	draining  atomic.Bool
}

// NewServer makes the engines' common part for the given number of loops.
func NewServer(r Router, log *AccessLog, stats *Stats) *Server {
	return &Server{Router: r, Log: log, Stats: stats}
}

// Drain makes every connection close after its present exchange. Tunnels go on. From any goroutine.
func (s *Server) Drain(loops []*fastpath.Loop) {
	s.draining.Store(true)
	for _, l := range loops {
		l.Post(func() {
			l.Each(func(h fastpath.Handler) {
				if c, ok := h.(*http1); ok {
					c.closeIfIdle()
				}
			})
		})
	}
}

const (
	shedLooks = 4096        // connections that one Shed looks at
	shedIdle  = time.Second // who has been idle for less may be about to ask again, and is left if others are there
)

// Shed closes at most n connections that are idle between two requests, because a limit of the process is near. It looks
// at a part of l's connections, the next time at the next part. On loop l.
func (s *Server) Shed(l *fastpath.Loop, n int) {
	p := s.local(l)
	from := p.shedAt
	for _, idle := range [...]time.Duration{shedIdle, 0} {
		p.shedAt = l.Some(from, shedLooks, func(h fastpath.Handler) bool {
			if c, ok := h.(*http1); ok && n > 0 && c.idleFor(idle) {
				s.Stats.ConnShed(l.ID)
				c.end()
				n--
			}
			return n > 0
		})
		if n <= 0 {
			return
		}
	}
}

// Idle tells whether no exchange and no tunnel is under way. From any goroutine.
func (s *Server) Idle() bool { return s.Stats.Active() == 0 && s.Stats.Tunnels() == 0 }

// CloseTunnels ends tunnels that are still open: the drain limit is reached.
func (s *Server) CloseTunnels(loops []*fastpath.Loop) {
	for _, l := range loops {
		l.Post(func() {
			l.Each(func(h fastpath.Handler) {
				if t, ok := h.(*fastpath.Tunnel); ok {
					t.Close()
				}
			})
		})
	}
}

// local is a server's part of one loop.
type local struct {
	srv    *Server
	loop   *fastpath.Loop
	free   []*Exchange
	head   []byte // scratch for serialising heads
	date   []byte // the Date field's value, of the second that dateAt began
	dateAt int64
	random *rand.PCG
	record Record // of the exchange that is just ending
	shedAt int    // where Shed goes on
}

func (s *Server) local(l *fastpath.Loop) *local {
	if p, ok := l.Local[fastpath.LocalExchanges].(*local); ok && p.srv == s {
		return p
	}
	p := &local{srv: s, loop: l, head: make([]byte, 0, 16<<10), random: rand.NewPCG(rand.Uint64(), rand.Uint64())}
	l.Local[fastpath.LocalExchanges] = p
	return p
}

// exchange gives an empty exchange.
func (p *local) exchange() *Exchange {
	if n := len(p.free); n > 0 {
		x := p.free[n-1]
		p.free = p.free[:n-1]
		return x
	}
	return &Exchange{loop: p.loop, local: p}
}

// release takes an exchange back. Nobody holds it or a view of it any more.
func (p *local) release(x *Exchange) {
	x.reset()
	if len(p.free) < exchangesIdleMax {
		p.free = append(p.free, x)
	}
}

// now is the value of the Date field.
func (p *local) now() []byte {
	if t := p.loop.Now(); t-p.dateAt >= int64(time.Second) || p.date == nil {
		wall := p.loop.Wall().UTC()
		p.date = wall.AppendFormat(nil, "Mon, 02 Jan 2006 15:04:05 GMT") // a new slice: older ones may still be views
		p.dateAt = t - int64(wall.Nanosecond())
	}
	return p.date
}

// Accepted is what the door knows of a connection that it hands over. It is not changed afterwards; plain connections of
// a door share one.
type Accepted struct {
	Server      []byte            // SNI name, normalised; nil without
	Certificate *x509.Certificate // what was shown; nil without TLS
	Local       netip.AddrPort    // where the client connected to: our port, or what a PROXY header says
}
