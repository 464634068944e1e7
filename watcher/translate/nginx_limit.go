package translate

import "github.com/sluiceproxy/sluice/l7/filter"

// Bounds of limits.
const (
	burstMultiplierDefault = 5
	limitRequestsMax       = 100_000   // limit-rps, limit-rpm, limit-connections
	limitBurstMax          = 2_000_000 // requests that may come at once
	limitRateMax           = 1 << 30   // KiB a second, KiB
)

// Limits of one client: an IPv4 address, or an IPv6 /64.
var limitAnnotations = []annotation{
	{
		key: "limit-rps", scope: scopeLocation, risk: riskLow, verdict: differs, effect: drop,
		text: "Requests a second of one client, for all paths of the Ingress together. 1 + limit-rps × limit-burst-multiplier " +
			"may come at once; one too many answers 503 (ConfigMap: limit-req-status-code). Counted before authentication, and by each proxy for itself.",
		note:  limitNote,
		parse: limitNumber(func(d *dialect) *int { return &d.limit.PerSecond }),
	},
	{
		key: "limit-rpm", scope: scopeLocation, risk: riskLow, verdict: differs, effect: drop,
		text:  "Requests a minute of one client, likewise.",
		note:  limitNote,
		parse: limitNumber(func(d *dialect) *int { return &d.limit.PerMinute }),
	},
	{
		key: "limit-connections", scope: scopeLocation, risk: riskLow, verdict: differs, effect: drop,
		text:  "Requests of one client at a time, for all paths of the Ingress together; one too many answers 503 (ConfigMap: limit-conn-status-code).",
		note:  limitNote,
		parse: limitNumber(func(d *dialect) *int { return &d.limit.Connections }),
	},
	{
		key: "limit-burst-multiplier", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "How many times limit-rps and limit-rpm may come at once beyond the first request; default 5.",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, limitBurstMax)
			if err == nil {
				d.limit.BurstMultiplier = n
			}
			return err
		},
	},
	{
		key: "limit-allowlist", aliases: []string{"limit-whitelist"}, scope: scopeLocation, risk: riskLow, verdict: same, effect: drop,
		text: "Addresses and networks without these limits.",
		parse: func(d *dialect, value string) (err error) {
			d.limit.Allow, err = parsePrefixes("", value)
			return err
		},
	},
	{
		key: "limit-rate", scope: scopeLocation, risk: riskLow, verdict: differs,
		text: "KiB a second of one response; 0: any number (default, ConfigMap).",
		note: "proxy-buffering is not needed for it.",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, limitRateMax)
			if err == nil {
				d.policy.Rate = int64(n) << 10
			}
			return err
		},
	},
	{
		key: "limit-rate-after", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "KiB of a response that go before limit-rate counts; default 0 (ConfigMap).",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, limitRateMax)
			if err == nil {
				d.policy.RateAfter = int64(n) << 10
			}
			return err
		},
	},
}

const limitNote = "IPv6 clients are counted by their /64, and at most 87,296 clients are remembered (nginx: some 80,000 addresses)."

func limitNumber(field func(*dialect) *int) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		n, err := parseInt(value, 0, limitRequestsMax)
		if err == nil {
			*field(d) = n
		}
		return err
	}
}

// limits is the limit of the Ingress's paths, if there is any.
func (d *dialect) limits() (filter.Limit, bool) {
	l := d.limit
	l.Status, l.ConnectionStatus = d.defaults.limitStatus, d.defaults.limitConnectionStatus
	return l, l.PerSecond > 0 || l.PerMinute > 0 || l.Connections > 0
}

// settleLimits bounds the burst, which two annotations make together.
func (f *fragment) settleLimits(prefix string) {
	l := &f.dialect.limit
	if n := max(l.PerSecond, l.PerMinute); n > 0 && l.BurstMultiplier > limitBurstMax/n {
		l.BurstMultiplier = limitBurstMax / n
		f.refuse(annotationField(prefix+"/limit-burst-multiplier"), "would let more than %d requests come at once; %d holds",
			limitBurstMax, l.BurstMultiplier)
	}
}
