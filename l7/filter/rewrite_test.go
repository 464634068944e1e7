package filter

import (
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/l7"
)

// The expectations were taken from nginx 1.22 (`rewrite "(?i)PATH" TARGET break` before proxy_pass), but where the name
// says otherwise.
func TestPathRewrite(t *testing.T) {
	cases := []struct {
		name, path, target, request, want string // want "": not rewritten
	}{
		{"slashRest, nothing left", "/foo(/|$)(.*)", "/$2", "/foo", "/"},
		{"slashRest, slash left", "/foo(/|$)(.*)", "/$2", "/foo/", "/"},
		{"slashRest, rest and query", "/foo(/|$)(.*)", "/$2", "/foo/a/b?x=1", "/a/b?x=1"},
		{"any case", "/foo(/|$)(.*)", "/$2", "/FOO/a%20b", "/a%20b"},
		{"upper case in the expression", "/Foo(/|$)(.*)", "/$2", "/foo/a", "/a"},
		{"merged slashes", "/foo(/|$)(.*)", "/$2", "/foo//a", "/a"},
		{"encoded slash is a slash", "/foo(/|$)(.*)", "/$2", "/foo/a%2Fb", "/a/b"},
		{"encoded question mark stays encoded", "/foo(/|$)(.*)", "/$2", "/foo/a%3Fb", "/a%3Fb"},
		{"encoded percent stays encoded", "/foo(/|$)(.*)", "/$2", "/foo/%25zz", "/%25zz"},
		{"a capture ends at a line feed", "/foo(/|$)(.*)", "/$2", "/foo/a%0Ab", "/a"},
		{"UTF-8 is encoded", "/foo(/|$)(.*)", "/$2", "/foo/\u00e4", "/%C3%A4"},
		{"marks are encoded", "/foo(/|$)(.*)", "/$2", "/foo/%5E%60%7B", "/%5E%60%7B"},
		{"sub-delimiters are not", "/foo(/|$)(.*)", "/$2", "/foo/a;b=c&d", "/a;b=c&d"},
		{"rest without slash", "/slash(.*)", "/$1", "/slashx", "/x"},
		{"not as nginx: the result is normalised", "/slash(.*)", "/$1", "/slash/x", "/x"},
		{"not as nginx: dot segments are resolved", "/dots(.*)", "/base/$1", "/dots../x", "/x"},
		{"not as nginx: an empty result is the root", "/empty(.*)", "$1", "/empty", "/"},
		{"empty before, something after", "/empty(.*)", "$1", "/empty/x", "/x"},
		{"without captures the whole path goes", "/fix", "/new", "/fix/abc?q=2", "/new?q=2"},
		{"without query", "/fix", "/new", "/fix", "/new"},
		{"an empty query goes", "/fix", "/new", "/fix?", "/new"},
		{"a target without slash gets one", "/fix", "new", "/fix", "/new"},
		{"an empty target is the root", "/fix", "", "/fix", "/"},
		{"optional slash", "/api/?(.*)", "/$1", "/api/v1", "/v1"},
		{"optional slash, none", "/api/?(.*)", "/$1", "/apiv1", "/v1"},
		{"two captures", "/(a|b)/([0-9]+)/x", "/$2/$1", "/b/42/x/rest", "/42/b"},
		{"a capture twice", "/u/([a-z]+)", "/$1/$1", "/u/me", "/me/me"},
		{"a capture that is not there", "/foo(.*)", "/x$2", "/foo/a", "/x"},
		{"a group that took no part", "/foo(/a)?(/b)?", "/x$1$2", "/foo/b", "/x/b"},
		{"escaped dot", `/v1\.0(/|$)(.*)`, "/$2", "/v1.0/a", "/a"},
		{"plain dot", "/v1.0(/|$)(.*)", "/$2", "/v1x0/a", "/a"},
		{"looked for anywhere", "/foo(/|$)(.*)", "/$2", "/foobar/foo/x", "/x"},
		{"no match", "/foo(/|$)(.*)", "/$2", "/bar", ""},
		{"asterisk", "/foo(/|$)(.*)", "/$2", "*", ""},
		{"text around captures", "/s/(.*)", "/t/$1.html", "/s/a", "/t/a.html"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := compile(t, PathRewrite{Path: c.path, Target: c.target})
			x := exchange(t, "a.example", c.request)
			if v := f.Request.Request(x); v != l7.Continue {
				t.Fatalf("verdict %v", v)
			}
			if got := string(x.RewriteTarget); got != c.want {
				t.Errorf("%q; want %q", got, c.want)
			}
		})
	}
}

func TestPathRewriteNeverLeavesTheRoot(t *testing.T) {
	f := compile(t, PathRewrite{Path: "/x(.*)", Target: "/$1"})
	x := exchange(t, "a.example", "/x../../etc/passwd") // normalised: /etc/passwd, which is no match
	f.Request.Request(x)
	if x.RewriteTarget != nil {
		t.Errorf("rewritten to %q", x.RewriteTarget)
	}
	x = exchange(t, "a.example", "/x../y")
	if v := f.Request.Request(x); v != l7.Respond || x.Resp.Status != 400 {
		t.Errorf("verdict %v, status %d, target %q", v, x.Resp.Status, x.RewriteTarget)
	}
}

func TestPathRewriteRefuses(t *testing.T) {
	for _, r := range []PathRewrite{
		{"/a(?=b)", "/$1"},   // RE2 has no look-ahead
		{"/a(", "/"},         // not an expression
		{"/a", "/$host"},     // nginx's variables
		{"/a", "/$"},         //
		{"/a", "/$0"},        //
		{"/a", "/a/../../b"}, // above the root
		{strings.Repeat("a", PatternMax+1), "/"},
		{"/" + strings.Repeat("(a{1000})", 10), "/"},
	} {
		if _, err := r.Compile(&State{}); err == nil {
			t.Errorf("%.40q → %q compiles", r.Path, r.Target)
		}
	}
}

func TestPathRewriteAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, c := range []struct {
		path, target, request string
		most                  float64
	}{
		{"/foo(/|$)(.*)", "/$2", "/foo/a/b?x=1", 0},
		{"/foo(.*)", "/bar$1", "/foo/a/b?x=1", 0},
		{"/foo/(.*)", "/$1", "/foo/a/b?x=1", 0},
		{"/foo/?(.*)", "/$1", "/foo/a/b?x=1", 0},
		{"/slash(.*)", "/$1", "/slash/a", 0}, // normalised
		{"/foo", "/bar", "/foo/a?x=1", 0},
		{"/(a|b)/([0-9]+)/x", "/$2/$1", "/b/42/x/rest", 1},
	} {
		f := compile(t, PathRewrite{Path: c.path, Target: c.target})
		x := exchange(t, "a.example", c.request)
		run := func() { x.Arena.Reset(); f.Request.Request(x) }
		run()
		if n := testing.AllocsPerRun(200, run); n > c.most {
			t.Errorf("%s: %v allocations, at most %v", c.path, n, c.most)
		}
	}
}

// FuzzPathRewrite compares the shapes matched by hand with regexp, and holds the result to what may be sent.
func FuzzPathRewrite(f *testing.F) {
	for _, path := range []string{"/foo", "/foo/", "/FOO/a%2Fb", "/foo/\n/x", "/foo/a%0Ab", "/fook/\u212a", "/foo../x", "/foobar/foo/x", "/foo//.//.."} {
		f.Add("/foo", uint8(3), path)
		f.Add("/fo.", uint8(2), path)
	}
	f.Fuzz(func(t *testing.T, head string, tail uint8, request string) {
		expr := head + shapeTails[int(tail)%len(shapeTails)].tail
		p, err := compilePattern(expr)
		if err != nil {
			t.Skip()
		}
		var got, want groups
		slow := pattern{expr: NewExpression("(?i)" + expr)}
		if a, b := p.match([]byte(request), &got), slow.match([]byte(request), &want); a != b || a && !sameText(request, &got, &want) {
			t.Fatalf("%q on %q: %v %v by hand, %v %v by regexp", expr, request, a, got, b, want)
		}
		x := exchange(t, "a.example", "/")
		x.Req.Path = []byte(request)
		filter, err := (PathRewrite{Path: expr, Target: "/t/$1$2"}).Compile(&State{})
		if err != nil {
			t.Fatal(err)
		}
		if v := filter.Request.Request(x); v == l7.Continue && x.RewriteTarget != nil {
			for _, c := range x.RewriteTarget {
				if c <= ' ' || c >= 0x7f || c == '?' || c == '#' {
					t.Fatalf("%q holds %q", x.RewriteTarget, c)
				}
			}
			if s := string(x.RewriteTarget); s[0] != '/' || strings.Contains(s+"/", "/../") || strings.Contains(s, "//") {
				t.Fatalf("%q is not normalised", s)
			}
		}
	})
}

func sameText(path string, a, b *groups) bool {
	for i := range a {
		if string(a.of([]byte(path), i)) != string(b.of([]byte(path), i)) {
			return false
		}
	}
	return true
}

func BenchmarkPathRewrite(b *testing.B) {
	for _, c := range []struct{ name, path, target string }{
		{"shape", "/foo(/|$)(.*)", "/$2"},
		{"regexp", "/(foo|bar)(/|$)(.*)", "/$3"},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := compile(b, PathRewrite{Path: c.path, Target: c.target})
			x := exchange(b, "a.example", "/foo/api/v1/items?page=2")
			b.ReportAllocs()
			for b.Loop() {
				x.Arena.Reset()
				f.Request.Request(x)
			}
		})
	}
}

// TestPatternIsBounded: an expression of few bytes and many steps is none, wherever it is compiled.
func TestPatternIsBounded(t *testing.T) {
	const long = "(?:a?a?a?a?a?){1000}!"
	if err := CheckPattern(long); err == nil || !strings.Contains(err.Error(), "steps") {
		t.Errorf("a pattern of many steps: %v", err)
	}
	if _, err := (ClientCertificate{Match: "CN=" + long}).Compile(nil); err == nil {
		t.Error("a subject's expression of many steps is compiled")
	}
	if err := CheckPattern(strings.Repeat("a", PatternMax+1)); err == nil {
		t.Error("a pattern of many bytes is taken")
	}
}
