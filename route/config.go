package route

import (
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/upstream"
)

// Config is the whole desired state as plain data. It is made by watcher/translate and read by Compile. Values are
// immutable once handed over: an unchanged part is the same pointer as in the Config before, and Compile compares
// pointers, not depths.
type Config struct {
	Hosts              []*VirtualHost // one per name; order does not matter
	Clusters           []*Cluster     // one per ID
	Services           []*Service     // ports that are not HTTP's; one per protocol and port
	DefaultCertificate *Certificate   // shown for names without one; nil: the self-signed one made at start
	DefaultBackend     string         // cluster ID of --default-backend-service; "": 404
	Settings           *l7.Settings   // nil: the defaults

	// Sequence is NextSequence, taken before the endpoint lists were read: ApplyEndpoints calls made since are newer, and
	// Swap keeps what they said. 0: Compile takes it when it starts.
	Sequence uint64
}

// Object names an object of the source: the owner of a rule, a cluster, a problem.
type Object struct {
	Kind, Namespace, Name string
}

// text reads `Ingress shop/web`.
func (o Object) text() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// VirtualHost is everything that one host name leads to.
type VirtualHost struct {
	Name             string          // lower case "shop.example", "*.shop.example" (one label), or "" for the catch-all
	Certificate      *Certificate    // nil: the default certificate
	Passthrough      string          // cluster ID for TLS pass-through by SNI; "": terminate
	PassthroughProxy ProxyVersion    // that its backends are sent first
	Owner            Object          // the Ingress that owns the host-scoped settings (the oldest)
	ClientAuth       *ClientAuth     // what is asked of clients' certificates; nil: nothing
	Ciphers          string          // TLS 1.2's suites, for fastpath.CipherSuites; "": those of all hosts
	RegexMode        bool            // every path is a case-insensitive regex anchored at its start (use-regex, rewrite-target)
	IgnoreSlash      bool            // a Prefix takes the path without its slash too, and nothing answers 301 (sluice-trailing-slash)
	Filters          []filter.Config // host-scoped, before a rule's own (app-root)
	Rules            []Rule          // any order; equal (Path, Type): the first one wins, translate has ordered them oldest first
}

// PathType is how a rule's path matches. The order of tries is the room's (docs: package comment, FEATURES of Ingress v1).
type PathType uint8

const (
	Exact          PathType = iota
	Prefix                  // by path element
	Implementation          // string prefix, as nginx's location without modifier
)

func (t PathType) String() string {
	names := [...]string{"Exact", "Prefix", "ImplementationSpecific"}
	if int(t) >= len(names) {
		return "unknown"
	}
	return names[t]
}

// Rule leads a path of a host to a cluster, through filters.
type Rule struct {
	Owner    Object // the Ingress
	Path     string // as written; starts with "/"
	Type     PathType
	Cluster  string // cluster ID; "": the filters answer, or 503
	Service  string // for metrics and logs: the Service's name and port as written
	Port     string
	Canaries []Canary
	Mirror   *Mirror // nil: none
	Fallback string  // cluster ID asked when Cluster has no endpoint; "": the default backend is not asked, 503
	Filters  []filter.Config
	Policy   l7.Policy
	Slash    SlashRedirect
	Deny     string // not empty: "location denied", every request answers 503; the text is the reason (also a Problem)
}

// SlashRedirect is the form of the 301 that a rule whose path ends with a slash answers to requests without it. The zero value
// is nginx's with port_in_redirect off: scheme and host, and no port.
type SlashRedirect struct {
	Relative bool // relative-redirects: path and query only
	Port     bool // use-port-in-redirects: the port that the client connected to, unless it is the scheme's own
}

// Canary takes a part of a rule's requests to another cluster.
type Canary struct {
	Owner         Object // its Ingress
	Cluster       string // cluster ID
	Service, Port string // as written
	Sticky        bool   // it shares the affinity of the rule's own cluster
	When          l7.CanaryRule
}

// Mirror sends copies of a rule's requests to another cluster.
type Mirror struct {
	Cluster string // cluster ID
	Host    string // the copies' Host
	Target  string // their path and query, for upstream.ParseKey
	Body    bool
}

// Cluster is a set of equal backends. Its Endpoints are the state at this Config; later changes come by
// Store.ApplyEndpoints, without a compile.
type Cluster struct {
	ID        string // namespace/service:port[#variant]; identity of pools, health and metrics
	Owner     Object // the Service
	Settings  upstream.Settings
	Endpoints []upstream.Address
}

// Certificate is a key pair by its Secret.
type Certificate struct {
	Owner   Object
	CertPEM []byte
	KeyPEM  []byte
}

// ClientAuth is what a host asks of clients' certificates, by the Secret of its authorities.
type ClientAuth struct {
	Owner Object
	Terms l7.ClientTerms
}

// Problem is why one object of the Config was not taken, or not wholly.
type Problem struct {
	Object Object
	Field  string // path of the field, or the annotation's or ConfigMap's key
	Reason string // what is wrong, and the remedy; a sentence without a final stop
	File   string // file source: name and document, else ""
}

// String reads from outside to inside: `Ingress shop/web: spec.tls[0].secretName: …`.
func (p Problem) String() string {
	s := p.Object.text()
	if p.Field != "" {
		s += ": " + p.Field
	}
	s += ": " + p.Reason
	if p.File != "" {
		s += " (" + p.File + ")"
	}
	return s
}
