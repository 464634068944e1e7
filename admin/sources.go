package admin

import (
	"iter"
	"sync"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// Sources are what the admin room may look at. Functions are called from the server's goroutines, several at a time.
// Nil members are left out of the pages, but for Alive and Ready: who cannot say that it is, is not.
type Sources struct {
	Alive func() (bool, string) // false in the grace period before the process ends; the text says what is going on
	Ready func() (bool, string) // false before the first snapshot and while draining

	PortAlive, PortReady func() (bool, string) // the same, as the metrics' address tells it: of the port, which processes may share

	Loops   []*fastpath.Loop
	Work    *fastpath.Work
	HTTP    *l7.Stats
	Log     *l7.AccessLog
	Applies *Applies

	Routes       func() []*l7.RouteStats // by identity, without HTTP.NoRoute
	Problems     func() []route.Problem
	Snapshot     func() any // the compiled routes for people; encoded as JSON, so nothing secret may be in it
	Doors        func() []Door
	Services     func() iter.Seq[*route.BoundService] // TCP and UDP services
	Clusters     func() []Cluster
	Certificates func() []Certificate

	Sockmap func() Sockmap

	// Explain tells what becomes of a request, ready for encoding/json. It may take long, and is called by one at a time.
	Explain func(method, url string, fields []string) (any, error)
}

// Door is what happened at one listening port before HTTP or a tunnel.
type Door struct {
	Name                        string // "http", "https"; "": all that are closed already, which have no figures of their own
	Accepted, Refused           uint64
	NoDescriptor                uint64 // accepting failed for want of descriptors
	SourceFull                  uint64 // closed at once because their source has too many
	Full                        uint64 // times that accepting paused at the limit of connections
	Handshakes, HandshakeErrors uint64 // begun; of these, failed
	Overload                    uint64 // handshakes that were not begun because too many are under way
	Passed, PassErrors          uint64 // passed through; not, for want of an endpoint
	Tunnels                     int64  // pass-through tunnels that are open
}

// Sockmap is whether tunnels can be joined in the kernel.
type Sockmap struct {
	Wanted    bool
	Available bool
	Reason    string // why it is wanted and not available
	Repeated  uint64 // bytes that came again and were taken off
}

// Cluster is one cluster's health and its counters.
type Cluster struct {
	ID                          string
	Ready, Ejected, Terminating int // endpoints; the ejected ones are not among the ready
	Unhealthy                   int // endpoints whose checks fail, of those that are not ejected
	Refused                     int // endpoints that may not be dialled
	Overflows                   []Overflow
	upstream.Stats
}

// Overflow is how often a bound of a cluster's circuit breaker refused something.
type Overflow struct {
	Limit string
	Count uint64
}

// Certificate is what is shown of a certificate that is served.
type Certificate struct {
	Host              string // "" is the default certificate's
	Namespace, Secret string // that it comes from; "" for the self-signed one
	NotAfter          time.Time
}

// Applies remembers how applying configurations went. The zero value is ready; any goroutine may call it.
type Applies struct {
	mu  sync.Mutex
	sum applySums
}

// applySums are Applies at one moment.
type applySums struct {
	applied, failed uint64
	hash            uint64
	last            time.Time // of the last one that succeeded
	lastFailed      bool
	took            latencies
	routes          latencies // from a change's event at the source until it served
	endpoints       latencies // … for changes of endpoints alone
}

// latencies are the sums of a histogram.
type latencies struct {
	counts [len(applyBuckets)]uint64 // not cumulative; what is above all bounds is in none
	number uint64
	total  time.Duration
}

func (l *latencies) add(took time.Duration) {
	l.number++
	l.total += took
	for i, bound := range applyBuckets {
		if took <= bound {
			l.counts[i]++
			return
		}
	}
}

// applyBuckets are the upper bounds of the apply latency's histogram.
var applyBuckets = [...]time.Duration{time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second,
	2500 * time.Millisecond, 5 * time.Second, 10 * time.Second}

// Applied notes that a configuration was put in place at the time now, took after its source had delivered it. hash
// names its content, or at least tells it from the one before.
func (a *Applies) Applied(now time.Time, took time.Duration, hash uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.sum
	s.applied++
	s.hash, s.last, s.lastFailed = hash, now, false
	s.took.add(took)
}

// Followed notes how long a change took from its event at the source until it was in place; endpointsOnly: it needed no
// compile.
func (a *Applies) Followed(took time.Duration, endpointsOnly bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if endpointsOnly {
		a.sum.endpoints.add(took)
		return
	}
	a.sum.routes.add(took)
}

// Failed notes that a configuration was not put in place at all.
func (a *Applies) Failed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sum.failed++
	a.sum.lastFailed = true
}

func (a *Applies) sums() applySums {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sum
}
