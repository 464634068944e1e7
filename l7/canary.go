package l7

import (
	"regexp"
	"strconv"

	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/upstream"
)

// CanaryRule says which requests a canary takes, as plain data: ingress-nginx's rules in their order.
type CanaryRule struct {
	Header  string // canary-by-header; "": none
	Value   string // canary-by-header-value: the field has to have it; "": always and never count
	Pattern string // canary-by-header-pattern: … to match this (RE2, unanchored); Value goes before it
	// PatternBroken: canary-by-header-pattern does not compile, so who has the field does not get the canary.
	PatternBroken bool
	Cookie        string // canary-by-cookie: always or never; "": none
	Weight        int    // canary-weight: of Total requests that no rule decides
	WeightTotal   int    // 0: 100
}

// Canary is another cluster that takes a part of a route's requests.
type Canary struct {
	Cluster *upstream.Cluster
	Name    string // of the backend, for the log
	Sticky  bool   // it shares the affinity of the route's own cluster; else it has none (affinity-canary-behavior: legacy)

	rule    CanaryRule
	pattern *regexp.Regexp
	share   float64
}

// NewCanary compiles a rule.
func NewCanary(c *upstream.Cluster, name string, sticky bool, rule CanaryRule) (Canary, error) {
	out := Canary{Cluster: c, Name: name, Sticky: sticky, rule: rule}
	total := rule.WeightTotal
	if total == 0 {
		total = weightTotalDefault
	}
	out.share = float64(rule.Weight) / float64(total)
	if rule.Pattern == "" || rule.Value != "" {
		return out, nil
	}
	var err error
	out.pattern, err = regexp.Compile(rule.Pattern)
	return out, err
}

const weightTotalDefault = 100

// choose finds the cluster that takes the request: the route's own or a canary's. Affinity goes before all rules: who is
// with one of them stays there. Then each canary's header and cookie rules are asked, in the order of the canaries, and
// at last one throw of the dice decides by the weights of those that did not say no.
func (x *Exchange) choose() {
	f := &x.fwd
	f.cluster = x.Route.Cluster
	f.belongs.affinity = f.cluster.Affinity()
	if len(x.Route.Canaries) == 0 || x.affinitized(f.belongs.affinity, f.cluster) {
		return
	}
	c := x.canary()
	if c == nil {
		return
	}
	f.cluster, f.canary = c.Cluster, c
	if !c.Sticky {
		f.belongs.affinity = nil
	}
}

func (x *Exchange) canary() *Canary {
	list := x.Route.Canaries
	for i := range list {
		if c := &list[i]; c.Sticky && !c.Cluster.Empty() && x.affinitized(x.fwd.belongs.affinity, c.Cluster) {
			return c
		}
	}
	var never uint64 // canaries that said no
	for i := range list {
		c := &list[i]
		takes, decided := c.Asks(x.Req.Fields)
		switch {
		case c.Cluster.Empty() || decided && !takes:
			never |= 1 << i
		case takes:
			return c
		}
	}
	dice := float64(x.local.random.Uint64()>>11) / (1 << 53)
	for i := range list {
		if never&(1<<i) == 0 {
			if dice -= list[i].share; dice < 0 {
				return &list[i]
			}
		}
	}
	return nil
}

// canaryValueMax is how long a field is that an expression is asked about, on the loop, where everybody waits for it.
const canaryValueMax = 1 << 10

// CanariesMax is how many canaries a route may have.
const CanariesMax = 64

// ShareText is the canary's part of the requests that no rule decides, for people.
func (c *Canary) ShareText() string {
	return strconv.FormatFloat(100*c.share, 'g', 4, 64) + " %"
}

// Asks tells what the canary's header and cookie rules say to a request with these fields, if they decide.
func (c *Canary) Asks(fields []wire.Field) (takes, decided bool) {
	r := &c.rule
	if r.Header != "" {
		if v := wire.GetName(fields, r.Header); v != nil {
			switch {
			case r.Value != "":
				if string(v) == r.Value {
					return true, true
				}
			case r.PatternBroken:
				return false, true
			case c.pattern != nil:
				if len(v) <= canaryValueMax && c.pattern.Match(v) {
					return true, true
				}
			default:
				if takes, decided = word(v); decided {
					return takes, true
				}
			}
		}
	}
	if r.Cookie != "" {
		return word(wire.Cookie(fields, r.Cookie, true))
	}
	return false, false
}

// word reads always and never.
func word(v []byte) (takes, decided bool) {
	switch string(v) {
	case "always":
		return true, true
	case "never":
		return false, true
	}
	return false, false
}
