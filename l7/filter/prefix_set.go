package filter

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// A prefixSet answers whether an address is in any of its networks: sorted intervals that neither touch nor overlap, and
// a binary search. 10,000 networks are 14 steps and 80 KB for IPv4; nothing is allocated.
type prefixSet struct {
	v4 []interval4
	v6 []interval6
}

type interval4 struct{ first, last uint32 }

type interval6 struct{ first, last [16]byte }

func newPrefixSet(prefixes []netip.Prefix) prefixSet {
	var s prefixSet
	for _, p := range prefixes {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		first, last := ends(p)
		if p.Addr().Is4() {
			s.v4 = append(s.v4, interval4{binary.BigEndian.Uint32(first[:4]), binary.BigEndian.Uint32(last[:4])})
		} else {
			s.v6 = append(s.v6, interval6{first, last})
		}
	}
	slices.SortFunc(s.v4, func(a, b interval4) int { return cmp.Compare(a.first, b.first) })
	slices.SortFunc(s.v6, func(a, b interval6) int { return bytes.Compare(a.first[:], b.first[:]) })
	s.v4, s.v6 = merge4(s.v4), merge6(s.v6)
	return s
}

// ends are the first and the last address of p; an IPv4 one fills the first four bytes.
func ends(p netip.Prefix) (first, last [16]byte) {
	b := p.Masked().Addr().AsSlice()
	copy(first[:], b)
	copy(last[:], b)
	for i := p.Bits(); i < len(b)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return first, last
}

func merge4(in []interval4) []interval4 {
	out := in[:0]
	for _, v := range in {
		if n := len(out); n > 0 && v.first <= out[n-1].last {
			out[n-1].last = max(out[n-1].last, v.last)
			continue
		}
		out = append(out, v)
	}
	return out
}

func merge6(in []interval6) []interval6 {
	out := in[:0]
	for _, v := range in {
		if n := len(out); n > 0 && bytes.Compare(v.first[:], out[n-1].last[:]) <= 0 {
			if bytes.Compare(v.last[:], out[n-1].last[:]) > 0 {
				out[n-1].last = v.last
			}
			continue
		}
		out = append(out, v)
	}
	return out
}

// contains treats an IPv4 address in IPv6's clothes as what it is. An invalid address is in no network.
func (s *prefixSet) contains(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return s.contains4(binary.BigEndian.Uint32(b[:]))
	}
	return a.Is6() && s.contains6(a.As16())
}

func (s *prefixSet) contains4(a uint32) bool {
	i, j := 0, len(s.v4) // s.v4[:i] start at or before a
	for i < j {
		if m := int(uint(i+j) >> 1); s.v4[m].first <= a {
			i = m + 1
		} else {
			j = m
		}
	}
	return i > 0 && a <= s.v4[i-1].last
}

func (s *prefixSet) contains6(a [16]byte) bool {
	i, j := 0, len(s.v6)
	for i < j {
		if m := int(uint(i+j) >> 1); bytes.Compare(s.v6[m].first[:], a[:]) <= 0 {
			i = m + 1
		} else {
			j = m
		}
	}
	return i > 0 && bytes.Compare(a[:], s.v6[i-1].last[:]) <= 0
}
