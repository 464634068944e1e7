package watcher

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// Question is a request that somebody wants explained.
type Question struct {
	Method string
	URL    string   // with scheme and host
	Fields []string // "Name: value"
}

// Explained is what becomes of a request, ready for encoding/json.
type Explained struct {
	Request string `json:"request"`           // its first line, as the backend would get it without a rewrite
	Refused string `json:"refused,omitempty"` // why no request like this is served
	Path    string `json:"path,omitempty"`    // as routing sees it
	*route.Explanation
	Service     *route.DescribedService       `json:"service,omitempty"` // what a TCP or UDP port leads to, if that was asked
	Endpoints   []string                      `json:"endpoints,omitempty"`
	Annotations []translate.AppliedAnnotation `json:"annotations,omitempty"`
	Settings    []translate.Origin            `json:"settings,omitempty"`
	Problems    []string                      `json:"problems,omitempty"` // of the Ingress
}

// Explain tells what a state does with a request. t and env are this call's own: nothing that serves is touched.
func Explain(s *State, t *translate.Translator, env route.Env, q Question) (*Explained, error) {
	if AsksService(q.URL) {
		return explainService(s, t, q.URL)
	}
	r, refused, err := q.parse()
	if err != nil {
		return nil, err
	}
	if refused != "" {
		return &Explained{Request: q.Method + " " + q.URL, Refused: refused}, nil
	}
	config, problems := t.Translate(&s.Objects)
	snapshot, more := route.Compile(config, nil, env)
	e := &Explained{Request: q.Method + " " + string(r.Target) + " for " + string(r.Host), Path: string(r.Path), Explanation: snapshot.Explain(r)}
	for _, c := range config.Clusters {
		if c.ID == e.Cluster {
			for _, a := range c.Endpoints {
				e.Endpoints = append(e.Endpoints, route.AddressText(a))
			}
		}
	}
	if e.Rule == nil {
		return e, nil
	}
	e.Annotations, _ = t.Annotations(e.Owner.Namespace, e.Owner.Name)
	e.Settings = t.Origins(e.Owner.Namespace, e.Owner.Name)
	for _, p := range append(problems, more...) {
		if p.Object == e.Owner {
			e.Problems = append(e.Problems, p.Field+": "+p.Reason)
		}
	}
	return e, nil
}

// parse makes the request that a client would send; refused: the proxy would not take it.
func (q *Question) parse() (r *wire.Request, refused string, err error) {
	u, err := url.Parse(q.URL)
	if err != nil {
		return nil, "", err
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, "", fmt.Errorf("%q is not a URL like https://shop.example/cart", q.URL)
	}
	_, rest, _ := strings.Cut(q.URL, "://")
	target := "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		target = rest[i:]
		if target[0] == '?' {
			target = "/" + target
		}
	}
	target, _, _ = strings.Cut(target, "#")
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", q.Method, target, u.Host)
	for _, f := range q.Fields {
		if !strings.Contains(f, ":") || strings.ContainsAny(f, "\r\n") {
			return nil, "", fmt.Errorf("%q is not a field like \"Name: value\"", f)
		}
		fmt.Fprintf(&b, "%s\r\n", f)
	}
	b.WriteString("\r\n")
	skip, n, fault := wire.RequestHeadEnd(b.Bytes(), 0, nil)
	r = new(wire.Request)
	if fault == nil {
		if n == 0 {
			return nil, "", errors.New("the request has no end")
		}
		fault = r.Parse(b.Bytes()[skip:skip+n], new(wire.Arena), nil)
	}
	if fault != nil {
		return nil, fault.Text, nil
	}
	return r, "", nil
}

// AsksService tells whether a question is about a TCP or UDP service: tcp://:9000.
func AsksService(url string) bool {
	return strings.HasPrefix(url, "tcp://") || strings.HasPrefix(url, "udp://")
}

// explainService tells what a port leads to.
func explainService(s *State, t *translate.Translator, url string) (*Explained, error) {
	scheme, at, _ := strings.Cut(url, "://")
	protocol := route.TCP
	if scheme == "udp" {
		protocol = route.UDP
	}
	_, text, err := net.SplitHostPort(strings.TrimSuffix(at, "/"))
	port, e := strconv.ParseUint(text, 10, 16)
	if err != nil || e != nil {
		return nil, fmt.Errorf("%q names no port: write %s://:9000", url, scheme)
	}
	config, problems := t.Translate(&s.Objects)
	out := &Explained{Request: fmt.Sprintf("%s port %d", protocol, port)}
	i := slices.IndexFunc(config.Services, func(v *route.Service) bool { return v.Protocol == protocol && v.Port == uint16(port) })
	if i < 0 {
		out.Refused = fmt.Sprintf("no entry of --%s-services-configmap names it", scheme)
	} else {
		d := config.Services[i].Describe()
		out.Service = &d
		for _, c := range config.Clusters {
			if c.ID == d.Cluster {
				for _, a := range c.Endpoints {
					out.Endpoints = append(out.Endpoints, route.AddressText(a))
				}
			}
		}
	}
	for _, p := range problems {
		if p.Object.Kind == "ConfigMap" && p.Field == fmt.Sprintf("data[%d]", port) {
			out.Problems = append(out.Problems, p.String())
		}
	}
	return out, nil
}
