package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/sluiceproxy/sluice/listen"
)

// What a peer of the admin server may cost.
const (
	headBytesMax   = 8 << 10 // request line and header fields
	bodyBytesMax   = 1 << 10 // nothing here takes a body
	connectionsMax = 128
	readTimeout    = 5 * time.Second  // a whole request
	writeTimeout   = 60 * time.Second // a whole response: a scrape of a large cluster over a slow link
	idleTimeout    = 75 * time.Second
)

// Options are what the admin server is told once.
type Options struct {
	Version   string
	Pprof     bool // serve /debug/pprof/
	NoMetrics bool // /metrics is not served
	OwnNames  bool // metrics that ingress-nginx has too bear our own names instead of its

	StatusClasses bool     // the statuses of requests are shown as 2xx, 3xx, …
	Excluded      []string // metrics that are left out: names from RouteMetric

	Controller Controller
	Now        func() time.Time // nil: time.Now
	Log        *slog.Logger     // nil: slog.Default
}

// Controller says which ingress controller this is: constant labels of ingress-nginx's metrics.
type Controller struct{ Class, Namespace, Pod string }

func (c Controller) labels() prometheus.Labels {
	return prometheus.Labels{"controller_class": c.Class, "controller_namespace": c.Namespace, "controller_pod": c.Pod}
}

// Server is the admin server. New, Listen and ListenMetrics, Shutdown, each once.
type Server struct {
	options Options
	sources Sources
	admin   *front // every page
	metrics *front // what the network may see: metrics and probes

	describing atomic.Bool // /debug/snapshot is being made
	profiling  atomic.Bool // a timed profile is being taken
}

// New makes a server that shows s.
func New(o Options, s Sources) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	a := &Server{options: o, sources: s}
	pages := a.newPages()
	a.admin, a.metrics = a.newFront(pages), a.newFront(a.publicPages(pages))
	return a
}

// Listen opens the page for operators and begins to serve it. It answers the address, with the port that the system
// chose for port 0.
func (a *Server) Listen(o listen.Options) (string, error) {
	if err := a.admin.listen(o); err != nil {
		return "", fmt.Errorf("admin address: %w", err)
	}
	return a.admin.socket.String(), nil
}

// ListenMetrics opens a second address, for metrics and probes alone.
func (a *Server) ListenMetrics(o listen.Options) (string, error) {
	if err := a.metrics.listen(o); err != nil {
		return "", fmt.Errorf("metrics address: %w", err)
	}
	return a.metrics.socket.String(), nil
}

// Sockets are those that are open, to be shared or passed on.
func (a *Server) Sockets() (list []*listen.Socket) {
	for _, f := range []*front{a.admin, a.metrics} {
		if f.socket != nil {
			list = append(list, f.socket)
		}
	}
	return list
}

// StepAside gives the port of the metrics to another process that shares it, and closes it. False: there is no such
// process, and it goes on serving, so that load balancers are told that this one ends.
func (a *Server) StepAside(ctx context.Context) bool {
	f := a.metrics
	if f.socket == nil || !f.socket.Yield(ctx) {
		return false
	}
	f.socket.StepAside(ctx, f.accepted.Load)
	_ = f.socket.TurnAway() // what strays here now tries again, and comes to the other one
	listen.Emptied(ctx, f.socket)
	_ = f.shutdown(ctx)
	return true
}

// Shutdown stops accepting, lets requests under way end until ctx is done, and closes idle connections.
func (a *Server) Shutdown(ctx context.Context) error {
	return errors.Join(a.admin.shutdown(ctx), a.metrics.shutdown(ctx))
}

func (a *Server) recovered(ctx *fasthttp.RequestCtx) {
	if p := recover(); p != nil {
		a.options.Log.Error("an admin page panicked; everything else serves on: please report this",
			"page", string(ctx.Path()), "panic", p, "stack", string(debug.Stack()))
		ctx.Response.Reset()
		ctx.Response.SetConnectionClose()
		text(ctx, fasthttp.StatusInternalServerError, "this page has a defect; the log tells more\n")
	}
}

// refuse answers what could not be read as a request.
func refuse(ctx *fasthttp.RequestCtx, err error) {
	var large *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.As(err, &large):
		text(ctx, fasthttp.StatusRequestHeaderFieldsTooLarge, "the head is too large\n")
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		text(ctx, fasthttp.StatusRequestEntityTooLarge, "nothing here takes a body\n")
	case errors.As(err, &network) && network.Timeout():
		text(ctx, fasthttp.StatusRequestTimeout, "the request did not come in time\n")
	default:
		text(ctx, fasthttp.StatusBadRequest, "that is no request\n")
	}
}

func text(ctx *fasthttp.RequestCtx, status int, body string) {
	ctx.SetStatusCode(status)
	ctx.SetContentType("text/plain; charset=utf-8")
	ctx.SetBodyString(body)
}
