package main

import "fmt"

// nginxFlag is a flag of ingress-nginx that is accepted and does nothing, so that its deployments start unchanged. What
// holds instead is told at start.
type nginxFlag struct {
	name, value string // value "": a switch
	holds       string
}

// What the rows below have in common.
const (
	noNginx  = "there is no nginx, and nothing of the kind to set"
	byConfig = "the kubeconfig tells how the cluster is reached"
	notYet   = "this version does not do that yet"
	noNative = "there are no native histograms"
	byOwnLog = "--log-format and --log-level decide what is logged"
)

// nginxFlags is the table of them.
var nginxFlags = []nginxFlag{
	{"apiserver-host", "URL", byConfig},
	{"certificate-authority", "FILE", byConfig},
	{"root-ca-file", "FILE", byConfig},
	{"sync-rate-limit", "N", "changes are followed as they come, several at once"},
	{"enable-topology-aware-routing", "", notYet},
	{"disable-sync-events", "", "no Event tells of a sync; Events are for what is wrong"},

	{"disable-full-test", "", "an Ingress is always reviewed beside all others"},
	{"enable-annotation-validation", "", "annotations are always checked"},
	{"deep-inspect", "", "there are no snippets to inspect"},

	{"metrics-per-undefined-host", "", "hosts that no Ingress names are not counted apart"},
	{"monitor-max-batch-size", "N", "counters are kept in this process"},
	{"bucket-factor", "N", noNative},
	{"max-buckets", "N", noNative},

	{"health-check-path", "PATH", "the probes are /healthz and /readyz"},
	{"health-check-timeout", "SECONDS", "a probe is answered at once"},
	{"dynamic-configuration-retries", "N", noNginx},
	{"default-server-port", "PORT", noNginx},
	{"ssl-passthrough-proxy-port", "PORT", "pass-through needs no port of its own"},
	{"status-port", "PORT", noNginx},
	{"stream-port", "PORT", noNginx},
	{"profiler-port", "PORT", "profiles are served at the admin address"},
	{"profiler-address", "HOST", "profiles are served at the admin address"},
	{"internal-logger-address", "ADDRESS", noNginx},
	{"maxmind-edition-ids", "LIST", notYet},
	{"maxmind-license-key", "KEY", notYet},
	{"maxmind-mirror", "URL", notYet},
	{"maxmind-retries-count", "N", notYet},
	{"maxmind-retries-timeout", "DURATION", notYet},

	{"alsologtostderr", "", byOwnLog},
	{"logtostderr", "", byOwnLog},
	{"log-dir", "DIR", byOwnLog},
	{"log_dir", "DIR", byOwnLog},
	{"log-file", "FILE", byOwnLog},
	{"skip-headers", "", byOwnLog},
	{"stderrthreshold", "LEVEL", byOwnLog},
	{"vmodule", "LIST", byOwnLog},
}

// option is the flag as a row of the table: it takes any value and notes that it was given.
func (f nginxFlag) option() option {
	return option{name: f.name, value: f.value, set: func(o *options, v string) error {
		o.ignored = append(o.ignored, fmt.Sprintf("--%s does nothing here: %s", f.name, f.holds))
		return nil
	}}
}
