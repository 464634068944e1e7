package filter

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// TestApr1 has its sums from openssl passwd -apr1.
func TestApr1(t *testing.T) {
	for _, c := range []struct{ password, salt, sum string }{
		{"secret", "abcdefgh", "h9FWgUz3n9YxylKLlR5SQ/"}, {"", "abcdefgh", "L.PT565ESX4Tp2bqNs7Ie."}, {"x", "abcdefgh", "82JubPF2dQkt1tVfvLnXS."},
		{"a-much-longer-password-than-sixteen-bytes", "abcdefgh", "h3YV5nl0Bb7iuo8UwXwDu."}, {"secret", "r", "iiz1mZo2UOr.suIIJxMYr/"},
	} {
		if got := string(apr1([]byte(c.password), []byte(c.salt))); got != c.sum {
			t.Errorf("%q with salt %q: %s, want %s", c.password, c.salt, got, c.sum)
		}
	}
}

func TestPasswordHashes(t *testing.T) {
	made, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "$apr1$r$iiz1mZo2UOr.suIIJxMYr/", string(made), strings.Replace(string(made), "$2a$", "$2y$", 1)} {
		h, err := parsePasswordHash(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for password, want := range map[string]bool{"secret": true, "Secret": false, "": false, "secret\x00": false, "secret ": false} {
			if got := h.matches([]byte(password)); got != want {
				t.Errorf("%s, %q: %v", text, password, got)
			}
		}
	}
	for _, text := range []string{"", "secret", "{PLAIN}secret", "{SSHA}x", "{SHA}short", "$1$a$b", "$5$a$b", "$6$a$b", "$apr1$", "$apr1$salt", "$apr1$salttoolong$" + strings.Repeat("a", 22),
		"$apr1$a$short", "$2y$", "$2y$31" + string(made[6:]), "$2y$15" + string(made[6:]), "rqXexS6ZhobKA"} {
		if err := CheckPasswordHash(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestBasicAuthFast(t *testing.T) {
	f := compile(t, BasicAuth{Users: "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nold:$1$a$b\n", Realm: `a "b"`})
	ask := func(credentials string) (*l7.Exchange, l7.Verdict) {
		x := described(t, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(credentials)))
		return x, f.Request.Request(x)
	}
	for credentials, want := range map[string]l7.Verdict{"ann:secret": l7.Continue, "ann:wrong": l7.Respond, "bob:secret": l7.Respond, "old:x": l7.Respond, "ann": l7.Respond, ":": l7.Respond} {
		if x, v := ask(credentials); v != want || (v == l7.Respond) != (x.Resp.Status == 401) || (v == l7.Respond) != (string(x.Challenge) == `Basic realm="a \"b\""`) {
			t.Errorf("%s: %v, %d %q", credentials, v, x.Resp.Status, x.Challenge)
		}
	}
	x, _ := ask("ann:secret")
	field := x.Req.Fields
	x = described(t, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("ann:secret")))
	field = append(field[:0], x.Req.Fields...)
	noAllocations(t, x, l7.Filter{Request: requests(func(x *l7.Exchange) l7.Verdict {
		x.Req.Fields = append(x.Req.Fields[:0], field...)
		return f.Request.Request(x)
	})})
	if _, err := (BasicAuth{Users: "old:$1$a$b\n"}).Compile(&State{}); err == nil {
		t.Error("nobody can come in, and it compiles")
	}
	if text := (BasicAuth{Users: "ann:hash\n"}).Users.String(); strings.Contains(text, "hash") {
		t.Errorf("credentials print: %s", text)
	}
}

// TestCredentialsPadding: base64 of every length is read, padded or not; whatever is cut or padded wrongly is none.
func TestCredentialsPadding(t *testing.T) {
	read := func(v string) (string, bool) {
		user, password, ok := credentials(described(t, "Authorization", "Basic "+v))
		return string(user) + ":" + string(password), ok
	}
	for n := range 8 {
		text := "u:" + strings.Repeat("p", n)
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
			v := e.EncodeToString([]byte(text))
			if got, ok := read(v); !ok || got != text {
				t.Errorf("%q: %q, %t", v, got, ok)
			}
			if got, ok := read(v + "==="); ok {
				t.Errorf("%q and === are taken as %q", v, got)
			}
		}
		for _, pads := range []string{"", "=", "==", "==="} {
			if got, ok := read(strings.Repeat("Q", n+1) + pads); ok {
				t.Errorf("%d Q and %q are taken as %q", n+1, pads, got)
			}
		}
	}
}

// TestExternalAuthUnasked: who is let in otherwise (satisfy: any) does not forge what the service would have said.
func TestExternalAuthUnasked(t *testing.T) {
	f := compile(t, ExternalAuth{URL: "http://$host/verify", ResponseHeaders: "Remote-User, Authorization", Any: true})
	x := described(t, "X-A", "b", "remote-user", "admin", "Authorization", "Bearer x", "Remote-User", "root")
	x.Admitted = true
	if v := f.Request.Request(x); v != l7.Continue || fieldsText(x.Req.Fields) != "X-A=b;" {
		t.Errorf("verdict %v, the backend gets %s", v, fieldsText(x.Req.Fields))
	}
	noAllocations(t, x, f)
}

// TestTwins: where odd names are let in, none stands beside a field that the proxy sets or removes, and is read as it.
func TestTwins(t *testing.T) {
	copies := compile(t, ExternalAuth{URL: "http://$host/verify", ResponseHeaders: "X-Auth-Request-User, X_Auth_Email", Any: true})
	sets := compile(t, Headers{RequestSet: "X-Tenant: $host\nX-Empty: $arg_none", RequestRemove: "X-Gone"})
	const head = "GET / HTTP/1.1\r\nHost: a\r\nX_Auth_Request_User: 1\r\nX-Auth_Request.User: 2\r\nX.Auth.Email: 3\r\nX_Tenant: 4\r\nX_Empty: 5\r\nX_Gone: 6\r\nX_Own: 7\r\n\r\n"
	x := described(t)
	x.Describe()
	x.Admitted = true
	if err := x.Req.Parse([]byte(head), &x.Arena, &wire.Limits{OddNames: true}); err != nil {
		t.Fatal(err)
	}
	copies.Request.Request(x)
	sets.Request.Request(x)
	if got := fieldsText(x.Req.Fields); got != "X-Tenant=a;X_Own=7;" {
		t.Errorf("the backend gets %s", got)
	}
	x.Resp.Fields = append(x.Resp.Fields, wire.Field{Name: []byte("X_Tenant")}) // a backend's own are as they are
	x.SetResponse(wire.FieldOther, []byte("X-Tenant"), nil)
	if len(x.Resp.Fields) != 2 {
		t.Errorf("the client gets %s", fieldsText(x.Resp.Fields))
	}
}

// TestFieldsOfSeveralLines: what a text says of a field is all of its lines, as nginx joins them; a key of one line would be that of
// whoever sends that line alone.
func TestFieldsOfSeveralLines(t *testing.T) {
	x := described(t, "Cookie", "lang=en", "X-A", "1", "cookie", ";\tsession=mine", "x-a", "2", "X-B", "3")
	x.Req.Fields = append(x.Req.Fields, wire.Field{Name: []byte("X_B"), Value: []byte("4"), Odd: true})
	for text, want := range map[string]string{"$http_cookie": "lang=en; ;\tsession=mine", "$http_x_a|$http_x_b|$http_x_c": "1, 2|3, 4|", "$cookie_session": "mine", "$cookie_SESSION": "mine", "$cookie_Lang": "en"} {
		f, err := ParseText(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(f.Fill(x)); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestOwnTrailers: a name that the proxy says something by, or takes away, is none of the client's trailers'.
func TestOwnTrailers(t *testing.T) {
	x := described(t, "X-Own", "1")
	x.Req.Framing = wire.FramingChunked
	compile(t, Headers{RequestSet: "X-Tenant: $host\nX-Empty: $arg_none", RequestRemove: "X-Gone"}).Request.Request(x)
	copies := compile(t, ExternalAuth{URL: "http://$host/verify", ResponseHeaders: "Remote-User", Any: true})
	x.Admitted = true
	copies.Request.Request(x)
	trailers := []wire.Field{{Name: []byte("x-tenant")}, {Name: []byte("X-Empty")}, {Name: []byte("X-Gone")}, {Name: []byte("Remote-User")}, {Name: []byte("Remote_User")}, {Name: []byte("X-Sum")}}
	b, err := wire.AppendLastChunk(nil, trailers, x.Req.Listed...)
	if err != nil || string(b) != "0\r\nX-Sum: \r\n\r\n" {
		t.Errorf("the backend gets %q, %v", b, err)
	}
}

// TestVerdictOfAnUnknownUser: a user who gets a hash that stood in for theirs is not refused by what was kept of before.
func TestVerdictOfAnUnknownUser(t *testing.T) {
	x := described(t)
	b, h := &basicAuth{verdicts: &verdicts{}}, &passwordHash{text: []byte("hash")}
	if b.digest(x, h, false, []byte("bob"), []byte("secret")) == b.digest(x, h, true, []byte("bob"), []byte("secret")) {
		t.Error("both verdicts are kept by the same")
	}
}

type requests func(*l7.Exchange) l7.Verdict

func (f requests) Request(x *l7.Exchange) l7.Verdict { return f(x) }

func TestParseAuthURL(t *testing.T) {
	for text, want := range map[string]AuthURL{
		"https://$host/oauth2/auth":            {"https", "$host", "", "/oauth2/auth"},
		"http://authelia.auth.svc:9091?a=$uri": {"http", "authelia.auth.svc", "9091", "/?a=$uri"},
		"$scheme://$http_host/x":               {"$scheme", "$http_host", "", "/x"},
		"http://[::1]:80/":                     {"http", "[::1]", "80", "/"},
		"http://a.example":                     {"http", "a.example", "", "/"},
	} {
		if got, err := ParseAuthURL(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "a.example/x", "ftp://a/", "http://", "http:///x", "http://u@h/", "http://a b/", "http://$none/", "http://a/$"} {
		if _, err := ParseAuthURL(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestSigninURL(t *testing.T) {
	const from = "=$pass_access_scheme://$http_host$escaped_request_uri"
	for _, c := range []struct{ url, param, want string }{
		{"", "", ""}, {"https://a/", "", "https://a/?rd" + from}, {"https://a/?x=y", "", "https://a/?x=y&rd" + from},
		{"https://a/?rd=z", "", "https://a/?rd=z"}, {"https://a/?rd=z", "next", "https://a/?rd=z&next" + from}, {"https://a/?rd=", "", "https://a/?rd=&rd" + from},
	} {
		if got := signinURL(c.url, c.param); got != c.want {
			t.Errorf("%q, %q: %s, want %s", c.url, c.param, got, c.want)
		}
	}
}

func TestParseCacheDurations(t *testing.T) {
	d, err := ParseCacheDurations("200 202 10m, any 1s,5")
	if err != nil || len(d) != 3 || d[0].For != 10*time.Minute || len(d[0].Statuses) != 2 || d[1].Statuses != nil || d[2].For != 5*time.Second || d[2].Statuses[1] != 301 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = ParseCacheDurations(""); err != nil || len(d) != 1 || d[0].For != 5*time.Minute {
		t.Errorf("default: %+v, %v", d, err)
	}
	if d, _ = ParseCacheDurations("200 400w"); d[0].For != authDurationMax {
		t.Errorf("no maximum: %v", d[0].For)
	}
	for _, bad := range []string{"soon", "200", "2000 5m", "200 5y", "200 -5m", "200 99999999999999999999d"} {
		if d, err := ParseCacheDurations(bad); err == nil && bad != "200" {
			t.Errorf("%q is taken: %v", bad, d)
		}
	}
}
