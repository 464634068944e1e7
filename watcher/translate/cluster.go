package translate

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// A cluster is a Service's port with everybody who names it.
type cluster struct {
	id      string
	service key
	port    string // name or number; "": the first one
	https   bool
	name    string // of a URL's host: DNS name or address; "": the Service's
	uses    []use
	out     *route.Cluster // nil: not built yet
}

// A use is that an Ingress, or the flag --default-backend-service, names a cluster.
type use struct {
	fragment *fragment // nil: the flag
	at       place     // the first place
	id       string
	service  key
	port     string
	https    bool
	name     string // see cluster
}

// clusterID is "namespace/service:port", and "#https" where backends speak TLS: those are other connections.
func clusterID(service key, port string, https bool) string {
	variant := ""
	if https {
		variant = "#https"
	}
	return service.namespace + "/" + service.name + ":" + port + variant
}

// useCluster makes u one of its cluster's uses.
func (t *Translator) useCluster(u use) {
	c := t.clusters[u.id]
	if c == nil {
		c = &cluster{id: u.id, service: u.service, port: u.port, https: u.https, name: u.name}
		t.clusters[u.id] = c
		if t.backends[u.service] == nil {
			t.backends[u.service] = make(map[*cluster]struct{}, 1)
		}
		t.backends[u.service][c] = struct{}{}
	}
	c.uses = append(c.uses, u)
	t.dirtyClusters[c.id] = true
}

// rebuildClusters builds the marked clusters anew and drops those that nobody uses.
func (t *Translator) rebuildClusters() {
	changed := slices.Sorted(maps.Keys(t.dirtyClusters))
	changed = slices.DeleteFunc(changed, func(id string) bool {
		c := t.clusters[id]
		if len(c.uses) == 0 {
			t.dropCluster(c)
			return false
		}
		out, problems := t.buildCluster(c)
		t.ledger.set(c, problems)
		if c.out != nil && reflect.DeepEqual(out, c.out) {
			return true
		}
		c.out = out
		return false
	})
	t.clusterList.change(changed, func(id string) *route.Cluster {
		if c := t.clusters[id]; c != nil {
			return c.out
		}
		return nil
	})
	clear(t.dirtyClusters)
}

func (t *Translator) dropCluster(c *cluster) {
	t.ledger.set(c, nil)
	delete(t.clusters, c.id)
	if delete(t.backends[c.service], c); len(t.backends[c.service]) == 0 {
		delete(t.backends, c.service)
	}
}

// buildCluster gives a cluster's settings and endpoints, and what is wrong for those who use it.
func (t *Translator) buildCluster(c *cluster) (*route.Cluster, []route.Problem) {
	out := &route.Cluster{
		ID:    c.id,
		Owner: route.Object{Kind: "Service", Namespace: c.service.namespace, Name: c.service.name},
	}
	var problems []route.Problem
	out.Settings, problems = t.clusterSettings(c)
	if c.name != "" && t.services.by[c.service] == nil {
		out.Owner, out.Endpoints = t.urlOwner(c), urlEndpoints(c)
		return out, problems
	}
	e := endpoints{options: &t.options, service: t.services.by[c.service], slices: t.slices.of(c.service)}
	out.Endpoints = e.collect(c.port)
	problems = append(problems, e.problems...)
	if e.unusable == "" {
		return out, problems
	}
	for _, u := range c.uses {
		owner := out.Owner
		if u.fragment != nil {
			owner = u.fragment.owner
		}
		problems = append(problems, problem(owner, u.at.backend(t.options.AnnotationsPrefix, e.field), "Service %s %s", c.service, e.unusable))
	}
	return out, problems
}

// clusterSettings are those that the oldest Ingress asks for which names the cluster. Others that ask for another
// algorithm learn that they came late.
func (t *Translator) clusterSettings(c *cluster) (upstream.Settings, []route.Problem) {
	s := t.config.defaults.cluster
	s.ConnectTimeout = t.config.settings.ConnectTimeout
	s.AllowLoopback = t.options.AllowLoopback
	if c.https {
		s.TLS = t.clusterTLS(c)
	}
	if c.name != "" {
		c.urlSettings(&s)
		return s, nil
	}
	var oldest, chooser *fragment
	for _, u := range c.uses {
		if f := u.fragment; f != nil && (oldest == nil || older(f, oldest) < 0) {
			oldest = f
		}
	}
	if oldest == nil {
		return s, nil
	}
	if d := oldest.dialect.policy.ConnectTimeout; d > 0 {
		s.ConnectTimeout = d
	}
	if oldest.dialect.headers.connectionClose {
		s.RequestsMax = 1
	}
	for _, u := range c.uses {
		if f := u.fragment; f != nil && f.dialect.algorithm != nil && (chooser == nil || older(f, chooser) < 0) {
			chooser = f
		}
	}
	if chooser == nil {
		return s, nil
	}
	s.Algorithm = *chooser.dialect.algorithm
	return s, t.lateChoices(c, chooser)
}

func (t *Translator) lateChoices(c *cluster, chooser *fragment) (problems []route.Problem) {
	for _, u := range c.uses {
		f := u.fragment
		if f == nil || f.dialect.algorithm == nil || *f.dialect.algorithm == *chooser.dialect.algorithm {
			continue
		}
		full := t.options.AnnotationsPrefix + "/load-balance"
		if f.dialect.ownAlgorithm {
			full = ownPrefix + "/load-balance"
		}
		problems = append(problems, problem(f.owner, annotationField(full),
			"is ignored for Service %s: Ingress %s/%s names it too, comes first and chose another", c.service, chooser.ing.Namespace, chooser.ing.Name))
	}
	return problems
}

// useDefaultBackend records the use of --default-backend-service.
func (t *Translator) useDefaultBackend() {
	o := t.options.DefaultBackendService
	if o == "" {
		return
	}
	k, ok := parseKey(o)
	if !ok {
		t.ledger.set("default backend", []route.Problem{problem(route.Object{Kind: "Service", Name: o},
			"--default-backend-service", "is not NAMESPACE/NAME; requests without a route answer 404")})
		return
	}
	t.fallback = &use{at: place{kind: placeFlag}, id: clusterID(k, "", false), service: k}
	t.useCluster(*t.fallback)
}

// defaultBackend is the cluster of --default-backend-service while its Service exists.
func (t *Translator) defaultBackend() string {
	if t.fallback == nil || t.services.by[t.fallback.service] == nil {
		return ""
	}
	return t.fallback.id
}

// urlOwner is whom a URL's cluster belongs to: the first Ingress that names it, or the ConfigMap.
func (t *Translator) urlOwner(c *cluster) (o route.Object) {
	var oldest *fragment
	for _, u := range c.uses {
		if f := u.fragment; f != nil && (oldest == nil || older(f, oldest) < 0) {
			oldest = f
		}
	}
	if oldest != nil {
		return oldest.owner
	}
	k, _ := parseKey(t.options.ConfigMap)
	return route.Object{Kind: "ConfigMap", Namespace: k.namespace, Name: k.name}
}

// urlEndpoints is a URL's host as an endpoint.
func urlEndpoints(c *cluster) []upstream.Address {
	port, err := strconv.ParseUint(c.port, 10, 16)
	if err != nil {
		return nil
	}
	if a, err := netip.ParseAddr(c.name); err == nil {
		return []upstream.Address{{Addr: netip.AddrPortFrom(a, uint16(port))}}
	}
	return []upstream.Address{{Name: c.name, Port: uint16(port)}}
}

// portNames lists a Service's ports for a Problem's remedy.
func portNames(s *corev1.Service) string {
	if len(s.Spec.Ports) == 0 {
		return "none"
	}
	var names []string
	for _, p := range s.Spec.Ports {
		text := fmt.Sprint(p.Port)
		if p.Name != "" {
			text += " (" + p.Name + ")"
		}
		names = append(names, text)
	}
	return strings.Join(names, ", ")
}
