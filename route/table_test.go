package route

import (
	"fmt"
	"testing"
)

func TestTable(t *testing.T) {
	var none table[int]
	if none.find([]byte("a")) != nil || none.get(hashOf("a"), "a") != nil {
		t.Error("the zero table has something")
	}
	for _, count := range []int{1, 2, 3, 7, 8, 9, 1000} {
		table, values := newTable[int](count), make([]int, count)
		name := func(i int) string { return fmt.Sprintf("host-%d.example", i) }
		for i := range count {
			if already := table.put(hashOf(name(i)), name(i), &values[i]); already != nil {
				t.Fatalf("%s is there before it was put", name(i))
			}
		}
		if table.count != count || len(table.slots) < 2*count {
			t.Errorf("%d values in %d slots, %d counted", count, len(table.slots), table.count)
		}
		for i := range count {
			if table.find([]byte(name(i))) != &values[i] || table.get(hashOf(name(i)), name(i)) != &values[i] {
				t.Errorf("%s is not found among %d", name(i), count)
			}
		}
		if table.find([]byte(name(count))) != nil || table.find(nil) != nil {
			t.Errorf("something is found that was not put among %d", count)
		}
		if table.put(hashOf(name(0)), name(0), &values[count-1]) != &values[0] || table.count != count {
			t.Error("a name was put twice")
		}
	}
}

// Names whose hashes collide wholly, at the table's end, are told apart by themselves.
func TestTableCollision(t *testing.T) {
	table, values := newTable[int](4), make([]int, 4)
	const hash = ^uint64(0)
	for i, key := range []string{"a", "b", "c", "d"} {
		table.put(hash, key, &values[i])
	}
	for i, key := range []string{"a", "b", "c", "d"} {
		if table.get(hash, key) != &values[i] {
			t.Errorf("%s is not found", key)
		}
	}
	if table.get(hash, "e") != nil {
		t.Error("something is found that was not put")
	}
}
