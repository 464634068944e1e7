package filter

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// LocationRewrite replaces the beginning of the backend's Location and Refresh fields, as nginx's proxy_redirect does.
type LocationRewrite struct {
	From, To string // texts with variables (see Text)
}

// Stage is the header stage.
func (LocationRewrite) Stage() Stage { return Header }

// Compile refuses expressions: a beginning is compared as it is.
func (r LocationRewrite) Compile(*State) (l7.Filter, error) {
	if r.From == "" || strings.HasPrefix(r.From, "~") {
		return l7.Filter{}, fmt.Errorf("location rewrite: %q is not the beginning of a URL", r.From)
	}
	f := &locationRewrite{}
	var err error
	if f.from, err = ParseText(r.From); err == nil {
		f.to, err = ParseText(r.To)
	}
	if err != nil {
		return l7.Filter{}, fmt.Errorf("location rewrite: %w", err)
	}
	return l7.Filter{Response: f}, nil
}

type locationRewrite struct{ from, to Text }

var nameRefresh = []byte("Refresh")

func (r *locationRewrite) Response(x *l7.Exchange) {
	for i := range x.Resp.Fields {
		f := &x.Resp.Fields[i]
		switch {
		case f.ID == wire.FieldLocation:
			if v, ok := r.replace(x, f.Value, 0); ok {
				f.Value = v
			}
		case f.ID == wire.FieldOther && wire.EqualFold(f.Name, nameRefresh):
			if at := indexFold(f.Value, "url="); at >= 0 {
				if v, ok := r.replace(x, f.Value, at+len("url=")); ok {
					f.Value = v
				}
			}
		}
	}
}

// replace replaces from by to at a place of v.
func (r *locationRewrite) replace(x *l7.Exchange, v []byte, at int) ([]byte, bool) {
	from := r.from.Fill(x)
	if len(from) == 0 || !bytes.HasPrefix(v[at:], from) {
		return nil, false
	}
	to := r.to.Fill(x)
	out := x.Arena.Reserve(len(v) + len(to))
	out = append(out, v[:at]...)
	out = append(out, to...)
	return x.Arena.Commit(append(out, v[at+len(from):]...)), true
}

// indexFold finds text, which is in lower case, in b.
func indexFold(b []byte, text string) int {
	for i := 0; i+len(text) <= len(b); i++ {
		if wire.EqualFold(b[i:i+len(text)], []byte(text)) {
			return i
		}
	}
	return -1
}

// CookieRewrite replaces the Domain and the beginning of the Path of cookies that the backend sets, as nginx's
// proxy_cookie_domain and proxy_cookie_path do. An empty From leaves the attribute alone.
type CookieRewrite struct {
	DomainFrom, DomainTo string
	PathFrom, PathTo     string
}

// Stage is the header stage.
func (CookieRewrite) Stage() Stage { return Header }

// Compile refuses what could not stand in a cookie's attribute.
func (c CookieRewrite) Compile(*State) (l7.Filter, error) {
	for _, s := range []string{c.DomainFrom, c.DomainTo, c.PathFrom, c.PathTo} {
		if s != "" && (!fieldText(s) || strings.ContainsAny(s, ";,")) {
			return l7.Filter{}, fmt.Errorf("cookie rewrite: %q cannot stand in a cookie", s)
		}
	}
	if c.DomainFrom == "" && c.PathFrom == "" {
		return l7.Filter{}, errors.New("cookie rewrite: nothing to replace")
	}
	return l7.Filter{Response: &cookieRewrite{
		domainFrom: []byte(strings.TrimPrefix(c.DomainFrom, ".")), domainTo: []byte(c.DomainTo),
		pathFrom: []byte(c.PathFrom), pathTo: []byte(c.PathTo),
	}}, nil
}

type cookieRewrite struct{ domainFrom, domainTo, pathFrom, pathTo []byte }

func (c *cookieRewrite) Response(x *l7.Exchange) {
	for i := range x.Resp.Fields {
		if f := &x.Resp.Fields[i]; f.ID == wire.FieldSetCookie {
			f.Value = c.attribute(x, f.Value, "domain=", c.domainFrom, c.domainTo, false)
			f.Value = c.attribute(x, f.Value, "path=", c.pathFrom, c.pathTo, true)
		}
	}
}

// attribute rewrites one attribute of a cookie: the whole of it, or its beginning.
func (c *cookieRewrite) attribute(x *l7.Exchange, v []byte, name string, from, to []byte, beginning bool) []byte {
	if len(from) == 0 {
		return v
	}
	for at := bytes.IndexByte(v, ';'); at >= 0 && at < len(v); {
		start := at + 1
		for start < len(v) && v[start] == ' ' {
			start++
		}
		end := len(v)
		if n := bytes.IndexByte(v[start:], ';'); n >= 0 {
			end = start + n
		}
		if end-start >= len(name) && wire.EqualFold(v[start:start+len(name)], []byte(name)) {
			start += len(name)
			old := v[start:end]
			keep := 0
			if !beginning {
				if bytes.HasPrefix(old, dot) { // it says nothing, and stays
					start++
					old = old[1:]
				}
				if !wire.EqualFold(old, from) {
					return v
				}
				keep = len(old)
			} else if keep = len(from); !bytes.HasPrefix(old, from) {
				return v
			}
			out := x.Arena.Reserve(len(v) + len(to))
			out = append(out, v[:start]...)
			out = append(out, to...)
			out = append(out, old[keep:]...)
			return x.Arena.Commit(append(out, v[end:]...))
		}
		at = end
	}
	return v
}

var dot = []byte(".")
