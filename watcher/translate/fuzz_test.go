package translate

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// holds checks what every result must hold to, whatever the objects were.
func holds(t *testing.T, c *route.Config, problems []route.Problem) {
	t.Helper()
	clusters := map[string]bool{}
	for _, cl := range c.Clusters {
		if clusters[cl.ID] {
			t.Errorf("cluster %q stands twice", cl.ID)
		}
		clusters[cl.ID] = true
		for _, a := range cl.Endpoints {
			if (a.Name == "") != a.Addr.IsValid() || a.Name != "" && a.Port == 0 {
				t.Errorf("cluster %q has endpoint %+v", cl.ID, a)
			}
		}
	}
	hosts := map[string]bool{}
	for _, h := range c.Hosts {
		if hosts[h.Name] || h.Name != strings.ToLower(h.Name) {
			t.Errorf("host %q stands twice or is not in lower case", h.Name)
		}
		hosts[h.Name] = true
		if h.Passthrough != "" && !clusters[h.Passthrough] {
			t.Errorf("host %q passes through to %q, which is not there", h.Name, h.Passthrough)
		}
		compiles(t, h.Filters)
		for i := range h.Rules {
			r := &h.Rules[i]
			if !clusters[r.Cluster] || r.Fallback != "" && !clusters[r.Fallback] || r.Path == "" || r.Path[0] != '/' {
				t.Errorf("host %q has rule %+v", h.Name, r)
			}
			for _, c := range r.Canaries {
				if _, err := l7.NewCanary(nil, "", false, c.When); !clusters[c.Cluster] || c.Cluster == r.Cluster || err != nil {
					t.Errorf("host %q has canary %+v (%v)", h.Name, c, err)
				}
			}
			if m := r.Mirror; m != nil {
				if _, err := upstream.ParseKey(m.Target); !clusters[m.Cluster] || m.Host == "" || err != nil {
					t.Errorf("host %q has mirror %+v (%v)", h.Name, m, err)
				}
			}
			compiles(t, r.Filters)
		}
	}
	for _, p := range problems {
		if p.Object.Kind == "" || p.Field == "" || p.Reason == "" || strings.HasSuffix(p.Reason, ".") {
			t.Errorf("problem %+v", p)
		}
	}
}

// compiles: nothing is handed on that route.Compile would refuse.
func compiles(t *testing.T, filters []filter.Config) {
	t.Helper()
	for _, f := range filters {
		if _, err := f.Compile(&filter.State{}); err != nil {
			t.Errorf("%T%+v: %v", f, f, err)
		}
	}
}

// FuzzConfig draws objects and puts a string into some of their fields: no panic, and the same as from memory.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{"", "/", "/(.*)", "/a(", "true", "10.0.0.0/8", "*.example", "a\nb", "\x00", "UPPER", "999999999999999999999", "nginx.ingress.kubernetes.io/", "$9", "://", "CERT"} {
		f.Add(uint64(1), s)
		f.Add(uint64(2), s)
	}
	certificates := map[string]*corev1.Secret{}
	f.Fuzz(func(t *testing.T, seed uint64, s string) {
		w := &world{rand.New(rand.NewPCG(seed, 0)), certificates}
		o := &Objects{}
		for range 30 {
			w.step(o)
		}
		for _, ing := range o.Ingresses {
			w.spoil(ing, s)
		}
		for _, m := range o.ConfigMaps {
			m.Data[configKeys[w.IntN(len(configKeys))].key] = s
			m.Data[s] = s
		}
		for _, service := range o.Services {
			if w.chance(30) {
				service.Spec.ExternalName = s
			}
		}
		for _, secret := range o.Secrets {
			if w.chance(30) {
				secret.Data[corev1.TLSCertKey] = append([]byte(s), secret.Data[corev1.TLSCertKey]...)
			}
		}
		options := Options{ConfigMap: "one/config", EnableSSLPassthrough: true, WatchIngressWithoutClass: true, DefaultBackendService: s}
		tr := New(options)
		c, problems := tr.Translate(o)
		holds(t, c, problems)
		w.step(o)
		c, problems = tr.Translate(o)
		holds(t, c, problems)
		if fresh, _ := New(options).Translate(o); !sameMeaning(c, fresh) {
			t.Error("memory changes the result")
		}
	})
}

// spoil puts s into one field of an Ingress.
func (w *world) spoil(ing *networkingv1.Ingress, s string) {
	if ing.Annotations == nil {
		ing.Annotations = map[string]string{}
	}
	a := &annotations[w.IntN(len(annotations))]
	switch w.IntN(8) {
	case 0, 1, 2:
		ing.Annotations[annotationsPrefixDefault+"/"+a.key] = s
	case 3:
		ing.Annotations[annotationsPrefixDefault+"/"+s] = "true"
		ing.Annotations[ownPrefix+"/"+s] = s
		ing.Annotations[s] = s
	case 4:
		ing.Spec.IngressClassName = &s
	default:
		kind := networkingv1.PathType(w.pick("Exact", "Prefix", "ImplementationSpecific", s))
		b := &networkingv1.IngressServiceBackend{Name: w.pick("web", s), Port: networkingv1.ServiceBackendPort{Name: w.pick("http", s)}}
		rule := networkingv1.IngressRule{Host: w.pick("a.example", s)}
		rule.HTTP = &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: w.pick("/", s), PathType: &kind,
			Backend: networkingv1.IngressBackend{Service: b}}}}
		ing.Spec.Rules = append(ing.Spec.Rules, rule)
		ing.Spec.TLS = append(ing.Spec.TLS, networkingv1.IngressTLS{Hosts: []string{s}, SecretName: w.pick("s1", s)})
	}
}

// FuzzManifests decodes anything that looks like manifests.
func FuzzManifests(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, in := range inputs {
		text, err := os.ReadFile(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		options, objects, err := readManifests(text)
		if err != nil {
			t.Skip()
		}
		c, problems := New(options).Translate(objects)
		holds(t, c, problems)
	})
}
