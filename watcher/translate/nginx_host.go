package translate

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
)

// Further names of hosts.
var hostAnnotations = []annotation{
	{
		key: "server-alias", scope: scopeHost, risk: riskHigh, verdict: differs,
		text:  "Further names of the Ingress's hosts, separated by commas: everything that the host serves, others' paths too, is served there. A name that is a host of a rule stays that host.",
		note:  "Names, and wildcards of one label; no expressions. At most 256 names, and 20,000 routes of all of them; of several hosts of an Ingress the first one gets them.",
		parse: parseAliases,
	},
	{
		key: "from-to-www-redirect", scope: scopeHost, risk: riskLow, verdict: same,
		text: "Redirects www.X to X, or X to www.X, whichever is no host: http-redirect-code (308), with the port and the URI without a slash at its end.",
		parse: func(d *dialect, value string) (err error) {
			d.www, err = parseBool(value)
			return err
		},
	},
}

// Each alias is a host of its own to whoever looks a route up, with all paths of the host it is an alias of.
const (
	aliasesMax     = 256    // of an Ingress
	aliasRoutesMax = 20_000 // of all aliases of an Ingress
)

func parseAliases(d *dialect, value string) error {
	items := splitList(value)
	if len(items) > aliasesMax {
		return fmt.Errorf("%d names; %d is the most", len(items), aliasesMax)
	}
	var names, bad []string
	for _, item := range items {
		name, why := hostName(item)
		if why != "" || name == "" {
			bad = append(bad, fmt.Sprintf("%q", item))
			continue
		}
		names = append(names, name)
	}
	d.aliases = strings.Join(names, ",")
	if bad != nil {
		return &partly{"neither DNS names nor such with *. before them: " + strings.Join(bad, ", ") + "; the others are taken"}
	}
	return nil
}

// derivedHosts are hosts that no rule names: aliases, and those that redirect to or from www.
type derivedHosts struct {
	askers map[string]bool // hosts whose Ingresses ask for some
	of     map[string]derivedHost
}

type derivedHost struct {
	source *route.VirtualHost // of which it is made
	out    *route.VirtualHost
}

// note remembers whether a host asks for others.
func (d *derivedHosts) note(h *host, name string) {
	asks := h != nil && slices.ContainsFunc(h.parts, func(p part) bool { return !p.dialect.canary && (p.dialect.aliases != "" || p.dialect.www) })
	if !asks {
		delete(d.askers, name)
		return
	}
	d.askers = remember(d.askers, name)
}

// deriveHosts makes the derived hosts anew, and gives the names of those that are other ones now.
func (t *Translator) deriveHosts() (changed []string) {
	d := &t.derived
	if len(d.askers) == 0 && len(d.of) == 0 {
		return nil
	}
	b := deriver{translator: t, of: map[string]derivedHost{}}
	for _, w := range t.wishes() {
		b.aliases(w)
		b.www(w)
	}
	for name, one := range b.of {
		if d.of[name].out != one.out {
			changed = append(changed, name)
		}
	}
	for name := range d.of {
		if _, there := b.of[name]; !there {
			changed = append(changed, name)
		}
	}
	d.of = b.of
	t.ledger.set(d, b.problems)
	return changed
}

// A wish is an Ingress's for further names of one of its hosts.
type wish struct {
	part
	host *host
}

// wishes are all that there are, of the oldest Ingress first: who was there first has a name, whatever the hosts' names are.
func (t *Translator) wishes() (list []wish) {
	for _, name := range slices.Sorted(maps.Keys(t.derived.askers)) {
		h := t.hosts[name]
		for _, p := range h.parts {
			if !p.dialect.canary && (p.dialect.aliases != "" || p.dialect.www) {
				list = append(list, wish{p, h})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b wish) int { return older(a.fragment, b.fragment) })
	return list
}

// serves tells whether rules have a host; those of canaries alone serve nothing.
func (t *Translator) serves(name string) bool {
	h := t.hosts[name]
	return h != nil && h.out != nil
}

type deriver struct {
	translator *Translator
	of         map[string]derivedHost
	asked      *fragment // whose aliases were looked at last, …
	askedOf    *host     // … and the host that got them
	problems   []route.Problem
}

// add makes a derived host; one that is as it was stays the same pointer.
func (b *deriver) add(name string, source *route.VirtualHost, make func(*route.VirtualHost)) {
	out := *source
	out.Name = name
	make(&out)
	if old := b.translator.derived.of[name]; old.source == source && reflect.DeepEqual(*old.out, out) {
		b.of[name] = old
		return
	}
	b.of[name] = derivedHost{source, &out}
}

// aliases gives a host the names that its Ingress asks for. Hosts of one Ingress ask for the same names, which the first one gets.
func (b *deriver) aliases(w wish) {
	if w.dialect.aliases == "" {
		return
	}
	if w.fragment == b.asked && b.askedOf != w.host {
		b.refuse(w.part, "server-alias", "is ignored for host %q: the names are those of host %q", w.host.name, b.askedOf.name)
		return
	}
	b.asked, b.askedOf = w.fragment, w.host
	routes := 0
	for _, name := range splitList(w.dialect.aliases) {
		_, twice := b.of[name]
		switch {
		case name == w.host.name:
		case b.translator.serves(name):
			b.refuse(w.part, "server-alias", "%q is ignored: rules have that host", name)
		case twice && b.of[name].source == w.host.out:
		case twice:
			b.refuse(w.part, "server-alias", "%q is ignored: another host has that name already", name)
		case routes > aliasRoutesMax-len(w.host.out.Rules):
			b.refuse(w.part, "server-alias", "%q and what follows are ignored: with %d paths of host %q the names before come to %d routes, and %d is the most",
				name, len(w.host.out.Rules), w.host.name, routes, aliasRoutesMax)
			return
		default:
			routes += len(w.host.out.Rules)
			b.add(name, w.host.out, func(*route.VirtualHost) {})
		}
	}
}

func (b *deriver) www(w wish) {
	h := w.host
	if !w.dialect.www || h.name == "" || strings.HasPrefix(h.name, "*") {
		return
	}
	from, long := strings.CutPrefix(h.name, "www.")
	if !long {
		from = "www." + h.name
	}
	switch one, twice := b.of[from]; {
	case twice && one.source == h.out && one.out.Rules == nil: // an older Ingress of the host asks for the same
		return
	case twice || b.translator.serves(from):
		b.refuse(w.part, "from-to-www-redirect", "is ignored for host %q: %q is a host of its own", h.name, from)
		return
	}
	b.add(from, h.out, func(v *route.VirtualHost) {
		d := &b.translator.config.defaults
		v.Rules, v.Passthrough, v.PassthroughProxy, v.RegexMode, v.ClientAuth = nil, "", 0, false, nil
		v.Filters = append(slices.Clip(d.host), filter.HostRedirect{Status: d.redirectCode, Host: h.name})
		if c := v.Certificate; c != nil {
			if leaf := firstCertificate(c.CertPEM); leaf == nil || leaf.VerifyHostname(from) != nil {
				v.Certificate = nil
			}
		}
	})
}

func (b *deriver) refuse(p part, annotation, format string, args ...any) {
	b.problems = append(b.problems, problem(p.owner, annotationField(b.translator.options.AnnotationsPrefix+"/"+annotation), format, args...))
}
