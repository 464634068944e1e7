package l7

import (
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
)

func logTemplate(t testing.TB, line string, escape LogEscape) *LogTemplate {
	t.Helper()
	parsed, err := ParseLogTemplate(line, escape)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// ingressLine is ingress-nginx's own log-format-upstream.
const ingressLine = `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time $upstream_status $req_id`

// TestLogTemplateOfIngress: ingress-nginx's own line as a template is the line that is built in, where nothing is escaped.
func TestLogTemplateOfIngress(t *testing.T) {
	tmpl := logTemplate(t, ingressLine, LogEscapeDefault)
	for _, c := range logLines[:4] {
		r := *c.record
		r.Template = tmpl
		if got := logged(t, &r); got != c.text+"\n" {
			t.Errorf("%s: got\n%swant\n%s", c.name, got, c.text)
		}
	}
}

// asking is an exchange as its record finds it.
func asking() *Exchange {
	x := &Exchange{Settings: DefaultSettings(), Secure: true, described: true, Remote: netip.MustParseAddrPort("10.1.2.3:4567"), Local: netip.MustParseAddrPort("10.0.0.9:8443")}
	x.Req = wire.Request{Authority: []byte("shop.example:8443"), Path: []byte("/a/b"), Query: []byte("c=d&E=f"), Framing: wire.FramingLength, ContentLength: 12}
	x.Req.Fields = []wire.Field{{Name: []byte("X-Team"), Value: []byte(`"red"`)}, {Name: []byte("Cookie"), Value: []byte("a=1; Sid=xy"), ID: wire.FieldCookie},
		{Name: []byte("X-Forwarded-For"), Value: []byte("192.0.2.7"), ID: wire.FieldXForwardedFor},
		{Name: []byte("X-Original-Forwarded-For"), Value: []byte("1.1.1.1"), ID: wire.FieldXOriginalForwardedFor}}
	x.Resp.Fields = []wire.Field{{Name: []byte("Location"), Value: []byte("/to"), ID: wire.FieldLocation}}
	x.fwd.opened, x.fwd.asked, x.fwd.headAt = 1e9, 1e9+5e6, 1e9+7e7
	return x
}

func TestLogTemplateVariables(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"$host|$http_host|$server_name|$scheme|$https", "shop.example|shop.example:8443|shop.example|https|"},
		{"$request_uri|$uri|$args|$query_string|$arg_c|$arg_e|$arg_x", "/a/b?c=d|/a/b|c=d&E=f|c=d&E=f|d|f|-"},
		{"$http_x_team|$HTTP_X_TEAM|$http_x_none|$cookie_sid|$sent_http_location|$upstream_http_location", `\x22red\x22|\x22red\x22|-|xy|/to|/to`},
		{"$http_x_forwarded_for|$proxy_add_x_forwarded_for", "1.1.1.1|192.0.2.7"},
		{"$remote_addr|$the_real_ip|$realip_remote_addr|$remote_port|$server_addr|$server_port", "192.0.2.7|192.0.2.7|10.1.2.3|4567|10.0.0.9|8443"},
		{"$time_iso8601|$time_local|$msec", "2026-11-18T12:06:40+01:00|18/Nov/2026:12:06:40 +0100|1795000000.123"},
		{"$content_length|$content_type|$bytes_sent|$server_protocol|$request_method", "12|-|1301|HTTP/1.1|GET"},
		{"$upstream_connect_time|$upstream_header_time|$upstream_response_time", "0.005|0.070|0.002"},
		{"$namespace|$ingress_name|$service_name|$service_port|$location_path", "shop|web|front|http|/a"},
		{"${status}x$literal_dollar{y}", "200x${y}"},
	} {
		got := logged(t, with(func(r *Record) { r.Template, r.Exchange = logTemplate(t, c.line, LogEscapeDefault), asking() }))
		if got != c.want+"\n" {
			t.Errorf("%s: got %q, want %q", c.line, got, c.want)
		}
	}
	got := logged(t, with(func(r *Record) {
		retried(r)
		r.Template = logTemplate(t, "$upstream_addr|$upstream_connect_time", LogEscapeDefault)
	}))
	if want := "10.0.0.1:80, [fd00::2]:80, 10.0.0.3:80|-, -, -\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLogTemplateIsOneLine: whatever a client sends, a record is one line, in each way to escape, and JSON stays JSON.
func TestLogTemplateIsOneLine(t *testing.T) {
	hostile := func(escape LogEscape, line string) string {
		x := asking()
		x.Req.Path, x.Req.Query = []byte("/\r\n\"\\\x00\x1b\xff"), []byte("a=\n")
		return logged(t, with(func(r *Record) {
			r.Template, r.Exchange = logTemplate(t, line, escape), x
			r.UserAgent, r.Target = []byte("\"\\\n\u00e4\u2028"), []byte(strings.Repeat("\n", 3*logTargetMax))
		}))
	}
	const line = `{"uri": "$uri", "args": "$args", "agent": "$http_user_agent", "target": "$request_uri", "none": "$http_none"}`
	for _, escape := range []LogEscape{LogEscapeDefault, LogEscapeJSON, LogEscapeNone} {
		got := hostile(escape, line)
		if strings.Count(got, "\n") != 1 || strings.ContainsAny(got, "\r\x00\x1b") {
			t.Errorf("escape %d: %q", escape, got)
		}
	}
	var v map[string]string
	if err := json.Unmarshal([]byte(hostile(LogEscapeJSON, line)), &v); err != nil || v["args"] != "a=\n" || v["none"] != "" {
		t.Errorf("%v, %q", err, v)
	}
	if got := hostile(LogEscapeNone, `"$http_user_agent"`); got != "\"\"\\\\x0A\u00e4\u2028\"\n" {
		t.Errorf("none: %q", got)
	}
	if got := hostile(LogEscapeDefault, strings.Repeat("$request_uri", logPartsMax)); len(got) > logLineMax || !strings.HasSuffix(got, cutMark+"\n") {
		t.Errorf("a line of %d bytes", len(got))
	}
}

func TestLogTemplateRefuses(t *testing.T) {
	for _, line := range []string{"$nothing", "$", "a$ b", "${status", "$http_", strings.Repeat("$status ", logPartsMax)} {
		if _, err := ParseLogTemplate(line, LogEscapeDefault); err == nil {
			t.Errorf("%.20q is taken", line)
		}
	}
}

func TestLogTemplateAllocatesNothing(t *testing.T) {
	names := LogVariables()
	for i := range names {
		names[i] = "$" + strings.ReplaceAll(names[i], "NAME", "x_team")
	}
	r := with(func(r *Record) {
		r.Template, r.Exchange = logTemplate(t, strings.Join(names, " "), LogEscapeDefault), asking()
	})
	var s logStamp
	s.set(r.Now)
	b := make([]byte, 0, logLineMax)
	if n := testing.AllocsPerRun(1000, func() { b = r.Template.append(b[:0], r, &s) }); n != 0 {
		t.Errorf("%v allocations a line", n)
	}
}

func BenchmarkLogTemplate(b *testing.B) {
	r := with(func(r *Record) { r.Template, r.Exchange = logTemplate(b, ingressLine, LogEscapeDefault), asking() })
	a := NewAccessLog(io.Discard, 1)
	for b.Loop() {
		a.Write(0, r)
	}
}

func TestLogSkip(t *testing.T) {
	s, err := ParseLogSkip([]string{"/healthz", "/Ready?full", "~^/static/", "~*\\.PNG$", "~(", `\~user`})
	if err == nil {
		t.Error("a bad expression is taken")
	}
	for target, want := range map[string]bool{"/healthz": true, "/HEALTHZ": true, "/healthz?a": false, "/healthz/": false, "/ready?full": true,
		"/static/a": true, "/Static/a": false, "/a.png": true, "/a.png?b": false, "~user": true, "": false} {
		if got := s.has([]byte(target)); got != want {
			t.Errorf("%q: %v", target, got)
		}
	}
	if raceEnabled { // regexp's pools drop things on purpose then
		return
	}
	target := []byte("/not/at/all")
	if n := testing.AllocsPerRun(1000, func() { s.has(target) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
