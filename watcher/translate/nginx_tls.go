package translate

import (
	"fmt"

	"github.com/sluiceproxy/sluice/route"
)

// TLS of clients.
var tlsAnnotations = []annotation{
	{
		key: "ssl-passthrough", scope: scopeHost, risk: riskLow, verdict: differs, effect: drop,
		text: "Hands the TLS connections of the Ingress's hosts, by server name, to the backend of the path `/` as they are; " +
			"needs --enable-ssl-passthrough. All else that is said of the hosts holds for plain http only.",
		note: "Wildcard hosts are passed through too. The host without a name is not.",
		parse: func(d *dialect, value string) error {
			on, err := parseBool(value)
			if err != nil {
				return err
			}
			if on && !d.options.EnableSSLPassthrough {
				return &refusal{ignore, "needs --enable-ssl-passthrough: TLS ends at this proxy"}
			}
			d.passthrough = on
			return nil
		},
	},
	{
		key: "passthrough-proxy-protocol", own: true, scope: scopeHost, risk: riskLow, verdict: own,
		text: "With ssl-passthrough: v1 or v2 sends backends a PROXY header of that version before the client's own bytes; off (default) sends none.",
		parse: func(d *dialect, value string) error {
			version, ok := map[string]route.ProxyVersion{"off": 0, "v1": 1, "v2": 2}[value]
			if !ok {
				return fmt.Errorf("%q is not one of off, v1, v2", value)
			}
			d.passthroughProxy = version
			return nil
		},
	},
}
