package filter

import (
	"bytes"
	"fmt"
	"regexp/syntax"
	"strings"
)

// A pattern finds a rewrite's expression in a path. The shapes that manifests are full of are matched by hand, without an
// allocation; every other expression costs regexp's one.
//
//	/api             shapePrefix
//	/api(.*)         shapeRest
//	/api/?(.*)       shapeOptionalRest
//	/api(/|$)(.*)    shapeSlashRest
type pattern struct {
	shape  shape
	prefix []byte // lower case
	expr   *Expression
}

type shape uint8

const (
	shapeAny shape = iota
	shapePrefix
	shapeRest
	shapeOptionalRest
	shapeSlashRest
)

// The tails of the shapes; the longer one first where one ends like another.
var shapeTails = []struct {
	tail  string
	shape shape
}{
	{"(/|$)(.*)", shapeSlashRest},
	{"/?(.*)", shapeOptionalRest},
	{"(.*)", shapeRest},
	{"", shapePrefix},
}

// Bounds of an expression: compiling and matching it is work that its author makes for everybody.
const (
	PatternMax      = 1024  // bytes
	patternStepsMax = 1_000 // instructions, once counted repetitions are written out
)

// CheckPattern tells whether an expression is one that filters and routes may have: RE2's syntax, any case.
func CheckPattern(expr string) error {
	if len(expr) > PatternMax {
		return fmt.Errorf("the expression has %d bytes; %d is the most", len(expr), PatternMax)
	}
	if _, _, ok := shapeOf(expr); ok {
		return nil
	}
	tree, err := syntax.Parse(expr, syntax.Perl|syntax.FoldCase)
	if err != nil || !strings.Contains(expr, "{") {
		return err // without a counted repetition its size follows from its length
	}
	program, err := syntax.Compile(tree.Simplify())
	if err == nil && len(program.Inst) > patternStepsMax {
		err = fmt.Errorf("its repetitions come to %d steps; %d is the most", len(program.Inst), patternStepsMax)
	}
	return err
}

func compilePattern(expr string) (pattern, error) {
	if err := CheckPattern(expr); err != nil {
		return pattern{}, err
	}
	p := pattern{expr: NewExpression("(?i)" + expr)}
	if shape, text, ok := shapeOf(expr); ok {
		p.shape, p.prefix = shape, bytes.ToLower([]byte(text))
		return p, nil
	}
	return p, p.expr.Compile()
}

// shapeOf tells whether an expression has one of the shapes, and before its tail which text.
func shapeOf(expr string) (s shape, text string, ok bool) {
	for _, s := range shapeTails {
		if head, ok := strings.CutSuffix(expr, s.tail); ok {
			if text, ok := plainText(head); ok {
				return s.shape, text, true
			}
		}
	}
	return shapeAny, "", false
}

// plainText gives the text that expr matches if it matches only one (but for case), in ASCII.
func plainText(expr string) (string, bool) {
	text := make([]byte, 0, len(expr))
	for i := 0; i < len(expr); i++ {
		c := expr[i]
		if c == '\\' && i+1 < len(expr) && strings.IndexByte(punctuation, expr[i+1]) >= 0 {
			i++
			c = expr[i]
		} else if c >= 0x80 || strings.IndexByte(metacharacters, c) >= 0 {
			return "", false
		}
		text = append(text, c)
	}
	return string(text), true
}

const (
	metacharacters = `\.+*?()|[]{}^$`
	punctuation    = metacharacters + "-/~_#" // stands for itself behind a backslash
)

// groups are the captures of one match as offsets into the path; from == -1: the group took no part.
type groups [10]struct{ from, to int }

func (g *groups) set(i, from, to int) { g[i].from, g[i].to = from, to }

// of is the text of group i; nothing for group 0, which stands for "no group".
func (g *groups) of(path []byte, i int) []byte {
	if i == 0 || g[i].from < 0 {
		return nil
	}
	return path[g[i].from:g[i].to]
}

func (p *pattern) match(path []byte, g *groups) bool {
	if p.shape != shapeAny && hasPrefixFold(path, p.prefix) {
		if p.matchShape(path, g) {
			return true
		}
	}
	return p.matchExpr(path, g)
}

// matchShape matches at the path's start, where the expression would match first too.
func (p *pattern) matchShape(path []byte, g *groups) bool {
	at := len(p.prefix)
	switch p.shape {
	case shapeRest:
		g.set(1, at, lineEnd(path, at))
	case shapeOptionalRest:
		if at < len(path) && path[at] == '/' {
			at++
		}
		g.set(1, at, lineEnd(path, at))
	case shapeSlashRest:
		g.set(1, at, at)
		if at < len(path) {
			if path[at] != '/' {
				return false
			}
			g.set(1, at, at+1)
			at++
		}
		g.set(2, at, lineEnd(path, at))
	}
	return true
}

// lineEnd is where ".*" ends that begins at from: it does not cross a line feed.
func lineEnd(path []byte, from int) int {
	if i := bytes.IndexByte(path[from:], '\n'); i >= 0 {
		return from + i
	}
	return len(path)
}

func (p *pattern) matchExpr(path []byte, g *groups) bool {
	m := p.expr.Find(path)
	for i := 1; i < len(g) && 2*i < len(m); i++ {
		g.set(i, m[2*i], m[2*i+1])
	}
	return m != nil
}

// hasPrefixFold compares in ASCII's lower case; prefix is lower case already.
func hasPrefixFold(b, prefix []byte) bool {
	if len(b) < len(prefix) {
		return false
	}
	for i, want := range prefix {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != want {
			return false
		}
	}
	return true
}
