package route

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// trieOf makes a trie whose entries are all that a node can hold, by turns: one number, the same twice, two numbers.
func trieOf(name string, count, first int) (trie, []entry) {
	entries := make([]entry, count)
	for i := range entries {
		n := first + 2*i
		entries[i] = entry{text: fmt.Sprintf("/app/%d", i), here: n, below: [...]int{none, n, n + 1}[i%3]}
	}
	var t trie
	new(trieMaker).build(&t, name, entries)
	return t, entries
}

func checkTrie(t *testing.T, made *trie, name string, entries []entry) {
	t.Helper()
	if string(made.name()) != name {
		t.Errorf("a trie of %q says it is of %q", name, made.name())
	}
	if spare := len(made.far) - used(name, entries, int(made.width)); made.far != nil && spare != numberMax-1 {
		t.Errorf("a trie of %d entries ends with %d bytes that stand for nothing", len(entries), spare)
	}
	for _, e := range entries {
		here, below := made.match([]byte(e.text)), made.match([]byte(e.text+"/x"))
		if here != e.here || below != e.below {
			t.Fatalf("%d entries: %s leads to %d, and to %d below; want %d and %d", len(entries), e.text, here, below, e.here, e.below)
		}
	}
	if made.match([]byte("/ap")) != none || made.match([]byte("/app/x")) != none || made.match(nil) != none {
		t.Errorf("%d entries: a path leads somewhere that no route has", len(entries))
	}
}

// used is the length of a text of this width.
func used(name string, entries []entry, width int) int {
	m := trieMaker{width: width}
	m.write(name, entries)
	return len(m.text)
}

// A trie's numbers are as wide as its routes' numbers ask …
func TestTrieNumbers(t *testing.T) {
	for first, width := range map[int]int{0: 1, 250: 1, 251: 2, 256: 2, 1<<16 - 6: 2, 1<<16 - 5: numberMax, 1 << 20: numberMax} {
		made, entries := trieOf("shop.example", 3, first)
		if int(made.width) != width {
			t.Errorf("routes %d to %d: numbers of %d bytes, want %d", first, first+5, made.width, width)
		}
		checkTrie(t, &made, "shop.example", entries)
	}
}

// … and as its length asks. The name's length moves the rest byte by byte over both edges, and over that of what fits the host.
func TestTrieLengths(t *testing.T) {
	widths, places := map[uint8]bool{}, map[bool]bool{}
	for _, count := range []int{0, 1, 2, 12, 30, 7545} {
		for length := 0; length <= 253; length += 1 + count/1000 {
			name := strings.Repeat("n", length)
			made, entries := trieOf(name, count, 0)
			checkTrie(t, &made, name, entries)
			text := used(name, entries, int(made.width))
			if narrow := used(name, entries, int(made.width)/2); made.width > 1 && narrow < 1<<(4*made.width) && 2*count <= 1<<(4*made.width) {
				t.Errorf("%d entries, %d bytes: numbers of %d bytes where half would do", count, narrow, made.width)
			}
			if far := text+numberMax-1 > nearMax; (made.far != nil) != far {
				t.Errorf("%d entries, %d bytes: far is %v", count, text, !far)
			}
			widths[made.width], places[made.far != nil] = true, true
		}
	}
	if len(widths) != 3 || len(places) != 2 {
		t.Errorf("only widths %v, and far of %v, were seen", widths, places)
	}
}

// What a look-up touches of a usual host is one object, also after the host was taken over with another default backend.
func TestHostInOnePiece(t *testing.T) {
	host := reflect.TypeFor[Host]()
	if host.Size() != 512 {
		t.Errorf("a Host has %d bytes, not eight cache lines", host.Size())
	}
	if near, _ := host.FieldByName("nearRoutes"); near.Offset+near.Type.Size() > 6*64 {
		t.Errorf("what a look-up touches ends at byte %d", near.Offset+near.Type.Size())
	}
	first, env := config(manyHost(0), manyHost(1)), newTestEnv()
	for _, v := range first.Hosts {
		first.Clusters = append(first.Clusters, service(v.Rules[0].Cluster), service(v.Rules[1].Cluster))
	}
	second := *first
	second.DefaultBackend = first.Clusters[0].ID
	before := compiled(t, first, nil, env)
	after := compiled(t, &second, before, env)
	for i, s := range []*Snapshot{before, after} {
		usual := s.Host([]byte(manyName(1)))
		if usual.trie.far != nil || &usual.routes[0] != &usual.nearRoutes[0] {
			t.Errorf("snapshot %d: part of a usual host is elsewhere", i)
		}
	}
	if after.hosts[1] == before.hosts[1] || after.hosts[1].routes[0] != before.hosts[1].routes[0] {
		t.Error("it was not the host of the same routes that was taken over")
	}
}
