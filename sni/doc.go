// Package sni is the door: everything between accept and the first HTTP byte or the first tunnelled one.
//
// What it promises:
//
//   - A connection is judged by bytes that it cannot take back. The ClientHello is peeked, never consumed: a backend that
//     terminates TLS itself gets an untouched stream, and the handshake of one that we terminate reads what was judged.
//   - One reading of the hello. Parse is stricter than crypto/tls, and where both accept, they see the same names. So a host
//     chosen here cannot differ from the host that is served behind, whatever the records and segments look like.
//   - A client's address is the connection's own, unless a PROXY header of a peer that may send one says otherwise
//     (ParseProxy). The header comes once, first, whole and in time.
//   - Strangers pay for nothing in advance: parsing allocates nothing, every size, wait and number has a bound in limits.go,
//     and bytes that break a rule end the connection. There is no lenient switch (docs/hardening.md).
//
// Parse and ParseProxy are pure: they look at the first bytes of a stream, however many there are, and answer with a result,
// an error, or ErrShort and the number of bytes to wait for:
//
//	hello, err := sni.Parse(peeked)
//	switch {
//	case err == sni.ErrShort:
//		wait until hello.Need bytes can be peeked
//	case err == sni.ErrNotTLS:
//		serve plain HTTP
//	case err != nil:
//		close
//	default:
//		host := snapshot.Host(hello.ServerName())
//	}
package sni
