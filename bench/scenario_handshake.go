package main

import "context"

// handshakeClients is more than two cores can serve at once, so the proxy never waits for a client.
const handshakeClients = 16

// handshakes opens a new TLS connection for every request: the cost is nearly all handshake.
func handshakes(modern bool) func(context.Context, *rig, *running) (measurement, error) {
	return func(ctx context.Context, r *rig, p *running) (measurement, error) {
		l := load{
			address: p.tls, host: hostBench, path: pathSmall, conns: handshakeClients, fresh: true,
			tls: r.certificate.client(hostBench, modern),
		}
		return r.measure(ctx, p, l, loadConns, r.origin.plain)
	}
}
