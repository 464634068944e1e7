package filter

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// CORS answers the preflight requests of browsers (Fetch, 4.8) with 204 and marks all other answers, the proxy's own
// included, for origins that are allowed. To an origin that is not, nothing is said, and its preflight goes to the backend.
// Unless all origins are allowed, every answer says that it varies by them (Fetch, "CORS protocol and HTTP caches"): a cache
// would give one origin what was meant for another.
type CORS struct {
	// AllowOrigins is "*" or a list, separated by commas, of "null" and origins such as https://shop.example:8443, in any
	// scheme; "*." stands for one label more.
	AllowOrigins  string
	AllowMethods  string
	AllowHeaders  string
	ExposeHeaders string // "": none
	Credentials   bool
	MaxAge        time.Duration
}

// Stage is the rewrite stage: a preflight carries no credentials, so it is answered before anybody asks for them.
func (CORS) Stage() Stage { return Rewrite }

// Compile refuses origins that no browser could send.
func (c CORS) Compile(*State) (l7.Filter, error) {
	f := &cors{}
	add := func(id wire.FieldID, value string) {
		f.fields = append(f.fields, wire.NewField(id, []byte(value)))
	}
	add(wire.FieldAccessControlAllowOrigin, "") // first: the answer's is put here
	if c.Credentials {
		add(wire.FieldAccessControlAllowCredentials, "true")
	}
	add(wire.FieldAccessControlAllowMethods, c.AllowMethods)
	add(wire.FieldAccessControlAllowHeaders, c.AllowHeaders)
	if c.ExposeHeaders != "" {
		add(wire.FieldAccessControlExposeHeaders, c.ExposeHeaders)
	}
	add(wire.FieldAccessControlMaxAge, strconv.FormatInt(int64(c.MaxAge/time.Second), 10))
	for i := range f.fields {
		if v := f.fields[i].Value; !wire.ValidValue(v) {
			return l7.Filter{}, fmt.Errorf("cors: %q cannot stand in a field", v)
		}
	}
	for o := range strings.SplitSeq(c.AllowOrigins, ",") {
		o = strings.ToLower(strings.TrimSpace(o))
		if o == "*" {
			f.any = true
			continue
		}
		if !ValidOrigin(o) {
			return l7.Filter{}, fmt.Errorf("cors: %q is not an origin such as https://shop.example, https://*.shop.example, null or *", o)
		}
		if before, after, wild := strings.Cut(o, "*"); wild {
			f.wild = append(f.wild, wildOrigin{[]byte(before), []byte(after)})
		} else {
			f.exact = append(f.exact, []byte(o))
		}
	}
	return l7.Filter{Request: f, Response: f}, nil
}

var originForm = regexp.MustCompile(`^([a-z]+://(\*\.)?[A-Za-z0-9\-.]*(:\d+)?|null)$`)

// ValidOrigin tells whether s can be one of CORS.AllowOrigins.
func ValidOrigin(s string) bool { return originForm.MatchString(s) }

type cors struct {
	any    bool
	exact  [][]byte // in lower case
	wild   []wildOrigin
	fields []wire.Field // of an answer, Access-Control-Allow-Origin first
}

// wildOrigin is an origin with one label of any name between two texts.
type wildOrigin struct{ before, after []byte }

var (
	nameContentType = []byte("Content-Type")
	wordStar        = []byte("*")
	wordOrigin      = []byte("Origin")
	typePreflight   = []byte("text/plain charset=UTF-8")
)

func (c *cors) Request(x *l7.Exchange) l7.Verdict {
	if x.Req.Method != wire.MethodOptions || c.allowed(x) == nil {
		return l7.Continue
	}
	x.Respond(204, nil)
	x.SetResponse(wire.FieldContentType, nameContentType, typePreflight)
	return l7.Respond
}

func (c *cors) Response(x *l7.Exchange) {
	if !c.any {
		varyBy(x, wordOrigin)
	}
	origin := c.allowed(x)
	if origin == nil {
		return
	}
	x.SetResponses(c.fields)
	x.Resp.Fields[len(x.Resp.Fields)-len(c.fields)].Value = origin
}

// allowed is what Access-Control-Allow-Origin says; nil: the origin is none that is allowed.
func (c *cors) allowed(x *l7.Exchange) []byte {
	if c.any {
		return wordStar
	}
	origin := wire.Get(x.Req.Fields, wire.FieldOrigin)
	if len(origin) == 0 {
		return nil
	}
	for _, o := range c.exact {
		if string(o) == string(origin) || wire.EqualFold(o, origin) { // browsers send them in lower case
			return origin
		}
	}
	for i := range c.wild {
		w := &c.wild[i]
		n := len(origin) - len(w.before) - len(w.after)
		if n > 0 && wire.EqualFold(origin[:len(w.before)], w.before) && wire.EqualFold(origin[len(w.before)+n:], w.after) &&
			oneLabel(origin[len(w.before):len(w.before)+n]) {
			return origin
		}
	}
	return nil
}

func oneLabel(b []byte) bool {
	return bytes.IndexFunc(b, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
	}) < 0
}
