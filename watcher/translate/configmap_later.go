package translate

// Keys that nothing acts on yet. A value that asks for nothing (idle) is no Problem.
var laterKeys = []configKey{
	{key: "proxy-ssl-location-only", verdict: later, idle: []string{"false"}, text: "proxy-ssl-* hold for their own paths only."},
	{key: "http2-max-field-size", verdict: refused, note: "large-client-header-buffers sets it, as for HTTP/1.1", text: "Bytes of one field."},
	{key: "http2-max-header-size", verdict: refused, note: "large-client-header-buffers sets it, as for HTTP/1.1", text: "Bytes of a head."},
	{key: "http2-max-requests", verdict: refused, idle: []string{"0"}, note: "keep-alive-requests sets it, as for HTTP/1.1", text: "Requests of one connection."},
	{key: "ssl-early-data", verdict: later, idle: []string{"false"}, text: "TLS 1.3's 0-RTT."},
	{key: "enable-ocsp", verdict: later, idle: []string{"false"}, text: "Staples OCSP answers."},
	{key: "enable-opentelemetry", verdict: later, idle: []string{"false"}, text: "Traces."},
	{key: "opentelemetry-config", verdict: later, text: "… their configuration."},
	{key: "opentelemetry-operation-name", verdict: later, text: "… their name."},
	{key: "opentelemetry-trust-incoming-span", verdict: later, idle: []string{"true"}, text: "… that go on with the client's span."},
	{key: "otlp-collector-host", verdict: later, text: "Where traces go."},
	{key: "otlp-collector-port", verdict: later, text: "… which port."},
	{key: "otel-max-queuesize", verdict: later, text: "Spans waiting to go."},
	{key: "otel-schedule-delay-millis", verdict: later, text: "… how long."},
	{key: "otel-max-export-batch-size", verdict: later, text: "… how many at a time."},
	{key: "otel-service-name", verdict: later, text: "The proxy's name in traces."},
	{key: "otel-sampler", verdict: later, text: "Which requests are traced."},
	{key: "otel-sampler-parent-based", verdict: later, text: "… as the client decided."},
	{key: "otel-sampler-ratio", verdict: later, text: "… this share."},
	{key: "log-format-stream", verdict: later, note: "lines are ingress-nginx's own, or JSON", text: "The access log's line of TCP and UDP services."},
	{key: "use-geoip2", verdict: later, idle: []string{"false"}, text: "Countries of addresses."},
	{key: "geoip2-autoreload-in-minutes", verdict: later, idle: []string{"0"}, text: "… read again."},
	{key: "enable-modsecurity", verdict: later, note: "paths answer 503, but for Ingresses with enable-modsecurity: \"false\"", text: "A web application firewall.",
		parse: func(c *configuration, value string) error {
			on, err := parseBool(value)
			c.defaults.firewall = err != nil || on
			return failClosed(c.defaults.firewall)
		}},
	{key: "enable-owasp-modsecurity-crs", verdict: later, idle: []string{"false"}, note: "enable-modsecurity switches it on", text: "… with the OWASP core rules."},
	{key: "enable-syslog", verdict: later, idle: []string{"false"}, note: "logs go to standard output and standard error", text: "Logs to syslog."},
	{key: "syslog-host", verdict: later, text: "… there."},
	{key: "syslog-port", verdict: later, idle: []string{"514"}, text: "… to this port."},
	{key: "default-type", verdict: later, idle: []string{"text/html"}, text: "Content-Type of responses without one."},
	{key: "enable-auth-access-log", verdict: later, idle: []string{"false"}, text: "Logs requests to authentication services."},
	{key: "forwarded-for-proxy-protocol-header", verdict: later, idle: []string{"x-forwarded-for-proxy-protocol"}, text: "A field with the PROXY header's address."},
}

// failClosed is the Problem of a protection that is asked for and not built.
func failClosed(asked bool) error {
	if !asked {
		return nil
	}
	return &partly{"not supported yet; nothing is served without it but Ingresses that switch it off for themselves"}
}

// Keys that steer what nginx has and this proxy has not.
var needlessKeys = []configKey{
	{key: "client-header-buffer-size", preset: "1k", verdict: noEffect, note: "buffers grow with the head, to sluice-header-max", text: "First buffer of a head."},
	{key: "access-log-params", verdict: noEffect, text: "Parameters of nginx's access_log."},
	{key: "error-log-path", verdict: noEffect, note: "errors go to standard error", text: "Where errors are logged."},
	{key: "error-log-level", verdict: noEffect, note: "a flag sets the level", text: "Which errors are logged."},
	{key: "debug-connections", verdict: noEffect, text: "Clients with a debug log."},
	{key: "proxy-buffering", verdict: noEffect, note: "responses are streamed with bounded buffers", text: "Buffers responses for slow clients."},
	{key: "upstream-hash-by", verdict: noEffect, note: "ingress-nginx does not read it either: it is an annotation", text: "Hashes to endpoints."},
	{key: "upstream-hash-by-subset", verdict: noEffect, note: "ingress-nginx does not read it either: it is an annotation", text: "Hashes to groups of endpoints."},
	{key: "upstream-hash-by-subset-size", verdict: noEffect, note: "ingress-nginx does not read it either: it is an annotation", text: "The size of those groups."},
	{key: "proxy-buffer-size", verdict: noEffect, note: "response heads may have sluice-response-header-max", text: "Room for a response's head."},
	{key: "proxy-buffers-number", verdict: noEffect, text: "Buffers of a response."},
	{key: "proxy-busy-buffers-size", verdict: noEffect, text: "… on their way to the client."},
	{key: "proxy-max-temp-file-size", verdict: noEffect, text: "Disk for a response."},
	{key: "disable-ipv6-dns", verdict: noEffect, note: "addresses of both families are used", text: "No IPv6 addresses from DNS."},
	{key: "enable-multi-accept", verdict: noEffect, text: "nginx's multi_accept."},
	{key: "enable-aio-write", verdict: noEffect, text: "nginx's aio_write."},
	{key: "reuse-port", verdict: noEffect, text: "nginx's reuseport."},
	{key: "max-worker-connections", verdict: noEffect, note: "sluice-connections-max", text: "Connections of a worker."},
	{key: "max-worker-open-files", verdict: noEffect, text: "Files of a worker."},
	{key: "map-hash-bucket-size", verdict: noEffect, text: "nginx's hash tables."},
	{key: "server-name-hash-max-size", verdict: noEffect, text: "nginx's hash tables."},
	{key: "server-name-hash-bucket-size", verdict: noEffect, text: "nginx's hash tables."},
	{key: "proxy-headers-hash-max-size", verdict: noEffect, text: "nginx's hash tables."},
	{key: "proxy-headers-hash-bucket-size", verdict: noEffect, text: "nginx's hash tables."},
	{key: "variables-hash-bucket-size", verdict: noEffect, text: "nginx's hash tables."},
	{key: "variables-hash-max-size", verdict: noEffect, text: "nginx's hash tables."},
	{key: "nginx-status-ipv4-whitelist", verdict: noEffect, note: "the admin address is its own listener", text: "Who may read nginx's status."},
	{key: "nginx-status-ipv6-whitelist", verdict: noEffect, text: "Who may read nginx's status."},
	{key: "ssl-dh-param", verdict: noEffect, note: "ECDHE only", text: "Diffie-Hellman parameters."},
	{key: "ssl-session-cache", verdict: noEffect, note: "sessions are resumed by ticket", text: "nginx's session cache."},
	{key: "ssl-session-cache-size", verdict: noEffect, text: "Its size."},
	{key: "ssl-session-timeout", verdict: noEffect, text: "Its age."},
	{key: "ssl-buffer-size", verdict: noEffect, text: "nginx's record buffer."},
	{key: "worker-processes", verdict: noEffect, note: "loops follow GOMAXPROCS", text: "nginx's workers."},
	{key: "worker-cpu-affinity", verdict: noEffect, text: "nginx's workers."},
	{key: "enable-serial-reloads", verdict: noEffect, note: "there are no reloads", text: "One reload at a time."},
	{key: "lua-shared-dicts", verdict: noEffect, text: "nginx's Lua."},
	{key: "grpc-buffer-size-kb", verdict: noEffect, text: "nginx's gRPC buffer."},
	{key: "use-geoip", verdict: noEffect, text: "nginx's first GeoIP module."},
}

// Keys that will not be built.
var refusedKeys = []configKey{
	{key: "allow-snippet-annotations", verdict: refused, idle: []string{"false"}, note: "there is no nginx behind it", text: "Allows snippets."},
	{key: "limit-conn-zone-variable", verdict: refused, idle: []string{"$binary_remote_addr", "$remote_addr"},
		note: "clients are counted by their address", text: "What limits count by."},
	{key: "main-snippet", verdict: refused, note: "there is no nginx behind it", text: "nginx configuration."},
	{key: "http-snippet", verdict: refused, note: "there is no nginx behind it", text: "nginx configuration."},
	{key: "server-snippet", verdict: refused, note: "there is no nginx behind it", text: "nginx configuration."},
	{key: "location-snippet", verdict: refused, note: "there is no nginx behind it", text: "nginx configuration."},
	{key: "stream-snippet", verdict: refused, note: "there is no nginx behind it", text: "nginx configuration."},
	{key: "global-auth-snippet", verdict: refused, note: "there is no nginx behind it", text: "nginx configuration."},
	{key: "modsecurity-snippet", verdict: refused, note: "there is no ModSecurity behind it", text: "Rules of the firewall."},
	{key: "jaeger-collector-host", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-collector-port", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-endpoint", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-service-name", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-propagation-format", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-sampler-type", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-sampler-param", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-sampler-host", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-sampler-port", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-trace-context-header-name", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-debug-header", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-baggage-header", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
	{key: "jaeger-trace-baggage-header-prefix", verdict: refused, note: "Jaeger takes OTLP", text: "Jaeger's own protocol."},
}
