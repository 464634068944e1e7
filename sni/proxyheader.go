package sni

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/sluiceproxy/sluice/route"
)

// PROXY headers towards backends. They say what is known of the client: the connection's own addresses, or those of the
// PROXY header that it began with.

// AppendProxy appends a header of a version: src is the client, dst what it connected to. Version 1 is byte for byte
// nginx's. Of addresses of two families the IPv4 one is written as IPv6.
func AppendProxy(b []byte, v route.ProxyVersion, src, dst netip.AddrPort) []byte {
	from, to := src.Addr().Unmap().WithZone(""), dst.Addr().Unmap().WithZone("")
	switch {
	case !from.IsValid() || !to.IsValid():
		return appendProxyUnknown(b, v)
	case from.Is4() != to.Is4():
		from, to = netip.AddrFrom16(from.As16()), netip.AddrFrom16(to.As16())
	}
	if v == 2 {
		return appendProxyV2(b, from, to, src.Port(), dst.Port())
	}
	if from.Is4() {
		b = append(b, "PROXY TCP4 "...)
	} else {
		b = append(b, "PROXY TCP6 "...)
	}
	b = append(from.AppendTo(b), ' ')
	b = append(to.AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(src.Port()), 10), ' ')
	return append(strconv.AppendUint(b, uint64(dst.Port()), 10), "\r\n"...)
}

func appendProxyUnknown(b []byte, v route.ProxyVersion) []byte {
	if v == 2 {
		return append(append(b, proxyV2Signature...), proxyV2CommandLocal, proxyV2Unspecified, 0, 0)
	}
	return append(b, "PROXY UNKNOWN\r\n"...)
}

func appendProxyV2(b []byte, from, to netip.Addr, fromPort, toPort uint16) []byte {
	b = append(append(b, proxyV2Signature...), proxyV2CommandProxy)
	if from.Is4() {
		b = append(b, proxyV2TCP4, 0, 2*4+4)
		v4from, v4to := from.As4(), to.As4()
		b = append(append(b, v4from[:]...), v4to[:]...)
	} else {
		b = append(b, proxyV2TCP6, 0, 2*16+4)
		v6from, v6to := from.As16(), to.As16()
		b = append(append(b, v6from[:]...), v6to[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, fromPort)
	return binary.BigEndian.AppendUint16(b, toPort)
}
