package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/valyala/fasthttp"

	"github.com/sluiceproxy/sluice/listen"
)

// front is one address at which some pages are served.
type front struct {
	server *Server
	pages  []page
	http   *fasthttp.Server

	socket   *listen.Socket // nil: never opened
	accepted atomic.Uint64
	served   chan struct{} // closed when accepting has ended
}

func (a *Server) newFront(pages []page) *front {
	f := &front{server: a, pages: pages, served: make(chan struct{})}
	f.http = &fasthttp.Server{
		Handler:               f.serve,
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
		Logger:                quiet{a.options.Log},
	}
	return f
}

func (f *front) listen(o listen.Options) error {
	socket, err := listen.Open(o)
	if err != nil {
		return err
	}
	ln, err := socket.Listener()
	if err != nil {
		_ = socket.Close()
		return fmt.Errorf("listen on %s: %w", socket, err)
	}
	f.socket = socket
	go func() {
		defer close(f.served)
		if err := f.http.Serve(counting{ln, &f.accepted}); err != nil && !errors.Is(err, net.ErrClosed) {
			f.server.options.Log.Error("the admin server stopped: metrics and probes are not served any more; restart the process", "error", err)
		}
	}()
	return nil
}

// counting is a listener that counts what it accepts.
type counting struct {
	net.Listener
	n *atomic.Uint64
}

// Accept implements net.Listener.
func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

func (f *front) shutdown(ctx context.Context) error {
	if f.socket == nil {
		return nil
	}
	err := f.http.ShutdownWithContext(ctx)
	_ = f.socket.Close() // Serve may not have told fasthttp of it yet; a second Close is no harm
	select {
	case <-f.served:
	case <-ctx.Done():
		return ctx.Err()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// serve leads every request: method, page, answer. A defect in a page costs that request only.
func (f *front) serve(ctx *fasthttp.RequestCtx) {
	defer f.server.recovered(ctx)
	ctx.Response.Header.Set("Cache-Control", "no-store")
	ctx.Response.Header.Set("X-Content-Type-Options", "nosniff")
	if pod := f.server.options.Controller.Pod; pod != "" { // two pods of a node may share the port
		ctx.Response.Header.Set("Sluice-Pod", pod)
	}
	if !ctx.IsGet() && !ctx.IsHead() {
		ctx.Response.Header.Set("Allow", "GET, HEAD")
		text(ctx, fasthttp.StatusMethodNotAllowed, "only GET and HEAD are served here\n")
		return
	}
	for i := range f.pages {
		if f.pages[i].serves(ctx.Path()) {
			f.pages[i].serve(ctx)
			return
		}
	}
	text(ctx, fasthttp.StatusNotFound, "there is no such page; / lists those that there are\n")
}

// quiet is fasthttp's logger: what it reports are the faults of peers.
type quiet struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (q quiet) Printf(format string, args ...any) {
	q.log.Debug("admin connection: " + fmt.Sprintf(format, args...))
}
