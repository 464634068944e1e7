package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// How a backend's endpoints are chosen.
var balanceAnnotations = []annotation{
	{
		key: "load-balance", scope: scopeIngress, risk: riskLow, verdict: same, effect: drop,
		text: "How a backend's endpoints take turns: round_robin (default, ConfigMap) or ewma. chash and chashsubset need " +
			"upstream-hash-by, sticky_balanced and sticky_persistent need affinity, all of which decide without this. The oldest Ingress that names a backend decides.",
		parse: parseLoadBalance,
	},
	{
		key: "load-balance", own: true, scope: scopeIngress, risk: riskLow, verdict: own,
		text: "Like ingress-nginx's load-balance, over which it wins: round_robin, ewma, least_conn (the endpoint with the fewest " +
			"requests under way) or random_two (of two drawn by chance the one with fewer).",
		parse: func(d *dialect, value string) error {
			a, ok := ownAlgorithms[value]
			if !ok {
				return fmt.Errorf("%q is not one of round_robin, ewma, least_conn, random_two", value)
			}
			d.algorithm, d.ownAlgorithm = &a, true
			return nil
		},
	},
	{
		key: "upstream-hash-by", scope: scopeIngress, risk: riskHigh, verdict: differs, effect: drop,
		text: "Requests for which this text is the same go to the same endpoint (consistent hash: nginx's and ingress-nginx's ketama, key for key). It " +
			"may hold variables: " + upstream.Variables + ". It wins over load-balance, affinity wins over it.",
		note: "Other variables are refused. Fields are those that the backend gets: $http_x_forwarded_for is what the proxy says.",
		parse: func(d *dialect, value string) error {
			if value == "" {
				return &refusal{ignore, "the text is empty"}
			}
			for _, c := range []byte(value) {
				if !alphanumeric(c) && strings.IndexByte("-_${}", c) < 0 {
					return fmt.Errorf("%q holds other characters than letters, digits and -_${}", value)
				}
			}
			if _, err := upstream.ParseKey(value); err != nil {
				return &refusal{ignore, err.Error()}
			}
			d.hashBy = value
			return nil
		},
	},
	{
		key: "upstream-hash-by-subset", scope: scopeIngress, risk: riskLow, verdict: same, effect: drop,
		text:  "true: a hash leads to a group of endpoints, of which chance takes one.",
		parse: onOff(func(d *dialect) *bool { return &d.hashSubset }),
	},
	{
		key: "upstream-hash-by-subset-size", scope: scopeIngress, risk: riskLow, verdict: same, effect: drop,
		text: "How many endpoints such a group has; default 3.",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 0, subsetMax)
			if err == nil && n > 0 {
				d.hashSubsetSize = n
			}
			return err
		},
	},
	{
		key: "hash-balance", own: true, scope: scopeIngress, risk: riskLow, verdict: own,
		text: "With upstream-hash-by: per cent of the mean number of requests under way that an endpoint may have, as 125; beyond it the next one on " +
			"the ring is asked (consistent hashing with bounded loads). Default: no bound.",
		parse: func(d *dialect, value string) error {
			n, err := parseInt(value, 101, hashBalanceMax)
			if err == nil {
				d.hashBalance = n
			}
			return err
		},
	},
}

const (
	subsetMax      = 1000   // upstream-hash-by-subset-size
	hashBalanceMax = 10_000 // per cent
)

// needs are the values of load-balance that mean nothing without another annotation.
var needs = map[string]string{
	"chash": "upstream-hash-by", "chashsubset": "upstream-hash-by",
	"sticky_balanced": "affinity", "sticky_persistent": "affinity",
}

func parseLoadBalance(d *dialect, value string) error {
	a, ok := algorithms[value]
	switch {
	case value == "":
		return &refusal{ignore, "the name is empty"}
	case needs[value] != "":
		d.balanceNeeds = needs[value]
		return nil
	case !ok:
		return fmt.Errorf("%q is not one of round_robin, ewma, chash, chashsubset, sticky_balanced, sticky_persistent", value)
	}
	if !d.ownAlgorithm {
		d.algorithm = &a
	}
	return nil
}

// settleBalance reports a load-balance without the annotation that it needs.
func (f *fragment) settleBalance(prefix string) {
	d := &f.dialect
	if d.balanceNeeds == "upstream-hash-by" && d.hashBy == "" || d.balanceNeeds == "affinity" && !d.sticky {
		f.refuse(annotationField(prefix+"/load-balance"), "means nothing without %s/%s; the default holds", prefix, d.balanceNeeds)
	}
}

// clusterBalance is the algorithm that the oldest Ingress asks for which names the cluster and wants one.
func (t *Translator) clusterBalance(c *cluster, s *upstream.Settings) []route.Problem {
	prefix := t.options.AnnotationsPrefix
	var problems []route.Problem
	if chooser := c.chooser(func(d *dialect) bool { return d.algorithm != nil }); chooser != nil {
		s.Algorithm = *chooser.dialect.algorithm
		problems = append(problems, c.late(chooser, func(d *dialect) (string, bool) {
			key := prefix + "/load-balance"
			if d.ownAlgorithm {
				key = ownPrefix + "/load-balance"
			}
			return key, d.algorithm != nil && *d.algorithm != s.Algorithm
		})...)
	}
	if chooser := c.chooser(func(d *dialect) bool { return d.hashBy != "" }); chooser != nil {
		d := &chooser.dialect
		s.Algorithm, s.HashBy, s.HashBalance = upstream.ConsistentHash, d.hashBy, d.hashBalance
		if d.hashSubset {
			s.Subset = d.hashSubsetSize
		}
		problems = append(problems, c.late(chooser, func(o *dialect) (string, bool) {
			return prefix + "/upstream-hash-by", o.hashBy != "" && o.hashBy != d.hashBy
		})...)
	}
	if s.Affinity != nil {
		chooser := c.chooser(func(d *dialect) bool { return d.sticky })
		problems = append(problems, c.late(chooser, func(d *dialect) (string, bool) {
			return prefix + "/affinity", d.sticky && d.affinity != *s.Affinity
		})...)
	}
	return problems
}

// chooser is the oldest Ingress that names the cluster and for which has holds; nil: there is none.
func (c *cluster) chooser(has func(*dialect) bool) *fragment {
	var first *fragment
	for i := range c.uses {
		if f := c.uses[i].fragment; f != nil && has(&f.dialect) && (first == nil || older(f, first) < 0) {
			first = f
		}
	}
	return first
}

// late are the Problems of Ingresses that name the cluster and ask for something else than the chooser did.
func (c *cluster) late(chooser *fragment, other func(*dialect) (key string, differs bool)) (problems []route.Problem) {
	for i := range c.uses {
		f := c.uses[i].fragment
		if f == nil || f == chooser {
			continue
		}
		if key, differs := other(&f.dialect); differs {
			problems = append(problems, problem(f.owner, annotationField(key),
				"is ignored for Service %s: Ingress %s/%s names it too, comes first and chose another", c.service, chooser.ing.Namespace, chooser.ing.Name))
		}
	}
	return slices.Compact(problems)
}
