package upstream

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
)

// Affinity is how a client stays with one endpoint: by a cookie. l7 reads and sets it; a Cluster only finds the endpoint.
// The cookie is ingress-nginx's own, KEY|BACKEND, so that a client's session outlives the move to this proxy and back.
type Affinity struct {
	Persistent      bool   // KEY is an endpoint's; else balanced: a hash that leads to one
	ChangeOnFailure bool   // after a failed try another endpoint and another cookie; else the same endpoint again
	Cookie          string // its name
	Path            string // "": the rule's path
	Domain          string // "": none
	Expires         int    // seconds from now, as HasExpires
	MaxAge          int    // seconds, as HasMaxAge
	HasExpires      bool
	HasMaxAge       bool
	SameSite        string // "None", "Lax", "Strict"; "": none
	UnlessOld       bool   // no SameSite=None for browsers that take it wrongly
	Secure          bool   // always; else where the client speaks TLS
}

// BackendKey tells in a cookie which backend its KEY is for: ingress-nginx's number of the backend called name.
func BackendKey(name string) string {
	inner := md5.Sum([]byte(name))
	outer := md5.Sum(append(hex.AppendEncode(nil, inner[:]), name...))
	return hex.EncodeToString(outer[:])
}

// stickyKey is the KEY of an endpoint in persistent cookies: ingress-nginx's. It hides the address from a glance, and is
// no secret.
func (e *Endpoint) stickyKey(salt string) [md5.Size]byte {
	var buf [320]byte
	return md5.Sum(e.addr.AppendTo(append(buf[:0], salt...)))
}

// StickyID is the number by which Wish.Sticky asks for the endpoint, of the cluster with Settings.Name salt: the first
// half of its KEY.
func (e *Endpoint) StickyID(salt string) uint64 {
	key := e.stickyKey(salt)
	return max(binary.BigEndian.Uint64(key[:8]), 1)
}

// AppendStickyKey appends the KEY as text.
func (e *Endpoint) AppendStickyKey(b []byte) []byte {
	key := e.stickyKey(e.cluster.current.Load().Name)
	return hex.AppendEncode(b, key[:])
}

// ParseStickyKey reads a KEY for Wish.Sticky; 0: it is none.
func ParseStickyKey(key []byte) uint64 {
	var b [md5.Size]byte
	if len(key) != hex.EncodedLen(len(b)) {
		return 0
	}
	if _, err := hex.Decode(b[:], key); err != nil {
		return 0
	}
	return max(binary.BigEndian.Uint64(b[:8]), 1)
}

// Affinity is the cluster's own; nil: it has none. On the loops.
func (c *Cluster) Affinity() *Affinity { return c.current.Load().Affinity }

// BackendKey is what cookies call the cluster; "": its settings are not Keyed. On the loops.
func (c *Cluster) BackendKey() string { return c.current.Load().backendKey }

// Key is what the algorithm hashes; empty: nothing. On the loops.
func (c *Cluster) Key() []KeyPart { return c.current.Load().key }

// HasSticky tells whether an endpoint that is ready has that StickyID. On the loops.
func (c *Cluster) HasSticky(id uint64) bool { return c.current.Load().sticky[id] != nil }

// HTTP2 tells whether the cluster's backends speak HTTP/2, over which nothing is upgraded but by extended CONNECT. On the loops.
func (c *Cluster) HTTP2() bool { return c.current.Load().HTTP2 }

// Empty tells whether there is no endpoint at all. On the loops.
func (c *Cluster) Empty() bool {
	v := c.current.Load()
	return len(v.ready) == 0 && len(v.terminating) == 0
}
