package filter

import (
	"fmt"

	"github.com/sluiceproxy/sluice/l7"
)

// AppRoot sends requests for "/" to the application's own root: 302, with the client's scheme, host and port, without the
// query. It belongs to a host, not to a rule.
type AppRoot struct {
	Path string // absolute path
}

// Stage is the rewrite stage.
func (AppRoot) Stage() Stage { return Rewrite }

// Compile refuses a relative path: it would run into the host name.
func (a AppRoot) Compile(*State) (l7.Filter, error) {
	if a.Path == "" || a.Path[0] != '/' || !fieldText(a.Path) {
		return l7.Filter{}, fmt.Errorf("app root: %q is not an absolute path", a.Path)
	}
	return l7.Filter{Request: &appRoot{[]byte(a.Path)}}, nil
}

type appRoot struct{ path []byte }

func (a *appRoot) Request(x *l7.Exchange) l7.Verdict {
	if len(x.Req.Path) != 1 || x.Req.Path[0] != '/' {
		return l7.Continue
	}
	scheme := schemeHTTP
	if x.TLS {
		scheme = schemeHTTPS
	}
	location := x.Arena.Reserve(len(scheme) + len(x.Req.Authority) + len(a.path))
	location = append(location, scheme...)
	location = append(location, x.Req.Authority...)
	location = append(location, a.path...)
	x.Redirect(302, x.Arena.Commit(location))
	return l7.Respond
}
