package translate

import (
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
)

// TestDerivedHostsFollowTheConfigMap: a host that redirects to or from www is made of the ConfigMap too, also where the
// host that asks for it has not changed; and it stays the same pointer while nothing has.
func TestDerivedHostsFollowTheConfigMap(t *testing.T) {
	ing := &networkingv1.Ingress{ObjectMeta: meta("one", "web")}
	ing.Annotations = map[string]string{annotationsPrefixDefault + "/from-to-www-redirect": "true"}
	ing.Spec.Rules = []networkingv1.IngressRule{{Host: "a.example", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
		Paths: []networkingv1.HTTPIngressPath{{Path: "/", Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}
	configMap := func(code string) []*corev1.ConfigMap {
		return []*corev1.ConfigMap{{ObjectMeta: meta("one", "config"), Data: map[string]string{"http-redirect-code": code}}}
	}
	tr := New(Options{ConfigMap: "one/config", WatchIngressWithoutClass: true})
	o := &Objects{Ingresses: []*networkingv1.Ingress{ing}, ConfigMaps: configMap("301")}
	find := func() *route.VirtualHost {
		c, _ := tr.Translate(o)
		for _, h := range c.Hosts {
			if h.Name == "www.a.example" {
				return h
			}
		}
		t.Fatal("there is no www.a.example")
		return nil
	}
	code := func(h *route.VirtualHost) int { return h.Filters[len(h.Filters)-1].(filter.HostRedirect).Status }
	first := find()
	if find() != first {
		t.Error("another pointer, and nothing has changed")
	}
	o.ConfigMaps = configMap("307")
	if got := code(find()); code(first) != 301 || got != 307 {
		t.Errorf("status %d, then %d", code(first), got)
	}
}

// TestConnectTimeoutFollowsTheConfigMap: clusters have the ConfigMap's proxy-connect-timeout, the one that it has now.
func TestConnectTimeoutFollowsTheConfigMap(t *testing.T) {
	ing := &networkingv1.Ingress{ObjectMeta: meta("one", "web")}
	ing.Spec.DefaultBackend = &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}
	tr := New(Options{ConfigMap: "one/config", WatchIngressWithoutClass: true})
	for _, want := range []time.Duration{time.Second, 7 * time.Second, 7 * time.Second, 2 * time.Second} {
		m := &corev1.ConfigMap{ObjectMeta: meta("one", "config"), Data: map[string]string{"proxy-connect-timeout": strconv.Itoa(int(want / time.Second))}}
		c, _ := tr.Translate(&Objects{Ingresses: []*networkingv1.Ingress{ing}, ConfigMaps: []*corev1.ConfigMap{m}})
		if len(c.Clusters) != 1 || c.Clusters[0].Settings.ConnectTimeout != want {
			t.Errorf("%+v, want one cluster with %v", c.Clusters, want)
		}
	}
}
