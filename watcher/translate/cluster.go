package translate

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// A cluster is a Service's port with everybody who names it.
type cluster struct {
	id       string
	service  key
	port     string // name or number; "": the first one
	speaks   protocol
	udp      bool
	external external // the host of a URL, if one names the cluster
	uses     []use
	out      *route.Cluster // nil: not built yet
}

// A use is that an Ingress, the flag --default-backend-service or a ConfigMap of TCP or UDP services names a cluster.
type use struct {
	fragment *fragment // nil: the flag, or a ConfigMap
	at       place     // the first place
	id       string
	service  key
	port     string
	speaks   protocol
	udp      bool
	external external
	owner    route.Object // where there is no fragment: the ConfigMap that names it; zero: the Service is to blame
	canaryOf *host        // whose rule it is a canary of; nil: none
	main     *fragment    // … and whose Ingress has that rule
}

// udpVariant ends the IDs of clusters whose endpoints take datagrams.
const udpVariant = "#udp"

// clusterID is "namespace/service:port" and the variant of what backends speak.
func clusterID(service key, port string, speaks protocol) string {
	return service.namespace + "/" + service.name + ":" + port + variants[speaks]
}

// useCluster makes u one of its cluster's uses.
func (t *Translator) useCluster(u use) {
	c := t.clusters[u.id]
	if c == nil {
		c = &cluster{id: u.id, service: u.service, port: u.port, speaks: u.speaks, udp: u.udp, external: u.external}
		t.clusters[u.id] = c
		if t.backends[u.service] == nil {
			t.backends[u.service] = make(map[*cluster]struct{}, 1)
		}
		t.backends[u.service][c] = struct{}{}
	}
	c.uses = append(c.uses, u)
	t.dirtyClusters[c.id] = true
}

// dropUses takes uses off their clusters.
func (t *Translator) dropUses(list []use) {
	for _, u := range list {
		if c := t.clusters[u.id]; c != nil {
			c.uses = slices.DeleteFunc(c.uses, func(other use) bool { return other.fragment == u.fragment && other.canaryOf == u.canaryOf })
			t.dirtyClusters[c.id] = true
		}
	}
}

// rebuildClusters builds the marked clusters anew and drops those that nobody uses.
func (t *Translator) rebuildClusters() {
	changed := slices.Sorted(maps.Keys(t.dirtyClusters))
	changed = slices.DeleteFunc(changed, func(id string) bool {
		t.options.Yield()
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
	if c.external.host != "" {
		return t.buildExternal(c)
	}
	out := &route.Cluster{ID: c.id}
	var problems []route.Problem
	out.Settings, problems = t.clusterSettings(c)
	return out, append(problems, t.collectEndpoints(c, out)...)
}

// collectEndpoints gives a cluster its Service's endpoints, and what is wrong with them for those who use it.
func (t *Translator) collectEndpoints(c *cluster, out *route.Cluster) (problems []route.Problem) {
	out.Owner = route.Object{Kind: "Service", Namespace: c.service.namespace, Name: c.service.name}
	e := endpoints{options: &t.options, protocol: c.protocol(), service: t.services.by[c.service], slices: t.slices.of(c.service)}
	out.Endpoints, problems = t.viaService(c, &e, e.collect(c.port))
	problems = append(e.problems, problems...)
	if e.unusable == "" {
		return problems
	}
	for _, u := range c.uses {
		owner := out.Owner
		switch {
		case u.fragment != nil:
			owner = u.fragment.owner
		case u.owner.Kind != "":
			owner = u.owner
		}
		problems = append(problems, problem(owner, u.at.backend(t.options.AnnotationsPrefix, e.field), "Service %s %s", c.service, e.unusable))
	}
	return problems
}

func (c *cluster) protocol() corev1.Protocol {
	if c.udp {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

// clusterSettings are those that the oldest Ingress asks for which names the cluster. Others that ask for something else
// learn that they came late.
func (t *Translator) clusterSettings(c *cluster) (upstream.Settings, []route.Problem) {
	s := t.config.defaults.cluster
	s.ConnectTimeout = t.config.settings.ConnectTimeout
	s.AllowLoopback = t.options.AllowLoopback
	s.Name = c.service.namespace + "-" + c.service.name + "-" + c.port
	speaks := c.speaks
	if variants[speaks] == "" {
		speaks = t.byAppProtocol(c)
	}
	if s.HTTP2 = speaks.http2(); speaks.secure() {
		s.TLS = t.clusterTLS(c)
	}
	if oldest := c.chooser(func(*dialect) bool { return true }); oldest != nil {
		if oldest.dialect.policy.ConnectTimeout > 0 {
			s.ConnectTimeout = oldest.dialect.policy.ConnectTimeout
		}
	}
	if oldest := c.chooser(func(d *dialect) bool { return d.headers.connectionClose || d.headers.connectionKeepAlive }); oldest != nil {
		if s.SayKeepAlive = oldest.dialect.headers.connectionKeepAlive; !s.SayKeepAlive {
			s.RequestsMax = 1
		}
	}
	if c.udp {
		s.Check = upstream.Check{} // they connect
	}
	t.clusterAffinity(c, &s)
	s.Keyed = slices.ContainsFunc(c.uses, func(u use) bool { return u.canaryOf != nil })
	return s, slices.Concat(t.clusterBalance(c, &s), t.clusterTraffic(c, &s), t.clusterGRPC(c, &s))
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
	t.fallback = &use{at: place{kind: placeFlag}, id: clusterID(k, "", speaksAny), service: k}
	t.useCluster(*t.fallback)
}

// defaultBackend is the cluster of --default-backend-service while its Service exists.
func (t *Translator) defaultBackend() string {
	if t.fallback == nil || t.services.by[t.fallback.service] == nil {
		return ""
	}
	return t.fallback.id
}

// portNames lists a Service's ports for a Problem's remedy.
func portNames(s *corev1.Service) string {
	if len(s.Spec.Ports) == 0 {
		return "none"
	}
	var names []string
	for _, p := range s.Spec.Ports {
		text := fmt.Sprint(p.Port)
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			text += "/" + string(p.Protocol)
		}
		if p.Name != "" {
			text += " (" + p.Name + ")"
		}
		names = append(names, text)
	}
	return strings.Join(names, ", ")
}
