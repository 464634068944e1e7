// Package filter holds the behaviours on an exchange's way, one file each: its configuration struct, its compiled form,
// its doc comment. A behaviour knows no annotation; the dialect that constructs it lives in watcher/translate.
package filter

import (
	"sync"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/upstream"
)

// Stage is when a filter runs. Stages are nginx's phases, because annotations promise nginx's order.
type Stage uint8

const (
	Rewrite    Stage = iota // redirects, rewrites, CORS preflight
	PreAccess               // limits: they count unauthenticated requests
	Access                  // address lists, authentication
	PreContent              // mirrors
	Header                  // header manipulation towards the backend and back
	Body                    // body transformation
)

// A Config is one behaviour as the configuration asks for it: plain, comparable data.
type Config interface {
	Stage() Stage
	// Compile makes the shared, immutable filter. An error becomes a Problem of the owning object; the rule then fails
	// closed with 503. s finds or makes the state of owner object + role, which outlives a compile.
	Compile(s *State) (l7.Filter, error)
}

// State finds or makes what outlives a compile: buckets, caches. One State belongs to one owner object.
type State struct {
	mu     sync.Mutex
	byRole map[string]any

	kept     *State                            // has the roles; nil: this one
	clusters func(id string) *upstream.Cluster // nil: there are none
}

// With is s for one compile, in which filters may ask for clusters.
func (s *State) With(clusters func(id string) *upstream.Cluster) *State {
	return &State{kept: s, clusters: clusters}
}

// Cluster answers the cluster of that ID; nil: there is none. The rule is compiled again when it comes or goes.
func (s *State) Cluster(id string) *upstream.Cluster {
	if s.clusters == nil || id == "" {
		return nil
	}
	return s.clusters(id)
}

// Get returns the state of role, made by mk at its first use. Roles are constants of the filter that asks.
func (s *State) Get(role string, mk func() any) any {
	if s.kept != nil {
		return s.kept.Get(role, mk)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byRole == nil {
		s.byRole = make(map[string]any)
	}
	v, ok := s.byRole[role]
	if !ok {
		v = mk()
		s.byRole[role] = v
	}
	return v
}
