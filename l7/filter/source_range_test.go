package filter

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sluiceproxy/sluice/l7"
)

func TestSourceRange(t *testing.T) {
	cases := []struct {
		name, allow, deny, client string
		pass                      bool
	}{
		{name: "no lists", client: "192.0.2.1", pass: true},
		{name: "allowed network", allow: "10.0.0.0/8, 192.0.2.0/24", client: "192.0.2.1", pass: true},
		{name: "allowed address", allow: "192.0.2.1", client: "192.0.2.1", pass: true},
		{name: "not in the allow list", allow: "10.0.0.0/8", client: "192.0.2.1"},
		{name: "host bits are dropped", allow: "192.0.2.77/24", client: "192.0.2.1", pass: true},
		{name: "denied", deny: "192.0.2.0/24", client: "192.0.2.1"},
		{name: "not denied", deny: "198.51.100.0/24", client: "192.0.2.1", pass: true},
		{name: "deny is asked first", allow: "192.0.2.0/24", deny: "192.0.2.1", client: "192.0.2.1"},
		{name: "IPv6", allow: "2001:db8::/32", client: "2001:db8:1::1", pass: true},
		{name: "IPv6 outside", allow: "2001:db8::/32", client: "2001:db9::1"},
		{name: "an IPv4 client through an IPv6 socket", allow: "192.0.2.0/24", client: "::ffff:192.0.2.1", pass: true},
		{name: "an IPv4 network in IPv6's clothes", allow: "::ffff:192.0.2.0/120", client: "192.0.2.1", pass: true},
		{name: "all of IPv4 is not all", allow: "0.0.0.0/0", client: "2001:db8::1"},
		{name: "an unknown client is not allowed", allow: "0.0.0.0/0,::/0", client: ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := compile(t, SourceRange{Allow: c.allow, Deny: c.deny})
			x := exchange(t, "a.example", "/")
			x.ClientIP, _ = netip.ParseAddr(c.client)
			v := f.Request.Request(x)
			if pass := v == l7.Continue; pass != c.pass {
				t.Errorf("passes: %v", pass)
			}
			if !c.pass && (v != l7.Respond || x.Resp.Status != 403) {
				t.Errorf("verdict %v, status %d", v, x.Resp.Status)
			}
			noAllocations(t, x, f)
		})
	}
}

func TestSourceRangeRefusesHalfAList(t *testing.T) {
	for _, list := range []string{"10.0.0.0/8,nonsense", "10.0.0.0/33", "10.0.0.0/8,", "a.example", "fe80::1%eth0", "10.0.0"} {
		if _, err := (SourceRange{Allow: list}).Compile(&State{}); err == nil {
			t.Errorf("allow list %q compiles", list)
		}
		if _, err := (SourceRange{Deny: list}).Compile(&State{}); err == nil {
			t.Errorf("deny list %q compiles", list)
		}
	}
}

// TestPrefixSetAgainstList compares the set with a walk over all its networks.
func TestPrefixSetAgainstList(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		prefixes := make([]netip.Prefix, r.IntN(20))
		for i := range prefixes {
			prefixes[i] = randomPrefix(r)
		}
		set := newPrefixSet(prefixes)
		for range 200 {
			a := randomAddr(r)
			want := false
			for _, p := range prefixes {
				want = want || p.Contains(a)
			}
			if set.contains(a) != want {
				t.Fatalf("%v in %v: %v", a, prefixes, !want)
			}
		}
		for _, p := range prefixes {
			if !set.contains(p.Addr()) {
				t.Fatalf("%v does not contain its first address", p)
			}
		}
	}
}

// randomAddr draws from few values, so that networks meet.
func randomAddr(r *rand.Rand) netip.Addr {
	if r.IntN(2) == 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], r.Uint32()&0xc3000083)
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	b[0], b[1], b[7], b[15] = 0x20, byte(r.IntN(2)), byte(r.IntN(4)), byte(r.IntN(256))
	return netip.AddrFrom16(b)
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	a := randomAddr(r)
	return netip.PrefixFrom(a, r.IntN(a.BitLen()+1)).Masked()
}

func BenchmarkSourceRange(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	prefixes := make([]netip.Prefix, 10_000)
	for i := range prefixes {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], r.Uint32())
		prefixes[i] = netip.PrefixFrom(netip.AddrFrom4(a), 24+r.IntN(9)).Masked()
	}
	set := newPrefixSet(prefixes)
	client := netip.MustParseAddr("192.0.2.1")
	for b.Loop() {
		set.contains(client)
	}
}
