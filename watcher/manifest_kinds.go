package watcher

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"github.com/sluiceproxy/sluice/watcher/translate"
)

// kind is a kind of object that is read.
type kind struct {
	version schema.GroupVersion
	name    string
	empty   runtime.Object
	cluster bool // it has no namespace
	add     func(*translate.Objects, metav1.Object)
}

// kinds is the table of what is read; every other kind is ignored.
var kinds = []kind{
	{networkingv1.SchemeGroupVersion, "Ingress", &networkingv1.Ingress{}, false, func(l *translate.Objects, o metav1.Object) {
		l.Ingresses = append(l.Ingresses, o.(*networkingv1.Ingress))
	}},
	{networkingv1.SchemeGroupVersion, "IngressClass", &networkingv1.IngressClass{}, true, func(l *translate.Objects, o metav1.Object) {
		l.IngressClasses = append(l.IngressClasses, o.(*networkingv1.IngressClass))
	}},
	{corev1.SchemeGroupVersion, "Service", &corev1.Service{}, false, func(l *translate.Objects, o metav1.Object) {
		l.Services = append(l.Services, o.(*corev1.Service))
	}},
	{discoveryv1.SchemeGroupVersion, "EndpointSlice", &discoveryv1.EndpointSlice{}, false, func(l *translate.Objects, o metav1.Object) {
		l.EndpointSlices = append(l.EndpointSlices, o.(*discoveryv1.EndpointSlice))
	}},
	{corev1.SchemeGroupVersion, "Secret", &corev1.Secret{}, false, func(l *translate.Objects, o metav1.Object) {
		l.Secrets = append(l.Secrets, o.(*corev1.Secret))
	}},
	{corev1.SchemeGroupVersion, "ConfigMap", &corev1.ConfigMap{}, false, func(l *translate.Objects, o metav1.Object) {
		l.ConfigMaps = append(l.ConfigMaps, o.(*corev1.ConfigMap))
	}},
}

// kindOf finds a kind by its name; ours tells whether apiVersion is that of the kind. A kind of the same name in a foreign
// group is none of ours. nil: to be ignored.
func kindOf(apiVersion, name string) (k *kind, ours bool) {
	version, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, false
	}
	for i := range kinds {
		k := &kinds[i]
		if k.name == name && (version.Group == k.version.Group || version.Group == "extensions") {
			return k, version == k.version
		}
	}
	return nil, false
}

// serializer decodes the kinds of the table, strictly.
var serializer = func() *json.Serializer {
	scheme := runtime.NewScheme()
	for _, k := range kinds {
		scheme.AddKnownTypeWithName(k.version.WithKind(k.name), k.empty)
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Strict: true})
}()
