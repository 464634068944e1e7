package wire_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
)

func TestIDOf(t *testing.T) {
	for id := wire.FieldOther + 1; id.Name() != ""; id++ {
		name := id.Name()
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := wire.IDOf([]byte(spelling)); got != id {
				t.Errorf("%s: %d, want %d", spelling, got, id)
			}
		}
		for _, other := range []string{name + "x", "x" + name, name[1:], name[:len(name)-1], strings.ReplaceAll(name, "-", "_") + "_",
			strings.ReplaceAll(name, "-", "\r") + "\r"} {
			if got := wire.IDOf([]byte(other)); got != wire.FieldOther {
				t.Errorf("%q: %d", other, got)
			}
		}
		if id == wire.FieldXScheme {
			return
		}
	}
}

func TestReserved(t *testing.T) {
	for name, want := range map[string]bool{"Host": true, "x_forwarded_for": true, "x.forwarded!for": true, "Forwarded.": false, "x.request.id": true, "X-Forwarded_Anything": true, "SSL_CLIENT_CERT": true, "content_length": true,
		"X-Original-URL": true, "X-Forward": false, "Accept-Language": false, "": false, "X_" + strings.Repeat("a", 100): false,
		"X_Forwarded_" + strings.Repeat("a", 100): true} {
		if got := wire.Reserved([]byte(name)); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestFields(t *testing.T) {
	f := func(name, value string) wire.Field {
		return wire.Field{Name: []byte(name), Value: []byte(value), ID: wire.IDOf([]byte(name))}
	}
	fields := []wire.Field{f("x-real-ip", "1"), f("X-A", "2"), f("X-Real-IP", "3"), f("x-a", "4")}
	if got := wire.Get(fields, wire.FieldXRealIP); string(got) != "1" {
		t.Errorf("Get %q", got)
	}
	if got := wire.GetName(fields, "x-A"); string(got) != "2" {
		t.Errorf("GetName %q", got)
	}
	if wire.Get(fields, wire.FieldVary) != nil || wire.GetName(fields, "none") != nil || wire.Index(fields, wire.FieldVary) != -1 {
		t.Error("found what is not there")
	}
	fields = wire.Set(fields, wire.FieldXRealIP, []byte("5"))
	fields = wire.Set(fields, wire.FieldVary, []byte("6"))
	fields = wire.DeleteName(fields, "x-a")
	if got := showFields(fields); got != showFields([]wire.Field{f("x-real-ip", "5"), f("Vary", "6")}) {
		t.Error(got)
	}
	if got := wire.Delete(fields, wire.FieldXRealIP); len(got) != 1 {
		t.Error(showFields(got))
	}
}

func TestForwardedFor(t *testing.T) {
	cases := []struct {
		name string
		in   []string
		want string
	}{
		{"none", nil, "end"},
		{"one", []string{"192.0.2.1"}, "192.0.2.1 end"},
		{"right to left", []string{"192.0.2.1, 192.0.2.2", "192.0.2.3 ,192.0.2.4:80"}, "192.0.2.4 192.0.2.3 192.0.2.2 192.0.2.1 end"},
		{"IPv6", []string{"::1, [2001:db8::1]:443, [2001:db8::2],::ffff:192.0.2.1"}, "192.0.2.1 2001:db8::2 2001:db8::1 ::1 end"},
		{"stops at what is none", []string{"192.0.2.1, unknown, 192.0.2.2"}, "192.0.2.2 end"},
		{"stops at an empty one", []string{"192.0.2.1,,192.0.2.2"}, "192.0.2.2 end"},
		{"stops at an empty field", []string{"192.0.2.1", ""}, "end"},
		{"trailing comma", []string{"192.0.2.1,"}, "end"},
		{"zone", []string{"fe80::1%eth0"}, "end"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var fields []wire.Field
			for _, v := range c.in {
				fields = append(fields, wire.NewField(wire.FieldXForwardedFor, []byte(v)), wire.NewField(wire.FieldVary, []byte("192.0.2.99")))
			}
			var got []string
			for f := wire.LastForwardedFor(fields); ; {
				addr, ok := f.Next()
				if !ok {
					if _, ok := f.Next(); ok {
						t.Error("went on after the end")
					}
					break
				}
				got = append(got, addr.String())
			}
			if s := strings.Join(append(got, "end"), " "); s != c.want {
				t.Errorf("%s, want %s", s, c.want)
			}
		})
	}
}

func TestParseAddr(t *testing.T) {
	for in, want := range map[string]string{"1.2.3.4": "1.2.3.4", "1.2.3.4:5": "1.2.3.4", "[::1]": "::1", "::": "::", "1::": "1::", "::1.2.3.4": "::1.2.3.4",
		"1:2:3:4:5:6:7:8": "1:2:3:4:5:6:7:8", "[1:2:3:4:5:6:7:8]:9": "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4": "1:2:3:4:5:6:102:304",
		"": "", "1.2.3": "", "1.2.3.4.5": "", "01.2.3.4": "", "256.1.1.1": "", "1.2.3.4:": "", "1.2.3.4:99999": "", "[1.2.3.4]": "", "[::1]:": "", "[::1]x": "",
		"[::1": "", ":::": "", "1::2::3": "", "1:2:3:4:5:6:7": "", "1:2:3:4:5:6:7:8:9": "", "12345::": "", "1:": "", ":1": "", "1:2:3:4:5:6:7::8": "",
		"::1%a": "", "host": "", "host:80": "", " 1.2.3.4": ""} {
		got, ok := wire.ParseAddr([]byte(in))
		if ok != (want != "") || ok && got != netip.MustParseAddr(want) {
			t.Errorf("%q: %v %t", in, got, ok)
		}
	}
}

func TestForwarded(t *testing.T) {
	show := func(in string) string {
		var s []string
		for rest := []byte(in); rest != nil; {
			e, next, err := wire.NextForwarded(rest)
			if err != nil {
				return strings.Join(append(s, "bad"), "; ")
			}
			s = append(s, string(e.For)+"|"+string(e.By)+"|"+string(e.Host)+"|"+string(e.Proto))
			rest = next
		}
		return strings.Join(s, "; ")
	}
	for in, want := range map[string]string{
		`for=192.0.2.60;proto=http;by=203.0.113.43`: "192.0.2.60|203.0.113.43||http",
		`For="[2001:db8:cafe::17]:4711"`:            "[2001:db8:cafe::17]:4711|||",
		`for=a, for=b;host="h:80" ,for=_c;x=y`:      "a|||; b||h:80|; _c|||",
		`for=a;`:                                    "bad",
		`for=a;for=b`:                               "bad",
		`for`:                                       "bad",
		`for=`:                                      "bad",
		`=a`:                                        "bad",
		``:                                          "bad",
		`for="a`:                                    "bad",
		`for="a\"b"`:                                "bad",
		`for=a b`:                                   "bad",
		`for=a, `:                                   "a|||; bad",
		"for=\"a\x01\"":                             "bad",
	} {
		if got := show(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestStatusText(t *testing.T) {
	for status, want := range map[int]string{200: "OK", 599: "", 99: "", 600: "", 418: "I'm a teapot"} {
		if got := wire.StatusText(status); got != want {
			t.Errorf("%d: %s", status, got)
		}
	}
}

func TestArena(t *testing.T) {
	var a wire.Arena
	first := a.Copy([]byte("first"))
	_ = append(first, "overrun"...)
	var views [][]byte
	for i := range 200 {
		b := a.Alloc(i * 3)
		for j := range b {
			b[j] = byte(i)
		}
		views = append(views, b)
		r := append(a.Reserve(4), byte(i))
		views = append(views, a.Commit(r))
	}
	for i := range 200 {
		for _, c := range views[2*i] {
			if c != byte(i) {
				t.Fatal("view overwritten")
			}
		}
		if views[2*i+1][0] != byte(i) {
			t.Fatal("reserved view overwritten")
		}
	}
	if string(first) != "first" {
		t.Fatalf("%q", first)
	}
	a.Reset()
	if n := testing.AllocsPerRun(10, func() { a.Reset(); a.Alloc(4000) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations in a warm arena", n)
	}
}
