package route

import (
	"net/http"

	"github.com/sluiceproxy/sluice/l7"
)

// answer is a request filter that answers every request with one status and its page.
type answer int

const (
	unavailable answer = http.StatusServiceUnavailable // how a rule fails closed
	notFound    answer = http.StatusNotFound           // where a host's filters come before a 404
)

func (a answer) Request(x *l7.Exchange) l7.Verdict {
	x.Respond(int(a), nil)
	return l7.Respond
}

// addSlash answers 301 to path, as nginx does for a location that ends with a slash when the request lacks it:
// `$scheme://$http_host<path>`, and the query.
type addSlash struct {
	path []byte // percent-encoded, with the slash
}

func (a addSlash) Request(x *l7.Exchange) l7.Verdict {
	scheme := "http://"
	if x.Secure {
		scheme = "https://"
	}
	if len(x.Req.Authority) == 0 {
		scheme = "" // HTTP/1.0 without Host: a relative reference
	}
	b := x.Arena.Alloc(len(scheme) + len(x.Req.Authority) + len(a.path) + 1 + len(x.Req.Query))[:0]
	b = append(b, scheme...)
	b = append(b, x.Req.Authority...)
	b = append(b, a.path...)
	if len(x.Req.Query) > 0 {
		b = append(b, '?')
		b = append(b, x.Req.Query...)
	}
	x.Redirect(http.StatusMovedPermanently, b)
	return l7.Respond
}

// escapePath percent-encodes a decoded path for a Location: what nginx's ngx_escape_uri encodes.
func escapePath(path string) []byte {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(path))
	for i := range len(path) {
		switch c := path[i]; {
		case c <= ' ' || c >= 0x7f, c == '"', c == '#', c == '%', c == '<', c == '>', c == '?', c == '\\', c == '^', c == '`',
			c == '{', c == '|', c == '}':
			b = append(b, '%', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}
