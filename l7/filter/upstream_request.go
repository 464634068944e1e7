package filter

import (
	"fmt"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// UpstreamRequest is what a backend is told otherwise than usual: another Host (X-Forwarded-Host remains the client's),
// and the prefix under which clients know it, which may have captures of the rule's path.
type UpstreamRequest struct {
	Host   string // text with variables; "": the client's
	Prefix string // X-Forwarded-Prefix; "": none
	Path   string // the rule's path as an expression, for Prefix's $1 to $9
}

// Stage is the rewrite stage: captures are those of the client's path.
func (UpstreamRequest) Stage() Stage { return Rewrite }

// Compile refuses what cannot be a Host or a field.
func (u UpstreamRequest) Compile(*State) (l7.Filter, error) {
	f := &upstreamRequest{}
	var err error
	if f.host, err = ParseText(u.Host); err != nil {
		return l7.Filter{}, fmt.Errorf("upstream host: %w", err)
	}
	if host, constant := f.host.Constant(); constant && len(host) > 0 {
		if _, _, err := wire.ParseAuthority(host); err != nil {
			return l7.Filter{}, fmt.Errorf("upstream host: %q is not a host with or without a port", u.Host)
		}
	}
	if u.Prefix != "" {
		if !fieldText(u.Prefix) {
			return l7.Filter{}, fmt.Errorf("forwarded prefix: %q cannot stand in a field", u.Prefix)
		}
		if f.prefix, err = ParseRewriteTarget(u.Prefix); err != nil {
			return l7.Filter{}, fmt.Errorf("forwarded prefix: %w", err)
		}
		if f.pattern, err = compilePattern(u.Path); err != nil {
			return l7.Filter{}, fmt.Errorf("forwarded prefix: %w", err)
		}
	}
	return l7.Filter{Request: f}, nil
}

type upstreamRequest struct {
	host    Text
	prefix  []RewritePart
	pattern pattern
}

var nameXForwardedPrefix = []byte("X-Forwarded-Prefix")

func (u *upstreamRequest) Request(x *l7.Exchange) l7.Verdict {
	if host := u.host.Fill(x); len(host) > 0 {
		x.SendHost = host
	}
	if len(u.prefix) == 0 {
		return l7.Continue
	}
	path := x.Req.Path
	var g groups
	if !u.pattern.match(path, &g) {
		return l7.Continue
	}
	n := 0
	for i := range u.prefix {
		n += len(u.prefix[i].Text) + 3*len(g.of(path, u.prefix[i].Group))
	}
	out := x.Arena.Reserve(n)
	for i := range u.prefix {
		out = append(out, u.prefix[i].Text...)
		out = wire.AppendPath(out, g.of(path, u.prefix[i].Group))
	}
	x.SetRequest(wire.FieldOther, nameXForwardedPrefix, x.Arena.Commit(out))
	return l7.Continue
}

// HostRedirect sends every request of a host to another one: with the client's scheme, the port that it came to, and its
// URI without one slash at its end, as ingress-nginx does between example.com and www.example.com.
type HostRedirect struct {
	Status int
	Host   string
}

// Stage is the rewrite stage.
func (HostRedirect) Stage() Stage { return Rewrite }

// Compile refuses a status that is no redirect's.
func (r HostRedirect) Compile(*State) (l7.Filter, error) {
	if r.Status < 301 || r.Status > 308 || r.Host == "" || !fieldText(r.Host) {
		return l7.Filter{}, fmt.Errorf("host redirect: %d to %q", r.Status, r.Host)
	}
	return l7.Filter{Request: &hostRedirect{r.Status, []byte(r.Host)}}, nil
}

type hostRedirect struct {
	status int
	host   []byte
}

func (r *hostRedirect) Request(x *l7.Exchange) l7.Verdict {
	scheme, uri, port := schemeHTTP, x.Asked(), x.Port()
	if x.Secure {
		scheme = schemeHTTPS
	}
	if n := len(uri); n > 0 && uri[n-1] == '/' {
		uri = uri[:n-1]
	}
	if len(uri) > 0 && uri[0] != '/' { // OPTIONS *
		uri = nil
	}
	out := x.Arena.Reserve(len(scheme) + len(r.host) + 1 + len(port) + len(uri))
	out = append(out, scheme...)
	out = append(out, r.host...)
	out = append(append(out, ':'), port...)
	x.Redirect(r.status, x.Arena.Commit(append(out, uri...)))
	return l7.Respond
}
