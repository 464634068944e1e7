package translate

import "slices"

// Keys of ingress-nginx that nothing acts on yet. What asks for protection fails closed: an Ingress that wants
// authentication is not served without it.
var laterAnnotations = slices.Concat(
	laterRouting, laterBackends, laterAffinity, laterCanary, laterAuth, laterLimits, laterMirrors, laterObservability,
	needlessAnnotations)

var laterRouting = []annotation{
	{key: "relative-redirects", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "Redirects of the proxy's own without scheme and host."},
	{key: "use-port-in-redirects", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "Redirects to https name the port."},
}

var laterBackends = []annotation{
	{key: "service-upstream", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"false"},
		note: "requests go to the Service's endpoints",
		text: "Sends requests to the Service's cluster address instead of its endpoints."},
	{key: "upstream-hash-by", scope: scopeIngress, risk: riskHigh, verdict: later,
		text: "Chooses endpoints by the hash of this text with nginx's variables."},
	{key: "upstream-hash-by-subset", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "Hashes to groups of endpoints."},
	{key: "upstream-hash-by-subset-size", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"3"},
		text: "The size of those groups."},
	{key: "proxy-http-version", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"1.1"},
		text: "The HTTP version towards backends."},
	{key: "proxy-buffering", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"off"},
		note: "responses are streamed with bounded buffers",
		text: "Whether responses are buffered for slow clients."},
	{key: "proxy-ssl-ciphers", scope: scopeIngress, risk: riskMedium, verdict: later, idle: []string{"default"},
		text: "TLS ciphers towards backends."},
	{key: "ssl-ciphers", scope: scopeHost, risk: riskLow, verdict: later,
		note: "AEAD ciphers with ECDHE only, as Go has them",
		text: "TLS ciphers of the Ingress's hosts."},
	{key: "ssl-prefer-server-ciphers", scope: scopeHost, risk: riskLow, verdict: later,
		note: "the server's order holds",
		text: "Whose order of ciphers holds."},
}

var laterAffinity = []annotation{
	{key: "affinity", scope: scopeIngress, risk: riskLow, verdict: later,
		text: "cookie: a client stays with the endpoint that its cookie names."},
	{key: "affinity-mode", scope: scopeIngress, risk: riskMedium, verdict: later, idle: []string{"balanced"},
		text: "balanced or persistent."},
	{key: "affinity-canary-behavior", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"sticky"},
		text: "Whether a canary shares the cookie."},
	{key: "session-cookie-name", scope: scopeIngress, risk: riskMedium, verdict: later, text: "Name of the affinity cookie."},
	{key: "session-cookie-path", scope: scopeIngress, risk: riskMedium, verdict: later, text: "… its path."},
	{key: "session-cookie-domain", scope: scopeIngress, risk: riskMedium, verdict: later, text: "… its domain."},
	{key: "session-cookie-expires", scope: scopeIngress, risk: riskMedium, verdict: later, text: "… when it expires, in seconds."},
	{key: "session-cookie-max-age", scope: scopeIngress, risk: riskMedium, verdict: later, text: "… its age, in seconds."},
	{key: "session-cookie-samesite", scope: scopeIngress, risk: riskLow, verdict: later, text: "… its SameSite."},
	{key: "session-cookie-secure", scope: scopeIngress, risk: riskLow, verdict: later, text: "… whether it is Secure."},
	{key: "session-cookie-conditional-samesite-none", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "… without SameSite=None for browsers that take it wrongly."},
	{key: "session-cookie-change-on-failure", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "… changed when the endpoint fails."},
}

var laterCanary = []annotation{
	{key: "canary", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"false"}, effect: drop,
		note: "all requests stay with the main Ingress",
		text: "Makes the Ingress a canary of another one with the same paths."},
	{key: "canary-by-header", scope: scopeIngress, risk: riskMedium, verdict: later, text: "The canary by a request field: always or never."},
	{key: "canary-by-header-value", scope: scopeIngress, risk: riskMedium, verdict: later, text: "… by this value of it."},
	{key: "canary-by-header-pattern", scope: scopeIngress, risk: riskMedium, verdict: later, text: "… by an expression."},
	{key: "canary-by-cookie", scope: scopeIngress, risk: riskMedium, verdict: later, text: "The canary by a cookie: always or never."},
	{key: "canary-weight", scope: scopeIngress, risk: riskLow, verdict: later, text: "The canary's share of requests."},
	{key: "canary-weight-total", scope: scopeIngress, risk: riskLow, verdict: later, text: "… of how many; default 100."},
}

var laterAuth = []annotation{
	{key: "auth-tls-secret", scope: scopeHost, risk: riskMedium, verdict: later, effect: deny,
		text: "Asks clients for certificates of this authority."},
	{key: "auth-tls-verify-client", scope: scopeHost, risk: riskMedium, verdict: later, text: "on, off, optional, optional_no_ca."},
	{key: "auth-tls-verify-depth", scope: scopeHost, risk: riskLow, verdict: later, text: "How long their chains may be."},
	{key: "auth-tls-error-page", scope: scopeHost, risk: riskHigh, verdict: later, text: "Where clients are sent whose certificate fails."},
	{key: "auth-tls-pass-certificate-to-upstream", scope: scopeHost, risk: riskLow, verdict: later, text: "Whether backends get the certificate."},
	{key: "auth-tls-match-cn", scope: scopeHost, risk: riskHigh, verdict: later, text: "What its common name must match."},
}

var laterLimits = []annotation{
	{key: "limit-rps", scope: scopeLocation, risk: riskLow, verdict: later, text: "Requests a second of one address."},
	{key: "limit-rpm", scope: scopeLocation, risk: riskLow, verdict: later, text: "Requests a minute of one address."},
	{key: "limit-burst-multiplier", scope: scopeLocation, risk: riskLow, verdict: later, text: "How many times that may come at once."},
	{key: "limit-connections", scope: scopeLocation, risk: riskLow, verdict: later, text: "Requests of one address at a time."},
	{key: "limit-allowlist", aliases: []string{"limit-whitelist"}, scope: scopeLocation, risk: riskLow, verdict: later,
		text: "Addresses and networks without these limits."},
	{key: "limit-rate", scope: scopeLocation, risk: riskLow, verdict: later, text: "KiB a second of one response."},
	{key: "limit-rate-after", scope: scopeLocation, risk: riskLow, verdict: later, text: "… after so many KiB."},
	{key: "enable-modsecurity", scope: scopeLocation, risk: riskLow, verdict: later, effect: deny,
		note: "`true` answers 503; `false` lets the Ingress be served where the ConfigMap asks for it",
		text: "A web application firewall.",
		parse: func(d *dialect, value string) error {
			on, err := parseBool(value)
			d.firewall = err != nil || on
			if err == nil && on {
				return &refusal{deny, "not supported yet, and nothing that asks for a firewall is served without"}
			}
			return err
		}},
	{key: "enable-owasp-core-rules", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"false"}, effect: deny,
		text: "… with the OWASP core rules."},
	{key: "modsecurity-transaction-id", scope: scopeLocation, risk: riskHigh, verdict: later, text: "… and this id in its log."},
}

var laterMirrors = []annotation{
	{key: "mirror-target", scope: scopeIngress, risk: riskHigh, verdict: later, text: "Sends copies of requests there."},
	{key: "mirror-request-body", scope: scopeIngress, risk: riskLow, verdict: later, text: "… with their bodies."},
	{key: "mirror-host", scope: scopeIngress, risk: riskHigh, verdict: later, text: "… under this Host."},
}

var laterObservability = []annotation{
	{key: "enable-opentelemetry", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"false"}, text: "Traces."},
	{key: "opentelemetry-trust-incoming-span", scope: scopeLocation, risk: riskLow, verdict: later, text: "… that go on with the client's span."},
	{key: "opentelemetry-operation-name", scope: scopeLocation, risk: riskMedium, verdict: later, text: "… under this name."},
}

// Keys that steer what nginx has and this proxy has not.
var needlessAnnotations = []annotation{
	{key: "client-body-buffer-size", scope: scopeLocation, risk: riskLow, verdict: noEffect,
		note: "the ConfigMap's key of that name bounds the memory", text: "Memory for a request's body before it goes to disk."},
	{key: "proxy-buffer-size", scope: scopeLocation, risk: riskLow, verdict: noEffect,
		note: "response heads may have 64 KiB (sluice-response-header-max)", text: "Room for a response's head."},
	{key: "proxy-buffers-number", scope: scopeLocation, risk: riskLow, verdict: noEffect, text: "Buffers of a response."},
	{key: "proxy-busy-buffers-size", scope: scopeLocation, risk: riskLow, verdict: noEffect, text: "… that may be on their way to the client."},
	{key: "proxy-max-temp-file-size", scope: scopeLocation, risk: riskLow, verdict: noEffect,
		note: "nothing is written to disk", text: "Disk for a response."},
	{key: "enable-rewrite-log", scope: scopeLocation, risk: riskLow, verdict: noEffect, text: "Logs rewrites."},
	{key: "auth-keepalive", scope: scopeLocation, risk: riskLow, verdict: noEffect,
		note: "connections are always pooled", text: "Idle connections to auth-url."},
	{key: "auth-keepalive-requests", scope: scopeLocation, risk: riskLow, verdict: noEffect, text: "… requests of one."},
	{key: "auth-keepalive-timeout", scope: scopeLocation, risk: riskLow, verdict: noEffect, text: "… seconds that one may idle."},
	{key: "auth-keepalive-share-vars", scope: scopeLocation, risk: riskLow, verdict: noEffect, text: "… with the request's variables."},
}

// Keys that will not be built, with what to use instead.
var refusedAnnotations = []annotation{
	{key: "configuration-snippet", scope: scopeLocation, risk: riskCritical, verdict: refused,
		note: "there is no nginx behind it", text: "nginx configuration for the Ingress's paths."},
	{key: "server-snippet", scope: scopeHost, risk: riskCritical, verdict: refused,
		note: "there is no nginx behind it", text: "nginx configuration for the Ingress's hosts."},
	{key: "stream-snippet", scope: scopeIngress, risk: riskCritical, verdict: refused,
		note: "there is no nginx behind it", text: "nginx configuration for TCP and UDP."},
	{key: "auth-snippet", scope: scopeLocation, risk: riskCritical, verdict: refused, effect: deny,
		note: "there is no nginx behind it; auth-proxy-set-headers and auth-method do what it is mostly for",
		text: "nginx configuration for auth-url."},
	{key: "modsecurity-snippet", scope: scopeLocation, risk: riskCritical, verdict: refused, effect: deny,
		note: "there is no ModSecurity behind it", text: "Rules of the firewall."},
	{key: "http2-push-preload", scope: scopeLocation, risk: riskLow, verdict: refused, idle: []string{"false"},
		note: "browsers no longer take pushed responses", text: "Pushes what Link fields name."},
	{key: "fastcgi-index", scope: scopeLocation, risk: riskMedium, verdict: refused,
		note: "put a FastCGI gateway into the application's pods", text: "FastCGI's index file."},
	{key: "fastcgi-params-configmap", scope: scopeLocation, risk: riskMedium, verdict: refused,
		note: "put a FastCGI gateway into the application's pods", text: "FastCGI's parameters."},
	{key: "secure-backends", scope: scopeLocation, risk: riskLow, verdict: refused, idle: []string{"false"},
		note: "ingress-nginx dropped it; write backend-protocol: HTTPS", text: "TLS to backends."},
	{key: "session-cookie-hash", scope: scopeIngress, risk: riskLow, verdict: refused,
		note: "ingress-nginx dropped it", text: "How the affinity cookie was hashed."},
	{key: "enable-websockets", scope: scopeLocation, risk: riskLow, verdict: refused, idle: []string{"true"},
		note: "it never existed: WebSockets need no annotation", text: "WebSockets."},
	{key: "use-forwarded-headers", scope: scopeLocation, risk: riskLow, verdict: refused,
		note: "it is a key of the ConfigMap", text: "Believes X-Forwarded-*."},
	{key: "global-rate-limit", scope: scopeLocation, risk: riskLow, verdict: later,
		note: "ingress-nginx dropped it", text: "A limit for all proxies together."},
	{key: "global-rate-limit-window", scope: scopeLocation, risk: riskLow, verdict: later, note: "ingress-nginx dropped it", text: "… its time."},
	{key: "global-rate-limit-key", scope: scopeLocation, risk: riskLow, verdict: later, note: "ingress-nginx dropped it", text: "… its key."},
	{key: "global-rate-limit-ignored-cidrs", scope: scopeLocation, risk: riskLow, verdict: later, note: "ingress-nginx dropped it",
		text: "… and who is free of it."},
}
