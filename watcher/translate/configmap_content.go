package translate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
)

// What is said in heads, and instead of answers.
var contentKeys = []configKey{
	{key: "add-headers", verdict: differs, note: "Variables of nginx are those that are known; a field of the rule's own wins.",
		text:  "A ConfigMap, NAMESPACE/NAME, of response fields to set on all answers.",
		parse: configText(func(c *configuration) *string { return &c.addHeaders })},
	{key: "proxy-set-headers", verdict: differs, note: "Variables of nginx are those that are known; a field of the rule's own wins.",
		text:  "A ConfigMap, NAMESPACE/NAME, of request fields that backends get.",
		parse: configText(func(c *configuration) *string { return &c.setHeaders })},
	{key: "hide-headers", verdict: same, text: "Fields of backends' answers that clients do not get, separated by commas.",
		parse: func(c *configuration, value string) error {
			lines, err := headerNames(value)
			if err == nil {
				c.hideHeaders = lines
			}
			return err
		}},
	{key: "allow-backend-server-header", preset: "false", verdict: same, text: "Passes the backend's Server field on.",
		parse: boolean(func(c *configuration) *bool { return &c.settings.PassServer })},
	{key: "global-allowed-response-headers", verdict: same, text: "Response fields that the annotation custom-headers may set, separated by commas.",
		parse: func(c *configuration, value string) error {
			for _, n := range splitList(value) {
				if err := filter.CheckHeaderName(n); err != nil {
					return err
				}
			}
			c.defaults.allowedHeaders = splitList(value)
			return nil
		}},
	{key: "allow-cross-namespace-resources", preset: "false", verdict: same,
		text:  "Lets annotations name Secrets and ConfigMaps of other namespaces.",
		parse: boolean(func(c *configuration) *bool { return &c.defaults.crossNamespace })},
	{key: "custom-http-errors", verdict: differs, note: "See the annotation.",
		text: "Statuses whose answers a page of --default-backend-service replaces.",
		parse: func(c *configuration, value string) (err error) {
			c.defaults.errors, err = parseErrors(value)
			return err
		}},
	{key: "disable-proxy-intercept-errors", preset: "false", verdict: same, text: "… but not backends' own answers.",
		parse: boolean(func(c *configuration) *bool { return &c.defaults.errorsOwnOnly })},
	{key: "generate-request-id", preset: "true", verdict: same, text: "Gives requests without X-Request-ID one.",
		parse: func(c *configuration, value string) error {
			on, err := parseBool(value)
			c.settings.NoRequestID = err == nil && !on
			return err
		}},
	{key: "proxy-add-original-uri-header", preset: "false", verdict: same, text: "Sends backends X-Original-URI, the target as the client spelled it.",
		parse: boolean(func(c *configuration) *bool { return &c.settings.OriginalURI })},
	{key: "proxy-cookie-domain", preset: "off", verdict: differs, note: "No expressions and no variables", text: "See the annotation.",
		parse: func(c *configuration, value string) (err error) {
			h := &c.defaults.headers
			h.cookies.DomainFrom, h.cookies.DomainTo, err = parseCookieRewrite(value)
			return err
		}},
	{key: "proxy-cookie-path", preset: "off", verdict: differs, note: "No expressions and no variables", text: "See the annotation.",
		parse: func(c *configuration, value string) (err error) {
			h := &c.defaults.headers
			h.cookies.PathFrom, h.cookies.PathTo, err = parseCookieRewrite(value)
			return err
		}},
	{key: "proxy-redirect-from", preset: "off", verdict: differs, note: "See the annotation.", text: "See the annotation.",
		parse: defaultProxyRedirect(func(h *headersDialect) *string { return &h.redirectFrom })},
	{key: "proxy-redirect-to", preset: "off", verdict: differs, note: "See the annotation.", text: "See the annotation.",
		parse: defaultProxyRedirect(func(h *headersDialect) *string { return &h.redirectTo })},
	{key: "block-user-agents", verdict: differs, note: "Expressions are RE2's.",
		text:  "Answers these user agents with 403: texts separated by commas, or expressions after `~` or `~*`.",
		parse: parseBlock(func(b *filter.Block) *string { return &b.UserAgents })},
	{key: "block-referers", verdict: differs, note: "Expressions are RE2's.", text: "… and requests with these Referer fields.",
		parse: parseBlock(func(b *filter.Block) *string { return &b.Referers })},
}

func configText(field func(*configuration) *string) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		if _, ok := parseKey(value); !ok {
			return fmt.Errorf("%q is not NAMESPACE/NAME", value)
		}
		*field(c) = value
		return nil
	}
}

func defaultProxyRedirect(field func(*headersDialect) *string) func(*configuration, string) error {
	parse := parseProxyRedirect(field)
	return func(c *configuration, value string) error {
		d := dialect{headers: c.defaults.headers}
		err := parse(&d, value)
		c.defaults.headers = d.headers
		return err
	}
}

// parseBlock fails closed as far as it can: of a list with a bad expression the others are blocked.
func parseBlock(field func(*filter.Block) *string) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		var good []string
		var bad error
		for _, item := range splitList(value) {
			if _, err := (filter.Block{UserAgents: item}).Compile(nil); err != nil {
				bad = err
				continue
			}
			good = append(good, item)
		}
		*field(&c.block) = strings.Join(good, ",")
		if bad != nil {
			return &partly{bad.Error() + "; only the other entries are blocked"}
		}
		return nil
	}
}

// readHeaderMaps reads the ConfigMaps that add-headers and proxy-set-headers name.
func (c *configuration) readHeaderMaps(list []*corev1.ConfigMap, owner route.Object) (problems []route.Problem) {
	read := func(name, at string) string {
		k, ok := parseKey(at)
		if !ok {
			return ""
		}
		i := slices.IndexFunc(list, func(m *corev1.ConfigMap) bool { return keyOf(m) == k })
		err := errors.New("ConfigMap " + at + " does not exist; no field is set")
		var lines string
		if i >= 0 {
			c.maps = append(c.maps, list[i])
			if lines, err = headerText(list[i].Data); err != nil {
				err = fmt.Errorf("ConfigMap %s: %w; no field is set", at, err)
			}
		}
		if err != nil {
			problems = append(problems, problem(owner, "data["+name+"]", "%s", err))
		}
		return lines
	}
	request, response := read("proxy-set-headers", c.setHeaders), read("add-headers", c.addHeaders)
	if request != "" {
		c.defaults.host = append(c.defaults.host, filter.Headers{RequestSet: request})
	}
	if h := (filter.Headers{ResponseSet: response, ResponseRemove: c.hideHeaders, Early: true}); response != "" || c.hideHeaders != "" {
		c.defaults.host = append(c.defaults.host, h)
	}
	return problems
}
