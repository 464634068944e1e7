package l7

import (
	"strconv"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// keyBytesMax bounds what is hashed of a request; what goes beyond it does not count.
const keyBytesMax = 8 << 10

// hashOf is the hash of a cluster's key for this request.
func (x *Exchange) hashOf(parts []upstream.KeyPart) uint32 {
	key := x.local.key[:0]
	for i := range parts {
		if key = x.appendPart(key, &parts[i]); len(key) > keyBytesMax {
			key = key[:keyBytesMax]
			break
		}
	}
	x.local.key = key
	return upstream.Hash(key)
}

// appendPart appends what a variable of nginx stands for; an absent field is empty.
func (x *Exchange) appendPart(b []byte, p *upstream.KeyPart) []byte {
	r := &x.Req
	switch p.Variable {
	case upstream.VariableNone:
		return append(b, p.Text...)
	case upstream.VariableRequestURI:
		return append(b, x.asked...)
	case upstream.VariableURI:
		return append(b, r.Path...)
	case upstream.VariableArgs:
		return append(b, r.Query...)
	case upstream.VariableHost:
		return append(b, r.Host...)
	case upstream.VariableHTTPHost:
		return append(b, x.Authority()...)
	case upstream.VariableBestHTTPHost:
		return append(b, x.BestAuthority()...)
	case upstream.VariableServerName:
		return append(b, x.Route.ID.Host...)
	case upstream.VariableRemoteAddr:
		return x.ClientIP.AppendTo(b)
	case upstream.VariableRemotePort:
		return strconv.AppendUint(b, uint64(x.Remote.Port()), 10)
	case upstream.VariableScheme:
		if x.Secure {
			return append(b, schemeHTTPS...)
		}
		return append(b, schemeHTTP...)
	case upstream.VariableMethod:
		return append(b, r.MethodText...)
	case upstream.VariableRequestID:
		return append(b, x.RequestID...)
	case upstream.VariableServerPort:
		return append(b, x.port()...)
	case upstream.VariableHTTP:
		return append(b, wire.GetName(r.Fields, p.Text)...)
	case upstream.VariableCookie:
		return append(b, wire.Cookie(r.Fields, p.Text, true)...)
	case upstream.VariableArg:
		return append(b, wire.Argument(r.Query, p.Text)...)
	}
	return b
}
