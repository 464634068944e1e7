package filter

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// Limits of basic authentication.
const (
	credentialBytesMax = 1 << 10         // of an Authorization field's user and password
	verdictsMax        = 1024            // kept of each kind: right and wrong passwords, of each loop and Ingress
	passwordPatience   = 5 * time.Second // how long a request waits for its password to be checked
)

// Credentials are lines of "user:hash". They are secret, so they do not print.
type Credentials string

// String tells how many there are.
func (c Credentials) String() string {
	return fmt.Sprintf("(%d users)", strings.Count(string(c), "\n"))
}

// BasicAuth asks for a name and a password (RFC 7617). Slow hashes are computed off the loop, one after the other, and
// what they came to is remembered; a flood of wrong passwords fills a queue and no processor. The backend does not get
// the credentials.
type BasicAuth struct {
	Users Credentials
	Realm string
	Any   bool // one of several conditions suffices (satisfy: any)
	Last  bool // … and this is the last one that is asked
}

// Stage is the access stage.
func (BasicAuth) Stage() Stage { return Access }

// Compile leaves users out whose hash is of another kind: they cannot come in. Without any user there is nothing to serve.
func (b BasicAuth) Compile(s *State) (l7.Filter, error) {
	f := &basicAuth{users: map[string]passwordHash{}, any: b.Any, last: b.Last || !b.Any}
	for line := range strings.Lines(string(b.Users)) {
		user, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		h, err := parsePasswordHash(text)
		if !ok || err != nil {
			continue
		}
		if _, twice := f.users[user]; !twice {
			f.users[user] = h
		}
		if f.dummy == nil || h.kind > f.dummy.kind {
			f.dummy = &h
		}
	}
	if len(f.users) == 0 {
		return l7.Filter{}, errors.New("basic authentication: no user has a password that can be checked")
	}
	if !wire.ValidValue([]byte(b.Realm)) {
		return l7.Filter{}, fmt.Errorf("basic authentication: the realm %q cannot stand in a field", b.Realm)
	}
	f.challenge = []byte(`Basic realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(b.Realm) + `"`)
	f.verdicts, _ = s.Get("basic auth", newVerdicts).(*verdicts)
	return l7.Filter{Request: f}, nil
}

type basicAuth struct {
	users     map[string]passwordHash
	dummy     *passwordHash // the slowest: what an unknown user's password is compared with
	challenge []byte
	any, last bool
	verdicts  *verdicts
}

// verdicts are what passwords came to: by a keyed hash of user, password and the hash that it was compared with, so that
// they say nothing about another Secret. Each loop has its own.
type verdicts struct {
	key   [32]byte
	loops [loopsMax]*loopVerdicts
}

// loopsMax is beyond the identifier of any loop.
const loopsMax = 256

type loopVerdicts struct{ right, wrong map[[32]byte]struct{} }

func newVerdicts() any {
	v := &verdicts{}
	_, _ = rand.Read(v.key[:])
	return v
}

// of is a loop's own part. Only that loop reads or writes its place.
func (v *verdicts) of(x *l7.Exchange) *loopVerdicts {
	p := &v.loops[x.Loop().ID%loopsMax]
	if *p == nil {
		*p = &loopVerdicts{map[[32]byte]struct{}{}, map[[32]byte]struct{}{}}
	}
	return *p
}

func (v *loopVerdicts) keep(digest [32]byte, right bool) {
	m := v.wrong
	if right {
		m = v.right
	}
	if len(m) >= verdictsMax {
		for old := range m { // any one
			delete(m, old)
			break
		}
	}
	m[digest] = struct{}{}
}

// Request implements l7.RequestFilter.
func (b *basicAuth) Request(x *l7.Exchange) l7.Verdict {
	if b.any && x.Admitted {
		return l7.Continue
	}
	user, password, ok := credentials(x)
	if !ok {
		return b.refuse(x)
	}
	h, known := b.users[string(user)]
	if !known {
		h = *b.dummy
	}
	if !h.slow() {
		return b.decide(x, h.matches(password) && known)
	}
	digest := b.digest(x, &h, known, user, password)
	v := b.verdicts.of(x)
	if _, right := v.right[digest]; right && known {
		return b.decide(x, true)
	}
	if _, wrong := v.wrong[digest]; wrong {
		return b.refuse(x)
	}
	return b.compute(x, h, known, string(password), digest)
}

// compute has the password checked off the loop.
func (b *basicAuth) compute(x *l7.Exchange, h passwordHash, known bool, password string, digest [32]byte) l7.Verdict {
	right := false
	err := x.CheckPassword(x.Loop().Now()+int64(passwordPatience),
		func() { right = h.matches([]byte(password)) && known },
		func(x *l7.Exchange) l7.Verdict {
			b.verdicts.of(x).keep(digest, right)
			return b.decide(x, right)
		})
	if err != nil {
		x.Respond(503, nil)
		return l7.Respond
	}
	return l7.Park
}

// digest is what a verdict is kept by. A user who is not known may become known, by the very hash that stood in for theirs.
func (b *basicAuth) digest(x *l7.Exchange, h *passwordHash, known bool, user, password []byte) [32]byte {
	t := x.Arena.Reserve(len(b.verdicts.key) + len(h.text) + len(user) + len(password) + 2)
	t = append(append(t, b.verdicts.key[:]...), h.text...)
	if t = append(t, 0); known {
		t[len(t)-1] = 1
	}
	t = append(t, user...)
	t = append(append(t, ':'), password...)
	return sha256.Sum256(t)
}

func (b *basicAuth) decide(x *l7.Exchange, right bool) l7.Verdict {
	if !right {
		return b.refuse(x)
	}
	x.Admitted, x.Challenge = true, nil
	x.Req.Fields = wire.Delete(x.Req.Fields, wire.FieldAuthorization)
	return l7.Continue
}

func (b *basicAuth) refuse(x *l7.Exchange) l7.Verdict {
	x.Challenge = b.challenge
	if !b.last {
		return l7.Continue
	}
	x.Respond(401, nil)
	return l7.Respond
}

var schemeBasic = []byte("basic ")

// credentials are those of the Authorization field, in the arena.
func credentials(x *l7.Exchange) (user, password []byte, ok bool) {
	v := wire.Get(x.Req.Fields, wire.FieldAuthorization)
	if len(v) <= len(schemeBasic) || len(v) > credentialBytesMax*4/3+16 || !wire.EqualFold(v[:len(schemeBasic)], schemeBasic) {
		return nil, nil, false
	}
	v = v[len(schemeBasic):]
	for len(v) > 0 && v[0] == ' ' {
		v = v[1:]
	}
	out := x.Arena.Alloc(base64.RawStdEncoding.DecodedLen(len(v))) // what is padded needs no more
	n, err := base64.StdEncoding.Decode(out, v)
	if err != nil {
		if n, err = base64.RawStdEncoding.Decode(out, v); err != nil {
			return nil, nil, false
		}
	}
	for i, c := range out[:n] {
		if c == ':' {
			return out[:i], out[i+1 : n], true
		}
	}
	return nil, nil, false
}
