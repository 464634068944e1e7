package filter

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// ExternalAuth asks a service whether a request may pass, as nginx's auth_request does: a request without body, with the
// client's fields and some that tell of the request. 2xx lets it pass, 401 and 403 are the client's answer (401 a
// redirect, where there is a page to sign in), all else is 500.
//
// Where the URL's host is $host or the like, or a host that the asking rule's namespace serves here, the question takes
// the way through the proxy's own routes, filters included, and no connection to the proxy itself.
type ExternalAuth struct {
	URL             string // http or https, with variables
	Cluster         string // ID of the URL's host as a cluster; "": its host is a variable
	Method          string // "": GET
	Signin          string // URL with variables; "": 401 stays 401
	SigninParam     string // its argument that tells where the client came from; "": rd
	ResponseHeaders string // fields of its answer that the backend gets, separated by commas
	SetHeaders      string // fields that it gets, as Headers has them
	RequestRedirect string // X-Auth-Request-Redirect; "": the client's target
	CacheKey        string // text with variables; "": answers are not kept
	CacheDurations  string // "200 202 10m, 401 5m"; "": "200 202 401 5m"
	AlwaysSetCookie bool   // its cookies go to the client with every status
	Any             bool   // one of several conditions suffices; this is the last one that is asked
}

// Stage is the access stage.
func (ExternalAuth) Stage() Stage { return Access }

// Compile refuses what could not be asked.
func (e ExternalAuth) Compile(s *State) (l7.Filter, error) {
	f := &externalAuth{any: e.Any, alwaysCookie: e.AlwaysSetCookie, own: e.Cluster == "", method: wire.MethodGet, methodText: methodGet}
	u, err := ParseAuthURL(e.URL)
	if err != nil {
		return l7.Filter{}, err
	}
	f.secure = u.Scheme
	for _, t := range []struct {
		text *Text
		from string
	}{{&f.host, u.Hostname}, {&f.target, u.Target}, {&f.signin, signinURL(e.Signin, e.SigninParam)}, {&f.redirect, e.RequestRedirect}, {&f.cacheKey, e.CacheKey}} {
		if *t.text, err = ParseText(t.from); err != nil {
			return l7.Filter{}, fmt.Errorf("external authentication: %q: %w", t.from, err)
		}
	}
	if e.Method != "" {
		if f.methodText = []byte(e.Method); !wire.IsToken(f.methodText) || e.Method == "CONNECT" {
			return l7.Filter{}, fmt.Errorf("external authentication: %q is not a method", e.Method)
		}
		f.method, f.original = wire.MethodOf(f.methodText), true
	}
	if f.set, err = headerLines(e.SetHeaders); err != nil {
		return l7.Filter{}, err
	}
	for name := range strings.SplitSeq(e.ResponseHeaders, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		n, err := parseHeaderName(name)
		if err != nil {
			return l7.Filter{}, err
		}
		f.copy = append(f.copy, n)
	}
	if f.hasSignin = e.Signin != ""; e.CacheKey != "" {
		if f.durations, err = ParseCacheDurations(e.CacheDurations); err != nil {
			return l7.Filter{}, err
		}
		f.cache, _ = s.Get("external auth", newAuthCache).(*authCache)
		f.identity = fmt.Sprintf("%+v", e)
	}
	if c := s.Cluster(e.Cluster); c != nil {
		f.route = &l7.Route{Cluster: c, Policy: l7.DefaultPolicy()}
	}
	return l7.Filter{Request: f}, nil
}

// An AuthURL is where to ask, taken apart. Variables stand as they were.
type AuthURL struct {
	Scheme   string // http, https, or $scheme
	Hostname string
	Port     string // "": the scheme's
	Target   string // path and query
}

var authURLForm = regexp.MustCompile(`^(https?|\$scheme|\$pass_access_scheme)://([^/?#]+)([/?][^#]*)?$`)

// ParseAuthURL takes a URL apart.
func ParseAuthURL(s string) (u AuthURL, err error) {
	m := authURLForm.FindStringSubmatch(s)
	if m == nil || strings.ContainsAny(s, " \t") {
		return u, fmt.Errorf("%q is not a URL that begins with http:// or https://", s)
	}
	u = AuthURL{Scheme: m[1], Hostname: m[2], Target: m[3]}
	if i := strings.LastIndexByte(m[2], ':'); i >= 0 && !strings.HasSuffix(m[2], "]") {
		u.Hostname, u.Port = m[2][:i], m[2][i+1:]
	}
	if strings.HasPrefix(u.Scheme, "$") {
		u.Scheme = "$scheme"
	}
	if !strings.HasPrefix(u.Target, "/") {
		u.Target = "/" + u.Target
	}
	if _, err := ParseText(u.Hostname + u.Target); err != nil {
		return u, err
	}
	if u.Hostname == "" || strings.ContainsAny(u.Hostname, "@\\") {
		return u, fmt.Errorf("%q names no host", s)
	}
	return u, nil
}

// signinURL adds where the client came from, unless the URL tells that itself.
func signinURL(signin, param string) string {
	if signin == "" {
		return ""
	}
	if param == "" {
		param = "rd"
	}
	const from = "=$pass_access_scheme://$http_host$escaped_request_uri"
	u, err := url.Parse(signin)
	switch {
	case err != nil:
		return signin
	case len(u.Query()) == 0:
		return signin + "?" + param + from
	case u.Query().Get(param) != "":
		return signin
	}
	return signin + "&" + param + from
}

type externalAuth struct {
	route          *l7.Route // nil: there is no cluster
	own            bool      // the host is a variable
	secure         string    // http, https, $scheme
	host, target   Text
	signin         Text
	redirect       Text
	cacheKey       Text
	method         wire.Method
	methodText     []byte
	original       bool // a method is set: X-Original-URI and X-Scheme are told too
	hasSignin, any bool
	alwaysCookie   bool
	set            []headerLine
	copy           []headerName
	cache          *authCache // nil: none
	identity       string
	durations      []CacheDuration
}

var (
	methodGet              = []byte("GET")
	nameXOriginalURL       = []byte("X-Original-URL")
	nameXOriginalURI       = []byte("X-Original-URI")
	nameXOriginalMethod    = []byte("X-Original-Method")
	nameXSentFrom          = []byte("X-Sent-From")
	nameXAuthRedirect      = []byte("X-Auth-Request-Redirect")
	sentFrom               = []byte("nginx-ingress-controller")
	errAuthNobody          = []byte("500 Internal Server Error\n")
	nameXRequestID         = []byte("X-Request-ID")
	nameSetCookie          = []byte("Set-Cookie")
	fieldsOfTheClientsOnly = [...]wire.FieldID{wire.FieldXForwardedFor, wire.FieldXForwardedHost, wire.FieldXForwardedPort, wire.FieldXForwardedProto,
		wire.FieldXForwardedScheme, wire.FieldXOriginalForwardedFor, wire.FieldXOriginalForwardedHost, wire.FieldXRealIP, wire.FieldXRequestID, wire.FieldXScheme,
		wire.FieldForwarded, wire.FieldSecWebSocketKey, wire.FieldSecWebSocketVersion, wire.FieldTrailer}
)

// Request implements l7.RequestFilter.
func (e *externalAuth) Request(x *l7.Exchange) l7.Verdict {
	if e.any && x.Admitted {
		e.pass(x, nil) // the service was not asked: what the client has put in its mouth goes
		return l7.Continue
	}
	if e.cache != nil {
		if v, ok := e.cache.find(x, e.key(x)); ok {
			return e.decide(x, v.status, v.fields)
		}
	}
	target := e.target.Fill(x)
	path, _, _ := strings.Cut(string(target), "?")
	routed, _, perr := wire.NormalisePath(x.Arena.Reserve(len(path)), []byte(path))
	if perr != nil {
		return e.broken(x)
	}
	routed = x.Arena.Commit(routed)
	host := e.host.Fill(x)
	route, described := e.way(x, host, routed)
	if route == nil {
		return e.broken(x)
	}
	s := x.Sub()
	if s == nil {
		return e.broken(x)
	}
	e.fill(x, s, host, target, routed)
	x.Ask(s, route, described, e)
	return l7.Park
}

// way is how to ask: by the proxy's own route, or by the cluster.
func (e *externalAuth) way(x *l7.Exchange, host, path []byte) (route *l7.Route, described bool) {
	name := wire.NormaliseHost(x.Arena.Reserve(len(host)), host)
	own := x.Own(x.Arena.Commit(name), path)
	if own != nil && (e.own || own.ID.Namespace == x.Route.ID.Namespace) {
		return own, false
	}
	return e.route, true
}

func (e *externalAuth) broken(x *l7.Exchange) l7.Verdict {
	x.Respond(500, errAuthNobody)
	return l7.Respond
}

// fill makes the question. It holds views of x, which waits for the answer.
func (e *externalAuth) fill(x, s *l7.Exchange, host, target, path []byte) {
	switch e.secure {
	case "https":
		s.TLS, s.Secure = true, true
	case "http":
		s.TLS, s.Secure = false, false
	}
	r := &s.Req
	r.Method, r.MethodText = e.method, e.methodText
	r.Target, r.Path = s.Arena.Copy(target), s.Arena.Copy(path)
	if i := slices.Index(r.Target, '?'); i >= 0 {
		r.Query = r.Target[i+1:]
	}
	r.Authority = s.Arena.Copy(host)
	r.Host = wire.NormaliseHost(s.Arena.Reserve(len(host)), host)
	r.Host = s.Arena.Commit(r.Host)
	for i := range x.Req.Fields {
		f := x.Req.Fields[i]
		if slices.Contains(fieldsOfTheClientsOnly[:], f.ID) || f.ID == wire.FieldOther && (wire.Forwarding(f.Name) || x.Settings.Limits.Trusts(f.Name)) {
			continue // a service behind proxies believes these, X-Forwarded-Uri for one
		}
		f.Name, f.Value = s.Arena.Copy(f.Name), s.Arena.Copy(f.Value)
		r.Fields = append(r.Fields, f)
	}
	e.tell(x, s)
}

func (e *externalAuth) tell(x, s *l7.Exchange) {
	uri, authority := x.Asked(), x.Authority()
	from := schemeHTTP
	if x.Secure {
		from = schemeHTTPS
	}
	u := s.Arena.Reserve(len(from) + len(authority) + len(uri))
	u = append(append(append(u, from...), authority...), uri...)
	s.SetRequest(wire.FieldOther, nameXOriginalURL, s.Arena.Commit(u))
	s.SetRequest(wire.FieldOther, nameXOriginalMethod, s.Arena.Copy(x.Req.MethodText))
	s.SetRequest(wire.FieldOther, nameXSentFrom, sentFrom)
	s.Req.Fields = wire.DeleteName(s.Req.Fields, string(nameXOriginalURI))
	if e.original {
		s.SetRequest(wire.FieldOther, nameXOriginalURI, s.Arena.Copy(uri))
		s.Req.Fields = wire.Set(s.Req.Fields, wire.FieldXScheme, scheme(x, ""))
	}
	redirect := uri
	if b := e.redirect.Fill(x); len(b) > 0 {
		redirect = b
	}
	s.SetRequest(wire.FieldOther, nameXAuthRedirect, s.Arena.Copy(redirect))
	ip := s.Arena.Commit(x.ClientIP.AppendTo(s.Arena.Reserve(64)))
	s.Req.Fields = wire.Set(s.Req.Fields, wire.FieldXRealIP, ip)
	s.Req.Fields = wire.Set(s.Req.Fields, wire.FieldXForwardedFor, ip)
	s.SetRequest(wire.FieldXRequestID, nameXRequestID, s.Arena.Copy(x.ID()))
	for i := range e.set {
		l := &e.set[i]
		if v := l.value.Fill(x); len(v) > 0 {
			s.SetRequest(l.id, l.name, s.Arena.Copy(v))
		} else {
			s.Req.Fields = removeField(s.Req.Fields, &l.headerName)
		}
	}
}

// Answered implements l7.Answered.
func (e *externalAuth) Answered(x *l7.Exchange, res *wire.Response) l7.Verdict {
	if e.cache != nil {
		e.cache.keep(x, e.key(x), res, e.durations)
	}
	return e.decide(x, res.Status, res.Fields)
}

func (e *externalAuth) decide(x *l7.Exchange, status int, fields []wire.Field) l7.Verdict {
	x.CookiesAlways = e.alwaysCookie
	for _, f := range fields {
		if f.ID == wire.FieldSetCookie {
			x.SetCookies = append(x.SetCookies, wire.Field{Name: nameSetCookie, Value: f.Value, ID: f.ID})
		}
	}
	if status == 403 && e.any && x.Challenge != nil {
		status = 401 // a password would have sufficed: nginx keeps the 401 of those who are asked
	}
	switch {
	case status >= 200 && status < 300:
		x.Admitted, x.Challenge = true, nil
		e.pass(x, fields)
		return l7.Continue
	case status == 401 && e.hasSignin:
		x.Redirect(302, e.signin.Fill(x))
	case status == 401:
		if v := wire.GetName(fields, "WWW-Authenticate"); v != nil {
			x.Challenge = v
		}
		x.Respond(401, nil)
	case status == 403:
		x.Respond(403, nil)
	default:
		x.Respond(500, nil)
	}
	return l7.Respond
}

// pass gives the backend the fields of the answer that it shall have, in place of the client's.
func (e *externalAuth) pass(x *l7.Exchange, fields []wire.Field) {
	for i := range e.copy {
		n := &e.copy[i]
		dropRequest(x, n)
		for _, f := range fields {
			if f.ID == n.id && (n.id != wire.FieldOther || wire.EqualFold(f.Name, n.name)) && len(f.Value) > 0 {
				x.Req.Fields = append(x.Req.Fields, wire.Field{Name: n.name, Value: f.Value, ID: n.id})
				break
			}
		}
	}
}

// ---- answers that are kept

// Limits of kept answers.
const (
	authAnswersMax     = 1024 // of each loop and Ingress
	authAnswerBytesMax = 8 << 10
	authDurationMax    = 24 * time.Hour
)

// A CacheDuration is how long answers of some statuses are kept.
type CacheDuration struct {
	Statuses []int // nil: any
	For      time.Duration
}

var cacheDurationForm = regexp.MustCompile(`^((\d{3}|any)\s+)*(\d+(ms|s|m|h|d|w)?)$`)

// ParseCacheDurations reads nginx's proxy_cache_valid, several of them separated by commas. A duration alone is for 200,
// 301 and 302.
func ParseCacheDurations(list string) (out []CacheDuration, err error) {
	if strings.TrimSpace(list) == "" {
		list = "200 202 401 5m"
	}
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if !cacheDurationForm.MatchString(item) {
			return nil, fmt.Errorf("%q is not statuses and a time, like 200 202 10m", item)
		}
		words := strings.Fields(item)
		d := CacheDuration{}
		if d.For, err = cacheTime(words[len(words)-1]); err != nil {
			return nil, err
		}
		switch statuses := words[:len(words)-1]; {
		case len(statuses) == 0:
			d.Statuses = []int{200, 301, 302}
		case !slices.Contains(statuses, "any"):
			for _, w := range statuses {
				n := int(w[0]-'0')*100 + int(w[1]-'0')*10 + int(w[2]-'0')
				d.Statuses = append(d.Statuses, n)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

func cacheTime(s string) (time.Duration, error) {
	unit := time.Second
	for suffix, u := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = n, u
		}
	}
	if s[len(s)-1] > '9' {
		d, err := time.ParseDuration(s)
		return min(d, authDurationMax), err
	}
	d, err := time.ParseDuration(s + "s")
	if err != nil || d > 1000*authDurationMax {
		return 0, errors.New("a time is too long")
	}
	return min(d*(unit/time.Second), authDurationMax), nil
}

type authCache struct {
	loops [loopsMax]map[string]*authAnswer
}

// authAnswer is a kept answer. Its memory is its own.
type authAnswer struct {
	status int
	fields []wire.Field
	until  int64 // loop time
}

func newAuthCache() any { return &authCache{} }

// key is what an answer is kept by: the configuration, the host, and the author's text.
func (e *externalAuth) key(x *l7.Exchange) []byte {
	text := e.cacheKey.Fill(x)
	b := x.Arena.Reserve(len(e.identity) + len(x.Route.ID.Host) + len(x.Route.ID.Path) + len(text) + 3)
	b = append(append(b, e.identity...), 0)
	b = append(append(b, x.Route.ID.Host...), 0)
	b = append(append(b, x.Route.ID.Path...), 0)
	return x.Arena.Commit(append(b, text...))
}

func (c *authCache) find(x *l7.Exchange, key []byte) (*authAnswer, bool) {
	a := c.loops[x.Loop().ID%loopsMax][string(key)]
	if a == nil || a.until <= x.Loop().Now() {
		return nil, false
	}
	return a, true
}

// keep takes an answer that may be kept: none that sets a cookie or says that it is for nobody else.
func (c *authCache) keep(x *l7.Exchange, key []byte, res *wire.Response, durations []CacheDuration) {
	i := slices.IndexFunc(durations, func(d CacheDuration) bool { return d.Statuses == nil || slices.Contains(d.Statuses, res.Status) })
	if i < 0 || len(key) > authAnswerBytesMax {
		return
	}
	a := &authAnswer{status: res.Status, until: x.Loop().Now() + int64(durations[i].For)}
	size := 0
	for _, f := range res.Fields {
		if f.ID == wire.FieldSetCookie || forbidsKeeping(&f) {
			return
		}
		size += len(f.Name) + len(f.Value)
		a.fields = append(a.fields, wire.Field{Name: slices.Clone(f.Name), Value: slices.Clone(f.Value), ID: f.ID})
	}
	if size > authAnswerBytesMax {
		return
	}
	m := c.loops[x.Loop().ID%loopsMax]
	if m == nil {
		m = map[string]*authAnswer{}
		c.loops[x.Loop().ID%loopsMax] = m
	}
	if len(m) >= authAnswersMax {
		for old := range m { // any one
			delete(m, old)
			break
		}
	}
	m[string(key)] = a
}

var nameCacheControl = []byte("Cache-Control")

func forbidsKeeping(f *wire.Field) bool {
	if !wire.EqualFold(f.Name, nameCacheControl) {
		return false
	}
	for _, word := range []string{"no-store", "no-cache", "private", "max-age=0"} {
		if indexFold(f.Value, word) >= 0 {
			return true
		}
	}
	return false
}
