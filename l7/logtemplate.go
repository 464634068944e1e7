package l7

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// This file is log-format-upstream: a line of the access log as nginx's log_format describes it.

// logPartsMax bounds the texts and variables of a template.
const logPartsMax = 200

// logTemplateMax is how long a line may have become for another value to be added: the longest one still fits.
const logTemplateMax = logLineMax - 6*logTargetMax - 1<<10

// LogEscape is what becomes of bytes in a value that could end it (nginx's log_format escape=).
type LogEscape uint8

const (
	LogEscapeDefault LogEscape = iota // \xHH for quotes, backslashes, controls and all beyond ASCII; an absent value is "-"
	LogEscapeJSON                     // as inside a JSON string; an absent value is empty
	LogEscapeNone                     // only controls are escaped, since a record is one line; an absent value is empty
)

// LogTemplate is a line as the ConfigMap wrote it, taken apart. Immutable; it is filled in without an allocation.
type LogTemplate struct {
	source string
	parts  []logPart
	escape LogEscape
}

// A logPart is text, or a variable's place in logVariables.
type logPart struct {
	text     string // or, with a variable that has one, its argument: $http_NAME
	variable int    // -1: none
}

// ParseLogTemplate takes a line of nginx's log_format apart. A variable that is not known is an error.
func ParseLogTemplate(line string, escape LogEscape) (*LogTemplate, error) {
	t := &LogTemplate{source: line, escape: escape}
	for line != "" {
		plain, rest, found := strings.Cut(line, "$")
		if plain != "" {
			t.parts = append(t.parts, logPart{plain, -1})
		}
		if !found {
			break
		}
		name, after := upstream.VariableName(rest)
		part, ok := logVariableOf(strings.ToLower(name))
		switch {
		case name == "":
			return nil, fmt.Errorf("a $ begins no variable in %q", "$"+rest)
		case !ok:
			return nil, fmt.Errorf("the variable $%s is not known", name)
		}
		t.parts, line = append(t.parts, part), after
	}
	if len(t.parts) > logPartsMax {
		return nil, fmt.Errorf("more than %d variables and texts", logPartsMax)
	}
	return t, nil
}

// String is the line as it was written, and how its values are escaped.
func (t *LogTemplate) String() string {
	return t.source + " escape=" + [...]string{"default", "json", "none"}[t.escape]
}

func logVariableOf(name string) (logPart, bool) {
	for i := range logVariables {
		v := &logVariables[i]
		if argument, ok := strings.CutPrefix(name, v.name); ok && (argument == "") != strings.HasSuffix(v.name, "_") {
			if v.field {
				argument = strings.ReplaceAll(argument, "_", "-")
			}
			return logPart{argument, i}, true
		}
	}
	return logPart{}, false
}

// append appends r's line. x is whose request it was, or nil; its client's fields are as the backend got them.
func (t *LogTemplate) append(b []byte, r *Record, now *logStamp) []byte {
	v := logView{Record: r, x: r.Exchange, now: now, escape: t.escape}
	if v.x == nil {
		v.x = &nobody
	}
	begin := len(b)
	for i := range t.parts {
		p := &t.parts[i]
		if p.variable < 0 {
			b = append(b, p.text...)
		} else {
			b = logVariables[p.variable].append(b, v, p.text)
		}
		if len(b)-begin > logTemplateMax {
			b = append(b, cutMark...)
			break
		}
	}
	return append(b, '\n')
}

// nobody is the exchange of a record that has none.
var nobody Exchange

// logView is what variables are read from.
type logView struct {
	*Record
	x      *Exchange
	now    *logStamp
	escape LogEscape
}

// value appends what a client or backend may have chosen.
func (v logView) value(b, value []byte, limit int) []byte {
	switch {
	case v.escape == LogEscapeJSON:
		return appendJSONString(b, value, limit)
	case v.escape == LogEscapeNone:
		return appendEscaped(b, value, limit, safeLine)
	case len(value) == 0:
		return append(b, '-')
	}
	return appendEscaped(b, value, limit, safeQuoted)
}

func (v logView) text(b, value []byte) []byte { return v.value(b, value, logValueMax) }

// name appends text of the configuration.
func (v logView) name(b []byte, name string) []byte {
	if name == "" {
		return v.absent(b)
	}
	switch v.escape {
	case LogEscapeJSON:
		return appendJSONName(b, name)
	case LogEscapeNone:
		return appendEscaped(b, name, logNameMax, safeLine)
	}
	return appendEscaped(b, name, logNameMax, safeQuoted)
}

func (v logView) absent(b []byte) []byte {
	if v.escape == LogEscapeDefault {
		b = append(b, '-')
	}
	return b
}

// tries appends one of nginx's lists about the endpoints that were tried.
func (v logView) tries(b []byte, one func([]byte, *Try) []byte) []byte {
	tries := v.Record.tries()
	if len(tries) == 0 {
		return v.absent(b)
	}
	b = appendList(b, tries, one)
	return b[:len(b)-1]
}

// last is a list of which the last attempt's time alone is known: between two times of the loop.
func (v logView) last(b []byte, until int64) []byte {
	tries := v.Record.tries()
	if len(tries) == 0 {
		return v.absent(b)
	}
	for range len(tries) - 1 {
		b = append(b, "-, "...)
	}
	if from := v.x.fwd.opened; from != 0 && until > from {
		return appendMillis(b, until-from)
	}
	return append(b, '-')
}

func (v logView) route() *Identity {
	if v.ID == nil {
		return &noIdentity
	}
	return v.ID
}

var noIdentity Identity

// A logVariable writes one of nginx's variables. A name that ends in _ has an argument.
type logVariable struct {
	name   string
	append func(b []byte, v logView, argument string) []byte
	field  bool // the argument is a field's name
}

// logVariables is the table.
var logVariables = []logVariable{
	{name: "remote_addr", append: appendClient}, {name: "the_real_ip", append: appendClient},
	{name: "realip_remote_addr", append: func(b []byte, v logView, _ string) []byte { return appendRemote(b, v.x.Remote.Addr(), '-') }},
	{name: "proxy_protocol_addr", append: func(b []byte, v logView, _ string) []byte { return appendRemote(b, v.x.Remote.Addr(), '-') }},
	{name: "remote_port", append: func(b []byte, v logView, _ string) []byte { return appendInt10(b, int64(v.x.Remote.Port())) }},
	{name: "server_addr", append: func(b []byte, v logView, _ string) []byte { return appendRemote(b, v.x.Local.Addr(), '-') }},
	{name: "server_port", append: appendServerPort}, {name: "pass_server_port", append: appendServerPort},
	{name: "pass_port", append: func(b []byte, v logView, _ string) []byte { return v.text(b, v.x.PassPort()) }},
	{name: "remote_user", append: func(b []byte, v logView, _ string) []byte { return v.text(b, v.User) }},
	{name: "time_local", append: func(b []byte, v logView, _ string) []byte { return append(b, v.now.local...) }},
	{name: "time_iso8601", append: appendTimeISO},
	{name: "msec", append: func(b []byte, v logView, _ string) []byte {
		return appendFraction(strconv.AppendInt(b, v.now.second, 10), int64(v.now.millis), 3)
	}},
	{name: "request", append: appendRequest},
	{name: "request_method", append: func(b []byte, v logView, _ string) []byte { return v.text(b, v.MethodText) }},
	{name: "request_uri", append: func(b []byte, v logView, _ string) []byte { return v.value(b, v.Target, logTargetMax) }},
	{name: "uri", append: func(b []byte, v logView, _ string) []byte { return v.value(b, v.x.Req.Path, logTargetMax) }},
	{name: "args", append: appendArgs}, {name: "query_string", append: appendArgs},
	{name: "server_protocol", append: func(b []byte, v logView, _ string) []byte { return appendVersion(b, v.Record) }},
	{name: "scheme", append: appendScheme}, {name: "pass_access_scheme", append: appendScheme},
	{name: "host", append: func(b []byte, v logView, _ string) []byte { return v.text(b, v.Host) }},
	{name: "http_host", append: appendAuthority},
	{name: "best_http_host", append: func(b []byte, v logView, _ string) []byte { return v.text(b, v.x.BestAuthority()) }},
	{name: "http_referer", append: func(b []byte, v logView, _ string) []byte { return v.text(b, v.Referer) }},
	{name: "http_user_agent", append: func(b []byte, v logView, _ string) []byte { return v.text(b, v.UserAgent) }},
	{name: "http_x_forwarded_for", append: appendForwardedFor}, {name: "http_x_forwarded_host", append: appendForwardedHost},
	{name: "proxy_add_x_forwarded_for", append: func(b []byte, v logView, _ string) []byte {
		return v.text(b, wire.Get(v.x.Req.Fields, wire.FieldXForwardedFor))
	}},
	{name: "http_", field: true, append: func(b []byte, v logView, name string) []byte { return v.text(b, wire.GetName(v.x.Req.Fields, name)) }},
	{name: "sent_http_", field: true, append: func(b []byte, v logView, name string) []byte { return v.text(b, wire.GetName(v.x.Resp.Fields, name)) }},
	{name: "upstream_http_", field: true, append: func(b []byte, v logView, name string) []byte { return v.text(b, wire.GetName(v.x.Resp.Fields, name)) }},
	{name: "cookie_", append: func(b []byte, v logView, name string) []byte {
		return v.text(b, wire.Cookie(v.x.Req.Fields, name, true))
	}},
	{name: "arg_", append: func(b []byte, v logView, name string) []byte { return v.text(b, wire.Argument(v.x.Req.Query, name)) }},
	{name: "content_type", append: func(b []byte, v logView, _ string) []byte {
		return v.text(b, wire.Get(v.x.Req.Fields, wire.FieldContentType))
	}},
	{name: "content_length", append: appendContentLength},
	{name: "status", append: func(b []byte, v logView, _ string) []byte { return appendInt10(b, int64(v.Status)) }},
	{name: "body_bytes_sent", append: func(b []byte, v logView, _ string) []byte { return appendInt10(b, v.BodyBytes) }},
	{name: "bytes_sent", append: func(b []byte, v logView, _ string) []byte { return appendInt10(b, v.BytesSent) }},
	{name: "request_length", append: func(b []byte, v logView, _ string) []byte { return appendInt10(b, v.RequestBytes) }},
	{name: "request_time", append: func(b []byte, v logView, _ string) []byte { return appendMillis(b, v.Duration) }},
	{name: "proxy_upstream_name", append: func(b []byte, v logView, _ string) []byte { return appendCluster(b, v.ID, appendBareName) }},
	{name: "proxy_alternative_upstream_name", append: func(b []byte, v logView, _ string) []byte { return v.bareName(b, v.Alternative) }},
	{name: "upstream_addr", append: func(b []byte, v logView, _ string) []byte { return v.tries(b, appendTryAddr) }},
	{name: "upstream_response_length", append: appendTryLengths}, {name: "upstream_bytes_received", append: appendTryLengths},
	{name: "upstream_response_time", append: func(b []byte, v logView, _ string) []byte { return v.tries(b, appendTryTime) }},
	{name: "upstream_status", append: func(b []byte, v logView, _ string) []byte { return v.tries(b, appendTryStatus) }},
	{name: "upstream_connect_time", append: func(b []byte, v logView, _ string) []byte { return v.last(b, v.x.fwd.asked) }},
	{name: "upstream_header_time", append: func(b []byte, v logView, _ string) []byte { return v.last(b, v.x.fwd.headAt) }},
	{name: "req_id", append: appendRequestID}, {name: "request_id", append: appendRequestID},
	{name: "namespace", append: func(b []byte, v logView, _ string) []byte { return v.name(b, v.route().Namespace) }},
	{name: "ingress_name", append: func(b []byte, v logView, _ string) []byte { return v.name(b, v.route().Ingress) }},
	{name: "service_name", append: func(b []byte, v logView, _ string) []byte { return v.name(b, v.route().Service) }},
	{name: "service_port", append: func(b []byte, v logView, _ string) []byte { return v.name(b, v.route().Port) }},
	{name: "location_path", append: func(b []byte, v logView, _ string) []byte { return v.name(b, v.route().Path) }},
	{name: "server_name", append: func(b []byte, v logView, _ string) []byte { return v.name(b, v.route().Host) }},
	{name: "ssl_server_name", append: func(b []byte, v logView, _ string) []byte { return v.text(b, v.Server) }},
	{name: "https", append: appendHTTPS},
	{name: "hostname", append: func(b []byte, v logView, _ string) []byte { return v.name(b, hostname) }},
	{name: "pid", append: func(b []byte, _ logView, _ string) []byte { return append(b, pid...) }},
	{name: "literal_dollar", append: func(b []byte, _ logView, _ string) []byte { return append(b, '$') }},
}

var (
	hostname, _ = os.Hostname()
	pid         = strconv.Itoa(os.Getpid())
)

// LogVariables are the names that ParseLogTemplate knows, in the order of the table.
func LogVariables() (names []string) {
	for i := range logVariables {
		name := logVariables[i].name
		if strings.HasSuffix(name, "_") {
			name += "NAME"
		}
		names = append(names, name)
	}
	return names
}

func appendInt10(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

func appendClient(b []byte, v logView, _ string) []byte { return appendRemote(b, v.Remote, '-') }

func appendServerPort(b []byte, v logView, _ string) []byte {
	return appendInt10(b, int64(v.x.Local.Port()))
}

func appendTimeISO(b []byte, v logView, _ string) []byte {
	return append(append(b, v.now.iso...), v.now.offset...)
}

func appendRequest(b []byte, v logView, _ string) []byte {
	if len(v.MethodText) == 0 {
		return v.absent(b)
	}
	b = append(v.text(b, v.MethodText), ' ')
	return appendVersion(append(v.value(b, v.Target, logTargetMax), ' '), v.Record)
}

func appendArgs(b []byte, v logView, _ string) []byte {
	return v.value(b, v.x.Req.Query, logTargetMax)
}

func appendScheme(b []byte, v logView, _ string) []byte {
	if v.x.Secure {
		return append(b, schemeHTTPS...)
	}
	return append(b, schemeHTTP...)
}

func appendAuthority(b []byte, v logView, _ string) []byte { return v.text(b, v.x.Authority()) }

// appendForwardedFor is what the client said, which Describe has moved to another field.
func appendForwardedFor(b []byte, v logView, _ string) []byte {
	id := wire.FieldXForwardedFor
	if v.x.described {
		id = wire.FieldXOriginalForwardedFor
	}
	return v.text(b, wire.Get(v.x.Req.Fields, id))
}

// appendForwardedHost is likewise.
func appendForwardedHost(b []byte, v logView, _ string) []byte {
	id := wire.FieldXForwardedHost
	if v.x.described {
		id = wire.FieldXOriginalForwardedHost
	}
	return v.text(b, wire.Get(v.x.Req.Fields, id))
}

func appendContentLength(b []byte, v logView, _ string) []byte {
	if v.x.Req.Framing != wire.FramingLength {
		return v.absent(b)
	}
	return appendInt10(b, v.x.Req.ContentLength)
}

func appendTryLengths(b []byte, v logView, _ string) []byte { return v.tries(b, appendTryBytes) }

func appendRequestID(b []byte, v logView, _ string) []byte { return v.text(b, v.RequestID) }

func appendHTTPS(b []byte, v logView, _ string) []byte {
	if v.TLS {
		return append(b, "on"...)
	}
	return b
}

// bareName is name for what ingress-nginx sets to an empty text, which nginx shows as it is.
func (v logView) bareName(b []byte, name string) []byte {
	if name == "" {
		return b
	}
	return v.name(b, name)
}
