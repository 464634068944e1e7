//go:build cluster

package clustertest

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What kubernetes-sigs/ingress-controller-conformance (f91a799) asks of an ingress controller, in our own words: 29 cases.
// Its feature files have a thirtieth, which is another one of them word for word ("/foo/" under prefix /foo).
//
// The suite wants an answer at the first request after the Ingress has an address, and so do we: no case is tried twice.
// It also wants what ingress-nginx does not do, nor Sluice by default: see conformant.
const conformanceCases = 29

// A conformanceCase is one scenario, or one example of an outline.
type conformanceCase struct {
	method, url string
	status      int
	service     string // who has to answer; "": nobody
}

// conformanceFeatures are the feature files, each with its Ingress.
var conformanceFeatures = []struct {
	name     string
	services []string
	spec     string
	cases    []conformanceCase
}{
	{"default backend", []string{"echo-service"}, "  defaultBackend: {service: {name: echo-service, port: {number: 8080}}}", []conformanceCase{
		{"GET", "http://my-host/", 200, "echo-service"},
		{"GET", "http://my-host/sub-path", 200, "echo-service"},
		{"POST", "http://some-host/", 200, "echo-service"},
		{"PUT", "http://198.51.100.1/resource", 200, "echo-service"}, // the outline names no host
		{"DELETE", "http://some-host/resource", 200, "echo-service"},
		{"PATCH", "http://my-host/resource", 200, "echo-service"},
	}},
	{"host rules", []string{"wildcard-foo-com", "foo-bar-com"}, `  tls: [{hosts: [foo.bar.com], secretName: conformance-tls}]
  rules:
  - {host: "*.foo.com", http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: wildcard-foo-com, port: {number: 8080}}}}]}}
  - {host: foo.bar.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: foo-bar-com, port: {name: http}}}}]}}`, []conformanceCase{
		{"GET", "https://foo.bar.com/", 200, "foo-bar-com"},
		{"GET", "http://foo.bar.com/", 200, "foo-bar-com"},
		{"GET", "http://subdomain.bar.com/", 404, ""},
		{"GET", "http://bar.foo.com/", 200, "wildcard-foo-com"},
		{"GET", "http://baz.bar.foo.com/", 404, ""},
		{"GET", "http://foo.com/", 404, ""},
	}},
	{"path rules", []string{"foo-exact", "foo-prefix", "aaa-slash-bbb-prefix", "aaa-prefix", "aaa-slash-bbb-slash-prefix", "foo-slash-exact"}, "  rules:\n" +
		pathRules("exact-path-rules", "Exact /foo foo-exact") +
		pathRules("prefix-path-rules", "Prefix /foo foo-prefix", "Prefix /aaa/bbb aaa-slash-bbb-prefix", "Prefix /aaa aaa-prefix") +
		pathRules("mixed-path-rules", "Prefix /foo foo-prefix", "Exact /foo foo-exact") +
		pathRules("trailing-slash-path-rules", "Prefix /aaa/bbb/ aaa-slash-bbb-slash-prefix", "Exact /foo/ foo-slash-exact"), []conformanceCase{
		{"GET", "http://exact-path-rules/foo", 200, "foo-exact"},
		{"GET", "http://exact-path-rules/foo/", 404, ""},
		{"GET", "http://exact-path-rules/FOO", 404, ""},
		{"GET", "http://exact-path-rules/bar", 404, ""},
		{"GET", "http://prefix-path-rules/foo", 200, "foo-prefix"},
		{"GET", "http://prefix-path-rules/foo/", 200, "foo-prefix"},
		{"GET", "http://prefix-path-rules/FOO", 404, ""},
		{"GET", "http://prefix-path-rules/aaa/bbb", 200, "aaa-slash-bbb-prefix"},
		{"GET", "http://prefix-path-rules/aaa/bbb/ccc", 200, "aaa-slash-bbb-prefix"},
		{"GET", "http://prefix-path-rules/aaa/ccc", 200, "aaa-prefix"},
		{"GET", "http://prefix-path-rules/aaaccc", 404, ""},
		{"GET", "http://mixed-path-rules/foo", 200, "foo-exact"},
		{"GET", "http://trailing-slash-path-rules/aaa/bbb", 200, "aaa-slash-bbb-slash-prefix"},
		{"GET", "http://trailing-slash-path-rules/aaa/bbb/", 200, "aaa-slash-bbb-slash-prefix"},
		{"GET", "http://trailing-slash-path-rules/foo", 404, ""},
	}},
}

// pathRules is a rule of spec.rules from lines "TYPE PATH SERVICE".
func pathRules(host string, lines ...string) string {
	var paths []string
	for _, line := range lines {
		w := strings.Fields(line)
		paths = append(paths, fmt.Sprintf("{pathType: %s, path: %s, backend: {service: {name: %s, port: {number: 8080}}}}", w[0], w[1], w[2]))
	}
	return fmt.Sprintf("  - {host: %s, http: {paths: [%s]}}\n", host, strings.Join(paths, ", "))
}

// TestConformanceCount holds the suite to its number; the two cases that are more than requests are tests of their own.
func TestConformanceCount(t *testing.T) {
	n := 2 // TestConformanceClass, TestConformanceLoadBalancing
	seen := map[conformanceCase]bool{}
	for _, f := range conformanceFeatures {
		for _, c := range f.cases {
			if seen[c] {
				t.Errorf("%v is there twice", c)
			}
			seen[c] = true
			n++
		}
	}
	if n != conformanceCases {
		t.Errorf("%d cases, want %d", n, conformanceCases)
	}
}

// conformant are the settings with which the suite can pass (docs/decisions/0070-conformance-needs-three-settings.md).
var conformant = map[string]string{
	"sluice-trailing-slash":       "ignore", // else 301, as from nginx
	"allow-backend-server-header": "true",   // it wants a field Server
	"ssl-redirect":                "false",  // it asks a host with a certificate without TLS
}

func startConformant(t *testing.T) *proxy {
	t.Helper()
	a := newAccount(t)
	_, err := api().core.ConfigMaps(a.namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "sluice"}, Data: conformant}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := launch(t, a, "--publish-status-address="+nodeAddress, "--configmap="+a.namespace+"/sluice")
	eventually(t, "Sluice is ready", func() (bool, string) { return p.ready(), p.logs() })
	return p
}

func TestConformance(t *testing.T) {
	cluster(t)
	t.Parallel()
	for _, f := range conformanceFeatures {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			p := startConformant(t)
			namespace := newNamespace(t)
			var manifests strings.Builder
			for _, s := range f.services {
				manifests.WriteString(echoApp(s, 1))
			}
			apply(t, namespace, manifests.String())
			for _, s := range f.services {
				rolledOut(t, namespace, "deployment/"+s)
			}
			makeCertificate(t, namespace, "conformance-tls", "foo.bar.com")
			apply(t, namespace, p.ingress("conformance", f.spec))
			awaitAddress(t, namespace, "conformance", nodeAddress)
			for _, c := range f.cases {
				t.Run(c.method+" "+c.url, func(t *testing.T) { p.conform(t, c) })
			}
		})
	}
}

// conform tries one case, once.
func (p *proxy) conform(t *testing.T, c conformanceCase) {
	req, err := http.NewRequest(c.method, c.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	var shown *tls.ConnectionState
	resp, err := p.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	shown = resp.TLS
	r, err := readReply(resp)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != c.status || r.Name != c.service {
		t.Fatalf("answered %v, want %d from %q", r, c.status, c.service)
	}
	if c.service == "" {
		return
	}
	if want := req.URL.RequestURI(); r.Method != c.method || r.Path != want || r.Proto != "HTTP/1.1" || r.Host != req.URL.Host {
		t.Errorf("the backend saw %s %s%s %s, want %s %s%s", r.Method, r.Host, r.Path, r.Proto, c.method, req.URL.Host, want)
	}
	for _, name := range []string{"Content-Length", "Content-Type", "Date", "Server"} {
		if r.Header.Get(name) == "" {
			t.Errorf("the answer has no %s", name)
		}
	}
	if got := r.Headers.Get("User-Agent"); got != "Go-http-client/1.1" || resp.Proto != "HTTP/1.1" {
		t.Errorf("User-Agent %q, %s", got, resp.Proto)
	}
	if req.URL.Scheme == "https" {
		if err := shown.PeerCertificates[0].VerifyHostname(req.URL.Hostname()); err != nil || shown.PeerCertificates[0].Issuer.CommonName != "clustertest" {
			t.Errorf("the certificate of %s is shown: %v", shown.PeerCertificates[0].Subject, err)
		}
	}
}

// An Ingress of a class that there is not gets no address, nor does its traffic get anywhere.
func TestConformanceClass(t *testing.T) {
	cluster(t)
	t.Parallel()
	p := startConformant(t)
	namespace := newNamespace(t)
	apply(t, namespace, echoApp("ingress-class-prefix", 1))
	apply(t, namespace, strings.Replace(p.ingress("invalid", "  rules:\n"+rule("ingress-class", "/", "ingress-class-prefix")), p.class, "some-invalid-class-name", 1))
	apply(t, namespace, p.ingress("valid", "  rules:\n"+rule("valid", "/", "ingress-class-prefix")))
	awaitAddress(t, namespace, "valid", nodeAddress) // by then the other one had its time
	if got := addressesOf(t, namespace, "invalid"); got != "" {
		t.Errorf("its status says %s", got)
	}
	if r, err := p.ask("GET", "http://ingress-class/"); err != nil || r.Status != http.StatusNotFound {
		t.Errorf("answered %v, %v", r, err)
	}
}

// A hundred requests reach all ten pods.
func TestConformanceLoadBalancing(t *testing.T) {
	cluster(t)
	t.Parallel()
	p := startConformant(t)
	namespace := newNamespace(t)
	apply(t, namespace, echoApp("echo-service", 1)+p.ingress("load-balancing", "  defaultBackend: {service: {name: echo-service, port: {number: 8080}}}"))
	awaitAddress(t, namespace, "load-balancing", nodeAddress)
	kubectl(t, "scale", "-n", namespace, "deployment/echo-service", "--replicas=10")
	rolledOut(t, namespace, "deployment/echo-service")
	eventually(t, "a hundred requests reach ten pods", func() (bool, string) { // the endpoints come a moment after the pods
		pods := map[string]int{}
		for range 100 {
			r, err := p.ask("GET", "http://load-balancing/")
			if err != nil || r.Status != http.StatusOK {
				t.Fatalf("answered %v, %v", r, err)
			}
			pods[r.Pod]++
		}
		return len(pods) == 10, fmt.Sprint(pods)
	})
}
