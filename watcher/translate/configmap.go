package translate

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// A configKey is a row of the ConfigMap's table, as an annotation is of the annotations' one.
type configKey struct {
	key       string
	preset    string // the default, as the documentation writes it
	otherwise string // ingress-nginx's default where it differs
	text      string
	verdict   verdict
	note      string
	idle      []string
	parse     func(c *configuration, value string) error
}

// configKeys is the table. Keys that begin with sluice- are ours.
var configKeys = slices.Concat(
	clientKeys, trustKeys, routeKeys, contentKeys, compressKeys, authKeys, backendKeys, logKeys, tlsKeys, processKeys, streamKeys, laterKeys, needlessKeys, refusedKeys)

var configRows = indexConfigKeys()

func indexConfigKeys() map[string]*configKey {
	rows := make(map[string]*configKey, len(configKeys))
	for i := range configKeys {
		rows[configKeys[i].key] = &configKeys[i]
	}
	return rows
}

// configuration is what the ConfigMap comes to.
type configuration struct {
	settings *l7.Settings
	process  *Process
	defaults defaults
	streams  streams

	realIP        []netip.Prefix // proxy-real-ip-cidr
	realIPSet     bool
	logFormat     *l7.LogFormat // sluice-access-log-format, which wins over log-format-escape-json
	logTemplate   string        // log-format-upstream
	logEscapeNone bool
	logPath       string // access-log-path
	noIPv6        bool   // disable-ipv6
	compress      filter.Compress
	hsts          filter.HSTS
	hstsOff       bool
	blocked       string // block-cidrs
	block         filter.Block

	addHeaders, setHeaders string              // ConfigMaps
	hideHeaders            string              // as filter.Headers has it
	maps                   []*corev1.ConfigMap // that were read
}

// defaults are what holds for an Ingress that says nothing of its own.
type defaults struct {
	policy l7.Policy

	sslRedirect           bool
	forceSSLRedirect      bool
	preserveTrailingSlash bool
	slash                 route.SlashRedirect // relative-redirects, use-port-in-redirects
	redirectCode          int
	plainPaths            []string // no-tls-redirect-locations
	allow, deny           string   // source ranges

	errors         string // custom-http-errors
	errorsOwnOnly  bool   // disable-proxy-intercept-errors
	headers        headersDialect
	allowedHeaders []string // global-allowed-response-headers
	crossNamespace bool     // allow-cross-namespace-resources

	auth          filter.ExternalAuth // global-auth-*
	globalAuthBad bool                // global-auth-url cannot be used
	openPaths     []string            // no-auth-locations
	firewall      bool                // enable-modsecurity is set

	serviceUpstream                    bool
	limitStatus, limitConnectionStatus int

	host        []filter.Config // of every host
	cluster     upstream.Settings
	riskMax     risk
	strictPaths strictness
	badWords    []string // annotation-value-word-blocklist

	implementationIsPrefix bool // sluice-implementation-specific: prefix
	ignoreSlash            bool // sluice-trailing-slash: ignore
}

// strictness is what becomes of Exact and Prefix paths with characters that ingress-nginx's webhook refuses
// (strict-validate-path-type). The webhook refuses when an Ingress is written; what is stored is served. So without the
// key such a path is served, with a Problem.
type strictness uint8

const (
	strictWarn   strictness = iota // no key: served, with a Problem
	strictRefuse                   // true: not served
	strictOff                      // false: served
)

func newConfiguration() *configuration {
	c := &configuration{settings: l7.DefaultSettings(), process: DefaultProcess(), streams: defaultStreams()}
	c.compress = compressDefault
	c.hsts = filter.HSTS{MaxAge: 31536000 * time.Second, IncludeSubdomains: true}
	c.defaults = defaults{
		policy:       l7.DefaultPolicy(),
		sslRedirect:  true,
		redirectCode: 308,
		plainPaths:   []string{"/.well-known/acme-challenge"},
		openPaths:    []string{"/.well-known/acme-challenge"},
		riskMax:      riskHigh,
		limitStatus:  503, limitConnectionStatus: 503,
	}
	return c
}

// readConfigMap takes the ConfigMap that --configmap names. It tells whether the defaults of Ingresses changed.
func (t *Translator) readConfigMap(list []*corev1.ConfigMap) (renewed bool) {
	var m *corev1.ConfigMap
	if k, ok := parseKey(t.options.ConfigMap); ok {
		if i := slices.IndexFunc(list, func(m *corev1.ConfigMap) bool { return keyOf(m) == k }); i >= 0 {
			m = list[i]
		}
	}
	if t.config != nil && m == t.configMap && !t.config.mapsChanged(list) {
		return false
	}
	c, problems := t.parseConfigMap(m, list)
	t.ledger.set("configmap", problems)
	t.configMap = m
	old := t.config
	if old == nil {
		t.config = c
		return true
	}
	renewed = !reflect.DeepEqual(c.defaults, old.defaults) || c.settings.ConnectTimeout != old.settings.ConnectTimeout // clusters have it
	if reflect.DeepEqual(c.settings, old.settings) {
		c.settings = old.settings
	}
	if reflect.DeepEqual(c.process, old.process) {
		c.process = old.process
	}
	t.config = c
	return renewed
}

func (t *Translator) parseConfigMap(m *corev1.ConfigMap, list []*corev1.ConfigMap) (*configuration, []route.Problem) {
	c := newConfiguration()
	c.settings.HTTPSPort = uint16(t.options.HTTPSPort)
	var problems []route.Problem
	if m == nil {
		c.finish()
		return c, t.missingConfigMap()
	}
	owner := route.Object{Kind: "ConfigMap", Namespace: m.Namespace, Name: m.Name}
	for _, name := range slices.Sorted(maps.Keys(m.Data)) {
		if err := c.apply(name, m.Data[name]); err != nil {
			problems = append(problems, problem(owner, "data["+name+"]", "%s", err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.BinaryData)) {
		problems = append(problems, problem(owner, "binaryData["+name+"]", "is not read; write the key as text under data"))
	}
	if c.noIPv6 && c.process.BindAddress.Is6() {
		problems = append(problems, problem(owner, "data[disable-ipv6]", "is ignored: bind-address is %s", c.process.BindAddress))
	}
	c.finish()
	return c, append(problems, c.readHeaderMaps(list, owner)...)
}

// mapsChanged tells whether add-headers or proxy-set-headers name something else now.
func (c *configuration) mapsChanged(list []*corev1.ConfigMap) bool {
	if c.addHeaders == "" && c.setHeaders == "" {
		return false
	}
	var now []*corev1.ConfigMap
	for _, at := range []string{c.setHeaders, c.addHeaders} {
		k, _ := parseKey(at)
		if i := slices.IndexFunc(list, func(m *corev1.ConfigMap) bool { return keyOf(m) == k }); i >= 0 {
			now = append(now, list[i])
		}
	}
	return !slices.Equal(now, c.maps)
}

func (t *Translator) missingConfigMap() []route.Problem {
	if t.options.ConfigMap == "" {
		return nil
	}
	k, ok := parseKey(t.options.ConfigMap)
	if !ok {
		return []route.Problem{problem(route.Object{Kind: "ConfigMap", Name: t.options.ConfigMap}, "--configmap",
			"is not NAMESPACE/NAME; the defaults hold")}
	}
	return []route.Problem{problem(route.Object{Kind: "ConfigMap", Namespace: k.namespace, Name: k.name}, "--configmap",
		"does not exist; the defaults hold until it is there")}
}

// apply takes one key. The error says what is wrong and what holds instead.
func (c *configuration) apply(name, value string) error {
	row := configRows[name]
	value = strings.TrimSpace(value)
	switch {
	case row == nil:
		return fmt.Errorf("unknown key: %s", configSuggestion(name))
	case row.parse != nil:
		if strings.ContainsAny(value, "\r\n") {
			return fmt.Errorf("holds a line break; write the value on one line; %s", row.fallback())
		}
		err := row.parse(c, value)
		var kept *partly
		if err != nil && !errors.As(err, &kept) {
			return fmt.Errorf("%w; %s", err, row.fallback())
		}
		return err
	case row.verdict == noEffect || slices.Contains(row.idle, strings.ToLower(value)):
		return nil
	}
	what := "not supported yet"
	if row.verdict == refused {
		what = "not supported"
	}
	if row.note != "" {
		what += ": " + row.note
	}
	return errors.New(what + "; it is ignored")
}

func (k *configKey) fallback() string {
	if k.preset == "" {
		return "it is ignored"
	}
	return "the default, " + k.preset + ", holds"
}

// partly is an error after which a value holds as far as it was good.
type partly struct{ reason string }

func (p *partly) Error() string { return p.reason }

// finish settles what several keys decide together.
func (c *configuration) finish() {
	s := c.settings
	if s.UseForwardedHeaders || s.RealIP {
		s.TrustedPeers = c.realIP
		if !c.realIPSet {
			s.TrustedPeers = privateNetworks
		}
	}
	c.process.ProxyProtocol.Trusted = c.realIP
	c.logLine()
	for _, path := range []*string{&c.process.Logs.HTTP, &c.process.Logs.Stream} {
		if *path = cmp.Or(*path, c.logPath); *path == logStdout {
			*path = ""
		}
	}
	if !c.hstsOff {
		c.defaults.host = append(c.defaults.host, c.hsts)
	}
	if z := c.compress; z.Gzip.On || z.Brotli.On || z.Zstd.On {
		c.defaults.host = append(c.defaults.host, withZstd(z))
	}
	if c.block != (filter.Block{}) {
		c.defaults.host = append(c.defaults.host, c.block)
	}
	if c.blocked != "" {
		c.defaults.host = append(c.defaults.host, filter.SourceRange{Deny: c.blocked})
	}
	if c.noIPv6 && !c.process.BindAddress.IsValid() {
		c.process.BindAddress = netip.IPv4Unspecified()
	}
	if c.process.TLSMin > c.process.TLSMax {
		c.process.TLSMin = c.process.TLSMax
	}
	s.DefaultPolicy = c.defaults.policy
}

// privateNetworks are believed when X-Forwarded-* are asked for and nobody says whose: never the whole internet.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

// configSuggestion is the remedy for an unknown key.
func configSuggestion(name string) string {
	best, least := "", 1+len(name)/4
	if len(name) > nameMax {
		least = -1
	}
	for i := range configKeys {
		if d := distance(name, configKeys[i].key); d <= least && (d < least || best == "") {
			best, least = configKeys[i].key, d
		}
	}
	if best == "" {
		return "docs/annotations.md lists the known ones"
	}
	return "did you mean " + best + "?"
}
