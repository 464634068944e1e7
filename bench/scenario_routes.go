package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// Rows over the number of routes: requests go to routes drawn by chance, so that tables, not one hot entry, are
// looked at. Every host has as many paths.

const (
	routesPerHost  = 10
	routesSampled  = 4096 // of which so many get requests
	routesConns    = 64
	routesWarm     = 2 * time.Second
	besideIdleLoad = 64 // connections at work beside idle ones
)

// RouteHosts and RoutePaths are what templates make routes of: every path of every host.
func (s shape) RouteHosts() []string {
	hosts := make([]string, (s.Routes+routesPerHost-1)/routesPerHost)
	for i := range hosts {
		hosts[i] = routeHost(i)
	}
	return hosts
}

func (shape) RoutePaths() []string {
	paths := make([]string, routesPerHost)
	for i := range paths {
		paths[i] = routePath(i)
	}
	return paths
}

func routeHost(i int) string { return "h" + strconv.Itoa(i) + ".routes.example" }
func routePath(i int) string { return "/p" + strconv.Itoa(i) }

// targets draws routes.
func (s shape) targets() []target {
	all := make([]target, min(routesSampled, s.Routes))
	for i := range all {
		n := rand.IntN(s.Routes)
		all[i] = target{routeHost(n / routesPerHost), routePath(n % routesPerHost)}
	}
	return all
}

func noManyRoutes(c candidate) error {
	if !c.manyRoutes {
		return fmt.Errorf("no configuration with many routes is written for %s", c.name)
	}
	return nil
}

func amongRoutes(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{address: p.plain, conns: routesConns, targets: p.deployment.targets()}
	l.host, l.path = l.targets[0].host, l.targets[0].path
	if !p.warm { // who has just read so much has much to touch for the first time
		p.warm = true
		if _, err := loadKept(ctx, l, routesWarm); err != nil {
			return measurement{}, fmt.Errorf("warm-up: %w", err)
		}
	}
	return r.measure(ctx, p, l, loadKept, r.origin.plain)
}

// besideIdle is the usual plain load while n other connections, each of which has made one request, stay
// open; fewer where descriptors do not suffice, and the report says how many.
func besideIdle(n int) func(context.Context, *rig, *running) (measurement, error) {
	return func(ctx context.Context, r *rig, p *running) (measurement, error) {
		n := min(n, r.descriptors/2-descriptorsSpare-besideIdleLoad)
		l := load{address: p.plain, host: hostBench, path: pathSmall}
		l.fresh = true // from several addresses
		crowd, opened := openCrowd(ctx, l, n)
		defer crowd.close()
		l.fresh, l.conns = false, besideIdleLoad
		m, err := r.measure(ctx, p, l, loadKept, r.origin.plain)
		m.Connections = len(crowd)
		m.Extra = map[string]float64{"idle connections": float64(len(crowd))}
		m.Errors += opened.errors + int64(crowd.closedByPeer())
		m.Bad += opened.bad
		if m.Example == "" {
			m.Example = opened.example
		}
		return m, err
	}
}
