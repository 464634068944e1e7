package route

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
)

// Description is a Snapshot for people, ready for encoding/json. It names secrets and filters, and shows nothing of what
// is in them.
type Description struct {
	Generation     uint64             `json:"generation"`
	CompiledAt     time.Time          `json:"compiledAt"`
	Certificate    *DescribedPair     `json:"defaultCertificate,omitempty"`
	DefaultBackend string             `json:"defaultBackend,omitempty"`
	Hosts          []DescribedHost    `json:"hosts"`
	Services       []DescribedService `json:"services,omitempty"`
	Clusters       []DescribedCluster `json:"clusters"`
	Problems       []string           `json:"problems"`
}

// DescribedHost is one host of a Description.
type DescribedHost struct {
	Name             string          `json:"name"` // "": the catch-all
	Owner            string          `json:"owner"`
	Certificate      *DescribedPair  `json:"certificate,omitempty"` // absent: the wildcard host's, or the default
	Passthrough      string          `json:"passthrough,omitempty"`
	PassthroughProxy int             `json:"passthroughProxyProtocol,omitempty"` // version that its backends are sent
	Ciphers          []string        `json:"ciphers,omitempty"`                  // of its own; absent: those of all
	RegexMode        bool            `json:"regexMode,omitempty"`
	IgnoreSlash      bool            `json:"ignoreSlash,omitempty"`
	Filters          []string        `json:"filters,omitempty"`
	Rules            []DescribedRule `json:"rules"` // in the Config's order, not that of their tries
}

// DescribedRule is one rule of a DescribedHost.
type DescribedRule struct {
	Path     string   `json:"path"`
	Type     string   `json:"type"`
	Owner    string   `json:"owner"`
	State    string   `json:"state"` // "serves", "503" or "left out"
	Service  string   `json:"service,omitempty"`
	Port     string   `json:"port,omitempty"`
	Cluster  string   `json:"cluster,omitempty"`
	Canaries []string `json:"canaries,omitempty"` // cluster IDs
	Fallback string   `json:"fallback,omitempty"`
	Filters  []string `json:"filters,omitempty"` // the host's come first within each stage
}

// DescribedCluster is one cluster of a Description.
type DescribedCluster struct {
	ID        string   `json:"id"`
	Owner     string   `json:"owner"`
	TLS       bool     `json:"tls,omitempty"`
	Endpoints []string `json:"endpoints"`
	Refused   []string `json:"refused,omitempty"` // endpoints that may not be dialled, and why
}

// DescribedPair is the public part of a key pair.
type DescribedPair struct {
	Secret   string    `json:"secret,omitempty"`
	Names    []string  `json:"names"`
	NotAfter time.Time `json:"notAfter"`
}

// Describe makes the Description. Clusters are shown as they are now.
func (s *Snapshot) Describe() *Description {
	d := &Description{
		Generation:     s.Generation,
		CompiledAt:     s.CompiledAt,
		DefaultBackend: s.config.DefaultBackend,
		Hosts:          make([]DescribedHost, 0, len(s.hosts)),
		Clusters:       make([]DescribedCluster, 0, len(s.clusterList)),
		Problems:       make([]string, 0, len(s.problems)),
	}
	if s.ownCertificate {
		d.Certificate = describePair(s.config.DefaultCertificate, s.certificate)
	} else {
		d.Certificate = describePair(nil, s.certificate)
	}
	for _, h := range s.hosts {
		d.Hosts = append(d.Hosts, h.describe())
	}
	for _, service := range s.config.Services {
		d.Services = append(d.Services, service.Describe())
	}
	for _, c := range s.clusterList {
		d.Clusters = append(d.Clusters, c.describe())
	}
	for _, p := range s.problems {
		d.Problems = append(d.Problems, p.String())
	}
	return d
}

func describePair(c *Certificate, pair *tls.Certificate) *DescribedPair {
	if pair == nil {
		return nil
	}
	d := &DescribedPair{}
	if c != nil {
		d.Secret = c.Owner.text()
	}
	if pair.Leaf != nil {
		d.Names, d.NotAfter = pair.Leaf.DNSNames, pair.Leaf.NotAfter
	}
	return d
}

func (h *Host) describe() DescribedHost {
	v := h.source
	d := DescribedHost{
		Name:             v.Name,
		Owner:            v.Owner.text(),
		Certificate:      describePair(v.Certificate, h.Certificate),
		Passthrough:      v.Passthrough,
		PassthroughProxy: int(v.PassthroughProxy),
		Ciphers:          h.cipherNames(),
		RegexMode:        v.RegexMode,
		IgnoreSlash:      v.IgnoreSlash,
		Filters:          describeFilters(v.Filters),
		Rules:            make([]DescribedRule, len(v.Rules)),
	}
	for i := range v.Rules {
		r := &v.Rules[i]
		d.Rules[i] = DescribedRule{Path: r.Path, Type: r.Type.String(), Owner: r.Owner.text(), State: describeState(h.routes[i]),
			Canaries: describeCanaries(r.Canaries),
			Service:  r.Service, Port: r.Port, Cluster: r.Cluster, Fallback: r.Fallback, Filters: describeFilters(r.Filters)}
	}
	return d
}

func (h *Host) cipherNames() (names []string) {
	if h.Ciphers != nil {
		for _, id := range h.Ciphers.Suites {
			names = append(names, tls.CipherSuiteName(id))
		}
	}
	return names
}

func describeCanaries(list []Canary) (ids []string) {
	for _, c := range list {
		ids = append(ids, c.Cluster)
	}
	return ids
}

func describeState(r *l7.Route) string {
	switch {
	case r == nil:
		return "left out"
	case len(r.Request) > 0 && r.Request[0] == l7.RequestFilter(unavailable):
		return "503"
	}
	return "serves"
}

// describeFilters names behaviours by their types: their values may be secrets.
func describeFilters(configs []filter.Config) []string {
	var names []string
	for _, c := range configs {
		name := fmt.Sprintf("%T", c)
		names = append(names, name[strings.LastIndexByte(name, '.')+1:])
	}
	return names
}

func (c *cluster) describe() DescribedCluster {
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	d := DescribedCluster{ID: c.source.ID, Owner: c.source.Owner.text(), TLS: c.live.settings.TLS != nil, Endpoints: []string{}}
	for _, a := range c.live.endpoints {
		text := AddressText(a)
		if a.Terminating {
			text += " (terminating)"
		}
		d.Endpoints = append(d.Endpoints, text)
	}
	for _, r := range c.live.control.Refusals() {
		d.Refused = append(d.Refused, AddressText(r.Address)+": "+r.Reason)
	}
	return d
}
