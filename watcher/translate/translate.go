package translate

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/route"
)

// A Translator turns objects into a Config, again and again, and does only the work that changed objects make. It is for
// one goroutine at a time. Its results are immutable and independent of it: they equal those of a new Translator.
type Translator struct {
	options Options

	classes   index[*networkingv1.IngressClass]
	ingresses index[*networkingv1.Ingress]
	services  index[*corev1.Service]
	secrets   index[*corev1.Secret]
	slices    sliceIndex

	configMaps index[*corev1.ConfigMap]
	configMap  *corev1.ConfigMap
	config     *configuration

	fragments      map[key]*fragment   // what each Ingress of ours says
	hosts          map[string]*host    // … merged by host
	clusters       map[string]*cluster // … and by backend
	derived        derivedHosts
	secretUsers    map[key]map[*fragment]bool    // whose hosts a Secret touches
	configMapUsers map[key]map[*fragment]bool    // … a ConfigMap
	backends       map[key]map[*cluster]struct{} // the clusters of a Service
	certs          map[key]*certificate          // of Secrets that are used
	fallback       *use                          // --default-backend-service
	globalAuth     *use                          // global-auth-url

	serviceMaps [2]*serviceMap
	streams     *streams // that they were read with
	serviceList []*route.Service

	dirtyHosts    map[string]bool
	dirtyClusters map[string]bool

	hostList    roster[route.VirtualHost]
	clusterList roster[route.Cluster]
	ledger      ledger
	last        *route.Config
}

// New makes a Translator.
func New(o Options) *Translator {
	t := &Translator{
		options:        o.withDefaults(),
		fragments:      make(map[key]*fragment),
		hosts:          make(map[string]*host),
		clusters:       make(map[string]*cluster),
		secretUsers:    make(map[key]map[*fragment]bool),
		configMapUsers: make(map[key]map[*fragment]bool),
		backends:       make(map[key]map[*cluster]struct{}),
		certs:          make(map[key]*certificate),
		dirtyHosts:     make(map[string]bool),
		dirtyClusters:  make(map[string]bool),
	}
	t.serviceMaps = newServiceMaps(&t.options)
	t.useDefaultBackend()
	return t
}

// Translate gives the Config that o asks for, and why what was not taken was not. The Config is the same pointer as the
// last one if nothing changed in it. Neither result is written to again.
func (t *Translator) Translate(o *Objects) (*route.Config, []route.Problem) {
	renewed := t.readConfigMap(o.ConfigMaps)
	renewed = t.readClasses(o.IngressClasses) || renewed
	t.readIngresses(o.Ingresses, renewed)
	t.readServices(o)
	t.readServiceMaps(o.ConfigMaps)
	t.readSecrets(o.Secrets)
	t.readConfigMaps(o.ConfigMaps)
	t.rebuildHosts()
	t.rebuildClusters()
	return t.assemble(), t.ledger.all()
}

// Process is what the last Translate's ConfigMap says about listeners and the process: the same pointer while it says the
// same, never nil.
func (t *Translator) Process() *Process {
	if t.config == nil {
		return DefaultProcess()
	}
	return t.config.process
}

// Taken are the Ingresses of the last Translate that are ours to serve, in no order. Those that an annotation forbids to
// serve are not among them.
func (t *Translator) Taken() []*networkingv1.Ingress {
	list := make([]*networkingv1.Ingress, 0, len(t.fragments))
	for _, f := range t.fragments {
		if f.mine && !f.dropped {
			list = append(list, f.ing)
		}
	}
	return list
}

// readIngresses parses the Ingresses that are new or changed, and marks the hosts and clusters that they touch or touched.
// renewed: what they are parsed with changed, so all are parsed.
func (t *Translator) readIngresses(list []*networkingv1.Ingress, renewed bool) {
	changed := t.ingresses.update(list)
	if renewed {
		t.useGlobalAuth()
		t.forgetFragments()
		changed = slices.Collect(maps.Keys(t.ingresses.by))
	}
	for _, k := range changed {
		t.options.Yield()
		if f := t.fragments[k]; f != nil {
			t.detach(f)
		}
		ing, ok := t.ingresses.by[k]
		if !ok {
			continue
		}
		mine, problems := t.accepts(ing)
		f := &fragment{ing: ing, mine: mine, owner: route.Object{Kind: "Ingress", Namespace: ing.Namespace, Name: ing.Name}, problems: problems}
		if mine {
			t.parse(f)
		}
		t.attach(f)
	}
	if renewed {
		maps.DeleteFunc(t.certs, func(k key, _ *certificate) bool {
			return t.secretUsers[k] == nil && k.String() != t.options.DefaultSSLCertificate
		})
	}
}

// attach makes a fragment part of its hosts and clusters.
func (t *Translator) attach(f *fragment) {
	t.fragments[keyOf(f.ing)] = f
	t.ledger.set(f, f.problems)
	for i := range f.hosts {
		h := t.hosts[f.hosts[i].name]
		if h == nil {
			h = &host{name: f.hosts[i].name}
			t.hosts[h.name] = h
		}
		h.parts = append(h.parts, part{f, &f.hosts[i]})
		t.dirtyHosts[h.name] = true
	}
	for _, u := range f.uses {
		t.useCluster(u)
	}
	t.useConfigMaps(f, false)
	for _, k := range f.secrets() {
		users := t.secretUsers[k]
		if users == nil {
			users = make(map[*fragment]bool)
			t.secretUsers[k] = users
		}
		users[f] = true
	}
}

// detach takes a fragment out again.
func (t *Translator) detach(f *fragment) {
	delete(t.fragments, keyOf(f.ing))
	t.ledger.set(f, nil)
	for i := range f.hosts {
		h := t.hosts[f.hosts[i].name]
		h.parts = slices.DeleteFunc(h.parts, func(p part) bool { return p.fragment == f })
		t.dirtyHosts[h.name] = true
	}
	for _, u := range f.uses {
		c := t.clusters[u.id]
		c.uses = slices.DeleteFunc(c.uses, func(other use) bool { return other.fragment == f })
		t.dirtyClusters[c.id] = true
	}
	t.useConfigMaps(f, true)
	for _, k := range f.secrets() {
		if delete(t.secretUsers[k], f); len(t.secretUsers[k]) == 0 {
			delete(t.secretUsers, k)
			if k.String() != t.options.DefaultSSLCertificate {
				delete(t.certs, k)
			}
		}
	}
}

// forgetFragments detaches all at once.
func (t *Translator) forgetFragments() {
	for _, f := range t.fragments {
		t.ledger.set(f, nil)
	}
	for name, h := range t.hosts {
		t.options.Yield()
		h.parts = nil
		t.dirtyHosts[name] = true
	}
	for id, c := range t.clusters {
		t.options.Yield()
		c.uses = slices.DeleteFunc(c.uses, func(u use) bool { return u.fragment != nil })
		t.dirtyClusters[id] = true
	}
	clear(t.fragments)
	clear(t.secretUsers)
	clear(t.configMapUsers)
}

// readServices marks the clusters whose Service or EndpointSlices changed.
func (t *Translator) readServices(o *Objects) {
	changed := t.services.update(o.Services)
	changed = append(changed, t.slices.update(o.EndpointSlices)...)
	for _, k := range changed {
		for c := range t.backends[k] {
			t.dirtyClusters[c.id] = true
		}
	}
}

// readSecrets marks the hosts whose certificates may have changed.
func (t *Translator) readSecrets(list []*corev1.Secret) {
	for _, k := range t.secrets.update(list) {
		for f := range t.secretUsers[k] {
			if f.dialect.proxySSL.secret != "" {
				for _, u := range f.uses {
					t.dirtyClusters[u.id] = true
				}
			}
			for i := range f.hosts {
				t.dirtyHosts[f.hosts[i].name] = true
			}
		}
	}
}

// assemble puts the Config together.
func (t *Translator) assemble() *route.Config {
	c := &route.Config{
		Hosts:              t.hostList.values,
		Clusters:           t.clusterList.values,
		Services:           t.serviceList,
		DefaultCertificate: t.defaultCertificate(),
		DefaultBackend:     t.defaultBackend(),
		Settings:           t.config.settings,
	}
	if t.last == nil || !sameConfig(c, t.last) {
		t.last = c
	}
	return t.last
}

// sameConfig compares what two Configs point to. A roster's list is copied when it changes, so its first element tells.
func sameConfig(a, b *route.Config) bool {
	return sameList(a.Hosts, b.Hosts) && slices.Equal(a.Services, b.Services) && sameList(a.Clusters, b.Clusters) &&
		a.DefaultCertificate == b.DefaultCertificate && a.DefaultBackend == b.DefaultBackend && a.Settings == b.Settings
}

func sameList[T any](a, b []*T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// A Judgement is what an Ingress's own text leads to, whatever else there is.
type Judgement struct {
	Ours     bool
	Dropped  bool            // an annotation forbids to serve it
	Denied   string          // the field of the annotation for which its paths answer 503, and why; "": they do not
	Problems []route.Problem // of its text alone
}

// Judge tells what became of an Ingress of the last Translate.
func (t *Translator) Judge(namespace, name string) Judgement {
	f := t.fragments[key{namespace, name}]
	if f == nil || !f.mine {
		return Judgement{}
	}
	return Judgement{Ours: true, Dropped: f.dropped, Denied: f.dialect.denied, Problems: slices.Clone(f.problems)}
}
