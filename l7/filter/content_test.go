package filter

import (
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// described is an exchange whose fields about the client need no loop.
func described(t testing.TB, fields ...string) *l7.Exchange {
	x := exchange(t, "shop.example", "/a/b?c=d")
	x.Settings, x.Route, x.RequestID = l7.DefaultSettings(), &l7.Route{}, []byte("id")
	for i := 0; i < len(fields); i += 2 {
		name := []byte(fields[i])
		x.Req.Fields = append(x.Req.Fields, wire.Field{Name: name, Value: []byte(fields[i+1]), ID: wire.IDOf(name)})
	}
	return x
}

func fieldsText(fields []wire.Field) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(string(f.Name) + "=" + string(f.Value) + ";")
	}
	return b.String()
}

func TestTextVariables(t *testing.T) {
	x := described(t, "X-User", "ann", "Cookie", "a=b; session=s1", "Cookie", "c=d")
	x.Secure = true
	for text, want := range map[string]string{
		"": "", "plain": "plain", "$host": "shop.example", "${scheme}://$http_host$request_uri": "https://shop.example/a/b?c=d",
		"$http_x_user": "ann", "$http_none-": "-", "$cookie_session$cookie_c": "s1d", "$arg_c.$arg_none": "d.", "$escaped_request_uri": "%2Fa%2Fb%3Fc%3Dd",
		"$remote_addr": "192.0.2.1", "${literal_dollar}5": "$5", "$req_id": "id", "$uri?$args": "/a/b?c=d",
	} {
		parsed, err := ParseText(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := string(parsed.Fill(x)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for _, bad := range []string{"$", "a$ b", "${host", "$nothing", "${}", "$http_", strings.Repeat("$host", 30)} {
		if _, err := ParseText(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestCORS(t *testing.T) {
	f := compile(t, CORS{AllowOrigins: "https://a.example,null, https://*.b.example:8443", AllowMethods: "GET", AllowHeaders: "X-A", MaxAge: time.Minute})
	for origin, allowed := range map[string]bool{
		"https://a.example": true, "null": true, "https://x.b.example:8443": true, "": false, "https://a.example.evil": false,
		"https://evil-a.example": false, "http://a.example": false, "https://.b.example:8443": false, "https://x.y.b.example:8443": false,
		"https://b.example:8443": false, "https://x/.b.example:8443": false,
	} {
		x := described(t)
		if origin != "" {
			x = described(t, "Origin", origin)
		}
		x.Req.Method = wire.MethodOptions
		v := f.Request.Request(x)
		f.Response.Response(x)
		got := wire.GetName(x.Resp.Fields, "access-control-allow-origin")
		if allowed != (v == l7.Respond && string(got) == origin) || !allowed && got != nil {
			t.Errorf("%q: verdict %v, %q", origin, v, got)
		}
		if got := string(wire.Get(x.Resp.Fields, wire.FieldVary)); got != "Origin" {
			t.Errorf("%q: Vary is %q", origin, got)
		}
	}
	x := described(t, "Origin", "https://x.b.example:8443")
	noAllocations(t, x, f)
	for _, bad := range []string{"a.example", "https://a.example/", "ftp", "https://*.*.example"} {
		if _, err := (CORS{AllowOrigins: bad}).Compile(nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestCORSVaries: a cache learns that answers differ by origin, once, and not where they are the same for all.
func TestCORSVaries(t *testing.T) {
	for _, c := range []struct{ origins, backend, want string }{
		{"https://a.example", "", "Vary=Origin;"},
		{"https://a.example", "Accept", "Vary=Accept;Vary=Origin;"},
		{"https://a.example", "Accept, origin", "Vary=Accept, origin;"},
		{"https://a.example", "*", "Vary=*;"},
		{"https://a.example", "Original", "Vary=Original;Vary=Origin;"},
		{"*", "", ""},
		{"https://a.example,*", "Accept", "Vary=Accept;"},
	} {
		x := described(t)
		if c.backend != "" {
			x.Resp.Fields = append(x.Resp.Fields, wire.NewField(wire.FieldVary, []byte(c.backend)))
		}
		compile(t, CORS{AllowOrigins: c.origins}).Response.Response(x)
		got := ""
		for i := range x.Resp.Fields {
			if f := x.Resp.Fields[i : i+1]; f[0].ID == wire.FieldVary {
				got += fieldsText(f)
			}
		}
		if got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestHeaders(t *testing.T) {
	f := compile(t, Headers{RequestSet: "X-A: $host\nX-Gone: $arg_none\n", RequestAdd: "X-B: 2\n", RequestRemove: "X-C\nCookie\n",
		ResponseSet: "X-D: 4\nServer: mine\n", ResponseAdd: "X-E: 5\n", ResponseRemove: "X-F\n"})
	x := described(t, "X-A", "1", "x-a", "2", "X-B", "1", "X-C", "1", "Cookie", "a=b", "X-Gone", "1")
	x.Resp.Fields = append(x.Resp.Fields, wire.Field{Name: []byte("x-f"), Value: []byte("1")}, wire.NewField(wire.FieldServer, []byte("theirs")))
	f.Request.Request(x)
	f.Response.Response(x)
	if got := fieldsText(x.Req.Fields); !strings.HasPrefix(got, "X-A=shop.example;X-B=1;") || !strings.HasSuffix(got, "X-B=2;") ||
		strings.Contains(got, "X-C") || strings.Contains(got, "Cookie") || strings.Contains(got, "X-Gone") {
		t.Errorf("request: %s", got)
	}
	if got := fieldsText(x.Resp.Fields); got != "Server=mine;X-D=4;X-E=5;" {
		t.Errorf("response: %s", got)
	}
	x.Req.Fields = x.Req.Fields[:0]
	f = compile(t, Headers{RequestSet: "X-A: $host-$http_host\n", RequestRemove: "X-C\n", ResponseSet: "X-D: $scheme\n"})
	noAllocations(t, x, f)
	for _, bad := range []Headers{{RequestSet: "X A: 1"}, {RequestSet: "Connection: close"}, {ResponseSet: "Content-Length: 1"}, {ResponseAdd: "nothing"},
		{RequestRemove: "Transfer-Encoding"}, {ResponseSet: "X-A: a\rb"}, {ResponseSet: "X-A: $none"}} {
		if _, err := bad.Compile(nil); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestResponseRewrites(t *testing.T) {
	location := compile(t, LocationRewrite{From: "http://in.example", To: "$scheme://$host"})
	cookies := compile(t, CookieRewrite{DomainFrom: "in.example", DomainTo: "out.example", PathFrom: "/in", PathTo: "/out"})
	for _, c := range []struct{ name, in, want string }{
		{"Location", "http://in.example/x", "http://shop.example/x"}, {"Location", "http://other/http://in.example", "http://other/http://in.example"},
		{"Refresh", "1;URL=http://in.example/", "1;URL=http://shop.example/"}, {"Refresh", "1", "1"}, {"X-Other", "http://in.example", "http://in.example"},
		{"Set-Cookie", "a=/in; Path=/in/x; Domain=in.example", "a=/in; Path=/out/x; Domain=out.example"},
		{"Set-Cookie", "a=b;domain=.IN.example;path=/", "a=b;domain=.out.example;path=/"}, {"Set-Cookie", "domain=in.example", "domain=in.example"},
		{"Set-Cookie", "a=b; Domain=sub.in.example", "a=b; Domain=sub.in.example"}, {"Set-Cookie", "a=b; ; Path", "a=b; ; Path"}, {"Set-Cookie", "", ""},
	} {
		x := described(t)
		set := func() {
			name := []byte(c.name)
			x.Resp.Fields = append(x.Resp.Fields[:0], wire.Field{Name: name, Value: []byte(c.in), ID: wire.IDOf(name)})
		}
		set()
		location.Response.Response(x)
		cookies.Response.Response(x)
		if got := string(x.Resp.Fields[0].Value); got != c.want {
			t.Errorf("%s: %q: %q, want %q", c.name, c.in, got, c.want)
		}
	}
	x := described(t)
	x.Resp.Fields = []wire.Field{wire.NewField(wire.FieldSetCookie, []byte("a=b; Path=/in; Domain=in.example"))}
	keep := x.Resp.Fields[0]
	noAllocations(t, x, l7.Filter{Response: responses(func(x *l7.Exchange) {
		x.Resp.Fields = append(x.Resp.Fields[:0], keep)
		location.Response.Response(x)
		cookies.Response.Response(x)
	})})
}

type responses func(*l7.Exchange)

func (f responses) Response(x *l7.Exchange) { f(x) }

func TestBlock(t *testing.T) {
	f := compile(t, Block{UserAgents: "BadBot, ~^curl/, ~*SCRAPER", Referers: "https://spam.example/"})
	for _, c := range []struct {
		agent, referer string
		blocked        bool
	}{{"badbot", "", true}, {"BadBot/1", "", false}, {"curl/8", "", true}, {"Curl/8", "", false}, {"a scraper", "", true}, {"", "", false},
		{"good", "https://spam.example/", true}, {"good", "https://spam.example/x", false}} {
		x := described(t, "User-Agent", c.agent, "Referer", c.referer)
		if got := f.Request.Request(x) == l7.Respond; got != c.blocked {
			t.Errorf("%+v: %v", c, got)
		}
		noAllocations(t, x, f)
	}
}

func TestUpstreamRequest(t *testing.T) {
	f := compile(t, UpstreamRequest{Host: "in.example:8080", Prefix: "/app/$1", Path: "/(.*)"})
	x := described(t, "X-Forwarded-Prefix", "/evil")
	f.Request.Request(x)
	if got := string(wire.GetName(x.Req.Fields, "X-Forwarded-Prefix")); string(x.SendHost) != "in.example:8080" || got != "/app/a/b" {
		t.Errorf("host %q, prefix %q", x.SendHost, got)
	}
	noAllocations(t, x, f)
}
