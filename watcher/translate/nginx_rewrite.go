package translate

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
)

// What the path of a request becomes, and how paths match.
var rewriteAnnotations = []annotation{
	{
		key: "rewrite-target", scope: scopeIngress, risk: riskMedium, verdict: differs,
		text: "Replaces the path that the backend gets; $1 to $9 are captures of the rule's path, which becomes a regular " +
			"expression, as do all paths of its hosts.",
		note: "The expression is RE2's: no look-around, no back-references. The result is normalised (`//` merged, dot " +
			"segments resolved), an empty one is `/` instead of an error. Other variables of nginx are refused.",
		effect: ignore,
		parse:  parseRewriteTarget,
	},
	{
		key: "use-regex", scope: scopeHost, risk: riskLow, verdict: differs,
		text: "Makes every path of the Ingress's hosts a regular expression, in any case, anchored at its start only; the longest text is tried first.",
		note: "RE2: no look-around, no back-references; a path that does not compile is a Problem and not served.",
		parse: func(d *dialect, value string) (err error) {
			d.useRegex, err = parseBool(value)
			return err
		},
	},
	{
		key: "app-root", scope: scopeHost, risk: riskMedium, verdict: same,
		text: "Redirects requests for exactly `/` to this absolute path: 302, with scheme, host and port, without the query.",
		parse: func(d *dialect, value string) error {
			u, err := url.ParseRequestURI(value)
			if err != nil || u.IsAbs() || value[0] != '/' || !plainPath(value) {
				return fmt.Errorf("%q is not an absolute path; it may hold letters, digits and -._~/: only", value)
			}
			d.appRoot = value
			return nil
		},
	},
}

func parseRewriteTarget(d *dialect, value string) error {
	if value == "" || !plainPath(strings.ReplaceAll(value, "$", "")) {
		return fmt.Errorf("%q is not a path of letters, digits, -._~/: and $1 to $9", value)
	}
	_, err := filter.ParseRewriteTarget(value)
	if err == nil {
		_, err = filter.PathRewrite{Target: value}.Compile(nil)
	}
	if err != nil {
		// ingress-nginx would take it: serving the path as it came is not what the author asked for.
		return &refusal{deny, err.Error()}
	}
	d.rewriteTarget = value
	return nil
}

// plainPath tells whether s holds nothing but what ingress-nginx takes in a path.
func plainPath(s string) bool {
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && strings.IndexByte("-._~/:", c) < 0 {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// rewrite is the rewrite of one path, if rewrite-target asks for one. A target equal to the path asks for nothing, but for
// a Prefix path without a slash at its end: to nginx that has become "/path/", which differs.
func (d *dialect) rewrite(path string, pathType route.PathType) (filter.PathRewrite, bool) {
	if d.rewriteTarget == "" {
		return filter.PathRewrite{}, false
	}
	if d.rewriteTarget == path {
		if pathType != route.Prefix || strings.HasSuffix(path, "/") {
			return filter.PathRewrite{}, false
		}
		path += "/"
	}
	return filter.PathRewrite{Path: path, Target: d.rewriteTarget}, true
}
