package translate

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluiceproxy/sluice/route"
)

// world draws objects from few names, so that they meet.
type world struct {
	*rand.Rand
	certificates map[string]*corev1.Secret
}

func (w *world) pick(list ...string) string { return list[w.IntN(len(list))] }

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func (w *world) hostName() string {
	return w.pick("", "a.example", "b.example", "*.example", "c.b.example", "*.b.example")
}

func (w *world) ingress(name string) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{ObjectMeta: meta(w.pick("one", "two"), name)}
	if w.chance(50) {
		ing.CreationTimestamp = metav1.NewTime(time.Unix(int64(w.IntN(5)), 0))
	}
	if w.chance(80) {
		class := w.pick("nginx", "nginx", "nginx", "other", "gone")
		ing.Spec.IngressClassName = &class
	}
	if w.chance(40) {
		ing.Annotations = w.annotations()
	}
	if w.chance(20) {
		ing.Spec.DefaultBackend = w.backend()
	}
	for range w.IntN(3) {
		ing.Spec.Rules = append(ing.Spec.Rules, w.rule())
	}
	for range w.IntN(2) {
		tls := networkingv1.IngressTLS{SecretName: w.pick("", "s1", "s2", "s3")}
		for range w.IntN(3) {
			tls.Hosts = append(tls.Hosts, w.hostName())
		}
		ing.Spec.TLS = append(ing.Spec.TLS, tls)
	}
	return ing
}

func (w *world) annotations() map[string]string {
	const p = annotationsPrefixDefault + "/"
	out := map[string]string{}
	for range 1 + w.IntN(3) {
		switch w.IntN(9) {
		case 0:
			out[p+"rewrite-target"] = w.pick("/", "/$1", "/p", "/$host")
		case 1:
			out[p+"use-regex"] = w.pick("true", "false", "maybe")
		case 2:
			out[p+"ssl-passthrough"] = w.pick("true", "false", "maybe")
		case 3:
			out[p+"app-root"] = w.pick("/app", "/other", "bad")
		case 4:
			out[p+"load-balance"] = w.pick("ewma", "round_robin", "chash", "bad")
		case 5:
			out[p+"backend-protocol"] = w.pick("HTTP", "HTTPS", "GRPC")
		case 6:
			out[p+"default-backend"] = w.pick("web", "gone", "bad/name")
		case 7:
			out[p+"proxy-connect-timeout"] = w.pick("1", "2", "x")
		default:
			out[p+w.pick("auth-url", "canary", "unknown", "whitelist-source-range")] = w.pick("true", "false", "10.0.0.0/8")
		}
	}
	return out
}

func (w *world) rule() networkingv1.IngressRule {
	r := networkingv1.IngressRule{Host: w.hostName()}
	if w.chance(10) {
		return r
	}
	r.HTTP = &networkingv1.HTTPIngressRuleValue{}
	for range w.IntN(4) {
		kind := networkingv1.PathType(w.pick("Exact", "Prefix", "ImplementationSpecific", "Prefix", "Odd"))
		p := networkingv1.HTTPIngressPath{Path: w.pick("/", "/p", "/p/(.*)", "/q(", "rel", ""), PathType: &kind, Backend: *w.backend()}
		r.HTTP.Paths = append(r.HTTP.Paths, p)
	}
	return r
}

func (w *world) backend() *networkingv1.IngressBackend {
	if w.chance(5) {
		return &networkingv1.IngressBackend{}
	}
	b := &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: w.pick("web", "api", "ext", "gone")}}
	if w.chance(50) {
		b.Service.Port.Name = w.pick("http", "admin")
	} else {
		b.Service.Port.Number = []int32{0, 80, 81}[w.IntN(3)]
	}
	return b
}

func (w *world) service(name string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: meta(w.pick("one", "two"), name)}
	if name == "ext" {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, w.pick("backend.example", "127.0.0.1")
		return s
	}
	s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt(8000 + w.IntN(2))}}
	if w.chance(50) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "admin", Port: 81})
	}
	return s
}

func (w *world) slice(name string) *discoveryv1.EndpointSlice {
	port, portName := int32(8000), w.pick("http", "admin", "")
	s := &discoveryv1.EndpointSlice{ObjectMeta: meta(w.pick("one", "two"), name), Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}}}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: w.pick("web", "api")}
	for range w.IntN(3) {
		ready := w.chance(80)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.0.%d", w.IntN(300))},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	return s
}

func (w *world) secret(name string) *corev1.Secret {
	names := w.pick("a.example", "*.example", "c.b.example", "*.b.example")
	made := w.certificates[names]
	if made == nil {
		made = &corev1.Secret{Data: map[string][]byte{}}
		made.Data[corev1.TLSCertKey], made.Data[corev1.TLSPrivateKeyKey] = testCertificate(names)
		w.certificates[names] = made
	}
	s := made.DeepCopy()
	s.ObjectMeta, s.Type = meta(w.pick("one", "two"), name), corev1.SecretTypeTLS
	if w.chance(20) {
		delete(s.Data, corev1.TLSPrivateKeyKey)
	}
	return s
}

func (w *world) configMap() *corev1.ConfigMap {
	m := &corev1.ConfigMap{ObjectMeta: meta("one", "config"), Data: map[string]string{}}
	for range w.IntN(3) {
		m.Data[w.pick("proxy-read-timeout", "proxy-body-size", "hsts", "keep-alive", "ssl-redirect", "load-balance")] = w.pick("1", "5", "true", "false", "ewma")
	}
	return m
}

// step changes one thing.
func (w *world) step(o *Objects) {
	switch w.IntN(12) {
	case 0:
		alter(w, &o.Services, w.service, "web", "api", "ext")
	case 1, 2:
		alter(w, &o.EndpointSlices, w.slice, "e1", "e2", "e3")
	case 3, 4:
		alter(w, &o.Secrets, w.secret, "s1", "s2", "s3")
	case 5:
		alter(w, &o.IngressClasses, func(name string) *networkingv1.IngressClass {
			return &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
				networkingv1.AnnotationIsDefaultIngressClass: w.pick("true", "false")}},
				Spec: networkingv1.IngressClassSpec{Controller: w.pick(controllerClassDefault, "example.com/other")}}
		}, "nginx", "other")
	case 6:
		alter(w, &o.ConfigMaps, func(string) *corev1.ConfigMap { return w.configMap() }, "config")
	case 7:
		w.Shuffle(len(o.Ingresses), func(i, j int) { o.Ingresses[i], o.Ingresses[j] = o.Ingresses[j], o.Ingresses[i] })
	default:
		alter(w, &o.Ingresses, w.ingress, "i1", "i2", "i3", "i4", "i5", "i6", "i7")
	}
}

// alter adds, replaces or removes one object of a kind. A name may come to stand twice.
func alter[T metav1.Object](w *world, list *[]T, mk func(string) T, names ...string) {
	o := mk(w.pick(names...))
	i := slices.IndexFunc(*list, func(other T) bool { return keyOf(other) == keyOf(o) })
	switch {
	case i < 0 || w.chance(5):
		*list = slices.Insert(slices.Clone(*list), w.IntN(len(*list)+1), o)
	case w.chance(30):
		*list = slices.Delete(slices.Clone(*list), i, i+1)
	default:
		*list = slices.Clone(*list)
		(*list)[i] = o
	}
}

// TestMemoryChangesNothing changes objects at random and compares a Translator that has seen it all with a new one. What
// is equal to what was there before must be the same pointer.
func TestMemoryChangesNothing(t *testing.T) {
	runs, steps := 60, 60
	if testing.Short() {
		runs = 10
	}
	for seed := range runs {
		w := &world{rand.New(rand.NewPCG(uint64(seed), 1)), map[string]*corev1.Secret{}}
		options := Options{ConfigMap: "one/config", EnableSSLPassthrough: seed%2 == 0, DefaultBackendService: "one/web", DefaultSSLCertificate: "two/s1",
			WatchIngressWithoutClass: seed%3 == 0}
		old, o := New(options), &Objects{}
		var last *route.Config
		for step := range steps {
			w.step(o)
			config, problems := old.Translate(o)
			fresh := New(options)
			want, wantProblems := fresh.Translate(o)
			if !sameMeaning(config, want) {
				t.Fatalf("seed %d, step %d: remembered\n%s\nfresh\n%s", seed, step, render(t, config, old.Process(), problems), render(t, want, fresh.Process(), wantProblems))
			}
			if !slices.Equal(problems, wantProblems) {
				t.Fatalf("seed %d, step %d: problems remembered\n%v\nfresh\n%v", seed, step, problems, wantProblems)
			}
			if !reflect.DeepEqual(old.Process(), fresh.Process()) {
				t.Fatalf("seed %d, step %d: process %+v, fresh %+v", seed, step, old.Process(), fresh.Process())
			}
			keepsPointers(t, last, config)
			holds(t, config, problems)
			if again, _ := old.Translate(o); again != config {
				t.Fatalf("seed %d, step %d: another Config without a change", seed, step)
			}
			last = config
		}
	}
}

// sameMeaning compares all but whether a list is empty or missing.
func sameMeaning(a, b *route.Config) bool {
	return len(a.Hosts) == len(b.Hosts) && (len(a.Hosts) == 0 || reflect.DeepEqual(a.Hosts, b.Hosts)) &&
		len(a.Clusters) == len(b.Clusters) && (len(a.Clusters) == 0 || reflect.DeepEqual(a.Clusters, b.Clusters)) &&
		reflect.DeepEqual(a.DefaultCertificate, b.DefaultCertificate) && a.DefaultBackend == b.DefaultBackend &&
		reflect.DeepEqual(a.Settings, b.Settings)
}

func keepsPointers(t *testing.T, before, after *route.Config) {
	t.Helper()
	if before == nil {
		return
	}
	if before.Settings != after.Settings && reflect.DeepEqual(before.Settings, after.Settings) {
		t.Fatal("equal settings are another pointer")
	}
	hosts := map[string]*route.VirtualHost{}
	for _, h := range before.Hosts {
		hosts[h.Name] = h
	}
	for _, h := range after.Hosts {
		was := hosts[h.Name]
		if was == nil || was == h {
			continue
		}
		if reflect.DeepEqual(was, h) {
			t.Fatalf("host %q is equal and another pointer", h.Name)
		}
		if was.Certificate != h.Certificate && was.Certificate != nil && h.Certificate != nil && reflect.DeepEqual(was.Certificate, h.Certificate) {
			t.Fatalf("the certificate of host %q is equal and another pointer", h.Name)
		}
	}
	clusters := map[string]*route.Cluster{}
	for _, c := range before.Clusters {
		clusters[c.ID] = c
	}
	for _, c := range after.Clusters {
		if was := clusters[c.ID]; was != nil && was != c && reflect.DeepEqual(was, c) {
			t.Fatalf("cluster %q is equal and another pointer", c.ID)
		}
	}
}

// TestHandedOutStays checks that a Config is not written to by later calls.
func TestHandedOutStays(t *testing.T) {
	w := &world{rand.New(rand.NewPCG(7, 7)), map[string]*corev1.Secret{}}
	tr, o := New(Options{WatchIngressWithoutClass: true}), &Objects{}
	type kept struct {
		config   *route.Config
		problems []route.Problem
		text     string
	}
	var all []kept
	for range 40 {
		w.step(o)
		c, p := tr.Translate(o)
		all = append(all, kept{c, p, string(render(t, c, DefaultProcess(), p))})
	}
	for i, k := range all {
		if now := string(render(t, k.config, DefaultProcess(), k.problems)); now != k.text {
			t.Errorf("the result of step %d was\n%s\nand is now\n%s", i, k.text, now)
		}
	}
}

func TestStatusUpdateChangesNothing(t *testing.T) {
	w := &world{rand.New(rand.NewPCG(3, 3)), map[string]*corev1.Secret{}}
	ing := w.ingress("i1")
	ing.Spec.IngressClassName = nil
	ing.Spec.Rules = []networkingv1.IngressRule{{Host: "a.example"}}
	tr := New(Options{WatchIngressWithoutClass: true})
	first, _ := tr.Translate(&Objects{Ingresses: []*networkingv1.Ingress{ing}})
	touched := ing.DeepCopy()
	touched.ResourceVersion = "2"
	touched.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}}
	if second, _ := tr.Translate(&Objects{Ingresses: []*networkingv1.Ingress{touched}}); second != first {
		t.Error("another Config after a change of status")
	}
}
