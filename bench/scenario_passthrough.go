package main

import "context"

// Pass-through rows: TLS ends at the origin; the proxy reads the ClientHello and then moves bytes. Client and
// origin do the cryptography in Go and are the bottleneck; only the proxy's CPU is counted.

const (
	passBulkConns = 8
	passClients   = 16
)

func passBulk(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{
		address: p.pass, host: hostPass, path: pathBulk, conns: passBulkConns,
		tls: r.certificate.client(hostPass, false),
	}
	return r.measure(ctx, p, l, loadConns, r.origin.tls)
}

func passConnections(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{
		address: p.pass, host: hostPass, path: pathSmall, conns: passClients, fresh: true,
		tls: r.certificate.client(hostPass, false),
	}
	return r.measure(ctx, p, l, loadConns, r.origin.tls)
}
