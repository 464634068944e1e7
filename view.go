package main

import (
	"errors"
	"iter"
	"os"
	"slices"

	"github.com/sluiceproxy/sluice/admin"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
	"github.com/sluiceproxy/sluice/watcher"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// adminOptions are what the admin server is told once.
func (p *proxy) adminOptions() admin.Options {
	return admin.Options{
		Version:       versionText(),
		Pprof:         p.profiling,
		NoMetrics:     !p.metrics,
		OwnNames:      p.ownMetricNames,
		StatusClasses: p.statusClasses,
		Excluded:      p.excludedMetrics,
		Controller: admin.Controller{
			Class:     p.controllerClass,
			Namespace: os.Getenv("POD_NAMESPACE"),
			Pod:       os.Getenv("POD_NAME"),
		},
		Log: p.log,
	}
}

// adminSources is what the admin server may look at.
func (p *proxy) adminSources() admin.Sources {
	return admin.Sources{
		Alive:        p.alive,
		Ready:        p.ready,
		PortAlive:    p.portIs(p.alive),
		PortReady:    p.portIs(p.ready),
		Loops:        slices.Concat(p.loops, p.porches),
		Work:         p.work,
		HTTP:         p.http.Stats,
		Log:          p.access,
		Applies:      &p.applies,
		Routes:       func() []*l7.RouteStats { return p.store.Load().Stats() },
		Problems:     p.controller.Problems,
		Snapshot:     func() any { return p.store.Load().Describe() },
		Doors:        p.doorStats,
		Services:     func() iter.Seq[*route.BoundService] { return p.store.Load().Services() },
		Clusters:     p.clusters,
		Certificates: p.certificates,
		Explain:      p.explain,
		Sockmap:      p.sockmapState,
	}
}

// alive is /healthz: no from SIGTERM on, as ingress-nginx does.
func (p *proxy) alive() (bool, string) {
	if p.phase.Load() == phaseDraining && !p.succeeded.Load() {
		return false, "draining"
	}
	return true, ""
}

// ready is /readyz: yes while traffic may come. Whoever asks a process that has a successor, in the moment in which both
// have the port, asks about the port.
func (p *proxy) ready() (bool, string) {
	switch {
	case p.phase.Load() == phaseStarting:
		return false, "no configuration is in place yet"
	case p.phase.Load() == phaseDraining && !p.succeeded.Load():
		return false, "draining"
	}
	return true, ""
}

// portIs is a probe of a shared port: while another process has it too, what this one's end means for it is nothing.
func (p *proxy) portIs(well func() (bool, string)) func() (bool, string) {
	return func() (bool, string) {
		if p.reusePort && p.phase.Load() == phaseDraining && !p.lonely.Load() {
			return true, "this process ends; another one has the port"
		}
		return well()
	}
}

func (p *proxy) doorStats() (list []admin.Door) {
	services, closed := p.services.doors()
	list = append(list, closed)
	for _, d := range slices.Concat(p.doors, services) {
		s := &d.Stats
		list = append(list, admin.Door{
			Name:         d.name,
			Accepted:     s.Accepted.Load(),
			Refused:      s.Refused.Load(),
			NoDescriptor: s.NoDescriptor.Load(), SourceFull: s.SourceFull.Load(), Full: s.Full.Load(),
			Handshakes: s.Handshakes.Load(), HandshakeErrors: s.HandshakeErrors.Load(), Overload: s.Overload.Load(),
			Passed: s.Passed.Load(), PassErrors: s.PassErrors.Load(),
			Tunnels: s.Tunnels.Load(),
		})
	}
	return list
}

// clusters are those of the present snapshot.
func (p *proxy) clusters() (list []admin.Cluster) {
	for c := range p.store.Load().Clusters() {
		one := admin.Cluster{ID: c.ID(), Refused: len(c.Refusals()), Stats: c.Stats()}
		for i, n := range c.Overflows() {
			one.Overflows = append(one.Overflows, admin.Overflow{Limit: upstream.Overflow(i).String(), Count: n})
		}
		for _, e := range c.Endpoints() {
			switch {
			case e.Terminating:
				one.Terminating++
			case e.Ejected > 0:
				one.Ejected++
			case e.Unhealthy != "":
				one.Unhealthy++
			default:
				one.Ready++
			}
		}
		list = append(list, one)
	}
	return list
}

// certificates are those that are shown now.
func (p *proxy) certificates() (list []admin.Certificate) {
	snapshot := p.store.Load()
	if c, secret := snapshot.DefaultCertificate(); c != nil && c.Leaf != nil {
		list = append(list, admin.Certificate{Namespace: secret.Namespace, Secret: secret.Name, NotAfter: c.Leaf.NotAfter})
	}
	for h := range snapshot.Hosts() {
		if c := h.Certificate; c != nil && c.Leaf != nil && h.Name() != "" {
			secret := h.CertificateOwner()
			list = append(list, admin.Certificate{Host: h.Name(), Namespace: secret.Namespace, Secret: secret.Name, NotAfter: c.Leaf.NotAfter})
		}
	}
	return list
}

// explain asks a translator of its own about the state that is served.
func (p *proxy) explain(method, url string, fields []string) (any, error) {
	state := p.controller.State()
	if state == nil {
		return nil, errors.New("no configuration is in place yet")
	}
	var e *watcher.Explained
	var err error
	p.work.Do(func() {
		e, err = watcher.Explain(state, translate.New(translateOptions(&p.options)), route.Env{NewCluster: lintCluster},
			watcher.Question{Method: method, URL: url, Fields: fields})
	})
	return e, err
}
