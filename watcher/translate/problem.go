package translate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/route"
)

func problem(o route.Object, field, format string, args ...any) route.Problem {
	return route.Problem{Object: o, Field: field, Reason: fmt.Sprintf(format, args...)}
}

// A place is a part of an Ingress that names a backend. Its field's text is made when a Problem asks for it: there are
// 100,000 places and few Problems.
type place struct {
	kind       placeKind
	rule, path int32
}

type placeKind uint8

const (
	placePath       placeKind = iota // spec.rules[].http.paths[]
	placeDefault                     // spec.defaultBackend
	placeAnnotation                  // the default-backend annotation
	placeFlag                        // --default-backend-service
	placeAuth                        // the auth-url annotation
	placeGlobalAuth                  // the ConfigMap's global-auth-url
	placeMirror                      // the mirror-target annotation
	placeTCP                         // an entry of --tcp-services-configmap; rule is its port
	placeUDP                         // … of --udp-services-configmap
)

// backend is the field of the place's backend, with a sub-field such as ".name" where it has any.
func (p place) backend(prefix, sub string) string {
	switch p.kind {
	case placeDefault:
		return "spec.defaultBackend.service" + sub
	case placeAnnotation:
		return annotationField(prefix + "/" + keyDefaultBackend)
	case placeAuth:
		return annotationField(prefix + "/auth-url")
	case placeGlobalAuth:
		return "data[global-auth-url]"
	case placeMirror:
		return annotationField(prefix + "/mirror-target")
	case placeTCP, placeUDP:
		return fmt.Sprintf("data[%d]", p.rule)
	case placeFlag:
		return "--default-backend-service"
	}
	return p.field() + ".backend.service" + sub
}

func (p place) field() string {
	return fmt.Sprintf("spec.rules[%d].http.paths[%d]", p.rule, p.path)
}

func annotationField(key string) string { return "metadata.annotations[" + key + "]" }

func compareProblems(a, b route.Problem) int {
	return cmp.Or(
		strings.Compare(a.Object.Kind, b.Object.Kind),
		strings.Compare(a.Object.Namespace, b.Object.Namespace),
		strings.Compare(a.Object.Name, b.Object.Name),
		strings.Compare(a.Field, b.Field),
		strings.Compare(a.Reason, b.Reason))
}

// ledger keeps the problems of things by what has them, and their sorted sum. Few things have any.
type ledger struct {
	of     map[any][]route.Problem
	sorted []route.Problem
	stale  bool
}

// set replaces the problems of who, and forgets who if there are none.
func (l *ledger) set(who any, problems []route.Problem) {
	old := l.of[who]
	if len(problems) == 0 {
		if old == nil {
			return
		}
		delete(l.of, who)
	} else {
		if l.of == nil {
			l.of = make(map[any][]route.Problem)
		}
		l.of[who] = problems
	}
	l.stale = l.stale || !slices.Equal(old, problems)
}

// all are the problems of everybody, sorted. The slice is never written to again.
func (l *ledger) all() []route.Problem {
	if !l.stale {
		return l.sorted
	}
	var out []route.Problem
	for _, problems := range l.of {
		out = append(out, problems...)
	}
	slices.SortFunc(out, compareProblems)
	l.sorted, l.stale = slices.Compact(out), false
	return l.sorted
}
