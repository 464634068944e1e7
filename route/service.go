package route

import (
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluiceproxy/sluice/upstream"
)

// Service is a port of its own whose connections (TCP) or datagrams (UDP) go to a cluster as they come, without a look at
// what is in them. It is plain, comparable data.
type Service struct {
	Protocol Protocol
	Port     uint16 // on which the proxy listens
	Owner    Object // the ConfigMap; its key is the port

	Cluster   string // cluster ID
	Namespace string // for metrics and logs: the Service and its port, as written
	Service   string
	To        string

	ProxyFrom bool         // every connection begins with a PROXY header of either version
	ProxyTo   ProxyVersion // what is sent to the backend before anything else

	Idle        time.Duration // proxy-stream-timeout: a tunnel or a session without a byte or a datagram ends
	NoRetry     bool          // proxy-stream-next-upstream: false: an endpoint that cannot be connected to ends the connection
	Tries       int           // proxy-stream-next-upstream-tries; 0: as many as there may be
	RetryWithin time.Duration // proxy-stream-next-upstream-timeout; 0: no limit
	Responses   int           // UDP: datagrams that answer one of the client's; a session ends with the last
	SessionsMax int           // UDP: sessions that may be open; beyond it the one that was silent longest goes
	NoLog       bool          // no line in the access log
}

// Protocol is what a Service speaks.
type Protocol uint8

const (
	TCP Protocol = iota
	UDP
)

func (p Protocol) String() string { return [...]string{"TCP", "UDP"}[p] }

// ProxyVersion is a version of the PROXY protocol; 0: none is spoken.
type ProxyVersion uint8

// Name is what metrics, logs and sockets call the port: "tcp-9000".
func (s *Service) Name() string {
	return fmt.Sprintf("%s-%d", strings.ToLower(s.Protocol.String()), s.Port)
}

// ServiceStats count what happened at a Service's port. They outlive snapshots as long as the same Service is named
// there. Counted once a connection; of a UDP service, by its one loop.
type ServiceStats struct {
	Begun    atomic.Uint64 // connections or sessions
	Active   atomic.Int64
	Failed   atomic.Uint64 // connections that found no endpoint; sessions that ended with an error
	Dropped  atomic.Uint64 // UDP: datagrams that went nowhere
	Evicted  atomic.Uint64 // UDP: sessions that made room for others
	Received atomic.Uint64 // bytes of clients; of a tunnel, at its end
	Sent     atomic.Uint64 // bytes to clients
}

// BoundService is a Service of a Snapshot with what it leads to.
type BoundService struct {
	*Service
	Upstream *upstream.Cluster
	Stats    *ServiceStats
}

type serviceKey struct {
	protocol Protocol
	port     uint16
}

// Service answers what a port leads to; nil: nothing. It does not allocate.
func (s *Snapshot) Service(p Protocol, port uint16) *BoundService {
	return s.services[serviceKey{p, port}]
}

// Services are those that serve, in no order.
func (s *Snapshot) Services() iter.Seq[*BoundService] {
	return func(yield func(*BoundService) bool) {
		for _, b := range s.services {
			if !yield(b) {
				return
			}
		}
	}
}

// compileServices leads ports to their clusters.
func (k *compiler) compileServices() {
	k.next.services = make(map[serviceKey]*BoundService, len(k.config.Services))
	for _, s := range k.config.Services {
		key := serviceKey{s.Protocol, s.Port}
		field := fmt.Sprintf("data[%d]", s.Port)
		c := k.next.clusters[s.Cluster]
		switch {
		case k.next.services[key] != nil:
			k.problem(s.Owner, field, "%s port %d is there twice; the first one counts", s.Protocol, s.Port)
		case c == nil:
			k.problem(s.Owner, field, "cluster %s does not exist; the port is not opened", s.Cluster)
		default:
			k.next.services[key] = k.bind(key, s, c.live.upstream)
		}
	}
}

// bind keeps what the Snapshot before had, as far as it is the same.
func (k *compiler) bind(key serviceKey, s *Service, c *upstream.Cluster) *BoundService {
	b := &BoundService{Service: s, Upstream: c, Stats: new(ServiceStats)}
	old := k.previous.services[key]
	switch {
	case old == nil:
	case old.Service == s && old.Upstream == c:
		return old
	case old.Cluster == s.Cluster:
		b.Stats = old.Stats
	}
	return b
}

// DescribedService is one service of a Description.
type DescribedService struct {
	Port      string `json:"port"` // "TCP 9000"
	Owner     string `json:"owner"`
	Cluster   string `json:"cluster"`
	ProxyFrom bool   `json:"proxyProtocolFromClients,omitempty"`
	ProxyTo   int    `json:"proxyProtocolToBackends,omitempty"` // the version
}

// Describe is the service for people.
func (s *Service) Describe() DescribedService {
	return DescribedService{Port: fmt.Sprintf("%s %d", s.Protocol, s.Port), Owner: s.Owner.text(), Cluster: s.Cluster,
		ProxyFrom: s.ProxyFrom, ProxyTo: int(s.ProxyTo)}
}
