package translate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// An external is the host of a URL that an annotation, or the ConfigMap, names as a backend.
type external struct {
	https   bool
	host    string // DNS name or address; "": none
	port    uint16
	service key // of which the name is, as NAME.NAMESPACE.svc; zero: none
}

var serviceName = regexp.MustCompile(`^([a-z0-9-]+)\.([a-z0-9-]+)\.svc(\.[a-z0-9.-]+)?$`)

// parseExternal takes the parts of a URL of http or https; an IPv6 address comes without brackets, an empty port is the
// scheme's.
func parseExternal(scheme, host, port string) (external, error) {
	e := external{https: scheme == "https", host: strings.ToLower(host), port: 80}
	if e.https {
		e.port = 443
	}
	if port != "" {
		n, err := parseInt(port, 1, 65535)
		if err != nil {
			return external{}, fmt.Errorf("%q is not a port", port)
		}
		e.port = uint16(n)
	}
	if a, err := netip.ParseAddr(e.host); err == nil {
		if a.Zone() != "" {
			return external{}, errors.New("an address with a zone cannot be dialled")
		}
		return e, nil
	}
	if len(validation.IsDNS1123Subdomain(e.host)) > 0 {
		return external{}, fmt.Errorf("%q is neither a DNS name nor an address", host)
	}
	if m := serviceName.FindStringSubmatch(e.host); m != nil {
		e.service = key{m[2], m[1]}
	}
	return e, nil
}

// id names the external's cluster, as no Service's is named.
func (e *external) id() string {
	scheme := "http"
	if e.https {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(e.host, strconv.Itoa(int(e.port)))
}

// use is the external as a use of a cluster.
func (e *external) use(f *fragment, at placeKind) use {
	speaks := speaksHTTP
	if e.https {
		speaks = speaksHTTPS
	}
	return use{fragment: f, at: place{kind: at}, id: e.id(), service: e.service, port: strconv.Itoa(int(e.port)), speaks: speaks, external: *e}
}

// externalSettings are those of a URL's cluster, whatever Ingresses ask for the Services of their rules. As nginx does by
// default, a certificate is not verified.
func (t *Translator) externalSettings(c *cluster) upstream.Settings {
	s := t.config.defaults.cluster
	s.ConnectTimeout = t.config.settings.ConnectTimeout
	s.AllowLoopback = t.options.AllowLoopback
	if c.speaks.secure() {
		s.TLS = &upstream.TLS{}
		if _, err := netip.ParseAddr(c.external.host); err != nil {
			s.TLS.ServerName = c.external.host
		}
	}
	return s
}

// buildExternal gives the cluster of a URL: its host as the one endpoint, or, while there is such a Service, that one's.
func (t *Translator) buildExternal(c *cluster) (*route.Cluster, []route.Problem) {
	out := &route.Cluster{ID: c.id, Settings: t.externalSettings(c)}
	if t.services.by[c.service] != nil {
		return out, t.collectEndpoints(c, out)
	}
	if f := c.chooser(func(*dialect) bool { return true }); f != nil {
		out.Owner = f.owner
	} else {
		k, _ := parseKey(t.options.ConfigMap)
		out.Owner = route.Object{Kind: "ConfigMap", Namespace: k.namespace, Name: k.name}
	}
	out.Endpoints = []upstream.Address{{Name: c.external.host, Port: c.external.port}}
	if a, err := netip.ParseAddr(c.external.host); err == nil {
		out.Endpoints[0] = upstream.Address{Addr: netip.AddrPortFrom(a.Unmap(), c.external.port)}
	}
	return out, nil
}
