package route

import (
	"bytes"
	"crypto/tls"
	"iter"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/upstream"
)

// Snapshot is a Config compiled for look-up. It is immutable, and made by Compile only.
type Snapshot struct {
	Generation uint64 // 0: nothing was compiled yet
	CompiledAt time.Time

	exact    table   // the Config's catch-all is there too, by ""
	wildcard table   // by the parent domain
	catchAll *Host   // never nil
	hosts    []*Host // those of the Config that serve, in its order

	clusters        map[string]*cluster
	clusterList     []*cluster     // in the Config's order
	clusterChanges  []*cluster     // new or changed against the Snapshot before: for Swap
	clustersRemoved []*liveCluster // likewise

	services map[serviceKey]*BoundService // ports that are not HTTP's

	certificate    *tls.Certificate // the default
	ownCertificate bool             // … is the Config's
	settings       *l7.Settings
	miss           *l7.Route // the default backend; nil: 404
	problems       []Problem
	identities     *identities
	config         *Config
	sequence       uint64 // ApplyEndpoints calls after this are newer than the Config
}

// empty is what a Store serves before its first Swap: 404 for everything.
func empty() *Snapshot {
	return &Snapshot{
		catchAll: &Host{source: &VirtualHost{}},
		settings: l7.DefaultSettings(),
		config:   &Config{},
	}
}

// Host answers what a server name leads to; never nil, because unknown names have the catch-all. The name is lower case,
// without port and trailing dot; nil and "" are unknown names. It does not allocate.
func (s *Snapshot) Host(name []byte) *Host {
	if h := s.exact.find(name, s.hosts); h != nil {
		return h
	}
	if h := s.wildcardOf(name); h != nil {
		return h
	}
	return s.catchAll
}

// Knows tells whether a host has the name, or covers it.
func (s *Snapshot) Knows(name []byte) bool { return len(name) > 0 && s.Host(name) != s.catchAll }

// wildcardOf answers the wildcard host that covers a name by one label, or nil.
func (s *Snapshot) wildcardOf(name []byte) *Host {
	if len(s.wildcard.slots) == 0 {
		return nil
	}
	dot := bytes.IndexByte(name, '.')
	if dot <= 0 {
		return nil
	}
	return s.wildcard.find(name[dot+1:], s.hosts)
}

// Certificate picks the certificate for a server name as ingress-nginx does: of the host of that name, else of the wildcard
// host, else the default. A host whose own certificate is unusable shows the default. Unknown names and clients
// without SNI get the catch-all host's. nil only before the first compile.
func (s *Snapshot) Certificate(name []byte) *tls.Certificate {
	exact, wildcard := s.exact.find(name, s.hosts), s.wildcardOf(name)
	if exact == nil && wildcard == nil {
		exact = s.catchAll
	}
	for _, h := range [...]*Host{exact, wildcard} {
		if h == nil {
			continue
		}
		if h.Certificate != nil {
			return h.Certificate
		}
		if h.refused {
			break
		}
	}
	return s.certificate
}

// DefaultCertificate is what names without a certificate are shown, and its Secret, which is nobody's for the self-signed one.
func (s *Snapshot) DefaultCertificate() (*tls.Certificate, Object) {
	if s.ownCertificate {
		return s.certificate, s.config.DefaultCertificate.Owner
	}
	return s.certificate, Object{}
}

// Settings are the process-wide settings of this state; never nil.
func (s *Snapshot) Settings() *l7.Settings { return s.settings }

// Problems are those that Compile found. Store.Problems adds what became known since.
func (s *Snapshot) Problems() []Problem { return s.problems }

// Hosts are the hosts that serve, in the Config's order.
func (s *Snapshot) Hosts() iter.Seq[*Host] {
	return func(yield func(*Host) bool) {
		for _, h := range s.hosts {
			if !yield(h) {
				return
			}
		}
	}
}

// Clusters are those that the Config names, in its order.
func (s *Snapshot) Clusters() iter.Seq[*upstream.Cluster] {
	return func(yield func(*upstream.Cluster) bool) {
		for _, c := range s.clusterList {
			if !yield(c.live.upstream) {
				return
			}
		}
	}
}

// Stats are the statistics of all identities that are kept, in no order, with the one that stands for all beyond the
// maximum last.
func (s *Snapshot) Stats() []*l7.RouteStats {
	if s.identities == nil {
		return nil
	}
	return append(s.identities.stats.all(), s.identities.other)
}
