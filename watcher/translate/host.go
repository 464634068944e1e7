package translate

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
)

// A host is a host name with all fragments that have rules for it.
type host struct {
	name  string
	parts []part
	tls   hostTLS
	uses  []use              // of canaries
	out   *route.VirtualHost // nil: not built yet, or nothing is served
}

type part struct {
	*fragment
	rules *hostRules
}

// hostTLS is whether a host has TLS of its own, and what it shows.
type hostTLS struct {
	on          bool
	certificate *route.Certificate // nil: the default one
}

// rebuildHosts builds the marked hosts anew and drops those that nobody speaks of. Wildcard hosts come first: a host below
// one, without TLS of its own, shows the wildcard's certificate.
func (t *Translator) rebuildHosts() {
	var kept map[string]bool
	wildcards, others := t.dirtyByKind()
	for _, name := range wildcards {
		before := t.hosts[name].tls
		if !t.rebuildHost(name) {
			kept = remember(kept, name)
		}
		if after := t.hosts[name]; after == nil && before.on || after != nil && after.tls != before {
			others = t.withCovered(others, name[1:])
		}
	}
	for _, name := range others {
		if !t.rebuildHost(name) {
			kept = remember(kept, name)
		}
	}
	changed := slices.Collect(maps.Keys(t.dirtyHosts))
	changed = slices.DeleteFunc(changed, func(name string) bool { return kept[name] })
	changed = append(changed, t.deriveHosts()...)
	slices.Sort(changed)
	changed = slices.Compact(changed)
	t.hostList.change(changed, func(name string) *route.VirtualHost {
		if h := t.hosts[name]; h != nil && h.out != nil {
			return h.out
		}
		return t.derived.of[name].out
	})
	clear(t.dirtyHosts)
}

func (t *Translator) dirtyByKind() (wildcards, others []string) {
	for name := range t.dirtyHosts {
		if strings.HasPrefix(name, "*.") {
			wildcards = append(wildcards, name)
		} else {
			others = append(others, name)
		}
	}
	return wildcards, others
}

// withCovered marks the hosts one label below parent (".example.com") and adds them to names.
func (t *Translator) withCovered(names []string, parent string) []string {
	for name := range t.hosts {
		if label, ok := strings.CutSuffix(name, parent); ok && label != "*" && !strings.Contains(label, ".") && !t.dirtyHosts[name] {
			t.dirtyHosts[name] = true
			names = append(names, name)
		}
	}
	return names
}

func remember(set map[string]bool, name string) map[string]bool {
	if set == nil {
		set = make(map[string]bool)
	}
	set[name] = true
	return set
}

// rebuildHost tells whether the host is another one now.
func (t *Translator) rebuildHost(name string) (changed bool) {
	t.options.Yield()
	h := t.hosts[name]
	t.dropUses(h.uses)
	h.uses = nil
	if len(h.parts) == 0 {
		t.ledger.set(h, nil)
		t.derived.note(nil, name)
		delete(t.hosts, name)
		return true
	}
	slices.SortFunc(h.parts, func(a, b part) int { return older(a.fragment, b.fragment) })
	t.derived.note(h, name)
	b := hostBuild{translator: t, host: h}
	for _, p := range h.parts {
		if p.dialect.canary {
			b.canaries = append(b.canaries, p)
		} else {
			b.parts = append(b.parts, p)
		}
	}
	if len(b.parts) > 0 {
		b.out = &route.VirtualHost{Name: name, Owner: b.parts[0].owner, IgnoreSlash: t.config.defaults.ignoreSlash}
		b.build()
	} else {
		h.tls = hostTLS{}
		b.mergeCanaries()
	}
	t.ledger.set(h, b.problems)
	for _, u := range h.uses {
		t.useCluster(u)
	}
	if h.out == nil && b.out == nil || h.out != nil && b.out != nil && reflect.DeepEqual(b.out, h.out) {
		return false
	}
	h.out = b.out
	return true
}

// hostBuild merges the parts of one host, oldest first.
type hostBuild struct {
	translator *Translator
	host       *host
	parts      []part // of the host, without canaries
	canaries   []part
	out        *route.VirtualHost
	owners     []part   // of out.Rules
	places     []*place // … and where they stand; nil: spec.defaultBackend
	problems   []route.Problem
}

func (b *hostBuild) refuse(f *fragment, field, format string, args ...any) {
	b.problems = append(b.problems, problem(f.owner, field, format, args...))
}

func (b *hostBuild) build() {
	b.chooseCertificate()
	b.out.Certificate = b.host.tls.certificate
	b.mergeRules()
	b.addFallback()
	b.chooseMode()
	b.mergeCanaries()
	b.out.Filters = b.translator.config.defaults.host
	b.chooseAppRoot()
	b.chooseClientAuth()
	b.chooseCiphers()
	b.choosePassthrough()
}

// mergeRules takes every part's paths. Of two with the same path and type the first Ingress's wins: the oldest, and of
// equally old ones the first by name.
func (b *hostBuild) mergeRules() {
	n := 0
	for _, p := range b.parts {
		n += len(p.rules.paths)
	}
	b.out.Rules, b.owners, b.places = make([]route.Rule, 0, n+1), make([]part, 0, n+1), make([]*place, 0, n+1)
	taken := newPathSet(n)
	for _, p := range b.parts {
		var shared []filter.Config // of the fragment's rules that need no filter of their own
		made := false
		n := b.resolve(p)
		for i := range p.rules.paths {
			path := &p.rules.paths[i]
			if winner, twice := taken.add(path.path, path.kind, len(b.owners)); twice {
				b.refuseTwice(p, path, b.owners[winner])
				continue
			}
			filters := shared
			if own := p.dialect.ownFilters(path.path); own || !made {
				filters = p.dialect.filters(path.path, path.kind, b.host.tls.on, false, &n)
				if !own {
					shared, made = filters, true
				}
			}
			b.addRule(p, &path.place, path.path, path.kind, path.backend, filters, n.denied)
		}
	}
}

func (b *hostBuild) refuseTwice(p part, path *pathRule, winner part) {
	if winner.fragment == p.fragment {
		b.refuse(p.fragment, path.field(), "path %q (%s) stands twice for host %q; the first one is served", path.path, path.kind, b.host.name)
		return
	}
	b.refuse(p.fragment, path.field(), "path %q (%s) of host %q belongs to Ingress %s/%s, which comes first; it is served from there",
		path.path, path.kind, b.host.name, winner.ing.Namespace, winner.ing.Name)
}

func (b *hostBuild) addRule(p part, at *place, path string, kind route.PathType, to backend, filters []filter.Config, denied string) {
	b.out.Rules = append(b.out.Rules, route.Rule{
		Owner: p.owner,
		Path:  path, Type: kind,
		Cluster: to.id, Service: to.service, Port: to.port,
		Fallback: p.spare,
		Mirror:   p.copies,
		Filters:  filters,
		Policy:   p.dialect.policy,
		Slash:    p.dialect.slash,
		Deny:     cmp.Or(p.dialect.denied, denied),
	})
	b.owners, b.places = append(b.owners, p), append(b.places, at)
}

// addFallback leads unmatched paths to a default backend, unless a rule for all paths exists. As in ingress-nginx the
// oldest Ingress of a host gives it, or nobody; of the catch-all the oldest that has one.
func (b *hostBuild) addFallback() {
	for i := range b.out.Rules {
		if r := &b.out.Rules[i]; r.Path == "/" && r.Type == route.Prefix {
			b.refuseBare(b.owners[i])
			return
		}
	}
	chosen := -1
	for i, p := range b.parts {
		switch {
		case p.rules.fallback == nil:
		case chosen < 0 && (i == 0 || b.host.name == ""):
			chosen = i
		default:
			b.refuse(p.fragment, "spec.defaultBackend", "is not used for host %q: Ingress %s/%s comes first, and the first one decides",
				b.host.name, b.parts[max(chosen, 0)].ing.Namespace, b.parts[max(chosen, 0)].ing.Name)
		}
	}
	if chosen >= 0 {
		p := b.parts[chosen]
		n := b.resolve(p)
		b.addRule(p, nil, "/", route.Prefix, *p.rules.fallback,
			p.dialect.filters("/", route.Prefix, b.host.tls.on, p.rules.bare, &n), n.denied)
	}
}

// refuseBare tells Ingresses of nothing but a default backend that a rule comes before it.
func (b *hostBuild) refuseBare(winner part) {
	for _, p := range b.parts {
		if p.rules.bare {
			b.refuse(p.fragment, "spec.defaultBackend", "is not used: Ingress %s/%s has a rule for all paths of all hosts",
				winner.ing.Namespace, winner.ing.Name)
		}
	}
}

// chooseMode decides whether the host's paths are regular expressions, and drops those that are none then.
func (b *hostBuild) chooseMode() {
	for i := range b.out.Rules {
		d := &b.owners[i].dialect
		_, rewritten := d.rewrite(b.out.Rules[i].Path, b.out.Rules[i].Type)
		b.out.RegexMode = b.out.RegexMode || d.useRegex && !b.owners[i].rules.bare || rewritten && !b.owners[i].rules.bare
	}
	if !b.out.RegexMode {
		return
	}
	kept := b.out.Rules[:0]
	owners, places := b.owners[:0], b.places[:0]
	for i, r := range b.out.Rules {
		if why := checkExpression(r.Path); why != "" {
			b.refuse(b.owners[i].fragment, b.places[i].field()+".path", "%q %s", r.Path, why)
			continue
		}
		kept, owners, places = append(kept, r), append(owners, b.owners[i]), append(places, b.places[i])
	}
	b.out.Rules, b.owners, b.places = kept, owners, places
}

// chooseAppRoot takes the oldest Ingress's app-root.
func (b *hostBuild) chooseAppRoot() {
	var winner *fragment
	for _, p := range b.parts {
		root := p.dialect.appRoot
		if root == "" || p.rules.bare {
			continue
		}
		if winner == nil {
			winner = p.fragment
			b.out.Filters = append(slices.Clip(b.out.Filters), filter.AppRoot{Path: root})
		} else if root != winner.dialect.appRoot {
			b.refuse(p.fragment, annotationField(b.translator.options.AnnotationsPrefix+"/app-root"),
				"is ignored for host %q: Ingress %s/%s comes first and has another", b.host.name, winner.ing.Namespace, winner.ing.Name)
		}
	}
}

// choosePassthrough hands the host's TLS connections to the backend of "/" if its oldest Ingress asks for it.
func (b *hostBuild) choosePassthrough() {
	field := annotationField(b.translator.options.AnnotationsPrefix + "/ssl-passthrough")
	var oldest *fragment
	for _, p := range b.parts {
		switch {
		case p.rules.bare:
		case oldest == nil:
			oldest = p.fragment
		case p.dialect.passthrough && !oldest.dialect.passthrough:
			b.refuse(p.fragment, field, "is ignored for host %q: Ingress %s/%s comes first and terminates TLS", b.host.name, oldest.ing.Namespace, oldest.ing.Name)
		}
	}
	if oldest == nil || !oldest.dialect.passthrough {
		return
	}
	if b.host.name == "" {
		b.refuse(oldest, field, "is ignored for rules without a host: a TLS connection is known by its server name")
		return
	}
	root := slices.IndexFunc(b.out.Rules, func(r route.Rule) bool { return r.Path == "/" })
	if root < 0 || b.out.Rules[root].Owner.Namespace != oldest.ing.Namespace {
		b.refuse(oldest, field, "is ignored for host %q: it needs a rule with path /, of the same namespace", b.host.name)
		return
	}
	b.out.Passthrough, b.out.PassthroughProxy = b.out.Rules[root].Cluster, oldest.dialect.passthroughProxy
	for i := range b.out.Rules {
		if b.out.Rules[i].Path != "/" {
			b.refuse(b.owners[i].fragment, b.places[i].field()+".path",
				"is reached over plain http only: ssl-passthrough of Ingress %s/%s hands the host's TLS connections to the backend of /",
				oldest.ing.Namespace, oldest.ing.Name)
		}
	}
}

// filters are those of one path, in nginx's order. https: the host has TLS. bare: a default backend without rules, which
// ingress-nginx neither redirects nor rewrites.
func (d *dialect) filters(path string, kind route.PathType, https, bare bool, n *named) (filters []filter.Config) {
	if c, ok := d.corsFilter(); ok {
		filters = append(filters, c)
	}
	if !bare {
		filters = append(filters, d.redirects(path, https)...)
		if r, ok := d.rewrite(path, kind); ok {
			filters = append(filters, r)
		}
	}
	if l, ok := d.limits(); ok {
		filters = append(filters, l)
	}
	auth := n.auth
	if startsWithAny(path, d.defaults.openPaths) {
		auth = nil
	}
	if r, ok := d.access(); ok {
		r.Any = d.satisfyAny && len(auth) > 0
		filters = append(filters, r)
	}
	filters = append(filters, auth...)
	filters = append(filters, d.headerFilters(path, kind, bare)...)
	filters = append(filters, n.filters...)
	return slices.Clip(filters)
}

// ownFilters tells whether a path's filters may differ from those of its Ingress's other paths.
func (d *dialect) ownFilters(path string) bool {
	return d.rewriteTarget != "" || d.headers.prefix != "" || d.defaults.staysPlain(path) || startsWithAny(path, d.defaults.openPaths)
}

// A pathSet finds paths that stand twice. Most hosts have few.
type pathSet struct {
	list []pathKey
	of   map[pathKey]int
}

type pathKey struct {
	path string
	kind route.PathType
}

const pathSetListMax = 16

func newPathSet(n int) *pathSet {
	if n <= pathSetListMax {
		return &pathSet{list: make([]pathKey, 0, n)}
	}
	return &pathSet{of: make(map[pathKey]int, n)}
}

// add enters a path under a number. If it was there, its number comes back.
func (s *pathSet) add(path string, kind route.PathType, number int) (winner int, twice bool) {
	k := pathKey{path, kind}
	if s.of == nil {
		if i := slices.Index(s.list, k); i >= 0 {
			return i, true
		}
		s.list = append(s.list, k)
		return number, false
	}
	if i, ok := s.of[k]; ok {
		return i, true
	}
	s.of[k] = number
	return number, false
}

// chooseCertificate asks the parts, oldest first, whether they have TLS for the host.
func (b *hostBuild) chooseCertificate() {
	b.host.tls = hostTLS{}
	for _, p := range b.parts {
		if tls, ok := b.certificateOf(p); ok {
			b.host.tls = tls
			return
		}
	}
	if _, parent, ok := strings.Cut(b.host.name, "."); ok && !strings.HasPrefix(b.host.name, "*") {
		if w := b.translator.hosts["*."+parent]; w != nil {
			b.host.tls = w.tls
		}
	}
}

// certificateOf is what one Ingress says of the host's TLS: an entry that lists the host, else one whose certificate is
// for it, else one that lists no hosts and so speaks of all.
func (b *hostBuild) certificateOf(p part) (tls hostTLS, ok bool) {
	entries := p.ing.Spec.TLS
	for i := range entries {
		for _, name := range entries[i].Hosts {
			if strings.EqualFold(name, b.host.name) && b.host.name != "" {
				return b.entry(p, i), true
			}
		}
	}
	if b.host.name == "" {
		return hostTLS{}, false // a certificate is chosen by server name
	}
	for i := range entries {
		if c := b.usable(p, i); c != nil && c.covers(b.host.name) {
			return hostTLS{true, c.pair}, true
		}
	}
	for i := range entries {
		if len(entries[i].Hosts) == 0 {
			return b.entry(p, i), true
		}
	}
	return hostTLS{}, false
}

// usable is the certificate of a tls entry, if it has one that parses.
func (b *hostBuild) usable(p part, i int) *certificate {
	name := p.ing.Spec.TLS[i].SecretName
	if name == "" || strings.Contains(name, "/") {
		return nil
	}
	if c := b.translator.certificate(key{p.ing.Namespace, name}); c.why == "" {
		return c
	}
	return nil
}

// entry is what a tls entry gives the host: its certificate if that is for the host, else the default one, with a
// Problem.
func (b *hostBuild) entry(p part, i int) hostTLS {
	name := p.ing.Spec.TLS[i].SecretName
	if name == "" {
		return hostTLS{on: true}
	}
	field := fmt.Sprintf("spec.tls[%d].secretName", i)
	if strings.Contains(name, "/") {
		b.refuse(p.fragment, field, "%q is not the name of a Secret of this namespace, and others' are refused; host %q shows the default certificate", name, b.host.name)
		return hostTLS{on: true}
	}
	c := b.translator.certificate(key{p.ing.Namespace, name})
	if c.why != "" {
		b.refuse(p.fragment, field, "Secret %s/%s %s; host %q shows the default certificate", p.ing.Namespace, name, c.why, b.host.name)
		return hostTLS{on: true}
	}
	if !c.covers(b.host.name) {
		b.refuse(p.fragment, field, "the certificate of Secret %s/%s is not for host %q, which shows the default certificate; its names: %s",
			p.ing.Namespace, name, b.host.name, strings.Join(append(c.leaf.DNSNames, c.leaf.Subject.CommonName), " "))
		return hostTLS{on: true}
	}
	return hostTLS{true, c.pair}
}
