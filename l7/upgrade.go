package l7

import (
	"github.com/sluiceproxy/sluice/fastpath"
)

// upgrade joins client and backend after the backend's 101. The stream has checked that the client asked for it.
func (x *Exchange) upgrade() {
	f := &x.fwd
	if !f.reqEnded { // what is left of the body would be the tunnel's first bytes
		x.failed(errSwitchedEarly)
		return
	}
	f.headAt, f.status = x.loop.Now(), x.Resp.Status
	x.stick()
	if !x.filterResponse() {
		x.failed(errPanic)
		return
	}
	if err := x.client.WriteHead(x, false); err != nil {
		x.unwritable(err)
		return
	}
	x.stage = stageTunnel
	s := f.stream
	f.stream = nil
	f.tunnel = s.Endpoint()
	f.tunnel.TunnelBegan()
	backend, client := s.Detach(), x.client.Detach()
	x.local.srv.Stats.TunnelOpened(x.loop.ID)
	fastpath.Join(client, backend, x.Settings.TunnelIdle, x.Settings.HalfCloseTimeout, x)
}

// OnTunnelEnd implements fastpath.TunnelEnd.
func (x *Exchange) OnTunnelEnd(t *fastpath.Tunnel, err *fastpath.Error) {
	up, down := t.Bytes()
	x.h1.got, x.h1.sent, x.fwd.got = up, down, down
	x.err = err
	x.fwd.tunnel.TunnelEnded()
	x.local.srv.Stats.TunnelClosed(x.loop.ID)
	x.stage = stageDone
	x.record()
	x.local.release(x)
}
