package upstream

import (
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Dial is a raw connection for a tunnel while it is being made: what Endpoint.Dial has begun and OnConnect has not answered
// yet. Its owner keeps it and ends it. A value leads one connection at a time, on one loop.
type Dial struct {
	at    *endpointLoop // nil: over
	conn  *fastpath.Conn
	owner fastpath.Connector
	place int // its index in endpointLoop.raw
}

// Dial starts a raw connection for a tunnel, and sends first if that is possible at once (fastpath.Loop.DialSending): sent >
// 0 means that it is connected. Else h.OnConnect follows, which has to call d.End; its error is ErrRemoved if the endpoint was
// removed meanwhile and there is another one to ask. The caller passes on how it went by Connected or Failed; what is
// answered here as an error is counted already. A tunnel that balancers shall count calls TunnelBegan and TunnelEnded.
// timeout 0: the cluster's.
func (e *Endpoint) Dial(l *fastpath.Loop, d *Dial, h fastpath.Connector, timeout time.Duration, first []byte) (c *fastpath.Conn, sent int, err *fastpath.Error) {
	if timeout <= 0 {
		timeout = e.cluster.current.Load().ConnectTimeout
	}
	if c, sent, err = l.DialSending(e.addr, timeout, h, first); err != nil {
		e.Failed(l, err)
		return nil, 0, err
	}
	if sent == 0 {
		p := &e.loops[l.ID]
		*d = Dial{at: p, conn: c, owner: h, place: len(p.raw)}
		p.raw = append(p.raw, d)
		p.dialling.Store(int64(len(p.raw)))
	}
	return c, sent, nil
}

// End forgets a dial: it has succeeded or failed, or its owner has closed the connection. Once more does nothing.
func (d *Dial) End() {
	p := d.at
	if p == nil {
		return
	}
	last := len(p.raw) - 1
	p.raw[d.place] = p.raw[last]
	p.raw[d.place].place = d.place
	p.raw[last] = nil
	p.raw = p.raw[:last]
	p.dialling.Store(int64(last))
	*d = Dial{}
}

// giveUp tells the owner that the endpoint was removed.
func (d *Dial) giveUp() {
	c, owner := d.conn, d.owner
	c.Close()
	owner.OnConnect(c, ErrRemoved)
}
