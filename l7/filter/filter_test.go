package filter

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// compile gives the request half of a configuration that must be good.
func compile(t testing.TB, c Config) l7.Filter {
	t.Helper()
	f, err := c.Compile(&State{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// exchange is a GET as the parser would have left it.
func exchange(t testing.TB, authority, target string) *l7.Exchange {
	t.Helper()
	x := &l7.Exchange{}
	x.Req.Method, x.Req.MethodText = wire.MethodGet, []byte("GET")
	setTarget(t, x, target)
	x.Req.Authority = []byte(authority)
	x.Req.Host = []byte(strings.ToLower(string(hostOnly(x.Req.Authority))))
	x.ClientIP = netip.MustParseAddr("192.0.2.1")
	return x
}

func setTarget(t testing.TB, x *l7.Exchange, target string) {
	t.Helper()
	x.Req.Target = []byte(target)
	path, query, found := strings.Cut(target, "?")
	if found {
		x.Req.Query = []byte(query)
	}
	if !strings.HasPrefix(path, "/") {
		x.Req.Path = []byte(path)
		return
	}
	p, _, err := wire.NormalisePath(nil, []byte(path))
	if err != nil {
		t.Fatalf("%s: %s", target, err.Text)
	}
	x.Req.Path = p
}

func location(x *l7.Exchange) string {
	for _, f := range x.Resp.Fields {
		if f.ID == wire.FieldLocation {
			return string(f.Value)
		}
	}
	return ""
}

// noAllocations holds a filter to the hot path's promise.
func noAllocations(t *testing.T, x *l7.Exchange, f l7.Filter) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	run := func() {
		x.Arena.Reset()
		x.Resp.Fields = x.Resp.Fields[:0]
		if f.Request != nil {
			f.Request.Request(x)
		}
		if f.Response != nil {
			f.Response.Response(x)
		}
	}
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func TestStateOutlivesCompile(t *testing.T) {
	s := &State{}
	first := s.Get("bucket", func() any { return new(int) })
	if again := s.Get("bucket", func() any { t.Error("made twice"); return nil }); again != first {
		t.Error("another state for the same role")
	}
	if other := s.Get("cache", func() any { return new(int) }); other == first {
		t.Error("two roles share a state")
	}
}

func TestDenyAnswers503(t *testing.T) {
	f := compile(t, Deny{Reason: "the list of networks does not parse"})
	x := exchange(t, "a.example", "/")
	if v := f.Request.Request(x); v != l7.Respond || x.Resp.Status != 503 {
		t.Errorf("verdict %v, status %d", v, x.Resp.Status)
	}
	if _, err := (Deny{}).Compile(&State{}); err == nil {
		t.Error("a denial without a reason compiles")
	}
	noAllocations(t, x, f)
}
