package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluiceproxy/sluice/admin"
	"github.com/sluiceproxy/sluice/ebpf"
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/listen"
)

// The command line is a contract: names, forms and exit statuses stay. A table of our own serves it rather than the
// standard library's flag package, because every mistake is answered by one line that names the flag and the remedy, and
// --help shows flags in groups.

// options are what the command line says. Every field belongs to one row of the table.
type options struct {
	manifests  []string
	kubeconfig string

	bind         netip.Addr // invalid: all addresses of both families, or what the ConfigMap says
	httpPort     int        // 0: off
	httpsPort    int        // 0: off
	adminAddress string     // "": off

	metricsAddress string // "": off
	reusePort      bool

	ingressClass        string
	controllerClass     string
	classByName         bool
	withoutClass        bool
	configMap           string
	tcpServices         string
	udpServices         string
	defaultBackend      string
	annotationsPrefix   string
	disableCatchAll     bool
	disableExternalName bool

	watchNamespace string
	watchSelector  string
	syncPeriod     time.Duration // 0: off

	updateStatus           bool
	updateStatusOnShutdown bool
	publishService         string
	publishAddresses       []string
	reportInternalIP       bool
	electionID             string
	electionTTL            time.Duration
	noElection             bool
	statusInterval         time.Duration // 0: a minute

	defaultCertificate string
	passthrough        bool

	loops         int // 0: as many as Go sees processors
	workPermits   int
	allowBackends []netip.Prefix
	gracePeriod   time.Duration
	lingerPeriod  time.Duration // after the drain
	ioUring       bool
	sockmap       fastpath.SockmapUse
	sockmapQueued int // KiB

	webhookAddress     string // "": off
	webhookCertificate string
	webhookKey         string

	logJSON         bool
	logLevel        string // "": by verbosity
	verbosity       int
	metrics         bool
	metricsPerHost  bool
	ownMetricNames  bool
	statusClasses   bool
	timeBuckets     []float64 // seconds; nil: the usual ones
	lengthBuckets   []float64 // bytes; nil: none
	sizeBuckets     []float64 // bytes; nil: none
	excludedMetrics []string  // as ingress-nginx calls them, without its prefix
	profiling       bool

	demoDir string   // sluice demo only
	ignored []string // flags of ingress-nginx that were given and do nothing, each with the reason
	help    bool
}

func defaultOptions() options {
	return options{
		httpPort: 80, httpsPort: 443, adminAddress: "127.0.0.1:10254",
		ingressClass: "nginx", controllerClass: "k8s.io/ingress-nginx", annotationsPrefix: "nginx.ingress.kubernetes.io",
		updateStatus: true, updateStatusOnShutdown: true, electionID: "sluice-leader", electionTTL: 30 * time.Second,
		workPermits: 2, ioUring: true, sockmap: fastpath.SockmapOff, sockmapQueued: ebpf.QueuedMax >> 10, metrics: true,
	}
}

// option is one row of the table.
type option struct {
	group string
	name  string
	value string // what the value is called; "": a switch, true or false
	about string // ends with the default, where there is one worth telling
	set   func(o *options, value string) error
}

// table is every flag there is, in the order of --help.
var table = []option{
	{"Where the configuration comes from", "manifests", "DIR", "read and watch Kubernetes manifests in DIR (*.yaml, *.yml, *.json); may be repeated, the first counts first",
		func(o *options, v string) error {
			o.manifests = append(o.manifests, v)
			return notEmpty(v, "a directory")
		}},
	{"", "kubeconfig", "FILE", "watch the cluster that FILE names (default $KUBECONFIG, else the cluster that this runs in)",
		func(o *options, v string) error { o.kubeconfig = v; return notEmpty(v, "a file") }},

	{"Listeners", "bind-address", "IP", "the one address of HTTP and HTTPS (default all, of both families)",
		func(o *options, v string) (err error) { o.bind, err = parseAddr(v); return err }},
	{"", "http-port", "PORT", "0 switches HTTP off (default 80)",
		func(o *options, v string) (err error) { o.httpPort, err = parsePort(v); return err }},
	{"", "https-port", "PORT", "0 switches HTTPS and pass-through off (default 443)",
		func(o *options, v string) (err error) { o.httpsPort, err = parsePort(v); return err }},
	{"", "admin-address", "HOST:PORT", "probes, metrics and /debug, at a port or at unix:///PATH; empty switches them off, port 0 lets the system choose (default 127.0.0.1:10254)",
		func(o *options, v string) error { o.adminAddress = v; return checkAdminAddress(v) }},
	{"", "metrics-address", "HOST:PORT", "probes and metrics without /debug, for the network (default: only at --admin-address)",
		func(o *options, v string) error { o.metricsAddress = v; return checkAddress(v) }},
	{"", "healthz-port", "PORT", "the same as --admin-address=:PORT",
		func(o *options, v string) error {
			port, err := parsePort(v)
			o.adminAddress = ":" + strconv.Itoa(port)
			return err
		}},

	{"", "reuse-port", "", "share the ports with another process of the same user while one follows the other: the later one gets all new connections",
		func(o *options, v string) error { return setBool(&o.reusePort, v) }},

	{"Which Ingresses, and what they mean", "ingress-class", "NAME", "value of the old class annotation, and name of a class that has no IngressClass object (default nginx)",
		func(o *options, v string) error { o.ingressClass = v; return notEmpty(v, "a class") }},
	{"", "controller-class", "NAME", "spec.controller of the IngressClasses that are ours (default k8s.io/ingress-nginx)",
		func(o *options, v string) error { o.controllerClass = v; return notEmpty(v, "a controller") }},
	{"", "ingress-class-by-name", "", "the IngressClass named as --ingress-class says is ours whatever its controller",
		func(o *options, v string) error { return setBool(&o.classByName, v) }},
	{"", "watch-ingress-without-class", "", "Ingresses without a class are ours too",
		func(o *options, v string) error { return setBool(&o.withoutClass, v) }},
	{"", "configmap", "NAMESPACE/NAME", "ConfigMap of global settings",
		func(o *options, v string) error { o.configMap = v; return checkKey(v) }},
	{"", "tcp-services-configmap", "NAMESPACE/NAME", "ConfigMap of TCP services: \"PORT\": NAMESPACE/SERVICE:PORT[:[PROXY][:[PROXY]]]",
		func(o *options, v string) error { o.tcpServices = v; return checkKey(v) }},
	{"", "udp-services-configmap", "NAMESPACE/NAME", "ConfigMap of UDP services: \"PORT\": NAMESPACE/SERVICE:PORT",
		func(o *options, v string) error { o.udpServices = v; return checkKey(v) }},
	{"", "default-backend-service", "NAMESPACE/NAME", "Service that answers what no Ingress does (default: 404)",
		func(o *options, v string) error { o.defaultBackend = v; return checkKey(v) }},
	{"", "annotations-prefix", "PREFIX", "what the annotations' names begin with (default nginx.ingress.kubernetes.io)",
		func(o *options, v string) error { o.annotationsPrefix = v; return checkPrefix(v) }},
	{"", "disable-catch-all", "", "refuse Ingresses that are nothing but a default backend",
		func(o *options, v string) error { return setBool(&o.disableCatchAll, v) }},
	{"", "watch-namespace", "NAMESPACE", "the objects of one namespace, of a cluster (default: of all)",
		func(o *options, v string) error { o.watchNamespace = v; return nil }},
	{"", "watch-namespace-selector", "LABELS", "the objects of namespaces whose labels are selected, as team=web or stage!=test, of a cluster (default: of all)",
		func(o *options, v string) error { o.watchSelector = v; return checkSelector(v) }},
	{"", "sync-period", "DURATION", "apply the objects of a cluster anew so often, beside their changes, which are applied as they come (default 0: off)",
		func(o *options, v string) (err error) { o.syncPeriod, err = parsePeriod(v); return err }},
	{"", "disable-svc-external-name", "", "refuse Services of type ExternalName",
		func(o *options, v string) error { return setBool(&o.disableExternalName, v) }},

	{"What a cluster is told", "update-status", "", "write addresses to the status of Ingresses, and Events for what is wrong with objects (default true)",
		func(o *options, v string) error { return setBool(&o.updateStatus, v) }},
	{"", "publish-service", "NAMESPACE/NAME", "the addresses of this Service (default: those of the nodes whose proxies are ready)",
		func(o *options, v string) error { o.publishService = v; return checkKey(v) }},
	{"", "publish-status-address", "ADDRESS", "these addresses or names, separated by commas; may be repeated",
		func(o *options, v string) error { return addAddresses(&o.publishAddresses, v) }},
	{"", "report-node-internal-ip-address", "", "the nodes' internal addresses (default: the external ones, where there are any)",
		func(o *options, v string) error { return setBool(&o.reportInternalIP, v) }},
	{"", "update-status-on-shutdown", "", "the last proxy takes its addresses out again when it ends (default true)",
		func(o *options, v string) error { return setBool(&o.updateStatusOnShutdown, v) }},
	{"", "status-update-interval", "SECONDS", "look so often whether a status is to be written, beside the changes, which are written as they come; 5 at least (default 60)",
		func(o *options, v string) error { return o.setStatusInterval(v) }},
	{"", "election-id", "NAME", "Lease by which replicas agree on who writes, in $POD_NAMESPACE (default sluice-leader)",
		func(o *options, v string) error { o.electionID = v; return notEmpty(v, "a Lease") }},
	{"", "election-ttl", "DURATION", "how long a leader that is silent stays the leader (default 30s)",
		func(o *options, v string) (err error) { o.electionTTL, err = parseTTL(v); return err }},
	{"", "disable-leader-election", "", "every replica writes: for a single one",
		func(o *options, v string) error { return setBool(&o.noElection, v) }},

	{"Review of Ingresses by API servers", "validating-webhook", "ADDRESS", "answer at HOST:PORT, over TLS, whether an Ingress may be taken (default: off)",
		func(o *options, v string) error { o.webhookAddress = v; return checkAddress(v) }},
	{"", "validating-webhook-certificate", "FILE", "its certificate chain, as PEM; read again when it changes",
		func(o *options, v string) error { o.webhookCertificate = v; return notEmpty(v, "a file") }},
	{"", "validating-webhook-key", "FILE", "its private key", func(o *options, v string) error { o.webhookKey = v; return notEmpty(v, "a file") }},

	{"TLS", "default-ssl-certificate", "NAMESPACE/NAME", "Secret shown for names without one (default: self-signed, made at start)",
		func(o *options, v string) error { o.defaultCertificate = v; return checkKey(v) }},
	{"", "enable-ssl-passthrough", "", "the annotation ssl-passthrough is obeyed",
		func(o *options, v string) error { return setBool(&o.passthrough, v) }},

	{"The process", "loops", "N", "event loops, a thread each (default: the processors that Go sees, limits of the container included)",
		func(o *options, v string) (err error) { o.loops, err = parseInt(v, 1, loopsMax); return err }},
	{"", "work-permits", "N", "handshakes and compiles that compute at the same time beside the loops (default 2)",
		func(o *options, v string) (err error) {
			o.workPermits, err = parseInt(v, 1, workPermitsMax)
			return err
		}},
	{"", "allow-backend-cidr", "CIDR", "backends that may be dialled although their addresses are the node's own, link-local or the like; may be repeated",
		func(o *options, v string) error { return addPrefixes(&o.allowBackends, v) }},
	{"", "io-uring", "auto|off", "receive and send for many connections by one system call, where kernel and seccomp profile allow it; docs/operations.md (default auto)",
		func(o *options, v string) error {
			o.ioUring = v == "auto"
			return oneOf(v, "auto", "off")
		}},
	{"", "sockmap", "off|auto|on", "experimental: join tunnels in the kernel, where it and the capabilities allow it: none, those that carry many small messages, all; docs/sockmap.md (default off)",
		func(o *options, v string) error {
			o.sockmap = fastpath.SockmapUses[v]
			return oneOf(v, "off", "auto", "on")
		}},
	{"", "sockmap-queue", "KIB", "what the kernel may hold of a joined tunnel's direction before it goes through user space for good (default 1024)",
		func(o *options, v string) (err error) {
			o.sockmapQueued, err = parseInt(v, sockmapQueuedMin, ebpf.QueuedAtMost>>10)
			return err
		}},
	{"", "shutdown-grace-period", "SECONDS", "after SIGTERM, go on accepting for so long while /readyz says no (default 0)",
		func(o *options, v string) (err error) { o.gracePeriod, err = parseSeconds(v); return err }},
	{"", "post-shutdown-grace-period", "SECONDS", "stay for so long once everything has been answered, before the process ends (default 0)",
		func(o *options, v string) (err error) { o.lingerPeriod, err = parseSeconds(v); return err }},

	{"Logs and metrics", "log-format", "text|json", "of the log on standard error (default text)",
		func(o *options, v string) error {
			o.logJSON = v == "json"
			return oneOf(v, "text", "json")
		}},
	{"", "log-level", "LEVEL", "debug, info, warn or error (default info)",
		func(o *options, v string) error { o.logLevel = v; return oneOf(v, "debug", "info", "warn", "error") }},
	{"", "v", "N", "verbosity as of ingress-nginx: 3 and more is --log-level=debug",
		func(o *options, v string) (err error) { o.verbosity, err = parseInt(v, 0, 10); return err }},
	{"", "enable-metrics", "", "count by Ingress and Service, and serve /metrics (default true)",
		func(o *options, v string) error { return setBool(&o.metrics, v) }},
	{"", "metrics-per-host", "", "requests are counted by host name, too",
		func(o *options, v string) error { return setBool(&o.metricsPerHost, v) }},
	{"", "metrics-own-names", "", "metrics that ingress-nginx has too are called sluice_…, not nginx_ingress_controller_…",
		func(o *options, v string) error { return setBool(&o.ownMetricNames, v) }},
	{"", "report-status-classes", "", "requests are counted by the classes of their statuses: 2xx, 3xx, 4xx, 5xx",
		func(o *options, v string) error { return setBool(&o.statusClasses, v) }},
	{"", "time-buckets", "LIST", "upper bounds of the histograms of durations, in seconds, ascending, separated by commas (default 0.005 to 10)",
		func(o *options, v string) error { return addBuckets(&o.timeBuckets, v) }},
	{"", "length-buckets", "LIST", "the same of request_size and response_size, in bytes (default: no buckets)",
		func(o *options, v string) error { return addBuckets(&o.lengthBuckets, v) }},
	{"", "size-buckets", "LIST", "the same of bytes_sent, in bytes (default: no buckets)",
		func(o *options, v string) error { return addBuckets(&o.sizeBuckets, v) }},
	{"", "exclude-socket-metrics", "LIST", "these metrics are left out, by ingress-nginx's names, separated by commas: requests, request_duration_seconds, response_duration_seconds, request_size, response_size, bytes_sent; may be repeated",
		func(o *options, v string) error { o.excludeMetrics(v); return nil }},
	{"", "profiling", "", "serve /debug/pprof at the admin address",
		func(o *options, v string) error { return setBool(&o.profiling, v) }},
	{"", "help", "", "this list", func(o *options, v string) error { return setBool(&o.help, v) }},
}

// demoFlags are those of `sluice demo` alone.
var demoFlags = []option{
	{"The demo", "dir", "DIR", "keep the manifests in DIR, where they stay as you edit them (default: written anew in the directory of temporary files)",
		func(o *options, v string) error { o.demoDir = v; return notEmpty(v, "a directory") }},
}

// Bounds of flags.
const (
	loopsMax       = 512
	workPermitsMax = 256
	bucketsMax     = 64 // of a histogram; each is a series of every Ingress and Service

	statusIntervalMin = 5 * time.Second

	sockmapQueuedMin = 16  // KiB: a message
	unixPathMax      = 107 // of sockaddr_un(7), without its end
)

// usage is a mistake on the command line: one line, exit status 2.
type usage struct{ error }

// parseFlags reads flags into o. Later ones win over earlier ones.
func parseFlags(o *options, args []string, tables ...[]option) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, isFlag := flagName(arg)
		if !isFlag {
			return usage{fmt.Errorf("unexpected argument %q: flags begin with --, a switch takes its value as --switch=false", arg)}
		}
		name, value, hasValue := strings.Cut(name, "=")
		f := findFlag(name, tables)
		if f == nil {
			return usage{unknownFlag(name, tables)}
		}
		switch {
		case hasValue:
		case f.value == "":
			value = "true"
		case len(args) > 0 && !strings.HasPrefix(args[0], "--"):
			value, args = args[0], args[1:]
		default:
			return usage{fmt.Errorf("--%s needs a value: --%s=%s", name, name, f.value)}
		}
		if err := f.set(o, value); err != nil {
			return usage{fmt.Errorf("--%s=%s: %w", name, shown(value), err)}
		}
	}
	return nil
}

// flagName takes the dashes off: two, or one as Go's own programs allow.
func flagName(arg string) (string, bool) {
	name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
	return name, name != arg && name != ""
}

func findFlag(name string, tables [][]option) *option {
	if name == "h" {
		name = "help"
	}
	for _, t := range tables {
		for i := range t {
			if t[i].name == name {
				return &t[i]
			}
		}
	}
	if i := slices.IndexFunc(nginxFlags, func(f nginxFlag) bool { return f.name == name }); i >= 0 {
		f := nginxFlags[i].option()
		return &f
	}
	return nil
}

func unknownFlag(name string, tables [][]option) error {
	best, distance := "", 2+len(name)/4 // beyond, a suggestion misleads
	for _, t := range tables {
		for _, f := range t {
			if d := editDistance(name, f.name); d < distance {
				best, distance = f.name, d
			}
		}
	}
	if best != "" {
		return fmt.Errorf("unknown flag --%s: did you mean --%s? `sluice --help` lists all", shown(name), best)
	}
	return fmt.Errorf("unknown flag --%s: `sluice --help` lists all", shown(name))
}

// shown makes a value fit for one line.
func shown(v string) string {
	if quoted := strconv.Quote(v); len(quoted) != len(v)+2 || strings.ContainsAny(v, " ") {
		return quoted
	}
	return v
}

// editDistance is how many letters have to be put, taken or changed (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// ---- values; an error completes "--flag=value: "

func setBool(to *bool, v string) error {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return errors.New("give true or false")
	}
	*to = b
	return nil
}

func notEmpty(v, what string) error {
	if v == "" {
		return fmt.Errorf("name %s", what)
	}
	return nil
}

func oneOf(v string, known ...string) error {
	if !slices.Contains(known, v) {
		return fmt.Errorf("give one of %s", strings.Join(known, ", "))
	}
	return nil
}

func parseInt(v string, least, most int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("give a number from %d to %d", least, most)
	}
	return n, nil
}

func parsePort(v string) (int, error) { return parseInt(v, 0, 65535) }

// parseSeconds reads seconds as ingress-nginx does, or a duration with its unit.
func parseSeconds(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if n, plain := strconv.Atoi(v); plain == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 || d > 24*time.Hour {
		return 0, errors.New("give a number of seconds, up to a day")
	}
	return d, nil
}

// parseTTL reads how long a Lease lasts, which its object holds in whole seconds.
func parseTTL(v string) (time.Duration, error) {
	d, err := parseSeconds(v)
	if err != nil || d < 2*time.Second || d%time.Second != 0 {
		return 0, errors.New("give a number of whole seconds, from 2 up to a day")
	}
	return d, nil
}

// setStatusInterval reads how often statuses are looked at; as in ingress-nginx, less than 5 seconds are 5.
func (o *options) setStatusInterval(v string) error {
	d, err := parseSeconds(v)
	if err == nil && d < statusIntervalMin {
		o.ignored = append(o.ignored, fmt.Sprintf("--status-update-interval=%s is too short: every %v it is", shown(v), statusIntervalMin))
		d = statusIntervalMin
	}
	o.statusInterval = d
	return err
}

// parsePeriod reads how often something is done: a duration with its unit, or 0 for never.
func parsePeriod(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err != nil || d != 0 && d < time.Second {
		return 0, errors.New("give a duration, such as 10m: 1s at least, or 0 for never")
	}
	return d, nil
}

// addAddresses reads what a status holds: addresses and DNS names.
func addAddresses(to *[]string, v string) error {
	for one := range strings.SplitSeq(v, ",") {
		one = strings.TrimSpace(one)
		if _, err := netip.ParseAddr(one); err != nil && len(validation.IsDNS1123Subdomain(one)) > 0 {
			return errors.New("give IP addresses or DNS names, separated by commas")
		}
		*to = append(*to, one)
	}
	return nil
}

// addBuckets reads upper bounds of a histogram. The infinite one, which every histogram has, may stand last.
func addBuckets(to *[]float64, v string) error {
	list := *to
	for one := range strings.SplitSeq(strings.TrimSuffix(v, ",+Inf"), ",") {
		b, err := strconv.ParseFloat(strings.TrimSpace(one), 64)
		if err != nil || !(b >= 0 && b <= math.MaxFloat64) || len(list) > 0 && b <= list[len(list)-1] || len(list) == bucketsMax {
			return fmt.Errorf("give numbers in ascending order, separated by commas, %d at most", bucketsMax)
		}
		list = append(list, b)
	}
	*to = list
	return nil
}

// buckets are those of the histograms of requests.
func (o *options) buckets() *l7.Buckets {
	return l7.NewBuckets(o.timeBuckets, o.lengthBuckets, o.sizeBuckets)
}

// excludeMetrics takes the names of metrics, with ingress-nginx's prefix or without. A name that is none of those that can
// be left out is told of, as ingress-nginx passes over it.
func (o *options) excludeMetrics(v string) {
	for one := range strings.SplitSeq(v, ",") {
		name, known := admin.RouteMetric(strings.TrimSpace(one))
		if known {
			o.excludedMetrics = append(o.excludedMetrics, name)
		} else if name != "" {
			o.ignored = append(o.ignored, fmt.Sprintf("--exclude-socket-metrics=%s does nothing here: no metric of that name can be left out", shown(name)))
		}
	}
}

// checkTogether finds what flags, each right by itself, may not say together.
func checkTogether(o *options) error {
	switch {
	case o.webhookAddress != "" && (o.webhookCertificate == "" || o.webhookKey == ""):
		return errors.New("--validating-webhook needs --validating-webhook-certificate and --validating-webhook-key: API servers speak TLS only")
	case o.httpPort == 0 && o.httpsPort == 0:
		return errors.New("--http-port=0 and --https-port=0 switch everything off: leave one of them on")
	case !o.reusePort:
		return nil // the kernel refuses a port that is taken
	}
	list := ownAddresses(o)
	for i, a := range list {
		for _, b := range list[:i] {
			if overlap(a.address, b.address) {
				return fmt.Errorf("%s and %s are the same port, %d: choose another one for either", b.flag, a.flag, portOf(a.address))
			}
		}
	}
	return nil
}

// overlap tells whether a connection could be for either of two addresses, HOST:PORT.
func overlap(a, b string) bool {
	if portOf(a) == 0 || portOf(a) != portOf(b) {
		return false
	}
	one, _, _ := net.SplitHostPort(a)
	other, _, _ := net.SplitHostPort(b)
	return one == other || anyHost(one) || anyHost(other)
}

func anyHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

func parseAddr(v string) (netip.Addr, error) {
	if v == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(v, "["), "]"))
	if err != nil {
		return a, errors.New("give one IP address, or leave the flag out for all")
	}
	return a, nil
}

func checkAddress(v string) error {
	if v == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		return errors.New("give HOST:PORT, such as 127.0.0.1:10254, or nothing to switch it off")
	}
	if _, err = parsePort(port); err != nil {
		return fmt.Errorf("the port: %w", err)
	}
	return nil
}

func checkSelector(v string) error {
	if _, err := labels.Parse(v); err != nil {
		return errors.New("give labels, as team=web or stage!=test, separated by commas")
	}
	return nil
}

// checkAdminAddress also takes the path of a socket, absolute and short enough for the kernel.
func checkAdminAddress(v string) error {
	path, ok := listen.UnixPath(v)
	switch {
	case !ok:
		return checkAddress(v)
	case !filepath.IsAbs(path) || len(path) > unixPathMax:
		return fmt.Errorf("give an absolute path of at most %d bytes, such as unix:///run/sluice/admin.sock", unixPathMax)
	}
	return nil
}

func checkKey(v string) error {
	namespace, name, ok := strings.Cut(v, "/")
	if v != "" && (!ok || namespace == "" || name == "" || strings.Contains(name, "/")) {
		return errors.New("give NAMESPACE/NAME")
	}
	return nil
}

var annotationsPrefix = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

func checkPrefix(v string) error {
	if !annotationsPrefix.MatchString(v) {
		return errors.New("give what stands before the slash of an annotation, such as nginx.ingress.kubernetes.io")
	}
	return nil
}

func addPrefixes(to *[]netip.Prefix, v string) error {
	for one := range strings.SplitSeq(v, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(one))
		if err != nil {
			return errors.New("give a network, such as 10.0.0.0/8 or ::1/128")
		}
		*to = append(*to, p.Masked())
	}
	return nil
}
