package sni

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
)

// Door is one listening port and the way from it to the first HTTP byte or the first tunnelled one. The least loaded
// loop takes each connection and owns it from there to its end.
type Door struct {
	DoorConfig
	listener   *listener
	tls        atomic.Pointer[l7.Handshakes]             // of hosts without a policy for client certificates
	shedding   atomic.Int32                              // loops that are looking for idle connections
	accepted   *l7.Accepted                              // what all connections have in common that need no look at their first bytes
	everywhere []*fastpath.Loop                          // loops and porches
	next       atomic.Uint32                             // breaks ties round robin
	taker      func(*fastpath.Loop, int, netip.AddrPort) // adopt, bound once
	Stats      DoorStats
}

// DoorConfig is what a door needs of the rest of the house.
type DoorConfig struct {
	Loops []*fastpath.Loop
	// Porches are where handshakes are made while the loop of the same place serves; none: on the loops themselves.
	Porches []*fastpath.Loop
	HTTP    *l7.Server
	Store   *route.Store
	Work    *fastpath.Work
	TLS     bool                // the port speaks TLS; else plain HTTP
	Proxy   func() *ProxyPolicy // nil answer: no PROXY protocol on this port

	// Service is what a TCP service's port leads to at present, asked once a connection; nil answer: nothing any more. nil:
	// the port is HTTP's.
	Service func() *route.BoundService

	Limits   func() *Limits // asked at every step, so it is a mere load; nil: the defaults
	Acceptor *Acceptor      // shared by all doors of the process
	Census   *Census        // shared by all doors of the process; nil: one of its own
}

// ProxyPolicy says from whom a PROXY header is required: connections of other peers are refused.
type ProxyPolicy struct {
	Trusted []netip.Prefix // empty: everybody
}

// DoorStats count what happened to connections before HTTP or a tunnel. Written by all loops, but once per connection.
type DoorStats struct {
	Accepted, Refused, NoDescriptor       atomic.Uint64
	SourceFull                            atomic.Uint64 // closed at once: their source has too many
	Full                                  atomic.Uint64 // times that accepting paused at the limit of connections
	Handshakes, HandshakeErrors, Overload atomic.Uint64
	Passed, PassErrors                    atomic.Uint64
	Tunnels                               atomic.Int64 // pass-through tunnels that are open
}

// NewDoor makes a door; Listen opens it.
func NewDoor(c DoorConfig) *Door {
	d := &Door{DoorConfig: c, everywhere: slices.Concat(c.Loops, c.Porches)}
	d.taker = d.adopt
	if d.Limits == nil {
		d.Limits = func() *Limits { return defaultLimits }
	}
	if d.Census == nil {
		d.Census = new(Census)
	}
	if d.Acceptor == nil {
		d.Acceptor = new(Acceptor)
	}
	return d
}

// Listen opens the port and begins to accept. It answers the address, with the port that the system chose for port 0.
func (d *Door) Listen(o listen.Options) (netip.AddrPort, error) {
	ln, err := openListener(d, o)
	if err != nil {
		return netip.AddrPort{}, err
	}
	d.listener, d.accepted = ln, &l7.Accepted{Local: ln.addr}
	ln.serve()
	return ln.addr, nil
}

// Socket is what the door listens on, to be shared or passed on; nil before Listen.
func (d *Door) Socket() *listen.Socket {
	if d.listener == nil {
		return nil
	}
	return d.listener.socket
}

// TurnAway lets nobody begin a connection any more; those that are half-way still come. A moment later Close resets none.
func (d *Door) TurnAway() error {
	if d.listener == nil {
		return nil
	}
	return d.listener.socket.TurnAway()
}

// EndTunnels closes the tunnels of this door's connections that are still open.
func (d *Door) EndTunnels() {
	for _, l := range d.Loops {
		l.Post(func() {
			l.Each(func(h fastpath.Handler) {
				if t, ok := h.(*fastpath.Tunnel); ok {
					if p, ok := t.End().(*passage); ok && p.door == d {
						t.Close()
					}
				}
			})
		})
	}
}

// Close stops accepting. Connections that are open go on.
func (d *Door) Close(ctx context.Context) error {
	if d.listener == nil {
		return nil
	}
	return d.listener.stop(ctx)
}

// place gives an accepted connection to the loop with the fewest.
func (d *Door) place(fd int, remote netip.AddrPort) {
	d.Stats.Accepted.Add(1)
	d.Census.connections.all.Add(1)
	at := d.least()
	l := d.Loops[at]
	if d.Service != nil { // its backend is dialled at once
		l.Give(fd, remote, d.taker)
		return
	}
	if d.TLS && at < len(d.Porches) && l.Serves() {
		l = d.Porches[at]
	}
	l.GiveWatched(fd, remote, d.taker) // the acceptor nudges
}

// least is the place of the loop with the fewest connections.
func (d *Door) least() (best int) {
	n := len(d.Loops)
	first := int(d.next.Add(1))
	for i, least := 0, int64(1<<62); i < n; i++ {
		at := (first + i) % n
		l := d.Loops[at]
		if load := l.Stats.Conns.Load() + l.Stats.Pending.Load(); load < least {
			best, least = at, load
		}
	}
	return best
}

func (d *Door) nudge() {
	for _, l := range d.everywhere {
		l.Nudge()
	}
}

// shed has the loops close idle connections, about n in all. One search at a time is enough.
func (d *Door) shed(n int64) {
	loops := int64(len(d.Loops))
	if !d.shedding.CompareAndSwap(0, int32(loops)) {
		return
	}
	for _, l := range d.Loops {
		l.Post(func() {
			defer d.shedding.Add(-1)
			d.HTTP.Shed(l, int((n+loops-1)/loops))
		})
	}
}

// adopt makes the connection its loop's. A plain HTTP port needs no look at the first bytes.
func (d *Door) adopt(l *fastpath.Loop, fd int, remote netip.AddrPort) {
	c, err := l.Adopt(fd, remote, nil)
	if err != nil {
		d.Stats.Refused.Add(1)
		d.Census.connections.all.Add(-1)
		return
	}
	c.SetKeeper((*newcomer)(d.Census))
	policy := d.Proxy()
	if policy == nil && !d.admitSource(c) {
		return
	}
	switch {
	case policy != nil:
	case d.Service != nil:
		d.forward(c, d.accepted)
		return
	case !d.TLS:
		d.HTTP.Serve(c, d.accepted)
		return
	}
	a := sparesOf(l).arrival()
	a.door, a.accept = d, d.accepted
	c.SetHandler(a)
	if policy != nil {
		a.awaitProxy(c, policy)
		return
	}
	a.greet(c)
}

// Decision is where an accepted connection goes.
type Decision struct {
	To    Destination
	Host  *route.Host // PassThrough
	Hello Hello       // Terminate, PassThrough
	Err   error       // Refuse
}

// Destination is the kind of a Decision.
type Destination uint8

const (
	Wait        Destination = iota // more bytes are needed: Hello.Need in all
	Refuse                         // neither TLS nor a request that could be answered
	PlainHTTP                      // no TLS
	PassThrough                    // to Host.Passthrough, untouched
	Terminate                      // TLS ends here
)

// admit decides where a connection goes, from the bytes that it has shown so far. It consumes nothing.
func (d *Door) admit(peeked []byte, s *route.Snapshot) Decision {
	if !d.TLS || !looksLikeTLS(peeked) {
		return Decision{To: PlainHTTP} // on a TLS port the answer is 400
	}
	hello, err := Parse(peeked)
	if err == ErrShort {
		return Decision{To: Wait, Hello: hello}
	}
	if err != nil {
		return Decision{To: Refuse, Err: err}
	}
	host := s.Host(normalName(hello.ServerName())) // never nil: unknown names have the default host
	if host.Passthrough != nil {
		return Decision{To: PassThrough, Host: host, Hello: hello}
	}
	return Decision{To: Terminate, Host: host, Hello: hello}
}
