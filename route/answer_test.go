package route

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/sluiceproxy/sluice/l7"
)

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAddSlash(t *testing.T) {
	for _, test := range []struct {
		name, path, host, query string
		secure                  bool
		want                    string
	}{
		{"plain", "/foo/", "shop.example", "", false, "http://shop.example/foo/"},
		{"https", "/foo/", "shop.example", "", true, "https://shop.example/foo/"},
		{"the query stays", "/foo/", "shop.example", "a=b&c", false, "http://shop.example/foo/?a=b&c"},
		{"no host", "/foo/", "", "q", true, "/foo/?q"},
		{"escaped", "/a b%\"\r\n\u00e9/", "shop.example", "", false, "http://shop.example/a%20b%25%22%0D%0A%C3%A9/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := &l7.Exchange{Secure: test.secure}
			x.Req.Host, x.Req.Query = []byte(test.host), []byte(test.query)
			if got := (addSlash{path: escapePath(test.path)}).Request(x); got != l7.Respond {
				t.Fatalf("verdict %v", got)
			}
			if x.Resp.Status != 301 || len(x.Resp.Fields) != 1 || string(x.Resp.Fields[0].Value) != test.want {
				t.Errorf("%d %v, want 301 %q", x.Resp.Status, x.Resp.Fields, test.want)
			}
		})
	}
}

// TestAddSlashForms has relative-redirects and use-port-in-redirects.
func TestAddSlashForms(t *testing.T) {
	for _, test := range []struct {
		form   SlashRedirect
		port   uint16
		secure bool
		want   string
	}{
		{SlashRedirect{Relative: true}, 8080, false, "/foo/?q"},
		{SlashRedirect{Relative: true, Port: true}, 8080, true, "/foo/?q"},
		{SlashRedirect{Port: true}, 8080, false, "http://shop.example:8080/foo/?q"},
		{SlashRedirect{Port: true}, 80, false, "http://shop.example/foo/?q"},
		{SlashRedirect{Port: true}, 443, false, "http://shop.example:443/foo/?q"},
		{SlashRedirect{Port: true}, 443, true, "https://shop.example/foo/?q"},
	} {
		x := &l7.Exchange{Secure: test.secure, Local: netip.AddrPortFrom(netip.IPv6Loopback(), test.port)}
		x.Req.Host, x.Req.Query = []byte("shop.example"), []byte("q")
		addSlash{path: escapePath("/foo/"), form: test.form}.Request(x)
		if got := string(x.Resp.Fields[0].Value); got != test.want {
			t.Errorf("%+v, port %d: %q, want %q", test.form, test.port, got, test.want)
		}
	}
}

func TestAnswer(t *testing.T) {
	x := &l7.Exchange{}
	if got := unavailable.Request(x); got != l7.Respond || x.Resp.Status != 503 {
		t.Errorf("verdict %v, status %d", got, x.Resp.Status)
	}
}
