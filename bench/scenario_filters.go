package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Rows with filters on the route. A proxy that leaves one out would look fast, so each is looked for first: the
// rewrite by the answer that only the rewritten path has, the log by its line, CORS by its fields, the limit by a
// route that allows one request a second.

const (
	filtersConns   = 64
	filteredSmall  = "/api" + pathSmall
	filteredBulk   = "/api" + pathBulk
	limitedBurst   = 40 // requests at once on a route that allows few
	filtersOrigin  = "https://app.example"
	logAppearLimit = 3 * time.Second
	logEmptyEvery  = 20 * time.Millisecond
)

// corsFields is what an answer with CORS says, by name: ingress-nginx's defaults, and that it varies by origin. All have to say the same, or the load
// is not the same work.
var corsFields = map[string]string{
	"Access-Control-Allow-Origin":      filtersOrigin,
	"Access-Control-Allow-Credentials": "true",
	"Access-Control-Allow-Methods":     "GET, PUT, POST, DELETE, PATCH, OPTIONS",
	"Access-Control-Allow-Headers":     "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization",
	"Access-Control-Max-Age":           "1728000",
	"Vary":                             "Origin",
}

// chainLoad comes from a script of the site that CORS allows: to others its filter has nothing to say, and nothing to do.
func chainLoad(p *running) load {
	return load{address: p.plain, host: hostChain, path: filteredSmall, conns: filtersConns, origin: filtersOrigin}
}

// bareLoad is the same on a route without filters.
func bareLoad(p *running) load {
	l := chainLoad(p)
	l.host, l.path = hostBench, pathSmall
	return l
}

func noFilters(c candidate) error {
	if !c.filters {
		return fmt.Errorf("no configuration with filters is written for %s", c.name)
	}
	return nil
}

func filtersRewrite(ctx context.Context, r *rig, p *running) (measurement, error) {
	if err := errors.Join(checkRewrite(ctx, p, hostRewrite), checkLog(ctx, p)); err != nil {
		return measurement{}, err
	}
	return r.measureLogged(ctx, p, load{address: p.plain, host: hostRewrite, path: filteredSmall, conns: filtersConns})
}

// measureLogged measures requests that are logged. The log is emptied all the while: it grows by 25 MB a second, and where
// it only grows, its writer pays for memory that the machine has not used before (a virtual machine's was its host's: 70 to
// 120 µs for 64 KiB instead of 16), and whoever is measured next for the disk.
func (r *rig) measureLogged(ctx context.Context, p *running, l load) (m measurement, err error) {
	ctx, stop := context.WithCancel(ctx)
	emptied := make(chan error, 1)
	go func() { emptied <- keepEmpty(ctx, p.deployment.AccessLog()) }()
	defer func() {
		stop()
		err = errors.Join(err, <-emptied)
	}()
	return r.measure(ctx, p, l, loadKept, r.origin.plain)
}

// keepEmpty truncates a file again and again until ctx ends.
func keepEmpty(ctx context.Context, path string) error {
	for sleep(ctx, logEmptyEvery) == nil {
		if err := os.Truncate(path, 0); err != nil {
			return err
		}
	}
	return nil
}

func filtersChain(ctx context.Context, r *rig, p *running) (measurement, error) {
	for _, check := range []func() error{
		func() error { return checkRewrite(ctx, p, hostChain) },
		func() error { return checkLog(ctx, p) },
		func() error { return checkCORS(ctx, p) },
		func() error { return checkLimit(ctx, p) },
	} {
		if err := check(); err != nil {
			return measurement{}, err
		}
	}
	return r.measureLogged(ctx, p, chainLoad(p))
}

// chainBesideBare divides what a request costs with the chain by what it costs the same process without.
func chainBesideBare(ctx context.Context, r *rig, p *running) (measurement, error) {
	bare, err := r.measure(ctx, p, bareLoad(p), loadKept, r.origin.plain)
	if err != nil {
		return measurement{}, err
	}
	m, err := filtersChain(ctx, r, p)
	if err != nil {
		return measurement{}, err
	}
	m.Extra = map[string]float64{"CPU µs/request with": m.Cost, "CPU µs/request without": bare.Cost}
	m.Cost /= bare.Cost
	m.alsoFailed(bare)
	return m, nil
}

// checkRewrite asks for a path that is the origin's large answer only once it is rewritten.
func checkRewrite(ctx context.Context, p *running, host string) error {
	answer, body, err := ask(ctx, p, host, filteredBulk)
	switch {
	case err != nil:
		return err
	case answer.StatusCode != http.StatusOK:
		return lacking{fmt.Sprintf("no rewrite: status %d", answer.StatusCode)}
	case body != sizeBulk:
		return lacking{fmt.Sprintf("no rewrite: %s was answered with %d bytes", filteredBulk, body)}
	}
	return nil
}

// checkLog looks for the line of the request that checkRewrite made.
func checkLog(ctx context.Context, p *running) error {
	for end := time.Now().Add(logAppearLimit); time.Now().Before(end); {
		text, err := os.ReadFile(p.deployment.AccessLog())
		if err == nil && bytes.Contains(text, []byte(filteredBulk)) {
			return nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return lacking{"no access log: its line did not come"}
}

func checkCORS(ctx context.Context, p *running) error {
	answer, _, err := ask(ctx, p, hostChain, filteredSmall)
	if err != nil {
		return err
	}
	for name, want := range corsFields {
		if got := strings.Join(answer.Header.Values(name), ", and again "); got != want {
			return lacking{fmt.Sprintf("no CORS: %s is %q and not %q", name, got, want)}
		}
	}
	return nil
}

func checkLimit(ctx context.Context, p *running) error {
	for range limitedBurst {
		answer, _, err := ask(ctx, p, hostLimited, pathSmall)
		if err != nil {
			return err
		}
		if s := answer.StatusCode; s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable {
			return nil
		}
	}
	return lacking{fmt.Sprintf("no rate limit: %d requests at once passed where one a second may", limitedBurst)}
}

// ask makes one request with an Origin and reads its answer.
func ask(ctx context.Context, p *running, host, path string) (*http.Response, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.plain+path, nil)
	if err != nil {
		return nil, 0, err
	}
	request.Host = host
	request.Header.Set("Origin", filtersOrigin)
	transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return nil, 0, err
	}
	defer answer.Body.Close()
	n, err := io.Copy(io.Discard, answer.Body)
	return answer, n, err
}
