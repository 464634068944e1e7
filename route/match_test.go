package route

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		name  string
		rules []Rule
		want  map[string]string
	}{
		{"nothing", nil, map[string]string{"/": "", "": "", "*": ""}},
		{"root", rules("Prefix", "/"), map[string]string{"/": "0", "/a": "0", "/a/b": "0", "*": "", "": ""}},
		{"exact", rules("Exact", "/foo"), map[string]string{"/foo": "0", "/foo/": "", "/foo/a": "", "/foobar": "", "/fo": "", "/": ""}},
		{"prefix by element", rules("Prefix", "/foo"),
			map[string]string{"/foo": "0", "/foo/": "0", "/foo/a": "0", "/foobar": "", "/fo": "", "/Foo": ""}},
		{"prefix with a slash", rules("Prefix", "/foo/"),
			map[string]string{"/foo": "301 /foo/", "/foo/": "0", "/foo/a": "0", "/foobar": "", "/fo": ""}},
		{"string prefix", rules("Impl", "/foo"), map[string]string{"/foo": "0", "/foo/": "0", "/foobar": "0", "/fo": ""}},
		{"string prefix with a slash", rules("Impl", "/foo/"), map[string]string{"/foo": "301 /foo/", "/foo/": "0", "/foo/a": "0", "/foobar": ""}},
		{"exact with a slash", rules("Exact", "/foo/"), map[string]string{"/foo": "301 /foo/", "/foo/": "0", "/foo/a": ""}},
		{"the longest text wins", rules("Prefix", "/", "Prefix", "/foo", "Prefix", "/foo/bar", "Impl", "/foo/barrow"),
			map[string]string{"/": "0", "/x": "0", "/foo": "1", "/foo/x": "1", "/foo/bar": "2", "/foo/bar/x": "2", "/foo/barr": "1",
				"/foo/barrow": "3", "/foo/barrows": "3", "/foobar": "0"}},
		{"exact beside prefix", rules("Prefix", "/foo", "Exact", "/foo"), map[string]string{"/foo": "1", "/foo/": "0", "/foo/a": "0"}},
		{"exact beside string prefix", rules("Impl", "/foo", "Exact", "/foo"), map[string]string{"/foo": "1", "/foo/": "0", "/foobar": "0"}},
		{"exact below prefix", rules("Prefix", "/foo", "Exact", "/foo/bar"), map[string]string{"/foo/bar": "1", "/foo/bar/": "0", "/foo/ba": "0"}},
		{"the redirect wins over a shorter text", rules("Prefix", "/", "Impl", "/fo", "Prefix", "/foo/"),
			map[string]string{"/foo": "301 /foo/", "/fo": "1", "/fooo": "1", "/foo/": "2"}},
		{"no redirect where the path is a rule's", rules("Prefix", "/foo/", "Exact", "/foo"), map[string]string{"/foo": "1", "/foo/": "0"}},
		{"no redirect where the path is a prefix rule's", rules("Prefix", "/foo/", "Prefix", "/foo"),
			map[string]string{"/foo": "1", "/foo/": "0", "/foo/a": "0"}},
		{"no redirect where the path is a string prefix rule's", rules("Prefix", "/foo/", "Impl", "/foo"),
			map[string]string{"/foo": "1", "/foobar": "1", "/foo/": "0", "/foo/a": "0"}},
		{"no redirect to itself", rules("Prefix", "//", "Prefix", "/a//"), map[string]string{"/": "", "/a/": "", "/a": ""}},
		{"prefix before string prefix", rules("Prefix", "/foo", "Impl", "/foo"),
			map[string]string{"/foo": "0", "/foo/": "0", "/foo/a": "0", "/foobar": "1"}},
		{"prefix before string prefix, exact with a slash", rules("Prefix", "/foo", "Impl", "/foo", "Exact", "/foo/"),
			map[string]string{"/foo": "0", "/foo/": "2", "/foo/a": "0", "/foobar": "1"}},
		{"prefix before string prefix, with a longer one", rules("Prefix", "/foo", "Impl", "/foo", "Impl", "/foo/"),
			map[string]string{"/foo": "0", "/foo/": "2", "/foo/a": "2", "/foobar": "1"}},
		{"a path text is no pattern", rules("Prefix", "/a.b", "Prefix", "/(c)"), map[string]string{"/a.b": "0", "/axb": "", "/(c)": "1", "/c": ""}},
		{"a label longer than a node's", rules("Prefix", "/"+strings.Repeat("x", 700), "Exact", "/"+strings.Repeat("x", 255)),
			map[string]string{"/" + strings.Repeat("x", 700): "0", "/" + strings.Repeat("x", 255): "1", "/" + strings.Repeat("x", 600): ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := compiled(t, config(host("shop.example", test.rules...)), nil, newTestEnv()).Host([]byte("shop.example"))
			for path, want := range test.want {
				if got := led(h.Match([]byte(path))); got != want {
					t.Errorf("%q leads to %q, want %q", path, got, want)
				}
			}
		})
	}
}

func TestMatchRegex(t *testing.T) {
	for _, test := range []struct {
		name  string
		rules []Rule
		want  map[string]string
	}{
		{"root", rules("Prefix", "/"), map[string]string{"/": "0", "/a": "0", "*": "", "": ""}},
		{"anchored at the start only", rules("Exact", "/foo"), map[string]string{"/foo": "0", "/foobar": "0", "/foo/a": "0", "/a/foo": ""}},
		{"any case", rules("Impl", "/Foo/v[0-9]+"), map[string]string{"/fOO/V2": "0", "/foo/v": ""}},
		{"captures", rules("Impl", "/something(/|$)(.*)"), map[string]string{"/something": "0", "/something/x": "0", "/somethings": ""}},
		{"longest text first, however little it matches", rules("Impl", "/api/users", "Impl", "/[a-z]+/[a-z]+"), map[string]string{"/api/users": "1"}},
		{"then text descending", rules("Impl", "/a.", "Impl", "/.b"), map[string]string{"/ab": "0"}},
		{"no redirect", rules("Prefix", "/foo/"), map[string]string{"/foo": "", "/foo/": "0"}},
		{"an alternative has no anchor", rules("Impl", "/a|/b"), map[string]string{"/a": "0", "/x/b": "0", "/x/a": ""}},
		{"a part with its own case", rules("Impl", "/(?-i)abc"), map[string]string{"/abc": "0", "/ABC": ""}},
		{"letters that Unicode folds together", rules("Impl", "/k[0-9]", "Impl", "/sale"), map[string]string{"/\u212a1": "0", "/\u017fale": "1"}},
		{"not ASCII", rules("Impl", "/caf\u00e9"), map[string]string{"/CAF\u00c9/a": "0", "/cafe": ""}},
		{"an element or the end", rules("Impl", "/a(?:$|/)", "Impl", "/b(/|$)(.*)", "Impl", "/(c|d)/?"),
			map[string]string{"/A": "0", "/a/": "0", "/ab": "", "/b": "1", "/b/x": "1", "/bb": "", "/c": "2", "/dx": "2", "/e": ""}},
		{"what may be missing", rules("Impl", "/a/?(.*)", "Impl", "/b(x{0,2})*(|y)", "Impl", "/c(x+)", "Impl", "/d$", "Impl", "/e(x{1,2})"),
			map[string]string{"/e": "", "/ex": "4", "/ab": "0", "/b": "1", "/bz": "1", "/c": "", "/cxy": "2", "/d": "3", "/d/": ""}},
		{"shorter than the literal", rules("Impl", "/abcdefghijk"), map[string]string{"/abcdefghij": "", "/ABCDEFGHIJK": "0", "/abc": ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := host("shop.example", test.rules...)
			v.RegexMode = true
			h := compiled(t, config(v), nil, newTestEnv()).Host([]byte("shop.example"))
			for path, want := range test.want {
				if got := led(h.Match([]byte(path))); got != want {
					t.Errorf("%q leads to %q, want %q", path, got, want)
				}
			}
		})
	}
}

func TestHost(t *testing.T) {
	hosts := []*VirtualHost{host("shop.example"), host("*.shop.example"), host("a.shop.example"), host(""), host("*.example")}
	s := compiled(t, config(hosts...), nil, newTestEnv())
	for name, want := range map[string]string{
		"shop.example":     "shop.example",
		"a.shop.example":   "a.shop.example",
		"b.shop.example":   "*.shop.example",
		"a.b.shop.example": "",
		".shop.example":    "",
		"b.example":        "*.example",
		"example":          "",
		"other.test":       "",
		"":                 "",
	} {
		if got := s.Host([]byte(name)).Name(); got != want {
			t.Errorf("%q leads to host %q, want %q", name, got, want)
		}
	}
	if got := s.Host(nil).Name(); got != "" {
		t.Errorf("no name leads to %q", got)
	}
}

// TestIgnoreSlash: a Prefix with a slash at its end takes the path without, unless a rule has that path.
func TestIgnoreSlash(t *testing.T) {
	v := host("shop.example", rules("Prefix", "/foo/", "Exact", "/exact/", "Impl", "/impl/", "Prefix", "/both/", "Impl", "/both", "Prefix", "/")...)
	v.IgnoreSlash = true
	h := compiled(t, config(v), nil, newTestEnv()).Host([]byte("shop.example"))
	for path, want := range map[string]string{"/foo": "0", "/foo/": "0", "/foo/a": "0", "/foobar": "5", "/exact": "5", "/exact/": "1", "/impl": "5",
		"/impl/x": "2", "/both": "4", "/both/": "3", "/": "5"} {
		if got := led(h.Match([]byte(path))); got != want {
			t.Errorf("%q leads to %q, want %q", path, got, want)
		}
	}
}

// naive is the matcher that everybody understands: a loop over all rules. It answers as led does.
func naive(v *VirtualHost, path string) string {
	if v.RegexMode {
		return naiveRegex(v, path)
	}
	best := none
	for i := range v.Rules {
		r := &v.Rules[i]
		if checkPath(r) != "" || !naiveTakes(r, path) {
			continue
		}
		if best == none || naiveBetter(r, &v.Rules[best]) {
			best = i
		}
	}
	if best == none || v.Rules[best].Path != path {
		for i := range v.Rules {
			r := &v.Rules[i]
			switch {
			case checkPath(r) != "" || r.Path != path+"/" || path == "" || strings.HasSuffix(path, "/"):
			case !v.IgnoreSlash:
				return "301 " + string(escapePath(r.Path))
			case r.Type == Prefix:
				return strconv.Itoa(i)
			case r.Type == Implementation: // it has what goes on, and the Prefix after it nothing
				path = ""
			}
		}
	}
	if best == none {
		return ""
	}
	return strconv.Itoa(best)
}

func naiveTakes(r *Rule, path string) bool {
	switch r.Type {
	case Exact:
		return path == r.Path
	case Prefix:
		return path == r.Path || strings.HasPrefix(path, strings.TrimSuffix(r.Path, "/")+"/")
	}
	return strings.HasPrefix(path, r.Path)
}

// naiveBetter compares a rule with an earlier one; both take the path.
func naiveBetter(r, earlier *Rule) bool {
	if len(r.Path) != len(earlier.Path) {
		return len(r.Path) > len(earlier.Path)
	}
	return r.Type == Exact && earlier.Type != Exact
}

func naiveRegex(v *VirtualHost, path string) string {
	var order []int
	for i := range v.Rules {
		if checkPath(&v.Rules[i]) == "" {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := v.Rules[a].Path, v.Rules[b].Path
		return cmp.Or(cmp.Compare(len(y), len(x)), cmp.Compare(y, x))
	})
	for _, i := range order {
		if re, err := regexp.Compile("(?i)^" + v.Rules[i].Path); err == nil && re.MatchString(path) {
			return strconv.Itoa(i)
		}
	}
	return ""
}

// FuzzMatch compares the trie, and the patterns, with the naive matcher. A line of text is a rule: its first byte tells the
// type, the rest is the path. Every rule's path, and some like it, are asked for besides path.
func FuzzMatch(f *testing.F) {
	f.Add("1/\n1/foo\n0/foo\n2/foo\n1/foo/", "/foo/bar", false)
	f.Add("2/foo\n1/foo\n0/foo/\n1/foo/bar/\n2/foo/barrow", "/foo/bar", false)
	f.Add("1/api/v1/users\n1/api/v1/orders\n1/api/v2\n2/api/v1/u\n0/api/", "/api/v1/users/7", false)
	f.Add("2/api(/|$)(.*)\n2/[a-z]+/x\n1/\n0/API/k", "/\u212aPI/x", true)
	f.Add("2/a/?(.*)\n2/b(/|$)x*\n2/c(?:$|/)\n2/d(x|y?)\n2/e(|f)+(?m:$)\n2/f\\b", "/b/xx", true)
	f.Add("2/a|/b\n2/(?-i)A\n2/(\n2/a{1,2}b*c?$", "/aab", true)
	f.Add("1//\n2/a//\n1/a/", "/a", false)
	f.Fuzz(func(t *testing.T, text, path string, regex bool) {
		v := &VirtualHost{Name: "shop.example", Owner: shop, RegexMode: regex}
		paths := []string{path}
		for line := range strings.SplitSeq(text, "\n") {
			if len(v.Rules) == 64 || line == "" {
				break
			}
			p := line[1:]
			v.Rules = append(v.Rules, Rule{Owner: shop, Type: PathType(line[0] % 3), Path: p, Cluster: "web", Service: strconv.Itoa(len(v.Rules))})
			paths = append(paths, p, p+"/", p+"x", strings.ToUpper(p), p+"/"+path, p[:len(p)/2], strings.TrimSuffix(p, "/"))
		}
		for _, v.IgnoreSlash = range []bool{false, true} {
			s, _ := Compile(config(v), nil, newTestEnv().Env)
			h := s.Host([]byte("shop.example"))
			for _, p := range paths {
				if got, want := led(h.Match([]byte(p))), naive(v, p); got != want {
					t.Errorf("%q leads to %q, want %q; IgnoreSlash is %v, rules %q", p, got, want, v.IgnoreSlash, text)
				}
			}
		}
	})
}
