package translate

import (
	"fmt"
	"slices"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// Keys of ingress-nginx that nothing acts on yet. What asks for protection fails closed: an Ingress that wants
// authentication is not served without it.
var laterAnnotations = slices.Concat(
	laterFirewall, laterObservability,
	needlessAnnotations)

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
