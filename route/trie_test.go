package route

import (
	"fmt"
	"reflect"
	"testing"
)

// A trie's numbers are as wide as its size asks, and its text moves out of the host when it is too long.
func TestTrieWidths(t *testing.T) {
	for _, test := range []struct {
		routes, width int
		far           bool
	}{
		{0, 1, false}, {1, 1, false}, {12, 1, false}, {30, 1, true}, {40, 2, true}, {300, 2, true}, {10_000, numberMax, true},
	} {
		entries := make([]entry, test.routes)
		for i := range entries {
			entries[i] = entry{text: fmt.Sprintf("/app/%d", i), here: i, below: i}
		}
		var made trie
		new(trieMaker).build(&made, "shop.example", entries)
		if string(made.name()) != "shop.example" || int(made.width) != test.width || (made.far != nil) != test.far {
			t.Errorf("%d routes: a trie of %s with numbers of %d bytes, far %v", test.routes, made.name(), made.width, made.far != nil)
		}
		for i := range test.routes {
			path := fmt.Appendf(nil, "/app/%d", i)
			if here, below := made.match(path), made.match(append(path, "/x"...)); here != i || below != i {
				t.Fatalf("%d routes: %s leads to %d, and to %d below", test.routes, path, here, below)
			}
		}
		if made.match([]byte("/ap")) != none || made.match([]byte("/app/x")) != none || made.match(nil) != none {
			t.Errorf("%d routes: a path leads somewhere that no route has", test.routes)
		}
	}
}

// What a look-up touches of a usual host is one object, whose first lines it is.
func TestHostInOnePiece(t *testing.T) {
	host := reflect.TypeFor[Host]()
	if host.Size() != 512 {
		t.Errorf("a Host has %d bytes, not eight cache lines", host.Size())
	}
	if near, _ := host.FieldByName("near"); near.Offset+near.Type.Size() > 6*64 {
		t.Errorf("what a look-up touches ends at byte %d", near.Offset+near.Type.Size())
	}
	config, env := manyConfig(), newTestEnv()
	before := compiled(t, config, nil, env)
	config.DefaultBackend = "app-0.team-0.example.com-0" // every host is another one, of the same routes
	after := compiled(t, config, before, env)
	for i, s := range []*Snapshot{before, after} {
		usual := s.Host([]byte(manyName(1)))
		if usual.trie.far != nil || &usual.routes[0] != &usual.near[0] {
			t.Errorf("snapshot %d: part of a usual host is elsewhere", i)
		}
	}
	if after.hosts[1] == before.hosts[1] || after.hosts[1].routes[0] != before.hosts[1].routes[0] {
		t.Error("it was not the host of the same routes that was moved")
	}
}
