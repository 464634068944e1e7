// Package l7 is everything that faces an HTTP client. An engine (http1; later http2, http3) turns bytes into an Exchange;
// serve leads it through the route's filters; forward sends it to an endpoint and relays the answer.
//
// An exchange has two sides, each behind one small interface: Client towards the client, upstream.Stream towards the
// backend. Neither filters nor forward know a protocol. Everything of an exchange happens on the loop of its client
// connection, without a lock, a goroutine or an allocation; waiting work parks the exchange behind a fastpath.Ticket.
package l7
