package translate

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

const keyDefaultBackend = "default-backend"

// How backends are chosen and spoken to.
var backendAnnotations = []annotation{
	{
		key: "backend-protocol", scope: scopeLocation, risk: riskLow, verdict: differs,
		text: "What backends speak: HTTP (default), HTTPS, GRPC (HTTP/2 without TLS, h2c) or GRPCS (HTTP/2 over TLS), in any case. " +
			"TLS backends are neither verified nor told a server name, as in ingress-nginx without proxy-ssl-*. Without the annotation " +
			"the appProtocol of the Service's port decides: kubernetes.io/h2c is HTTP/2, kubernetes.io/wss TLS, kubernetes.io/ws and all others HTTP.",
		note: "ingress-nginx knows no appProtocol. WebSocket reaches backends of HTTP/2 that offer extended CONNECT (RFC 8441); others: 501. " +
			"AUTO_HTTP and FCGI are refused: name the protocol, put a gateway beside the application.",
		parse: parseBackendProtocol,
	},
	{
		key: "service-upstream", scope: scopeIngress, risk: riskLow, verdict: same,
		text: "true: requests go to the Service's cluster address instead of its endpoints, and kube-proxy chooses. Affinity, hashes and health " +
			"checks see that one address. The oldest Ingress that names a backend and asks for it decides. Default false (ConfigMap).",
		parse: onOff(func(d *dialect) *bool { return &d.serviceUpstream }),
	},
	{
		key: keyDefaultBackend, scope: scopeLocation, risk: riskLow, verdict: same, effect: drop,
		text: "A Service of the same namespace whose first port is asked when the rule's own backend has no endpoint.",
		parse: func(d *dialect, value string) error {
			if value == "" {
				return &refusal{ignore, "the name is empty"}
			}
			if errs := validation.IsDNS1035Label(value); len(errs) > 0 {
				return fmt.Errorf("%q is not the name of a Service of this namespace", value)
			}
			d.defaultBackend = value
			return nil
		},
	},
}

func parseBackendProtocol(d *dialect, value string) error {
	switch p := strings.ToUpper(value); p {
	case "HTTP":
		d.speaks = speaksHTTP
	case "HTTPS":
		d.speaks = speaksHTTPS
	case "GRPC":
		d.speaks = speaksGRPC
	case "GRPCS":
		d.speaks = speaksGRPCS
	case "AUTO_HTTP":
		return &refusal{deny, "AUTO_HTTP is not supported; write what the backends speak: HTTP, HTTPS, GRPC or GRPCS"}
	case "FCGI":
		return &refusal{deny, "FCGI is not supported; put a FastCGI gateway into the application's pods"}
	default:
		return fmt.Errorf("%q is not one of HTTP, HTTPS, GRPC, GRPCS", value)
	}
	return nil
}

// protocol is what a backend speaks.
type protocol uint8

const (
	speaksAny protocol = iota // nobody said: the Service's appProtocol decides, else it is HTTP
	speaksHTTP
	speaksHTTPS
	speaksGRPC
	speaksGRPCS
)

// variants tell clusters apart by what their backends speak: those are other connections.
var variants = [...]string{speaksAny: "", speaksHTTP: "", speaksHTTPS: "#https", speaksGRPC: "#grpc", speaksGRPCS: "#grpcs"}

// secure tells whether it is spoken over TLS.
func (p protocol) secure() bool { return p == speaksHTTPS || p == speaksGRPCS }

// http2 tells whether it is HTTP/2.
func (p protocol) http2() bool { return p == speaksGRPC || p == speaksGRPCS }

// byAppProtocol is what the Service's port says, where no Ingress that names it says anything (KEP-3726).
func (t *Translator) byAppProtocol(c *cluster) protocol {
	s := t.services.by[c.service]
	if s == nil || c.chooser(func(d *dialect) bool { return d.speaks == speaksHTTP }) != nil {
		return speaksHTTP
	}
	p, _ := findPort(s, c.port, corev1.ProtocolTCP)
	switch p.app {
	case "kubernetes.io/h2c":
		return speaksGRPC
	case "kubernetes.io/wss":
		return speaksHTTPS
	}
	return speaksHTTP
}

// viaService replaces a cluster's endpoints by the Service's own address, if an Ingress asks for it.
func (t *Translator) viaService(c *cluster, e *endpoints, list []upstream.Address) ([]upstream.Address, []route.Problem) {
	f := c.chooser(func(d *dialect) bool { return d.serviceUpstream })
	if f == nil || e.service == nil || e.unusable != "" || e.service.Spec.Type == corev1.ServiceTypeExternalName {
		return list, nil
	}
	p, ok := findPort(e.service, c.port, e.protocol)
	a, err := netip.ParseAddr(e.service.Spec.ClusterIP)
	if !ok || err != nil || p.number < 1 {
		return list, []route.Problem{problem(f.owner, annotationField(t.options.AnnotationsPrefix+"/service-upstream"),
			"is ignored for Service %s, which has no cluster address; requests go to its endpoints", c.service)}
	}
	return []upstream.Address{{Addr: netip.AddrPortFrom(a.Unmap(), uint16(p.number))}}, nil
}
