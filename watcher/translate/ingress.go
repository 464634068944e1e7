package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluiceproxy/sluice/route"
)

// A fragment is all that one Ingress says. It is parsed from the Ingress, the flags and the ConfigMap alone, without a
// look at another object, and never changes: a changed Ingress is a new fragment.
type fragment struct {
	ing      *networkingv1.Ingress
	owner    route.Object
	dialect  dialect
	mine     bool // it is ours to serve
	dropped  bool // an annotation forbids to serve it
	hosts    []hostRules
	uses     []use           // one for each cluster
	used     map[string]bool // … by its ID, while the fragment is parsed
	copies   *route.Mirror
	spare    string // ID of the default-backend annotation's cluster
	problems []route.Problem
}

// hostRules are the rules of one Ingress for one host.
type hostRules struct {
	name     string // "" is the catch-all
	paths    []pathRule
	fallback *backend // spec.defaultBackend
	bare     bool     // the Ingress has no rules: the fallback is all there is
}

type pathRule struct {
	place
	path    string
	kind    route.PathType
	backend backend
}

// A backend is a Service's port as an Ingress names it.
type backend struct {
	id            string // the cluster's
	service, port string
}

func (f *fragment) refuse(field, format string, args ...any) {
	f.problems = append(f.problems, problem(f.owner, field, format, args...))
}

// older orders by age, then by namespace and name: the first one wins where two ask for the same.
func older(a, b *fragment) int {
	return cmp.Or(
		a.ing.CreationTimestamp.Time.Compare(b.ing.CreationTimestamp.Time),
		strings.Compare(a.ing.Namespace, b.ing.Namespace),
		strings.Compare(a.ing.Name, b.ing.Name))
}

// parse reads an Ingress of ours.
func (t *Translator) parse(f *fragment) {
	t.readAnnotations(f)
	if f.dropped {
		return
	}
	if d := f.dialect.defaultBackend; d != "" {
		f.spare = f.need(d, "", place{kind: placeAnnotation}).id
	}
	if !f.dialect.canary {
		f.needAuth()
	}
	fallback := f.defaultBackend()
	rules := f.ing.Spec.Rules
	f.hosts = make([]hostRules, 0, max(1, len(rules)))
	for i := range rules {
		f.readRule(i, &rules[i], &t.config.defaults)
	}
	f.used = nil
	if !f.dialect.canary {
		f.copies = f.mirror()
	}
	f.checkTLS()
	if fallback == nil {
		return
	}
	if len(rules) == 0 {
		f.hosts = append(f.hosts, hostRules{bare: true})
		f.warnBare(t.options.AnnotationsPrefix)
	}
	for i := range f.hosts {
		f.hosts[i].fallback = fallback
	}
}

// checkTLS reports hosts of spec.tls that no rule of the Ingress has: a certificate is for the hosts of rules.
func (f *fragment) checkTLS() {
	for i := range f.ing.Spec.TLS {
		for j, name := range f.ing.Spec.TLS[i].Hosts {
			if !f.serves(strings.ToLower(name)) {
				f.refuse(fmt.Sprintf("spec.tls[%d].hosts[%d]", i, j), "no rule of the Ingress has host %q, so its certificate is not shown there; add a rule", name)
			}
		}
	}
}

// serves tells whether a rule has a host, or one that this wildcard is for.
func (f *fragment) serves(name string) bool {
	for i := range f.hosts {
		h := f.hosts[i].name
		if h == name && h != "" {
			return true
		}
		if _, rest, ok := strings.Cut(h, "."); ok && name == "*."+rest {
			return true
		}
	}
	return false
}

func (f *fragment) defaultBackend() *backend {
	b := f.ing.Spec.DefaultBackend
	if b == nil {
		return nil
	}
	if b.Service == nil {
		f.refuse("spec.defaultBackend.resource", "resource backends are not supported; name a Service")
		return nil
	}
	taken, ok := f.use(b.Service, place{kind: placeDefault})
	if !ok {
		return nil
	}
	return &taken
}

// warnBare tells which annotations mean nothing without rules. ingress-nginx does not apply them there either.
func (f *fragment) warnBare(prefix string) {
	for _, name := range []string{"rewrite-target", "app-root", "permanent-redirect", "temporal-redirect", "force-ssl-redirect", "ssl-passthrough", "use-regex"} {
		if f.has(prefix + "/" + name) {
			f.refuse(annotationField(prefix+"/"+name), "is not applied to a default backend without rules; add a rule")
		}
	}
}

// readRule adds one of spec.rules to the fragment's hosts.
func (f *fragment) readRule(i int, r *networkingv1.IngressRule, d *defaults) {
	name, why := hostName(r.Host)
	if why != "" {
		f.refuse("spec.rules["+strconv.Itoa(i)+"].host", "%s", why)
		return
	}
	h := f.host(name)
	if r.HTTP == nil {
		return
	}
	if h.paths == nil {
		h.paths = make([]pathRule, 0, len(r.HTTP.Paths))
	}
	for j := range r.HTTP.Paths {
		at := place{rule: int32(i), path: int32(j)}
		if p, ok := f.readPath(at, &r.HTTP.Paths[j], d); ok {
			h.paths = append(h.paths, p)
		}
	}
}

// host finds or makes the rules for a host. Few Ingresses have many.
func (f *fragment) host(name string) *hostRules {
	for i := range f.hosts {
		if f.hosts[i].name == name {
			return &f.hosts[i]
		}
	}
	f.hosts = append(f.hosts, hostRules{name: name})
	return &f.hosts[len(f.hosts)-1]
}

// hostName is a rule's host in lower case, or why it cannot be one.
func hostName(s string) (name, why string) {
	if s == "" {
		return "", ""
	}
	name = strings.ToLower(s)
	check := validation.IsDNS1123Subdomain
	if strings.HasPrefix(name, "*") {
		check = validation.IsWildcardDNS1123Subdomain
	}
	if errs := check(name); len(errs) > 0 {
		return "", strconv.Quote(s) + " is neither a DNS name nor one with *. before it; the rule is not served"
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", strconv.Quote(s) + " is an address; write a DNS name, or leave the host out; the rule is not served"
	}
	return name, ""
}

func (f *fragment) readPath(at place, p *networkingv1.HTTPIngressPath, d *defaults) (pathRule, bool) {
	kind, why := pathType(p.PathType)
	if why != "" {
		f.refuse(at.field()+".pathType", "%s", why)
		return pathRule{}, false
	}
	path := p.Path
	if path == "" {
		path = "/"
	}
	if why := checkPath(path, kind); why != "" {
		f.refuse(at.field()+".path", "%s", why)
		return pathRule{}, false
	}
	if d.strictPaths != strictOff && kind != route.Implementation && !strictPath(path) {
		const what = "%q holds other characters than letters, digits and -._/, for which pathType ImplementationSpecific is meant, not %s"
		if f.refuse(at.field()+".path", what, path, kind); d.strictPaths == strictRefuse {
			return pathRule{}, false
		}
	}
	if p.Backend.Service == nil {
		f.refuse(at.field()+".backend.resource", "resource backends are not supported; name a Service; the path is not served")
		return pathRule{}, false
	}
	b, ok := f.use(p.Backend.Service, at)
	if kind == route.Implementation && d.implementationIsPrefix { // not before: its path may be an expression
		kind = route.Prefix
	}
	return pathRule{at, path, kind, b}, ok
}

// use is the backend that an Ingress names at a place. The fragment's use of its cluster is recorded once.
func (f *fragment) use(s *networkingv1.IngressServiceBackend, at place) (backend, bool) {
	if s.Name == "" || strings.Contains(s.Name, "/") {
		f.refuse(at.backend("", ".name"), "%q is not the name of a Service of this namespace", s.Name)
		return backend{}, false
	}
	port := s.Port.Name
	if port == "" {
		if s.Port.Number < 1 || s.Port.Number > 65535 {
			f.refuse(at.backend("", ".port"), "names no port; write number (1 to 65535) or name")
			return backend{}, false
		}
		port = strconv.Itoa(int(s.Port.Number))
	}
	return f.need(s.Name, port, at), true
}

// need finds or records the use of a cluster. An empty port is the Service's first one.
func (f *fragment) need(service, port string, at place) backend {
	if len(f.uses) > 0 { // most often the next path has the last one's backend
		if u := &f.uses[len(f.uses)-1]; u.external.host == "" && u.service.name == service && u.port == port {
			return backend{u.id, service, port}
		}
	}
	u := use{fragment: f, at: at, service: key{f.ing.Namespace, service}, port: port, speaks: f.dialect.speaks}
	if u.id = clusterID(u.service, port, u.speaks); u.speaks.secure() {
		u.id += f.variant()
	}
	if f.dialect.canary { // its host, which knows the protocol of the main Ingress, uses the cluster
		return backend{u.id, service, port}
	}
	if f.used == nil {
		f.used = make(map[string]bool)
	}
	if !f.used[u.id] {
		f.used[u.id] = true
		f.uses = append(f.uses, u)
	}
	return backend{u.id, service, port}
}
