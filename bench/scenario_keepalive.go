package main

import (
	"context"
	"fmt"
)

// Keep-alive rows: connections are opened before the measured window and kept. CPU is divided by requests, or by
// bytes where the bodies are large.

func keepAlive(conns int, path string) func(context.Context, *rig, *running) (measurement, error) {
	return func(ctx context.Context, r *rig, p *running) (measurement, error) {
		l := load{address: p.plain, host: hostBench, path: path, conns: conns}
		return r.measure(ctx, p, l, r.keepAlive, r.origin.plain)
	}
}

func keepAliveTLS(conns int, path string) func(context.Context, *rig, *running) (measurement, error) {
	return func(ctx context.Context, r *rig, p *running) (measurement, error) {
		l := load{address: p.tls, host: hostBench, path: path, conns: conns, tls: r.certificate.client(hostBench, false)}
		return r.measure(ctx, p, l, r.keepAlive, r.origin.plain)
	}
}

// measure probes l, makes it, and counts the cost by its path: requests for small answers, gigabytes for large.
func (r *rig) measure(ctx context.Context, p *running, l load, by loadFunc, work tallyFile) (measurement, error) {
	seen, err := probe(ctx, l)
	if err != nil {
		return measurement{}, err
	}
	l.wire = seen.wire
	w, err := r.underLoad(ctx, p, l, by, work)
	if err != nil {
		return measurement{}, fmt.Errorf("under load: %w", err)
	}
	m := w.measurement()
	m.Handshake = seen.handshake()
	if l.path == pathBulk {
		m.costs(w, float64(w.work.Bytes)/1e9, 1e3)
	} else {
		m.costs(w, float64(w.work.Requests), 1e6)
	}
	return m, nil
}

func (p probed) handshake() string {
	if p.curve == "" {
		return ""
	}
	return p.curve + ", " + p.suite
}
