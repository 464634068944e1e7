package translate

import (
	"fmt"
	"strings"

	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
)

const canaryWeightMax = 100_000_000 // canary-weight, canary-weight-total

// An Ingress that takes a part of another one's requests.
var canaryAnnotations = []annotation{
	{
		key: "canary", scope: scopeIngress, risk: riskLow, verdict: differs,
		text: "true: the Ingress's backends take a part of the requests of an Ingress that has the same host, path and path type. " +
			"Affinity decides first, then canary-by-header, canary-by-cookie and canary-weight, in this order. All else but load-balance and " +
			"upstream-hash-by comes from the main Ingress.",
		note: "A path may have several canaries, which are asked from the oldest on; and only the canary's own paths are concerned, not " +
			"others with the same backend. The main Ingress is of the same namespace, unless allow-cross-namespace-resources is true.",
		parse: onOff(func(d *dialect) *bool { return &d.canary }),
	},
	{
		key: "canary-by-header", scope: scopeIngress, risk: riskMedium, verdict: same,
		text:  "A request field: always takes the canary, never does not, with any other value the next rule decides.",
		parse: nameOf("the name of a field", func(d *dialect) *string { return &d.canaryRule.Header }),
	},
	{
		key: "canary-by-header-value", scope: scopeIngress, risk: riskMedium, verdict: same,
		text: "canary-by-header's field takes the canary if it is exactly this; always and never mean nothing then.",
		parse: func(d *dialect, value string) error {
			if value == "" || !plainPath(value) {
				return fmt.Errorf("%q may hold letters, digits and any of -._~/: only", value)
			}
			d.canaryRule.Value = value
			return nil
		},
	},
	{
		key: "canary-by-header-pattern", scope: scopeIngress, risk: riskMedium, verdict: differs,
		text: "… if it matches this expression, anywhere; without canary-by-header-value.",
		note: "RE2: no look-around, no back-references. An expression that does not compile keeps whoever has the field from the canary, as in ingress-nginx.",
		parse: func(d *dialect, value string) error {
			if value == "" {
				return fmt.Errorf("the expression is empty")
			}
			if err := filter.CheckPattern(value); err != nil {
				d.canaryRule.PatternBroken = true
				return &partly{fmt.Sprintf("not an expression that can be had (%s): who has the field stays with the main Ingress",
					strings.TrimPrefix(err.Error(), "error parsing regexp: "))}
			}
			d.canaryRule.Pattern = value
			return nil
		},
	},
	{
		key: "canary-by-cookie", scope: scopeIngress, risk: riskMedium, verdict: same,
		text:  "A cookie: always takes the canary, never does not, with any other value the weight decides.",
		parse: nameOf("the name of a cookie", func(d *dialect) *string { return &d.canaryRule.Cookie }),
	},
	{
		key: "canary-weight", scope: scopeIngress, risk: riskLow, verdict: same,
		text: "Of canary-weight-total requests that no rule decides the canary takes so many, by chance; default 0.",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, canaryWeightMax)
			if err == nil {
				d.canaryRule.Weight = n
			}
			return err
		},
	},
	{
		key: "canary-weight-total", scope: scopeIngress, risk: riskLow, verdict: same,
		text: "Default 100, and never less.",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, canaryWeightMax)
			if err == nil && n > 100 {
				d.canaryRule.WeightTotal = n
			}
			return err
		},
	},
}

// settleCanary reports rules that mean nothing, and takes from a canary what comes from the main Ingress.
func (f *fragment) settleCanary(prefix string) {
	d := &f.dialect
	if d.canary {
		d.sticky, d.policy.SetsAffinity = false, false
		return
	}
	for _, row := range canaryAnnotations[1:] {
		if f.has(prefix + "/" + row.key) {
			f.refuse(annotationField(prefix+"/"+row.key), "means nothing without %s/canary: \"true\"", prefix)
		}
	}
}

// mergeCanaries gives the canaries' backends to the rules that they are canaries of.
func (b *hostBuild) mergeCanaries() {
	for _, p := range b.canaries {
		for i := range p.rules.paths {
			path := &p.rules.paths[i]
			b.mergeCanary(p, &path.place, path.path, path.kind, path.backend)
		}
		switch {
		case p.rules.fallback == nil:
		case p.rules.bare:
			b.mergeCanary(p, &place{kind: placeDefault}, "/", route.Prefix, *p.rules.fallback)
		default:
			b.refuse(p.fragment, "spec.defaultBackend", "is not used: the Ingress is a canary, whose rules are what counts")
		}
	}
}

func (b *hostBuild) mergeCanary(p part, at *place, path string, kind route.PathType, to backend) {
	main := -1
	if b.out != nil {
		for i := range b.out.Rules {
			if r := &b.out.Rules[i]; r.Path == path && r.Type == kind {
				main = i
				break
			}
		}
	}
	field := at.backend("", "")
	if main < 0 {
		b.refuse(p.fragment, field, "no Ingress but canaries has path %q (%s) of host %q: the canary gets no requests", path, kind, b.host.name)
		return
	}
	r := &b.out.Rules[main]
	if p.ing.Namespace != r.Owner.Namespace && !p.dialect.defaults.crossNamespace {
		b.refuse(p.fragment, field, "is of another namespace than Ingress %s/%s, whose requests it would get; the ConfigMap's allow-cross-namespace-resources would allow it",
			r.Owner.Namespace, r.Owner.Name)
		return
	}
	u := use{fragment: p.fragment, at: *at, service: key{p.ing.Namespace, to.service}, port: to.port,
		speaks: b.owners[main].dialect.speaks, canaryOf: b.host, main: b.owners[main].fragment}
	if u.id = clusterID(u.service, u.port, u.speaks); u.speaks.secure() {
		u.id += u.main.variant()
	}
	if u.id == r.Cluster {
		b.refuse(p.fragment, field, "is the backend of Ingress %s/%s too: a canary needs one of its own", r.Owner.Namespace, r.Owner.Name)
		return
	}
	b.addUse(u)
	r.Canaries = append(r.Canaries, route.Canary{Owner: p.owner, Cluster: u.id, Service: to.service, Port: to.port,
		Sticky: !p.dialect.canaryLegacy, When: p.dialect.canaryRule})
}

// addUse records a use, once for each cluster and Ingress.
func (b *hostBuild) addUse(u use) {
	for i := range b.host.uses {
		if o := &b.host.uses[i]; o.id == u.id && o.fragment == u.fragment {
			return
		}
	}
	b.host.uses = append(b.host.uses, u)
}
