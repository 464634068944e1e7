package sni

import (
	"net/netip"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

const (
	passTries          = 3 // endpoints that a passed-through connection is offered to
	passTriesMax       = 16
	passConnectTimeout = 5 * time.Second
	passRemovedMax     = 8 // dials that were given up because their endpoint was removed, and are no tries
)

// passage is a connection on its way to a backend that gets its bytes as they are: of a host that is passed through, or of
// a TCP service. What the client has sent stays unread in the socket until the backend is connected, then both are joined.
type passage struct {
	door     *Door
	cluster  *upstream.Cluster
	client   *fastpath.Conn
	backend  *fastpath.Conn
	endpoint *upstream.Endpoint

	service *route.BoundService // nil: a host that is passed through
	header  route.ProxyVersion  // what the backend is sent first
	local   netip.AddrPort      // what the client connected to; invalid: the connection tells
	began   int64

	dialling upstream.Dial   // backend, until it is connected
	tunnel   fastpath.Tunnel // once joined
	tries    int
	most     int // tries
	removed  int // dials that were given up
	joined   bool
	tried    [passTriesMax]*upstream.Endpoint
}

// passThrough leads an untouched connection to an endpoint of the host's pass-through cluster.
func (d *Door) passThrough(c *fastpath.Conn, h *route.Host, a *l7.Accepted) {
	d.Stats.Passed.Add(1)
	p := sparesOf(c.Loop()).passage()
	p.door, p.cluster, p.client, p.most, p.header = d, h.Passthrough, c, passTries, h.PassthroughProxy()
	p.begin(a)
}

// forward leads a connection of a TCP service to an endpoint of its cluster.
func (d *Door) forward(c *fastpath.Conn, a *l7.Accepted) {
	s := d.Service()
	if s == nil { // the port is just being closed
		d.Stats.Refused.Add(1)
		c.Abort()
		return
	}
	s.Stats.Begun.Add(1)
	s.Stats.Active.Add(1)
	p := sparesOf(c.Loop()).passage()
	p.door, p.cluster, p.client, p.most, p.header, p.service = d, s.Upstream, c, passTriesMax, s.ProxyTo, s
	switch {
	case s.NoRetry:
		p.most = 1
	case s.Tries > 0:
		p.most = min(s.Tries, passTriesMax)
	}
	p.begin(a)
}

func (p *passage) begin(a *l7.Accepted) {
	p.began = p.client.Loop().Now()
	if a != p.door.accepted {
		p.local = a.Local
	}
	p.client.SetHandler(p)
	p.client.SetDeadline(0)
	p.dial()
}

func (p *passage) dial() {
	l := p.client.Loop()
	source := p.client.Remote().Addr().As16()
	for p.tries < p.most && !p.late() {
		e := p.cluster.Pick(upstream.Wish{Loop: l.ID, Hash: upstream.Hash(source[:]), Tried: p.tried[:p.tries]})
		if e == nil {
			break
		}
		p.tried[p.tries], p.endpoint = e, e
		p.tries++
		first := p.client.Buffered() // the hello; a service's client may yet have to be spoken to
		if p.header != 0 {
			first = nil // the header comes before it
		}
		backend, sent, err := e.Dial(l, &p.dialling, (*passageBackend)(p), p.connectTimeout(), first)
		if err != nil {
			continue
		}
		if p.backend = backend; sent > 0 {
			p.client.Discard(sent)
			p.connected(backend, sent)
		}
		return
	}
	p.door.Stats.PassErrors.Add(1)
	p.client.Abort()
	p.ended(0, 0, fastpath.ErrRefused)
}

// late tells that no other endpoint is to be asked any more.
func (p *passage) late() bool {
	s := p.service
	return s != nil && p.tries > 0 && s.RetryWithin > 0 && p.client.Loop().Now()-p.began >= int64(s.RetryWithin)
}

// connectTimeout is that of the cluster for TCP services.
func (p *passage) connectTimeout() time.Duration {
	if p.service != nil {
		return 0
	}
	return passConnectTimeout
}

// passageBackend is the passage as its backend connection's handler.
type passageBackend passage

// OnConnect implements fastpath.Connector.
func (b *passageBackend) OnConnect(c *fastpath.Conn, err *fastpath.Error) {
	p := (*passage)(b)
	p.dialling.End()
	if err != nil {
		p.backend = nil
		if err == upstream.ErrRemoved && p.removed < passRemovedMax { // by the configuration, so that it is no try
			p.removed++
			p.tries--
		}
		p.endpoint.Failed(c.Loop(), err)
		p.dial()
		return
	}
	p.introduce(c)
	p.connected(c, 0)
}

// connected joins the client with its backend, which was sent so many of the client's bytes already.
func (p *passage) connected(c *fastpath.Conn, sent int) {
	p.backend = nil
	p.endpoint.Connected(c.Loop())
	p.endpoint.TunnelBegan()
	p.joined = true
	p.door.Stats.Tunnels.Add(1)
	s := p.door.HTTP.Router.Settings()
	idle := s.TunnelIdle
	if p.service != nil {
		idle = p.service.Idle
	}
	t := &p.tunnel
	t.Join(p.client, c, idle, s.HalfCloseTimeout, p)
	t.Preceded(sent)
	t.SetSockmap(p.endpoint.Sockmap())
}

// introduce tells the backend who the client is.
func (p *passage) introduce(c *fastpath.Conn) {
	if p.header == 0 {
		return
	}
	to := p.local
	if !to.IsValid() {
		to = p.client.Local()
	}
	var b [proxyV1BytesMax]byte
	c.Write(AppendProxy(b[:0], p.header, p.client.Remote(), to))
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
		p.cancel(fastpath.ErrReset)
	}
}

// OnWritable implements fastpath.Handler.
func (p *passage) OnWritable(*fastpath.Conn) {}

// OnDeadline implements fastpath.Handler: dialling has a time of its own.
func (p *passage) OnDeadline(*fastpath.Conn) {}

func (p *passage) cancel(err *fastpath.Error) {
	if p.backend != nil {
		p.dialling.End()
		p.backend.Close()
	}
	p.client.Abort()
	p.ended(0, 0, err)
}

// OnTunnelEnd implements fastpath.TunnelEnd.
func (p *passage) OnTunnelEnd(t *fastpath.Tunnel, err *fastpath.Error) {
	p.endpoint.TunnelEnded()
	p.door.Stats.Tunnels.Add(-1)
	received, sent := t.Bytes()
	l := p.client.Loop()
	p.ended(received, sent, err)
	l.Spend(p)
}

// ended counts and logs a connection of a TCP service. The client's connection is closed.
func (p *passage) ended(received, sent int64, err *fastpath.Error) {
	s := p.service
	if s == nil {
		return
	}
	s.Stats.Active.Add(-1)
	s.Stats.Received.Add(uint64(received))
	s.Stats.Sent.Add(uint64(sent))
	status := l7.StreamStatus(p.joined, err)
	if !p.joined {
		s.Stats.Failed.Add(1)
	}
	var at netip.AddrPort
	if p.endpoint != nil {
		at = p.endpoint.Addr()
	}
	l := p.client.Loop()
	p.door.logStream(l, s.Service, &l7.StreamRecord{Remote: p.client.Remote(), Status: status, Sent: sent, Received: received,
		Duration: l.Now() - p.began, Upstream: at, Err: err})
}

// logStream writes a line about a connection or session of a service, if that is wanted.
func (d *Door) logStream(l *fastpath.Loop, s *route.Service, r *l7.StreamRecord) {
	settings := d.HTTP.Router.Settings()
	if d.HTTP.Log == nil || s.NoLog || !settings.AccessLog {
		return
	}
	r.Now, r.Format = l.Wall(), settings.AccessLogFormat
	r.Protocol, r.Port, r.Namespace, r.Service, r.To = s.Protocol.String(), s.Port, s.Namespace, s.Service, s.To
	d.HTTP.Log.WriteStream(l.ID, r)
}
