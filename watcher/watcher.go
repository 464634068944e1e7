package watcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// Source is where the desired state comes from.
type Source interface {
	// Run calls apply with the whole desired state, at once and after every change, until ctx ends. It calls from one
	// goroutine at a time; apply returns soon.
	Run(ctx context.Context, apply func(*State)) error
	// Load reads the whole desired state once.
	Load() (*State, error)
	// Rescan asks for a new look at everything, in case a change went unnoticed. From any goroutine; it does not wait.
	Rescan()
}

// State is the whole desired state of one moment. Neither the source nor who receives it writes to it. An object that did
// not change is the same pointer as in the State before.
type State struct {
	Objects  translate.Objects
	Problems []route.Problem           // what the source could not take
	Where    func(route.Object) string // where an object stands, for people: file and document; "" if unknown
}

// Spec names a source.
type Spec struct {
	Scheme string   // a key of the table below
	Paths  []string // file: directories, those named first count first
	Files  []string // file: single files, after the directories
}

// sources is the table of what Open knows.
var sources = map[string]func(Spec, *slog.Logger) (Source, error){
	"file":       openFiles,
	"kubernetes": refuseCluster,
}

// Open finds a source by its scheme. It touches nothing before Run or Load.
func Open(s Spec, log *slog.Logger) (Source, error) {
	open := sources[s.Scheme]
	if open == nil {
		known := slices.Sorted(maps.Keys(sources))
		return nil, fmt.Errorf("source %q is unknown; there are %s", s.Scheme, strings.Join(known, ", "))
	}
	return open(s, log)
}

// ErrCluster is why a cluster cannot be watched yet.
var ErrCluster = errors.New("this version cannot watch a cluster yet: give it manifests with --manifests DIR")

func refuseCluster(Spec, *slog.Logger) (Source, error) { return nil, ErrCluster }
