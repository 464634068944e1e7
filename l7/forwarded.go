package l7

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// This file is what the backend learns about the client: X-Forwarded-*, X-Real-IP, X-Request-ID, under ingress-nginx's
// names. What an untrusted client says of itself is replaced, never appended to (docs/hardening.md 3.2).

var (
	nameXRequestID             = []byte("X-Request-ID")
	nameXRealIP                = []byte("X-Real-IP")
	nameXForwardedFor          = []byte("X-Forwarded-For")
	nameXForwardedHost         = []byte("X-Forwarded-Host")
	nameXForwardedPort         = []byte("X-Forwarded-Port")
	nameXForwardedProto        = []byte("X-Forwarded-Proto")
	nameXForwardedScheme       = []byte("X-Forwarded-Scheme")
	nameXScheme                = []byte("X-Scheme")
	nameXOriginalForwardedFor  = []byte("X-Original-Forwarded-For")
	nameXOriginalForwardedHost = []byte("X-Original-Forwarded-Host")
	nameProxy                  = []byte("Proxy") // a CGI backend would take it for its HTTP_PROXY (CVE-2016-5385)
)

// serverName is the host of a request that names none, which HTTP/1.0 allows. It is nginx's $host: the name that the
// connection was made under or the rule was written for, else "_".
func (x *Exchange) serverName() []byte {
	if len(x.Server) > 0 {
		return x.Server
	}
	if name := x.Route.ID.Host; name != "" && name[0] != '*' {
		return x.Arena.Copy([]byte(name))
	}
	return nameless
}

var nameless = []byte("_")

// forwardedFor walks a trusted X-Forwarded-For from its end to the first address that no trusted proxy has.
func (x *Exchange) forwardedFor() netip.Addr {
	client := x.Remote.Addr()
	fields := x.Req.Fields
	if name := x.Settings.ForwardedForHeader; !wire.EqualFold(name, nameXForwardedFor) {
		fields = x.alias[:0]
		for i := range x.Req.Fields {
			if f := &x.Req.Fields[i]; wire.EqualFold(f.Name, name) {
				fields = append(fields[:0], wire.Field{Value: f.Value, ID: wire.FieldXForwardedFor})
			}
		}
	}
	it := wire.LastForwardedFor(fields)
	for {
		a, ok := it.Next()
		if !ok {
			return client
		}
		client = a
		if !trusted(x.Settings.TrustedPeers, a) {
			return client
		}
	}
}

// saidHost is the Host that a trusted peer says the client asked for: the first one of forwarded-host-header, if it is one;
// nil without. The rule was found by the request's own Host, as in ingress-nginx.
func (x *Exchange) saidHost() []byte {
	if !x.trusted {
		return nil
	}
	host := wire.GetName(x.Req.Fields, x.Settings.ForwardedHostHeader)
	if i := bytes.IndexByte(host, ','); i >= 0 {
		host = host[:i]
	}
	if host = bytes.TrimRight(host, " \t"); len(host) == 0 {
		return nil
	}
	if _, _, err := wire.ParseAuthority(host); err != nil {
		return nil
	}
	return host
}

// BestAuthority is the Host that the client asked for, as far as is known: what a trusted peer says, else Authority. It is
// ingress-nginx's $best_http_host.
func (x *Exchange) BestAuthority() []byte {
	if said := x.saidHost(); said != nil {
		return said
	}
	return x.Authority()
}

// PassPort is the port that clients know, as text: where they connected to, but 443 in place of --https-port, which stands
// behind a Service's 443. It is ingress-nginx's $pass_port.
func (x *Exchange) PassPort() []byte {
	if p := x.Settings.HTTPSPort; p != 0 && p == x.Local.Port() {
		return port443
	}
	return x.port()
}

// Describe replaces the request's fields about the client by what the connection says, or a trusted peer said, once. A
// filter that sets fields of its own calls it first, so that its word is the last one.
func (x *Exchange) Describe() {
	if x.described {
		return
	}
	x.described = true
	if len(x.Req.Authority) == 0 {
		x.Req.Authority = x.serverName()
	}
	ip := x.Arena.Commit(x.ClientIP.AppendTo(x.Arena.Reserve(textMax)))
	proto, host := schemeHTTP, x.Req.Authority
	if said := x.saidHost(); said != nil {
		if host = said; x.SendHost == nil {
			x.SendHost = said
		}
	}
	if x.Secure {
		proto = schemeHTTPS
	}
	c := claims{forwardedFor: ip}
	kept := x.withoutClaims(&c)
	id, port, xff := c.id, c.port, c.forwardedFor
	if id == nil && (!x.Settings.NoRequestID || x.RequestID != nil) {
		if id = x.RequestID; id == nil { // a filter may have asked for it already
			id = x.requestID()
		}
	}
	if port == nil {
		port = x.PassPort()
	}
	x.RequestID = id
	if id != nil {
		kept = append(kept, wire.Field{Name: nameXRequestID, Value: id, ID: wire.FieldXRequestID})
	}
	x.Req.Fields = append(kept,
		wire.Field{Name: nameXRealIP, Value: ip, ID: wire.FieldXRealIP},
		wire.Field{Name: nameXForwardedFor, Value: xff, ID: wire.FieldXForwardedFor},
		wire.Field{Name: nameXForwardedHost, Value: host, ID: wire.FieldXForwardedHost},
		wire.Field{Name: nameXForwardedPort, Value: port, ID: wire.FieldXForwardedPort},
		wire.Field{Name: nameXForwardedProto, Value: proto, ID: wire.FieldXForwardedProto},
		wire.Field{Name: nameXForwardedScheme, Value: proto, ID: wire.FieldXForwardedScheme},
		wire.Field{Name: nameXScheme, Value: proto, ID: wire.FieldXScheme})
	if x.Settings.OriginalURI {
		x.SetRequest(wire.FieldOther, nameXOriginalURI, x.Asked())
	}
}

// claims are what a request's own fields said of its client, as far as it is kept.
type claims struct {
	forwardedFor []byte // the address that backends get; with compute-full-forwarded-for behind the list that came
	id, port     []byte
}

// withoutClaims takes the fields about the client out of the request's, or gives them their other names.
func (x *Exchange) withoutClaims(c *claims) []wire.Field {
	fs, header := x.Req.Fields, x.Settings.ForwardedForHeader
	named, original := !wire.EqualFold(header, nameXForwardedFor), []byte(nil)
	for i := 0; named && i < len(fs) && original == nil; i++ {
		if wire.EqualFold(fs[i].Name, header) {
			original = fs[i].Value
		}
	}
	kept := fs[:0]
	for i := range fs {
		f := fs[i]
		switch f.ID {
		case wire.FieldXForwardedFor:
			if x.trusted && x.Settings.ComputeFullForwarded {
				c.forwardedFor = x.join(f.Value, x.Remote.Addr())
			}
			if named {
				continue
			}
			f = wire.Field{Name: nameXOriginalForwardedFor, Value: f.Value, ID: wire.FieldXOriginalForwardedFor}
		case wire.FieldXForwardedHost:
			f = wire.Field{Name: nameXOriginalForwardedHost, Value: f.Value, ID: wire.FieldXOriginalForwardedHost}
		case wire.FieldXForwardedPort:
			if x.trusted {
				c.port = f.Value
			}
			continue
		case wire.FieldXRequestID:
			c.id = f.Value
			continue
		case wire.FieldXForwardedProto, wire.FieldXForwardedScheme, wire.FieldXScheme, wire.FieldXRealIP,
			wire.FieldForwarded, wire.FieldXOriginalForwardedFor, wire.FieldXOriginalForwardedHost:
			continue
		case wire.FieldOther:
			if wire.EqualFold(f.Name, nameProxy) {
				continue
			}
		}
		kept = append(kept, f)
	}
	if original != nil {
		kept = append(kept, wire.Field{Name: nameXOriginalForwardedFor, Value: original, ID: wire.FieldXOriginalForwardedFor})
	}
	return kept
}

const textMax = 64 // the longest address, port or identifier

func (x *Exchange) join(list []byte, a netip.Addr) []byte {
	b := x.Arena.Reserve(len(list) + 2 + textMax)
	b = append(append(b, list...), ", "...)
	return x.Arena.Commit(a.AppendTo(b))
}

// port is the port that the client connected to, as text.
func (x *Exchange) port() []byte {
	switch p := x.Local.Port(); p {
	case 80:
		return port80
	case 443:
		return port443
	default:
		return x.Arena.Commit(strconv.AppendUint(x.Arena.Reserve(textMax), uint64(p), 10))
	}
}

var port80, port443 = []byte("80"), []byte("443")

const hexDigits = "0123456789abcdef"

// requestID makes 32 hexadecimal digits; they tell requests apart, they are no secret.
func (x *Exchange) requestID() []byte {
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:8], x.local.random.Uint64())
	binary.LittleEndian.PutUint64(raw[8:], x.local.random.Uint64())
	b := x.Arena.Alloc(32)
	for i, v := range raw {
		b[2*i], b[2*i+1] = hexDigits[v>>4], hexDigits[v&15]
	}
	return b
}
