package l7

import (
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// Limits of mirrors. What goes beyond them is not mirrored, and counted: a copy never delays or changes the request itself.
const (
	mirrorsMax        = 256 // copies that a loop has under way
	mirrorsIdleMax    = 16  // … and keeps for reuse
	mirrorAnswerBytes = 64 << 10
	mirrorTargetBytes = 16 << 10
	mirrorTimeout     = 10_000_000_000 // nanoseconds from the session to the answer's end
)

// Mirror sends a copy of each request elsewhere; the answer is read and dropped. A body is copied if it is wholly at hand
// when the backend is asked (Settings.RequestBuffer); a request with a longer one is not mirrored.
type Mirror struct {
	Cluster *upstream.Cluster
	Host    []byte             // the copy's Host
	Target  []upstream.KeyPart // its path and query
	Body    bool               // mirror-request-body: else copies go without
}

// mirrored is one copy on its way. It belongs to one loop.
type mirrored struct {
	local  *local
	stream upstream.Stream
	req    wire.Request
	res    wire.Response
	arena  wire.Arena
	body   []byte
	sent   int
	got    int
	head   bool
}

var _ upstream.Peer = (*mirrored)(nil)

// mirror sends the copy. It is called once, when the request is about to go to its backend.
func (x *Exchange) mirror() {
	m := x.Route.Mirror
	stats := &x.local.srv.Stats.loops[x.loop.ID]
	whole := x.Req.Framing == wire.FramingNone || !m.Body || x.fwd.bodyEnd
	if !whole || x.Req.Upgrade != nil || x.local.mirroring >= mirrorsMax {
		stats.Mirrors[MirrorDropped].Inc()
		return
	}
	e := m.Cluster.Pick(upstream.Wish{Loop: x.loop.ID})
	if e == nil {
		stats.Mirrors[MirrorFailed].Inc()
		return
	}
	c := x.local.mirror()
	c.copyOf(x, m)
	s, ready, err := e.Open(x.loop, c, upstream.OpenOptions{})
	switch {
	case err != nil:
		c.end(MirrorFailed)
	case ready:
		c.OnStream(s, nil)
	default:
		c.stream = s
	}
}

// copyOf makes the copy: nothing of x is held.
func (c *mirrored) copyOf(x *Exchange, m *Mirror) {
	from, to := &x.Req, &c.req
	fields := to.Fields[:0]
	*to = wire.Request{Method: from.Method, MethodText: c.arena.Copy(from.MethodText), Minor: 1, KeepAlive: true, Fields: fields, Authority: m.Host}
	for i := range from.Fields {
		f := &from.Fields[i]
		to.Fields = append(to.Fields, wire.Field{Name: c.arena.Copy(f.Name), Value: c.arena.Copy(f.Value), ID: f.ID})
	}
	target := x.local.key[:0]
	for i := range m.Target {
		part := &m.Target[i]
		if n := len(target); n > 0 && target[n-1] == '/' && part.Variable != upstream.VariableNone {
			target = target[:n-1] // https://host/$request_uri has one slash too many
		}
		target = x.appendPart(target, part)
	}
	if len(target) == 0 || target[0] != '/' {
		target = append(target[:0], '/')
	}
	x.local.key = target
	to.Target = c.arena.Copy(target[:min(len(target), mirrorTargetBytes)])
	if from.Framing != wire.FramingNone && m.Body {
		to.Framing, to.ContentLength = wire.FramingLength, int64(len(x.fwd.body))
		c.body = append(c.body[:0], x.fwd.body...)
	}
}

// OnStream implements upstream.Peer.
func (c *mirrored) OnStream(s upstream.Stream, err *fastpath.Error) {
	defer c.recovered()
	if c.stream = s; err != nil {
		c.stream = nil
		c.end(MirrorFailed)
		return
	}
	s.SetTimeout(mirrorTimeout)
	if err := s.Send(&c.req); err != nil {
		c.end(MirrorFailed)
		return
	}
	c.write()
}

// write sends the body as far as there is room.
func (c *mirrored) write() {
	for c.sent < len(c.body) {
		n := min(c.stream.Room(), len(c.body)-c.sent)
		if n == 0 {
			return
		}
		if err := c.stream.WriteBody(c.body[c.sent : c.sent+n]); err != nil {
			c.end(MirrorFailed)
			return
		}
		c.sent += n
	}
	if err := c.stream.EndBody(nil); err != nil {
		c.end(MirrorFailed)
	}
}

// OnRoom implements upstream.Peer.
func (c *mirrored) OnRoom() {
	defer c.recovered()
	c.write()
}

// OnResponse implements upstream.Peer: the answer is read to its end, so that the session can be used again.
func (c *mirrored) OnResponse() {
	defer c.recovered()
	for !c.head {
		switch err := c.stream.ReadHead(&c.res, &c.arena); {
		case err == fastpath.ErrWouldBlock:
			return
		case err != nil:
			c.end(MirrorFailed)
			return
		}
		c.head = c.res.Status >= 200
	}
	for c.got < mirrorAnswerBytes {
		b, err := c.stream.ReadBody(mirrorAnswerBytes)
		c.got += len(b)
		switch {
		case err == fastpath.ErrWouldBlock:
			return
		case err != nil:
			c.end(MirrorSent)
			return
		}
	}
	c.end(MirrorSent)
}

// OnStreamTimeout implements upstream.Peer.
func (c *mirrored) OnStreamTimeout() {
	defer c.recovered()
	c.end(MirrorFailed)
}

// recovered keeps a defect to the copy.
func (c *mirrored) recovered() {
	if p := recover(); p != nil {
		countPanic(c.local.loop, p)
		c.end(MirrorFailed)
	}
}

// end gives the copy back.
func (c *mirrored) end(how MirrorResult) {
	p := c.local
	if s := c.stream; s != nil {
		c.stream = nil
		s.Release()
	}
	p.srv.Stats.loops[p.loop.ID].Mirrors[how].Inc()
	p.mirroring--
	if len(p.mirrors) == mirrorsIdleMax {
		return
	}
	c.req.Reset()
	c.res.Reset()
	c.arena.Reset()
	c.body, c.sent, c.got, c.head = c.body[:0], 0, 0, false
	p.mirrors = append(p.mirrors, c)
}

// mirror gives an empty copy.
func (p *local) mirror() *mirrored {
	p.mirroring++
	if n := len(p.mirrors); n > 0 {
		c := p.mirrors[n-1]
		p.mirrors = p.mirrors[:n-1]
		return c
	}
	return &mirrored{local: p}
}
