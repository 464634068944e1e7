package route

import (
	"crypto/tls"
	"fmt"
	"iter"
	"runtime"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/upstream"
)

// Env is what Compile may not make itself.
type Env struct {
	NewCluster  func(id string, settings upstream.Settings) *upstream.Cluster // without endpoints; Swap brings them
	Loops       int                                                           // event loops of the process: statistics have a share for each
	SelfSigned  *tls.Certificate                                              // the default where the Config has none that is usable
	Buckets     *l7.Buckets                                                   // of the statistics' histograms; nil: the usual ones
	StatsByHost bool                                                          // statistics per host name too (--metrics-per-host)
	Now         func() time.Time                                              // nil: time.Now

	// Share does f(0) … f(n-1), beside each other where it can, and returns when all are done (fastpath.Work); nil: one after
	// the other.
	Share func(n int, f func(i int))

	// Yield is called between pieces of work, some ten microseconds each, on Compile's goroutine; nil: runtime.Gosched.
	Yield func()

	control func(*upstream.Cluster) clusterControl // tests listen to clusters here
}

// Compile makes the Snapshot of a Config. What has not changed against previous (nil: nothing was served yet) is taken from it;
// the state of what has changed is found by identity. A bad object costs only itself, and is among the Problems. Living
// clusters are not touched before Store.Swap. Compile yields now and then; only one may be under way in a succession.
func Compile(c *Config, previous *Snapshot, env Env) (*Snapshot, []Problem) {
	k := newCompiler(c, previous, env)
	k.compileClusters()
	k.readCertificates()
	k.compileDefaults()
	k.compileHosts()
	k.compileServices()
	k.next.identities.stats.sweep(k.next.Generation, k.statsInUse())
	k.next.identities.states.sweep(k.next.Generation, k.ownersInUse())
	k.next.identities.policies.sweep(k.next.Generation, k.policiesInUse())
	k.next.identities.certificates.sweep(k.next.Generation, k.certificatesInUse())
	return k.next, k.next.problems
}

// compiler is one compile under way. Its parts are in compile_*.go.
type compiler struct {
	config   *Config
	env      Env
	previous *Snapshot // never nil
	next     *Snapshot

	clusterAt, hostAt int                   // where in previous the next one is expected
	added             map[string]bool       // cluster IDs that previous does not have
	removed           map[*liveCluster]bool // clusters that only previous has

	work int

	host      hostWork
	locations locations
	tries     trieMaker
}

func newCompiler(c *Config, previous *Snapshot, env Env) *compiler {
	if previous == nil {
		previous = empty()
	}
	if env.control == nil {
		env.control = func(c *upstream.Cluster) clusterControl { return c }
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	if env.Yield == nil {
		env.Yield = runtime.Gosched
	}
	if env.Share == nil {
		env.Share = func(n int, f func(int)) {
			for i := range n {
				f(i)
			}
		}
	}
	next := &Snapshot{
		Generation: previous.Generation + 1,
		CompiledAt: env.Now(),
		settings:   c.Settings,
		identities: previous.identities,
		config:     c,
		sequence:   c.Sequence,
	}
	if next.settings == nil {
		next.settings = l7.DefaultSettings()
	}
	if next.identities == nil {
		next.identities = newIdentities(&env)
	}
	if next.sequence == 0 {
		next.sequence = NextSequence()
	}
	return &compiler{config: c, env: env, previous: previous, next: next}
}

// problem notes one of the Config's; those of a host are kept with it, see hostWork.
func (k *compiler) problem(o Object, field, format string, args ...any) {
	k.next.problems = append(k.next.problems, Problem{Object: o, Field: field, Reason: fmt.Sprintf(format, args...)})
}

// worked counts units of work and lets others have the processor from time to time.
func (k *compiler) worked(units int) {
	if k.work += units; k.work >= yieldEvery {
		k.work = 0
		k.env.Yield()
	}
}

// compileDefaults finds what answers where no host or rule does.
func (k *compiler) compileDefaults() {
	k.next.certificate = k.env.SelfSigned
	if c := k.config.DefaultCertificate; c != nil {
		if parsed := k.certificate(c); parsed.err == nil {
			k.next.certificate, k.next.ownCertificate = parsed.certificate, true
		} else {
			k.next.problems = append(k.next.problems, parsed.problem(c))
		}
	}
	k.next.miss = k.defaultBackend()
}

// defaultBackend is the route of requests that no rule takes; nil: 404.
func (k *compiler) defaultBackend() *l7.Route {
	id := k.config.DefaultBackend
	if id == "" {
		return nil
	}
	c := k.next.clusters[id]
	if c == nil {
		k.problem(Object{Kind: "Flag", Name: "default-backend-service"}, "",
			"cluster %s does not exist; requests without a rule are answered 503", id)
		return k.failing(l7.Identity{})
	}
	policy := k.next.settings.DefaultPolicy
	if old := k.previous.miss; old != nil && old.Cluster == c.live.upstream && old.Policy == policy {
		return old
	}
	identity := l7.Identity{Service: c.source.Owner.Name}
	return &l7.Route{ID: identity, Cluster: c.live.upstream, Policy: policy, Stats: k.stats(identity)}
}

// statsInUse are the statistics' keys of all rules.
func (k *compiler) statsInUse() iter.Seq[l7.Identity] {
	return func(yield func(l7.Identity) bool) {
		if k.next.miss != nil && !yield(k.statsKey(k.next.miss.ID)) {
			return
		}
		for _, h := range k.next.hosts {
			for i := range h.source.Rules {
				if !yield(k.statsKey(identityOf(h.source, &h.source.Rules[i]))) {
					return
				}
			}
		}
	}
}

// ownersInUse are the owners of all filter states.
func (k *compiler) ownersInUse() iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for _, h := range k.next.hosts {
			if !yield(h.source.Owner) {
				return
			}
			for i := range h.source.Rules {
				if !yield(h.source.Rules[i].Owner) {
					return
				}
			}
		}
	}
}

func (k *compiler) statsKey(id l7.Identity) l7.Identity { return id.StatsIdentity(k.env.StatsByHost) }

// stats finds or makes the statistics of an identity.
func (k *compiler) stats(id l7.Identity) *l7.RouteStats {
	key := k.statsKey(id)
	s, ok := k.next.identities.stats.get(key, k.next.Generation, func() *l7.RouteStats {
		s := l7.NewRouteStats(key, k.env.Loops)
		s.SetBuckets(k.env.Buckets)
		return s
	})
	if !ok {
		return k.next.identities.other
	}
	return s
}

// failing is a route that answers 503 whatever comes.
func (k *compiler) failing(id l7.Identity) *l7.Route {
	return &l7.Route{ID: id, Request: []l7.RequestFilter{unavailable}, Stats: k.stats(id)}
}
