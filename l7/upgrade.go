package l7

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// upgrade joins client and backend after the backend's 101. The stream has checked that the client asked for it.
func (x *Exchange) upgrade() {
	f := &x.fwd
	if !f.reqEnded { // what is left of the body would be the tunnel's first bytes
		x.failed(errSwitchedEarly)
		return
	}
	streams := f.stream.Tunnels()
	switch {
	case streams:
		x.proveKey()
	case !x.provesKey():
		x.failed(errKeyUnproved)
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
	x.leaveRetries()
	x.local.srv.Stats.TunnelOpened(x.loop.ID)
	if streams {
		x.client.TunnelStream(x, s) // counted already, as a stream
		return
	}
	f.tunnel = s.Endpoint()
	f.tunnel.TunnelBegan()
	f.stream = nil
	x.client.Tunnel(x, s.Detach())
}

// OnTunnelEnd implements fastpath.TunnelEnd.
func (x *Exchange) OnTunnelEnd(t *fastpath.Tunnel, err *fastpath.Error) {
	up, down := t.Bytes()
	x.tunnelEnded(up, down, err)
}

// tunnelEnded records an exchange whose tunnel is over.
func (x *Exchange) tunnelEnded(up, down int64, err *fastpath.Error) {
	x.bodies.got, x.bodies.sent, x.fwd.got = up, down, down
	x.err = err
	if e := x.fwd.tunnel; e != nil {
		e.TunnelEnded()
	}
	x.local.srv.Stats.TunnelClosed(x.loop.ID)
	x.stage = stageDone
	x.record()
	x.local.release(x)
}

// handshakeKey gives the Sec-WebSocket-Key that a handshake of HTTP/2 lacks (RFC 8441 5.1): towards a backend of HTTP/1.1
// it is we who shake hands.
func (x *Exchange) handshakeKey() {
	var nonce [16]byte
	binary.LittleEndian.PutUint64(nonce[:8], x.local.random.Uint64())
	binary.LittleEndian.PutUint64(nonce[8:], x.local.random.Uint64())
	key := x.Arena.Alloc(base64.StdEncoding.EncodedLen(len(nonce)))
	base64.StdEncoding.Encode(key, nonce[:])
	x.Req.Fields = wire.Set(x.Req.Fields, wire.FieldSecWebSocketKey, key)
}

// provesKey tells whether a backend's 101 answers the key that was ours (RFC 6455 4.1). A client's own it checks itself.
func (x *Exchange) provesKey() bool {
	if !x.Req.Connect || !x.Req.WebSocket() {
		return true
	}
	return string(wire.GetName(x.Resp.Fields, "sec-websocket-accept")) == x.acceptKey()
}

// acceptKey is what answers the request's Sec-WebSocket-Key.
func (x *Exchange) acceptKey() string {
	key := wire.Get(x.Req.Fields, wire.FieldSecWebSocketKey)
	sum := sha1.Sum(append(x.Arena.Copy(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// proveKey gives the proof that an answer of HTTP/2 lacks (RFC 8441 5.1): towards a client of HTTP/1.1 it is we who shake hands.
func (x *Exchange) proveKey() {
	x.Resp.Fields = wire.DeleteName(x.Resp.Fields, "sec-websocket-accept")
	if !x.Req.Connect && x.Req.WebSocket() {
		x.Resp.Fields = append(x.Resp.Fields, wire.Field{Name: nameWebSocketAccept, Value: []byte(x.acceptKey())})
	}
}

var nameWebSocketAccept = []byte("Sec-WebSocket-Accept")
