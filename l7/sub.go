package l7

import (
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// Limits of exchanges that the proxy begins itself.
const (
	subDepthMax  = 2        // exchanges of the proxy's own that may wait for each other
	subBodyBytes = 64 << 10 // of an answer's body that are read, so that its session can be used again; more closes it
)

// Answered is told what came of a subrequest: on the loop, in the asking exchange, as a request filter would be asked.
// res is a view of x's Arena; its status is 502 or 504 when nobody answered.
type Answered interface {
	Answered(x *Exchange, res *wire.Response) Verdict
}

// Sub begins an exchange of the proxy's own on behalf of x: the client is the same, the request is empty. Who fills the
// request calls Ask with it, or Drop. nil: exchanges would wait for each other without end.
func (x *Exchange) Sub() *Exchange {
	if x.depth >= subDepthMax {
		return nil
	}
	s := x.local.exchange()
	s.Settings, s.Remote, s.ClientIP, s.Local = x.Settings, x.Remote, x.ClientIP, x.Local
	s.TLS, s.Secure, s.depth, s.accepted = x.TLS, x.Secure, x.depth+1, x.accepted
	s.started = x.loop.Now()
	s.Req.Minor, s.Req.KeepAlive, s.bodies.ended, s.bodies.asked = 1, true, true, true
	return s
}

// Drop gives up an exchange that Sub made and Ask did not take.
func (x *Exchange) Drop(s *Exchange) { x.local.release(s) }

// Ask sends s and parks x until its answer's head is there; a filter that called it returns Park. route leads it, with its
// filters. Described: s has all fields about the client that it shall have.
func (x *Exchange) Ask(s *Exchange, route *Route, described bool, a Answered) {
	wait := 2 * (x.Settings.ConnectTimeout + x.Settings.WriteTimeout + x.Settings.ReadTimeout)
	c := &subClient{sub: s, asker: x, answered: a, ticket: x.Park(x.loop.Now() + int64(wait))}
	x.sub, s.client = c, c
	s.described, s.asked = described, s.Req.Target
	s.Route = route
	s.filterRequest()
}

// unpark makes whoever would resume x do nothing, and ends what was asked for x alone.
func (x *Exchange) unpark() {
	x.ticket.Cancel()
	if c := x.sub; c != nil {
		x.sub, c.asker = nil, nil
		if c.sub != nil {
			c.sub.abort(errClientGone)
		}
	}
}

// Compute runs f off the loop under a permit, and then g as Resumed of x, which is parked until deadline (loop time) at
// most. f must not touch x. An error: too much is under way, and x is not parked.
func (x *Exchange) Compute(deadline int64, f func(), g Resumed) *fastpath.Error {
	w := x.local.srv.Work
	if w == nil {
		f()
		x.Park(deadline).Resume(g)
		return nil
	}
	t := x.Park(deadline)
	if err := w.Go(fastpath.WorkCompute, func() {
		w.Do(f)
		t.Resume(g)
	}); err != nil {
		t.Cancel()
		x.client.SetDeadline(0)
		return err
	}
	return nil
}

// Own is the route of a host of the proxy's own, other than the catch-all, by names as routing sees them: a subrequest to
// it needs no connection. nil: there is none.
func (x *Exchange) Own(host, path []byte) *Route {
	if r, ok := x.local.srv.Router.(interface {
		Own(host, path []byte) *Route
	}); ok {
		return r.Own(host, path)
	}
	return nil
}

// subClient is the client of a subrequest: the exchange that asks. It takes the head and reads the body to nowhere.
type subClient struct {
	sub      *Exchange // nil: over
	asker    *Exchange // nil: nobody waits any more
	answered Answered
	ticket   fastpath.Ticket
	got      int
}

var _ Client = (*subClient)(nil)

// WriteHead implements Client: the asker goes on.
func (c *subClient) WriteHead(s *Exchange, end bool) *fastpath.Error {
	c.tell(&s.Resp)
	return nil
}

// tell copies an answer's head to the asker, and resumes it.
func (c *subClient) tell(res *wire.Response) {
	x := c.asker
	if x == nil {
		return
	}
	c.asker, x.sub = nil, nil
	copied := &wire.Response{Status: res.Status}
	for _, f := range res.Fields {
		copied.Fields = append(copied.Fields, wire.Field{Name: x.Arena.Copy(f.Name), Value: x.Arena.Copy(f.Value), ID: f.ID})
	}
	a := c.answered
	c.ticket.Resume(Resumed(func(x *Exchange) Verdict { return a.Answered(x, copied) }))
}

// WriteBody implements Client.
func (c *subClient) WriteBody(b []byte) *fastpath.Error {
	if c.got += len(b); c.got > subBodyBytes {
		return errSubBody
	}
	return nil
}

var errSubBody = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindCancelled, Text: "a subrequest's answer is longer than anybody wants"}

// Done implements Client.
func (c *subClient) Done() { c.end() }

// Abort implements Client.
func (c *subClient) Abort(err *fastpath.Error) {
	c.tell(&wire.Response{Status: statusOf(errNoEndpoint)})
	c.end()
}

func (c *subClient) end() {
	s := c.sub
	c.sub = nil
	s.local.release(s)
}

// ReadBody implements Client: a subrequest has no body.
func (c *subClient) ReadBody(int) ([]byte, *fastpath.Error) { return nil, fastpath.ErrEOF }

// Trailers implements Client.
func (c *subClient) Trailers() []wire.Field { return nil }

// BodyLeft implements Client.
func (c *subClient) BodyLeft() int64 { return 0 }

// Raw implements Client.
func (c *subClient) Raw() *fastpath.Conn { return nil }

// Spliced implements Client.
func (c *subClient) Spliced(int64) {}

// AwaitBody implements Client.
func (c *subClient) AwaitBody() {}

// RawOut implements Client.
func (c *subClient) RawOut() *fastpath.Conn { return nil }

// SplicedOut implements Client.
func (c *subClient) SplicedOut(int64) {}

// Again implements Client.
func (c *subClient) Again() {}

// WriteInterim implements Client.
func (c *subClient) WriteInterim(*wire.Response) *fastpath.Error { return nil }

// Room implements Client.
func (c *subClient) Room() int { return subBodyBytes }

// EndBody implements Client.
func (c *subClient) EndBody([]wire.Field) *fastpath.Error { return nil }

// Tunnel implements Client. No subrequest asks for an upgrade.
func (c *subClient) Tunnel(*Exchange, *fastpath.Conn) { panic("l7: a subrequest was upgraded") }

// TunnelStream implements Client.
func (c *subClient) TunnelStream(*Exchange, upstream.Stream) {
	panic("l7: a subrequest was upgraded")
}

// SetDeadline implements Client: the asker's own deadline holds.
func (c *subClient) SetDeadline(int64) {}
