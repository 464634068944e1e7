package watcher

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is dropped from the objects of a cluster before they are kept: all that nobody reads. Most of an object's bytes are
// its history and its status, and most of its changes too.

// keptAnnotations are read beyond those of --annotations-prefix and our own.
var keptAnnotations = []string{"kubernetes.io/ingress.class", networkingv1.AnnotationIsDefaultIngressClass}

// ownAnnotations is what the names of our own annotations begin with.
const ownAnnotations = "sluice.dev/"

// trimMeta keeps name, namespace, uid, age, and what keep says of the annotations.
func trimMeta(m *metav1.ObjectMeta, keep func(string) bool) {
	m.Labels, m.OwnerReferences, m.Finalizers, m.ManagedFields = nil, nil, nil, nil
	m.GenerateName, m.Generation, m.DeletionGracePeriodSeconds = "", 0, nil
	var kept map[string]string
	for key, value := range m.Annotations {
		if keep != nil && keep(key) {
			if kept == nil {
				kept = make(map[string]string)
			}
			kept[key] = value
		}
	}
	m.Annotations = kept
}

func trimIngress(prefix string) func(*networkingv1.Ingress) {
	keep := func(key string) bool {
		return strings.HasPrefix(key, prefix+"/") || strings.HasPrefix(key, ownAnnotations) || slices.Contains(keptAnnotations, key)
	}
	return func(o *networkingv1.Ingress) {
		trimMeta(&o.ObjectMeta, keep)
		o.Status = networkingv1.IngressStatus{}
	}
}

func trimClass(o *networkingv1.IngressClass) {
	trimMeta(&o.ObjectMeta, func(key string) bool { return slices.Contains(keptAnnotations, key) })
	o.Spec.Parameters = nil
}

func trimService(o *corev1.Service) {
	trimMeta(&o.ObjectMeta, nil)
	s := &o.Spec
	*s = corev1.ServiceSpec{Type: s.Type, Ports: s.Ports, Selector: s.Selector, ClusterIP: s.ClusterIP,
		ExternalName: s.ExternalName, ExternalIPs: s.ExternalIPs}
	o.Status.Conditions = nil // the addresses of a load balancer may be published
}

func trimSlice(o *discoveryv1.EndpointSlice) {
	labels := map[string]string{}
	for _, key := range []string{discoveryv1.LabelServiceName, discoveryv1.LabelManagedBy} {
		if value, ok := o.Labels[key]; ok {
			labels[key] = value
		}
	}
	trimMeta(&o.ObjectMeta, nil)
	o.Labels = labels
	for i := range o.Endpoints {
		e := &o.Endpoints[i]
		kept := discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions}
		if e.TargetRef != nil {
			kept.TargetRef = &corev1.ObjectReference{Kind: e.TargetRef.Kind}
		}
		*e = kept
	}
}

func trimConfigMap(o *corev1.ConfigMap) {
	trimMeta(&o.ObjectMeta, nil)
	o.BinaryData = nil
}

func trimNamespace(o *corev1.Namespace) {
	labels := o.Labels
	trimMeta(&o.ObjectMeta, nil)
	o.Labels = labels
	o.Spec, o.Status = corev1.NamespaceSpec{}, corev1.NamespaceStatus{}
}

// trimNode keeps the addresses.
func trimNode(o *corev1.Node) {
	trimMeta(&o.ObjectMeta, nil)
	o.Spec = corev1.NodeSpec{}
	o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses}
}

// trimPod keeps where it runs and whether it is ready.
func trimPod(o *corev1.Pod) {
	going := o.DeletionTimestamp
	trimMeta(&o.ObjectMeta, nil)
	o.DeletionTimestamp = going
	o.Spec = corev1.PodSpec{NodeName: o.Spec.NodeName}
	var ready []corev1.PodCondition
	for _, c := range o.Status.Conditions {
		if c.Type == corev1.PodReady {
			ready = append(ready, corev1.PodCondition{Type: c.Type, Status: c.Status})
		}
	}
	o.Status = corev1.PodStatus{Phase: o.Status.Phase, Conditions: ready}
}
