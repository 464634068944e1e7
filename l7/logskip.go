package l7

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// logSkipMax bounds the entries of a LogSkip.
const logSkipMax = 256

// LogSkip is which targets are not logged (skip-access-log-urls), as a map of nginx over $request_uri finds them. Immutable.
type LogSkip struct {
	source      []string
	texts       []string
	expressions []*regexp.Regexp
}

// ParseLogSkip reads the entries: whole targets with their query, in any case, or expressions (RE2) after ~, in any case after
// ~*. What is good of it holds beside an error.
func ParseLogSkip(entries []string) (s *LogSkip, err error) {
	if len(entries) > logSkipMax {
		err, entries = fmt.Errorf("more than %d entries", logSkipMax), entries[:logSkipMax]
	}
	s = &LogSkip{source: entries}
	for _, e := range entries {
		expression, ok := strings.CutPrefix(e, "~")
		if !ok {
			s.texts = append(s.texts, strings.TrimPrefix(e, `\`)) // nginx's way to begin a text with ~
			continue
		}
		if folded, ok := strings.CutPrefix(expression, "*"); ok {
			expression = "(?i)" + folded
		}
		re, bad := regexp.Compile(expression)
		if bad != nil {
			err = fmt.Errorf("%q: %w", e, bad)
			continue
		}
		s.expressions = append(s.expressions, re)
	}
	return s, err
}

// String is the entries as they were written.
func (s *LogSkip) String() string { return strings.Join(s.source, ", ") }

func (s *LogSkip) has(target []byte) bool {
	for _, t := range s.texts {
		if len(t) == len(target) && wire.EqualFold(target, []byte(t)) {
			return true
		}
	}
	for _, e := range s.expressions {
		if e.Match(target) {
			return true
		}
	}
	return false
}
