package watcher

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Status tells what is written to the status of Ingresses, and who writes it.
type Status struct {
	Off              bool          // --update-status=false: no status, no Events, no Lease
	PublishService   string        // --publish-service, "namespace/name": its addresses
	PublishAddresses []string      // --publish-status-address: these; else those of the nodes whose proxies are ready
	InternalIP       bool          // --report-node-internal-ip-address
	KeepOnShutdown   bool          // --update-status-on-shutdown=false
	ElectionID       string        // name of the Lease
	ElectionTTL      time.Duration // of the Lease
	NoElection       bool          // --disable-leader-election
	Interval         time.Duration // --status-update-interval: how often it is looked anew whether there is anything to write; 0: a minute
	Pod              string        // $POD_NAME; "": not in a pod
	PodNamespace     string        // $POD_NAMESPACE
}

// statusWriter writes the proxies' addresses to the Ingresses that they serve, and Events for Problems. Of several
// replicas the leader does. Serving never waits for it.
//
//	Report ── what serves ──────────┐
//	Ingress feed ── what is written ─┼──► kick ──► write: the difference, patched
//	addressBook ── what should be ───┤
//	leader ── whether we write ──────┘
type statusWriter struct {
	Status
	log       *slog.Logger
	clients   *clients
	addresses *addressBook
	events    *eventWriter
	lease     name

	leading atomic.Bool
	resign  chan struct{} // closed by leave
	resignO sync.Once
	led     chan struct{} // closed when the Lease is given back
	kick    chan struct{}
	writing sync.Mutex // one round of writing at a time

	mu       sync.Mutex
	cancel   context.CancelFunc // of the round under way; nil: none yet
	taken    []*networkingv1.Ingress
	observed map[name]observed
	denied   bool // the log has told that statuses may not be written
}

// observed is what the API server says of an Ingress's status.
type observed struct {
	uid       types.UID
	addresses []networkingv1.IngressLoadBalancerIngress
	unsure    bool // a patch was given up that it may have taken
}

// newStatusWriter makes the writer of a source; nil: nothing is to be written.
func newStatusWriter(c *clusterSource) (*statusWriter, error) {
	if c.Status.Off {
		return nil, nil
	}
	s := &statusWriter{Status: c.Status, log: c.log, clients: c.clients, kick: make(chan struct{}, 1), resign: make(chan struct{}),
		led: make(chan struct{}), observed: map[name]observed{}}
	s.lease = name{leaseNamespace(c), s.ElectionID}
	s.events = newEventWriter(c)
	var err error
	if s.addresses, err = newAddressBook(c, func() { poke(s.kick) }); err != nil {
		return nil, err
	}
	c.ingresses.passed = s.observe
	return s, nil
}

// observe sees every Ingress as it comes, before its status is trimmed.
func (s *statusWriter) observe(n name, ing *networkingv1.Ingress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ing == nil {
		delete(s.observed, n)
		return
	}
	s.observed[n] = observed{uid: ing.UID, addresses: ing.Status.LoadBalancer.Ingress}
	poke(s.kick)
}

// report learns what serves.
func (s *statusWriter) report(o Outcome) {
	s.mu.Lock()
	s.taken = o.Taken
	s.mu.Unlock()
	poke(s.kick)
	if s.leading.Load() {
		s.events.tell(o.Problems)
	}
}

// run works until ctx ends.
func (s *statusWriter) run(ctx context.Context) {
	go s.addresses.run(ctx)
	go s.events.run(ctx)
	go s.lead(ctx)
	tick := time.NewTicker(cmp.Or(s.Interval, statusTick))
	defer tick.Stop()
	retry := time.NewTimer(0) // one for all rounds, so that those that fail do not become more and more
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
			sleepContext(ctx, statusQuiet)
		case <-tick.C:
		case <-retry.C:
		}
		if !s.round(ctx) {
			retry.Reset(statusRetry)
		}
	}
}

// round writes what should be where it is not, as long as this replica leads. No address at all is not written: between the end
// of one proxy and the start of the next the old address is the better one. false: something could not be written.
func (s *statusWriter) round(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.cancel = cancel
	s.mu.Unlock()
	if !s.leading.Load() { // asked after cancel is set: whoever ends leading sees it
		return true
	}
	want, known := s.addresses.current("")
	return !known || len(want) == 0 || s.write(ctx, want)
}

// leave takes this proxy's address out of the statuses, if nobody else is there to do it, and lets another one lead.
func (s *statusWriter) leave(ctx context.Context) {
	resign := func() { s.resignO.Do(func() { close(s.resign) }) }
	if !s.leading.Load() {
		resign() // the leader sees that this pod ends
		return
	}
	s.setLeading(false) // no round puts back what is written here
	if want, known := s.addresses.current(s.Pod); known && (len(want) > 0 || !s.KeepOnShutdown) {
		s.write(ctx, want)
	}
	resign()
	await(ctx, s.led)
}

// write patches all statuses that are others than want, several at once. false: some could not be written.
func (s *statusWriter) write(ctx context.Context, want []networkingv1.IngressLoadBalancerIngress) bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	var due []*networkingv1.Ingress
	s.mu.Lock()
	for _, ing := range s.taken {
		if is, ok := s.observed[nameOf(ing)]; ok && is.uid == ing.UID && (is.unsure || !sameAddresses(is.addresses, want)) {
			due = append(due, ing)
		}
	}
	s.mu.Unlock()
	if len(due) == 0 {
		return true
	}
	var all sync.WaitGroup
	var failed atomic.Int64
	jobs := make(chan *networkingv1.Ingress)
	for range min(statusWriters, len(due)) {
		all.Go(func() {
			for ing := range jobs {
				if !s.patch(ctx, ing, want) {
					failed.Add(1)
				}
			}
		})
	}
	for _, ing := range due {
		jobs <- ing
	}
	close(jobs)
	all.Wait()
	s.log.Info("statuses written", "ingresses", len(due)-int(failed.Load()), "failed", failed.Load(), "addresses", addressText(want))
	return failed.Load() == 0
}

// patch writes one status. The uid in it makes sure that it is still the same Ingress.
func (s *statusWriter) patch(ctx context.Context, ing *networkingv1.Ingress, want []networkingv1.IngressLoadBalancerIngress) bool {
	if ctx.Err() != nil {
		return false // nothing is sent, so that what is known stays so
	}
	if want == nil {
		want = []networkingv1.IngressLoadBalancerIngress{} // an empty list, which a patch can tell from nothing said
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": ing.UID},
		"status":   map[string]any{"loadBalancer": map[string]any{"ingress": want}},
	})
	if err != nil {
		return false
	}
	_, err = s.clients.networking.Ingresses(ing.Namespace).Patch(ctx, ing.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	s.mu.Lock()
	defer s.mu.Unlock()
	is, known := s.observed[nameOf(ing)]
	known = known && is.uid == ing.UID
	switch {
	case err == nil:
		// The watch will say so; until then nobody has to write it again.
		if known {
			s.observed[nameOf(ing)] = observed{uid: ing.UID, addresses: want}
		}
		return true
	case ctx.Err() != nil:
		if known {
			is.unsure = true
			s.observed[nameOf(ing)] = is
		}
	case apierrors.IsNotFound(err), apierrors.IsConflict(err), apierrors.IsInvalid(err):
		return true // another Ingress, or none: the watch tells
	case apierrors.IsForbidden(err):
		if !s.denied {
			s.denied = true
			s.log.Warn("statuses may not be written: grant patch on ingresses/status", "error", err)
		}
	default:
		s.log.Debug("a status could not be written", "ingress", ing.Namespace+"/"+ing.Name, "error", err)
	}
	return false
}

func sameAddresses(a, b []networkingv1.IngressLoadBalancerIngress) bool {
	return slices.EqualFunc(a, b, func(a, b networkingv1.IngressLoadBalancerIngress) bool {
		return a.IP == b.IP && a.Hostname == b.Hostname
	})
}
