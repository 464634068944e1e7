package watcher

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// Cluster tells which objects of a cluster are watched, and what is written back to it.
type Cluster struct {
	Kubeconfig         string // file, or the value of $KUBECONFIG; "": the cluster that this runs in
	Namespace          string // --watch-namespace; "": all
	NamespaceSelector  string // --watch-namespace-selector; "": all
	AnnotationsPrefix  string // --annotations-prefix
	ConfigMap          string // "namespace/name" of what flags name, which is watched wherever it stands; "": none
	DefaultCertificate string
	DefaultBackend     string
	TCPServices        string
	UDPServices        string
	SyncPeriod         time.Duration // --sync-period: how often the present state is applied anew; 0: when something changes
	Status             Status
}

// clusterSource watches the objects of a cluster.
//
//	reflector ──► feed: trimmed, kept ──► noticed ── 5 ms without another, 50 ms at most ──► state ──► apply
//	  one for each kind, and for each object                                                  └── Secrets and ConfigMaps
//	  that a flag names elsewhere                                                                  that have just been named
type clusterSource struct {
	Cluster
	log      *slog.Logger
	clients  *clients
	selector labels.Selector // of namespaces; nil: all

	ingresses  *feed[*networkingv1.Ingress]
	classes    *feed[*networkingv1.IngressClass]
	services   []*feed[*corev1.Service]
	slices     []*feed[*discoveryv1.EndpointSlice]
	secrets    []*namedFeed[*corev1.Secret]
	configMaps []*namedFeed[*corev1.ConfigMap]
	namespaces *feed[*corev1.Namespace] // nil: no selector
	status     *statusWriter            // nil: none is written

	wake   chan struct{}
	rescan chan struct{}
	first  oldest // event that no state holds yet

	settings *corev1.ConfigMap // of --configmap, as its names were learnt last; nil: none
}

// clientLog: client-go has one log for the whole process, which must not change while anybody writes to it.
var clientLog sync.Once

func openCluster(s Spec, log *slog.Logger) (Source, error) {
	clientLog.Do(func() { klog.SetSlogLogger(log.With("from", "client-go")) })
	c := &clusterSource{Cluster: s.Cluster, log: log, wake: make(chan struct{}, 1), rescan: make(chan struct{}, 1)}
	if c.NamespaceSelector != "" {
		selector, err := labels.Parse(c.NamespaceSelector)
		if err != nil {
			return nil, fmt.Errorf("--watch-namespace-selector=%s: %w", c.NamespaceSelector, err)
		}
		c.selector = selector
	}
	var err error
	if c.clients, err = dial(c.Kubeconfig, log); err != nil {
		return nil, err
	}
	c.makeFeeds()
	if c.status, err = newStatusWriter(c); err != nil {
		return nil, err
	}
	return c, nil
}

// makeFeeds makes a feed for every kind, and for every object that a flag names in a namespace that is not watched.
func (c *clusterSource) makeFeeds() {
	n, d, core := c.clients.networking.RESTClient(), c.clients.discovery.RESTClient(), c.clients.core.RESTClient()
	c.ingresses = newFeed("Ingresses", lister(n, "ingresses", c.Namespace, "", ""), &networkingv1.Ingress{}, trimIngress(c.AnnotationsPrefix), c.notice)
	c.classes = newFeed("IngressClasses", lister(n, "ingressclasses", "", "", ""), &networkingv1.IngressClass{}, trimClass, c.notice)
	c.services = append(c.services, newFeed("Services", lister(core, "services", c.Namespace, "", ""), &corev1.Service{}, trimService, c.notice))
	c.slices = append(c.slices, newFeed("EndpointSlices", lister(d, "endpointslices", c.Namespace, "", ""), &discoveryv1.EndpointSlice{}, trimSlice, c.notice))
	c.addSecrets("Secrets", c.Namespace, secretTypes)
	if c.selector != nil {
		c.namespaces = newFeed("Namespaces", lister(core, "namespaces", "", "", ""), &corev1.Namespace{}, trimNamespace, c.notice)
	}
	c.addConfigMaps("ConfigMaps", c.Namespace, "")
	seen := map[string]bool{}
	for _, flag := range []string{c.ConfigMap, c.TCPServices, c.UDPServices} {
		if o, ok := parseName(flag); ok && c.elsewhere(o) && !seen[flag] {
			seen[flag] = true
			c.addConfigMaps("ConfigMap "+flag, o.namespace, byName(o))
		}
	}
	if o, ok := parseName(c.DefaultCertificate); ok && c.elsewhere(o) {
		c.addSecrets("Secret "+c.DefaultCertificate, o.namespace, byName(o))
	}
	if o, ok := parseName(c.DefaultBackend); ok && c.elsewhere(o) {
		c.services = append(c.services, newFeed("Service "+c.DefaultBackend,
			lister(core, "services", o.namespace, byName(o), ""), &corev1.Service{}, trimService, c.notice))
		c.slices = append(c.slices, newFeed("EndpointSlices of "+c.DefaultBackend,
			lister(d, "endpointslices", o.namespace, "", discoveryv1.LabelServiceName+"="+o.name), &discoveryv1.EndpointSlice{}, trimSlice, c.notice))
	}
}

func (c *clusterSource) addSecrets(what, namespace, fieldSelector string) {
	s := newNamedFeed(c, secretData, getSecret(c.clients.core), c.DefaultCertificate)
	s.feed = newFeed(what, lister(c.clients.core.RESTClient(), "secrets", namespace, fieldSelector, ""), &corev1.Secret{}, s.trimmer(trimSecret), c.notice)
	c.secrets = append(c.secrets, s)
}

func (c *clusterSource) addConfigMaps(what, namespace, fieldSelector string) {
	s := newNamedFeed(c, configMapData, getConfigMap(c.clients.core), c.ConfigMap, c.TCPServices, c.UDPServices)
	s.feed = newFeed(what, lister(c.clients.core.RESTClient(), "configmaps", namespace, fieldSelector, ""), &corev1.ConfigMap{}, s.trimmer(trimConfigMap), c.notice)
	c.configMaps = append(c.configMaps, s)
}

// elsewhere tells whether an object stands where the feeds of whole kinds do not look.
func (c *clusterSource) elsewhere(o name) bool {
	return c.Namespace != "" && o.namespace != c.Namespace
}

func lister(c cache.Getter, resource, namespace, fieldSelector, labelSelector string) cache.ListerWatcher {
	return cache.NewFilteredListWatchFromClient(c, resource, namespace, func(o *metav1.ListOptions) {
		o.FieldSelector, o.LabelSelector = fieldSelector, labelSelector
	})
}

func byName(o name) string {
	return fields.OneTermEqualSelector(metav1.ObjectNameField, o.name).String()
}

// parseName reads "namespace/name".
func parseName(s string) (name, bool) {
	namespace, bare, ok := strings.Cut(s, "/")
	return name{namespace, bare}, ok && namespace != "" && bare != ""
}

// Rescan implements Source: the present state is applied again. A watch misses nothing, so nothing is listed again.
func (c *clusterSource) Rescan() { poke(c.rescan) }

// poke makes a channel of one place ready, if it is not.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// oldest is the time of the first event since it was taken last; any goroutine may note one.
type oldest struct{ nanos atomic.Int64 }

func (o *oldest) note(at time.Time) { o.nanos.CompareAndSwap(0, at.UnixNano()) }

// take is that time, or zero if there was no event.
func (o *oldest) take() time.Time {
	if n := o.nanos.Swap(0); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// notice hears of every change from the feeds.
func (c *clusterSource) notice(at time.Time) {
	c.first.note(at)
	poke(c.wake)
}

// Run implements Source. The first state comes when every kind was listed.
func (c *clusterSource) Run(ctx context.Context, apply func(*State)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.log.Info("watching a cluster", "server", c.clients.host)
	began := time.Now()
	if !c.start(ctx) {
		return nil
	}
	c.log.Info("the cluster's objects are here", "took", time.Since(began).Round(time.Millisecond))
	if c.status != nil {
		go c.status.run(ctx)
	}
	select {
	case <-c.wake: // all that has come so far is in the first state
	default:
	}
	retry := time.NewTimer(0) // at once: the first state
	defer retry.Stop()
	var resync <-chan time.Time
	if c.SyncPeriod > 0 {
		tick := time.NewTicker(c.SyncPeriod)
		defer tick.Stop()
		resync = tick.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.rescan:
		case <-resync:
		case <-retry.C:
		case <-c.wake:
			c.gather(ctx)
		}
		if complete := c.tell(ctx, apply); !complete {
			retry.Reset(namedRetry)
		}
	}
}

// start runs all feeds and waits until they have listed. Secrets and ConfigMaps come after Ingresses, so that it is known
// which of them are named. false: ctx has ended.
func (c *clusterSource) start(ctx context.Context) bool {
	var synced []<-chan struct{}
	begin(ctx, c.log, &synced, c.ingresses)
	begin(ctx, c.log, &synced, c.classes)
	begin(ctx, c.log, &synced, c.services...)
	begin(ctx, c.log, &synced, c.slices...)
	if c.namespaces != nil {
		begin(ctx, c.log, &synced, c.namespaces)
	}
	if !await(ctx, c.ingresses.synced) {
		return false
	}
	list, _ := c.ingresses.take()
	c.reference(list)
	begin(ctx, c.log, &synced, feedsOf(c.secrets)...)
	begin(ctx, c.log, &synced, feedsOf(c.configMaps)...)
	for _, one := range synced {
		if !await(ctx, one) {
			return false
		}
	}
	return true
}

func begin[T clusterObject](ctx context.Context, log *slog.Logger, synced *[]<-chan struct{}, feeds ...*feed[T]) {
	for _, f := range feeds {
		*synced = append(*synced, f.synced)
		go f.run(ctx, log)
	}
}

func await(ctx context.Context, ch <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case <-ch:
		return true
	}
}

// gather waits for the end of a burst of events, not for long.
func (c *clusterSource) gather(ctx context.Context) {
	limit := time.NewTimer(gatherMax)
	defer limit.Stop()
	quiet := time.NewTimer(gatherQuiet)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-limit.C:
			return
		case <-quiet.C:
			return
		case <-c.wake:
			quiet.Reset(gatherQuiet)
		}
	}
}

// tell applies the present state. false: Secrets or ConfigMaps that it names are still to be fetched.
func (c *clusterSource) tell(ctx context.Context, apply func(*State)) (complete bool) {
	since := c.first.take() // before the feeds are read: what comes between is in this state and counted again
	s := &State{Since: since}
	o := &s.Objects
	var changed bool
	if o.Ingresses, changed = c.ingresses.take(); changed || c.settingsNow() != c.settings {
		c.reference(o.Ingresses)
	}
	complete = true
	for _, one := range c.secrets {
		complete = one.complete(ctx) && complete
	}
	for _, one := range c.configMaps {
		complete = one.complete(ctx) && complete
	}
	o.IngressClasses, _ = c.classes.take()
	o.Services, o.EndpointSlices = all(c.services), all(c.slices)
	o.Secrets, o.ConfigMaps = all(feedsOf(c.secrets)), all(feedsOf(c.configMaps))
	if c.namespaces != nil {
		c.selectNamespaces(o)
	}
	apply(s)
	return complete
}

// reference tells the feeds which Secrets and ConfigMaps are named.
func (c *clusterSource) reference(list []*networkingv1.Ingress) {
	c.settings = c.settingsNow()
	for _, s := range c.secrets {
		s.reference(secretsOf(list))
	}
	for _, s := range c.configMaps {
		s.reference(configMapsOf(list, c.settings))
	}
}

// settingsNow is the ConfigMap of --configmap; nil: it is not there.
func (c *clusterSource) settingsNow() *corev1.ConfigMap {
	n, _ := parseName(c.ConfigMap)
	for _, f := range c.configMaps {
		if e, ok := f.get(n); ok {
			return e.object
		}
	}
	return nil
}

func feedsOf[T clusterObject](list []*namedFeed[T]) (feeds []*feed[T]) {
	for _, f := range list {
		feeds = append(feeds, f.feed)
	}
	return feeds
}

// all joins the lists of several feeds.
func all[T clusterObject](feeds []*feed[T]) (list []T) {
	for i, f := range feeds {
		one, _ := f.take()
		if i == 0 {
			list = slices.Clip(one)
		} else {
			list = append(list, one...)
		}
	}
	return list
}

// Load implements Source: it waits until everything was listed.
func (c *clusterSource) Load() (*State, error) {
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	if !c.start(ctx) {
		return nil, fmt.Errorf("the cluster at %s has not told all its objects within %v", c.clients.host, loadTimeout)
	}
	var state *State
	c.tell(ctx, func(s *State) { state = s })
	return state, nil
}

// selectNamespaces leaves the objects of namespaces whose labels are selected, and those that flags name. Secrets and
// ConfigMaps may stand elsewhere, too, if they are named: translate knows whether that is allowed.
func (c *clusterSource) selectNamespaces(o *translate.Objects) {
	list, _ := c.namespaces.take()
	selected := make(map[string]bool, len(list))
	for _, n := range list {
		if c.selector.Matches(labels.Set(n.Labels)) {
			selected[n.Name] = true
		}
	}
	backend, _ := parseName(c.DefaultBackend)
	o.Ingresses = keep(o.Ingresses, func(i *networkingv1.Ingress) bool { return selected[i.Namespace] })
	o.Services = keep(o.Services, func(s *corev1.Service) bool { return selected[s.Namespace] || nameOf(s) == backend })
	o.Secrets = keep(o.Secrets, func(s *corev1.Secret) bool { return selected[s.Namespace] || isNamed(c.secrets, nameOf(s)) })
	o.ConfigMaps = keep(o.ConfigMaps, func(m *corev1.ConfigMap) bool { return selected[m.Namespace] || isNamed(c.configMaps, nameOf(m)) })
	o.EndpointSlices = keep(o.EndpointSlices, func(s *discoveryv1.EndpointSlice) bool {
		return selected[s.Namespace] || backend == name{s.Namespace, s.Labels[discoveryv1.LabelServiceName]}
	})
}

func isNamed[T clusterObject](feeds []*namedFeed[T], n name) bool {
	return slices.ContainsFunc(feeds, func(f *namedFeed[T]) bool { return f.isNamed(n) })
}

func keep[T any](list []T, wanted func(T) bool) []T {
	kept := make([]T, 0, len(list))
	for _, o := range list {
		if wanted(o) {
			kept = append(kept, o)
		}
	}
	return kept
}

var _ Reporter = (*clusterSource)(nil)

// Report implements Reporter.
func (c *clusterSource) Report(o Outcome) {
	if c.status != nil {
		c.status.report(o)
	}
}

// Leave implements Reporter.
func (c *clusterSource) Leave(ctx context.Context) {
	if c.status != nil {
		c.status.leave(ctx)
	}
}

// kindsOf is the API version of a Problem's object.
func apiVersionOf(o route.Object) string {
	for _, k := range kinds {
		if k.name == o.Kind {
			return k.version.String()
		}
	}
	return ""
}
