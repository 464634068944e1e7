// Package admin is the operator's window: /metrics, /healthz, /readyz and the pages under /debug. It looks into every
// room and changes nothing; nobody imports it but main.
//
// Sources is all that it sees, given by main: pointers to what may be read from any goroutine, and functions for the
// rest. What is nil is not shown. Every metric's name and help text stands in metrics.go: they are a contract with
// operators, which a golden file holds.
//
// The server is for operators and for a cluster's own probes, on an address that strangers cannot reach (by default
// loopback). It still bounds what a peer may cost: methods, head and body, time, connections. fasthttp serves it.
package admin
