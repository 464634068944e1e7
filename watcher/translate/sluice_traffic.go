package translate

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// traffic is what annotations of our own ask for a backend.
type traffic struct {
	breaker   upstream.Breaker
	outlier   upstream.Outlier
	check     upstream.Check
	slowStart time.Duration
	sockmap   fastpath.SockmapUse
}

// Bounds of them.
const (
	breakerMax       = 1 << 24
	outlierErrorsMax = 1_000_000
	ejectionMax      = time.Hour
	checkIntervalMax = time.Hour
	checkRowMax      = 1000
	slowStartMax     = time.Hour
)

// Health of backends, and how much they are given: what ingress-nginx has no annotations for. The oldest Ingress that names
// a backend and asks for any of a group decides about the group.
var trafficAnnotations = []annotation{
	{
		key: "health-check", own: true, scope: scopeIngress, risk: riskLow, verdict: own,
		text: "http: endpoints are asked for health-check-path now and then; grpc: for gRPC's own health protocol, in HTTP/2; tcp: they are connected to; off (default). One that fails gets no " +
			"requests until it is well again, unless too few are well (panic-threshold).",
		parse: func(d *dialect, value string) error {
			kind, ok := map[string]upstream.CheckKind{"off": upstream.CheckNone, "tcp": upstream.CheckTCP, "http": upstream.CheckHTTP, "grpc": upstream.CheckGRPC}[value]
			if !ok {
				return fmt.Errorf("%q is not one of http, grpc, tcp, off", value)
			}
			d.traffic.check.Kind = kind
			return nil
		},
	},
	{
		key: "health-check-path", own: true, scope: scopeIngress, risk: riskMedium, verdict: own,
		text: "Path and query of the check; default /.",
		parse: func(d *dialect, value string) error {
			if !strings.HasPrefix(value, "/") || !plainPath(strings.NewReplacer("?", "", "&", "", "=", "", "%", "").Replace(value)) {
				return fmt.Errorf("%q is not a path that begins with / and holds letters, digits and -._~/:?&=%% only", value)
			}
			d.traffic.check.Path = value
			return nil
		},
	},
	{
		key: "health-check-service", own: true, scope: scopeIngress, risk: riskLow, verdict: own,
		text: "Which service's health is asked for by health-check: grpc; default: the server's as a whole.",
		parse: func(d *dialect, value string) error {
			if !serviceOfGRPC.MatchString(value) {
				return fmt.Errorf("%q is not the full name of a gRPC service, as package.Service", value)
			}
			d.traffic.check.Service = value
			return nil
		},
	},
	{
		key: "health-check-host", own: true, scope: scopeIngress, risk: riskMedium, verdict: own,
		text:  "Host of the check; default: the endpoint's address.",
		parse: hostOf(func(d *dialect) *string { return &d.traffic.check.Host }),
	},
	{
		key: "health-check-status", own: true, scope: scopeIngress, risk: riskLow, verdict: own,
		text: "Statuses that are well, as 200 or 200-399 (default).",
		parse: func(d *dialect, value string) error {
			low, high, ranged := strings.Cut(value, "-")
			if !ranged {
				high = low
			}
			from, err1 := strconv.Atoi(low)
			to, err2 := strconv.Atoi(high)
			if err1 != nil || err2 != nil || from < 100 || to > 599 || from > to {
				return fmt.Errorf("%q is neither a status nor a range like 200-399", value)
			}
			d.traffic.check.StatusMin, d.traffic.check.StatusMax = from, to
			return nil
		},
	},
	trafficTime("health-check-interval", "Time between two checks of an endpoint; default 10s.", 100*time.Millisecond, checkIntervalMax,
		func(d *dialect) *time.Duration { return &d.traffic.check.Interval }),
	trafficTime("health-check-timeout", "How long a check may take; default 2s.", 10*time.Millisecond, checkIntervalMax,
		func(d *dialect) *time.Duration { return &d.traffic.check.Timeout }),
	trafficNumber("health-check-healthy", "Good checks in a row that make an endpoint well again; default 2.", 1, checkRowMax,
		func(d *dialect) *int { return &d.traffic.check.Healthy }),
	trafficNumber("health-check-unhealthy", "Bad checks in a row that make it unwell; default 3.", 1, checkRowMax,
		func(d *dialect) *int { return &d.traffic.check.Unhealthy }),
	trafficNumber("outlier-errors", "Statuses of 500 and more, cuts and timeouts in a row after which an endpoint gets no requests for a while; default: none do. "+
		"Two connections in a row that cannot be made always do that.", 1, outlierErrorsMax,
		func(d *dialect) *int { return &d.traffic.outlier.Errors }),
	trafficTime("outlier-ejection-time", "How long that is the first time, doubled up to a minute when the endpoint fails again at once; default 5s.", time.Second, ejectionMax,
		func(d *dialect) *time.Duration { return &d.traffic.outlier.Ejection }),
	trafficNumber("panic-threshold", "Per cent of a backend's endpoints that stay in use at least, whatever checks and answers say; default 50.", 1, 100,
		func(d *dialect) *int { return &d.traffic.outlier.Panic }),
	trafficNumber("max-connections", "Connections to the backend, those being made and tunnels included; what needs one more is answered 503. Each proxy counts for itself, as in all that follow.", 1, breakerMax,
		func(d *dialect) *int { return &d.traffic.breaker.Connections }),
	trafficNumber("max-pending", "Requests that wait for a connection to the backend; one more is answered 503.", 1, breakerMax,
		func(d *dialect) *int { return &d.traffic.breaker.Pending }),
	trafficNumber("max-requests", "Requests to the backend at a time; one more is answered 503.", 1, breakerMax,
		func(d *dialect) *int { return &d.traffic.breaker.Requests }),
	trafficNumber("max-retries", "Retries to the backend at a time; what fails beyond it is not tried again.", 1, breakerMax,
		func(d *dialect) *int { return &d.traffic.breaker.Retries }),
	trafficNumber("retry-budget", "Per cent of the requests to the backend that may be retries at a time; 3 always may.", 1, 100,
		func(d *dialect) *int { return &d.traffic.breaker.RetryBudget }),
	trafficTime("slow-start", "How long an endpoint that is new or well again gets less than its share of requests, rising from a tenth; default: not at all.", time.Second, slowStartMax,
		func(d *dialect) *time.Duration { return &d.traffic.slowStart }),
	{
		key: "sockmap", own: true, scope: scopeIngress, risk: riskLow, verdict: own,
		text: "Whether tunnels to the backend (ssl-passthrough, WebSocket) are joined in the kernel: off, auto (those that carry many small messages), on. " +
			"Default: as --sockmap says, without which it has no effect; see docs/sockmap.md.",
		parse: func(d *dialect, value string) error {
			use, ok := fastpath.SockmapUses[value]
			if !ok {
				return fmt.Errorf("%q is not one of off, auto, on", value)
			}
			d.traffic.sockmap = use
			return nil
		},
	},
	{
		key: "request-timeout", own: true, scope: scopeLocation, risk: riskLow, verdict: own,
		text: "From a request's head to the end of its answer, retries included; beyond it 504, or a cut answer. Default: no limit.",
		parse: func(d *dialect, value string) error {
			t, err := parseDuration(value, 10*time.Millisecond, timeoutMax)
			if err == nil {
				d.policy.Timeout = t
			}
			return err
		},
	},
}

var serviceOfGRPC = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]{0,255}$`)

func trafficNumber(key, text string, low, high int, field func(*dialect) *int) annotation {
	return annotation{key: key, own: true, scope: scopeIngress, risk: riskLow, verdict: own, text: text,
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, low, high)
			if err == nil {
				*field(d) = n
			}
			return err
		}}
}

func trafficTime(key, text string, low, high time.Duration, field func(*dialect) *time.Duration) annotation {
	return annotation{key: key, own: true, scope: scopeIngress, risk: riskLow, verdict: own, text: text,
		parse: func(d *dialect, value string) error {
			t, err := parseDuration(value, low, high)
			if err == nil {
				*field(d) = t
			}
			return err
		}}
}

// settleTraffic reports details of a health check that nobody makes.
func (f *fragment) settleTraffic() {
	d := &f.dialect
	if k := &d.traffic.check; k.Kind == upstream.CheckNone && *k != (upstream.Check{}) {
		*k = upstream.Check{}
		if !f.has(ownPrefix + "/health-check") {
			f.refuse(annotationField(ownPrefix+"/health-check"), "is missing: health-check-* mean nothing without it")
		}
	}
}

// clusterTraffic takes each group of settings from the oldest Ingress that names the cluster and asks for any of it.
func (t *Translator) clusterTraffic(c *cluster, s *upstream.Settings) (problems []route.Problem) {
	if f := c.chooser(func(d *dialect) bool { return d.traffic.breaker != upstream.Breaker{} }); f != nil {
		s.Breaker = f.dialect.traffic.breaker
		problems = append(problems, c.late(f, func(d *dialect) (string, bool) {
			b := d.traffic.breaker
			return ownPrefix + "/max-requests", b != upstream.Breaker{} && b != s.Breaker
		})...)
	}
	if f := c.chooser(func(d *dialect) bool { return d.traffic.outlier != upstream.Outlier{} }); f != nil {
		s.Outlier = f.dialect.traffic.outlier
		problems = append(problems, c.late(f, func(d *dialect) (string, bool) {
			o := d.traffic.outlier
			return ownPrefix + "/outlier-errors", o != upstream.Outlier{} && o != s.Outlier
		})...)
	}
	if f := c.chooser(func(d *dialect) bool { return d.traffic.check != upstream.Check{} }); f != nil {
		s.Check = f.dialect.traffic.check
		problems = append(problems, c.late(f, func(d *dialect) (string, bool) {
			k := d.traffic.check
			return ownPrefix + "/health-check", k != upstream.Check{} && k != s.Check
		})...)
	}
	if f := c.chooser(func(d *dialect) bool { return d.traffic.slowStart > 0 }); f != nil {
		s.SlowStart = f.dialect.traffic.slowStart
		problems = append(problems, c.late(f, func(d *dialect) (string, bool) {
			return ownPrefix + "/slow-start", d.traffic.slowStart > 0 && d.traffic.slowStart != s.SlowStart
		})...)
	}
	if f := c.chooser(func(d *dialect) bool { return d.traffic.sockmap != fastpath.SockmapDefault }); f != nil {
		s.Sockmap = f.dialect.traffic.sockmap
		problems = append(problems, c.late(f, func(d *dialect) (string, bool) {
			u := d.traffic.sockmap
			return ownPrefix + "/sockmap", u != fastpath.SockmapDefault && u != s.Sockmap
		})...)
	}
	return problems
}
