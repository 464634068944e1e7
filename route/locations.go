package route

import (
	"cmp"
	"slices"
	"strings"
)

// locations turns a host's rules into the texts of its trie, as ingress-nginx turns them into nginx's locations; the
// package comment has the rules of precedence. It is pure: a rule is its number in the VirtualHost.
type locations struct {
	entries []entry    // one per text: rules by number
	moved   []redirect // texts that lead to a 301
	lost    []lost     // rules that another one leaves nothing to
	order   []int
	spilled []entry
}

// redirect is a text that answers 301 to the same with a slash, which is a path of rule.
type redirect struct {
	text string
	rule int
}

type lost struct{ rule, winner int }

// arrange fills l from those rules that usable names. What it fills is good until the next call.
func (l *locations) arrange(rules []Rule, usable []int, ignoreSlash bool) {
	l.entries, l.moved, l.lost, l.spilled = l.entries[:0], l.moved[:0], l.lost[:0], l.spilled[:0]
	l.order = append(l.order[:0], usable...)
	slices.SortStableFunc(l.order, func(a, b int) int { return cmp.Compare(rules[a].Path, rules[b].Path) })
	for order := l.order; len(order) > 0; {
		same := 1
		for same < len(order) && rules[order[same]].Path == rules[order[0]].Path {
			same++
		}
		l.add(rules[order[0]].Path, l.firsts(rules, order[:same]))
		order = order[same:]
	}
	if ignoreSlash {
		l.addSlashless(rules)
	} else {
		l.addRedirects()
	}
	l.addSpilled()
}

// firsts picks the first rule of each type; later ones are lost.
func (l *locations) firsts(rules []Rule, same []int) [Implementation + 1]int {
	first := [...]int{Exact: none, Prefix: none, Implementation: none}
	for _, rule := range same {
		if t := rules[rule].Type; first[t] == none {
			first[t] = rule
		} else {
			l.lost = append(l.lost, lost{rule: rule, winner: first[t]})
		}
	}
	return first
}

// add makes the entry of one text.
func (l *locations) add(text string, first [Implementation + 1]int) {
	exact, prefix, begin := first[Exact], first[Prefix], first[Implementation]
	slash := strings.HasSuffix(text, "/")
	e := entry{text: text, here: exact, below: none}
	switch {
	case prefix == none && begin == none:
	case begin == none:
		e.below, e.any = prefix, slash
	case prefix == none:
		e.below, e.any = begin, true
	case begin < prefix:
		e.below, e.any = begin, true
		l.lost = append(l.lost, lost{rule: prefix, winner: begin})
	case slash:
		e.below, e.any = prefix, true
		l.lost = append(l.lost, lost{rule: begin, winner: prefix})
	default:
		// The Prefix has the text itself and what goes on with a slash; the other has the rest.
		e.below, e.any = begin, true
		if e.here == none {
			e.here = prefix
		}
		l.spilled = append(l.spilled, entry{text: text + "/", here: prefix, below: prefix, any: true})
	}
	if e.here == none {
		e.here = e.below
	}
	l.entries = append(l.entries, e)
}

// addRedirects finds the texts that only want a slash to be a rule's path. Two slashes at the end have none: no request
// has such a path, and the redirect would lead to itself.
func (l *locations) addRedirects() {
	for _, e := range l.entries {
		if short, ok := l.slashless(e); ok {
			l.moved = append(l.moved, redirect{text: short, rule: e.here})
		}
	}
}

// addSlashless is addRedirects for a host that ignores the slash at the end of a Prefix, as the API has it: the Prefix takes
// the path without.
func (l *locations) addSlashless(rules []Rule) {
	for _, e := range l.entries {
		if short, ok := l.slashless(e); ok && e.below != none && rules[e.below].Type == Prefix {
			l.spilled = append(l.spilled, entry{text: short, here: e.below, below: none})
		}
	}
}

// slashless is the text without the slash at its end; false: it has none, or another rule has that text.
func (l *locations) slashless(e entry) (string, bool) {
	short, ok := strings.CutSuffix(e.text, "/")
	if !ok || short == "" || strings.HasSuffix(short, "/") {
		return "", false
	}
	_, taken := find(l.entries, short)
	return short, !taken
}

// addSpilled adds what a Prefix takes beyond its slash, unless a rule with the slash in its path has it.
func (l *locations) addSpilled() {
	sorted := len(l.entries)
	for _, s := range l.spilled {
		if i, ok := find(l.entries[:sorted], s.text); !ok {
			l.entries = append(l.entries, s)
		} else if e := &l.entries[i]; e.below == none {
			e.below, e.any = s.below, true
		}
	}
}

func find(entries []entry, text string) (int, bool) {
	return slices.BinarySearchFunc(entries, text, func(e entry, text string) int { return cmp.Compare(e.text, text) })
}
