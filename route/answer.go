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
// `$scheme://$host<path>`, and the query.
type addSlash struct {
	path []byte // percent-encoded, with the slash
	form SlashRedirect
}

func (a addSlash) Request(x *l7.Exchange) l7.Verdict {
	scheme, own := "http://", "80"
	if x.Secure {
		scheme, own = "https://", "443"
	}
	host, colon, port := x.Req.Host, ":", x.Port()
	if !a.form.Port || string(port) == own {
		colon, port = "", nil
	}
	if a.form.Relative || len(host) == 0 { // without: HTTP/1.0 without Host
		scheme, host, colon, port = "", nil, "", nil
	}
	b := x.Arena.Alloc(len(scheme) + len(host) + len(colon) + len(port) + len(a.path) + 1 + len(x.Req.Query))[:0]
	b = append(append(b, scheme...), host...)
	b = append(append(b, colon...), port...)
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
