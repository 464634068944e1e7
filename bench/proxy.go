package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// A candidate is a proxy that can be started here, found and asked for its version.
type candidate struct {
	name        string
	version     string
	passThrough error // why it cannot do that here; nil if it can
	plainHTTP2  error // … HTTP/2 on the port of HTTP/1
	command     func(deployment) (*exec.Cmd, error)
	ready       func(context.Context, deployment) error // beyond answering a request; may be nil
	sniOnTLS    bool                                    // pass-through shares the TLS port

	// What some scenarios want beyond that. Without one, the candidate is skipped there with the reason why.
	manyRoutes bool
	filters    bool
	services   []string             // protocols that it can lead a port of its own of, as they come
	change     func(*running) error // puts the version of its deployment in place
	reload     func(*running) error // reads all again
	quit       syscall.Signal       // ends it when what is under way is done; 0: SIGTERM
}

// candidates is the table of what --proxies may name.
var candidates = map[string]func(context.Context, options) (candidate, error){
	subject:          findSluice,
	"sluice-no-ring": findSluiceNoRing,
	"nginx":          findNginx,
	"haproxy":        findHAProxy,
	"caddy":          findCaddy,
	"traefik":        findTraefik,
	"envoy":          findEnvoy,
}

// findCandidates finds what the options name, in their order.
func findCandidates(ctx context.Context, o options) ([]candidate, error) {
	var found []candidate
	for _, name := range o.proxies {
		find := candidates[name]
		if find == nil {
			return nil, fmt.Errorf("--proxies: %q is none of %s", name, strings.Join(slices.Sorted(maps.Keys(candidates)), ", "))
		}
		c, err := find(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w (--proxies leaves it out, --%s=PATH tells where it is)", name, err, name)
		}
		found = append(found, c)
	}
	return found, nil
}

// A deployment is where one instance of a candidate shall run, and for what. Its fields are what the templates
// may use.
type deployment struct {
	Dir                      string // its own
	Address, OriginAddress   string
	Plain, TLS, Pass, Admin  int // ports to listen on
	TCP, UDP                 int // … of services
	OriginPlain, OriginTLS   int
	OriginUDP                int
	HostBench, HostPass      string
	HostGRPC                 string
	Certificate              *certificate
	Descriptors, Connections int
	shape
}

// A shape is what scenarios want of a configuration beyond the usual.
type shape struct {
	Services bool // ports of a TCP and a UDP service
	Modern   bool // session tickets and the hybrid curve; otherwise X25519 and no tickets
	Routes   int  // so many more, routesPerHost of each host; RouteHosts lists them
	Version  int  // of the route that changes; there is one when Routes are wanted
	Filters  bool // routes with rewrite, CORS, limits and the access log
}

// Hosts of single scenarios, for the templates.
func (deployment) HostChanging() string { return hostChanging }
func (deployment) HostRewrite() string  { return hostRewrite }
func (deployment) HostChain() string    { return hostChain }
func (deployment) HostLimited() string  { return hostLimited }

// Turn is which of the changing Ingresses bears this version. Sluice lets a file rest before it reads it, so that one file
// cannot change a hundred times a second.
func (d deployment) Turn() int { return d.Version % changingIngresses }

// AccessLog is the file that requests are logged to. It has a directory of its own, as logs have: the one that holds the
// manifests is watched, and would tell Sluice of each of its own writes.
func (d deployment) AccessLog() string { return filepath.Join(d.Dir, logDirectory, "access.log") }

const logDirectory = "log"

// CertFile and its sisters let templates see a certificate.
func (c *certificate) CertFile() string   { return c.certFile }
func (c *certificate) KeyFile() string    { return c.keyFile }
func (c *certificate) BothFile() string   { return c.bothFile }
func (c *certificate) CertBase64() string { return base64.StdEncoding.EncodeToString(c.cert) }
func (c *certificate) KeyBase64() string  { return base64.StdEncoding.EncodeToString(c.key) }

const (
	readyLimit     = 15 * time.Second
	readyManyLimit = 2 * time.Minute // with many routes to read
)

// A running proxy is a candidate's process that answers requests.
type running struct {
	*child
	candidate
	deployment       deployment
	plain, tls, pass string // addresses
	warm             bool   // it has been warmed up, where a scenario wants that
	expected         bool   // to end: the measurement tells it to
}

// launch starts c and waits until it answers.
func (r *rig) launch(ctx context.Context, c candidate, s shape) (*running, error) {
	d, err := r.deployment(c, s)
	if err != nil {
		return nil, err
	}
	cmd, err := c.command(d)
	if err != nil {
		return nil, err
	}
	if err := r.network.enter(cmd); err != nil {
		return nil, err
	}
	started, err := startChild(c.name, cmd)
	if err != nil {
		return nil, err
	}
	p := &running{child: started, candidate: c, deployment: d, plain: at(d.Address, d.Plain), tls: at(d.Address, d.TLS), pass: at(d.Address, d.Pass)}
	if c.sniOnTLS {
		p.pass = p.tls
	}
	limit := readyLimit
	if d.Routes > 0 {
		limit = readyManyLimit
	}
	err = p.waitReady(ctx, limit, func() error {
		if c.ready != nil {
			if err := c.ready(ctx, d); err != nil {
				return err
			}
		}
		_, err := probe(ctx, load{address: p.plain, host: hostBench, path: pathSmall})
		return err
	})
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (r *rig) deployment(c candidate, s shape) (deployment, error) {
	ports, err := freePorts(6)
	if err != nil {
		return deployment{}, err
	}
	dir, err := os.MkdirTemp(r.dir, c.name+"-")
	if err != nil {
		return deployment{}, err
	}
	return deployment{
		Dir: dir, Address: r.network.proxy(), OriginAddress: r.network.origin(), shape: s, Certificate: r.certificate,
		Plain: ports[0], TLS: ports[1], Pass: ports[2], Admin: ports[3], TCP: ports[4], UDP: ports[5],
		OriginPlain: r.origin.plainPort, OriginTLS: r.origin.tlsPort, OriginUDP: r.origin.udpPort,
		HostBench: hostBench, HostPass: hostPass, HostGRPC: hostGRPC,
		Descriptors: r.descriptors, Connections: (r.descriptors - 2*descriptorsSpare) / 2, // a proxied connection takes two
	}, os.Mkdir(filepath.Join(dir, logDirectory), 0o700)
}

//go:embed rivals manifests
var configurations embed.FS

// render writes the template of that name, filled with data, to path.
func render(name string, data any, path string) error {
	t, err := template.ParseFS(configurations, name)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

const versionLimit = 10 * time.Second

// output runs a binary that prints something about itself on either stream.
func output(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	b, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	printed := strings.TrimSpace(string(b))
	if err != nil {
		return printed, fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return printed, nil
}

var (
	versionNumber = regexp.MustCompile(`\d+(\.\d+)+\S*`)
	opensslNumber = regexp.MustCompile(`(?i)running (?:with|on) OpenSSL(?: version : OpenSSL)? (\d+)\.(\d+)`)
	opensslBuilt  = regexp.MustCompile(`(?i)built with OpenSSL(?: version : OpenSSL)? (\d+)\.(\d+)`)
	errNoVersion  = errors.New("it prints no version")
)

// curvesFor lists the key exchanges that a rival built on OpenSSL offers: X25519, or with modern the hybrid one
// first if its OpenSSL (by what it prints of itself) has that, which begins with 3.5.
func curvesFor(printed string, modern bool) string {
	m := opensslNumber.FindStringSubmatch(printed)
	if m == nil {
		m = opensslBuilt.FindStringSubmatch(printed)
	}
	if m == nil || !modern {
		return "X25519"
	}
	major, _ := strconv.Atoi(m[1]) // digits by the pattern
	minor, _ := strconv.Atoi(m[2])
	if major > 3 || major == 3 && minor >= 5 {
		return "X25519MLKEM768:X25519"
	}
	return "X25519"
}
