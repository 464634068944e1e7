package translate

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
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
	{
		key: "load-balance", scope: scopeIngress, risk: riskLow, verdict: differs, effect: drop,
		text:  "How a backend's endpoints take turns: round_robin (default, ConfigMap) or ewma. The oldest Ingress that names a backend decides.",
		note:  "The names that hash or stick are not built yet and ignored.",
		parse: parseLoadBalance,
	},
	{
		key: "load-balance", own: true, scope: scopeIngress, risk: riskLow, verdict: own,
		text: "Like ingress-nginx's load-balance, over which it wins: round_robin, ewma or least_conn (the endpoint with the fewest requests under way).",
		parse: func(d *dialect, value string) error {
			a, ok := ownAlgorithms[value]
			if !ok {
				return fmt.Errorf("%q is not one of round_robin, ewma, least_conn", value)
			}
			d.algorithm, d.ownAlgorithm = &a, true
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

func parseLoadBalance(d *dialect, value string) error {
	if slices.Contains(laterAlgorithms, value) {
		return &refusal{ignore, value + " is not supported yet; round_robin and ewma are"}
	}
	a, ok := algorithms[value]
	if value == "" {
		return &refusal{ignore, "the name is empty"}
	}
	if !ok {
		return fmt.Errorf("%q is not one of round_robin, ewma", value)
	}
	if !d.ownAlgorithm {
		d.algorithm = &a
	}
	return nil
}
