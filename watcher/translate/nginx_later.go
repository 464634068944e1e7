package translate

import (
	"fmt"
	"slices"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// Keys of ingress-nginx that nothing acts on yet. What asks for protection fails closed: an Ingress that wants
// authentication is not served without it.
var laterAnnotations = slices.Concat(
	laterRouting, laterBackends, laterCORS, laterAuth, laterFirewall, laterObservability,
	needlessAnnotations)

var laterRouting = []annotation{
	{key: "server-alias", scope: scopeHost, risk: riskHigh, verdict: later, note: "write the names as hosts of rules",
		text: "Further names of the Ingress's hosts."},
	{key: "from-to-www-redirect", scope: scopeHost, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "Redirects from www.X to X or back, whichever is no host."},
	{key: "relative-redirects", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "Redirects of the proxy's own without scheme and host."},
	{key: "use-port-in-redirects", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "Redirects to https name the port."},
	{key: "custom-http-errors", scope: scopeLocation, risk: riskLow, verdict: later,
		text: "Statuses of the backend that the default backend's answer replaces."},
	{key: "disable-proxy-intercept-errors", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "Lets the backend's error answers through where custom-http-errors is set for all."},
	{key: "custom-headers", scope: scopeLocation, risk: riskMedium, verdict: later,
		text: "A ConfigMap of response fields to set."},
}

var laterBackends = []annotation{
	{key: "upstream-vhost", scope: scopeLocation, risk: riskLow, verdict: later,
		text: "The Host that the backend gets."},
	{key: "x-forwarded-prefix", scope: scopeLocation, risk: riskMedium, verdict: later,
		text: "X-Forwarded-Prefix for the backend, together with rewrite-target."},
	{key: "proxy-cookie-path", scope: scopeLocation, risk: riskMedium, verdict: later, idle: []string{"off"},
		text: "Rewrites the path of the backend's cookies."},
	{key: "proxy-cookie-domain", scope: scopeLocation, risk: riskMedium, verdict: later, idle: []string{"off"},
		text: "Rewrites the domain of the backend's cookies."},
	{key: "proxy-redirect-from", scope: scopeLocation, risk: riskMedium, verdict: later, idle: []string{"off"},
		text: "Rewrites the Location of the backend's redirects: what to replace."},
	{key: "proxy-redirect-to", scope: scopeLocation, risk: riskMedium, verdict: later, idle: []string{"off"},
		text: "… and by what."},
	{key: "connection-proxy-header", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"keep-alive"},
		text: "The Connection field that the backend gets."},
	{key: "proxy-ssl-secret", scope: scopeIngress, risk: riskMedium, verdict: later, effect: deny,
		note: "HTTPS backends cannot be verified or shown a client certificate",
		text: "Certificate and authority for TLS to backends."},
	{key: "proxy-ssl-verify", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"off"},
		note: "ingress-nginx reads it with proxy-ssl-secret only",
		text: "Whether backends' certificates are verified."},
	{key: "proxy-ssl-verify-depth", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"1"},
		text: "How long their chains may be."},
	{key: "proxy-ssl-name", scope: scopeIngress, risk: riskHigh, verdict: later,
		text: "The name that backends' certificates must have."},
	{key: "proxy-ssl-server-name", scope: scopeIngress, risk: riskLow, verdict: later, idle: []string{"off"},
		text: "Whether backends are told a server name."},
	{key: "proxy-ssl-protocols", scope: scopeIngress, risk: riskLow, verdict: later,
		text: "TLS versions towards backends."},
	{key: "proxy-ssl-ciphers", scope: scopeIngress, risk: riskMedium, verdict: later, idle: []string{"default"},
		text: "TLS ciphers towards backends."},
	{key: "ssl-ciphers", scope: scopeHost, risk: riskLow, verdict: later,
		note: "AEAD ciphers with ECDHE only, as Go has them",
		text: "TLS ciphers of the Ingress's hosts."},
	{key: "ssl-prefer-server-ciphers", scope: scopeHost, risk: riskLow, verdict: later,
		note: "the server's order holds",
		text: "Whose order of ciphers holds."},
}

var laterCORS = []annotation{
	{key: "enable-cors", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"false"},
		text: "Answers preflight requests and marks responses for other origins."},
	{key: "cors-allow-origin", scope: scopeLocation, risk: riskMedium, verdict: later, text: "Origins that are allowed."},
	{key: "cors-allow-methods", scope: scopeLocation, risk: riskMedium, verdict: later, text: "Methods that are allowed."},
	{key: "cors-allow-headers", scope: scopeLocation, risk: riskMedium, verdict: later, text: "Request fields that are allowed."},
	{key: "cors-expose-headers", scope: scopeLocation, risk: riskMedium, verdict: later, text: "Response fields that scripts may read."},
	{key: "cors-allow-credentials", scope: scopeLocation, risk: riskLow, verdict: later, text: "Whether cookies are allowed."},
	{key: "cors-max-age", scope: scopeLocation, risk: riskLow, verdict: later, text: "How long browsers keep a preflight's answer."},
}

var laterAuth = []annotation{
	{key: "auth-type", scope: scopeLocation, risk: riskLow, verdict: later, effect: deny,
		text: "basic or digest: asks for a name and a password."},
	{key: "auth-secret", scope: scopeLocation, risk: riskMedium, verdict: later, text: "The Secret with the passwords."},
	{key: "auth-secret-type", scope: scopeLocation, risk: riskLow, verdict: later, text: "auth-file or auth-map: how it holds them."},
	{key: "auth-realm", scope: scopeLocation, risk: riskMedium, verdict: later, text: "What browsers show when they ask."},
	{key: "auth-url", scope: scopeLocation, risk: riskHigh, verdict: later, effect: deny,
		text: "Asks this service whether a request may pass."},
	{key: "auth-method", scope: scopeLocation, risk: riskLow, verdict: later, text: "… by this method."},
	{key: "auth-signin", scope: scopeLocation, risk: riskHigh, verdict: later, text: "Where clients are sent that may not."},
	{key: "auth-signin-redirect-param", scope: scopeLocation, risk: riskMedium, verdict: later, text: "The argument that tells where they came from."},
	{key: "auth-response-headers", scope: scopeLocation, risk: riskMedium, verdict: later, text: "Fields of its answer that the backend gets."},
	{key: "auth-request-redirect", scope: scopeLocation, risk: riskMedium, verdict: later, text: "The X-Auth-Request-Redirect that it gets."},
	{key: "auth-proxy-set-headers", scope: scopeLocation, risk: riskMedium, verdict: later, text: "A ConfigMap of fields that it gets."},
	{key: "auth-always-set-cookie", scope: scopeLocation, risk: riskLow, verdict: later, text: "Passes its cookies on with every status."},
	{key: "auth-cache-key", scope: scopeLocation, risk: riskMedium, verdict: later, text: "What its answers are cached by."},
	{key: "auth-cache-duration", scope: scopeLocation, risk: riskMedium, verdict: later, text: "… and how long."},
	{key: "enable-global-auth", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Whether the ConfigMap's global-auth-url holds here; default true.",
		parse: func(d *dialect, value string) (err error) {
			d.globalAuth, err = parseOver(true, value)
			return err
		}},
	{key: "auth-tls-secret", scope: scopeHost, risk: riskMedium, verdict: later, effect: deny,
		text: "Asks clients for certificates of this authority."},
	{key: "auth-tls-verify-client", scope: scopeHost, risk: riskMedium, verdict: later, text: "on, off, optional, optional_no_ca."},
	{key: "auth-tls-verify-depth", scope: scopeHost, risk: riskLow, verdict: later, text: "How long their chains may be."},
	{key: "auth-tls-error-page", scope: scopeHost, risk: riskHigh, verdict: later, text: "Where clients are sent whose certificate fails."},
	{key: "auth-tls-pass-certificate-to-upstream", scope: scopeHost, risk: riskLow, verdict: later, text: "Whether backends get the certificate."},
	{key: "auth-tls-match-cn", scope: scopeHost, risk: riskHigh, verdict: later, text: "What its common name must match."},
	{key: "satisfy", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"all"},
		note: "source ranges and authentication must both let a request in",
		text: "any: a source range or an authentication suffices."},
}

var laterFirewall = []annotation{
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

var laterObservability = []annotation{
	{key: "enable-opentelemetry", scope: scopeLocation, risk: riskLow, verdict: later, idle: []string{"false"}, text: "Traces."},
	{key: "opentelemetry-trust-incoming-span", scope: scopeLocation, risk: riskLow, verdict: later, text: "… that go on with the client's span."},
	{key: "opentelemetry-operation-name", scope: scopeLocation, risk: riskMedium, verdict: later, text: "… under this name."},
}

// Keys that steer what nginx has and this proxy has not.
var needlessAnnotations = []annotation{
	{key: "client-body-buffer-size", scope: scopeLocation, risk: riskLow, verdict: noEffect,
		note: "the ConfigMap's key of that name bounds the memory", text: "Memory for a request's body before it goes to disk."},
	{key: "proxy-buffering", scope: scopeLocation, risk: riskLow, verdict: noEffect,
		note: "responses are streamed with bounded buffers", text: "Whether responses are buffered for slow clients."},
	{key: "proxy-buffer-size", scope: scopeLocation, risk: riskLow, verdict: differs,
		note: "Every response's head may have 64 KiB, so a smaller number means nothing; a larger one is a Problem: to allow more is the ConfigMap's sluice-response-header-max.",
		text: "Room for a response's head.", parse: parseBufferSize},
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
	{key: "proxy-http-version", scope: scopeLocation, risk: riskLow, verdict: refused, idle: []string{"1.1"},
		note: "backends are spoken to in HTTP/1.1, which every server of HTTP/1.0 that is worth the name understands",
		text: "The HTTP version towards backends."},
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

// parseBufferSize tells who asks for a larger head than is allowed that this is not the place.
func parseBufferSize(_ *dialect, value string) error {
	n, err := parseSize(value, 0, bodyMax)
	if err == nil && n > int64(wire.DefaultResponseLimits.Head) {
		return fmt.Errorf("heads of more than %s are allowed by the ConfigMap's sluice-response-header-max only", sizeText(int64(wire.DefaultResponseLimits.Head)))
	}
	return err
}
