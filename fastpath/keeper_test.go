package fastpath

import (
	"net/netip"
	"testing"
)

// book is a keeper that notes whose connections closed.
type book struct{ gone []netip.AddrPort }

func (b *book) OnClosed(c *Conn) { b.gone = append(b.gone, c.Remote()) }

// TestKeeper hears of the end once, with the address that a PROXY header gave, whoever handled the connection and however
// it ended.
func TestKeeper(t *testing.T) {
	l := startLoop(t)
	named := netip.MustParseAddrPort("192.0.2.7:4711")
	ends := map[string]func(*Conn){
		"close":  (*Conn).Close,
		"abort":  (*Conn).Abort,
		"linger": (*Conn).CloseLinger,
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			first, last := &book{}, &book{}
			c, peer := adopt(t, l, &hooks{})
			on(t, l, func() {
				c.SetKeeper(first)
				c.SetKeeper(last)
				c.SetRemote(named)
				end(c)
			})
			peer.Close()
			onEventually(t, l, "the close", func() bool { return len(last.gone) > 0 })
			on(t, l, func() {
				c.Close() // nothing more
				if len(last.gone) != 1 || last.gone[0] != named || len(first.gone) != 0 {
					t.Errorf("told %v, and %v to the one before", last.gone, first.gone)
				}
			})
		})
	}
}

// TestSome: all connections come by, in pieces, and none twice in a round.
func TestSome(t *testing.T) {
	l := startLoop(t)
	const conns = 20
	handlers := map[Handler]int{}
	for range conns {
		h := &hooks{}
		handlers[h] = 0
		adopt(t, l, h)
	}
	on(t, l, func() {
		for at, looked := 0, 0; looked < len(l.conns); looked += 7 {
			at = l.Some(at, min(7, len(l.conns)-looked), func(h Handler) bool {
				handlers[h]++
				return true
			})
		}
		for _, n := range handlers {
			if n != 1 {
				t.Errorf("a connection came by %d times", n)
			}
		}
		met := 0
		at := l.Some(0, len(l.conns), func(Handler) bool { met++; return met < 3 })
		if met != 3 || at == 0 {
			t.Errorf("%d came by before it was enough, next is %d", met, at)
		}
	})
}
