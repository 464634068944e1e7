package filter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// A Text is text with nginx's variables in it, as annotations write it: "https://$host/oauth2/auth", "${scheme}-x". It is
// immutable, and filled in for each exchange without an allocation but the arena's.
type Text struct {
	parts []textPart
}

type textPart struct {
	text  []byte
	value func(x *l7.Exchange, argument string) []byte // nil: text
	arg   string                                       // of $http_NAME and its like: NAME
}

// textPartsMax bounds the variables of one text.
const textPartsMax = 24

// ParseText takes a text apart; a variable that is not known is an error that lists none of its value.
func ParseText(s string) (Text, error) {
	var t Text
	for s != "" {
		plain, rest, found := strings.Cut(s, "$")
		if plain != "" {
			t.parts = append(t.parts, textPart{text: []byte(plain)})
		}
		if !found {
			break
		}
		name, after, err := variableName(rest)
		if err != nil {
			return Text{}, err
		}
		p, ok := variable(name)
		if !ok {
			return Text{}, fmt.Errorf("the variable $%s is not known", name)
		}
		t.parts = append(t.parts, p)
		s = after
	}
	if len(t.parts) > textPartsMax {
		return Text{}, fmt.Errorf("more than %d pieces of text and variables", textPartsMax)
	}
	return t, nil
}

func variableName(s string) (name, rest string, err error) {
	if strings.HasPrefix(s, "{") {
		name, rest, ok := strings.Cut(s[1:], "}")
		if !ok {
			return "", "", fmt.Errorf("${ without a closing brace")
		}
		return name, rest, nil
	}
	n := 0
	for n < len(s) && (s[n] == '_' || '0' <= s[n] && s[n] <= '9' || 'a' <= s[n]|0x20 && s[n]|0x20 <= 'z') {
		n++
	}
	if n == 0 {
		return "", "", fmt.Errorf("a $ that begins no variable")
	}
	return s[:n], s[n:], nil
}

// variables are those without an argument.
var variables = map[string]func(x *l7.Exchange, _ string) []byte{
	"host":                func(x *l7.Exchange, _ string) []byte { return x.Req.Host },
	"http_host":           func(x *l7.Exchange, _ string) []byte { return x.Authority() },
	"best_http_host":      func(x *l7.Exchange, _ string) []byte { return x.BestAuthority() },
	"request_uri":         func(x *l7.Exchange, _ string) []byte { return x.Asked() },
	"escaped_request_uri": escapedURI,
	"uri":                 func(x *l7.Exchange, _ string) []byte { return x.Req.Path },
	"args":                func(x *l7.Exchange, _ string) []byte { return x.Req.Query },
	"query_string":        func(x *l7.Exchange, _ string) []byte { return x.Req.Query },
	"request_method":      func(x *l7.Exchange, _ string) []byte { return x.Req.MethodText },
	"scheme":              scheme,
	"pass_access_scheme":  scheme,
	"remote_addr":         func(x *l7.Exchange, _ string) []byte { return x.Arena.Commit(x.ClientIP.AppendTo(x.Arena.Reserve(64))) },
	"server_port":         func(x *l7.Exchange, _ string) []byte { return x.Port() },
	"pass_server_port":    func(x *l7.Exchange, _ string) []byte { return x.Port() },
	"pass_port":           func(x *l7.Exchange, _ string) []byte { return x.PassPort() },
	"req_id":              func(x *l7.Exchange, _ string) []byte { return x.ID() },
	"request_id":          func(x *l7.Exchange, _ string) []byte { return x.ID() },
	"namespace":           func(x *l7.Exchange, _ string) []byte { return x.Arena.Copy([]byte(x.Route.ID.Namespace)) },
	"ingress_name":        func(x *l7.Exchange, _ string) []byte { return x.Arena.Copy([]byte(x.Route.ID.Ingress)) },
	"service_name":        func(x *l7.Exchange, _ string) []byte { return x.Arena.Copy([]byte(x.Route.ID.Service)) },
	"service_port":        func(x *l7.Exchange, _ string) []byte { return x.Arena.Copy([]byte(x.Route.ID.Port)) },
	"literal_dollar":      func(*l7.Exchange, string) []byte { return dollar },
	"location_path":       func(x *l7.Exchange, _ string) []byte { return x.Arena.Copy([]byte(x.Route.ID.Path)) },
}

func variable(name string) (textPart, bool) {
	if f := variables[name]; f != nil {
		return textPart{value: f}, true
	}
	if field, ok := strings.CutPrefix(name, "http_"); ok && field != "" {
		return textPart{value: fieldOf, arg: strings.ReplaceAll(field, "_", "-")}, true
	}
	if cookie, ok := strings.CutPrefix(name, "cookie_"); ok && cookie != "" {
		return textPart{value: cookieOf, arg: cookie}, true
	}
	if arg, ok := strings.CutPrefix(name, "arg_"); ok && arg != "" {
		return textPart{value: argumentOf, arg: arg}, true
	}
	return textPart{}, false
}

func scheme(x *l7.Exchange, _ string) []byte {
	if x.Secure {
		return wordHTTPS
	}
	return wordHTTP
}

var dollar = []byte("$")

// VariableNames are those that texts may have, sorted.
func VariableNames() []string {
	names := slices.Sorted(maps.Keys(variables))
	return append(names, "arg_NAME", "cookie_NAME", "http_NAME")
}

var wordHTTP, wordHTTPS = []byte("http"), []byte("https")

// fieldOf is a request field's value; of several lines all, as nginx joins them: whoever decides by it sees what backends see.
func fieldOf(x *l7.Exchange, name string) []byte {
	var v []byte
	lines, size := 0, 0
	for i := range x.Req.Fields {
		if f := &x.Req.Fields[i]; f.Is(name) {
			v = f.Value
			lines++
			size += len(v) + 2
		}
	}
	if lines < 2 {
		return v
	}
	separator := ", "
	if wire.IDOf([]byte(name)) == wire.FieldCookie {
		separator = "; "
	}
	all := x.Arena.Reserve(size)
	for i := range x.Req.Fields {
		if f := &x.Req.Fields[i]; f.Is(name) {
			if lines--; lines == 0 {
				separator = ""
			}
			all = append(append(all, f.Value...), separator...)
		}
	}
	return x.Arena.Commit(all)
}

// cookieOf is a cookie's value, by its very name as backends read it, or else in any case as nginx does.
func cookieOf(x *l7.Exchange, name string) []byte {
	if v := wire.Cookie(x.Req.Fields, name, false); v != nil {
		return v
	}
	return wire.Cookie(x.Req.Fields, name, true)
}

func argumentOf(x *l7.Exchange, name string) []byte {
	v, _ := pairValue(x.Req.Query, name, '&')
	return v
}

// pairValue finds name=value in a list; blanks before a name do not count.
func pairValue(list []byte, name string, separator byte) ([]byte, bool) {
	for len(list) > 0 {
		pair := list
		list = nil
		for i, c := range pair {
			if c == separator {
				pair, list = pair[:i], pair[i+1:]
				break
			}
		}
		for len(pair) > 0 && pair[0] == ' ' {
			pair = pair[1:]
		}
		if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
			return pair[len(name)+1:], true
		}
	}
	return nil, false
}

const hexUpper = "0123456789ABCDEF"

// escapedURI is the client's target as the value of a query's argument (nginx's set_escape_uri: all but the unreserved
// characters of RFC 3986).
func escapedURI(x *l7.Exchange, _ string) []byte {
	in := x.Asked()
	out := x.Arena.Reserve(3 * len(in))
	for _, c := range in {
		if '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || strings.IndexByte("-._~", c) >= 0 {
			out = append(out, c)
			continue
		}
		out = append(out, '%', hexUpper[c>>4], hexUpper[c&15])
	}
	return x.Arena.Commit(out)
}

// Constant tells whether the text has no variables, and what it is then.
func (t *Text) Constant() ([]byte, bool) {
	switch {
	case len(t.parts) == 0:
		return nil, true
	case len(t.parts) == 1 && t.parts[0].value == nil:
		return t.parts[0].text, true
	}
	return nil, false
}

// Fill gives the text for an exchange: in its arena, or the filter's own memory.
func (t *Text) Fill(x *l7.Exchange) []byte {
	if b, ok := t.Constant(); ok {
		return b
	}
	var values [textPartsMax][]byte
	n := 0
	for i := range t.parts {
		p := &t.parts[i]
		if values[i] = p.text; p.value != nil {
			values[i] = p.value(x, p.arg)
		}
		n += len(values[i])
	}
	out := x.Arena.Reserve(n)
	for _, v := range values[:len(t.parts)] {
		out = append(out, v...)
	}
	return x.Arena.Commit(out)
}
