package route

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/upstream"
)

// at compiles nothing: it asks a snapshot.
func at(s *Snapshot, host, path string) *l7.Route { return s.Host([]byte(host)).Match([]byte(path)) }

func TestRouteOfRule(t *testing.T) {
	v := host("shop.example", Rule{
		Owner: shop, Path: "/cart", Type: Prefix, Cluster: "web", Service: "web", Port: "http", Fallback: "spare",
		Policy: l7.Policy{BodyMax: 7, ReadTimeout: time.Minute},
	})
	c := &Config{Hosts: []*VirtualHost{v}, Clusters: []*Cluster{service("web"), service("spare")}}
	s := compiled(t, c, nil, newTestEnv())
	r := at(s, "shop.example", "/cart/1")
	if want := (l7.Identity{Namespace: "shop", Ingress: "web", Service: "web", Port: "http", Host: "shop.example", Path: "/cart"}); r.ID != want {
		t.Errorf("identity %+v, want %+v", r.ID, want)
	}
	if r.Policy != v.Rules[0].Policy {
		t.Errorf("policy %+v, want %+v", r.Policy, v.Rules[0].Policy)
	}
	for id, got := range map[string]*upstream.Cluster{"web": r.Cluster, "spare": r.Fallback} {
		if want := s.clusters[id].live.upstream; got != want {
			t.Errorf("cluster %s is not that of the snapshot", id)
		}
	}
	if want := (l7.Identity{Namespace: "shop", Ingress: "web", Service: "web", Port: "http"}); r.Stats.ID != want {
		t.Errorf("statistics of %+v, want %+v", r.Stats.ID, want)
	}
}

func TestFilterOrder(t *testing.T) {
	first := behaviour{name: "first", stage: filter.Rewrite}
	app := behaviour{name: "app-root", stage: filter.Rewrite}
	v := host("shop.example", rules("Prefix", "/a/", "Prefix", "/b", "Prefix", "/d/", "Prefix", "/e")...)
	v.Filters = []filter.Config{behaviour{name: "host body", stage: filter.Body}, app, behaviour{name: "cookie", stage: filter.Header}}
	v.Rules[2].Filters = []filter.Config{behaviour{name: "mirror", stage: filter.PreContent}}
	v.Rules[3].Filters = []filter.Config{behaviour{name: "auth", stage: filter.Access}}
	v.Rules[0].Filters = []filter.Config{
		behaviour{name: "limit", stage: filter.PreAccess},
		behaviour{name: "back", stage: filter.Header, response: true},
		first,
		behaviour{name: "second", stage: filter.Rewrite},
	}
	s := compiled(t, config(v), nil, newTestEnv())
	for _, test := range []struct{ path, requests, responses string }{
		{"/a/", "app-root first second limit cookie host body", "host body back cookie limit second first app-root"},
		{"/a", "app-root cookie host body 301 /a/", "host body cookie app-root"},
		{"/b", "app-root cookie host body", "host body cookie app-root"},
		{"/c", "app-root cookie host body 404", "host body cookie app-root"},
		{"/d", "app-root cookie host body 301 /d/", "host body cookie app-root"},
		{"/d/", "app-root mirror cookie host body", "host body cookie mirror app-root"},
		{"/e", "app-root auth cookie host body", "host body cookie auth app-root"},
	} {
		r := at(s, "shop.example", test.path)
		if got := strings.Join(requests(r), " "); got != test.requests {
			t.Errorf("%s: request filters %q, want %q", test.path, got, test.requests)
		}
		if got := strings.Join(responses(r), " "); got != test.responses {
			t.Errorf("%s: response filters %q, want %q", test.path, got, test.responses)
		}
	}
}

// State belongs to owner and role, not to a value, and outlives a compile.
func TestFilterState(t *testing.T) {
	limit := []filter.Config{behaviour{name: "limit", stage: filter.PreAccess}}
	list := rules("Prefix", "/a", "Prefix", "/b", "Prefix", "/c")
	for i := range list {
		list[i].Filters = limit
	}
	list[2].Owner.Name = "other"
	e := newTestEnv()
	before := compiled(t, config(host("shop.example", list...)), nil, e)
	after := compiled(t, config(host("shop.example", list...)), before, e)
	state := func(s *Snapshot, path string) *int { return at(s, "shop.example", path).Request[0].(named).state }
	if state(before, "/a") != state(before, "/b") {
		t.Error("two rules of one Ingress do not share their state")
	}
	if state(before, "/a") == state(before, "/c") {
		t.Error("rules of two Ingresses share their state")
	}
	if at(before, "shop.example", "/a") == at(after, "shop.example", "/a") {
		t.Fatal("the host was not compiled anew")
	}
	if state(before, "/a") != state(after, "/a") {
		t.Error("the state did not outlive the compile")
	}
	if at(before, "shop.example", "/a").Stats != at(after, "shop.example", "/a").Stats {
		t.Error("the statistics did not outlive the compile")
	}
}

// A bad object costs only itself, and is told.
func TestProblems(t *testing.T) {
	rule := func(change func(*Rule)) *Config {
		list := rules("Prefix", "/bad", "Prefix", "/")
		change(&list[0])
		return config(host("shop.example", list...))
	}
	filters := func(list ...filter.Config) *Config { return rule(func(r *Rule) { r.Filters = list }) }
	long := "/" + strings.Repeat("x", pathBytesMax)
	regex := config(host("shop.example", rules("Impl", "/bad(", "Impl", "/")...))
	regex.Hosts[0].RegexMode = true
	badHostFilter := config(host("shop.example", rules("Prefix", "/", "Prefix", "/bad")...))
	badHostFilter.Hosts[0].Filters = []filter.Config{behaviour{err: errBehaviour}}
	pass := config(host("shop.example", rules("Prefix", "/", "Prefix", "/bad")...))
	pass.Hosts[0].Passthrough = "gone"
	for _, test := range []struct {
		name    string
		config  *Config
		problem string
		bad, ok string // where /bad and /ok lead; "1" is the rule that is not bad
	}{
		{"cluster", rule(func(r *Rule) { r.Cluster = "gone" }),
			"Ingress shop/web: host shop.example path /bad: cluster gone does not exist; requests are answered 503", "503", "1"},
		{"fallback", rule(func(r *Rule) { r.Fallback = "gone" }),
			"Ingress shop/web: host shop.example path /bad: cluster gone, the default backend, does not exist; none is asked", "0", "1"},
		{"filter", filters(behaviour{err: errBehaviour}), "Ingress shop/web: behaviour: cannot be; requests are answered 503", "503", "1"},
		{"filter by pointer", filters(&behaviour{err: errBehaviour}), "Ingress shop/web: behaviour: cannot be; requests are answered 503", "503", "1"},
		{"filter with a field", filters(behaviour{err: fmt.Errorf("limit: %w", fieldError{"limit-rps"})}),
			"Ingress shop/web: limit-rps: limit: is not what it should be; requests are answered 503", "503", "1"},
		{"filter that panics", filters(behaviour{name: "x", panics: true}),
			"Ingress shop/web: behaviour: panic: a defect of x; requests are answered 503", "503", "1"},
		{"relative path", rule(func(r *Rule) { r.Path = "bad" }),
			"Ingress shop/web: host shop.example path bad: the path does not begin with /; the rule is left out", "1", "1"},
		{"no path", rule(func(r *Rule) { r.Path = "" }),
			"Ingress shop/web: host shop.example path : the path does not begin with /; the rule is left out", "1", "1"},
		{"NUL", rule(func(r *Rule) { r.Path = "/bad\x00" }),
			"Ingress shop/web: host shop.example path /bad\x00: the path has a NUL byte; the rule is left out", "1", "1"},
		{"long path", rule(func(r *Rule) { r.Path = long }),
			"Ingress shop/web: host shop.example path " + long + ": the path is longer than 8192 bytes; the rule is left out", "1", "1"},
		{"path type", rule(func(r *Rule) { r.Type = 9 }),
			"Ingress shop/web: host shop.example path /bad: path type 9 is unknown; the rule is left out", "1", "1"},
		{"twice", rule(func(r *Rule) { r.Path = "/" }),
			"Ingress shop/web: host shop.example path /: another rule of Ingress shop/web, which comes first, has this path", "0", "0"},
		{"regex", regex, "Ingress shop/web: host shop.example path /bad(: the path is not a regular expression of RE2's syntax " +
			"(missing closing ): `(?i)^/bad(`); the rule is left out", "1", "1"},
		{"host filter", badHostFilter, "Ingress shop/web: behaviour: cannot be; requests are answered 503", "503", "503"},
		{"pass-through", pass, "Ingress shop/web: host shop.example: cluster gone of the TLS pass-through does not exist; " +
			"requests are answered 503", "503", "503"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newTestEnv()
			s, problems := Compile(test.config, nil, e.Env)
			if got := texts(problems); !slices.Equal(got, []string{test.problem}) {
				t.Errorf("problems %q, want %q", got, test.problem)
			}
			if got := led(at(s, "shop.example", "/bad")); got != test.bad {
				t.Errorf("/bad leads to %q, want %q", got, test.bad)
			}
			if got := led(at(s, "shop.example", "/ok")); got != test.ok {
				t.Errorf("/ok leads to %q, want %q", got, test.ok)
			}
			if _, again := Compile(test.config, s, e.Env); !slices.Equal(again, problems) {
				t.Errorf("problems of an unchanged Config: %q, want %q", texts(again), texts(problems))
			}
		})
	}
}

func TestHostProblems(t *testing.T) {
	const notName = "is not a host name: lower-case letters, digits and inner hyphens in labels, a wildcard only as the whole first label"
	good := host("good.example", rules("Prefix", "/")...)
	for name, want := range map[string]string{
		"good.example":                     "is there twice; that of Ingress shop/web counts",
		"Shop.example":                     notName,
		"shop example":                     notName,
		"a.*.example":                      notName,
		"*":                                notName,
		"*.*.example":                      notName,
		"-a.example":                       notName,
		"a-.example":                       notName,
		"shop.example:80":                  notName,
		"a..example":                       "has an empty label",
		"shop.example.":                    "has an empty label",
		"*.":                               "",
		strings.Repeat("a", 64) + ".test":  "has a label of more than 63 bytes",
		strings.Repeat("a.", 127) + "test": "is longer than a host name may be",
		"under_score.example":              "",
		"xn--bcher-kva.example":            "",
		"*.wild.example":                   "",
		"":                                 "",
	} {
		bad := host(name, rules("Exact", "/")...)
		bad.Owner = Object{Kind: "Ingress", Namespace: "b", Name: "bad"}
		s, problems := Compile(config(good, bad), nil, newTestEnv().Env)
		if want == "" {
			if len(problems) != 0 || len(s.hosts) != 2 {
				t.Errorf("%q: %q", name, texts(problems))
			}
			continue
		}
		if got := texts(problems); !slices.Equal(got, []string{"Ingress b/bad: host " + name + ": " + want}) {
			t.Errorf("%q: problems %q, want %q", name, got, want)
		}
		if got := led(at(s, "good.example", "/x")); got != "0" || len(s.hosts) != 1 {
			t.Errorf("beside %q the good host leads to %q", name, got)
		}
	}
}

// TestCanariesOfAPath: those beyond the limit get nothing, and say so; the path is served.
func TestCanariesOfAPath(t *testing.T) {
	h := host("shop.example", rules("Prefix", "/")...)
	for range l7.CanariesMax + 2 {
		h.Rules[0].Canaries = append(h.Rules[0].Canaries, Canary{Owner: shop, Cluster: "web"})
	}
	s, problems := Compile(config(h), nil, newTestEnv().Env)
	if n := len(problems); n == 0 || !strings.Contains(texts(problems)[0], fmt.Sprint("at most ", l7.CanariesMax)) {
		t.Errorf("problems %q", texts(problems))
	}
	if n := len(at(s, "shop.example", "/x").Canaries); n != l7.CanariesMax {
		t.Errorf("the path has %d canaries", n)
	}
}

func TestClusterProblems(t *testing.T) {
	c := config(host("shop.example", rules("Prefix", "/")...))
	second := service("web")
	second.Endpoints = addresses("192.0.2.9:80")
	c.Clusters = append(c.Clusters, second, nil, &Cluster{Owner: shop})
	e := newTestEnv()
	s, problems := Compile(c, nil, e.Env)
	want := []string{
		"Service shop/web: cluster web is there twice; the first one counts",
		"Ingress shop/web: a cluster without an ID cannot be served",
	}
	if got := texts(problems); !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
	NewStore().Swap(s)
	if got := e.of(s, "web").last(); !slices.Equal(got, c.Clusters[0].Endpoints) {
		t.Errorf("endpoints %v are not the first cluster's", got)
	}
	if _, again := Compile(c, s, e.Env); !slices.Equal(again, problems) {
		t.Errorf("problems of an unchanged Config: %q", texts(again))
	}
}

func TestNoBackend(t *testing.T) {
	list := rules("Prefix", "/denied", "Prefix", "/answers", "Prefix", "/nowhere")
	list[0].Deny = "auth-secret: no such Secret"
	list[0].Filters = []filter.Config{behaviour{name: "cors"}}
	list[1].Cluster = ""
	list[1].Filters = []filter.Config{behaviour{name: "redirect"}}
	list[2].Cluster = ""
	s := compiled(t, config(host("shop.example", list...)), nil, newTestEnv())
	for path, want := range map[string]string{"/denied": "503", "/answers": "redirect 503", "/nowhere": "503"} {
		if got := strings.Join(requests(at(s, "shop.example", path)), " "); got != want {
			t.Errorf("%s: filters %q, want %q", path, got, want)
		}
	}
}

// A known host whose paths do not match never falls to the catch-all's rules.
func TestDefaultBackend(t *testing.T) {
	withFilter := host("filter.example")
	withFilter.Filters = []filter.Config{behaviour{name: "app-root"}}
	hosts := []*VirtualHost{host("shop.example", rules("Exact", "/a")...), host("", rules("Prefix", "/any")...), withFilter}
	c := config(hosts...)
	e := newTestEnv()
	ask := func(s *Snapshot) string {
		var got []string
		for _, to := range []string{"shop.example/a", "shop.example/any", "other.test/any", "other.test/", "filter.example/"} {
			name, path, _ := strings.Cut(to, "/")
			r := at(s, name, "/"+path)
			switch {
			case r == nil:
				got = append(got, "404")
			case r == s.miss:
				got = append(got, "default")
			default:
				got = append(got, strings.Join(append(requests(r), r.ID.Service), " "))
			}
		}
		return strings.Join(got, ", ")
	}
	s := compiled(t, c, nil, e)
	if got, want := ask(s), "0, 404, 0, 404, app-root 404 "; got != want {
		t.Errorf("without a default backend: %q, want %q", got, want)
	}
	withDefault := *c
	withDefault.DefaultBackend = "web"
	s2 := compiled(t, &withDefault, s, e)
	if got, want := ask(s2), "0, default, 0, default, app-root web"; got != want {
		t.Errorf("with a default backend: %q, want %q", got, want)
	}
	if s2.miss.Cluster != s2.clusters["web"].live.upstream {
		t.Error("the default backend is not its cluster")
	}
	if s3 := compiled(t, &withDefault, s2, e); s3.miss != s2.miss || s3.hosts[0] != s2.hosts[0] {
		t.Error("an unchanged default backend was made anew")
	}
	larger := withDefault
	larger.Settings = l7.DefaultSettings()
	larger.Settings.DefaultPolicy.BodyMax = 8 << 20
	s3 := compiled(t, &larger, s2, e)
	for i, want := range []l7.Policy{l7.DefaultPolicy(), larger.Settings.DefaultPolicy} {
		s := []*Snapshot{s2, s3}[i]
		if s.miss.Policy != want || at(s, "filter.example", "/").Policy != want {
			t.Errorf("the default backend's policy is %+v and %+v, want %+v", s.miss.Policy, at(s, "filter.example", "/").Policy, want)
		}
	}
	missing := *c
	missing.DefaultBackend = "gone"
	s4, problems := Compile(&missing, s2, e.Env)
	if got := texts(problems); len(got) != 1 || !strings.HasPrefix(got[0], "Flag default-backend-service: cluster gone does not exist") {
		t.Errorf("problems %q", got)
	}
	if got := led(at(s4, "other.test", "/")); got != "503" {
		t.Errorf("a missing default backend: %q, want 503", got)
	}
	if got, want := ask(compiled(t, c, s2, e)), "0, 404, 0, 404, app-root 404 "; got != want {
		t.Errorf("without a default backend again: %q, want %q", got, want)
	}
}

func TestPassthrough(t *testing.T) {
	v := host("shop.example", rules("Prefix", "/")...)
	v.Passthrough = "web"
	s := compiled(t, config(v), nil, newTestEnv())
	if s.Host([]byte("shop.example")).Passthrough != s.clusters["web"].live.upstream {
		t.Error("the host does not pass through to its cluster")
	}
	if s.Host([]byte("other.test")).Passthrough != nil {
		t.Error("an unknown host passes through")
	}
}

func TestSettings(t *testing.T) {
	if got := compiled(t, &Config{}, nil, newTestEnv()).Settings(); got == nil || got.KeepAliveRequests != l7.DefaultSettings().KeepAliveRequests {
		t.Errorf("settings of an empty Config: %+v", got)
	}
	own := l7.DefaultSettings()
	if got := compiled(t, &Config{Settings: own}, nil, newTestEnv()).Settings(); got != own {
		t.Error("the Config's settings were not taken")
	}
}
