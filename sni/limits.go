package sni

import (
	"crypto/tls"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// What a peer may cost before it has shown whom it wants (docs/hardening.md). Over any of these the connection is closed.
// Limits has those that are configured; here are their bounds, and what nobody has a reason to change.
const (
	helloBytesMax      = 64 << 10 // ClientHello with its record headers; crypto/tls takes no larger one either
	helloExtensionsMax = 128      // browsers send about 20; each is compared with all before it
	serverNameBytesMax = 255      // a DNS name with its last dot has 254

	sparesMax = 256 // arrivals, and passages, that a loop keeps for reuse

	proxyV1BytesMax = 107  // the longest line that the protocol allows, with CRLF
	proxyV2BytesMax = 4096 // with the fixed part, unless Limits says otherwise; the protocol would allow 64 KiB of vectors
)

// Limits are what clients may cost together and one by one. They come from the ConfigMap, may change at any time, and are
// immutable themselves.
type Limits struct {
	HelloTimeout     time.Duration // from accept, or from the end of the PROXY header, to a whole ClientHello
	HelloBytesMax    int           // ClientHello with its record headers; at most 64 KiB
	HandshakeTimeout time.Duration // from the whole ClientHello to Finished
	HandshakesMax    int           // under way or queued, of all clients together; at most 1,024
	TLSMin, TLSMax   uint16        // tls.VersionTLS12 or tls.VersionTLS13
	TLSCiphers       []uint16      // of fastpath.CipherSuites; nil: all of them
	TLSCurves        []tls.CurveID // key exchanges; nil: Go's
	TLSNoTickets     bool          // sessions are not resumed
	TLSTicketKey     *[32]byte     // of tickets, for every process that is given it; nil: keys of the process's own, which rotate
	RejectUnknown    bool          // a handshake for a name that no host has ends in alert 112 (unrecognized_name)

	ProxyHeaderTimeout  time.Duration // from accept to a whole PROXY header
	ProxyHeaderBytesMax int           // of version 2

	// ConnectionsMax is how many client connections may be open, and ConnectionsSourceMax how many of one source; 0: as many
	// as OpenFilesMax leaves, and half as many.
	ConnectionsMax, ConnectionsSourceMax int
	OpenFilesMax                         int // descriptors that the process may have; 0: not known, then they bound nothing
}

// DefaultLimits are those of docs/hardening.md 3.3.
func DefaultLimits() *Limits {
	return &Limits{
		HelloTimeout: 5 * time.Second, HelloBytesMax: helloBytesMax,
		HandshakeTimeout: 10 * time.Second, HandshakesMax: 1024,
		TLSMin: tls.VersionTLS12, TLSMax: tls.VersionTLS13,
		ProxyHeaderTimeout: 3 * time.Second, ProxyHeaderBytesMax: proxyV2BytesMax,
	}
}

var defaultLimits = DefaultLimits()

// ciphers are TLS 1.2's suites that may be spoken.
func (l *Limits) ciphers() []uint16 {
	if l.TLSCiphers == nil {
		return allCiphers
	}
	return l.TLSCiphers
}

var allCiphers, _ = fastpath.CipherSuites("")
