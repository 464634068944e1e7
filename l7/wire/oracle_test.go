package wire_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The second parser: slow, plain and written from docs/hardening.md without a look at the first one. It knows no limits of
// size and tells no reasons. What it says about a request is one text, so that comparing is easy.

const (
	tokenText = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
	hostText  = `(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9_~-]+\.)*[A-Za-z0-9_~-]+\.?)`
)

var (
	oracleLine   = regexp.MustCompile("^(" + tokenText + ") ([^\\x00-\\x20\\x7f#]+) HTTP/1\\.([01])$")
	oracleField  = regexp.MustCompile("^(" + tokenText + "):[ \\t]*([^\\x00-\\x08\\x0a-\\x1f\\x7f]*)$")
	oracleHost   = regexp.MustCompile("^(" + hostText + ")(?::([0-9]{0,5}))?$")
	oracleForm   = regexp.MustCompile(`^(?i:https?)://([^/?]*)(/[^?]*)?(\?.*)?$`)
	oracleKey    = regexp.MustCompile("^[A-Za-z0-9+/]{22}==$")
	oraclePlain  = regexp.MustCompile("^[A-Za-z0-9-]+$")
	oracleToken  = regexp.MustCompile("^" + tokenText + "$")
	oracleEscape = regexp.MustCompile("%..?|%$")
	oracleProto  = regexp.MustCompile("^(" + tokenText + "?)(?:/" + tokenText + ")?$")
	oracleKnown  = regexp.MustCompile("(?i)^(x-forwarded-.*|x-original-.*|ssl-client-.*|accept|accept-encoding|access-control-request-method|authorization|" +
		"access-control-allow-(credentials|headers|methods|origin)|access-control-(expose-headers|max-age)|" +
		"content-encoding|content-type|cookie|date|etag|forwarded|location|origin|referer|sec-websocket-key|sec-websocket-version|server|" +
		"set-cookie|strict-transport-security|trailer|user-agent|vary|x-real-ip|x-request-id|x-scheme)$")
	oracleHop = regexp.MustCompile("(?i)^(connection|content-length|expect|host|http2-settings|keep-alive|proxy-connection|te|transfer-encoding|upgrade)$")
)

// oracleRequest reads the head at b's start: a description of it, and what follows; ok is false for what must be refused
// or is not complete.
func oracleRequest(b string) (model, rest string, ok bool) {
	b = strings.TrimPrefix(strings.TrimPrefix(b, "\r\n"), "\r\n")
	text, rest, found := strings.Cut(b, "\r\n\r\n")
	if !found {
		return "", "", false
	}
	lines := strings.Split(text, "\r\n")
	if strings.ContainsAny(strings.Join(lines, ""), "\r\n\x00") {
		return "", "", false
	}
	line := oracleLine.FindStringSubmatch(lines[0])
	if line == nil || len(lines) > 101 {
		return "", "", false
	}
	h := map[string][]string{}
	var fields [][2]string
	for _, l := range lines[1:] {
		f := oracleField.FindStringSubmatch(l)
		if f == nil {
			return "", "", false
		}
		value := strings.TrimRight(f[2], " \t")
		if oraclePlain.MatchString(f[1]) { // ignore-invalid-headers
			h[strings.ToLower(f[1])] = append(h[strings.ToLower(f[1])], value)
			fields = append(fields, [2]string{f[1], value})
		}
	}
	r := oracle{method: line[1], minor: line[3], h: h}
	if !r.readTarget(line[2]) || !r.readHost() || !r.readFraming() || !r.readConnection() || !r.readUpgrade() {
		return "", "", false
	}
	if e := h["expect"]; r.minor == "1" && slices.ContainsFunc(e, func(v string) bool { return !strings.EqualFold(v, "100-continue") }) {
		return "", "", false
	}
	for _, f := range fields {
		if r.keeps(f[0]) {
			r.fields += fmt.Sprintf("%q: %q\n", f[0], f[1])
		}
	}
	return r.String(), rest, true
}

type oracle struct {
	method, target, path, query, authority, minor, framing, upgrade, fields string
	keep, trailers                                                          bool
	h                                                                       map[string][]string
	options                                                                 []string
}

func (r *oracle) String() string {
	return fmt.Sprintf("%s %q %q %q %q %s keep %t trailers %t upgrade %q\n%s", r.method, r.target, r.path, r.query, r.authority,
		r.framing, r.keep, r.trailers, r.upgrade, r.fields)
}

func (r *oracle) readTarget(t string) bool {
	r.query = "none"
	if r.method == "CONNECT" {
		return false
	}
	if t == "*" {
		r.target, r.path = "*", "*"
		return r.method == "OPTIONS"
	}
	if form := oracleForm.FindStringSubmatch(t); form != nil {
		if r.authority = form[1]; !validAuthority(form[1]) {
			return false
		}
		if form[2]+form[3] == "" && r.method == "OPTIONS" {
			r.target, r.path = "*", "*"
			return true
		}
		if t = form[2] + form[3]; form[2] == "" {
			t = "/" + form[3]
		}
	}
	if t[0] != '/' {
		return false
	}
	spelling, query, has := strings.Cut(t, "?")
	if has {
		r.query = "?" + query
	}
	path, dots, ok := oraclePath(spelling)
	if !ok {
		return false
	}
	r.path = path
	if dots {
		r.target = escape(path, "-._~!$&'()*+,;=:@/")
	} else {
		r.target = escape(spelling, "-._~!$&'()*+,;=:@/%[]")
	}
	if has {
		r.target += "?" + query
	}
	return true
}

// oraclePath is routing's view of a path, one step after the other.
func oraclePath(spelling string) (path string, dots, ok bool) {
	if strings.ContainsAny(spelling, "\\") {
		return "", false, false
	}
	bad := false
	decoded := oracleEscape.ReplaceAllStringFunc(spelling, func(e string) string {
		c, err := strconv.ParseUint(e[1:], 16, 8)
		bad = bad || err != nil || len(e) != 3 || c == 0
		return string([]byte{byte(c)})
	})
	if bad || regexpOverlong(decoded) {
		return "", false, false
	}
	var kept []string
	segments := strings.Split(decoded[1:], "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch {
		case s == "." || s == "..":
			dots = true
			if s == ".." {
				if len(kept) == 0 {
					return "", false, false
				}
				kept = kept[:len(kept)-1]
			}
			if last {
				kept = append(kept, "")
			}
		case s != "" || last:
			kept = append(kept, s)
		}
	}
	return "/" + strings.Join(kept, "/"), dots, true
}

// regexpOverlong looks for the first two bytes of overlong UTF-8.
func regexpOverlong(s string) bool {
	for i := 1; i < len(s); i++ {
		a, b := s[i-1], s[i]
		if b >= 0x80 && b < 0xc0 && (a == 0xc0 || a == 0xc1 || a == 0xe0 && b < 0xa0 || a == 0xf0 && b < 0x90 || a == 0xf8 && b < 0x88 ||
			a == 0xfc && b < 0x84) {
			return true
		}
	}
	return false
}

func escape(s, also string) string {
	var out strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(also, c) >= 0 {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

func validAuthority(a string) bool {
	m := oracleHost.FindStringSubmatch(a)
	if m == nil || len(m[1]) > 255 {
		return false
	}
	if m[1][0] == '[' && !validIPv6(m[1][1:len(m[1])-1]) {
		return false
	}
	port, _ := strconv.Atoi("0" + m[2])
	return port <= 65535
}

func (r *oracle) readHost() bool {
	hosts := r.h["host"]
	if len(hosts) > 1 || len(hosts) == 0 && r.minor == "1" {
		return false
	}
	if len(hosts) == 1 {
		if !validAuthority(hosts[0]) {
			return false
		}
		if r.authority == "" {
			r.authority = hosts[0]
		}
	}
	r.authority = strings.TrimSuffix(r.authority, ":")
	return true
}

func (r *oracle) readFraming() bool {
	length, coding := r.h["content-length"], r.h["transfer-encoding"]
	r.framing = "none"
	if len(length)+len(coding) > 1 || len(coding) == 1 && (!strings.EqualFold(coding[0], "chunked") || r.minor == "0") {
		return false
	}
	if len(coding) == 1 {
		r.framing = "chunked"
	}
	if len(length) == 1 {
		n, err := strconv.ParseInt(length[0], 10, 64)
		if err != nil || strings.ContainsAny(length[0], "+-_") {
			return false
		}
		r.framing = strconv.FormatInt(n, 10)
	}
	return true
}

// list splits the elements of all lines of a field.
func (r *oracle) list(name string) (elements []string) {
	for _, line := range r.h[name] {
		for _, e := range strings.Split(line, ",") {
			elements = append(elements, strings.ToLower(strings.Trim(e, " \t")))
		}
	}
	return elements
}

func (r *oracle) readConnection() bool {
	named := 0
	for _, o := range r.list("connection") {
		r.options = append(r.options, o)
		if oracleToken.MatchString(o) && !slices.Contains([]string{"close", "keep-alive", "upgrade", "te"}, o) {
			named++
		}
	}
	r.keep = !slices.Contains(r.options, "close") && (r.minor == "1" || slices.Contains(r.options, "keep-alive"))
	r.trailers = slices.Contains(r.list("te"), "trailers")
	return named <= 32
}

func (r *oracle) readUpgrade() bool {
	if len(r.h["upgrade"]) != 1 || r.minor == "0" || !slices.Contains(r.options, "upgrade") {
		return true
	}
	for _, p := range strings.Split(r.h["upgrade"][0], ",") {
		p = strings.Trim(p, " \t")
		m := oracleProto.FindStringSubmatch(p)
		if m != nil && m[1] != "" && !slices.Contains([]string{"h2c", "h2", "http"}, strings.ToLower(m[1])) {
			r.upgrade = p
			break
		}
	}
	if !strings.EqualFold(r.upgrade, "websocket") {
		return true
	}
	key, version := r.h["sec-websocket-key"], r.h["sec-websocket-version"]
	return r.method == "GET" && len(key) == 1 && oracleKey.MatchString(key[0]) && len(version) == 1 && version[0] == "13"
}

// keeps tells whether a field is forwarded.
func (r *oracle) keeps(name string) bool {
	switch {
	case oracleHop.MatchString(name):
		return false
	case strings.EqualFold(name, "trailer"):
		return r.trailers
	case oracleKnown.MatchString(name):
		return true
	}
	return !slices.Contains(r.options, strings.ToLower(name))
}

// oracleChunked is the reference decoder: the body at b's start and what follows it.
func oracleChunked(b string) (body, rest string, trailers int, ok bool) {
	for extensions := 0; ; {
		line, after, found := strings.Cut(b, "\r\n")
		size, ext, _ := strings.Cut(line, ";")
		n, err := strconv.ParseInt("0"+size, 16, 64)
		if extensions += len(ext); !found || err != nil || size == "" || len(size) > 16 || strings.ContainsAny(size, "+-_xX") ||
			len(ext) > 256 || extensions > 16<<10 || !validText(ext) {
			return "", "", 0, false
		}
		if b = after; n == 0 {
			break
		}
		if int64(len(b)) < n+2 || b[n:n+2] != "\r\n" {
			return "", "", 0, false
		}
		body, b = body+b[:n], b[n+2:]
	}
	for bytes := 0; ; trailers++ {
		line, after, found := strings.Cut(b, "\r\n")
		if bytes += len(line) + 2; !found || bytes > 8<<10 {
			return "", "", 0, false
		}
		if b = after; line == "" {
			return body, b, trailers, true
		}
		if !oracleField.MatchString(line) || trailers == 32 {
			return "", "", 0, false
		}
	}
}

// validText tells whether s has no control character but HTAB.
func validText(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}
