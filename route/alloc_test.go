package route

import (
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/l7"
)

// A look-up does not allocate, whatever it finds.
func TestLookUpAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	list := rules("Prefix", "/", "Exact", "/a", "Impl", "/abc", "Prefix", "/x/", "Prefix", "/"+strings.Repeat("long", 100))
	regex := host("regex.example", rules("Impl", "/a(/|$)(.*)", "Impl", "/[a-z]+[0-9]+x*", "Prefix", "/lit")...)
	regex.RegexMode = true
	store := NewStore()
	store.Swap(compiled(t, config(host("shop.example", list...), host("*.wild.example", list...), host("", list[1]), regex), nil, newTestEnv()))
	x := &l7.Exchange{}
	for _, name := range []string{"shop.example", "a.wild.example", "other.test", "regex.example", "", strings.Repeat("a", 300)} {
		for _, path := range []string{"/", "/a", "/abcd", "/x", "/x/y", "/a/b", "/b", "/abc123xxx", "*", "/LITERAL", "/" + strings.Repeat("long", 100) + "/x"} {
			x.Req.Host, x.Req.Path = []byte(name), []byte(path)
			if n := testing.AllocsPerRun(100, func() {
				store.Route(x)
				store.Load().Certificate(x.Req.Host)
				store.Settings()
			}); n != 0 {
				t.Errorf("%s%s: %v allocations", name, path, n)
			}
		}
	}
}
