package watcher

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// version is a file with what counts of it in a State.
type version struct {
	file *file
	good *manifest
}

// place is where an object stands.
type place struct {
	file     *file
	document int
}

func (p place) String() string { return problemFile(p.file.shown, p.document) }

// tally counts how often the objects of all files are there, from State to State: few files change from one to the next,
// and few objects, if any, are there more than once. The zero value is ready.
type tally struct {
	times map[route.Object]int
	twice map[route.Object]bool // those that are there more than once
}

// exchange counts what a file says now in place of what it said before.
func (t *tally) exchange(m *file, now *manifest) {
	before := m.counted
	if before == now {
		return
	}
	m.counted = now
	if before != nil {
		for _, o := range before.objects {
			t.add(o.id(), -1)
		}
	}
	if now != nil {
		for _, o := range now.objects {
			t.add(o.id(), 1)
		}
	}
}

func (t *tally) add(id route.Object, n int) {
	if t.times == nil {
		t.times, t.twice = map[route.Object]int{}, map[route.Object]bool{}
	}
	n += t.times[id]
	if n > 0 {
		t.times[id] = n
	} else {
		delete(t.times, id)
	}
	if n > 1 {
		t.twice[id] = true
	} else {
		delete(t.twice, id)
	}
}

// state gathers the objects of all files, directories as they were named, files by name, documents in their order. Of the
// same object twice the first counts.
func (f *fileSource) state() *State {
	s := &State{Objects: sized(&f.last)}
	files := 0
	for _, d := range f.roots {
		files += len(d.names)
		for _, name := range d.names {
			m := d.files[name]
			f.tally.exchange(m, m.good)
		}
	}
	versions := make([]version, 0, files)
	first := map[route.Object]place{} // of those that are there more than once
	for _, d := range f.roots {
		if d.err != nil {
			s.Problems = append(s.Problems, directoryProblem(d))
		}
		for _, name := range d.names {
			m := d.files[name]
			s.addFile(m, f.tally.twice, first)
			if m.good != nil {
				versions = append(versions, version{m, m.good})
			}
		}
	}
	s.Where = whereOf(versions)
	f.last = s.Objects
	return s
}

// sized has room for as many objects as there were last, and a few more.
func sized(last *translate.Objects) translate.Objects {
	return translate.Objects{
		Ingresses:      make([]*networkingv1.Ingress, 0, room(len(last.Ingresses))),
		IngressClasses: make([]*networkingv1.IngressClass, 0, room(len(last.IngressClasses))),
		Services:       make([]*corev1.Service, 0, room(len(last.Services))),
		EndpointSlices: make([]*discoveryv1.EndpointSlice, 0, room(len(last.EndpointSlices))),
		Secrets:        make([]*corev1.Secret, 0, room(len(last.Secrets))),
		ConfigMaps:     make([]*corev1.ConfigMap, 0, room(len(last.ConfigMaps))),
	}
}

func room(last int) int { return last + last/32 }

func (s *State) addFile(m *file, twice map[route.Object]bool, first map[route.Object]place) {
	for _, f := range m.faults {
		s.Problems = append(s.Problems, faultProblem(m, f))
	}
	if m.good == nil {
		return
	}
	for _, o := range m.good.objects {
		if len(twice) > 0 && !s.counts(o, m, twice, first) {
			continue
		}
		o.kind.add(&s.Objects, o.Object)
	}
}

// counts tells whether an object is the first of its name; if not, that is a Problem.
func (s *State) counts(o object, m *file, twice map[route.Object]bool, first map[route.Object]place) bool {
	id, here := o.id(), place{m, o.document}
	if !twice[id] {
		return true
	}
	if before, there := first[id]; there {
		s.Problems = append(s.Problems, route.Problem{Object: id, File: here.String(),
			Reason: fmt.Sprintf("is there twice: the one in %s counts, remove one of them", before)})
		return false
	}
	first[id] = here
	return true
}

// whereOf tells where the objects of a State stand. Only Problems ask: the map is made for the first of them.
func whereOf(versions []version) func(route.Object) string {
	places := sync.OnceValue(func() map[route.Object]place {
		objects := 0
		for _, v := range versions {
			objects += len(v.good.objects)
		}
		places := make(map[route.Object]place, objects)
		for _, v := range versions {
			for _, o := range v.good.objects {
				if _, there := places[o.id()]; !there {
					places[o.id()] = place{v.file, o.document}
				}
			}
		}
		return places
	})
	return func(o route.Object) string {
		p, ok := places()[o]
		if !ok {
			return ""
		}
		return p.String()
	}
}

func directoryProblem(d *directory) route.Problem {
	return route.Problem{Object: route.Object{Kind: "Directory", Name: d.shown},
		Reason: d.err.Error() + "; what it said last stays in force"}
}

// faultProblem tells what is wrong with a file, and what that means for its objects.
func faultProblem(m *file, f fault) route.Problem {
	p := route.Problem{Object: f.object, Field: f.field, Reason: f.reason, File: problemFile(m.shown, f.document)}
	if p.Object.Kind == "" {
		p.Object = route.Object{Kind: "File", Name: m.shown}
	}
	if m.sound {
		p.Reason += "; all objects of the file stay at its last good version"
	} else {
		p.Reason += "; the rest of the file is taken"
	}
	return p
}
