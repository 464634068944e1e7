package translate

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// key names an object of a kind.
type key struct{ namespace, name string }

func keyOf(o metav1.Object) key { return key{o.GetNamespace(), o.GetName()} }

func (k key) String() string { return k.namespace + "/" + k.name }

// parseKey reads "namespace/name".
func parseKey(s string) (key, bool) {
	namespace, name, ok := strings.Cut(s, "/")
	return key{namespace, name}, ok && namespace != "" && name != "" && !strings.Contains(name, "/")
}

// index holds the objects of one kind by their names and finds what changed from call to call.
type index[T interface {
	comparable
	metav1.Object
}] struct {
	list []T
	by   map[key]T
}

// update takes the next list and gives the names whose object is another one than before.
func (x *index[T]) update(list []T) []key {
	old := x.list
	head := 0
	for head < len(old) && head < len(list) && old[head] == list[head] {
		head++
	}
	if head == len(old) && head == len(list) {
		return nil
	}
	tail := 0
	for tail < len(old)-head && tail < len(list)-head && old[len(old)-1-tail] == list[len(list)-1-tail] {
		tail++
	}
	x.list = slices.Clone(list) // the caller may reuse its slice
	if x.by == nil {
		x.by = make(map[key]T, len(list))
	}
	if len(x.by) != len(old) {
		head, tail = 0, 0 // names stand twice: which object counts may depend on the whole list
	}
	changed, twice := x.replace(old[head:len(old)-tail], list[head:len(list)-tail])
	if twice && head+tail > 0 {
		changed = append(changed, x.recount()...)
	}
	return changed
}

// replace exchanges the objects of one stretch of the list. twice: a name of the stretch stood there already.
func (x *index[T]) replace(old, list []T) (changed []key, twice bool) {
	before := make(map[key]T, len(old))
	for _, o := range old {
		k := keyOf(o)
		if x.by[k] == o {
			before[k] = o
			delete(x.by, k)
		}
	}
	for _, o := range list {
		k := keyOf(o)
		if _, there := x.by[k]; there {
			twice = true
			continue
		}
		x.by[k] = o
		if was, ok := before[k]; !ok || was != o {
			changed = append(changed, k)
		}
		delete(before, k)
	}
	for k := range before {
		changed = append(changed, k)
	}
	return changed, twice
}

// recount makes the first object of every name count, and gives the names for which that is a change.
func (x *index[T]) recount() (changed []key) {
	first := make(map[key]T, len(x.list))
	for _, o := range x.list {
		if k := keyOf(o); first[k] == *new(T) {
			first[k] = o
		}
	}
	for k, o := range first {
		if x.by[k] != o {
			changed = append(changed, k)
		}
	}
	x.by = first
	return changed
}

// roster is a list of the current values, sorted by name. It is copied when it changes, so that a list that was handed
// out stays as it is.
type roster[V any] struct {
	names  []string
	values []*V
}

// change sets the values of names (sorted, each once); a nil value takes the name off the list.
func (r *roster[V]) change(names []string, value func(name string) *V) {
	if len(names) == 0 {
		return
	}
	out := roster[V]{make([]string, 0, len(r.names)+len(names)), make([]*V, 0, len(r.names)+len(names))}
	at := 0 // what is before it is copied or gone
	for _, name := range names {
		i, found := slices.BinarySearch(r.names[at:], name)
		out.names = append(out.names, r.names[at:at+i]...)
		out.values = append(out.values, r.values[at:at+i]...)
		at += i
		if found {
			at++
		}
		if v := value(name); v != nil {
			out.names, out.values = append(out.names, name), append(out.values, v)
		}
	}
	out.names = append(out.names, r.names[at:]...)
	out.values = append(out.values, r.values[at:]...)
	*r = out
}
