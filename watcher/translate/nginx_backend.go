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
		text: "What backends speak: HTTP (default) or HTTPS, in any case. HTTPS backends are neither verified nor told a " +
			"server name, as in ingress-nginx without proxy-ssl-*.",
		note:  "GRPC, GRPCS and AUTO_HTTP are not built yet and answer 503; FCGI is refused: put a gateway beside the application.",
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
		d.https = false
	case "HTTPS":
		d.https = true
	case "GRPC", "GRPCS", "AUTO_HTTP":
		return &refusal{deny, p + " is not supported yet; HTTP and HTTPS are"}
	case "FCGI":
		return &refusal{deny, "FCGI is not supported; put a FastCGI gateway into the application's pods"}
	default:
		return fmt.Errorf("%q is not one of HTTP, HTTPS", value)
	}
	return nil
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
