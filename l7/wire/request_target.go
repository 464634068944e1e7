package wire

import (
	"bytes"

	"github.com/sluiceproxy/sluice/fastpath"
)

// What scanPath saw in a path beyond plain bytes.
const (
	pathEscapes uint8 = 1 << iota // "%": decode
	pathSpecial                   // bytes that are percent-encoded when forwarded
	pathDots                      // "//" or "/.": perhaps dot segments, perhaps only a hidden file
)

var (
	pathRoot     = []byte("/")
	pathAsterisk = []byte("*")
)

// parseTarget fills Target, Path, Query and, from an absolute target, Authority and Host.
func (r *Request) parseTarget(t []byte, a *Arena, lim *Limits) *fastpath.Error {
	if t[0] == '/' && r.Method != MethodConnect {
		return r.setTarget(t, a, lim)
	}
	if bytes.IndexByte(t, '#') >= 0 {
		return ErrTarget
	}
	if r.Method == MethodConnect {
		return authorityForm(t, ErrConnect)
	}
	if len(t) == 1 && t[0] == '*' {
		if r.Method != MethodOptions {
			return ErrTargetForm
		}
		r.Target, r.Path = t, t
		return nil
	}
	rest := afterScheme(t)
	if rest == nil {
		return authorityForm(t, ErrAuthorityForm)
	}
	return r.absolute(rest, a, lim)
}

// authorityForm gives the refusal of a target that is host:port, or says that it is nothing at all.
func authorityForm(t []byte, refusal *fastpath.Error) *fastpath.Error {
	if _, port, err := ParseAuthority(t); err != nil || len(port) == 0 {
		return ErrTargetForm
	}
	return refusal
}

// afterScheme cuts http:// or https:// off; nil when t has neither.
func afterScheme(t []byte) []byte {
	switch {
	case hasPrefixFold(t, "http://"):
		return t[len("http://"):]
	case hasPrefixFold(t, "https://"):
		return t[len("https://"):]
	}
	return nil
}

// absolute takes authority, path and query of an absolute target (RFC 9112 3.2.2). An empty path is "/", or "*" for
// OPTIONS (3.2.4).
func (r *Request) absolute(t []byte, a *Arena, lim *Limits) *fastpath.Error {
	end := bytes.IndexAny(t, "/?")
	if end < 0 {
		end = len(t)
	}
	if err := r.setAuthority(t[:end:end], a); err != nil {
		return err
	}
	switch {
	case end == len(t) && r.Method == MethodOptions:
		r.Target, r.Path = pathAsterisk, pathAsterisk
		return nil
	case end == len(t):
		r.Target, r.Path = pathRoot, pathRoot
		return nil
	case t[end] == '?':
		return r.setTarget(a.Commit(append(append(a.Reserve(len(t)-end+1), '/'), t[end:]...)), a, lim)
	}
	return r.setTarget(t[end:], a, lim)
}

// setTarget takes a target in origin-form. The usual path stands for itself and costs one pass.
func (r *Request) setTarget(t []byte, a *Arena, lim *Limits) *fastpath.Error {
	n, class, err := scanPath(t)
	if err != nil {
		return err
	}
	r.Target, r.Path, r.Query = t, t[:n:n], nil
	if n < len(t) {
		r.Query = t[n+1:]
		if bytes.IndexByte(r.Query, '#') >= 0 {
			return ErrTarget
		}
	}
	if class == 0 {
		return nil
	}
	return r.normalise(t, n, class, a, lim)
}

// normalise is setTarget's second half for a path t[:n] that does not stand for itself.
func (r *Request) normalise(t []byte, n int, class uint8, a *Arena, lim *Limits) *fastpath.Error {
	path := t[:n]
	if class&pathEscapes != 0 && lim != nil && lim.RejectEncodedSlash && encodedSlash(path) {
		return ErrEncodedSlash
	}
	out, dots, err := NormalisePath(a.Reserve(n), path)
	if err != nil {
		return err
	}
	r.Path, r.Resolved = a.Commit(out), dots
	if !dots && class&pathSpecial == 0 {
		return nil
	}
	target := a.Reserve(3*n + len(t) - n)
	if dots {
		target = AppendPath(target, r.Path)
	} else {
		target = appendSpelling(target, path)
	}
	path = target
	r.Target = a.Commit(append(target, t[n:]...))
	if r.Query != nil {
		r.Query = r.Target[len(path)+1:]
	}
	return nil
}

// scanPath measures the path at t's start, up to "?" or the end, and says what is special about it.
func scanPath(t []byte) (n int, class uint8, err *fastpath.Error) {
	for i, c := range t {
		if chars[c]&charPath != 0 && c != '/' {
			continue
		}
		switch {
		case c == '/':
			if i+1 < len(t) && (t[i+1] == '/' || t[i+1] == '.') {
				class |= pathDots
			}
		case c == '?':
			return i, class, nil
		case c == '%':
			class |= pathEscapes
		case chars[c]&charEscape != 0:
			class |= pathSpecial
		case chars[c]&charRefused != 0:
			return 0, 0, refusedIn(c)
		}
	}
	return len(t), class, nil
}

// encodedSlash finds %2F and %5C.
func encodedSlash(path []byte) bool {
	for i := 0; i+2 < len(path); i++ {
		if path[i] != '%' {
			continue
		}
		if c := unhex[path[i+1]]<<4 | unhex[path[i+2]]; c == '/' || c == '\\' {
			return true
		}
	}
	return false
}
