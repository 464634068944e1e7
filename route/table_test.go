package route

import (
	"fmt"
	"testing"
)

// hostsNamed are hosts of these names, which a table can hold.
func hostsNamed(names ...string) []*Host {
	list := make([]*Host, len(names))
	for i, name := range names {
		list[i] = &Host{hash: hashOf(name)}
		new(trieMaker).build(&list[i].trie, name, nil)
	}
	return list
}

func TestTable(t *testing.T) {
	var none table
	if none.find([]byte("a")) != nil || none.find(nil) != nil {
		t.Error("the zero table has something")
	}
	for _, count := range []int{1, 2, 3, 7, 8, 9, 1000} {
		table, names := newTable(count, 0), make([]string, count+1)
		for i := range names {
			names[i] = fmt.Sprintf("host-%d.example", i)
		}
		hosts := hostsNamed(names...)
		for i, h := range hosts[:count] {
			if already := table.put(h); already != nil {
				t.Fatalf("%s is there before it was put", names[i])
			}
		}
		if table.count != count || len(table.tags) < 2*count {
			t.Errorf("%d hosts in %d slots, %d counted", count, len(table.tags), table.count)
		}
		for i, h := range hosts[:count] {
			if table.find([]byte(names[i])) != h {
				t.Errorf("%s is not found among %d", names[i], count)
			}
		}
		if table.find([]byte(names[count])) != nil || table.find(nil) != nil {
			t.Errorf("something is found that was not put among %d", count)
		}
		if table.put(hostsNamed(names[0])[0]) != hosts[0] || table.count != count {
			t.Error("a name was put twice")
		}
		changed, other := table.clone(), hostsNamed(names[0])[0]
		if changed.replace(hosts[0], other); changed.find([]byte(names[0])) != other || table.find([]byte(names[0])) != hosts[0] {
			t.Error("a host is not replaced, or in the table that was cloned, too")
		}
	}
}

// Names whose hashes collide wholly, at the table's end, are told apart by themselves.
func TestTableCollision(t *testing.T) {
	table, hosts := newTable(4, 0), hostsNamed("a", "b", "c", "d")
	const hash = ^uint64(0)
	for _, h := range hosts {
		h.hash = hash
		table.put(h)
	}
	for _, h := range hosts {
		if table.get(hash, h.trie.name()) != h {
			t.Errorf("%s is not found", h.trie.name())
		}
	}
	if table.get(hash, []byte("e")) != nil {
		t.Error("something is found that was not put")
	}
}

// A wildcard's key is its name without "*.".
func TestTableSkips(t *testing.T) {
	table, hosts := newTable(1, len("*.")), hostsNamed("*.shop.example")
	hosts[0].hash = hashOf("shop.example")
	table.put(hosts[0])
	if table.find([]byte("shop.example")) != hosts[0] || table.find([]byte("*.shop.example")) != nil {
		t.Error("a wildcard is not found by its parent domain alone")
	}
}
