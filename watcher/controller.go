package watcher

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// Controller leads every state that a source tells to the store. At most one is under way and the newest one pending;
// what comes faster is skipped, because a state is always whole.
type Controller struct {
	ControllerConfig
	translator Translator
	pace       pacer

	pending   atomic.Pointer[State]
	wake      chan struct{}
	ready     chan struct{}
	current   *State                  // that was applied last
	state     atomic.Pointer[State]   // the same, for others
	config    *route.Config           // … what it was translated to
	taken     []*networkingv1.Ingress // … and its Ingresses that are ours, for a Reporter
	process   atomic.Pointer[translate.Process]
	own       atomic.Pointer[[]route.Problem] // of the source and of translate, with their places
	announced map[route.Problem]bool          // problems that the log has told
}

// ControllerConfig is what a Controller works with.
type ControllerConfig struct {
	Source     Source
	Translator func(yield func()) Translator // makes one that calls yield now and then; again only after a panic has made the last one useless
	Store      *route.Store
	Env        route.Env // without Yield
	Work       Permits
	Journal    Journal // nil: nobody listens
	Ports      Ports   // nil: no TCP and UDP services
	Log        *slog.Logger
}

// Translator turns objects into a Config; translate.Translator is the one outside tests. It is called by one goroutine.
type Translator interface {
	Translate(*translate.Objects) (*route.Config, []route.Problem)
	Process() *translate.Process    // of the last Translate
	Taken() []*networkingv1.Ingress // … its Ingresses that are ours, in no order
}

// Permits bounds how much is computed beside the traffic; fastpath.Work does.
type Permits interface {
	Do(func())
	Rest(time.Duration) // within Do: waits, and meanwhile the permit is another's
}

// Ports opens and closes the ports of TCP and UDP services as snapshots ask.
type Ports interface {
	Follow(*route.Snapshot)    // once a state is in place; it does not wait for connections that are open
	Problems() []route.Problem // why ports are not open; from any goroutine
}

// Journal hears how applying states goes; admin.Applies does.
type Journal interface {
	Applied(now time.Time, took time.Duration, id uint64)
	// Followed tells how long a change took from its event at the source until it was in place.
	Followed(took time.Duration, endpointsOnly bool)
	Failed()
}

// NewController makes a controller; Run starts it.
func NewController(c ControllerConfig) *Controller {
	k := &Controller{
		ControllerConfig: c,
		wake:             make(chan struct{}, 1),
		ready:            make(chan struct{}),
		announced:        map[route.Problem]bool{},
	}
	k.pace = pacer{rest: func(d time.Duration) { k.Work.Rest(d) }, now: time.Now}
	k.Env.Yield = k.pace.yield
	k.translator = c.Translator(k.pace.yield)
	k.process.Store(translate.DefaultProcess())
	k.own.Store(&[]route.Problem{})
	return k
}

// Ready is closed once the store serves a state.
func (k *Controller) Ready() <-chan struct{} { return k.ready }

// State is what was applied last; nil before. It is not written to. From any goroutine.
func (k *Controller) State() *State { return k.state.Load() }

// Process is what the present state says about the process; the defaults before the first. From any goroutine.
func (k *Controller) Process() *translate.Process { return k.process.Load() }

// Problems are all that are known now. From any goroutine.
func (k *Controller) Problems() []route.Problem {
	all := append(slices.Clone(*k.own.Load()), k.Store.Problems()...)
	if state := k.state.Load(); k.Ports != nil && state != nil {
		all = append(all, located(k.Ports.Problems(), state)...)
	}
	return all
}

// Run leads states to the store until ctx ends or the source gives up.
func (k *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- k.Source.Run(ctx, k.take) }()

	tick := time.NewTicker(problemsTick)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-k.wake:
			k.apply(k.pending.Swap(nil))
		case <-tick.C:
			k.announce()
		}
	}
}

// Leave tells a source that shows in its objects who serves them that this process is about to stop.
func (k *Controller) Leave(ctx context.Context) {
	if r, ok := k.Source.(Reporter); ok {
		r.Leave(ctx)
	}
}

// take receives a state from the source. One that is skipped for it leaves its events to it.
func (k *Controller) take(s *State) {
	if skipped := k.pending.Swap(nil); skipped != nil && !skipped.Since.IsZero() {
		s.Since = skipped.Since
	}
	k.pending.Store(s)
	select {
	case k.wake <- struct{}{}:
	default: // apply has yet to fetch the one before, and will find this one
	}
}

// apply puts a state in place, under a permit. If that panics, what is served stays.
func (k *Controller) apply(s *State) {
	if s == nil {
		return
	}
	applied := false
	began := time.Now()
	k.Work.Do(func() { applied = k.guarded(s, began) })
	if !applied {
		if k.Journal != nil {
			k.Journal.Failed()
		}
		return
	}
	if k.Ports != nil {
		k.Ports.Follow(k.Store.Load())
	}
	k.announce()
	if k.isReady() {
		return
	}
	close(k.ready)
}

func (k *Controller) isReady() bool {
	select {
	case <-k.ready:
		return true
	default:
		return false
	}
}

func (k *Controller) guarded(s *State, began time.Time) (applied bool) {
	defer func() {
		if p := recover(); p != nil {
			k.Log.Error("applying the configuration panicked: what was served before is served on; please report this",
				"panic", p, "stack", string(debug.Stack()))
			k.translator, k.config = k.Translator(k.pace.yield), nil // what they remember may be half of something
		}
	}()
	k.put(s, began)
	return true
}

// put translates a state and brings the store up to it: by its endpoints alone if nothing else is new.
func (k *Controller) put(s *State, began time.Time) {
	k.pace.begin(!k.isReady())
	sequence := route.NextSequence() // what ApplyEndpoints was told before belongs to older states
	translated, problems := k.translator.Translate(&s.Objects)
	config := *translated
	config.Sequence = sequence

	changes, only := endpointChanges(k.config, &config)
	if only {
		for _, c := range changes {
			k.Store.ApplyEndpoints(c.ID, c.Endpoints)
		}
	} else {
		next, _ := route.Compile(&config, k.Store.Load(), k.Env) // its problems are in Store.Problems
		k.Store.Swap(next)
	}
	k.current, k.config = s, &config
	if _, told := k.Source.(Reporter); told {
		k.taken = k.translator.Taken()
	}
	k.state.Store(s)
	k.process.Store(k.translator.Process())
	own := append(slices.Clone(s.Problems), located(problems, s)...)
	k.own.Store(&own)
	k.report(sequence, time.Since(began), len(changes), only)
}

// report tells journal and log that a state is in place.
func (k *Controller) report(id uint64, took time.Duration, endpointsOf int, only bool) {
	if k.Journal != nil {
		now := time.Now()
		k.Journal.Applied(now, took, id)
		if since := k.current.Since; !since.IsZero() {
			k.Journal.Followed(now.Sub(since), only)
		}
	}
	if only {
		if endpointsOf > 0 { // most of what changes in a large cluster is nobody's backend
			k.Log.Debug("endpoints applied", "clusters", endpointsOf, "took", took)
		}
		return
	}
	k.Log.Info("configuration applied", "generation", k.Store.Load().Generation, "hosts", len(k.config.Hosts),
		"ingresses", len(k.current.Objects.Ingresses), "clusters", len(k.config.Clusters),
		"problems", len(k.Problems()), "took", took.Round(10*time.Microsecond))
}

// endpointChanges finds the clusters whose endpoints are others than before; only tells that nothing else changed.
func endpointChanges(old, next *route.Config) (changes []*route.Cluster, only bool) {
	if old == nil || old.DefaultCertificate != next.DefaultCertificate || old.DefaultBackend != next.DefaultBackend ||
		old.Settings != next.Settings || !slices.Equal(old.Hosts, next.Hosts) || len(old.Clusters) != len(next.Clusters) ||
		!slices.Equal(old.Services, next.Services) {
		return nil, false
	}
	for i, c := range next.Clusters {
		was := old.Clusters[i]
		if was == c {
			continue
		}
		if was.ID != c.ID || was.Owner != c.Owner || !route.SameSettings(was.Settings, c.Settings) {
			return nil, false
		}
		if !slices.Equal(was.Endpoints, c.Endpoints) {
			changes = append(changes, c)
		}
	}
	return changes, true
}
