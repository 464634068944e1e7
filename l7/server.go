package l7

import (
	"crypto/x509"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
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

// Serve leads an accepted connection whose TLS handshake, if it has one, is over. On c's loop.
func (s *Server) Serve(c *fastpath.Conn, a *Accepted) {
	if c.Protocol() == ProtocolHTTP2 {
		s.Stats.ConnOpened(c.Loop().ID)
		s.serveHTTP2(c, a)
		return
	}
	s.ServeHTTP1(c, a)
}

// What ALPN calls the protocols.
const (
	ProtocolHTTP1 = "http/1.1"
	ProtocolHTTP2 = "h2"
)

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
				switch c := h.(type) {
				case *http1:
					c.drain()
				case *http2:
					c.drain()
				}
			})
		})
	}
}

const (
	shedLooks = 4096        // connections that one Shed looks at
	shedIdle  = time.Second // who has been idle for less may be about to ask again, and is left if others are there
	drainIdle = time.Second // … and is given so long when the process ends
)

// Shed closes at most n connections that are idle between two requests, because a limit of the process is near. It looks
// at a part of l's connections, the next time at the next part. On loop l.
func (s *Server) Shed(l *fastpath.Loop, n int) {
	p := s.local(l)
	from := p.shedAt
	for _, idle := range [...]time.Duration{shedIdle, 0} {
		p.shedAt = l.Some(from, shedLooks, func(h fastpath.Handler) bool {
			if c, ok := h.(idler); ok && n > 0 && c.idleFor(idle) {
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

// An idler is a connection between two requests, at times.
type idler interface {
	idleFor(d time.Duration) bool
	end()
}

// Idle tells whether no exchange and no tunnel is under way. From any goroutine.
func (s *Server) Idle() bool { return s.Stats.Active() == 0 && s.Stats.Tunnels() == 0 }

// CloseTunnels ends tunnels that are still open: the drain limit is reached.
func (s *Server) CloseTunnels(loops []*fastpath.Loop) {
	for _, l := range loops {
		l.Post(func() {
			l.Each(func(h fastpath.Handler) {
				switch t := h.(type) {
				case *fastpath.Tunnel:
					t.Close()
				case *h2Tunnel:
					t.close(fastpath.ErrTimeout)
				case *streamTunnel:
					t.close(fastpath.ErrTimeout)
				case *http2:
					t.closeTunnels()
				}
			})
		})
	}
}

// local is a server's part of one loop.
type local struct {
	srv       *Server
	loop      *fastpath.Loop
	free      []*Exchange
	head      []byte      // scratch for serialising heads
	key       []byte      // scratch for what is hashed
	mirrors   []*mirrored // copies that wait for use
	mirroring int         // copies under way
	date      []byte      // the Date field's value, of the second that dateAt began
	dateAt    int64
	random    *rand.PCG
	record    Record // of the exchange that is just ending
	shedAt    int    // where Shed goes on

	freeStreams []*stream
	webs        []*web
	list        wire.H2List // the header list that is being read
	scratch     wire.Arena  // of lists that nobody wants
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
	Presented   *Presented        // what the client showed; nil: the connection's host has no policy for that
	Local       netip.AddrPort    // where the client connected to: our port, or what a PROXY header says
	Proxied     bool              // … it does
}
