package route

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/upstream"
)

// compileRule makes the route of a rule of the host at work, unless no request could match it.
func (k *compiler) compileRule(i int) {
	v := k.host.source
	r := &v.Rules[i]
	if wrong := checkPath(r); wrong != "" {
		k.hostProblem(r.Owner, ruleField(v, r), "%s; the rule is left out", wrong)
		return
	}
	k.host.routes[i] = k.route(v, r)
	k.host.usable = append(k.host.usable, i)
}

func checkPath(r *Rule) string {
	switch {
	case !strings.HasPrefix(r.Path, "/"):
		return "the path does not begin with /"
	case len(r.Path) > pathBytesMax:
		return fmt.Sprintf("the path is longer than %d bytes", pathBytesMax)
	case strings.IndexByte(r.Path, 0) >= 0:
		return "the path has a NUL byte"
	case r.Type > Implementation:
		return fmt.Sprintf("path type %d is unknown", uint8(r.Type))
	}
	return ""
}

func identityOf(v *VirtualHost, r *Rule) l7.Identity {
	return l7.Identity{Namespace: r.Owner.Namespace, Ingress: r.Owner.Name, Service: r.Service, Port: r.Port, Host: v.Name, Path: r.Path}
}

// route compiles a rule. What is wrong with it makes it fail closed.
func (k *compiler) route(v *VirtualHost, r *Rule) *l7.Route {
	id := identityOf(v, r)
	var target, fallback *liveCluster
	if r.Cluster != "" {
		if target = k.named(r.Cluster); target == nil {
			k.hostProblem(r.Owner, ruleField(v, r), "cluster %s does not exist; requests are answered 503", r.Cluster)
			return k.failing(id)
		}
	}
	if r.Fallback != "" {
		if fallback = k.named(r.Fallback); fallback == nil {
			k.hostProblem(r.Owner, ruleField(v, r), "cluster %s, the default backend, does not exist; none is asked", r.Fallback)
		}
	}
	chain := k.ruleChain(r)
	if chain.failed || r.Deny != "" {
		return k.failing(id)
	}
	route := &l7.Route{ID: id, Request: chain.request, Response: chain.response, Errors: chain.errors, Policy: r.Policy, Stats: k.stats(id),
		ClientAuth: k.host.ClientAuth}
	if target == nil {
		route.Request = endWith(chain.request, unavailable) // what the filters leave unanswered has nowhere to go
		return route
	}
	route.Cluster = target.upstream
	route.Canaries = k.canaries(v, r)
	route.Mirror = k.mirror(v, r)
	if fallback != nil {
		route.Fallback = fallback.upstream
	}
	return route
}

// canaries compiles a rule's canaries. One that cannot be used gets no requests: they stay with the rule's own cluster.
func (k *compiler) canaries(v *VirtualHost, r *Rule) (list []l7.Canary) {
	for i := range r.Canaries {
		c := &r.Canaries[i]
		target := k.named(c.Cluster)
		if target == nil {
			k.hostProblem(c.Owner, ruleField(v, r), "cluster %s, a canary, does not exist; it gets no requests", c.Cluster)
			continue
		}
		compiled, err := l7.NewCanary(target.upstream, c.Owner.Namespace+"-"+c.Service+"-"+c.Port, c.Sticky, c.When)
		if err != nil || len(list) == l7.CanariesMax {
			k.hostProblem(c.Owner, ruleField(v, r), "the canary gets no requests: %v", cmp.Or(err, errCanaries))
			continue
		}
		list = append(list, compiled)
	}
	return list
}

// mirror compiles a rule's mirror; one that cannot be used gets nothing.
func (k *compiler) mirror(v *VirtualHost, r *Rule) *l7.Mirror {
	if r.Mirror == nil {
		return nil
	}
	target := k.named(r.Mirror.Cluster)
	parts, err := upstream.ParseKey(r.Mirror.Target)
	if target == nil || err != nil {
		k.hostProblem(r.Owner, ruleField(v, r), "the mirror gets no requests: cluster %s does not exist, or %v", r.Mirror.Cluster, err)
		return nil
	}
	return &l7.Mirror{Cluster: target.upstream, Host: []byte(r.Mirror.Host), Target: parts, Body: r.Mirror.Body}
}

var errCanaries = fmt.Errorf("a path may have at most %d", l7.CanariesMax)

// redirect makes the route that adds the slash which a rule's path has. It comes before the rule's own filters, as in nginx.
func (k *compiler) redirect(m redirect) *l7.Route {
	v, common := k.host.source, &k.host.common
	r := &v.Rules[m.rule]
	id := identityOf(v, r)
	if common.failed {
		return k.failing(id)
	}
	return &l7.Route{ID: id, Request: endWith(common.request, addSlash{escapePath(r.Path), r.Slash}), Response: common.response,
		Policy: r.Policy, Stats: k.stats(id), ClientAuth: k.host.ClientAuth}
}

// named finds a cluster by its ID, and remembers that the host depends on it.
func (k *compiler) named(id string) *liveCluster {
	h := k.host.Host
	c := k.next.clusters[id]
	if c == nil {
		h.missing = append(h.missing, id)
		return nil
	}
	if recent := h.clusters[max(0, len(h.clusters)-8):]; !slices.Contains(recent, c.live) {
		h.clusters = append(h.clusters, c.live)
	}
	return c.live
}

// chain is filters compiled: in the order of their stages, and within a stage of the Config; responses the other way.
type chain struct {
	list     []staged
	request  []l7.RequestFilter
	response []l7.ResponseFilter
	errors   *l7.ErrorPages
	failed   bool // at least one could not be compiled
}

type staged struct {
	stage filter.Stage
	l7.Filter
}

func newChain(list []staged, failed bool) chain {
	c := chain{list: list, failed: failed}
	slices.SortStableFunc(c.list, func(a, b staged) int { return int(a.stage) - int(b.stage) })
	for i := range c.list {
		if f := c.list[i].Request; f != nil {
			c.request = append(c.request, f)
		}
		if e := c.list[i].Errors; e != nil {
			c.errors = e
		}
		if f := c.list[len(c.list)-1-i].Response; f != nil {
			c.response = append(c.response, f)
		}
	}
	return c
}

// endWith copies a chain's request filters and appends others: chains are shared.
func endWith(fs []l7.RequestFilter, last ...l7.RequestFilter) []l7.RequestFilter {
	return append(slices.Clip(fs), last...)
}

// ruleChain is a chain with what it was made of.
type ruleChain struct {
	chain
	owner   Object
	filters []filter.Config
}

// ruleChain compiles a rule's filters, with the host's before them in each stage.
func (k *compiler) ruleChain(r *Rule) *chain {
	if len(r.Filters) == 0 || k.host.common.failed {
		return &k.host.common
	}
	last := &k.host.last
	if !sameSlice(last.filters, r.Filters) || last.owner != r.Owner {
		own, failed := k.stages(r.Owner, r.Filters)
		*last = ruleChain{owner: r.Owner, filters: r.Filters, chain: newChain(append(slices.Clip(k.host.common.list), own...), failed)}
	}
	return &last.chain
}

// sameSlice tells whether a and b are the same elements in the same place.
func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// stages compiles filters; failed tells that one or more could not be.
func (k *compiler) stages(owner Object, configs []filter.Config) (list []staged, failed bool) {
	if len(configs) == 0 {
		return nil, false
	}
	state, _ := k.next.identities.states.get(owner, k.next.Generation, func() *filter.State { return new(filter.State) })
	state = state.With(k.clusterFor)
	for _, c := range configs {
		f, err := compileFilter(c, state)
		if err != nil {
			k.hostProblem(owner, filterField(c, err), "%v; requests are answered 503", err)
			failed = true
			continue
		}
		list = append(list, f)
	}
	return list, failed
}

// clusterFor is named for filters: a subrequest's target.
func (k *compiler) clusterFor(id string) *upstream.Cluster {
	if c := k.named(id); c != nil {
		return c.upstream
	}
	return nil
}

// compileFilter compiles one. A panic costs only its rule: what was served goes on being served.
func compileFilter(c filter.Config, s *filter.State) (f staged, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	f.stage = c.Stage()
	f.Filter, err = c.Compile(s)
	return f, err
}

// filterField names the field at fault: what the error says it is, or the behaviour.
func filterField(c filter.Config, err error) string {
	var named interface{ Field() string }
	if errors.As(err, &named) {
		return named.Field()
	}
	name := fmt.Sprintf("%T", c)
	return strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
}
