package translate

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/sluiceproxy/sluice/l7"
)

// Process is what the ConfigMap says about listeners and the process rather than about routes and exchanges
// (docs/hardening.md 3.3). It is immutable, and the same pointer while it says the same.
type Process struct {
	BindAddress  netip.Addr    // bind-address; invalid: all addresses of both families. The flag wins over it
	DrainTimeout time.Duration // worker-shutdown-timeout: how long a drain waits for exchanges and tunnels

	ProxyProtocol ProxyProtocol

	HelloTimeout     time.Duration // from accept to a complete ClientHello
	HelloBytesMax    int           // of a ClientHello
	HandshakeTimeout time.Duration
	HandshakesMax    int           // under way or queued, all clients together
	TLSMin, TLSMax   uint16        // ssl-protocols: tls.VersionTLS12 or tls.VersionTLS13
	Ciphers          string        // ssl-ciphers, for fastpath.CipherSuites; "": all
	Curves           []tls.CurveID // ssl-ecdh-curve; nil: Go's
	NoTickets        bool          // ssl-session-tickets: false
	TicketKey        TicketKey     // ssl-session-ticket-key
	RejectUnknown    bool          // ssl-reject-handshake

	ConnectionsMax       int // client connections; 0: derived from the limit of open files
	ConnectionsSourceMax int // … of one address; 0: a share of ConnectionsMax

	Logs l7.LogPaths // where the access log goes
}

// TicketKey is made of ssl-session-ticket-key; zero: there is none. It prints as nothing that could be used.
type TicketKey [32]byte

// Format implements fmt.Formatter.
func (k TicketKey) Format(f fmt.State, _ rune) {
	if k == (TicketKey{}) {
		_, _ = io.WriteString(f, "none")
		return
	}
	_, _ = io.WriteString(f, "given")
}

// ProxyProtocol is how listeners read PROXY headers.
type ProxyProtocol struct {
	Enabled       bool           // use-proxy-protocol
	Trusted       []netip.Prefix // proxy-real-ip-cidr: who may send a header; empty: every peer must. Also for TCP services that ask for headers
	HeaderTimeout time.Duration  // proxy-protocol-header-timeout
	HeaderMax     int            // bytes of a version 2 header; version 1 has its own 107
}

// DefaultProcess is what holds without a ConfigMap.
func DefaultProcess() *Process {
	return &Process{
		DrainTimeout:     240 * time.Second,
		ProxyProtocol:    ProxyProtocol{HeaderTimeout: 3 * time.Second, HeaderMax: 4 << 10},
		HelloTimeout:     5 * time.Second,
		HelloBytesMax:    64 << 10,
		HandshakeTimeout: 10 * time.Second,
		HandshakesMax:    1024,
		TLSMin:           tls.VersionTLS12,
		TLSMax:           tls.VersionTLS13,
	}
}
