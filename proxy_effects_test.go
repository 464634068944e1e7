package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests of this file show on the wire what keys and flags do whose translation alone was held before: which Ingresses
// are served, what backends are asked for and how, which endpoints are tried.

// classed is a site of a class; "": none.
func classed(s site, class string) string {
	line := "  ingressClassName: nginx\n"
	if class == "" {
		return strings.Replace(s.yaml(), line, "", 1)
	}
	return strings.Replace(s.yaml(), line, "  ingressClassName: "+class+"\n", 1)
}

// ingressClass is an IngressClass.
func ingressClass(name, controller string) string {
	return fmt.Sprintf("---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: %s}\nspec: {controller: %s}\n", name, controller)
}

// TestFlagsOfObjects: which Ingresses, annotations and Services count, as flags say.
func TestFlagsOfObjects(t *testing.T) {
	port := application(t, told)
	web := func(name, class string, annotations map[string]string) string {
		return classed(site{name: name, host: name + ".example", ports: []int{port}, annotations: annotations}, class)
	}
	classes := ingressClass("ours", "k8s.io/ingress-nginx") + ingressClass("theirs", "example.com/other")
	all := classes + web("ours", "ours", nil) + web("theirs", "theirs", nil) + web("none", "", nil) + web("named", "special", nil) +
		web("old", "", map[string]string{"kubernetes.io/ingress.class": "special"})
	tail := serviceOf("rest", port) + "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: rest, namespace: default}\n" +
		"spec: {ingressClassName: nginx, defaultBackend: {service: {name: rest, port: {number: 80}}}}\n"
	for name, c := range map[string]struct {
		manifests string
		flags     []string
		want      map[string]int // by host
	}{
		"without any": {all, nil, map[string]int{"ours.example": 200, "theirs.example": 404, "none.example": 404, "named.example": 404, "old.example": 404}},
		"--controller-class": {all, []string{"--controller-class=example.com/other"},
			map[string]int{"ours.example": 404, "theirs.example": 200, "none.example": 404}},
		"--ingress-class": {all, []string{"--ingress-class=special"},
			map[string]int{"ours.example": 200, "old.example": 200, "none.example": 404}},
		"--ingress-class-by-name": {all + ingressClass("special", "example.com/other"), []string{"--ingress-class=special", "--ingress-class-by-name"},
			map[string]int{"ours.example": 200, "named.example": 200, "theirs.example": 404}},
		"by name without the switch": {all + ingressClass("special", "example.com/other"), []string{"--ingress-class=special"},
			map[string]int{"named.example": 404}},
		"--watch-ingress-without-class": {all, []string{"--watch-ingress-without-class"},
			map[string]int{"ours.example": 200, "none.example": 200, "theirs.example": 404}},
		"--annotations-prefix": {classes + web("mine", "ours", map[string]string{"my.example/permanent-redirect": "https://x.example/"}) +
			web("usual", "ours", map[string]string{"permanent-redirect": "https://x.example/"}), []string{"--annotations-prefix=my.example"},
			map[string]int{"mine.example": 301, "usual.example": 200}},
		"a default backend alone": {tail, nil, map[string]int{"any.example": 200}},
		"--disable-catch-all":     {tail, []string{"--disable-catch-all"}, map[string]int{"any.example": 404}},
		"--default-backend-service": {serviceOf("spare", port), []string{"--default-backend-service=default/spare"},
			map[string]int{"any.example": 200}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProxy(t, c.manifests, c.flags...)
			for host, status := range c.want {
				if a := ask(t, p.HTTP, nil, host, "/"); a.status != status {
					t.Errorf("%s: %d, want %d", host, a.status, status)
				}
			}
		})
	}
}

// TestDisableExternalName: a Service of type ExternalName leads to its name, or with the flag nowhere.
func TestDisableExternalName(t *testing.T) {
	port := application(t, told)
	text := site{name: "away", host: "away.example"}.yaml()
	text = strings.Replace(text, "spec: {ports: [{name: main, port: 80}]}",
		fmt.Sprintf("spec: {type: ExternalName, externalName: localhost, ports: [{name: main, port: 80, targetPort: %d}]}", port), 1)
	for flag, status := range map[string]int{"false": 200, "true": 503} {
		p := startProxy(t, text, "--disable-svc-external-name="+flag)
		within(t, 30*time.Second, fmt.Sprintf("%d with the flag %s", status, flag), func() bool { // the name is resolved off the loops
			return ask(t, p.HTTP, nil, "away.example", "/").status == status
		})
	}
}

// TestSettingsOfObjects: which Ingresses, paths and Secrets are taken, as the ConfigMap says.
func TestSettingsOfObjects(t *testing.T) {
	port := application(t, told)
	strange := typed(site{name: "web", host: "web.example", path: "/a~b", ports: []int{port}}, "Exact")
	risky := site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"server-alias": "other.example"}}.yaml()
	foreign := site{name: "web", host: "web.example", ports: []int{port}, annotations: map[string]string{"auth-type": "basic", "auth-secret": "far/users"}}.yaml() +
		"---\napiVersion: v1\nkind: Secret\nmetadata: {name: users, namespace: far}\nstringData: {auth: 'jo:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M='}\n"
	for _, c := range []struct {
		manifests, key, value, path string
		status                      int
	}{
		{risky, "annotations-risk-level", "High", "/", 200},
		{risky, "annotations-risk-level", "Medium", "/", 404},
		{strange, "strict-validate-path-type", "false", "/a~b", 200},
		{strange, "strict-validate-path-type", "true", "/a~b", 404},
		{foreign, "allow-cross-namespace-resources", "true", "/", 401},
		{foreign, "allow-cross-namespace-resources", "false", "/", 503},
	} {
		p := startProxy(t, c.manifests+configMapOf(c.key, c.value), configMapFlag)
		if a := ask(t, p.HTTP, nil, "web.example", c.path); a.status != c.status {
			t.Errorf("%s: %s: %d, want %d; problems: %s", c.key, c.value, a.status, c.status, p.problems(t))
		}
	}
}

// TestHealthCheckTerms: the check names its host, takes the statuses that are said to be well, and waits no longer than it may.
func TestHealthCheckTerms(t *testing.T) {
	var mu sync.Mutex
	hosts := map[string]bool{}
	ended := make(chan struct{})
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/host":
			mu.Lock()
			hosts[r.Host] = true
			mu.Unlock()
		case "/418":
			w.WriteHeader(418)
		case "/never":
			select {
			case <-ended:
			case <-r.Context().Done():
			}
		}
		told(w, r)
	})
	t.Cleanup(func() { close(ended) })
	check := func(name string, annotations ...string) string {
		s := site{name: name, host: name + ".example", ports: []int{port}, annotations: map[string]string{
			"sluice.dev/health-check": "http", "sluice.dev/health-check-interval": "100ms", "sluice.dev/health-check-unhealthy": "1"}}
		for i := 0; i < len(annotations); i += 2 {
			s.annotations["sluice.dev/health-check-"+annotations[i]] = annotations[i+1]
		}
		return s.yaml()
	}
	p := startProxy(t, check("host", "path", "/host", "host", "probe.example")+check("strict", "path", "/418")+
		check("wide", "path", "/418", "status", "200-499")+check("slow", "path", "/never", "timeout", "50ms")+check("patient", "path", "/never", "timeout", "30s"))
	state := func(name, state string) bool {
		return p.metric(t, "sluice_endpoints", `cluster="default/`+name+`:80"`, `state="`+state+`"`) == 1
	}
	within(t, 30*time.Second, "the verdicts", func() bool { return state("strict", "unhealthy") && state("slow", "unhealthy") })
	within(t, 30*time.Second, "the named host", func() bool { mu.Lock(); defer mu.Unlock(); return hosts["probe.example"] })
	mu.Lock()
	defer mu.Unlock()
	if len(hosts) != 1 || state("wide", "unhealthy") || state("patient", "unhealthy") {
		t.Errorf("hosts %v; wide unhealthy %v, patient unhealthy %v", hosts, state("wide", "unhealthy"), state("patient", "unhealthy"))
	}
}

// TestBackendTLSTerms: versions of TLS, and how many authorities may stand above a backend's certificate.
func TestBackendTLSTerms(t *testing.T) {
	root := newAuthority(t, "root", nil)
	middle := newAuthority(t, "middle", root)
	lower := newAuthority(t, "lower", middle)
	pair := lower.sign(t, "web.internal", func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"web.internal"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	shown := []tls.Certificate{{Certificate: [][]byte{pair.der, lower.der, middle.der}, PrivateKey: pair.key}}
	backend := func(version uint16) int {
		s := httptest.NewUnstartedServer(http.HandlerFunc(told))
		s.TLS = &tls.Config{Certificates: shown, MinVersion: version, MaxVersion: version}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		return portOfURL(t, s.URL)
	}
	two, three := backend(tls.VersionTLS12), backend(tls.VersionTLS13)
	ca := fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: ca, namespace: default}\nstringData:\n  ca.crt: |\n%s\n", indent(certificatePEM(root.keyPair)))
	n, manifests, want := 0, ca, map[string]int{}
	add := func(port, status int, annotations ...string) {
		n++
		s := site{name: fmt.Sprint("w", n), host: fmt.Sprintf("w%d.example", n), ports: []int{port}, annotations: map[string]string{
			"backend-protocol": "HTTPS", "proxy-ssl-secret": "ca"}}
		for i := 0; i < len(annotations); i += 2 {
			s.annotations["proxy-ssl-"+annotations[i]] = annotations[i+1]
		}
		manifests += s.yaml()
		want[s.host] = status
	}
	add(two, 200, "protocols", "TLSv1.2")
	add(two, 502, "protocols", "TLSv1.3")
	add(three, 200, "protocols", "TLSv1.3")
	add(three, 502, "protocols", "TLSv1.2")
	add(three, 200, "protocols", "TLSv1.2 TLSv1.3")
	for depth, status := range map[string]int{"1": 502, "2": 200, "3": 200} {
		add(three, status, "protocols", "TLSv1.3", "verify", "on", "name", "web.internal", "verify-depth", depth)
	}
	p := startProxy(t, manifests)
	for host, status := range want {
		if a := ask(t, p.HTTP, nil, host, "/"); a.status != status {
			t.Errorf("%s: %d, want %d: %s", host, a.status, status, manifests[strings.Index(manifests, host)-200:strings.Index(manifests, host)])
		}
	}
}

// silentPort is a port that answers nothing: a listener whose queue is full.
func silentPort(t *testing.T) int {
	t.Helper()
	socket := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	fd := socket()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		_ = unix.Connect(socket(), at) // EINPROGRESS, connected or not
	}
	return at.(*unix.SockaddrInet4).Port
}

// TestTCPServiceTries: of endpoints of which one is dead or silent, as many are tried as the ConfigMap says, and for as long.
func TestTCPServiceTries(t *testing.T) {
	one, dead, silent := named(t, "one"), freePort(t), silentPort(t)
	for _, c := range []struct {
		name  string
		other int
		keys  []string
		all   bool // connections reach the endpoint that lives
	}{
		{"one try", dead, []string{"proxy-stream-next-upstream-tries", "1"}, false},
		{"two tries", dead, []string{"proxy-stream-next-upstream-tries", "2"}, true},
		{"a short time", silent, []string{"proxy-connect-timeout", "1", "proxy-stream-next-upstream-timeout", "500ms"}, false},
		{"a long time", silent, []string{"proxy-connect-timeout", "1", "proxy-stream-next-upstream-timeout", "10m"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			startProxy(t, serviceOf("some", one.port(), c.other)+portMap("tcp", strconv.Itoa(port), "default/some:80")+configMapOf(c.keys...), tcpFlag, configMapFlag)
			reached := 0
			for range 4 {
				if answer, _ := talk(port, ""); answer == "one" {
					reached++
				}
			}
			if reached == 0 || (reached == 4) != c.all {
				t.Errorf("%d of 4 connections reached the endpoint that lives", reached)
			}
		})
	}
}
