package translate

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Objects is everything that a source knows, of the kinds that matter here. The order within a slice means nothing, but a
// slice whose order is stable is compared faster. Of two objects of the same kind, namespace and name the first counts.
//
// Objects are never written to, neither here nor by the source once they were handed over: an object that changed is a
// new pointer, one that did not is the old one.
type Objects struct {
	Ingresses      []*networkingv1.Ingress
	IngressClasses []*networkingv1.IngressClass
	Services       []*corev1.Service
	EndpointSlices []*discoveryv1.EndpointSlice
	Secrets        []*corev1.Secret
	ConfigMaps     []*corev1.ConfigMap
}

// Options are the flags that decide what objects mean. The zero value of a string means its default.
type Options struct {
	IngressClass             string // --ingress-class: the class annotation's value, and a class's name where it has no object; "nginx"
	ControllerClass          string // --controller-class: spec.controller of our IngressClasses; "k8s.io/ingress-nginx"
	IngressClassByName       bool   // --ingress-class-by-name: an IngressClass named IngressClass is ours whatever its controller
	WatchIngressWithoutClass bool   // --watch-ingress-without-class
	DefaultBackendService    string // --default-backend-service, "namespace/name"; its first port
	DefaultSSLCertificate    string // --default-ssl-certificate, "namespace/name"
	ConfigMap                string // --configmap, "namespace/name"
	TCPServices              string // --tcp-services-configmap, "namespace/name"
	UDPServices              string // --udp-services-configmap, "namespace/name"
	OwnPorts                 []OwnPort
	EnableSSLPassthrough     bool   // --enable-ssl-passthrough
	AnnotationsPrefix        string // --annotations-prefix; "nginx.ingress.kubernetes.io"
	AllowLoopback            bool   // the source is trusted to name loopback endpoints: files are, a cluster is not
	DisableCatchAll          bool   // --disable-catch-all: an Ingress of nothing but a default backend is not taken
	DisableSVCExternalName   bool   // --disable-svc-external-name
	HTTPSPort                int    // --https-port, which use-port-in-redirects names; 0: none

	Yield func() // is called between pieces of work, some ten microseconds each; nil: nobody is
}

// Defaults of Options.
const (
	ingressClassDefault      = "nginx"
	controllerClassDefault   = "k8s.io/ingress-nginx"
	annotationsPrefixDefault = "nginx.ingress.kubernetes.io"
)

func (o Options) withDefaults() Options {
	if o.IngressClass == "" {
		o.IngressClass = ingressClassDefault
	}
	if o.ControllerClass == "" {
		o.ControllerClass = controllerClassDefault
	}
	if o.AnnotationsPrefix == "" {
		o.AnnotationsPrefix = annotationsPrefixDefault
	}
	if o.Yield == nil {
		o.Yield = func() {}
	}
	return o
}
