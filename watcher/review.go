package watcher

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// Reviewer judges Ingresses before the cluster takes them: what would become of the state that is served if it had this one
// too. It computes with a translator and snapshots of its own, which follow the served state, so that a review costs what
// one changed Ingress costs. Nothing that serves is touched. From any goroutine; reviews come one after the other.
type Reviewer struct {
	state func() *State
	make  func() *translate.Translator
	env   route.Env

	mu         sync.Mutex
	translator *translate.Translator // nil: to be made anew
	base       *State                // what shadow is of
	shadow     *route.Snapshot
}

// A Review is a judgement of an Ingress.
type Review struct {
	Refused  []route.Problem // why the Ingress is not to be taken: it, or a path of it, would not be served
	Warnings []route.Problem // what else is wrong
}

// NewReviewer makes a Reviewer of the state that a function tells. A cluster that env makes is never asked for anything.
func NewReviewer(state func() *State, t func() *translate.Translator, env route.Env) *Reviewer {
	return &Reviewer{state: state, make: t, env: env}
}

// Review judges an Ingress that is about to be created or changed; false: there is no state yet to judge by. What other
// objects may still bring, a Service or a Secret, is no reason to refuse or to warn: they may come later.
func (r *Reviewer) Review(ing *networkingv1.Ingress) (Review, bool) {
	state := r.state()
	if state == nil {
		return Review{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	sound := false
	defer func() {
		if !sound { // a panic: what was computed halfway is of no use
			r.translator, r.base, r.shadow = nil, nil, nil
		}
	}()
	r.follow(state)
	ing = ing.DeepCopy()
	if ing.CreationTimestamp.IsZero() {
		ing.CreationTimestamp = metav1.NewTime(time.Now()) // the youngest, which no other one has to yield to
	}
	objects := state.Objects
	objects.Ingresses = replaced(objects.Ingresses, ing)
	config, problems := r.translator.Translate(&objects)
	_, more := route.Compile(config, r.shadow, r.env)
	verdict := judge(ing, r.translator, config, slices.Concat(problems, more))
	sound = true
	return verdict, true
}

// follow brings the translator and the shadow to a state.
func (r *Reviewer) follow(s *State) {
	if r.translator == nil {
		r.translator = r.make()
	}
	config, _ := r.translator.Translate(&s.Objects)
	if r.base != s || r.shadow == nil {
		r.shadow, _ = route.Compile(config, r.shadow, r.env)
		r.base = s
	}
}

// replaced is a list with an Ingress in the place of the one that has its name.
func replaced(list []*networkingv1.Ingress, ing *networkingv1.Ingress) []*networkingv1.Ingress {
	list = slices.Clone(list)
	for i, other := range list {
		if other.Namespace == ing.Namespace && other.Name == ing.Name {
			list[i] = ing
			return list
		}
	}
	return append(list, ing)
}

// judge sorts what is told of an Ingress. An Ingress of another controller is none of ours.
func judge(ing *networkingv1.Ingress, t *translate.Translator, config *route.Config, problems []route.Problem) (v Review) {
	own := t.Judge(ing.Namespace, ing.Name)
	if !own.Ours {
		return v
	}
	unserved := leadsNowhere(ing, config)
	for _, p := range problems {
		if p.Object.Kind != "Ingress" || p.Object.Namespace != ing.Namespace || p.Object.Name != ing.Name {
			continue
		}
		annotation := strings.HasPrefix(p.Field, "metadata.annotations")
		switch {
		case strings.HasPrefix(p.Field, "host "), // the compiler's: an expression, a filter
			annotation && (own.Dropped || own.Denied != "" && strings.HasPrefix(own.Denied, p.Field)),
			unserved && strings.HasPrefix(p.Field, "spec.") && slices.Contains(own.Problems, p),
			unserved && strings.HasPrefix(p.Field, "spec.rules") && !strings.Contains(p.Field, ".backend."):
			v.Refused = append(v.Refused, p)
		case slices.Contains(own.Problems, p):
			v.Warnings = append(v.Warnings, p)
		}
	}
	return v
}

// leadsNowhere tells whether a rule of an Ingress leads nowhere: no rule of its host has its path and is the Ingress's.
func leadsNowhere(ing *networkingv1.Ingress, config *route.Config) bool {
	served := map[string]bool{}
	for _, h := range config.Hosts {
		for _, r := range h.Rules {
			mine := ownedBy(r.Owner, ing)
			for _, c := range r.Canaries {
				mine = mine || ownedBy(c.Owner, ing)
			}
			if mine {
				served[fmt.Sprintf("%s %s", h.Name, r.Path)] = true
			}
		}
	}
	for _, rule := range ing.Spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		for _, p := range rule.HTTP.Paths {
			path := p.Path
			if path == "" {
				path = "/"
			}
			if !served[fmt.Sprintf("%s %s", strings.ToLower(rule.Host), path)] {
				return true
			}
		}
	}
	return false
}

func ownedBy(o route.Object, ing *networkingv1.Ingress) bool {
	return o.Name == ing.Name && o.Namespace == ing.Namespace
}
