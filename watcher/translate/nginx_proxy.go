package translate

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/l7"
)

// How requests are forwarded: limits, timeouts, retries.
var proxyAnnotations = []annotation{
	{
		key: "proxy-body-size", scope: scopeLocation, risk: riskMedium, verdict: same,
		text: "The most that a request's body may have, as 512k, 8m or 1g; beyond it 413; 0: no limit. Default 1m (ConfigMap).",
		parse: func(d *dialect, value string) error {
			n, err := parseSize(value, 0, bodyMax)
			if err == nil {
				d.policy.BodyMax = n
			}
			return err
		},
	},
	{
		key: "proxy-connect-timeout", scope: scopeLocation, risk: riskLow, verdict: same,
		text:  "Seconds for a connection to an endpoint; default 5 (ConfigMap).",
		parse: timeoutAnnotation(func(p *l7.Policy) *time.Duration { return &p.ConnectTimeout }),
	},
	{
		key: "proxy-read-timeout", scope: scopeLocation, risk: riskLow, verdict: same,
		text:  "Seconds between two reads from the backend, not in all; beyond it 504. Default 60 (ConfigMap).",
		parse: timeoutAnnotation(func(p *l7.Policy) *time.Duration { return &p.ReadTimeout }),
	},
	{
		key: "proxy-send-timeout", scope: scopeLocation, risk: riskLow, verdict: same,
		text:  "Seconds between two writes to the backend; default 60 (ConfigMap).",
		parse: timeoutAnnotation(func(p *l7.Policy) *time.Duration { return &p.SendTimeout }),
	},
	{
		key: "proxy-request-buffering", scope: scopeLocation, risk: riskLow, verdict: differs,
		text: "on (default, ConfigMap): the backend is asked when the body is complete; off: body bytes go on as they come.",
		note: "At most 64 KiB are held, in memory (client-body-buffer-size): a larger body is streamed from there on; nothing is written to disk.",
		parse: func(d *dialect, value string) error {
			on, err := parseSwitch(value)
			if err == nil {
				d.policy.BufferRequest = on
			}
			return err
		},
	},
	{
		key: "proxy-http-version", scope: scopeLocation, risk: riskLow, verdict: differs,
		text: "1.1 (default, ConfigMap) or 1.0: the version of HTTP in which backends are asked that do not speak HTTP/2. With 1.0 each request has a " +
			"connection of its own, which its answer's end may close, and nothing is upgraded: a WebSocket's handshake is a plain GET to the backend.",
		note: "With 1.0 Connection: close is sent, whatever connection-proxy-header says. A body of unknown length (chunked, HTTP/2) gets a Content-Length, " +
			"also with proxy-request-buffering: off, for which it has to fit in client-body-buffer-size: beyond it 411; ingress-nginx writes it to disk. " +
			"A WebSocket of HTTP/2 answers 501. Authentication services, mirrors and health checks are asked in HTTP/1.1.",
		parse: func(d *dialect, value string) (err error) {
			d.policy.HTTP10, err = parseHTTPVersion(value, d.policy.HTTP10)
			return err
		},
	},
	{
		key: "proxy-next-upstream", scope: scopeLocation, risk: riskMedium, verdict: differs,
		text: "After which failures another endpoint is asked: error, timeout, invalid_header, http_500, http_502, http_503, " +
			"http_504, http_403, http_404, http_429, non_idempotent, off. Default \"error timeout\" (ConfigMap).",
		note: "A request is sent again only where docs/hardening.md 3.4 allows it.",
		parse: func(d *dialect, value string) error {
			next, err := parseNextUpstream(value)
			if err == nil {
				d.policy.NextUpstream = next
			}
			return err
		},
	},
	{
		key: "proxy-next-upstream-tries", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Attempts in all; 0: no limit. Default 3 (ConfigMap).",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, triesMax)
			if err == nil {
				d.policy.Tries = n
			}
			return err
		},
	},
	{
		key: "proxy-next-upstream-timeout", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Seconds after which no further endpoint is asked; 0 (default): no limit.",
		parse: func(d *dialect, value string) error {
			t, err := parseSeconds(value, 0)
			if err == nil {
				d.policy.TriesTimeout = t
			}
			return err
		},
	},
}

// parseHTTPVersion reads proxy-http-version; old holds after an error.
func parseHTTPVersion(value string, old bool) (http10 bool, err error) {
	switch value {
	case "1.0":
		return true, nil
	case "1.1":
		return false, nil
	}
	return old, fmt.Errorf("%q is not one of 1.0, 1.1", value)
}

func timeoutAnnotation(field func(*l7.Policy) *time.Duration) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		t, err := parseSeconds(value, 1)
		if err == nil {
			*field(&d.policy) = t
		}
		return err
	}
}

var nextUpstream = map[string]l7.NextUpstream{
	"error": l7.NextError, "timeout": l7.NextTimeout, "invalid_header": l7.NextInvalidHeader,
	"http_500": l7.Next500, "http_502": l7.Next502, "http_503": l7.Next503, "http_504": l7.Next504,
	"http_403": l7.Next403, "http_404": l7.Next404, "http_429": l7.Next429,
	"non_idempotent": l7.NextNonIdempotent, "off": 0,
}

// parseNextUpstream reads words of nginx's proxy_next_upstream. "off" stands alone.
func parseNextUpstream(value string) (next l7.NextUpstream, err error) {
	words := strings.Fields(value)
	if len(words) == 0 {
		return 0, fmt.Errorf("the list is empty; off means none")
	}
	for _, word := range words {
		bit, ok := nextUpstream[word]
		if !ok || bit == 0 && len(words) > 1 {
			return 0, fmt.Errorf("%q does not belong into a list of error, timeout, invalid_header, http_500 and the like, non_idempotent; or off alone", word)
		}
		next |= bit
	}
	return next, nil
}
