package watcher

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

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
	Since    time.Time                 // when the first event came that this state is the answer to; zero: unknown
}

// Reporter is a Source that shows in its objects what became of them: a cluster does.
type Reporter interface {
	// Report is told what serves, after every state and now and then. It returns soon; calls come from one goroutine.
	Report(Outcome)
	// Leave is called before the process stops to serve: others are no longer sent here. It returns when ctx ends.
	Leave(ctx context.Context)
}

// Outcome is what became of a State. Nobody writes to it.
type Outcome struct {
	State    *State
	Taken    []*networkingv1.Ingress // that are ours, and serve
	Problems []route.Problem         // all that are known
}

// Spec names a source.
type Spec struct {
	Scheme  string   // a key of the table below
	Paths   []string // file: directories, those named first count first
	Files   []string // file: single files, after the directories
	Cluster Cluster  // kubernetes
}

// sources is the table of what Open knows.
var sources = map[string]func(Spec, *slog.Logger) (Source, error){
	"file":       openFiles,
	"kubernetes": openCluster,
}

// Open finds a source by its scheme. It touches nothing before Run or Load, but a kubeconfig.
func Open(s Spec, log *slog.Logger) (Source, error) {
	open := sources[s.Scheme]
	if open == nil {
		known := slices.Sorted(maps.Keys(sources))
		return nil, fmt.Errorf("source %q is unknown; there are %s", s.Scheme, strings.Join(known, ", "))
	}
	return open(s, log)
}
