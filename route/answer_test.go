package route

import (
	"encoding/json"
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
		name, path, authority, query string
		secure                       bool
		want                         string
	}{
		{"plain", "/foo/", "shop.example", "", false, "http://shop.example/foo/"},
		{"https", "/foo/", "shop.example", "", true, "https://shop.example/foo/"},
		{"the port stays", "/foo/", "shop.example:8080", "", false, "http://shop.example:8080/foo/"},
		{"the query stays", "/foo/", "shop.example", "a=b&c", false, "http://shop.example/foo/?a=b&c"},
		{"no host", "/foo/", "", "q", true, "/foo/?q"},
		{"escaped", "/a b%\"\r\n\u00e9/", "shop.example", "", false, "http://shop.example/a%20b%25%22%0D%0A%C3%A9/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := &l7.Exchange{Secure: test.secure}
			x.Req.Authority, x.Req.Query = []byte(test.authority), []byte(test.query)
			if got := (addSlash{path: escapePath(test.path)}).Request(x); got != l7.Respond {
				t.Fatalf("verdict %v", got)
			}
			if x.Resp.Status != 301 || len(x.Resp.Fields) != 1 || string(x.Resp.Fields[0].Value) != test.want {
				t.Errorf("%d %q, want 301 %q", x.Resp.Status, x.Resp.Fields, test.want)
			}
		})
	}
}

func TestAnswer(t *testing.T) {
	x := &l7.Exchange{}
	if got := unavailable.Request(x); got != l7.Respond || x.Resp.Status != 503 {
		t.Errorf("verdict %v, status %d", got, x.Resp.Status)
	}
}
