package admin

import (
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluiceproxy/sluice/ebpf"
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// collector makes the series of a scrape from the sources. It keeps nothing between two scrapes but what must not fall.
type collector struct {
	*metrics
	options *Options
	sources *Sources
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.all {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := scrape{collector: c, out: out}
	s.build()
	s.configuration()
	s.problemCounts()
	s.routes()
	s.http()
	s.doorCounts()
	s.serviceCounts()
	s.connections()
	s.certificates()
	s.clusters()
	s.log()
	s.loops()
	s.sockmap()
	s.work()
}

// scrape is one scrape under way.
type scrape struct {
	*collector
	out chan<- prometheus.Metric
}

func (s scrape) count(d *prometheus.Desc, n uint64, labels ...string) {
	if d == nil {
		return
	}
	m, err := prometheus.NewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	s.send(d, m, err)
}

func (s scrape) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(d, prometheus.GaugeValue, v, labels...)
	s.send(d, m, err)
}

// histogram shows counts, which are not cumulative, by the upper bounds of their buckets.
func (s scrape) histogram(d *prometheus.Desc, bounds []float64, counts []uint64, total uint64, sum float64, labels ...string) {
	if d == nil {
		return
	}
	buckets, below := make(map[float64]uint64, len(bounds)), uint64(0)
	for i, bound := range bounds {
		below += counts[i]
		buckets[bound] = below
	}
	m, err := prometheus.NewConstHistogram(d, total, sum, buckets, labels...)
	s.send(d, m, err)
}

// send passes a metric on; one that cannot be made (a label that is not UTF-8) is an error of the scrape, which shows
// all others.
func (s scrape) send(d *prometheus.Desc, m prometheus.Metric, err error) {
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	s.out <- m
}

func (s scrape) build() {
	s.gauge(s.buildInfo, 1, s.options.Version, runtime.Version())
	if s.nginxBuild != nil {
		s.gauge(s.nginxBuild, 1, "", s.options.Version, "")
	}
}

func (s scrape) configuration() {
	if s.sources.Applies == nil {
		return
	}
	a := s.sources.Applies.sums()
	if a.applied > 0 {
		s.gauge(s.snapshotAge, s.options.Now().Sub(a.last).Seconds())
	}
	s.latencies(s.applyDuration, &a.took)
	s.latencies(s.changeLatency, &a.routes, "routes")
	s.latencies(s.changeLatency, &a.endpoints, "endpoints")
	s.count(s.applies, a.applied, "applied")
	s.count(s.applies, a.failed, "failed")
	if s.nginxReloads == nil {
		return
	}
	s.count(s.nginxReloads, a.applied)
	s.count(s.nginxReloadErrors, a.failed)
	s.gauge(s.nginxReloadOK, truth(a.applied > 0 && !a.lastFailed))
	s.gauge(s.nginxConfigHash, float64(a.hash))
	if a.applied > 0 {
		s.gauge(s.nginxReloadTime, float64(a.last.UnixMilli())/1e3)
	}
}

func (s scrape) latencies(d *prometheus.Desc, l *latencies, labels ...string) {
	bounds := make([]float64, len(applyBuckets))
	for i, b := range applyBuckets {
		bounds[i] = b.Seconds()
	}
	s.histogram(d, bounds, l.counts[:], l.number, l.total.Seconds(), labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s scrape) problemCounts() {
	if s.sources.Problems == nil {
		return
	}
	byKind := map[string]int{}
	for _, p := range s.sources.Problems() {
		byKind[p.Object.Kind]++
	}
	for kind, n := range byKind {
		s.gauge(s.problems, float64(n), kind)
	}
}

// routes shows exchanges by route. Identities that a scraper could not tell apart are added up: ingress-nginx's series
// have no port.
func (s scrape) routes() {
	var all []*l7.RouteStats
	if s.sources.Routes != nil {
		all = s.sources.Routes()
	}
	if s.sources.HTTP != nil {
		all = append(all[:len(all):len(all)], s.sources.HTTP.NoRoute)
	}
	sums := make(map[l7.Identity]*l7.RouteCounts, len(all))
	for _, r := range all {
		id := r.ID.StatsIdentity(true)
		if !s.options.OwnNames {
			id.Port = ""
		}
		if sums[id] == nil {
			sums[id] = new(l7.RouteCounts)
		}
		r.AddTo(sums[id])
	}
	for id, c := range sums {
		if len(c.Requests) > 0 {
			s.route(id, c)
		}
	}
}

func (s scrape) route(id l7.Identity, c *l7.RouteCounts) {
	labels := []string{id.Namespace, id.Ingress, id.Service, id.Host}
	ours := []string{id.Namespace, id.Ingress, id.Service, id.Port, id.Host}
	if s.options.OwnNames {
		labels = ours
	}
	ended := s.requestCounts(labels, c.Requests)
	s.times(s.requestDuration, c.Buckets, &c.Duration, labels)
	s.times(s.responseDuration, c.Buckets, &c.Response, labels)
	if s.options.OwnNames {
		s.count(s.requestSize, c.RequestBytes, labels...)
		s.count(s.bytesSent, c.BytesSent, labels...)
	} else {
		s.histogram(s.requestSize, c.Buckets.Lengths, c.RequestLength, ended, float64(c.RequestBytes), labels...)
		s.histogram(s.responseSize, c.Buckets.Lengths, c.ResponseLength, ended, float64(c.BytesSent), labels...)
		s.histogram(s.bytesSent, c.Buckets.Sizes, c.SentSize, ended, float64(c.BytesSent), labels...)
	}
	s.count(s.retries, c.Retries, ours...)
	for kind, n := range c.BackendErrors {
		if n > 0 {
			s.count(s.backendErrors, n, append(ours, fastpath.Kind(kind).String())...)
		}
	}
}

// requestCounts shows ended requests by method and status, those together that a scraper cannot tell apart, and answers
// how many they are.
func (s scrape) requestCounts(labels []string, outcomes map[l7.Outcome]uint64) (ended uint64) {
	type shown struct{ method, status string }
	sums := make(map[shown]uint64, len(outcomes))
	for o, n := range outcomes {
		ended += n
		sums[shown{methodName(o.Method), s.statusName(o)}] += n
	}
	for o, n := range sums {
		if s.options.OwnNames {
			s.count(s.requests, n, append(labels, o.method, o.status)...)
		} else {
			s.count(s.requests, n, append(labels, "", o.method, o.status, "")...)
		}
	}
	return ended
}

func (s scrape) statusName(o l7.Outcome) string {
	switch {
	case o == l7.OutcomeOther:
		return "other"
	case s.options.StatusClasses:
		return strconv.Itoa(o.Status/100) + "xx"
	}
	return strconv.Itoa(o.Status)
}

func (s scrape) times(d *prometheus.Desc, b *l7.Buckets, h *l7.Histogram, labels []string) {
	var total uint64
	for _, n := range h.Counts {
		total += n
	}
	s.histogram(d, b.Times, h.Counts, total, h.Sum.Seconds(), labels...)
}

// methodNames are few, whatever clients send.
var methodNames = [...]string{wire.MethodGet: "GET", wire.MethodHead: "HEAD", wire.MethodPost: "POST", wire.MethodPut: "PUT",
	wire.MethodDelete: "DELETE", wire.MethodOptions: "OPTIONS", wire.MethodPatch: "PATCH", wire.MethodTrace: "TRACE",
	wire.MethodConnect: "CONNECT"}

func methodName(m wire.Method) string {
	if int(m) < len(methodNames) && methodNames[m] != "" {
		return methodNames[m]
	}
	return "OTHER"
}

func (s scrape) http() {
	if s.sources.HTTP == nil {
		return
	}
	loops := s.sources.HTTP.Loops()
	sum := func(of func(*l7.LoopStats) uint64) (n uint64) {
		for i := range loops {
			n += of(&loops[i])
		}
		return n
	}
	s.httpErrors(loops, sum)
	for result, name := range map[l7.MirrorResult]string{l7.MirrorSent: "sent", l7.MirrorFailed: "failed", l7.MirrorDropped: "dropped"} {
		s.count(s.mirrored, sum(func(l *l7.LoopStats) uint64 { return l.Mirrors[result].Load() }), name)
	}
	for kind, name := range map[l7.LimitKind]string{l7.LimitRate: "rate", l7.LimitConnections: "connections"} {
		s.count(s.limited, sum(func(l *l7.LoopStats) uint64 { return l.Limited[kind].Load() }), name)
	}
	s.count(s.exchanges, sum(func(l *l7.LoopStats) uint64 { return l.Exchanges.Load() }))
	s.gauge(s.active, float64(s.sources.HTTP.Active()))
	s.gauge(s.clients, float64(openClients(loops)))
	s.count(s.clientsOpened, sum(func(l *l7.LoopStats) uint64 { return l.Opened.Load() }))
	s.count(s.clientsShed, sum(func(l *l7.LoopStats) uint64 { return l.Shed.Load() }))
	s.count(s.streamsRefused, sum(func(l *l7.LoopStats) uint64 { return l.StreamsRefused.Load() }))
	s.count(s.clientsAbusive, sum(func(l *l7.LoopStats) uint64 { return l.Abusive.Load() }))
	s.count(s.clientBytes, sum(func(l *l7.LoopStats) uint64 { return l.BytesReceived.Load() }), "received")
	s.count(s.clientBytes, sum(func(l *l7.LoopStats) uint64 { return l.BytesSent.Load() }), "sent")
	s.gauge(s.tunnels, float64(s.sources.HTTP.Tunnels()))
	s.count(s.tunnelsBegun, sum(func(l *l7.LoopStats) uint64 { return l.Upgraded.Load() }))
	s.count(s.tunnelBytes, sum(func(l *l7.LoopStats) uint64 { return l.TunnelBytesUp.Load() }), "received")
	s.count(s.tunnelBytes, sum(func(l *l7.LoopStats) uint64 { return l.TunnelBytesDown.Load() }), "sent")
	if s.nginxRequests != nil {
		s.count(s.nginxRequests, sum(func(l *l7.LoopStats) uint64 { return l.Exchanges.Load() }))
	}
}

// httpErrors shows what went wrong, by its kind.
func (s scrape) httpErrors(loops []l7.LoopStats, sum func(func(*l7.LoopStats) uint64) uint64) {
	if len(loops) == 0 {
		return
	}
	for kind := range loops[0].Refused {
		if n := sum(func(l *l7.LoopStats) uint64 { return l.Refused[kind].Load() }); n > 0 {
			s.count(s.refused, n, fastpath.Kind(kind).String())
		}
	}
	for fault := range loops[0].Errors {
		for kind := range loops[0].Errors[fault] {
			if n := sum(func(l *l7.LoopStats) uint64 { return l.Errors[fault][kind].Load() }); n > 0 {
				s.count(s.exchangeErrors, n, fastpath.Fault(fault).String(), fastpath.Kind(kind).String())
			}
		}
	}
}

func openClients(loops []l7.LoopStats) (n int64) {
	for i := range loops {
		n += loops[i].Open.Load()
	}
	return n
}

func (s scrape) doorCounts() {
	if s.sources.Doors == nil {
		return
	}
	for _, d := range s.sources.Doors() {
		if d.Name == "" {
			continue
		}
		s.count(s.doorAccepted, d.Accepted, d.Name)
		s.count(s.doorRefused, d.Refused, d.Name)
		s.count(s.doorExhausted, d.NoDescriptor, d.Name)
		s.count(s.doorSourceFull, d.SourceFull, d.Name)
		s.count(s.doorFull, d.Full, d.Name)
		s.count(s.handshakes, d.Handshakes, d.Name)
		s.count(s.handshakeErrors, d.HandshakeErrors, d.Name)
		s.count(s.handshakesRefused, d.Overload, d.Name)
		s.count(s.passedThrough, d.Passed, d.Name)
		s.count(s.passErrors, d.PassErrors, d.Name)
		s.gauge(s.passingThrough, float64(d.Tunnels), d.Name)
	}
}

func (s scrape) serviceCounts() {
	if s.sources.Services == nil {
		return
	}
	for b := range s.sources.Services() {
		labels := []string{b.Protocol.String(), strconv.Itoa(int(b.Port)), b.Namespace, b.Service.Service}
		s.count(s.serviceBegun, b.Stats.Begun.Load(), labels...)
		s.gauge(s.serviceActive, float64(b.Stats.Active.Load()), labels...)
		s.count(s.serviceFailed, b.Stats.Failed.Load(), labels...)
		s.count(s.serviceDropped, b.Stats.Dropped.Load(), labels...)
		s.count(s.serviceEvicted, b.Stats.Evicted.Load(), labels...)
		s.count(s.serviceBytes, b.Stats.Received.Load(), append(labels, "received")...)
		s.count(s.serviceBytes, b.Stats.Sent.Load(), append(labels, "sent")...)
	}
}

// highest is a figure that never falls: the difference of two counters does, when a connection that was accepted is refused later.
type highest struct{ atomic.Uint64 }

// least answers n, or what was answered before if that is more.
func (h *highest) least(n uint64) uint64 {
	for {
		before := h.Load()
		if n <= before {
			return before
		}
		if h.CompareAndSwap(before, n) {
			return n
		}
	}
}

// connections shows nginx's view of client connections. "reading" is not told from "waiting": an incomplete head is a
// moment.
func (s scrape) connections() {
	if s.nginxConnections == nil || s.sources.HTTP == nil || s.sources.Doors == nil {
		return
	}
	var accepted, refused uint64
	var passing int64
	for _, d := range s.sources.Doors() {
		accepted += d.Accepted
		refused += d.Refused + d.SourceFull
		passing += d.Tunnels
	}
	open, tunnels := openClients(s.sources.HTTP.Loops()), s.sources.HTTP.Tunnels()
	writing := s.sources.HTTP.Active() // tunnels included
	s.gauge(s.nginxConnections, float64(open+tunnels+passing), "active")
	s.gauge(s.nginxConnections, float64(writing), "writing")
	s.gauge(s.nginxConnections, float64(max(open+tunnels-writing, 0)), "waiting")
	s.count(s.nginxConnectionSum, accepted, "accepted")
	s.count(s.nginxConnectionSum, s.handled.least(accepted-min(refused, accepted)), "handled")
}

func (s scrape) certificates() {
	if s.sources.Certificates == nil {
		return
	}
	for _, c := range s.sources.Certificates() {
		end := float64(c.NotAfter.Unix())
		if s.options.OwnNames {
			s.gauge(s.certificateEnd, end, c.Host, c.Namespace, c.Secret)
		} else {
			s.gauge(s.certificateEnd, end, s.options.Controller.Namespace, s.options.Controller.Class, c.Host, c.Secret)
		}
	}
}

func (s scrape) clusters() {
	if s.sources.Clusters == nil {
		return
	}
	for _, c := range s.sources.Clusters() {
		s.gauge(s.endpoints, float64(c.Ready), c.ID, "ready")
		s.gauge(s.endpoints, float64(c.Ejected), c.ID, "ejected")
		s.gauge(s.endpoints, float64(c.Unhealthy), c.ID, "unhealthy")
		s.gauge(s.endpoints, float64(c.Terminating), c.ID, "terminating")
		s.gauge(s.endpoints, float64(c.Refused), c.ID, "refused")
		s.gauge(s.sessions, float64(max(c.Open-c.Idle, 0)), c.ID, "busy")
		s.gauge(s.sessions, float64(c.Idle), c.ID, "idle")
		s.gauge(s.streams, float64(c.Active), c.ID)
		s.count(s.streamsTotal, c.Requests, c.ID)
		s.count(s.streamsReused, c.Reused, c.ID)
		s.count(s.connects, c.Connects, c.ID)
		s.count(s.connectFailures, c.ConnectFailures, c.ID)
		s.count(s.ejections, c.Ejections, c.ID)
		for _, o := range c.Overflows {
			if o.Count > 0 {
				s.count(s.overflows, o.Count, c.ID, o.Limit)
			}
		}
		if c.Checks > 0 {
			s.count(s.checks, c.Checks-c.ChecksFailed, c.ID, "good")
			s.count(s.checks, c.ChecksFailed, c.ID, "bad")
		}
	}
}

func (s scrape) log() {
	if s.sources.Log == nil {
		return
	}
	s.count(s.logDropped, s.sources.Log.Dropped())
	s.count(s.logErrors, s.sources.Log.Errors())
}

func (s scrape) loops() {
	for _, l := range s.sources.Loops {
		id := strconv.Itoa(l.ID)
		s.count(s.loopTurns, l.Stats.Turns.Load(), id)
		s.count(s.loopEvents, l.Stats.Events.Load(), id)
		s.count(s.loopBatches, l.Stats.Batches.Load(), id)
		s.count(s.loopBatched, l.Stats.Batched.Load(), id)
		s.count(s.loopOffers, l.Stats.Offers.Load(), id)
		s.count(s.loopPanics, l.Stats.Panics.Load(), id)
		s.gauge(s.loopConns, float64(l.Stats.Conns.Load()), id)
		s.gauge(s.loopPending, float64(l.Stats.Pending.Load()), id)
	}
}

// sockmap shows nothing where it was not asked for.
func (s scrape) sockmap() {
	if s.sources.Sockmap == nil {
		return
	}
	state := s.sources.Sockmap()
	if !state.Wanted {
		return
	}
	available := 0.0
	if state.Available {
		available = 1
	}
	s.gauge(s.sockmapAvailable, available, state.Reason)
	sum := func(of func(*fastpath.SockmapStats) uint64) (n uint64) {
		for _, l := range s.sources.Loops {
			n += of(&l.Stats.Sockmap)
		}
		return n
	}
	s.gauge(s.sockmapTunnels, float64(sum(func(k *fastpath.SockmapStats) uint64 { return uint64(k.Open.Load()) })))
	s.count(s.sockmapJoined, sum(func(k *fastpath.SockmapStats) uint64 { return k.Joined.Load() }))
	s.count(s.sockmapRefused, sum(func(k *fastpath.SockmapStats) uint64 { return k.Refused.Load() }))
	s.count(s.sockmapBytes, sum(func(k *fastpath.SockmapStats) uint64 { return k.Bytes.Load() }))
	s.count(s.sockmapRepeated, state.Repeated)
	for _, why := range []ebpf.Release{ebpf.ReleasedLimit, ebpf.ReleasedGone, ebpf.ReleasedRefused, ebpf.ReleasedLost} {
		s.count(s.sockmapReleased, sum(func(k *fastpath.SockmapStats) uint64 { return k.Released[why].Load() }), why.String())
	}
}

func (s scrape) work() {
	w := s.sources.Work
	if w == nil {
		return
	}
	s.gauge(s.workRunning, float64(w.Running(fastpath.WorkHandshake)), "handshake")
	s.gauge(s.workRunning, float64(w.Running(fastpath.WorkCompile)), "compile")
	s.gauge(s.workRunning, float64(w.Running(fastpath.WorkCompute)), "compute")
	s.count(s.workRefused, w.Refused.Load())
}
