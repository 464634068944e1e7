package translate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

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

// An external is an address outside the cluster that an annotation names.
type external struct {
	https bool
	host  string // name or address
	port  uint16
}

// text is the address as a cluster's ID has it; "" for none.
func (e external) text() string {
	if e.host == "" {
		return ""
	}
	scheme := "http"
	if e.https {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(e.host, strconv.Itoa(int(e.port)))
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
	e := external{https: scheme == "https", host: strings.ToLower(u.Hostname()), port: 80}
	if e.https {
		e.port = 443
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a port", p)
		}
		e.port = uint16(n)
	}
	if a, err := netip.ParseAddr(e.host); err == nil {
		if a.Zone() != "" {
			return errors.New("an address with a zone cannot be dialled")
		}
	} else if len(validation.IsDNS1123Subdomain(e.host)) > 0 {
		return fmt.Errorf("%q is neither a DNS name nor an address", e.host)
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
	id := f.ing.Namespace + "/" + d.mirrorTo.text()
	host := d.mirrorHost
	if host == "" {
		host = d.mirrorTo.host
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
	}
	f.uses = append(f.uses, use{fragment: f, at: place{kind: placeMirror}, id: id, service: key{f.ing.Namespace, ""}, external: d.mirrorTo})
	return &route.Mirror{Cluster: id, Host: host, Target: d.mirrorTarget, Body: !d.mirrorNoBody}
}

// buildExternal gives the cluster of an address outside: of the Ingress that names it.
func (t *Translator) buildExternal(c *cluster) (*route.Cluster, []route.Problem) {
	out := &route.Cluster{ID: c.id, Owner: c.chooser(func(*dialect) bool { return true }).owner}
	out.Settings = t.config.defaults.cluster
	out.Settings.ConnectTimeout = t.config.settings.ConnectTimeout
	out.Settings.AllowLoopback = t.options.AllowLoopback
	e := c.external
	if e.https {
		out.Settings.TLS = &upstream.TLS{}
	}
	a, err := netip.ParseAddr(e.host)
	if err != nil {
		if e.https {
			out.Settings.TLS.ServerName = e.host
		}
		out.Endpoints = []upstream.Address{{Name: e.host, Port: e.port}}
		return out, nil
	}
	out.Endpoints = []upstream.Address{{Addr: netip.AddrPortFrom(a.Unmap(), e.port)}}
	return out, nil
}
