package filter

import (
	"fmt"

	"github.com/sluiceproxy/sluice/l7"
)

// Redirect answers every request with a redirect to a fixed place; neither path nor query are added to it.
type Redirect struct {
	Status   int    // 300 to 308
	Location string // a URL, or a path of the same host, to which scheme and host are added
	Relative bool   // … unless they are not to be
	Port     bool   // … with the port that the client connected to, unless it is the scheme's own
}

// Stage is the rewrite stage: redirects come before access lists and authentication, as in nginx.
func (Redirect) Stage() Stage { return Rewrite }

// Compile refuses what could not stand in a header field.
func (r Redirect) Compile(*State) (l7.Filter, error) {
	if r.Status < 300 || r.Status > 308 {
		return l7.Filter{}, fmt.Errorf("redirect: status %d is not one of 300 to 308", r.Status)
	}
	if r.Location == "" || !fieldText(r.Location) {
		return l7.Filter{}, fmt.Errorf("redirect: %q cannot stand in a Location field", r.Location)
	}
	path := r.Location[0] == '/' && !r.Relative
	return l7.Filter{Request: &redirect{r.Status, []byte(r.Location), path, r.Port}}, nil
}

type redirect struct {
	status     int
	location   []byte
	path, port bool
}

func (r *redirect) Request(x *l7.Exchange) l7.Verdict {
	location := r.location
	if r.path && len(x.Req.Host) > 0 { // without: HTTP/1.0 without Host
		location = r.absolute(x)
	}
	x.Redirect(r.status, location)
	return l7.Respond
}

// absolute is the path with nginx's $scheme://$host before it.
func (r *redirect) absolute(x *l7.Exchange) []byte {
	scheme, own, port := schemeHTTP, "80", x.Port()
	if x.Secure {
		scheme, own = schemeHTTPS, "443"
	}
	b := x.Arena.Reserve(len(scheme) + len(x.Req.Host) + 1 + len(port) + len(r.location))
	b = append(append(b, scheme...), x.Req.Host...)
	if r.port && string(port) != own {
		b = append(append(b, ':'), port...)
	}
	return x.Arena.Commit(append(b, r.location...))
}

// fieldText tells whether s is visible ASCII without a blank: what a URL in a header field may hold.
func fieldText(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
