package route

import (
	"regexp"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// Explanation tells which rule takes a request and why no other one does, ready for encoding/json.
type Explanation struct {
	Host        string         `json:"host"`    // "": the catch-all
	HostBy      string         `json:"hostBy"`  // name, wildcard or catch-all
	Regex       bool           `json:"regex"`   // the host's paths are regular expressions
	Outcome     string         `json:"outcome"` // forwarded, answered, redirected, 503, 404, or passed through
	Rule        *ExplainedRule `json:"rule,omitempty"`
	Canary      string         `json:"canary,omitempty"` // what the canaries' rules say
	Passthrough string         `json:"passthrough,omitempty"`
	Others      []LostRule     `json:"others,omitempty"` // the host's other rules
	Owner       Object         `json:"-"`                // of Rule
	Cluster     string         `json:"-"`                // that takes the request
}

// ExplainedRule is the rule that takes a request.
type ExplainedRule struct {
	Ingress string   `json:"ingress"`
	Path    string   `json:"path"`
	Type    string   `json:"type"`
	Service string   `json:"service,omitempty"`
	Port    string   `json:"port,omitempty"`
	Cluster string   `json:"cluster,omitempty"`
	Filters []string `json:"filters,omitempty"` // the host's before the rule's own, within each stage
	Denied  string   `json:"denied,omitempty"`  // why every request is answered 503
}

// LostRule is a rule that does not take the request.
type LostRule struct {
	Ingress string `json:"ingress"`
	Path    string `json:"path"`
	Type    string `json:"type"`
	Why     string `json:"why"`
}

// Explain tells what a request leads to. It is for people: it takes its time.
func (s *Snapshot) Explain(r *wire.Request) *Explanation {
	h := s.Host(r.Host)
	e := &Explanation{Host: h.source.Name, Regex: h.source.RegexMode, HostBy: "catch-all", Passthrough: h.source.Passthrough}
	switch {
	case isWildcard(h.source.Name):
		e.HostBy = "wildcard"
	case h.source.Name != "":
		e.HostBy = "name"
	}
	path := r.Path
	if len(path) == 1 && path[0] == '*' {
		path = root
	}
	route := h.Match(path)
	winner := -1
	for i := range h.source.Rules {
		if route != nil && h.routes[i] == route {
			winner = i
		}
	}
	e.outcome(h, route, winner)
	if winner >= 0 {
		rule := &h.source.Rules[winner]
		e.Owner, e.Cluster = rule.Owner, rule.Cluster
		e.Rule = &ExplainedRule{Ingress: rule.Owner.Namespace + "/" + rule.Owner.Name, Path: rule.Path, Type: rule.Type.String(),
			Service: rule.Service, Port: rule.Port, Cluster: rule.Cluster, Denied: rule.Deny,
			Filters: append(describeFilters(h.source.Filters), describeFilters(rule.Filters)...)}
		e.canary(rule, route, r)
	}
	for i := range h.source.Rules {
		if i != winner {
			e.Others = append(e.Others, h.lost(i, winner, string(path)))
		}
	}
	return e
}

func (e *Explanation) outcome(h *Host, route *l7.Route, winner int) {
	switch {
	case route == nil:
		e.Outcome = "404: no rule of the host takes the path, and there is no default backend"
	case describeState(route) == "503":
		e.Outcome = "503"
	case winner < 0 && route == h.miss && route.Cluster != nil:
		e.Outcome = "forwarded to the default backend: no rule of the host takes the path"
	case winner < 0 && route == h.miss:
		e.Outcome = "404: no rule of the host takes the path"
	case winner < 0:
		e.Outcome = "redirected to the path with a slash at its end, as nginx does for a rule whose path has one"
	case route.Cluster == nil:
		e.Outcome = "answered by the proxy itself"
	default:
		e.Outcome = "forwarded, unless one of the filters answers"
	}
}

// canary tells what the rule's canaries say to the request, as far as that is no matter of chance or of a cookie of affinity.
func (e *Explanation) canary(rule *Rule, route *l7.Route, r *wire.Request) {
	var text []string
	for i := range route.Canaries {
		c := &route.Canaries[i]
		takes, decided := c.Asks(r.Fields)
		switch {
		case takes && decided:
			e.Cluster = c.Cluster.ID()
			e.Canary = strings.Join(append(text, c.Name+" takes it: its header or cookie rule says so"), "; ")
			return
		case decided:
			text = append(text, c.Name+" does not take it: its header or cookie rule says so")
		default:
			text = append(text, c.Name+" takes it by chance, with "+c.ShareText())
		}
	}
	e.Canary = strings.Join(text, "; ")
}

// lost tells why rule i does not take the path that rule winner takes; -1: no rule does.
func (h *Host) lost(i, winner int, path string) LostRule {
	r := &h.source.Rules[i]
	l := LostRule{Ingress: r.Owner.Namespace + "/" + r.Owner.Name, Path: r.Path, Type: r.Type.String()}
	switch {
	case h.routes[i] == nil:
		l.Why = "is left out: see the problems"
	case !takes(r, path, h.source.RegexMode):
		l.Why = "does not match " + path
	case winner < 0:
		l.Why = "matches, but the request is answered before it"
	case h.source.RegexMode:
		l.Why = "matches, but a longer expression is tried first"
	case h.source.Rules[winner].Type == Exact:
		l.Why = "matches, but an Exact path goes first"
	default:
		l.Why = "matches, but a longer path goes first"
	}
	return l
}

// takes is the naive matcher: whether a rule alone would take a path.
func takes(r *Rule, path string, regex bool) bool {
	if regex {
		re, err := regexp.Compile("(?i)^(?:" + r.Path + ")")
		return err == nil && re.MatchString(path)
	}
	switch r.Type {
	case Exact:
		return path == r.Path
	case Implementation:
		return strings.HasPrefix(path, r.Path)
	}
	p := strings.TrimSuffix(r.Path, "/")
	return path == p || strings.HasPrefix(path, p+"/")
}
