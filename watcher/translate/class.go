package translate

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/route"
)

const classAnnotation = "kubernetes.io/ingress.class"

// readClasses takes the IngressClasses. It tells whether any changed: whose Ingresses are whose may be another answer then.
func (t *Translator) readClasses(list []*networkingv1.IngressClass) (changed bool) {
	if t.classes.update(list) == nil {
		return false
	}
	var problems []route.Problem
	if presets := t.defaultClasses(); len(presets) > 1 {
		for _, c := range presets {
			problems = append(problems, problem(route.Object{Kind: "IngressClass", Name: c.Name},
				annotationField(networkingv1.AnnotationIsDefaultIngressClass),
				"%d IngressClasses are marked as default; leave the mark on one", len(presets)))
		}
	}
	t.ledger.set("classes", problems)
	return true
}

func (t *Translator) defaultClasses() (presets []*networkingv1.IngressClass) {
	for _, c := range t.classes.by {
		if strings.EqualFold(c.Annotations[networkingv1.AnnotationIsDefaultIngressClass], "true") {
			presets = append(presets, c)
		}
	}
	return presets
}

// accepts tells whether an Ingress is this proxy's to serve. The class that the spec names comes first, then the
// annotation that came before it, then the default class; --watch-ingress-without-class takes what says nothing.
func (t *Translator) accepts(ing *networkingv1.Ingress) (mine bool, problems []route.Problem) {
	owner := route.Object{Kind: "Ingress", Namespace: ing.Namespace, Name: ing.Name}
	if name := ing.Spec.IngressClassName; name != nil {
		c, exists := t.classes.by[key{"", *name}]
		switch {
		case exists:
			mine = t.ours(c)
		case *name == t.options.IngressClass:
			mine = true
		default:
			problems = []route.Problem{problem(owner, "spec.ingressClassName",
				"there is no IngressClass %q; create it, or name one that exists (or %s)", *name, t.options.IngressClass)}
		}
	} else if class, ok := ing.Annotations[classAnnotation]; ok {
		mine = class == t.options.IngressClass
	} else {
		mine = t.options.WatchIngressWithoutClass || t.defaultIsOurs()
	}
	if mine && t.options.DisableCatchAll && ing.Spec.DefaultBackend != nil && len(ing.Spec.Rules) == 0 {
		return false, []route.Problem{problem(owner, "spec.defaultBackend",
			"a catch-all Ingress is not taken (--disable-catch-all); give it rules with hosts")}
	}
	return mine, problems
}

func (t *Translator) ours(c *networkingv1.IngressClass) bool {
	return c.Spec.Controller == t.options.ControllerClass ||
		t.options.IngressClassByName && c.Name == t.options.IngressClass
}

func (t *Translator) defaultIsOurs() bool {
	for _, c := range t.defaultClasses() {
		if t.ours(c) {
			return true
		}
	}
	return false
}
