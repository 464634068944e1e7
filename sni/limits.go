package sni

import "time"

// What a peer may cost before it has shown whom it wants (docs/hardening.md). Over any of these the connection is closed.
const (
	helloBytesMax      = 64 << 10        // ClientHello with its record headers; crypto/tls takes no larger one either
	helloExtensionsMax = 128             // browsers send about 20; each is compared with all before it
	serverNameBytesMax = 255             // a DNS name with its last dot has 254
	helloTimeout       = 5 * time.Second // from accept, or from the end of the PROXY header, to a whole ClientHello

	handshakeTimeout = 10 * time.Second // from the whole ClientHello to Finished
	handshakesMax    = 1024             // handshakes under way or queued, of all clients together

	proxyHeaderTimeout = 3 * time.Second // from accept to a whole PROXY header
	proxyV1BytesMax    = 107             // the longest line that the protocol allows, with CRLF
	proxyV2BytesMax    = 4096            // with the fixed part; the protocol would allow 64 KiB of vectors
)
