package translate

import (
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

// longPattern has few bytes and many steps, once its repetition is written out.
const longPattern = "(?:a?a?a?a?a?){1000}!"

// TestExpressionsAreBounded: an expression that costs everybody is none.
func TestExpressionsAreBounded(t *testing.T) {
	for key, value := range map[string]string{"canary-by-header-pattern": longPattern, "auth-tls-match-cn": "CN=" + longPattern} {
		for value, fits := range map[string]bool{value: false, strings.ReplaceAll(value, "1000", "10"): true, value + strings.Repeat("a", 1024): false} {
			ing := benchIngress("team", "app", 0)
			for k, v := range map[string]string{"canary": "true", "canary-by-header": "x", "auth-tls-secret": "none", key: value} {
				ing.Annotations[annotationsPrefixDefault+"/"+k] = v
			}
			o := &Objects{}
			o.Ingresses = append(o.Ingresses, ing)
			_, problems := New(Options{}).Translate(o)
			told := false
			for _, p := range problems {
				told = told || strings.Contains(p.Field, "/"+key)
			}
			if told == fits {
				t.Errorf("%s: %.60q: told %v: %v", key, value, told, problems)
			}
		}
	}
}

// TestAliasesAreBounded: what an Ingress's aliases multiply is bounded, and each of its hosts is told once.
func TestAliasesAreBounded(t *testing.T) {
	aliases := func(n int) string {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("alias-%d.example", i))
		}
		return strings.Join(names, ",")
	}
	for _, k := range []struct{ names, hosts, paths, aliases, problems int }{
		{3, 1, 1, 3, 0},
		{aliasesMax, 1, 1, aliasesMax, 0},
		{aliasesMax + 1, 1, 1, 0, 1},
		{aliasesMax, 1, 100, aliasRoutesMax / 100, 1},
		{2, 50, 1, 2, 49},
	} {
		ing := benchIngress("team", "app", 0)
		ing.Annotations = map[string]string{annotationsPrefixDefault + "/server-alias": aliases(k.names)}
		path := ing.Spec.Rules[0].HTTP.Paths[0]
		var http networkingv1.HTTPIngressRuleValue
		for i := range k.paths {
			path.Path = fmt.Sprintf("/%d", i)
			http.Paths = append(http.Paths, path)
		}
		ing.Spec.Rules = nil
		for i := range k.hosts {
			ing.Spec.Rules = append(ing.Spec.Rules, networkingv1.IngressRule{Host: fmt.Sprintf("host-%d.example", i),
				IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &http}})
		}
		o := &Objects{}
		o.Ingresses = append(o.Ingresses, ing)
		config, problems := New(Options{}).Translate(o)
		got, told := 0, 0
		for _, h := range config.Hosts {
			if strings.HasPrefix(h.Name, "alias-") {
				got++
			}
		}
		for _, p := range problems {
			if strings.Contains(p.Field, "server-alias") {
				told++
			}
		}
		if got != k.aliases || told != k.problems {
			t.Errorf("%+v: %d aliases, %d problems", k, got, told)
		}
	}
}
