package translate

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// Copies of requests.
var mirrorAnnotations = []annotation{
	{
		key: "mirror-target", scope: scopeIngress, risk: riskHigh, verdict: differs,
		text: "A URL to which a copy of every request goes, as https://test.example$request_uri; the answer is dropped. The path may hold " +
			"variables: those of upstream-hash-by.",
		note: "A copy never delays the request. At most 256 are under way on a loop, and of bodies those that client-body-buffer-size holds " +
			"are copied; what is beyond that is not mirrored, and counted. The copy has the fields that the backend gets. " +
			"A Service's name (NAME.NAMESPACE.svc...) is asked at its endpoints. " +
			"https is not verified.",
		parse: parseMirrorTarget,
	},
	{
		key: "mirror-request-body", scope: scopeIngress, risk: riskLow, verdict: same,
		text: "on (default) or off: copies with or without their bodies.",
		parse: func(d *dialect, value string) error {
			on, err := parseSwitch(value)
			if err == nil {
				d.mirrorNoBody = !on
			}
			return err
		},
	},
	{
		key: "mirror-host", scope: scopeIngress, risk: riskHigh, verdict: same,
		text:  "The copies' Host; default: mirror-target's.",
		parse: hostOf(func(d *dialect) *string { return &d.mirrorHost }),
	},
}

func parseMirrorTarget(d *dialect, value string) error {
	scheme, rest, _ := strings.Cut(value, "://")
	at := strings.IndexAny(rest, "/$?")
	if at < 0 {
		at = len(rest)
	}
	authority, target := rest[:at], rest[at:]
	u, err := url.Parse(scheme + "://" + authority)
	if err != nil || scheme != "http" && scheme != "https" || u.Host != authority || u.Hostname() == "" || u.User != nil {
		return fmt.Errorf("%q is not a URL like https://test.example$request_uri", value)
	}
	e, err := parseExternal(scheme, u.Hostname(), u.Port())
	if err != nil {
		return err
	}
	if _, err := upstream.ParseKey(target); err != nil {
		return err
	}
	if strings.ContainsAny(target, " \t#\\") {
		return fmt.Errorf("%q cannot be a path", target)
	}
	d.mirrorTo, d.mirrorTarget = e, target
	return nil
}

// mirror is the mirror of the Ingress's paths; nil: there is none. Its cluster is recorded once.
func (f *fragment) mirror() *route.Mirror {
	d := &f.dialect
	if d.mirrorTo.host == "" {
		return nil
	}
	host := d.mirrorHost
	if host == "" {
		host = d.mirrorTo.host
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
	}
	u := d.mirrorTo.use(f, placeMirror)
	f.uses = append(f.uses, u)
	return &route.Mirror{Cluster: u.id, Host: host, Target: d.mirrorTarget, Body: !d.mirrorNoBody}
}
