package route

import (
	"fmt"
	"testing"
)

// hostsNamed are hosts of these names, as a table can hold them.
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
	if none.find([]byte("a"), nil) != nil || none.find(nil, nil) != nil {
		t.Error("the zero table has something")
	}
	for _, count := range []int{1, 2, 3, 6, 7, 8, 9, 1000} {
		names := make([]string, count+1)
		for i := range names {
			names[i] = fmt.Sprintf("host-%d.example", i)
		}
		hosts := hostsNamed(names...)
		table := newTable(count, len(hosts), 0)
		for i, h := range hosts[:count] {
			if already := table.put(h, hosts[:i]); already != nil {
				t.Fatalf("%s is there before it was put", names[i])
			}
		}
		if free := len(table.slots) - count; 4*free < len(table.slots) {
			t.Errorf("%d hosts in %d slots", count, len(table.slots))
		}
		for i, h := range hosts[:count] {
			if table.find([]byte(names[i]), hosts) != h {
				t.Errorf("%s is not found among %d", names[i], count)
			}
		}
		if table.find([]byte(names[count]), hosts) != nil || table.find(nil, hosts) != nil {
			t.Errorf("something is found that was not put among %d", count)
		}
		if table.put(hostsNamed(names[0])[0], hosts[:count]) != hosts[0] {
			t.Error("a name was put twice")
		}
	}
}

// Names whose hashes collide wholly, at the table's end, are told apart by themselves.
func TestTableCollision(t *testing.T) {
	table, hosts := newTable(4, 4, 0), hostsNamed("a", "b", "c", "d")
	const hash = ^uint64(0)
	for i, h := range hosts {
		h.hash = hash
		table.put(h, hosts[:i])
	}
	for _, h := range hosts {
		if table.get(hash, h.trie.name(), hosts) != h {
			t.Errorf("%s is not found", h.trie.name())
		}
	}
	if table.get(hash, []byte("e"), hosts) != nil {
		t.Error("something is found that was not put")
	}
}

// Names of one slot whose hashes differ in what the slot holds of them are not compared: the list is not asked for them.
func TestTableTags(t *testing.T) {
	table, hosts := newTable(1, 1000, 0), hostsNamed("a")
	hosts[0].hash = 1 << 63
	table.put(hosts[0], nil)
	for bit := range 32 - table.bits {
		if table.get(hosts[0].hash|1<<bit, []byte("a"), nil) != nil {
			t.Error("a host of another hash is found")
		}
	}
}

// A wildcard's key is its name without "*.".
func TestTableSkips(t *testing.T) {
	table, hosts := newTable(1, 1, len("*.")), hostsNamed("*.shop.example")
	hosts[0].hash = hashOf("shop.example")
	table.put(hosts[0], nil)
	if table.find([]byte("shop.example"), hosts) != hosts[0] || table.get(hosts[0].hash, []byte("*.shop.example"), hosts) != nil {
		t.Error("a wildcard is not found by its parent domain alone")
	}
	if table.put(hosts[0], hosts) != hosts[0] {
		t.Error("a wildcard was put twice")
	}
}
