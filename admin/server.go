package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
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
	Version    string
	Pprof      bool // serve /debug/pprof/
	OwnNames   bool // metrics that ingress-nginx has too bear our own names instead of its
	Controller Controller
	Now        func() time.Time // nil: time.Now
	Log        *slog.Logger     // nil: slog.Default
}

// Controller says which ingress controller this is: constant labels of ingress-nginx's metrics.
type Controller struct{ Class, Namespace, Pod string }

func (c Controller) labels() prometheus.Labels {
	return prometheus.Labels{"controller_class": c.Class, "controller_namespace": c.Namespace, "controller_pod": c.Pod}
}

// Server is the admin server. New, Listen, Shutdown, each once.
type Server struct {
	options Options
	sources Sources
	pages   []page
	http    *fasthttp.Server

	listener net.Listener
	served   chan struct{} // closed when accepting has ended

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
	a := &Server{options: o, sources: s, served: make(chan struct{})}
	a.pages = a.newPages()
	a.http = &fasthttp.Server{
		Handler:               a.serve,
		ErrorHandler:          refuse,
		NoDefaultServerHeader: true,
		ReadBufferSize:        headBytesMax,
		MaxRequestBodySize:    bodyBytesMax,
		Concurrency:           connectionsMax,
		ReadTimeout:           readTimeout,
		WriteTimeout:          writeTimeout,
		IdleTimeout:           idleTimeout,
		CloseOnShutdown:       true,
		SecureErrorLogMessage: true,
		Logger:                quiet{o.Log},
	}
	return a
}

// Listen binds address and begins to serve. It answers the address, with the port that the system chose for port 0.
func (a *Server) Listen(address string) (netip.AddrPort, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("admin address: %w", err)
	}
	a.listener = ln
	go func() {
		defer close(a.served)
		if err := a.http.Serve(ln); err != nil && !errors.Is(err, net.ErrClosed) {
			a.options.Log.Error("the admin server stopped: metrics and probes are not served any more; restart the process", "error", err)
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort(), nil
}

// Shutdown stops accepting, lets requests under way end until ctx is done, and closes idle connections.
func (a *Server) Shutdown(ctx context.Context) error {
	if a.listener == nil {
		return nil
	}
	err := a.http.ShutdownWithContext(ctx)
	_ = a.listener.Close() // Serve may not have told fasthttp of it yet; a second Close is no harm
	select {
	case <-a.served:
	case <-ctx.Done():
		return ctx.Err()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// serve leads every request: method, page, answer. A defect in a page costs that request only.
func (a *Server) serve(ctx *fasthttp.RequestCtx) {
	defer a.recovered(ctx)
	ctx.Response.Header.Set("Cache-Control", "no-store")
	ctx.Response.Header.Set("X-Content-Type-Options", "nosniff")
	if !ctx.IsGet() && !ctx.IsHead() {
		ctx.Response.Header.Set("Allow", "GET, HEAD")
		text(ctx, fasthttp.StatusMethodNotAllowed, "only GET and HEAD are served here\n")
		return
	}
	for i := range a.pages {
		if a.pages[i].serves(ctx.Path()) {
			a.pages[i].serve(ctx)
			return
		}
	}
	text(ctx, fasthttp.StatusNotFound, "there is no such page; / lists those that there are\n")
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

// quiet is fasthttp's logger: what it reports are the faults of peers.
type quiet struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (q quiet) Printf(format string, args ...any) {
	q.log.Debug("admin connection: " + fmt.Sprintf(format, args...))
}
