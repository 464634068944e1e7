package sni

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// passTriesMax is how many endpoints a pass-through connection is offered to.
const passTriesMax = 3

// passage is a connection on its way to a pass-through backend: the hello stays unread in the socket until the backend
// is connected, then both are joined.
type passage struct {
	door     *Door
	cluster  *upstream.Cluster
	client   *fastpath.Conn
	backend  *fastpath.Conn
	endpoint *upstream.Endpoint
	tried    [passTriesMax]*upstream.Endpoint
	tries    int
}

// passThrough leads an untouched connection to an endpoint of the host's pass-through cluster.
func (d *Door) passThrough(c *fastpath.Conn, h *route.Host) {
	d.Stats.Passed.Add(1)
	p := &passage{door: d, cluster: h.Passthrough, client: c}
	c.SetHandler(p)
	p.dial()
}

func (p *passage) dial() {
	l := p.client.Loop()
	source := p.client.Remote().Addr().As16()
	for p.tries < passTriesMax {
		e := p.cluster.Pick(upstream.Wish{Loop: l.ID, Hash: upstream.Hash(source[:]), Tried: p.tried[:p.tries]})
		if e == nil {
			break
		}
		p.tried[p.tries], p.endpoint = e, e
		p.tries++
		backend, err := e.Dial(l, (*passageBackend)(p), passConnectTimeout)
		if err == nil {
			p.backend = backend
			p.client.SetDeadline(l.Now() + int64(passConnectTimeout+time.Second))
			return
		}
	}
	p.door.Stats.PassErrors.Add(1)
	p.client.Abort()
}

const passConnectTimeout = 5 * time.Second

// passageBackend is the passage as its backend connection's handler.
type passageBackend passage

// OnConnect implements fastpath.Connector.
func (b *passageBackend) OnConnect(c *fastpath.Conn, err *fastpath.Error) {
	p := (*passage)(b)
	p.backend = nil
	if err != nil {
		p.endpoint.Failed(c.Loop(), err)
		p.dial()
		return
	}
	p.endpoint.Connected(c.Loop())
	p.endpoint.TunnelBegan()
	p.door.Stats.Tunnels.Add(1)
	s := p.door.HTTP.Router.Settings()
	fastpath.Join(p.client, c, s.TunnelIdle, s.HalfCloseTimeout, p)
}

// OnReadable implements fastpath.Handler; the tunnel reads everything.
func (b *passageBackend) OnReadable(*fastpath.Conn) {}

// OnWritable implements fastpath.Handler.
func (b *passageBackend) OnWritable(*fastpath.Conn) {}

// OnDeadline implements fastpath.Handler.
func (b *passageBackend) OnDeadline(*fastpath.Conn) {}

// OnReadable implements fastpath.Handler: a client that leaves while its backend is dialled.
func (p *passage) OnReadable(c *fastpath.Conn) {
	if c.Broken() {
		p.cancel()
	}
}

// OnWritable implements fastpath.Handler.
func (p *passage) OnWritable(*fastpath.Conn) {}

// OnDeadline implements fastpath.Handler.
func (p *passage) OnDeadline(*fastpath.Conn) { p.cancel() }

func (p *passage) cancel() {
	if p.backend != nil {
		p.backend.Close()
	}
	p.client.Abort()
}

// OnTunnelEnd implements fastpath.TunnelEnd.
func (p *passage) OnTunnelEnd(*fastpath.Tunnel, *fastpath.Error) {
	p.endpoint.TunnelEnded()
	p.door.Stats.Tunnels.Add(-1)
}
