package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
)

// scrapesMax is how many scrapers are answered at once: each holds the whole text in memory.
const scrapesMax = 4

// page is one path and what it shows. A path that ends in "/" stands for all below it, "/" itself excepted.
type page struct {
	path  string
	about string
	serve fasthttp.RequestHandler
}

func (p *page) serves(path []byte) bool {
	if strings.HasSuffix(p.path, "/") && p.path != "/" {
		return bytes.HasPrefix(path, []byte(p.path)) || string(path) == p.path[:len(p.path)-1]
	}
	return string(path) == p.path
}

// newPages is all that is served, in the index's order.
func (a *Server) newPages() []page {
	list := []page{
		{"/", "this list", a.index},
		{"/healthz", "200 while the process works, 500 in its last moments", a.healthz},
		{"/readyz", "200 while traffic may come here, else 503 and why", a.readyz},
		{"/debug/problems", "what of the configuration is not taken, and the remedy", a.problems},
		{"/debug/snapshot", "the configuration as it is served, as JSON", a.snapshot},
		{"/debug/explain", "what takes a request and why, as JSON: ?method=GET&url=https://host/path&header=Name: value", a.explain},
	}
	if !a.options.NoMetrics {
		list = slices.Insert(list, 3, page{"/metrics", "counters and gauges for Prometheus", a.newMetricsPage()})
	}
	if a.options.Pprof {
		list = append(list, page{"/debug/pprof/", "profiles of this process", a.newProfilePage()})
	}
	return list
}

// publicPages are those that the network may see: they tell no routes, and of the probes what is true of the port.
func (a *Server) publicPages(pages []page) (list []page) {
	for _, p := range pages {
		switch p.path {
		case "/healthz":
			p.serve = func(ctx *fasthttp.RequestCtx) { probe(ctx, a.sources.PortAlive, fasthttp.StatusInternalServerError) }
		case "/readyz":
			p.serve = func(ctx *fasthttp.RequestCtx) { probe(ctx, a.sources.PortReady, fasthttp.StatusServiceUnavailable) }
		case "/metrics":
		default:
			continue
		}
		list = append(list, p)
	}
	return list
}

func (a *Server) healthz(ctx *fasthttp.RequestCtx) {
	probe(ctx, a.sources.Alive, fasthttp.StatusInternalServerError)
}

func (a *Server) readyz(ctx *fasthttp.RequestCtx) {
	probe(ctx, a.sources.Ready, fasthttp.StatusServiceUnavailable)
}

// probe answers 200 or no, with the reason. Who cannot be asked is not well.
func probe(ctx *fasthttp.RequestCtx, ask func() (bool, string), no int) {
	ok, why := false, "nobody knows yet"
	if ask != nil {
		ok, why = ask()
	}
	status := fasthttp.StatusOK
	if !ok {
		status = no
	}
	if why == "" && ok {
		why = "ok"
	}
	text(ctx, status, why+"\n")
}

// newMetricsPage makes the page of our own series, the Go runtime's and the process's.
func (a *Server) newMetricsPage() fasthttp.RequestHandler {
	m := newMetrics(a.options.OwnNames, a.options.Controller.labels())
	m.exclude(a.options.Excluded)
	r := prometheus.NewRegistry()
	r.MustRegister(
		&collector{metrics: m, options: &a.options, sources: &a.sources},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorHandling:  promhttp.ContinueOnError, // one bad series must not hide all others
		ErrorLog:       scrapeLog{a},
		CoalesceGather: true, // who asks while a scrape is made gets that one

		MaxRequestsInFlight: scrapesMax,
	}))
}

// scrapeLog is promhttp's logger.
type scrapeLog struct{ *Server }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	l.options.Log.Warn("a scrape is not complete: please report this", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}

func (a *Server) problems(ctx *fasthttp.RequestCtx) {
	var b strings.Builder
	if a.sources.Problems != nil {
		for _, p := range a.sources.Problems() {
			b.WriteString(p.String())
			b.WriteByte('\n')
		}
	}
	text(ctx, fasthttp.StatusOK, b.String())
}

// explain tells what becomes of a request.
func (a *Server) explain(ctx *fasthttp.RequestCtx) {
	if a.sources.Explain == nil {
		text(ctx, fasthttp.StatusNotFound, "there is nothing to explain\n")
		return
	}
	if !a.describing.CompareAndSwap(false, true) {
		ctx.Response.Header.Set("Retry-After", "1")
		text(ctx, fasthttp.StatusServiceUnavailable, "something is being explained to somebody else; try again\n")
		return
	}
	defer a.describing.Store(false)
	q := ctx.QueryArgs()
	method := string(q.Peek("method"))
	if method == "" {
		method = "GET"
	}
	var fields []string
	for _, f := range q.PeekMulti("header") {
		fields = append(fields, string(f))
	}
	explained, err := a.sources.Explain(method, string(q.Peek("url")), fields)
	if err != nil {
		text(ctx, fasthttp.StatusBadRequest, err.Error()+"\n")
		return
	}
	b, err := json.MarshalIndent(explained, "", "  ")
	if err != nil {
		text(ctx, fasthttp.StatusInternalServerError, "the explanation cannot be shown\n")
		return
	}
	ctx.SetContentType("application/json")
	ctx.SetBody(append(b, '\n'))
}

// snapshot shows the routes. Whoever describes them leaves secrets out; should that ever fail, nothing is shown at all.
func (a *Server) snapshot(ctx *fasthttp.RequestCtx) {
	if a.sources.Snapshot == nil {
		text(ctx, fasthttp.StatusNotFound, "there is no snapshot to show\n")
		return
	}
	if !a.describing.CompareAndSwap(false, true) { // it may be large
		ctx.Response.Header.Set("Retry-After", "1")
		text(ctx, fasthttp.StatusServiceUnavailable, "the snapshot is being shown to somebody else; try again\n")
		return
	}
	defer a.describing.Store(false)
	body, err := json.MarshalIndent(a.sources.Snapshot(), "", " ")
	if err != nil {
		a.options.Log.Error("the snapshot cannot be shown: please report this", "error", err)
		text(ctx, fasthttp.StatusInternalServerError, "the snapshot cannot be shown; the log tells why\n")
		return
	}
	if holdsKey(body) {
		a.options.Log.Error("the description of the snapshot holds key material and is not shown: please report this")
		text(ctx, fasthttp.StatusInternalServerError, "the description holds what must not be shown; please report this\n")
		return
	}
	ctx.SetContentType("application/json")
	ctx.Response.SetBodyRaw(append(body, '\n'))
}

// Marks of PEM blocks of keys, and of any PEM block where encoding/json met it as []byte.
var keyMarks = [][]byte{[]byte("PRIVATE KEY-----"), []byte("LS0tLS1CRUdJTi")}

func holdsKey(body []byte) bool {
	for _, mark := range keyMarks {
		if bytes.Contains(body, mark) {
			return true
		}
	}
	return false
}

func (a *Server) index(ctx *fasthttp.RequestCtx) {
	state := a.state()
	if !bytes.Contains(ctx.Request.Header.Peek("Accept"), []byte("text/html")) {
		var b strings.Builder
		fmt.Fprintf(&b, "Sluice %s\n\n%s\n", a.options.Version, state)
		for _, p := range a.admin.pages {
			fmt.Fprintf(&b, "%-18s %s\n", p.path, p.about)
		}
		text(ctx, fasthttp.StatusOK, b.String())
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<title>Sluice</title>\n<h1>Sluice %s</h1>\n<pre>%s</pre>\n<ul>\n",
		html.EscapeString(a.options.Version), html.EscapeString(state))
	for _, p := range a.admin.pages {
		fmt.Fprintf(&b, "<li><a href=\"%s\">%[1]s</a>: %s\n", p.path, p.about)
	}
	b.WriteString("</ul>\n")
	ctx.Response.Header.Set("Content-Security-Policy", "default-src 'none'")
	ctx.SetContentType("text/html; charset=utf-8")
	ctx.SetBodyString(b.String())
}

// state says in a few lines how things stand.
func (a *Server) state() string {
	var b strings.Builder
	if a.sources.Ready != nil {
		if ok, why := a.sources.Ready(); ok {
			b.WriteString("ready\n")
		} else {
			fmt.Fprintf(&b, "not ready: %s\n", why)
		}
	}
	if a.sources.Applies != nil {
		if s := a.sources.Applies.sums(); s.applied > 0 {
			fmt.Fprintf(&b, "configuration: %d applied, the last one %s ago\n", s.applied, a.options.Now().Sub(s.last).Round(1e9))
		} else {
			b.WriteString("configuration: none yet\n")
		}
	}
	if a.sources.Problems != nil {
		fmt.Fprintf(&b, "problems: %d\n", len(a.sources.Problems()))
	}
	if a.sources.HTTP != nil {
		fmt.Fprintf(&b, "requests under way: %d\n", a.sources.HTTP.Active())
	}
	return b.String()
}
