package translate

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// What other origins' scripts may do.
var corsAnnotations = []annotation{
	{
		key: "enable-cors", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Answers preflight requests with 204 before any authentication, and marks all answers for origins that are allowed.",
		parse: func(d *dialect, value string) (err error) {
			d.cors.on, err = parseBool(value)
			return err
		},
	},
	{
		key: "cors-allow-origin", scope: scopeLocation, risk: riskMedium, verdict: differs,
		text:  "The origins, separated by commas; `*.` stands for one label; `*` (default): all.",
		note:  "An origin is compared as a whole; ingress-nginx compares its end. Of a list with bad origins the good ones hold. Answers of a list say Vary: Origin, for caches; ingress-nginx's do not.",
		parse: parseOrigins,
	},
	{
		key: "cors-allow-methods", scope: scopeLocation, risk: riskMedium, verdict: same,
		text:  "Methods, separated by commas; default " + corsMethodsDefault + ".",
		parse: corsList(corsMethods, func(c *filter.CORS) *string { return &c.AllowMethods }),
	},
	{
		key: "cors-allow-headers", scope: scopeLocation, risk: riskMedium, verdict: same,
		text:  "Request fields, separated by commas; default " + corsHeadersDefault + ".",
		parse: corsList(corsHeaders, func(c *filter.CORS) *string { return &c.AllowHeaders }),
	},
	{
		key: "cors-expose-headers", scope: scopeLocation, risk: riskMedium, verdict: same,
		text:  "Response fields that scripts may read, separated by commas; default none.",
		parse: corsList(corsExpose, func(c *filter.CORS) *string { return &c.ExposeHeaders }),
	},
	{
		key: "cors-allow-credentials", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Whether cookies and the like are allowed; default true.",
		parse: func(d *dialect, value string) (err error) {
			d.cors.Credentials, err = parseOver(true, value)
			return err
		},
	},
	{
		key: "cors-max-age", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Seconds that browsers keep a preflight's answer; default 1728000.",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, int(hstsAgeMax/time.Second))
			if err == nil {
				d.cors.MaxAge = time.Duration(n) * time.Second
			}
			return err
		},
	},
}

const (
	corsMethodsDefault = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
	corsHeadersDefault = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
)

// corsDialect is what the annotations ask for.
type corsDialect struct {
	filter.CORS
	on bool
}

func newCORS() corsDialect {
	return corsDialect{CORS: filter.CORS{AllowOrigins: "*", AllowMethods: corsMethodsDefault, AllowHeaders: corsHeadersDefault,
		Credentials: true, MaxAge: 1728000 * time.Second}}
}

var (
	corsMethods = regexp.MustCompile(`^([A-Za-z]+,?\s?)+$`)
	corsHeaders = regexp.MustCompile(`^[A-Za-z0-9-_, ]+$`)
	corsExpose  = regexp.MustCompile(`^(([A-Za-z0-9\-_]+|\*),?\s?)+$`)
)

func corsList(form *regexp.Regexp, field func(*filter.CORS) *string) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		if !form.MatchString(value) {
			return fmt.Errorf("%q is not a list of names separated by commas", value)
		}
		*field(&d.cors.CORS) = value
		return nil
	}
}

// parseOrigins keeps the good ones of a list, as ingress-nginx does: nobody is allowed by a spelling error. A blank value is
// none.
func parseOrigins(d *dialect, value string) error {
	if value == "" {
		return errors.New("the list is blank")
	}
	var good, bad []string
	for _, o := range splitList(value) {
		switch {
		case o == "*":
			d.cors.AllowOrigins = o
			return nil
		case filter.ValidOrigin(strings.ToLower(o)):
			good = append(good, o)
		default:
			bad = append(bad, fmt.Sprintf("%q", o))
		}
	}
	d.cors.AllowOrigins = strings.Join(good, ",")
	switch {
	case bad != nil:
		return &partly{"no origins such as https://shop.example or https://*.shop.example: " + strings.Join(bad, ", ") + "; only the others are allowed"}
	case good == nil:
		return &partly{"the list is empty: no origin is allowed"}
	}
	return nil
}

// corsFilter comes before redirects: a browser follows none for a preflight. Where gRPC-Web is translated, its own fields are
// allowed too: no client of another origin could call without them.
func (d *dialect) corsFilter() (filter.CORS, bool) {
	c := d.cors.CORS
	if d.policy.GRPCWeb {
		for _, name := range grpcWebFields {
			if !slices.ContainsFunc(splitList(c.AllowHeaders), func(s string) bool { return strings.EqualFold(s, name) }) {
				c.AllowHeaders += "," + name
			}
		}
	}
	return c, d.cors.on && d.cors.AllowOrigins != ""
}
