package watcher

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// setDefaults fills in what the API server fills in when it takes an object, as far as it means something here. Nobody
// else has seen the object yet.
func setDefaults(o metav1.Object, k *kind) {
	o.SetManagedFields(nil) // long, and nobody asks
	switch {
	case k.cluster:
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(metav1.NamespaceDefault)
	}
	switch o := o.(type) {
	case *corev1.Service:
		setServiceDefaults(o)
	case *corev1.Secret:
		if o.Data == nil && len(o.StringData) > 0 {
			o.Data = make(map[string][]byte, len(o.StringData))
		}
		for key, value := range o.StringData {
			o.Data[key] = []byte(value)
		}
		o.StringData = nil
	case *discoveryv1.EndpointSlice:
		setSliceDefaults(o)
	}
}

func setServiceDefaults(s *corev1.Service) {
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
}

func setSliceDefaults(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = new(string)
		}
		if p.Protocol == nil {
			tcp := corev1.ProtocolTCP
			p.Protocol = &tcp
		}
	}
}
