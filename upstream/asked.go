package upstream

import (
	"sync/atomic"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// asked is one Open, whatever the protocol: who asked whom, and the counts in which its stream is. It belongs to a loop.
type asked struct {
	endpoint *Endpoint
	loop     *fastpath.Loop
	peer     Peer // nil: the stream is over
	counted  bool // endpoint.active counts its stream
	entered  bool // cluster.under counts its stream
	waits    bool // cluster.under counts it as pending

	limits     *wire.Limits // of heads; nil: the defaults
	interimMax int
}

// begin makes p the peer.
func (a *asked) begin(p Peer, v *view, o *OpenOptions) {
	a.peer = p
	a.limits, a.interimMax = o.Head, o.InterimMax
	if o.Head == nil {
		a.interimMax = interimMaxDefault
	}
	a.endpoint.loops[a.loop.ID].requests.inc()
	if a.counted = v.countActive; a.counted {
		a.endpoint.active.Add(1)
	}
	a.entered = v.countAll
}

// end is begin's other half.
func (a *asked) end() {
	a.peer = nil
	a.endpoint.loops[a.loop.ID].ended.inc()
	if a.counted {
		a.counted = false
		a.endpoint.active.Add(-1)
	}
	under := &a.endpoint.cluster.under
	noLonger(&a.entered, &under.requests)
	noLonger(&a.waits, &under.pending)
}

// noLonger takes something out of a count of the cluster's, if it is in it.
func noLonger(in *bool, count *atomic.Int64) {
	if *in {
		*in = false
		count.Add(-1)
	}
}

// Endpoint implements Stream.
func (a *asked) Endpoint() *Endpoint { return a.endpoint }
