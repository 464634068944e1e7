package route

import (
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/sluiceproxy/sluice/upstream"
)

// cluster is one cluster of one Snapshot: the Config's view, immutable, beside the living one.
type cluster struct {
	source *Cluster
	live   *liveCluster
}

// liveCluster goes from Snapshot to Snapshot as long as its ID is named without a gap.
type liveCluster struct {
	upstream *upstream.Cluster // what routes point to
	control  clusterControl    // the same; tests listen here

	mu        sync.Mutex
	settings  upstream.Settings
	endpoints []upstream.Address // as last applied, by a Config or by ApplyEndpoints
}

// clusterControl is what this room does to a living cluster.
type clusterControl interface {
	SetSettings(upstream.Settings)
	Problem() error // why the settings cannot be used
	Apply([]upstream.Address) []upstream.Refusal
	Refusals() []upstream.Refusal
	Close()
}

// setSettings replaces the settings if they differ; pools and health stay.
func (l *liveCluster) setSettings(s upstream.Settings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !SameSettings(l.settings, s) {
		l.settings = s
		l.control.SetSettings(s)
	}
}

// setEndpoints replaces the endpoints if they differ.
func (l *liveCluster) setEndpoints(endpoints []upstream.Address) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.endpoints, endpoints) {
		l.endpoints = endpoints
		l.control.Apply(endpoints)
	}
}

// problems are settings that cannot be used, and endpoints that may not be dialled (docs/hardening.md 3.1 rule 7). Both
// may come and go without a compile.
func (c *cluster) problems() []Problem {
	var list []Problem
	if err := c.live.control.Problem(); err != nil {
		list = append(list, Problem{Object: c.source.Owner, Field: "cluster " + c.source.ID, Reason: err.Error() + "; requests are answered 503"})
	}
	for _, r := range c.live.control.Refusals() {
		list = append(list, Problem{Object: c.source.Owner, Field: "endpoint " + AddressText(r.Address), Reason: r.Reason})
	}
	return list
}

// SameSettings tells whether two settings say the same, whatever their pointers are.
func SameSettings(a, b upstream.Settings) bool {
	if a.TLS != nil && b.TLS != nil && *a.TLS == *b.TLS {
		a.TLS = b.TLS
	}
	if a.Affinity != nil && b.Affinity != nil && *a.Affinity == *b.Affinity {
		a.Affinity = b.Affinity
	}
	return a == b
}

// AddressText reads "192.0.2.1:80", or the name and what it led to as far as that is known.
func AddressText(a upstream.Address) string {
	switch {
	case a.Name == "":
		return a.Addr.String()
	case a.Addr.IsValid():
		return a.Name + " (" + a.Addr.String() + ")"
	}
	return net.JoinHostPort(a.Name, strconv.Itoa(int(a.Port)))
}
