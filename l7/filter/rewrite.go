package filter

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// PathRewrite replaces the path that goes to the backend, as nginx's `rewrite "(?i)<Path>" <Target> break` does. Path is a
// regular expression (RE2) that is looked for anywhere in the normalised, decoded path, in any case; where the route
// matches it begins at the path's start. The whole path becomes Target, with $1 to $9 replaced by Path's captures; a
// capture that took no part is empty. A path without a match stays. The query is kept.
//
// The result gets a leading slash if it has none, is normalised like a request's path ("//" merged, dot segments
// resolved) and spelled canonically. One that leaves the root answers 400.
type PathRewrite struct {
	Path   string
	Target string
}

// Stage is the rewrite stage.
func (PathRewrite) Stage() Stage { return Rewrite }

// Compile refuses an expression that RE2 lacks and a Target with other variables than captures.
func (r PathRewrite) Compile(*State) (l7.Filter, error) {
	pattern, err := compilePattern(r.Path)
	if err != nil {
		return l7.Filter{}, fmt.Errorf("rewrite: %w", err)
	}
	parts, err := ParseRewriteTarget(r.Target)
	if err != nil {
		return l7.Filter{}, fmt.Errorf("rewrite: %w", err)
	}
	f := &pathRewrite{pattern: pattern, parts: parts}
	for _, p := range parts {
		if p.Group > 0 {
			f.captures = true
		}
	}
	if !f.captures {
		if f.fixed, err = fixedTarget(parts); err != nil {
			return l7.Filter{}, fmt.Errorf("rewrite: %w", err)
		}
	}
	return l7.Filter{Request: f}, nil
}

// A RewritePart is a piece of a rewrite's target: text, or the capture of a group.
type RewritePart struct {
	Text  string
	Group int // 1 to 9; 0: Text
}

// ParseRewriteTarget takes a target apart. A "$" must be followed by a digit from 1 to 9: nginx's variables are not known.
func ParseRewriteTarget(target string) ([]RewritePart, error) {
	var parts []RewritePart
	for target != "" {
		text, rest, found := strings.Cut(target, "$")
		if text != "" {
			parts = append(parts, RewritePart{Text: text})
		}
		if !found {
			break
		}
		if rest == "" || rest[0] < '1' || rest[0] > '9' {
			return nil, fmt.Errorf("target %q: only $1 to $9 may follow a dollar sign", target)
		}
		parts = append(parts, RewritePart{Group: int(rest[0] - '0')})
		target = rest[1:]
	}
	return parts, nil
}

// fixedTarget is the escaped path of a target without captures.
func fixedTarget(parts []RewritePart) ([]byte, error) {
	var text []byte
	for _, p := range parts {
		text = append(text, p.Text...)
	}
	if len(text) == 0 || text[0] != '/' {
		text = append([]byte{'/'}, text...)
	}
	clean, _, err := wire.NormalisePath(nil, wire.AppendPath(nil, text))
	if err != nil {
		return nil, fmt.Errorf("target %q: %s, take out its dot segments", text, err.Text)
	}
	return wire.AppendPath(nil, clean), nil
}

type pathRewrite struct {
	pattern  pattern
	parts    []RewritePart
	captures bool
	fixed    []byte // the result without captures
}

func (r *pathRewrite) Request(x *l7.Exchange) l7.Verdict {
	path := x.Req.Path
	var groups groups
	if !r.pattern.match(path, &groups) {
		return l7.Continue
	}
	escaped := r.fixed
	if r.captures {
		var ok bool
		if escaped, ok = r.expand(x, path, &groups); !ok {
			x.Respond(400, nil)
			return l7.Respond
		}
	}
	x.RewriteTarget = withQuery(&x.Arena, escaped, x.Req.Query)
	return l7.Continue
}

// expand fills the captures in and gives the result normalised and escaped.
func (r *pathRewrite) expand(x *l7.Exchange, path []byte, g *groups) ([]byte, bool) {
	n := 1
	for i := range r.parts {
		p := &r.parts[i]
		n += len(p.Text) + len(g.of(path, p.Group))
	}
	text := x.Arena.Reserve(n)
	for i := range r.parts {
		p := &r.parts[i]
		text = append(text, p.Text...)
		text = append(text, g.of(path, p.Group)...)
		if i == 0 && (len(text) == 0 || text[0] != '/') {
			text = append(text, 0)
			copy(text[1:], text)
			text[0] = '/'
		}
	}
	return canonical(&x.Arena, x.Arena.Commit(text))
}

// canonical escapes a decoded path after it has resolved what is not normalised in it.
func canonical(a *wire.Arena, path []byte) ([]byte, bool) {
	escaped := a.Commit(wire.AppendPath(a.Reserve(3*len(path)), path))
	if !bytes.Contains(escaped, doubleSlash) && !bytes.Contains(escaped, slashDot) {
		return escaped, true
	}
	clean, _, err := wire.NormalisePath(a.Reserve(len(escaped)), escaped)
	if err != nil {
		return nil, false
	}
	clean = a.Commit(clean)
	return a.Commit(wire.AppendPath(a.Reserve(3*len(clean)), clean)), true
}

var doubleSlash, slashDot = []byte("//"), []byte("/.")

func withQuery(a *wire.Arena, path, query []byte) []byte {
	if len(query) == 0 {
		return path
	}
	out := a.Reserve(len(path) + 1 + len(query))
	out = append(out, path...)
	out = append(out, '?')
	return a.Commit(append(out, query...))
}
