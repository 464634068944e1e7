package translate

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluiceproxy/sluice/l7/filter"
)

const (
	permanentCodeDefault = 301
	temporalCodeDefault  = 302
)

// Redirects, in the order in which they act: the fixed ones, then the one to https.
var redirectAnnotations = []annotation{
	{
		key: "permanent-redirect", scope: scopeLocation, risk: riskMedium, verdict: same, effect: drop,
		text: "Answers every request of the Ingress's paths with a redirect to this URL, or to this path of the same host; path and query " +
			"are not added.",
		parse: func(d *dialect, value string) (err error) {
			if strings.HasPrefix(value, "/") {
				d.permanentRedirect = value
				return redirectText(value)
			}
			d.permanentRedirect, err = parseRedirect(value)
			return err
		},
	},
	{
		key: "permanent-redirect-code", scope: scopeLocation, risk: riskLow, verdict: same, effect: drop,
		text: "The status of permanent-redirect, 300 to 308; default 301.",
		parse: func(d *dialect, value string) error {
			return parseRedirectCode(&d.permanentRedirectCode, value, 308)
		},
	},
	{
		key: "temporal-redirect", scope: scopeLocation, risk: riskMedium, verdict: same, effect: drop,
		text: "Like permanent-redirect, over which it wins; a URL only.",
		parse: func(d *dialect, value string) (err error) {
			d.temporalRedirect, err = parseRedirect(value)
			return err
		},
	},
	{
		key: "temporal-redirect-code", scope: scopeLocation, risk: riskLow, verdict: same, effect: drop,
		text: "The status of temporal-redirect, 300 to 307; default 302.",
		parse: func(d *dialect, value string) error {
			return parseRedirectCode(&d.temporalRedirectCode, value, 307)
		},
	},
	{
		key: "ssl-redirect", scope: scopeLocation, risk: riskLow, verdict: differs,
		text: "Redirects http to https on hosts with TLS: http-redirect-code (308), to the same URI without port and " +
			"without one slash at its end; not on paths that no-tls-redirect-locations names. Default true (ConfigMap).",
		note: "A host has TLS when an entry of spec.tls is for it, or for the wildcard host above it; in ingress-nginx every host of an " +
			"Ingress with any entry has.",
		parse: func(d *dialect, value string) (err error) {
			d.sslRedirect, err = parseOver(d.defaults.sslRedirect, value)
			return err
		},
	},
	{
		key: "force-ssl-redirect", scope: scopeLocation, risk: riskMedium, verdict: same,
		text: "Redirects to https also where the host has no TLS of its own: TLS ends before this proxy.",
		parse: func(d *dialect, value string) (err error) {
			d.forceSSLRedirect, err = parseOver(d.defaults.forceSSLRedirect, value)
			return err
		},
	},
	{
		key: "preserve-trailing-slash", scope: scopeLocation, risk: riskMedium, verdict: same,
		text: "Keeps the slash at the URI's end in redirects to https.",
		parse: func(d *dialect, value string) (err error) {
			d.preserveTrailingSlash, err = parseOver(d.defaults.preserveTrailingSlash, value)
			return err
		},
	},
	{
		key: "relative-redirects", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "The 301 to a path with the slash that a request lacks, and permanent-redirect to a path, have a Location without scheme and " +
			"host. Redirects to https and app-root's stay absolute. Default false (ConfigMap).",
		parse: func(d *dialect, value string) (err error) {
			d.slash.Relative, err = parseOver(d.defaults.slash.Relative, value)
			return err
		},
	},
	{
		key: "use-port-in-redirects", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Redirects to https name the port of --https-port, and the 301 to a path with its slash names the port that the client " +
			"connected to, unless it is the scheme's own. Default false (ConfigMap).",
		parse: func(d *dialect, value string) (err error) {
			d.slash.Port, err = parseOver(d.defaults.slash.Port, value)
			return err
		},
	},
}

// parseOver is a bool that falls back to the ConfigMap's.
func parseOver(fallback bool, value string) (bool, error) {
	b, err := parseBool(value)
	if err != nil {
		return fallback, err
	}
	return b, nil
}

// redirectText refuses what ingress-nginx does not take in a redirect's URL or path.
func redirectText(value string) error {
	for i := range len(value) {
		if c := value[i]; !alphanumeric(c) && strings.IndexByte("-._~/:,?&=", c) < 0 {
			return fmt.Errorf("%q holds %q; a URL may hold letters, digits and -._~/:,?&=", value, c)
		}
	}
	return nil
}

// parseRedirect takes the URLs that ingress-nginx takes.
func parseRedirect(value string) (string, error) {
	if value == "" {
		return "", &refusal{ignore, "the URL is empty"}
	}
	if err := redirectText(value); err != nil {
		return "", err
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", &refusal{ignore, fmt.Sprintf("%q is not a URL that begins with http:// or https://", value)}
	}
	return value, nil
}

func parseRedirectCode(code *int, value string, high int) error {
	n, err := strconv.Atoi(value)
	if err != nil {
		return fmt.Errorf("%q is not a number from 300 to %d", value, high)
	}
	if n < 300 || n > high {
		return &refusal{ignore, fmt.Sprintf("%d is not from 300 to %d", n, high)}
	}
	*code = n
	return nil
}

// redirects are the filters that end an exchange before a backend is asked. https: the host has TLS.
func (d *dialect) redirects(path string, https bool) (filters []filter.Config) {
	switch {
	case d.temporalRedirect != "":
		filters = append(filters, filter.Redirect{Status: d.temporalRedirectCode, Location: d.temporalRedirect})
	case d.permanentRedirect != "":
		filters = append(filters, filter.Redirect{Status: d.permanentRedirectCode, Location: d.permanentRedirect,
			Relative: d.slash.Relative, Port: d.slash.Port})
	}
	if (d.forceSSLRedirect || d.sslRedirect && https) && !d.defaults.staysPlain(path) {
		to := filter.SSLRedirect{Status: d.defaults.redirectCode, PreserveTrailingSlash: d.preserveTrailingSlash}
		if d.slash.Port {
			to.Port = d.options.HTTPSPort
		}
		filters = append(filters, to)
	}
	return filters
}

// staysPlain tells whether no-tls-redirect-locations names a rule's path.
func (d *defaults) staysPlain(path string) bool {
	return startsWithAny(path, d.plainPaths)
}

func startsWithAny(path string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
