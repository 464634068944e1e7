package translate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The size that the goals are for: 100,000 paths over 10,000 hosts.
const (
	benchIngresses = 10_000
	benchPaths     = 10
)

// cluster10k is a cluster of 10,000 Ingresses with a host, TLS, a Service and ten paths each, in 100 namespaces. A third
// rewrites.
func cluster10k() *Objects {
	o := &Objects{}
	chain, private := testCertificate("*.shop.example")
	for i := range benchIngresses {
		namespace, name := fmt.Sprintf("team-%02d", i%100), fmt.Sprintf("app-%05d", i)
		o.Ingresses = append(o.Ingresses, benchIngress(namespace, name, i))
		o.Services = append(o.Services, &corev1.Service{ObjectMeta: meta(namespace, name), Spec: corev1.ServiceSpec{
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt(8080)}}}})
		o.EndpointSlices = append(o.EndpointSlices, benchSlice(namespace, name, i))
		o.Secrets = append(o.Secrets, &corev1.Secret{ObjectMeta: meta(namespace, name+"-tls"), Type: corev1.SecretTypeTLS,
			Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: private}})
	}
	return o
}

func benchIngress(namespace, name string, i int) *networkingv1.Ingress {
	class, kind := "nginx", networkingv1.PathTypePrefix
	ing := &networkingv1.Ingress{ObjectMeta: meta(namespace, name)}
	ing.CreationTimestamp = metav1.NewTime(time.Unix(int64(1_700_000_000+i), 0))
	ing.Annotations = map[string]string{
		annotationsPrefixDefault + "/proxy-body-size":    "8m",
		annotationsPrefixDefault + "/proxy-read-timeout": "120",
	}
	tail := ""
	if i%3 == 0 {
		ing.Annotations[annotationsPrefixDefault+"/rewrite-target"] = "/$2"
		kind, tail = networkingv1.PathTypeImplementationSpecific, "(/|$)(.*)"
	}
	rule := networkingv1.IngressRule{Host: name + ".shop.example"}
	rule.HTTP = &networkingv1.HTTPIngressRuleValue{}
	for p := range benchPaths {
		rule.HTTP.Paths = append(rule.HTTP.Paths, networkingv1.HTTPIngressPath{
			Path: "/api/v1/resource-" + strconv.Itoa(p) + tail, PathType: &kind,
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name,
				Port: networkingv1.ServiceBackendPort{Number: 80}}},
		})
	}
	ing.Spec = networkingv1.IngressSpec{IngressClassName: &class, Rules: []networkingv1.IngressRule{rule},
		TLS: []networkingv1.IngressTLS{{Hosts: []string{rule.Host}, SecretName: name + "-tls"}}}
	return ing
}

func benchSlice(namespace, name string, i int) *discoveryv1.EndpointSlice {
	port, portName := int32(8080), "http"
	s := &discoveryv1.EndpointSlice{ObjectMeta: meta(namespace, name+"-1"), AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}}}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: name}
	for e := range 3 {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", e, i/256, i%256)}})
	}
	return s
}

// BenchmarkFull is a start: everything is new. Goal: at most 0.8 s.
func BenchmarkFull(b *testing.B) {
	o := cluster10k()
	for b.Loop() {
		c, problems := New(Options{}).Translate(o)
		if len(c.Hosts) != benchIngresses || len(problems) != 0 {
			b.Fatalf("%d hosts, problems %v", len(c.Hosts), problems)
		}
	}
}

// BenchmarkChange is one changed object among 10,000 of its kind. Goal for an Ingress: at most 10 ms.
func BenchmarkChange(b *testing.B) {
	o := cluster10k()
	tr := New(Options{})
	tr.Translate(o)
	ingresses := [2]*networkingv1.Ingress{o.Ingresses[5000], o.Ingresses[5000].DeepCopy()}
	ingresses[1].Annotations[annotationsPrefixDefault+"/proxy-read-timeout"] = "121"
	endpoints := [2]*discoveryv1.EndpointSlice{o.EndpointSlices[5000], o.EndpointSlices[5000].DeepCopy()}
	endpoints[1].Endpoints = endpoints[1].Endpoints[:2]
	secrets := [2]*corev1.Secret{o.Secrets[5000], o.Secrets[5000].DeepCopy()}
	secrets[1].Data[corev1.TLSCertKey], secrets[1].Data[corev1.TLSPrivateKeyKey] = testCertificate("*.shop.example")
	run := func(name string, change func()) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				change()
				before := tr.last
				if c, _ := tr.Translate(o); (c == before) != (name == "nothing") {
					b.Fatal("the change had no effect, or nothing had one")
				}
			}
		})
	}
	run("nothing", func() {})
	run("ingress", func() { toggle(o.Ingresses, 5000, ingresses) })
	run("endpoints", func() { toggle(o.EndpointSlices, 5000, endpoints) })
	run("secret", func() { toggle(o.Secrets, 5000, secrets) })
	last := o.Ingresses[benchIngresses-1]
	run("ingress added or removed", func() {
		if len(o.Ingresses) < benchIngresses {
			o.Ingresses = append(slices.Clip(o.Ingresses), last)
		} else {
			o.Ingresses = o.Ingresses[:benchIngresses-1]
		}
	})
	r := rand.New(rand.NewPCG(1, 1))
	run("ingress, lists in another order", func() {
		at := slices.IndexFunc(o.Ingresses, func(ing *networkingv1.Ingress) bool { return ing == ingresses[0] || ing == ingresses[1] })
		toggle(o.Ingresses, at, ingresses)
		shuffle(r, o.Ingresses)
		shuffle(r, o.Services)
		shuffle(r, o.EndpointSlices)
		shuffle(r, o.Secrets)
	})
}

// toggle puts the other one of two objects in place.
func toggle[T comparable](list []T, at int, of [2]T) {
	if list[at] == of[0] {
		list[at] = of[1]
	} else {
		list[at] = of[0]
	}
}

func shuffle[T any](r *rand.Rand, list []T) {
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}
