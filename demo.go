package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sluiceproxy/sluice/listen"
)

// demo serves the embedded manifests with backends of its own: the whole program, without a cluster.
func demo(args []string, stdout, stderr io.Writer) error {
	o := demoOptions()
	if err := parseFlags(&o, args, table, demoFlags); err != nil {
		return err
	}
	if o.help {
		return printHelp(nil, stdout, stderr)
	}
	if len(o.manifests) > 0 || o.kubeconfig != "" {
		return usage{errors.New("the demo brings its own manifests: leave out --manifests and --kubeconfig, or leave out demo")}
	}
	if err := portsAreFree(&o); err != nil { // before files of a demo that runs already are touched
		return err
	}
	backends, err := startDemoBackends()
	if err != nil {
		return err
	}
	defer backends.close()
	dir, err := writeDemo(o.demoDir, backends)
	if err != nil {
		return err
	}
	o.manifests = []string{dir}
	log := newLogger(&o, stderr)
	slog.SetDefault(log)
	p, err := newProxy(o, log, stdout)
	if err != nil {
		return err
	}
	p.serving = func() { _, _ = io.WriteString(stdout, p.demoText(dir)) }
	return p.serve()
}

// demoOptions are the flags' defaults in a demo: ports that need no rights, and loopback only.
func demoOptions() options {
	o := defaultOptions()
	o.bind = netip.MustParseAddr("127.0.0.1")
	o.httpPort, o.httpsPort = 8080, 8443
	o.passthrough = true
	o.configMap = "demo/sluice"
	return o
}

func portsAreFree(o *options) error {
	host := ""
	if o.bind.IsValid() {
		host = o.bind.String()
	}
	for _, p := range []struct {
		flag string
		port int
	}{{"http-port", o.httpPort}, {"https-port", o.httpsPort}} {
		if p.port == 0 {
			continue
		}
		ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(p.port)))
		if err != nil {
			return fmt.Errorf("%w: choose another --%s", err, p.flag)
		}
		_ = ln.Close()
	}
	return nil
}

// demoText tells what is served and what to try. Its lines are tried by the demo's test.
func (p *proxy) demoText(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nSluice serves the manifests in %s, with backends of its own.\n\nTry, in another terminal:\n", dir)
	for _, s := range p.demoSteps(dir) {
		fmt.Fprintf(&b, "\n  # %s\n", s.about)
		for _, line := range s.lines {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	b.WriteString("\nCtrl-C ends the demo.\n\n")
	return b.String()
}

// demoStep is something to try.
type demoStep struct {
	about string
	lines []string
}

func (p *proxy) demoSteps(dir string) (steps []demoStep) {
	http, https := p.doorAddress("http"), p.doorAddress("https")
	plain := func(host, path string) string {
		return fmt.Sprintf("curl -sS -H 'Host: %s' 'http://%s%s'", host, http, path)
	}
	secure := func(host, path string) string {
		return fmt.Sprintf("curl -sS --cacert %s/ca.pem --resolve %s:%d:%s https://%s:%d%s", dir, host, https.Port(), https.Addr(),
			host, https.Port(), path)
	}
	if http.IsValid() {
		steps = append(steps,
			demoStep{"plain HTTP, by host and path", []string{plain("shop.localhost", "/"), plain("shop.localhost", "/api/orders?id=7")}},
			demoStep{"a rewrite with captures: the API sees /orders", []string{plain("api.localhost", "/v1/orders")}},
			demoStep{"redirects: by an annotation, and from HTTP to HTTPS", []string{
				plain("shop.localhost", "/old") + " -i", plain("blue.apps.localhost", "/") + " -i"}},
		)
	}
	if https.IsValid() {
		steps = append(steps,
			demoStep{"HTTPS, its certificate chosen by the server name", []string{
				secure("shop.localhost", "/"), secure("green.apps.localhost", "/")}},
			demoStep{"TLS pass-through: the certificate is the backend's own", []string{secure("secure.localhost", "/")}},
		)
	}
	if http.IsValid() {
		steps = append(steps, demoStep{"now edit a manifest: it takes effect at once, and no connection is dropped", []string{
			fmt.Sprintf("sed -i 's#path: /api#path: /interface#' %s/shop.yaml", dir),
			"sleep 1",
			plain("shop.localhost", "/interface/orders"),
		}})
	}
	if _, isPath := listen.UnixPath(p.adminOpened); p.adminOpened != "" && !isPath {
		steps = append(steps, demoStep{"what is served, what is wrong, and how much goes through", []string{
			fmt.Sprintf("curl -sS http://%s/", p.adminOpened)}})
	}
	return steps
}

// doorAddress is where a door can be reached from this machine; invalid if it is off.
func (p *proxy) doorAddress(name string) netip.AddrPort {
	for _, d := range p.doors {
		if d.name != name {
			continue
		}
		if d.address.Addr().IsUnspecified() {
			return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), d.address.Port())
		}
		return d.address
	}
	return netip.AddrPort{}
}
