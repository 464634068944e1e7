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
	hash   uint64 // of source.ID
	live   *liveCluster
}

// liveCluster goes from Snapshot to Snapshot as long as its ID is named without a gap.
type liveCluster struct {
	upstream *upstream.Cluster // what routes point to
	control  clusterControl    // the same; tests listen here

	mu        sync.Mutex
	settings  upstream.Settings
	endpoints []upstream.Address // as last applied, by a Config or by ApplyEndpoints
	refusals  []upstream.Refusal
}

// clusterControl is what this room does to a living cluster.
type clusterControl interface {
	SetSettings(upstream.Settings)
	Apply([]upstream.Address) []upstream.Refusal
	Close()
}

// setSettings replaces the settings if they differ; pools and health stay.
func (l *liveCluster) setSettings(s upstream.Settings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sameSettings(l.settings, s) {
		return
	}
	verdicts := l.settings.AllowLoopback != s.AllowLoopback
	l.settings = s
	l.control.SetSettings(s)
	if verdicts {
		l.refusals = l.control.Apply(l.endpoints)
	}
}

// setEndpoints replaces the endpoints if they differ.
func (l *liveCluster) setEndpoints(endpoints []upstream.Address) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(l.endpoints, endpoints) {
		return
	}
	l.endpoints = endpoints
	l.refusals = l.control.Apply(endpoints)
}

// problems are the endpoints that may not be dialled (docs/hardening.md 3.1 rule 7).
func (c *cluster) problems() []Problem {
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	var list []Problem
	for _, r := range c.live.refusals {
		list = append(list, Problem{Object: c.source.Owner, Field: "endpoint " + addressText(r.Address), Reason: r.Reason})
	}
	return list
}

func sameSettings(a, b upstream.Settings) bool {
	if a.TLS != nil && b.TLS != nil && *a.TLS == *b.TLS {
		a.TLS = b.TLS
	}
	return a == b
}

func addressText(a upstream.Address) string {
	if a.Name != "" {
		return net.JoinHostPort(a.Name, strconv.Itoa(int(a.Port)))
	}
	return a.Addr.String()
}
