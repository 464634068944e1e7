package translate

import (
	"bytes"
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/route"
)

// TestEveryKeyHasItsGolden holds the golden pairs against the tables: every key that does anything stands in an input whose
// translation is another without it. For those that do nothing but a Problem there is TestEveryKeyNotTakenIsTold.
func TestEveryKeyHasItsGolden(t *testing.T) {
	told := tellingKeys(t)
	for i := range annotations {
		a := &annotations[i]
		for _, name := range append([]string{a.key}, a.aliases...) {
			if a.own {
				name = ownPrefix + "/" + name
			}
			if !told[name] && works(a.verdict) {
				t.Errorf("no golden input shows what the annotation %s does: add a value other than the default to one in testdata", name)
			}
		}
	}
	for i := range configKeys {
		if k := &configKeys[i]; !told["ConfigMap "+k.key] && works(k.verdict) {
			t.Errorf("no golden input shows what the ConfigMap's key %s does: add a value other than the default to one in testdata", k.key)
		}
	}
}

func works(v verdict) bool { return v == same || v == differs || v == own }

// TestEveryKeyNotTakenIsTold: a key that is refused, or not built yet, is a Problem of its object that names the key; one
// without effect is none.
func TestEveryKeyNotTakenIsTold(t *testing.T) {
	const value = "true"
	for i := range annotations {
		a := &annotations[i]
		if works(a.verdict) {
			continue
		}
		ing := &networkingv1.Ingress{ObjectMeta: meta("shop", "web"), Spec: networkingv1.IngressSpec{
			IngressClassName: new("nginx"), Rules: []networkingv1.IngressRule{{Host: "web.example"}}}}
		ing.Annotations = map[string]string{annotationsPrefixDefault + "/" + a.key: value}
		_, problems := New(Options{}).Translate(&Objects{Ingresses: []*networkingv1.Ingress{ing}})
		checkTold(t, "annotation", a.key, problems, annotationField(annotationsPrefixDefault+"/"+a.key), a.verdict == noEffect || slices.Contains(a.idle, value))
	}
	for i := range configKeys {
		k := &configKeys[i]
		if works(k.verdict) {
			continue
		}
		m := &corev1.ConfigMap{ObjectMeta: meta("a", "b"), Data: map[string]string{k.key: value}}
		_, problems := New(Options{ConfigMap: "a/b"}).Translate(&Objects{ConfigMaps: []*corev1.ConfigMap{m}})
		checkTold(t, "ConfigMap", k.key, problems, k.key, k.verdict == noEffect || slices.Contains(k.idle, value))
	}
}

func checkTold(t *testing.T, table, key string, problems []route.Problem, field string, quiet bool) {
	t.Helper()
	told := slices.ContainsFunc(problems, func(p route.Problem) bool { return strings.Contains(p.String(), field) })
	if told == quiet {
		t.Errorf("%s, %s: told %v: %v", table, key, told, problems)
	}
}

// tellingKeys are the annotations and the keys of ConfigMaps ("ConfigMap key") without which a golden translation is another.
func tellingKeys(t *testing.T) map[string]bool {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, in := range inputs {
		text, err := os.ReadFile(in)
		if err != nil {
			t.Fatal(err)
		}
		options, objects, err := readManifests(text)
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		translation := func() []byte {
			tr := New(options)
			config, problems := tr.Translate(objects)
			return render(t, config, tr.Process(), problems)
		}
		whole := translation()
		for _, ing := range objects.Ingresses {
			for full := range ing.Annotations {
				name := strings.TrimPrefix(full, cmp.Or(options.AnnotationsPrefix, annotationsPrefixDefault)+"/")
				if told[name] {
					continue
				}
				all := ing.Annotations
				ing.Annotations = without(all, full)
				told[name] = !bytes.Equal(translation(), whole)
				ing.Annotations = all
			}
		}
		i := slices.IndexFunc(objects.ConfigMaps, func(m *corev1.ConfigMap) bool { return m.Namespace+"/"+m.Name == options.ConfigMap })
		if i < 0 {
			continue
		}
		m := objects.ConfigMaps[i]
		for key := range m.Data {
			if told["ConfigMap "+key] {
				continue
			}
			all := m.Data
			m.Data = without(all, key)
			told["ConfigMap "+key] = !bytes.Equal(translation(), whole)
			m.Data = all
		}
	}
	return told
}

func without(all map[string]string, key string) map[string]string {
	rest := maps.Clone(all)
	delete(rest, key)
	return rest
}
