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

// keepHTTP2 is l over TLS, in HTTP/2.
func keepHTTP2(l load) func(context.Context, *rig, *running) (measurement, error) {
	l.host, l.speaks = hostBench, speakHTTP2
	return func(ctx context.Context, r *rig, p *running) (measurement, error) {
		l := l
		l.address, l.tls = p.tls, r.certificate.clientHTTP2(l.host)
		m, err := r.measure(ctx, p, l, loadKept, r.origin.plain)
		return m, orLacking("HTTP/2", err)
	}
}

// oneStream is l over a single stream. So few bodies end within a window that its rate is told by the bytes of their parts.
func oneStream(l load) func(context.Context, *rig, *running) (measurement, error) {
	l.conns, l.streams = 1, 1
	measure := keepHTTP2(l)
	return func(ctx context.Context, r *rig, p *running) (measurement, error) {
		m, err := measure(ctx, r, p)
		m.Rate = m.MBPerSecond * 1e6 / sizeHuge
		return m, err
	}
}

func crossCheckHTTP2(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{
		address: p.tls, host: hostBench, path: pathSmall, conns: 10, streams: 10, speaks: speakHTTP2,
		tls: r.certificate.clientHTTP2(hostBench),
	}
	m, err := r.measure(ctx, p, l, loadH2load, r.origin.plain)
	return m, orLacking("HTTP/2", err)
}

func keepGRPC(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{
		address: p.tls, host: hostGRPC, conns: 10, streams: 10, speaks: speakGRPC,
		tls: r.certificate.clientHTTP2(hostGRPC),
	}
	m, err := r.measure(ctx, p, l, loadKept, r.origin.plain)
	return m, orLacking("gRPC", err)
}

func keepWebSocket(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{address: p.plain, host: hostBench, conns: 64, speaks: speakWebSocket}
	m, err := r.measure(ctx, p, l, loadKept, r.origin.plain)
	return m, orLacking("WebSocket", err)
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
	if l.path == pathBulk || l.path == pathHuge || l.upload > 0 {
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
