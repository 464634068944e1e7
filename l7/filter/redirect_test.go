package filter

import (
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

func TestRedirectIsLiteral(t *testing.T) {
	f := compile(t, Redirect{Status: 301, Location: "https://new.example/home?x=1"})
	x := exchange(t, "old.example", "/a/b?c=d")
	if v := f.Request.Request(x); v != l7.Respond {
		t.Fatalf("verdict %v", v)
	}
	if x.Resp.Status != 301 || location(x) != "https://new.example/home?x=1" {
		t.Errorf("%d %q", x.Resp.Status, location(x))
	}
	noAllocations(t, x, f)
}

func TestRedirectRefuses(t *testing.T) {
	for _, r := range []Redirect{
		{Status: 200, Location: "https://a.example"},
		{Status: 309, Location: "https://a.example"},
		{Status: 301},
		{Status: 301, Location: "https://a.example/\r\nSet-Cookie: x=y"},
		{Status: 301, Location: "https://a.example/a b"},
		{Status: 301, Location: "https://a.example/\x7f"},
	} {
		if _, err := r.Compile(&State{}); err == nil {
			t.Errorf("%+v compiles", r)
		}
	}
}

func TestSSLRedirect(t *testing.T) {
	cases := []struct {
		name, authority, target string
		preserve, secure        bool
		port                    int
		want                    string // "": goes on
	}{
		{name: "path and query kept", authority: "a.example", target: "/b?c=d", want: "https://a.example/b?c=d"},
		{name: "port dropped", authority: "a.example:8080", target: "/b", want: "https://a.example/b"},
		{name: "port of an IPv6 address dropped", authority: "[2001:db8::1]:80", target: "/b", want: "https://[2001:db8::1]/b"},
		{name: "IPv6 address without port", authority: "[2001:db8::1]", target: "/b", want: "https://[2001:db8::1]/b"},
		{name: "one trailing slash removed", authority: "a.example", target: "/b//", want: "https://a.example/b/"},
		{name: "the root's slash removed", authority: "a.example", target: "/", want: "https://a.example"},
		{name: "the query's slash removed", authority: "a.example", target: "/b?next=/c/", want: "https://a.example/b?next=/c"},
		{name: "trailing slash preserved", authority: "a.example", target: "/b/", preserve: true, want: "https://a.example/b/"},
		{name: "OPTIONS *", authority: "a.example", target: "*", want: "https://a.example"},
		{name: "the port of https", authority: "a.example:8080", target: "/b", port: 8443, want: "https://a.example:8443/b"},
		{name: "https already", authority: "a.example", target: "/b", secure: true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := compile(t, SSLRedirect{Status: 308, PreserveTrailingSlash: c.preserve, Port: c.port})
			x := exchange(t, c.authority, c.target)
			x.Secure = c.secure
			v := f.Request.Request(x)
			if c.want == "" {
				if v != l7.Continue {
					t.Errorf("verdict %v", v)
				}
				return
			}
			if v != l7.Respond || x.Resp.Status != 308 || location(x) != c.want {
				t.Errorf("verdict %v, %d %q; want 308 %q", v, x.Resp.Status, location(x), c.want)
			}
			noAllocations(t, x, f)
		})
	}
}

func TestSSLRedirectRefusesStatus(t *testing.T) {
	if _, err := (SSLRedirect{Status: 200}).Compile(&State{}); err == nil {
		t.Error("status 200 compiles")
	}
}

func TestAppRoot(t *testing.T) {
	cases := []struct {
		name, target string
		tls          bool
		want         string
	}{
		{name: "keeps scheme, host and port", target: "/", want: "http://a.example:8080/app"},
		{name: "https", target: "/", tls: true, want: "https://a.example:8080/app"},
		{name: "drops the query", target: "/?a=b", want: "http://a.example:8080/app"},
		{name: "a spelling of the root", target: "//./", want: "http://a.example:8080/app"},
		{name: "only the root", target: "/x"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := compile(t, AppRoot{Path: "/app"})
			x := exchange(t, "a.example:8080", c.target)
			x.TLS = c.tls
			v := f.Request.Request(x)
			if c.want == "" {
				if v != l7.Continue {
					t.Errorf("verdict %v", v)
				}
				return
			}
			if v != l7.Respond || x.Resp.Status != 302 || location(x) != c.want {
				t.Errorf("verdict %v, %d %q; want 302 %q", v, x.Resp.Status, location(x), c.want)
			}
			noAllocations(t, x, f)
		})
	}
}

func TestAppRootRefuses(t *testing.T) {
	for _, path := range []string{"", "app", "http://b.example/", "/a b", "/a\n"} {
		if _, err := (AppRoot{Path: path}).Compile(&State{}); err == nil {
			t.Errorf("%q compiles", path)
		}
	}
}

func TestHSTS(t *testing.T) {
	year := 365 * 24 * time.Hour
	for _, c := range []struct {
		config HSTS
		want   string
	}{
		{HSTS{MaxAge: year}, "max-age=31536000"},
		{HSTS{MaxAge: year, IncludeSubdomains: true}, "max-age=31536000; includeSubDomains"},
		{HSTS{MaxAge: year, IncludeSubdomains: true, Preload: true}, "max-age=31536000; includeSubDomains; preload"},
		{HSTS{}, "max-age=0"},
	} {
		f := compile(t, c.config)
		x := exchange(t, "a.example", "/")
		x.Resp.Fields = append(x.Resp.Fields, wire.Field{Name: nameHSTS, Value: []byte("max-age=1"),
			ID: wire.FieldStrictTransportSecurity})
		x.TLS = true
		f.Response.Response(x)
		if len(x.Resp.Fields) != 1 || string(x.Resp.Fields[0].Value) != c.want {
			t.Errorf("%+v: %s", c.config, fieldsText(x.Resp.Fields))
		}
		noAllocations(t, x, f)
	}
	if _, err := (HSTS{MaxAge: -time.Second}).Compile(&State{}); err == nil {
		t.Error("a negative age compiles")
	}
}

func TestHSTSNotOverPlainText(t *testing.T) {
	f := compile(t, HSTS{MaxAge: time.Hour})
	x := exchange(t, "a.example", "/")
	x.Secure = true // a proxy before us spoke TLS; it says HSTS, or nobody
	f.Response.Response(x)
	if len(x.Resp.Fields) != 0 {
		t.Errorf("fields %s", fieldsText(x.Resp.Fields))
	}
}
