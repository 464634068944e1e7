package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluiceproxy/sluice/admin"
	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/sni"
	"github.com/sluiceproxy/sluice/upstream"
	"github.com/sluiceproxy/sluice/watcher"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// proxy is everything that runs in a process, wired. newProxy makes it, start opens it from the inside out, drain and
// stop close it in reverse:
//
//	loops ── store ── engines ── admin ── watcher ── first snapshot ── doors
type proxy struct {
	options
	log *slog.Logger

	source     watcher.Source
	controller *watcher.Controller
	store      *route.Store
	loops      []*fastpath.Loop
	porches    []*fastpath.Loop // one beside each
	work       *fastpath.Work
	sockmap    sockmap
	http       *l7.Server
	access     *l7.AccessLog
	applies    admin.Applies
	admin      *admin.Server // nil: off
	webhook    *webhook      // nil: off
	doors      []*door       // of HTTP
	services   *servicePorts
	udpPorts   atomic.Uint32 // opened so far

	legacy    *listen.Inheritance // what a predecessor left; nil: nothing
	program   string              // what SIGUSR2 starts; "": nothing
	succeeded atomic.Bool         // a successor has the ports
	lonely    atomic.Bool         // this process ends, and nobody else has its shared ports
	leaving   sync.WaitGroup      // the port of the metrics is being left

	adminOpened string
	adminPort   atomic.Uint32 // 0: not open, or a path
	metricsPort atomic.Uint32
	webhookPort atomic.Uint32
	bound       netip.Addr // of the doors and of services' ports, since the start; invalid: all addresses
	toldBind    netip.Addr // what the log told of last; the ticker's
	serving     func()     // called once the doors are open; nil: nobody wants to know

	phase   atomic.Int32
	running sync.WaitGroup     // the loops
	cancel  context.CancelFunc // of the watcher
	watched chan error         // what became of it
}

// door is a listening port under its name.
type door struct {
	*sni.Door
	name    string
	port    int
	address netip.AddrPort // once it is open
	open    bool
}

// The phases of a process, for its probes.
const (
	phaseStarting int32 = iota
	phaseServing
	phaseDraining
)

// newProxy wires a proxy. It opens nothing that others see.
func newProxy(o options, log *slog.Logger, accessLog io.Writer) (*proxy, error) {
	spec, err := sourceOf(&o)
	if err != nil {
		return nil, err
	}
	p := &proxy{options: o, log: log, store: route.NewStore(), watched: make(chan error, 1)}
	if p.source, err = watcher.Open(spec, log); err != nil {
		return nil, err
	}
	if err := checkTogether(&o); err != nil {
		return nil, usage{err}
	}
	if err := p.makeLoops(loopsOf(&o)); err != nil {
		return nil, err
	}
	p.useRings()
	p.openSockmap()
	p.work = fastpath.NewWork(o.workPermits)
	p.access = l7.NewAccessLog(accessLog, len(p.loops))
	p.access.Logger = log
	p.http = l7.NewServer(p.store, p.access, l7.NewStats(len(p.loops)))
	p.http.Work = p.work
	p.http.Stats.RoutesOff = !p.metrics
	p.http.Stats.NoRoute.SetBuckets(p.buckets())
	p.services = &servicePorts{proxy: p, open: map[string]*servicePort{}}
	if p.controller, err = p.newController(); err != nil {
		return nil, err
	}
	p.makeDoors()
	if o.adminAddress != "" || o.metricsAddress != "" {
		p.admin = admin.New(p.adminOptions(), p.adminSources())
	}
	return p, nil
}

func (p *proxy) makeLoops(n int) error {
	for id := range n {
		l, err := fastpath.NewLoop(id)
		if err != nil {
			return err
		}
		porch, err := fastpath.NewPorch(n + id)
		if err != nil {
			return err
		}
		p.loops, p.porches = append(p.loops, l), append(p.porches, porch)
	}
	return nil
}

// useRings has the loops make several calls by one system call, where that can be had.
func (p *proxy) useRings() {
	if !p.ioUring {
		return
	}
	for _, l := range p.loops {
		if err := l.UseRing(); err != nil {
			p.log.Info("loops make each system call by itself, which costs more CPU: docs/operations.md tells what io_uring needs", "loop", l.ID, "reason", err)
			return
		}
	}
}

func (p *proxy) newController() (*watcher.Controller, error) {
	certificate, err := selfSigned()
	if err != nil {
		return nil, err
	}
	backends := &upstream.Env{Loops: p.loops, Work: p.work, AllowCIDRs: p.allowBackends, Log: p.log, OwnPorts: p.ownPorts}
	return watcher.NewController(watcher.ControllerConfig{
		Source: p.source,
		Translator: func(yield func()) watcher.Translator {
			o := translateOptions(&p.options)
			o.Yield = yield
			return translate.New(o)
		},
		Store: p.store,
		Env: route.Env{
			NewCluster:  func(id string, s upstream.Settings) *upstream.Cluster { return upstream.NewCluster(id, backends, s) },
			Loops:       len(p.loops),
			SelfSigned:  certificate,
			Buckets:     p.buckets(),
			StatsByHost: p.metricsPerHost,
			Share:       p.work.Share,
		},
		Work:    p.work,
		Journal: &p.applies,
		Ports:   p.services,
		Log:     p.log,
	}), nil
}

func (p *proxy) newTranslator() *translate.Translator {
	return translate.New(translateOptions(&p.options))
}

// ownPorts are those on which this process listens. Any goroutine may ask.
func (p *proxy) ownPorts() []uint16 {
	list := []uint16{uint16(p.httpPort), uint16(p.httpsPort), uint16(p.adminPort.Load()), uint16(p.metricsPort.Load()), uint16(p.webhookPort.Load())}
	for b := range p.store.Load().Services() {
		if b.Protocol == route.TCP {
			list = append(list, b.Port)
		}
	}
	return list
}

// start opens everything. Ports are bound once the first snapshot is in place, so that an open port serves.
func (p *proxy) start(ctx context.Context) error {
	raiseOpenFiles(p.log)
	cpus := processors{len(p.loops), p.workPermits}
	cpus.set(false)
	p.work.Computing = cpus.set
	for _, line := range p.ignored {
		p.log.Warn("a flag of ingress-nginx is ignored: " + line)
	}
	for _, l := range slices.Concat(p.loops, p.porches) {
		p.running.Go(l.Run)
	}
	early := p.legacy == nil // else the predecessor answers probes until this process serves
	if early {
		if err := p.openAdmin(); err != nil {
			return err
		}
	}
	earlyMetrics := early && !p.reusePort // else nobody is to be told that a process is not ready which shares its port with one that is
	if earlyMetrics {
		if err := p.openMetrics(); err != nil {
			return err
		}
	}
	p.watch()
	select {
	case <-p.controller.Ready():
	case <-ctx.Done():
		return nil
	}
	p.access.Open(p.controller.Process().Logs)
	// Before the doors: what fails here must not take ports from who serves.
	if err := p.openWebhook(); err != nil {
		return err
	}
	if !earlyMetrics {
		if err := p.checkMetrics(); err != nil {
			return err
		}
	}
	if err := p.openDoors(); err != nil {
		return err
	}
	p.claimPorts(ctx)
	p.phase.CompareAndSwap(phaseStarting, phaseServing)
	if !early {
		if err := p.openAdmin(); err != nil {
			return err
		}
	}
	if !earlyMetrics {
		if err := p.openMetrics(); err != nil {
			return err
		}
		p.claimMetrics(ctx)
	}
	p.log.Info("serving", p.addresses()...)
	if p.serving != nil {
		p.serving()
	}
	return nil
}

// openAdmin opens the page for operators.
func (p *proxy) openAdmin() (err error) {
	if p.adminAddress == "" {
		return nil
	}
	p.adminOpened, err = p.admin.Listen(listen.Options{Name: "admin", Address: p.adminAddress, Legacy: p.legacy})
	if err != nil {
		return fmt.Errorf("%w: choose another --admin-address, or --admin-address= for none", err)
	}
	p.adminPort.Store(portOf(p.adminOpened))
	p.log.Info("the admin page is open", "address", p.adminOpened)
	return nil
}

// openMetrics opens the address of metrics and probes that the network sees.
func (p *proxy) openMetrics() error {
	if p.metricsAddress == "" {
		return nil
	}
	opened, err := p.admin.ListenMetrics(p.metricsOptions())
	if err != nil {
		return badMetricsAddress(err)
	}
	p.metricsPort.Store(portOf(opened))
	p.log.Info("metrics are open", "address", opened)
	return nil
}

// checkMetrics tells why that address could not be opened later.
func (p *proxy) checkMetrics() error {
	if p.metricsAddress == "" {
		return nil
	}
	if err := listen.Check(p.metricsOptions()); err != nil {
		return badMetricsAddress(err)
	}
	return nil
}

func (p *proxy) metricsOptions() listen.Options {
	return listen.Options{Name: "metrics", Address: p.metricsAddress, Share: p.reusePort, Legacy: p.legacy}
}

func badMetricsAddress(err error) error {
	return fmt.Errorf("%w: choose another --metrics-address", err)
}

// watch starts the watcher, and what has to happen now and then.
func (p *proxy) watch() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() {
		defer close(p.watched)
		p.watched <- p.controller.Run(ctx)
	}()
	go p.tick(ctx)
	go keepMemory(ctx, p.restTLS)
}

// restTLS has the loops' TLS connections let go of what they can make again.
func (p *proxy) restTLS() {
	done := make(chan struct{}, len(p.loops))
	for _, l := range p.loops {
		l.Post(func() {
			l.RestTLS()
			done <- struct{}{}
		})
	}
	for range p.loops {
		select {
		case <-done:
		case <-time.After(memoryTick): // the loop is held up, or has ended
			return
		}
	}
}

// logTick is how long a line of the access log waits on a loop that has fallen silent.
const logTick = time.Second

func (p *proxy) tick(ctx context.Context) {
	ticker := time.NewTicker(logTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, l := range p.loops {
				l.Post(func() { p.access.Tick(l.ID) })
			}
			p.noticeBind()
			p.followLogs()
		}
	}
}

// bindAddress is where the doors are to be; the flag wins over the ConfigMap.
func (p *proxy) bindAddress() netip.Addr {
	if p.bind.IsValid() {
		return p.bind
	}
	return p.controller.Process().BindAddress
}

// followLogs has the access log go where the ConfigMap says; at first start does.
func (p *proxy) followLogs() {
	if p.phase.Load() != phaseStarting {
		p.access.Open(p.controller.Process().Logs)
	}
}

// noticeBind says, once, that a port does not move while it serves.
func (p *proxy) noticeBind() {
	if now := p.bindAddress(); p.phase.Load() == phaseServing && now != p.toldBind {
		p.toldBind = now
		p.log.Warn("bind-address has changed: it takes effect when the process is started again", "address", now)
	}
}

func (p *proxy) openDoors() error {
	process, address := p.controller.Process(), p.bindAddress()
	p.bound, p.toldBind = address, address
	host := ""
	if address.IsValid() {
		host = address.String()
	}
	for _, d := range p.doors {
		opened, err := d.Listen(listen.Options{Name: d.name, Address: net.JoinHostPort(host, strconv.Itoa(d.port)),
			Share: p.reusePort, Legacy: p.legacy})
		if err != nil {
			return fmt.Errorf("%w: choose another --%s-port or --bind-address%s", err, d.name, lowPortHint(d.port, err))
		}
		d.address, d.open = opened, true
		if p.legacy != nil && address.IsValid() && opened.Addr() != address {
			p.log.Warn("bind-address has changed: it takes effect when the process is started again, not by an upgrade", "port", d.name, "address", opened)
		}
	}
	p.services.start()
	if protocol := process.ProxyProtocol; protocol.Enabled && len(protocol.Trusted) == 0 {
		p.log.Warn("every connection must begin with a PROXY header, whoever sends it: name the load balancers in proxy-real-ip-cidr")
	}
	return nil
}

// lowPortHint tells what ports below 1024 need.
func lowPortHint(port int, err error) string {
	if port < 1024 && errors.Is(err, syscall.EACCES) {
		return "; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
	}
	return ""
}

// addresses are those of the doors, as attributes for the log.
func (p *proxy) addresses() (list []any) {
	for _, d := range p.doors {
		list = append(list, slog.String(d.name, d.address.String()))
	}
	return append(list, slog.Int("loops", len(p.loops)), slog.String("version", versionText()))
}
