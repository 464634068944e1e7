package watcher

import (
	"fmt"

	"github.com/sluiceproxy/sluice/route"
)

// place is where an object stands.
type place struct {
	file     *file
	document int
}

func (p place) String() string { return problemFile(p.file.shown, p.document) }

// state gathers the objects of all files, directories as they were named, files by name, documents in their order. Of the
// same object twice the first counts.
func (f *fileSource) state() *State {
	s := &State{}
	places := map[route.Object]place{}
	for _, d := range f.roots {
		if d.err != nil {
			s.Problems = append(s.Problems, directoryProblem(d))
		}
		for _, name := range d.names {
			s.addFile(d.files[name], places)
		}
	}
	s.Where = func(o route.Object) string {
		p, ok := places[o]
		if !ok {
			return ""
		}
		return p.String()
	}
	return s
}

func (s *State) addFile(m *file, places map[route.Object]place) {
	for _, f := range m.faults {
		s.Problems = append(s.Problems, faultProblem(m, f))
	}
	if m.good == nil {
		return
	}
	for _, o := range m.good.objects {
		id, here := o.id(), place{m, o.document}
		if first, twice := places[id]; twice {
			s.Problems = append(s.Problems, route.Problem{Object: id, File: here.String(),
				Reason: fmt.Sprintf("is there twice: the one in %s counts, remove one of them", first)})
			continue
		}
		places[id] = here
		o.kind.add(&s.Objects, o.Object)
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
