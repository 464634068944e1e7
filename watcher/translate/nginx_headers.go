package translate

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/route"
)

// What is said in heads, to backends and to clients.
var headerAnnotations = []annotation{
	{
		key: "custom-headers", scope: scopeLocation, risk: riskMedium, verdict: same,
		text: "A ConfigMap, NAME or NAMESPACE/NAME, of response fields to set; each must be in the ConfigMap's global-allowed-response-headers, " +
			"else the paths answer 503.",
		parse: func(d *dialect, value string) error {
			d.headers.custom = value
			return nil
		},
	},
	{
		key: "upstream-vhost", scope: scopeLocation, risk: riskLow, verdict: differs, effect: deny,
		text: "The Host that the backend gets; X-Forwarded-Host stays the client's. Variables of nginx are filled in.",
		note: "Those that are known: docs/annotations.md, Variables",
		parse: func(d *dialect, value string) error {
			if _, err := (filter.UpstreamRequest{Host: value}).Compile(nil); err != nil {
				return err
			}
			d.headers.upstreamHost = value
			return nil
		},
	},
	{
		key: "x-forwarded-prefix", scope: scopeLocation, risk: riskMedium, verdict: same,
		text: "X-Forwarded-Prefix for the backend, where rewrite-target acts; $1 to $9 are captures of the rule's path.",
		parse: func(d *dialect, value string) error {
			if value == "" || !plainPath(strings.ReplaceAll(value, "$", "")) {
				return fmt.Errorf("%q is not a path of letters, digits, -._~/: and $1 to $9", value)
			}
			if _, err := filter.ParseRewriteTarget(value); err != nil {
				return err
			}
			d.headers.prefix = value
			return nil
		},
	},
	{
		key: "connection-proxy-header", scope: scopeLocation, risk: riskLow, verdict: differs,
		text: "The Connection field that backends get: keep-alive, or close: connections to the backend carry one request each.",
		note: "Upgrades keep theirs. It holds for the backend, whoever names it: the oldest Ingress that does decides.",
		parse: func(d *dialect, value string) error {
			if value != "close" && value != "keep-alive" {
				return fmt.Errorf("%q is neither close nor keep-alive", value)
			}
			d.headers.connectionClose, d.headers.connectionKeepAlive = value == "close", value == "keep-alive"
			return nil
		},
	},
	{
		key: "proxy-redirect-from", scope: scopeLocation, risk: riskMedium, verdict: differs,
		text:  "The beginning of the backend's Location and Refresh fields that proxy-redirect-to replaces; off or default: nothing is replaced.",
		note:  "No expressions. Ingress-nginx's `default` replaces an address that no backend knows of.",
		parse: parseProxyRedirect(func(h *headersDialect) *string { return &h.redirectFrom }),
	},
	{
		key: "proxy-redirect-to", scope: scopeLocation, risk: riskMedium, verdict: differs,
		text: "… by this. Variables of nginx are filled in.", note: "Those that are known: docs/annotations.md, Variables",
		parse: parseProxyRedirect(func(h *headersDialect) *string { return &h.redirectTo }),
	},
	{
		key: "proxy-cookie-domain", scope: scopeLocation, risk: riskMedium, verdict: differs,
		text: "\"FROM TO\": a cookie's Domain FROM becomes TO; off: none does.", note: "No expressions and no variables",
		parse: func(d *dialect, value string) (err error) {
			d.headers.cookies.DomainFrom, d.headers.cookies.DomainTo, err = parseCookieRewrite(value)
			return err
		},
	},
	{
		key: "proxy-cookie-path", scope: scopeLocation, risk: riskMedium, verdict: differs,
		text: "\"FROM TO\": a cookie's Path that begins with FROM begins with TO; off: none does.", note: "No expressions and no variables",
		parse: func(d *dialect, value string) (err error) {
			d.headers.cookies.PathFrom, d.headers.cookies.PathTo, err = parseCookieRewrite(value)
			return err
		},
	},
	ownHeaders("request-headers-set", "Request fields that the backend gets in place of any of that name, as a JSON object: "+
		"`{\"X-Tenant\": \"$host\"}`. Variables of nginx are filled in; an empty value removes the field. Host is the Host that the backend gets.",
		func(h *filter.Headers) *string { return &h.RequestSet }),
	ownHeaders("request-headers-add", "… and fields that are added to those of that name.", func(h *filter.Headers) *string { return &h.RequestAdd }),
	ownRemoval("request-headers-remove", "Request fields that the backend does not get: names separated by commas.",
		func(h *filter.Headers) *string { return &h.RequestRemove }),
	ownHeaders("response-headers-set", "Response fields that clients get in place of any of that name, as a JSON object: "+
		"`{\"X-Frame-Options\": \"DENY\"}`. On all answers, the proxy's own included.", func(h *filter.Headers) *string { return &h.ResponseSet }),
	ownHeaders("response-headers-add", "… and fields that are added to those of that name.", func(h *filter.Headers) *string { return &h.ResponseAdd }),
	ownRemoval("response-headers-remove", "Response fields that clients do not get: names separated by commas.",
		func(h *filter.Headers) *string { return &h.ResponseRemove }),
}

// headersDialect is what the annotations ask for.
type headersDialect struct {
	custom                   string // ConfigMap
	upstreamHost, prefix     string
	connectionClose          bool
	connectionKeepAlive      bool
	redirectFrom, redirectTo string // "": off
	cookies                  filter.CookieRewrite
	own                      filter.Headers
}

// headerLinesMax bounds a list of fields of one object.
const headerLinesMax = 100

func ownHeaders(name, text string, field func(*filter.Headers) *string) annotation {
	return annotation{key: name, own: true, scope: scopeLocation, risk: riskMedium, verdict: own, text: text, effect: deny,
		parse: func(d *dialect, value string) error {
			var of map[string]string
			if err := json.Unmarshal([]byte(value), &of); err != nil {
				return fmt.Errorf("%q is not a JSON object of texts, like {\"X-Name\": \"value\"}", value)
			}
			lines, err := headerText(of)
			if err == nil {
				*field(&d.headers.own) = lines
			}
			return err
		}}
}

// headerText is fields as filter.Headers takes them, sorted by name.
func headerText(of map[string]string) (string, error) {
	if len(of) > headerLinesMax {
		return "", fmt.Errorf("%d fields are more than %d", len(of), headerLinesMax)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if err := filter.CheckHeader(name, of[name]); err != nil {
			return "", err
		}
		b.WriteString(name + ": " + of[name] + "\n")
	}
	return b.String(), nil
}

func ownRemoval(name, text string, field func(*filter.Headers) *string) annotation {
	return annotation{key: name, own: true, scope: scopeLocation, risk: riskMedium, verdict: own, text: text, effect: deny,
		parse: func(d *dialect, value string) error {
			lines, err := headerNames(value)
			if err == nil {
				*field(&d.headers.own) = lines
			}
			return err
		}}
}

// headerNames is a list of names as filter.Headers takes it.
func headerNames(value string) (string, error) {
	list := splitList(value)
	if len(list) > headerLinesMax {
		return "", fmt.Errorf("%d fields are more than %d", len(list), headerLinesMax)
	}
	for _, n := range list {
		if err := filter.CheckHeaderName(n); err != nil || wire.IDOf([]byte(n)) == wire.FieldHost {
			return "", fmt.Errorf("%q cannot be removed", n)
		}
	}
	if list == nil {
		return "", errors.New("the list is empty")
	}
	return strings.Join(list, "\n") + "\n", nil
}

func parseProxyRedirect(field func(*headersDialect) *string) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		if value == "off" || value == "default" {
			*field(&d.headers) = ""
			return nil
		}
		if strings.HasPrefix(value, "~") {
			return fmt.Errorf("%q is an expression, which is not supported; write the beginning of the URL", value)
		}
		if _, err := filter.ParseText(value); err != nil {
			return err
		}
		if value == "" || strings.ContainsAny(value, " \t") {
			return fmt.Errorf("%q is not the beginning of a URL", value)
		}
		*field(&d.headers) = value
		return nil
	}
}

func parseCookieRewrite(value string) (from, to string, err error) {
	if value == "off" {
		return "", "", nil
	}
	words := strings.Fields(value)
	if len(words) != 2 || strings.ContainsAny(value, "~$;,") {
		return "", "", fmt.Errorf("%q is neither off nor two words, FROM and TO, without variables and expressions", value)
	}
	if _, err := (filter.CookieRewrite{PathFrom: words[0], PathTo: words[1]}).Compile(nil); err != nil {
		return "", "", err
	}
	return words[0], words[1], nil
}

// headerFilters are those of one path. rewritten: a rewrite acts on it.
func (d *dialect) headerFilters(path string, kind route.PathType, bare bool) (filters []filter.Config) {
	h := &d.headers
	u := filter.UpstreamRequest{Host: h.upstreamHost}
	if _, rewritten := d.rewrite(path, kind); rewritten && !bare && h.prefix != "" {
		u.Prefix, u.Path = h.prefix, path
	}
	if u != (filter.UpstreamRequest{}) {
		filters = append(filters, u)
	}
	if h.redirectFrom != "" && h.redirectTo != "" {
		filters = append(filters, filter.LocationRewrite{From: h.redirectFrom, To: h.redirectTo})
	}
	if h.cookies != (filter.CookieRewrite{}) {
		filters = append(filters, h.cookies)
	}
	return filters
}

var (
	customHeaderName  = regexp.MustCompile(`^[a-zA-Z\d\-_]+$`)
	customHeaderValue = regexp.MustCompile("^[a-zA-Z\\d_ :;.,\\\\/\"'?!(){}\\[\\]@<>=\\-+*#$&`|~^%]+$")
)

// customHeaders are the fields of the ConfigMap that custom-headers names, then our own annotations'.
func (b *hostBuild) customHeaders(p part, n *named) {
	if name := p.dialect.headers.custom; name != "" {
		m, why := b.configMapOf(p, name)
		if why == "" {
			why = checkCustomHeaders(m.Data, p.dialect.defaults.allowedHeaders)
		}
		if why != "" {
			b.deny(p, n, "custom-headers", why)
			return
		}
		n.filters = append(n.filters, filter.Headers{ResponseSet: literalHeaders(m.Data)})
	}
	if own := p.dialect.headers.own; own != (filter.Headers{}) {
		n.filters = append(n.filters, own)
	}
}

func checkCustomHeaders(data map[string]string, allowed []string) (why string) {
	for _, name := range slices.Sorted(maps.Keys(data)) {
		isAllowed := slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, name) })
		switch {
		case !customHeaderName.MatchString(name) || filter.CheckHeaderName(name) != nil:
			return fmt.Sprintf("%q of the ConfigMap is not the name of a field that can be set", name)
		case !customHeaderValue.MatchString(data[name]):
			return fmt.Sprintf("the ConfigMap's value of %s is empty or holds characters that are not allowed", name)
		case !isAllowed:
			return fmt.Sprintf("%s is not in the ConfigMap's global-allowed-response-headers (%s)", name, strings.Join(allowed, ", "))
		}
	}
	return ""
}

// literalHeaders are fields whose values have no variables: a dollar sign is one.
func literalHeaders(data map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(data)) {
		b.WriteString(name + ": " + strings.ReplaceAll(data[name], "$", "${literal_dollar}") + "\n")
	}
	return b.String()
}
