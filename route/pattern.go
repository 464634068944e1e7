package route

import (
	"cmp"
	"encoding/binary"
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode/utf8"
)

// pattern is one path of a host in regex mode: `(?i)^<path>`.
type pattern struct {
	literal string // how every match begins, in lower case and ASCII
	whole   bool   // the literal is all there is: no need to run re
	re      *regexp.Regexp
	rule    int
}

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
	re, err := regexp.Compile(text)
	if err != nil {
		return pattern{}, err
	}
	p := pattern{re: re, rule: rule}
	if parsed, err := syntax.Parse(text, syntax.Perl); err == nil {
		p.literal, p.whole = literalOf(parsed)
	}
	return p, nil
}

// literalOf finds the literal that every match of a parsed regex begins with, and whether it is the whole regex.
func literalOf(re *syntax.Regexp) (literal string, whole bool) {
	if re.Op != syntax.OpConcat || re.Sub[0].Op != syntax.OpBeginText {
		return "", false // also an alternative beyond the anchor, as in ^/a|/b
	}
	var b []byte
	for _, sub := range re.Sub[1:] {
		if sub.Op != syntax.OpLiteral {
			return string(b), false
		}
		for _, r := range sub.Rune {
			if r >= utf8.RuneSelf {
				return string(b), false
			}
			c := lower(byte(r))
			if 'a' <= c && c <= 'z' && sub.Flags&syntax.FoldCase == 0 {
				return string(b), false // (?-i) inside: the regex has to look at the case
			}
			b = append(b, c)
		}
	}
	return string(b), true
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
	return p.whole || p.re.Match(path)
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
