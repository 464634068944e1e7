package watcher

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strconv"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// The size that the goals are for: 100,000 paths of 10,000 Ingresses, each with a host and a Service of its own.
const (
	manyIngresses = 10_000
	manyPaths     = 10
)

// Goals of translate, compile and swap together, at that size.
const (
	goalFull = 1500 * time.Millisecond
	goalOne  = 20 * time.Millisecond
)

// secrets are how many certificates there are: one that all Ingresses of a namespace share, or one each.
var secrets = []struct {
	name string
	own  bool
}{{"shared", false}, {"own", true}}

// manyState is a cluster of that size, in 100 namespaces. A third of the Ingresses rewrites.
func manyState(tb testing.TB, ownSecrets bool) *State {
	o := translate.Objects{}
	for i := range manyIngresses {
		namespace, name := fmt.Sprintf("team-%02d", i%100), fmt.Sprintf("app-%05d", i)
		secret := "wildcard"
		if ownSecrets {
			secret = name
		}
		if ownSecrets || i < 100 {
			o.Secrets = append(o.Secrets, manySecret(tb, namespace, secret))
		}
		o.Ingresses = append(o.Ingresses, manyIngress(namespace, name, secret, i))
		o.Services = append(o.Services, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}}}})
		o.EndpointSlices = append(o.EndpointSlices, manySlice(namespace, name, i))
	}
	return &State{Objects: o}
}

func manyIngress(namespace, name, secret string, i int) *networkingv1.Ingress {
	class, kind := "nginx", networkingv1.PathTypePrefix
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	ing.CreationTimestamp = metav1.NewTime(time.Unix(int64(1_700_000_000+i), 0))
	ing.Annotations = map[string]string{"nginx.ingress.kubernetes.io/proxy-body-size": "8m", "nginx.ingress.kubernetes.io/proxy-read-timeout": "120"}
	tail := ""
	if i%3 == 0 {
		ing.Annotations["nginx.ingress.kubernetes.io/rewrite-target"] = "/$2"
		kind, tail = networkingv1.PathTypeImplementationSpecific, "(/|$)(.*)"
	}
	rule := networkingv1.IngressRule{Host: name + ".shop.example", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{}}}
	for p := range manyPaths {
		rule.HTTP.Paths = append(rule.HTTP.Paths, networkingv1.HTTPIngressPath{
			Path: "/api/v1/resource-" + strconv.Itoa(p) + tail, PathType: &kind,
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name, Port: networkingv1.ServiceBackendPort{Number: 80}}},
		})
	}
	ing.Spec = networkingv1.IngressSpec{IngressClassName: &class, Rules: []networkingv1.IngressRule{rule},
		TLS: []networkingv1.IngressTLS{{Hosts: []string{rule.Host}, SecretName: secret}}}
	return ing
}

func manySlice(namespace, name string, i int) *discoveryv1.EndpointSlice {
	port, portName := int32(8080), "http"
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-1"}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}}}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: name}
	for e := range 3 {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", e, i/256, i%256)}})
	}
	return s
}

// manySecret is a key pair that no other Secret has.
func manySecret(tb testing.TB, namespace, name string) *corev1.Secret {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"*.shop.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}}
}

// office is a Controller without a source: states are applied one by one, as Run does it.
func office() *Controller {
	backends, work := &upstream.Env{}, fastpath.NewWork(2)
	return NewController(ControllerConfig{
		Translator: func(yield func()) Translator { return translate.New(translate.Options{Yield: yield}) },
		Store:      route.NewStore(),
		Env: route.Env{Loops: 2, NewCluster: func(id string, s upstream.Settings) *upstream.Cluster {
			return upstream.NewCluster(id, backends, s)
		}, Share: work.Share},
		Work: work,
		Log:  slog.New(slog.DiscardHandler),
	})
}

// BenchmarkApplyFull is a start: everything is new. Goal: goalFull.
func BenchmarkApplyFull(b *testing.B) {
	for _, c := range secrets {
		b.Run(c.name, func(b *testing.B) {
			s := manyState(b, c.own)
			start := cpuTime()
			for b.Loop() {
				k := office()
				k.apply(s)
				served(b, k)
			}
			reportCPU(b, start)
			b.ReportMetric(float64(goalFull), "goal-ns")
		})
	}
}

// BenchmarkApplyOne is one changed Ingress of 10,000. Goal: goalOne.
func BenchmarkApplyOne(b *testing.B) {
	for _, c := range secrets {
		b.Run(c.name, func(b *testing.B) {
			s, k := manyState(b, c.own), office()
			k.apply(s)
			served(b, k)
			start, n := cpuTime(), 0
			for b.Loop() {
				n++
				s = changed(s, n)
				k.apply(s)
			}
			reportCPU(b, start)
			b.ReportMetric(float64(goalOne), "goal-ns")
		})
	}
}

// changed is the state after one Ingress took another annotation.
func changed(s *State, n int) *State {
	next := *s
	next.Objects.Ingresses = append([]*networkingv1.Ingress(nil), s.Objects.Ingresses...)
	i := n * 997 % manyIngresses
	ing := next.Objects.Ingresses[i].DeepCopy()
	ing.Annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] = strconv.Itoa(200 + n%1000)
	next.Objects.Ingresses[i] = ing
	return &next
}

// served checks that everything is in place.
func served(tb testing.TB, k *Controller) {
	tb.Helper()
	hosts, certificates := 0, 0
	for h := range k.Store.Load().Hosts() {
		hosts++
		if h.Certificate != nil {
			certificates++
		}
	}
	if problems := k.Problems(); hosts != manyIngresses || certificates != manyIngresses || len(problems) > 0 {
		tb.Fatalf("%d hosts, %d certificates, problems %.300v", hosts, certificates, problems)
	}
}

// cpuTime is what the process has had of the processors. On a machine that is shared, it tells more than the clock.
func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func reportCPU(b *testing.B, start time.Duration) {
	b.ReportMetric(float64(cpuTime()-start)/1e6/float64(b.N), "cpu-ms/op")
}
