package l7

import (
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// stage is how far an exchange has come.
type stage uint8

const (
	stageHead     stage = iota // request filters
	stageParked                // a filter holds the ticket
	stageCollect               // the request's body is buffered before a backend is asked
	stageConnect               // a session is being dialled
	stageResponse              // the request is on its way; its answer is awaited
	stageBody                  // the answer's head has been written
	stageTunnel                // upgraded: two connections joined
	stageDone
)

// reset makes x empty for its next use, keeping memory. Every field that belongs to one exchange is named here.
func (x *Exchange) reset() {
	x.Req.Reset()
	x.Resp.Reset()
	x.Arena.Reset()
	x.Route, x.Settings, x.RewriteTarget = nil, nil, nil
	x.SendHost, x.authority, x.Admitted, x.SetCookies, x.Challenge = nil, nil, false, x.SetCookies[:0], nil
	x.CookiesAlways = false
	x.described, x.intercepted, x.depth = false, false, 0
	x.Server, x.answer, x.client, x.accepted = nil, nil, nil, nil
	x.TLS, x.Secure, x.trusted, x.RequestID = false, false, false, nil
	x.unpark() // a filter may have parked without saying so: whoever resumes it must not meet another exchange
	x.filter, x.stage, x.ticket = 0, stageHead, fastpath.Ticket{}
	x.letGo()
	if x.encoding != nil {
		x.encoding.letGo()
		x.encoding = nil
	}
	if x.web != nil {
		x.local.releaseWeb(x.web)
		x.web = nil
	}
	x.fwd.reset()
	x.joined = nil
	x.err, x.asked, x.headBytes, x.plain, x.major = nil, nil, 0, false, 0
	x.grpc, x.callTimeout, x.callStatus = false, 0, 0
	x.bodies.reset()
}

// bodies is where an engine stands in the two bodies of an exchange, the request's and the response's.
type bodies struct {
	inChunks bool             // HTTP/1.1: the request's body comes in chunks, whatever a backend is told of it
	left     int64            // … or so many of its bytes are still to be read
	got      int64            // bytes of the body so far
	waited   int64            // nanoseconds that the client let us wait for its body
	since    int64            // when the present wait began; 0: not waiting
	ended    bool             // the request's body is complete
	asked    bool             // 100 Continue was sent, or is not needed
	chunked  bool             // HTTP/1.1: the response goes out chunked
	headOut  bool             // the response's head was written
	outEnded bool             // the response is complete
	keep     bool             // HTTP/1.1: the connection lives on after this exchange
	sent     int64            // body bytes of the response
	headSent int              // bytes of the response's head
	chunks   wire.ChunkReader // HTTP/1.1
}

// due100 tells, once, whether the client waits for a 100 before it sends its body. None may follow the response's head.
func (b *bodies) due100() bool {
	due := !b.asked && !b.headOut
	b.asked = true
	return due
}

func (b *bodies) reset() {
	c := b.chunks
	c.Reset()
	*b = bodies{chunks: c}
}
