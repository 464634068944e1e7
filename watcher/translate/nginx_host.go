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
		note:  "Names, and wildcards of one label; no expressions.",
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

func parseAliases(d *dialect, value string) error {
	var bad []string
	d.aliases = ""
	for _, item := range splitList(value) {
		name, why := hostName(item)
		if why != "" || name == "" {
			bad = append(bad, fmt.Sprintf("%q", item))
			continue
		}
		d.aliases += name + ","
	}
	d.aliases = strings.TrimSuffix(d.aliases, ",")
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
	for _, name := range slices.Sorted(maps.Keys(d.askers)) {
		b.aliases(t.hosts[name])
		b.www(t.hosts[name])
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

// serves tells whether rules have a host; those of canaries alone serve nothing.
func (t *Translator) serves(name string) bool {
	h := t.hosts[name]
	return h != nil && h.out != nil
}

type deriver struct {
	translator *Translator
	of         map[string]derivedHost
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

func (b *deriver) aliases(h *host) {
	for _, p := range h.parts {
		if p.dialect.canary {
			continue
		}
		for _, name := range splitList(p.dialect.aliases) {
			_, twice := b.of[name]
			switch {
			case name == h.name:
			case b.translator.serves(name):
				b.refuse(p, "server-alias", "%q is ignored: rules have that host", name)
			case twice && b.of[name].source == h.out:
			case twice:
				b.refuse(p, "server-alias", "%q is ignored: another host has that name already", name)
			default:
				b.add(name, h.out, func(*route.VirtualHost) {})
			}
		}
	}
}

func (b *deriver) www(h *host) {
	i := slices.IndexFunc(h.parts, func(p part) bool { return p.dialect.www && !p.dialect.canary })
	if i < 0 || h.name == "" || strings.HasPrefix(h.name, "*") {
		return
	}
	from, long := strings.CutPrefix(h.name, "www.")
	if !long {
		from = "www." + h.name
	}
	if _, twice := b.of[from]; twice || b.translator.serves(from) {
		b.refuse(h.parts[i], "from-to-www-redirect", "is ignored for host %q: %q is a host of its own", h.name, from)
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
