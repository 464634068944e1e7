package route

import (
	"crypto/tls"
	"sync/atomic"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/upstream"
)

// Host is what a server name leads to. It is immutable, and goes from Snapshot to Snapshot while nothing in it changes.
type Host struct {
	// What a look-up touches comes first, and in one piece unless it is large (docs/decisions/0104-a-host-in-one-piece.md).
	patterns   *patterns   // regex mode: instead of the trie
	routes     []*l7.Route // by rule, then the redirects; in nearRoutes if they fit, so whoever copies a Host points them there
	trie       trie
	nearRoutes [routesNear]*l7.Route
	miss       *l7.Route // no rule takes the path; nil: 404

	Certificate *tls.Certificate  // nil: ask Snapshot.Certificate
	Passthrough *upstream.Cluster // nil: terminate

	ClientAuth *l7.ClientAuth // nil: clients are not asked for certificates
	Ciphers    *Ciphers       // nil: those of all hosts

	source   *VirtualHost
	hash     uint64         // of its key in the Snapshot's table
	clusters []*liveCluster // that it names; some more than once
	missing  []string       // IDs of those that do not exist
	problems []Problem
	refused  bool // its own certificate is unusable: the default one is shown, also where a wildcard has one
	ownMiss  bool // miss has the host's filters before it
}

// routesNear and nearMax hold what a usual host has, and make Host eight cache lines.
const (
	routesNear = 16
	nearMax    = 189
)

// Ciphers are a host's own cipher suites of TLS 1.2.
type Ciphers struct {
	Suites []uint16
	TLS    atomic.Pointer[l7.Handshakes] // the door's
}

// Name is the host's name as configured: lower case, "*.shop.example", or "" for the catch-all.
func (h *Host) Name() string { return h.source.Name }

// PassthroughProxy is the version of the PROXY header that backends of a pass-through host get; 0: none.
func (h *Host) PassthroughProxy() ProxyVersion { return h.source.PassthroughProxy }

// CertificateOwner is the Secret of the host's own certificate.
func (h *Host) CertificateOwner() Object {
	if h.Certificate == nil {
		return Object{}
	}
	return h.source.Certificate.Owner
}

// Match answers the route of a path, which is decoded and normalised; nil: no route, 404. It does not allocate.
func (h *Host) Match(path []byte) *l7.Route {
	var rule int
	if h.patterns == nil {
		rule = h.trie.match(path)
	} else {
		rule = h.patterns.match(path)
	}
	if rule == none {
		return h.miss
	}
	return h.routes[rule]
}
