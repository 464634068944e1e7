package l7

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// This file decides which endpoint a request belongs to: by the affinity cookie, or by a key of the request.

// affinityDraws is how many keys a balanced session draws until one leads to an endpoint that has not failed this request.
const affinityDraws = 20

// belonging is what is known of it.
type belonging struct {
	affinity *upstream.Affinity // nil: none
	key      []byte             // the cookie's KEY; nil: the client has none that counts, a new one is to be set
	set      []byte             // the KEY that is to be set
	hash     uint32
	read     bool // the cookie was looked for, the key was hashed
}

// pick chooses an endpoint of f.cluster for this try; nil: there is none.
func (x *Exchange) pick() *upstream.Endpoint {
	f := &x.fwd
	w := upstream.Wish{Loop: x.loop.ID, Tried: f.tried[:min(f.tries, triesMax)]}
	b := &f.belongs
	switch {
	case b.affinity != nil && b.affinity.Persistent:
		return x.pickPersistent(w)
	case b.affinity != nil:
		return x.pickBalanced(w)
	}
	if parts := f.cluster.Key(); len(parts) > 0 {
		if !b.read {
			b.read, b.hash = true, x.hashOf(parts)
		}
		w.Hash = b.hash
	}
	return f.cluster.Pick(w)
}

// readAffinity looks for the client's cookie: what its KEY is, and the backend that it is for.
func (x *Exchange) readAffinity(a *upstream.Affinity) (key, backend []byte) {
	key, backend, _ = bytes.Cut(wire.Cookie(x.Req.Fields, a.Cookie, false), cookieDelimiter)
	if len(key) == 0 {
		return nil, backend
	}
	return key, backend
}

var cookieDelimiter = []byte("|")

// affinitized tells whether the client's cookie of a is for cluster c.
func (x *Exchange) affinitized(a *upstream.Affinity, c *upstream.Cluster) bool {
	if a == nil {
		return false
	}
	_, backend := x.readAffinity(a)
	return len(backend) > 0 && string(backend) == c.BackendKey()
}

// pickPersistent stays with the endpoint that the cookie names, as long as the cluster has it.
func (x *Exchange) pickPersistent(w upstream.Wish) *upstream.Endpoint {
	f, b := &x.fwd, &x.fwd.belongs
	if !b.read {
		b.read = true
		b.key, _ = x.readAffinity(b.affinity)
	}
	w.Sticky = upstream.ParseStickyKey(b.key)
	w.Stay = !b.affinity.ChangeOnFailure
	stays := w.Sticky != 0 && f.cluster.HasSticky(w.Sticky) && (f.tries == f.base || w.Stay)
	e := f.cluster.Pick(w)
	if b.set = nil; e != nil && !stays {
		b.set = e.AppendStickyKey(x.Arena.Alloc(2 * md5Size)[:0])
	}
	return e
}

const md5Size = 16

// pickBalanced goes where the hash of the cookie's KEY leads: to the same endpoint as long as endpoints neither come nor
// go. Who has no cookie gets a KEY by chance.
func (x *Exchange) pickBalanced(w upstream.Wish) *upstream.Endpoint {
	f, b := &x.fwd, &x.fwd.belongs
	if !b.read {
		b.read = true
		b.key, _ = x.readAffinity(b.affinity)
	}
	w.Hashed = true
	if b.key != nil && (f.tries == f.base || !b.affinity.ChangeOnFailure) {
		w.Hash, w.Stay = upstream.Hash(b.key), true
		return f.cluster.Pick(w)
	}
	if b.set == nil {
		b.set = x.Arena.Alloc(2 * md5Size)
	}
	for range affinityDraws {
		x.drawKey(b.set)
		w.Hash, w.Stay = upstream.Hash(b.set), true
		if e := f.cluster.Pick(w); e == nil || !slices.Contains(w.Tried, e) {
			return e
		}
	}
	w.Stay = false
	return f.cluster.Pick(w)
}

// drawKey fills key with hexadecimal digits by chance.
func (x *Exchange) drawKey(key []byte) {
	var r uint64
	for i := range key {
		if i%16 == 0 {
			r = x.local.random.Uint64()
		}
		key[i] = hexDigits[r&15]
		r >>= 4
	}
}

// stick sets the affinity cookie of a new session on the answer, where the rule's Ingress asks for affinity.
func (x *Exchange) stick() {
	b := &x.fwd.belongs
	if b.set == nil || !x.Route.Policy.SetsAffinity {
		return
	}
	a := b.affinity
	text := x.Arena.Reserve(len(a.Cookie) + len(a.Path) + len(a.Domain) + len(x.Route.ID.Path) + 256)
	text = append(append(text, a.Cookie...), '=')
	text = append(append(append(text, b.set...), cookieDelimiter...), x.fwd.cluster.BackendKey()...)
	if a.HasExpires {
		at := x.loop.Wall().UTC().Add(time.Duration(a.Expires) * time.Second)
		text = at.AppendFormat(append(text, "; Expires="...), http.TimeFormat)
	}
	if a.HasMaxAge {
		text = strconv.AppendInt(append(text, "; Max-Age="...), int64(a.MaxAge), 10)
	}
	if a.Domain != "" {
		text = append(append(text, "; Domain="...), a.Domain...)
	}
	path := a.Path
	if path == "" {
		path = x.Route.ID.Path
	}
	text = append(append(text, "; Path="...), path...)
	if a.Secure || x.TLS {
		text = append(text, "; Secure"...)
	}
	text = append(text, "; HttpOnly"...)
	if site := a.SameSite; site != "" && !(site == "None" && a.UnlessOld && !takesSameSiteNone(wire.Get(x.Req.Fields, wire.FieldUserAgent))) {
		text = append(append(text, "; SameSite="...), site...)
	}
	x.Resp.Fields = append(x.Resp.Fields, wire.NewField(wire.FieldSetCookie, x.Arena.Commit(text)))
}

// Browsers that take SameSite=None for Strict, or refuse the cookie, by what their User-Agent holds.
var (
	oldAgents = [][]byte{[]byte("Chrome/4"), []byte("Chrome/5"), []byte("Chrome/6"), []byte("CPU iPhone OS 12"), []byte("iPad; CPU OS 12")}
	macintosh = []byte("Macintosh")
	mojave    = []byte("Intel Mac OS X 10_14")
	safari    = []byte("Safari")
	chrome    = []byte("Chrome")
)

func takesSameSiteNone(agent []byte) bool {
	for _, old := range oldAgents {
		if bytes.Contains(agent, old) {
			return false
		}
	}
	return !(bytes.Contains(agent, macintosh) && bytes.Contains(agent, mojave) && bytes.Contains(agent, safari) && !bytes.Contains(agent, chrome))
}
