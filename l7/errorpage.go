package l7

import (
	"strconv"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// ErrorPages are the answers of a route that a page of another cluster replaces (custom-http-errors). The page is asked
// for by GET / with fields that tell what went wrong, and its own status is what the client gets. It is immutable.
type ErrorPages struct {
	Cluster *upstream.Cluster
	OwnOnly bool // what the backend answers stays as it is (disable-proxy-intercept-errors)

	statuses [statusesMax / 64]uint64
}

// statusesMax is beyond every status that may be replaced: 400 to 599.
const statusesMax = 640

// NewErrorPages makes the pages of a cluster for some statuses; others than 400 to 599 are left out.
func NewErrorPages(c *upstream.Cluster, ownOnly bool, statuses []int) *ErrorPages {
	e := &ErrorPages{Cluster: c, OwnOnly: ownOnly}
	for _, s := range statuses {
		if s >= 400 && s < 600 {
			e.statuses[s/64] |= 1 << (s % 64)
		}
	}
	return e
}

// Has tells whether a status is replaced.
func (e *ErrorPages) Has(status int) bool {
	return status >= 400 && status < 600 && e.statuses[status/64]>>(status%64)&1 != 0
}

// intercept goes for the page that replaces an answer of that status; false: the answer stands. A page's own errors are
// not replaced again.
func (x *Exchange) intercept(status int) bool {
	if x.Route == nil || x.Route.Errors == nil || x.intercepted || x.plain || x.stage >= stageBody || x.overdue() {
		return false
	}
	e := x.Route.Errors
	if !e.Has(status) || e.Cluster.Empty() {
		return false
	}
	x.intercepted = true
	if x.Challenge == nil {
		if v := wire.GetName(x.Resp.Fields, "WWW-Authenticate"); v != nil {
			x.Challenge = x.Arena.Copy(v)
		}
	}
	f := &x.fwd
	if f.stream != nil {
		f.stream.Endpoint().Answered(x.loop, status >= 500, f.asked)
		f.attemptEnded(x.loop.Now(), nil, status)
	}
	f.release()
	x.Resp.Reset()
	x.askForPage(status)
	f.cluster, f.canary, f.belongs, f.base = e.Cluster, nil, belonging{}, f.tries
	f.body, f.bodySent, f.bodyEnd, f.lost, f.interim = f.body[:0], 0, true, false, false
	f.headAt, f.status, f.got = 0, 0, 0
	x.connect()
	return true
}

// askForPage makes the request one for the page of a status.
func (x *Exchange) askForPage(status int) {
	asked := x.asked
	x.Describe()
	r := &x.Req
	r.Authority = x.Authority()
	if r.Method != wire.MethodHead {
		r.Method, r.MethodText = wire.MethodGet, methodGet
	}
	r.Target = rootTarget
	if len(r.Query) > 0 { // nginx's rewrite of the path keeps it
		r.Target = x.Arena.Commit(append(append(x.Arena.Reserve(len(r.Query)+2), "/?"...), r.Query...))
	}
	r.Framing, r.ContentLength, r.Upgrade, r.TETrailers = wire.FramingNone, 0, nil, false
	x.tellError(status)
	x.SetRequest(wire.FieldOther, nameXOriginalURI, asked)
}

var (
	methodGet         = []byte("GET")
	rootTarget        = []byte("/")
	nameXCode         = []byte("X-Code")
	nameXFormat       = []byte("X-Format")
	nameXOriginalURI  = []byte("X-Original-URI")
	nameXNamespace    = []byte("X-Namespace")
	nameXIngressName  = []byte("X-Ingress-Name")
	nameXServiceName  = []byte("X-Service-Name")
	nameXServicePort  = []byte("X-Service-Port")
	nameAuthenticate  = []byte("WWW-Authenticate")
	statusUnavailable = 503
)

// tellError sets the fields by which a default backend knows what it is asked for.
func (x *Exchange) tellError(status int) {
	id := &x.Route.ID
	x.SetRequest(wire.FieldOther, nameXCode, x.Arena.Commit(strconv.AppendInt(x.Arena.Reserve(textMax), int64(status), 10)))
	x.tell1(nameXFormat, wire.Get(x.Req.Fields, wire.FieldAccept))
	x.tell1(nameXNamespace, []byte(id.Namespace))
	x.tell1(nameXIngressName, []byte(id.Ingress))
	x.tell1(nameXServiceName, []byte(id.Service))
	x.tell1(nameXServicePort, []byte(id.Port))
}

// tell1 sets a field; an empty value removes it, as nginx does.
func (x *Exchange) tell1(name, value []byte) {
	if len(value) == 0 {
		x.Req.Fields = wire.DeleteName(x.Req.Fields, string(name))
		return
	}
	x.SetRequest(wire.FieldOther, name, value)
}

// tellFallback tells a default backend that it stands in for a backend without endpoints.
func (x *Exchange) tellFallback() {
	if !x.intercepted {
		x.tellError(statusUnavailable)
	}
}

// setsCookies: the statuses on which nginx's add_header acts.
func setsCookies(status int) bool {
	switch status {
	case 200, 201, 204, 206, 301, 302, 303, 304, 307, 308:
		return true
	}
	return false
}

// addAuthentication adds what an authentication service has for the client to the answer.
func (x *Exchange) addAuthentication() {
	if x.CookiesAlways || setsCookies(x.Resp.Status) {
		x.Resp.Fields = append(x.Resp.Fields, x.SetCookies...)
	}
	x.SetCookies = x.SetCookies[:0]
	if x.Challenge != nil {
		x.SetResponse(wire.FieldOther, nameAuthenticate, x.Challenge)
	}
}
