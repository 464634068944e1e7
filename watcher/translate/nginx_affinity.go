package translate

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/upstream"
)

// cookieNameDefault is ingress-nginx's name of the affinity cookie.
const cookieNameDefault = "INGRESSCOOKIE"

// cookieAgeMax bounds the age of a cookie, in both directions.
const cookieAgeMax = int(10 * 365 * 24 * time.Hour / time.Second)

// How a client stays with one endpoint.
var affinityAnnotations = []annotation{
	{
		key: "affinity", scope: scopeIngress, risk: riskLow, verdict: differs,
		text: "cookie: a client stays with the endpoint that its cookie leads to. Ingress-nginx's cookies are understood, and " +
			"the other way round. Paths of other Ingresses with the same backend follow the cookie, and set none.",
		note: "Of several Ingresses that name a backend and ask for affinity the oldest decides about the cookie; in " +
			"ingress-nginx the youngest does. An endpoint to which connections fail gets no request while others are there; the cookie stays.",
		parse: func(d *dialect, value string) error {
			if value != "cookie" {
				return fmt.Errorf("%q is not cookie, the only kind of affinity", value)
			}
			d.sticky = true
			return nil
		},
	},
	{
		key: "affinity-mode", scope: scopeIngress, risk: riskMedium, verdict: same,
		text: "balanced (default): clients are spread anew when endpoints come or go, each keeps its endpoint as far as it can; " +
			"persistent: a client stays as long as its endpoint is there.",
		parse: oneOf(map[string]bool{"balanced": false, "persistent": true}, func(d *dialect) *bool { return &d.affinity.Persistent }),
	},
	{
		key: "affinity-canary-behavior", scope: scopeIngress, risk: riskLow, verdict: same,
		text: "On a canary. sticky (default): it shares the main Ingress's affinity, and a client of the canary stays there; " +
			"legacy: the canary has no affinity.",
		parse: oneOf(map[string]bool{"sticky": false, "legacy": true}, func(d *dialect) *bool { return &d.canaryLegacy }),
	},
	{
		key: "session-cookie-name", scope: scopeIngress, risk: riskMedium, verdict: differs,
		text:  "Name of the affinity cookie; default INGRESSCOOKIE.",
		note:  "The name has to be one of RFC 6265: `/` and `:` are refused.",
		parse: nameOf("a name of letters, digits and -._~", func(d *dialect) *string { return &d.affinity.Cookie }),
	},
	{
		key: "session-cookie-path", scope: scopeIngress, risk: riskMedium, verdict: same,
		text: "Path of the affinity cookie; default: the rule's path. With regular expressions as paths it has to be set.",
		parse: func(d *dialect, value string) error {
			if !strings.HasPrefix(value, "/") || !plainPath(strings.NewReplacer("?", "", "&", "", "=", "", ",", "").Replace(value)) {
				return fmt.Errorf("%q is not a path that begins with / and holds letters, digits and -._~/:,?&= only", value)
			}
			d.affinity.Path = value
			return nil
		},
	},
	{
		key: "session-cookie-domain", scope: scopeIngress, risk: riskMedium, verdict: same,
		text:  "Domain of the affinity cookie; default: none, the host alone.",
		parse: nameOf("a domain of letters, digits and -._", func(d *dialect) *string { return &d.affinity.Domain }),
	},
	{
		key: "session-cookie-expires", scope: scopeIngress, risk: riskMedium, verdict: same,
		text:  "Seconds until the affinity cookie expires, as Expires; default: with the browser's session.",
		parse: cookieAge(func(d *dialect) (*int, *bool) { return &d.affinity.Expires, &d.affinity.HasExpires }),
	},
	{
		key: "session-cookie-max-age", scope: scopeIngress, risk: riskMedium, verdict: same,
		text:  "Seconds until the affinity cookie expires, as Max-Age; default: with the browser's session.",
		parse: cookieAge(func(d *dialect) (*int, *bool) { return &d.affinity.MaxAge, &d.affinity.HasMaxAge }),
	},
	{
		key: "session-cookie-samesite", scope: scopeIngress, risk: riskLow, verdict: same,
		text: "SameSite of the affinity cookie: None, Lax or Strict, in any case; default: none is sent.",
		parse: func(d *dialect, value string) error {
			for _, site := range []string{"None", "Lax", "Strict"} {
				if strings.EqualFold(value, site) {
					d.affinity.SameSite = site
					return nil
				}
			}
			return fmt.Errorf("%q is not one of None, Lax, Strict", value)
		},
	},
	{
		key: "session-cookie-conditional-samesite-none", scope: scopeIngress, risk: riskLow, verdict: same,
		text:  "Leaves SameSite=None out for browsers that take it for Strict.",
		parse: onOff(func(d *dialect) *bool { return &d.affinity.UnlessOld }),
	},
	{
		key: "session-cookie-secure", scope: scopeIngress, risk: riskLow, verdict: same,
		text:  "true: the affinity cookie is always Secure; else where the client speaks TLS.",
		parse: onOff(func(d *dialect) *bool { return &d.affinity.Secure }),
	},
	{
		key: "session-cookie-change-on-failure", scope: scopeIngress, risk: riskLow, verdict: same,
		text: "true: when the endpoint fails a request, another one is asked and becomes the client's; false (default): the same " +
			"one is asked again.",
		parse: onOff(func(d *dialect) *bool { return &d.affinity.ChangeOnFailure }),
	},
}

// nameOf reads a word of letters, digits and -._~ into a field; a bad one leaves it.
func nameOf(what string, field func(*dialect) *string) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		if value == "" || !plainPath(value) || strings.ContainsAny(value, "/:") {
			return fmt.Errorf("%q is not %s", value, what)
		}
		*field(d) = value
		return nil
	}
}

// hostOf reads a host, which may have a port, into a field; a bad one leaves it.
func hostOf(field func(*dialect) *string) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		if value == "" || !plainPath(value) || strings.Contains(value, "/") {
			return fmt.Errorf("%q is not a host", value)
		}
		*field(d) = value
		return nil
	}
}

// onOff reads a boolean into a field; a bad one leaves it.
func onOff(field func(*dialect) *bool) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		on, err := parseBool(value)
		if err == nil {
			*field(d) = on
		}
		return err
	}
}

// oneOf reads one of two words into a field; a bad one leaves it.
func oneOf(words map[string]bool, field func(*dialect) *bool) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		v, ok := words[value]
		if !ok {
			return fmt.Errorf("%q is not %s", value, orList(words))
		}
		*field(d) = v
		return nil
	}
}

// orList reads the false word first: it is the default.
func orList(words map[string]bool) string {
	var list [2]string
	for word, v := range words {
		if v {
			list[1] = word
		} else {
			list[0] = word
		}
	}
	return list[0] + " or " + list[1]
}

func cookieAge(field func(*dialect) (*int, *bool)) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		n, err := parseInt(value, -cookieAgeMax, cookieAgeMax)
		if err == nil {
			seconds, set := field(d)
			*seconds, *set = n, true
		}
		return err
	}
}

// clusterAffinity is the affinity that the oldest Ingress asks for which names the cluster and wants any.
func (t *Translator) clusterAffinity(c *cluster, s *upstream.Settings) {
	chooser := c.chooser(func(d *dialect) bool { return d.sticky })
	if chooser != nil {
		a := chooser.dialect.affinity
		s.Affinity = &a
	}
}

// settleAffinity gives the Ingress's paths the cookie, and reports one that browsers would not send back.
func (f *fragment) settleAffinity(prefix string) {
	d := &f.dialect
	d.policy.SetsAffinity = d.sticky
	if d.sticky && d.useRegex && d.affinity.Path == "" {
		f.refuse(annotationField(prefix+"/affinity"), "with use-regex it needs %s/session-cookie-path: browsers do not send back a cookie whose path is an expression", prefix)
	}
}
