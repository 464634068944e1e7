package main

import (
	"context"
	"fmt"
	"strings"
)

// A scenario is one row of the comparison: what is done, in which unit its cost is counted, what must hold.
type scenario struct {
	name    string
	about   string
	unit    unit
	cost    bounds // of cost, "must" of PERFORMANCE.md
	rate    bounds // of requests/s; zero where the document asks for nothing
	p99     bounds // of the latency at a fixed rate
	vary    *vary  // what rows of a series differ in
	shape   shape  // of the configuration
	more    bool   // only with --all, or when it is named
	restart bool   // a new instance of the proxy for every round
	lacking func(candidate) error
	prepare func(context.Context, *instances, []candidate) error // before the first round; may be nil
	measure func(context.Context, *rig, *running) (measurement, error)
}

// vary places a row in a series: so many of something.
type vary struct {
	Of       string  `json:"of"`
	Quantity float64 `json:"quantity"`
}

// A unit says how a measurement's cost is to be read.
type unit struct {
	Name   string `json:"name"`
	Digits int    `json:"-"`
}

var (
	unitRequest    = unit{"CPU µs/request", 1}
	unitMessage    = unit{"CPU µs/message", 1}
	unitDatagram   = unit{"CPU µs/datagram there and back", 1}
	unitGB         = unit{"CPU ms/GB", 0}
	unitConnection = unit{"CPU µs/connection", 0}
	unitEffect     = unit{"ms to effect", 1}
	unitFailed     = unit{"failed requests", 0}
	unitTimes      = unit{"× CPU/request without", 2}
	unitMemory     = unit{"RSS KiB/connection", 2}
)

// quickScenarios is what --quick runs when nothing is named: one of each kind that needs no module.
const quickScenarios = "h1-c64,tls-c64,rate,h2-10x10,websocket,handshake,body-1m,idle-mem"

// scenarios is the table of all rows, in the order of the report.
var scenarios = []scenario{
	{name: "h1-c1", about: "plain keep-alive, 1 connection, 128 B answers", unit: unitRequest,
		cost: atMost(1.0, 0.95), measure: keepAlive(1, pathSmall)},
	{name: "h1-c64", about: "plain keep-alive, 64 connections, 128 B", unit: unitRequest,
		cost: atMost(0.80, 0.65).caddy(0.2), rate: atLeast(1.1, 1.1), measure: keepAlive(64, pathSmall)},
	{name: "h1-c512", about: "plain keep-alive, 512 connections, 128 B", unit: unitRequest,
		cost: atMost(0.80, 0.65).caddy(0.2), rate: atLeast(1.1, 1.1), measure: keepAlive(512, pathSmall)},
	{name: "tls-c64", about: "TLS 1.3 keep-alive, 64 connections, 128 B, ECDSA P-256", unit: unitRequest,
		cost: atMost(0.72, 0.62).caddy(0.25), rate: atLeast(1.1, 1.1), measure: keepAliveTLS(64, pathSmall)},
	{name: "rate", about: "plain, 64 connections, 128 B, at a fixed rate of at most half of what each proxy can do (open loop; rounds are 5 times as long)",
		unit: unitRequest, p99: atMost(1.0, 1.0), prepare: findRate, measure: atRate},
	{name: "h2-10x10", about: "HTTP/2 over TLS, 10 connections of 10 streams, 128 B", unit: unitRequest,
		cost: atMost(0.55, 0.65).caddy(0.15), measure: keepHTTP2(load{conns: 10, streams: 10, path: pathSmall})},
	{name: "h2-64x1", about: "HTTP/2 over TLS, 64 connections of 1 stream, 128 B", unit: unitRequest,
		cost: atMost(0.75, 0.75), measure: keepHTTP2(load{conns: 64, streams: 1, path: pathSmall})},
	{name: "h2-down-1m", about: "HTTP/2 over TLS, 8 connections, answers of 1 MiB (no bound)", unit: unitGB,
		measure: keepHTTP2(load{conns: 8, streams: 1, path: pathBulk})},
	{name: "h2-up-1m", about: "HTTP/2 over TLS, 8 connections, requests of 1 MiB (no bound)", unit: unitGB,
		measure: keepHTTP2(load{conns: 8, streams: 1, path: pathSmall, upload: sizeBulk})},
	{name: "h2-down-100m", about: "HTTP/2 over TLS, answers of 100 MiB on 1 connection of 1 stream; requests/s by bytes", unit: unitGB,
		rate: atLeast(0.9, 0), measure: oneStream(load{path: pathHuge})},
	{name: "h2-up-100m", about: "HTTP/2 over TLS, requests of 100 MiB on 1 connection of 1 stream; requests/s by bytes", unit: unitGB,
		rate: atLeast(0.9, 0), measure: oneStream(load{path: pathSmall, upload: sizeHuge})},
	{name: "grpc", about: "gRPC over TLS, unary calls of 128 B each way, 10 connections of 10 streams (no bound)",
		unit: unitRequest, measure: keepGRPC},
	{name: "websocket", about: "WebSocket ping-pong of 128 B, 64 plain connections (no bound)", unit: unitMessage,
		measure: keepWebSocket},
	{name: "handshake", about: "new TLS connections, one request each, X25519 only, no tickets", unit: unitConnection,
		cost: atMost(1.0, 0.9).caddy(0.95), measure: handshakes(false)},
	{name: "handshake-modern", about: "the same with X25519MLKEM768 and tickets offered, as browsers do (no bound)",
		unit: unitConnection, shape: shape{Modern: true}, measure: handshakes(true)},
	{name: "body-1m", about: "1 MiB bodies, 8 plain connections", unit: unitGB,
		cost: atMost(0.90, 0.70).caddy(0.45), measure: keepAlive(8, pathBulk)},
	{name: "pass-bulk", about: "TLS pass-through by SNI, 1 MiB bodies, 8 connections", unit: unitGB,
		cost: atMost(1.0, 0.9), lacking: noPassThrough, measure: passBulk},
	{name: "pass-conn", about: "new pass-through connections, one small TLS request each", unit: unitConnection,
		cost: atMost(1.0, 1.0), lacking: noPassThrough, measure: passConnections},
	{name: "filters", about: "plain, 64 connections, 128 B; CORS, rate limit, rewrite and access log on the route", unit: unitRequest,
		shape: shape{Filters: true}, lacking: noFilters, cost: atMost(0.9, 0), measure: filtersChain},
	{name: "chain", about: "what the row before costs beside a route of the same process without filters and log, one after the other in each round",
		unit: unitTimes, shape: shape{Filters: true}, lacking: noFilters, cost: ofItself(1.15), measure: chainBesideBare},
	{name: "idle-mem", about: "growth of RSS by an idle plain keep-alive connection", unit: unitMemory,
		cost: atMost(0.8, 0).caddy(0.1), restart: true, measure: idlePlain},
	{name: "idle-mem-tls", about: "growth of RSS by an idle TLS keep-alive connection", unit: unitMemory,
		cost: atMost(0.85, 0).caddy(0.1), restart: true, measure: idleTLS},
	{name: "idle-mem-h2", about: "growth of RSS by an idle HTTP/2 connection over TLS", unit: unitMemory,
		cost: atMost(0.8, 0).caddy(0.1), restart: true, measure: idleHTTP2},
	{name: "idle-mem-h2c", about: "growth of RSS by an idle HTTP/2 connection without TLS", unit: unitMemory,
		cost: atMost(0.8, 0), restart: true, lacking: noPlainHTTP2, measure: idlePlainHTTP2},

	// Beyond the steady state.
	{name: "svc-tcp", about: "new connections of a TCP service, one small plain request each (no bound)", unit: unitConnection,
		more: true, shape: shape{Services: true}, lacking: noService(serviceTCP), measure: tcpConnections},
	{name: "svc-udp", about: "a UDP service, 64 clients that each wait for an answer of 128 B to theirs (no bound)", unit: unitDatagram,
		more: true, shape: shape{Services: true}, lacking: noService(serviceUDP), measure: udpQuestions},
	{name: "h2-10x10-h2load", about: "h2-10x10 with load by h2load: a cross-check of our own (no bound)", unit: unitRequest,
		more: true, lacking: noH2load, measure: crossCheckHTTP2},
	{name: "filters-rewrite", about: "plain, 64 connections, 128 B; rewrite and access log on the route (no bound)", unit: unitRequest,
		more: true, shape: shape{Filters: true}, lacking: noFilters, measure: filtersRewrite},
	{name: "routes-10", about: "plain, 64 connections, 128 B, requests spread by chance over 10 routes of 1 host (no bound)", unit: unitRequest,
		more: true, vary: &vary{"routes", 10}, shape: shape{Routes: 10}, lacking: noManyRoutes, measure: amongRoutes},
	{name: "routes-1k", about: "… over 1,000 routes of 100 hosts (no bound)", unit: unitRequest,
		more: true, vary: &vary{"routes", 1000}, shape: shape{Routes: 1000}, lacking: noManyRoutes, measure: amongRoutes},
	{name: "routes-100k", about: "… over 100,000 routes of 10,000 hosts (no bound)", unit: unitRequest,
		more: true, vary: &vary{"routes", 100_000}, shape: shape{Routes: 100_000}, lacking: noManyRoutes, measure: amongRoutes},
	{name: "idle-0", about: "plain, 64 connections, 128 B, beside no idle connection (no bound)", unit: unitRequest,
		more: true, vary: &vary{"idle connections", 0}, measure: besideIdle(0)},
	{name: "idle-10k", about: "… beside 10,000 idle connections, or as many as descriptors allow (no bound)", unit: unitRequest,
		more: true, vary: &vary{"idle connections", 10_000}, measure: besideIdle(10_000)},
	{name: "swap-100", about: "the fixed rate while one of 100 Ingresses changes 100 times a second (no bound)", unit: unitRequest,
		more: true, shape: shape{Routes: 1000}, lacking: noSwaps, prepare: findRate, measure: duringChanges(100)},
	{name: "swap-10k", about: "the fixed rate while one of 10,000 Ingresses changes 5 times a second (no bound)", unit: unitRequest,
		more: true, shape: shape{Routes: 100_000}, lacking: noSwaps, prepare: findRate, measure: duringChanges(5)},
	{name: "effect-100", about: "time from a changed file to its effect, 100 Ingresses of 10 routes (no bound)", unit: unitEffect,
		more: true, shape: shape{Routes: 1000}, lacking: noChange, measure: timeToEffect},
	{name: "effect-10k", about: "… 10,000 Ingresses of 10 routes (no bound)", unit: unitEffect,
		more: true, shape: shape{Routes: 100_000}, lacking: noChange, measure: timeToEffect},
	{name: "reload", about: "requests that fail when the proxy reads all its configuration again under load (no bound)", unit: unitFailed,
		more: true, lacking: noReload, measure: underReload},
	{name: "quit", about: "requests that fail when the proxy is told to end in good order under load (no bound)", unit: unitFailed,
		more: true, restart: true, measure: underQuit(pathSmall)},
	{name: "quit-slow", about: "… while every answer takes the backend 300 ms (no bound)", unit: unitFailed,
		more: true, restart: true, measure: underQuit(pathSlow)},
}

// Names that stand for several rows.
var scenarioGroups = map[string]string{
	"idle-mem": "idle-mem,idle-mem-tls,idle-mem-h2",
	"h2":       "h2-10x10,h2-64x1,h2-down-1m,h2-up-1m,h2-down-100m,h2-up-100m,grpc,idle-mem-h2,idle-mem-h2c",
}

// scenariosNamed finds the rows of a list of names, in the table's order; for an empty list those of the steady state,
// or with more all of them.
func scenariosNamed(list string, more bool) ([]scenario, error) {
	wanted := map[string]bool{}
	for _, name := range splitList(list) {
		if group, ok := scenarioGroups[name]; ok {
			for _, member := range splitList(group) {
				wanted[member] = true
			}
			continue
		}
		wanted[name] = true
	}
	var found []scenario
	for _, s := range scenarios {
		if wanted[s.name] || len(wanted) == 0 && (more || !s.more) {
			found = append(found, s)
		}
	}
	for _, s := range found {
		delete(wanted, s.name)
	}
	for name := range wanted {
		return nil, fmt.Errorf("--scenarios: there is no %q; bench compare --help lists them", name)
	}
	return found, nil
}

func scenarioHelp() string {
	var b strings.Builder
	for _, s := range scenarios {
		mark := " "
		if s.more {
			mark = "+"
		}
		fmt.Fprintf(&b, "%s %-17s %s\n", mark, s.name, s.about)
	}
	return b.String()
}

func noPassThrough(c candidate) error { return c.passThrough }
