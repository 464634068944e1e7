// Package upstream is everything that faces a backend: it picks an endpoint of a cluster, hands out a session of the
// caller's loop to it, and judges which endpoints are usable.
//
//	e := cluster.Pick(upstream.Wish{Loop: l.ID})       // values, never an exchange; no lock, no allocation
//	s, ready, err := e.Open(l, peer, upstream.OpenOptions{})
//	// ready: s is an idle session's; else peer.OnStream follows; then Send, ReadHead, ReadBody …, Release
//
// A Cluster is state: endpoints with their idle sessions, health and counters. It outlives every snapshot and hangs on
// an identity, not on a value. Its Settings stand beside it and may be replaced at any time; its endpoints change by a
// verb of their own, Apply, which recompiles nothing. Both build a new view behind one atomic pointer.
//
// Idle sessions belong to a loop: Endpoint.idle of a loop is touched by that loop only, and removal posts to every loop.
// What loops share (ejection, the balancers' count of streams under way) are padded atomics.
//
// Nothing is dialled that docs/hardening.md 3.1 rule 7 forbids, whether an address was named or came from DNS.
package upstream
