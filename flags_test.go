package main

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// TestFlags sets every flag, in each of its forms.
func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args string
		want func(o *options)
	}{
		{"", func(*options) {}},
		{"--manifests=a --manifests b", func(o *options) { o.manifests = []string{"a", "b"} }},
		{"--kubeconfig=f", func(o *options) { o.kubeconfig = "f" }},
		{"--bind-address=127.0.0.1", func(o *options) { o.bind = netip.MustParseAddr("127.0.0.1") }},
		{"--bind-address [::1]", func(o *options) { o.bind = netip.MustParseAddr("::1") }},
		{"--bind-address=1.2.3.4 --bind-address=", func(*options) {}},
		{"--http-port=8080 --https-port 8443", func(o *options) { o.httpPort, o.httpsPort = 8080, 8443 }},
		{"--http-port=1 --http-port=0", func(o *options) { o.httpPort = 0 }},
		{"-http-port=8080", func(o *options) { o.httpPort = 8080 }},
		{"--admin-address=:1", func(o *options) { o.adminAddress = ":1" }},
		{"--admin-address=", func(o *options) { o.adminAddress = "" }},
		{"--admin-address=unix:///run/a.sock", func(o *options) { o.adminAddress = "unix:///run/a.sock" }},
		{"--metrics-address=:10254", func(o *options) { o.metricsAddress = ":10254" }},
		{"--reuse-port", func(o *options) { o.reusePort = true }},
		{"--admin-address=[::1]:0", func(o *options) { o.adminAddress = "[::1]:0" }},
		{"--healthz-port=10255", func(o *options) { o.adminAddress = ":10255" }},
		{"--ingress-class=a", func(o *options) { o.ingressClass = "a" }},
		{"--controller-class=example.com/a", func(o *options) { o.controllerClass = "example.com/a" }},
		{"--ingress-class-by-name --watch-ingress-without-class", func(o *options) { o.classByName, o.withoutClass = true, true }},
		{"--ingress-class-by-name --ingress-class-by-name=false", func(*options) {}},
		{"--configmap=a/b --default-backend-service=c/d --default-ssl-certificate=e/f", func(o *options) {
			o.configMap, o.defaultBackend, o.defaultCertificate = "a/b", "c/d", "e/f"
		}},
		{"--annotations-prefix=a.example", func(o *options) { o.annotationsPrefix = "a.example" }},
		{"--disable-catch-all --disable-svc-external-name", func(o *options) { o.disableCatchAll, o.disableExternalName = true, true }},
		{"--enable-ssl-passthrough", func(o *options) { o.passthrough = true }},
		{"--enable-ssl-passthrough=true", func(o *options) { o.passthrough = true }},
		{"--loops=3 --work-permits=4", func(o *options) { o.loops, o.workPermits = 3, 4 }},
		{"--allow-backend-cidr=10.1.2.3/8,::1/128 --allow-backend-cidr=1.0.0.0/8", func(o *options) {
			o.allowBackends = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("1.0.0.0/8")}
		}},
		{"--sockmap=auto --sockmap-queue=256", func(o *options) { o.sockmap, o.sockmapQueued = fastpath.SockmapAuto, 256 }},
		{"--sockmap=on --sockmap off", func(*options) {}},
		{"--io-uring=off", func(o *options) { o.ioUring = false }},
		{"--io-uring=off --io-uring auto", func(*options) {}},
		{"--shutdown-grace-period=10", func(o *options) { o.gracePeriod = 10 * time.Second }},
		{"--post-shutdown-grace-period=10", func(o *options) { o.lingerPeriod = 10 * time.Second }},
		{"--shutdown-grace-period=1m", func(o *options) { o.gracePeriod = time.Minute }},
		{"--log-format=json --log-level=debug", func(o *options) { o.logJSON, o.logLevel = true, "debug" }},
		{"--log-format=json --log-format=text", func(*options) {}},
		{"-v=3", func(o *options) { o.verbosity = 3 }},
		{"--v 2", func(o *options) { o.verbosity = 2 }},
		{"--metrics-per-host --metrics-own-names --profiling", func(o *options) { o.metricsPerHost, o.ownMetricNames, o.profiling = true, true, true }},
		{"--enable-metrics=false --report-status-classes", func(o *options) { o.metrics, o.statusClasses = false, true }},
		{"--enable-metrics", func(*options) {}},
		{"--exclude-socket-metrics=nginx_ingress_controller_bytes_sent,header_duration_seconds --exclude-socket-metrics requests", func(o *options) {
			o.excludedMetrics = []string{"bytes_sent", "header_duration_seconds", "requests"}
		}},
		{"--exclude-socket-metrics=,nginx_ingress_controller_success", func(o *options) {
			o.ignored = []string{"--exclude-socket-metrics=success does nothing here: no metric of that name can be left out"}
		}},
		{"--time-buckets=0.1,1 --time-buckets=2.5,+Inf --length-buckets=10 --size-buckets 0,1e3", func(o *options) {
			o.timeBuckets, o.lengthBuckets, o.sizeBuckets = []float64{0.1, 1, 2.5}, []float64{10}, []float64{0, 1000}
		}},
		{"--status-update-interval=30 --sync-period=10m", func(o *options) { o.statusInterval, o.syncPeriod = 30*time.Second, 10*time.Minute }},
		{"--status-update-interval=1 --sync-period=1s --sync-period=0", func(o *options) {
			o.statusInterval, o.ignored = 5*time.Second, []string{"--status-update-interval=1 is too short: every 5s it is"}
		}},
		{"-h", func(o *options) { o.help = true }},
		{"--dir=d", func(o *options) { o.demoDir = "d" }},
		{"--watch-namespace=a", func(o *options) { o.watchNamespace = "a" }},
		{"--watch-namespace-selector=a=b,c!=d", func(o *options) { o.watchSelector = "a=b,c!=d" }},
		{"--update-status=false --update-status-on-shutdown=false", func(o *options) { o.updateStatus, o.updateStatusOnShutdown = false, false }},
		{"--publish-service=a/b --report-node-internal-ip-address", func(o *options) { o.publishService, o.reportInternalIP = "a/b", true }},
		{"--publish-status-address=1.2.3.4,lb.example --publish-status-address=::1", func(o *options) { o.publishAddresses = []string{"1.2.3.4", "lb.example", "::1"} }},
		{"--election-id=x --election-ttl=5s --disable-leader-election", func(o *options) {
			o.electionID, o.electionTTL, o.noElection = "x", 5*time.Second, true
		}},
		{"--disable-sync-events --apiserver-host=x", func(o *options) {
			o.ignored = []string{"--disable-sync-events does nothing here: no Event tells of a sync; Events are for what is wrong",
				"--apiserver-host does nothing here: " + byConfig}
		}},
	} {
		want, got := defaultOptions(), defaultOptions()
		c.want(&want)
		if err := parseFlags(&got, strings.Fields(c.args), table, demoFlags); err != nil {
			t.Errorf("%s: %v", c.args, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v, want\n%+v", c.args, got, want)
		}
	}
}

const aboutBuckets = "give numbers in ascending order, separated by commas, 64 at most"

// TestFlagMistakes has the whole line of each kind of mistake.
func TestFlagMistakes(t *testing.T) {
	for args, want := range map[string]string{
		"--htp-port=80":                     "unknown flag --htp-port: did you mean --http-port? `sluice --help` lists all",
		"--manifest=a":                      "unknown flag --manifest: did you mean --manifests? `sluice --help` lists all",
		"--something-else":                  "unknown flag --something-else: `sluice --help` lists all",
		"--dir=x":                           "unknown flag --dir: `sluice --help` lists all",
		"manifests":                         `unexpected argument "manifests": flags begin with --, a switch takes its value as --switch=false`,
		"--":                                `unexpected argument "--": flags begin with --, a switch takes its value as --switch=false`,
		"--profiling false":                 `unexpected argument "false": flags begin with --, a switch takes its value as --switch=false`,
		"--http-port":                       "--http-port needs a value: --http-port=PORT",
		"--http-port --profiling":           "--http-port needs a value: --http-port=PORT",
		"--manifests=":                      "--manifests=: name a directory",
		"--kubeconfig=":                     "--kubeconfig=: name a file",
		"--http-port=http":                  "--http-port=http: give a number from 0 to 65535",
		"--https-port=65536":                "--https-port=65536: give a number from 0 to 65535",
		"--http-port -1":                    "--http-port=-1: give a number from 0 to 65535",
		"--healthz-port=x":                  "--healthz-port=x: give a number from 0 to 65535",
		"--bind-address=localhost":          "--bind-address=localhost: give one IP address, or leave the flag out for all",
		"--bind-address=1.1.1.1,2.2.2.2":    "--bind-address=1.1.1.1,2.2.2.2: give one IP address, or leave the flag out for all",
		"--admin-address=10254":             "--admin-address=10254: give HOST:PORT, such as 127.0.0.1:10254, or nothing to switch it off",
		"--admin-address=unix://a":          "--admin-address=unix://a: give an absolute path of at most 107 bytes, such as unix:///run/sluice/admin.sock",
		"--metrics-address=unix:///a":       "--metrics-address=unix:///a: the port: give a number from 0 to 65535",
		"--admin-address=a:b":               "--admin-address=a:b: the port: give a number from 0 to 65535",
		"--ingress-class=":                  "--ingress-class=: name a class",
		"--controller-class=":               "--controller-class=: name a controller",
		"--configmap=a":                     "--configmap=a: give NAMESPACE/NAME",
		"--default-ssl-certificate=a/":      "--default-ssl-certificate=a/: give NAMESPACE/NAME",
		"--default-backend-service=a/b/c":   "--default-backend-service=a/b/c: give NAMESPACE/NAME",
		"--annotations-prefix=a/":           "--annotations-prefix=a/: give what stands before the slash of an annotation, such as nginx.ingress.kubernetes.io",
		"--profiling=maybe":                 "--profiling=maybe: give true or false",
		"--loops=0":                         "--loops=0: give a number from 1 to 512",
		"--work-permits=many":               "--work-permits=many: give a number from 1 to 256",
		"--allow-backend-cidr=10.0.0.1":     "--allow-backend-cidr=10.0.0.1: give a network, such as 10.0.0.0/8 or ::1/128",
		"--shutdown-grace-period=-1":        "--shutdown-grace-period=-1: give a number of seconds, up to a day",
		"--post-shutdown-grace-period=x":    "--post-shutdown-grace-period=x: give a number of seconds, up to a day",
		"--time-buckets=1,1":                "--time-buckets=1,1: " + aboutBuckets,
		"--time-buckets=":                   "--time-buckets=: " + aboutBuckets,
		"--length-buckets=a":                "--length-buckets=a: " + aboutBuckets,
		"--size-buckets=NaN":                "--size-buckets=NaN: " + aboutBuckets,
		"--size-buckets=-5":                 "--size-buckets=-5: " + aboutBuckets,
		"--size-buckets=+Inf":               "--size-buckets=+Inf: " + aboutBuckets,
		"--size-buckets=2 --size-buckets=1": "--size-buckets=1: " + aboutBuckets,
		"--status-update-interval=x":        "--status-update-interval=x: give a number of seconds, up to a day",
		"--sync-period=10":                  "--sync-period=10: give a duration, such as 10m: 1s at least, or 0 for never",
		"--sync-period=1ms":                 "--sync-period=1ms: give a duration, such as 10m: 1s at least, or 0 for never",
		"--io-uring=on":                     "--io-uring=on: give one of auto, off",
		"--sockmap=yes":                     "--sockmap=yes: give one of off, auto, on",
		"--sockmap-queue=1":                 "--sockmap-queue=1: give a number from 16 to 16384",
		"--log-format=xml":                  "--log-format=xml: give one of text, json",
		"--log-level=loud":                  "--log-level=loud: give one of debug, info, warn, error",
		"-v=x":                              "--v=x: give a number from 0 to 10",
		"--election-id":                     "--election-id needs a value: --election-id=NAME",
		"--election-ttl=1":                  "--election-ttl=1: give a number of whole seconds, from 2 up to a day",
		"--publish-status-address=a_b":      "--publish-status-address=a_b: give IP addresses or DNS names, separated by commas",
		"--watch-namespace-selector=a,,b":   "--watch-namespace-selector=a,,b: give labels, as team=web or stage!=test, separated by commas",
		"--publish-service=lb":              "--publish-service=lb: give NAMESPACE/NAME",
	} {
		o := defaultOptions()
		err := parseFlags(&o, strings.Fields(args), table)
		if _, ok := err.(usage); !ok || err.Error() != want {
			t.Errorf("%s:\n%v, want\n%s", args, err, want)
		}
	}
	o := defaultOptions()
	if err := parseFlags(&o, []string{"--log-level=a\nb"}, table); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("a value of two lines is told in two: %q", err)
	}
}

// TestFlagTables holds the tables to themselves: no name twice, every row told in --help, every field reachable.
func TestFlagTables(t *testing.T) {
	names := map[string]bool{}
	for _, f := range slices.Concat(table, demoFlags) {
		if names[f.name] {
			t.Errorf("--%s stands twice", f.name)
		}
		names[f.name] = true
		if f.about == "" || f.set == nil {
			t.Errorf("--%s: %+v", f.name, f)
		}
	}
	for _, f := range nginxFlags {
		if names[f.name] {
			t.Errorf("--%s stands twice", f.name)
		}
		names[f.name] = true
	}
	var b strings.Builder
	if err := printHelp(nil, &b, nil); err != nil {
		t.Fatal(err)
	}
	help := b.String()
	for _, f := range slices.Concat(table, demoFlags) {
		form := "-" + f.name
		if f.value != "" {
			form += "=" + f.value
		}
		if !strings.Contains(help, form) {
			t.Errorf("--help does not tell %s", form)
		}
	}
	for line := range strings.Lines(help) {
		if len(line) > 121 {
			t.Errorf("a line of --help is too long: %q", line)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"http-port", "https-port", 1}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%s, %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestLogLevels(t *testing.T) {
	for args, want := range map[string]string{
		"": "INFO", "-v=2": "INFO", "-v=3": "DEBUG", "--log-level=error -v=5": "ERROR", "--log-level=warn": "WARN", "--log-level=debug": "DEBUG",
	} {
		o := defaultOptions()
		if err := parseFlags(&o, strings.Fields(args), table); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		log := newLogger(&o, &b)
		log.Debug("DEBUG")
		log.Info("INFO")
		log.Warn("WARN")
		log.Error("ERROR")
		if first := strings.Fields(b.String())[1]; first != "level="+want {
			t.Errorf("%s: the log begins at %s, want %s", args, first, want)
		}
	}
	var b strings.Builder
	newLogger(&options{logJSON: true}, &b).Info("x")
	if !strings.HasPrefix(b.String(), `{"time"`) {
		t.Error(fmt.Sprint("no JSON: ", b.String()))
	}
}

// TestSharedPorts: with --reuse-port the kernel lets one process have a port twice, and one of the two would get nothing.
func TestSharedPorts(t *testing.T) {
	for args, want := range map[string]string{
		"":                                     "",
		"--https-port=80":                      "--http-port and --https-port are the same port, 80: choose another one for either",
		"--metrics-address=:10254":             "--admin-address and --metrics-address are the same port, 10254: choose another one for either",
		"--validating-webhook=:443":            "--https-port and --validating-webhook are the same port, 443: choose another one for either",
		"--validating-webhook=[::]:443":        "--https-port and --validating-webhook are the same port, 443: choose another one for either",
		"--validating-webhook=:8443":           "",
		"--bind-address=::1 --http-port=10254": "",
		"--http-port=0 --admin-address=127.0.0.1:0 --metrics-address=:0": "",
	} {
		o := defaultOptions()
		o.reusePort, o.webhookCertificate, o.webhookKey = true, "c", "k"
		if err := parseFlags(&o, strings.Fields(args), table); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := checkTogether(&o); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
		if o.reusePort = false; checkTogether(&o) != nil {
			t.Errorf("%s, a port of one process: %v", args, checkTogether(&o))
		}
	}
}

// TestOwnPorts: whatever form an address has.
func TestOwnPorts(t *testing.T) {
	o := defaultOptions()
	args := "--http-port=81 --https-port=0 --admin-address=unix:///run/s.sock --metrics-address=:10254 --validating-webhook=[::1]:8443"
	if err := parseFlags(&o, strings.Fields(args), table); err != nil {
		t.Fatal(err)
	}
	want := []translate.OwnPort{{Port: 81, Flag: "--http-port"}, {Port: 10254, Flag: "--metrics-address"}, {Port: 8443, Flag: "--validating-webhook"}}
	if got := ownPorts(&o); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
