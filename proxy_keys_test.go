package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestOracleSlashRedirects compares the 301 to a path with its slash, in all its forms, with nginx's.
func TestOracleSlashRedirects(t *testing.T) {
	port := application(t, told)
	for _, form := range []struct{ relative, port string }{{"false", "false"}, {"true", "false"}, {"false", "true"}, {"true", "true"}} {
		onOff := map[string]string{"true": "on", "false": "off"}
		absolute := map[string]string{"true": "off", "false": "on"}[form.relative]
		theirs := nginx(t, fmt.Sprintf(`absolute_redirect %s; port_in_redirect %s; location /foo/ { proxy_pass http://127.0.0.1:%d; }`, absolute, onOff[form.port], port))
		p := startProxy(t, site{name: "web", host: "web.example", path: "/foo/", ports: []int{port},
			annotations: map[string]string{"relative-redirects": form.relative, "use-port-in-redirects": form.port}}.yaml())
		for _, host := range []string{"web.example", "web.example:1234", "WEB.example", "web.example."} {
			for _, path := range []string{"/foo", "/foo?a=b"} {
				a, b := ask(t, p.HTTP, nil, host, path), ask(t, theirs, nil, host, path)
				one := strings.ReplaceAll(a.header.Get("Location"), colonPort(p.HTTP), ":PORT")
				two := strings.ReplaceAll(b.header.Get("Location"), colonPort(theirs), ":PORT")
				if a.status != b.status || one != two {
					t.Errorf("%+v, %s%s: %d %q, nginx %d %q", form, host, path, a.status, one, b.status, two)
				}
			}
		}
	}
}

// TestUsePortInRedirects: the redirect to https names the port of --https-port.
func TestUsePortInRedirects(t *testing.T) {
	p := startProxy(t, configMapOf("use-port-in-redirects", "true", "force-ssl-redirect", "true")+
		site{name: "web", host: "web.example", ports: []int{application(t, told)}}.yaml(), configMapFlag)
	a := ask(t, p.HTTP, nil, "web.example:1234", "/a")
	if want := "https://web.example" + colonPort(p.HTTPS) + "/a"; a.status != 308 || a.header.Get("Location") != want {
		t.Errorf("%d %q, want %q", a.status, a.header.Get("Location"), want)
	}
}

// colonPort is the port of an address, with its colon.
func colonPort(address string) string { return address[strings.LastIndexByte(address, ':'):] }
