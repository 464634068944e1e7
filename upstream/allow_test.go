package upstream

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestRefuse(t *testing.T) {
	env := &Env{
		AllowCIDRs:   []netip.Prefix{netip.MustParsePrefix("169.254.7.0/24"), netip.MustParsePrefix("10.9.0.1/32")},
		OwnAddresses: func() ([]netip.Addr, error) { return own("10.9.0.1", "10.9.0.2", "2001:db8::9", "fe80::1%eth0"), nil },
	}
	for _, tt := range []struct {
		addr     string
		loopback bool // allowed
		because  string
	}{
		{"10.0.0.1:80", false, ""},
		{"203.0.113.9:443", false, ""},
		{"[2001:db8::1]:80", false, ""},
		{"[fd00::1]:80", false, ""},
		{"10.0.0.1:0", true, "port 0"},
		{"127.0.0.1:80", false, "loopback"},
		{"127.0.0.1:80", true, ""},
		{"127.8.9.10:10254", false, "loopback"},
		{"[::1]:80", false, "loopback"},
		{"[::1]:80", true, ""},
		{"[::ffff:127.0.0.1]:80", false, "loopback"},
		{"[::127.0.0.1]:80", false, "loopback"},
		{"[64:ff9b::7f00:1]:80", false, "loopback"},
		{"[64:ff9b::a9fe:a9fe]:80", true, "link-local"},
		{"0.0.0.0:80", true, "unspecified"},
		{"0.1.2.3:80", true, "unspecified"},
		{"[::]:80", true, "unspecified"},
		{"[::ffff:0.0.0.0]:80", true, "unspecified"},
		{"169.254.169.254:80", true, "link-local"},
		{"169.254.7.1:80", false, ""},
		{"[fe80::1]:80", true, "link-local"},
		{"[fe80::2%eth0]:80", true, "link-local"},
		{"224.0.0.1:80", true, "multicast"},
		{"[ff02::1]:80", true, "multicast"},
		{"255.255.255.255:80", true, "multicast"},
		{"10.9.0.1:80", false, ""},
		{"10.9.0.2:80", true, "this node"},
		{"[::ffff:10.9.0.2]:80", true, "this node"},
		{"[2001:db8::9]:80", true, "this node"},
		{"[64:ff9b::a09:2]:80", true, "this node"},
		{"[64:ff9b:1::a09:2]:80", true, "this node"},
		{"[64:ff9b:1::7f00:1]:80", false, "loopback"},
		{"[2002:a9fe:a9fe::1]:80", true, "link-local"},
		{"[2002:cb00:7109::1]:80", false, ""},
		{"[fd00:ec2::254]:80", true, "metadata"},
		{"100.100.100.200:80", true, "metadata"},
		{"168.63.129.16:80", true, "metadata"},
	} {
		got := env.refuse(netip.MustParseAddrPort(tt.addr), tt.loopback, false)
		if tt.because == "" && got != "" || tt.because != "" && !strings.Contains(got, tt.because) {
			t.Errorf("%s, loopback allowed %v: refused %q, want %q", tt.addr, tt.loopback, got, tt.because)
		}
	}
	if got := env.refuse(netip.AddrPort{}, true, true); got == "" {
		t.Error("no address at all is not refused")
	}
}

// A pod may have the node's address, but neither a port of this process nor what no pod has.
func TestRefusePod(t *testing.T) {
	env := &Env{
		OwnAddresses: func() ([]netip.Addr, error) { return own("10.9.0.2"), nil },
		OwnPorts:     func() []uint16 { return []uint16{80, 443, 10254} },
	}
	for addr, because := range map[string]string{
		"10.9.0.2:8080":           "",
		"10.9.0.2:80":             "port of this proxy",
		"10.9.0.2:10254":          "port of this proxy",
		"[::ffff:10.9.0.2]:10254": "port of this proxy",
		"10.9.0.3:80":             "",
		"127.0.0.1:8080":          "loopback",
		"[::1]:8080":              "loopback",
		"169.254.169.254:80":      "link-local",
		"0.0.0.0:8080":            "unspecified",
	} {
		got := env.refuse(netip.MustParseAddrPort(addr), false, true)
		if because == "" && got != "" || because != "" && !strings.Contains(got, because) {
			t.Errorf("%s: refused %q, want %q", addr, got, because)
		}
	}
}

func own(list ...string) (addrs []netip.Addr) {
	for _, s := range list {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs
}

// The node's real addresses are refused too.
func TestRefuseInterfaces(t *testing.T) {
	list, err := interfaceAddresses()
	if err != nil || len(list) == 0 {
		t.Skip("this machine shows no interface addresses:", err)
	}
	for _, a := range list {
		if reason := (&Env{}).refuse(netip.AddrPortFrom(a, 80), false, false); reason == "" {
			t.Errorf("%v is not refused", a)
		}
	}
}

// When the node's addresses cannot be read, the last list holds.
func TestOwnAddressesLost(t *testing.T) {
	fail := false
	env := newEnv(t, 0)
	env.OwnAddresses = func() ([]netip.Addr, error) {
		if fail {
			return nil, errors.New("lost")
		}
		return own("10.9.0.2"), nil
	}
	for range 2 {
		if env.refuse(netip.MustParseAddrPort("10.9.0.2:80"), false, false) == "" {
			t.Fatal("an own address is not refused")
		}
		fail, env.ownAge = true, env.ownAge.Add(-2*ownAddressesFresh)
	}
}

// Refused addresses stand beside the list, and follow the settings.
func TestRefusedEndpoints(t *testing.T) {
	c := NewCluster("shop/web:80", newEnv(t, 1), Settings{})
	t.Cleanup(c.Close)
	list := addresses(place(0), netip.MustParseAddrPort("127.0.0.1:80"), netip.MustParseAddrPort("169.254.169.254:80"))
	refused := c.Apply(list)
	if len(refused) != 2 || refused[0].Address != list[1] || refused[1].Address != list[2] || refused[0].Reason == "" {
		t.Errorf("refused %v", refused)
	}
	if e := only(t, c); e.addr != place(0) {
		t.Errorf("endpoint %v", e.addr)
	}
	c.SetSettings(Settings{AllowLoopback: true})
	if refused := c.Refusals(); len(refused) != 1 || refused[0].Address != list[2] {
		t.Errorf("with loopback allowed: refused %v", refused)
	}
	if n := len(c.current.Load().ready); n != 2 {
		t.Errorf("with loopback allowed: %d endpoints", n)
	}
}
