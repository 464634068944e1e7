package translate

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
)

// Clients: limits and timeouts of docs/hardening.md 3.3. They have that page's defaults, not ingress-nginx's: nobody but
// an attacker needs more.
var clientKeys = []configKey{
	{key: "client-header-timeout", preset: "10s", otherwise: "60", verdict: differs,
		text:  "From the first byte of a request's head to its last.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.HeaderTimeout })},
	{key: "client-body-timeout", preset: "30s", otherwise: "60", verdict: differs,
		text:  "Between two reads of a request's body.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.BodyTimeout })},
	{key: "keep-alive", preset: "75s", verdict: differs, note: "0 does not switch keep-alive off.",
		text:  "How long a connection may be idle between two requests.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.KeepAliveTimeout })},
	{key: "keep-alive-requests", preset: "1000", verdict: same, text: "Requests of one connection.",
		parse: number(1, requestsMax, func(c *configuration) *int { return &c.settings.KeepAliveRequests })},
	{key: "use-http2", preset: "true", verdict: differs, note: "Also without TLS, for clients that begin with HTTP/2's preface (h2c with prior knowledge).",
		text:  "Offers HTTP/2 to clients.",
		parse: boolean(func(c *configuration) *bool { return &c.settings.HTTP2 })},
	{key: "http2-max-concurrent-streams", preset: "100", otherwise: "128", verdict: differs, text: "Streams that a client may have open on one connection.",
		parse: number(1, streamsMax, func(c *configuration) *int { return &c.settings.HTTP2Streams })},
	{key: "large-client-header-buffers", preset: "", otherwise: "4 8k", verdict: differs,
		note: "Sets what sluice-request-line-max, sluice-header-line-max and sluice-header-max set one by one.",
		text: "\"NUMBER SIZE\": SIZE bounds the request line and every field line, NUMBER × SIZE the head.", parse: parseHeaderBuffers},
	{key: "sluice-request-line-max", preset: "8k", verdict: own, text: "Bytes of a request line; beyond it 414.",
		parse: size(64, headMax, func(c *configuration) *int { return &c.settings.Limits.RequestLine })},
	{key: "sluice-header-max", preset: "32k", verdict: own, text: "Bytes of a request's head; beyond it 431.",
		parse: size(1<<10, headMax, func(c *configuration) *int { return &c.settings.Limits.Head })},
	{key: "sluice-header-line-max", preset: "16k", verdict: own, text: "Bytes of one field line; beyond it 431.",
		parse: size(64, headMax, func(c *configuration) *int { return &c.settings.Limits.Line })},
	{key: "sluice-header-fields-max", preset: "100", verdict: own, text: "Field lines of a request; beyond it 431.",
		parse: number(8, fieldsMax, func(c *configuration) *int { return &c.settings.Limits.Fields })},
	{key: "enable-underscores-in-headers", preset: "false", verdict: differs,
		note:  "Never a field that reads like one of the proxy's own once `_` is `-`.",
		text:  "Passes request fields on whose name holds an underscore.",
		parse: boolean(func(c *configuration) *bool { return &c.settings.Limits.Underscores })},
	{key: "ignore-invalid-headers", preset: "true", verdict: differs,
		note: "Never a field that reads like one of the proxy's own once each such character is `-`; and a name that is no token of RFC 9110 answers 400, whatever is set: " +
			"a lenient parser is how requests are smuggled.",
		text: "Drops request fields whose name has other characters than letters, digits and hyphens; `false` passes them on, those with an underscore too.",
		parse: func(c *configuration, value string) error {
			ignored, err := parseBool(value)
			c.settings.Limits.OddNames = err == nil && !ignored
			return err
		}},
	{key: "sluice-encoded-slash", preset: "accept", verdict: own,
		text: "`reject`: paths with %2F or %5C answer 400; `accept`: they are routed decoded and forwarded as they came.",
		parse: choice(map[string]bool{"accept": false, "reject": true},
			func(c *configuration) *bool { return &c.settings.Limits.RejectEncodedSlash })},
	{key: "sluice-first-byte-timeout", preset: "10s", verdict: own, text: "From accept, or the TLS handshake, to a request's first byte.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.FirstByteTimeout })},
	{key: "sluice-send-timeout", preset: "30s", verdict: own, text: "Between two writes to a client that reads slowly.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.SendTimeout })},
	{key: "sluice-rate-min", preset: "240", verdict: own, text: "Bytes a second that a client must send or read at least; 0: any.",
		parse: size(0, headMax, func(c *configuration) *int { return &c.settings.RateMin })},
	{key: "sluice-rate-grace", preset: "20s", verdict: own, text: "When sluice-rate-min begins to count.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.RateGrace })},
	{key: "sluice-tunnel-idle-timeout", preset: "1h", verdict: own, text: "Idle time of WebSockets and passed-through connections.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.TunnelIdle })},
	{key: "sluice-half-close-timeout", preset: "30s", verdict: own, text: "… of which one side has closed.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.HalfCloseTimeout })},
	{key: "client-body-buffer-size", preset: "64k", otherwise: "8k", verdict: differs,
		note:  "A larger body is streamed; ingress-nginx writes it to disk.",
		text:  "Memory for a request's body before the backend is asked (proxy-request-buffering).",
		parse: size(1<<10, headMax, func(c *configuration) *int { return &c.settings.RequestBuffer })},
}

// Whom to believe about the client.
var trustKeys = []configKey{
	{key: "use-forwarded-headers", preset: "false", verdict: differs,
		note:  "Trusted peers only: see proxy-real-ip-cidr. X-Forwarded-Proto is https or it is http, an X-Forwarded-Host that is no host is not believed.",
		text:  "Believes X-Forwarded-For, -Proto, -Host and -Port of trusted peers. The first X-Forwarded-Host is the Host that backends get, and that of redirects to https; rules are found by the request's own.",
		parse: boolean(func(c *configuration) *bool { return &c.settings.UseForwardedHeaders })},
	{key: "enable-real-ip", preset: "false", verdict: differs, note: "Trusted peers only: see proxy-real-ip-cidr.",
		text:  "Believes only the client's address in trusted peers' forwarded-for-header.",
		parse: boolean(func(c *configuration) *bool { return &c.settings.RealIP })},
	{key: "proxy-real-ip-cidr", preset: "loopback and private networks; every peer of use-proxy-protocol", otherwise: "0.0.0.0/0", verdict: differs,
		note: "Without it nobody on the internet is believed. With use-proxy-protocol alone, a PROXY header is required of every peer.",
		text: "The trusted peers: addresses and networks separated by commas.", parse: parseRealIP},
	{key: "forwarded-for-header", preset: "X-Forwarded-For", verdict: same, text: "The request field with the client's address.",
		parse: func(c *configuration, value string) error {
			return parseFieldName(func(name string) {
				c.settings.ForwardedForHeader, c.settings.Limits.Trusted[0] = []byte(name), name
			}, value)
		}},
	{key: "forwarded-host-header", preset: "X-Forwarded-Host", verdict: same, text: "With use-forwarded-headers: the request field with the client's Host.",
		parse: func(c *configuration, value string) error {
			return parseFieldName(func(name string) {
				c.settings.ForwardedHostHeader, c.settings.Limits.Trusted[1] = name, name
			}, value)
		}},
	{key: "compute-full-forwarded-for", preset: "false", verdict: same,
		text:  "Appends to a trusted X-Forwarded-For instead of replacing it.",
		parse: boolean(func(c *configuration) *bool { return &c.settings.ComputeFullForwarded })},
	{key: "use-proxy-protocol", preset: "false", verdict: differs, note: "The header is required, and from trusted peers only.",
		text:  "Reads a PROXY header, version 1 or 2, at the start of every connection. One that names port 443 as the client's destination means https, where TLS ended before this proxy too.",
		parse: boolean(func(c *configuration) *bool { return &c.process.ProxyProtocol.Enabled })},
	{key: "proxy-protocol-header-timeout", preset: "3s", otherwise: "5s", verdict: differs, text: "How long that header may take.",
		parse: duration(100*time.Millisecond, func(c *configuration) *time.Duration { return &c.process.ProxyProtocol.HeaderTimeout })},
	{key: "sluice-proxy-protocol-header-max", preset: "4k", verdict: own, text: "Bytes of a version 2 header.",
		parse: size(232, 64<<10, func(c *configuration) *int { return &c.process.ProxyProtocol.HeaderMax })},
}

// Defaults of Ingresses.
var routeKeys = []configKey{
	{key: "ssl-redirect", preset: "true", verdict: same, text: "Redirects http to https on hosts with TLS.",
		parse: boolean(func(c *configuration) *bool { return &c.defaults.sslRedirect })},
	{key: "force-ssl-redirect", preset: "false", verdict: same, text: "… also on hosts without.",
		parse: boolean(func(c *configuration) *bool { return &c.defaults.forceSSLRedirect })},
	{key: "preserve-trailing-slash", preset: "false", verdict: same, text: "Keeps the URI's last slash in those redirects.",
		parse: boolean(func(c *configuration) *bool { return &c.defaults.preserveTrailingSlash })},
	{key: "relative-redirects", preset: "false", verdict: same, text: "See the annotation.",
		parse: boolean(func(c *configuration) *bool { return &c.defaults.slash.Relative })},
	{key: "use-port-in-redirects", preset: "false", verdict: same, text: "See the annotation.",
		parse: boolean(func(c *configuration) *bool { return &c.defaults.slash.Port })},
	{key: "http-redirect-code", preset: "308", verdict: same, text: "Their status: 301, 302, 307 or 308.", parse: parseHTTPRedirectCode},
	{key: "no-tls-redirect-locations", preset: "/.well-known/acme-challenge", verdict: same,
		text: "Beginnings of rules' paths that are not redirected to https.",
		parse: func(c *configuration, value string) error {
			c.defaults.plainPaths = splitList(value)
			return nil
		}},
	{key: "whitelist-source-range", preset: "", verdict: differs, note: "Entries that do not parse let nobody in, and are a Problem.",
		text: "Lets only these addresses and networks in.", parse: parseGlobalAllow},
	{key: "denylist-source-range", preset: "", verdict: same, text: "Refuses these addresses and networks.", parse: parseGlobalDeny},
	{key: "block-cidrs", preset: "", verdict: same, text: "Refuses these addresses and networks, whatever lists Ingresses have.",
		parse: func(c *configuration, value string) error {
			good, err := parsePrefixList(value)
			c.blocked = joinPrefixes(good)
			if err != nil {
				return &partly{err.Error() + "; only the other entries are refused"}
			}
			return nil
		}},
	{key: "hsts", preset: "true", verdict: same, text: "Sends Strict-Transport-Security over TLS.",
		parse: func(c *configuration, value string) error {
			on, err := parseBool(value)
			c.hstsOff = err == nil && !on
			return err
		}},
	{key: "hsts-max-age", preset: "31536000", verdict: same, text: "… for so many seconds.",
		parse: func(c *configuration, value string) error {
			n, err := parseInt(value, 0, int(hstsAgeMax/time.Second))
			if err == nil {
				c.hsts.MaxAge = time.Duration(n) * time.Second
			}
			return err
		}},
	{key: "hsts-include-subdomains", preset: "true", verdict: same, text: "… for subdomains too.",
		parse: boolean(func(c *configuration) *bool { return &c.hsts.IncludeSubdomains })},
	{key: "hsts-preload", preset: "false", verdict: same, text: "… and for browsers' built-in lists.",
		parse: boolean(func(c *configuration) *bool { return &c.hsts.Preload })},
	{key: "limit-req-status-code", preset: "503", verdict: same, text: "What limit-rps and limit-rpm answer: 400 to 599.",
		parse: number(400, 599, func(c *configuration) *int { return &c.defaults.limitStatus })},
	{key: "limit-conn-status-code", preset: "503", verdict: same, text: "What limit-connections answers: 400 to 599.",
		parse: number(400, 599, func(c *configuration) *int { return &c.defaults.limitConnectionStatus })},
	{key: "limit-rate", preset: "0", verdict: same, text: "KiB a second of one response; 0: any number.",
		parse: kibibytes(func(c *configuration) *int64 { return &c.defaults.policy.Rate })},
	{key: "limit-rate-after", preset: "0", verdict: same, text: "KiB of a response that go before limit-rate counts.",
		parse: kibibytes(func(c *configuration) *int64 { return &c.defaults.policy.RateAfter })},
	{key: "annotations-risk-level", preset: "High", verdict: same,
		text: "Ingresses with an annotation of a higher risk are not served: Low, Medium, High or Critical.", parse: parseRiskLevel},
	{key: "annotation-value-word-blocklist", verdict: same,
		text: "Words, separated by commas: an Ingress with one of them in an annotation's value is not served.",
		parse: func(c *configuration, value string) error {
			c.defaults.badWords = splitList(value)
			return nil
		}},
	{key: "strict-validate-path-type", preset: "", otherwise: "true", verdict: differs,
		note: "`true` refuses such a path, `false` says nothing; without the key it is served with a Problem, as ingress-nginx serves what passed its webhook before.",
		text: "What becomes of Exact and Prefix paths with other characters than letters, digits and -._/.", parse: parseStrictPaths},
	{key: "sluice-implementation-specific", preset: "string", verdict: own,
		text: "What paths of type ImplementationSpecific match: `string`: every path that begins with them, as nginx's own locations do; " +
			"`prefix`: whole path elements. Coming from ingress-nginx, which makes Prefix of them, `prefix` changes nothing.",
		parse: choice(map[string]bool{"string": false, "prefix": true},
			func(c *configuration) *bool { return &c.defaults.implementationIsPrefix })},
	{key: "sluice-trailing-slash", preset: "redirect", verdict: own,
		text: "What a path `/foo/` does with requests for `/foo`, unless a rule has that path: `redirect`: 301 to `/foo/`, as nginx does, whatever the type; " +
			"`ignore`: Prefix takes them and other types do not, as the Ingress API has it.",
		parse: choice(map[string]bool{"redirect": false, "ignore": true},
			func(c *configuration) *bool { return &c.defaults.ignoreSlash })},
}

// Backends.
var backendKeys = []configKey{
	{key: "proxy-body-size", preset: "1m", verdict: same, text: "The most that a request's body may have; beyond it 413; 0: no limit.",
		parse: func(c *configuration, value string) error {
			n, err := parseSize(value, 0, bodyMax)
			if err == nil {
				c.defaults.policy.BodyMax = n
			}
			return err
		}},
	{key: "proxy-connect-timeout", preset: "5s", verdict: same, text: "For a connection to an endpoint.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.ConnectTimeout })},
	{key: "proxy-read-timeout", preset: "60s", verdict: same, text: "Between two reads from a backend.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.ReadTimeout })},
	{key: "proxy-send-timeout", preset: "60s", verdict: same, text: "Between two writes to a backend.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.settings.WriteTimeout })},
	{key: "proxy-request-buffering", preset: "on", verdict: differs, note: "See the annotation.",
		text: "Whether a backend is asked only when the request's body is complete.",
		parse: func(c *configuration, value string) error {
			on, err := parseSwitch(value)
			if err == nil {
				c.defaults.policy.BufferRequest = on
			}
			return err
		}},
	{key: "proxy-http-version", preset: "1.1", verdict: differs, note: "See the annotation.",
		text: "The version of HTTP in which backends are asked that do not speak HTTP/2: 1.1 or 1.0.",
		parse: func(c *configuration, value string) (err error) {
			c.defaults.policy.HTTP10, err = parseHTTPVersion(value, c.defaults.policy.HTTP10)
			return err
		}},
	{key: "proxy-next-upstream", preset: "error timeout", verdict: differs, note: "See the annotation.",
		text: "After which failures another endpoint is asked.",
		parse: func(c *configuration, value string) error {
			next, err := parseNextUpstream(value)
			if err == nil {
				c.defaults.policy.NextUpstream = next
			}
			return err
		}},
	{key: "proxy-next-upstream-tries", preset: "3", verdict: same, text: "Attempts in all; 0: no limit.",
		parse: number(0, triesMax, func(c *configuration) *int { return &c.defaults.policy.Tries })},
	{key: "proxy-next-upstream-timeout", preset: "0", verdict: same, text: "When no further endpoint is asked; 0: never.",
		parse: duration(0, func(c *configuration) *time.Duration { return &c.defaults.policy.TriesTimeout })},
	{key: "retry-non-idempotent", preset: "false", verdict: same, text: "Sends POST, LOCK and PATCH again too.",
		parse: boolean(func(c *configuration) *bool { return &c.settings.RetryNonIdempotent })},
	{key: "load-balance", preset: "round_robin", verdict: differs, note: "Ours knows least_conn and random_two too.",
		text: "How endpoints take turns: round_robin, ewma, least_conn or random_two.", parse: parseGlobalAlgorithm},
	{key: "upstream-keepalive-connections", preset: "320", verdict: same, text: "Idle connections kept of an endpoint; 0: none.",
		parse: func(c *configuration, value string) error {
			n, err := parseInt(value, 0, countMax)
			if n == 0 && err == nil {
				n = -1 // upstream's word for none
			}
			if err == nil {
				c.defaults.cluster.IdleMax = n
			}
			return err
		}},
	{key: "upstream-keepalive-timeout", preset: "60s", verdict: same, text: "… how long.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.defaults.cluster.IdleTimeout })},
	{key: "upstream-keepalive-requests", preset: "10000", verdict: same, text: "Requests of one connection to an endpoint.",
		parse: number(1, requestsMax, func(c *configuration) *int { return &c.defaults.cluster.RequestsMax })},
	{key: "upstream-keepalive-time", preset: "1h", verdict: same, text: "Age of a connection to an endpoint, after which it takes no further request.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.defaults.cluster.AgeMax })},
	{key: "service-upstream", preset: "false", verdict: same, text: "Sends requests to Services' cluster addresses.",
		parse: boolean(func(c *configuration) *bool { return &c.defaults.serviceUpstream })},
	{key: "sluice-response-header-max", preset: "64k", verdict: own, text: "Bytes of a response's head; beyond it 502.",
		parse: size(1<<10, headMax, func(c *configuration) *int { return &c.settings.ResponseLimits.Head })},
	{key: "sluice-response-header-line-max", preset: "16k", verdict: own, text: "Bytes of one of its lines.",
		parse: size(64, headMax, func(c *configuration) *int { return &c.settings.ResponseLimits.Line })},
	{key: "sluice-response-header-fields-max", preset: "200", verdict: own, text: "Its field lines.",
		parse: number(8, fieldsMax, func(c *configuration) *int { return &c.settings.ResponseLimits.Fields })},
	{key: "sluice-interim-responses-max", preset: "10", verdict: own, text: "1xx heads of one response that are passed on.",
		parse: number(0, 1000, func(c *configuration) *int { return &c.settings.InterimMax })},
}

var logKeys = []configKey{
	{key: "disable-access-log", preset: "false", verdict: same, text: "Logs no requests.", parse: parseNoLog},
	{key: "disable-http-access-log", preset: "false", verdict: same, text: "… of HTTP.", parse: parseNoLog},
	{key: "log-format-escape-json", preset: "false", verdict: differs, note: "Without log-format-upstream lines are JSON objects with names of their own.",
		text: "Writes the values of log-format-upstream as inside JSON strings.",
		parse: func(c *configuration, value string) error {
			on, err := parseBool(value)
			if err == nil && on {
				c.settings.AccessLogFormat = l7.LogJSON
			}
			return err
		}},
	{key: "log-format-escape-none", preset: "false", verdict: differs, note: "Controls are escaped all the same: a request is one line.",
		text:  "With log-format-upstream: values are written as they are.",
		parse: boolean(func(c *configuration) *bool { return &c.logEscapeNone })},
	{key: "log-format-upstream", verdict: differs,
		note: "Request fields are as the backend got them, but X-Forwarded-For is the client's; of the times of earlier attempts only the whole " +
			"is known. A variable that is not known is a Problem, and ingress-nginx's own line holds.",
		text: "The access log's line, with variables: " + strings.Join(logVariables(), ", ") + ".",
		parse: func(c *configuration, value string) error {
			_, err := l7.ParseLogTemplate(value, l7.LogEscapeDefault)
			if err == nil {
				c.logTemplate = value
			}
			return err
		}},
	{key: "skip-access-log-urls", verdict: differs, note: "Expressions are RE2's.",
		text: "Targets that are not logged, separated by commas: with their query, in any case, or expressions after `~`, in any case after `~*`.",
		parse: func(c *configuration, value string) (err error) {
			c.settings.AccessLogSkip, err = l7.ParseLogSkip(splitList(value))
			if err != nil {
				return &partly{err.Error() + "; the other entries hold"}
			}
			return nil
		}},
	{key: "enable-access-log-for-default-backend", preset: "true", otherwise: "false", verdict: differs,
		note: "What no Ingress answers is logged unless this says false: it is what an operator looks for.",
		text: "Logs what the default backend answers.",
		parse: func(c *configuration, value string) error {
			on, err := parseBool(value)
			c.settings.NoDefaultAccessLog = err == nil && !on
			return err
		}},
	{key: "sluice-access-log-format", preset: "upstream", verdict: own,
		text: "`upstream` (ingress-nginx's line) or `json`; wins over log-format-escape-json and log-format-upstream.",
		parse: func(c *configuration, value string) error {
			format, ok := map[string]l7.LogFormat{"upstream": l7.LogUpstream, "json": l7.LogJSON}[value]
			if !ok {
				return fmt.Errorf("%q is not one of json, upstream", value)
			}
			c.logFormat = &format
			return nil
		}},
	{key: "access-log-path", preset: "/dev/stdout", otherwise: "/var/log/nginx/access.log", verdict: differs,
		note: "ingress-nginx's default is standard output here too, as it is in its image. A file that is renamed or gone is made anew within a second; what " +
			"cannot be opened is told of in the log, and standard output has the lines. Files only: no pipes, no syslog.",
		text:  "Where access logs go: the absolute path of a file, opened again at SIGUSR1, /dev/stdout or /dev/stderr.",
		parse: logPath(func(c *configuration) *string { return &c.logPath })},
	{key: "http-access-log-path", verdict: same, text: "… that of HTTP, if it is another.",
		parse: logPath(func(c *configuration) *string { return &c.process.Logs.HTTP })},
	{key: "stream-access-log-path", verdict: same, text: "… that of TCP and UDP services, if it is another.",
		parse: logPath(func(c *configuration) *string { return &c.process.Logs.Stream })},
	{key: "server-tokens", preset: "false", verdict: differs, note: "Server: sluice, on answers of its own.",
		text:  "Names the proxy in its answers.",
		parse: boolean(func(c *configuration) *bool { return &c.settings.ServerTokens })},
}

var tlsKeys = []configKey{
	{key: "ssl-protocols", preset: "TLSv1.2 TLSv1.3", verdict: differs, note: "Older versions are refused.",
		text: "TLS versions of clients.", parse: parseProtocols},
	{key: "ssl-ciphers", verdict: differs,
		note: "Suites with ECDHE and authenticated encryption only, in Go's order; a list with others is a Problem, and the others are left out. TLS 1.3's are always on.",
		text: "TLS 1.2's cipher suites, as OpenSSL writes a list; default: all of these.",
		parse: func(c *configuration, value string) error {
			return parseCiphers(&c.process.Ciphers, value)
		}},
	{key: "ssl-session-tickets", preset: "true", otherwise: "false", verdict: differs,
		note: "On, with keys that are the process's own and rotate, since there is no session cache beside them.", text: "Resumes TLS sessions by tickets.",
		parse: func(c *configuration, value string) error {
			on, err := parseBool(value)
			c.process.NoTickets = err == nil && !on
			return err
		}},
	{key: "ssl-session-ticket-key", verdict: differs,
		note: "Replicas resume each other's sessions, but not nginx's. A changed key ends the sessions of the one before, as in ingress-nginx.",
		text: "The key of those tickets: 48 or 80 bytes in Base64.", parse: parseTicketKey},
	{key: "ssl-ecdh-curve", preset: "auto", verdict: differs,
		note: "Go's order holds. Without X25519MLKEM768 in the list there is no post-quantum key exchange.",
		text: "Key exchanges, between colons, of " + strings.Join(slices.Sorted(maps.Keys(curves)), ", ") + "; auto: all of these.", parse: parseCurves},
	{key: "ssl-reject-handshake", preset: "false", verdict: same,
		text:  "Ends TLS handshakes for server names that no host has, and those without one, by an alert.",
		parse: boolean(func(c *configuration) *bool { return &c.process.RejectUnknown })},
	{key: "sluice-hello-timeout", preset: "5s", verdict: own, text: "From accept to a complete ClientHello.",
		parse: duration(100*time.Millisecond, func(c *configuration) *time.Duration { return &c.process.HelloTimeout })},
	{key: "sluice-hello-max", preset: "64k", verdict: own, text: "Bytes of a ClientHello.",
		parse: size(4<<10, 64<<10, func(c *configuration) *int { return &c.process.HelloBytesMax })},
	{key: "sluice-handshake-timeout", preset: "10s", verdict: own, text: "For a TLS handshake.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.process.HandshakeTimeout })},
	{key: "sluice-handshakes-max", preset: "1024", verdict: own, text: "Handshakes at a time.",
		parse: number(1, 1024, func(c *configuration) *int { return &c.process.HandshakesMax })},
}

// Listeners and the process.
var processKeys = []configKey{
	{key: "bind-address", preset: "", verdict: differs, note: "One address; --bind-address wins.", text: "The address to listen on; default all.",
		parse: parseBindAddress},
	{key: "disable-ipv6", preset: "false", verdict: same, text: "Listens on IPv4 addresses only.",
		parse: boolean(func(c *configuration) *bool { return &c.noIPv6 })},
	{key: "worker-shutdown-timeout", preset: "240s", verdict: same, text: "How long a drain waits for requests and tunnels.",
		parse: duration(0, func(c *configuration) *time.Duration { return &c.process.DrainTimeout })},
	{key: "sluice-connections-max", preset: "0", verdict: own,
		text:  "Client connections; from 80 % of it on idle ones make room for new ones. 0: what 90 % of the open files leave for them.",
		parse: number(0, countMax, func(c *configuration) *int { return &c.process.ConnectionsMax })},
	{key: "sluice-connections-source-max", preset: "0", verdict: own,
		text:  "… of one IPv4 address or IPv6 /64; 0: half of all.",
		parse: number(0, countMax, func(c *configuration) *int { return &c.process.ConnectionsSourceMax })},
	{key: "sluice-connection-buffer", preset: "16k", verdict: own, text: "Bytes buffered of an HTTP/1.1 connection, each way; until a client is found to read slowly, 64k towards it.",
		parse: size(4<<10, 64<<10, func(c *configuration) *int { return &c.settings.Buffer })},
}

// logVariables are those of log-format-upstream as the documentation writes them.
func logVariables() []string {
	names := l7.LogVariables()
	for i := range names {
		names[i] = "`$" + names[i] + "`"
	}
	return names
}

// logLine makes the access log's line of the keys that decide it together.
func (c *configuration) logLine() {
	s := c.settings
	if c.logFormat != nil {
		s.AccessLogFormat = *c.logFormat
		return
	}
	if c.logTemplate == "" {
		return
	}
	escape := l7.LogEscapeDefault
	switch {
	case c.logEscapeNone:
		escape = l7.LogEscapeNone
	case s.AccessLogFormat == l7.LogJSON:
		escape = l7.LogEscapeJSON
	}
	s.AccessLogTemplate, _ = l7.ParseLogTemplate(c.logTemplate, escape) // its key's row has read it
}

// parseNoLog is either of the keys that switch the access log off.
func parseNoLog(c *configuration, value string) error {
	off, err := parseBool(value)
	c.settings.AccessLog = c.settings.AccessLog && !off
	return err
}

func boolean(field func(*configuration) *bool) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		b, err := parseBool(value)
		if err == nil {
			*field(c) = b
		}
		return err
	}
}

func choice(names map[string]bool, field func(*configuration) *bool) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		b, ok := names[value]
		if !ok {
			return fmt.Errorf("%q is not one of %s", value, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		}
		*field(c) = b
		return nil
	}
}

func number(low, high int, field func(*configuration) *int) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		n, err := parseInt(value, low, high)
		if err == nil {
			*field(c) = n
		}
		return err
	}
}

func size(low, high int64, field func(*configuration) *int) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		n, err := parseSize(value, low, high)
		if err == nil {
			*field(c) = int(n)
		}
		return err
	}
}

func duration(low time.Duration, field func(*configuration) *time.Duration) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		d, err := parseDuration(value, low, timeoutMax)
		if err == nil {
			*field(c) = d
		}
		return err
	}
}

func parseHeaderBuffers(c *configuration, value string) error {
	words := strings.Fields(value)
	if len(words) != 2 {
		return fmt.Errorf("%q is not a number and a size, like \"4 8k\"", value)
	}
	n, err := parseInt(words[0], 1, 1024)
	if err != nil {
		return err
	}
	line, err := parseSize(words[1], 256, headMax)
	if err != nil {
		return err
	}
	if int64(n)*line > headMax {
		return fmt.Errorf("%d times %d bytes is more than the maximum, %d", n, line, headMax)
	}
	l := &c.settings.Limits
	l.RequestLine, l.Line, l.Head = int(line), int(line), n*int(line)
	return nil
}

// parsePrefixList reads a list as far as it is good.
func parsePrefixList(value string) (good []netip.Prefix, err error) {
	var bad []string
	for _, item := range splitList(value) {
		p, err := filter.ParsePrefixes(item)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%q", item))
			continue
		}
		good = append(good, p...)
	}
	if bad != nil {
		err = fmt.Errorf("neither addresses nor networks: %s", strings.Join(bad, ", "))
	}
	return good, err
}

// parseRealIP trusts the good entries only: a typing error must not make more peers trusted than were named.
func parseRealIP(c *configuration, value string) error {
	good, err := parsePrefixList(value)
	c.realIP, c.realIPSet = good, true
	if err != nil {
		return &partly{err.Error() + "; only the other entries are trusted"}
	}
	if len(good) == 0 {
		c.realIPSet = false
		return errors.New("the list is empty")
	}
	return nil
}

func parseFieldName(set func(name string), value string) error {
	for i := range len(value) {
		if b := value[i]; !alphanumeric(b) && b != '-' {
			return fmt.Errorf("%q is not the name of a field", value)
		}
	}
	if value == "" {
		return errors.New("the name is empty")
	}
	set(value)
	return nil
}

func parseHTTPRedirectCode(c *configuration, value string) error {
	n, err := parseInt(value, 301, 308)
	if err != nil || !slices.Contains([]int{301, 302, 307, 308}, n) {
		return fmt.Errorf("%q is not one of 301, 302, 307, 308", value)
	}
	c.defaults.redirectCode = n
	return nil
}

// nobody is a deny list that is everybody.
const nobody = "0.0.0.0/0,::/0"

// parseGlobalAllow fails closed: entries that are not good let nobody in, and none that is lets nobody in at all.
func parseGlobalAllow(c *configuration, value string) error {
	good, err := parsePrefixList(value)
	c.defaults.allow = joinPrefixes(good)
	if err == nil {
		return nil
	}
	if len(good) == 0 {
		c.defaults.deny = nobody
		return &partly{err.Error() + "; nobody is let in"}
	}
	return &partly{err.Error() + "; only the other entries are let in"}
}

func parseGlobalDeny(c *configuration, value string) error {
	good, err := parsePrefixList(value)
	if c.defaults.deny == "" { // else parseGlobalAllow let nobody in
		c.defaults.deny = joinPrefixes(good)
	}
	if err != nil {
		return &partly{err.Error() + "; only the other entries are refused"}
	}
	return nil
}

func joinPrefixes(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

func kibibytes(field func(*configuration) *int64) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		n, err := parseInt(value, 0, limitRateMax)
		if err == nil {
			*field(c) = int64(n) << 10
		}
		return err
	}
}

func parseRiskLevel(c *configuration, value string) error {
	for r := riskLow; r <= riskCritical; r++ {
		if strings.EqualFold(value, r.String()) {
			c.defaults.riskMax = r
			return nil
		}
	}
	return fmt.Errorf("%q is not one of Low, Medium, High, Critical", value)
}

func parseStrictPaths(c *configuration, value string) error {
	on, err := parseBool(value)
	switch {
	case err != nil:
		return err
	case on:
		c.defaults.strictPaths = strictRefuse
	default:
		c.defaults.strictPaths = strictOff
	}
	return nil
}

func parseGlobalAlgorithm(c *configuration, value string) error {
	a, ok := ownAlgorithms[value]
	if !ok {
		return fmt.Errorf("%q is not one of round_robin, ewma, least_conn, random_two", value)
	}
	c.defaults.cluster.Algorithm = a
	return nil
}

func parseProtocols(c *configuration, value string) error {
	return parseVersions(&c.process.TLSMin, &c.process.TLSMax, value)
}

// parseVersions reads a list of TLS versions as nginx writes it. Older ones than TLSv1.2 are left out, with an error.
func parseVersions(minimum, maximum *uint16, value string) error {
	var low, high uint16
	var old []string
	for _, word := range strings.Fields(value) {
		switch word {
		case "TLSv1.2":
			low = tls.VersionTLS12
			high = max(high, tls.VersionTLS12)
		case "TLSv1.3":
			high = tls.VersionTLS13
			if low == 0 {
				low = tls.VersionTLS13
			}
		default:
			old = append(old, word)
		}
	}
	if high == 0 {
		return fmt.Errorf("%q names neither TLSv1.2 nor TLSv1.3", value)
	}
	*minimum, *maximum = low, high
	if old != nil {
		return &partly{strings.Join(old, " ") + " is not supported: TLSv1.2 and TLSv1.3 are"}
	}
	return nil
}

// parseCiphers reads an OpenSSL list; suites that are not spoken here are left out, with an error.
func parseCiphers(ciphers *string, value string) error {
	suites, unknown := fastpath.CipherSuites(value)
	if len(suites) == 0 {
		return fmt.Errorf("%q names no suite with ECDHE and authenticated encryption", value)
	}
	*ciphers = value
	if unknown != nil {
		return &partly{strings.Join(unknown, ":") + " is not supported: suites with ECDHE and authenticated encryption are"}
	}
	return nil
}

// curves are the key exchanges that are spoken, by OpenSSL's names.
var curves = map[string]tls.CurveID{
	"X25519MLKEM768": tls.X25519MLKEM768, "SecP256r1MLKEM768": tls.SecP256r1MLKEM768, "SecP384r1MLKEM1024": tls.SecP384r1MLKEM1024,
	"X25519": tls.X25519, "prime256v1": tls.CurveP256, "P-256": tls.CurveP256, "secp384r1": tls.CurveP384, "P-384": tls.CurveP384,
	"secp521r1": tls.CurveP521, "P-521": tls.CurveP521,
}

func parseCurves(c *configuration, value string) error {
	var list []tls.CurveID
	var unknown []string
	for _, name := range strings.FieldsFunc(value, func(r rune) bool { return r == ':' || r == ' ' }) {
		id, ok := curves[name]
		switch {
		case name == "auto":
			c.process.Curves = nil
			return nil
		case !ok:
			unknown = append(unknown, name)
		case !slices.Contains(list, id):
			list = append(list, id)
		}
	}
	if list == nil {
		return fmt.Errorf("%q names none of %s", value, strings.Join(slices.Sorted(maps.Keys(curves)), ", "))
	}
	c.process.Curves = list
	if unknown != nil {
		return &partly{strings.Join(unknown, ":") + " is not supported; the others hold"}
	}
	return nil
}

// parseTicketKey reads a key as nginx's ssl_session_ticket_key has it in its file. Its errors do not show it.
func parseTicketKey(c *configuration, value string) error {
	key, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return errors.New("is not Base64")
	}
	if len(key) != 48 && len(key) != 80 {
		return fmt.Errorf("has %d bytes: 48 or 80 are a key (openssl rand 80 | openssl enc -A -base64)", len(key))
	}
	c.process.TicketKey = sha256.Sum256(append([]byte("session tickets\n"), key...))
	return nil
}

const (
	logStdout = "/dev/stdout"
	logNginx  = "/var/log/nginx/access.log" // ingress-nginx's image has it lead to standard output
)

// logPath is a key that says where lines go.
func logPath(field func(*configuration) *string) func(*configuration, string) error {
	return func(c *configuration, value string) error {
		if value == logNginx {
			value = logStdout
		}
		err := l7.CheckLogPath(value)
		if err == nil {
			*field(c) = value
		}
		return err
	}
}

func parseBindAddress(c *configuration, value string) error {
	items := splitList(value)
	if len(items) == 0 {
		return errors.New("the address is missing")
	}
	a, err := netip.ParseAddr(strings.Trim(items[0], "[]"))
	if err != nil {
		return fmt.Errorf("%q is not an address", items[0])
	}
	c.process.BindAddress = a
	if len(items) > 1 {
		return &partly{"holds several addresses: only the first one is used"}
	}
	return nil
}
