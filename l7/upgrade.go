package l7

import (
	"github.com/sluiceproxy/sluice/fastpath"
)

// upgrade joins client and backend after the backend's 101. The stream has checked that the client asked for it.
func (x *Exchange) upgrade() {
	f := &x.fwd
	f.headAt = x.loop.Now()
	x.filterResponse()
	x.stage = stageTunnel
	if err := x.client.WriteHead(x, false); err != nil {
		x.failed(err)
		return
	}
	s := f.stream
	f.stream = nil
	backend, client := s.Detach(), x.client.Detach()
	x.local.srv.Stats.TunnelOpened(x.loop.ID)
	fastpath.Join(client, backend, x.Settings.TunnelIdle, x.Settings.HalfCloseTimeout, x)
}

// OnTunnelEnd implements fastpath.TunnelEnd.
func (x *Exchange) OnTunnelEnd(t *fastpath.Tunnel, err *fastpath.Error) {
	up, down := t.Bytes()
	x.h1.got, x.h1.sent, x.fwd.got = up, down, down
	x.err = err
	x.local.srv.Stats.TunnelClosed(x.loop.ID)
	x.stage = stageDone
	x.record()
	x.local.release(x)
}
