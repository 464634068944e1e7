package filter

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/sluiceproxy/sluice/l7"
)

// SSLRedirect sends requests that did not come by https to the same host and URI under https. The client's port is dropped,
// since https has another. Without PreserveTrailingSlash one slash at the end of the URI is dropped too, as ingress-nginx does; the
// URI is what the client sent, with its query, so the slash may be the query's.
type SSLRedirect struct {
	Status                int // 301, 302, 307 or 308
	PreserveTrailingSlash bool
	Port                  int // that is named; 0: none
}

// Stage is the rewrite stage.
func (SSLRedirect) Stage() Stage { return Rewrite }

// Compile needs no state.
func (r SSLRedirect) Compile(*State) (l7.Filter, error) {
	if r.Status < 301 || r.Status > 308 {
		return l7.Filter{}, fmt.Errorf("https redirect: status %d is not a redirect", r.Status)
	}
	f := &sslRedirect{status: r.Status, preserve: r.PreserveTrailingSlash}
	if r.Port != 0 {
		f.port = []byte(":" + strconv.Itoa(r.Port))
	}
	return l7.Filter{Request: f}, nil
}

type sslRedirect struct {
	status   int
	preserve bool
	port     []byte // with its colon
}

var schemeHTTPS, schemeHTTP = []byte("https://"), []byte("http://")

func (r *sslRedirect) Request(x *l7.Exchange) l7.Verdict {
	if x.Secure {
		return l7.Continue
	}
	host, uri := hostOnly(x.BestAuthority()), x.Req.Target
	if len(uri) > 0 && uri[0] != '/' { // OPTIONS *
		uri = nil
	}
	if !r.preserve {
		uri = bytes.TrimSuffix(uri, slash)
	}
	location := x.Arena.Reserve(len(schemeHTTPS) + len(host) + len(r.port) + len(uri))
	location = append(location, schemeHTTPS...)
	location = append(append(location, host...), r.port...)
	location = append(location, uri...)
	x.Redirect(r.status, x.Arena.Commit(location))
	return l7.Respond
}

var slash = []byte("/")

// hostOnly is authority without its port. An IPv6 address keeps its brackets.
func hostOnly(authority []byte) []byte {
	if i := bytes.LastIndexByte(authority, ':'); i > bytes.LastIndexByte(authority, ']') {
		return authority[:i]
	}
	return authority
}
