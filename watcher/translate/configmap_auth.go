package translate

import (
	"errors"
	"fmt"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// Authentication for all Ingresses that do not say enable-global-auth: "false".
var authKeys = []configKey{
	{key: "global-auth-url", verdict: differs, note: "See the annotation auth-url. A bad one answers 503 where it holds.",
		text: "Asks this URL about every request.",
		parse: func(c *configuration, value string) error {
			if value == "" {
				return nil
			}
			c.defaults.globalAuthBad = true
			e, variable, err := parseAuthTarget(value)
			if err != nil {
				return &partly{err.Error() + "; nothing is served without it but Ingresses that switch it off for themselves"}
			}
			c.defaults.globalAuthBad = false
			c.defaults.auth.URL = value
			if !variable {
				c.defaults.auth.Cluster = e.id()
			}
			return nil
		}},
	{key: "global-auth-method", verdict: same, text: "… by this method.", parse: func(c *configuration, value string) error {
		if !authMethod.MatchString(value) || value == "CONNECT" {
			return fmt.Errorf("%q is not a method", value)
		}
		c.defaults.auth.Method = value
		return nil
	}},
	{key: "global-auth-signin", verdict: same, text: "… and sends clients there that may not.",
		parse: globalAuthText(func(a *filter.ExternalAuth) *string { return &a.Signin })},
	{key: "global-auth-signin-redirect-param", preset: "rd", verdict: same, text: "… with where they came from.",
		parse: globalAuthText(func(a *filter.ExternalAuth) *string { return &a.SigninParam })},
	{key: "global-auth-response-headers", verdict: same, text: "Fields of its answer for the backend.",
		parse: func(c *configuration, value string) error {
			list, err := parseFieldNames(value)
			c.defaults.auth.ResponseHeaders = list
			return err
		}},
	{key: "global-auth-request-redirect", verdict: same, text: "The X-Auth-Request-Redirect that it gets.",
		parse: globalAuthText(func(a *filter.ExternalAuth) *string { return &a.RequestRedirect })},
	{key: "global-auth-cache-key", verdict: differs, note: "See the annotation auth-cache-key.", text: "What its answers are kept by.",
		parse: globalAuthText(func(a *filter.ExternalAuth) *string { return &a.CacheKey })},
	{key: "global-auth-cache-duration", verdict: same, text: "… and how long.", parse: func(c *configuration, value string) error {
		if _, err := filter.ParseCacheDurations(value); err != nil {
			return err
		}
		c.defaults.auth.CacheDurations = value
		return nil
	}},
	{key: "global-auth-always-set-cookie", preset: "false", verdict: same, text: "Passes its cookies on with every status.",
		parse: boolean(func(c *configuration) *bool { return &c.defaults.auth.AlwaysSetCookie })},
	{key: "no-auth-locations", preset: "/.well-known/acme-challenge", verdict: same,
		text: "Beginnings of rules' paths where nobody is asked who they are, by no authentication.",
		parse: func(c *configuration, value string) error {
			for _, p := range splitList(value) {
				if p[0] != '/' {
					return errors.New("a path does not begin with a slash")
				}
			}
			c.defaults.openPaths = splitList(value)
			return nil
		}},
}

func globalAuthText(field func(*filter.ExternalAuth) *string) func(*configuration, string) error {
	parse := authText(field)
	return func(c *configuration, value string) error {
		var d dialect
		err := parse(&d, value)
		if err == nil {
			*field(&c.defaults.auth) = *field(&d.auth.ExternalAuth)
		}
		return err
	}
}
