package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// Error pages.
var errorAnnotations = []annotation{
	{
		key: "custom-http-errors", scope: scopeLocation, risk: riskLow, verdict: differs,
		text: "Statuses, 400 to 599, separated by commas, whose answers a page replaces: `GET /` to the default-backend annotation's Service, " +
			"else to --default-backend-service, with X-Code, X-Format, X-Original-URI, X-Namespace, X-Ingress-Name, X-Service-Name, " +
			"X-Service-Port and X-Request-ID; the page's own status is the client's. Replaces the ConfigMap's list.",
		note: "The page is asked for by GET, or HEAD, whatever the request's method was. Without a default backend that has an endpoint the answer stays.",
		parse: func(d *dialect, value string) (err error) {
			d.errors, err = parseErrors(value)
			return err
		},
	},
	{
		key: "disable-proxy-intercept-errors", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Leaves the backend's own error answers as they are; custom-http-errors then replaces the proxy's only.",
		parse: func(d *dialect, value string) (err error) {
			d.errorsOwnOnly, err = parseOver(d.defaults.errorsOwnOnly, value)
			return err
		},
	},
}

// parseErrors gives the statuses sorted, each once.
func parseErrors(value string) (string, error) {
	list, err := filter.ParseStatuses(strings.Join(splitList(value), ","))
	if err != nil {
		return "", fmt.Errorf("%q is not a list of statuses from 400 to 599, separated by commas", value)
	}
	slices.Sort(list)
	texts := make([]string, 0, len(list))
	for _, n := range slices.Compact(list) {
		texts = append(texts, strconv.Itoa(n))
	}
	return strings.Join(texts, ","), nil
}

// errorPages are the part's pages, from its own default backend or the proxy's.
func (b *hostBuild) errorPages(p part, n *named) {
	list, cluster := p.dialect.errors, p.spare
	if list == "" {
		list, cluster = p.dialect.defaults.errors, ""
	}
	if flag := b.translator.fallback; cluster == "" && flag != nil {
		cluster = flag.id
	}
	if list != "" && cluster != "" {
		n.filters = append(n.filters, filter.ErrorPages{Statuses: list, Cluster: cluster, OwnOnly: p.dialect.errorsOwnOnly})
	}
}
