package sni

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Census counts the client connections and the handshakes under way, of all doors that share it, in all and by source. A
// source is an IPv4 address or an IPv6 network of 64 bits, of which one client has as many addresses as it likes.
type Census struct {
	connections tally
	handshakes  tally
}

// tally counts in all, and by source. Its locks are taken when a connection begins and ends, not in between.
type tally struct {
	_      [64]byte
	all    atomic.Int64
	_      [56]byte
	shards [tallyShards]tallyShard
}

const tallyShards = 64

type tallyShard struct {
	mu sync.Mutex
	by map[netip.Addr]int64
	_  [48]byte
}

// sourceOf is the source that an address belongs to.
func sourceOf(a netip.Addr) netip.Addr {
	if a = a.Unmap(); a.Is4() {
		return a
	}
	network, _ := a.WithZone("").Prefix(64) // of the invalid address: the invalid one
	return network.Addr()
}

func (t *tally) shard(source netip.Addr) *tallyShard {
	b := source.As16()
	h := uint32(0)
	for _, v := range b {
		h = h*31 + uint32(v)
	}
	return &t.shards[h%tallyShards]
}

// enter counts one more of a source, and answers how many that makes. That there is one more in all the caller counts.
func (t *tally) enter(a netip.Addr) (own int64) {
	source := sourceOf(a)
	s := t.shard(source)
	s.mu.Lock()
	if s.by == nil {
		s.by = map[netip.Addr]int64{}
	}
	own = s.by[source] + 1
	s.by[source] = own
	s.mu.Unlock()
	return own
}

// leave counts one less, of its source and in all.
func (t *tally) leave(a netip.Addr) {
	source := sourceOf(a)
	s := t.shard(source)
	s.mu.Lock()
	if own := s.by[source]; own > 1 {
		s.by[source] = own - 1
	} else {
		delete(s.by, source)
	}
	s.mu.Unlock()
	t.all.Add(-1)
}

// newcomer is the Keeper of a connection whose source is not known before its PROXY header. It is counted in all.
type newcomer Census

// OnClosed implements fastpath.Keeper.
func (n *newcomer) OnClosed(*fastpath.Conn) { n.connections.all.Add(-1) }

// guest is the Keeper of a connection that is counted under its Remote, from there to its end.
type guest Census

// OnClosed implements fastpath.Keeper.
func (g *guest) OnClosed(c *fastpath.Conn) { g.connections.leave(c.Remote().Addr()) }

// Connections is how many client connections are open.
func (c *Census) Connections() int64 { return c.connections.all.Load() }

// Connections beyond these parts of a limit make room for new ones where they are idle; at the limit nobody is accepted.
const (
	highWater      = 80 // percent
	openFilesShare = 90 // percent of the open files that clients and backends may have: logs, pipes and pages need some too
)

// room is how many connections may be accepted now, and how many are beyond the high water.
func (d *Door) room() (accept, excess int64) {
	l := d.Limits()
	accept = acceptBatch
	weigh := func(have, high, most int64) {
		accept = min(accept, most-have)
		excess = max(excess, have-high)
	}
	if most := int64(l.ConnectionsMax); most > 0 {
		weigh(d.Census.Connections(), most*highWater/100, most)
	}
	if files := int64(l.OpenFilesMax); files > 0 {
		var open int64
		for _, loop := range d.everywhere {
			open += loop.Stats.Conns.Load() + loop.Stats.Pending.Load()
		}
		weigh(open, files*highWater/100, files*openFilesShare/100)
	}
	return accept, excess
}

// admitSource counts a connection under its source and tells whether that one may have it.
func (d *Door) admitSource(c *fastpath.Conn) bool {
	l := d.Limits()
	most := int64(l.ConnectionsSourceMax)
	if most == 0 {
		if most = int64(l.ConnectionsMax); most == 0 {
			most = int64(l.OpenFilesMax)
		}
		most /= 2
	}
	own := d.Census.connections.enter(c.Remote().Addr())
	c.SetKeeper((*guest)(d.Census))
	if most > 0 && own > most {
		d.Stats.SourceFull.Add(1)
		c.Close()
		return false
	}
	return true
}

// admitHandshake counts a handshake under its source and tells whether it may begin. Once half of all are taken, a source
// may have a quarter: who floods the port leaves room for others.
func (d *Door) admitHandshake(a netip.Addr) bool {
	most := int64(d.Limits().HandshakesMax)
	h := &d.Census.handshakes
	all, own := h.all.Add(1), h.enter(a)
	if all > most || all > most/2 && own > max(1, most/4) {
		h.leave(a)
		return false
	}
	return true
}
