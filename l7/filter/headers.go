package filter

import (
	"fmt"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// Headers sets, adds and removes fields of requests on their way to the backend and of responses on their way to the
// client. Each list is lines of "Name: value", a removal is a line of a name alone. Values may have variables (see
// Text); one that comes out empty is not set, and removes what was there, as in nginx. Removals come first.
type Headers struct {
	RequestSet, RequestAdd, RequestRemove    string
	ResponseSet, ResponseAdd, ResponseRemove string

	Early bool // of responses: rules' own edits come after it
}

// Stage is the header stage: what the proxy itself says about the client can be replaced. Response filters run in
// reverse, so an early edit stands in the stage behind.
func (h Headers) Stage() Stage {
	if h.Early {
		return Body
	}
	return Header
}

// Compile refuses names that are no tokens, fields that no configuration may touch, and values that no field may have.
func (h Headers) Compile(*State) (f l7.Filter, err error) {
	request, err := newHeaderEdits(h.RequestSet, h.RequestAdd, h.RequestRemove)
	if err != nil {
		return f, fmt.Errorf("request headers: %w", err)
	}
	response, err := newHeaderEdits(h.ResponseSet, h.ResponseAdd, h.ResponseRemove)
	if err != nil {
		return f, fmt.Errorf("response headers: %w", err)
	}
	if request != nil {
		f.Request = (*requestHeaders)(request)
	}
	if response != nil {
		f.Response = (*responseHeaders)(response)
	}
	return f, nil
}

type headerEdits struct {
	remove   []headerName
	set, add []headerLine
}

type headerName struct {
	id   wire.FieldID
	name []byte
}

type headerLine struct {
	headerName
	value Text
}

// newHeaderEdits is nil when there is nothing to do.
func newHeaderEdits(set, add, remove string) (*headerEdits, error) {
	e := &headerEdits{}
	var err error
	if e.set, err = headerLines(set); err != nil {
		return nil, err
	}
	if e.add, err = headerLines(add); err != nil {
		return nil, err
	}
	for line := range strings.Lines(remove) {
		n, err := parseHeaderName(strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		e.remove = append(e.remove, n)
	}
	if len(e.remove)+len(e.set)+len(e.add) == 0 {
		return nil, nil
	}
	return e, nil
}

func headerLines(text string) (out []headerLine, err error) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			return nil, fmt.Errorf("%q is not NAME: VALUE", line)
		}
		l := headerLine{}
		if l.headerName, err = parseHeaderName(name); err != nil {
			return nil, err
		}
		value = strings.TrimSpace(value)
		if !wire.ValidValue([]byte(value)) {
			return nil, fmt.Errorf("%s: the value holds a control character", name)
		}
		if l.value, err = ParseText(value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// parseHeaderName refuses names of fields that belong to the connection: their framing is the proxy's.
func parseHeaderName(s string) (headerName, error) {
	n := headerName{name: []byte(s)}
	if s == "" || !wire.IsToken(n.name) {
		return n, fmt.Errorf("%q is not the name of a field", s)
	}
	if n.id = wire.IDOf(n.name); n.id.HopByHop() && n.id != wire.FieldHost || n.id == wire.FieldTrailer {
		return n, fmt.Errorf("%s belongs to the connection and cannot be changed", s)
	}
	return n, nil
}

// CheckHeaderName tells why a name cannot be one that a configuration sets or removes.
func CheckHeaderName(s string) error {
	_, err := parseHeaderName(s)
	return err
}

// CheckHeader tells why NAME and VALUE cannot be a line of Headers.
func CheckHeader(name, value string) error {
	if strings.ContainsAny(name+value, "\r\n") {
		return fmt.Errorf("%q holds a line break", name)
	}
	_, err := headerLines(name + ": " + value)
	return err
}

type requestHeaders headerEdits

func (h *requestHeaders) Request(x *l7.Exchange) l7.Verdict {
	x.Describe()
	for i := range h.remove {
		dropRequest(x, &h.remove[i])
	}
	for i := range h.set {
		l := &h.set[i]
		v := l.value.Fill(x)
		switch {
		case l.id == wire.FieldHost:
			if len(v) > 0 {
				x.SendHost = v
			}
		case len(v) == 0:
			dropRequest(x, &l.headerName)
		default:
			x.SetRequest(l.id, l.name, v)
		}
	}
	for i := range h.add {
		l := &h.add[i]
		if v := l.value.Fill(x); len(v) > 0 && l.id != wire.FieldHost {
			x.Req.Fields = append(x.Req.Fields, wire.Field{Name: l.name, Value: v, ID: l.id})
		}
	}
	return l7.Continue
}

type responseHeaders headerEdits

func (h *responseHeaders) Response(x *l7.Exchange) {
	for i := range h.remove {
		x.Resp.Fields = removeField(x.Resp.Fields, &h.remove[i])
	}
	for i := range h.set {
		l := &h.set[i]
		if v := l.value.Fill(x); len(v) > 0 {
			x.SetResponse(l.id, l.name, v)
		} else {
			x.Resp.Fields = removeField(x.Resp.Fields, &l.headerName)
		}
	}
	for i := range h.add {
		l := &h.add[i]
		if v := l.value.Fill(x); len(v) > 0 {
			x.Resp.Fields = append(x.Resp.Fields, wire.Field{Name: l.name, Value: v, ID: l.id})
		}
	}
}

// dropRequest removes a field of the request, be it a trailer.
func dropRequest(x *l7.Exchange, n *headerName) {
	x.Req.Own(n.name)
	x.Req.Fields = removeField(x.Req.Fields, n)
}

func removeField(fields []wire.Field, n *headerName) []wire.Field {
	kept := fields[:0]
	for i := range fields {
		f := &fields[i]
		if f.ID != n.id || n.id == wire.FieldOther && !f.Named(n.name) {
			kept = append(kept, *f)
		}
	}
	return kept
}
