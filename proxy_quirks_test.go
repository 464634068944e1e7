package main

import (
	"fmt"
	"strings"
	"testing"
)

// quirks are what ingress-nginx does and nobody expects: a migration breaks on them, not on the long tail of annotations.
var quirks = map[string]func(t *testing.T, port int){
	"regex of a host": func(t *testing.T, port int) {
		p := startProxy(t, typed(site{name: "plain", host: "web.example", path: "/Shop", ports: []int{port}}, "Exact")+
			typed(site{name: "regex", host: "web.example", path: "/api/v[0-9]", ports: []int{port}, annotations: map[string]string{"use-regex": "true"}}, "ImplementationSpecific")+
			typed(site{name: "other", host: "other.example", path: "/Shop", ports: []int{port}}, "Exact"))
		for path, status := range map[string]int{"/api/v1/x": 200, "/API/V2": 200, "/api/vx": 404, "/shopping": 200, "/x/shop": 404} {
			ask(t, p.HTTP, nil, "web.example", path).want(t, status, "")
		}
		ask(t, p.HTTP, nil, "other.example", "/shopping").want(t, 404, "")
	},
	"implementation specific": func(t *testing.T, port int) {
		p := startProxy(t, typed(site{name: "web", host: "web.example", path: "/foo", ports: []int{port}}, "ImplementationSpecific")+
			site{name: "prefix", host: "prefix.example", path: "/foo", ports: []int{port}}.yaml())
		ask(t, p.HTTP, nil, "web.example", "/foobar").want(t, 200, "")
		ask(t, p.HTTP, nil, "prefix.example", "/foobar").want(t, 404, "")
	},
	"trailing slash": func(t *testing.T, port int) {
		p := startProxy(t, typed(site{name: "exact", host: "exact.example", path: "/foo/", ports: []int{port}}, "Exact")+
			typed(site{name: "string", host: "string.example", path: "/foo/", ports: []int{port}}, "ImplementationSpecific"))
		for _, host := range []string{"exact.example", "string.example"} {
			if a := ask(t, p.HTTP, nil, host, "/foo?a=b"); a.status != 301 || !strings.HasSuffix(a.header.Get("Location"), "/foo/?a=b") {
				t.Errorf("%s: %d to %q", host, a.status, a.header.Get("Location"))
			}
		}
	},
	"https without slash and port": func(t *testing.T, port int) {
		p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"force-ssl-redirect": "true"}}.yaml())
		a := ask(t, p.HTTP, nil, "web.example:8080", "/a//?b=c")
		if a.status != 308 || a.header.Get("Location") != "https://web.example/a//?b=c" {
			t.Errorf("with a query: %d to %q", a.status, a.header.Get("Location"))
		}
		if a = ask(t, p.HTTP, nil, "web.example:8080", "/a//"); a.header.Get("Location") != "https://web.example/a/" {
			t.Errorf("one of two slashes: to %q", a.header.Get("Location"))
		}
	},
	"order of phases": func(t *testing.T, port int) {
		closed := map[string]string{"auth-type": "basic", "auth-secret": "nowhere"}
		with := func(more ...string) map[string]string {
			all := map[string]string{}
			for k, v := range closed {
				all[k] = v
			}
			for i := 0; i < len(more); i += 2 {
				all[more[i]] = more[i+1]
			}
			return all
		}
		users := opaqueSecret("users", "auth", "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
		p := startProxy(t, users+site{name: "redirect", host: "redirect.example", ports: []int{port}, annotations: with("permanent-redirect", "https://new.example", "auth-secret", "users")}.yaml()+
			site{name: "cors", host: "cors.example", ports: []int{port}, annotations: with("enable-cors", "true", "auth-secret", "users")}.yaml()+
			site{name: "limit", host: "limit.example", ports: []int{port}, annotations: with("limit-rpm", "1", "limit-burst-multiplier", "1", "auth-secret", "users")}.yaml())
		ask(t, p.HTTP, nil, "redirect.example", "/").want(t, 301, "")
		c := &caller{address: p.HTTP}
		defer c.hangUp()
		a, err := c.call("OPTIONS / HTTP/1.1\r\nHost: cors.example\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n")
		if err != nil || a.status != 204 {
			t.Errorf("preflight: %v, %v", a, err)
		}
		ask(t, p.HTTP, nil, "cors.example", "/").want(t, 401, "")
		if got := statuses(t, p.HTTP, "limit.example", 4); got[401] != 2 || got[503] != 2 {
			t.Errorf("limits of those who are not let in: %v", got)
		}
	},
	"limit 503 and burst": func(t *testing.T, port int) {
		p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"limit-rpm": "3", "limit-burst-multiplier": "2"}}.yaml())
		if got := statuses(t, p.HTTP, "web.example", 12); got[200] != 1+3*2 || got[503] != 12-7 {
			t.Errorf("%v", got)
		}
	},
	"canary inherits": func(t *testing.T, port int) {
		p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"sluice.dev/request-headers-set": `{"X-Of": "main"}`}}.yaml()+
			site{name: "green", host: "web.example", ports: []int{port}, annotations: map[string]string{"canary": "true", "canary-weight": "100", "upstream-vhost": "canary.internal",
				"sluice.dev/request-headers-set": `{"X-Of": "canary"}`}}.yaml())
		if a := ask(t, p.HTTP, nil, "web.example", "/"); line(a.body, "X-Of:") != "X-Of: main" || line(a.body, "host:") != "host: web.example" {
			t.Errorf("the backend was told %s", a.body)
		}
	},
	"secret missing 503": func(t *testing.T, port int) {
		p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"auth-type": "basic", "auth-secret": "nowhere"}}.yaml())
		ask(t, p.HTTP, nil, "web.example", "/").want(t, 503, "")
	},
	"list bad 503": func(t *testing.T, port int) {
		p := startProxy(t, site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"whitelist-source-range": "127.0.0.1, everybody"}}.yaml())
		ask(t, p.HTTP, nil, "web.example", "/").want(t, 503, "")
	},
	"client CA missing 403": func(t *testing.T, port int) {
		p := startProxy(t, site{name: "web", host: "web.example", secret: "pair", ports: []int{port}, annotations: map[string]string{"auth-tls-secret": "default/nowhere"}}.yaml()+
			secretOf(t, "pair", issue(t, "web.example")))
		ask(t, p.HTTPS, trusting(t, "web.example"), "web.example", "/").want(t, 403, "")
	},
	"oldest wins": func(t *testing.T, port int) {
		p := startProxy(t, strings.ReplaceAll(agedSite("a", 2025, "young")+agedSite("b", 2021, "old")+endpointsOf("a", port)+endpointsOf("b", port), "HOST", "web.example"))
		if a := ask(t, p.HTTP, nil, "web.example", "/"); a.status != 302 || a.header.Get("Location") != "http://web.example/old" {
			t.Errorf("%d to %q", a.status, a.header.Get("Location"))
		}
	},
}

// agedSite is a path of HOST, of a year, that leads its root to an application.
func agedSite(name string, year int, root string) string {
	text := site{name: name, host: "HOST", path: "/" + name, annotations: map[string]string{"app-root": "/" + root}}.yaml()
	return strings.Replace(text, "namespace: default, annotations", fmt.Sprintf("namespace: default, creationTimestamp: \"%d-01-01T00:00:00Z\", annotations", year), 1)
}

// typed is a site whose paths are of another type than Prefix.
func typed(s site, pathType string) string {
	return strings.Replace(s.yaml(), "pathType: Prefix", "pathType: "+pathType, 1)
}

func TestQuirks(t *testing.T) {
	port := application(t, told)
	for name, quirk := range quirks {
		t.Run(name, func(t *testing.T) { quirk(t, port) })
	}
}
