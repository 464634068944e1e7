package route

import (
	"cmp"
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"unicode/utf8"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// pattern is one path of a host in regex mode: `(?i)^<path>`.
type pattern struct {
	literal string // how every match begins, in lower case and ASCII
	then    then   // what must follow it
	re      *filter.Expression
	rule    int
}

// then is what must follow a pattern's literal. Most patterns are a literal and captures of whatever follows, so that the
// regular expression itself need not run to know that it matches.
type then uint8

const (
	thenRegex    then = iota // what the regular expression says
	thenAnything             // /foo, /foo(.*), /foo/?(.*)
	thenElement              // /foo(/|$)(.*): a slash, or the end
)

// patterns are a host's in the order of their tries. Before any of them runs, the first eight bytes of its literal are
// compared with the path's: of a hundred patterns that leaves the few that have a chance.
type patterns struct {
	heads []head
	list  []pattern
}

// head is the first eight bytes of a literal as a number, upper and lower case made one; care has the bytes that count.
type head struct{ bytes, care uint64 }

const (
	caseBits = 0x2020202020202020 // set: upper case, and some others, look like lower case
	highBits = 0x8080808080808080
)

// newPattern compiles a path.
func newPattern(path string, rule int) (pattern, error) {
	text := "(?i)^" + path
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return pattern{}, err
	}
	p := pattern{re: filter.NewExpression(text), rule: rule}
	if p.literal, p.then = literalOf(parsed); p.then == thenRegex {
		err = p.re.Compile()
	}
	return p, err
}

// literalOf finds the literal that every match of a parsed regular expression begins with, and what must follow.
func literalOf(re *syntax.Regexp) (string, then) {
	if re.Op != syntax.OpConcat || re.Sub[0].Op != syntax.OpBeginText {
		return "", thenRegex // also an alternative beyond the anchor, as in ^/a|/b
	}
	subs, follows := re.Sub[1:], thenAnything
	for len(subs) > 0 && matchesEmpty(subs[len(subs)-1]) {
		subs = subs[:len(subs)-1] // whether it matches at all does not hang on its end
	}
	if n := len(subs); n > 0 && isElementEnd(subs[n-1]) {
		subs, follows = subs[:n-1], thenElement
	}
	var b []byte
	for _, sub := range subs {
		if sub.Op != syntax.OpLiteral {
			return string(b), thenRegex
		}
		for _, r := range sub.Rune {
			c := lower(byte(r))
			ownCase := 'a' <= c && c <= 'z' && sub.Flags&syntax.FoldCase == 0 // (?-i) inside
			if r >= utf8.RuneSelf || ownCase {
				return string(b), thenRegex
			}
			b = append(b, c)
		}
	}
	return string(b), follows
}

// matchesEmpty tells whether re certainly matches the empty text wherever it stands.
func matchesEmpty(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpStar, syntax.OpQuest:
		return true
	case syntax.OpRepeat:
		return re.Min == 0 || matchesEmpty(re.Sub[0])
	case syntax.OpCapture, syntax.OpPlus:
		return matchesEmpty(re.Sub[0])
	case syntax.OpAlternate:
		return slices.ContainsFunc(re.Sub, matchesEmpty)
	case syntax.OpConcat:
		return !slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return !matchesEmpty(sub) })
	}
	return false
}

// isElementEnd recognises (/|$).
func isElementEnd(re *syntax.Regexp) bool {
	if re.Op == syntax.OpCapture {
		re = re.Sub[0]
	}
	if re.Op != syntax.OpAlternate || len(re.Sub) != 2 {
		return false
	}
	slash, end := re.Sub[0], re.Sub[1]
	if slash.Op == syntax.OpEndText {
		slash, end = end, slash
	}
	return slash.Op == syntax.OpLiteral && string(slash.Rune) == "/" && end.Op == syntax.OpEndText
}

// newPatterns sets a host's patterns in order: longest path first, then by text descending, as ingress-nginx writes them.
// Of equal ones the first stays.
func newPatterns(list []pattern, rules []Rule) (*patterns, []lost) {
	slices.SortStableFunc(list, func(a, b pattern) int {
		x, y := rules[a.rule].Path, rules[b.rule].Path
		return cmp.Or(cmp.Compare(len(y), len(x)), cmp.Compare(y, x))
	})
	var twice []lost
	distinct := list[:0]
	for _, p := range list {
		if n := len(distinct); n > 0 && rules[distinct[n-1].rule].Path == rules[p.rule].Path {
			twice = append(twice, lost{rule: p.rule, winner: distinct[n-1].rule})
			continue
		}
		distinct = append(distinct, p)
	}
	list = distinct
	p := &patterns{list: list, heads: make([]head, len(list))}
	for i := range list {
		n := min(len(list[i].literal), 8)
		care := ^uint64(0) >> (64 - 8*n) // a shift by 64 gives 0: no literal, no filter
		p.heads[i] = head{bytes: (firstEight([]byte(list[i].literal)) | caseBits) & care, care: care}
	}
	return p, twice
}

// match answers the rule of the first pattern that takes the path, or none.
func (p *patterns) match(path []byte) int {
	eight := firstEight(path)
	// What begins at a byte over 0x7f may be a letter by Unicode's folding, in more bytes than the literal's (the Kelvin
	// sign for k): only what stands before it is filtered on.
	high := eight & highBits
	care := (high&-high)>>7 - 1 // a one in all bytes before the first such byte; without one, everywhere
	eight |= caseBits
	for i, h := range p.heads {
		if (eight^h.bytes)&h.care&care == 0 && p.list[i].takes(path) {
			return p.list[i].rule
		}
	}
	return none
}

func (p *pattern) takes(path []byte) bool {
	for i := range len(p.literal) {
		if i == len(path) {
			return false
		}
		if path[i] >= utf8.RuneSelf {
			return p.re.Match(path)
		}
		if lower(path[i]) != p.literal[i] {
			return false
		}
	}
	switch p.then {
	case thenAnything:
		return true
	case thenElement:
		return len(path) == len(p.literal) || path[len(p.literal)] == '/'
	}
	return p.re.Match(path)
}

// firstEight reads up to eight bytes, the first one lowest.
func firstEight(b []byte) uint64 {
	if len(b) >= 8 {
		return binary.LittleEndian.Uint64(b)
	}
	var n uint64
	for i, c := range b {
		n |= uint64(c) << (8 * i)
	}
	return n
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
