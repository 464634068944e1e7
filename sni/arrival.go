package sni

import (
	"errors"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/route"
)

// arrival is a connection on its way through the door: PROXY header, ClientHello, handshake.
type arrival struct {
	door   *Door
	proxy  *ProxyPolicy // a PROXY header is still due
	raised bool         // SO_RCVLOWAT is raised
	need   int          // bytes without which another look is in vain: a hello in tiny pieces must not cost us one each
	accept *l7.Accepted
	to     Destination
	host   *route.Host     // PassThrough
	policy *l7.ClientAuth  // of the handshake; nil: clients are not asked for certificates
	conn   *fastpath.Conn  // while ticket is out
	ticket fastpath.Ticket // what the client showed is being judged
}

// greet waits for the first bytes, or goes straight to HTTP where nothing is to be decided.
func (a *arrival) greet(c *fastpath.Conn) {
	if a.door.Service != nil {
		a.door.forward(c, a.accept)
		return
	}
	if !a.door.TLS {
		a.door.HTTP.Serve(c, a.accept)
		return
	}
	c.SetDeadline(c.Loop().Now() + int64(a.door.Limits().HelloTimeout))
	if c.Readable() || len(c.Buffered()) > 0 {
		a.OnReadable(c)
	}
}

// OnReadable implements fastpath.Handler.
func (a *arrival) OnReadable(c *fastpath.Conn) {
	if a.conn != nil { // it is HTTP's
		return
	}
	if a.proxy != nil {
		a.readProxy(c)
		return
	}
	b, err := a.look(c)
	if err != nil {
		if err != fastpath.ErrWouldBlock {
			c.Close()
		}
		return
	}
	if len(b) >= a.need || c.EOF() {
		a.decide(c, b)
	}
}

// look shows the first bytes.
func (a *arrival) look(c *fastpath.Conn) ([]byte, *fastpath.Error) {
	for most := a.door.Limits().HelloBytesMax; len(c.Buffered()) < most; {
		if err := c.Fill(most - len(c.Buffered())); err != nil {
			if (err == fastpath.ErrWouldBlock || err == fastpath.ErrEOF) && len(c.Buffered()) > 0 {
				err = nil // an end behind a hello is the backend's to know, or the handshake's
			}
			return c.Buffered(), err
		}
	}
	return c.Buffered(), nil
}

func (a *arrival) decide(c *fastpath.Conn, b []byte) {
	d, most := a.door, a.door.Limits().HelloBytesMax
	switch v := d.admit(b[:min(len(b), most)], d.Store.Load()); v.To {
	case Wait:
		if v.Hello.Need > most || c.EOF() {
			d.Stats.Refused.Add(1)
			c.Close()
			return
		}
		a.need = v.Hello.Need
	case PlainHTTP: // arrivals of a plain port do not come here
		a.wakeNormally(c)
		a.enter(c, PlainHTTP, nil)
	case PassThrough:
		a.wakeNormally(c)
		a.enter(c, PassThrough, v.Host)
	case Terminate:
		a.wakeNormally(c)
		a.terminate(c, v)
	default:
		d.Stats.Refused.Add(1)
		c.Close()
	}
}

// enter ends the arrival, on a loop that serves.
func (a *arrival) enter(c *fastpath.Conn, to Destination, host *route.Host) {
	a.to, a.host = to, host
	if c.Loop().Porch() {
		c.Move(a.door.Loops[a.door.least()], a)
		return
	}
	a.OnMoved(c)
}

// OnMoved implements fastpath.Mover.
func (a *arrival) OnMoved(c *fastpath.Conn) {
	switch d := a.door; a.to {
	case PlainHTTP:
		d.HTTP.RefuseHTTP1(c, a.accept)
	case PassThrough:
		d.passThrough(c, a.host, a.accept)
		sparesOf(c.Loop()).release(a) // the passage is c's handler, and nothing of a is out
	case Terminate:
		d.HTTP.Serve(c, a.accept)
	}
}

func (a *arrival) wakeNormally(c *fastpath.Conn) {
	if a.raised {
		a.raised = false
		c.SetLowWater(1)
	}
}

// awaitProxy makes a PROXY header the connection's first duty. Who is not trusted to send one is refused.
func (a *arrival) awaitProxy(c *fastpath.Conn, p *ProxyPolicy) {
	if len(p.Trusted) > 0 && !contains(p.Trusted, c.Remote().Addr()) {
		a.door.Stats.Refused.Add(1)
		c.Close()
		return
	}
	a.proxy = p
	c.SetDeadline(c.Loop().Now() + int64(a.door.Limits().ProxyHeaderTimeout))
}

// readProxy takes the PROXY header off the stream. What follows it stays unread, so it can still be peeked at or read.
func (a *arrival) readProxy(c *fastpath.Conn) {
	b, err := c.Peek()
	if err != nil {
		if err != fastpath.ErrWouldBlock {
			c.Close()
		}
		return
	}
	h, n, perr := parseProxy(b, a.door.Limits().ProxyHeaderBytesMax)
	if errors.Is(perr, ErrShort) {
		c.SetLowWater(n)
		a.raised = true
		return
	}
	a.wakeNormally(c)
	if perr != nil || LooksLikeProxy(b[n:]) {
		a.door.Stats.Refused.Add(1)
		c.Close()
		return
	}
	if err := c.Fill(n); err != nil || len(c.Buffered()) != n {
		c.Close()
		return
	}
	c.Discard(n)
	a.proxy = nil
	if !h.Local {
		c.SetRemote(h.Src)
		a.accept = &l7.Accepted{Local: h.Dst, Proxied: true}
	}
	if a.door.admitSource(c) {
		a.greet(c)
	}
}

// OnWritable implements fastpath.Handler.
func (a *arrival) OnWritable(*fastpath.Conn) {}

// OnDeadline implements fastpath.Handler: nobody who dawdles at the door is waited for.
func (a *arrival) OnDeadline(c *fastpath.Conn) {
	a.door.Stats.Refused.Add(1)
	c.Close()
}

// normalName is a server name as routing sees it.
func normalName(name []byte) []byte {
	if len(name) == 0 {
		return nil
	}
	return wire.NormaliseHost(make([]byte, 0, len(name)), name)
}
