package upstream

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// Refusal is an address that is not dialled, and why. It becomes a Problem of the object that named it.
type Refusal struct {
	Address Address // Addr is what was refused, also when Name led to it
	Reason  string
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8") // Linux leads some of it to the host itself
	broadcast   = netip.MustParseAddr("255.255.255.255")
	mappedBy    = []struct { // IPv6 forms that carry an IPv4 address, and from which byte on
		prefix netip.Prefix
		at     int
	}{
		{netip.MustParsePrefix("::/96"), 12},
		{netip.MustParsePrefix("64:ff9b::/96"), 12},   // RFC 6052
		{netip.MustParsePrefix("64:ff9b:1::/48"), 12}, // RFC 8215, with /96 prefixes
		{netip.MustParsePrefix("2002::/16"), 2},       // RFC 3056
	}
	metadata = []netip.Addr{ // clouds' metadata services that are not link-local
		netip.MustParseAddr("fd00:ec2::254"),
		netip.MustParseAddr("100.100.100.200"),
		netip.MustParseAddr("168.63.129.16"),
	}
)

// refuse tells why an address may not be dialled; "" when it may. It is asked after every resolution. A pod may have the
// node's own address (hostNetwork), but not a port of this process.
func (env *Env) refuse(to netip.AddrPort, allowLoopback, pod bool) string {
	if to.Port() == 0 {
		return "port 0 cannot be dialled"
	}
	a := to.Addr().Unmap()
	for _, p := range env.AllowCIDRs {
		if p.Contains(a.WithZone("")) {
			return ""
		}
	}
	own := false
	for _, b := range []netip.Addr{a, embedded(a)} { // whoever translates, or nobody
		if reason := refuseRange(b, allowLoopback, pod); reason != "" {
			return reason
		}
		own = own || !b.IsLoopback() && env.isOwn(b.WithZone(""))
	}
	if !own {
		return ""
	}
	switch {
	case !pod:
		return "it is an address of this node itself; --allow-backend-cidr can allow it"
	case env.OwnPorts != nil && slices.Contains(env.OwnPorts(), to.Port()):
		return "it is a port of this proxy itself; --allow-backend-cidr can allow it"
	}
	return ""
}

// embedded is the IPv4 address to which a translator would lead what is sent to an address of IPv6; else the address itself.
func embedded(a netip.Addr) netip.Addr {
	for _, m := range mappedBy {
		if m.prefix.Contains(a.WithZone("")) && !a.IsLoopback() && !a.IsUnspecified() {
			b := a.As16()
			if at := [4]byte(b[m.at:]); at[0] != 0 || m.prefix.Bits() == 96 { // a translator of another length has it elsewhere
				return netip.AddrFrom4(at)
			}
		}
	}
	return a
}

func refuseRange(a netip.Addr, allowLoopback, pod bool) string {
	if !a.IsValid() {
		return "it is no address"
	}
	switch {
	case a.IsUnspecified() || thisNetwork.Contains(a):
		return "unspecified addresses are not dialled: they lead to this node itself"
	case a.IsLoopback() && !allowLoopback:
		return "loopback addresses are not dialled: they lead to this node itself; --allow-backend-cidr can allow them"
	case slices.Contains(metadata, a) && !pod:
		return "it is a cloud's metadata service; --allow-backend-cidr can allow it"
	case a.IsLinkLocalUnicast():
		return "link-local addresses are not dialled: metadata services live there; --allow-backend-cidr can allow them"
	case a.IsMulticast() || a == broadcast:
		return "multicast and broadcast addresses are not dialled"
	}
	return ""
}

// isOwn tells whether a is an address of the node. Interfaces come and go, so the list is read again now and then; when
// it cannot be read, the last one holds.
func (env *Env) isOwn(a netip.Addr) bool {
	env.mu.Lock()
	defer env.mu.Unlock()
	if env.own == nil || time.Since(env.ownAge) > ownAddressesFresh {
		read := env.OwnAddresses
		if read == nil {
			read = interfaceAddresses
		}
		if list, err := read(); err == nil {
			env.own = make(map[netip.Addr]bool, len(list))
			for _, own := range list {
				env.own[own.Unmap().WithZone("")] = true
			}
			env.ownAge = time.Now()
		} else {
			env.log().Warn("the node's own addresses cannot be read; backends are checked against the last list", "error", err)
		}
	}
	return env.own[a]
}

func interfaceAddresses() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			list = append(list, p.Addr())
		}
	}
	return list, nil
}
