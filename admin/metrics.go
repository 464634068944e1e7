package admin

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Prefixes of metric names: our own, and ingress-nginx's for what its dashboards and alerts ask for.
const (
	ownPrefix   = "sluice_"
	nginxPrefix = "nginx_ingress_controller_"
)

// metrics are all series that we make, by name and help text. The Go runtime's and the process's own come from the
// Prometheus library, under its names.
type metrics struct {
	all     []*prometheus.Desc
	handled highest // what nginx calls handled connections

	buildInfo *prometheus.Desc

	// the configuration
	snapshotAge   *prometheus.Desc
	applyDuration *prometheus.Desc
	changeLatency *prometheus.Desc
	applies       *prometheus.Desc
	problems      *prometheus.Desc

	// exchanges by route; nil: left out
	requests         *prometheus.Desc
	requestDuration  *prometheus.Desc
	responseDuration *prometheus.Desc
	requestSize      *prometheus.Desc
	responseSize     *prometheus.Desc // ingress-nginx's names only: the same numbers as bytesSent
	bytesSent        *prometheus.Desc
	retries          *prometheus.Desc
	backendErrors    *prometheus.Desc

	// HTTP in all
	limited        *prometheus.Desc
	mirrored       *prometheus.Desc
	refused        *prometheus.Desc
	exchangeErrors *prometheus.Desc
	exchanges      *prometheus.Desc
	active         *prometheus.Desc
	clients        *prometheus.Desc
	clientsOpened  *prometheus.Desc
	clientsShed    *prometheus.Desc
	streamsRefused *prometheus.Desc
	clientsAbusive *prometheus.Desc
	clientBytes    *prometheus.Desc
	tunnels        *prometheus.Desc
	tunnelsBegun   *prometheus.Desc
	tunnelBytes    *prometheus.Desc

	// doors
	doorAccepted      *prometheus.Desc
	doorRefused       *prometheus.Desc
	doorExhausted     *prometheus.Desc
	doorSourceFull    *prometheus.Desc
	doorFull          *prometheus.Desc
	handshakes        *prometheus.Desc
	handshakeErrors   *prometheus.Desc
	handshakesRefused *prometheus.Desc
	passedThrough     *prometheus.Desc
	passErrors        *prometheus.Desc
	passingThrough    *prometheus.Desc
	certificateEnd    *prometheus.Desc

	// TCP and UDP services
	serviceBegun   *prometheus.Desc
	serviceActive  *prometheus.Desc
	serviceFailed  *prometheus.Desc
	serviceDropped *prometheus.Desc
	serviceEvicted *prometheus.Desc
	serviceBytes   *prometheus.Desc

	// clusters
	endpoints       *prometheus.Desc
	sessions        *prometheus.Desc
	streams         *prometheus.Desc
	streamsTotal    *prometheus.Desc
	streamsReused   *prometheus.Desc
	connects        *prometheus.Desc
	connectFailures *prometheus.Desc
	ejections       *prometheus.Desc
	overflows       *prometheus.Desc
	checks          *prometheus.Desc

	// machinery
	logDropped  *prometheus.Desc
	logErrors   *prometheus.Desc
	loopTurns   *prometheus.Desc
	loopEvents  *prometheus.Desc
	loopPanics  *prometheus.Desc
	loopBatches *prometheus.Desc
	loopBatched *prometheus.Desc
	loopOffers  *prometheus.Desc
	loopConns   *prometheus.Desc
	loopPending *prometheus.Desc
	workRunning *prometheus.Desc

	sockmapAvailable *prometheus.Desc
	sockmapTunnels   *prometheus.Desc
	sockmapJoined    *prometheus.Desc
	sockmapRefused   *prometheus.Desc
	sockmapReleased  *prometheus.Desc
	sockmapBytes     *prometheus.Desc
	sockmapRepeated  *prometheus.Desc

	workRefused *prometheus.Desc

	nginxMetrics
}

// nginxMetrics are ingress-nginx's series that have no counterpart of ours, or one of another shape; nil when only our own
// names are shown.
type nginxMetrics struct {
	nginxBuild         *prometheus.Desc
	nginxConfigHash    *prometheus.Desc
	nginxReloadOK      *prometheus.Desc
	nginxReloadTime    *prometheus.Desc
	nginxReloads       *prometheus.Desc
	nginxReloadErrors  *prometheus.Desc
	nginxConnections   *prometheus.Desc
	nginxConnectionSum *prometheus.Desc
	nginxRequests      *prometheus.Desc
}

// newMetrics names everything. With own, what ingress-nginx has too is called by our names; else by its names, with
// labels that say which controller this is.
func newMetrics(own bool, controller prometheus.Labels) *metrics {
	m := &metrics{}
	m.nameConfiguration()
	m.nameHTTP()
	m.nameDoors()
	m.nameServices()
	m.nameClusters()
	m.nameMachinery()
	if own {
		m.nameOwn()
	} else {
		m.nameNginxRoutes(controller)
		m.nameNginx(controller)
	}
	return m
}

// routeMetrics are the metrics of exchanges by route that ingress-nginx has and can leave out, by its names for them.
// What is nil is never shown here.
var routeMetrics = map[string]func(*metrics) **prometheus.Desc{
	"requests":                         func(m *metrics) **prometheus.Desc { return &m.requests },
	"request_duration_seconds":         func(m *metrics) **prometheus.Desc { return &m.requestDuration },
	"response_duration_seconds":        func(m *metrics) **prometheus.Desc { return &m.responseDuration },
	"request_size":                     func(m *metrics) **prometheus.Desc { return &m.requestSize },
	"response_size":                    func(m *metrics) **prometheus.Desc { return &m.responseSize },
	"bytes_sent":                       func(m *metrics) **prometheus.Desc { return &m.bytesSent },
	"connect_duration_seconds":         nil,
	"header_duration_seconds":          nil,
	"ingress_upstream_latency_seconds": nil,
}

// RouteMetric is ingress-nginx's name of a metric without the prefix that all have, and whether Options.Excluded can leave
// it out.
func RouteMetric(name string) (short string, known bool) {
	short = strings.TrimPrefix(name, nginxPrefix)
	_, known = routeMetrics[short]
	return short, known
}

// exclude leaves metrics out, by names from RouteMetric, whichever names they are shown by.
func (m *metrics) exclude(names []string) {
	for _, name := range names {
		if of := routeMetrics[name]; of != nil {
			d := of(m)
			m.all = slices.DeleteFunc(m.all, func(one *prometheus.Desc) bool { return one == *d })
			*d = nil
		}
	}
}

func (m *metrics) own(name, help string, labels ...string) *prometheus.Desc {
	return m.add(prometheus.NewDesc(ownPrefix+name, help, labels, nil))
}

func (m *metrics) add(d *prometheus.Desc) *prometheus.Desc {
	m.all = append(m.all, d)
	return d
}

func (m *metrics) nameConfiguration() {
	m.buildInfo = m.own("build_info", "What runs: always 1.", "version", "goversion")
	m.snapshotAge = m.own("snapshot_age_seconds", "Time since the last configuration was put in place.")
	m.applyDuration = m.own("apply_duration_seconds", "Time from a configuration's delivery by its source until it was in place.")
	m.changeLatency = m.own("change_latency_seconds", "Time from a change's event at the cluster's API server until it served; endpoints need no compile.", "kind")
	m.applies = m.own("applies_total", "Configurations by what became of them: applied, failed.", "result")
	m.problems = m.own("problems", "Objects and fields of the configuration that are not taken, or not wholly, by the kind of the object; /debug/problems tells which.", "kind")
}

var ownRoute = []string{"namespace", "ingress", "service", "port", "host"}

// nameOwn names what ingress-nginx has too.
func (m *metrics) nameOwn() {
	m.requests = m.own("requests_total", "Ended requests. The status \"other\" stands for what is too varied to be told apart.", slices.Concat(ownRoute, []string{"method", "status"})...)
	m.requestDuration = m.own("request_duration_seconds", "Time from a request's first byte to the end of its response.", ownRoute...)
	m.responseDuration = m.own("response_duration_seconds", "Time that the last tried endpoint took, from being asked to the end of its response.", ownRoute...)
	m.requestSize = m.own("request_bytes_total", "Bytes received from clients, heads included.", ownRoute...)
	m.bytesSent = m.own("response_bytes_total", "Bytes sent to clients, heads included.", ownRoute...)
	m.certificateEnd = m.own("certificate_expiry_timestamp_seconds", "When a certificate that is served ends. The host \"\" is the default certificate's.", "host", "namespace", "secret")
}

func (m *metrics) nameHTTP() {
	m.retries = m.own("retries_total", "Further tries of requests after a failed one.", ownRoute...)
	m.backendErrors = m.own("backend_errors_total", "Failed tries by what went wrong.", slices.Concat(ownRoute, []string{"kind"})...)
	m.mirrored = m.own("mirrored_requests_total", "Copies of requests by what became of them: sent, failed, dropped (too many under way, or the body too long).", "result")
	m.limited = m.own("limited_requests_total", "Requests that a limit of their source refused, by the limit: rate (requests a second or minute), connections (requests at a time).", "limit")
	m.refused = m.own("refused_requests_total", "Requests that were answered by an error without being looked at further, by what is wrong with them.", "kind")
	m.exchangeErrors = m.own("request_errors_total", "Requests that did not end well, by whose fault it was (client, backend, proxy) and what went wrong.", "fault", "kind")
	m.exchanges = m.own("exchanges_total", "Ended requests of all routes.")
	m.active = m.own("exchanges_active", "Requests under way, upgraded ones included.")
	m.clients = m.own("client_connections", "Open client connections that speak HTTP; upgraded ones are tunnels instead.")
	m.clientsOpened = m.own("client_connections_total", "Client connections that began to speak HTTP.")
	m.clientsShed = m.own("client_connections_shed_total", "Idle client connections that were closed because a limit of the process was near.")
	m.streamsRefused = m.own("http2_streams_refused_total", "HTTP/2 streams that were refused because their connection had as many as it may.")
	m.clientsAbusive = m.own("http2_connections_abusive_total", "HTTP/2 connections that were ended because their client misbehaved (ENHANCE_YOUR_CALM).")
	m.clientBytes = m.own("client_bytes_total", "Bytes of ended requests by direction: received from clients, sent to them.", "direction")
	m.tunnels = m.own("tunnels_active", "Upgraded connections (WebSocket) that are open.")
	m.tunnelsBegun = m.own("tunnels_total", "Connections that were upgraded.")
	m.tunnelBytes = m.own("tunnel_bytes_total", "Bytes of ended tunnels by direction: received from clients, sent to them.", "direction")
}

func (m *metrics) nameDoors() {
	m.doorAccepted = m.own("door_connections_total", "Accepted connections by port.", "door")
	m.doorRefused = m.own("door_refused_total", "Accepted connections that were closed before HTTP or a tunnel: a bad or missing PROXY header, neither TLS nor HTTP, too late.", "door")
	m.doorExhausted = m.own("door_descriptors_exhausted_total", "Times that no connection could be accepted because the process had no descriptor left.", "door")
	m.doorSourceFull = m.own("door_source_full_total", "Accepted connections that were closed at once because their source has as many as it may.", "door")
	m.doorFull = m.own("door_pauses_total", "Times that accepting paused because as many connections are open as may be.", "door")
	m.handshakes = m.own("tls_handshakes_total", "TLS handshakes with clients that were begun.", "door")
	m.handshakeErrors = m.own("tls_handshake_errors_total", "TLS handshakes with clients that failed.", "door")
	m.handshakesRefused = m.own("tls_handshakes_refused_total", "TLS handshakes with clients that were not begun because too many are under way.", "door")
	m.passedThrough = m.own("passthrough_connections_total", "Connections that were passed through by their server name.", "door")
	m.passErrors = m.own("passthrough_errors_total", "Connections that could not be passed through: no endpoint could be reached.", "door")
	m.passingThrough = m.own("passthrough_tunnels_active", "Passed-through connections that are open.", "door")
}

func (m *metrics) nameServices() {
	labels := []string{"protocol", "port", "namespace", "service"}
	m.serviceBegun = m.own("service_connections_total", "Connections of TCP services, and sessions of UDP services.", labels...)
	m.serviceActive = m.own("service_connections_active", "Connections of TCP services, and sessions of UDP services, that are open.", labels...)
	m.serviceFailed = m.own("service_errors_total", "Connections that reached no endpoint, and UDP sessions that an error ended.", labels...)
	m.serviceDropped = m.own("service_datagrams_dropped_total", "Datagrams of UDP services that went nowhere.", labels...)
	m.serviceEvicted = m.own("service_sessions_evicted_total", "UDP sessions that ended early to make room for others.", labels...)
	m.serviceBytes = m.own("service_bytes_total", "Bytes by direction: received from clients, sent to them; of TCP, those of ended connections.", append(labels, "direction")...)
}

func (m *metrics) nameClusters() {
	m.endpoints = m.own("endpoints", "Endpoints of a cluster by state: ready, ejected (connections to it failed of late, or its answers were errors), unhealthy (its checks fail), terminating, refused (not allowed to be dialled).", "cluster", "state")
	m.sessions = m.own("backend_connections", "Open connections to a cluster's endpoints by state: busy, idle.", "cluster", "state")
	m.streams = m.own("backend_requests_active", "Requests under way to a cluster's endpoints, those waiting for a connection included.", "cluster")
	m.streamsTotal = m.own("backend_requests_total", "Requests given to a cluster's endpoints, retries included.", "cluster")
	m.streamsReused = m.own("backend_requests_reused_total", "Of these, those on a connection that had carried one before.", "cluster")
	m.connects = m.own("backend_connects_total", "Connections made to a cluster's endpoints.", "cluster")
	m.connectFailures = m.own("backend_connect_failures_total", "Connections to a cluster's endpoints that could not be made.", "cluster")
	m.overflows = m.own("circuit_breaker_refusals_total", "What a cluster's circuit breaker refused, by the limit: connections, pending, requests, retries.", "cluster", "limit")
	m.checks = m.own("health_checks_total", "Active health checks of a cluster's endpoints by result: good, bad.", "cluster", "result")
	m.ejections = m.own("endpoint_ejections_total", "Times that an endpoint of a cluster was ejected because connections to it failed, or its answers were errors.", "cluster")
}

func (m *metrics) nameMachinery() {
	m.logDropped = m.own("access_log_dropped_lines_total", "Access log lines that were lost: the log's reader is too slow, or writing failed.")
	m.logErrors = m.own("access_log_write_errors_total", "Writes of access log lines that failed.")
	m.loopTurns = m.own("loop_turns_total", "Turns of an event loop.", "loop")
	m.loopEvents = m.own("loop_events_total", "Events that an event loop took from the kernel.", "loop")
	m.loopBatches = m.own("loop_batches_total", "System calls of an event loop by which it received or sent for several connections (io_uring); 0 where that cannot be had.", "loop")
	m.loopBatched = m.own("loop_batched_calls_total", "Receives and sends that these made.", "loop")
	m.loopPanics = m.own("loop_panics_total", "Connections that were closed by a defect; each left a stack in the log.", "loop")
	m.loopOffers = m.own("loop_offers_total", "Times that an event loop which is behind offered its processor to other threads before it waited.", "loop")
	m.loopConns = m.own("loop_connections", "Connections of an event loop, to clients and to backends.", "loop")
	m.loopPending = m.own("loop_pending_connections", "Accepted connections that an event loop has yet to take up.", "loop")
	m.workRunning = m.own("work_running", "Work off the event loops that is under way or queued, by kind: handshake, compile, compute.", "kind")
	m.sockmapAvailable = m.own("sockmap_available", "1 where tunnels can be joined in the kernel, 0 where --sockmap asks for it in vain; why: capability, kernel, load, self_test, detached.", "reason")
	m.sockmapTunnels = m.own("sockmap_tunnels_active", "Open tunnels that were handed to the kernel.")
	m.sockmapJoined = m.own("sockmap_tunnels_total", "Tunnels that were handed to the kernel.")
	m.sockmapRefused = m.own("sockmap_refused_total", "Tunnels that were to be handed to the kernel and were not: the maps are full, or a side had ended.")
	m.sockmapReleased = m.own("sockmap_released_total", "Directions of tunnels that came back to user space, by the reason: limit (more was queued than allowed), gone (the other socket was closed), refused (by the kernel); or lost: bytes that came again could not be taken off, and the tunnel was reset.", "reason")
	m.sockmapBytes = m.own("sockmap_bytes_total", "Bytes that the kernel moved by itself, of directions that ended or came back.")
	m.sockmapRepeated = m.own("sockmap_repeated_bytes_total", "Bytes that joined sockets received again, in retransmissions that begin before new ones, and that were taken off.")
	m.workRefused = m.own("work_refused_total", "Work off the event loops that was refused because too much was queued.")
}

// Labels of ingress-nginx's series about requests. path and canary are always empty: counters are kept by Ingress and
// Service. So is host, unless --metrics-per-host asks for it.
var (
	nginxRoute   = []string{"namespace", "ingress", "service", "host"}
	nginxRequest = slices.Concat(nginxRoute, []string{"path", "method", "status", "canary"})
)

func (m *metrics) nginx(controller prometheus.Labels, name, help string, labels ...string) *prometheus.Desc {
	return m.add(prometheus.NewDesc(nginxPrefix+name, help, labels, controller))
}

func (m *metrics) nameNginxRoutes(c prometheus.Labels) {
	m.requests = m.nginx(c, "requests", "The total number of client requests", nginxRequest...)
	m.requestDuration = m.nginx(c, "request_duration_seconds", "The request processing time in seconds", nginxRoute...)
	m.responseDuration = m.nginx(c, "response_duration_seconds", "The time spent on receiving the response from the upstream server", nginxRoute...)
	m.requestSize = m.nginx(c, "request_size", "The request length (including request line, header, and request body); buckets by --length-buckets", nginxRoute...)
	m.responseSize = m.nginx(c, "response_size", "The response length (including status line, header, and response body); buckets by --length-buckets", nginxRoute...)
	m.bytesSent = m.nginx(c, "bytes_sent", "DEPRECATED The number of bytes sent to a client; buckets by --size-buckets", nginxRoute...)
}

func (m *metrics) nameNginx(c prometheus.Labels) {
	m.nginxBuild = m.nginx(c, "build_info", "A metric with a constant '1' labeled with information about the build.", "build", "release", "repository")
	m.nginxConfigHash = m.nginx(c, "config_hash", "Running configuration hash actually running")
	m.nginxReloadOK = m.nginx(c, "config_last_reload_successful", "Whether the last configuration was put in place (nothing is reloaded)")
	m.nginxReloadTime = m.nginx(c, "config_last_reload_successful_timestamp_seconds", "When the last configuration was put in place")
	m.nginxReloads = m.nginx(c, "success", "Cumulative number of configurations put in place")
	m.nginxReloadErrors = m.nginx(c, "errors", "Cumulative number of configurations that could not be put in place")
	m.certificateEnd = m.nginx(nil, "ssl_expire_time_seconds", "Number of seconds since 1970 to the SSL Certificate expire", "namespace", "class", "host", "secret_name")
	m.nginxConnections = m.nginx(c, "nginx_process_connections", "current number of client connections with state {active, writing, waiting}; upgraded ones are writing, passed-through ones active only", "state")
	m.nginxConnectionSum = m.nginx(c, "nginx_process_connections_total", "total number of connections with state {accepted, handled}", "state")
	m.nginxRequests = m.nginx(c, "nginx_process_requests_total", "total number of client requests")
}
